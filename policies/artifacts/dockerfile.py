"""Dockerfiles: what the image that they build is made of (https://docs.docker.com/reference/dockerfile).

They are taken apart here because ``dockerfile-parse`` reads no here-documents.
"""

import json
import posixpath
import re
import shlex
from collections import ChainMap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from policies.artifacts.variables import UNKNOWN, image_is_unknown, known
from policies.commands import started_by
from policies.containers import Container
from policies.images import classify

__all__ = ["Dockerfile", "Stage"]

STAGES_MAX = 500
FILLED_MAX_CHARACTERS = 2_000_000
"""Of one file, that its variables may add."""

_INSTRUCTION = re.compile(r"\s*(?P<name>[A-Za-z]+)\s+(?P<rest>\S.*)", re.DOTALL)
_ESCAPE = re.compile(r"\s*#\s*escape\s*=\s*`", re.IGNORECASE)
_VARIABLE = re.compile(r"\$(?:\{(?P<braced>\w+)(?::?(?P<sign>[-+?])(?P<other>[^{}]*))?\}|(?P<plain>\w+))")
_HEREDOC = re.compile(r"(?<![^\s\d])<<(?P<tabs>-?)[\"']?(?P<end>[A-Za-z_]\w*)[\"']?(?![^\s;&|)>])")
_ASSIGNED = re.compile(r"(?<![\w$-])([A-Za-z_]\w*)=(\"[^\"$`]*\"|'[^']*'|[^\s\"'$`;&|()]+)")
_NAME = re.compile(r"[A-Za-z_]\w*")
_PLATFORM = {"TARGETARCH": "amd64", "TARGETOS": "linux", "BUILDARCH": "amd64", "BUILDOS": "linux"}
"""BuildKit's own arguments, for a build on the most usual machine."""

# What of an image with a server in it has the server in it: its root, the folders of programs, the program itself.
_PROGRAMS = re.compile(
    r"(?:|usr|usr/local|usr/lib|opt|bin|usr/bin|usr/sbin|usr/local/bin|opt/bitnami"
    r"|(?:usr/lib/postgresql|usr/local/pgsql|usr/pgsql[^/]*|opt/bitnami/postgresql)(?:/[\d*.\ufdd0]+)?(?:/bin)?)"
    r"|(?:\S*/)?(?:postgres|postmaster|initdb|pg_ctl|pg_ctlcluster|patroni|cockroach|yugabyted)"
)
_ROOT_FOLDERS = {"rootfs", "root", "sysroot", "newroot", "chroot", "out", "output", "install", "staging"}
"""In which a builder puts together what becomes the root of the image."""


@dataclass(eq=False)
class Stage:
    """One ``FROM``, and the instructions up to the next, with the variables filled in."""

    number: int
    base: str
    line: int
    written: str
    """The base as the file has it."""
    built_on: "Stage | None" = None
    values: dict[str, str] = field(default_factory=dict)
    instructions: list[tuple[int, str, str]] = field(default_factory=list)


class Dockerfile:
    """A Dockerfile, taken apart.

    Args:
        text: what it holds.
        arguments: build arguments, which win over the defaults of ``ARG``.
    """

    def __init__(self, text: str, arguments: Mapping[str, str] | None = None) -> None:
        self.stages: list[Stage] = []
        self._named: dict[str, Stage] = {}
        self._filled = 0
        self._refused: list[tuple[int, str]] = []
        self._reasons: dict[int, list[tuple[int, str]]] = {}
        self._given, self._outer = dict(arguments or {}), dict(_PLATFORM)
        for line, name, rest in _instructions(text):
            if len(self.stages) > STAGES_MAX or self._filled > FILLED_MAX_CHARACTERS:
                self._refused.append((line, f"it has more than {STAGES_MAX} stages, or variables without end"))
                break
            self._instruction(line, name, rest)

    # Taking it apart

    def _instruction(self, line: int, name: str, rest: str) -> None:
        if name == "FROM":
            self._from(line, rest)
        elif not self.stages:
            if name == "ARG":
                self._outer |= self._declared(rest, self._outer)
        else:
            self._of_stage(self.stages[-1], line, name, rest)

    def _from(self, line: int, rest: str) -> None:
        words = [word for word in rest.split() if not word.startswith("--")]
        written = words[0] if words else ""
        base = self._fill(written, self._outer, UNKNOWN)
        before = self._named.get(base.lower())
        stage = Stage(len(self.stages), base, line, written, before, dict(before.values) if before else {})
        self.stages.append(stage)
        if len(words) > 2 and words[1].lower() == "as":
            self._named[words[2].lower()] = stage

    def _of_stage(self, stage: Stage, line: int, name: str, rest: str) -> None:
        if name == "ONBUILD":
            found = _INSTRUCTION.match(rest)
            name, rest = (found["name"].upper(), found["rest"]) if found else (name, rest)
        if name == "ARG":
            stage.values |= self._declared(rest, stage.values)
        elif name == "ENV":
            values = self._environment(rest, stage.values)
            stage.values |= values
            rest = " ".join(values)
        elif name in {"RUN", "CMD", "ENTRYPOINT"}:
            own = {found[1]: found[2].strip("\"'") for found in _ASSIGNED.finditer(rest)}
            known_here = ChainMap(stage.values, own)
            rest = json.dumps([self._fill(word, known_here) for word in _words(rest)])
        else:
            rest = self._fill(rest, stage.values, UNKNOWN)
        stage.instructions.append((line, name, rest))

    def _declared(self, rest: str, values: dict[str, str]) -> dict[str, str]:
        found: dict[str, str] = {}
        for word in _split(rest):
            name, sign, default = word.partition("=")
            if name in self._given:
                found[name] = self._given[name]
            elif sign:
                found[name] = self._fill(default, ChainMap(found, values), UNKNOWN)
            elif name in self._outer:
                found[name] = self._outer[name]
        return found

    def _environment(self, rest: str, values: Mapping[str, str]) -> dict[str, str]:
        name, _, text = rest.strip().partition(" ")
        if "=" not in name:
            return {name: self._fill(text.strip(), values, UNKNOWN)}
        pairs = (word.partition("=") for word in _split(rest))
        return {name: self._fill(text, values, UNKNOWN) for name, sign, text in pairs if sign and _NAME.fullmatch(name)}

    def _fill(self, text: str, values: Mapping[str, str], unknown: str | None = None) -> str:
        """A text with its variables; those without a value become ``unknown``, or stay as they are."""
        if self._filled > FILLED_MAX_CHARACTERS:
            return text

        def value(found: re.Match[str]) -> str:
            if self._filled > FILLED_MAX_CHARACTERS:
                return ""
            value = values.get(found["braced"] or found["plain"] or "")
            if found["sign"] == "-":
                value = value or found["other"]
            elif found["sign"] == "+":
                value = found["other"] if value else ""
            elif value is None:
                value = found.group() if unknown is None else unknown
            self._filled += len(value)
            return value

        return _VARIABLE.sub(value, text)

    # What is in it

    def _stage(self, name: str, before: Stage | None = None) -> Stage | None:
        """The stage of a name, or of a number; None if it is none that stands before another."""
        stage = self._named.get(name.lower())
        if stage is None and re.fullmatch(r"[0-9]{1,4}", name) and int(name) < len(self.stages):
            stage = self.stages[int(name)]
        return stage if stage is None or before is None or stage.number < before.number else None

    def built(self, target: str = "") -> list[Stage]:
        """The stages that the image is made of: the last or the named one, and those that it is built on."""
        stage = (self._stage(target) if target else None) or (self.stages[-1] if self.stages else None)
        return list(_chain(stage))

    def reasons(self, target: str = "") -> Iterator[tuple[int, str]]:
        """Why the image is a PostgreSQL server, each with its line."""
        stages = self.built(target)
        for stage in stages:
            yield from self._contents(stage)
        yield from _settings(stages)

    def _contents(self, stage: Stage) -> list[tuple[int, str]]:
        # A stage copies only of those before it, so this ends; each is looked into once.
        if stage.number not in self._reasons:
            self._reasons[stage.number] = list(self._looked_into(stage))
        return self._reasons[stage.number]

    def _looked_into(self, stage: Stage) -> Iterator[tuple[int, str]]:
        base = known(stage.base)
        family = classify(base) if stage.built_on is None else None
        if family:
            yield stage.line, f"its image is built on {base}, {family.value}"
        for line, name, rest in stage.instructions:
            if name == "RUN":
                text = " ".join(json.loads(rest))
                yield from ((line, f"its image {reason}") for reason in started_by(text, lambda _: False))
            elif name in {"COPY", "ADD"}:
                reason = self._copied(stage, rest)
                if reason:
                    yield line, reason
                _, _, script = rest.partition("\n")
                yield from ((line, f"its image {reason}") for reason in started_by(script, lambda _: False))

    def _copied(self, stage: Stage, rest: str) -> str:
        source, path = _copied_programs(rest)
        if not source:
            return ""
        other = self._stage(source, stage)
        if other is None:
            family = classify(known(source))
            return f"its image copies {path} of {known(source)}, {family.value}" if family else ""
        reason = next((reason for part in _chain(other) for _, reason in self._contents(part)), "")
        return f"its image copies {path} of the stage {source}: {reason}" if reason else ""

    def unknown(self, target: str = "") -> Iterator[tuple[int, str]]:
        """What the image is made of and is not known here, each with its line."""
        yield from self._refused
        asked: set[int] = set()
        waiting = self.built(target)
        while waiting:
            stage = waiting.pop()
            if stage.number in asked:
                continue
            asked.add(stage.number)
            if stage.built_on is None and image_is_unknown(stage.base):
                yield stage.line, f"which image it is built on is not known: {stage.written} has no value here"
            for line, name, rest in stage.instructions:
                source, _ = _copied_programs(rest) if name in {"COPY", "ADD"} else ("", "")
                other = self._stage(source, stage) if source else None
                if other is not None:
                    waiting += _chain(other)
                elif source and image_is_unknown(source):
                    yield line, "which image it copies from is not known: its name has no value here"


def _chain(stage: Stage | None) -> Iterator[Stage]:
    while stage is not None:
        yield stage
        stage = stage.built_on


def _settings(stages: list[Stage]) -> Iterator[tuple[int, str]]:
    """Why what the image starts, or sets, is a PostgreSQL server."""
    line, command = 0, list[str]()
    for stage in stages:
        own = {name: (at, json.loads(rest)) for at, name, rest in stage.instructions if name in {"CMD", "ENTRYPOINT"}}
        if "CMD" in own and not command:
            line, command = own["CMD"]
        if "ENTRYPOINT" in own:
            # An entry point takes away the command of what the image is built on.
            line, command = own["ENTRYPOINT"][0], [*own["ENTRYPOINT"][1], *command]
            break
    reason = Container(name="", command=command).forbidden()
    if reason:
        yield line, reason
    for stage in stages:
        for at, name, rest in stage.instructions:
            given = rest.split() if name == "ENV" else _words(rest) if name == "VOLUME" else []
            mounts = [path for word in given for path in word.split()] if name == "VOLUME" else []
            variables = frozenset(given if name == "ENV" else ())
            reason = Container(name="", variables=variables, mounts=mounts).forbidden() if given else ""
            if reason:
                yield at, reason


def _copied_programs(rest: str) -> tuple[str, str]:
    """What a ``COPY`` takes programs from, and the path; empty if it takes none from elsewhere."""
    if "--from=" not in rest:
        return "", ""
    source, rest = "", rest.lstrip()
    while rest.startswith("--"):
        option, _, rest = rest.partition(" ")
        source = option.removeprefix("--from=") if option.startswith("--from=") else source
        rest = rest.lstrip()
    words = _words(rest) if rest.startswith("[") else _split(rest)
    if not source or not words:
        return "", ""
    to_root = words[-1] == "/"
    path = next((path for path in words[:-1] if _holds_programs(path, to_root=to_root)), None)
    return (source, path) if path is not None else ("", "")


def _holds_programs(path: str, *, to_root: bool) -> bool:
    plain = posixpath.normpath(f"/{path}").strip("/").removesuffix("*").rstrip("/")
    return bool(_PROGRAMS.fullmatch(plain)) or (to_root and posixpath.basename(plain) in _ROOT_FOLDERS)


def _instructions(text: str) -> Iterator[tuple[int, str, str]]:
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    escape = "`" if any(map(_ESCAPE.match, lines[:3])) else "\\"
    ends: dict[str, list[int]] = {}
    for number in range(len(lines) - 1, -1, -1):
        ends.setdefault(lines[number], []).append(number)
    at = 0
    while at < len(lines):
        start, parts = at, list[str]()
        while at < len(lines):
            line = lines[at].strip()
            at += 1
            # Comments and, by an old custom, empty lines do not end an instruction.
            if not line or line.startswith("#"):
                start = start if parts else at
                continue
            parts.append(line.removesuffix(escape))
            if not line.endswith(escape):
                break
        found = _INSTRUCTION.match(" ".join(parts))
        if found is None:
            continue
        rest = found["rest"]
        if found["name"].upper() in {"RUN", "COPY", "ADD"}:
            at, inner = _heredocs(rest, lines, ends, at)
            rest = "\n".join([rest, *inner])
        yield start + 1, found["name"].upper(), rest


def _heredocs(rest: str, lines: list[str], ends: dict[str, list[int]], at: int) -> tuple[int, list[str]]:
    """What the here-documents of an instruction hold, and the line after them. One without an end is none."""
    inner: list[str] = []
    for found in _HEREDOC.finditer(rest):
        end = found["end"]
        for written in {end, *(f"{tabs}{end}" for tabs in ("\t", "\t\t") if found["tabs"])}:
            numbers = ends.get(written, [])
            while numbers and numbers[-1] < at:
                numbers.pop()
        places = [ends[written][-1] for written in (end, f"\t{end}", f"\t\t{end}") if ends.get(written)
                  and (written == end or found["tabs"])]  # fmt: skip
        if places:
            inner += lines[at : min(places)]
            at = min(places) + 1
    return at, inner


def _words(rest: str) -> list[str]:
    """The words of the exec form; a text of the shell form as it is."""
    text = rest.strip()
    try:
        words = json.loads(text) if text.startswith("[") else None
    except (ValueError, RecursionError):
        words = None
    return [str(word) for word in words] if isinstance(words, list) else [text]


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()
