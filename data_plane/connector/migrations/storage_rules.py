"""Policies on ``storage.objects`` of a migration, as the platform declares them for a project.

A policy runs in Storage's session for every project, so the platform makes it, for the project's roles and buckets, if
its expression is made of what cannot run a project's code. The database judges that; what it will certainly refuse is
said here before anything runs.
"""

from collections.abc import Iterator

from pglast import ast, enums
from pglast.parser import Token
from pglast.visitors import Ancestor, Visitor

from data_plane.connector.migrations.buckets import bucket_here
from data_plane.connector.migrations.edits import Edit, Kind, edited, identifier, quoted_text
from data_plane.connector.migrations.plain_functions import with_expressions
from data_plane.connector.migrations.policies import CHECK, USING, policy_expression, policy_roles
from data_plane.connector.migrations.rewritten import Original, Rewritten
from data_plane.connector.migrations.rights import compared_role_edits
from data_plane.connector.migrations.scope import Scope
from data_plane.connector.migrations.script import parsed, tokens_of

__all__ = ["storage_objections", "storage_rule"]

_COMMANDS = {"all": "all", "select": "select", "insert": "insert", "update": "update", "delete": "delete"}
_CALLABLE = {
    "auth": frozenset({"uid", "jwt", "role", "email"}),
    "storage": frozenset({"foldername", "filename", "extension"}),
}
_LEFT = frozenset({"(", "[", ",", "any", "array", "in", "=", "<>", "!=", "not", "::", "text"})
_CALL = "select data_plane_api."


def storage_rule(original: Original) -> Rewritten | None:
    """Has the platform declare rules on objects."""
    node, text, scope = original.node, original.text, original.scope
    match node:
        case ast.CreatePolicyStmt(table=ast.RangeVar(schemaname="storage", relname=table)):
            if table == "buckets" and node.permissive:
                return Rewritten(None, (Kind.BUCKET_RIGHTS,), "Storage tells nobody of the project its buckets")
            if table == "objects":
                said = with_expressions(text, scope.expressions)
                rule = parsed(said)
                if isinstance(rule, ast.CreatePolicyStmt) and not any(storage_objections(rule, said)):
                    inlined = (Kind.EXPRESSIONS,) if said != text else ()
                    return Rewritten(_declared_rule(rule, said, scope), (Kind.STORAGE_RULES, *inlined))
        case ast.DropStmt(removeType=enums.ObjectType.OBJECT_POLICY):
            return _dropped_rules(node)
        case ast.CommentStmt(objtype=enums.ObjectType.OBJECT_POLICY) if _words(node.object)[:1] == ["storage"]:
            return Rewritten(None, (Kind.EXISTING,), "the platform comments on its policies")
        case ast.AlterTableStmt(relation=ast.RangeVar(schemaname="storage", relname="objects" | "buckets")):
            if all(command.subtype == enums.AlterTableType.AT_EnableRowSecurity for command in node.cmds or ()):
                return Rewritten(None, (Kind.EXISTING,), "Storage's tables have row-level security on")
    return None


def storage_objections(node: ast.CreatePolicyStmt, text: str) -> Iterator[str]:
    """Why the platform will not make a policy on ``storage.objects``."""
    visitor = _Objections()
    for expression in (node.qual, node.with_check):
        if expression is not None:
            visitor(expression)
    yield from dict.fromkeys(visitor.objections)
    buckets = [token for token in tokens_of(text) if identifier(text, token) == "bucket_id"]
    if len(buckets) > len({place for _, place in _compared_buckets(text)}):
        yield "it compares bucket_id with what is no string"


def _declared_rule(node: ast.CreatePolicyStmt, text: str, scope: Scope) -> str:
    roles = policy_roles(node, scope)
    arguments = [
        quoted_text(str(node.policy_name)),
        quoted_text(_COMMANDS[str(node.cmd_name)]),
        f"array[{', '.join(quoted_text(role) for role in roles)}]",
        _expression(text, USING, scope),
        _expression(text, CHECK, scope),
    ]
    if not node.permissive:
        arguments.append("false")
    return f"{_CALL}declare_storage_rule({', '.join(arguments)})"


def _expression(text: str, keyword: tuple[str, ...], scope: Scope) -> str:
    """The expression behind a keyword of a policy, adapted, as a string; ``null`` if it has none."""
    part = policy_expression(text, keyword)
    if part is None:
        return "null"
    edits = [*compared_role_edits(part, scope)]
    for token, _ in _compared_buckets(part):
        name = part[token.start + 1 : token.end].replace("''", "'")
        edits.append(Edit(token.start, token.end + 1, quoted_text(bucket_here(name, scope)), ()))
    return quoted_text(edited(part, edits))


def _compared_buckets(text: str) -> Iterator[tuple[Token, int]]:
    """The strings that ``bucket_id`` is compared with, each with the place of that."""
    tokens = tokens_of(text)
    words = [text[token.start : token.end + 1].lower().strip('"') for token in tokens]
    for place, token in enumerate(tokens):
        if token.name != "SCONST" or not words[place].startswith("'"):
            continue
        if words[place + 1 : place + 2] == ["="] and words[place + 2 : place + 3] == ["bucket_id"]:
            yield token, place + 2
            continue
        at = place - 1
        while at > 0 and (words[at] in _LEFT or tokens[at].name == "SCONST"):
            at -= 1
        between = set(words[at + 1 : place])
        if at >= 0 and words[at] == "bucket_id" and between & {"=", "<>", "!=", "in"}:
            yield token, at
        elif words[at] == ")" and words[max(0, at - 1)] == "bucket_id" and between & {"=", "<>", "!=", "in"}:
            yield token, at - 1


def _dropped_rules(node: ast.DropStmt) -> Rewritten | None:
    calls = []
    for item in node.objects or ():
        match _words(item):
            case ["storage", "objects", name]:
                calls.append(f"data_plane_api.drop_storage_rule({quoted_text(name)})")
            case ["storage", "buckets", _]:
                return Rewritten(None, (Kind.BUCKET_RIGHTS,), "the project has no policies on storage.buckets")
    return Rewritten(f"select {', '.join(calls)}", (Kind.STORAGE_RULES,)) if calls else None


def _words(name: object) -> list[str]:
    return [str(part.sval) for part in name if isinstance(part, ast.String)] if isinstance(name, tuple) else []


class _Objections(Visitor):
    def __init__(self) -> None:
        self.objections: list[str] = []

    def visit_RangeVar(self, ancestors: Ancestor, node: ast.RangeVar) -> None:  # noqa: N802
        self.objections.append(f"it asks table {node.relname}, whose policies would run in Storage's session")

    def visit_FuncCall(self, ancestors: Ancestor, node: ast.FuncCall) -> None:  # noqa: N802
        words = [str(part.sval) for part in node.funcname or () if isinstance(part, ast.String)]
        schema = words[-2] if len(words) > 1 else "pg_catalog"
        if schema != "pg_catalog" and words[-1] not in _CALLABLE.get(schema, frozenset()):
            self.objections.append(f"it calls {'.'.join(words)}, which would run in Storage's session")
