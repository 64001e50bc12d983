"""The local servers together."""

import shutil
from dataclasses import dataclass

from embedded.home import Home
from embedded.openbao import EmbeddedOpenBao
from embedded.postgres import ADMIN_USER, EmbeddedPostgres
from embedded.processes import LOOPBACK

__all__ = ["ADMIN_USER", "LOOPBACK", "ServerStatus", "Servers"]


@dataclass(frozen=True)
class ServerStatus:
    """How a server is."""

    name: str
    running: bool
    address: str
    remark: str


class Servers:
    """PostgreSQL and OpenBao of one :class:`~embedded.home.Home`."""

    def __init__(self, home: Home | None = None) -> None:
        self.home = home or Home()
        self.postgres = EmbeddedPostgres(self.home)
        self.openbao = EmbeddedOpenBao(self.home)

    def start(self) -> None:
        """Starts what is not running.

        Raises:
            ServerError: saying which server is in trouble and what to do.
        """
        with self.home.lock("servers"):
            self.postgres.start()
            self.openbao.start()

    def stop(self) -> None:
        """Stops both; their data stays."""
        with self.home.lock("servers"):
            self.openbao.stop()
            self.postgres.stop()

    def reset(self) -> None:
        """Stops both and deletes all local data, state included."""
        with self.home.lock("servers"):
            self.openbao.stop()
            self.postgres.stop()
        shutil.rmtree(self.home.path)

    def status(self) -> list[ServerStatus]:
        """How each is."""
        pg_port, bao_port = self.postgres.port, self.openbao.port
        return [
            ServerStatus(
                "PostgreSQL",
                pg_port is not None,
                f"{LOOPBACK}:{pg_port}" if pg_port else "",
                str(self.postgres.data),
            ),
            ServerStatus(
                "OpenBao",
                bao_port is not None,
                f"http://{LOOPBACK}:{bao_port}" if bao_port else "",
                "" if bao_port is None else "sealed" if self.openbao.sealed else "unsealed",
            ),
        ]
