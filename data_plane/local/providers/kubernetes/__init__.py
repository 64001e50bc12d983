"""Every type of the kubernetes provider, as files: what the official one does with ``renderYamlToDirectory``.

Nothing is applied to a cluster. Differences to the official provider: a file that is missing or was changed is written
again, and a resource without a name always gets the same one.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from pulumi.provider.experimental import provider as rpc

from data_plane.engine.runner.properties import Properties
from data_plane.local.providers.base import Found, Inputs, LocalProvider, ProviderError, ResourceType
from data_plane.local.providers.kubernetes.manifests import CLUSTER_KINDS, Manifest, differing, kind_of, object_id
from data_plane.local.providers.kubernetes.rendering import Folder, rendered

__all__ = ["KubernetesProvider"]

_PACKAGE = "kubernetes:"
_RENDER = "renderYamlToDirectory"
_AUTONAMED = "pulumi.com/autonamed"
_SUFFIX_CHARACTERS = 8
_DEFINITION = "CustomResourceDefinition"


@dataclass(frozen=True)
class _Rendered(ResourceType):
    """A type of which each resource is a file."""

    def differing(self, there: Inputs, desired: Inputs) -> list[str]:
        return differing(there, desired)


class KubernetesProvider(LocalProvider):
    """A folder of manifests."""

    removes = True

    def connect(self, inputs: Inputs) -> None:
        if not (directory := inputs.get(_RENDER)):
            raise ProviderError(
                "manifests are only rendered here: set `kubernetes.renderTo`, or apply them to a cluster with the "
                "Pulumi CLI and its kubernetes plugin"
            )
        # A kubeconfig that is only the environment's does not count.
        environment = os.environ.get("KUBECONFIG")
        named = [key for key in ("cluster", "context", "kubeconfig") if inputs.get(key) not in ("", None, environment)]
        if named:
            raise ProviderError(f"the provider's {named[0]} does not go with {_RENDER}: leave one of them out")
        self._namespace = inputs.get("namespace") or None
        self._folder = Folder(Path(directory).expanduser().absolute())
        # Where there is no cluster to ask, the definitions of this run say which kinds are in no namespace.
        self._cluster_wide: set[tuple[str, str]] = set()

    def type(self, token: str) -> ResourceType | None:
        if not token.startswith(_PACKAGE):
            return None
        keys = ("apiVersion", "kind", "metadata.name", "metadata.namespace")
        return _Rendered(self._read_file, self._write_file, self._delete_file, keys)

    def explain(self, error: Exception) -> str | None:
        return f"{error.strerror}: {error.filename}" if isinstance(error, OSError) else None

    async def check(self, request: rpc.CheckRequest) -> rpc.CheckResponse:
        inputs = Properties.of(request.new_inputs)
        document = self._complete(request, inputs.values)
        if inputs.secrets:
            path = self._folder.file(document)
            self.remarks.append(f"{path.name} in {self._folder.path} holds a secret in plain text")
        return rpc.CheckResponse(Properties(document, inputs.secrets).marked())

    def _complete(self, request: rpc.CheckRequest, inputs: Inputs) -> Manifest:
        """The manifest, with a name, and in the provider's namespace if it is in none and belongs in one."""
        kind = kind_of(request.type.rpartition("$")[2], inputs)
        metadata = dict(inputs.get("metadata") or {})
        document = {**inputs, "apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata}
        if "name" not in metadata:
            if "generateName" in metadata:
                raise ProviderError(f"{kind.name} {request.name}: metadata.generateName cannot be rendered; name it")
            suffix = hashlib.sha256(request.urn.encode()).hexdigest()[:_SUFFIX_CHARACTERS]
            metadata["name"] = f"{request.name}-{suffix}"
            metadata["annotations"] = {**(metadata.get("annotations") or {}), _AUTONAMED: "true"}
        if kind.name == _DEFINITION and inputs["spec"].get("scope") == "Cluster":
            self._cluster_wide.add((inputs["spec"]["group"], inputs["spec"]["names"]["kind"]))
        if (kind.builtin and kind.name in CLUSTER_KINDS) or (kind.group, kind.name) in self._cluster_wide:
            metadata.pop("namespace", None)
        elif self._namespace is not None:
            metadata.setdefault("namespace", self._namespace)
        return document

    def _read_file(self, desired: Inputs) -> Found | None:
        present = self._folder.read(self._folder.file(desired))
        if present is None:
            return None
        # A Secret's texts are encoded in the file, which is no difference.
        return {**(desired if present == rendered(desired) else present), "id": object_id(desired)}

    def _write_file(self, desired: Inputs, _found: Found | None) -> None:
        self._folder.write(self._folder.file(desired), rendered(desired))

    def _delete_file(self, desired: Inputs) -> None:
        self._folder.file(desired).unlink(missing_ok=True)
