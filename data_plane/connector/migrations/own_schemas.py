"""Schemas that a migration makes and drops, and the rights that it declares in them."""

from collections.abc import Iterable, Iterator

from pglast import ast, enums

from data_plane.connector.migrations.edits import Kind, quoted_text
from data_plane.connector.migrations.function_texts import bodies_of, strings_in
from data_plane.connector.migrations.rewritten import Original, Rewritten
from data_plane.connector.migrations.scope import OPEN_SCHEMAS, PLATFORM_SCHEMAS, Scope
from data_plane.connector.migrations.script import Statement, tokens_of

__all__ = ["made_schemas", "schema_rule"]


def made_schemas(statements: Iterable[Statement]) -> Iterator[str]:
    """The names of the schemas that statements make, those in the text of a DO block, too."""
    for statement in statements:
        match statement.node:
            case ast.CreateSchemaStmt(schemaname=str(name)):
                yield name
            case ast.DoStmt() | ast.CreateFunctionStmt():
                for body in bodies_of(statement.node):
                    yield from _in_text(body)
                    for string in strings_in(body):
                        yield from _in_text(string)


def _in_text(text: str) -> Iterator[str]:
    tokens = tokens_of(text)
    words = [text[token.start : token.end + 1].strip('"').lower() for token in tokens]
    for place, word in enumerate(words[:-2]):
        if word == "create" and words[place + 1] == "schema":
            rest = words[place + 2 :]
            name = rest[3] if rest[:3] == ["if", "not", "exists"] and len(rest) > 3 else rest[0]
            if name.isidentifier():
                yield name


def schema_rule(original: Original) -> Rewritten | None:
    """Has the platform make and drop schemas, and leaves out what it declares itself."""
    node, scope = original.node, original.scope
    match node:
        case ast.CreateSchemaStmt(schemaname=str(name), schemaElts=None):
            return _made(name, scope)
        case ast.DropStmt(removeType=enums.ObjectType.OBJECT_SCHEMA):
            return _dropped(node, scope)
        case ast.CommentStmt(objtype=enums.ObjectType.OBJECT_SCHEMA, object=ast.String(sval=name)):
            if name == "public" or _is_platforms(str(name)):
                return _there("the data plane comments on schemas")
        case ast.AlterOwnerStmt(objectType=enums.ObjectType.OBJECT_SCHEMA, object=ast.String(sval=name)):
            if name == "public" or name in scope.further:
                return _there("the project's owner owns its schemas")
        case ast.AlterDefaultPrivilegesStmt():
            return _defaults(node, scope)
    return None


def _made(name: str, scope: Scope) -> Rewritten | None:
    if name == "public" or _is_platforms(name):
        return _there("the project's schema is there" if name == "public" else f"the platform has schema {name}")
    if not scope.may_have(name):
        return None
    return Rewritten(f"select data_plane_api.create_schema({quoted_text(name)})", (Kind.SCHEMAS,))


def _dropped(node: ast.DropStmt, scope: Scope) -> Rewritten | None:
    names = [str(getattr(item, "sval", "")) for item in node.objects or ()]
    if not all(name in scope.further or (node.missing_ok and scope.may_have(name)) for name in names):
        return None
    cascade = ", cascade => true" if node.behavior == enums.DropBehavior.DROP_CASCADE else ""
    calls = [f"data_plane_api.drop_schema({quoted_text(name)}{cascade})" for name in names if name in scope.further]
    if not calls:
        return _there("the project has no such schema")
    return Rewritten(f"select {', '.join(calls)}", (Kind.SCHEMAS,))


def _defaults(node: ast.AlterDefaultPrivilegesStmt, scope: Scope) -> Rewritten | None:
    names = [
        str(getattr(item, "sval", ""))
        for option in node.options or ()
        if option.defname == "schemas"
        for item in option.arg or ()
    ]
    if names and all(name in scope.further or name in scope.own_schemas - {scope.names.schema} for name in names):
        return None
    return Rewritten(None, (Kind.DEFAULTS,), "the data plane declares default privileges")


def _there(reason: str) -> Rewritten:
    return Rewritten(None, (Kind.EXISTING,), reason)


def _is_platforms(name: str) -> bool:
    return name in PLATFORM_SCHEMAS or name in OPEN_SCHEMAS
