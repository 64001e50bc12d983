"""Applies the manifests that the program renders to a real API server, as `kubectl apply --server-side` would."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.dynamic import DynamicClient
from kubernetes.dynamic.exceptions import ResourceNotFoundError

from data_plane.local.processes import wait_until
from data_plane.local.providers import PROVIDERS
from data_plane.local.providers.base import Inputs
from data_plane.local.providers.kubernetes import KubernetesProvider
from tests.conftest import Cluster

MANAGER = "data-plane-tests"
_READY_SECONDS = 300


def render_to(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Lets the local runner render what the program would have applied to a cluster."""

    class Rendering(KubernetesProvider):
        def connect(self, inputs: Inputs) -> None:
            super().connect({"renderYamlToDirectory": str(folder)})

    patch.setitem(PROVIDERS, "kubernetes", Rendering)


def apply(cluster: Cluster, folder: Path) -> dict[str, dict[str, Any]]:
    """Applies every manifest below a folder, strictly, and gives what was made or changed: `Kind namespace/name` → it."""
    client = DynamicClient(cluster.api)  # type: ignore[no-untyped-call]
    documents = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.yaml"))]
    changed: dict[str, dict[str, Any]] = {}
    for document in sorted(documents, key=lambda document: document["kind"] != "Namespace"):
        resource = _resource(client, document)
        metadata = document["metadata"]
        name, namespace = metadata["name"], metadata.get("namespace")
        before = _declared(client.get(resource, namespace=namespace, field_selector=f"metadata.name={name}").items)  # type: ignore[no-untyped-call]
        done: Any = client.server_side_apply(  # type: ignore[no-untyped-call]
            resource,
            body=document,
            name=name,
            namespace=namespace,
            field_manager=MANAGER,
            force_conflicts=True,
            query_params=[("fieldValidation", "Strict")],
        )
        if _declared([done]) != before:
            changed[f"{document['kind']} {namespace}/{name}"] = document
    return changed


def _resource(client: DynamicClient, document: dict[str, Any]) -> Any:
    """Where the server has a kind; one that was defined just now takes a moment."""
    found: list[Any] = []

    def look() -> bool:
        try:
            found.append(client.resources.get(api_version=document["apiVersion"], kind=document["kind"]))
        except ResourceNotFoundError:
            client.resources.invalidate_cache()
        return bool(found)

    assert wait_until(look, 60), f"the server has no kind {document['kind']} in {document['apiVersion']}"
    return found[0]


def _declared(objects: list[Any]) -> list[dict[str, Any]]:
    """Objects without what the server and controllers keep in them."""
    found = [item.to_dict() for item in objects]
    for item in found:
        item.pop("status", None)
        item["metadata"] = {
            key: value
            for key, value in item["metadata"].items()
            if key not in ("resourceVersion", "managedFields", "generation")
        }
        # A controller's own, e.g. a Deployment's revision.
        annotations = item["metadata"].pop("annotations", None) or {}
        item["metadata"]["annotations"] = {
            key: value for key, value in annotations.items() if "kubernetes.io/" not in key
        }
    return found


def pods_get_ready(cluster: Cluster, *namespaces: str) -> bool:
    """Whether all that runs Pods in some namespaces has as many as it wants, in time."""
    client = DynamicClient(cluster.api)  # type: ignore[no-untyped-call]

    def ready() -> bool:
        found = [
            item.to_dict()
            for kind in ("Deployment", "StatefulSet", "DaemonSet")
            for namespace in namespaces
            for item in client.resources.get(api_version="apps/v1", kind=kind).get(namespace=namespace).items
        ]
        return bool(found) and all(_is_ready(item) for item in found)

    return wait_until(ready, _READY_SECONDS)


def _is_ready(item: dict[str, Any]) -> bool:
    status = item.get("status") or {}
    wanted = status.get("desiredNumberScheduled") or item["spec"].get("replicas") or 0
    observed = status.get("observedGeneration") == item["metadata"]["generation"]
    return bool(observed and (status.get("readyReplicas") or status.get("numberReady") or 0) == wanted)
