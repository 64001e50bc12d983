"""The relay of the local PostgreSQL: the script that a Deployment runs on a cluster (``components/central/relay.py``).

It signs in as the superuser, whose password is the only one that this machine has, and puts that down at once.
"""

import os

from components.central.files import SCRIPTS
from data_plane.local.background import BackgroundProcess
from data_plane.local.postgres import LocalPostgres

__all__ = ["LocalRelay"]

_SCRIPT = SCRIPTS / "relay.sh"
_GIVE_UP_MINUTES = 5
"""Without a server for so long it ends; the next start of the servers starts it, too."""


class LocalRelay(BackgroundProcess):
    """The relay of one :class:`~data_plane.state_dir.StateDir`."""

    kind = "relay"
    program = _SCRIPT.name

    def start(self, postgres: LocalPostgres) -> None:
        """Starts the process if it does not run."""
        if self.pid is not None:
            return
        folder = self.home.path / "relay"
        folder.mkdir(exist_ok=True)
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PG")},
            "PATH": f"{postgres.binaries}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            **postgres.superuser_variables,
            "PGAPPNAME": "data-plane-relay",
            "PGOPTIONS": "-c role=data_plane_relay -c search_path=pg_catalog,pg_temp -c statement_timeout=30s",
            "RELAY_FOLDER": str(folder),
            "RELAY_GIVE_UP_MINUTES": str(_GIVE_UP_MINUTES),
        }
        self._begin([_SCRIPT], environment)
