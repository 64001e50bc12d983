"""The central stack stays sound: pinned images, no secret in the open, data kept, one door, backups."""

import base64
import binascii
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from ipaddress import ip_network
from typing import Any

from pulumi_policy import EnforcementLevel, Policy, Severity

from policies.central import CENTRAL_SETTINGS, is_central_stack
from policies.containers import is_data_folder
from policies.images import Image
from policies.machines import startup_texts
from policies.pods import baseline_reasons, container_groups, host_ports, pod_spec, restricted_reasons
from policies.rules import Config, Finding, Resource, resource_policy, stack_policy
from policies.secret_literals import known_secret, secret_in, secrets_in_command, secrets_in_text
from policies.texts import decoded
from policies.unknown import is_unknown
from policies.values import looked_up

__all__ = ["POLICIES"]

_PREFIX = "supabase-data-plane:central:"
_GATEWAY, _DATABASE, _LOGS, _BACKUPS = (f"{_PREFIX}{name}" for name in ("Gateway", "Database", "Logs", "Backups"))
_DEPTH = 48


def _kind(resource: Resource) -> str:
    """The kind of an object of Kubernetes; empty if it is none."""
    return resource.type.rpartition(":")[2] if resource.type.startswith("kubernetes:") else ""


def _leaves(value: object, path: str = "", depth: int = _DEPTH) -> Iterator[tuple[str, object]]:
    """Every value that is no list and no mapping, and where it stands."""
    if depth == 0:
        return
    if isinstance(value, Mapping):
        for key, entry in value.items():
            yield from _leaves(entry, f"{path}.{key}" if path else str(key), depth - 1)
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            yield from _leaves(entry, f"{path}[{index}]", depth - 1)
    elif not is_unknown(value):
        yield path, value


# Images

_IMAGE = re.compile(r"(^|\.)(image|imageName)$")


def _pinned(resource: Resource, config: Config) -> Iterable[str]:
    if not _kind(resource) or _kind(resource) in {"ConfigMap", "Secret"} or not is_central_stack(resource, config):
        return
    for path, value in _leaves(resource.properties):
        if _IMAGE.search(path) and isinstance(value, str) and value and not Image.parse(value).pinned:
            yield f"{path}: {value} is not always the same image"


# Secrets

_NOT_SEARCHED = re.compile(r"^(pulumi:|pulumi-(python|nodejs):|vault:|postgresql:|random:|tls:)")
_VARIABLES = frozenset({
    "env", "envs", "environment", "environmentVariables", "envVars", "variables", "appSettings", "triggers",
    "secureEnvironmentVariables", "configVars", "connectionStrings",
})  # fmt: skip
_NOTES = frozenset({"annotations", "labels", "tags"})
_COMMANDS = frozenset({"command", "args", "entrypoint", "entrypoints", "cmd", "create", "update", "delete"})


def _secrets(resource: Resource, config: Config) -> Iterable[str]:
    # Their properties are where secrets belong, which is so for Kubernetes' own Secret too: a policy is told values
    # without being told which of them the program has marked as secret.
    if _NOT_SEARCHED.match(resource.type) or _kind(resource) in {"Secret", "SealedSecret"}:
        return
    told = set()
    for path, name, kind in _found(resource):
        if path not in told and not any(fnmatchcase(path, str(pattern)) for pattern in config["allowedPaths"]):
            told.add(path)
            yield f"{path}{f' ({name})' if name else ''} holds {kind}"


def _found(resource: Resource) -> Iterator[tuple[str, str, str]]:
    """Where a secret stands, the name that it goes by there, and its kind."""
    properties = resource.properties
    if _kind(resource) == "ConfigMap":
        for key, text in _files(properties):
            kind = secret_in(key, text) if "\n" not in text else ""
            if kind:
                yield f"data.{key}", "", kind
            else:
                yield from _in_json(text, f"data.{key}", _DEPTH)
        yield from _in_structure(properties.get("metadata"), "metadata", _DEPTH)
        return
    yield from _in_structure(properties, "", _DEPTH)
    yield from _at_the_start(resource)
    if _kind(resource) in {"Release", "Chart"}:
        for path, value in _leaves(properties.get("values"), "values"):
            kind = secret_in(re.split(r"[.\]]", path)[-1], value) if isinstance(value, str) else ""
            if kind:
                yield path, "", kind
    for path, value in _leaves(properties):
        kind = known_secret(value) if isinstance(value, str) else ""
        if kind:
            yield path, "", kind


def _files(properties: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, text in (properties.get("data") or {}).items():
        if isinstance(text, str) and not is_unknown(text):
            yield key, text
    for key, encoded in (properties.get("binaryData") or {}).items():
        try:
            yield key, base64.b64decode(str(encoded), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            continue


def _in_structure(value: object, path: str, depth: int) -> Iterator[tuple[str, str, str]]:
    if depth == 0:
        return
    if isinstance(value, Mapping):
        for key, entry in value.items():
            here = f"{path}.{key}" if path else str(key)
            if key in _VARIABLES:
                yield from _in_variables(entry, here)
            elif key in _NOTES and isinstance(entry, Mapping):
                yield from _in_notes(entry, here)
            elif key in _COMMANDS and isinstance(entry, str | list):
                words = [entry] if isinstance(entry, str) else [word for word in entry if isinstance(word, str)]
                yield from ((here, name, kind) for name, kind in secrets_in_command(words))
            if isinstance(entry, str) and entry.lstrip()[:1] in {"{", "["}:
                yield from _in_json(entry, here, depth - 1)
            else:
                yield from _in_structure(entry, here, depth - 1)
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            yield from _in_structure(entry, f"{path}[{index}]", depth - 1)


def _in_json(text: str, path: str, depth: int) -> Iterator[tuple[str, str, str]]:
    """What a text holds that may be JSON, such as the containers of a task."""
    if text.lstrip()[:1] in {"{", "["}:
        with suppress(ValueError, RecursionError):
            yield from _in_structure(json.loads(text), path, depth)
    yield from ((path, name, kind) for name, kind in secrets_in_text(text))


def _in_notes(notes: Mapping[str, Any], path: str) -> Iterator[tuple[str, str, str]]:
    # Most annotations are about something: `auth-secret: shop/basic` names a Secret.
    for name, value in notes.items():
        if isinstance(value, str) and not is_unknown(value):
            kind = secret_in(str(name), value)
            if kind and kind != "a secret, by its name":
                yield f"{path}.{name}", "", kind
            else:
                yield from _in_json(value, f"{path}.{name}", _DEPTH)


def _at_the_start(resource: Resource) -> Iterator[tuple[str, str, str]]:
    """What a machine is started with."""
    for path, text in startup_texts(resource.properties):
        plain = decoded(text)
        yield from ((path, name, kind) for name, kind in secrets_in_text(plain))
        yield from ((path, name, kind) for line in plain.splitlines() for name, kind in secrets_in_command([line]))


def _in_variables(variables: object, path: str) -> Iterator[tuple[str, str, str]]:
    """Variables in the ways that they are written: a list of names and values, ``NAME=value``, a mapping."""
    given: list[tuple[str, str, object]] = []
    if isinstance(variables, Mapping):
        given = [(f"{path}.{name}", str(name), value) for name, value in variables.items()]
    elif isinstance(variables, list):
        for index, entry in enumerate(variables):
            if isinstance(entry, Mapping):
                name = entry.get("name", entry.get("Name", entry.get("key", "")))
                given.append((f"{path}[{index}].value", str(name), entry.get("value", entry.get("Value"))))
            elif isinstance(entry, str) and "=" in entry:
                variable, _, text = entry.partition("=")
                given.append((f"{path}[{index}]", variable, text))
    for place, name, value in given:
        kind = secret_in(name, value) if isinstance(value, str) and not is_unknown(value) else ""
        if kind:
            yield place, name, kind


# Data

_KEEPS_DATA = re.compile(
    r"^kubernetes:(core/v1:(Namespace|PersistentVolume(Claim)?)|postgresql\.cnpg\.io/v1:Cluster)$"
    r"|^postgresql:index/(schema:Schema|database:Database)$"
)


def _protected(resource: Resource, config: Config) -> Iterable[str]:
    central = is_central_stack(resource, config)
    schema = resource.type == "postgresql:index/schema:Schema"
    kind, spec = _kind(resource), looked_up(resource.properties, "spec")
    spec = spec if isinstance(spec, Mapping) else {}
    if not central and not (schema and str(resource.properties.get("name")).startswith("proj_")):
        return
    keeps = bool(_KEEPS_DATA.match(resource.type) or (kind == "StatefulSet" and spec.get("volumeClaimTemplates")))
    if keeps and not resource.protect and not resource.rendered:
        yield f"{resource.name} holds data and could be deleted by an `up` (protect)"
    if schema and resource.properties.get("dropCascade") is True:
        yield f"{resource.name} would be dropped with all in it (dropCascade)"
    retention = looked_up(spec, "persistentVolumeClaimRetentionPolicy")
    if kind == "StatefulSet" and isinstance(retention, Mapping) and "Delete" in retention.values():
        yield f"{resource.name} deletes its volumes (persistentVolumeClaimRetentionPolicy)"
    if kind == "PersistentVolume" and spec.get("persistentVolumeReclaimPolicy") not in {None, "Retain"}:
        yield f"{resource.name} is deleted with its claim (persistentVolumeReclaimPolicy)"
    if kind == "StorageClass" and resource.properties.get("reclaimPolicy") != "Retain":
        yield f"{resource.name} deletes volumes with their claims (reclaimPolicy)"
    yield from _kept_in_memory(resource)


def _kept_in_memory(resource: Resource) -> Iterator[str]:
    spec = pod_spec(resource) or {}
    volumes = [volume for volume in spec.get("volumes") or () if isinstance(volume, Mapping)]
    lost = {str(volume.get("name")) for volume in volumes if "emptyDir" in volume}
    for _, name, entry in container_groups(spec):
        for mount in entry.get("volumeMounts") or ():
            if isinstance(mount, Mapping) and mount.get("name") in lost and is_data_folder(str(mount.get("mountPath"))):
                yield f"container {name} keeps {mount['mountPath']} in an emptyDir, which goes with its Pod"


# Doors

_ROUTES = re.compile(
    r"^kubernetes:(networking\.k8s\.io/[^:]+|extensions/[^:]+):Ingress(Patch)?$"
    r"|^kubernetes:gateway\.networking\.(x-)?k8s\.io/[^:]+:(\w+Route|Gateway|ListenerSet)(Patch)?$"
    r"|^kubernetes:(traefik\.(io|containo\.us)|networking\.istio\.io|projectcontour\.io|route\.openshift\.io"
    r"|configuration\.konghq\.com|getambassador\.io)/[^:]+:(IngressRoute\w*|Gateway|VirtualService|HTTPProxy|Route"
    r"|TCPIngress|UDPIngress|Mapping|Host)$"
)
_OUTSIDE = frozenset({"NodePort", "LoadBalancer"})


def _doors(resource: Resource, config: Config) -> Iterable[str]:
    if not _kind(resource) or not is_central_stack(resource, config) or _GATEWAY in resource.parent_types:
        return
    if _ROUTES.match(resource.type):
        yield f"{resource.name} ({_kind(resource)}) leads past the gateway"
    spec = resource.properties.get("spec")
    if _kind(resource) == "Service" and isinstance(spec, Mapping):
        if spec.get("type") in _OUTSIDE:
            yield f"{resource.name} is a {spec['type']}"
        if spec.get("externalIPs"):
            yield f"{resource.name} has addresses of its own (externalIPs)"
    pod = pod_spec(resource)
    if pod:
        if pod.get("hostNetwork") is True:
            yield f"{resource.name} is in the node's network"
        for _, name, entry in container_groups(pod):
            yield from (f"container {name} takes port {port} of the node" for port in host_ports(entry))


# Ways out

_METADATA = tuple(
    ip_network(text)
    for text in ("169.254.169.254/32", "168.63.129.16/32", "100.100.100.200/32", "192.0.0.192/32", "fd00:ec2::254/128",
                 "fd20:ce::254/128")
)  # fmt: skip


def _ways_out(resource: Resource, config: Config) -> Iterable[str]:
    if _kind(resource) not in {"NetworkPolicy", "NetworkPolicyPatch"} or not is_central_stack(resource, config):
        return
    rules = looked_up(resource.properties, "spec.egress")
    for index, rule in enumerate(rules if isinstance(rules, list) else ()):
        if not isinstance(rule, Mapping):
            continue
        if not rule.get("to"):
            yield f"{resource.name} leads everywhere (spec.egress[{index}] has no `to`)"
        blocks = [looked_up(peer, "ipBlock") for peer in rule.get("to") or () if isinstance(peer, Mapping)]
        for block in blocks:
            if isinstance(block, Mapping) and (reached := _metadata_in(block)):
                yield f"{resource.name} leads to {reached} (spec.egress[{index}], {block.get('cidr')})"


def _metadata_in(block: Mapping[str, Any]) -> str:
    """A metadata service that an IP block leads to; empty if it leads to none, or cannot be read."""
    try:
        network = ip_network(str(block.get("cidr")), strict=False)
        without = [ip_network(str(text), strict=False) for text in block.get("except") or ()]
    except ValueError:
        return ""
    for address in _METADATA:
        host = address.network_address
        if host in network and not any(host in inside for inside in without):
            return str(host)
    return ""


# Pods

_ENFORCE = "pod-security.kubernetes.io/enforce"


def _restricted(resource: Resource, config: Config) -> Iterable[str]:
    if not is_central_stack(resource, config):
        return
    if resource.type == "kubernetes:core/v1:Namespace":
        labels = looked_up(resource.properties, "metadata.labels")
        level = labels.get(_ENFORCE) if isinstance(labels, Mapping) else None
        if level not in {"restricted", "baseline", "privileged"} and not is_unknown(level):
            yield f"the namespace {resource.name} enforces no level (label {_ENFORCE})"
    spec = pod_spec(resource)
    if spec is None or _LOGS in resource.parent_types:
        # The collector reads the node's log files, which takes a folder of the node's; its namespace has nothing else.
        return
    baseline = _DATABASE in resource.parent_types
    yield from baseline_reasons(spec) if baseline else restricted_reasons(spec)


# Backups

_STORES = re.compile(r"^kubernetes:(apps/v1:StatefulSet|postgresql\.cnpg\.io/v1:Cluster)$")
_BASE_BACKUP = re.compile(r"base-?backup|barman-cloud-backup|wal-g|pgbackrest", re.IGNORECASE)


def _backed_up(resources: Sequence[Resource], config: Config) -> Iterable[Finding]:
    central = [resource for resource in resources if is_central_stack(resource, config)]
    for database in central:
        if not _STORES.match(database.type) or _DATABASE not in database.parent_types:
            continue
        if database.stack in config["stacksWithoutBackups"]:
            continue
        missing = list(_missing(database, central))
        if missing:
            yield Finding(f"the database {database.name} {'; '.join(missing)}", database.urn)


def _missing(database: Resource, resources: Sequence[Resource]) -> Iterator[str]:
    if _kind(database) == "Cluster":
        plugins = looked_up(database.properties, "spec.plugins")
        older = looked_up(database.properties, "spec.backup.barmanObjectStore")
        archives = isinstance(plugins, list) and any(
            isinstance(plugin, Mapping) and plugin.get("isWALArchiver") is True and plugin.get("enabled") is not False
            for plugin in plugins
        )
        stores = [resource.properties for resource in resources if _kind(resource) == "ObjectStore"]
        kept = [looked_up(store, "spec.retentionPolicy") for store in stores]
        kept.append(looked_up(database.properties, "spec.backup.retentionPolicy"))
        if not any(kept):
            yield "keeps no backup for any length of time (retentionPolicy)"
    else:
        older = None
        words = " ".join(map(_words, _containers(database)))
        archives = "archive_mode=on" in words and "archive_mode=off" not in words
    if not archives and not older:
        yield "archives no write-ahead log, so nothing after the last base backup comes back"
    if not any(map(_makes_base_backups, resources)):
        yield "has no base backups by a schedule"


def _makes_base_backups(resource: Resource) -> bool:
    spec = resource.properties.get("spec")
    if not isinstance(spec, Mapping) or spec.get("suspend") is True or not spec.get("schedule"):
        return False
    if _kind(resource) == "ScheduledBackup":
        return True
    return _kind(resource) == "CronJob" and any(_BASE_BACKUP.search(_words(entry)) for entry in _containers(resource))


def _containers(resource: Resource) -> list[Mapping[str, Any]]:
    return [entry for _, _, entry in container_groups(pod_spec(resource) or {})]


def _words(container: Mapping[str, Any]) -> str:
    return " ".join(str(word) for key in ("command", "args") for word in container.get(key) or ())


# Care

_LONG_RUNNING = frozenset({"Deployment", "StatefulSet", "DaemonSet"})


def _resources_and_probes(resource: Resource, config: Config) -> Iterable[str]:
    spec = pod_spec(resource)
    if spec is None or not is_central_stack(resource, config):
        return
    for group, name, entry in container_groups(spec):
        for path in ("requests.cpu", "requests.memory", "limits.memory"):
            if looked_up(entry.get("resources"), path) is None:
                yield f"container {name} has no resources.{path}"
        if group == "containers" and _kind(resource) in _LONG_RUNNING and not entry.get("readinessProbe"):
            yield f"container {name} has no readinessProbe"


def _survives(resources: Sequence[Resource], config: Config) -> Iterable[Finding]:
    central = [resource for resource in resources if is_central_stack(resource, config)]
    budgets = [
        (looked_up(resource.properties, "metadata.namespace"), _selected(resource))
        for resource in central
        if _kind(resource) == "PodDisruptionBudget"
    ]
    for resource in central:
        replicas = looked_up(resource.properties, "spec.replicas")
        if _kind(resource) not in {"Deployment", "StatefulSet"} or not isinstance(replicas, int | float):
            continue
        labels = looked_up(resource.properties, "spec.template.metadata.labels")
        namespace = looked_up(resource.properties, "metadata.namespace")
        own = (labels if isinstance(labels, Mapping) else {}).items()
        covered = any(namespace == where and chosen and chosen.items() <= own for where, chosen in budgets)
        if replicas > 1 and not covered:
            yield Finding(f"{resource.name} has {replicas:g} replicas and no PodDisruptionBudget", resource.urn)


def _selected(budget: Resource) -> Mapping[str, Any]:
    found = looked_up(budget.properties, "spec.selector.matchLabels")
    return found if isinstance(found, Mapping) else {}


POLICIES: list[Policy] = [
    resource_policy(
        "images-are-pinned",
        "An image of the central stack is always the same one.",
        _pinned,
        instead="Give a digest, or a tag with an exact version, in stacks/images.yaml",
        settings=CENTRAL_SETTINGS,
    ),
    resource_policy(
        "no-secret-literal",
        "No secret stands in the open: in a variable, an argument, a ConfigMap or a chart's values.",
        _secrets,
        instead="Keep it in OpenBao (connectors/supabase) and refer to the Secret that External Secrets makes of it",
        settings={
            "allowedPaths": {
                "type": "array",
                "items": {"type": "string"},
                "default": [],
                "description": "Patterns of paths inside a resource where what looks like a secret is none.",
            },
        },
        severity=Severity.CRITICAL,
    ),
    resource_policy(
        "data-is-protected",
        "What holds data is not deleted by a change of the program.",
        _protected,
        instead="Declare it with ResourceOptions(protect=True, retain_on_delete=True), and volumes with Retain",
        settings=CENTRAL_SETTINGS,
        severity=Severity.CRITICAL,
    ),
    resource_policy(
        "only-the-gateway-is-reachable",
        "The gateway is the central stack's one door.",
        _doors,
        instead="Leave it a ClusterIP Service, and add a route to the gateway (components/central/kong_config.py)",
        settings=CENTRAL_SETTINGS,
        severity=Severity.CRITICAL,
    ),
    resource_policy(
        "egress-is-bounded",
        "No Pod of the central stack reaches everywhere, or the metadata service with its node's credentials.",
        _ways_out,
        instead="Name where it has to go; in wide networks except the metadata services (data_plane.model.networks)",
        settings=CENTRAL_SETTINGS,
        severity=Severity.HIGH,
    ),
    resource_policy(
        "pods-are-restricted",
        "Pods keep the Pod Security Standards: restricted, the database baseline.",
        _restricted,
        instead="Build the Pod with components.central.service_deployment, which sets what the level asks for",
        settings=CENTRAL_SETTINGS,
    ),
    stack_policy(
        "backups-are-present",
        "A central database is backed up: base backups by a schedule, and its write-ahead log.",
        _backed_up,
        instead="Set `backups` in the stack's `kubernetes` (docs/how-to/back-up-and-restore.md)",
        settings={
            **CENTRAL_SETTINGS,
            "stacksWithoutBackups": {
                "type": "array",
                "items": {"type": "string"},
                "default": ["local-central"],
                "description": "Stacks whose data may be lost, as that of a local environment.",
            },
        },
        severity=Severity.CRITICAL,
    ),
    resource_policy(
        "containers-have-resources-and-probes",
        "A container says what it needs, and when it can serve.",
        _resources_and_probes,
        instead="Give the service a size in stacks/resources.yaml, and a probe",
        settings=CENTRAL_SETTINGS,
        level=EnforcementLevel.ADVISORY,
        severity=Severity.MEDIUM,
    ),
    stack_policy(
        "replicas-survive-disruption",
        "What runs more than once is not drained all at once.",
        _survives,
        instead="Declare a PodDisruptionBudget for it, as components.central.service_deployment does",
        settings=CENTRAL_SETTINGS,
        level=EnforcementLevel.ADVISORY,
        severity=Severity.MEDIUM,
    ),
]
