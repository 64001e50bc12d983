"""The whole stack on a real Kubernetes API, with the operators' kinds defined and Pod Security enforced.

What the program renders is applied by server-side apply, as the Kubernetes provider does.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hvac
import psycopg
import pytest
from hvac.exceptions import Forbidden
from kubernetes.client import (
    ApiClient,
    ApiException,
    AuthorizationV1Api,
    CoreV1Api,
    CustomObjectsApi,
    RbacAuthorizationV1Api,
)
from kubernetes.dynamic import DynamicClient

from data_plane.connector.bindings import LocalDataPlane
from data_plane.connector.leases import LeaseClient
from data_plane.connector.sign_in import KubernetesCredentials, WorkloadSignIn
from data_plane.engine.engines import EngineRun
from data_plane.errors import LeaseError, RunFailedError, SignInError
from data_plane.local.environment import LocalEnvironment
from data_plane.local.processes import wait_until
from data_plane.model.catalog import Service
from data_plane.model.naming import AccessLevel
from tests.applying import apply, pods_get_ready, render_to
from tests.conftest import ALPHA, Cluster, NewLocalEnv, bring_up
from tests.support.cluster_stack import configure, give_secrets, on

NAMESPACE = "central"
SHOP = "shop"
"""Where the workloads of the project run."""
WORKLOADS = """\
workloads:
  api: {level: service_role, kubernetes: {namespace: shop, service_account: api}}
  reader: {level: anon, kubernetes: {namespace: shop, service_account: reader}}
"""

FULL: dict[str, Any] = {
    "namespace": NAMESPACE,
    "openbao": {"inCluster": False},
    "database": {"storage": "10Gi", "clientNamespaces": ["openbao"], "storageClass": "standard"},
    "auth": {
        "siteUrl": "https://app.example.org",
        "smtp": {"host": "smtp.example.org", "user": "mailer", "adminEmail": "post@example.org"},
        "secrets": ["GOTRUE_EXTERNAL_GITHUB_SECRET"],
        "settings": {"GOTRUE_EXTERNAL_GITHUB_ENABLED": "true"},
    },
    "storage": {"bucket": "files", "endpoint": "https://s3.example.org:9000", "forcePathStyle": True},
    "functions": {"enabled": True, "claim": "functions"},
    "analytics": {"enabled": True},
    "logs": {"enabled": True},
    "serviceMonitors": True,
    "backups": {
        "bucket": "backups",
        "prefix": "central",
        "endpoint": "https://s3.example.org:9000",
        "forcePathStyle": True,
    },
    "gateway": {
        "exposure": {
            "type": "ingress",
            "className": "nginx",
            "tlsSecret": "api-tls",
            "clusterIssuer": "letsencrypt",
            "controllerNamespace": "ingress-nginx",
        }
    },
}
GIVEN = {
    "GOTRUE_SMTP_PASS": "mail-password-of-the-test",
    "GOTRUE_EXTERNAL_GITHUB_SECRET": "github-secret-of-the-test",
    "STORAGE_S3_ACCESS_KEY_ID": "object-store-key-of-the-test",
    "STORAGE_S3_SECRET_ACCESS_KEY": "object-store-secret-of-the-test",
    "BACKUP_S3_ACCESS_KEY_ID": "backup-store-key-of-the-test",
    "BACKUP_S3_SECRET_ACCESS_KEY": "backup-store-secret-of-the-test",
}


def give_claim(cluster: Cluster) -> None:
    """The volume with the functions' code, which is no part of the stack."""
    core = CoreV1Api(cluster.api)
    claim = {
        "metadata": {"name": "functions"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "standard",
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
    core.create_namespaced_persistent_volume_claim(NAMESPACE, claim)  # type: ignore[arg-type]


@dataclass
class Stack:
    local_env: LocalEnvironment
    cluster: Cluster
    first: EngineRun
    refusal: str
    """What the run before it said, when values were missing."""
    manifests: Path

    def up(self) -> dict[str, dict[str, Any]]:
        """Brings the stack up, and gives what that changed on the cluster."""
        bring_up(self.local_env)
        return apply(self.cluster, self.manifests)

    def objects(self, api_version: str, kind: str, namespace: str | None = None) -> list[dict[str, Any]]:
        client = DynamicClient(self.cluster.api)  # type: ignore[no-untyped-call]
        resource = client.resources.get(api_version=api_version, kind=kind)
        found = resource.get(namespace=namespace, label_selector="app.kubernetes.io/part-of=supabase")
        return [item.to_dict() for item in found.items]

    def secrets(self) -> dict[str, str]:
        response = self.local_env.servers.openbao.client().secrets.kv.v2.read_secret_version(
            path="supabase", mount_point="connectors", raise_on_deleted_version=True
        )
        return dict(response["data"]["data"])


@pytest.fixture(scope="module")
def stack(
    kubernetes_with_crds: Cluster,
    new_local_env: NewLocalEnv,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stack]:
    cluster, manifests = kubernetes_with_crds, tmp_path_factory.mktemp("manifests")
    local_env = new_local_env({"alpha.yaml": ALPHA + WORKLOADS})
    configure(local_env, on(cluster, FULL))
    with pytest.MonkeyPatch.context() as patch:
        render_to(manifests, patch)
        with pytest.raises(RunFailedError) as refused:
            bring_up(local_env)
        give_secrets(local_env, GIVEN)
        first = bring_up(local_env)[0]
        apply(cluster, manifests)
        give_claim(cluster)
        yield Stack(local_env, cluster, first, str(refused.value), manifests)


def test_a_missing_secret_is_named_with_what_needs_it_and_what_to_do(stack: Stack) -> None:
    for key, needed_by in (
        ("GOTRUE_SMTP_PASS", "kubernetes.auth.smtp"),
        ("GOTRUE_EXTERNAL_GITHUB_SECRET", "kubernetes.auth.secrets"),
        ("STORAGE_S3_ACCESS_KEY_ID", "kubernetes.storage.backend: s3"),
        ("BACKUP_S3_SECRET_ACCESS_KEY", "kubernetes.backups"),
    ):
        assert f"{key}, needed by {needed_by}" in stack.refusal
        assert f"bao kv patch -mount=connectors supabase {key}=-" in stack.refusal


def test_everything_is_accepted_and_gets_ready(stack: Stack) -> None:
    assert stack.first.created is not None
    assert stack.first.created > 100
    assert pods_get_ready(stack.cluster, NAMESPACE, f"{NAMESPACE}-data", f"{NAMESPACE}-logs")
    deployments = stack.objects("apps/v1", "Deployment", NAMESPACE)
    names = {item["metadata"]["name"] for item in deployments}
    served = set(Service) - {Service.DATABASE, Service.LOGS, Service.BACKUPS, Service.JWKS, Service.WAIT}
    assert names == {*(f"supabase-{service}" for service in served), "supabase-rest-cell-cell-1"}
    for item in deployments:
        assert item["status"]["readyReplicas"] == item["spec"]["replicas"], item["metadata"]["name"]
    (database,) = stack.objects("apps/v1", "StatefulSet", f"{NAMESPACE}-data")
    assert database["status"]["readyReplicas"] == 1
    (logs,) = stack.objects("apps/v1", "DaemonSet", f"{NAMESPACE}-logs")
    assert logs["status"]["numberReady"] == 2


def test_a_second_run_changes_nothing(stack: Stack) -> None:
    runs = bring_up(stack.local_env)
    assert [(run.created, run.updated) for run in runs] == [(0, 0), (0, 0)]
    assert apply(stack.cluster, stack.manifests) == {}


def test_each_namespace_enforces_its_pod_security_standard(stack: Stack) -> None:
    labels = {item["metadata"]["name"]: item["metadata"]["labels"] for item in stack.objects("v1", "Namespace")}
    enforced = {name: found["pod-security.kubernetes.io/enforce"] for name, found in labels.items()}
    assert enforced == {
        NAMESPACE: "restricted",
        f"{NAMESPACE}-data": "baseline",
        f"{NAMESPACE}-logs": "privileged",
    }
    with pytest.raises(ApiException, match="violates PodSecurity"):
        CoreV1Api(stack.cluster.api).create_namespaced_pod(
            NAMESPACE,
            {"metadata": {"name": "intruder"}, "spec": {"containers": [{"name": "c", "image": "busybox:1.37.0"}]}},  # type: ignore[arg-type]
        )


def test_no_object_holds_a_secret_value(stack: Stack) -> None:
    secrets = [value for key, value in stack.secrets().items() if key not in ("DASHBOARD_USERNAME", "JWT_JWKS")]
    assert len(secrets) > 20
    for api_version, kind in (
        ("v1", "ConfigMap"),
        ("v1", "Secret"),
        ("apps/v1", "Deployment"),
        ("apps/v1", "StatefulSet"),
        ("apps/v1", "DaemonSet"),
        ("batch/v1", "CronJob"),
        ("external-secrets.io/v1", "ExternalSecret"),
        ("external-secrets.io/v1", "SecretStore"),
    ):
        text = json.dumps(stack.objects(api_version, kind), default=str)
        assert not [value for value in secrets if value in text], kind


def test_an_external_secret_names_only_keys_that_its_copy_has(stack: Stack) -> None:
    client = stack.local_env.servers.openbao.client()
    found = stack.objects("external-secrets.io/v1", "ExternalSecret")
    assert len(found) >= 13
    for item in found:
        path = item["spec"]["dataFrom"][0]["extract"]["key"]
        response = client.secrets.kv.v2.read_secret_version(
            path=path, mount_point="connectors", raise_on_deleted_version=True
        )
        keys = {*response["data"]["data"], *(data["secretKey"] for data in item["spec"].get("data") or [])}
        template = json.dumps(item["spec"]["target"]["template"]["data"])
        named = {part.split()[0].rstrip("}") for part in template.split("{{ .")[1:]}
        assert named <= keys, item["metadata"]["name"]


# The services' sign-in to OpenBao


def sign_in(stack: Stack, account: str, namespace: str, role: str, audience: str = "openbao") -> hvac.Client:
    # OpenBao is outside of this cluster, so it shows the token to the cluster's API.
    audiences = [audience, "https://kubernetes.default.svc.cluster.local"]
    token = CoreV1Api(stack.cluster.api).create_namespaced_service_account_token(
        account,
        namespace,
        {"spec": {"audiences": audiences, "expirationSeconds": 600}},  # type: ignore[arg-type]
    )
    assert token.status is not None
    client = hvac.Client(url=stack.local_env.servers.openbao.address)
    client.auth.kubernetes.login(role, token.status.token, mount_point="kubernetes")
    return client


def read(client: hvac.Client, path: str) -> dict[str, str]:
    response = client.secrets.kv.v2.read_secret_version(
        path=path, mount_point="connectors", raise_on_deleted_version=True
    )
    return dict(response["data"]["data"])


def place(service: Service) -> str:
    data = f"{NAMESPACE}-data"
    places = {Service.DATABASE: data, Service.BACKUPS: data, Service.LOGS: f"{NAMESPACE}-logs"}
    return places.get(service, NAMESPACE)


READERS = [service for service in Service if service not in (Service.IMGPROXY, Service.WAIT)]


@pytest.mark.parametrize("service", READERS)
def test_a_service_reads_its_own_secret_and_no_other(stack: Stack, service: Service) -> None:
    name = f"supabase-{service}"
    client = sign_in(stack, name, place(service), name)
    mine = read(client, f"supabase/{service}")
    everything = stack.secrets()
    assert mine
    assert mine == {key: everything[key] for key in mine}
    for other in ("supabase", "supabase-lease-issuer", *(f"supabase/{item}" for item in READERS if item != service)):
        with pytest.raises(Forbidden):
            read(client, other)


@pytest.mark.parametrize(
    ("account", "namespace", "audience"),
    [
        ("supabase-rest", NAMESPACE, "openbao"),
        ("default", NAMESPACE, "openbao"),
        ("supabase-auth", NAMESPACE, "somebody-else"),
    ],
    ids=["another service", "the namespace's default account", "a token for somebody else"],
)
def test_nobody_else_signs_in_as_a_service(stack: Stack, account: str, namespace: str, audience: str) -> None:
    with pytest.raises((Forbidden, hvac.exceptions.InvalidRequest)):
        sign_in(stack, account, namespace, "supabase-auth", audience)


def test_an_account_of_the_same_name_elsewhere_does_not_sign_in(stack: Stack) -> None:
    elsewhere = stack.cluster.namespace()
    core = CoreV1Api(stack.cluster.api)
    core.create_namespaced_service_account(elsewhere, {"metadata": {"name": "supabase-auth"}})  # type: ignore[arg-type]
    with pytest.raises((Forbidden, hvac.exceptions.InvalidRequest)):
        sign_in(stack, "supabase-auth", elsewhere, "supabase-auth")


def test_only_the_services_that_need_it_know_the_superusers_password(stack: Stack) -> None:
    client = stack.local_env.servers.openbao.client()
    who = {service for service in READERS if "POSTGRES_PASSWORD" in read(client, f"supabase/{service}")}
    assert who == {
        Service.BACKUPS,
        Service.DATABASE,
        Service.REALTIME,
        Service.ANALYTICS,
        Service.POOLER,
    }


# Workloads


def may_review_tokens(stack: Stack, account: str, namespace: str) -> bool:
    """Whether OpenBao, which shows the account's own token, will be told of it."""
    asked: Any = {
        "spec": {
            "user": f"system:serviceaccount:{namespace}:{account}",
            "resourceAttributes": {"group": "authentication.k8s.io", "resource": "tokenreviews", "verb": "create"},
        }
    }
    found = AuthorizationV1Api(stack.cluster.api).create_subject_access_review(asked).status
    return found is not None and bool(found.allowed)


def as_account(
    stack: Stack, folder: Path, account: str, namespace: str = SHOP, audience: str = "openbao"
) -> KubernetesCredentials:
    """The token that the cluster gives a Pod of an account, in a file; the account may have tokens reviewed."""
    core, rbac = CoreV1Api(stack.cluster.api), RbacAuthorizationV1Api(stack.cluster.api)
    for create in (
        lambda: core.create_namespace({"metadata": {"name": namespace}}),  # type: ignore[arg-type]
        lambda: core.create_namespaced_service_account(namespace, {"metadata": {"name": account}}),  # type: ignore[arg-type]
        lambda: rbac.create_cluster_role_binding({
            "metadata": {"name": f"{namespace}-{account}"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:auth-delegator"},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": namespace}],
        }),  # type: ignore[arg-type]
    ):  # fmt: skip
        try:
            create()
        except ApiException as error:
            assert error.status == 409, error  # noqa: PT017
    assert wait_until(lambda: may_review_tokens(stack, account, namespace), 60), "the binding is not in force"
    audiences = [audience, "https://kubernetes.default.svc.cluster.local"]
    wanted = {"spec": {"audiences": audiences, "expirationSeconds": 600}}
    token = core.create_namespaced_service_account_token(account, namespace, wanted)  # type: ignore[arg-type]
    assert token.status is not None
    (folder / "token").write_text(str(token.status.token))
    return KubernetesCredentials(folder / "token")


def test_a_workload_leases_with_its_service_accounts_token(stack: Stack, tmp_path: Path) -> None:
    plane = LocalDataPlane(stack.local_env)
    binding = plane.binding("alpha")
    assert binding.workloads["api"].mount == "kubernetes"
    signs_in = WorkloadSignIn(binding, as_account(stack, tmp_path, "api"), "api")
    leases = LeaseClient(signs_in())
    lease = leases.issue(binding, AccessLevel.SERVICE_ROLE)
    with psycopg.connect(lease.connection_string) as session:
        assert session.execute("select current_user").fetchone() == ("proj_alpha_service_role",)
    assert lease.publishable_key == stack.secrets()["SUPABASE_PUBLISHABLE_KEY"]
    # The stack runs a pooler, so that is the way.
    assert f".supabase:{lease.password}@supabase-pooler.{NAMESPACE}.svc:5432/" in lease.database_url
    assert leases.renew(lease.lease_id) == 600
    for level in set(AccessLevel) - {AccessLevel.SERVICE_ROLE}:
        with pytest.raises(LeaseError, match="you may not use alpha"):
            leases.issue(binding, level)
    leases.revoke(lease.lease_id)


@pytest.mark.parametrize(
    ("account", "namespace", "audience"),
    [("reader", SHOP, "openbao"), ("api", "elsewhere", "openbao"), ("api", SHOP, "somebody-else")],
    ids=["another account", "a namesake in another namespace", "a token for somebody else"],
)
def test_nobody_else_signs_in_as_a_workload(
    stack: Stack, tmp_path: Path, account: str, namespace: str, audience: str
) -> None:
    binding = LocalDataPlane(stack.local_env).binding("alpha")
    with pytest.raises(SignInError, match="proj_alpha-api may not sign in"):
        WorkloadSignIn(binding, as_account(stack, tmp_path, account, namespace, audience), "api")()


def test_a_service_account_that_is_taken_out_of_the_file_loses_its_access(stack: Stack, tmp_path: Path) -> None:
    plane = LocalDataPlane(stack.local_env)
    binding = plane.binding("alpha")
    sign_in = WorkloadSignIn(binding, as_account(stack, tmp_path, "reader"), "reader")
    leases = LeaseClient(sign_in())
    leases.issue(binding, AccessLevel.ANON)
    path = stack.local_env.root / "stacks" / "local" / "projects" / "alpha.yaml"
    try:
        path.write_text((ALPHA + WORKLOADS).partition("  reader:")[0], encoding="utf-8")
        bring_up(stack.local_env)
        with pytest.raises(LeaseError):
            leases.issue(binding, AccessLevel.ANON)
    finally:
        path.write_text(ALPHA + WORKLOADS, encoding="utf-8")
        bring_up(stack.local_env)
    assert LeaseClient(sign_in()).issue(binding, AccessLevel.ANON)


# What can be reached from outside, and what cannot


def test_nothing_but_the_ingress_leads_in(stack: Stack) -> None:
    services = stack.objects("v1", "Service")
    assert {item["spec"]["type"] for item in services} == {"ClusterIP"}
    (ingress,) = stack.objects("networking.k8s.io/v1", "Ingress")
    backend = ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
    assert backend["name"] == "supabase-gateway"
    assert ingress["spec"]["tls"] == [{"hosts": ["api.example.org"], "secretName": "api-tls"}]


def test_every_pod_meets_what_an_operator_expects(stack: Stack) -> None:
    pods: list[dict[str, Any]] = []
    for kind in ("Deployment", "StatefulSet", "DaemonSet"):
        pods += [item["spec"]["template"]["spec"] for item in stack.objects("apps/v1", kind)]
    for pod in pods:
        assert pod["enableServiceLinks"] is False
        for container in [*pod["containers"], *(pod.get("initContainers") or [])]:
            assert container["resources"]["requests"]["memory"], container["name"]
            assert container["resources"]["limits"]["memory"], container["name"]
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]
            assert ":" in container["image"].rpartition("/")[2]
        for container in pod["containers"]:
            assert container["livenessProbe"], container["name"]
            assert container["readinessProbe"], container["name"]


def test_what_runs_more_than_once_survives_a_drained_node(stack: Stack) -> None:
    several = {
        item["metadata"]["name"]
        for item in stack.objects("apps/v1", "Deployment", NAMESPACE)
        if item["spec"]["replicas"] > 1
    }
    assert len(several) >= 6
    guarded = {item["metadata"]["name"] for item in stack.objects("policy/v1", "PodDisruptionBudget", NAMESPACE)}
    assert guarded == several


# Change


def test_a_changed_setting_rolls_the_service_that_has_it_and_no_other(stack: Stack) -> None:
    def generations() -> dict[str, int]:
        found = stack.objects("apps/v1", "Deployment", NAMESPACE)
        return {item["metadata"]["name"]: item["metadata"]["generation"] for item in found}

    before = generations()
    try:
        configure(stack.local_env, on(stack.cluster, {**FULL, "rest": {"maxRows": 77}}))
        stack.up()
        after = generations()
    finally:
        configure(stack.local_env, on(stack.cluster, FULL))
        stack.up()
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"supabase-rest", "supabase-rest-cell-cell-1", "supabase-studio"}


def test_what_somebody_changed_by_hand_is_put_back(stack: Stack) -> None:
    custom = CustomObjectsApi(ApiClient(stack.cluster.api.configuration))
    arguments = ("external-secrets.io", "v1", NAMESPACE, "externalsecrets", "supabase-auth")
    custom.patch_namespaced_custom_object(
        *arguments, {"spec": {"refreshInterval": "999h"}}, field_manager="kubectl-edit"
    )
    assert list(stack.up()) == [f"ExternalSecret {NAMESPACE}/supabase-auth"]
    found: Any = custom.get_namespaced_custom_object(*arguments)
    assert found["spec"]["refreshInterval"] == "5m"
