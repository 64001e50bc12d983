"""The embedded runner on a real control plane: what it applies, what it leaves alone, and what it refuses."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from kubernetes.client import ApiClient, AppsV1Api, CoreV1Api, CustomObjectsApi, RbacAuthorizationV1Api

from embedded.runner.providers.kubernetes import resources
from tests.conftest import Cluster
from tests.programs import Program

WORKLOADS = """
k8s.core.v1.ConfigMap("settings", metadata=meta("settings"), data={"a": "1", "text": "one\\ntwo\\n"}, opts=on)
secret = k8s.core.v1.Secret(
    "login", metadata=meta("login"), string_data={"password": pulumi.Output.secret("hunter2-hunter2")}, opts=on
)
k8s.core.v1.Service(
    "web", metadata=meta("web"), spec={"selector": {"app": "web"}, "ports": [{"port": 80, "target_port": 80}]}, opts=on
)
deployment = k8s.apps.v1.Deployment(
    "web", metadata=meta("web"), spec={"replicas": 2, "selector": selector("web"), "template": pods("web")}, opts=on
)
k8s.apps.v1.StatefulSet(
    "db",
    metadata=meta("db"),
    spec={
        "service_name": "db",
        "selector": selector("db"),
        "template": pods("db"),
        "volume_claim_templates": [
            {
                "metadata": {"name": "data"},
                "spec": {"access_modes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1024Mi"}}},
            }
        ],
    },
    opts=on,
)
k8s.core.v1.PersistentVolumeClaim(
    "files",
    metadata=meta("files"),
    spec={"access_modes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "0.5Gi"}}},
    opts=on,
)
k8s.batch.v1.Job(
    "once", metadata=meta("once"), spec={"template": {"spec": {**pods("once")["spec"], "restart_policy": "Never"}}}, opts=on
)
k8s.networking.v1.NetworkPolicy("deny", metadata=meta("deny"), spec={"pod_selector": {}, "policy_types": ["Ingress"]}, opts=on)
k8s.policy.v1.PodDisruptionBudget(
    "web", metadata=meta("web"), spec={"max_unavailable": 1, "selector": selector("web")}, opts=on
)
k8s.autoscaling.v2.HorizontalPodAutoscaler(
    "web",
    metadata=meta("web"),
    spec={
        "min_replicas": 2,
        "max_replicas": 4,
        "scale_target_ref": {"api_version": "apps/v1", "kind": "Deployment", "name": "web"},
        "metrics": [
            {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "average_utilization": 80}}}
        ],
    },
    opts=on,
)
account = k8s.core.v1.ServiceAccount("web", metadata=meta("web"), opts=on)
k8s.rbac.v1.Role(
    "web", metadata=meta("web"), rules=[{"api_groups": [""], "resources": ["secrets"], "verbs": ["get"]}], opts=on
)
k8s.rbac.v1.ClusterRoleBinding(
    "web",
    metadata={"name": f"{namespace}-auth"},
    role_ref={"api_group": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:auth-delegator"},
    subjects=[{"kind": "ServiceAccount", "name": "web", "namespace": namespace}],
    opts=on,
)
pulumi.export("deployment", deployment.id)
pulumi.export("uid", deployment.metadata.uid)
pulumi.export("ready", deployment.status.ready_replicas)
pulumi.export("data", secret.data)
"""

OPERATORS = """
k8s.apiextensions.CustomResource(
    "store",
    api_version="external-secrets.io/v1",
    kind="ClusterSecretStore",
    metadata={"name": f"{namespace}-store"},
    spec={
        "provider": {
            "vault": {
                "server": "http://127.0.0.1:8200",
                "path": "secret",
                "auth": {"kubernetes": {"mountPath": "kubernetes", "role": "eso"}},
            }
        }
    },
    opts=on,
)
k8s.apiextensions.CustomResource(
    "login",
    api_version="external-secrets.io/v1",
    kind="ExternalSecret",
    metadata=meta("login"),
    spec={
        "secretStoreRef": {"kind": "ClusterSecretStore", "name": f"{namespace}-store"},
        "target": {"name": "login"},
        "data": [{"secretKey": "a", "remoteRef": {"key": "supabase", "property": "A"}}],
    },
    opts=on,
)
k8s.apiextensions.CustomResource(
    "db",
    api_version="postgresql.cnpg.io/v1",
    kind="Cluster",
    metadata=meta("db"),
    spec={"instances": 3, "storage": {"size": "10Gi"}, "postgresql": {"parameters": {"wal_level": "logical"}}},
    opts=on,
)
k8s.apiextensions.CustomResource(
    "api",
    api_version="gateway.networking.k8s.io/v1",
    kind="HTTPRoute",
    metadata=meta("api"),
    spec={"parentRefs": [{"name": "main"}], "rules": [{"backendRefs": [{"name": "kong", "port": 8000}]}]},
    opts=on,
)
k8s.apiextensions.CustomResource(
    "web",
    api_version="monitoring.coreos.com/v1",
    kind="ServiceMonitor",
    metadata=meta("web"),
    spec={"selector": {"matchLabels": {"app": "web"}}, "endpoints": [{"port": "metrics", "interval": "30s"}]},
    opts=on,
)
"""


@pytest.fixture
def program(kubernetes: Cluster, tmp_path: Path) -> Program:
    return Program(tmp_path / "program", kubernetes.namespace(), kubeconfig=kubernetes.kubeconfig)


def test_a_second_run_changes_nothing(program: Program, kubernetes: Cluster) -> None:
    assert set(program.changes(WORKLOADS, preview=True).values()) == {"create"}
    assert set(program.changes(WORKLOADS).values()) == {"create"}
    outputs = program.outputs()
    namespace = program.settings["namespace"]
    assert outputs["deployment"] == f"{namespace}/web"
    assert outputs["ready"] == 2
    live = AppsV1Api(kubernetes.api).read_namespaced_deployment("web", namespace)
    assert live.metadata is not None
    assert outputs["uid"] == live.metadata.uid
    assert base64.b64decode(outputs["data"]["password"]) == b"hunter2-hunter2"
    assert "hunter2" not in "".join(path.read_text("utf-8") for path in (program.home.path / "state").iterdir())
    versions = resource_versions(kubernetes.api, namespace)
    assert set(program.changes(WORKLOADS, preview=True).values()) == {"same"}
    assert set(program.changes(WORKLOADS).values()) == {"same"}
    assert resource_versions(kubernetes.api, namespace) == versions


def resource_versions(api: ApiClient, namespace: str) -> dict[str, str]:
    found: dict[str, str] = {}
    items: list[Any] = [
        *CoreV1Api(api).list_namespaced_secret(namespace).items,
        *CoreV1Api(api).list_namespaced_service(namespace).items,
        *CoreV1Api(api).list_namespaced_config_map(namespace).items,
        *AppsV1Api(api).list_namespaced_deployment(namespace).items,
        *AppsV1Api(api).list_namespaced_stateful_set(namespace).items,
    ]
    for item in items:
        found[f"{type(item).__name__} {item.metadata.name}"] = item.metadata.resource_version
    return found


def test_a_second_run_changes_nothing_of_the_operators_kinds(kubernetes_with_crds: Cluster, tmp_path: Path) -> None:
    program = Program(
        tmp_path / "program", kubernetes_with_crds.namespace(), kubeconfig=kubernetes_with_crds.kubeconfig
    )
    assert set(program.changes(OPERATORS, preview=True).values()) == {"create"}
    assert set(program.changes(OPERATORS).values()) == {"create"}
    assert set(program.changes(OPERATORS).values()) == {"same"}
    assert program.changes(OPERATORS.replace('"instances": 3', '"instances": 5'), preview=True)["Cluster db"] == (
        "update spec.instances"
    )


def test_a_field_that_is_no_longer_declared_is_removed(program: Program, kubernetes: Cluster) -> None:
    declared = 'k8s.core.v1.ConfigMap("settings", metadata=meta("settings"), data={"a": "1", "b": "2"}, opts=on)'
    program.up(declared)
    assert program.changes(declared.replace(', "b": "2"', "")) == {"ConfigMap settings": "update data.b"}
    found = CoreV1Api(kubernetes.api).read_namespaced_config_map("settings", program.settings["namespace"])
    assert found.data == {"a": "1"}


DEPLOYMENT = """
k8s.apps.v1.Deployment(
    "web", metadata=meta("web"), spec={"replicas": 1, "selector": selector("web"), "template": pods("web")}, opts=on
)
"""


def scale(kubernetes: Cluster, namespace: str, replicas: int, manager: str) -> None:
    AppsV1Api(kubernetes.api).patch_namespaced_deployment(
        "web",
        namespace,
        {"spec": {"replicas": replicas}},
        field_manager=manager,
        _content_type="application/merge-patch+json",
    )


def test_what_was_changed_by_hand_is_put_right(program: Program, kubernetes: Cluster) -> None:
    program.up(DEPLOYMENT)
    scale(kubernetes, program.settings["namespace"], 3, "kubectl-edit")
    assert program.changes(DEPLOYMENT) == {"Deployment web": "update spec.replicas"}
    assert program.changes(DEPLOYMENT) == {"Deployment web": "same"}


def test_what_a_controller_owns_is_not_fought_over(program: Program, kubernetes: Cluster) -> None:
    program.up(DEPLOYMENT)
    scale(kubernetes, program.settings["namespace"], 2, "some-autoscaler")
    said = program.refusal(DEPLOYMENT)
    assert ".spec.replicas belongs to the field manager some-autoscaler" in said
    assert "ignore_changes" in said
    ignoring = DEPLOYMENT.replace("opts=on", 'opts=also(ignore_changes=["spec.replicas"])')
    assert program.changes(ignoring) == {"Deployment web": "same"}
    taken = DEPLOYMENT.replace('meta("web")', 'meta("web", annotations={"pulumi.com/patchForce": "true"})')
    expected = 'update metadata.annotations["pulumi.com/patchForce"] spec.replicas'
    assert program.changes(taken) == {"Deployment web": expected}
    assert program.changes(taken) == {"Deployment web": "same"}


def test_an_ignored_field_stays_when_another_changes(program: Program, kubernetes: Cluster) -> None:
    namespace = program.settings["namespace"]
    program.up(DEPLOYMENT)
    scale(kubernetes, namespace, 3, "some-autoscaler")
    ignoring = DEPLOYMENT.replace("opts=on", 'opts=also(ignore_changes=["spec.replicas"])')
    changed = ignoring.replace('pods("web")', 'pods("web", "example.org/nothing:2")')
    assert program.changes(changed) == {"Deployment web": "update spec.template.spec.containers[0].image"}
    spec = AppsV1Api(kubernetes.api).read_namespaced_deployment("web", namespace).spec
    assert spec is not None
    assert spec.replicas == 3


@pytest.mark.parametrize(
    ("text", "old", "new", "field"),
    [
        (DEPLOYMENT, 'selector("web")', '{"match_labels": {"other": "x"}}', "spec.selector"),
        (
            (
                'k8s.core.v1.Service("s", metadata=meta("s"), '
                'spec={"cluster_ip": "10.96.7.7", "ports": [{"port": 80}]}, opts=on)'
            ),
            '"10.96.7.7"',
            '"10.96.7.8"',
            "spec.clusterIPs[0]",
        ),
        (
            'k8s.core.v1.ConfigMap("c", metadata=meta("c"), immutable=True, data={"a": "1"}, opts=on)',
            '"1"',
            '"2"',
            "data",
        ),
        (
            (
                'k8s.batch.v1.Job("j", metadata=meta("j"), spec={"template": {"spec": {"restart_policy": "Never", '
                '"containers": [{"name": "main", "image": "example.org/a:1"}]}}}, opts=on)'
            ),
            "a:1",
            "a:2",
            "spec.template",
        ),
        (
            (
                'k8s.apps.v1.StatefulSet("t", metadata=meta("t"), spec={"replicas": 0, "service_name": "one", '
                '"selector": selector("t"), "template": pods("t")}, opts=on)'
            ),
            '"one"',
            '"two"',
            "spec",
        ),
    ],
)
def test_a_change_that_needs_another_object_is_refused_and_nothing_is_deleted(
    program: Program, text: str, old: str, new: str, field: str
) -> None:
    program.up(text)
    assert old in text
    for preview in (True, False):
        said = program.refusal(text.replace(old, new), preview=preview)
        assert "this runner never deletes" in said
        assert field in said
    assert set(program.changes(text).values()) == {"same"}


def test_a_kind_and_its_first_object_come_in_one_run(program: Program, kubernetes: Cluster) -> None:
    kind = program.settings["namespace"].replace("test-", "thing").title().replace("-", "")
    text = f"""
    plural = "{kind.lower()}s"
    definition = k8s.apiextensions.v1.CustomResourceDefinition(
        "things",
        metadata={{"name": plural + ".example.org"}},
        spec={{
            "group": "example.org",
            "scope": "Namespaced",
            "names": {{"plural": plural, "kind": "{kind}"}},
            "versions": [
                {{
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {{
                        "open_apiv3_schema": {{
                            "type": "object",
                            "properties": {{
                                "spec": {{"type": "object", "x_kubernetes_preserve_unknown_fields": True}},
                                "status": {{"type": "object", "x_kubernetes_preserve_unknown_fields": True}},
                            }},
                        }}
                    }},
                }}
            ],
        }},
        opts=on,
    )
    k8s.core.v1.Namespace("own", metadata={{"name": namespace + "-own"}}, opts=on)
    k8s.apiextensions.CustomResource(
        "thing",
        api_version="example.org/v1",
        kind="{kind}",
        metadata={{"name": "thing", "namespace": namespace + "-own"}},
        spec={{"size": 3}},
        opts=also(depends_on=[definition]),
    )
    """
    expected = {"CustomResourceDefinition things", "Namespace own", f"{kind} thing"}
    assert program.changes(text, preview=True) == dict.fromkeys(expected, "create")
    assert program.changes(text) == dict.fromkeys(expected, "create")
    assert program.changes(text) == dict.fromkeys(expected, "same")
    found = CustomObjectsApi(kubernetes.api).get_namespaced_custom_object(
        "example.org", "v1", f"{program.settings['namespace']}-own", f"{kind.lower()}s", "thing"
    )
    assert json.loads(json.dumps(found))["spec"] == {"size": 3}


UNSCHEDULABLE = DEPLOYMENT.replace('"template": pods("web")', '"template": stuck').replace(
    "\nk8s.apps", '\nstuck = pods("web")\nstuck["spec"]["node_selector"] = {"no": "where"}\nk8s.apps'
)


def test_what_does_not_get_ready_in_time_is_said_to_and_is_waited_for_again(program: Program) -> None:
    annotated = UNSCHEDULABLE.replace('meta("web")', 'meta("web", annotations={"pulumi.com/timeoutSeconds": "1"})')
    for _ in range(2):
        said = program.refusal(annotated)
        assert "Deployment " in said
        assert "/web was applied and is not ready after 1 s: 1 of 1 pods are updated and 0 available" in said
        assert "MinimumReplicasUnavailable" in said
    other = UNSCHEDULABLE.replace("opts=on", 'opts=also(custom_timeouts=pulumi.CustomTimeouts(update="0.5s"))')
    assert "is not ready after 0.5 s" in program.refusal(other)


def test_nothing_is_waited_for_where_the_program_says_so(program: Program) -> None:
    skipping = UNSCHEDULABLE.replace('meta("web")', 'meta("web", annotations={"pulumi.com/skipAwait": "true"})')
    assert program.changes(skipping) == {"Deployment web": "create"}


def test_a_job_that_fails_ends_the_waiting_at_once(program: Program) -> None:
    text = """
    k8s.batch.v1.Job(
        "late",
        metadata=meta("late"),
        spec={
            "active_deadline_seconds": 1,
            "template": {"spec": {**pods("late")["spec"], "restart_policy": "Never", "node_selector": {"no": "where"}}},
        },
        opts=on,
    )
    """
    assert "it failed: Failed is True (DeadlineExceeded" in program.refusal(text)


def test_a_condition_is_waited_for_where_the_program_says_so(kubernetes_with_crds: Cluster, tmp_path: Path) -> None:
    program = Program(
        tmp_path / "program", kubernetes_with_crds.namespace(), kubeconfig=kubernetes_with_crds.kubeconfig
    )
    text = """
    k8s.apiextensions.CustomResource(
        "db",
        api_version="postgresql.cnpg.io/v1",
        kind="Cluster",
        metadata=meta(
            "db", annotations={"pulumi.com/waitFor": "condition=Ready", "pulumi.com/timeoutSeconds": "1"}
        ),
        spec={"instances": 1, "storage": {"size": "1Gi"}},
        opts=on,
    )
    """
    assert "not ready after 1 s: it has no condition Ready yet" in program.refusal(text)
    condition = {
        "type": "Ready",
        "status": "True",
        "reason": "X",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    CustomObjectsApi(kubernetes_with_crds.api).patch_namespaced_custom_object_status(
        "postgresql.cnpg.io",
        "v1",
        program.settings["namespace"],
        "clusters",
        "db",
        {"status": {"conditions": [condition]}},
        _content_type="application/merge-patch+json",
    )
    assert program.changes(text) == {"Cluster db": "same"}


SECRET_IN_A_BAD_PLACE = """
k8s.core.v1.Secret(
    "s", metadata=meta("s"), type="kubernetes.io/dockerconfigjson",
    string_data={".dockerconfigjson": pulumi.Output.secret("hunter2-hunter2")}, opts=on
)
"""


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            'k8s.core.v1.ConfigMap("c", metadata={"name": "c", "namespace": "not-there"}, opts=on)',
            "ConfigMap not-there/c at {server}: there is no namespace not-there: declare it",
        ),
        (
            'k8s.apiextensions.CustomResource("c", api_version="no.example.org/v1", kind="Thing", metadata=meta("c"), opts=on)',
            "has no kind Thing in no.example.org/v1; install its definition",
        ),
        (
            'k8s.core.v1.Service("s", metadata=meta("s"), spec={"ports": [{"port": 700000}]}, opts=on)',
            "spec.ports[0].port: Invalid value: 700000: must be between 1 and 65535, inclusive",
        ),
        (
            'k8s.core.v1.ConfigMap("c", metadata=meta("Not A Name"), data={"a": "b"}, opts=on)',
            "a lowercase RFC 1123 subdomain must consist of",
        ),
        (SECRET_IN_A_BAD_PLACE, "data[.dockerconfigjson] (FieldValueInvalid); correct the resource's inputs"),
        (
            'k8s.helm.v3.Release("r", chart="x", opts=on)',
            "cannot apply a kubernetes:helm.sh/v3:Release: declare the objects in it",
        ),
        (
            'k8s.core.v1.ConfigMapPatch("p", metadata=meta("p"), data={"a": "b"}, opts=on)',
            "cannot apply a kubernetes:core/v1:ConfigMapPatch: declare the whole object",
        ),
        (
            'k8s.core.v1.ConfigMapList("p", items=[{"metadata": {"name": "a"}}], opts=on)',
            "a list cannot be applied",
        ),
    ],
)
def test_each_refusal_names_the_object_and_the_next_step(
    program: Program, kubernetes: Cluster, monkeypatch: pytest.MonkeyPatch, text: str, wanted: str
) -> None:
    monkeypatch.setattr(resources, "_RETRY_SECONDS", (0.1,))
    said = program.refusal(text)
    assert wanted.replace("{server}", kubernetes.server.address) in said
    assert "hunter2" not in said
    assert "aHVudGVyM" not in said


def test_a_misspelt_field_is_refused_before_anything_is_applied(kubernetes_with_crds: Cluster, tmp_path: Path) -> None:
    program = Program(
        tmp_path / "program", kubernetes_with_crds.namespace(), kubeconfig=kubernetes_with_crds.kubeconfig
    )
    text = OPERATORS.replace('"instances": 3', '"instances": 3, "instancez": 4')
    assert ".spec.instancez: field not declared in schema; correct the resource's inputs" in program.refusal(
        text, preview=True
    )


def test_pod_security_is_said_to_be_the_reason(program: Program, kubernetes: Cluster) -> None:
    program.settings["namespace"] = kubernetes.namespace({"pod-security.kubernetes.io/enforce": "restricted"})
    text = 'k8s.core.v1.Pod("p", metadata=meta("p"), spec=pods("p")["spec"], opts=on)'
    said = program.refusal(text)
    assert f'Pod Security of namespace {program.settings["namespace"]} refuses it: "restricted:latest"' in said


def test_a_namespace_that_is_being_deleted_is_named(program: Program, kubernetes: Cluster) -> None:
    core = CoreV1Api(kubernetes.api)
    namespace = program.settings["namespace"]
    core.create_namespaced_config_map(namespace, {"metadata": {"name": "stays", "finalizers": ["example.org/stay"]}})  # type: ignore[arg-type]
    core.delete_namespace(namespace)
    said = program.refusal('k8s.core.v1.ConfigMap("c", metadata=meta("c"), opts=on)')
    assert f"namespace {namespace} is being deleted: wait until it is gone" in said
    core.patch_namespaced_config_map(
        "stays", namespace, {"metadata": {"finalizers": None}}, _content_type="application/merge-patch+json"
    )


def test_a_user_without_the_right_is_told_which(program: Program, kubernetes: Cluster, tmp_path: Path) -> None:
    namespace = program.settings["namespace"]
    binding: Any = {
        "metadata": {"name": "view"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": namespace}],
    }
    RbacAuthorizationV1Api(kubernetes.api).create_namespaced_role_binding(namespace, binding)
    asked: Any = {"spec": {}}
    answer = CoreV1Api(kubernetes.api).create_namespaced_service_account_token("default", namespace, asked)
    assert answer.status is not None
    text = 'k8s.core.v1.ConfigMap("c", metadata=meta("c"), opts=on)'
    limited = Program(tmp_path / "limited", namespace, kubeconfig=with_token(kubernetes, str(answer.status.token)))
    said = limited.refusal(text)
    assert f'User "system:serviceaccount:{namespace}:default" cannot patch resource "configmaps"' in said
    assert "give this user that right" in said
    unknown = Program(tmp_path / "unknown", namespace, kubeconfig=with_token(kubernetes, "not-a-token"))
    said = unknown.refusal(text)
    assert "the credentials of the kubeconfig's context are not accepted" in said
    assert "not-a-token" not in said


def with_token(kubernetes: Cluster, token: str) -> str:
    """A kubeconfig, as its content, of somebody who signs in with a token."""
    document: dict[str, Any] = json.loads(kubernetes.kubeconfig.read_text(encoding="utf-8"))
    document["users"][0]["user"] = {"token": token}
    return json.dumps(document, indent=1)


def test_a_cluster_that_is_not_there_is_named(program: Program, kubernetes: Cluster) -> None:
    document = json.loads(kubernetes.kubeconfig.read_text(encoding="utf-8"))
    document["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    program.settings["kubeconfig"] = json.dumps(document, indent=1)
    said = program.refusal('k8s.core.v1.ConfigMap("c", metadata=meta("c"), opts=on)')
    assert "Kubernetes at https://127.0.0.1:1 cannot be reached" in said
    assert "Connection refused" in said


def test_what_names_no_namespace_goes_to_the_providers(program: Program, kubernetes: Cluster) -> None:
    text = """
    inside = k8s.Provider("inside", kubeconfig=config.require("kubeconfig"), namespace=namespace)
    made = k8s.core.v1.ConfigMap("c", metadata={}, opts=pulumi.ResourceOptions(provider=inside))
    pulumi.export("id", made.id)
    """
    assert program.changes(text) == {"ConfigMap c": "create"}
    namespace, _, name = program.outputs()["id"].partition("/")
    assert namespace == program.settings["namespace"]
    assert name.startswith("c-")
    assert program.changes(text) == {"ConfigMap c": "same"}
