"""The control plane's processes: kept between runs, like the other local servers.

Data, keys and logs are in ``kubernetes/`` of the private folder. Every connection is authenticated: etcd knows only
the API server, by an authority of their own, and nothing listens anywhere but on the loopback address.
"""

import base64
import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import requests

from data_plane.errors import ServerError
from data_plane.local.kubernetes.certificates import Authority, Pair, signing_key
from data_plane.local.kubernetes.programs import STAGES, build_programs
from data_plane.local.processes import LOOPBACK, is_process, port_for, stop_process, tail, wait_until
from data_plane.state_dir import StateDir

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

__all__ = ["LocalKubernetes"]

_FOLDER = "kubernetes"
_STATE = "kubernetes.json"
_KUBECONFIG = "kubeconfig"
_START_SECONDS = 120
_STOP_SECONDS = 60
_SERVICES = "10.96.0.0/16"
_FIRST_SERVICE = "10.96.0.1"
_ISSUER = "https://kubernetes.default.svc.cluster.local"
_MASTERS = "system:masters"
_NEVER_STARTED = "the local Kubernetes was never started: run `dataplane local start --kubernetes`."


class LocalKubernetes:
    """The local Kubernetes of one :class:`~data_plane.state_dir.StateDir`.

    Args:
        home: where it is kept.
        say: is told what takes long.
    """

    def __init__(self, home: StateDir, say: Callable[[str], None] = lambda _text: None) -> None:
        self.home = home
        self._folder = home.path / _FOLDER
        self._say = say

    @property
    def ever_started(self) -> bool:
        """Whether there is a control plane in this home at all."""
        return (self.home.path / _KUBECONFIG).exists()

    @property
    def port(self) -> int | None:
        """The port of the running API server, or None."""
        known = self.home.read_json(_STATE)
        return (
            int(known["port"]) if known and is_process(int(known["pids"]["kube-apiserver"]), "kube-apiserver") else None
        )

    @property
    def address(self) -> str:
        """The URL of the running API server.

        Raises:
            ServerError: if it is not running.
        """
        port = self.port
        if port is None and not self.ever_started:
            raise ServerError(_NEVER_STARTED)
        if port is None:
            raise ServerError("the local Kubernetes is not running: run `dataplane local start --kubernetes`.")
        return f"https://{LOOPBACK}:{port}"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig.

        Raises:
            ServerError: if the control plane was never started.
        """
        path = self.home.path / _KUBECONFIG
        if not path.exists():
            raise ServerError(_NEVER_STARTED)
        return path

    @property
    def programs(self) -> Path:
        """The folder with the control plane's programs, and ``kubectl``.

        Raises:
            ServerError: if they cannot be built here.
        """
        return build_programs(self._say)

    def client(self) -> "ApiClient":
        """A client as the administrator; the caller closes it."""
        from kubernetes.config import new_client_from_config  # noqa: PLC0415 most machines have no cluster

        made: ApiClient = new_client_from_config(str(self.kubeconfig))  # type: ignore[no-untyped-call]
        return made

    def start(self) -> int:
        """Starts what is not running, waits until it works, and gives the API server's port.

        Raises:
            ServerError: with the end of the log of what did not start. What did is stopped again.
        """
        self.home.prepare()
        programs = self.programs
        try:
            return self._start(programs)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stops what is running; all data stays."""
        known = self.home.read_json(_STATE)
        if not known:
            return
        for name, pid in reversed(known["pids"].items()):
            self._stop(name, int(pid))
        (self.home.path / _STATE).unlink(missing_ok=True)

    def _start(self, programs: Path) -> int:
        pids: dict[str, int] = (self.home.read_json(_STATE) or {"pids": {}})["pids"]
        pids = {name: pid for name, pid in pids.items() if is_process(pid, name)}
        port = self._port("kubernetes", running="kube-apiserver" in pids)
        etcd_ports = [self._port(server, running="etcd" in pids) for server in ("etcd", "etcd_peer")]
        keys = _Keys(self.home, port)
        commands = _commands(keys, self._folder, port, *etcd_ports)
        commands["kwok"]["config"] = str(programs / STAGES)
        for name, arguments in commands.items():
            if name not in pids:
                pids[name] = self._launch(programs / name, arguments)
                # In the order of a start, in which they are stopped backwards.
                ordered = {known: pids[known] for known in commands if known in pids}
                self.home.write_private(_STATE, json.dumps({"port": port, "pids": ordered}))
            if name == "kube-apiserver":
                self._wait(lambda: _answers(keys, port, "/readyz"), pids)
        # The controllers work once they have given the first namespace its service account.
        self._wait(lambda: _answers(keys, port, "/api/v1/namespaces/default/serviceaccounts/default"), pids)
        return port

    def _port(self, server: str, *, running: bool) -> int:
        if running:
            return int(self.home.read_json("ports.json")[server])
        return port_for(server, self.home)

    def _launch(self, program: Path, options: Mapping[str, str]) -> int:
        with self._log(program.name).open("ab") as log:
            process = subprocess.Popen(
                [program, *(f"--{key}={value}" for key, value in options.items())],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return process.pid

    def _wait(self, ready: Callable[[], bool], pids: Mapping[str, int]) -> None:
        def ended_or_ready() -> bool:
            for name, pid in pids.items():
                if not is_process(pid, name):
                    raise ServerError(f"{name} did not start; the end of {self._log(name)}:\n{tail(self._log(name))}")
            return ready()

        if not wait_until(ended_or_ready, _START_SECONDS):
            last = list(pids)[-1]
            raise ServerError(
                f"Kubernetes does not work {_START_SECONDS} s after its start; "
                f"the end of {self._log(last)}:\n{tail(self._log(last))}"
            )

    def _stop(self, name: str, pid: int) -> None:
        if is_process(pid, name):
            stop_process(pid, lambda: is_process(pid, name), name, _STOP_SECONDS)

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"


def _commands(keys: "_Keys", folder: Path, port: int, etcd_port: int, peer_port: int) -> dict[str, dict[str, str]]:
    """Each program's options, in the order in which they have to start."""
    etcd, peers = (f"https://{LOOPBACK}:{number}" for number in (etcd_port, peer_port))
    etcd_authority, etcd_certificate, etcd_key = (
        str(keys.etcd_authority.path),
        keys.file("etcd.crt"),
        keys.file("etcd.key"),
    )
    return {
        "etcd": {
            "name": "embedded",
            "data-dir": str(folder / "etcd"),
            "listen-client-urls": etcd,
            "advertise-client-urls": etcd,
            "listen-peer-urls": peers,
            "initial-advertise-peer-urls": peers,
            "initial-cluster": f"embedded={peers}",
            "client-cert-auth": "true",
            "trusted-ca-file": etcd_authority,
            "cert-file": etcd_certificate,
            "key-file": etcd_key,
            "peer-client-cert-auth": "true",
            "peer-trusted-ca-file": etcd_authority,
            "peer-cert-file": etcd_certificate,
            "peer-key-file": etcd_key,
            "log-level": "warn",
        },
        "kube-apiserver": {
            "advertise-address": LOOPBACK,
            "allow-privileged": "true",
            "authorization-mode": "Node,RBAC",
            "bind-address": LOOPBACK,
            "client-ca-file": str(keys.authority.path),
            # The service `kubernetes` may not have an endpoint on the loopback address.
            "endpoint-reconciler-type": "none",
            "etcd-cafile": etcd_authority,
            "etcd-certfile": keys.file("etcd-client.crt"),
            "etcd-keyfile": keys.file("etcd-client.key"),
            "etcd-servers": etcd,
            "profiling": "false",
            "secure-port": str(port),
            "service-account-issuer": _ISSUER,
            "service-account-key-file": keys.file("service-account.key"),
            "service-account-signing-key-file": keys.file("service-account.key"),
            "service-cluster-ip-range": _SERVICES,
            "tls-cert-file": keys.file("apiserver.crt"),
            "tls-private-key-file": keys.file("apiserver.key"),
        },
        "kube-controller-manager": {
            "kubeconfig": keys.kubeconfig("controller-manager", "system:kube-controller-manager"),
            "leader-elect": "false",
            "profiling": "false",
            "root-ca-file": str(keys.authority.path),
            "secure-port": "0",
            "service-account-private-key-file": keys.file("service-account.key"),
            "use-service-account-credentials": "true",
        },
        "kube-scheduler": {
            "kubeconfig": keys.kubeconfig("scheduler", "system:kube-scheduler"),
            "leader-elect": "false",
            "profiling": "false",
            "secure-port": "0",
        },
        "kwok": {
            "kubeconfig": keys.kubeconfig("kwok", "kwok", _MASTERS),
            "manage-all-nodes": "true",
            "node-lease-duration-seconds": "40",
        },
    }


class _Keys:
    """Keys, certificates and kubeconfigs. Authorities and the token key are kept; the rest is new at each start."""

    def __init__(self, home: StateDir, port: int) -> None:
        self._home = home
        self._server = f"https://{LOOPBACK}:{port}"
        self.authority = Authority(home, f"{_FOLDER}/pki", "ca")
        self.etcd_authority = Authority(home, f"{_FOLDER}/pki", "etcd-ca")
        if not Path(self.file("service-account.key")).exists():
            self._write("service-account.key", signing_key())
        here = (LOOPBACK, "localhost")
        names = [f"kubernetes{suffix}" for suffix in ("", ".default", ".default.svc", ".default.svc.cluster.local")]
        self._write_pair("apiserver", self.authority.issue("kube-apiserver", hosts=[*here, *names, _FIRST_SERVICE]))
        self._write_pair("etcd", self.etcd_authority.issue("etcd", hosts=here))
        self._write_pair("etcd-client", self.etcd_authority.issue("kube-apiserver"))
        self._write_pair("admin", self.authority.issue("embedded-admin", _MASTERS))
        admin = Pair(*(Path(self.file(f"admin.{end}")).read_text(encoding="utf-8") for end in ("crt", "key")))
        home.write_private(_KUBECONFIG, self._kubeconfig("embedded-admin", admin))

    def file(self, name: str) -> str:
        """The path of a key or certificate."""
        return str(self._home.path / _FOLDER / "pki" / name)

    def kubeconfig(self, name: str, user: str, group: str | None = None) -> str:
        """The path of a kubeconfig, made for one of the programs."""
        text = self._kubeconfig(user, self.authority.issue(user, group))
        return str(self._home.write_private(f"{_FOLDER}/pki/{name}.kubeconfig", text))

    def _kubeconfig(self, user: str, pair: Pair) -> str:
        def encoded(text: str) -> str:
            return base64.b64encode(text.encode()).decode()

        cluster = {"server": self._server, "certificate-authority-data": encoded(self.authority.pem)}
        login = {"client-certificate-data": encoded(pair.certificate), "client-key-data": encoded(pair.key)}
        name = "embedded"
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": cluster}],
            "users": [{"name": user, "user": login}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": user}}],
            "current-context": name,
        }
        return json.dumps(document, indent=2) + "\n"

    def _write(self, name: str, text: str) -> None:
        self._home.write_private(f"{_FOLDER}/pki/{name}", text)

    def _write_pair(self, name: str, pair: Pair) -> None:
        self._write(f"{name}.crt", pair.certificate)
        self._write(f"{name}.key", pair.key)


def _answers(keys: _Keys, port: int, path: str) -> bool:
    try:
        answer = requests.get(
            f"https://{LOOPBACK}:{port}{path}",
            cert=(keys.file("admin.crt"), keys.file("admin.key")),
            verify=str(keys.authority.path),
            timeout=5,
        )
    except requests.RequestException:
        return False
    return answer.ok
