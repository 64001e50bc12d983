"""Nobody gets a Postgres of their own, whatever the door: the one place for it is the central stack."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from pulumi_policy import Policy, Severity

from policies.central import CENTRAL_SETTINGS, is_central
from policies.commands import started_by
from policies.containers import Container, containers_in
from policies.documents import (
    chart_reasons,
    data_file,
    documents_in,
    looked_up,
    matches,
    object_reasons,
    operator_reason,
)
from policies.images import Image, classify
from policies.references import image_references
from policies.rules import Config, Finding, Resource, is_unknown, resource_policy, stack_policy

__all__ = ["POLICIES"]

_INSTEAD = "Attach the project to the central Supabase instead: a file stacks/<environment>/projects/<slug>.yaml"

_SETTINGS: dict[str, dict[str, Any]] = {
    **CENTRAL_SETTINGS,
    "allowedImages": {
        "type": "array",
        "items": {"type": "string"},
        "default": [],
        "description": "Patterns of repositories that are no server although their name says so.",
    },
}

_HELM = re.compile(r"^kubernetes:helm\.sh/[^:]+:(Release|Chart)$|^kubernetes:helm/[^:]*:(Release|Chart)$")
_MANIFESTS = re.compile(r"^kubernetes:(yaml(/v\d+)?|kustomize(/v\d+)?):")
_DYNAMIC = re.compile(r"^(command:|pulumi-(nodejs|python):dynamic|null:|terraform:index|local:index)")


def _not_central(resource: Resource, config: Config) -> bool:
    return not is_central(resource, config)


def _allowed(reference: str, config: Config) -> bool:
    image = Image.parse(reference)
    path = "/".join(filter(None, [image.registry, *image.path]))
    return any(fnmatchcase(path, str(pattern).lower()) for pattern in config["allowedImages"])


def _container_reasons(containers: Iterable[Container], config: Config) -> Iterator[str]:
    for container in containers:
        reason = container.forbidden()
        if reason and not _allowed(container.image, config):
            yield f"container {container.name or '(unnamed)'} ({container.path}): {reason}"


# Kubernetes


def _workload(resource: Resource, config: Config) -> Iterable[str]:
    if not resource.type.startswith("kubernetes:") or _HELM.match(resource.type) or _MANIFESTS.match(resource.type):
        return
    if _not_central(resource, config):
        yield from _container_reasons(containers_in(resource.properties), config)


def _operator_resource(resource: Resource, config: Config) -> Iterable[str]:
    if not resource.type.startswith("kubernetes:") or not _not_central(resource, config):
        return
    version, _, kind = resource.type.removeprefix("kubernetes:").rpartition(":")
    said, said_kind = resource.properties.get("apiVersion"), resource.properties.get("kind")
    # A custom resource says of itself what it is; what the type says holds too.
    candidates = {(version, kind)}
    if isinstance(said, str) and isinstance(said_kind, str):
        candidates.add((said, said_kind))
    for api_version, name in sorted(candidates):
        reason = operator_reason(api_version, name, resource.properties)
        if reason:
            yield reason
            return


def _helm(resource: Resource, config: Config) -> Iterable[str]:
    if not _HELM.match(resource.type) or not _not_central(resource, config):
        return
    properties = resource.properties
    # `fetchOpts` and `repo` are how the older chart resources say it.
    repository = (
        looked_up(properties, "repositoryOpts.repo")
        or looked_up(properties, "fetchOpts.repo")
        or properties.get("repo")
        or ""
    )
    chart = properties.get("chart") or properties.get("path") or ""
    given: list[object] = [properties.get("values") or {}]
    for entry in properties.get("valueYamlFiles") or ():
        given += documents_in(_asset_text(entry))
    for values in given:
        yield from chart_reasons(chart, repository, values)
        yield from _container_reasons(containers_in(values), config)


def _manifests(resource: Resource, config: Config) -> Iterable[str]:
    if not _MANIFESTS.match(resource.type) or not _not_central(resource, config):
        return
    for document in _inline(resource.properties):
        yield from object_reasons(document)


def _inline(properties: Mapping[str, Any]) -> Iterator[object]:
    texts = properties.get("yaml")
    for text in [texts] if isinstance(texts, str) else texts or ():
        yield from documents_in(text)
    objects = properties.get("objs")
    yield from [objects] if isinstance(objects, Mapping) else objects or ()
    files = properties.get("files")
    for name in [properties.get("file"), *([files] if isinstance(files, str) else files or ())]:
        if isinstance(name, str) and not is_unknown(name):
            # Where the file is not here, its objects are resources of their own, and are seen as such.
            for path in sorted(Path().glob(name)) if "*" in name and not name.startswith("/") else [Path(name)]:
                if path.is_file():
                    yield from documents_in(path.read_text(encoding="utf-8", errors="replace"))


def _asset_text(asset: object) -> str:
    if not isinstance(asset, Mapping):
        return ""
    if isinstance(asset.get("text"), str):
        return str(asset["text"])
    path = Path(str(asset.get("path", "")))
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


# Databases inside a server, and roles that could make one

_DATABASE = re.compile(r"^postgresql:(index|index/\w+):(Database|Server)$")


def _database_or_role(resource: Resource, config: Config) -> Iterable[str]:
    if not resource.type.startswith("postgresql:") or not _not_central(resource, config):
        return
    if _DATABASE.match(resource.type):
        yield f"{resource.type.rpartition(':')[2]} {_shown(resource.properties.get('name'))} is a database of its own"
    if resource.type.endswith(":Role"):
        for key, right in (("createDatabase", "CREATEDB"), ("superuser", "SUPERUSER")):
            value = resource.properties.get(key)
            if value is True or value == "true" or is_unknown(value):
                yield f"role {_shown(resource.properties.get('name'))} has {right}"


# Clouds


@cache
def _managed() -> tuple[tuple[str, str, str], ...]:
    entries = data_file("managed_databases.yaml")
    return tuple((entry["type"].lower(), entry.get("property", ""), entry.get("values", "")) for entry in entries)


def _managed_database(resource: Resource, config: Config) -> Iterable[str]:
    token = resource.type.lower()
    if token.startswith(("pulumi:", "kubernetes:", "postgresql:", "vault:", "supabase-data-plane:")):
        return
    for pattern, name, values in _managed():
        if fnmatchcase(token, pattern) and _not_central(resource, config):
            value = looked_up(resource.properties, name) if name else None
            if not name or matches(value, values):
                yield f"{resource.type} is a managed PostgreSQL{f' ({name}: {_shown(value)})' if name else ''}"
                return


# Containers elsewhere

_ELSEWHERE = re.compile(
    r"^(docker(-build)?|podman|dokploy|coolify|portainer|nomad|lxd|rke):|ecs/taskDefinition|:ecs:TaskDefinition|cloudrun|:run/"
    r"|containerinstance|containerservice/group|containerapp|app:Container|lightsail/containerService|apprunner|fly:|railway:|koyeb:|render:",
    re.IGNORECASE,
)
_PULL_ONLY = re.compile(r":(remoteImage|RegistryImage|Tag)$", re.IGNORECASE)


def _elsewhere(resource: Resource, config: Config) -> Iterable[str]:
    if not _ELSEWHERE.search(resource.type) or _PULL_ONLY.search(resource.type) or not _not_central(resource, config):
        return
    for path, reference in image_references(resource.properties):
        family = classify(reference)
        if family and not _allowed(reference, config):
            yield f"{path}: image {reference} is {family.value}"


# Commands

_TEXTS_SKIPPED = frozenset({"__provider"})


def _command(resource: Resource, config: Config) -> Iterable[str]:
    if not _DYNAMIC.match(resource.type) or not _not_central(resource, config):
        return
    for path, text in _texts(resource.properties):
        for reason in started_by(text, lambda reference: _allowed(reference, config)):
            yield f"{path} {reason}"


def _texts(value: object, path: str = "", depth: int = 32) -> Iterator[tuple[str, str]]:
    if depth == 0:
        return
    if isinstance(value, str):
        if not is_unknown(value):
            yield path, value
    elif isinstance(value, Mapping):
        for key, entry in value.items():
            if key not in _TEXTS_SKIPPED:
                yield from _texts(entry, f"{path}.{key}" if path else str(key), depth - 1)
    elif isinstance(value, list):
        if value and all(isinstance(entry, str) for entry in value):
            # The words of one command.
            yield path, " ".join(value)
        else:
            for index, entry in enumerate(value):
                yield from _texts(entry, f"{path}[{index}]", depth - 1)


# A Supabase of one's own


def _bundled(resources: Sequence[Resource], config: Config) -> Iterable[Finding]:
    found: dict[str, Resource] = {}
    for resource in resources:
        if not _not_central(resource, config):
            continue
        references = [container.image for container in containers_in(resource.properties)]
        if _ELSEWHERE.search(resource.type):
            references += [reference for _, reference in image_references(resource.properties)]
        for reference in references:
            part = Image.parse(reference).part_of_supabase
            if part:
                found.setdefault(part, resource)
    core = [part for part in ("gotrue", "postgrest") if part in found]
    if core and len(found) > 1:
        yield Finding(f"{', '.join(sorted(found))} together are a Supabase of the stack's own", found[core[0]].urn)


def _shown(value: object) -> str:
    return "(not known yet)" if is_unknown(value) else json.dumps(value) if not isinstance(value, str) else value


POLICIES: list[Policy] = [
    resource_policy(
        "no-postgres-workload",
        "Only the central stack runs PostgreSQL: no workload of Kubernetes may.",
        _workload,
        instead=_INSTEAD,
        settings=_SETTINGS,
        severity=Severity.CRITICAL,
    ),
    resource_policy(
        "no-postgres-operator-resource",
        "Only the central stack asks an operator for a PostgreSQL.",
        _operator_resource,
        instead=_INSTEAD,
        settings=CENTRAL_SETTINGS,
        severity=Severity.CRITICAL,
    ),
    resource_policy(
        "no-postgres-helm",
        "Only the central stack installs PostgreSQL: no chart may, and none may bundle one.",
        _helm,
        instead=f"{_INSTEAD}, and switch off what the chart bundles (`postgresql.enabled: false`)",
        settings=_SETTINGS,
        severity=Severity.CRITICAL,
    ),
    resource_policy(
        "no-postgres-manifest",
        "Only the central stack runs PostgreSQL: no manifest that a program reads may hold one.",
        _manifests,
        instead=_INSTEAD,
        settings=CENTRAL_SETTINGS,
        severity=Severity.CRITICAL,
    ),
    resource_policy(
        "no-managed-postgres",
        "No PostgreSQL of a cloud's beside the central one.",
        _managed_database,
        instead=_INSTEAD,
        settings=CENTRAL_SETTINGS,
        severity=Severity.CRITICAL,
    ),
    resource_policy(
        "no-postgres-database-or-admin-role",
        "No database beside the central one's, and no role that could make one.",
        _database_or_role,
        instead=f"{_INSTEAD} gives a schema of its own",
        settings=CENTRAL_SETTINGS,
        severity=Severity.CRITICAL,
    ),
    resource_policy(
        "no-postgres-container",
        "Only the central stack runs PostgreSQL: no container of Docker, Compose, Dokploy, Nomad or a cloud may.",
        _elsewhere,
        instead=_INSTEAD,
        settings=_SETTINGS,
        severity=Severity.CRITICAL,
    ),
    resource_policy(
        "no-postgres-by-command",
        "Only the central stack runs PostgreSQL: no command or dynamic resource may start one.",
        _command,
        instead=_INSTEAD,
        settings=_SETTINGS,
        severity=Severity.CRITICAL,
    ),
    stack_policy(
        "no-bundled-supabase",
        "One Supabase for all: its services are not run a second time.",
        _bundled,
        instead=_INSTEAD,
        settings=CENTRAL_SETTINGS,
        severity=Severity.HIGH,
    ),
]
