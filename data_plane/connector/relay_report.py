"""What the relay has not delivered yet: changes of users that wait for their projects' tables, and why."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

__all__ = ["RelayReport", "WaitingDeliveries", "read_relay_report"]

_LATE_SECONDS = 60


@dataclass(frozen=True)
class WaitingDeliveries:
    """What waits for one tenant."""

    tenant: str
    waiting: int
    failing: int
    """How many of them were tried, and failed."""
    since: datetime
    error: str | None
    """What the first of those failed with."""


@dataclass(frozen=True)
class RelayReport:
    """All that ``dataplane project status`` shows of the relay."""

    late: str | None
    """What to say if the relay does not run."""
    waiting: Sequence[WaitingDeliveries] = ()


def read_relay_report(connection: "psycopg.Connection[Any]") -> RelayReport:
    """The report, read as the superuser."""
    try:
        row = connection.execute(
            "select ran_at, coalesce(clock_timestamp() - ran_at > make_interval(secs => %s), true)"
            " from data_plane.relay",
            [_LATE_SECONDS],
        ).fetchone()
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        connection.rollback()
        return RelayReport("The database has no relay yet: bring the central stack up")
    ran_at, is_late = row or (None, True)
    since = f"since {ran_at:%Y-%m-%d %H:%M:%S %Z}" if ran_at else "yet"
    waiting = connection.execute(
        "select tenant, waiting, failing, since, error from data_plane.delivery_summary()"
        " order by failing > 0 desc, tenant"
    ).fetchall()
    return RelayReport(
        f"The relay has not run {since}: changes of users do not reach their projects" if is_late else None,
        [WaitingDeliveries(*found) for found in waiting],
    )
