"""The central Supabase: the one stack that all tenants share.

Creates what tenants need of it:
    - the KV engine ``connectors`` with the generated secrets at ``connectors/supabase``;
    - the platform's objects in PostgreSQL (:mod:`components.central.platform_sql`);
    - the lease engine (:mod:`components.central.lease_engine`);
    - the key that signs API tokens, and the method by which people sign in to OpenBao.
"""

from dataclasses import dataclass

import pulumi
import pulumi_vault as vault

from components.central.connector_secrets import SUPABASE_SECRETS, ConnectorSecrets
from components.central.lease_engine import LeaseEngine, LeaseEngineArgs
from components.central.platform_sql import PLATFORM_SCHEMA, PlatformSql
from components.naming import CONNECTORS_MOUNT, SIGNING_KEY
from components.platform import DatabaseEndpoint, Platform
from components.providers import SUPABASE_SECRET, database_provider, openbao_provider, read_secret
from components.settings import CentralSettings, LoginSettings

__all__ = ["SupabaseCentral", "SupabaseCentralArgs"]

_ONE_DAY_SECONDS = 24 * 3600


@dataclass(frozen=True)
class SupabaseCentralArgs:
    """Arguments of :class:`SupabaseCentral`."""

    endpoint: DatabaseEndpoint
    openbao_address: pulumi.Input[str]
    api_url: pulumi.Input[str]
    login: LoginSettings
    lease_ttl_maximum: int
    """Seconds."""
    existing_password: pulumi.Input[str] | None = None
    """Password of the database's superuser where the database was there first; adopted into ``connectors/supabase``."""

    @classmethod
    def from_settings(cls, settings: CentralSettings, config: pulumi.Config) -> "SupabaseCentralArgs":
        """The arguments that a central stack's configuration gives."""
        database = settings.database
        return cls(
            endpoint=DatabaseEndpoint(
                host=database.host,
                port=database.port,
                name=database.name,
                admin_user=database.admin_user,
                sslmode=database.sslmode,
            ),
            openbao_address=settings.openbao.address,
            api_url=settings.api_url,
            login=settings.login,
            lease_ttl_maximum=settings.lease_ttl_maximum,
            existing_password=config.get_secret("databaseAdminPassword"),
        )


class SupabaseCentral(pulumi.ComponentResource):
    """The central Supabase data plane."""

    platform: Platform
    """What cells read of it."""
    jwks_url: pulumi.Output[str]
    """The public keys of all API tokens, as a JWKS; follows the key's rotation."""
    pre_config: pulumi.Output[str]
    """The function for PostgREST's ``PGRST_DB_PRE_CONFIG``."""

    def __init__(self, name: str, args: SupabaseCentralArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("supabase-data-plane:central:SupabaseCentral", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        openbao = openbao_provider(f"{name}-openbao", args.openbao_address, opts=child)
        in_openbao = pulumi.ResourceOptions(parent=self, provider=openbao)
        kept = pulumi.ResourceOptions(protect=True, retain_on_delete=True)

        connectors = vault.Mount(
            f"{name}-connectors",
            path=CONNECTORS_MOUNT,
            type="kv",
            options={"version": "2"},
            description="Secrets of the platform's own services",
            opts=pulumi.ResourceOptions.merge(in_openbao, kept),
        )
        adopted = {} if args.existing_password is None else {"POSTGRES_PASSWORD": args.existing_password}
        secrets = ConnectorSecrets(
            f"{name}-secrets",
            address=args.openbao_address,
            mount=connectors.path,
            path=SUPABASE_SECRET,
            kinds=SUPABASE_SECRETS,
            adopted=adopted,
            opts=pulumi.ResourceOptions.merge(child, kept),
        )
        password = read_secret(openbao, secrets.path, "POSTGRES_PASSWORD", parent=self)
        database = database_provider(f"{name}-database", args.endpoint, password, opts=child)
        leases = LeaseEngine(
            f"{name}-leases",
            LeaseEngineArgs(
                endpoint=args.endpoint,
                openbao=openbao,
                database=database,
                openbao_address=args.openbao_address,
                connectors=connectors,
                lease_ttl_maximum=args.lease_ttl_maximum,
            ),
            opts=child,
        )
        platform_objects = PlatformSql(
            f"{name}-platform",
            host=args.endpoint.host,
            port=args.endpoint.port,
            database=args.endpoint.name,
            username=args.endpoint.admin_user,
            password=password,
            sslmode=args.endpoint.sslmode,
            # After the issuer: the file would otherwise make that role itself, without a login.
            opts=pulumi.ResourceOptions(parent=self, depends_on=[leases.issuer], retain_on_delete=True),
        )
        key = vault.identity.OidcKey(
            f"{name}-signing-key",
            name=SIGNING_KEY,
            algorithm="ES256",
            # Only this program makes token roles, and each names its own audience.
            allowed_client_ids=["*"],
            rotation_period=_ONE_DAY_SECONDS,
            # Longer than any token lives, so that a rotated key still verifies what it signed.
            verification_ttl=_ONE_DAY_SECONDS,
            opts=in_openbao,
        )
        self.platform = Platform(
            database=args.endpoint,
            openbao_address=args.openbao_address,
            login_accessor=_login_accessor(name, args.login, openbao, self),
            api_url=args.api_url,
        )
        # Both wait for what they name, so that whoever reads them can use it.
        self.jwks_url = key.name.apply(lambda _: args.openbao_address).apply(
            lambda address: f"{address}/v1/identity/oidc/.well-known/keys"
        )
        self.pre_config = platform_objects.checksum.apply(lambda _: f"{PLATFORM_SCHEMA}.pre_config")
        self.register_outputs({"jwksUrl": self.jwks_url, "preConfig": self.pre_config})


def _login_accessor(
    name: str, login: LoginSettings, openbao: vault.Provider, parent: pulumi.Resource
) -> pulumi.Output[str]:
    """The accessor of the sign-in method: made here where it is managed, else looked up."""
    if login.managed:
        method = vault.AuthBackend(
            f"{name}-login",
            type=login.type,
            path=login.path,
            description="Sign-in of people",
            opts=pulumi.ResourceOptions(parent=parent, provider=openbao),
        )
        return method.accessor
    found = vault.get_auth_backend_output(
        path=login.path, opts=pulumi.InvokeOutputOptions(parent=parent, provider=openbao)
    )
    return found.accessor
