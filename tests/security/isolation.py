"""The isolation matrix: what is tried, by whom, and what comes of it; and the page that shows it.

``python -m tests.security.isolation`` writes ``docs/reference/isolation.md`` from ``isolation.yaml``.
"""

import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import yaml

from data_plane.model.naming import API_LEVELS, AccessLevel
from tests.security import openbao

__all__ = ["ACTORS", "FURTHER", "PAGE", "Actor", "Case", "Door", "load", "page"]

FURTHER = "$private"
"""What the name of a further schema ends with, of those who attack and of those who are attacked."""

TABLE = Path(__file__).with_name("isolation.yaml")
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "isolation.md"
_REFUSED = "42501"
_SCHEMA = re.compile(r"\{(me|other|hidden|elsewhere)\}(?![_%$])")

T = TypeVar("T")
Cells = Mapping[str, str]
"""What comes of something, by ``door.level``, level, door or ``*``; the most particular one counts."""


class Door(StrEnum):
    """How somebody gets to PostgreSQL."""

    LEASE = "lease"
    """A login of one's own."""
    TOKEN = "token"
    """A request to the cell's PostgREST that calls a function of the project's, if admission lets its owner make it."""
    DEDICATED = "dedicated"
    """A request to a PostgREST of the project's own, in which any SQL may run."""


@dataclass(frozen=True)
class Actor:
    """A way into the attacking tenant."""

    door: Door
    level: AccessLevel

    def __str__(self) -> str:
        return f"{self.door}.{self.level}"


ACTORS = [
    *(Actor(Door.LEASE, level) for level in AccessLevel),
    *(Actor(door, level) for door in (Door.TOKEN, Door.DEDICATED) for level in AccessLevel if level in API_LEVELS),
]


@dataclass(frozen=True)
class Case:
    """One row: something that is tried. What the fields mean is at the head of the table."""

    kind: str
    act: str
    what: str
    sql: str
    cells: Cells = field(default_factory=dict)
    before: Mapping[int, Cells] = field(default_factory=dict)
    note: str | None = None
    since: int = 0
    extension: str | None = None
    alone: bool = False

    def __str__(self) -> str:
        return f"{self.kind}: {self.act}: {self.what}"

    @property
    def names_a_schema(self) -> bool:
        """Whether it can be tried with further schemas, too. Buckets and roles are named like first ones."""
        return "bucket_id" not in self.sql and bool(_SCHEMA.search(self.sql))

    def beside(self) -> str:
        """Its SQL with the further schemas of all tenants in place of their first ones; roles stay."""
        return _SCHEMA.sub(lambda found: f"{found[0]}{FURTHER}", self.sql)

    def expected(self, actor: Actor, major: int) -> str:
        """``ok``, ``none``, or an SQLSTATE, as it should be on a version of PostgreSQL."""
        return _find(_at(self.cells, self.before, major), actor) or _REFUSED


def _at(cells: Cells, before: Mapping[int, Cells], major: int) -> Cells:
    older = [others for version, others in before.items() if major < version]
    return {key: value for source in (cells, *older) for key, value in source.items()}


def _find(cells: Cells, actor: Actor) -> str | None:
    return next((cells[key] for key in (str(actor), actor.level, actor.door, "*") if key in cells), None)


def load() -> tuple[list[Case], dict[str, str]]:
    """The cases, and the texts of the reasons."""
    document: dict[str, Any] = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    return list(_cases(document["matrix"])), document["reasons"]


def _cases(matrix: Mapping[str, Any]) -> Iterator[Case]:
    for kind, rows in matrix.items():
        for row in rows:
            fields = dict(row)
            fields["cells"] = {str(key): str(value) for key, value in row.get("cells", {}).items()}
            yield Case(kind=kind, **fields)


# The page ------------------------------------------------------------------------------------------------------------

_NEWEST = 18
_WRAPPED: dict[str, Any] = {"subsequent_indent": "  ", "break_long_words": False, "break_on_hyphens": False}
_HEAD = """\
<!-- Generated from tests/security/isolation.yaml by `python -m tests.security.isolation`. -->

# Isolation

What a tenant can do to another tenant, to the platform and to itself, by PostgreSQL object and by
way in. Each of **{cells} cells** ({rows} statements by {actors} ways in) is tried by
`tests/security` on a real data plane, on the oldest and the newest PostgreSQL that is there. The
{beside} statements that name a schema are tried again with further schemas (`proj_x$private`), with
the same result.

- **lease**: a session with a lease of that level.
- **token**: a request to the cell's PostgREST that calls a function of the project, if admission
  lets it in.
- **dedicated**: a request to a PostgREST that serves this project alone, in which any SQL of the
  project runs.

Statements that every way in is refused are lists. In tables: ✗ refused (with that SQLSTATE, else
`42501`), · done, but no row was seen or changed, ✓ done, `01007` PostgreSQL warned, and nothing was
granted; a way in without a level stands for all of its levels.
"""

_BAO_HEAD = """\
## OpenBao

What people of a project can do at OpenBao with their own tokens: **{cells} requests** of {rows}
kinds. ✗ is status 403. The same is tried without a token, and with made-up, expired and revoked
ones: none is answered.
"""
_ANY = dict.fromkeys(
    [
        "me",
        "other",
        "other_lease",
        "other_token",
        "other_accessor",
        "other_entity",
        "other_group",
        "accessor",
        "my_name",
        "my_entity",
    ],
    "x",
)


def page() -> str:
    """The matrix as Markdown."""
    cases, reasons = load()
    beside = sum(case.names_a_schema for case in cases)
    sizes = {"cells": len(cases) * len(ACTORS), "rows": len(cases), "actors": len(ACTORS), "beside": beside}
    parts = [_HEAD.format(**sizes)]
    parts.extend(_section(kind, list(rows), reasons) for kind, rows in groupby(cases, key=lambda case: case.kind))
    attempts, reasons = openbao.load()
    cells = sum(len(list(attempt.variants(_ANY))) for attempt in attempts) * len(openbao.PEOPLE)
    parts.append(_BAO_HEAD.format(cells=cells, rows=len(attempts)))
    parts.extend(_paths(kind, list(rows), reasons) for kind, rows in groupby(attempts, key=lambda row: row.kind))
    return "\n".join(parts)


def _paths(kind: str, attempts: list[openbao.Attempt], reasons: Mapping[str, str]) -> str:
    footnotes = _Footnotes(reasons)
    refused, other = _split(attempts, lambda row: {row.expected(person) for person in openbao.PEOPLE} == {403})
    lines = [f"### {kind.capitalize()}", "", *_refusals((row.act, f"{row.what} (`{_path(row)}`)") for row in refused)]
    if other:
        lines += [
            "| | | | " + " | ".join(openbao.PEOPLE) + " |",
            "| --- | --- | --- |" + " :---: |" * len(openbao.PEOPLE),
        ]
    for row in other:
        cells = [row.expected(person) for person in openbao.PEOPLE]
        shown = " | ".join("✗" if cell == 403 else f"✓ {cell}" if cell < 300 else f"✗ `{cell}`" for cell in cells)
        lines.append(f"| {row.act} | {row.what}{footnotes(row.note)} | `{_path(row)}` | {shown} |")
    return "\n".join([*lines, *footnotes.lines()])


def _path(attempt: openbao.Attempt) -> str:
    path = re.sub(r"\{(\w+)\}", r"<\1>", attempt.path)
    return f"{attempt.method} {path}"


def _section(kind: str, cases: list[Case], reasons: Mapping[str, str]) -> str:
    footnotes = _Footnotes(reasons)
    refused, other = _split(
        cases, lambda case: case.note is None and all(_cell(case, actor).startswith("✗") for actor in ACTORS)
    )
    lines = [f"## {kind.capitalize()}", "", *_refusals((case.act, case.what) for case in refused)]
    if other:
        lines += ["| | | comes of it |", "| --- | --- | --- |"]
    for case in other:
        results: dict[str, list[Actor]] = {}
        for actor in ACTORS:
            results.setdefault(_cell(case, actor), []).append(actor)
        *fewer, (most, _) = sorted(results.items(), key=lambda result: len(result[1]))
        shown = "; ".join(
            [*(f"{result} {_named(actors)}" for result, actors in fewer), f"{most} all{' others' * bool(fewer)}"]
        )
        lines.append(f"| {case.act} | {case.what}{footnotes(case.note)} | {shown} |")
    return "\n".join([*lines, *footnotes.lines()])


def _named(actors: list[Actor]) -> str:
    """Ways in, by door: all levels of one need no mention."""
    parts = []
    for door in Door:
        levels = [str(actor.level) for actor in actors if actor.door is door]
        whole = len(levels) == sum(actor.door is door for actor in ACTORS)
        if levels:
            parts.append(str(door) if whole else f"{door} ({', '.join(levels)})")
    return ", ".join(parts)


def _split(rows: list[T], condition: Callable[[T], bool]) -> tuple[list[T], list[T]]:
    """Those that meet a condition, and the others."""
    return [row for row in rows if condition(row)], [row for row in rows if not condition(row)]


def _refusals(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    """What is refused to all, by act."""
    by_act: dict[str, list[str]] = {}
    for act, what in rows:
        by_act.setdefault(act, []).append(what)
    if by_act:
        yield "Refused to all:"
        yield ""
        yield from (textwrap.fill(f"- {act}: {'; '.join(what)}", 100, **_WRAPPED) for act, what in by_act.items())
        yield ""


class _Footnotes:
    """Numbers for the reasons that one table gives, in the order in which it first does."""

    def __init__(self, reasons: Mapping[str, str]) -> None:
        self._reasons = reasons
        self._given: list[str] = []

    def __call__(self, reason: str | None) -> str:
        if reason is None:
            return ""
        if reason not in self._given:
            self._given.append(reason)
        return f"<sup>{self._given.index(reason) + 1}</sup>"

    def lines(self) -> list[str]:
        """What goes below the table."""
        texts = [
            textwrap.fill(f"{number}. {self._reasons[reason].strip()}", 100, **{**_WRAPPED, "subsequent_indent": "   "})
            for number, reason in enumerate(self._given, 1)
        ]
        return ["", *texts, ""] if texts else [""]


def _cell(case: Case, actor: Actor) -> str:
    shown = _shown(case.expected(actor, _NEWEST))
    for version in sorted(case.before):
        then = _shown(case.expected(actor, version - 1))
        if then != shown:
            shown += f"<br>{then} before {version}"
    return shown


def _shown(outcome: str) -> str:
    return {"ok": "✓", "none": "·", _REFUSED: "✗", "01007": "`01007`"}.get(outcome) or f"✗ `{outcome}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
