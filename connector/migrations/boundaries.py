"""What a migration may not name, found before any of it runs, with what to do instead.

PostgreSQL refuses all of it to a tenant's owner anyway, or would let through what reaches nobody. Here the whole file
is looked at first, every place is named, and the advice is for people.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pglast import ast, enums, parse_sql
from pglast.parser import ParseError
from pglast.visitors import Ancestor, Visitor

from components.naming import AccessLevel, TenantNames
from connector.migrations.catalogue_lookups import unscoped_lookups
from connector.migrations.literals import compared_roles, named_objects
from connector.migrations.script import Statement, tokens_of

__all__ = ["Boundary", "Finding", "Scope", "bodies_of", "findings_in", "role_here"]


class Boundary(StrEnum):
    """What lies outside of a project's slice."""

    PUBLIC = "public"
    """The schema that a Supabase of one's own has its tables in; here the project's schema is that."""
    SHARED_ROLES = "shared-roles"
    """Supabase's roles, or the superuser, where the project has roles of its own."""
    DEFAULTS = "defaults"
    """Default privileges and the schema's own grants, which the project's resources declare."""
    CATALOGUE = "catalogue"
    """Questions to the catalogue that another project's objects answer too."""
    EXTENSIONS = "extensions"
    ROLES = "roles"
    SCHEMAS = "schemas"
    OTHER_PROJECTS = "other-projects"
    AUTH = "auth"
    STORAGE = "storage"
    REALTIME = "realtime"
    SERVER = "server"
    """What is of the database or the server, not of a schema."""

    @property
    def advice(self) -> str:
        """What to do instead of reaching over it."""
        return _ADVICE[self]


_ADVICE = {
    Boundary.PUBLIC: "leave the schema out of the name, or run with --adapt",
    Boundary.SHARED_ROLES: "name the project's own role, or run with --adapt",
    Boundary.DEFAULTS: "the data plane declares it; grant on the objects themselves, or run with --adapt",
    Boundary.CATALOGUE: "another project's object of that name counts too: ask for your schema, or run with --adapt",
    Boundary.EXTENSIONS: "ask for it in `extensions` of the central stack; its objects are in the schema `extensions`",
    Boundary.ROLES: "roles come from the project's file: give people, teams and workloads access there",
    Boundary.SCHEMAS: "a project has one schema: put it there",
    Boundary.OTHER_PROJECTS: "a project reaches its own schema alone; exchange data through the other's API",
    Boundary.AUTH: "projects may refer to auth.users (id) and call auth.uid(), auth.jwt(), auth.role(), auth.email(); "
    "members are in data_plane_api.list_members()",
    Boundary.STORAGE: "the project's bucket and its rules come from `storage` in the project's file",
    Boundary.REALTIME: "tables of projects are in no publication; use Realtime's broadcast",
    Boundary.SERVER: "it would concern every project",
}


@dataclass(frozen=True)
class Scope:
    """A project's slice, and what of the database its migrations meet."""

    names: TenantNames
    extensions: Mapping[str, str] = field(default_factory=dict)
    """Schema of each extension that the database has."""
    extension_objects: Mapping[str, str] = field(default_factory=dict)
    """Schema of each function, type and operator class that belongs to one."""
    schemas: frozenset[str] = frozenset()
    """Every schema of the database."""


@dataclass(frozen=True)
class Finding:
    """A place where a statement reaches over a boundary."""

    boundary: Boundary
    what: str
    """In the words of SQL: ``schema public``, ``create role app``."""
    line: int


_OPEN_SCHEMAS = frozenset({"pg_catalog", "information_schema", "pg_temp", "extensions", "data_plane_api"})
"""Schemas of the platform that a migration may name; what it may do there PostgreSQL decides."""

_PLATFORM_SCHEMAS = {
    "auth": Boundary.AUTH,
    "storage": Boundary.STORAGE,
    "realtime": Boundary.REALTIME,
    "_realtime": Boundary.REALTIME,
    **dict.fromkeys(
        ("cron", "graphql", "graphql_public", "net", "pgmq", "pgsodium", "pgtle", "vault"), Boundary.EXTENSIONS
    ),
}
"""What a schema of the platform's, or of an extension that has its own, is about."""

_SETTINGS_OF_THE_SERVER = frozenset({"session_replication_role"})

_CALLABLE_IN_AUTH = frozenset({"uid", "jwt", "role", "email"})

_ROLE_LEVELS = {
    "anon": AccessLevel.ANON,
    "authenticated": AccessLevel.AUTHENTICATED,
    "service_role": AccessLevel.SERVICE_ROLE,
    "postgres": AccessLevel.OWNER,
    "supabase_admin": AccessLevel.OWNER,
}

_OF_THE_SERVER: Mapping[str, tuple[Boundary, str]] = {
    "AlterDatabaseSetStmt": (Boundary.SERVER, "alter database"),
    "AlterDatabaseStmt": (Boundary.SERVER, "alter database"),
    "AlterEventTrigStmt": (Boundary.SERVER, "alter event trigger"),
    "AlterExtensionContentsStmt": (Boundary.EXTENSIONS, "alter extension"),
    "AlterExtensionStmt": (Boundary.EXTENSIONS, "alter extension"),
    "AlterFdwStmt": (Boundary.SERVER, "alter foreign data wrapper"),
    "AlterPublicationStmt": (Boundary.REALTIME, "alter publication"),
    "AlterRoleSetStmt": (Boundary.ROLES, "alter role"),
    "AlterRoleStmt": (Boundary.ROLES, "alter role"),
    "AlterSubscriptionStmt": (Boundary.SERVER, "alter subscription"),
    "AlterSystemStmt": (Boundary.SERVER, "alter system"),
    "CreateEventTrigStmt": (Boundary.SERVER, "create event trigger"),
    "CreateFdwStmt": (Boundary.SERVER, "create foreign data wrapper"),
    "CreateForeignServerStmt": (Boundary.SERVER, "create server"),
    "CreatePLangStmt": (Boundary.EXTENSIONS, "create language"),
    "CreatePublicationStmt": (Boundary.REALTIME, "create publication"),
    "CreateRoleStmt": (Boundary.ROLES, "create role"),
    "CreateSubscriptionStmt": (Boundary.SERVER, "create subscription"),
    "CreateTableSpaceStmt": (Boundary.SERVER, "create tablespace"),
    "CreateUserMappingStmt": (Boundary.SERVER, "create user mapping"),
    "CreatedbStmt": (Boundary.SERVER, "create database"),
    "DropOwnedStmt": (Boundary.ROLES, "drop owned"),
    "DropRoleStmt": (Boundary.ROLES, "drop role"),
    "DropSubscriptionStmt": (Boundary.SERVER, "drop subscription"),
    "DropdbStmt": (Boundary.SERVER, "drop database"),
    "GrantRoleStmt": (Boundary.ROLES, "membership of a role"),
    "LoadStmt": (Boundary.SERVER, "load"),
    "ReassignOwnedStmt": (Boundary.ROLES, "reassign owned"),
    "SecLabelStmt": (Boundary.SERVER, "security label"),
}
_DROPPED = {
    enums.ObjectType.OBJECT_EXTENSION: Boundary.EXTENSIONS,
    enums.ObjectType.OBJECT_PUBLICATION: Boundary.REALTIME,
    enums.ObjectType.OBJECT_EVENT_TRIGGER: Boundary.SERVER,
    enums.ObjectType.OBJECT_FOREIGN_SERVER: Boundary.SERVER,
    enums.ObjectType.OBJECT_FDW: Boundary.SERVER,
    enums.ObjectType.OBJECT_ROLE: Boundary.ROLES,
    enums.ObjectType.OBJECT_DATABASE: Boundary.SERVER,
    enums.ObjectType.OBJECT_LANGUAGE: Boundary.EXTENSIONS,
}
"""Kinds of object that are nobody's schema's: to drop, rename, comment on or give away."""

_PART_OF_A_TABLE = frozenset(
    {
        enums.ObjectType.OBJECT_POLICY,
        enums.ObjectType.OBJECT_TRIGGER,
        enums.ObjectType.OBJECT_RULE,
        enums.ObjectType.OBJECT_TABCONSTRAINT,
        enums.ObjectType.OBJECT_COLUMN,
    }
)
"""Objects whose name ends with their own, after the table's."""


def findings_in(statement: Statement, scope: Scope) -> list[Finding]:
    """Where a statement reaches over a boundary; each place once."""
    visitor = _Walk(scope)
    visitor(statement.node)
    for text in (statement.text, *bodies_of(statement.node)):
        for _, name in compared_roles(text):
            visitor.found(Boundary.SHARED_ROLES, f"role '{name}' of a request (here {role_here(name, scope)})")
        for _, name in named_objects(text):
            visitor.named(name)
        for lookup in unscoped_lookups(text):
            if lookup.name not in scope.extension_objects:
                visitor.found(Boundary.CATALOGUE, f"{lookup.column} = '{lookup.name}'")
    if (body := _sql_body(statement.node)) is not None:
        visitor(body)
    else:
        for boundary, what in _in_bodies(statement.node, scope):
            visitor.found(boundary, what)
    return [Finding(boundary, what, statement.line) for boundary, what in visitor.findings]


def role_here(name: str, scope: Scope) -> str | None:
    """The project's own role that stands for one of Supabase's roles; None for any other."""
    return scope.names.role(_ROLE_LEVELS[name]) if name in _ROLE_LEVELS else None


def bodies_of(node: ast.Node) -> Iterator[str]:
    """The texts of functions and DO blocks."""
    options: tuple[ast.DefElem, ...] = ()
    if isinstance(node, ast.CreateFunctionStmt):
        options = node.options or ()
    elif isinstance(node, ast.DoStmt):
        options = node.args or ()
    for option in options:
        if option.defname == "as":
            parts = option.arg if isinstance(option.arg, tuple) else (option.arg,)
            yield from (part.sval for part in parts if isinstance(part, ast.String) and part.sval)


def _sql_body(node: ast.Node) -> tuple[ast.RawStmt, ...] | None:
    """The statements of a function in SQL: PostgreSQL looks at them when it is made, other than at plpgsql's."""
    options = node.options or () if isinstance(node, ast.CreateFunctionStmt) else ()
    if not any(option.defname == "language" and option.arg.sval.lower() == "sql" for option in options):
        return None
    try:
        return parse_sql("".join(bodies_of(node)))
    except ParseError:
        return None


class _Walk(Visitor):
    """Collects findings in the order of the tree; calls itself for strings that name objects."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self.findings: dict[tuple[Boundary, str], None] = {}

    def found(self, boundary: Boundary, what: str) -> None:
        self.findings[boundary, what] = None

    def visit(self, ancestors: Ancestor, node: ast.Node) -> None:
        kind = type(node).__name__
        if kind in _OF_THE_SERVER:
            boundary, what = _OF_THE_SERVER[kind]
            name = next(
                (getattr(node, key) for key in ("pubname", "extname", "role", "dbname") if _text(node, key)), ""
            )
            self.found(boundary, f"{what} {name}".strip())

    # Names of objects

    def visit_RangeVar(self, ancestors: Ancestor, node: ast.RangeVar) -> None:  # noqa: N802
        if node.schemaname == "auth":
            # A foreign key may refer to Auth's users; nothing else of them is a project's.
            if not (isinstance(ancestors.node, ast.Constraint) and node.relname == "users"):
                self.found(Boundary.AUTH, f"auth.{node.relname}")
        elif node.schemaname:
            self._schema(node.schemaname, str(node.relname))

    def visit_FuncCall(self, ancestors: Ancestor, node: ast.FuncCall) -> None:  # noqa: N802
        self._name(node.funcname)
        arguments = [_constant(argument) for argument in node.args or ()]
        if _words(node.funcname)[-1:] == ["set_config"] and arguments[:1] == ["search_path"] and len(arguments) > 1:
            self._search_path([arguments[1] or ""])

    def visit_TypeName(self, ancestors: Ancestor, node: ast.TypeName) -> None:  # noqa: N802
        self._name(node.names)

    def visit_ColumnRef(self, ancestors: Ancestor, node: ast.ColumnRef) -> None:  # noqa: N802
        words = _words(node.fields)
        if len(words) >= 3:
            self._schema(words[-3], ".".join(words[-2:]))

    def named(self, name: str) -> None:
        """An object that a string names."""
        words = [word for word in name.replace('"', "").partition("(")[0].split(".") if word]
        if len(words) == 2:
            self._schema(words[0], words[1])

    def visit_ObjectWithArgs(self, ancestors: Ancestor, node: ast.ObjectWithArgs) -> None:  # noqa: N802
        self._name(node.objname)

    def visit_A_Expr(self, ancestors: Ancestor, node: ast.A_Expr) -> None:  # noqa: N802
        self._name(node.name)

    def visit_CollateClause(self, ancestors: Ancestor, node: ast.CollateClause) -> None:  # noqa: N802
        self._name(node.collname)

    def visit_CreateTrigStmt(self, ancestors: Ancestor, node: ast.CreateTrigStmt) -> None:  # noqa: N802
        self._name(node.funcname)

    def visit_CreateFunctionStmt(self, ancestors: Ancestor, node: ast.CreateFunctionStmt) -> None:  # noqa: N802
        self._name(node.funcname)

    def visit_CreateDomainStmt(self, ancestors: Ancestor, node: ast.CreateDomainStmt) -> None:  # noqa: N802
        self._name(node.domainname)

    def visit_AlterDomainStmt(self, ancestors: Ancestor, node: ast.AlterDomainStmt) -> None:  # noqa: N802
        self._name(node.typeName)

    def visit_CreateEnumStmt(self, ancestors: Ancestor, node: ast.CreateEnumStmt) -> None:  # noqa: N802
        self._name(node.typeName)

    def visit_AlterEnumStmt(self, ancestors: Ancestor, node: ast.AlterEnumStmt) -> None:  # noqa: N802
        self._name(node.typeName)

    def visit_CreateRangeStmt(self, ancestors: Ancestor, node: ast.CreateRangeStmt) -> None:  # noqa: N802
        self._name(node.typeName)

    def visit_AlterTypeStmt(self, ancestors: Ancestor, node: ast.AlterTypeStmt) -> None:  # noqa: N802
        self._name(node.typeName)

    def visit_DefineStmt(self, ancestors: Ancestor, node: ast.DefineStmt) -> None:  # noqa: N802
        self._name(node.defnames)

    def visit_CreateStatsStmt(self, ancestors: Ancestor, node: ast.CreateStatsStmt) -> None:  # noqa: N802
        self._name(node.defnames)

    def visit_CreateOpClassStmt(self, ancestors: Ancestor, node: ast.CreateOpClassStmt) -> None:  # noqa: N802
        self._name(node.opclassname)

    def visit_CreateOpFamilyStmt(self, ancestors: Ancestor, node: ast.CreateOpFamilyStmt) -> None:  # noqa: N802
        self._name(node.opfamilyname)

    # Statements about objects of a given kind

    def visit_DropStmt(self, ancestors: Ancestor, node: ast.DropStmt) -> None:  # noqa: N802
        for dropped in node.objects or ():
            self._object(node.removeType, dropped, "drop")

    def visit_CommentStmt(self, ancestors: Ancestor, node: ast.CommentStmt) -> None:  # noqa: N802
        self._object(node.objtype, node.object, "comment on")

    def visit_AlterOwnerStmt(self, ancestors: Ancestor, node: ast.AlterOwnerStmt) -> None:  # noqa: N802
        self._object(node.objectType, node.object, "owner of")

    def visit_AlterObjectSchemaStmt(self, ancestors: Ancestor, node: ast.AlterObjectSchemaStmt) -> None:  # noqa: N802
        self._schema_itself(str(node.newschema))
        self._object(node.objectType, node.object, "move")

    def visit_RenameStmt(self, ancestors: Ancestor, node: ast.RenameStmt) -> None:  # noqa: N802
        if node.renameType == enums.ObjectType.OBJECT_SCHEMA:
            self.found(Boundary.SCHEMAS, f"rename schema {node.subname}")
        elif node.object is not None:
            self._object(node.renameType, node.object, "rename")

    def visit_CreateSchemaStmt(self, ancestors: Ancestor, node: ast.CreateSchemaStmt) -> None:  # noqa: N802
        name = node.schemaname or "without a name"
        self.found(Boundary.PUBLIC if name == "public" else Boundary.SCHEMAS, f"create schema {name}")

    def visit_GrantStmt(self, ancestors: Ancestor, node: ast.GrantStmt) -> None:  # noqa: N802
        verb = "grant" if node.is_grant else "revoke"
        if node.objtype == enums.ObjectType.OBJECT_SCHEMA:
            for word in _words(node.objects):
                own = word in {self._scope.names.schema, "public"}
                self.found(Boundary.DEFAULTS if own else self._boundary(word), f"{verb} on schema {word}")
        elif node.targtype == enums.GrantTargetType.ACL_TARGET_ALL_IN_SCHEMA:
            for word in _words(node.objects):
                self._schema_itself(word)
        elif node.objtype in {enums.ObjectType.OBJECT_TYPE, enums.ObjectType.OBJECT_DOMAIN}:
            for name in node.objects or ():
                self._name(name)
        elif node.objtype in _OUTSIDE_OF_SCHEMAS:
            self.found(Boundary.SERVER, f"{verb} on {_kind(node.objtype)} {', '.join(_words(node.objects))}")

    def visit_AlterDefaultPrivilegesStmt(  # noqa: N802
        self, ancestors: Ancestor, node: ast.AlterDefaultPrivilegesStmt
    ) -> None:
        self.found(Boundary.DEFAULTS, "alter default privileges")

    def visit_CreateExtensionStmt(self, ancestors: Ancestor, node: ast.CreateExtensionStmt) -> None:  # noqa: N802
        if not (node.extname in self._scope.extensions and node.if_not_exists):
            there = " (the database has it: say `if not exists`)" if node.extname in self._scope.extensions else ""
            self.found(Boundary.EXTENSIONS, f"create extension {node.extname}{there}")

    def visit_CopyStmt(self, ancestors: Ancestor, node: ast.CopyStmt) -> None:  # noqa: N802
        if node.is_program or node.filename:
            self.found(Boundary.SERVER, "copy with a file or program of the server")

    # Roles and settings

    def visit_RoleSpec(self, ancestors: Ancestor, node: ast.RoleSpec) -> None:  # noqa: N802
        name = node.rolename
        if node.roletype != enums.RoleSpecType.ROLESPEC_CSTRING or name is None or name in self._own_roles():
            return
        if any(type(above).__name__ in _ABOUT_ROLES for above in _nodes(ancestors)):
            return
        own = role_here(name, self._scope)
        if own is not None:
            self.found(Boundary.SHARED_ROLES, f"role {name} (here {own})")
        else:
            self.found(Boundary.ROLES, f"role {name}")

    def visit_VariableSetStmt(self, ancestors: Ancestor, node: ast.VariableSetStmt) -> None:  # noqa: N802
        if node.name in {"role", "session_authorization"}:
            self.found(Boundary.ROLES, f"set {node.name}")
        elif node.name in _SETTINGS_OF_THE_SERVER:
            self.found(Boundary.SERVER, f"set {node.name}")
        elif node.name == "search_path":
            self._search_path([_constant(argument) or "" for argument in node.args or ()])

    def _own_roles(self) -> set[str]:
        return {self._scope.names.role(level) for level in AccessLevel}

    def _search_path(self, schemas: list[str]) -> None:
        for schema in (part.strip().strip('"') for entry in schemas for part in entry.split(",")):
            if schema == "public":
                self.found(Boundary.PUBLIC, "search_path with public")
            elif schema.startswith("proj_"):
                self._schema_itself(schema)

    # Schemas

    def _object(self, kind: enums.ObjectType | None, named: Any, verb: str) -> None:
        """An object of a kind, as the statements name it that are for objects of any kind."""
        if kind in _DROPPED:
            self.found(_DROPPED[kind], f"{verb} {_kind(kind)} {'.'.join(_words((named,)))}".strip())
        elif kind == enums.ObjectType.OBJECT_SCHEMA:
            for word in _words((named,)):
                if verb == "comment on" and word == "public":
                    self.found(Boundary.PUBLIC, "comment on schema public")
                elif not (verb == "comment on" and word == self._scope.names.schema):
                    self.found(Boundary.SCHEMAS, f"{verb} schema {word}")
        elif isinstance(named, tuple):
            words = _words(named)
            table = words[:-1] if kind in _PART_OF_A_TABLE else words
            if len(table) > 1:
                self._schema(table[-2], ".".join(words[len(table) - 1 :]))

    def _name(self, name: Any) -> None:
        words = _words(name)
        if len(words) > 1:
            self._schema(words[-2], words[-1])

    def _schema(self, schema: str, thing: str) -> None:
        if schema not in {self._scope.names.schema, *_OPEN_SCHEMAS} and not _callable_in_auth(schema, thing):
            self.found(self._boundary(schema), f"{schema}.{thing}")

    def _schema_itself(self, schema: str) -> None:
        if schema not in {self._scope.names.schema, *_OPEN_SCHEMAS}:
            self.found(self._boundary(schema), f"schema {schema}")

    @staticmethod
    def _boundary(schema: str) -> Boundary:
        if schema == "public":
            return Boundary.PUBLIC
        if schema.startswith("proj_"):
            return Boundary.OTHER_PROJECTS
        return _PLATFORM_SCHEMAS.get(schema, Boundary.SCHEMAS)


_ABOUT_ROLES = frozenset({kind for kind, (boundary, _) in _OF_THE_SERVER.items() if boundary is Boundary.ROLES})
"""Statements that are refused for what they do, whichever role they name."""

_OUTSIDE_OF_SCHEMAS = frozenset(
    {
        enums.ObjectType.OBJECT_DATABASE,
        enums.ObjectType.OBJECT_FDW,
        enums.ObjectType.OBJECT_FOREIGN_SERVER,
        enums.ObjectType.OBJECT_LANGUAGE,
        enums.ObjectType.OBJECT_TABLESPACE,
        enums.ObjectType.OBJECT_PARAMETER_ACL,
    }
)


def _in_bodies(node: ast.Node, scope: Scope) -> Iterator[tuple[Boundary, str]]:
    """What the text of a function names. Only what is sure: its language may be any, and so may its aliases."""
    texts = list(bodies_of(node))
    if isinstance(node, ast.DoStmt):
        # What it executes is a string in it.
        texts += [string for body in texts for string in _strings_in(body)]
    for body in texts:
        tokens = tokens_of(body)
        for before, name, dot, thing in zip([None, *tokens], tokens, tokens[1:], tokens[2:], strict=False):
            if dot.name != "ASCII_46" or (before is not None and before.name == "ASCII_46"):
                continue
            schema, named = (body[token.start : token.end + 1].strip('"') for token in (name, thing))
            if schema == "public":
                yield Boundary.PUBLIC, f"public.{named} in a function's text"
            elif isinstance(node, ast.DoStmt) and schema in _PLATFORM_SCHEMAS and not _callable_in_auth(schema, named):
                # Unlike a function's, its text runs now.
                yield _PLATFORM_SCHEMAS[schema], f"{schema}.{named} in a DO block"
            elif schema.startswith("proj_") and schema != scope.names.schema and schema in scope.schemas:
                yield Boundary.OTHER_PROJECTS, f"{schema}.{named} in a function's text"


def _strings_in(text: str) -> Iterator[str]:
    for token in tokens_of(text):
        if token.name == "SCONST":
            yield text[token.start : token.end + 1].strip("'").replace("''", "'")


def _callable_in_auth(schema: str, thing: str) -> bool:
    return schema == "auth" and thing in _CALLABLE_IN_AUTH


def _nodes(ancestors: Ancestor | None) -> Iterator[Any]:
    while ancestors is not None and ancestors.node is not None:
        yield ancestors.node
        ancestors = ancestors.parent


def _words(name: Any) -> list[str]:
    """The parts of a name that are plain words."""
    flat = []
    for part in name or ():
        if isinstance(part, tuple):
            flat.extend(_words(part))
        elif isinstance(part, ast.String):
            flat.append(str(part.sval))
    return flat


def _text(node: ast.Node, key: str) -> bool:
    return isinstance(getattr(node, key, None), str)


def _constant(node: Any) -> str | None:
    value = getattr(node, "val", None)
    return value.sval if isinstance(node, ast.A_Const) and isinstance(value, ast.String) else None


def _kind(kind: enums.ObjectType | None) -> str:
    return "object" if kind is None else kind.name.removeprefix("OBJECT_").replace("_", " ").lower()
