"""What a stack's configuration says, validated before any resource is declared.

The names and defaults are documented in ``Pulumi.yaml``; a central stack further has the objects ``database``,
``openbao``, ``login``, ``workloadLogin``, ``pooler`` and ``kubernetes`` (:mod:`components.cluster_settings`), and the
secret ``databaseAdminPassword``.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args, get_origin

import pulumi
from pydantic import AfterValidator, BaseModel, Field, TypeAdapter, ValidationError, model_validator

from components.cluster_settings import ClusterSettings, DatabaseMode
from components.durations import Duration
from components.problems import ConfigurationError, Problem, at_field, problems_of
from components.strict import StrictModel

__all__ = [
    "AppRoleLoginSettings",
    "BoundSettings",
    "CellSettings",
    "CentralSettings",
    "DatabaseSettings",
    "KubernetesLoginSettings",
    "LoginSettings",
    "OpenBaoSettings",
    "PoolerAddressSettings",
    "WorkloadLoginSettings",
    "checkout",
    "load_bounds",
    "load_settings",
]

_Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
_Url = Annotated[str, Field(pattern=r"^https?://[^\s/]+(/[^\s]*)?$")]
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
"""Extensions by which SQL gets at other servers, files, or the rights of whoever runs a job."""


def _kept_inside(name: str) -> str:
    if name in _REACH_OUT:
        raise ValueError(f"an extension that stays in the database: every project could reach out of it with {name}")
    return name


_Extension = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$"), AfterValidator(_kept_inside)]


class DatabaseSettings(StrictModel):
    """How the central PostgreSQL is reached, by this program, by OpenBao and by leases."""

    host: _Host
    port: _Port = 5432
    name: Annotated[str, Field(min_length=1, max_length=63)] = "postgres"
    admin_user: Annotated[str, Field(min_length=1, max_length=63)] = "supabase_admin"
    """A superuser: event triggers need one. The official image's is ``supabase_admin``."""
    sslmode: Literal["disable", "require", "verify-ca", "verify-full"] = "require"


class OpenBaoSettings(StrictModel):
    """How OpenBao is reached. The token is never configuration: the provider reads it from ``VAULT_TOKEN``."""

    address: _Url


class LoginSettings(StrictModel):
    """The auth method by which people sign in to OpenBao, under the names that project files use."""

    path: _Mount = "oidc"
    type: Literal["oidc", "jwt", "ldap", "userpass", "saml", "kerberos"] = "oidc"
    managed: bool = False
    """Whether this program creates the method; otherwise it has to be there already."""


class KubernetesLoginSettings(StrictModel):
    """``workloadLogin.kubernetes``: workloads sign in with their service accounts' tokens."""

    path: _Mount = "kubernetes"
    """Where the method is mounted. It may be the one that the stack makes for its own services
    (``kubernetes.openbao.authPath``), for workloads on the same cluster."""
    managed: bool = False
    """Whether this program creates the method; otherwise it has to be there already."""
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
    def _possible(self) -> Self:
        given = self.model_fields_set & {"kubernetes_host", "kubernetes_ca", "in_cluster"}
        if not self.managed and given:
            raise at_field("managed", "false", "true: how an existing method asks the cluster is no business of ours")
        if self.managed and self.kubernetes_host is None:
            raise at_field(
                "kubernetesHost", "nothing", "the URL of the cluster's API, e.g. https://kubernetes.default.svc"
            )
        if self.managed and not self.in_cluster and self.kubernetes_ca is None:
            raise at_field("kubernetesCa", "nothing", "the API's CA certificate, because OpenBao is not on the cluster")
        return self


class AppRoleLoginSettings(StrictModel):
    """``workloadLogin.approle``: workloads sign in with secret-IDs that they are handed."""

    path: _Mount = "approle"
    managed: bool = False
    """Whether this program creates the method; otherwise it has to be there already."""


class WorkloadLoginSettings(StrictModel):
    """``workloadLogin``: the auth methods by which workloads sign in to OpenBao; projects may use no other."""

    kubernetes: KubernetesLoginSettings | None = None
    approle: AppRoleLoginSettings | None = None


class PoolerAddressSettings(StrictModel):
    """``pooler``: where clients reach the pooler, if not at its Service in the cluster."""

    host: _Host
    session_port: _Port = 5432
    transaction_port: _Port = 6543
    tenant: _Name | None = None
    """What clients append to their login; ``kubernetes.pooler.tenant`` unless given."""
    sslmode: Literal["disable", "require", "verify-ca", "verify-full"] = "require"


class BoundSettings(StrictModel):
    """What bounds the projects of every stack."""

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
    login: LoginSettings = LoginSettings()
    extensions: tuple[_Extension, ...] = ()
    """Of PostgreSQL, for projects to use."""
    workload_login: WorkloadLoginSettings = WorkloadLoginSettings()
    pooler: PoolerAddressSettings | None = None
    kubernetes: ClusterSettings | None = None

    @model_validator(mode="after")
    def _possible(self) -> Self:
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
    cell: _Name
    central_stack: Annotated[str, Field(pattern=r"^([\w.-]+/[\w.-]+/)?[\w.-]+$")]


_Settings = Annotated[CentralSettings | CellSettings, Field(discriminator="kind")]
_ADAPTER: TypeAdapter[CentralSettings | CellSettings] = TypeAdapter(_Settings)
_TEXTS = ("kind", "environment", "cell", "centralStack", "leaseTtlMaximum", "apiUrl")
_OF_CENTRAL = ("database", "openbao", "login", "extensions", "workloadLogin", "pooler", "kubernetes")
_OBJECTS = (*_OF_CENTRAL, "cellSize")
_ONLY = {"cell": ("cell", "centralStack"), "central": (*_OF_CENTRAL, "apiUrl")}


def load_settings(config: pulumi.Config | None = None) -> CentralSettings | CellSettings:
    """The settings of the current stack.

    Raises:
        ConfigurationError: with every problem found in them.
    """
    config = config or pulumi.Config()
    file = f"stacks/Pulumi.{pulumi.get_stack()}.yaml"
    raw: dict[str, Any] = {key: config.get(key) for key in _TEXTS}
    problems: list[Problem] = []
    for key in _OBJECTS:
        try:
            raw[key] = config.get_object(key)
        except pulumi.ConfigTypeError:
            problems.append(Problem(file, 0, key, "text that is no object", "YAML with the fields of this setting"))
    kind = raw["kind"]
    foreign = {name for other, names in _ONLY.items() if other != kind for name in names}
    given = {key: value for key, value in raw.items() if value not in (None, "") and key not in foreign}
    if kind not in _ONLY:
        problems.append(Problem(file, 0, "kind", repr(kind) if kind else "nothing", "central or cell"))
    else:
        try:
            settings = _ADAPTER.validate_python(given)
        except ValidationError as error:
            problems.extend(problems_of(error, file, known_keys=_known_keys, skip=1))
    if problems:
        raise ConfigurationError(problems)
    return settings


def load_bounds(values: Mapping[str, str], file: str) -> BoundSettings:
    """The bounds among a stack's settings, for whoever looks at projects without running the program.

    Raises:
        ConfigurationError: with every problem found in them.
    """
    given = {key: values[key] for key in ("cellSize", "leaseTtlMaximum") if key in values}
    try:
        return BoundSettings.model_validate(given)
    except ValidationError as error:
        raise ConfigurationError(problems_of(error, file, known_keys=_known_keys)) from None


def checkout() -> Path:
    """The folder that Pulumi.yaml lies in."""
    return Path(pulumi.get_root_directory())


def _known_keys(path: tuple[int | str, ...]) -> Iterable[str]:
    annotation: Any = CentralSettings
    for part in path:
        annotation = _below(annotation, str(part))
    return _fields_of(annotation)


def _below(annotation: Any, part: str) -> Any:
    """What a setting of some type has under a key."""
    if get_origin(annotation) in (dict, list):
        return get_args(annotation)[-1]
    return _fields_of(annotation).get(part)


def _fields_of(annotation: Any) -> dict[str, Any]:
    model = _model_in(annotation)
    fields = {} if model is None else model.model_fields
    return {field.alias or name: field.annotation for name, field in fields.items()}


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, get_args(annotation))), None)
