"""Manifests of Kubernetes, kustomizations, charts and their templates."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from policies.compose_wall.findings import Finding, Place, Report, UncheckedError
from policies.compose_wall.sources import Document, Root, documents
from policies.containers import containers_in
from policies.documents import chart_reasons, looked_up, operator_reason, value_reasons
from policies.images import classify

__all__ = ["check_chart", "check_manifest", "check_template", "is_manifest"]

_DEPTH = 64
_EXPRESSION = re.compile(r"\{\{.*?\}\}")
_IMAGE_LINE = re.compile(r"""^\s*(?:-\s+)?["']?image["']?\s*:\s*["']?(?P<image>[^\s"',#]+)""")
_VERSION_LINE = re.compile(r"""^\s*(?:-\s+)?["']?apiVersion["']?\s*:\s*["']?(?P<version>[^\s"',#]+)""")
_KIND_LINE = re.compile(r"""^\s*["']?kind["']?\s*:\s*["']?(?P<kind>\w+)""")
_IN_BRACKETS = re.compile(r"\((?P<path>[^()\s]+)\)")


def is_manifest(document: Document) -> bool:
    """Whether a document is an object of Kubernetes, or a kustomization, which may do without saying so."""
    data = document.data
    return isinstance(data, dict) and isinstance(data.get("apiVersion"), str) and isinstance(data.get("kind"), str)


def check_manifest(document: Document, report: Report) -> None:
    """Adds what is forbidden in an object of Kubernetes: containers, operators' resources, charts."""
    name = str(looked_up(document.data, "metadata.name") or document.data.get("kind", ""))
    for container in containers_in(document.data):
        reason = container.forbidden()
        if reason:
            place = document.place_of(f"{container.path}.image" if "image" in reason else container.path)
            report.findings.add(Finding(place, container.name or name, reason))
    for path, version, kind, found in _objects(document.data):
        reason = operator_reason(version, kind, found)
        if reason:
            report.findings.add(Finding(document.place_of(f"{path}.kind".lstrip(".")), name, reason))
    for path, chart, repository, values in _charts(document.data):
        for reason in chart_reasons(chart, repository, values):
            report.findings.add(Finding(document.place_of(path), name, reason))
    if document.data.get("kind") == "Kustomization" or str(document.file.name).startswith("kustomization."):
        _kustomization(document, report)


def _objects(data: Any, path: str = "", depth: int = _DEPTH) -> Iterator[tuple[str, str, str, Mapping[str, Any]]]:
    if depth == 0:
        return
    if isinstance(data, dict):
        version, kind = data.get("apiVersion"), data.get("kind")
        if isinstance(version, str) and isinstance(kind, str):
            yield path, version, kind, data
        for key, value in data.items():
            yield from _objects(value, f"{path}.{key}" if path else str(key), depth - 1)
    elif isinstance(data, list):
        for index, value in enumerate(data):
            yield from _objects(value, f"{path}[{index}]", depth - 1)


def _charts(data: Mapping[str, Any]) -> Iterator[tuple[str, object, object, object]]:
    """The charts that objects of Argo CD, Flux and K3s install: where it is said, the chart, its source, its values."""
    kind, spec = data.get("kind"), data.get("spec")
    if not isinstance(spec, dict):
        return
    if kind == "Application":
        sources = [("spec.source", spec.get("source")), *((f"spec.sources[{index}]", entry) for index, entry in
                   enumerate(spec.get("sources") or ()))]  # fmt: skip
        for path, source in sources:
            if isinstance(source, dict) and source.get("chart"):
                values = looked_up(source, "helm.valuesObject") or _parsed(looked_up(source, "helm.values"))
                yield path, source["chart"], source.get("repoURL"), values
    elif kind == "HelmRelease":
        yield "spec.chart", looked_up(spec, "chart.spec.chart"), "", spec.get("values")
    elif kind == "HelmChart" and spec.get("chart"):
        yield "spec.chart", spec["chart"], spec.get("repo"), _parsed(spec.get("valuesContent"))


def _parsed(text: object) -> object:
    if not isinstance(text, str):
        return None
    try:
        found = documents(text, PurePosixPath("values"))
    except UncheckedError:
        return None
    return found[0].data if found else None


def _kustomization(document: Document, report: Report) -> None:
    for index, entry in enumerate(document.data.get("images") or ()):
        name = entry.get("newName") if isinstance(entry, dict) else None
        family = classify(name) if isinstance(name, str) else None
        if family:
            report.findings.add(Finding(document.place("images", index), str(name), f"image {name} is {family.value}"))
    for index, entry in enumerate(document.data.get("helmCharts") or ()):
        if isinstance(entry, dict):
            for reason in chart_reasons(entry.get("name"), entry.get("repo"), entry.get("valuesInline") or {}):
                report.findings.add(Finding(document.place("helmCharts", index), str(entry.get("name")), reason))


def check_chart(folder: Path, root: Root, report: Report) -> None:
    """Adds what is forbidden in a chart: what it depends on, and what its values switch on."""
    values: list[Document] = []
    for path in sorted({*folder.glob("values*.yaml"), *folder.glob("values*.yml")}):
        values += _read(path, root, report)
    for document in values:
        for reason in value_reasons(document.data):
            found = _IN_BRACKETS.findall(reason)
            place = document.place_of(found[-1]) if found else document.place()
            report.findings.add(Finding(place, folder.name, reason))
    given = next((document.data for document in values if document.file.stem == "values"), None)
    for name in ("Chart.yaml", "requirements.yaml"):
        for document in _read(folder / name, root, report) if (folder / name).is_file() else ():
            _dependencies(document, given, folder.name, report)


def _read(path: Path, root: Root, report: Report) -> list[Document]:
    try:
        found = documents(root.read(path), root.relative(path))
    except UncheckedError as error:
        report.problems.add(error.problem)
        return []
    report.files.add(root.relative(path))
    return found


def _dependencies(document: Document, values: object, chart: str, report: Report) -> None:
    if not isinstance(document.data, dict):
        return
    for index, entry in enumerate(document.data.get("dependencies") or ()):
        if not isinstance(entry, dict) or _switched_off(entry.get("condition"), values):
            continue
        own = looked_up(values, str(entry.get("alias") or entry.get("name")))
        for reason in chart_reasons(entry.get("name"), entry.get("repository"), own if isinstance(own, dict) else {}):
            report.findings.add(Finding(document.place("dependencies", index), chart, f"it depends on it: {reason}"))


def _switched_off(condition: object, values: object) -> bool:
    # Helm takes the first of the paths that has a value.
    for path in str(condition).split(",") if isinstance(condition, str) else ():
        value = looked_up(values, path.strip())
        if isinstance(value, bool):
            return not value
    return False


def check_template(text: str, file: Place, report: Report) -> None:
    """Adds what is forbidden in a template, which is no YAML yet: line by line, whatever its expressions become."""
    version = ""
    for number, line in enumerate(text.splitlines(), start=1):
        plain = _EXPRESSION.sub("x", line)
        image = _IMAGE_LINE.match(plain)
        family = classify(image["image"]) if image else None
        if image and family:
            place = Place(file.file, number, image.start("image") + 1)
            report.findings.add(Finding(place, file.file.stem, f"image {image['image']} is {family.value}"))
        found = _VERSION_LINE.match(plain)
        if found:
            version = found["version"]
        kind = _KIND_LINE.match(plain)
        reason = operator_reason(version, kind["kind"], {}) if kind and version else ""
        if reason:
            report.findings.add(Finding(Place(file.file, number), file.file.stem, reason))
