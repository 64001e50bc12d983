"""Compose files: their services, what they include and extend, and what their images are built of.

Each service is judged where it is written, in each file that an ``include`` or ``extends`` leads to, and whatever
profile it is in: what one file forbids itself, another that is laid over it does not make right.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policies.compose_wall.dockerfile import Dockerfile
from policies.compose_wall.findings import Finding, Place, Problem, Report, UncheckedError
from policies.compose_wall.interpolation import UndefinedVariableError, interpolated, read_variables
from policies.compose_wall.sources import Document, Root, documents
from policies.containers import Container
from policies.images import Image, classify

__all__ = ["ComposeFiles"]

_REMOTE = re.compile(r"^(?:[a-z][a-z0-9+.-]*://|git@|oci:|github\.com/|[^/]+\.git(?:#|$))", re.IGNORECASE)
_FILES_MAX = 500
"""That one file may lead to."""


@dataclass(frozen=True)
class _Service:
    """A service as it is written, with what is needed to say where."""

    name: str
    given: Mapping[str, Any]
    document: Document
    folder: Path
    variables: Mapping[str, str]

    def place(self, *path: str | int) -> Place:
        return self.document.place("services", self.name, *path)


class ComposeFiles:
    """Checks compose files, each once, and adds to a report.

    Args:
        root: where they are.
        report: what is added to.
    """

    def __init__(self, root: Root, report: Report) -> None:
        self._root, self._report = root, report
        self._seen: set[Path] = set()
        self._extends: dict[tuple[Path, str], tuple[tuple[Path, str], Place]] = {}

    def check(self, path: Path) -> None:
        """Checks a file and all that it leads to."""
        self._file(path, path.parent, {}, None, ())
        self._loops()

    def check_document(self, document: Document, path: Path) -> None:
        """Checks what has been read already, unless another file has led to it: then with that one's variables."""
        if path in self._seen:
            return
        self._document(document, path, path.parent, self._variables(path.parent, {}, ()), (path,))
        self._loops()

    def _refuse(self, place: Place, message: str) -> None:
        self._report.problems.add(Problem(place, message))

    def _file(
        self, path: Path, folder: Path, given: Mapping[str, str], asked: Place | None, chain: tuple[Path, ...]
    ) -> None:
        path = _plain(path)
        if path in chain and asked:
            self._refuse(asked, f"{self._root.relative(path)} includes itself")
            return
        if path in self._seen:
            return
        self._seen.add(path)
        if len(self._seen) > _FILES_MAX:
            self._refuse(asked or Place(self._root.relative(path)), f"it leads to more than {_FILES_MAX} files")
            return
        try:
            text = self._root.read(path, asked)
            found = documents(text, self._root.relative(path))
            variables = self._variables(folder, given, ())
        except UncheckedError as error:
            self._report.problems.add(error.problem)
            return
        self._report.files.add(self._root.relative(path))
        for document in found:
            self._document(document, path, folder, variables, (*chain, path))

    def _variables(self, folder: Path, given: Mapping[str, str], files: tuple[Path, ...]) -> dict[str, str]:
        found: dict[str, str] = {}
        for file in files or (folder / ".env",):
            if files or file.is_file():
                found |= read_variables(self._root.read(file))
        return {**found, **given}

    def _document(
        self, document: Document, path: Path, folder: Path, variables: Mapping[str, str], chain: tuple[Path, ...]
    ) -> None:
        if document.data is None:
            return
        if not isinstance(document.data, dict):
            self._refuse(document.place(), "a compose file is a mapping with `services`")
            return
        services = document.data.get("services")
        if services is not None and not isinstance(services, dict):
            self._refuse(document.place("services"), "`services` is a mapping of names to services")
            return
        parts: dict[str, Place] = {}
        for name, given in (services or {}).items():
            if given is None:
                continue
            service = _Service(name, given if isinstance(given, dict) else {}, document, folder, variables)
            if not isinstance(given, dict):
                self._refuse(service.place(), f"the service {name} is a mapping")
                continue
            image = self._service(service, path)
            part = Image.parse(image).part_of_supabase if image else ""
            if part:
                parts.setdefault(part, service.place("image"))
        self._bundled(parts)
        self._includes(document, path, folder, variables, chain)

    def _bundled(self, parts: Mapping[str, Place]) -> None:
        core = [part for part in ("gotrue", "postgrest") if part in parts]
        if core and len(parts) > 1:
            why = f"{', '.join(sorted(parts))} together are a Supabase of the project's own"
            self._report.findings.add(Finding(parts[core[0]], core[0], why))

    def _service(self, service: _Service, path: Path) -> str:
        image = self._image(service)
        why = classify(image) if image else None
        if why:
            self._found(service, service.place("image"), f"image {image} is {why.value}")
        else:
            reason = self._container(service, image).forbidden()
            if reason:
                self._found(service, service.place(), reason)
        self._build(service)
        self._extended(service, path)
        return image

    def _found(self, service: _Service, place: Place, why: str) -> None:
        self._report.findings.add(Finding(place, service.name, why))

    def _image(self, service: _Service) -> str:
        given = service.given.get("image")
        if given is None:
            return ""
        place = service.place("image")
        if not isinstance(given, str):
            self._refuse(place, f"the image of {service.name} is a text")
            return ""
        image = self._filled(given, service.variables, place)
        if image is not None and not Image.parse(image).name:
            self._refuse(
                place,
                f"which image {service.name} has is not known: {given} has no value here; give a default or an .env",
            )
        return image or ""

    def _filled(self, text: str, variables: Mapping[str, str], place: Place) -> str | None:
        try:
            return interpolated(text, variables)
        except UndefinedVariableError as error:
            self._refuse(place, f"{text[:80]}: {error}")
            return None

    def _container(self, service: _Service, image: str) -> Container:
        def words(key: str) -> list[str]:
            value = service.given.get(key)
            return [str(word) for word in value] if isinstance(value, list) else [str(value)] if value else []

        return Container(
            name=service.name,
            image=image,
            command=[*words("entrypoint"), *words("command")],
            variables=frozenset(_names(service.given.get("environment"))),
            mounts=list(_mounts(service.given)),
        )

    # What an image is built of

    def _build(self, service: _Service) -> None:
        build = service.given.get("build")
        if build is None:
            return
        place = service.place("build")
        if isinstance(build, str):
            build = {"context": build}
        if not isinstance(build, dict):
            self._refuse(place, f"`build` of {service.name} is a folder, or a mapping")
            return
        inline = build.get("dockerfile_inline")
        context = self._filled(str(build.get("context") or "."), service.variables, place)
        if context is None:
            return
        if isinstance(inline, str):
            text, file = self._filled(inline, service.variables, place), None
        elif _REMOTE.match(context):
            self._refuse(place, f"{service.name} is built from {context}, which is not here to be checked")
            return
        else:
            name = self._filled(str(build.get("dockerfile") or "Dockerfile"), service.variables, place)
            file = service.folder / context / (name or "Dockerfile")
            text = self._dockerfile(file, place)
        if text is not None:
            self._built(service, build, text, place if file is None else Place(self._root.relative(_plain(file))))
        contexts = build.get("additional_contexts")
        for reference in _values(contexts):
            image = reference.removeprefix("docker-image://")
            family = classify(image) if image != reference else None
            if family:
                self._found(service, service.document.place("services", service.name, "build", "additional_contexts"),
                            f"it is built with {image}, {family.value}")  # fmt: skip

    def _dockerfile(self, file: Path, place: Place) -> str | None:
        try:
            text = self._root.read(_plain(file), place)
        except UncheckedError as error:
            self._report.problems.add(error.problem)
            return None
        self._report.files.add(self._root.relative(_plain(file)))
        return text

    def _built(self, service: _Service, build: Mapping[str, Any], text: str, place: Place) -> None:
        arguments = {}
        for name, value in _pairs(build.get("args")):
            filled = self._filled(value, service.variables, service.place("build", "args"))
            arguments[name] = filled or ""
        inline = build.get("dockerfile_inline") is not None
        for line, reason in Dockerfile(text, arguments).reasons(str(build.get("target") or "")):
            where = service.place("build", "dockerfile_inline") if inline else Place(place.file, line)
            self._found(service, where, reason)

    # What a file leads to

    def _extended(self, service: _Service, path: Path) -> None:
        extends = service.given.get("extends")
        if isinstance(extends, str):
            extends = {"service": extends}
        if not isinstance(extends, dict):
            return
        place = service.place("extends")
        name = str(extends.get("service") or service.name)
        other = path
        if extends.get("file"):
            file = self._filled(str(extends["file"]), service.variables, place)
            if file is None:
                return
            if _REMOTE.match(file):
                self._refuse(place, f"{file} is not here to be checked")
                return
            other = _plain(service.folder / file)
            self._file(other, other.parent, service.variables, place, ())
        self._extends[path, service.name] = ((other, name), place)

    def _loops(self) -> None:
        for start in self._extends:
            at, place = self._extends[start]
            seen = {start}
            while at in self._extends and at not in seen:
                seen.add(at)
                at = self._extends[at][0]
            if at == start:
                self._refuse(place, f"the service {start[1]} extends itself")

    def _includes(
        self, document: Document, path: Path, folder: Path, variables: Mapping[str, str], chain: tuple[Path, ...]
    ) -> None:
        include = document.data.get("include")
        if include is None:
            return
        if not isinstance(include, list):
            self._refuse(document.place("include"), "`include` is a list of files")
            return
        for index, entry in enumerate(include):
            place = document.place("include", index)
            given = {"path": entry} if isinstance(entry, str) else entry
            if not isinstance(given, dict) or not _values(given.get("path")):
                self._refuse(place, "an entry of `include` is a file, or a mapping with `path`")
                continue
            try:
                self._included(given, path, folder, variables, place, chain)
            except UncheckedError as error:
                self._report.problems.add(error.problem)

    def _included(
        self,
        given: Mapping[str, Any],
        path: Path,
        folder: Path,
        variables: Mapping[str, str],
        place: Place,
        chain: tuple[Path, ...],
    ) -> None:
        names = [self._filled(name, variables, place) for name in _values(given.get("path"))]
        project = given.get("project_directory")
        files = tuple(_plain(folder / name) for name in _values(given.get("env_file")))
        for name in names:
            if not name or _REMOTE.match(name):
                self._refuse(place, f"{name or 'a file without a name'} is not here to be checked")
                continue
            other = _plain(folder / name)
            there = _plain(folder / str(project)) if project else other.parent
            own = self._variables(there, variables, files)
            self._file(other, there, own, place, chain)


def _plain(path: Path) -> Path:
    """A path without ``..``, also where nothing is."""
    parts: list[str] = []
    for part in path.parts:
        if part == ".." and len(parts) > 1:
            parts.pop()
        elif part != "..":
            parts.append(part)
    return Path(*parts)


def _values(value: object) -> list[str]:
    """The texts of a text, a list or a mapping."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [str(entry) for entry in value.values()]
    if isinstance(value, list):
        return [
            str(entry).partition("=")[2] if "://" in str(entry) and "=" in str(entry) else str(entry) for entry in value
        ]
    return []


def _pairs(value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        yield from ((str(name), "" if entry is None else str(entry)) for name, entry in value.items())
    elif isinstance(value, list):
        for entry in value:
            name, _, text = str(entry).partition("=")
            yield name, text


def _names(value: object) -> Iterator[str]:
    yield from (name for name, _ in _pairs(value))


def _mounts(given: Mapping[str, Any]) -> Iterator[str]:
    """The paths inside the container at which something is mounted."""
    for key in ("volumes", "tmpfs"):
        entries = given.get(key)
        for entry in [entries] if isinstance(entries, str) else entries if isinstance(entries, list) else ():
            if isinstance(entry, dict):
                yield str(entry.get("target", ""))
            elif isinstance(entry, str):
                yield _target(entry) if key == "volumes" else entry.partition(":")[0]


def _target(volume: str) -> str:
    """``source:target[:mode]`` or ``target``."""
    parts = re.sub(r"\$\{[^}]*\}", "x", volume).split(":")
    return next((part for part in parts[1:] if part.startswith("/")), parts[0] if len(parts) == 1 else "")
