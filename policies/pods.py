"""Pods, and what the Pod Security Standards say of them.

Source: kubernetes.io/docs/concepts/security/pod-security-standards.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from policies.rules import Resource
from policies.tables import table
from policies.unknown import is_unknown
from policies.values import looked_up

__all__ = ["baseline_reasons", "container_groups", "host_ports", "pod_spec", "restricted_reasons"]

_TEMPLATES = {
    "Pod": "spec",
    "CronJob": "spec.jobTemplate.spec.template.spec",
}
_TEMPLATE = "spec.template.spec"
_GROUPS = ("initContainers", "containers", "ephemeralContainers")

Named = tuple[str, Mapping[str, Any]]


def pod_spec(resource: Resource) -> Mapping[str, Any] | None:
    """The specification of the Pods that a resource of Kubernetes makes; None if it makes none."""
    if not resource.type.startswith("kubernetes:"):
        return None
    kind = resource.type.rpartition(":")[2].removesuffix("Patch")
    found = looked_up(resource.properties, _TEMPLATES.get(kind, _TEMPLATE))
    return found if isinstance(found, Mapping) and "containers" in found else None


def container_groups(spec: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Every container of a Pod: the list that it is in, its name, and itself."""
    for group in _GROUPS:
        for entry in _mappings(spec.get(group)):
            yield group, str(entry.get("name", "(unnamed)")), entry


def host_ports(container: Mapping[str, Any]) -> list[str]:
    """The ports of the node that a container takes."""
    ports = (port.get("hostPort") for port in _mappings(container.get("ports")))
    return [f"{port:g}" if isinstance(port, int | float) else "(not known yet)" for port in ports if port]


def baseline_reasons(spec: Mapping[str, Any]) -> Iterator[str]:
    """What of a Pod the level ``baseline`` refuses."""
    rules = table("pod_security.yaml")
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if _on(spec.get(key)):
            yield f"the Pod sets {key}"
    for volume in _mappings(spec.get("volumes")):
        if "hostPath" in volume:
            yield f"the volume {volume.get('name')} is a folder of the node's"
    for setting in _mappings(_context(spec).get("sysctls")):
        if setting.get("name") not in rules["sysctls"]:
            yield f"the Pod sets the kernel's {setting.get('name')}"
    for where, context in _contexts(spec):
        yield from _baseline_context(where, context, rules)
    for _, name, entry in container_groups(spec):
        yield from (f"container {name} takes port {port} of the node" for port in host_ports(entry))


def _baseline_context(where: str, context: Mapping[str, Any], rules: Mapping[str, Any]) -> Iterator[str]:
    if _on(context.get("privileged")):
        yield f"{where} is privileged"
    added = {str(entry) for entry in _capabilities(context, "add")} - set(rules["capabilities"])
    if added:
        yield f"{where} adds {', '.join(sorted(added))}"
    if context.get("procMount") not in (None, "Default"):
        yield f"{where} sets procMount"
    if looked_up(context, "seccompProfile.type") == "Unconfined":
        yield f"{where} is without seccomp"
    if looked_up(context, "appArmorProfile.type") == "Unconfined":
        yield f"{where} is without AppArmor"
    if looked_up(context, "seLinuxOptions.type") not in (None, *rules["selinux_types"]):
        yield f"{where} sets its own type of SELinux"
    if _on(looked_up(context, "windowsOptions.hostProcess")):
        yield f"{where} is a process of the node's"


def restricted_reasons(spec: Mapping[str, Any]) -> Iterator[str]:
    """What of a Pod the level ``restricted`` refuses."""
    yield from baseline_reasons(spec)
    rules = table("pod_security.yaml")
    for volume in _mappings(spec.get("volumes")):
        odd = set(volume) - {"name", *rules["volumes"], "hostPath"}
        if odd:
            yield f"the volume {volume.get('name')} is a {', '.join(sorted(odd))}"
    for _, name, entry in container_groups(spec):
        yield from _restricted_container(f"container {name}", _context(spec), _context(entry))


def _restricted_container(where: str, pod: Mapping[str, Any], own: Mapping[str, Any]) -> Iterator[str]:
    both = {**pod, **{key: value for key, value in own.items() if value is not None}}
    if not _is(own.get("allowPrivilegeEscalation"), False):
        yield f"{where} may gain privileges (allowPrivilegeEscalation)"
    if not _is(both.get("runAsNonRoot"), True):
        yield f"{where} may run as root (runAsNonRoot)"
    if both.get("runAsUser") == 0:
        yield f"{where} runs as root (runAsUser: 0)"
    if looked_up(both, "seccompProfile.type") not in {"RuntimeDefault", "Localhost"}:
        yield f"{where} has no seccomp profile"
    if "ALL" not in _capabilities(own, "drop"):
        yield f"{where} keeps capabilities (capabilities.drop: [ALL])"
    # What baseline does not allow either has been told already.
    added = {str(entry) for entry in _capabilities(own, "add")} - {"NET_BIND_SERVICE"}
    if added & set(table("pod_security.yaml")["capabilities"]):
        yield f"{where} adds {', '.join(sorted(added))}"


def _contexts(spec: Mapping[str, Any]) -> Iterator[Named]:
    yield "the Pod", _context(spec)
    for _, name, entry in container_groups(spec):
        yield f"container {name}", _context(entry)


def _context(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    found = entry.get("securityContext")
    return found if isinstance(found, Mapping) else {}


def _mappings(value: object) -> list[Mapping[str, Any]]:
    return [entry for entry in value if isinstance(entry, Mapping)] if isinstance(value, list) else []


def _capabilities(context: Mapping[str, Any], key: str) -> list[object]:
    found = looked_up(context, f"capabilities.{key}")
    return list(found) if isinstance(found, list) else []


def _is(value: object, wanted: bool) -> bool:  # noqa: FBT001 what is compared with
    return value is wanted or is_unknown(value)


def _on(value: object) -> bool:
    return value is True or is_unknown(value)
