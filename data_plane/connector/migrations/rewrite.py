"""Makes a migration that was written for a standalone Supabase one for a project's slice.

What becomes of a whole statement the rules say (``own_schemas``, ``storage_rules``, ``publications``, ``extensions``);
what becomes of the names in it ``schema_names``, ``rights``, ``jobs`` and ``catalog_lookups``. The texts of functions
and what they execute are rewritten as the statements around them are.

The text around it stays as it is, comments and line breaks too, so that the change can be shown as a diff; lines keep
their numbers. The result is parsed and looked at again: what could not be adapted is found there.
"""

import contextlib
import re
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from pglast import ast, parse_sql
from pglast.parser import ParseError, Token

from data_plane.connector.migrations.buckets import bucket_rule
from data_plane.connector.migrations.catalog_lookups import unscoped_lookups
from data_plane.connector.migrations.edits import Edit, Kind, edited, quoted_name, string_parts
from data_plane.connector.migrations.extension_rule import extension_rule
from data_plane.connector.migrations.function_texts import (
    bodies_of,
    embedded_statements,
    executed_strings,
    is_statement,
    strings_in,
)
from data_plane.connector.migrations.jobs import job_edits, job_rule, job_texts
from data_plane.connector.migrations.literals import named_objects
from data_plane.connector.migrations.own_schemas import schema_rule
from data_plane.connector.migrations.publications import is_published_text, publication_rule
from data_plane.connector.migrations.read_only import declared_stable
from data_plane.connector.migrations.rewritten import Original, RewriteRule, Rewritten
from data_plane.connector.migrations.rights import (
    compared_role_edits,
    right_edits,
    rights_rule,
    role_edits,
    without_declared,
)
from data_plane.connector.migrations.rules import findings_in
from data_plane.connector.migrations.schema_names import names_a_schema, schema_edits, schema_word
from data_plane.connector.migrations.scope import Finding, Rule, Scope
from data_plane.connector.migrations.script import Statement, parsed, tokens_of
from data_plane.connector.migrations.storage_rules import storage_rule
from data_plane.connector.migrations.topic_rules import topic_rule, topic_table_rule

__all__ = ["RewrittenStatement", "rewritten"]

RULES: tuple[RewriteRule, ...] = (
    schema_rule,
    rights_rule,
    extension_rule,
    publication_rule,
    storage_rule,
    topic_table_rule,
    job_rule,
)
"""What becomes of whole statements: the first that is about one says it."""
RULES_ON_NAMES: tuple[RewriteRule, ...] = (topic_rule, bucket_rule)
"""The same of statements in which names are the project's own already: their expressions are handed on."""

_NAME = re.compile(r"""(?<![\w.$/@:%-])("?)([a-z_][a-z0-9_]*)\1\.(?=("?)([\w%]*))""")
"""A schema in front of a name, within a string."""
_SPECIFIER = re.compile(r"%(?:(\d+)\$)?-?\d*([ILs%])")
_OF_FORMAT = "of_format_"


@dataclass(frozen=True)
class RewrittenStatement:
    """A statement after its adaptation."""

    statement: Statement
    left_out: str | None
    """Why it is not run; None if it is."""
    findings: list[Finding]
    """What of it still reaches over a boundary."""
    kinds: tuple[Kind, ...] = ()
    """What was adapted in it."""


def rewritten(statement: Statement, scope: Scope, leave_out: AbstractSet[Rule] = frozenset()) -> RewrittenStatement:
    """A statement as it is run in a project's slice.

    Args:
        leave_out: boundaries whose statements are not run at all.
    """
    result = _rewritten(statement.text, statement.node, scope)
    if result.text is None:
        return RewrittenStatement(statement, result.reason, [], result.kinds)
    text, kinds = result.text, result.kinds
    if scope.judge is not None and isinstance(statement.node, ast.CreateFunctionStmt):
        with contextlib.suppress(ParseError):
            if (stable := declared_stable(text, scope.judge)) is not None:
                text, kinds = stable, (*kinds, Kind.STABLE)
    changed = replace(statement, text=text)
    try:
        findings = findings_in(changed, scope)
    except ParseError:
        findings = [Finding(Rule.PUBLIC, "a statement that cannot be adapted", statement.line)]
    chosen = [finding for finding in findings if finding.rule in leave_out]
    if chosen:
        reason = f"{chosen[0].what} (--leave-out {chosen[0].rule.value})"
        return RewrittenStatement(statement, reason, [], (Kind.CHOSEN,))
    return RewrittenStatement(changed, None, findings, kinds)


def _rewritten(text: str, node: ast.Node, scope: Scope) -> Rewritten:
    """What is run instead of a statement of SQL."""
    if (own := without_declared(text, node, scope)) != text:
        result = _as_long(_renamed(own, parsed(own), scope), text)
        return replace(result, kinds=(*result.kinds, Kind.DEFAULTS))
    if (ruled := _ruled(text, node, scope)) is not None:
        return ruled
    renamed = _renamed(text, node, scope)
    if not isinstance(node, ast.CreatePolicyStmt | ast.InsertStmt | ast.UpdateStmt):
        return renamed
    text = str(renamed.text)
    try:
        original = Original(parsed(text), text, scope)
    except ParseError:
        return renamed
    declared = next((found for rule in RULES_ON_NAMES if (found := rule(original)) is not None), None)
    return renamed if declared is None else _as_long(replace(declared, kinds=(*renamed.kinds, *declared.kinds)), text)


def _ruled(text: str, node: ast.Node, scope: Scope) -> Rewritten | None:
    """The same if it is another statement; lines keep their numbers."""
    original = Original(node, text, scope)
    result = next((found for rule in RULES if (found := rule(original)) is not None), None)
    if result is None or result.text is None:
        return result
    return _as_long(result, text)


def _as_long(result: Rewritten, text: str) -> Rewritten:
    made = str(result.text)
    return replace(result, text=made + "\n" * (text.count("\n") - made.count("\n")))


def _renamed(text: str, node: ast.Node, scope: Scope) -> Rewritten:
    """The same if it is this statement with other names in it."""
    bodies = frozenset(bodies_of(node))
    edits = [*role_edits(node, scope), *right_edits(node, text, scope), *_name_edits(text, scope)]
    edits += _string_edits(text, scope, bodies=bodies, declaration=text if bodies else None)
    return Rewritten(edited(text, edits), tuple(kind for edit in edits for kind in edit.kinds))


def _name_edits(text: str, scope: Scope, declaration: str | None = None) -> Iterator[Edit]:
    """What is no string, or is one that names a role."""
    yield from schema_edits(text, scope, declaration)
    yield from compared_role_edits(text, scope)
    yield from job_edits(text)
    for lookup in unscoped_lookups(text):
        if lookup.name not in scope.extension_objects:
            yield Edit(lookup.begin, lookup.end, lookup.within(scope.own_schemas), (Kind.CATALOGUE,))


def _string_edits(
    text: str, scope: Scope, *, bodies: AbstractSet[str] = frozenset(), declaration: str | None, code: bool = False
) -> Iterator[Edit]:
    """Names within strings: the text of functions, and strings that name an object or a schema.

    Args:
        bodies: the strings that are texts of functions.
        declaration: the statement that makes the function.
        code: whether the text is that of a function.
    """
    tokens = tokens_of(text)
    objects = {token.start for token, _ in named_objects(text)}
    commands = {token.start for token in job_texts(text)}
    run = {token.start for _, _, token in executed_strings(text)} if code else set()
    for place, token in enumerate(tokens):
        if token.name != "SCONST":
            continue
        opening, content, closing = string_parts(text[token.start : token.end + 1])
        plain = opening == "'"
        value = content.replace("''", "'") if plain else content
        dollars = opening.startswith("$")
        kinds: tuple[Kind, ...] = ()
        if value in bodies or (dollars and (code or bool(bodies))):
            value, kinds = _code(value, scope, declaration, plpgsql=token.start not in run)
        elif token.start in commands and (plain or dollars):
            value, kinds = _code(value, scope, None, plpgsql=False)
        elif names_a_schema(text, tokens, place):
            value, kinds = _schema_string(text, tokens, value, scope)
        elif token.start in objects:
            value, kinds = _names_in(value, scope)
        elif code and plain:
            value, kinds = _string_of_code(text, tokens, place, value, scope, run=token.start in run)
        elif code:
            value, kinds = _names_in(value, scope, only_public=True)
        if kinds:
            yield Edit(token.start, token.end + 1, opening + _escaped(value, plain=plain) + closing, kinds)


def _escaped(value: str, *, plain: bool) -> str:
    return value.replace("'", "''") if plain else value


def _code(text: str, scope: Scope, declaration: str | None, *, plpgsql: bool) -> tuple[str, tuple[Kind, ...]]:
    """The text of a function, or what one executes."""
    if plpgsql and declaration is not None:
        plpgsql = bool(re.search(r"\blanguage\s+'?\"?plpgsql|^\s*do\b", _head(declaration), re.IGNORECASE))
    edits = []
    for item in embedded_statements(text):
        result = _rewritten(item.text, item.node, scope)
        replacement = _within(result.text, item.text, plpgsql=plpgsql)
        if result.kinds:
            edits.append(Edit(item.begin, item.end, replacement, result.kinds))
    for begin, end, token in executed_strings(text):
        further = strings_in(text[token.end + 1 : end])
        published = is_published_text(string_parts(text[token.start : token.end + 1])[1])
        if plpgsql and published and not any(";" in string for string in further):
            edits.append(Edit(begin, end, "null" + "\n" * text.count("\n", begin, end), (Kind.PUBLICATIONS,)))
    spans = [(item.begin, item.end) for item in embedded_statements(text)]
    spans += [(edit.begin, edit.end) for edit in edits]
    others = [*_name_edits(text, scope, declaration), *_string_edits(text, scope, declaration=declaration, code=True)]
    edits += [edit for edit in others if not any(begin <= edit.begin < end for begin, end in spans)]
    return edited(text, edits), tuple(kind for edit in edits for kind in edit.kinds)


def _head(declaration: str) -> str:
    """A statement without its strings: `as $$ … $$` may have anything in it."""
    text = declaration
    for token in reversed(tokens_of(declaration)):
        if token.name == "SCONST" and token.end - token.start > len("'plpgsql'"):
            text = text[: token.start] + text[token.end + 1 :]
    return text


def _within(replacement: str | None, original: str, *, plpgsql: bool) -> str:
    """A rewritten statement as it stands in a function: plpgsql wants PERFORM where nobody takes what comes back."""
    if replacement is None:
        return ("null" if plpgsql else "select 1") + "\n" * original.count("\n")
    if plpgsql and replacement.startswith("select "):
        return "perform" + replacement.removeprefix("select")
    return replacement


def _schema_string(text: str, tokens: list[Token], value: str, scope: Scope) -> tuple[str, tuple[Kind, ...]]:
    around = {text[token.start : token.end + 1].lower() for token in tokens}
    path = "search_path" in around or '"search_path"' in around or "'search_path'" in around
    if value == "auth" and not path and "'users'" in around and scope.has_users:
        return scope.users, (Kind.USERS,)
    return schema_word(value, scope, path=path)


def _string_of_code(
    text: str, tokens: list[Token], place: int, value: str, scope: Scope, *, run: bool
) -> tuple[str, tuple[Kind, ...]]:
    """A string in a function: it may be a statement, or the format of one."""
    words = [text[token.start : token.end + 1].lower() for token in tokens[max(0, place - 2) : place]]
    if words == ["format", "("]:
        read = _format(value, scope)
        return read if read is not None else _names_in(value, scope)
    if run:
        try:
            parse_sql(value)
        except ParseError:
            return _names_in(value, scope)
        return _code(value, scope, None, plpgsql=False)
    if value in {"public", *scope.further} and _is_format_argument(text, tokens, place):
        return scope.schema_here(value) or value, (Kind.PUBLIC if value == "public" else Kind.SCHEMAS,)
    return _names_in(value, scope, only_public=not is_statement(value))


def _is_format_argument(text: str, tokens: list[Token], place: int) -> bool:
    """Whether a string is given to a ``format`` that begins with ``%I``: the name of a schema."""
    depth = 0
    for at in range(place - 1, 0, -1):
        depth += {")": 1, "(": -1}.get(text[tokens[at].start : tokens[at].end + 1], 0)
        if depth < 0:
            called = text[tokens[at - 1].start : tokens[at - 1].end + 1].lower() == "format"
            return called and "%I." in text[tokens[at + 1].start : tokens[at + 1].end + 1]
    return False


def _format(value: str, scope: Scope) -> tuple[str, tuple[Kind, ...]] | None:
    """A format string whose result is a statement; None if that cannot be read, or its parts would change places."""
    specifiers: list[str] = []

    def held(match: re.Match[str]) -> str:
        specifiers.append(match[0])
        name = f"{_OF_FORMAT}{len(specifiers)}_"
        return {"L": f"'{name}'", "%": "%"}.get(match[2], name)

    text = _SPECIFIER.sub(held, value)
    if "%%" in value:
        return None
    try:
        (raw,) = parse_sql(text)
    except (ParseError, ValueError):
        return None
    if raw.stmt is None:
        return None
    ruled = _ruled(text, raw.stmt, scope)
    if ruled is not None and ruled.text is None:
        return "select 1", ruled.kinds
    if ruled is not None and specifiers:
        return None
    result = ruled or _renamed(text, raw.stmt, scope)
    changed = str(result.text)
    order = re.findall(rf"{_OF_FORMAT}(\d+)_", changed)
    if order != [str(number + 1) for number in range(len(specifiers))] or "%" in changed:
        return None
    for number, specifier in enumerate(specifiers, 1):
        name = f"{_OF_FORMAT}{number}_"
        quoted = f"'{name}'"
        if f"'{name}" in changed and quoted not in changed:
            return None
        changed = changed.replace(quoted if specifier.endswith("L") else name, specifier)
    return changed, result.kinds


def _names_in(value: str, scope: Scope, *, only_public: bool = False) -> tuple[str, tuple[Kind, ...]]:
    """A string with names of objects in it, each in the project's own schema."""
    kinds: list[Kind] = []

    def here(match: re.Match[str]) -> str:
        name, thing = match[2], match[4]
        if name == "auth":
            if thing != "users" or not scope.has_users or only_public:
                return match[0]
            kinds.append(Kind.USERS)
            return f"{quoted_name(scope.users)}."
        own = scope.schema_here(name)
        # Behind a quotation mark it may be a setting: current_setting('app.user').
        setting = name != "public" and value[: match.start()].endswith("'")
        if own is None or setting or (only_public and name != "public"):
            return match[0]
        kinds.append(Kind.PUBLIC if name == "public" else Kind.SCHEMAS)
        return f"{quoted_name(scope.extension_objects.get(thing, own) if name == 'public' else own)}."

    changed = _NAME.sub(here, value)
    return changed, tuple(kinds)
