"""The central Supabase: the one stack that all tenants share.

Creates what tenants need of it:
    - the KV engine ``connectors`` with the generated secrets at ``connectors/supabase``;
    - the platform's objects in PostgreSQL (:mod:`components.central.platform_sql`);
    - the extensions that projects may use (:mod:`components.central.extensions`);
    - the lease engine (:mod:`components.central.lease_engine`);
    - the copy of the publishable key, and of what stands for it inside, that tenants may read;
    - the key that signs API tokens, and the methods by which people and workloads sign in to OpenBao;
and, where the stack has the setting ``kubernetes``, all of Supabase's services (:mod:`components.central.services`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pulumi
import pulumi_vault as vault

from components.central.api_logins import ApiLogins
from components.central.connector_secrets import ConnectorSecrets
from components.central.extensions import Extensions
from components.central.internal_schemas import InternalSchemas
from components.central.lease_engine import LeaseEngine, LeaseEngineArgs
from components.central.platform_sql import PlatformSql
from components.central.pooler import pooler_endpoint
from components.central.service_logins import ServiceLogins
from components.central.service_secrets import ServiceSecretCopy
from components.central.services import Foundation, FoundationArgs, Services, ServicesArgs, required_secrets
from components.central.verifying_keys import VerifyingKeys
from components.central.workload_auth_methods import WorkloadAuthMethods
from components.platform import DatabaseConnection, DatabaseEndpoint, Platform
from components.providers import database_provider, openbao_provider, read_secret
from data_plane.model.catalog import Catalog, load_catalog
from data_plane.model.cluster_settings import ClusterSettings
from data_plane.model.connector_secrets import CLUSTER_SECRETS, SUPABASE_SECRETS, SecretKind
from data_plane.model.naming import (
    CONNECTORS_MOUNT,
    JWKS_PATH,
    PLATFORM_SCHEMA,
    PUBLISHABLE_KEY,
    SIGNING_KEY,
    SUPABASE_SECRET,
    TENANTS_SECRET,
    ApiServer,
)
from data_plane.model.projects import Project, api_servers, known_cells
from data_plane.model.service_logins import service_logins
from data_plane.model.settings import AuthMethodSettings, CentralSettings, DatabaseSettings, WorkloadAuthSettings
from data_plane.model.tenant_binding import PoolerEndpoint

__all__ = ["SupabaseCentral", "SupabaseCentralArgs"]

_ONE_DAY_SECONDS = 24 * 3600


@dataclass(frozen=True)
class ClusterArgs:
    """Settings, images and addresses of the services on a cluster."""

    settings: ClusterSettings
    catalog: Catalog
    """Their images, and what they ask of a node."""
    database: DatabaseSettings
    public_url: str
    openbao_address: str


@dataclass(frozen=True)
class SupabaseCentralArgs:
    """Arguments of :class:`SupabaseCentral`."""

    endpoint: DatabaseEndpoint
    openbao_address: pulumi.Input[str]
    api_url: pulumi.Input[str]
    login: AuthMethodSettings
    lease_ttl_maximum: int
    """Seconds."""
    extensions: Sequence[str] = ()
    """Of PostgreSQL, for projects to use."""
    workload_login: WorkloadAuthSettings = field(default_factory=WorkloadAuthSettings)
    pooler: PoolerEndpoint | None = None
    existing_password: pulumi.Input[str] | None = None
    """Password of the database's superuser where the database was there first; adopted into ``connectors/supabase``."""
    api_servers: Sequence[ApiServer] = ()
    """The instances of PostgREST that serve tenants."""
    cluster: ClusterArgs | None = None
    """If omitted, no Kubernetes services are created."""

    @classmethod
    def from_settings(
        cls, settings: CentralSettings, config: pulumi.Config, root: Path, projects: Sequence[Project]
    ) -> "SupabaseCentralArgs":
        """The arguments that a central stack's configuration gives.

        Args:
            root: the checkout.
            projects: all of the environment.

        Raises:
            ConfigurationError: if a service has no image, or the data beside the stacks cannot be used.
        """
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
            extensions=settings.extensions,
            workload_login=settings.workload_login,
            pooler=pooler_endpoint(settings),
            existing_password=config.get_secret("databaseAdminPassword"),
            api_servers=api_servers(projects, known_cells(root, settings.environment, central=pulumi.get_stack())),
            cluster=_cluster_args(settings, root),
        )


def _cluster_args(settings: CentralSettings, root: Path) -> ClusterArgs | None:
    kubernetes = settings.kubernetes
    if kubernetes is None:
        return None
    if kubernetes.render_to is not None:
        folder = root if settings.state_dir is None else Path(settings.state_dir)
        kubernetes = kubernetes.model_copy(update={"render_to": str(folder / kubernetes.render_to)})
    return ClusterArgs(
        kubernetes,
        load_catalog(root, registry=kubernetes.registry, overrides=kubernetes.resources, images=kubernetes.images),
        settings.database,
        settings.api_url,
        settings.openbao.address,
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
            kinds={**SUPABASE_SECRETS, **(_cluster_secrets(args.api_servers) if args.cluster else {})},
            required=required_secrets(args.cluster.settings) if args.cluster else {},
            adopted=adopted,
            opts=pulumi.ResourceOptions.merge(child, kept),
        )
        ServiceSecretCopy(
            f"{name}-tenants",
            address=args.openbao_address,
            mount=connectors.path,
            source=secrets.path,
            source_version=secrets.version,
            path=TENANTS_SECRET,
            # What stands for the publishable key inside gives the rights of that key; Storage's S3 protocol wants it as
            # the secret key beside a session token.
            keys=[PUBLISHABLE_KEY, *(["ANON_KEY"] if args.cluster else [])],
            opts=child,
        )
        foundation = _foundation(name, args, openbao, secrets, child)
        password = read_secret(openbao, secrets.path, "POSTGRES_PASSWORD", parent=self)
        connection = DatabaseConnection(args.endpoint, password)
        # Whatever is put into PostgreSQL is put there once it is up.
        up = pulumi.ResourceOptions(depends_on=[foundation.database] if foundation else [])
        database = database_provider(
            f"{name}-database", args.endpoint, password, opts=pulumi.ResourceOptions.merge(child, up)
        )
        internal = (
            InternalSchemas(name, database, args.endpoint.name, args.endpoint.admin_user, opts=child)
            if foundation
            else None
        )
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
            database=connection,
            email_autoconfirm=args.cluster.settings.auth.email_autoconfirm if args.cluster else None,
            # After the issuer: the file would otherwise make that role itself, without a login. And after the services'
            # own database, which it closes to leases.
            opts=pulumi.ResourceOptions(
                parent=self, depends_on=[leases.issuer, *([internal] if internal else [])], retain_on_delete=True
            ),
        )
        api_logins = ApiLogins(
            f"{name}-api-logins",
            database=connection,
            logins=[server.login for server in args.api_servers],
            opts=pulumi.ResourceOptions(parent=self, depends_on=[platform_objects]),
        )
        Extensions(f"{name}-extensions", args.extensions, database, args.endpoint.name, [platform_objects], opts=child)
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
        # OpenBao publishes the keys of token roles only. This one, which no policy lets anybody use, makes it publish
        # the key before there is a tenant.
        announced = vault.identity.OidcRole(
            f"{name}-signing-key-role", name="data_plane", key=key.name, client_id="data_plane", ttl=60, opts=in_openbao
        )
        VerifyingKeys(
            f"{name}-verifying-keys",
            address=args.openbao_address,
            database=connection,
            extra=read_secret(openbao, secrets.path, "JWT_JWKS", parent=self) if args.cluster else None,
            opts=pulumi.ResourceOptions(parent=self, depends_on=[platform_objects, announced], retain_on_delete=True),
        )
        self.platform = Platform(
            database=args.endpoint,
            openbao_address=args.openbao_address,
            login_accessor=_login_accessor(name, args.login, openbao, self),
            api_url=args.api_url,
            pooler=args.pooler,
            workload_logins=WorkloadAuthMethods(
                f"{name}-workload-login",
                args.workload_login,
                openbao,
                foundation.logins if foundation else {},
                opts=child,
            ).logins,
        )
        # Both wait for what they name, so that their readers can use it.
        self.jwks_url = key.name.apply(lambda _: args.openbao_address).apply(lambda address: f"{address}{JWKS_PATH}")
        self.pre_config = platform_objects.checksum.apply(lambda _: f"{PLATFORM_SCHEMA}.pre_config")
        if foundation and internal:
            logins = ServiceLogins(
                f"{name}-logins",
                address=args.openbao_address,
                mount=connectors.path,
                path=secrets.path,
                version=secrets.version,
                host=args.endpoint.host,
                port=args.endpoint.port,
                database=args.endpoint.name,
                username=args.endpoint.admin_user,
                sslmode=args.endpoint.sslmode,
                logins=service_logins(args.api_servers),
                # The file makes those that the database does not have.
                opts=pulumi.ResourceOptions(parent=self, depends_on=[platform_objects, api_logins]),
            )
            Services(name, ServicesArgs(foundation, after=[logins, internal, key]), opts=child)
        self.register_outputs({"jwksUrl": self.jwks_url, "preConfig": self.pre_config})


def _cluster_secrets(api_servers: Sequence[ApiServer]) -> dict[str, SecretKind]:
    return {**CLUSTER_SECRETS, **{server.password_key: SecretKind.PASSWORD for server in api_servers}}


def _foundation(
    name: str,
    args: SupabaseCentralArgs,
    openbao: vault.Provider,
    secrets: ConnectorSecrets,
    opts: pulumi.ResourceOptions,
) -> Foundation | None:
    if args.cluster is None:
        return None
    foundation = FoundationArgs(
        settings=args.cluster.settings,
        catalog=args.cluster.catalog,
        openbao=openbao,
        openbao_address=args.cluster.openbao_address,
        secrets=secrets,
        database=args.cluster.database,
        public_url=args.cluster.public_url,
        api_servers=tuple(args.api_servers),
    )
    return Foundation(name, foundation, opts=opts)


def _login_accessor(
    name: str, login: AuthMethodSettings, openbao: vault.Provider, parent: pulumi.Resource
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
