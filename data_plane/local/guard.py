"""The guard of the local PostgreSQL: a process that runs ``data_plane.enforce_limits()`` every few seconds.

On a cluster a Deployment does this with a login that can do nothing else (``components/central/guard.py``). Here it
signs in as the superuser, whose password is the only one that this machine has.
"""

import os
import sys
import time
from contextlib import suppress
from pathlib import Path

import psycopg

from data_plane.clients.postgres import PLATFORM_SESSION
from data_plane.errors import DataPlaneError
from data_plane.local.background import BackgroundProcess
from data_plane.local.postgres import ADMIN_USER, LocalPostgres
from data_plane.local.processes import LOOPBACK
from data_plane.model.timings import GUARD_PERIOD_SECONDS as PERIOD_SECONDS
from data_plane.state_dir import SOURCES, StateDir

__all__ = ["LocalGuard"]

_GIVE_UP_SECONDS = 300
"""Without a server for so long it ends; the next start of the servers starts it, too."""


class LocalGuard(BackgroundProcess):
    """The guard of one :class:`~data_plane.state_dir.StateDir`."""

    kind = "guard"
    program = Path(sys.executable).name

    def start(self) -> None:
        """Starts the process if it does not run."""
        if self.pid is None:
            command = [sys.executable, "-P", "-m", "data_plane.local.guard", str(self.home.path)]
            self._begin(command, {**os.environ, "PYTHONPATH": str(SOURCES)})


def _run(postgres: LocalPostgres) -> None:
    """Runs the guard until the server is gone. Its connection is kept: a new one may not be had when it matters."""
    seen = time.monotonic()
    while postgres.data.is_dir() and time.monotonic() - seen < _GIVE_UP_SECONDS:
        with suppress(psycopg.OperationalError, DataPlaneError), _connect(postgres) as connection:
            seen = time.monotonic()
            while True:
                try:
                    connection.execute("select data_plane.enforce_limits()")
                    connection.execute("select data_plane.apply_storage()")
                except (psycopg.errors.InvalidSchemaName, psycopg.errors.UndefinedFunction):
                    pass  # there is none before the first `up`
                except psycopg.Error as error:
                    print(error, flush=True)  # noqa: T201
                    if connection.closed:
                        break
                seen = time.monotonic()
                time.sleep(PERIOD_SECONDS)
        time.sleep(PERIOD_SECONDS)


def _connect(postgres: LocalPostgres) -> "psycopg.Connection[tuple[object, ...]]":
    connection = psycopg.connect(
        host=LOOPBACK,
        port=postgres.known_port,
        dbname="postgres",
        user=ADMIN_USER,
        password=postgres.admin_password,
        connect_timeout=5,
        autocommit=True,
        application_name="data-plane-guard",
        options=PLATFORM_SESSION,
    )
    connection.add_notice_handler(lambda notice: print(notice.severity, notice.message_primary, flush=True))  # noqa: T201
    return connection


if __name__ == "__main__":
    _run(LocalPostgres(StateDir(Path(sys.argv[1]))))
