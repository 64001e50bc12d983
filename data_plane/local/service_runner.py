"""The process that serves the gateway of this machine and keeps the services behind it going.

It brings about what is rendered, again whenever that changes: a run of the central stack, a rotated secret, another
command. A service that ends is started again, after a pause that grows.
"""

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import psutil
import psycopg
import requests
import yaml
from hvac.exceptions import VaultError
from psycopg.types.json import Jsonb

from data_plane.clients.openbao import read_kv
from data_plane.errors import DataPlaneError, ServerError
from data_plane.local.gateway import Gateway, Routing
from data_plane.local.kong import KongRules
from data_plane.local.processes import LOOPBACK, is_free
from data_plane.local.rendered import Endpoint, LocalAddresses, Manifests, RenderedService
from data_plane.local.servers import Servers
from data_plane.local.service_commands import COMMAND_VARIABLES, find_commands, how_to_have, working_folder
from data_plane.local.services import STATE, ApiSettings
from data_plane.model.catalog import Service
from data_plane.model.cluster_names import JWKS_ENTRY, JWKS_SECRET, PORTS, service_name
from data_plane.model.naming import CONNECTORS_MOUNT, JWKS_PATH
from data_plane.state_dir import StateDir

_LOOK_SECONDS = 5
_SECRETS_SECONDS = 30
_POLL_SECONDS = 0.3
_READY_SECONDS = 120
_END_SECONDS = 10
_LONG_SECONDS = 60
_PAUSE_SECONDS = (1, 2, 5, 10, 30)
_PORTS = range(20000, 32000)
_PORT_TRIES = 1000
_MIB = 1 << 20
_PASSED_ON = ("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "TMPDIR", "TZ")
"""The variables of this machine that a service gets beside its settings."""
_GATEWAY = service_name(Service.GATEWAY)
_KONG_FILE = "kong.yml"


class ProcessSpec(NamedTuple):
    """What a service's process is started with; another one means a new start."""

    name: str
    command: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    folder: Path
    log: Path
    address: str
    ready: str | None
    """The URL that its readiness probe asks."""


@dataclass(frozen=True)
class Wanted:
    """What is to run."""

    processes: Mapping[str, ProcessSpec]
    lacking: Mapping[str, str]
    """Why other rendered services do not run, by name."""
    routing: Routing


class ServiceProcess:
    """One service's process, started again when it ends."""

    def __init__(self, spec: ProcessSpec) -> None:
        self.spec = spec
        self.state = "starting"
        self.remark = str(spec.log)
        self._process: asyncio.subprocess.Process | None = None
        self._task = asyncio.create_task(self._keep())

    def noted(self) -> dict[str, Any]:
        """It, for the state file."""
        found: dict[str, Any] = {
            "name": self.spec.name,
            "state": self.state,
            "address": self.spec.address,
            "remark": self.remark,
        }
        if self._process is not None and self._process.returncode is None:
            with suppress(psutil.Error):
                found |= {"pid": self._process.pid, "created": psutil.Process(self._process.pid).create_time()}
        return found

    async def end(self) -> None:
        """Ends it."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        process = self._process
        if process is None or process.returncode is not None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), _END_SECONDS)
                return

    async def _keep(self) -> None:
        failures = 0
        while True:
            began = time.monotonic()
            code = await self._run()
            failures = 0 if time.monotonic() - began > _LONG_SECONDS else failures + 1
            pause = _PAUSE_SECONDS[min(failures, len(_PAUSE_SECONDS)) - 1] if failures else 0
            self.state, self.remark = "ended", f"{code}; started again in {pause} s; see {self.spec.log}"
            _say(f"{self.spec.name} {code}; it is started again in {pause} s")
            await asyncio.sleep(pause)

    async def _run(self) -> str:
        """Runs it to its end and tells how that was."""
        try:
            with self.spec.log.open("ab") as log:
                self._process = await asyncio.create_subprocess_exec(
                    *self.spec.command,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self.spec.folder,
                    env=dict(self.spec.environment),
                    start_new_session=True,
                )
        except OSError as error:
            return f"cannot be started: {error.strerror}"
        ready = asyncio.create_task(self._wait_until_ready())
        try:
            code = await self._process.wait()
        finally:
            ready.cancel()
        return f"ended with code {code}"

    async def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as client:
            while not await self._answers(client):
                if time.monotonic() > deadline:
                    self.state, self.remark = "not ready", f"it does not answer; see {self.spec.log}"
                await asyncio.sleep(_POLL_SECONDS)
        self.state, self.remark = "running", str(self.spec.log)

    async def _answers(self, client: aiohttp.ClientSession) -> bool:
        if self.spec.ready is None:
            return True
        try:
            async with client.get(self.spec.ready) as answer:
                return answer.status < 400
        except (aiohttp.ClientError, TimeoutError):
            return False


class ServiceRunner:
    """Gateway and services of one state folder.

    Args:
        home: the folder.
        root: the checkout.
    """

    def __init__(self, home: StateDir, root: Path) -> None:
        self._home = home
        self._settings = ApiSettings.load(root, home)
        self._servers = Servers(home)
        self._ports: dict[Endpoint, int] = {}
        self._secrets: dict[str, Mapping[str, str]] = {}
        self._openbao_keys = ""
        self._secrets_at = float("-inf")
        self._published = ""
        self._running: dict[str, ServiceProcess] = {}
        self._noted: object = None
        self._looked: tuple[object, Wanted] | None = None

    async def run(self) -> None:
        """Runs until told to end."""
        ended = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, ended.set)
        looked, wanted = time.time(), await asyncio.to_thread(self._look)
        gateway = Gateway(wanted.routing)
        await gateway.start(LOOPBACK, self._settings.port)
        _say(f"the gateway listens at {self._settings.url}")
        try:
            while not ended.is_set():
                await self._bring_about(wanted)
                gateway.routing = wanted.routing
                until = time.monotonic() + _LOOK_SECONDS
                while time.monotonic() < until and not ended.is_set():
                    self._note(wanted, looked)
                    with suppress(TimeoutError):
                        await asyncio.wait_for(ended.wait(), _POLL_SECONDS)
                looked = time.time()
                try:
                    wanted = await asyncio.to_thread(self._look)
                except (DataPlaneError, OSError, VaultError, requests.RequestException) as error:
                    _say(f"what runs stays as it is: {error}")
        finally:
            await asyncio.gather(*(process.end() for process in self._running.values()))
            await gateway.stop()

    async def _bring_about(self, wanted: Wanted) -> None:
        old = [
            self._running.pop(name)
            for name, process in [*self._running.items()]
            if process.spec != wanted.processes.get(name)
        ]
        await asyncio.gather(*(process.end() for process in old))
        for name, spec in wanted.processes.items():
            if name not in self._running:
                self._running[name] = ServiceProcess(spec)

    def _look(self) -> Wanted:
        """What is to run by now."""
        self._read_secrets()
        commands = find_commands(self._home)
        mark = (Manifests.mark(self._settings.manifests), commands, self._secrets_at)
        if self._looked is None or self._looked[0] != mark:
            self._looked = (mark, self._plan(Manifests(self._settings.manifests), commands))
        return self._looked[1]

    def _plan(self, manifests: Manifests, commands: Mapping[Service, list[str]]) -> Wanted:
        addresses = LocalAddresses(self._servers.postgres.known_port, self._ports)
        for endpoint in manifests.endpoints():
            if endpoint not in self._ports:
                self._ports[endpoint] = self._free_port()
        processes: dict[str, ProcessSpec] = {}
        lacking: dict[str, str] = {}
        for service in manifests.services():
            command = commands.get(service.service)
            if command is not None:
                processes[service.name] = self._spec(service, command, manifests, addresses)
            elif service.service is not Service.GATEWAY:
                lacking[service.name] = how_to_have(service.service)
        self._publish(self._secret(manifests, JWKS_SECRET, JWKS_ENTRY))
        return Wanted(processes, lacking, self._routing(manifests, processes, lacking))

    def _spec(
        self, service: RenderedService, command: list[str], manifests: Manifests, addresses: LocalAddresses
    ) -> ProcessSpec:
        folder = self._home.path / "services" / service.name
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        settings = service.environment(lambda owner, entry: self._secret(manifests, owner, entry), addresses, folder)
        machine = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}

        def address(port: str) -> str:
            return f"http://{LOOPBACK}:{addresses.ports[Endpoint(service.manifest_name, service.ports[port])]}"

        path, port = service.readiness
        return ProcessSpec(
            service.name,
            tuple(command),
            tuple(sorted({**machine, **settings}.items())),
            working_folder(command, folder),
            folder.parent / f"{service.name}.log",
            address("http"),
            f"{address(port)}{path}" if port in service.ports else None,
        )

    def _routing(
        self, manifests: Manifests, processes: Mapping[str, ProcessSpec], lacking: Mapping[str, str]
    ) -> Routing:
        text = self._secret(manifests, _GATEWAY, _KONG_FILE)
        limit = manifests.variable(_GATEWAY, "KONG_NGINX_HTTP_CLIENT_MAX_BODY_SIZE")
        rules = KongRules(yaml.safe_load(text), body_limit=int(limit.removesuffix("m")) * _MIB)
        here: dict[str, str] = {}
        missing: dict[str, str] = {}
        for service in manifests.services():
            netloc = manifests.netloc(service.manifest_name, PORTS[service.service].get("http", 0))
            if service.name in processes:
                here[netloc] = processes[service.name].address.removeprefix("http://")
            elif service.name in lacking:
                missing[netloc] = f"{service.name} does not run here: {lacking[service.name]}"
        return Routing(rules, here, missing)

    def _secret(self, manifests: Manifests, name: str, entry: str) -> str:
        return manifests.secret(name, self._value, lambda: self._openbao_keys)[entry]

    def _value(self, path: str) -> Mapping[str, str]:
        if path not in self._secrets:
            self._secrets[path], _ = read_kv(self._servers.openbao.client(), CONNECTORS_MOUNT, path)
        return self._secrets[path]

    def _read_secrets(self) -> None:
        """Forgets the secrets now and then, so that they are read anew."""
        if time.monotonic() - self._secrets_at < _SECRETS_SECONDS:
            return
        answer = requests.get(f"{self._servers.openbao.address}{JWKS_PATH}", timeout=10)
        answer.raise_for_status()
        self._openbao_keys = answer.text
        self._secrets = {}
        self._secrets_at = time.monotonic()

    def _free_port(self) -> int:
        """A port that no connection is given by the kernel; the next one is free, too, which postgres-meta takes."""
        taken = set(self._ports.values())
        candidates = (random.randrange(_PORTS.start, _PORTS.stop, 2) for _ in range(_PORT_TRIES))  # noqa: S311 no secret
        for port in candidates:
            if port not in taken and is_free(port) and is_free(port + 1):
                return port
        raise ServerError(f"no port from {_PORTS.start} to {_PORTS.stop} is free on {LOOPBACK}.")

    def _publish(self, keys: str) -> None:
        """Brings the verifying keys into the database, as a job does on a cluster."""
        if keys == self._published:
            return
        try:
            with self._servers.postgres.connect() as connection:
                connection.execute("select data_plane.publish_keys(%s)", [Jsonb(yaml.safe_load(keys))])
            self._published = keys
        except psycopg.Error as error:
            _say(f"the verifying keys could not be published: {error}")

    def _note(self, wanted: Wanted, looked: float) -> None:
        services = [self._running[name].noted() for name in sorted(self._running)]
        # Of those that do not run, the ones that a command could be named for.
        known = {str(service) for service in COMMAND_VARIABLES}
        services += [
            {"name": name, "state": "not here", "address": "", "remark": why}
            for name, why in sorted(wanted.lacking.items())
            if name.partition("-")[0] in known
        ]
        if (services, looked) != self._noted:
            self._home.write_json(STATE, {"looked": looked, "services": services})
            self._noted = (services, looked)


def _say(text: str) -> None:
    print(time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), text, flush=True)  # noqa: T201 its log


if __name__ == "__main__":
    try:
        asyncio.run(ServiceRunner(StateDir(Path(sys.argv[1])), Path(sys.argv[2])).run())
    except DataPlaneError as failed:
        _say(str(failed))
        sys.exit(1)
