"""The local servers together."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass

from embedded.home import Home
from embedded.kubernetes import EmbeddedKubernetes
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
    """The servers of one :class:`~embedded.home.Home`.

    Args:
        home: another one than the default.
        say: is told what takes long.
    """

    def __init__(self, home: Home | None = None, say: Callable[[str], None] = lambda _text: None) -> None:
        self.home = home or Home()
        self.postgres = EmbeddedPostgres(self.home)
        self.openbao = EmbeddedOpenBao(self.home)
        self.kubernetes = EmbeddedKubernetes(self.home, say)

    def start(self, *, kubernetes: bool = False) -> None:
        """Starts what is not running.

        Args:
            kubernetes: whether that includes the control plane, which most work does not need.

        Raises:
            ServerError: saying which server is in trouble and what to do.
        """
        with self.home.lock("servers"):
            self.postgres.start()
            self.openbao.start()
            if kubernetes:
                self.kubernetes.start()

    def stop(self) -> None:
        """Stops all; their data stays."""
        with self.home.lock("servers"):
            self._stop()

    def reset(self) -> None:
        """Stops all and deletes all local data, state included."""
        with self.home.lock("servers"):
            self._stop()
        shutil.rmtree(self.home.path)

    def status(self) -> list[ServerStatus]:
        """How each is; Kubernetes only where it was ever started."""
        pg_port, bao_port = self.postgres.port, self.openbao.port
        found = [
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
        if self.kubernetes.ever_started:
            port = self.kubernetes.port
            address = f"https://{LOOPBACK}:{port}" if port else ""
            found.append(ServerStatus("Kubernetes", port is not None, address, str(self.kubernetes.kubeconfig)))
        return found

    def _stop(self) -> None:
        self.kubernetes.stop()
        self.openbao.stop()
        self.postgres.stop()
