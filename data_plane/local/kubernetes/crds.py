"""The custom resource definitions of the operators that the program's resources are for, as their makers publish them.

They are not committed: they come from the operators' Go modules, whose checksums are pinned here, and are kept in the
user's cache as one JSON document each.
"""

import hashlib
import json
import shutil
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock
from kubernetes import client  # its APIs are imported when they are asked for, which takes a second
from kubernetes.client import ApiClient

from data_plane.engine.go import cache_folder, run_go
from data_plane.errors import ServerError
from data_plane.local.kubernetes.programs import why_unavailable
from data_plane.local.processes import wait_until
from data_plane.local.yaml_loader import SAFE_LOADER

__all__ = ["CRD_SOURCES", "CrdSource", "install_crds", "load_crds"]

_ESTABLISHED_SECONDS = 60
_MANAGER = "embedded-kubernetes"
_AT_ONCE = 4


@dataclass(frozen=True)
class CrdSource:
    """Where an operator's definitions come from."""

    module: str
    version: str
    checksum: str
    """Of the module's files, as ``go.sum`` has it."""
    files: tuple[str, ...]
    """Patterns of the definitions within the module: of the kinds that an application declares."""


CRD_SOURCES = {
    "barman-cloud": CrdSource(
        "github.com/cloudnative-pg/plugin-barman-cloud",
        "v0.15.0",
        "h1:gNVytrzzYUE08wxLDrjfJqy1FPPSFkMe1OEr4s4pVI0=",
        ("config/crd/bases/*.yaml",),
    ),
    "cloudnative-pg": CrdSource(
        "github.com/cloudnative-pg/cloudnative-pg",
        "v1.30.1",
        "h1:d1jxp0jQi7/3zrEhsv9ycD+G5ssmkNvDvTmogaGccCw=",
        ("config/crd/bases/*.yaml",),
    ),
    "external-secrets": CrdSource(
        "github.com/external-secrets/external-secrets",
        "v1.3.2",
        "h1:u2J8RjlHIeF0oZCqtl92adI/uZWUwOesJIDkfql6LqQ=",
        ("config/crds/bases/external-secrets.io_*.yaml", "config/crds/bases/generators.external-secrets.io_*.yaml"),
    ),
    "gateway-api": CrdSource(
        "sigs.k8s.io/gateway-api",
        "v1.6.3",
        "h1:lKpJa5bGlraC/QeACvCpsHLdmO6y0iKfzVl6gzaFEYc=",
        ("config/crd/standard/*.yaml",),
    ),
    "prometheus-operator": CrdSource(
        "github.com/prometheus-operator/prometheus-operator",
        "v0.93.0",
        "h1:AohlYJT+En8TmNpAcEUJ3GsaJTAqfEBwHmGTVpRm/Io=",
        tuple(
            f"example/prometheus-operator-crd/monitoring.coreos.com_{name}.yaml"
            for name in ("podmonitors", "probes", "prometheusrules", "servicemonitors")
        ),
    ),
    "service-binding": CrdSource(
        "github.com/servicebinding/runtime",
        "v1.0.0",
        "h1:WWK7JQGOLna/hdLLLxyvhVEaH+hCz3t2qPo0oeBM4Fc=",
        ("config/crd/bases/*.yaml",),
    ),
}
"""The newest releases whose modules can be had and read by the Go release in ``go.mod``."""


def install_crds(api: ApiClient, operators: Collection[str] = tuple(CRD_SOURCES)) -> list[str]:
    """Applies definitions and waits until their kinds can be used. A second time changes nothing.

    Args:
        api: a client as the administrator.
        operators: whose definitions; keys of :data:`CRD_SOURCES`.

    Returns:
        The definitions' names, e.g. ``clusters.postgresql.cnpg.io``.

    Raises:
        ServerError: if they cannot be had, or are not established in time.
        kubernetes.client.ApiException: if the cluster refuses one.
    """
    definitions = [definition for operator in operators for definition in load_crds(operator)]
    extensions = client.ApiextensionsV1Api(api)

    def apply(definition: dict[str, Any]) -> str:
        name = str(definition["metadata"]["name"])
        extensions.patch_custom_resource_definition(
            name, definition, field_manager=_MANAGER, force=True, _content_type="application/apply-patch+yaml"
        )
        return name

    with ThreadPoolExecutor(_AT_ONCE) as threads:
        names = list(threads.map(apply, definitions))
    waiting = set(names)

    def established() -> bool:
        for name in sorted(waiting):
            status = extensions.read_custom_resource_definition(name).status
            if any(c.type == "Established" and c.status == "True" for c in (status and status.conditions) or []):
                waiting.discard(name)
        return not waiting

    if not wait_until(established, _ESTABLISHED_SECONDS):
        raise ServerError(f"not established after {_ESTABLISHED_SECONDS} s: {', '.join(sorted(waiting))}")
    return names


def load_crds(operator: str) -> list[dict[str, Any]]:
    """An operator's definitions.

    Raises:
        ServerError: if they cannot be had here.
    """
    source = CRD_SOURCES[operator]
    folder = cache_folder()
    key = hashlib.sha256(repr(source).encode()).hexdigest()[:16]
    kept = folder / f"crds-{operator}-{key}.json"
    with FileLock(kept.with_suffix(".lock")):
        if not kept.exists():
            draft = kept.with_suffix(".draft")
            draft.write_text(json.dumps(_download(source)), encoding="utf-8")
            draft.replace(kept)
    return list(json.loads(kept.read_text(encoding="utf-8")))


def _download(source: CrdSource) -> list[dict[str, Any]]:
    if shutil.which("go") is None:
        raise ServerError(f"{why_unavailable()}.")
    module = f"{source.module}@{source.version}"
    answer = json.loads(run_go("mod", "download", "-json", module, folder=cache_folder()))
    if answer["Sum"] != source.checksum:
        raise ServerError(
            f"{module} has the checksum {answer['Sum']}, and {source.checksum} was expected: do not use it."
        )
    files = [file for pattern in source.files for file in sorted(Path(answer["Dir"]).glob(pattern))]
    documents = [document for file in files for document in _documents(file)]
    found = [document for document in documents if document.get("kind") == "CustomResourceDefinition"]
    if not found:
        raise ServerError(f"{module} has no definitions in {', '.join(source.files)}; they have moved.")
    return found


class _Loader(SAFE_LOADER):  # type: ignore[misc]
    """The safe loader, which takes a lone ``=`` for a string as YAML 1.2 does."""


_Loader.add_constructor("tag:yaml.org,2002:value", yaml.SafeLoader.construct_yaml_str)


def _documents(file: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.load_all(file.read_bytes(), _Loader) if document]
