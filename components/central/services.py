"""Supabase's services on a cluster."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pulumi
import pulumi_kubernetes as k8s
import pulumi_vault as vault

from components.central.analytics import Analytics
from components.central.auth import Auth
from components.central.backups import Backups, BackupsArgs, archiving, required_backup_secrets
from components.central.cluster import Cluster
from components.central.cluster_login import ClusterLogin
from components.central.connector_secrets import ConnectorSecrets
from components.central.database import Database, DatabaseArgs
from components.central.functions import Functions
from components.central.gateway import Gateway, public_host
from components.central.guard import Guard
from components.central.imgproxy import Imgproxy
from components.central.jwks_sync import JwksSync
from components.central.logs import Logs
from components.central.meta import Meta
from components.central.namespaces import Namespaces
from components.central.network_policies import NetworkPolicies
from components.central.pooler import Pooler
from components.central.priorities import PriorityClasses
from components.central.realtime import Realtime
from components.central.relay import Relay
from components.central.rest import Rest
from components.central.service_deployment import ServiceArgs
from components.central.service_secrets import SecretAccess
from components.central.storage import S3_KEYS, Storage
from components.central.studio import Studio
from data_plane.model.catalog import Catalog, Service
from data_plane.model.cluster_names import CLOUD_NATIVE_PG_CLUSTER, PORTS, service_name
from data_plane.model.cluster_settings import ClusterSettings, DatabaseMode, StorageBackend
from data_plane.model.naming import ApiServer
from data_plane.model.settings import DatabaseSettings

__all__ = ["Foundation", "FoundationArgs", "Services", "ServicesArgs", "required_secrets"]

_WORKLOADS = ("kubernetes:apps/v1:Deployment", "kubernetes:apps/v1:DaemonSet", "kubernetes:batch/v1:CronJob")


_SERVICES: Mapping[Service, Callable[[str, ServiceArgs, pulumi.ResourceOptions], pulumi.ComponentResource]] = {
    Service.AUTH: Auth,
    Service.REST: Rest,
    Service.REALTIME: Realtime,
    Service.STORAGE: Storage,
    Service.IMGPROXY: Imgproxy,
    Service.POOLER: Pooler,
    Service.META: Meta,
    Service.STUDIO: Studio,
    Service.FUNCTIONS: Functions,
    Service.ANALYTICS: Analytics,
    Service.LOGS: Logs,
    Service.GUARD: Guard,
    Service.RELAY: Relay,
}


def required_secrets(settings: ClusterSettings) -> dict[str, str]:
    """The keys of ``connectors/supabase`` that cannot be generated, and the settings that need them."""
    required: dict[str, str] = {}
    if settings.auth.smtp is not None:
        required["GOTRUE_SMTP_PASS"] = "kubernetes.auth.smtp"
    required |= dict.fromkeys(settings.auth.secrets, "kubernetes.auth.secrets")
    if settings.storage.backend is StorageBackend.S3:
        required |= dict.fromkeys(S3_KEYS, "kubernetes.storage.backend: s3")
    return required | required_backup_secrets(settings.backups)


@dataclass(frozen=True)
class FoundationArgs:
    """Arguments of :class:`Foundation`."""

    settings: ClusterSettings
    catalog: Catalog
    openbao: vault.Provider
    openbao_address: str
    """As this program reaches it."""
    secrets: ConnectorSecrets
    database: DatabaseSettings
    """As this program and OpenBao reach PostgreSQL, and the services where it is external."""
    public_url: str
    api_servers: tuple[ApiServer, ...] = ()
    """The instances of PostgREST that serve tenants."""


class Foundation(pulumi.ComponentResource):
    """Namespaces, network policies, OpenBao's auth method and PostgreSQL itself.

    Creates the namespaces, the ways that are open between them, the PriorityClasses, the services' sign-in to OpenBao,
    and PostgreSQL.
    """

    cluster: Cluster
    access: SecretAccess
    database: Database
    logins: dict[str, pulumi.Output[str]]
    """Accessors of the auth methods that were made for the services, by path."""

    def __init__(self, name: str, args: FoundationArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("supabase-data-plane:central:Foundation", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        settings = args.settings
        provider = _provider(name, settings, child)
        namespaces = Namespaces(name, settings, provider, opts=child)
        priorities = PriorityClasses(name, settings, provider, opts=child)
        login = ClusterLogin(name, settings, namespaces.names, args.openbao, provider, opts=child)
        self.logins = {settings.openbao.auth_path: login.accessor}
        host, port, sslmode = _database_inside(args)
        self.cluster = Cluster(
            provider=provider,
            settings=settings,
            catalog=args.catalog,
            namespaces=namespaces.names,
            priorities=priorities.names,
            database_host=host,
            database_port=port,
            database_name=args.database.name,
            admin_user=args.database.admin_user,
            sslmode=sslmode,
            public_url=args.public_url,
            api_servers=args.api_servers,
        )
        self.access = SecretAccess(
            openbao=args.openbao,
            openbao_address=args.openbao_address,
            cluster_address=settings.openbao.address or args.openbao_address,
            auth_path=login.path,
            secrets=args.secrets,
        )
        NetworkPolicies(name, self.cluster, opts=child)
        shipping: list[pulumi.Resource] = []
        if settings.backups is not None:
            backups = BackupsArgs(self.cluster, self.access, settings.backups)
            shipping.append(Backups(f"{name}-backups", backups, opts=child))
        self.database = Database(
            f"{name}-database",
            # Its companions run scripts of the backups' and sign in with their secret.
            DatabaseArgs(self.cluster, self.access, archiving(self.cluster), after=shipping),
            opts=child,
        )
        self.register_outputs({})


@dataclass(frozen=True)
class ServicesArgs:
    """Arguments of :class:`Services`."""

    foundation: Foundation
    after: Sequence[pulumi.Resource]
    """What the services need in PostgreSQL and OpenBao before they start."""


class Services(pulumi.ComponentResource):
    """Everything that serves requests. Depends on what :class:`Foundation` and ``platform.sql`` have put in place."""

    def __init__(self, name: str, args: ServicesArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        waiting = pulumi.ResourceOptions(transformations=[_start_after(args.after)])
        super().__init__(
            "supabase-data-plane:central:Services", name, None, pulumi.ResourceOptions.merge(opts, waiting)
        )
        child = pulumi.ResourceOptions(parent=self)
        cluster = args.foundation.cluster
        service = ServiceArgs(cluster, args.foundation.access)
        JwksSync(f"{name}-jwks", service, opts=child)
        for kind, make in _SERVICES.items():
            if cluster.runs(kind):
                make(f"{name}-{kind}", service, child)
        for server in cluster.api_servers:
            Rest(f"{name}-{Service.REST}-{server.instance}", service, child, server=server)
        Gateway(f"{name}-gateway", service, public_host(str(cluster.public_url)), opts=child)
        self.register_outputs({})


def _start_after(
    resources: Sequence[pulumi.Resource],
) -> Callable[[pulumi.ResourceTransformationArgs], pulumi.ResourceTransformationResult | None]:
    """Lets everything that runs a container wait for resources; the rest is made meanwhile."""

    def wait(args: pulumi.ResourceTransformationArgs) -> pulumi.ResourceTransformationResult | None:
        if args.type_ not in _WORKLOADS:
            return None
        opts = pulumi.ResourceOptions.merge(args.opts, pulumi.ResourceOptions(depends_on=[*resources]))
        return pulumi.ResourceTransformationResult(args.props, opts)

    return wait


def _provider(name: str, settings: ClusterSettings, opts: pulumi.ResourceOptions) -> k8s.Provider:
    if settings.render_to is not None:
        return k8s.Provider(f"{name}-cluster", render_yaml_to_directory=settings.render_to, opts=opts)
    return k8s.Provider(
        f"{name}-cluster",
        context=settings.context,
        enable_server_side_apply=True,
        # Changed in place, as a cluster allows; Pods notice by a checksum.
        enable_config_map_mutable=True,
        opts=opts,
    )


def _database_inside(args: FoundationArgs) -> tuple[str, int, str]:
    """PostgreSQL's host, port and sslmode as the services use them."""
    port = PORTS[Service.DATABASE]["postgres"]
    namespace = f"{args.settings.namespace}-data"
    match args.settings.database.mode:
        case DatabaseMode.STATEFUL_SET:
            sslmode = "require" if args.settings.database.tls_secret else "disable"
            return f"{service_name(Service.DATABASE)}.{namespace}.svc", port, sslmode
        case DatabaseMode.CLOUD_NATIVE_PG:
            return f"{CLOUD_NATIVE_PG_CLUSTER}-rw.{namespace}.svc", port, "require"
        case DatabaseMode.EXTERNAL:
            return args.database.host, args.database.port, args.database.sslmode
