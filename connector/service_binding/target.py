"""What is bound: one tenant at one level, over one way to the database; and who signs in for it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from components.naming import API_LEVELS, AccessLevel, TenantNames
from connector.errors import ConnectorError

__all__ = ["Route", "Service", "SignIn", "Workload", "dns_label"]

_DNS_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"


class Route(StrEnum):
    """The way to the database."""

    SESSION = "session"
    """The pooler, one server connection for a client's session."""
    TRANSACTION = "transaction"
    """The pooler, a server connection for each transaction: no prepared statements, no session settings."""
    DIRECT = "direct"
    """PostgreSQL itself."""


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
    openbao_address: str

    @classmethod
    def of(cls, binding: Mapping[str, Any], level: AccessLevel, route: Route | None = None) -> "Service":
        """The service of a tenant's binding.

        Args:
            binding: the tenant's, as the cell's stack exports it.
            route: by default the pooler's session mode, where there is a pooler.

        Raises:
            ConnectorError: if the tenant is detached, or there is no pooler.
        """
        project = str(binding["project"])
        if binding["lifecycle"] != "attached":
            raise ConnectorError(
                f"project {project} is {binding['lifecycle']}: set `lifecycle: attached` in its file and bring it up"
            )
        database, pooler = binding["database"], binding.get("pooler")
        if route is None:
            route = Route.SESSION if pooler else Route.DIRECT
        if route is not Route.DIRECT and not pooler:
            raise ConnectorError(f"the environment of project {project} has no pooler: bind it with --pooler direct")
        served = bool(binding["exposed"]) and level in API_LEVELS
        return cls(
            names=TenantNames(project),
            level=level,
            host=str(database["host"] if route is Route.DIRECT else pooler["host"]),
            port=int(database["port"] if route is Route.DIRECT else pooler[f"{route.value}Port"]),
            database=str(database["database"]),
            sslmode=str(database["sslmode"]),
            login_suffix="" if route is Route.DIRECT else f".{pooler['tenant']}",
            api_url=str(binding["apiUrl"]).removesuffix("/rest/v1") if served else None,
            openbao_address=str(binding["openbaoAddress"]),
        )

    @property
    def lease_path(self) -> str:
        """Where OpenBao issues its leases."""
        return self.names.lease_path(self.level)

    @property
    def token_path(self) -> str:
        """Where OpenBao issues its API tokens; only where there is an :attr:`api_url`."""
        return self.names.token_path(self.level)

    def uri(self, username: str, password: str) -> str:
        """A libpq URI with whatever stands for login and password in a template."""
        login = f"{username}{quote(self.login_suffix, safe='')}:{password}"
        options = urlencode({"sslmode": self.sslmode})
        return f"postgresql://{login}@{self.host}:{self.port}/{quote(self.database, safe='')}?{options}"

    def entries(self) -> dict[str, str]:
        """The entries of a database binding that are known beforehand.

        ``type``, ``provider``, ``host`` and ``port`` mean what the specification's well-known entries mean:
        https://github.com/servicebinding/spec#well-known-secret-entries.
        """
        return {
            "type": "postgresql",
            "provider": "supabase",
            "host": self.host,
            "port": str(self.port),
            "database": self.database,
            "sslmode": self.sslmode,
            "schema": self.names.schema,
            "project": self.names.slug,
            "access-level": self.level.value,
        }

    def variables(self) -> dict[str, str]:
        """What of :meth:`~connector.leases.Lease.variables` is no secret and stays as it is."""
        known = {
            "SUPABASE_URL": self.api_url,
            "SUPABASE_SCHEMA": self.names.schema,
            "DATA_PLANE_PROJECT": self.names.slug,
            "DATA_PLANE_ACCESS_LEVEL": self.level.value,
        }
        return {key: value for key, value in known.items() if value is not None}


@dataclass(frozen=True)
class SignIn:
    """How a workload signs in to OpenBao."""

    address: str
    """OpenBao's URL, as the workload reaches it."""
    mount: str
    """The auth method's, without ``auth/``."""
    role: str

    def __post_init__(self) -> None:
        parts = urlsplit(self.address)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.password:
            raise ConnectorError(
                f"{self.address!r} is not OpenBao's URL: expected e.g. https://openbao.example.com:8200"
            )
        if not re.fullmatch(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*", self.mount):
            raise ConnectorError(f"{self.mount!r} is not the path of an auth method: expected e.g. kubernetes")


@dataclass(frozen=True)
class Workload:
    """A workload that the project's file names."""

    names: TenantNames
    name: str

    def __post_init__(self) -> None:
        dns_label(self.name, "workload")

    @property
    def role(self) -> str:
        """Its role in OpenBao's auth methods."""
        return f"{self.names.schema}-{self.name}"


def dns_label(text: str, what: str) -> str:
    """The text, if it can be a Kubernetes or compose name.

    Raises:
        ConnectorError: if it cannot.
    """
    if not re.fullmatch(_DNS_LABEL, text):
        raise ConnectorError(f"{text!r} cannot be a {what}: lower-case letters, digits and dashes, at most 63")
    return text
