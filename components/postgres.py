"""The connection that dynamic resources make to the central PostgreSQL, as its superuser."""

import time
from dataclasses import dataclass
from typing import Any

import psycopg
import pulumi

from components.platform import DatabaseEndpoint

__all__ = [
    "CONNECTION",
    "DatabaseConnection",
    "DatabaseUnavailableError",
    "advice_on",
    "connect",
    "connection_of",
    "explain",
]

CONNECTION = ("host", "port", "database", "username", "password", "sslmode")
"""The properties of a dynamic resource by which :func:`connect` finds the database."""

_CONNECT_TIMEOUT_SECONDS = 15
_MOMENT_SECONDS = 15
"""How long a server that is starting, or has no connection left, is given to have one."""

# What an error says (a server's are known by SQLSTATE, a failed connection's by its text alone) → what to do about it.
_ADVICE = {
    (
        "53300",
        "too many clients",
        "remaining connection slots",
        "too many connections",
    ): "no connection is left. See in pg_stat_activity who holds them, end what is idle or raise max_connections, then",
    (
        "25006",
        "read-only transaction",
    ): "it takes no writes: a standby, or default_transaction_read_only is on. Name the primary or turn that off, then",
    ("53100", "No space left on device"): "its disk is full. Make room, start it if it has stopped, then",
    (
        "57P03",
        "starting up",
        "shutting down",
        "in recovery mode",
        "not yet accepting connections",
    ): "it is starting or stopping. Wait a moment, then",
    (
        "28P01",
        "password authentication failed",
    ): "it has another password than is known here. Give both the same (docs/operations.md, Rotate), then",
    (
        "55P03",
        "lock timeout",
    ): "another session holds what it needs. See in pg_locks and pg_stat_activity which, end it, then",
    ("57014", "statement timeout"): "it took too long. See in pg_stat_activity what else is running, then",
    ("Connection refused",): "it does not run there. Start it, then",
    (
        "57P01",
        "57P02",
        "terminating connection",
        "closed the connection",
        "connection is closed",
        "Connection reset",
    ): "the connection was cut, by a restart or on the way; if it has stopped, start it. Then",
    ("timeout expired", "timed out"): "it does not answer. See whether it runs and can be reached, then",
}
_PASSING = ("too many clients", "remaining connection slots", "starting up", "not yet accepting connections")


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

    Waits a moment for a server that is just starting or has no connection left.

    Raises:
        DatabaseUnavailableError: if there is none to be had.
    """
    deadline = time.monotonic() + _MOMENT_SECONDS
    while True:
        try:
            return _connect(props)
        except psycopg.OperationalError as error:
            if time.monotonic() > deadline or not any(words in str(error) for words in _PASSING):
                place = f"{props['host']}:{int(props['port'])}"
                raise DatabaseUnavailableError(f"PostgreSQL at {place} cannot be used: {explain(error)}") from None
            time.sleep(0.2)


def explain(error: psycopg.Error) -> str:
    """The cause, and what to do about it where that is known."""
    cause = str(error).strip() or type(error).__name__
    advice = advice_on(cause, error.sqlstate)
    return f"{cause}\n{advice[0].upper()}{advice[1:]}." if advice else cause


def advice_on(cause: str, sqlstate: str | None = None) -> str | None:
    """What to do about what PostgreSQL said, to this program or to another."""
    for signs, advice in _ADVICE.items():
        if sqlstate in signs or any(sign in cause for sign in signs):
            return f"{advice} run the same command again"
    return None


def _connect(props: dict[str, Any]) -> psycopg.Connection[Any]:
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
