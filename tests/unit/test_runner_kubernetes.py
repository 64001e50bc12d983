"""The Kubernetes provider that renders: manifests as files, type tokens."""

import base64
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from data_plane.local.providers import ProviderError
from data_plane.local.providers.kubernetes import KubernetesProvider
from data_plane.local.providers.kubernetes.manifests import Kind, differing, kind_of, to_wire
from data_plane.local.providers.kubernetes.rendering import to_yaml
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


def test_the_manifest_of_what_is_no_longer_declared_is_removed_and_reported(program: Program, tmp_path: Path) -> None:
    program.up(RENDERED)
    file = tmp_path / "manifests/1-manifest/rbac.authorization.k8s.io_v1-clusterrole-default-app:reader.yaml"
    warnings = program.up(OTHERS, preview=True).warnings
    assert "no longer declared, whose manifests `up` removes: reader" in warnings
    assert file.exists()
    assert "no longer declared, so their manifests are removed: reader" in program.up(OTHERS).warnings
    assert not file.exists()
    assert not [warning for warning in program.up(OTHERS).warnings if "declared" in warning]


def test_a_program_that_fails_removes_no_manifest(program: Program, tmp_path: Path) -> None:
    program.up(RENDERED)
    program.refusal('k8s.core.v1.ConfigMap("c", metadata={"generateName": "c-"}, data={}, opts=on)')
    assert (tmp_path / "manifests/1-manifest/v1-configmap-app-settings.yaml").exists()


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


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, r"only rendered here: set `kubernetes\.renderTo`"),
        ({"renderYamlToDirectory": "x", "context": "c"}, "context does not go with renderYamlToDirectory"),
        ({"renderYamlToDirectory": "x", "kubeconfig": "c"}, "kubeconfig does not go with renderYamlToDirectory"),
    ],
)
def test_a_provider_that_would_apply_is_refused(inputs: dict[str, Any], message: str) -> None:
    with pytest.raises(ProviderError, match=message):
        KubernetesProvider().connect(inputs)


def test_the_environments_kubeconfig_does_not_stand_in_the_way_of_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/somewhere")
    KubernetesProvider().connect({"renderYamlToDirectory": "x", "kubeconfig": "/somewhere"})


def test_another_name_is_another_file_and_the_former_is_removed(program: Program, tmp_path: Path) -> None:
    text = 'k8s.core.v1.ConfigMap("c", metadata=meta("first"), data={"a": "1"}, opts=on)'
    program.up(text)
    done = program.up(text.replace("first", "second"))
    assert [step.change for step in done.steps if step.name == "c"] == ["create"]
    assert done.warnings == []
    names = {path.name for path in (tmp_path / "manifests").rglob("*.yaml")}
    assert names == {"v1-configmap-app-second.yaml"}


def test_a_file_with_a_value_that_is_not_known_yet_is_an_update_if_it_is_there(program: Program) -> None:
    # A resource that is not there has no output in a preview.
    text = """
        first = k8s.core.v1.ConfigMap("first", metadata={"namespace": namespace}, data={"a": "1"}, opts=on)
        k8s.core.v1.ConfigMap("second", metadata=meta("second"), data={"first": first.id}, opts=on)
        """
    assert set(program.changes(text, preview=True).values()) == {"create"}
    program.up(text)
    file = next(path for path in program.folder.parent.rglob("*first*.yaml"))
    file.unlink()
    assert program.changes(text, preview=True) == {"ConfigMap first": "create", "ConfigMap second": "update data.first"}


# Type tokens, manifests


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
    inputs = {
        "apiVersion": "example.org/v1",
        "kind": "Thing",
        "metadata": {"name": "x", "uid": "u", "resourceVersion": "1", "labels": {}},
        "spec": {"a": 1},
    }
    assert to_wire(inputs) == {
        "apiVersion": "example.org/v1",
        "kind": "Thing",
        "metadata": {"name": "x", "labels": {}},
        "spec": {"a": 1},
    }


def test_differences_are_named_by_their_paths() -> None:
    before = {
        "metadata": {"name": "x", "labels": {"a.b/c": "1"}},
        "spec": {"list": [{"a": 1}, {"a": 2}], "short": [1], "gone": 1},
    }
    after = {
        "metadata": {"name": "x", "labels": {"a.b/c": "2"}},
        "spec": {"list": [{"a": 1}, {"a": 3}], "short": [1, 2]},
    }
    assert differing(before, after) == ['metadata.labels["a.b/c"]', "spec.gone", "spec.list[1].a", "spec.short"]


def test_other_providers_types_are_not_this_ones() -> None:
    assert KubernetesProvider().type("postgresql:index/role:Role") is None
