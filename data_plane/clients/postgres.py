"""The connection to the central PostgreSQL as its superuser, what its errors mean, and passwords of logins."""

import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

import psycopg
from psycopg import sql

from data_plane.errors import DataPlaneError

__all__ = [
    "CONNECTION",
    "PLATFORM_SESSION",
    "DatabaseUnavailableError",
    "advice_on",
    "connect",
    "connection_of",
    "explain",
    "in_transaction",
    "set_password",
    "when_ready",
]

CONNECTION = ("host", "port", "database", "username", "password", "sslmode")
"""The properties of a dynamic resource by which :func:`connect` finds the database."""

PLATFORM_SESSION = (
    "-c search_path=pg_catalog,pg_temp -c lock_timeout=30s -c statement_timeout=120s"
    " -c idle_in_transaction_session_timeout=120s"
)
"""The ``options`` of every connection with the platform's rights: names nobody else supplies, no endless wait."""

_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")
_CONNECT_TIMEOUT_SECONDS = 15
_DEADLOCKS = 5
_MOMENT_SECONDS = 15
"""How long a server that is restarting, or has no connection left, is given to have one."""
_SHORT_WAITS_SECONDS = 5

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
    ): "it has another password than is known here. Give both the same (docs/how-to/rotate-secrets.md), then",
    (
        "55P03",
        "lock timeout",
    ): "another session holds what it needs. See in pg_locks and pg_stat_activity which, end it, then",
    ("57014", "statement timeout"): "it took too long. See in pg_stat_activity what else is running, then",
    ("Connection refused",): "it does not run there. Start it (on this machine: `dataplane local start`), then",
    (
        "57P01",
        "57P02",
        "terminating connection",
        "closed the connection",
        "connection is closed",
        "Connection reset",
        "unexpected EOF",
        "broken pipe",
        "conn closed",
    ): "the connection was cut, by a restart or on the way; if it has stopped, start it. Then",
    ("timeout expired", "timed out", "i/o timeout"): "it does not answer. See whether it runs and can be reached, then",
}
_PASSING = (
    "too many clients",
    "remaining connection slots",
    "starting up",
    "shutting down",
    "in recovery mode",
    "not yet accepting connections",
)


class DatabaseUnavailableError(DataPlaneError):
    """PostgreSQL cannot be reached or used now."""

    code = "database-unavailable"


def connection_of(props: dict[str, Any]) -> dict[str, Any]:
    """The part of a resource's properties that :func:`connect` needs.

    It belongs to the outputs too, because on refresh a provider is given nothing else. The engine keeps the password
    as a secret.
    """
    return {key: props[key] for key in CONNECTION}


def connect(props: dict[str, Any]) -> psycopg.Connection[Any]:
    """A connection to the database that a resource's properties name.

    Waits a moment for a server that is restarting or has no connection left.

    Raises:
        DatabaseUnavailableError: if there is none to be had.
    """
    try:
        return when_ready(lambda: _connect(props))
    except psycopg.OperationalError as error:
        place = f"{props['host']}:{int(props['port'])}"
        raise DatabaseUnavailableError(f"PostgreSQL at {place} cannot be used: {explain(error)}") from error


def when_ready(open_connection: Callable[[], _T]) -> _T:
    """What ``open_connection`` gives, which is called again while the server is restarting or has no connection left.

    Raises:
        psycopg.OperationalError: its last one, if there is none to be had.
    """
    deadline = time.monotonic() + _MOMENT_SECONDS
    while True:
        try:
            return open_connection()
        except psycopg.OperationalError as error:
            if time.monotonic() > deadline or not any(words in str(error) for words in _PASSING):
                raise
            _LOG.debug("PostgreSQL is not ready yet: %s", error)
            time.sleep(0.2)


def in_transaction(props: dict[str, Any], work: Callable[[psycopg.Connection[Any]], _T]) -> _T:
    """Runs ``work`` in a transaction, again if that loses a deadlock, and returns its result.

    Grants of two roles that run at the same time can meet in one. This session looks for it before others do, which may
    be a provider's that would give up. It looks only once, maybe before there is one: so its waits end, and begin anew,
    before others look (after 1 s). Where that gets it nowhere it waits as long as any.

    Raises:
        DatabaseUnavailableError: if there is no connection to be had.
        psycopg.Error: what the database says to the work.
    """
    deadlocks, began = 0, time.monotonic()
    while True:
        patient = time.monotonic() - began > _SHORT_WAITS_SECONDS
        try:
            with connect(props) as connection:
                connection.execute("set local deadlock_timeout = '100ms'")
                if not patient:
                    connection.execute("set local lock_timeout = '500ms'")
                return work(connection)
        except psycopg.errors.DeadlockDetected as error:
            deadlocks += 1
            if deadlocks == _DEADLOCKS:
                raise
            _LOG.debug("a deadlock was lost: %s", error)
        except psycopg.errors.LockNotAvailable as error:
            if patient:
                raise
            _LOG.debug("a lock was waited for, and is again: %s", error)


def explain(error: psycopg.Error) -> str:
    """The cause, and what to do about it where that is known."""
    cause = str(error).strip() or type(error).__name__
    advice = advice_on(cause, error.sqlstate)
    return f"{cause}\n{advice[0].upper()}{advice[1:]}." if advice else cause


def advice_on(cause: str, sqlstate: str | None = None) -> str | None:
    """What to do about what PostgreSQL said, to this program or to another."""
    lowered = cause.lower()
    for signs, advice in _ADVICE.items():
        if sqlstate in signs or any(sign.lower() in lowered for sign in signs):
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
        options=PLATFORM_SESSION,
    )


def set_password(connection: psycopg.Connection[Any], login: str, password: str) -> None:
    """Gives a login a password, as a SCRAM verifier."""
    verifier = connection.pgconn.encrypt_password(password.encode(), login.encode(), b"scram-sha-256").decode()
    there = connection.execute("select to_regprocedure('data_plane.set_password(text, text)') is not null").fetchone()
    if there == (True,):  # else the platform's SQL is not applied yet, or of an earlier version
        connection.execute("select data_plane.set_password(%s, %s)", [login, verifier])
    else:
        connection.execute(sql.SQL("alter role {} password {}").format(sql.Identifier(login), sql.Literal(verifier)))
