"""Compose files: their services, what they include and extend, and what their images are built of.

Each service is judged where it is written, in each file that an ``include`` leads to, and whatever profile it is in:
what one file forbids itself, another that is laid over it does not make right. Of a file that a service extends, only
the service that it names counts.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policies.artifacts.dockerfile import Dockerfile
from policies.artifacts.findings import Finding, Place, Problem, Report, UncheckedError
from policies.artifacts.interpolation import VariableSyntaxError, interpolated, read_variables
from policies.artifacts.sources import Document, Root, documents
from policies.artifacts.variables import UNKNOWN, image_is_unknown, known
from policies.containers import Container
from policies.images import Image, classify, standalone_supabase

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
        self.built: set[Path] = set()
        """The Dockerfiles that services are built of."""
        self._seen: set[Path] = set()
        self._read: dict[Path, list[Document]] = {}
        self._judged: set[tuple[Path, str]] = set()
        self._followed: set[tuple[Path, str]] = set()

    def check(self, path: Path) -> None:
        """Checks a file and all that it leads to."""
        self._file(path, path.parent, {}, None, ())

    def check_document(self, document: Document, path: Path) -> None:
        """Checks what has been read already, unless another file has led to it: then as that one needs it."""
        if path in self._seen or path in self._read:
            return
        try:
            variables = self._variables(path.parent, {}, ())
        except UncheckedError as error:
            self._report.problems.add(error.problem)
            return
        self._document(document, path, path.parent, variables, (path,))

    def check_variables(self, path: Path) -> None:
        """Checks the files that an ``.env`` names as the project's own (``COMPOSE_FILE``)."""
        variables = read_variables(self._root.read(path))
        names = variables.get("COMPOSE_FILE", "")
        if not names:
            return
        self._report.files.add(self._root.relative(path))
        place = Place(self._root.relative(path))
        for name in re.split(f"[{re.escape(variables.get('COMPOSE_PATH_SEPARATOR') or ':;')}]", names):
            if UNKNOWN in name or _REMOTE.match(name):
                self._refuse(place, f"COMPOSE_FILE names {known(name) or 'a file'}, which is not here to be checked")
            elif name:
                self._file(_plain(path.parent / name), path.parent, {}, place, ())

    def _refuse(self, place: Place, message: str) -> None:
        self._report.problems.add(Problem(place, message))

    def _documents(self, path: Path, asked: Place | None) -> list[Document]:
        """What a file holds, parsed once.

        Raises:
            UncheckedError: if it cannot be read.
        """
        if path not in self._read:
            if len(self._read) >= _FILES_MAX:
                place = asked or Place(self._root.relative(path))
                raise UncheckedError(place, f"it leads to more than {_FILES_MAX} files")
            self._read[path] = documents(self._root.read(path, asked), self._root.relative(path))
            self._report.files.add(self._root.relative(path))
        return self._read[path]

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
        try:
            found = self._documents(path, asked)
            variables = self._variables(folder, given, ())
        except UncheckedError as error:
            self._report.problems.add(error.problem)
            return
        for document in found:
            self._document(document, path, folder, variables, (*chain, path))

    def _variables(self, folder: Path, given: Mapping[str, str], files: tuple[Path, ...]) -> dict[str, str]:
        found: dict[str, str] = {}
        for file in files or (folder / ".env",):
            if files or os.path.isfile(file):  # noqa: PTH113 unlike is_file, it answers for a name that cannot exist
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
            self._follow(service, path)
            part = Image.parse(image).part_of_supabase if image else ""
            if part:
                parts.setdefault(part, service.place("image"))
        self._bundled(parts)
        self._includes(document, folder, variables, chain)

    def _bundled(self, parts: Mapping[str, Place]) -> None:
        core = standalone_supabase(parts)
        if core:
            why = f"{', '.join(sorted(parts))} together are a Supabase of the project's own"
            self._report.findings.add(Finding(parts[core], core, why))

    def _service(self, service: _Service, path: Path) -> str:
        self._judged.add((path, service.name))
        image = self._image(service)
        reason = self._container(service, image).forbidden()
        if reason:
            place = service.place("image") if reason.startswith("image ") else service.place()
            self._found(service, place, reason)
        self._build(service)
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
        if image is not None and image_is_unknown(image):
            self._refuse(
                place,
                f"which image {service.name} has is not known: {given} has no value here; give a default or an .env",
            )
        return known(image or "").rstrip(":@")

    def _filled(self, text: str, variables: Mapping[str, str], place: Place) -> str | None:
        try:
            return interpolated(text, variables)
        except VariableSyntaxError as error:
            self._refuse(place, f"{text[:80]}: {error}")
            return None

    def _file_name(self, text: str, variables: Mapping[str, str], place: Place) -> str:
        """A path or address with its variables.

        Raises:
            UncheckedError: if a part of it is not known.
        """
        found = self._filled(text, variables, place)
        if not found or UNKNOWN in found:
            raise UncheckedError(place, f"which file is meant is not known: {text[:80]} has no value here")
        return found

    def _container(self, service: _Service, image: str) -> Container:
        def words(key: str) -> list[str]:
            value = service.given.get(key)
            return [str(word) for word in value] if isinstance(value, list) else [str(value)] if value else []

        def filled(text: str) -> str:
            # A text that Compose refuses starts nothing.
            try:
                return known(interpolated(text, service.variables))
            except VariableSyntaxError:
                return text

        return Container(
            name=service.name,
            image=image,
            command=[filled(word) for word in (*words("entrypoint"), *words("command"))],
            variables={name: filled(value) for name, value in _pairs(service.given.get("environment"))},
            mounts=[_target(filled(mount)) for mount in _mounts(service.given)],
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
        try:
            self._built_from(service, build, place)
        except UncheckedError as error:
            self._report.problems.add(error.problem)
        for reference in _values(build.get("additional_contexts")):
            image = known(self._filled(reference, service.variables, place) or "")
            family = classify(image.removeprefix("docker-image://")) if image.startswith("docker-image://") else None
            if family:
                self._found(service, service.place("build", "additional_contexts"),
                            f"it is built with {image.removeprefix('docker-image://')}, {family.value}")  # fmt: skip

    def _built_from(self, service: _Service, build: Mapping[str, Any], place: Place) -> None:
        inline = build.get("dockerfile_inline")
        if isinstance(inline, str):
            text = self._filled(inline, service.variables, place)
            if text is not None:
                self._built(service, build, text, None)
            return
        context = self._file_name(str(build.get("context") or "."), service.variables, place)
        if _REMOTE.match(context):
            raise UncheckedError(place, f"{service.name} is built from {context}, which is not here to be checked")
        name = self._file_name(str(build.get("dockerfile") or "Dockerfile"), service.variables, place)
        file = _plain(service.folder / context / name)
        text = self._root.read(file, place)
        self._report.files.add(self._root.relative(file))
        self.built.add(file)
        self._built(service, build, text, Place(self._root.relative(file)))

    def _built(self, service: _Service, build: Mapping[str, Any], text: str, file: Place | None) -> None:
        arguments = {
            name: self._filled(value, service.variables, service.place("build", "args")) or ""
            for name, value in _pairs(build.get("args"))
        }
        target = self._filled(str(build.get("target") or ""), service.variables, service.place("build", "target")) or ""
        dockerfile = Dockerfile(text, arguments)

        def where(line: int) -> Place:
            return Place(file.file, line) if file else service.place("build", "dockerfile_inline")

        for line, reason in dockerfile.reasons(target):
            self._found(service, where(line), reason)
        for line, message in dockerfile.unknown(target):
            self._refuse(where(line), message)

    # What a file leads to

    def _follow(self, service: _Service, path: Path) -> None:
        """Judges the services that one extends, one after the other, and nothing else of their files."""
        asked, chain = service.name, {(path, service.name)}
        while True:
            try:
                found = self._extended(service, path)
            except UncheckedError as error:
                self._report.problems.add(error.problem)
                return
            if found is None:
                return
            place = service.place("extends")
            service, path = found
            key = (path, service.name)
            if key in chain:
                self._refuse(place, f"the service {asked} extends itself")
                return
            if key in self._followed:
                return
            chain.add(key)
            self._followed.add(key)
            if key not in self._judged:
                self._service(service, path)

    def _extended(self, service: _Service, path: Path) -> tuple[_Service, Path] | None:
        extends = service.given.get("extends")
        if isinstance(extends, str):
            extends = {"service": extends}
        if not isinstance(extends, dict):
            return None
        place = service.place("extends")
        name = str(extends.get("service") or service.name)
        found = [service.document]
        if extends.get("file"):
            file = self._file_name(str(extends["file"]), service.variables, place)
            if _REMOTE.match(file):
                raise UncheckedError(place, f"{file} is not here to be checked")
            path = _plain(service.folder / file)
            found = self._documents(path, place)
        for document in found:
            services = document.data.get("services") if isinstance(document.data, dict) else None
            given = services.get(name) if isinstance(services, dict) else None
            if isinstance(given, dict):
                folder = path.parent if extends.get("file") else service.folder
                return _Service(name, given, document, folder, service.variables), path
        raise UncheckedError(place, f"{self._root.relative(path)} has no service {name} that could be extended")

    def _includes(
        self, document: Document, folder: Path, variables: Mapping[str, str], chain: tuple[Path, ...]
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
                self._included(given, folder, variables, place, chain)
            except UncheckedError as error:
                self._report.problems.add(error.problem)

    def _included(
        self,
        given: Mapping[str, Any],
        folder: Path,
        variables: Mapping[str, str],
        place: Place,
        chain: tuple[Path, ...],
    ) -> None:
        def name(text: str) -> str:
            found = self._file_name(text, variables, place)
            if _REMOTE.match(found):
                raise UncheckedError(place, f"{found} is not here to be checked")
            return found

        project = given.get("project_directory")
        there = _plain(folder / name(str(project))) if project else None
        files = tuple(_plain(folder / name(file)) for file in _values(given.get("env_file")))
        for file in _values(given.get("path")):
            other = _plain(folder / name(file))
            own = self._variables(there or other.parent, variables, files)
            self._file(other, there or other.parent, own, place, chain)


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


def _mounts(given: Mapping[str, Any]) -> Iterator[str]:
    """What is mounted: the paths inside the container, or ``source:path[:mode]``."""
    for key in ("volumes", "tmpfs"):
        entries = given.get(key)
        for entry in [entries] if isinstance(entries, str) else entries if isinstance(entries, list) else ():
            if isinstance(entry, dict):
                yield str(entry.get("target", ""))
            elif isinstance(entry, str):
                yield entry if key == "volumes" else entry.partition(":")[0]


def _target(volume: str) -> str:
    """The path inside the container of ``source:path[:mode]`` or ``path``."""
    parts = volume.split(":")
    return next((part for part in parts[1:] if part.startswith("/")), parts[0] if len(parts) == 1 else "")
