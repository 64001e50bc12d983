"""The local servers together."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_plane.local.openbao import LocalOpenBao
from data_plane.local.processes import ADMIN_USER, LOOPBACK
from data_plane.state_dir import CHECKOUT, StateDir

if TYPE_CHECKING:
    from data_plane.local.guard import LocalGuard
    from data_plane.local.kubernetes.server import LocalKubernetes
    from data_plane.local.postgres import LocalPostgres
    from data_plane.local.relay import LocalRelay
    from data_plane.local.services import LocalServices

__all__ = ["ADMIN_USER", "LOOPBACK", "ServerStatus", "Servers"]


_NO_API = "nothing listens at SUPABASE_URL; `dataplane local start --services` starts what this machine has"


@dataclass(frozen=True)
class ServerStatus:
    """How a server is."""

    name: str
    running: bool
    address: str
    remark: str


class Servers:
    """The servers of one :class:`~data_plane.state_dir.StateDir`.

    Args:
        home: another one than the default.
        say: is told what takes long.
        root: the checkout whose central stack the services belong to.
    """

    def __init__(
        self,
        home: StateDir | None = None,
        say: Callable[[str], None] = lambda _text: None,
        root: Path = CHECKOUT,
    ) -> None:
        self.home = home or StateDir()
        self._root = root
        self.openbao = LocalOpenBao(self.home)
        self._say = say

    # A lease asks OpenBao alone, and is not to wait for what the others import.

    @cached_property
    def postgres(self) -> "LocalPostgres":
        """The database."""
        from data_plane.local.postgres import LocalPostgres  # noqa: PLC0415

        return LocalPostgres(self.home)

    @cached_property
    def guard(self) -> "LocalGuard":
        """What ends sessions beyond their limits."""
        from data_plane.local.guard import LocalGuard  # noqa: PLC0415

        return LocalGuard(self.home)

    @cached_property
    def relay(self) -> "LocalRelay":
        """What delivers users to projects' tables."""
        from data_plane.local.relay import LocalRelay  # noqa: PLC0415

        return LocalRelay(self.home)

    @cached_property
    def services(self) -> "LocalServices":
        """Supabase's services, and the gateway in front of them."""
        from data_plane.local.services import LocalServices  # noqa: PLC0415

        return LocalServices(self.home, self._root)

    @cached_property
    def kubernetes(self) -> "LocalKubernetes":
        """The control plane."""
        from data_plane.local.kubernetes.server import LocalKubernetes  # noqa: PLC0415

        return LocalKubernetes(self.home, self._say)

    def start(self, *, kubernetes: bool = False, services: bool = False, install_postgres_meta: bool = False) -> None:
        """Starts what is not running.

        Args:
            kubernetes: whether that includes the control plane, which most work does not need.
            services: whether that includes Supabase's services and the gateway.
            install_postgres_meta: whether to get postgres-meta from npm first, for the services.

        Raises:
            ServerError: saying which server is in trouble and what to do.
        """
        with self.home.lock("servers"):
            self.postgres.start()
            self.postgres.provide_extensions()
            self.guard.start()
            self.relay.start(self.postgres)
            self.openbao.start()
            if kubernetes:
                self.kubernetes.start()
            if install_postgres_meta:
                self.services.install_postgres_meta(self._say)
            if services:
                self.services.start()

    def stop(self) -> None:
        """Stops all; their data stays."""
        with self.home.lock("servers"):
            self._stop()

    @contextmanager
    def database_alone(self) -> Iterator[None]:
        """The database without what else uses it, which comes back afterwards if the database runs then."""
        services = self.services.pid is not None
        self.services.stop()
        self.relay.stop()
        self.guard.stop()
        try:
            yield
        finally:
            if self.postgres.port is not None:
                self.guard.start()
                self.relay.start(self.postgres)
                if services:
                    self.services.start()

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
        return [*found, *self._api_status()]

    def _api_status(self) -> list[ServerStatus]:
        settings = self.services.settings
        if settings is None:
            return []
        if self.services.pid is None:
            return [ServerStatus("API gateway", running=False, address=settings.url, remark=_NO_API)]
        gateway = ServerStatus("API gateway", running=True, address=settings.url, remark="SUPABASE_URL")
        return [gateway, *map(_service_status, self.services.services())]

    def _stop(self) -> None:
        self.services.stop()
        self.kubernetes.stop()
        self.openbao.stop()
        self.relay.stop()
        self.guard.stop()
        self.postgres.stop()


def _service_status(noted: dict[str, Any]) -> ServerStatus:
    """A service as the process that keeps it going noted it."""
    state = "" if noted["state"] == "running" else f"{noted['state']}: "
    return ServerStatus(noted["name"], noted["state"] == "running", noted["address"], f"{state}{noted['remark']}")
