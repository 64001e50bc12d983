"""OpenBao's database engine, connected to the central PostgreSQL.

Creates:
    - the login ``openbao_lease_issuer``, which may call the lease functions of ``platform.sql`` and nothing else;
    - the database secrets engine;
    - the connection over which every tenant's leases are issued.
"""

from dataclasses import dataclass

import pulumi
import pulumi_postgresql as postgresql
import pulumi_vault as vault

from components.central.connector_secrets import ConnectorSecrets
from components.platform import DatabaseEndpoint
from components.providers import read_secret
from data_plane.model.connector_secrets import SecretKind
from data_plane.model.naming import CONNECTORS_MOUNT, DATABASE_CONNECTION, DATABASE_MOUNT, ISSUER_SECRET, LEASE_ISSUER

__all__ = ["ISSUER_TIMEOUT_MS", "LeaseEngine", "LeaseEngineArgs"]

ISSUER_TIMEOUT_MS = 15_000

# The name says the tenant's role in pg_stat_activity; the random part makes it unique.
_USERNAME_TEMPLATE = '{{ printf "lease_%s_%s" (.RoleName | truncate 34) (random 20) }}'


@dataclass(frozen=True)
class LeaseEngineArgs:
    """Arguments of :class:`LeaseEngine`."""

    endpoint: DatabaseEndpoint
    openbao: vault.Provider
    database: postgresql.Provider
    openbao_address: pulumi.Input[str]
    connectors: vault.Mount
    """The KV engine that holds the issuer's password."""
    lease_ttl_maximum: int
    """Seconds; the engine refuses longer leases whatever a role says."""


class LeaseEngine(pulumi.ComponentResource):
    """Issues, renews and revokes database leases."""

    issuer: postgresql.Role
    """The login that OpenBao uses."""
    connection: vault.database.SecretBackendConnection

    def __init__(self, name: str, args: LeaseEngineArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("supabase-data-plane:central:LeaseEngine", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        in_openbao = pulumi.ResourceOptions(parent=self, provider=args.openbao)

        password_secret = ConnectorSecrets(
            f"{name}-issuer-password",
            address=args.openbao_address,
            mount=args.connectors.path,
            path=ISSUER_SECRET,
            kinds={"PASSWORD": SecretKind.PASSWORD},
            opts=pulumi.ResourceOptions.merge(child, pulumi.ResourceOptions(retain_on_delete=True)),
        )
        password = read_secret(args.openbao, password_secret.path, "PASSWORD", parent=self, mount=CONNECTORS_MOUNT)

        self.issuer = postgresql.Role(
            f"{name}-issuer",
            name=LEASE_ISSUER,
            login=True,
            inherit=False,
            password=password,
            connection_limit=20,
            # As in platform_leases.sql, which has lock_timeout beside it: no lease of one tenant's holds up another's.
            statement_timeout=ISSUER_TIMEOUT_MS,
            idle_in_transaction_session_timeout=ISSUER_TIMEOUT_MS,
            # `rotate-root` makes OpenBao the only one who knows the password; that is no drift to be undone.
            opts=pulumi.ResourceOptions(parent=self, provider=args.database, ignore_changes=["password"]),
        )
        mount = vault.Mount(
            f"{name}-mount",
            path=DATABASE_MOUNT,
            type="database",
            description="Short-lived logins to the central PostgreSQL",
            max_lease_ttl_seconds=args.lease_ttl_maximum,
            opts=in_openbao,
        )
        url = pulumi.Output.concat(
            "postgresql://{{username}}:{{password}}@",
            args.endpoint.host,
            ":",
            pulumi.Output.from_input(args.endpoint.port).apply(str),
            "/",
            args.endpoint.name,
            "?sslmode=",
            args.endpoint.sslmode,
        )
        self.connection = vault.database.SecretBackendConnection(
            f"{name}-connection",
            backend=mount.path,
            name=DATABASE_CONNECTION,
            allowed_roles=["proj_*"],
            verify_connection=True,
            postgresql=vault.database.SecretBackendConnectionPostgresqlArgs(
                connection_url=url,
                username=self.issuer.name,
                password=password,
                # OpenBao hashes a lease's password before it sends it, so PostgreSQL's log never sees one.
                password_authentication="scram-sha-256",
                username_template=_USERNAME_TEMPLATE,
                max_open_connections=10,
                max_idle_connections=2,
                max_connection_lifetime=300,
            ),
            opts=pulumi.ResourceOptions(parent=self, provider=args.openbao, ignore_changes=["postgresql.password"]),
        )
        self.register_outputs({"issuer": self.issuer.name, "connection": self.connection.name})
