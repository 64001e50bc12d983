"""Kubernetes objects as plain documents: what in them is a PostgreSQL."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

from policies.charts import installed_charts
from policies.containers import containers_in
from policies.tables import table
from policies.values import matches, text_of, values_at

__all__ = [
    "Found",
    "chart_findings",
    "container_findings",
    "object_findings",
    "object_reasons",
    "operator_findings",
    "operator_reason",
]

_DEPTH = 64
# A claim or a custom resource whose kind says what it makes: XPostgreSQLInstance, PostgresCluster, PostgreSQL.
_SERVER_KIND = re.compile(
    r"x?[a-z0-9]*?(?:postgres(?:ql|sql)?|postgre)(?:db|database|instance|cluster|server|service|ha)?s?(?:claim)?"
)


@dataclass(frozen=True)
class Found:
    """What in a document is a PostgreSQL: where it stands, what it is called there, and why."""

    path: str
    name: str
    reason: str
    image: str | None = None
    """The image of a container, empty if it names none; None if it is no container."""

    @property
    def sentence(self) -> str:
        """All of it in one sentence."""
        return (
            f"container {self.name or '(unnamed)'} ({self.path}): {self.reason}"
            if self.image is not None
            else self.reason
        )


@dataclass(frozen=True)
class _Kind:
    group: str
    kinds: frozenset[str]
    property: str
    values: str


@cache
def _kinds() -> tuple[_Kind, ...]:
    return tuple(
        _Kind(
            entry["group"],
            frozenset(kind.lower() for kind in entry["kinds"]),
            entry.get("property", ""),
            entry.get("values", ""),
        )
        for entry in table("operators.yaml")
    )


def operator_reason(api_version: str, kind: str, document: Mapping[str, Any]) -> str:
    """Why a custom resource is a PostgreSQL server, in words; empty if it is none."""
    group = api_version.partition("/")[0].lower()
    plain = kind.lower().removesuffix("list").removesuffix("patch")
    for entry in _kinds():
        if plain in entry.kinds and fnmatchcase(group, entry.group):
            if entry.property and not any(
                matches(value, entry.values) for value in values_at(document, entry.property)
            ):
                continue
            return f"{kind} of {group} makes an operator create a PostgreSQL server"
    if "postgre" in plain and "." in group and _SERVER_KIND.fullmatch(plain):
        return f"{kind} of {group} asks for a PostgreSQL server, by its name"
    return ""


def object_findings(document: object) -> Iterator[Found]:
    """What in a Kubernetes object, or in what it holds, is a PostgreSQL server.

    Containers, custom resources of operators, and the charts that tools of GitOps install.
    """
    yield from container_findings(document)
    yield from operator_findings(document)
    yield from chart_findings(document)


def container_findings(document: object) -> Iterator[Found]:
    """The containers of a Kubernetes object that run a PostgreSQL server."""
    for container in containers_in(document):
        reason = container.forbidden()
        if reason:
            yield Found(container.path, container.name, reason, container.image)


def operator_findings(document: object) -> Iterator[Found]:
    """The custom resources in a Kubernetes object of which an operator makes a PostgreSQL server."""
    for path, found in _objects(document):
        reason = operator_reason(found["apiVersion"], found["kind"], found)
        if reason:
            yield Found(f"{path}.kind".lstrip("."), "", reason)


def chart_findings(document: object) -> Iterator[Found]:
    """The charts that a Kubernetes object has installed and that run a PostgreSQL server."""
    for path, found in _objects(document):
        for chart in installed_charts(found):
            for reason in chart.reasons():
                yield Found(f"{path}.{chart.path}".strip("."), "", reason)


def object_reasons(document: object) -> Iterator[str]:
    """The same in one sentence for each."""
    return (found.sentence for found in object_findings(document))


def _objects(document: object, path: str = "", depth: int = _DEPTH) -> Iterator[tuple[str, Mapping[str, Any]]]:
    # An object may be inside another: a List, a template of Crossplane or Argo, a manifest that a job applies.
    if depth == 0:
        return
    if isinstance(document, Mapping):
        if text_of(document.get("apiVersion")) and text_of(document.get("kind")):
            yield path, document
        for key, value in document.items():
            if isinstance(value, Mapping | list):
                yield from _objects(value, f"{path}.{key}" if path else str(key), depth - 1)
    elif isinstance(document, list):
        for index, value in enumerate(document):
            yield from _objects(value, f"{path}[{index}]", depth - 1)
