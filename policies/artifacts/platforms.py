"""Files of other platforms that start containers or order databases, each with the little of it that counts here."""

import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from policies.artifacts.compose_files import ComposeFiles
from policies.artifacts.dockerfile import Dockerfile
from policies.artifacts.findings import Finding, Place, Report, UncheckedError
from policies.artifacts.sources import Document, Root, documents
from policies.commands import started_by
from policies.containers import Container
from policies.images import classify, image_reason
from policies.references import image_references

__all__ = ["Platforms"]

_LINE_MAX = 4_096
_SERVICE = re.compile(r"(?P<name>[\w-]+)\s*:\s*(?P<command>\S.*)")
_HCL_IMAGE = re.compile(r'\s*"?image"?\s*=\s*"(?P<image>[^"]+)"')
_HCL_VARIABLE = re.compile(r'\s*variable\s+"(?P<name>[^"]*)"')
_HCL_DEFAULT = re.compile(r'\s*default\s*=\s*"(?P<image>[^"]+)"')
_HEROKU = re.compile(r"^(?:heroku-postgresql|crunchy-?bridge|elephantsql|timescale|cockroachdb)\b", re.IGNORECASE)
_CONTAINER_KEYS = {"Exec", "Entrypoint", "Environment", "Volume", "Mount", "Image"}


class Platforms:
    """Checks files of quadlets, Nomad, Heroku, Render, Fly and development containers, and adds to a report.

    Args:
        root: where they are.
        report: what is added to.
        compose: checks the compose files that they name.
    """

    def __init__(self, root: Root, report: Report, compose: ComposeFiles) -> None:
        self._root, self._report, self._compose = root, report, compose

    def reader(self, path: Path) -> Callable[[Path], None] | None:
        """What reads a file of this name; None if it is none of these."""
        name = path.name.lower()
        if name.endswith((".container", ".image", ".volume")) and not name.startswith("."):
            return self._quadlet
        if name.endswith((".nomad", ".nomad.hcl", ".nomad.tpl")):
            return self._nomad
        named = {
            "devcontainer.json": self._devcontainer,
            ".devcontainer.json": self._devcontainer,
            "render.yaml": self._render,
            "app.json": self._heroku,
            "fly.toml": self._fly,
        }
        return self._procfile if re.match(r"procfile(?:\.[\w-]+)?$", name) else named.get(name)

    def _text(self, path: Path) -> str:
        text = self._root.read(path)
        self._report.files.add(self._root.relative(path))
        return text

    def _found(self, path: Path, line: int, name: str, why: str) -> None:
        self._report.findings.add(Finding(Place(self._root.relative(path), line), name, why))

    def _quadlet(self, path: Path) -> None:
        """A container of systemd's: https://docs.podman.io/en/latest/markdown/podman-systemd.unit.5.html."""
        given: dict[str, list[tuple[int, str]]] = {}
        for line, key, value in _unit(self._text(path)):
            given.setdefault(key, []).append((line, value))
        values = {key: [value for _, value in entries] for key, entries in given.items()}
        image = next(reversed(values.get("Image", [])), "")
        reason = Container(
            name=path.stem,
            image="" if image.endswith((".image", ".build")) else image,
            command=[*values.get("Entrypoint", []), *values.get("Exec", [])],
            variables=dict(
                word.strip("\"'").partition("=")[::2]
                for value in values.get("Environment", [])
                for word in value.split()
            ),
            mounts=[
                part for value in (*values.get("Volume", []), *values.get("Mount", [])) for part in _targets(value)
            ],
        ).forbidden()
        if reason:
            key = next((key for key in ("Image", "Exec", "Entrypoint") if key in given and "image" in reason), "")
            self._found(path, given[key][-1][0] if key else 1, path.stem, reason)

    def _nomad(self, path: Path) -> None:
        """A job of Nomad, in HCL: its images, and the variables that hold them."""
        variable = ""
        for number, whole in enumerate(self._text(path).split("\n"), start=1):
            line = whole[:_LINE_MAX]
            found = _HCL_VARIABLE.match(line)
            variable = found["name"].lower() if found else variable
            image = _HCL_IMAGE.match(line) or ("image" in variable and _HCL_DEFAULT.match(line)) or None
            family = classify(re.sub(r"\$\{[^}]*\}", "", image["image"])) if image else None
            if image and family:
                self._found(path, number, path.stem, f"image {image['image']} is {family.value}")

    def _procfile(self, path: Path) -> None:
        for number, line in enumerate(self._text(path).split("\n"), start=1):
            found = _SERVICE.match(line[:_LINE_MAX])
            if found is None:
                continue
            command = found["command"]
            reason = Container(name=found["name"], command=[command]).forbidden()
            for why in [reason] if reason else started_by(command, lambda _: False):
                self._found(path, number, found["name"], why)

    def _heroku(self, path: Path) -> None:
        (document, *_) = [*self._documents(path), None]
        if document is None or not isinstance(document.data, dict):
            return
        environments = document.data.get("environments")
        kinds = environments if isinstance(environments, dict) else {}
        # An add-on of the environment `test` is a database for a test's run.
        for at in ((), *(("environments", kind) for kind in kinds if kind != "test")):
            for index, addon in document.entries(*at, "addons"):
                plan = addon.get("plan") if isinstance(addon, dict) else addon
                if isinstance(plan, str) and _HEROKU.match(plan):
                    place = document.place(*at, "addons", index)
                    self._report.findings.add(Finding(place, plan, f"the add-on {plan} is a PostgreSQL server"))

    def _render(self, path: Path) -> None:
        for document in self._documents(path):
            for index, entry in document.entries("databases"):
                name = str(entry.get("name", "")) if isinstance(entry, dict) else str(entry)
                place = document.place("databases", index)
                self._report.findings.add(Finding(place, name, "`databases` makes Render start a PostgreSQL server"))
            self._images(document)

    def _fly(self, path: Path) -> None:
        try:
            data = tomllib.loads(self._text(path))
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise UncheckedError(Place(self._root.relative(path)), f"it is no TOML: {error}") from error
        for at, image in image_references(data):
            family = classify(image)
            if family:
                self._found(path, 1, str(data.get("app", "")), f"image {image} ({at}) is {family.value}")

    def _images(self, document: Document) -> None:
        def keys(data: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], str]]:
            if isinstance(data, dict):
                for key, value in data.items():
                    if isinstance(value, str) and (key == "image" or (key == "url" and path[-1:] == ("image",))):
                        yield (*path, key), value
                    elif len(path) < 32:
                        yield from keys(value, (*path, key))
            elif isinstance(data, list):
                for index, value in enumerate(data):
                    yield from keys(value, (*path, index))

        for path, image in keys(document.data, ()):
            reason = image_reason(image)
            if reason:
                name = path[0] if isinstance(path[0], str) else ""
                self._report.findings.add(Finding(document.place(*path), name, reason))

    def _documents(self, path: Path) -> list[Document]:
        return documents(self._text(path), self._root.relative(path))

    def _devcontainer(self, path: Path) -> None:
        """A development container: https://containers.dev/implementors/json_reference."""
        found = documents(_without_comments(self._text(path)), self._root.relative(path))
        document = found[0] if found else None
        if document is None or not isinstance(document.data, dict):
            return
        data = document.data
        image = data.get("image")
        reason = image_reason(image) if isinstance(image, str) else ""
        if reason:
            self._report.findings.add(Finding(document.place("image"), "devcontainer", reason))
        features = data.get("features")
        for feature in features if isinstance(features, dict) else ():
            if classify(str(feature)):
                place = document.place("features", feature)
                self._report.findings.add(
                    Finding(place, "devcontainer", f"the feature {feature} installs a PostgreSQL server")
                )
        files = data.get("dockerComposeFile")
        for name in [files] if isinstance(files, str) else files if isinstance(files, list) else ():
            self._compose.check(path.parent / str(name))
        build = data.get("build")
        name = build.get("dockerfile") if isinstance(build, dict) else data.get("dockerFile")
        if isinstance(name, str):
            arguments = build.get("args") if isinstance(build, dict) else None
            given = {str(key): str(value) for key, value in arguments.items()} if isinstance(arguments, dict) else {}
            target = str(build.get("target") or "") if isinstance(build, dict) else ""
            file = path.parent / name
            for line, reason in Dockerfile(self._text(file), given).reasons(target):
                self._found(file, line, "devcontainer", reason)


def _unit(text: str) -> Iterator[tuple[int, str, str]]:
    """The keys of the container in a unit of systemd's, each with its line."""
    section, parts, start = "", list[str](), 0
    for number, written in enumerate(text.split("\n"), start=1):
        line = written.strip()
        if not parts and (not line or line[0] in "#;"):
            continue
        start = start if parts else number
        parts.append(line.removesuffix("\\"))
        if line.endswith("\\"):
            continue
        whole, parts = " ".join(parts), []
        if whole.startswith("["):
            section = whole.strip("[]")
        key, sign, value = whole.partition("=")
        if section in {"Container", "Image"} and sign and key.strip() in _CONTAINER_KEYS:
            yield start, key.strip(), value.strip()


def _targets(mount: str) -> list[str]:
    """The paths inside the container of ``source:path[:mode]``, or of ``type=volume,destination=path``."""
    named = [part.partition("=")[2] for part in mount.split(",") if re.match(r"(?:dst|destination|target)=", part)]
    return named or [part for part in mount.split(":")[1:] if part.startswith("/")]


def _without_comments(text: str) -> str:
    """JSON without the comments that people write into it; each character keeps its place."""
    found, at = list(text), 0
    while at < len(text):
        if text[at] == '"':
            at += 1
            while at < len(text) and text[at] != '"':
                at += 2 if text[at] == "\\" else 1
            at += 1
        elif text.startswith(("//", "/*"), at):
            end = text.find("\n" if text[at + 1] == "/" else "*/", at)
            end = len(text) if end < 0 else end + (0 if text[at + 1] == "/" else 2)
            found[at:end] = [sign if sign == "\n" else " " for sign in text[at:end]]
            at = end
        else:
            at += 1
    return "".join(found)
