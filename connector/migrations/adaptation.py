"""Makes a migration that was written for a Supabase of one's own one for a project's slice.

What is rewritten, and nothing else:
    - the schema ``public`` becomes the project's, wherever it stands as a schema: in names, in search paths, in the
      text of functions, in strings that name an object or are compared with a schema's name. An object that an
      extension brought is named where the extension is;
    - Supabase's roles, and the superuser's, become the project's own, also where a policy compares the role of a
      request with one: ``auth.role() = 'authenticated'`` would never be true here;
    - a question to the catalogue that names an object without its schema is asked of the project's schema, because
      another project's object would answer it;
    - ``grant all`` on tables to what users act as becomes the four rights on rows, because TRUNCATE passes
      row-level security by.
Left out is what has no effect here: a schema or an extension that is there already, default privileges and rights on
the schema itself, which the data plane declares, and whatever the caller chose not to have.

The text around it stays as it is, comments and line breaks too, so that the change can be shown as a diff; lines keep
their numbers. The result is parsed and looked at again: what could not be adapted is found there.
"""

import itertools
import re
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from pglast import ast, enums
from pglast.parser import ParseError, Token
from pglast.visitors import Ancestor, Visitor

from components.naming import AccessLevel
from connector.migrations.boundaries import Boundary, Finding, Scope, bodies_of, findings_in, role_here
from connector.migrations.catalogue_lookups import unscoped_lookups
from connector.migrations.literals import compared_roles, named_objects
from connector.migrations.script import Statement, tokens_of

__all__ = ["Adapted", "adapted"]

_ROW_RIGHTS = "SELECT, INSERT, UPDATE, DELETE"
_DOT = "ASCII_46"
_SCHEMA_COLUMNS = frozenset(
    {
        "schemaname",
        "table_schema",
        "schema_name",
        "nspname",
        "routine_schema",
        "constraint_schema",
        "trigger_schema",
        "sequence_schema",
        "specific_schema",
        "event_object_schema",
        "udt_schema",
        "view_schema",
    }
)
"""Columns of the catalogues that hold the name of a schema."""
_PUBLIC_NAME = re.compile(r"""(?<![\w.$/@:%-])(?:"public"|public)\.(?=["\w%])""")
"""The schema in front of a name, within a string."""
_COMPARED = frozenset({"ASCII_61", "NOT_EQUALS", "IN_P", "ASCII_40", "ASCII_44"})
_LIST = frozenset({"ASCII_44", "SCONST"})


@dataclass(frozen=True)
class Adapted:
    """A statement after its adaptation."""

    statement: Statement
    left_out: str | None
    """Why it is not run; None if it is."""
    findings: list[Finding]
    """What of it still reaches over a boundary."""


@dataclass(frozen=True)
class _Edit:
    begin: int
    end: int
    text: str


def adapted(statement: Statement, scope: Scope, leave_out: AbstractSet[Boundary] = frozenset()) -> Adapted:
    """A statement as it is run in a project's slice.

    Args:
        leave_out: boundaries whose statements are not run at all.
    """
    reason = _without_effect(statement.node, scope)
    if reason is not None:
        return Adapted(statement, reason, [])
    edits = [*_roles(statement.node, scope), *_rights(statement, scope), *_words(statement.text, scope)]
    edits += [*_strings(statement.text, scope, set(bodies_of(statement.node)), within_code=False)]
    changed = replace(statement, text=_edited(statement.text, edits))
    try:
        findings = findings_in(changed, scope)
    except ParseError:
        findings = [Finding(Boundary.PUBLIC, "a statement that cannot be adapted", statement.line)]
    chosen = [finding for finding in findings if finding.boundary in leave_out]
    if chosen:
        return Adapted(statement, f"{chosen[0].what} (--leave-out {chosen[0].boundary.value})", [])
    return Adapted(changed, None, findings)


def _without_effect(node: ast.Node, scope: Scope) -> str | None:
    """Why a statement need not be run in a project's slice."""
    match node:
        case ast.CreateSchemaStmt(schemaname="public"):
            return "the project's schema is there"
        case ast.CommentStmt(objtype=enums.ObjectType.OBJECT_SCHEMA):
            return "the data plane comments on schemas" if _sval(node.object) == "public" else None
        case ast.CreateExtensionStmt(extname=str(name)) if name in scope.extensions:
            return f"the database has extension {name}, in schema {scope.extensions[name]}"
        case ast.CommentStmt(objtype=enums.ObjectType.OBJECT_EXTENSION):
            return "extensions are the central stack's"
        case ast.AlterDefaultPrivilegesStmt():
            return "the data plane declares default privileges"
        case ast.GrantStmt(objtype=enums.ObjectType.OBJECT_SCHEMA):
            of_own = all(_sval(word) in {"public", scope.names.schema} for word in node.objects or ())
            return "the data plane declares who may use the schema" if of_own else None
        case ast.AlterOwnerStmt(objectType=enums.ObjectType.OBJECT_SCHEMA):
            return "the project's owner owns its schema" if _sval(node.object) == "public" else None
    return None


def _roles(node: ast.Node, scope: Scope) -> Iterator[_Edit]:
    found = _RoleSpecs()
    found(node)
    for role in found.specs:
        own = role_here(role.rolename, scope) if role.rolename else None
        if own is not None and role.location is not None:
            # Its length in the text is found with the tokens: it may be quoted.
            yield _Edit(role.location, -1, own)


def _rights(statement: Statement, scope: Scope) -> Iterator[_Edit]:
    node = statement.node
    if not isinstance(node, ast.GrantStmt) or not node.is_grant or node.privileges is not None:
        return
    if node.objtype != enums.ObjectType.OBJECT_TABLE:
        return
    names = {role.rolename for role in node.grantees or ()}
    users = {"anon", "authenticated"} | {
        scope.names.role(level) for level in (AccessLevel.ANON, AccessLevel.AUTHENTICATED)
    }
    if not names & users:
        return
    tokens = tokens_of(statement.text)
    for first, second in itertools.pairwise(tokens):
        if first.name == "ALL":
            end = second.end if second.name == "PRIVILEGES" else first.end
            yield _Edit(first.start, end + 1, _ROW_RIGHTS)
            return


def _schemas(text: str, scope: Scope) -> Iterator[_Edit]:
    """``public`` where it is a schema, token by token."""
    tokens = tokens_of(text)
    for place, token in enumerate(tokens):
        if not _is_public(text, token):
            continue
        before = tokens[place - 1] if place else None
        after = tokens[place + 1] if place + 1 < len(tokens) else None
        if after is not None and after.name == _DOT and (before is None or before.name != _DOT):
            thing = tokens[place + 2] if place + 2 < len(tokens) else None
            name = text[thing.start : thing.end + 1].strip('"') if thing is not None else ""
            yield _Edit(token.start, token.end + 1, scope.extension_objects.get(name, scope.names.schema))
        elif _follows_schema(tokens, place) or _in_search_path(text, tokens, place):
            yield _Edit(token.start, token.end + 1, scope.names.schema)


def _words(text: str, scope: Scope) -> Iterator[_Edit]:
    """What is no string, or is one that names a role."""
    yield from _schemas(text, scope)
    for token, name in compared_roles(text):
        yield _Edit(token.start, token.end + 1, f"'{role_here(name, scope)}'")
    for lookup in unscoped_lookups(text):
        if lookup.name not in scope.extension_objects:
            yield _Edit(lookup.begin, lookup.end, lookup.within(scope.names.schema))


def _strings(text: str, scope: Scope, bodies: AbstractSet[str], *, within_code: bool) -> Iterator[_Edit]:
    """``public`` within strings: the text of functions, and strings that name an object or a schema."""
    tokens = tokens_of(text)
    names = {token.start for token, _ in named_objects(text)}
    for place, token in enumerate(tokens):
        if token.name != "SCONST":
            continue
        quoted = text[token.start : token.end + 1]
        opening, content, closing = _unquoted(quoted)
        if content in bodies or (opening.startswith("$") and (within_code or bodies)):
            inner = content
            inner_edits = [*_words(inner, scope), *_strings(inner, scope, frozenset(), within_code=True)]
            changed = _edited(inner, inner_edits)
        elif _names_a_schema(text, tokens, place):
            changed = re.sub(r'(?<![\w.])"?public"?(?![\w.])', scope.names.schema, content)
        elif token.start in names or within_code:
            # In code, a string may be a statement to be run: EXECUTE, format().
            changed = _PUBLIC_NAME.sub(f"{scope.names.schema}.", content)
        else:
            continue
        if changed != content:
            yield _Edit(token.start, token.end + 1, opening + changed + closing)


def _names_a_schema(text: str, tokens: list[Token], place: int) -> bool:
    """Whether a string is compared with a column that holds a schema's name, or is a search path."""
    if _in_search_path(text, tokens, place) or _follows_schema(tokens, place):
        return True
    steps = place
    while steps and tokens[steps - 1].name in _COMPARED | _LIST:
        steps -= 1
    if steps == place or not steps:
        return False
    before = tokens[steps - 1]
    word = text[before.start : before.end + 1].strip('"').lower()
    if word in _SCHEMA_COLUMNS:
        return True
    # set_config('search_path', '…', …)
    calls = [text[token.start : token.end + 1].lower() for token in tokens[max(0, place - 4) : place]]
    return calls[-4:] == ["set_config", "(", "'search_path'", ","]


def _follows_schema(tokens: list[Token], place: int) -> bool:
    """Whether a word stands in a list after SCHEMA, as in ``in schema public, x``."""
    while place and tokens[place - 1].name in {"ASCII_44", "IF_P", "NOT", "EXISTS"}:
        place -= 1 if tokens[place - 1].name != "ASCII_44" else 2
    return place > 0 and tokens[place - 1].name == "SCHEMA"


def _in_search_path(text: str, tokens: list[Token], place: int) -> bool:
    """Whether a word or string stands in the list of ``set search_path = a, b``."""
    while place >= 2 and tokens[place - 1].name == "ASCII_44":
        place -= 2
    if place < 2 or tokens[place - 1].name not in {"ASCII_61", "TO"}:
        return False
    setting = tokens[place - 2]
    return text[setting.start : setting.end + 1].strip('"').lower() == "search_path"


def _is_public(text: str, token: Token) -> bool:
    return text[token.start : token.end + 1] in {'"public"', "public", "PUBLIC", "Public"} and token.name == "IDENT"


def _unquoted(quoted: str) -> tuple[str, str, str]:
    """The opening quote, what is between, and the closing one."""
    if quoted.startswith("$"):
        tag = quoted[: quoted.index("$", 1) + 1]
        return tag, quoted[len(tag) : -len(tag)], tag
    begin = quoted.index("'") + 1
    return quoted[:begin], quoted[begin:-1], "'"


def _edited(text: str, edits: list[_Edit]) -> str:
    """The text with every edit made. An edit without an end replaces the token that begins there."""
    ends = {token.start: token.end + 1 for token in tokens_of(text)} if any(edit.end < 0 for edit in edits) else {}
    for edit in sorted(edits, key=lambda edit: edit.begin, reverse=True):
        end = edit.end if edit.end >= 0 else ends[edit.begin]
        text = text[: edit.begin] + edit.text + text[end:]
    return text


def _sval(node: object) -> str | None:
    return node.sval if isinstance(node, ast.String) else None


class _RoleSpecs(Visitor):
    def __init__(self) -> None:
        self.specs: list[ast.RoleSpec] = []

    def visit_RoleSpec(self, ancestors: Ancestor, node: ast.RoleSpec) -> None:  # noqa: N802
        if node.roletype == enums.RoleSpecType.ROLESPEC_CSTRING:
            self.specs.append(node)
