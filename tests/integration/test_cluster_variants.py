"""The ways to run the stack that the full one does not take, on a real Kubernetes API.

No operator runs here: what is proved is that the API's server takes what the program declares, not that CloudNativePG
makes a database of it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from kubernetes.client import ApiClient, ApiException, CustomObjectsApi
from kubernetes.dynamic import DynamicClient

from data_plane.errors import RunFailedError
from data_plane.local.environment import LocalEnvironment
from tests.applying import apply, pods_get_ready, render_to
from tests.conftest import Cluster, NewLocalEnv, bring_up
from tests.support.cluster_stack import configure, give_secrets, on

AUTH = {"siteUrl": "https://app.example.org", "emailAutoconfirm": True}
S3_KEYS = dict.fromkeys(("STORAGE_S3_ACCESS_KEY_ID", "STORAGE_S3_SECRET_ACCESS_KEY"), "of-the-test")
BACKUP_KEYS = dict.fromkeys(("BACKUP_S3_ACCESS_KEY_ID", "BACKUP_S3_SECRET_ACCESS_KEY"), "of-the-test")
BACKUPS = {"bucket": "backups", "prefix": "test/central", "endpoint": "https://s3.example.org:9000"}
CLOUD_NATIVE_PG = ("postgresql.cnpg.io", "v1", "clusters")


@dataclass(frozen=True)
class Variant:
    """One way to run the stack."""

    settings: dict[str, Any]
    given: dict[str, str] = field(default_factory=dict)
    """What an owner has to put into OpenBao."""


VARIANTS = {
    "cloudnativepg": Variant(
        {
            "auth": AUTH,
            "storage": {"bucket": "files"},
            "database": {
                "mode": "cloudnativepg",
                "image": "registry.example.org/postgres:17",
                "instances": 3,
                "walStorage": "10Gi",
                "parameters": {"work_mem": "8MB"},
            },
            "backups": BACKUPS,
            "gateway": {
                "exposure": {
                    "type": "gateway-api",
                    "className": "istio",
                    "tlsSecret": "api-tls",
                    "clusterIssuer": "letsencrypt",
                    "controllerNamespace": "istio-system",
                }
            },
        },
        {**S3_KEYS, **BACKUP_KEYS},
    ),
    "external": Variant(
        {
            "auth": AUTH,
            "storage": {"backend": "file", "accessMode": "ReadWriteMany", "size": "5Gi", "storageClass": "standard"},
            "database": {"mode": "external", "serverCidrs": ["127.0.0.1/32"]},
            "pooler": {"enabled": False},
            "studio": {"enabled": False},
            "gateway": {
                "exposure": {
                    "type": "gateway-api",
                    "parentGateway": "infra/public",
                    "controllerNamespace": "istio-system",
                }
            },
        }
    ),
    "tls": Variant(
        {
            "auth": AUTH,
            "storage": {"backend": "file", "replicas": 1, "size": "5Gi"},
            "database": {"tlsSecret": "postgres-tls", "storage": "5Gi"},
            "backups": BACKUPS,
        },
        BACKUP_KEYS,
    ),
}


@dataclass
class Stack:
    """A variant that is up."""

    name: str
    local_env: LocalEnvironment
    cluster: Cluster
    manifests: Path
    created: int

    @property
    def namespace(self) -> str:
        return f"variant-{self.name}"

    def kind(self, api_version: str, kind: str) -> Any:
        client = DynamicClient(self.cluster.api)  # type: ignore[no-untyped-call]
        return client.resources.get(api_version=api_version, kind=kind)

    def objects(self, api_version: str, kind: str, suffix: str = "") -> dict[str, dict[str, Any]]:
        """Those of this stack in one of its namespaces, by name."""
        found = self.kind(api_version, kind).get(
            namespace=f"{self.namespace}{suffix}", label_selector="app.kubernetes.io/part-of=supabase"
        )
        return {item.metadata.name: item.to_dict() for item in found.items}


@pytest.fixture(scope="module", params=VARIANTS)
def stack(
    request: pytest.FixtureRequest,
    kubernetes_with_crds: Cluster,
    new_local_env: NewLocalEnv,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stack]:
    variant, cluster = VARIANTS[request.param], kubernetes_with_crds
    local_env, manifests = new_local_env({}), tmp_path_factory.mktemp("manifests")
    made = Stack(request.param, local_env, cluster, manifests, 0)
    configure(local_env, on(cluster, {**variant.settings, "namespace": made.namespace}))
    with pytest.MonkeyPatch.context() as patch:
        render_to(manifests, patch)
        if variant.given:
            with pytest.raises(RunFailedError, match=" has no value for:"):
                bring_up(local_env)
            give_secrets(local_env, variant.given)
        made.created = bring_up(local_env)[0].created or 0
        apply(cluster, manifests)
        yield made


def only(name: str) -> pytest.MarkDecorator:
    """For tests of one variant."""
    return pytest.mark.parametrize("stack", [name], indirect=True)


def test_all_of_it_is_accepted_and_gets_ready(stack: Stack) -> None:
    assert stack.created > 60
    assert pods_get_ready(stack.cluster, stack.namespace)
    deployments = stack.objects("apps/v1", "Deployment")
    assert {"supabase-auth", "supabase-gateway", "supabase-realtime", "supabase-rest", "supabase-storage"} <= {
        *deployments
    }
    for name, item in deployments.items():
        assert item["status"]["readyReplicas"] == item["spec"]["replicas"], name


def test_a_second_run_changes_nothing(stack: Stack) -> None:
    assert {(run.created, run.updated) for run in bring_up(stack.local_env)} == {(0, 0)}
    assert apply(stack.cluster, stack.manifests) == {}


def test_a_preview_finds_nothing_to_do(stack: Stack) -> None:
    assert {(run.created, run.updated) for run in bring_up(stack.local_env, preview=True)} == {(0, 0)}


def test_every_namespace_is_denied_all_by_default(stack: Stack) -> None:
    for suffix in ("", "-data"):
        policies = stack.kind("networking.k8s.io/v1", "NetworkPolicy")
        policy = policies.get(name="deny-by-default", namespace=f"{stack.namespace}{suffix}").to_dict()
        assert policy["spec"]["podSelector"] in ({}, None)
        assert sorted(policy["spec"]["policyTypes"]) == ["Egress", "Ingress"]
        assert not policy["spec"].get("ingress")


@only("cloudnativepg")
def test_the_operators_definitions_take_what_is_declared_for_them(stack: Stack) -> None:
    (cluster,) = stack.objects("postgresql.cnpg.io/v1", "Cluster", "-data").values()
    assert cluster["spec"]["instances"] == 3
    assert cluster["spec"]["walStorage"]["size"] == "10Gi"
    assert cluster["spec"]["postgresql"]["parameters"]["work_mem"] == "8MB"
    assert cluster["spec"]["managed"]["roles"][0]["passwordSecret"] == {"name": "supabase-database"}
    (plugin,) = cluster["spec"]["plugins"]
    assert plugin["isWALArchiver"] is True
    (store,) = stack.objects("barmancloud.cnpg.io/v1", "ObjectStore", "-data").values()
    assert plugin["parameters"]["barmanObjectName"] == store["metadata"]["name"]
    assert store["spec"]["configuration"]["destinationPath"] == "s3://backups/test/central"
    (schedule,) = stack.objects("postgresql.cnpg.io/v1", "ScheduledBackup", "-data").values()
    assert schedule["spec"]["cluster"] == {"name": cluster["metadata"]["name"]}
    assert schedule["spec"]["pluginConfiguration"]["name"] == plugin["name"]


@only("cloudnativepg")
def test_a_field_that_the_operator_does_not_know_would_have_been_refused(stack: Stack) -> None:
    group, version, plural = CLOUD_NATIVE_PG
    wrong = {"metadata": {"name": "wrong"}, "spec": {"instances": 0, "storage": {"size": "1Gi"}}}
    with pytest.raises(ApiException, match=r"spec\.instances"):
        CustomObjectsApi(ApiClient(stack.cluster.api.configuration)).create_namespaced_custom_object(
            group,
            version,
            f"{stack.namespace}-data",
            plural,
            {"apiVersion": f"{group}/{version}", "kind": "Cluster", **wrong},
            dry_run="All",
        )


@only("cloudnativepg")
def test_a_gateway_and_its_route_are_made(stack: Stack) -> None:
    api = "gateway.networking.k8s.io/v1"
    (gateway,) = stack.objects(api, "Gateway").values()
    (listener,) = gateway["spec"]["listeners"]
    assert (listener["hostname"], listener["protocol"]) == ("api.example.org", "HTTPS")
    (route,) = stack.objects(api, "HTTPRoute").values()
    assert [parent["name"] for parent in route["spec"]["parentRefs"]] == [gateway["metadata"]["name"]]


@only("external")
def test_nothing_is_made_for_a_database_that_is_somebody_elses(stack: Stack) -> None:
    for kind in ("StatefulSet", "Deployment"):
        assert stack.objects("apps/v1", kind, "-data") == {}
    for suffix in ("", "-data"):
        assert "supabase-database" not in stack.objects("networking.k8s.io/v1", "NetworkPolicy", suffix)
    rest = stack.objects("networking.k8s.io/v1", "NetworkPolicy")["supabase-rest"]
    assert [peer["ipBlock"]["cidr"] for rule in rest["spec"]["egress"] for peer in rule["to"]] == ["127.0.0.1/32"]


@only("external")
def test_what_is_off_is_not_there(stack: Stack) -> None:
    assert {*stack.objects("apps/v1", "Deployment")} == {
        f"supabase-{service}"
        for service in (
            "auth",
            "gateway",
            "guard",
            "imgproxy",
            "realtime",
            "relay",
            "rest",
            "rest-cell-cell-1",
            "storage",
        )
    }


@only("external")
def test_files_are_shared_by_all_replicas_of_storage(stack: Stack) -> None:
    (claim,) = stack.objects("v1", "PersistentVolumeClaim").values()
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert claim["status"]["phase"] == "Bound"
    assert stack.objects("apps/v1", "Deployment")["supabase-storage"]["spec"]["replicas"] == 2


@only("external")
def test_a_route_joins_a_gateway_that_is_there_already(stack: Stack) -> None:
    api = "gateway.networking.k8s.io/v1"
    assert stack.objects(api, "Gateway") == {}
    (route,) = stack.objects(api, "HTTPRoute").values()
    assert [(parent["namespace"], parent["name"]) for parent in route["spec"]["parentRefs"]] == [("infra", "public")]


@only("tls")
def test_the_database_serves_tls_and_ships_its_log(stack: Stack) -> None:
    assert pods_get_ready(stack.cluster, f"{stack.namespace}-data")
    (database,) = stack.objects("apps/v1", "StatefulSet", "-data").values()
    assert database["status"]["readyReplicas"] == 1
    pod = database["spec"]["template"]["spec"]
    assert "ssl=on" in pod["containers"][0]["args"]
    assert [volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume] == ["postgres-tls"]
    assert [item["name"] for item in pod["initContainers"] if item.get("restartPolicy") == "Always"] == ["wal-archiver"]
    jobs = stack.objects("batch/v1", "CronJob", "-data")
    assert {*jobs} == {"supabase-backups-physical", "supabase-backups-logical", "supabase-restore"}
    assert {name for name, job in jobs.items() if job["spec"]["suspend"]} == {"supabase-restore"}
