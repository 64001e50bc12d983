"""The entries of a binding, in whatever template language fills them in.

They are those of the Service Binding specification (https://servicebinding.io/spec/core/1.1.0/#well-known-secret-entries),
and a few that say what is particular to a tenant. There are two bindings, because they last for different times: a
login for as long as its lease, an API token for a quarter of an hour.
"""

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote, urlencode

from data_plane.connector.service_binding.target import Service
from data_plane.model.naming import PUBLISHABLE_KEY

__all__ = ["API_BINDING", "DATABASE_BINDING", "BoundService", "Field", "bound_services"]

DATABASE_BINDING = "supabase"
"""Folder of the database's entries."""

API_BINDING = "supabase-api"
"""Folder of the API's entries."""

_PROVIDER = "supabase"


@dataclass(frozen=True)
class Field:
    """A field of what OpenBao answers, to be filled in by a template."""

    path: str
    """What is read."""
    keys: tuple[str, ...]
    """Where it is in the answer's data."""
    for_url: bool = False
    """Whether it is to be escaped for a URL."""


Filled = Callable[[Field], str]
"""What stands for a field in a template language."""


@dataclass(frozen=True)
class BoundService:
    """One binding: a Secret, or a folder of files."""

    name: str
    type: str
    paths: tuple[str, ...]
    """What is read in OpenBao for it."""
    _entries: Callable[[Filled], dict[str, str]]

    def entries(self, filled: Filled) -> dict[str, str]:
        """Its entries, in the template language of ``filled``."""
        return {"type": self.type, "provider": _PROVIDER, **self._entries(filled)}


def bound_services(service: Service) -> list[BoundService]:
    """The bindings of a tenant at one level: its database, and its API where it has one."""
    database = BoundService(
        DATABASE_BINDING, "postgresql", (service.lease_path,), lambda filled: _database(service, filled)
    )
    if service.api_url is None:
        return [database]
    paths = (service.token_path, service.publishable_key_path)
    return [database, BoundService(API_BINDING, "supabase", paths, lambda filled: _api(service, filled))]


def _database(service: Service, filled: Filled) -> dict[str, str]:
    password = filled(Field(service.lease_path, ("password",)))
    login = filled(Field(service.lease_path, ("username",))) + service.login_suffix
    return {
        "host": service.host,
        "port": str(service.port),
        "database": service.database,
        "sslmode": service.sslmode,
        "username": login,
        "password": password,
        "uri": _uri(service, filled),
        # libpq reads it for each connection, so that a new lease needs no code: PGSERVICEFILE and PGSERVICE.
        "pg_service.conf": _service_file(service, login, password),
        **_about(service),
    }


def _service_file(service: Service, login: str, password: str) -> str:
    options = {
        "host": service.host,
        "port": service.port,
        "dbname": service.database,
        "sslmode": service.sslmode,
        "user": login,
        "password": password,
    }
    return f"[{service.names.slug}]\n" + "".join(f"{key}={value}\n" for key, value in options.items())


def _uri(service: Service, filled: Filled) -> str:
    login, password = (filled(Field(service.lease_path, (key,), for_url=True)) for key in ("username", "password"))
    host = f"[{service.host}]" if ":" in service.host else service.host
    user = login + quote(service.login_suffix, safe="")
    options = urlencode({"sslmode": service.sslmode})
    return f"postgresql://{user}:{password}@{host}:{service.port}/{quote(service.database, safe='')}?{options}"


def _api(service: Service, filled: Filled) -> dict[str, str]:
    return {
        "uri": str(service.api_url),
        "token": filled(Field(service.token_path, ("token",))),
        "publishable-key": filled(Field(service.publishable_key_path, ("data", PUBLISHABLE_KEY))),
        **_about(service),
    }


def _about(service: Service) -> dict[str, str]:
    return {"schema": service.names.schema, "project": service.names.slug, "access-level": service.level.value}
