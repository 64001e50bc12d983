"""The setting ``kubernetes`` of a central stack: how Supabase's services run on a cluster.

Sources of the defaults are named where they are not obvious; most are those of Supabase's own self-hosting files.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_network
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from data_plane.model.backup_settings import BackupSettings
from data_plane.model.catalog import Image, Quantity, Resources, Service, bytes_of
from data_plane.model.cluster_names import Priority
from data_plane.model.durations import Duration
from data_plane.model.networks import NEVER, lies_in
from data_plane.model.patterns import HOST_PATTERN, LABEL_PATTERN, URL_PATTERN
from data_plane.model.problems import at_field
from data_plane.model.server_parameters import MAX_CONNECTIONS
from data_plane.model.strict import StrictModel

__all__ = [
    "AnalyticsSettings",
    "AuthSettings",
    "ClusterSettings",
    "DatabaseMode",
    "DatabaseWorkloadSettings",
    "ExposureSettings",
    "FunctionsSettings",
    "GatewaySettings",
    "ImgproxySettings",
    "LogsSettings",
    "PoolerSettings",
    "PriorityClass",
    "PriorityClassSettings",
    "RealtimeSettings",
    "RestSettings",
    "StorageBackend",
    "StorageSettings",
    "StudioSettings",
    "VaultSettings",
]


def _cidr(text: str) -> str:
    """A network, for policies and for Kong, which both want one whose address is its first."""
    try:
        right = str(ip_network(text).prefixlen) == text.partition("/")[2]
    except ValueError:
        right = False
    if not right:
        raise ValueError("a network, e.g. 10.0.0.0/8 or fd00::/8, or one address, e.g. 10.0.0.5/32")
    return text


_Name = Annotated[str, Field(pattern=LABEL_PATTERN)]
_Host = Annotated[str, Field(pattern=HOST_PATTERN)]
_Url = Annotated[str, Field(pattern=URL_PATTERN)]
_Origin = Annotated[str, Field(pattern=r"^(\*|https?://[a-z0-9.-]+(:[0-9]{1,5})?)$")]
_Port = Annotated[int, Field(ge=1, le=65535)]
_Replicas = Annotated[int, Field(ge=1, le=100)]
_Cidr = Annotated[str, AfterValidator(_cidr)]
_Registry = Annotated[
    str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*$")
]
_Variable = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]{0,127}$")]
_Bytes = Annotated[str, Field(pattern=r"^[1-9][0-9]*(Ki|Mi|Gi)$")]

_SECRET_NAME = re.compile(r"(SECRET|PASSWORD|PASS|TOKEN|PRIVATE|CREDENTIAL|_KEY|KEYS)(_|$|S$)")


DATA_FOLDER = "pgdata"
_CONFIGURATION_FOLDER = "custom"
"""Beside the server's files: what is to be kept of the image's configuration."""


class DatabaseMode(StrEnum):
    """Who runs PostgreSQL."""

    STATEFUL_SET = "statefulset"
    """One Pod on Supabase's image, here."""
    CLOUD_NATIVE_PG = "cloudnativepg"
    """The CloudNativePG operator: replicas and failover."""
    EXTERNAL = "external"
    """Somebody else; the setting ``database`` says where."""


class DatabaseWorkloadSettings(StrictModel):
    """``kubernetes.database``: PostgreSQL itself."""

    mode: DatabaseMode = DatabaseMode.STATEFUL_SET
    """Who runs PostgreSQL: this stack, the CloudNativePG operator, or its owner elsewhere."""
    instances: Annotated[int, Field(ge=1, le=9)] = 1
    """With CloudNativePG: one primary, and replicas that take over."""
    storage: Quantity = "100Gi"
    """Size of the data volume."""
    data_folder: _Name = DATA_FOLDER
    """Of the volume, with the server's files. Another one begins with an empty database, for the next major version."""
    wal_storage: Quantity | None = None
    """A volume of its own for the write-ahead log, with CloudNativePG."""
    storage_class: _Name | None = None
    """Of the volumes; the cluster's default unless given. It should allow them to grow."""
    max_connections: Annotated[int, Field(ge=25, le=10_000)] = MAX_CONNECTIONS
    """Of PostgreSQL; 100 of them are the services'."""
    parameters: dict[str, str] = Field(default_factory=dict)
    """Further settings of postgresql.conf."""
    image: Annotated[str, Field(min_length=3)] | None = None
    """With CloudNativePG: an image that meets the operator's requirements and carries Supabase's extensions."""
    tls_secret: _Name | None = None
    """A Secret of type kubernetes.io/tls with the server's certificate; CloudNativePG makes its own."""
    client_namespaces: list[_Name] = Field(default_factory=list)
    """Namespaces whose Pods may connect to PostgreSQL itself: OpenBao's, and this program's where it runs in one."""
    client_cidrs: list[_Cidr] = Field(default_factory=list)
    """Addresses from which others may."""
    server_cidrs: list[_Cidr] = Field(default_factory=list)
    """With an external database: its addresses, for the network policies."""

    @model_validator(mode="after")
    def _check_combination(self) -> Self:
        external = self.mode is DatabaseMode.EXTERNAL
        operator = self.mode is DatabaseMode.CLOUD_NATIVE_PG
        if self.mode is DatabaseMode.STATEFUL_SET and self.instances != 1:
            raise at_field("instances", str(self.instances), "1, or `mode: cloudnativepg`, which keeps replicas")
        if self.data_folder == _CONFIGURATION_FOLDER:
            raise at_field("dataFolder", repr(self.data_folder), "another name: that folder has the configuration")
        if self.mode is not DatabaseMode.STATEFUL_SET and self.data_folder != DATA_FOLDER:
            raise at_field("dataFolder", repr(self.data_folder), "nothing; with `mode: statefulset` alone it is ours")
        if operator and self.image is None:
            raise at_field(
                "image",
                "nothing",
                "an image made for CloudNativePG that has Supabase's extensions; the one in stacks/images.yaml is not",
            )
        if not operator and self.image is not None:
            raise at_field(
                "image", repr(self.image), "nothing; the image stands in stacks/images.yaml, or under kubernetes.images"
            )
        if not operator and self.wal_storage is not None:
            raise at_field("walStorage", repr(self.wal_storage), "nothing, or `mode: cloudnativepg`")
        if operator and self.tls_secret is not None:
            raise at_field("tlsSecret", repr(self.tls_secret), "nothing; CloudNativePG makes its certificates itself")
        if external and not self.server_cidrs:
            raise at_field(
                "serverCidrs",
                "nothing",
                "the database's addresses, e.g. [10.0.0.5/32]: services may reach nothing else",
            )
        if not external and self.server_cidrs:
            raise at_field("serverCidrs", "addresses", "nothing, or `mode: external`")
        return self


class PoolerSettings(StrictModel):
    """``kubernetes.pooler``: Supavisor. Defaults from the official ``.env.example``."""

    enabled: bool = True
    """Whether to run Supavisor."""
    replicas: _Replicas = 2
    """Pods."""
    tenant: _Name = "supabase"
    """What clients append to their login: ``lease_….supabase``."""
    pool_size: Annotated[int, Field(ge=1, le=1000)] = 20
    """Server connections per login and database."""
    max_clients: Annotated[int, Field(ge=1, le=100_000)] = 1000
    """Clients that may be connected at a time."""
    client_namespaces: list[_Name] = Field(default_factory=list)
    """Namespaces whose Pods may connect, beside those labelled ``supabase-data-plane/client=true``."""


class ExposureSettings(StrictModel):
    """``kubernetes.gateway.exposure``: how the world reaches the gateway."""

    type: Literal["none", "ingress", "gateway-api"] = "none"
    """How clients outside of the cluster reach the gateway, if they do."""
    class_name: _Name | None = None
    """IngressClass or GatewayClass."""
    tls_secret: _Name | None = None
    """A Secret of type kubernetes.io/tls; with cert-manager, the one it is to make."""
    cluster_issuer: _Name | None = None
    """cert-manager's issuer, asked by an annotation."""
    parent_gateway: Annotated[str, Field(pattern=r"^[a-z0-9-]+/[a-z0-9-]+$")] | None = None
    """Gateway API: ``namespace/name`` of a Gateway that is there already; otherwise one is made."""
    controller_namespace: _Name | None = None
    """The namespace of the controller's Pods: the only ones that may reach the gateway from outside."""
    annotations: dict[str, str] = Field(default_factory=dict)
    """Further annotations of the Ingress or Gateway."""

    @model_validator(mode="after")
    def _check_combination(self) -> Self:
        if self.type == "none":
            return self
        if self.controller_namespace is None:
            raise at_field("controllerNamespace", "nothing", "the namespace of the ingress controller's Pods")
        if self.parent_gateway is not None:
            if self.type == "ingress":
                raise at_field("parentGateway", repr(self.parent_gateway), "nothing, or `type: gateway-api`")
            return self
        if self.class_name is None:
            raise at_field("className", "nothing", "the class of the controller, e.g. nginx")
        if self.tls_secret is None:
            raise at_field("tlsSecret", "nothing", "the name of a TLS secret: the gateway is not exposed without TLS")
        return self


class GatewaySettings(StrictModel):
    """``kubernetes.gateway``: Kong, the only way in."""

    replicas: _Replicas = 2
    """Pods."""
    cors_origins: list[_Origin] = Field(default_factory=lambda: ["*"])
    """Origins whose pages may read answers. Any, as Supabase has it: what protects a tenant is its token, which a
    browser does not send by itself; name them where all front ends are known."""
    body_limit: Annotated[int, Field(ge=1, le=1024)] = 10
    """MiB of a request's body, uploads apart."""
    trusted_proxies: list[_Cidr] = Field(default_factory=list)
    """Addresses whose X-Forwarded-* headers are believed: those of the ingress controller."""
    operator_sources: list[_Cidr] = Field(default_factory=list)
    """Addresses from which Studio and ``/pg`` may be used; from everywhere, with their password or key, if empty."""
    exposure: ExposureSettings = ExposureSettings()

    @model_validator(mode="after")
    def _any_origin_or_some(self) -> Self:
        if "*" in self.cors_origins and len(self.cors_origins) > 1:
            raise at_field("corsOrigins", "* beside others", "the origins that may read answers, or * alone")
        return self


class SmtpSettings(StrictModel):
    """``kubernetes.auth.smtp``: where Auth sends mail. The password is ``GOTRUE_SMTP_PASS`` in OpenBao."""

    host: _Host
    """The mail server."""
    port: _Port = 587
    """Its port."""
    user: Annotated[str, Field(min_length=1)]
    """The user that signs in there."""
    admin_email: Annotated[str, Field(pattern=r"^[^@\s]+@[^@\s]+$")]
    """The sender's address."""
    sender_name: Annotated[str, Field(min_length=1)] = "Supabase"
    """The sender's name."""


class AuthSettings(StrictModel):
    """``kubernetes.auth``: GoTrue. Defaults from the official ``.env.example`` where they are safe."""

    replicas: _Replicas = 2
    """Pods."""
    site_url: _Url
    """Where people land after signing in if the request names no other place."""
    redirect_urls: list[str] = Field(default_factory=list)
    """Other places that they may be sent to; globs are Auth's."""
    jwt_expiry: Duration = 3600
    """Seconds that a signed-in user's token lives."""
    disable_signup: bool = False
    """Whether nobody new can sign up."""
    email_signup: bool = True
    """Whether users can sign up by email."""
    email_autoconfirm: bool = False
    """Whether every email address counts as confirmed. Projects then invite users by ID alone."""
    phone_signup: bool = False
    """Whether users can sign up by phone."""
    phone_autoconfirm: bool = False
    """Whether every phone number counts as confirmed."""
    anonymous_users: bool = False
    """Whether users can sign in without an account."""
    smtp: SmtpSettings | None = None
    settings: dict[_Variable, str] = Field(default_factory=dict)
    """Any other ``GOTRUE_…`` variable that is no secret, such as those of a sign-in provider."""
    secrets: list[_Variable] = Field(default_factory=list)
    """Further ``GOTRUE_…`` variables whose values stand in OpenBao, in ``connectors/supabase``."""

    @field_validator("settings")
    @classmethod
    def _no_secret(cls, settings: dict[str, str]) -> dict[str, str]:
        for name in settings:
            if not name.startswith("GOTRUE_"):
                raise ValueError(f"names that start with GOTRUE_, not {name}")
            if _SECRET_NAME.search(name):
                raise ValueError(f"no {name}: name it under `secrets` and put its value into OpenBao")
        return settings

    @model_validator(mode="after")
    def _mail_can_be_sent(self) -> Self:
        if self.smtp is None and self.email_signup and not self.email_autoconfirm:
            raise at_field(
                "smtp", "nothing", "host, user and adminEmail; without them nobody can confirm an address "
                "(or `emailSignup: false`, or `emailAutoconfirm: true`)"
            )  # fmt: skip
        return self


class DedicatedRestSettings(StrictModel):
    """``kubernetes.rest.dedicated``: the PostgREST of a project with ``api: dedicated``."""

    replicas: _Replicas = 1
    """Pods of each."""
    pool_size: Annotated[int, Field(ge=1, le=1000)] = 2
    """Connections of each replica to PostgreSQL, beside the one that listens."""


class RestSettings(StrictModel):
    """``kubernetes.rest``: PostgREST, that of the platform and that of each cell."""

    replicas: _Replicas = 2
    """Pods of the platform's PostgREST, and of each cell's."""
    max_rows: Annotated[int, Field(ge=1)] = 1000
    """The most rows of one answer."""
    pool_size: Annotated[int, Field(ge=1, le=1000)] = 10
    """Connections of each replica to PostgreSQL, beside the one that listens."""
    dedicated: DedicatedRestSettings = DedicatedRestSettings()
    pool_wait: Duration = 10
    """Seconds that a request waits for one of them."""


class RealtimeSettings(StrictModel):
    """``kubernetes.realtime``."""

    replicas: _Replicas = 2
    """Pods."""
    max_concurrent_users: Annotated[int, Field(ge=1)] = 1000
    """Of the platform's own tenant."""
    max_events_per_second: Annotated[int, Field(ge=1)] = 1000
    """Of the platform's own tenant."""


class StorageBackend(StrEnum):
    """Where Storage keeps files."""

    S3 = "s3"
    FILE = "file"


class StorageSettings(StrictModel):
    """``kubernetes.storage``: files.

    With S3, the access key is in OpenBao: ``STORAGE_S3_ACCESS_KEY_ID`` and ``STORAGE_S3_SECRET_ACCESS_KEY``.
    """

    replicas: _Replicas = 2
    """Pods."""
    backend: StorageBackend = StorageBackend.S3
    """An S3-compatible store, or a volume."""
    bucket: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")] | None = None
    """The bucket for files, with S3."""
    endpoint: _Url | None = None
    """None for AWS itself."""
    region: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")] = "us-east-1"
    """The store's region."""
    force_path_style: bool = False
    """True for most S3-compatible servers."""
    size: Quantity = "100Gi"
    """Of the volume, with the file backend."""
    storage_class: _Name | None = None
    """Of the volume, with the file backend."""
    access_mode: Literal["ReadWriteOnce", "ReadWriteMany"] = "ReadWriteOnce"
    """Of the volume; more than one replica needs ReadWriteMany."""
    file_size_limit: _Bytes = "50Mi"
    """The largest file."""

    @model_validator(mode="after")
    def _check_combination(self) -> Self:
        if self.backend is StorageBackend.S3 and self.bucket is None:
            raise at_field("bucket", "nothing", "the S3 bucket for files, or `backend: file`")
        if self.backend is StorageBackend.FILE:
            if self.bucket is not None:
                raise at_field("bucket", repr(self.bucket), "nothing, or `backend: s3`")
            if self.replicas > 1 and self.access_mode != "ReadWriteMany":
                raise at_field("replicas", str(self.replicas), "1, or `accessMode: ReadWriteMany`, or `backend: s3`")
        return self

    @property
    def file_size_limit_bytes(self) -> int:
        """The limit in bytes."""
        return bytes_of(self.file_size_limit)


class ImgproxySettings(StrictModel):
    """``kubernetes.imgproxy``: image transformations of Storage."""

    enabled: bool = True
    """Whether to run imgproxy."""
    replicas: _Replicas = 1
    """Pods."""
    webp: bool = True
    """Whether to answer with WebP where the client takes it."""


class StudioSettings(StrictModel):
    """``kubernetes.studio``: the dashboard, and postgres-meta behind it."""

    enabled: bool = True
    """Whether to run Studio and postgres-meta."""
    organization: Annotated[str, Field(min_length=1)] = "Data plane"
    """The name that Studio shows."""
    project: Annotated[str, Field(min_length=1)] = "Central"
    """The name that Studio shows."""


class FunctionsSettings(StrictModel):
    """``kubernetes.functions``: Edge Functions, off by default: they are the platform's, not a tenant's."""

    enabled: bool = False
    """Whether to run the edge runtime."""
    replicas: _Replicas = 1
    """Pods."""
    claim: _Name | None = None
    """The PersistentVolumeClaim with the functions' code."""
    verify_jwt: bool = True
    """Whether a function is called only with a valid token."""

    @model_validator(mode="after")
    def _has_code(self) -> Self:
        if self.enabled and self.claim is None:
            raise at_field("claim", "nothing", "the PersistentVolumeClaim that holds the functions' code")
        return self


class AnalyticsSettings(StrictModel):
    """``kubernetes.analytics``: Logflare."""

    enabled: bool = False
    """Whether to run Logflare, which keeps the services' logs."""


class LogsSettings(StrictModel):
    """``kubernetes.logs``: Vector, which brings the services' logs to Logflare."""

    enabled: bool = False
    """Whether to run Vector, which needs Logflare."""


class VaultSettings(StrictModel):
    """``kubernetes.openbao``: how the cluster reaches OpenBao, and OpenBao the cluster."""

    address: _Url | None = None
    """As External Secrets reaches it; the stack's ``openbao.address`` unless given."""
    auth_path: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")] = "kubernetes"
    """Where OpenBao's Kubernetes auth method is mounted; made by this stack."""
    kubernetes_host: _Url = "https://kubernetes.default.svc"
    """The cluster's API as OpenBao reaches it."""
    in_cluster: bool = True
    """Whether OpenBao runs on this cluster, with a service account of its own that may review tokens."""
    kubernetes_ca: str | None = None
    """The API's CA certificate (PEM), where OpenBao runs elsewhere."""
    audience: Annotated[str, Field(min_length=1)] = "openbao"
    """What the services' tokens are made out to."""
    kubernetes_audience: Annotated[str, Field(min_length=1)] = "https://kubernetes.default.svc.cluster.local"
    """Where OpenBao is not on the cluster: what tokens for the cluster's API are made out to; its issuer, usually."""
    ca_config_map: _Name | None = None
    """A ConfigMap in the stack's namespaces with ``ca.crt``, where OpenBao's certificate is not publicly signed."""
    refresh: Duration = 300
    """Seconds after which a changed secret arrives."""

    @property
    def token_audiences(self) -> list[str]:
        """Audiences of a service's token. OpenBao outside of the cluster shows it to the cluster's API too."""
        return [self.audience] if self.in_cluster else [self.audience, self.kubernetes_audience]

    @model_validator(mode="after")
    def _check_combination(self) -> Self:
        if self.in_cluster and self.kubernetes_ca is not None:
            raise at_field("kubernetesCa", "a certificate", "nothing, or `inCluster: false`")
        if not self.in_cluster and self.kubernetes_ca is None:
            raise at_field("kubernetesCa", "nothing", "the API's CA certificate, because OpenBao is not on the cluster")
        return self


class PriorityClassSettings(StrictModel):
    """``kubernetes.priorityClasses``: PriorityClasses that the cluster has. One that is not named is made."""

    database: _Name | None = None
    """Of PostgreSQL's Pods; ``<namespace>-database`` is made unless given."""
    services: _Name | None = None
    """Of all others, below PostgreSQL's; ``<namespace>-services`` is made unless given."""


@dataclass(frozen=True)
class PriorityClass:
    """The name of a PriorityClass, and whether the stack makes it."""

    name: str
    made: bool


class ClusterSettings(StrictModel):
    """``kubernetes``: the services on a cluster.

    Without it a central stack is the database's and OpenBao's side alone.
    """

    context: Annotated[str, Field(min_length=1)] | None = None
    """Of the kubeconfig; the current one unless given."""
    render_to: Annotated[str, Field(min_length=1)] | None = None
    """Writes manifests into this folder instead of talking to a cluster: relative to the folder of local data
    (``DATA_PLANE_HOME``) in a local environment, to the checkout in a deployed environment."""
    namespace: _Name = "supabase"
    """Of the services; PostgreSQL's is ``<namespace>-data``, Vector's ``<namespace>-logs``."""
    registry: _Registry | None = None
    """A mirror from which all images are pulled: host, port and folder, e.g. ``registry.example.com:5000/mirror``."""
    pull_secret: _Name | None = None
    """A Secret for pulling images; it has to be in each namespace."""
    openbao: VaultSettings = VaultSettings()
    database: DatabaseWorkloadSettings = DatabaseWorkloadSettings()
    pooler: PoolerSettings = PoolerSettings()
    gateway: GatewaySettings = GatewaySettings()
    auth: AuthSettings
    rest: RestSettings = RestSettings()
    realtime: RealtimeSettings = RealtimeSettings()
    storage: StorageSettings
    imgproxy: ImgproxySettings = ImgproxySettings()
    studio: StudioSettings = StudioSettings()
    functions: FunctionsSettings = FunctionsSettings()
    analytics: AnalyticsSettings = AnalyticsSettings()
    logs: LogsSettings = LogsSettings()
    backups: BackupSettings | None = None
    service_monitors: bool = False
    """Prometheus operator's ServiceMonitors for the services that have metrics."""
    external_cidrs: list[_Cidr] = Field(default_factory=lambda: ["0.0.0.0/0"])
    """Where Auth (mail, sign-in providers), Functions, Storage and backups (S3) may go outside of the cluster. Private
    networks are excepted from wider ones, such as the default; one that is needed is listed, e.g. 10.0.5.0/24."""
    cluster_cidrs: list[_Cidr] = Field(default_factory=list)
    """The cluster's own networks: of its API, Services and Pods. They are excepted from ``externalCidrs``. To be given
    where they are public, or where ``externalCidrs`` lists a private network around them."""
    api_server_cidrs: list[_Cidr] = Field(default_factory=list)
    """Addresses of the cluster's API, and of the Service ``kubernetes``: what Vector and CloudNativePG may reach of it.
    ``clusterCidrs`` unless given; without either, private networks."""
    priority_classes: PriorityClassSettings = PriorityClassSettings()
    images: dict[Service, Image] = Field(default_factory=dict)
    """Instead of those in stacks/images.yaml: of ``database``, a newer minor version of PostgreSQL, for example."""
    resources: dict[Service, Resources] = Field(default_factory=dict)
    """Instead of those in stacks/resources.yaml."""

    @model_validator(mode="after")
    def _check_combination(self) -> Self:
        if self.render_to is not None and self.context is not None:
            raise at_field("context", repr(self.context), "nothing, because renderTo writes files only")
        for index, cidr in enumerate(self.external_cidrs):
            network = ip_network(cidr)
            if any(lies_in(network, str(never)) for never in NEVER):
                expected = "no address of the node itself, of a metadata service or of multicast"
                raise at_field(f"externalCidrs.{index}", repr(cidr), expected)
            if any(lies_in(network, own) for own in self.cluster_cidrs):
                raise at_field(f"externalCidrs.{index}", repr(cidr), "a network outside of clusterCidrs")
        if self.logs.enabled and not self.analytics.enabled:
            raise at_field("logs.enabled", "true", "false, or `analytics.enabled: true`, where the logs go")
        return self

    @property
    def applied(self) -> bool:
        """Whether there is a cluster, on which what holds data is protected.

        Of manifests in a folder none is: one that is left over would be applied again.
        """
        return self.render_to is None

    def priority_class(self, priority: Priority) -> PriorityClass:
        """The PriorityClass of a priority."""
        given: str | None = getattr(self.priority_classes, priority)
        return PriorityClass(given or f"{self.namespace}-{priority}", made=given is None)
