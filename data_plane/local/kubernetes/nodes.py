"""What a cluster of real machines would bring: nodes that take pods, and volumes that fulfil claims."""

from collections.abc import Callable
from typing import Any

from kubernetes import client  # its APIs are imported when they are asked for, which takes a second
from kubernetes.client import ApiClient
from kubernetes.client.exceptions import ApiException

from data_plane.errors import ServerError
from data_plane.local.processes import wait_until

__all__ = ["add_nodes", "add_volumes"]

_READY_SECONDS = 60
_CONFLICT = 409
_ROOM = {"cpu": "1k", "memory": "1Ti", "pods": "10k", "ephemeral-storage": "1Ti"}


def add_nodes(api: ApiClient, count: int = 1) -> list[str]:
    """Nodes that exist for kwok alone; pods scheduled on them get ready at once. Existing ones are left as they are.

    Args:
        api: a client as the administrator.
        count: how many there are to be.

    Returns:
        Their names.

    Raises:
        ServerError: if they do not get ready.
    """
    core = client.CoreV1Api(api)
    names = [f"embedded-{number}" for number in range(1, count + 1)]
    for name in names:
        labels = {
            "kubernetes.io/hostname": name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": "amd64",
            "topology.kubernetes.io/zone": f"zone-{name.rpartition('-')[2]}",
        }
        status = {"capacity": _ROOM, "allocatable": _ROOM}
        _create(core.create_node, {"metadata": {"name": name, "labels": labels}, "status": status})

    def ready() -> bool:
        nodes = api.sanitize_for_serialization(core.list_node().items)  # type: ignore[no-untyped-call]
        conditions = {node["metadata"]["name"]: node.get("status", {}).get("conditions", []) for node in nodes}
        return all(
            any(item["type"] == "Ready" and item["status"] == "True" for item in conditions.get(name, []))
            for name in names
        )

    if not wait_until(ready, _READY_SECONDS):
        raise ServerError(f"the nodes {', '.join(names)} are not ready after {_READY_SECONDS} s: does kwok run?")
    return names


def add_volumes(api: ApiClient, count: int, *, storage_class: str = "standard", size: str = "100Gi") -> None:
    """Volumes that claims of a storage class are bound to; the class is made too. Nothing is ever written to them.

    Args:
        api: a client as the administrator.
        count: how many there are to be.
        storage_class: the class; claims that name none get it.
        size: the most that one claim may ask for.
    """
    default = {"storageclass.kubernetes.io/is-default-class": "true"}
    _create(
        client.StorageV1Api(api).create_storage_class,
        {
            "metadata": {"name": storage_class, "annotations": default},
            "provisioner": "kubernetes.io/no-provisioner",
            "volumeBindingMode": "Immediate",
        },
    )
    for number in range(1, count + 1):
        spec = {
            "storageClassName": storage_class,
            "capacity": {"storage": size},
            "accessModes": ["ReadWriteOnce", "ReadWriteMany"],
            "hostPath": {"path": "/nowhere"},
        }
        volume = {"metadata": {"name": f"{storage_class}-{number}"}, "spec": spec}
        _create(client.CoreV1Api(api).create_persistent_volume, volume)


def _create(create: Callable[[Any], object], document: dict[str, Any]) -> None:
    try:
        create(document)
    except ApiException as error:
        if error.status != _CONFLICT:
            raise
