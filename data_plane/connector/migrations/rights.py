"""Roles and rights of a migration: Supabase's roles, and the project's own that stand for them."""

import itertools
from collections.abc import Iterator
from typing import Any

from pglast import ast, enums
from pglast.visitors import Ancestor, Visitor

from data_plane.connector.migrations.edits import Edit, Kind
from data_plane.connector.migrations.literals import compared_roles
from data_plane.connector.migrations.rewritten import Original, Rewritten
from data_plane.connector.migrations.scope import OPEN_SCHEMAS, PLATFORM_SCHEMAS, Scope
from data_plane.connector.migrations.script import tokens_of
from data_plane.model.naming import AccessLevel

__all__ = ["compared_role_edits", "right_edits", "rights_rule", "role_edits", "without_declared"]

_ON_OBJECTS = enums.GrantTargetType.ACL_TARGET_OBJECT
_ROW_RIGHTS = "SELECT, INSERT, UPDATE, DELETE"


def rights_rule(original: Original) -> Rewritten | None:
    """Leaves out rights on the project's first schema, and on what is the platform's: it declares them."""
    node, scope = original.node, original.scope
    if not isinstance(node, ast.GrantStmt):
        return None
    of_database = node.objtype == enums.ObjectType.OBJECT_DATABASE
    if of_database and not node.is_grant:
        return _declared("who may connect")
    if node.objtype == enums.ObjectType.OBJECT_SCHEMA:
        names = [_sval(name) for name in node.objects or ()]
        declared = {"public", scope.names.schema}
        return _declared("who may use the schema") if all(n in declared or _is_platforms(n) for n in names) else None
    if node.targtype == enums.GrantTargetType.ACL_TARGET_ALL_IN_SCHEMA:
        schemas = [_sval(name) for name in node.objects or ()]
    elif node.targtype == _ON_OBJECTS and node.objtype == enums.ObjectType.OBJECT_TABLE:
        schemas = [
            "" if (table.schemaname, table.relname) == ("auth", "users") else str(table.schemaname)
            for table in node.objects or ()
        ]
    else:
        return None
    return _declared("rights on what is the platform's") if schemas and all(map(_is_platforms, schemas)) else None


def without_declared(text: str, node: ast.Node, scope: Scope) -> str:
    """``grant usage on schema public, private`` without the schemas whose rights the data plane declares.

    The same text if all of them are of one kind.
    """
    if not isinstance(node, ast.GrantStmt) or node.objtype != enums.ObjectType.OBJECT_SCHEMA:
        return text
    named = [_sval(name) for name in node.objects or ()]
    kept = [name for name in named if name in scope.further]
    if not kept or any(name not in {"public", scope.names.schema, *kept} and not _is_platforms(name) for name in named):
        return text
    tokens = tokens_of(text)
    first = next(place for place, token in enumerate(tokens) if token.name == "SCHEMA") + 1
    last = first + 2 * len(named) - 2
    names = [text[token.start : token.end + 1] for token in tokens[first : last + 1 : 2]]
    chosen = [written for written, name in zip(names, named, strict=True) if name in kept]
    return text[: tokens[first].start] + ", ".join(chosen) + text[tokens[last].end + 1 :]


def _declared(what: str) -> Rewritten:
    return Rewritten(None, (Kind.DEFAULTS,), f"the data plane declares {what}")


def _is_platforms(name: str) -> bool:
    return (name in PLATFORM_SCHEMAS and name != "pg_temp") or name in OPEN_SCHEMAS


def _sval(node: Any) -> str:
    return str(getattr(node, "sval", ""))


def role_edits(node: ast.Node, scope: Scope) -> Iterator[Edit]:
    """The roles that a statement names."""
    found = _RoleSpecs()
    found(node)
    for role in found.specs:
        own = scope.role_here(role.rolename) if role.rolename else None
        if own is not None and role.location is not None:
            # Its length in the text is found with the tokens: it may be quoted.
            yield Edit(role.location, -1, own, (Kind.ROLES,))


def compared_role_edits(text: str, scope: Scope) -> Iterator[Edit]:
    """Strings that are compared with the role of a request."""
    for token, name in compared_roles(text):
        yield Edit(token.start, token.end + 1, f"'{scope.role_here(name)}'", (Kind.ROLES,))


def right_edits(node: ast.Node, text: str, scope: Scope) -> Iterator[Edit]:
    """``grant all`` on tables to what users act as becomes the four rights on rows."""
    grant = node.action if isinstance(node, ast.AlterDefaultPrivilegesStmt) else node
    if not isinstance(grant, ast.GrantStmt) or not grant.is_grant or grant.privileges is not None:
        return
    if grant.objtype != enums.ObjectType.OBJECT_TABLE:
        return
    names = {role.rolename for role in grant.grantees or ()}
    levels = (AccessLevel.ANON, AccessLevel.AUTHENTICATED)
    users = {"anon", "authenticated"} | {scope.names.role(level) for level in levels}
    if not names & users:
        return
    for first, second in itertools.pairwise(tokens_of(text)):
        if first.name == "ALL":
            end = second.end if second.name == "PRIVILEGES" else first.end
            yield Edit(first.start, end + 1, _ROW_RIGHTS, (Kind.GRANTS,))
            return


class _RoleSpecs(Visitor):
    def __init__(self) -> None:
        self.specs: list[ast.RoleSpec] = []

    def visit_RoleSpec(self, ancestors: Ancestor, node: ast.RoleSpec) -> None:  # noqa: N802
        if node.roletype == enums.RoleSpecType.ROLESPEC_CSTRING:
            self.specs.append(node)
