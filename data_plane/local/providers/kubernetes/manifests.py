"""Resources of the program as Kubernetes objects: their kind, their manifest, and where two objects differ."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from data_plane.local.providers.base import Inputs

__all__ = ["CLUSTER_KINDS", "Kind", "Manifest", "differing", "kind_of", "object_id", "to_wire"]

Manifest = dict[str, Any]

CLUSTER_KINDS = frozenset(
    {
        "APIService",
        "CSIDriver",
        "CSINode",
        "CertificateSigningRequest",
        "ClusterRole",
        "ClusterRoleBinding",
        "CustomResourceDefinition",
        "FlowSchema",
        "IngressClass",
        "MutatingWebhookConfiguration",
        "Namespace",
        "Node",
        "PersistentVolume",
        "PriorityClass",
        "PriorityLevelConfiguration",
        "RuntimeClass",
        "StorageClass",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
        "ValidatingWebhookConfiguration",
        "VolumeAttachment",
    }
)
"""Kinds of Kubernetes' own that are in no namespace."""

# Not Kubernetes kinds, but things that stand for many of them.
_BUNDLES = ("helm.sh", "kustomize", "yaml")
_OWN_GROUP = re.compile(r"[a-z]+|.*\.k8s\.io")
# Field names that the SDK cannot spell.
_DASHED = {
    f"x_kubernetes_{name}": f"x-kubernetes-{name.replace('_', '-')}"
    for name in (
        "embedded_resource",
        "int_or_string",
        "list_map_keys",
        "list_type",
        "map_type",
        "preserve_unknown_fields",
        "validations",
    )
}
_SERVER_FIELDS = (
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generation",
    "managedFields",
    "resourceVersion",
    "selfLink",
    "uid",
)


@dataclass(frozen=True)
class Kind:
    """A kind in one version of its API group; the core group has no name."""

    group: str
    version: str
    name: str

    @property
    def api_version(self) -> str:
        """As manifests have it: ``apps/v1``, or ``v1`` in the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def builtin(self) -> bool:
        """Whether it is one of Kubernetes' own, not a custom resource."""
        return _OWN_GROUP.fullmatch(self.group) is not None or not self.group


def kind_of(type_: str, inputs: Inputs) -> Kind:
    """The kind that a type token stands for.

    Args:
        type_: e.g. ``kubernetes:apps/v1:Deployment``.
        inputs: of the resource; a patch and a list are recognised by them.

    Raises:
        NotImplementedError: for what is not a single whole object.
    """
    _, _, rest = type_.partition(":")
    group_version, _, name = rest.rpartition(":")
    group, _, version = group_version.partition("/")
    if group in _BUNDLES:
        raise NotImplementedError(f"a {type_} cannot be rendered: declare the objects in it as resources of their own")
    if inputs.get("kind") == name.removesuffix("Patch") != name:
        raise NotImplementedError(f"a {type_} cannot be rendered: declare the whole object, or what it patches")
    if name.endswith("List") and "items" in inputs:
        raise NotImplementedError(
            f"a list cannot be rendered: declare the items of the {type_} as resources of their own"
        )
    if not version:
        raise NotImplementedError(f"{type_} names no group and version; the core group's is `core/v1`")
    return Kind("" if group == "core" else group, version, name)


def to_wire(document: Inputs) -> Manifest:
    """An object as a server takes it, without what only a server can set."""
    wire: Manifest = _renamed(dict(document), _DASHED)
    return {**wire, "metadata": {key: value for key, value in wire["metadata"].items() if key not in _SERVER_FIELDS}}


def object_id(document: Inputs) -> str:
    """A resource's ID: ``namespace/name``, or ``name`` if it is in no namespace."""
    namespace, name = document["metadata"].get("namespace"), document["metadata"]["name"]
    return f"{namespace}/{name}" if namespace else str(name)


def differing(before: Inputs, after: Inputs) -> list[str]:
    """Paths of the fields in which two versions of an object differ."""
    return list(_differing(_renamed(dict(before), _DASHED), _renamed(dict(after), _DASHED), ""))


def _differing(before: Any, after: Any, path: str) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() | after.keys()):
            step = f'["{key}"]' if "." in key else f".{key}" if path else key
            yield from _differing(before.get(key), after.get(key), path + step)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from _differing(one, other, f"{path}[{number}]")
    elif before != after:
        yield path


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {names.get(key, key): _renamed(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [_renamed(item, names) for item in value]
    return value
