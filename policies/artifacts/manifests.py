"""Manifests of Kubernetes, kustomizations, and what Argo CD, Flux and K3s install."""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from policies.artifacts.findings import Finding, Place, Problem, Report, UncheckedError
from policies.artifacts.sources import Document, Root
from policies.charts import chart_reasons, merged
from policies.documents import object_findings, object_reasons
from policies.images import image_reason
from policies.texts import documents_in
from policies.values import entries_of, looked_up

__all__ = ["KUSTOMIZATION", "Kustomizations", "check_manifest", "is_manifest"]

KUSTOMIZATION = re.compile(r"^kustomization(?:\.ya?ml)?$", re.IGNORECASE)
_DEPTH = 64
_Path = tuple[str | int, ...]
_POINTER_MAX = 32
"""Steps of a path in a patch; no object is deeper."""
_ELSEWHERE = re.compile(r"://|^git@|//|^[\w-]+(?:\.[\w-]+)+/|\?ref=")


def is_manifest(document: Document) -> bool:
    """Whether a document is an object of Kubernetes."""
    data = document.data
    return isinstance(data, dict) and isinstance(data.get("apiVersion"), str) and isinstance(data.get("kind"), str)


def check_manifest(document: Document, report: Report) -> None:
    """Adds what is forbidden in an object of Kubernetes: containers, operators' resources, charts, patches."""
    name = str(looked_up(document.data, "metadata.name") or document.data.get("kind", ""))
    for found in object_findings(document.data):
        where = f"{found.path}.image" if found.image is not None and "image" in found.reason else found.path
        report.findings.add(Finding(document.place_of(where), found.name or name, found.reason))
    for path, mapping in _mappings(document.data):
        for reason in _patched(mapping.get("patch")):
            report.findings.add(Finding(document.place(*path, "patch"), name, reason))
    if document.data.get("kind") == "Application":
        document.entries("spec", "sources")  # refused if it is none
    for at, chart in _generated_charts(document.data):
        for reason in chart_reasons(chart, "", {}):
            report.findings.add(Finding(document.place(*at), name, reason))
    for at, image in _replaced_images(document.data):
        reason = image_reason(image)
        if reason:
            report.findings.add(Finding(document.place(*at), image, reason))


def _mappings(data: Any, path: _Path = ()) -> Iterator[tuple[_Path, dict[str, Any]]]:
    if len(path) > _DEPTH:
        return
    if isinstance(data, dict):
        yield path, data
    for key, value in data.items() if isinstance(data, dict) else enumerate(data):
        if isinstance(value, dict | list):
            yield from _mappings(value, (*path, key))


def _generated_charts(data: Mapping[str, Any]) -> Iterator[tuple[_Path, str]]:
    """What the generators of Argo CD's ApplicationSet fill into ``chart: "{{chart}}"``."""
    generators = looked_up(data, "spec.generators") if data.get("kind") == "ApplicationSet" else None
    for path, found in _mappings(generators, ("spec", "generators")) if isinstance(generators, list) else ():
        if isinstance(found.get("chart"), str):
            yield (*path, "chart"), found["chart"]


# Patches


def _patched(text: object) -> Iterator[str]:
    """Why a patch, which is a text, adds a PostgreSQL server."""
    for document in documents_in(text, guessed=True):
        for part in _plain_parts(document):
            yield from (f"a patch adds it: {reason}" for reason in object_reasons(part))


def _written(text: str) -> Iterator[str]:
    """Why an object that is written into a kustomization is, or patches something into, a PostgreSQL server."""
    for document in documents_in(text, guessed=True):
        yield from object_reasons(document)
        for _, mapping in _mappings(document) if isinstance(document, dict | list) else ():
            yield from _patched(mapping.get("patch"))


def _plain_parts(data: Any) -> Iterator[object]:
    """An object that is laid over another; of a list of JSON 6902's operations, what each puts in its place."""
    if not isinstance(data, list):
        yield data
        return
    for entry in data:
        if not isinstance(entry, dict) or not isinstance(entry.get("path"), str) or "value" not in entry:
            yield entry
            continue
        value: Any = entry["value"]
        for step in reversed(entry["path"].strip("/").split("/")[:_POINTER_MAX]):
            value = [value] if step == "-" or step.isdecimal() else {step: value}
        yield value


def _replaced_images(data: Mapping[str, Any]) -> Iterator[tuple[_Path, str]]:
    """The images that kustomizations of Argo CD and Flux put in: ``[name=]image``, or ``newName``."""
    for at in (("spec", "images"), ("spec", "source", "kustomize", "images")):
        found = looked_up(data, ".".join(at))
        for index, entry in enumerate(found if isinstance(found, list) else ()):
            image = entry.get("newName") if isinstance(entry, dict) else entry
            if isinstance(image, str):
                yield (*at, index), image.rpartition("=")[2]


# Kustomizations


class Kustomizations:
    """Checks kustomizations and what they lead to, and adds to a report.

    Args:
        root: where they are.
        report: what is added to.
        follow: checks a file that is here.
    """

    def __init__(self, root: Root, report: Report, follow: Callable[[Path], None]) -> None:
        self._root, self._report, self._follow = root, report, follow
        self._waiting: list[Path] = []
        self._seen: set[Path] = set()
        self._busy = False

    def check(self, document: Document, path: Path) -> None:
        """Checks one document of a kustomization."""
        checks = (self._images, self._charts, self._patches, self._references)
        for check in checks:
            try:
                check(document, path.parent)
            except UncheckedError as error:
                self._report.problems.add(error.problem)
        self._go_on()

    def _go_on(self) -> None:
        # One after the other: a chain of kustomizations may be long.
        if self._busy:
            return
        self._busy = True
        while self._waiting:
            self._follow(self._waiting.pop())
        self._busy = False

    def _images(self, document: Document, _folder: Path) -> None:
        for index, entry in document.entries("images"):
            name = entry.get("newName") if isinstance(entry, dict) else None
            reason = image_reason(name) if isinstance(name, str) else ""
            if reason:
                self._report.findings.add(Finding(document.place("images", index), str(name), reason))

    def _charts(self, document: Document, folder: Path) -> None:
        for index, entry in document.entries("helmCharts"):
            if not isinstance(entry, dict):
                continue
            values: Any = {}
            files = [entry.get("valuesFile"), *entries_of(entry.get("additionalValuesFiles"))]
            for file in files:
                if isinstance(file, str):
                    text = self._root.read(folder / file, document.place("helmCharts", index))
                    values = merged(values, next(iter(documents_in(text, guessed=True)), {}))
            values = merged(values, entry.get("valuesInline") or {})
            for reason in chart_reasons(entry.get("name"), entry.get("repo"), values):
                place = document.place("helmCharts", index)
                self._report.findings.add(Finding(place, str(entry.get("name")), reason))

    def _patches(self, document: Document, folder: Path) -> None:
        for key in ("patches", "patchesJson6902", "patchesStrategicMerge"):
            for index, entry in document.entries(key):
                place = document.place(key, index)
                # Texts under `patch` are found wherever they stand.
                file = entry.get("path") if isinstance(entry, dict) else entry
                if not isinstance(file, str):
                    continue
                text = file
                if "\n" not in file:
                    text, place = self._root.read(folder / file, place), Place(self._root.relative(folder / file))
                    self._report.files.add(place.file)
                for reason in _patched(text):
                    self._report.findings.add(Finding(place, str(folder.name or "kustomization"), reason))

    def _references(self, document: Document, folder: Path) -> None:
        for key in ("resources", "bases", "components", "generators", "transformers", "configurations", "crds"):
            for index, entry in document.entries(key):
                if isinstance(entry, str) and "\n" not in entry:
                    self._reference(entry, folder, document.place(key, index))
                elif isinstance(entry, str):
                    for reason in _written(entry):
                        self._report.findings.add(Finding(document.place(key, index), key, reason))

    def _reference(self, name: str, folder: Path, place: Place) -> None:
        path = Path(os.path.normpath(folder / name))
        if os.path.isdir(path):  # noqa: PTH112 unlike is_dir, it answers for a name that cannot exist
            files = [path / name for name in ("kustomization.yaml", "kustomization.yml", "Kustomization")]
            path = next((file for file in files if file.is_file()), files[0])
        elif _ELSEWHERE.search(name) and not os.path.isfile(path):  # noqa: PTH113 the same
            self._report.problems.add(Problem(place, f"{name} is not here to be checked"))
            return
        if path in self._seen:
            return
        self._seen.add(path)
        try:
            self._root.read_bytes(path, place)
        except UncheckedError as error:
            self._report.problems.add(error.problem)
            return
        self._waiting.append(path)
