"""Kubernetes' API as the runner needs it: discovery, reading, and server-side apply of any kind."""

import json
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import urllib3
import yaml
from kubernetes.client import ApiClient, Configuration
from kubernetes.client.exceptions import ApiException
from kubernetes.config import ConfigException
from kubernetes.config.kube_config import KubeConfigLoader

from embedded.runner.providers.base import Inputs
from embedded.runner.providers.kubernetes.manifests import Kind, Manifest

__all__ = ["ApiError", "Cluster", "KubernetesError", "Resource", "connect"]

_CONNECT_SECONDS = 10
_ANSWER_SECONDS = 60
_NOT_FOUND = 404
_DEFAULT_KUBECONFIG = "~/.kube/config"


class KubernetesError(Exception):
    """Whatever the cluster has against a resource, in one line that ends with what to do."""


class ApiError(Exception):
    """An answer of the API server that is a refusal."""

    def __init__(self, status: int, body: str) -> None:
        try:
            document = json.loads(body)
        except ValueError:
            document = {}
        answer: dict[str, Any] = document if isinstance(document, dict) else {}
        details = answer.get("details") or {}
        self.status = status
        self.reason = str(answer.get("reason") or "")
        self.message = str(answer.get("message") or body.strip()[:200] or f"status {status}")
        self.about = str(details.get("kind") or "")
        self.causes: list[dict[str, str]] = details.get("causes") or []
        super().__init__(self.message)


@dataclass(frozen=True)
class Resource:
    """Where the API has the objects of a kind."""

    root: str
    plural: str
    namespaced: bool

    def path(self, namespace: str | None, name: str = "") -> str:
        """The path of an object, or of all objects."""
        inside = f"/namespaces/{quote(namespace, safe='')}" if self.namespaced and namespace else ""
        return f"{self.root}{inside}/{self.plural}" + (f"/{quote(name, safe='')}" if name else "")


@dataclass
class Cluster:
    """A cluster and who asks it.

    Args:
        client: the connection.
        server: its address, for messages.
        namespace: the one of objects that name none.
    """

    client: ApiClient
    server: str
    namespace: str
    _resources: dict[Kind, Resource] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def resource(self, kind: Kind) -> Resource | None:
        """Where a kind is, or None if the cluster does not have it (yet).

        Raises:
            ApiError, urllib3.exceptions.HTTPError: if it cannot be asked.
        """
        with self._lock:
            if kind in self._resources:
                return self._resources[kind]
        root = f"/apis/{kind.api_version}" if kind.group else f"/api/{kind.version}"
        listed = self.get(root)
        for item in (listed or {}).get("resources", []):
            if item["kind"] == kind.name and "/" not in item["name"]:
                found = Resource(root, item["name"], bool(item["namespaced"]))
                with self._lock:
                    self._resources[kind] = found
                return found
        return None

    def get(self, path: str, query: Mapping[str, str] | None = None) -> Manifest | None:
        """What is at a path, or None.

        Raises:
            ApiError, urllib3.exceptions.HTTPError: if it cannot be had.
        """
        try:
            return self._request("GET", path, query or {})
        except ApiError as error:
            if error.status == _NOT_FOUND:
                return None
            raise

    def apply(
        self, resource: Resource, document: Manifest, *, manager: str, force: bool, dry_run: bool = False
    ) -> Manifest:
        """Makes an object as declared by server-side apply, or with ``dry_run`` only says what it would be.

        Args:
            manager: who is to own the declared fields.
            force: whether to take fields away from others.

        Raises:
            ApiError, urllib3.exceptions.HTTPError: if it cannot be done.
        """
        query = {
            "fieldManager": manager,
            "force": "true" if force else "false",
            # A misspelt field would be dropped in silence otherwise, and never be a difference.
            "fieldValidation": "Strict",
        }
        if dry_run:
            query["dryRun"] = "All"
        metadata = document["metadata"]
        path = resource.path(metadata.get("namespace"), metadata["name"])
        return self._request("PATCH", path, query, document, "application/apply-patch+yaml")

    def close(self) -> None:
        """Ends the connections."""
        self.client.rest_client.pool_manager.clear()
        self.client.close()  # type: ignore[no-untyped-call]

    def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Manifest | None = None,
        content_type: str = "application/json",
    ) -> Manifest:
        headers = {"Accept": "application/json", **({"Content-Type": content_type} if body is not None else {})}
        request = self.client.param_serialize(
            method, path, None, list(query.items()), headers, body, auth_settings=["BearerToken"]
        )
        answer = self.client.call_api(*request, _request_timeout=(_CONNECT_SECONDS, _ANSWER_SECONDS))
        text = (answer.read() or b"").decode("utf-8", "replace")  # type: ignore[no-untyped-call]
        if not 200 <= answer.status < 300:
            raise ApiError(answer.status, text)
        return dict(json.loads(text))


def connect(inputs: Inputs) -> Cluster:
    """The cluster that a provider resource names.

    Args:
        inputs: ``kubeconfig`` (a path or its content; else ``KUBECONFIG``, else ``~/.kube/config``), ``context``,
            ``cluster``, ``namespace``.

    Raises:
        KubernetesError: if they name none.
    """
    text, folder, origin = _kubeconfig(inputs.get("kubeconfig"))
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", -1) + 1
        # Not the parser's own message, which quotes what may be a key.
        raise KubernetesError(f"{origin} is no kubeconfig: it is no YAML in line {line}; correct it") from None
    if not isinstance(document, dict) or "clusters" not in document:
        raise KubernetesError(f"{origin} is no kubeconfig: give the path of one, or its content")
    context = inputs.get("context") or document.get("current-context")
    _use_cluster(document, context, inputs.get("cluster"))
    configuration = Configuration()
    try:
        loader = KubeConfigLoader(document, active_context=context, config_base_path=str(folder))  # type: ignore[no-untyped-call]
        loader.load_and_set(configuration)  # type: ignore[no-untyped-call]
    except ConfigException as error:
        raise KubernetesError(f"{origin}, context {context!r}: {error}; correct it or name another context") from None
    namespace = inputs.get("namespace") or (loader.current_context["context"] or {}).get("namespace") or "default"
    return Cluster(ApiClient(configuration), str(configuration.host), str(namespace))


def _kubeconfig(given: str | None) -> tuple[str, Path, str]:
    """The content of a kubeconfig, the folder that paths in it are relative to, and how to call it."""
    if given and ("\n" in given or given.lstrip().startswith("{")):
        return given, Path(), "the provider's kubeconfig"
    told = given or os.environ.get("KUBECONFIG") or _DEFAULT_KUBECONFIG
    path = Path(told).expanduser()
    try:
        return path.read_text(encoding="utf-8"), path.parent, str(path)
    except OSError as error:
        raise KubernetesError(
            f"the kubeconfig {path} cannot be read ({error.strerror}): set the provider's kubeconfig, or KUBECONFIG"
        ) from None


def _use_cluster(document: dict[str, Any], context: str | None, cluster: str | None) -> None:
    for item in document.get("contexts") or []:
        if cluster and item.get("name") == context:
            item["context"] = {**item["context"], "cluster": cluster}


UNREACHABLE = (urllib3.exceptions.HTTPError, ApiException)
"""What the connection itself raises."""
