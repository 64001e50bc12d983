"""What is bound: one tenant at one level, over one way to the database; and the workload that signs in for it."""

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from data_plane.connector.leases import Via, way_for
from data_plane.errors import ProjectDetachedError, UsageError, WorkloadError
from data_plane.model.naming import API_LEVELS, AccessLevel, TenantNames
from data_plane.model.tenant_binding import BoundWorkload, TenantBinding
from data_plane.model.workloads import WorkloadMethod

__all__ = ["Service", "Workload", "openbao_url"]


@dataclass(frozen=True)
class Service:
    """A tenant at one level, as a consumer reaches it. Holds no secret."""

    names: TenantNames
    level: AccessLevel
    host: str
    port: int
    database: str
    sslmode: str
    login_suffix: str
    """What the pooler wants behind the name of a lease's login; empty without one."""
    api_url: str | None
    """Base URL of the API; None where the schema is not served or the level has no token."""
    publishable_key_path: str
    """Where OpenBao keeps the key that goes with every API token."""
    openbao_address: str
    lease_ttl_seconds: int

    @classmethod
    def of(
        cls, binding: TenantBinding, level: AccessLevel, *, via: Via | None = None, openbao: str | None = None
    ) -> "Service":
        """The service of a tenant's binding.

        Args:
            binding: the tenant's, as the cell's stack exports it.
            via: the way to the database; by default the pooler's sessions, where there is a pooler.
            openbao: OpenBao's URL as the consumer reaches it; by default as this program does.

        Raises:
            ConnectorError: if the tenant is detached, the way cannot be gone, or the URL is none.
        """
        if not binding.attached:
            raise ProjectDetachedError(
                f"project {binding.project} is {binding.lifecycle}: "
                "set `lifecycle: attached` in its file and bring it up"
            )
        pooler, database = binding.pooler, binding.database
        host, port, sslmode, suffix = database.host, database.port, database.sslmode, ""
        way = way_for(level, via, pooler)
        if pooler is not None and way is not Via.DIRECT:
            host, sslmode, suffix = pooler.host, pooler.sslmode, f".{pooler.tenant}"
            port = pooler.session_port if way is Via.SESSION else pooler.transaction_port
        served = binding.exposed and level in API_LEVELS
        return cls(
            names=TenantNames(binding.project),
            level=level,
            host=host,
            port=port,
            database=database.database,
            sslmode=sslmode,
            login_suffix=suffix,
            api_url=binding.api_url.removesuffix("/rest/v1") if served else None,
            publishable_key_path=binding.publishable_key_path,
            openbao_address=openbao_url(openbao or binding.openbao_address),
            lease_ttl_seconds=binding.lease_ttl_seconds,
        )

    @property
    def lease_path(self) -> str:
        """Where OpenBao issues its leases."""
        return self.names.lease_path(self.level)

    @property
    def token_path(self) -> str:
        """Where OpenBao issues its API tokens; only where there is an :attr:`api_url`."""
        return self.names.token_path(self.level)


@dataclass(frozen=True)
class Workload:
    """A workload that the project's file names, as it signs in to OpenBao."""

    name: str
    level: AccessLevel
    method: WorkloadMethod
    mount: str
    """The auth method's, without ``auth/``."""
    role: str
    namespace: str = ""
    """Of a workload on Kubernetes, as the next two."""
    service_account: str = ""
    audience: str | None = None
    """Whom its service account's tokens are for; None where OpenBao does not ask."""
    secret_id_ttl_seconds: int | None = None
    """How long an AppRole's secret-ID can be signed in with."""

    @classmethod
    def of(
        cls, binding: TenantBinding, method: WorkloadMethod, *, name: str | None = None, level: AccessLevel | None
    ) -> "Workload":
        """The workload of a tenant's binding.

        Args:
            binding: the tenant's, as the cell's stack exports it.
            method: how it has to sign in.
            name: which; by default the only one that fits.
            level: that it has to have; None for any.

        Raises:
            ConnectorError: if there is none, or it is not known which.
        """
        project, known = binding.project, binding.workloads
        if name is not None:
            if name not in known:
                there = ", ".join(sorted(known)) or "none"
                raise WorkloadError(
                    f"project {project} has no workload {name!r}; it has: {there}. "
                    "Add it under `workloads` to the project's file and bring it up."
                )
            found = known[name]
            if found.method != method:
                raise WorkloadError(
                    f"the workload {name} of project {project} signs in by {found.method}, and this takes {method}"
                )
            if level not in {None, found.level}:
                raise WorkloadError(
                    f"the workload {name} of project {project} may be {found.level}, not {level}: "
                    f"leave --as out, or change its `level` in the project's file"
                )
            return cls._from(name, found)
        fitting = [key for key in sorted(known) if known[key].method == method]
        fitting = [key for key in fitting if level in {None, known[key].level}]
        if len(fitting) == 1:
            return cls._from(fitting[0], known[fitting[0]])
        that = f"with {method}" + (f" and the level {level}" if level else "")
        if fitting:
            raise WorkloadError(
                f"project {project} has several workloads {that}: say which with --workload: {', '.join(fitting)}"
            )
        raise WorkloadError(
            f"project {project} has no workload {that}: add one under `workloads` to its file and bring it up"
        )

    @classmethod
    def _from(cls, name: str, found: BoundWorkload) -> "Workload":
        return cls(
            name=name,
            level=found.level,
            method=found.method,
            mount=found.mount,
            role=found.role,
            namespace=found.namespace or "",
            service_account=found.service_account or "",
            audience=found.audience,
            secret_id_ttl_seconds=found.secret_id_ttl_seconds,
        )


def openbao_url(text: str) -> str:
    """The text, if it can be OpenBao's URL.

    Raises:
        ConnectorError: if it cannot.
    """
    parts = urlsplit(text)
    plain = re.fullmatch(r"https?://[A-Za-z0-9.:\[\]/_-]+", text)
    if not plain or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise UsageError(f"{text!r} is not OpenBao's URL: expected e.g. https://openbao.example.com:8200")
    return text.rstrip("/")
