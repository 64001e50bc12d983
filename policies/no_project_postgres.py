"""Nobody gets a Postgres of their own, whatever the door: the one place for it is the central stack."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

from pulumi_policy import Policy, Severity

from policies.central import CENTRAL_SETTINGS, is_central
from policies.charts import chart_reasons, dependency_reasons, merged
from policies.clouds import is_template, resource_reason, template_documents, template_reasons
from policies.commands import started_by
from policies.containers import Container, containers_in
from policies.documents import chart_findings, container_findings, object_reasons, operator_findings
from policies.here import folder_here, text_here, texts_here
from policies.images import Image, classify, standalone_supabase
from policies.machines import machine_reasons
from policies.programs import Allowed
from policies.references import containers_run, image_references
from policies.rules import Config, Finding, Resource, resource_policy, stack_policy
from policies.tables import table
from policies.texts import documents_in, values_in
from policies.unknown import is_unknown
from policies.values import looked_up, text_of

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


def _allows(config: Config) -> Allowed:
    return lambda reference: _allowed(reference, config)


def _container_reasons(containers: Iterable[Container], config: Config) -> Iterator[str]:
    for container in containers:
        reason = container.forbidden()
        if reason and not _allowed(container.image, config):
            yield f"container {container.name or '(unnamed)'} ({container.path}): {reason}"


def _listed(properties: Mapping[str, Any], key: str) -> list[Any]:
    """The entries of a property that may be one or a list of them."""
    found = properties.get(key)
    if found is None or is_unknown(found):
        return []
    if isinstance(found, str | Mapping | list):
        return found if isinstance(found, list) else [found]
    raise TypeError


# Kubernetes


def _object(resource: Resource) -> dict[str, Any]:
    """An object of Kubernetes with what its type says of it, unless it says so itself."""
    version, _, kind = resource.type.removeprefix("kubernetes:").rpartition(":")
    said = resource.properties
    own = text_of(said.get("apiVersion")) and text_of(said.get("kind"))
    return dict(said) if own else {**said, "apiVersion": version, "kind": kind}


def _is_object(resource: Resource) -> bool:
    return (
        resource.type.startswith("kubernetes:")
        and not _HELM.match(resource.type)
        and not _MANIFESTS.match(resource.type)
    )


def _workload(resource: Resource, config: Config) -> Iterable[str]:
    if _is_object(resource) and _not_central(resource, config):
        for found in container_findings(resource.properties):
            if not _allowed(found.image or "", config):
                yield found.sentence


def _operator_resource(resource: Resource, config: Config) -> Iterable[str]:
    if _is_object(resource) and _not_central(resource, config):
        yield from dict.fromkeys(found.reason for found in operator_findings(_object(resource)))


@cache
def _installers() -> frozenset[str]:
    # Objects that hold others may hold one as well.
    holders = {"CustomResource", "Object", "ManifestWork", "Composition"}
    return frozenset(kind for entry in table("installers.yaml") for kind in entry["kinds"]) | holders


def _helm(resource: Resource, config: Config) -> Iterable[str]:
    if not resource.type.startswith("kubernetes:") or not _not_central(resource, config):
        return
    if not _HELM.match(resource.type):
        if resource.type.rpartition(":")[2].removesuffix("Patch") in _installers():
            yield from (found.reason for found in chart_findings(_object(resource)))
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
    values = properties.get("values") or {}
    if not isinstance(values, Mapping | str):
        raise TypeError
    given: object = {}
    for entry in _listed(properties, "valueYamlFiles"):
        for document in documents_in(_asset_text(entry)):
            given = merged(given, document)
    values = values if is_unknown(values) else merged(given, values)
    yield from chart_reasons(chart, repository, values)
    yield from _container_reasons(containers_in(values), config)
    yield from _local_chart(chart, values)


def _local_chart(chart: object, values: object) -> Iterator[str]:
    folder = folder_here(chart)
    if folder is None or not (folder / "Chart.yaml").is_file():
        return
    own = values_in(text_here(str(folder / "values.yaml"))) or {}
    for name in ("Chart.yaml", "requirements.yaml"):
        for document in documents_in(text_here(str(folder / name))):
            yield from (f"{name}: {reason}" for _, reason in dependency_reasons(document, merged(own, values)))


def _manifests(resource: Resource, config: Config) -> Iterable[str]:
    if not _MANIFESTS.match(resource.type) or not _not_central(resource, config):
        return
    for document in _inline(resource.properties):
        yield from object_reasons(document)


def _inline(properties: Mapping[str, Any]) -> Iterator[object]:
    for text in _listed(properties, "yaml"):
        yield from documents_in(text)
    yield from _listed(properties, "objs")
    for name in [*_listed(properties, "file"), *_listed(properties, "files")]:
        # Where the file is not here, its objects are resources of their own, and are seen as such.
        for text in texts_here(name):
            yield from documents_in(text)


def _asset_text(asset: object) -> str:
    if not isinstance(asset, Mapping):
        return ""
    return text_of(asset.get("text")) or text_here(asset.get("path"))


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

_OURS = ("pulumi:", "kubernetes:", "postgresql:", "vault:", "supabase-data-plane:", "random:", "tls:")


def _managed_database(resource: Resource, config: Config) -> Iterable[str]:
    if resource.type.lower().startswith(_OURS) or not _not_central(resource, config):
        return
    reason = resource_reason(resource.type, resource.properties)
    if reason:
        yield reason
    elif is_template(resource.type):
        for document in template_documents(resource.properties):
            yield from template_reasons(document)


# Containers elsewhere

_PULL_ONLY = re.compile(r":(remoteImage|RegistryImage|Tag)$", re.IGNORECASE)
_RUNS_CONTAINERS = re.compile(r"^docker:index/(container:Container|service:Service)$")


def _elsewhere(resource: Resource, config: Config) -> Iterable[str]:
    if resource.type.lower().startswith(_OURS) or _PULL_ONLY.search(resource.type) or _DYNAMIC.match(resource.type):
        return
    if _not_central(resource, config):
        for container in containers_run(resource.properties):
            reason = container.forbidden()
            if reason and not _allowed(container.image, config):
                yield f"{container.path}: {reason}"


def _by_image_id(resources: Sequence[Resource], config: Config) -> Iterable[Finding]:
    """Containers whose image is known by its ID only: they are what the resource is that the ID comes from."""
    servers: dict[str, str] = {}
    for resource in resources:
        if resource.type.startswith(("docker:", "docker-build:")) and not _RUNS_CONTAINERS.match(resource.type):
            for key in ("name", "sourceImage", "imageName", "targetImage"):
                reference = text_of(resource.properties.get(key))
                if reference and classify(reference) and not _allowed(reference, config):
                    servers[resource.urn] = reference
                    # What is known after it was pulled; a container may be given it as a plain text.
                    known = ("imageId", "repoDigest", "latest", "targetImage", "ref")
                    servers |= {text_of(resource.properties.get(name)): reference for name in known}
    servers.pop("", None)
    for resource in resources if servers else ():
        if not _RUNS_CONTAINERS.match(resource.type) or not _not_central(resource, config):
            continue
        given = {container.image for container in containers_run(resource.properties)}
        source = next((servers[key] for key in sorted(given | resource.depends_on) if key in servers), "")
        if source and not any(image and classify(image) for image in given):
            yield Finding(f"{resource.name} runs the image {source}, a PostgreSQL server, by its ID", resource.urn)


# Machines


_MACHINE_OBJECTS = re.compile(
    r"^kubernetes:([^/:]*\.)?(kubevirt\.io|cluster\.x-k8s\.io|karpenter[\w.]*|crossplane\.io|upbound\.io"
    r"|harvesterhci\.io|metal3\.io|k8s\.aws|cnrm\.cloud\.google\.com)/"
)


def _machine(resource: Resource, config: Config) -> Iterable[str]:
    ours = resource.type.lower().startswith(_OURS) and not _MACHINE_OBJECTS.match(resource.type)
    if ours or _DYNAMIC.match(resource.type) or not _not_central(resource, config):
        return
    documents = template_documents(resource.properties) if is_template(resource.type) else [resource.properties]
    for document in documents:
        if isinstance(document, Mapping):
            yield from machine_reasons(resource.type, document, _allows(config))


# Commands

_TEXTS_SKIPPED = frozenset({"__provider"})


def _command(resource: Resource, config: Config) -> Iterable[str]:
    if not _DYNAMIC.match(resource.type) or not _not_central(resource, config):
        return
    for path, text in _texts(resource.properties):
        for reason in dict.fromkeys(started_by(text, _allows(config), text_here)):
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


# A standalone Supabase


def _bundled(resources: Sequence[Resource], config: Config) -> Iterable[Finding]:
    found: dict[str, Resource] = {}
    for resource in resources:
        if not _not_central(resource, config):
            continue
        references = [container.image for container in containers_in(resource.properties)]
        if not resource.type.lower().startswith(_OURS):
            references += [reference for _, reference in image_references(resource.properties)]
        for reference in references:
            part = Image.parse(reference).part_of_supabase
            if part:
                found.setdefault(part, resource)
    core = standalone_supabase(found)
    if core:
        yield Finding(f"{', '.join(sorted(found))} together are a Supabase of the stack's own", found[core].urn)


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
    stack_policy(
        "no-postgres-container-by-image-id",
        "Only the central stack runs PostgreSQL: a container that is given the ID of a server's image is one.",
        _by_image_id,
        instead=_INSTEAD,
        settings=_SETTINGS,
        severity=Severity.CRITICAL,
    ),
    resource_policy(
        "no-postgres-on-machines",
        "Only the central stack runs PostgreSQL: no machine may install or start one when it starts.",
        _machine,
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
