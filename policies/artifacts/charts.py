"""Charts of Helm, and files of releases: what they depend on, and what their values switch on."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from policies.artifacts.findings import Finding, Place, Problem, Report, UncheckedError
from policies.artifacts.sources import Document, Root, documents
from policies.charts import (
    bundled_keys,
    chart_reasons,
    dependency_reasons,
    left_out,
    merged,
    value_reasons,
    with_settings,
)
from policies.images import classify
from policies.values import entries_of, looked_up

__all__ = ["VALUES", "Charts", "Helmfiles"]

VALUES = re.compile(r"^(?:[\w.-]+[.-])?values(?:[.-][\w.-]+)?\.ya?ml$", re.IGNORECASE)
_IN_BRACKETS = re.compile(r"\((?P<path>[^()\s]+)\)")
_IMAGE_KEY = re.compile(r"image_?(?:repository|repo|name)$")
_PICTURE = re.compile(r"^[/.]|\.(?:png|svg|jpe?g|gif|webp|ico|avif)$", re.IGNORECASE)
_BESIDE = frozenset({"tag", "registry", "digest", "version"})
_SETUP = frozenset({"auth", "primary", "persistence", "architecture", "storage"})
_ELSEWHERE = re.compile(
    r"host|external|url|address|endpoint|dsn|^enabled$|^deploy|^install$|^create$|^bundled$|^internal$"
)
_SWITCHES = ("enabled", "create", "install", "deploy")
_DEPTH = 48
_FILES_MAX = 100
"""Of values, beside one chart."""


class Charts:
    """Checks charts, each once, and adds to a report.

    Args:
        root: where they are.
        report: what is added to.
    """

    def __init__(self, root: Root, report: Report) -> None:
        self._root, self._report = root, report
        self._seen: set[Path] = set()
        self._given: dict[Path, object] = {}
        self._off: set[Path] = set()

    def give(self, folder: Path, values: object) -> None:
        """Says what values a chart is given by the one around it."""
        self._given[folder] = values

    def given(self, folder: Path) -> object:
        """What values a chart is given by the one around it."""
        return self._given.get(folder)

    def is_off(self, path: Path) -> bool:
        """Whether a file is of a chart that the one around it leaves out."""
        return bool(self._off) and not self._off.isdisjoint(path.parents)

    def check(self, folder: Path) -> None:
        """Checks what a chart depends on, and what its values switch on."""
        if folder in self._seen:
            return
        self._seen.add(folder)
        files = sorted(path for path in folder.iterdir() if VALUES.match(path.name))[:_FILES_MAX]
        read = {path: self._read(path) for path in files}
        own = next((found[0] for path, found in read.items() if path.stem == "values" and found), None)
        given = self._given.get(folder)
        for found in read.values():
            for document in found:
                self._values(document, given, folder.name)
        sets = [merged(own.data if own else {}, given or {})]
        sets += [merged(sets[0], document.data) for found in read.values() for document in found if document is not own]
        dependencies = [
            (document, index, entry)
            for name in ("Chart.yaml", "requirements.yaml")
            if (folder / name).is_file()
            for document in self._read(folder / name)
            for index, entry in self._dependencies(document)
        ]
        for document, index, entry in dependencies:
            self._dependency(document, index, entry, sets, folder)
        self._inner(folder, sets[0], {str(entry.get("name")) for _, _, entry in dependencies})

    def check_values(self, document: Document) -> None:
        """Checks values that stand by themselves, for a chart that is elsewhere."""
        self._values(document, None, str(document.file.name))
        for key, value in document.data.items() if isinstance(document.data, dict) else ():
            if str(key).lower() in bundled_keys() and isinstance(value, dict) and _is_open(value):
                message = f"whether `{key}` runs is not known: its chart is not here, so say `{key}.enabled: false`"
                self._report.problems.add(Problem(document.place(key), message))

    def _values(self, document: Document, given: object, name: str) -> None:
        values = merged(document.data, given) if isinstance(given, dict) else document.data
        for reason in value_reasons(values):
            found = _IN_BRACKETS.findall(reason)
            place = document.place_of(found[-1]) if found else document.place()
            self._report.findings.add(Finding(place, name, reason))
        for path, image in _images(values):
            family = classify(image)
            if family:
                why = f"values name the image {image}, {family.value}"
                self._report.findings.add(Finding(document.place(*path), name, why))

    def _read(self, path: Path) -> list[Document]:
        try:
            found = documents(self._root.read(path), self._root.relative(path))
        except UncheckedError as error:
            self._report.problems.add(error.problem)
            return []
        self._report.files.add(self._root.relative(path))
        return found

    def _dependencies(self, document: Document) -> list[tuple[int, Mapping[str, Any]]]:
        try:
            entries = document.entries("dependencies")
        except UncheckedError as error:
            self._report.problems.add(error.problem)
            return []
        return [(index, entry) for index, entry in entries if isinstance(entry, dict)]

    def _dependency(
        self, document: Document, index: int, entry: Mapping[str, Any], sets: list[Any], folder: Path
    ) -> None:
        name = str(entry.get("alias") or entry.get("name"))
        used = [values for values in sets if not left_out(entry, values)]
        for inner in (folder / "charts" / name, folder / "charts" / str(entry.get("name"))):
            if used:
                self._given.setdefault(inner, looked_up(used[0], name))
            else:
                self._off.add(inner)
        for values in used:
            for _, reason in dependency_reasons({"dependencies": [entry]}, values):
                self._report.findings.add(Finding(document.place("dependencies", index), folder.name, reason))

    def _inner(self, folder: Path, values: object, declared: set[str]) -> None:
        """Checks the names of charts that stand in a chart without being declared: Helm installs them all the same."""
        for path in sorted((folder / "charts").glob("*")) if (folder / "charts").is_dir() else ():
            name = re.sub(r"-v?\d[\w.+-]*$", "", path.stem if path.is_file() else path.name)
            if name in declared or (path.is_file() and path.suffix != ".tgz"):
                continue
            for reason in chart_reasons(name, "", looked_up(values, name) or {}):
                place = Place(self._root.relative(path))
                self._report.findings.add(Finding(place, folder.name, f"it holds it: {reason}"))


def _is_open(section: Mapping[str, Any]) -> bool:
    """Whether a section for a bundled server sets one up, without a switch and without the address of another."""
    keys = {str(key).lower() for key in section}
    return not _SETUP.isdisjoint(keys) and not any(_ELSEWHERE.search(key) for key in keys)


def _images(
    values: object, path: tuple[str | int, ...] = (), *, in_images: bool = False
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """The images that values name under keys of the chart's own: a repository beside its tag, a text among images."""
    if isinstance(values, list):
        for index, entry in enumerate(values):
            yield from _images(entry, (*path, index), in_images=in_images)
    if not isinstance(values, dict) or len(path) > _DEPTH or any(values.get(key) is False for key in _SWITCHES):
        return
    if isinstance(values.get("repository"), str) and not _BESIDE.isdisjoint(values):
        # Under a key that ends with `image`, the rules of charts find it.
        if not path or not str(path[-1]).lower().endswith(("image", "images")):
            yield path, values["repository"]
        return
    for key, value in values.items():
        name = str(key).lower()
        if isinstance(value, str):
            if (in_images or _IMAGE_KEY.search(name)) and not _PICTURE.search(value):
                yield (*path, key), value
        else:
            yield from _images(value, (*path, key), in_images=in_images or name == "images")


class Helmfiles:
    """Checks the releases of a helmfile, and adds to a report."""

    def __init__(self, root: Root, report: Report) -> None:
        self._root, self._report = root, report

    def check(self, document: Document, folder: Path) -> None:
        """Checks each release that is not switched off."""
        repositories = {
            str(entry.get("name")): entry.get("url")
            for _, entry in document.entries("repositories")
            if isinstance(entry, dict)
        }
        for index, release in document.entries("releases"):
            if not isinstance(release, dict) or release.get("installed") is False:
                continue
            chart = release.get("chart")
            values: Any = {}
            for given in entries_of(release.get("values")):
                values = merged(values, self._given(given, folder))
            for entry in entries_of(release.get("set")):
                if isinstance(entry, dict) and isinstance(entry.get("name"), str):
                    values = with_settings(values, {entry["name"]: entry.get("value")})
            repository = repositories.get(str(chart).partition("/")[0])
            for reason in chart_reasons(chart, repository, values):
                place = document.place("releases", index, "chart")
                self._report.findings.add(Finding(place, str(release.get("name", "")), reason))

    def _given(self, given: object, folder: Path) -> object:
        if isinstance(given, dict):
            return given
        if not isinstance(given, str) or "{{" in given:
            return {}
        try:
            found = documents(self._root.read(folder / given), self._root.relative(folder / given))
        except UncheckedError:
            # A template, or a file that is not here: the chart's own values hold.
            return {}
        return found[0].data if found else {}
