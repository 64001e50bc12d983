"""Helm charts: which are a PostgreSQL, bundle one, or have one switched on by their values."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

from policies.images import Image, classify
from policies.tables import table
from policies.texts import values_in
from policies.unknown import is_unknown
from policies.values import looked_up, mappings, text_of

__all__ = [
    "Installed",
    "bundled_keys",
    "chart_reasons",
    "dependency_reasons",
    "installed_charts",
    "left_out",
    "merged",
    "value_reasons",
    "with_settings",
]

_DEPTH = 64


@dataclass(frozen=True)
class Installed:
    """A chart that a document has installed: where that is said, the chart, its source, its values."""

    path: str
    chart: object
    repository: object = ""
    values: object = None

    def reasons(self) -> Iterator[str]:
        """Why it runs a PostgreSQL server: one sentence for each."""
        return chart_reasons(self.chart, self.repository, self.values)


@cache
def bundled_keys() -> frozenset[str]:
    """The keys under which values have a server that a chart bundles, in lower case."""
    return frozenset(key.lower() for key in table("charts.yaml")["bundled"])


def chart_reasons(chart: object, repository: object, values: object) -> Iterator[str]:
    """Why a Helm chart with these values runs a PostgreSQL server: one sentence for each.

    Args:
        chart: its name, with or without a repository or registry before it.
        repository: where it comes from, if that is said apart.
        values: what it is given.
    """
    charts = table("charts.yaml")
    reference = text_of(chart)
    name = reference.rstrip("/").rpartition("/")[2].partition(":")[0].partition("@")[0].lower()
    source = f"{reference} {text_of(repository)}".lower()
    limited = charts["only_with_repository"].get(name)
    fits = limited is None or fnmatchcase(source, limited)
    if name in charts["servers"] and fits:
        yield f"chart {reference} is a PostgreSQL server"
    elif name in charts["operators"] and fits:
        yield f"chart {reference} is an operator that creates PostgreSQL servers"
    given = values if isinstance(values, Mapping) else {}
    entry = charts["bundling"].get(name)
    if entry and fnmatchcase(source, entry.get("repository", "*")) and not is_unknown(values):
        told = any(_holds(condition, given) for condition in entry["without"]) or any(value_reasons(given))
        # A chart of the same name by somebody else may have the switch under another key.
        others = (_switch(value)[1] for key, value in given.items() if str(key).lower() in bundled_keys())
        if not told and not any(map(_is_off, others)):
            said = entry["without"][0].replace("=", ": ").replace("&", ", ")
            yield f"chart {reference} bundles a PostgreSQL server unless its values say `{said}`"
    yield from value_reasons(given)


def _holds(condition: str, values: Mapping[str, Any]) -> bool:
    for part in condition.split("&"):
        path, _, wanted = part.partition("=")
        value = looked_up(values, path)
        if value is None or is_unknown(value) or str(value).lower() != wanted:
            return False
    return True


def value_reasons(values: object, path: str = "", depth: int = _DEPTH) -> Iterator[str]:
    """Why the values of a chart switch on, or name the image of, a PostgreSQL server: one sentence for each."""
    if depth == 0:
        return
    if isinstance(values, list):
        for index, entry in enumerate(values):
            yield from value_reasons(entry, f"{path}[{index}]", depth - 1)
    if not isinstance(values, Mapping):
        return
    for key, value in values.items():
        here = f"{path}.{key}" if path else str(key)
        switch, state = _switch(value) if str(key).lower() in bundled_keys() else ("", None)
        reference = _image(value) if str(key).lower().endswith(("image", "images")) else ""
        family = classify(reference) if reference else None
        if _is_on(state):
            yield f"values switch on a bundled PostgreSQL server ({here}.{switch})"
        elif family:
            yield f"values name the image {reference} ({here}), {family.value}"
        elif not _is_off(state):
            yield from value_reasons(value, here, depth - 1)


def _switch(value: object) -> tuple[str, object]:
    """The switch of a bundled server, and how it is set; of several, the first that switches it on."""
    if not isinstance(value, Mapping):
        return "", None
    found = [(name, value[name]) for name in table("charts.yaml")["switches"] if name in value]
    return next((entry for entry in found if _is_on(entry[1])), found[0] if found else ("", None))


def _is_on(value: object) -> bool:
    return value is True or is_unknown(value) or (isinstance(value, str) and value.lower() == "true")


def _is_off(value: object) -> bool:
    return value is False or (isinstance(value, str) and value.lower() == "false")


def _image(value: object) -> str:
    if isinstance(value, str):
        return "" if is_unknown(value) else value
    if not isinstance(value, Mapping):
        return ""
    path = "/".join(filter(None, (text_of(value.get(key)) for key in ("registry", "repository", "name"))))
    tag = text_of(value.get("tag"))
    return f"{path}:{tag}" if path and tag and Image.parse(path).name else path


def dependency_reasons(chart: object, values: object) -> Iterator[tuple[str, str]]:
    """Why what a chart's ``Chart.yaml`` depends on is a PostgreSQL server: where it is said, and one sentence.

    Args:
        chart: what its ``Chart.yaml`` or ``requirements.yaml`` holds.
        values: what the chart is given, over its own ``values.yaml``.
    """
    found = chart.get("dependencies") if isinstance(chart, Mapping) else None
    for index, entry in enumerate(found if isinstance(found, list) else ()):
        if not isinstance(entry, Mapping) or left_out(entry, values):
            continue
        own = looked_up(values, text_of(entry.get("alias") or entry.get("name")))
        for reason in chart_reasons(
            entry.get("name"), entry.get("repository"), own if isinstance(own, Mapping) else {}
        ):
            yield f"dependencies[{index}]", f"it depends on it: {reason}"


def left_out(dependency: Mapping[str, Any], values: object) -> bool:
    """Whether a dependency is switched off by what its chart is given."""
    # Helm takes the first of the paths that has a value; tags count where no condition does.
    for path in text_of(dependency.get("condition")).split(","):
        value = looked_up(values, path.strip()) if path.strip() else None
        if isinstance(value, bool):
            return not value
    tags = dependency.get("tags")
    states = [looked_up(values, f"tags.{text_of(tag)}") for tag in (tags if isinstance(tags, list) else ())]
    return bool(states) and all(state is False for state in states)


def merged(below: object, above: object, depth: int = _DEPTH) -> object:
    """Values laid over others, as Helm does it."""
    if not isinstance(below, Mapping) or not isinstance(above, Mapping) or depth == 0:
        return above
    own = {key: merged(below[key], value, depth - 1) if key in below else value for key, value in above.items()}
    return {**below, **own}


def with_settings(values: object, settings: Mapping[str, object]) -> dict[str, Any]:
    """Values, with settings by their dotted paths laid over them, as ``--set`` does it."""
    found: Any = dict(values) if isinstance(values, Mapping) else {}
    for path, value in settings.items():
        nested: object = value
        for key in reversed(path.split(".")):
            nested = {key: nested}
        found = merged(found, nested)
    return dict(found)


# Objects that have a chart installed


def installed_charts(document: object) -> Iterator[Installed]:
    """The charts that one object has installed by a tool of GitOps, an operator or a distribution of Kubernetes."""
    if not isinstance(document, Mapping):
        return
    kind, group = text_of(document.get("kind")), text_of(document.get("apiVersion")).partition("/")[0].lower()
    for entry in table("installers.yaml"):
        if kind.removesuffix("Patch") not in entry["kinds"] or not fnmatchcase(group, entry["group"]):
            continue
        for path, told in _places(document, entry["at"]):
            repository = text_of(looked_up(told, entry["repository"])) if "repository" in entry else ""
            values = looked_up(told, entry["values"]) if "values" in entry else None
            if values is None and "text" in entry:
                values = values_in(looked_up(told, entry["text"]))
            settings = dict(_settings(looked_up(told, entry["set"]))) if "set" in entry else {}
            yield Installed(
                entry.get("place", path),
                _chart_told(told, entry["chart"], repository),
                repository,
                with_settings(values, settings),
            )


def _chart_told(told: Mapping[str, Any], keys: Sequence[str], repository: str) -> str:
    key, chart = next(((key, text_of(looked_up(told, key))) for key in keys if looked_up(told, key)), ("", ""))
    # A folder of manifests may be called as what it runs: only in a repository of charts is it one with defaults.
    name = chart.rstrip("/").rpartition("/")[2]
    folder = key.endswith("path") and name in table("charts.yaml")["bundling"]
    return "" if folder and not re.search(r"chart|helm", repository, re.IGNORECASE) else chart


def _places(document: Mapping[str, Any], at: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    found = looked_up(document, at.removesuffix("[]")) if at else document
    if at.endswith("[]"):
        for index, entry in enumerate(found if isinstance(found, list) else ()):
            if isinstance(entry, Mapping):
                yield f"{at.removesuffix('[]')}[{index}]", entry
    elif isinstance(found, Mapping):
        yield at, found


def _settings(found: object) -> Iterator[tuple[str, object]]:
    if isinstance(found, Mapping):
        yield from ((str(name), value) for name, value in found.items())
    yield from ((text_of(entry.get("name")), entry.get("value")) for entry in mappings(found))
