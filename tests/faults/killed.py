"""Runs something in a process of its own that kills itself, without a word, in the middle of a chosen resource.

    python -m tests.faults.killed FOLDER ROOT AT DELAY KIND [JSON]

FOLDER and ROOT are the data plane's; AT is the number of the resource (of the write to a server, for a rotation), DELAY
how many seconds after its beginning the end comes. It exits normally if there are not that many.
"""

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

from data_plane.connector import rotation
from data_plane.connector.bindings import LocalDataPlane
from data_plane.connector.cells import LocalCells
from data_plane.connector.executor import SupabaseExecutor
from data_plane.connector.lease_runner import OnNewLease, run_with_lease
from data_plane.connector.reconcile_credentials import connector_secret
from data_plane.engine.engines import LocalRunner
from data_plane.engine.runner.monitor import Monitor
from data_plane.local.environment import LocalEnvironment
from data_plane.local.providers import PROVIDERS
from data_plane.local.servers import ADMIN_USER, LOOPBACK, Servers
from data_plane.model.naming import AccessLevel
from data_plane.state_dir import StateDir
from tests.faults.behind import CELL


class Killer:
    """Counts, and ends the process when it is time."""

    def __init__(self, at: int, delay: float) -> None:
        self._left = at
        self._delay = delay
        self._lock = threading.Lock()

    def before(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, which counts its calls."""

        def counting(*arguments: Any, **named: Any) -> Any:
            with self._lock:
                self._left -= 1
                now = self._left == 0
            if now and self._delay == 0:
                self._kill()
            if now:
                timer = threading.Timer(self._delay, self._kill)
                timer.daemon = True
                timer.start()
            return function(*arguments, **named)

        return counting

    @staticmethod
    def _kill() -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    folder, root, at, delay, kind, *more = sys.argv[1:]
    killer = Killer(int(at), float(delay))
    Monitor._register = killer.before(Monitor._register)  # type: ignore[method-assign]
    home = StateDir(Path(folder))
    servers = Servers(home)
    local_env = LocalEnvironment(servers, LocalRunner(home, PROVIDERS, Path(root)), Path(root))
    match kind:
        case "up":
            list(local_env.run(preview=False, on_stack=lambda _stack: None, on_step=lambda _step: None))
        case "cell":
            local_env.run_stack(CELL, preview=False, on_step=lambda _step: None)
        case "run":
            plane = LocalDataPlane(local_env)
            run_with_lease(
                more,
                lambda: plane.client("alpha", AccessLevel.OWNER, None),
                plane.binding("alpha"),
                AccessLevel.OWNER,
                OnNewLease.NOTHING,
                lambda _text: None,
            )
        case "action":
            action, inputs = json.loads(more[0])
            SupabaseExecutor(LocalCells(local_env), home, root=Path(root)).execute(action, inputs, actor="tester")
        case "rotate":
            _rotate(servers, killer, more[0])


def _rotate(servers: Servers, killer: Killer, key: str) -> None:
    """What ``dataplane secret rotate`` does; its writes are counted, and the end of the transaction between two of them."""
    for name in ("set_password", "write_kv"):
        setattr(rotation, name, killer.before(getattr(rotation, name)))
    psycopg.Connection.commit = killer.before(psycopg.Connection.commit)  # type: ignore[method-assign]
    servers.postgres.remember_password = killer.before(servers.postgres.remember_password)  # type: ignore[method-assign]
    rotation.rotate(
        servers.openbao.client(),
        key,
        lambda password: psycopg.connect(
            host=LOOPBACK, port=servers.postgres.known_port, dbname="postgres", user=ADMIN_USER, password=password
        ),
    )
    servers.postgres.remember_password(connector_secret(servers.openbao.client())["POSTGRES_PASSWORD"])


if __name__ == "__main__":
    main()
