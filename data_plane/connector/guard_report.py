"""What the guard knows of tenants: the storage that they use, their jobs, and what it ended."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psycopg

__all__ = ["GuardAction", "GuardReport", "Job", "read_guard_report"]

_LATE_SECONDS = 60


@dataclass(frozen=True)
class GuardAction:
    """What was ended of a tenant for one reason, and how often."""

    tenant: str | None
    what: str
    times: int
    latest: datetime
    value: str | None
    bound: str | None


@dataclass(frozen=True)
class Job:
    """A scheduled job of a tenant, and how its last run went."""

    tenant: str
    name: str
    schedule: str
    state: str
    """``active``, or why it does not run."""
    last_run: datetime | None
    last_status: str | None
    failure: str | None


@dataclass(frozen=True)
class GuardReport:
    """All that ``dataplane project status`` shows of the guard."""

    late: str | None
    """What to say if the guard does not run."""
    storage: dict[str, str] = field(default_factory=dict)
    """How much each tenant uses of what it may, by schema."""
    actions: Sequence[GuardAction] = ()
    jobs: Sequence[Job] = ()
    lapsed: Sequence[str] = ()
    """Logins whose lease has ended and that could not be dropped yet, a line each."""


def read_guard_report(connection: "psycopg.Connection[Any]") -> GuardReport:
    """The report, read as the superuser."""
    try:
        row = connection.execute(
            "select ran_at, coalesce(clock_timestamp() - ran_at > make_interval(secs => %s), true)"
            " from data_plane.guard",
            [_LATE_SECONDS],
        ).fetchone()
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        connection.rollback()
        return GuardReport("The database has no guard yet: bring the central stack up")
    ran_at, is_late = row or (None, True)
    since = f"since {ran_at:%Y-%m-%d %H:%M:%S %Z}" if ran_at else "yet"
    storage = connection.execute(
        "select u.tenant, pg_size_pretty(u.bytes) || ' of ' || pg_size_pretty((data_plane.limits_of(u.tenant)).storage)"
        " || case when u.is_full then ', full' when u.warned then ', nearly full' else '' end"
        " from data_plane.storage_use u"
    ).fetchall()
    actions = connection.execute(
        "select tenant, what, times, latest, value, bound from data_plane.guard_summary() order by latest desc"
    ).fetchall()
    return GuardReport(
        f"The guard has not run {since}: nothing ends sessions beyond their limits" if is_late else None,
        dict(storage),
        [GuardAction(*action) for action in actions],
        _jobs(connection),
        [line for (line,) in connection.execute("select found from data_plane.lapsed_leases() order by 1").fetchall()],
    )


def _jobs(connection: "psycopg.Connection[Any]") -> list[Job]:
    if connection.execute("select to_regproc('data_plane.job_report')").fetchone() == (None,):
        return []  # the central stack is of an earlier version
    rows = connection.execute(
        "select tenant, name, schedule, state, last_run, last_status, failure from data_plane.job_report()"
    ).fetchall()
    return [Job(*row) for row in rows]
