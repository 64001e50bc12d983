"""The rendered manifests under two linters: checkov for what is unsafe, kubernetes-validate for what is no manifest.

Both are in an environment of their own (``linters-requirements.txt``, made by ``uv pip compile --universal
--python-version 3.11 --generate-hashes`` from ``checkov`` and ``kubernetes-validate``), because checkov pins much of
what this project uses in other versions.
"""

import json
import os
import re
import subprocess
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_plane.local.providers.kubernetes.manifests import kind_of
from data_plane.local.providers.kubernetes.rendering import Folder, rendered
from data_plane.local.tool_environments import install_tool
from data_plane.model.catalog import load_images
from data_plane.state_dir import CHECKOUT
from tests.support.cluster_program import API_SERVERS, VARIANTS, declared, merged

HERE = Path(__file__).parent
RENDERED = ("everything", "CloudNativePG", "external database", "Gateway API", "OpenBao elsewhere")
"""All ways to run PostgreSQL, and what else adds kinds of objects."""
SPOILT: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "spoilt", "namespace": "supabase"},
    "spec": {
        "replicas": "two",
        "selector": {"matchLabels": {"app": "spoilt"}},
        "template": {
            "metadata": {"labels": {"app": "spoilt"}},
            "spec": {"containers": [{"name": "a", "image": "a:1.0", "securityContext": {"privileged": True}}]},
        },
    },
}
"""Without a finding here the linters would prove nothing."""
PODS = ("CronJob", "DaemonSet", "Deployment", "StatefulSet")
VERSIONS = ("1.30.0", "1.37.0")
"""Of Kubernetes: the oldest that is supported, and the newest that the linter knows."""


@pytest.fixture(scope="module")
def linters() -> Path:
    """The folder with their programs."""
    return install_tool("Linters", HERE / "linters-requirements.txt", print)


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifests of several stacks, as the local runner renders them; digests are the operator's to pin."""
    images = load_images(CHECKOUT, [])
    assert images
    pinned = {str(key): {**image.model_dump(), "digest": f"sha256:{'ab' * 32}"} for key, image in images.items()}
    root = tmp_path_factory.mktemp("manifests")
    for name in RENDERED:
        program = declared(merged(VARIANTS[name], {"images": pinned}), API_SERVERS if name == "everything" else ())
        folder = Folder(root / name.replace(" ", "-"))
        for item in program.resources:
            if item.type.startswith("kubernetes:"):
                kind = kind_of(item.type, item.inputs)
                document = {**item.inputs, "apiVersion": kind.api_version, "kind": kind.name}
                folder.write(folder.file(document), rendered(document))
    spoilt = Folder(root / "spoilt")
    spoilt.write(spoilt.file(SPOILT), SPOILT)
    return root


def documents(folder: Path) -> dict[Path, dict[str, Any]]:
    return {path: yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.yaml"))}


def resource_name(document: Mapping[str, Any]) -> str:
    metadata = document["metadata"]
    return f"{document['kind']}.{metadata.get('namespace', 'default')}.{metadata['name']}"


@pytest.fixture(scope="module")
def report(linters: Path, manifests: Path) -> dict[str, Any]:
    """What checkov says, without asking anybody on the network."""
    done = subprocess.run(
        [
            *(linters / "checkov", "--directory", manifests, "--framework", "kubernetes"),
            *("--skip-download", "--compact", "--output", "json", "--soft-fail"),
        ],
        env={**os.environ, "LOG_LEVEL": "ERROR"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def findings(report: Mapping[str, Any]) -> dict[str, set[str]]:
    """The resources of each failed check, by the check's ID and title."""
    found = defaultdict[str, set[str]](set)
    for check in report["results"]["failed_checks"]:
        if not check["file_path"].startswith("/spoilt/"):
            found[check["check_id"]].add(re.sub(r"\.Pod$|\.\(container \d+\).*$", "", check["resource"]))
    return dict(found)


ACCEPTED: dict[str, dict[str, Any]] = yaml.safe_load((HERE / "accepted.yaml").read_text(encoding="utf-8"))


def test_checkov_looks_at_everything_that_runs_and_finds_what_is_spoilt(
    report: dict[str, Any], manifests: Path
) -> None:
    assert report["summary"]["parsing_errors"] == 0
    running = {resource_name(item) for item in documents(manifests).values() if item["kind"] in PODS}
    assert {name.partition(".")[0] for name in running} == {*PODS}
    looked_at = {check["resource"] for check in report["results"]["passed_checks"]}
    assert [name for name in running if not any(resource.startswith(name) for resource in looked_at)] == []
    spoilt = {
        check["check_id"]
        for check in report["results"]["failed_checks"]
        if check["resource"] == "Deployment.supabase.spoilt"
    }
    assert "CKV_K8S_16" in spoilt, "a privileged container"


def test_checkov_finds_what_is_accepted_and_nothing_else(report: dict[str, Any]) -> None:
    found = findings(report)
    titles = {check["check_id"]: check["check_name"] for check in report["results"]["failed_checks"]}
    new = {f"{key} {titles[key]}": sorted(found[key]) for key in sorted(found.keys() - ACCEPTED.keys())}
    assert new == {}, "correct it, or accept it in accepted.yaml with the reason"
    assert sorted(ACCEPTED.keys() - found.keys()) == [], "accepted, and found no longer: take it out of accepted.yaml"
    for key, entry in ACCEPTED.items():
        if "resources" in entry:
            assert sorted(found[key] ^ set(entry["resources"])) == [], f"{key} {titles[key]}: {entry['why']}"


def test_every_accepted_finding_has_its_reason() -> None:
    assert [key for key, entry in ACCEPTED.items() if len(str(entry.get("why", "")).split()) < 5] == []
    assert {field for entry in ACCEPTED.values() for field in entry} <= {"why", "resources"}


@pytest.mark.parametrize("version", VERSIONS)
def test_every_manifest_of_kubernetes_own_kinds_is_valid(linters: Path, manifests: Path, version: str) -> None:
    # The fields of custom resources are checked by their definitions, on a real API: tests/integration.
    custom = re.compile(r"(external-secrets\.io|cnpg\.io|monitoring\.coreos\.com|gateway\.networking\.k8s\.io)/")
    files = [path for path, item in documents(manifests).items() if not custom.search(item["apiVersion"])]
    assert len(files) > 200
    arguments = ("--strict", "--quiet", "--no-warn", "--kubernetes-version", version)
    done = subprocess.run([linters / "kubernetes-validate", *arguments, *files], capture_output=True, text=True)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if "ERROR" in line or "/manifests" in line]
    assert done.returncode != 0
    assert lines
    assert [line for line in lines if "/spoilt/" not in line] == []
