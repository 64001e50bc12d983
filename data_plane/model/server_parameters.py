"""Parameters of the central PostgreSQL that keep one tenant from using it up, wherever this program runs it."""

__all__ = [
    "MAX_CONNECTIONS",
    "SERVICE_CONNECTIONS",
    "cron_parameters",
    "data_limit_command",
    "server_parameters",
    "tenant_connections",
]

MAX_CONNECTIONS = 600
"""The default: 25 projects with the default 20 connections each, and the services'."""
SERVICE_CONNECTIONS = 100
"""Connections that no tenant can have: of Supabase's services, guard, relay, OpenBao's issuer and operators."""
_SUPERUSER_CONNECTIONS = 10
_LOCKS_PER_CONNECTION = 128
_JOBS_AT_ONCE = 20
_OTHER_WORKERS = 16
"""Background workers beside those of jobs: of parallel queries, replication and extensions."""
_RESERVED_SINCE = 16
"""The version of PostgreSQL that has ``reserved_connections``."""


def tenant_connections(max_connections: int) -> int:
    """How many of a server's connections tenants can have together."""
    return max_connections - _reserved(max_connections)


def _reserved(max_connections: int) -> int:
    return min(SERVICE_CONNECTIONS, max_connections // 4)


def server_parameters(major: int | None, max_connections: int = MAX_CONNECTIONS) -> dict[str, str]:
    """Lines of postgresql.conf that only a superuser can change, and only with a restart.

    Args:
        major: PostgreSQL's version; None if it is not known.
    """
    reserved = _reserved(max_connections)
    reserves = {"superuser_reserved_connections": str(min(_SUPERUSER_CONNECTIONS, reserved))}
    if major is not None and major >= _RESERVED_SINCE:
        reserves["reserved_connections"] = str(max(0, reserved - _SUPERUSER_CONNECTIONS))
    return {
        "max_connections": str(max_connections),
        **reserves,
        # Room for the locks that the guard lets all tenants have, until it ends those who take more.
        "max_locks_per_transaction": str(_LOCKS_PER_CONNECTION),
        # A prepared transaction holds its locks and its snapshot without a session that could be ended.
        "max_prepared_transactions": "0",
    }


def cron_parameters(database: str) -> dict[str, str]:
    """Parameters of pg_cron, where it is loaded, for projects to have jobs.

    Args:
        database: the one that has the projects; pg_cron keeps its tables there.
    """
    return {
        "cron.database_name": database,
        # A connection would need a line of pg_hba.conf that lets every project's login in without a password.
        "cron.use_background_workers": "on",
        "cron.max_running_jobs": str(_JOBS_AT_ONCE),
        # It would write each project's SQL into the server's log, every time.
        "cron.log_statement": "off",
        "max_worker_processes": str(_JOBS_AT_ONCE + _OTHER_WORKERS),
    }


def data_limit_command(kibibytes: int) -> str:
    """Shell text that runs a command, given as arguments, with at most this much memory of its own in each process.

    ``work_mem`` is a session's to set: past this limit its statement fails with "out of memory", where otherwise the
    kernel would end a process and PostgreSQL restart all of them.
    """
    return f'ulimit -d {kibibytes} && exec "$@"'
