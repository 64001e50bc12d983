"""Supabase's services on this machine, and the gateway in front of them.

``dataplane local start --services`` starts one process (:mod:`data_plane.local.service_runner`) that serves the gateway
and keeps the services going: those whose command this machine has, each with the settings rendered for a cluster.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from data_plane.engine.stack_files import has_settings, load_config
from data_plane.errors import ServerError
from data_plane.local.background import BackgroundProcess
from data_plane.local.processes import LOOPBACK, is_free, tail, wait_until
from data_plane.local.service_commands import install_postgres_meta, note_commands
from data_plane.state_dir import CHECKOUT, SOURCES, StateDir, has_checkout

__all__ = ["API_STACK", "STATE", "ApiSettings", "LocalServices"]

API_STACK = "local-central"
STATE = "services-state.json"
"""What runs, as the process notes it."""
_START_SECONDS = 60
_READY_SECONDS = 60
_END_SECONDS = 10
_LOCAL_HOSTS = {LOOPBACK, "localhost"}


@dataclass(frozen=True)
class ApiSettings:
    """What the central stack's file says of the API on this machine."""

    url: str
    manifests: Path
    """The folder that the services are rendered to."""

    @classmethod
    def load(cls, root: Path, home: StateDir) -> "ApiSettings":
        """The settings of a checkout, whose services are rendered into a state folder.

        Raises:
            ServerError: if the stack renders no services.
        """
        values = {key.rpartition(":")[2]: value for key, value in load_config(root, API_STACK, {}, {}).values.items()}
        folder = json.loads(values.get("kubernetes") or "{}").get("renderTo")
        if folder is None:
            raise ServerError(
                f"stacks/Pulumi.{API_STACK}.yaml renders no services: `kubernetes.renderTo` has to name a folder."
            )
        return cls(values["apiUrl"], home.path / folder)

    @property
    def port(self) -> int:
        """The port that the gateway listens on.

        Raises:
            ServerError: if the URL is not one of this machine.
        """
        parts = urlsplit(self.url)
        if parts.scheme != "http" or parts.hostname not in _LOCAL_HOSTS or parts.path.strip("/"):
            raise ServerError(
                f"apiUrl in stacks/Pulumi.{API_STACK}.yaml is {self.url!r}; "
                f"the gateway of this machine needs one such as http://{LOOPBACK}:8000."
            )
        return parts.port or 80


class LocalServices(BackgroundProcess):
    """The services of one :class:`~data_plane.state_dir.StateDir`.

    Args:
        home: the folder.
        root: the checkout whose central stack they belong to.
    """

    kind = "services"
    program = Path(sys.executable).name

    def __init__(self, home: StateDir, root: Path = CHECKOUT) -> None:
        super().__init__(home)
        self.root = root

    @property
    def settings(self) -> ApiSettings | None:
        """The API's settings; None where there is no stack that has any."""
        if not has_checkout() or not has_settings(self.root, API_STACK):
            return None
        try:
            return ApiSettings.load(self.root, self.home)
        except ServerError:
            return None

    def install_postgres_meta(self, say: Callable[[str], None]) -> None:
        """Gets postgres-meta from npm in the version that is rendered, unless it is there.

        Raises:
            ServerError: if it cannot be had, or nothing is rendered.
        """
        from data_plane.local.rendered import Manifests  # noqa: PLC0415

        manifests = Manifests(ApiSettings.load(self.root, self.home).manifests)
        images = [service.image for service in manifests.services() if service.name == "meta"]
        if not images:
            raise ServerError(
                f"stacks/Pulumi.{API_STACK}.yaml has no postgres-meta: `kubernetes.studio.enabled` is false."
            )
        install_postgres_meta(self.home, images[0].partition("@")[0].rpartition(":")[2].removeprefix("v"), say)

    def start(self) -> None:
        """Starts the process if it does not run, and waits until each service is ready or has failed.

        Raises:
            ServerError: if the gateway cannot start.
        """
        from data_plane.local.rendered import Manifests  # noqa: PLC0415

        settings = ApiSettings.load(self.root, self.home)
        Manifests(settings.manifests)
        note_commands(self.home)
        asked = time.time()
        if self.pid is None:
            self._end_children()
            (self.home.path / STATE).unlink(missing_ok=True)
            if not is_free(settings.port):
                raise ServerError(
                    f"port {settings.port} on {LOOPBACK}, where SUPABASE_URL is, is taken by another program. Stop "
                    f"that program, or change apiUrl in stacks/Pulumi.{API_STACK}.yaml and run `dataplane up`."
                )
            module = "data_plane.local.service_runner"
            command = [sys.executable, "-P", "-m", module, str(self.home.path), str(self.root)]
            self._begin(command, {**os.environ, "PYTHONPATH": str(SOURCES)})
        log = self.home.path / f"{self.kind}.log"
        if not wait_until(lambda: self.pid is None or bool(self._state()), _START_SECONDS) or self.pid is None:
            raise ServerError(f"the gateway did not start; the end of {log}:\n{tail(log)}")
        wait_until(lambda: self.pid is None or self._settled(asked), _READY_SECONDS, poll_seconds=0.2)

    def stop(self) -> None:
        """Ends the process and every service, also those whose process was killed."""
        super().stop()
        self._end_children()
        (self.home.path / STATE).unlink(missing_ok=True)

    def services(self) -> list[dict[str, Any]]:
        """Each service as the process noted it: ``name``, ``state``, ``address``, ``remark``."""
        return list(self._state().get("services", ())) if self.pid is not None else []

    def _state(self) -> dict[str, Any]:
        return dict(self.home.read_json(STATE) or {})

    def _settled(self, asked: float) -> bool:
        """Whether the process has looked at what it is to run, and nothing is about to start."""
        state = self._state()
        looked = bool(state) and state["looked"] >= asked
        return looked and all(item["state"] != "starting" for item in state["services"])

    def _end_children(self) -> None:
        """Ends services that outlived the process that started them."""
        left = [child for item in self._state().get("services", ()) if (child := _child(item)) is not None]
        for number in (signal.SIGTERM, signal.SIGKILL):
            for child in left:
                with suppress(ProcessLookupError, psutil.NoSuchProcess):
                    if child.is_running():
                        os.killpg(child.pid, number)
            _, left = psutil.wait_procs(left, timeout=_END_SECONDS)


def _child(item: dict[str, Any]) -> psutil.Process | None:
    """The process of a noted service, if it is still that one."""
    try:
        process = psutil.Process(item["pid"])
        same = abs(process.create_time() - item["created"]) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, KeyError, TypeError):
        return None
    return process if same else None
