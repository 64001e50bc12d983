"""OpenBao's roles for a tenant's leases and API tokens.

Creates, for the tenant ``proj_x``:
    - a database role per access level; a lease is a login that starts as the database role of the same name;
    - a token role per API level; a token carries ``"role": "proj_x_authenticated"``, which PostgREST assumes;
    - for a project with Storage, a token role for its back end to manage the whole bucket with: still the role
      ``proj_x_authenticated``, because what would pass Storage's rules would pass them for every bucket, and a claim
      that those rules know and Auth never issues.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
import pulumi_vault as vault
from psycopg import sql

from data_plane.model.naming import (
    API_LEVELS,
    DATABASE_CONNECTION,
    DATABASE_MOUNT,
    SIGNING_KEY,
    AccessLevel,
    ApiServer,
    TenantNames,
)
from data_plane.model.projects import Limits
from data_plane.model.timings import TOKEN_TTL_SECONDS

__all__ = ["TenantLeases", "TenantLeasesArgs", "lease_statements"]


@dataclass(frozen=True)
class LeaseStatements:
    """The SQL of a lease's life, for OpenBao to fill in ``{{name}}``, ``{{password}}`` and ``{{expiration}}``."""

    creation: str
    renewal: str
    revocation: str


def lease_statements(tenant_role: str, statement_timeout: int, lease_ttl: int) -> LeaseStatements:
    """The statements of a lease that starts as ``tenant_role``; the functions are in ``platform.sql``.

    Args:
        statement_timeout: seconds.
        lease_ttl: seconds, by which PostgreSQL notices that its clock is not OpenBao's.
    """
    create = sql.SQL(
        "select data_plane.issue_lease('{{{{name}}}}', '{{{{password}}}}', '{{{{expiration}}}}', {}, {}, {})"
    )
    return LeaseStatements(
        creation=create.format(tenant_role, statement_timeout * 1000, f"{lease_ttl} s").as_string(),
        renewal="select data_plane.renew_lease('{{name}}', '{{expiration}}')",
        revocation="select data_plane.revoke_lease('{{name}}')",
    )


@dataclass(frozen=True)
class TenantLeasesArgs:
    """Arguments of :class:`TenantLeases`."""

    names: TenantNames
    provider: vault.Provider
    limits: Limits
    api_server: ApiServer | None
    """The PostgREST that serves the tenant, named in its tokens so that the gateway finds it."""
    storage: bool
    """Whether the tenant has a bucket."""
    schemas: Sequence[str] = ()
    """The further schemas that are served, named in its tokens so that the gateway lets requests name them."""


class TenantLeases(pulumi.ComponentResource):
    """The lease roles and token roles of a tenant."""

    database_roles: dict[AccessLevel, vault.database.SecretBackendRole]
    token_roles: dict[AccessLevel, vault.identity.OidcRole]
    storage_token_role: vault.identity.OidcRole | None

    def __init__(self, name: str, args: TenantLeasesArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("supabase-data-plane:tenant:TenantLeases", name, None, opts)
        in_openbao = pulumi.ResourceOptions(parent=self, provider=args.provider)
        self.database_roles = {}
        for level in AccessLevel:
            statements = lease_statements(args.names.role(level), args.limits.statement_timeout, args.limits.lease_ttl)
            self.database_roles[level] = vault.database.SecretBackendRole(
                f"{name}-lease-{level.value.replace('_', '-')}",
                backend=DATABASE_MOUNT,
                name=args.names.role(level),
                db_name=DATABASE_CONNECTION,
                creation_statements=[statements.creation],
                renew_statements=[statements.renewal],
                revocation_statements=[statements.revocation],
                rollback_statements=[statements.revocation],
                default_ttl=args.limits.lease_ttl,
                max_ttl=args.limits.lease_max_ttl,
                opts=in_openbao,
            )
        self.token_roles = {
            level: self._token_role(
                f"{name}-token-{level.value.replace('_', '-')}",
                args,
                args.names.role(level),
                {"role": args.names.role(level)},
                in_openbao,
            )
            for level in API_LEVELS
        }
        self.storage_token_role = None
        if args.storage:
            self.storage_token_role = self._token_role(
                f"{name}-token-storage",
                args,
                args.names.storage_token_role,
                {"role": args.names.role(AccessLevel.AUTHENTICATED), "storage_admin": True},
                in_openbao,
            )
        self.register_outputs({})

    @staticmethod
    def _token_role(
        resource: str, args: TenantLeasesArgs, role: str, claims: Mapping[str, object], opts: pulumi.ResourceOptions
    ) -> vault.identity.OidcRole:
        return vault.identity.OidcRole(
            resource,
            name=role,
            key=SIGNING_KEY,
            client_id=args.names.schema,
            template=json.dumps(
                {
                    **claims,
                    "project": args.names.slug,
                    # By which the gateway finds the PostgREST that serves it.
                    **({"api_server": args.api_server.name} if args.api_server else {}),
                    **({"schemas": ",".join(args.schemas)} if args.schemas else {}),
                },
                separators=(",", ":"),
            ),
            ttl=TOKEN_TTL_SECONDS,
            opts=opts,
        )
