"""Dockerfiles: what the image that they build is made of."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from policies.commands import started_by
from policies.containers import Container
from policies.images import classify

__all__ = ["Dockerfile", "Stage"]

_INSTRUCTION = re.compile(r"^\s*(?P<name>[A-Za-z]+)\s+(?P<rest>.*)$", re.DOTALL)
_FROM = re.compile(r"^(?:--\S+\s+)*(?P<base>\S+)(?:\s+[Aa][Ss]\s+(?P<name>\S+))?\s*$")
_ESCAPE = re.compile(r"^\s*#\s*escape\s*=\s*`", re.IGNORECASE)
_VARIABLE = re.compile(r"\$(?:\{(?P<braced>\w+)(?::?(?P<sign>[-+])(?P<other>[^{}]*))?\}|(?P<plain>\w+))")
_HEREDOC = re.compile(r"<<-?\s*[\"']?(\w+)[\"']?")


@dataclass
class Stage:
    """One ``FROM``, and the instructions up to the next."""

    base: str
    name: str
    line: int
    instructions: list[tuple[int, str, str]] = field(default_factory=list)


class Dockerfile:
    """A Dockerfile, taken apart.

    Args:
        text: what it holds.
        arguments: build arguments, which win over the defaults of ``ARG``.
    """

    def __init__(self, text: str, arguments: Mapping[str, str] | None = None) -> None:
        self.stages: list[Stage] = []
        given, values = dict(arguments or {}), dict[str, str]()
        for line, name, rest in _instructions(text):
            if name == "FROM":
                found = _FROM.match(rest)
                base = _filled(found["base"] if found else rest.strip(), values)
                self.stages.append(Stage(base, (found["name"] or "") if found else "", line))
            elif not self.stages:
                if name == "ARG":
                    key, _, default = rest.strip().partition("=")
                    values[key] = given.get(key, _filled(default.strip("\"'"), values))
            else:
                self.stages[-1].instructions.append((line, name, rest))

    def built(self, target: str = "") -> list[Stage]:
        """The stages that the image is made of: the last or the named one, and those that it is built on."""
        named = {stage.name.lower(): index for index, stage in enumerate(self.stages) if stage.name}
        index = named.get(target.lower()) if target else None
        if index is None:
            index = int(target) if target.isdigit() and int(target) < len(self.stages) else len(self.stages) - 1
        chain: list[Stage] = []
        while 0 <= index < len(self.stages):
            chain.append(self.stages[index])
            before = {stage.name.lower(): at for at, stage in enumerate(self.stages[:index]) if stage.name}
            index = before.get(chain[-1].base.lower(), -1)
        return chain

    def reasons(self, target: str = "") -> Iterator[tuple[int, str]]:
        """Why the image is a PostgreSQL server, each with its line."""
        for stage in self.built(target):
            family = classify(stage.base)
            if family:
                yield stage.line, f"its image is built on {stage.base}, {family.value}"
            for line, name, rest in stage.instructions:
                if name == "RUN":
                    yield from ((line, f"its image {reason}") for reason in started_by(rest, lambda _: False))
                elif name in {"CMD", "ENTRYPOINT"}:
                    reason = Container(name="", command=_words(rest)).forbidden()
                    if reason:
                        yield line, reason


def _instructions(text: str) -> Iterator[tuple[int, str, str]]:
    lines = text.splitlines()
    escape = "`" if any(map(_ESCAPE.match, lines[:3])) else "\\"
    at = 0
    while at < len(lines):
        start, parts = at, list[str]()
        while at < len(lines):
            line = lines[at]
            at += 1
            if line.lstrip().startswith("#") or (not parts and not line.strip()):
                start = start if parts else at
                continue
            if not line.rstrip().endswith(escape):
                parts.append(line)
                break
            parts.append(line.rstrip()[:-1])
        found = _INSTRUCTION.match(" ".join(parts))
        if found is None:
            continue
        rest = found["rest"]
        if found["name"].upper() in {"RUN", "COPY", "ADD"}:
            for end in _HEREDOC.findall(rest):
                while at < len(lines) and lines[at].strip() != end:
                    rest += f"\n{lines[at]}"
                    at += 1
                at += 1
        yield start + 1, found["name"].upper(), rest


def _filled(text: str, values: Mapping[str, str]) -> str:
    def value(found: re.Match[str]) -> str:
        known = values.get(found["braced"] or found["plain"] or "", "")
        if found["sign"] == "-":
            return known or found["other"]
        if found["sign"] == "+":
            return found["other"] if known else ""
        return known

    return _VARIABLE.sub(value, text)


def _words(rest: str) -> list[str]:
    try:
        words = json.loads(rest)
    except ValueError:
        return [rest.strip()]
    return [str(word) for word in words] if isinstance(words, list) else [rest.strip()]
