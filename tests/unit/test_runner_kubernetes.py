"""The runner's Kubernetes provider without a cluster: manifests as files, type tokens, readiness, messages."""

import base64
import json
import stat
from pathlib import Path
from typing import Any

import pytest
import urllib3
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pulumi.runtime.proto import resource_pb2

from embedded.home import Home
from embedded.runner.monitor import Monitor, _seconds
from embedded.runner.providers.base import Options
from embedded.runner.providers.kubernetes import KubernetesClient, KubernetesError
from embedded.runner.providers.kubernetes.api import ApiError, connect
from embedded.runner.providers.kubernetes.manifests import (
    Kind,
    at_path,
    differing,
    kind_of,
    parse_path,
    set_at_path,
    to_wire,
)
from embedded.runner.providers.kubernetes.messages import explain_refusal, explain_unreachable, secret_texts
from embedded.runner.providers.kubernetes.readiness import FailedError, readiness
from embedded.runner.providers.kubernetes.rendering import to_yaml
from embedded.runner.state import StackState
from tests.programs import Program

# Manifests as files

READER = 'k8s.rbac.v1.ClusterRole("reader", metadata={"name": "app:reader"}, rules=[], opts=on)\n'
OTHERS = """
k8s.core.v1.Namespace("app", metadata={"name": namespace}, opts=on)
k8s.core.v1.ConfigMap("settings", metadata=meta("settings"), data={"script": "#!/bin/sh\\necho yes\\n", "on": "no"}, opts=on)
login = k8s.core.v1.Secret(
    "login", metadata=meta("login"), string_data={"password": pulumi.Output.secret("hunter2")}, opts=on
)
definition = k8s.apiextensions.v1.CustomResourceDefinition(
    "things",
    metadata={"name": "things.example.org"},
    spec={
        "group": "example.org",
        "scope": "Cluster",
        "names": {"plural": "things", "kind": "Thing"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"open_apiv3_schema": {"type": "object", "x_kubernetes_preserve_unknown_fields": True}},
            }
        ],
    },
    opts=on,
)
k8s.apiextensions.CustomResource(
    "thing", api_version="example.org/v1", kind="Thing", metadata={"name": "one"}, spec={"size": 3}, opts=on
)
k8s.core.v1.ConfigMap("unnamed", metadata={}, opts=on)
pulumi.export("ids", [login.id, definition.id])
"""
RENDERED = READER + OTHERS
FILES = {
    "0-crd/apiextensions.k8s.io_v1-customresourcedefinition-default-things.example.org.yaml",
    "1-manifest/v1-namespace-default-app.yaml",
    "1-manifest/v1-configmap-app-settings.yaml",
    "1-manifest/v1-secret-app-login.yaml",
    "1-manifest/rbac.authorization.k8s.io_v1-clusterrole-default-app:reader.yaml",
    "1-manifest/example.org_v1-thing-default-one.yaml",
}


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path / "program", "app", render_yaml_to_directory=tmp_path / "manifests")


def files_of(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text("utf-8") for path in folder.rglob("*.yaml")}


def test_manifests_lie_where_the_provider_puts_them(program: Program, tmp_path: Path) -> None:
    assert set(program.changes(RENDERED, preview=True).values()) == {"create"}
    assert not (tmp_path / "manifests").exists()
    assert set(program.changes(RENDERED).values()) == {"create"}
    found = files_of(tmp_path / "manifests")
    assert {name for name in found if "unnamed" not in name} == FILES
    assert program.outputs()["ids"] == ["app/login", "things.example.org"]
    secret = yaml.safe_load(found["1-manifest/v1-secret-app-login.yaml"])
    assert secret["data"] == {"password": base64.b64encode(b"hunter2").decode()}
    assert "stringData" not in secret
    schema = yaml.safe_load(found[min(FILES)])["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    assert schema == {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    assert found["1-manifest/v1-configmap-app-settings.yaml"] == (
        "apiVersion: v1\ndata:\n  'on': 'no'\n  script: |\n    #!/bin/sh\n    echo yes\n"
        "kind: ConfigMap\nmetadata:\n  name: settings\n  namespace: app\n"
    )
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "manifests").rglob("*.yaml")} == {0o600}


def test_a_second_run_writes_nothing_and_a_changed_file_is_put_right(program: Program, tmp_path: Path) -> None:
    program.up(RENDERED)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "manifests").rglob("*.yaml")}
    assert set(program.changes(RENDERED).values()) == {"same"}
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "manifests").rglob("*.yaml")} == before
    file = tmp_path / "manifests/1-manifest/v1-configmap-app-settings.yaml"
    wanted = file.read_text("utf-8")
    file.write_text(wanted.replace("echo yes", "echo other"), encoding="utf-8")
    changes = program.changes(RENDERED)
    assert changes.pop("ConfigMap settings") == "update data.script"
    assert set(changes.values()) == {"same"}
    assert file.read_text("utf-8") == wanted
    file.write_text("{", encoding="utf-8")
    assert program.changes(RENDERED)["ConfigMap settings"] == "create"


def test_a_file_that_is_of_no_resource_any_more_is_reported_and_stays(program: Program, tmp_path: Path) -> None:
    program.up(RENDERED)
    file = tmp_path / "manifests/1-manifest/rbac.authorization.k8s.io_v1-clusterrole-default-app:reader.yaml"
    assert [line for line in program.up(OTHERS).warnings if "of no declared resource" in line] == [
        f"{file} is of no declared resource; delete it unless it is another stack's"
    ]
    assert file.exists()


def test_a_secret_in_a_file_is_pointed_out(program: Program, tmp_path: Path) -> None:
    assert program.up(RENDERED).warnings == [
        f"v1-secret-app-login.yaml in {tmp_path / 'manifests'} holds a secret in plain text"
    ]


def test_an_ignored_field_keeps_what_the_file_has(program: Program, tmp_path: Path) -> None:
    text = 'k8s.core.v1.ConfigMap("c", metadata=meta("c"), data={"a": "1", "b": "1"}, opts=on)'
    program.up(text)
    changed = text.replace('"1"', '"2"').replace("opts=on", 'opts=also(ignore_changes=["data.a"])')
    assert program.changes(changed) == {"ConfigMap c": "update data.b"}
    file = tmp_path / "manifests/1-manifest/v1-configmap-app-c.yaml"
    assert yaml.safe_load(file.read_text("utf-8"))["data"] == {"a": "1", "b": "2"}


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])) | st.text("\n\r\x85\u2028\ufeff\t :-#'|>a"))
def test_every_text_is_read_back_as_it_was(text: str) -> None:
    document = {"metadata": {"name": "x"}, "data": {text: text}}
    assert yaml.safe_load(to_yaml(document)) == document


@pytest.mark.parametrize(
    "text", ["y", "N", "yes", "off", "1e3", "0o14", "012", "0x1F", "1_000", "1.2", "-1", "=", "~", ""]
)
def test_a_text_that_some_parser_takes_for_something_else_is_quoted(text: str) -> None:
    assert to_yaml({"a": text}).removeprefix("a: ").strip() in {f"'{text}'", f'"{text}"'}


# The provider

OPTIONS = Options("urn:pulumi:s::p::t::n", "n")


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"renderYamlToDirectory": "x", "context": "c"}, "context does not go with renderYamlToDirectory"),
        ({"renderYamlToDirectory": "x", "kubeconfig": "c"}, "kubeconfig does not go with renderYamlToDirectory"),
        ({"enableServerSideApply": "false"}, "leave enableServerSideApply out"),
    ],
)
def test_a_provider_that_contradicts_itself_is_refused(inputs: dict[str, Any], message: str) -> None:
    with pytest.raises(KubernetesError, match=message):
        KubernetesClient(inputs)


def test_the_environments_kubeconfig_does_not_stand_in_the_way_of_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/somewhere")
    KubernetesClient({"renderYamlToDirectory": "x", "kubeconfig": "/somewhere"}).close()


CLUSTERS = """
clusters: [{name: one, cluster: {server: "https://one"}}, {name: two, cluster: {server: "https://two"}}]
users: [{name: me, user: {token: tok-123456}}]
contexts:
- {name: first, context: {cluster: one, user: me}}
- {name: second, context: {cluster: two, user: me, namespace: inside}}
current-context: first
"""


@pytest.mark.parametrize(
    ("inputs", "server", "namespace"),
    [
        ({}, "https://one", "default"),
        ({"context": "second"}, "https://two", "inside"),
        ({"context": "second", "namespace": "told"}, "https://two", "told"),
        ({"cluster": "two"}, "https://two", "default"),
    ],
)
def test_the_cluster_is_the_contexts_unless_the_provider_says_otherwise(
    tmp_path: Path, inputs: dict[str, Any], server: str, namespace: str
) -> None:
    file = tmp_path / "config"
    file.write_text(CLUSTERS, encoding="utf-8")
    for kubeconfig in (CLUSTERS, str(file)):
        cluster = connect({"kubeconfig": kubeconfig, **inputs})
        assert (cluster.server, cluster.namespace) == (server, namespace)
        cluster.close()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"kubeconfig": "/not/there"}, r"kubeconfig /not/there cannot be read \(No such file or directory\)"),
        ({"kubeconfig": "clusters: [\n  token: 'tok-123456"}, "is no kubeconfig: it is no YAML in line 2"),
        ({"kubeconfig": "{}"}, "is no kubeconfig: give the path of one, or its content"),
        ({"kubeconfig": CLUSTERS, "context": "third"}, "context 'third': .*; correct it or name another context"),
    ],
)
def test_a_kubeconfig_that_is_none_is_named_without_its_content(inputs: dict[str, Any], message: str) -> None:
    with pytest.raises(KubernetesError, match=message) as caught:
        connect(inputs)
    assert "tok-123456" not in str(caught.value)


def test_a_component_that_another_process_would_construct_is_refused(tmp_path: Path) -> None:
    state = StackState(Home(tmp_path), "s")
    monitor = Monitor("p", "s", state, lambda _stack: None, [], preview=False, on_step=lambda _step: None)
    request = resource_pb2.RegisterResourceRequest(type="kubernetes:yaml/v2:ConfigFile", name="all", remote=True)
    with pytest.raises(NotImplementedError, match="cannot construct a kubernetes:yaml/v2:ConfigFile"):
        monitor.RegisterResource(request)
    monitor.close()


# Type tokens, manifests, paths


@pytest.mark.parametrize(
    ("token", "kind", "api_version"),
    [
        ("kubernetes:core/v1:Secret", Kind("", "v1", "Secret"), "v1"),
        ("kubernetes:apps/v1:Deployment", Kind("apps", "v1", "Deployment"), "apps/v1"),
        (
            "kubernetes:rbac.authorization.k8s.io/v1:ClusterRole",
            Kind("rbac.authorization.k8s.io", "v1", "ClusterRole"),
            "rbac.authorization.k8s.io/v1",
        ),
        (
            "kubernetes:external-secrets.io/v1:ExternalSecret",
            Kind("external-secrets.io", "v1", "ExternalSecret"),
            "external-secrets.io/v1",
        ),
        ("kubernetes:example.org/v1:OilPatch", Kind("example.org", "v1", "OilPatch"), "example.org/v1"),
        ("kubernetes:example.org/v1:AllowList", Kind("example.org", "v1", "AllowList"), "example.org/v1"),
    ],
)
def test_a_type_token_names_a_kind(token: str, kind: Kind, api_version: str) -> None:
    assert kind_of(token, {"kind": kind.name}) == kind
    assert kind.api_version == api_version


@pytest.mark.parametrize(
    ("token", "inputs"),
    [
        ("kubernetes:helm.sh/v3:Release", {}),
        ("kubernetes:helm.sh/v4:Chart", {}),
        ("kubernetes:yaml:ConfigFile", {}),
        ("kubernetes:yaml/v2:ConfigGroup", {}),
        ("kubernetes:kustomize/v2:Directory", {}),
        ("kubernetes:apps/v1:DeploymentPatch", {"kind": "Deployment"}),
        ("kubernetes:core/v1:ConfigMapList", {"kind": "ConfigMapList", "items": []}),
        ("kubernetes:v1:Secret", {"kind": "Secret"}),
    ],
)
def test_what_is_no_single_whole_object_is_refused(token: str, inputs: dict[str, Any]) -> None:
    with pytest.raises(NotImplementedError):
        kind_of(token, inputs)


def test_what_only_a_server_sets_is_no_part_of_a_manifest() -> None:
    inputs = {"metadata": {"name": "x", "uid": "u", "resourceVersion": "1", "labels": {}}, "spec": {"a": 1}}
    assert to_wire(Kind("example.org", "v1", "Thing"), inputs) == {
        "apiVersion": "example.org/v1",
        "kind": "Thing",
        "metadata": {"name": "x", "labels": {}},
        "spec": {"a": 1},
    }


def test_differences_are_named_by_their_paths_and_status_is_none() -> None:
    before = {
        "metadata": {"name": "x", "resourceVersion": "1", "labels": {"a.b/c": "1"}},
        "spec": {"list": [{"a": 1}, {"a": 2}], "short": [1], "gone": 1},
        "status": {"x": 1},
    }
    after = {
        "metadata": {"name": "x", "resourceVersion": "2", "labels": {"a.b/c": "2"}},
        "spec": {"list": [{"a": 1}, {"a": 3}], "short": [1, 2]},
        "status": {"x": 2},
    }
    assert differing(before, after) == ('metadata.labels["a.b/c"]', "spec.gone", "spec.list[1].a", "spec.short")


@pytest.mark.parametrize(
    ("path", "steps"),
    [
        ("spec", ["spec"]),
        ("spec.replicas", ["spec", "replicas"]),
        ('metadata.annotations["a.b/c"]', ["metadata", "annotations", "a.b/c"]),
        ("spec.containers[0].image", ["spec", "containers", 0, "image"]),
    ],
)
def test_property_paths(path: str, steps: list[str | int]) -> None:
    assert parse_path(path) == steps
    document: dict[str, Any] = {"spec": {"containers": [{}]}, "metadata": {}}
    set_at_path(document, steps, "new")
    assert at_path(document, steps) == "new"


@pytest.mark.parametrize("path", ["spec.containers[*].image", "a[", 'a["b'])
def test_a_path_that_is_none_is_refused(path: str) -> None:
    with pytest.raises(NotImplementedError, match="name a single field"):
        parse_path(path)


@pytest.mark.parametrize(("text", "seconds"), [("", None), ("30s", 30), ("10m", 600), ("1h30m", 5400), ("1.5s", 1.5)])
def test_timeouts_are_seconds(text: str, seconds: float | None) -> None:
    assert _seconds(text) == seconds


# Readiness


def live(
    api_version: str, kind: str, spec: dict[str, Any], status: dict[str, Any], **annotations: str
) -> dict[str, Any]:
    metadata = {"name": "x", "generation": 2, "annotations": {f"pulumi.com/{k}": v for k, v in annotations.items()}}
    status = {"observedGeneration": 2, **status}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec, "status": status}


def deployment(wanted: int, **status: Any) -> dict[str, Any]:
    return live("apps/v1", "Deployment", {"replicas": wanted}, status)


def stateful(spec: dict[str, Any], **status: Any) -> dict[str, Any]:
    return live("apps/v1", "StatefulSet", {"replicas": 2, **spec}, status)


ROLLED_OUT = {"updatedReplicas": 2, "availableReplicas": 2, "replicas": 2}
COMPLETE = [{"type": "Complete", "status": "True"}]


@pytest.mark.parametrize(
    ("document", "ready"),
    [
        (deployment(2, **ROLLED_OUT), True),
        (deployment(0), True),
        (deployment(2, **ROLLED_OUT, observedGeneration=1), False),
        (deployment(2, **{**ROLLED_OUT, "replicas": 3}), False),
        (deployment(2, **{**ROLLED_OUT, "availableReplicas": 1}), False),
        (deployment(2), False),
        (stateful({}, readyReplicas=2, updatedReplicas=2), True),
        (stateful({}, readyReplicas=2, updatedReplicas=1), False),
        (stateful({}, readyReplicas=1, updatedReplicas=2), False),
        (stateful({"updateStrategy": {"type": "OnDelete"}}, readyReplicas=2), True),
        (stateful({"replicas": 0}), True),
        (live("apps/v1", "DaemonSet", {}, {"desiredNumberScheduled": 1}), False),
        (live("apps/v1", "DaemonSet", {}, {"desiredNumberScheduled": 0}), True),
        (live("batch/v1", "Job", {}, {"conditions": COMPLETE}), True),
        (live("batch/v1", "Job", {}, {"active": 1}), False),
        (live("v1", "PersistentVolumeClaim", {}, {"phase": "Bound"}), True),
        (live("v1", "PersistentVolumeClaim", {"storageClassName": "now"}, {"phase": "Pending"}), False),
        (live("v1", "PersistentVolumeClaim", {"storageClassName": "late"}, {"phase": "Pending"}), True),
        (live("v1", "ConfigMap", {}, {}), True),
        (live("v1", "PersistentVolumeClaim", {}, {}, skipAwait="true"), True),
        (live("x/v1", "Thing", {}, {}, waitFor="condition=Ready"), False),
        (live("x/v1", "Thing", {}, {"conditions": COMPLETE}, waitFor="condition=complete"), True),
        (live("x/v1", "Thing", {}, {"conditions": COMPLETE}, waitFor="condition=Complete=False"), False),
        (live("x/v1", "Thing", {}, {"phase": "Up"}, waitFor="jsonpath={.status.phase}=Up"), True),
        (live("x/v1", "Thing", {}, {"phase": "Up"}, waitFor="jsonpath={.status.phase}=Down"), False),
        (live("x/v1", "Thing", {}, {"phase": "Up"}, waitFor='["jsonpath={.status.phase}", "condition=Ready"]'), False),
    ],
)
def test_an_object_is_ready_when_the_provider_takes_it_for_ready(document: dict[str, Any], ready: bool) -> None:
    found = readiness(document, lambda storage_class: storage_class == "late")
    assert found.ready == ready
    assert ready or found.lacking


def test_a_failed_job_and_a_wait_that_cannot_be_understood_are_errors() -> None:
    failed = [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "too often"}]
    with pytest.raises(FailedError, match=r"it failed: Failed is True \(BackoffLimitExceeded: too often\)"):
        readiness(live("batch/v1", "Job", {}, {"conditions": failed}))
    with pytest.raises(ValueError, match="expected condition=TYPE"):
        readiness(live("x/v1", "Thing", {}, {}, waitFor="Ready"))


# Messages

DOCUMENT = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n"}}


def refusal(status: int, message: str, reason: str = "", causes: list[dict[str, str]] | None = None) -> ApiError:
    return ApiError(status, json.dumps({"message": message, "reason": reason, "details": {"causes": causes or []}}))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            refusal(403, 'admission webhook "v.example.org" denied the request: no', "Forbidden"),
            'admission webhook "v.example.org" denied the request: no; change what the webhook is against',
        ),
        (
            refusal(500, 'failed calling webhook "v.example.org": connection refused', "InternalError"),
            "see whether the operator that the webhook belongs to runs",
        ),
        (
            refusal(403, 'pods "p" is forbidden: exceeded quota: small, requested: pods=2', "Forbidden"),
            "exceeded quota: small, requested: pods=2; ask for less, or raise the namespace's quota",
        ),
        (refusal(503, "etcd is away"), "etcd is away; run the same command again"),
        (ApiError(502, "<html>bad gateway</html>"), "<html>bad gateway</html>; run the same command again"),
        (ApiError(500, ""), "status 500; run the same command again"),
    ],
)
def test_a_refusal_is_one_line_with_the_object_and_the_next_step(error: ApiError, said: str) -> None:
    line = explain_refusal("https://c", DOCUMENT, error)
    assert line.startswith("Pod n/p at https://c: ")
    assert said in line
    assert "\n" not in line


def test_no_secret_is_in_a_message_however_it_is_quoted() -> None:
    hidden = secret_texts([{"a": ["hunter2-secret"], "short": "x"}])
    encoded = base64.b64encode(b"hunter2-secret").decode()
    cause = {"field": "spec.a", "reason": "FieldValueInvalid", "message": 'Invalid value: "hunter2-secret\\n"'}
    errors = [
        refusal(422, "Pod is invalid: hunter2-secret", "Invalid", [cause]),
        refusal(400, f'admission webhook "x" denied the request: {encoded} is bad'),
        refusal(500, "field hunter2-secret not declared in schema"),
    ]
    lines = [explain_refusal("https://c", DOCUMENT, error, hidden) for error in errors]
    assert not [line for line in lines if "hunter2" in line or encoded in line]
    assert "spec.a (FieldValueInvalid)" in lines[0]


def test_an_unreachable_server_is_named_with_the_cause() -> None:
    pool = urllib3.HTTPSConnectionPool("c")
    cause = OSError(111, "Connection refused")
    error = urllib3.exceptions.MaxRetryError(pool, "/x", urllib3.exceptions.ProtocolError("broken", cause))
    said = explain_unreachable("https://c", error)
    assert said.startswith("Kubernetes at https://c cannot be reached (")
    assert said.endswith("then run the same command again")


def test_other_providers_types_are_not_this_ones() -> None:
    assert KubernetesClient({}).handler("postgresql:index/role:Role", OPTIONS) is None
