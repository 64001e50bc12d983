"""Kubernetes objects and chart values as plain documents: what in them is a PostgreSQL."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from policies.containers import containers_in
from policies.images import Image, classify
from policies.rules import is_unknown

__all__ = [
    "chart_reasons",
    "data_file",
    "documents_in",
    "looked_up",
    "matches",
    "object_reasons",
    "operator_reason",
    "value_reasons",
]

_DEPTH = 64


@cache
def data_file(name: str) -> Any:
    """What a file of ``policies/data`` holds; not to be changed."""
    return yaml.safe_load((Path(__file__).parent / "data" / name).read_text(encoding="utf-8"))


def documents_in(text: object) -> list[object]:
    """What a YAML text holds; nothing if it is none, since whoever applies it says so."""
    if not isinstance(text, str) or is_unknown(text):
        return []
    try:
        return list(yaml.load_all(text, Loader=yaml.CSafeLoader))
    except (yaml.YAMLError, RecursionError):
        return []


def looked_up(document: object, path: str) -> object:
    """The value at a dotted path; None if there is none."""
    for key in path.split("."):
        if not isinstance(document, Mapping):
            return document if is_unknown(document) else None
        document = document.get(key)
    return document


def matches(value: object, pattern: str) -> bool:
    """Whether a value fits a pattern, whatever its case. One that is not known yet may, so it does."""
    return is_unknown(value) or (isinstance(value, str) and fnmatchcase(value.lower(), pattern.lower()))


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
        for entry in data_file("operators.yaml")
    )


def operator_reason(api_version: str, kind: str, document: Mapping[str, Any]) -> str:
    """Why a custom resource is a PostgreSQL server, in words; empty if it is none."""
    group = api_version.partition("/")[0].lower()
    plain = kind.lower().removesuffix("list").removesuffix("patch")
    for entry in _kinds():
        if fnmatchcase(group, entry.group) and plain in entry.kinds:
            if entry.property and not matches(looked_up(document, entry.property), entry.values):
                continue
            return f"{kind} of {group} makes an operator create a PostgreSQL server"
    return ""


def object_reasons(document: object, depth: int = _DEPTH) -> Iterator[str]:
    """Why a Kubernetes object, or what it holds, is a PostgreSQL server: one sentence for each."""
    for container in containers_in(document):
        reason = container.forbidden()
        if reason:
            yield f"container {container.name or '(unnamed)'} ({container.path}): {reason}"
    yield from _custom(document, depth)


def _custom(document: object, depth: int) -> Iterator[str]:
    # An object may be inside another: a List, a template of Crossplane or Argo, a manifest that a job applies.
    if depth == 0:
        return
    if isinstance(document, Mapping):
        version, kind = document.get("apiVersion"), document.get("kind")
        if isinstance(version, str) and isinstance(kind, str):
            reason = operator_reason(version, kind, document)
            if reason:
                yield reason
        for value in document.values():
            yield from _custom(value, depth - 1)
    elif isinstance(document, list):
        for value in document:
            yield from _custom(value, depth - 1)


@cache
def _charts() -> dict[str, Any]:
    charts: dict[str, Any] = data_file("charts.yaml")
    return charts


def chart_reasons(chart: object, repository: object, values: object) -> Iterator[str]:
    """Why a Helm chart with these values runs a PostgreSQL server: one sentence for each.

    Args:
        chart: its name, with or without a repository or registry before it.
        repository: where it comes from, if that is said apart.
        values: what it is given.
    """
    reference = chart if isinstance(chart, str) and not is_unknown(chart) else ""
    name = reference.rstrip("/").rpartition("/")[2].partition(":")[0].lower()
    source = f"{reference} {repository if isinstance(repository, str) else ''}".lower()
    charts = _charts()
    limited = charts["only_with_repository"].get(name)
    if name in charts["servers"] and (limited is None or fnmatchcase(source, limited)):
        yield f"chart {reference} is a PostgreSQL server"
    elif name in charts["operators"]:
        yield f"chart {reference} is an operator that creates PostgreSQL servers"
    given = values if isinstance(values, Mapping) else {}
    for key in charts["bundling"].get(name, ()):
        enabled = looked_up(given, f"{key}.enabled")
        if enabled is None and not is_unknown(values):
            others = [other for other in charts["bundling"][name] if looked_up(given, f"{other}.enabled") is not None]
            if not others:
                yield f"chart {reference} bundles a PostgreSQL server unless its values say `{key}.enabled: false`"
                break
    yield from value_reasons(given)


def value_reasons(values: object, path: str = "", depth: int = _DEPTH) -> Iterator[str]:
    """Why the values of a chart switch on, or name the image of, a PostgreSQL server: one sentence for each."""
    if depth == 0:
        return
    if isinstance(values, list):
        for index, entry in enumerate(values):
            yield from value_reasons(entry, f"{path}[{index}]", depth - 1)
    if not isinstance(values, Mapping):
        return
    bundled = {key.lower() for key in _charts()["bundled"]}
    for key, value in values.items():
        here = f"{path}.{key}" if path else str(key)
        enabled = value.get("enabled") if str(key).lower() in bundled and isinstance(value, Mapping) else None
        reference = _image(value) if str(key).lower().endswith(("image", "images")) else ""
        family = classify(reference) if reference else None
        if _is_on(enabled):
            yield f"values switch on a bundled PostgreSQL server ({here}.enabled)"
        elif family:
            yield f"values name the image {reference} ({here}), {family.value}"
        elif enabled is not False:
            yield from value_reasons(value, here, depth - 1)


def _is_on(value: object) -> bool:
    return value is True or is_unknown(value) or (isinstance(value, str) and value.lower() == "true")


def _image(value: object) -> str:
    if isinstance(value, str):
        return "" if is_unknown(value) else value
    if not isinstance(value, Mapping):
        return ""
    parts = [value.get(key) for key in ("registry", "repository", "name")]
    path = "/".join(part for part in parts if isinstance(part, str) and part and not is_unknown(part))
    tag = value.get("tag")
    return f"{path}:{tag}" if path and tag is not None and not is_unknown(tag) and Image.parse(path).name else path
