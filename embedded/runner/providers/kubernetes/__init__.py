"""Every type of the kubernetes provider, on a live cluster or as files.

What it does is what pulumi-kubernetes does with server-side apply, with these differences: an object that is there is
adopted, since there is no state to know it by; a misspelt field is refused instead of dropped; a change that needs
another object is refused, since this runner never deletes; and it waits for Deployments, StatefulSets, DaemonSets,
Jobs, claims, definitions and whatever ``pulumi.com/waitFor`` says, but not for Services, Ingresses and single Pods.
"""

import os
import threading
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from embedded.runner.providers.base import Handler, Inputs, Options, ProviderClient
from embedded.runner.providers.kubernetes.api import Cluster, KubernetesError, connect
from embedded.runner.providers.kubernetes.rendering import Folder
from embedded.runner.providers.kubernetes.resources import ClusterResource, RenderedResource, Scopes

__all__ = ["KubernetesClient", "KubernetesError"]

_PACKAGE = "kubernetes:"
_RENDER = "renderYamlToDirectory"


class KubernetesClient(ProviderClient):
    """A connection to a cluster, made when the first resource needs it, or a folder of manifests.

    Raises:
        KubernetesError: if the inputs contradict each other, or ask for what this runner has not.
    """

    def __init__(self, inputs: Inputs) -> None:
        self._inputs = inputs
        self._lock = threading.Lock()
        self._connected: Cluster | None = None
        self._scopes = Scopes()
        self._secret_files: set[str] = set()
        directory = inputs.get(_RENDER)
        self._folder = Folder(Path(directory).expanduser().absolute()) if directory else None
        if self._folder is not None:
            self._refuse_cluster()
        if "enableServerSideApply" in inputs and not _is_true(inputs, "enableServerSideApply"):
            raise KubernetesError("the embedded runner has server-side apply only: leave enableServerSideApply out")

    @cached_property
    def handlers(self) -> Mapping[str, Handler]:
        return {}

    @cached_property
    def functions(self) -> Mapping[str, Callable[[Inputs], dict[str, Any]]]:
        return {}

    def handler(self, type_: str, options: Options) -> Handler | None:
        if not type_.startswith(_PACKAGE):
            return None
        if self._folder is not None:
            namespace = self._inputs.get("namespace") or None
            rendered = RenderedResource(type_, options, self._folder, namespace, self._scopes, self._secret_files.add)
            return Handler(rendered.read, rendered.apply)
        force = _is_true(self._inputs, "enablePatchForce")
        resource = ClusterResource(type_, options, self._cluster, force=force)
        return Handler(resource.read, resource.apply, check=resource.check, wait=resource.wait)

    def remarks(self) -> list[str]:
        if self._folder is None:
            return []
        secret = [f"{name} in {self._folder.path} holds a secret in plain text" for name in sorted(self._secret_files)]
        # Another stack or provider may have put it there, so it is nothing to delete unasked.
        stale = [
            f"{path} is of no declared resource; delete it unless it is another stack's"
            for path in self._folder.stale()
        ]
        return [*secret, *stale]

    def explain(self, error: Exception) -> str | None:
        return str(error) if isinstance(error, KubernetesError) else None

    def close(self) -> None:
        if self._connected is not None:
            self._connected.close()

    def _cluster(self) -> Cluster:
        with self._lock:
            if self._connected is None:
                self._connected = connect(self._inputs)
            return self._connected

    def _refuse_cluster(self) -> None:
        """As the provider does; a kubeconfig that is only the environment's does not count."""
        named = [key for key in ("cluster", "context", "kubeconfig") if self._inputs.get(key)]
        if self._inputs.get("kubeconfig") == os.environ.get("KUBECONFIG") and "kubeconfig" in named:
            named.remove("kubeconfig")
        if named:
            raise KubernetesError(f"the provider's {named[0]} does not go with {_RENDER}: leave one of them out")


def _is_true(inputs: Inputs, key: str) -> bool:
    """Whether a switch is on; the SDK sends it as JSON in a string."""
    return inputs.get(key) in (True, "true")
