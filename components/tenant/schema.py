"""A tenant's part of PostgreSQL.

Creates, for the tenant ``proj_x``:
    - ``proj_x_owner``, NOLOGIN, which owns the schema and all in it;
    - ``proj_x_anon`` and ``proj_x_authenticated``, members of Supabase's roles of those names, so that platform
      policies hold for them; ``proj_x_service_role``, past row-level security, and no member of the global one;
    - the schema, kept whatever happens to the stack;
    - USAGE on it for the three API roles (who serves it is :mod:`components.tenant.api_access`'s);
    - default privileges, so that what migrations create can be used without a GRANT in each.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_postgresql as postgresql

from data_plane.model.naming import API_LEVELS, AccessLevel, TenantNames
from data_plane.model.projects import Limits

__all__ = ["TenantSchema", "TenantSchemaArgs", "role_settings"]

_PLATFORM_USER = "data_plane_tenant"
_ROWS = ("SELECT", "INSERT", "UPDATE", "DELETE")

# No TRUNCATE for anon and authenticated: row-level security does not see it.
_DEFAULTS: Sequence[tuple[str, dict[AccessLevel, Sequence[str]]]] = (
    (
        "table",
        {
            AccessLevel.ANON: _ROWS,
            AccessLevel.AUTHENTICATED: _ROWS,
            AccessLevel.SERVICE_ROLE: (*_ROWS, "TRUNCATE"),
        },
    ),
    ("sequence", dict.fromkeys(API_LEVELS, ("USAGE", "SELECT"))),
    ("function", dict.fromkeys(API_LEVELS, ("EXECUTE",))),
)

# What each role is a member of, so what it has beside its own schema.
_MEMBER_OF = {
    AccessLevel.OWNER: (_PLATFORM_USER,),
    AccessLevel.SERVICE_ROLE: (_PLATFORM_USER,),
    AccessLevel.AUTHENTICATED: ("authenticated",),
    AccessLevel.ANON: ("anon",),
}


def role_settings(names: TenantNames, limits: Limits) -> list[str]:
    """The settings of each of a tenant's roles, as PostgreSQL keeps them; what else is there, a lease has left."""
    return [
        f"search_path={', '.join(_search_path(names))}",
        f"statement_timeout={_statement_timeout(limits)}",
        f"idle_in_transaction_session_timeout={_idle_in_transaction_timeout(limits)}",
    ]


def _search_path(names: TenantNames) -> list[str]:
    return [names.schema, "extensions"]


def _statement_timeout(limits: Limits) -> int:
    return limits.statement_timeout * 1000


def _idle_in_transaction_timeout(limits: Limits) -> int:
    return limits.idle_in_transaction_timeout * 1000


@dataclass(frozen=True)
class TenantSchemaArgs:
    """Arguments of :class:`TenantSchema`."""

    names: TenantNames
    database_name: pulumi.Input[str]
    provider: postgresql.Provider
    limits: Limits
    attached: bool
    """Whether anybody but the owner may use it."""


class TenantSchema(pulumi.ComponentResource):
    """The schema of a tenant, its roles and their privileges."""

    roles: dict[AccessLevel, postgresql.Role]
    schema: postgresql.Schema
    grants: list[postgresql.Grant]

    def __init__(self, name: str, args: TenantSchemaArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("supabase-data-plane:tenant:TenantSchema", name, None, opts)
        in_database = pulumi.ResourceOptions(parent=self, provider=args.provider)
        kept = pulumi.ResourceOptions.merge(in_database, pulumi.ResourceOptions(protect=True, retain_on_delete=True))
        names = args.names

        self.roles = {
            level: postgresql.Role(
                f"{name}-{_dashed(level)}",
                name=names.role(level),
                login=False,
                inherit=True,
                bypass_row_level_security=level is AccessLevel.SERVICE_ROLE,
                roles=list(_MEMBER_OF[level]),
                # PostgREST applies these to a request; a lease has them of its own, and takes its connection limit.
                search_paths=_search_path(names),
                statement_timeout=_statement_timeout(args.limits),
                idle_in_transaction_session_timeout=_idle_in_transaction_timeout(args.limits),
                connection_limit=args.limits.connection_limit,
                opts=kept,
            )
            for level in AccessLevel
        }
        owner = self.roles[AccessLevel.OWNER]
        self.schema = postgresql.Schema(
            name,
            name=names.schema,
            database=args.database_name,
            owner=owner.name,
            if_not_exists=True,
            drop_cascade=False,
            opts=kept,
        )
        self.grants = self._grants(name, args)
        self._defaults(name, args, owner, in_database)
        self.register_outputs({"schema": self.schema.name})

    def _grants(self, name: str, args: TenantSchemaArgs) -> list[postgresql.Grant]:
        """USAGE on the schema. Detached is an empty list of privileges: seen in a preview, and undone."""
        grants: list[postgresql.Grant] = []
        for level in API_LEVELS:
            grants.append(
                postgresql.Grant(
                    f"{name}-usage-{_dashed(level)}",
                    role=self.roles[level].name,
                    database=args.database_name,
                    schema=self.schema.name,
                    object_type="schema",
                    privileges=["USAGE"] if args.attached else [],
                    # One after the other: two at once would update the same row of pg_namespace, and one would fail.
                    opts=pulumi.ResourceOptions(parent=self, provider=args.provider, depends_on=grants[-1:]),
                )
            )
        return grants

    def _defaults(
        self, name: str, args: TenantSchemaArgs, owner: postgresql.Role, opts: pulumi.ResourceOptions
    ) -> None:
        # PostgreSQL lets everybody execute new functions; only a default for all schemas can take that back.
        postgresql.DefaultPrivileges(
            f"{name}-default-function-public",
            role="public",
            owner=owner.name,
            database=args.database_name,
            object_type="function",
            privileges=[],
            opts=pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=[self.schema])),
        )
        for object_type, privileges in _DEFAULTS:
            for level, granted in privileges.items():
                postgresql.DefaultPrivileges(
                    f"{name}-default-{object_type}-{_dashed(level)}",
                    role=self.roles[level].name,
                    owner=owner.name,
                    database=args.database_name,
                    schema=self.schema.name,
                    object_type=object_type,
                    privileges=list(granted),
                    opts=opts,
                )


def _dashed(level: AccessLevel) -> str:
    return level.value.replace("_", "-")
