"""The local Kubernetes: a real control plane, with its authorisation, admission and controllers."""

import json
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kubernetes.client import ApiClient, AppsV1Api, AuthenticationV1Api, BatchV1Api, Configuration, CoreV1Api
from kubernetes.client.exceptions import ApiException

from data_plane.errors import ServerError
from data_plane.local.guard import LocalGuard
from data_plane.local.kubernetes.crds import install_crds
from data_plane.local.kubernetes.programs import PROGRAMS, build_programs, why_unavailable
from data_plane.local.kubernetes.server import LocalKubernetes
from data_plane.local.openbao import LocalOpenBao
from data_plane.local.postgres import LocalPostgres
from data_plane.local.processes import is_free, is_process, wait_until
from data_plane.local.relay import LocalRelay
from data_plane.local.servers import Servers
from data_plane.state_dir import StateDir
from tests.conftest import Cluster

CONTAINER = {"name": "main", "image": "example.org/nothing:1"}
SECONDS = 180


def workload(name: str, **spec: Any) -> Any:
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [CONTAINER]}}
    return {"metadata": {"name": name}, "spec": {"selector": {"matchLabels": labels}, "template": template, **spec}}


def eventually(true: Callable[[], Any]) -> bool:
    return wait_until(lambda: bool(true()), SECONDS)


def token_of(kubernetes: Cluster, namespace: str, audiences: list[str] | None = None) -> str:
    spec = {"expirationSeconds": 600, **({"audiences": audiences} if audiences else {})}
    asked: Any = {"spec": spec}
    response = CoreV1Api(kubernetes.api).create_namespaced_service_account_token("default", namespace, asked)
    assert response.status is not None
    return str(response.status.token)


def test_the_kubeconfig_is_for_its_owner_alone_and_holds_all_it_needs(kubernetes: Cluster) -> None:
    assert stat.S_IMODE(kubernetes.kubeconfig.stat().st_mode) == 0o600
    for path in (kubernetes.server.home.path / "kubernetes" / "pki").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    done = subprocess.run(
        [kubernetes.kubectl, "--kubeconfig", kubernetes.kubeconfig, "auth", "whoami", "-o", "json"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "system:masters" in json.loads(done.stdout)["status"]["userInfo"]["groups"]


def test_nothing_answers_but_on_the_loopback_address(kubernetes: Cluster) -> None:
    listening = [line.split() for line in Path("/proc/net/tcp").read_text(encoding="utf-8").splitlines()[1:]]
    ports: dict[str, int] = kubernetes.server.home.read_json("ports.json")
    addresses = {
        address
        for fields in listening
        for address, _, port in [fields[1].partition(":")]
        if fields[3] == "0A" and int(port, 16) in ports.values()
    }
    assert addresses == {"0100007F"}
    everywhere = Path("/proc/net/tcp6").read_text(encoding="utf-8")
    assert not [port for port in ports.values() if f":{port:04X} " in everywhere.partition("\n")[2]]


def test_a_service_accounts_token_is_issued_and_reviewed(kubernetes: Cluster) -> None:
    namespace = kubernetes.namespace()
    token = token_of(kubernetes, namespace, ["openbao"])
    asked: Any = {"spec": {"token": token, "audiences": ["openbao"]}}
    response = AuthenticationV1Api(kubernetes.api).create_token_review(asked).status
    assert response is not None
    assert response.authenticated
    assert response.user is not None
    assert response.user.username == f"system:serviceaccount:{namespace}:default"
    other: Any = {"spec": {"token": token, "audiences": ["somebody-else"]}}
    refused = AuthenticationV1Api(kubernetes.api).create_token_review(other).status
    assert refused is not None
    assert not refused.authenticated


def test_a_service_account_has_no_right_that_it_was_not_given(kubernetes: Cluster) -> None:
    namespace = kubernetes.namespace()
    configuration = Configuration()
    configuration.host = kubernetes.api.configuration.host
    configuration.ssl_ca_cert = kubernetes.api.configuration.ssl_ca_cert
    configuration.api_key["BearerToken"] = f"Bearer {token_of(kubernetes, namespace)}"
    with ApiClient(configuration) as mine, pytest.raises(ApiException) as caught:
        CoreV1Api(mine).list_namespaced_secret(namespace)
    assert caught.value.status == 403
    assert "cannot list resource" in str(caught.value.body)


def test_a_pod_that_breaks_the_restricted_level_is_refused_where_it_is_enforced(kubernetes: Cluster) -> None:
    pod: Any = {"metadata": {"name": "plain"}, "spec": {"containers": [CONTAINER]}}
    free = kubernetes.namespace()
    CoreV1Api(kubernetes.api).create_namespaced_pod(free, pod)
    strict = kubernetes.namespace({"pod-security.kubernetes.io/enforce": "restricted"})
    with pytest.raises(ApiException, match="violates PodSecurity") as caught:
        CoreV1Api(kubernetes.api).create_namespaced_pod(strict, pod)
    assert caught.value.status == 403


def test_workloads_get_ready_and_claims_get_volumes(kubernetes: Cluster) -> None:
    namespace = kubernetes.namespace()
    apps = AppsV1Api(kubernetes.api)
    claim = {
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    apps.create_namespaced_deployment(namespace, workload("web", replicas=2))
    apps.create_namespaced_stateful_set(namespace, workload("db", serviceName="db", volumeClaimTemplates=[claim]))
    pod = {"restartPolicy": "Never", "containers": [CONTAINER]}
    job: Any = {"metadata": {"name": "once"}, "spec": {"template": {"spec": pod}}}
    BatchV1Api(kubernetes.api).create_namespaced_job(namespace, job)

    def ready(document: Any) -> int:
        return (document.status and document.status.ready_replicas) or 0

    assert eventually(lambda: ready(apps.read_namespaced_deployment("web", namespace)) == 2)
    assert eventually(lambda: ready(apps.read_namespaced_stateful_set("db", namespace)) == 1)
    done: Any = lambda: BatchV1Api(kubernetes.api).read_namespaced_job("once", namespace).status  # noqa: E731
    assert eventually(lambda: done().succeeded == 1)


def test_the_operators_definitions_can_be_installed_again_and_again(kubernetes_with_crds: Cluster) -> None:
    names = set(install_crds(kubernetes_with_crds.api, ["external-secrets"]))
    assert {"clustersecretstores.external-secrets.io", "externalsecrets.external-secrets.io"} <= names
    done = subprocess.run(
        [
            kubernetes_with_crds.kubectl,
            "--kubeconfig",
            kubernetes_with_crds.kubeconfig,
            "get",
            "clusters.postgresql.cnpg.io,externalsecrets,httproutes,servicemonitors",
            "-A",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_stopping_leaves_no_process_and_starting_finds_the_data_again(tmp_path: Path) -> None:
    if (reason := why_unavailable()) is not None:
        pytest.skip(reason)
    server = LocalKubernetes(StateDir(tmp_path))
    try:
        port = server.start()
        with server.client() as api:
            CoreV1Api(api).create_namespaced_config_map("default", {"metadata": {"name": "kept"}})  # type: ignore[arg-type]
        pids: dict[str, int] = server.home.read_json("kubernetes.json")["pids"]
        assert set(pids) == set(PROGRAMS) - {"kubectl"}
        assert server.start() == port
        assert server.home.read_json("kubernetes.json")["pids"] == pids, "started twice"
        server.stop()
        assert not [name for name, pid in pids.items() if is_process(pid, name)]
        assert is_free(port)
        assert server.port is None
        server.stop()
        assert server.start() == port
        with server.client() as api:
            assert CoreV1Api(api).read_namespaced_config_map("kept", "default").metadata is not None
    finally:
        server.stop()


def test_a_program_that_does_not_start_is_named_and_nothing_stays_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if (reason := why_unavailable()) is not None:
        pytest.skip(reason)
    programs = tmp_path / "programs"
    programs.mkdir()
    for path in build_programs(print).iterdir():
        (programs / path.name).symlink_to(path)
    (programs / "kube-apiserver").unlink()
    (programs / "kube-apiserver").write_text("#!/bin/sh\necho no such flag\nexit 1\n", encoding="utf-8")
    (programs / "kube-apiserver").chmod(0o700)
    monkeypatch.setattr(LocalKubernetes, "programs", programs)
    server = LocalKubernetes(StateDir(tmp_path / "home"))
    with pytest.raises(ServerError, match=r"(?s)kube-apiserver did not start; the end of .*no such flag"):
        server.start()
    ports: dict[str, int] = server.home.read_json("ports.json")
    assert all(is_free(port) for port in ports.values())


def test_kubernetes_is_neither_started_nor_shown_unless_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []
    for server in (LocalPostgres, LocalOpenBao, LocalKubernetes):
        monkeypatch.setattr(server, "start", lambda self: started.append(type(self).__name__))
    monkeypatch.setattr(LocalPostgres, "provide_extensions", lambda *_: None)
    monkeypatch.setattr(LocalGuard, "start", lambda *_: None)
    monkeypatch.setattr(LocalRelay, "start", lambda *_: None)
    servers = Servers(StateDir(tmp_path))
    servers.start()
    assert started == ["LocalPostgres", "LocalOpenBao"]
    assert "Kubernetes" not in {item.name for item in servers.status()}
    with pytest.raises(ServerError, match=r"never started: run `dataplane local start --kubernetes`"):
        _ = servers.kubernetes.kubeconfig
    servers.start(kubernetes=True)
    assert started[2:] == ["LocalPostgres", "LocalOpenBao", "LocalKubernetes"]
