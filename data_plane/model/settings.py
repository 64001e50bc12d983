"""A stack's settings, validated before any resource is declared.

The names and defaults are documented in ``Pulumi.yaml``; a central stack further has the objects ``database``,
``openbao``, ``login``, ``workloadLogin``, ``pooler`` and ``kubernetes`` (:mod:`data_plane.model.cluster_settings`), and
the secret ``databaseAdminPassword``.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError, model_validator

from data_plane.model.cluster_settings import ClusterSettings, DatabaseMode
from data_plane.model.durations import Duration
from data_plane.model.naming import CELL_PATTERN
from data_plane.model.patterns import URL_PATTERN
from data_plane.model.problems import ConfigurationError, Problem, at_field, problems_of
from data_plane.model.strict import StrictModel

__all__ = [
    "OBJECT_SETTINGS",
    "TEXT_SETTINGS",
    "AppRoleAuthSettings",
    "AuthMethodSettings",
    "BoundSettings",
    "CellSettings",
    "CentralSettings",
    "DatabaseSettings",
    "KubernetesAuthSettings",
    "OpenBaoSettings",
    "PoolerAddressSettings",
    "WorkloadAuthSettings",
    "load_bounds",
    "load_settings",
]

_Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
_Url = Annotated[str, Field(pattern=URL_PATTERN)]
_Host = Annotated[str, Field(min_length=1, max_length=253)]
_Port = Annotated[int, Field(ge=1, le=65535)]
_Mount = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]


_REACH_OUT = frozenset(
    {
        "adminpack",
        "dblink",
        "file_fdw",
        "http",
        "pg_cron",
        "pg_net",
        "plperlu",
        "plpython3u",
        "postgres_fdw",
        "wrappers",
    }
)
"""Extensions by which SQL gets at other servers, files, or the rights of a job's user."""


def _kept_inside(name: str) -> str:
    if name in _REACH_OUT:
        raise ValueError(f"an extension that stays in the database: every project could reach out of it with {name}")
    return name


_Extension = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$"), AfterValidator(_kept_inside)]


class DatabaseSettings(StrictModel):
    """How the central PostgreSQL is reached, by this program, by OpenBao and by leases."""

    host: _Host
    """Also what a lease's direct connection string names."""
    port: _Port = 5432
    """The server's port."""
    name: Annotated[str, Field(min_length=1, max_length=63)] = "postgres"
    """The database that holds the projects' schemas."""
    admin_user: Annotated[str, Field(min_length=1, max_length=63)] = "supabase_admin"
    """A superuser: event triggers need one. The official image's is ``supabase_admin``."""
    sslmode: Literal["disable", "require", "verify-ca", "verify-full"] = "require"
    """libpq's mode, for this program, OpenBao and direct leases."""


class OpenBaoSettings(StrictModel):
    """How OpenBao is reached. The token is never configuration: the provider reads it from ``VAULT_TOKEN``."""

    address: _Url
    """As this program and clients reach it."""


class AuthMethodSettings(StrictModel):
    """The auth method by which people sign in to OpenBao, under the names that project files use."""

    path: _Mount = "oidc"
    """Where the method is mounted."""
    type: Literal["oidc", "jwt", "ldap", "userpass", "saml", "kerberos"] = "oidc"
    """The kind of the method."""
    managed: bool = False
    """Whether this program creates the method; otherwise it has to exist already."""


class KubernetesAuthSettings(StrictModel):
    """``workloadLogin.kubernetes``: workloads sign in with their service accounts' tokens."""

    path: _Mount = "kubernetes"
    """Where the method is mounted. It may be the one that the stack makes for its own services
    (``kubernetes.openbao.authPath``), for workloads on the same cluster."""
    managed: bool = False
    """Whether this program creates the method; otherwise it has to exist already."""
    audience: Annotated[str, Field(min_length=1)] = "openbao"
    """What the workloads' tokens have to be made out to."""
    kubernetes_host: _Url | None = None
    """The cluster's API as OpenBao reaches it, where the method is managed."""
    kubernetes_ca: str | None = None
    """The API's CA certificate (PEM), where OpenBao runs elsewhere."""
    in_cluster: bool = True
    """Whether OpenBao runs on this cluster. From outside it asks with the token that it is shown: the workload's
    account then needs the right to have tokens reviewed (``system:auth-delegator``)."""

    @model_validator(mode="after")
    def _check_combination(self) -> Self:
        given = self.model_fields_set & {"kubernetes_host", "kubernetes_ca", "in_cluster"}
        if not self.managed and given:
            raise at_field("managed", "false", "true, because only a method that this stack manages is configured here")
        if self.managed and self.kubernetes_host is None:
            raise at_field(
                "kubernetesHost", "nothing", "the URL of the cluster's API, e.g. https://kubernetes.default.svc"
            )
        if self.managed and not self.in_cluster and self.kubernetes_ca is None:
            raise at_field("kubernetesCa", "nothing", "the API's CA certificate, because OpenBao is not on the cluster")
        return self


class AppRoleAuthSettings(StrictModel):
    """``workloadLogin.approle``: workloads sign in with secret-IDs that they are handed."""

    path: _Mount = "approle"
    """Where the method is mounted."""
    managed: bool = False
    """Whether this program creates the method; otherwise it has to exist already."""


class WorkloadAuthSettings(StrictModel):
    """``workloadLogin``: the auth methods by which workloads sign in to OpenBao; projects may use no other."""

    kubernetes: KubernetesAuthSettings | None = None
    approle: AppRoleAuthSettings | None = None


class PoolerAddressSettings(StrictModel):
    """``pooler``: where clients reach the pooler, if not at its Service in the cluster."""

    host: _Host
    """As clients reach it."""
    session_port: _Port = 5432
    """For sessions: one server connection per client."""
    transaction_port: _Port = 6543
    """For transactions: a server connection for each."""
    tenant: _Name | None = None
    """What clients append to their login; ``kubernetes.pooler.tenant`` unless given."""
    sslmode: Literal["disable", "require", "verify-ca", "verify-full"] = "require"
    """libpq's mode, for leases through the pooler."""


class BoundSettings(StrictModel):
    """Limits on the projects of every stack."""

    cell_size: Annotated[int, Field(ge=1, le=1000)]
    lease_ttl_maximum: Duration


class _Common(BoundSettings):
    environment: _Name


class CentralSettings(_Common):
    """Settings of a stack whose ``kind`` is ``central``."""

    kind: Literal["central"]
    database: DatabaseSettings
    openbao: OpenBaoSettings
    api_url: _Url
    """The gateway's URL as clients reach it, without a path."""
    state_dir: Annotated[str, Field(min_length=1)] | None = None
    """The folder of local data, on a machine that has one. ``dataplane up`` sets it."""
    project_api: Literal["shared", "dedicated"] = "shared"
    """Which PostgREST serves projects that do not say so; read from the stack's file with the projects."""
    login: AuthMethodSettings = AuthMethodSettings()
    extensions: tuple[_Extension, ...] = ()
    """Of PostgreSQL, for projects to use."""
    workload_login: WorkloadAuthSettings = WorkloadAuthSettings()
    pooler: PoolerAddressSettings | None = None
    kubernetes: ClusterSettings | None = None

    @model_validator(mode="after")
    def _check_combination(self) -> Self:
        if self.kubernetes is None:
            return self
        workloads = self.workload_login.kubernetes
        if workloads is not None and workloads.managed and workloads.path == self.kubernetes.openbao.auth_path:
            expected = "false, because the stack makes this method for its services, or another path"
            raise at_field("workloadLogin.kubernetes.managed", "true", expected)
        if self.kubernetes.gateway.exposure.type != "none" and not self.api_url.startswith("https://"):
            raise at_field("apiUrl", repr(self.api_url), "https://…, because kubernetes.gateway.exposure has TLS")
        workload = self.kubernetes.database
        plain = workload.mode is DatabaseMode.STATEFUL_SET and workload.tls_secret is None
        if plain and self.kubernetes.render_to is None and self.database.sslmode != "disable":
            expected = "disable, or kubernetes.database.tlsSecret with the server's certificate"
            raise at_field("database.sslmode", repr(self.database.sslmode), expected)
        return self


class CellSettings(_Common):
    """Settings of a stack whose ``kind`` is ``cell``."""

    kind: Literal["cell"]
    cell: Annotated[str, Field(pattern=CELL_PATTERN)]
    central_stack: Annotated[str, Field(pattern=r"^([\w.-]+/[\w.-]+/)?[\w.-]+$")]


_Settings = Annotated[CentralSettings | CellSettings, Field(discriminator="kind")]
_ADAPTER: TypeAdapter[CentralSettings | CellSettings] = TypeAdapter(_Settings)
TEXT_SETTINGS = ("kind", "environment", "cell", "centralStack", "leaseTtlMaximum", "apiUrl", "projectApi", "stateDir")
"""The settings whose values are texts."""
_OF_CENTRAL = ("database", "openbao", "login", "extensions", "workloadLogin", "pooler", "kubernetes")
OBJECT_SETTINGS = (*_OF_CENTRAL, "cellSize")
"""Those whose values have a structure."""
_ONLY = {"cell": ("cell", "centralStack"), "central": (*_OF_CENTRAL, "apiUrl", "projectApi", "stateDir")}


def load_settings(
    values: Mapping[str, Any], file: str, problems: Sequence[Problem] = ()
) -> CentralSettings | CellSettings:
    """The settings of a stack.

    Args:
        values: by the names that ``Pulumi.yaml`` documents, those of the other kind of stack among them.
        file: where they are kept, for messages.
        problems: what was wrong with those that could not be read.

    Raises:
        ConfigurationError: with every problem found in them.
    """
    found = list(problems)
    kind = values.get("kind")
    foreign = {name for other, names in _ONLY.items() if other != kind for name in names}
    given = {key: value for key, value in values.items() if value not in (None, "") and key not in foreign}
    if kind not in _ONLY:
        found.append(Problem(file, 0, "kind", repr(kind) if kind else "nothing", "central or cell"))
    else:
        try:
            settings = _ADAPTER.validate_python(given)
        except ValidationError as error:
            found.extend(problems_of(error, file, CentralSettings if kind == "central" else CellSettings, skip=1))
    if found:
        raise ConfigurationError(found)
    return settings


def load_bounds(values: Mapping[str, str], file: str) -> BoundSettings:
    """The bounds among a stack's settings, for callers that read projects without running the program.

    Raises:
        ConfigurationError: with every problem found in them.
    """
    given = {key: values[key] for key in ("cellSize", "leaseTtlMaximum") if key in values}
    try:
        return BoundSettings.model_validate(given)
    except ValidationError as error:
        raise ConfigurationError(problems_of(error, file, BoundSettings)) from error
