"""The connection that dynamic resources make to the central PostgreSQL, as its superuser."""

from dataclasses import dataclass
from typing import Any

import psycopg
import pulumi

from components.platform import DatabaseEndpoint

__all__ = ["CONNECTION", "DatabaseConnection", "DatabaseUnavailableError", "connect", "connection_of"]

CONNECTION = ("host", "port", "database", "username", "password", "sslmode")
"""The properties of a dynamic resource by which :func:`connect` finds the database."""

_CONNECT_TIMEOUT_SECONDS = 15


class DatabaseUnavailableError(RuntimeError):
    """PostgreSQL cannot be used now; the message says why."""


@dataclass(frozen=True)
class DatabaseConnection:
    """Where the database is, and its superuser's password."""

    endpoint: DatabaseEndpoint
    password: pulumi.Input[str]
    """Has to be secret."""

    def properties(self) -> dict[str, pulumi.Input[Any]]:
        """What a dynamic resource hands to :func:`connect`."""
        endpoint = self.endpoint
        values = (endpoint.host, endpoint.port, endpoint.name, endpoint.admin_user, self.password, endpoint.sslmode)
        return dict(zip(CONNECTION, values, strict=True))


def connection_of(props: dict[str, Any]) -> dict[str, Any]:
    """The part of a resource's properties that :func:`connect` needs.

    It belongs to the outputs too, because on refresh a provider is given nothing else. The engine keeps the password
    as a secret.
    """
    return {key: props[key] for key in CONNECTION}


def connect(props: dict[str, Any]) -> psycopg.Connection[Any]:
    """A connection to the database that a resource's properties name.

    Raises:
        DatabaseUnavailableError: if there is none to be had.
    """
    try:
        return psycopg.connect(
            host=props["host"],
            port=int(props["port"]),
            dbname=props["database"],
            user=props["username"],
            password=props["password"],
            sslmode=props["sslmode"],
            connect_timeout=_CONNECT_TIMEOUT_SECONDS,
            application_name="supabase-data-plane",
        )
    except psycopg.OperationalError as error:
        place = f"{props['host']}:{int(props['port'])}"
        raise DatabaseUnavailableError(f"PostgreSQL at {place} cannot be used: {str(error).strip()}") from None
