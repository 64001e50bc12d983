"""What a migration may not name, found before any of it runs, with what to do instead.

PostgreSQL refuses all of it to a tenant's owner anyway, or would let through what reaches nobody. Here the whole file
is looked at first, every place is named, and the advice is for people.
"""

from collections.abc import Iterator
from typing import Any

from pglast import ast, enums
from pglast.visitors import Ancestor, Skip, Visitor

from data_plane.connector.migrations.admission import refused_in
from data_plane.connector.migrations.catalog_lookups import unscoped_lookups
from data_plane.connector.migrations.extensions import ExtensionState
from data_plane.connector.migrations.function_texts import bodies_of, is_statement, sql_body, strings_in
from data_plane.connector.migrations.jobs import JOB_FUNCTIONS, job_texts
from data_plane.connector.migrations.literals import compared_roles, named_objects
from data_plane.connector.migrations.outside_schemas import (
    ABOUT_ROLES,
    DROPPED,
    HINTS_ON_ROLES,
    OF_THE_SERVER,
    OUTSIDE_OF_SCHEMAS,
)
from data_plane.connector.migrations.scope import OPEN_SCHEMAS, PLATFORM_SCHEMAS, Finding, Rule, Scope
from data_plane.connector.migrations.script import Statement
from data_plane.connector.migrations.storage_rules import storage_objections
from data_plane.connector.migrations.text_findings import callable_in_auth, findings_in_texts
from data_plane.connector.migrations.users import users_objections
from data_plane.model.naming import AccessLevel

__all__ = ["findings_in"]


_SETTINGSOF_THE_SERVER = frozenset({"session_replication_role"})

_CALLABLE_IN_AUTH = frozenset({"uid", "jwt", "role", "email"})

_INHERITED = frozenset({"anon", "authenticated"})
"""The project's own roles are members of these, so a policy for them holds for its own, and nobody else gets there."""

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
    visitor = _Walk(scope, statement.text)
    visitor(statement.node)
    for text in (statement.text, *bodies_of(statement.node)):
        for _, name in compared_roles(text):
            visitor.found(Rule.SHARED_ROLES, f"role '{name}' of a request (here {scope.role_here(name)})")
        for _, name in named_objects(text):
            visitor.named(name)
        for lookup in unscoped_lookups(text):
            if lookup.name not in scope.extension_objects:
                visitor.found(Rule.CATALOGUE, f"{lookup.column} = '{lookup.name}'")
    for what in _misused_users(statement, scope):
        visitor.found(Rule.AUTH, what)
    if (body := sql_body(statement.node)) is not None:
        visitor(body)
    else:
        for boundary, what in findings_in_texts(statement.node, statement.text, scope):
            visitor.found(boundary, what)
    findings = [Finding(boundary, what, statement.line) for boundary, what in visitor.findings]
    if scope.judge is not None:
        refused = refused_in(statement.text, statement.node, next(bodies_of(statement.node), None), scope.judge)
        findings += [Finding(Rule.SESSION, what, statement.line + line) for line, what in refused]
    return findings


def _misused_users(statement: Statement, scope: Scope) -> Iterator[str]:
    for text in (statement.text, *bodies_of(statement.node), *_run_texts(statement)):
        yield from users_objections(text, scope)


def _run_texts(statement: Statement) -> Iterator[str]:
    """The strings of a statement that will be run: in a function, and as a job."""
    for body in bodies_of(statement.node):
        yield from filter(is_statement, strings_in(body))
    for token in job_texts(statement.text):
        yield from strings_in(statement.text[token.start : token.end + 1])


class _Walk(Visitor):
    """Collects findings in the order of the tree; calls itself for strings that name objects."""

    def __init__(self, scope: Scope, text: str) -> None:
        self._scope = scope
        self._text = text
        self.findings: dict[tuple[Rule, str], None] = {}

    def found(self, boundary: Rule, what: str) -> None:
        self.findings[boundary, what] = None

    def visit(self, ancestors: Ancestor, node: ast.Node) -> None:
        kind = type(node).__name__
        if kind in OF_THE_SERVER:
            boundary, what = OF_THE_SERVER[kind]
            name = next((getattr(node, key) for key in ("pubname", "extname", "role", "dbname") if _has(node, key)), "")
            name = getattr(name, "rolename", name)
            self.found(boundary, f"{what} {name}".strip() + HINTS_ON_ROLES.get(str(name), ""))

    # Names of objects

    def visit_RangeVar(self, ancestors: Ancestor, node: ast.RangeVar) -> None:  # noqa: N802
        if node.relpersistence == "t":
            self.found(Rule.TEMPORARY, f"temporary {node.relname}")
        if node.schemaname:
            self._schema(node.schemaname, str(node.relname))

    def visit_FuncCall(self, ancestors: Ancestor, node: ast.FuncCall) -> None:  # noqa: N802
        self._name(node.funcname)
        arguments = [_constant(argument) for argument in node.args or ()]
        if _words(node.funcname)[-1:] == ["set_config"] and arguments[:1] == ["search_path"] and len(arguments) > 1:
            self._search_path([arguments[1] or ""])
        words = _words(node.funcname)
        if words[:-1] == ["data_plane_api"] and words[-1] in JOB_FUNCTIONS and not self._scope.has_jobs:
            self.found(Rule.EXTENSIONS, f"{words[-1]}: this PostgreSQL has no pg_cron, a deployed data plane has it")

    def visit_CreatePolicyStmt(self, ancestors: Ancestor, node: ast.CreatePolicyStmt) -> Any:  # noqa: N802
        if node.table is None or (node.table.schemaname, node.table.relname) != ("storage", "objects"):
            return None
        objections = list(storage_objections(node, self._text))
        for objection in objections:
            self.found(Rule.STORAGE, f"policy {node.policy_name} on storage.objects: {objection}")
        # What else it names says the same less well.
        return Skip if objections else None

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
            self.found(Rule.SCHEMAS, f"rename schema {node.subname}")
        elif node.object is not None:
            self._object(node.renameType, node.object, "rename")

    def visit_CreateSchemaStmt(self, ancestors: Ancestor, node: ast.CreateSchemaStmt) -> None:  # noqa: N802
        name = node.schemaname or "without a name"
        self.found(Rule.PUBLIC if name == "public" else Rule.SCHEMAS, f"create schema {name}")

    def visit_GrantStmt(self, ancestors: Ancestor, node: ast.GrantStmt) -> None:  # noqa: N802
        verb = "grant" if node.is_grant else "revoke"
        if node.objtype == enums.ObjectType.OBJECT_SCHEMA:
            for word in _words(node.objects):
                declared = word in {self._scope.names.schema, "public"}
                if declared or word not in self._scope.own_schemas:
                    self.found(Rule.DEFAULTS if declared else self._boundary(word), f"{verb} on schema {word}")
        elif node.targtype == enums.GrantTargetType.ACL_TARGET_ALL_IN_SCHEMA:
            for word in _words(node.objects):
                self._schema_itself(word)
        elif node.objtype in {enums.ObjectType.OBJECT_TYPE, enums.ObjectType.OBJECT_DOMAIN}:
            for name in node.objects or ():
                self._name(name)
        elif node.objtype in OUTSIDE_OF_SCHEMAS:
            self.found(Rule.SERVER, f"{verb} on {_kind(node.objtype)} {', '.join(_words(node.objects))}")

    def visit_AlterDefaultPrivilegesStmt(  # noqa: N802
        self, ancestors: Ancestor, node: ast.AlterDefaultPrivilegesStmt
    ) -> None:
        further = self._scope.own_schemas - {self._scope.names.schema}
        named = {word for option in node.options or () if option.defname == "schemas" for word in _words(option.arg)}
        if not named or not named <= further:
            self.found(Rule.DEFAULTS, "alter default privileges")

    def visit_CreateExtensionStmt(self, ancestors: Ancestor, node: ast.CreateExtensionStmt) -> None:  # noqa: N802
        name = str(node.extname)
        extensions = self._scope.all_extensions
        if extensions.state(name) is not ExtensionState.HERE:
            self.found(Rule.EXTENSIONS, f"create extension {name}: {extensions.message(name)}")
        elif not node.if_not_exists:
            self.found(Rule.EXTENSIONS, f"create extension {name} (the database has it: say `if not exists`)")

    def visit_CopyStmt(self, ancestors: Ancestor, node: ast.CopyStmt) -> None:  # noqa: N802
        if node.is_program or node.filename:
            self.found(Rule.SERVER, "copy with a file or program of the server")

    # Roles and settings

    def visit_RoleSpec(self, ancestors: Ancestor, node: ast.RoleSpec) -> None:  # noqa: N802
        name = node.rolename
        if node.roletype != enums.RoleSpecType.ROLESPEC_CSTRING or name is None or name in self._own_roles():
            return
        above = list(_nodes(ancestors))
        if any(type(node).__name__ in ABOUT_ROLES for node in above):
            return
        if name in _INHERITED and any(isinstance(node, ast.CreatePolicyStmt | ast.AlterPolicyStmt) for node in above):
            return
        own = self._scope.role_here(name)
        if own is not None:
            self.found(Rule.SHARED_ROLES, f"role {name} (here {own})")
        else:
            self.found(Rule.ROLES, f"role {name}{HINTS_ON_ROLES.get(name, '')}")

    def visit_VariableSetStmt(self, ancestors: Ancestor, node: ast.VariableSetStmt) -> None:  # noqa: N802
        if node.name in {"role", "session_authorization"}:
            self.found(Rule.ROLES, f"set {node.name}")
        elif node.name in _SETTINGSOF_THE_SERVER:
            self.found(Rule.SERVER, f"set {node.name}")
        elif node.name == "search_path":
            self._search_path([_constant(argument) or "" for argument in node.args or ()])

    def _own_roles(self) -> set[str]:
        return {self._scope.names.role(level) for level in AccessLevel}

    def _search_path(self, schemas: list[str]) -> None:
        for schema in (part.strip().strip('"') for entry in schemas for part in entry.split(",")):
            if schema == "public":
                self.found(Rule.PUBLIC, "search_path with public")
            elif schema.startswith("proj_") and schema != self._scope.users:
                self._schema_itself(schema)

    # Schemas

    def _object(self, kind: enums.ObjectType | None, named: Any, verb: str) -> None:
        """An object of a kind, as the statements name it that are for objects of any kind."""
        if kind in DROPPED:
            self.found(DROPPED[kind], f"{verb} {_kind(kind)} {'.'.join(_words((named,)))}".strip())
        elif kind == enums.ObjectType.OBJECT_SCHEMA:
            for word in _words((named,)):
                if verb == "comment on" and word == "public":
                    self.found(Rule.PUBLIC, "comment on schema public")
                elif not (verb == "comment on" and word in self._scope.own_schemas):
                    self.found(Rule.SCHEMAS, f"{verb} schema {word}")
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
        scope = self._scope
        of_users = schema == scope.users and thing.partition(".")[0] == "users" and scope.has_users
        if not (self._is_open(schema) or of_users or callable_in_auth(schema, thing)):
            self.found(self._boundary(schema), f"{schema}.{thing}")

    def _schema_itself(self, schema: str) -> None:
        if not self._is_open(schema):
            self.found(self._boundary(schema), f"schema {schema}")

    def _is_open(self, schema: str) -> bool:
        return schema in OPEN_SCHEMAS or schema in self._scope.own_schemas

    def _boundary(self, schema: str) -> Rule:
        if schema == "public":
            return Rule.PUBLIC
        if schema.startswith("proj_"):
            own = schema.partition("$")[0] == self._scope.names.schema
            return Rule.SCHEMAS if own else Rule.OTHER_PROJECTS
        return PLATFORM_SCHEMAS.get(schema, Rule.SCHEMAS)


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


def _has(node: ast.Node, key: str) -> bool:
    return isinstance(getattr(node, key, None), str | ast.RoleSpec)


def _constant(node: Any) -> str | None:
    value = getattr(node, "val", None)
    return value.sval if isinstance(node, ast.A_Const) and isinstance(value, ast.String) else None


def _kind(kind: enums.ObjectType | None) -> str:
    return "object" if kind is None else kind.name.removeprefix("OBJECT_").replace("_", " ").lower()
