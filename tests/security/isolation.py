"""The isolation matrix: what is tried, by whom, and what comes of it; and the page that shows it.

``python -m tests.security.isolation`` writes ``docs/isolation.md`` from ``isolation.yaml``.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import groupby
from pathlib import Path
from typing import Any

import yaml

from components.naming import API_LEVELS, AccessLevel
from tests.security import openbao

__all__ = ["ACTORS", "PAGE", "Actor", "Case", "Door", "load", "page"]

TABLE = Path(__file__).with_name("isolation.yaml")
PAGE = Path(__file__).parents[2] / "docs" / "isolation.md"
_REFUSED = "42501"

Cells = Mapping[str, str]
"""What comes of something, by ``door.level``, level, door or ``*``; the most particular one counts."""


class Door(StrEnum):
    """How somebody gets to PostgreSQL."""

    LEASE = "lease"
    """A login of one's own."""
    TOKEN = "token"
    """A request to the shared PostgREST, in which the project's own SQL runs: a function that its owner has made."""
    DEDICATED = "dedicated"
    """The same to a PostgREST of the project's own."""


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
    open: Cells = field(default_factory=dict)
    open_before: Mapping[int, Cells] = field(default_factory=dict)
    note: str | None = None
    since: int = 0
    extension: str | None = None
    alone: bool = False

    def __str__(self) -> str:
        return f"{self.kind}: {self.act}: {self.what}"

    def expected(self, actor: Actor, major: int) -> str:
        """``ok``, ``none``, or an SQLSTATE, as it should be on a version of PostgreSQL."""
        return _find(_at(self.cells, self.before, major), actor) or _REFUSED

    def why_open(self, actor: Actor, major: int) -> str | None:
        """The reason, where a cell is known to be wrong."""
        return _find(_at(self.open, self.open_before, major), actor)


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
            for name in ("cells", "open"):
                fields[name] = {str(key): str(value) for key, value in row.get(name, {}).items()}
            yield Case(kind=kind, **fields)


# The page ------------------------------------------------------------------------------------------------------------

_NEWEST = 18
_HEAD = """\
<!-- Generated from tests/security/isolation.yaml by `python -m tests.security.isolation`. -->

# Isolation

What a tenant can do to another tenant, to the platform and at home, by PostgreSQL object and by way in. Each cell is a statement that
`tests/security` runs on a real data plane, on the oldest and the newest PostgreSQL that is there: **{cells} cells** of {rows} rows.

- **lease**: a session with a lease of that level. **token**: a request to the shared PostgREST with a token of that level, in which SQL of
  the project's own runs, which is the most that a request can do. **dedicated**: the same to a PostgREST that serves this project
  alone (`api: dedicated`).
- ✗ refused, with `42501` (insufficient privilege) if no other SQLSTATE stands there. · done, but no row was seen or changed. ✓ done.
  `01007`: PostgreSQL warned, and nothing was granted.
- ⚠ known to be open, with the reason below the table.

"""

_BAO_HEAD = """\
# OpenBao

What people of a project can do at OpenBao with their own tokens: **{cells} requests** of {rows} rows, `<level>` for each level in turn. ✗ is
status 403. The same is tried without a token, and with made-up, expired and revoked ones, to which nothing is answered.
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
    parts = [_HEAD.format(cells=len(cases) * len(ACTORS), rows=len(cases))]
    parts.extend(_section(kind, list(rows), reasons) for kind, rows in groupby(cases, key=lambda case: case.kind))
    attempts, reasons = openbao.load()
    cells = sum(len(list(attempt.variants(_ANY))) for attempt in attempts) * len(openbao.PEOPLE)
    parts.append(_BAO_HEAD.format(cells=cells, rows=len(attempts)))
    parts.extend(_paths(kind, list(rows), reasons) for kind, rows in groupby(attempts, key=lambda row: row.kind))
    return "\n".join(parts)


def _paths(kind: str, attempts: list[openbao.Attempt], reasons: Mapping[str, str]) -> str:
    footnotes = _Footnotes(reasons)
    lines = [f"### {kind.capitalize()}", "", "| | | | " + " | ".join(openbao.PEOPLE) + " |"]
    lines.append("| --- | --- | --- |" + " :---: |" * len(openbao.PEOPLE))
    for attempt in attempts:
        cells = [attempt.expected(person) for person in openbao.PEOPLE]
        shown = " | ".join("✗" if cell == 403 else f"✓ {cell}" if cell < 300 else f"✗ `{cell}`" for cell in cells)
        path = re.sub(r"\{(\w+)\}", r"<\1>", attempt.path)
        lines.append(
            f"| {attempt.act} | {attempt.what}{footnotes(attempt.note)} | `{attempt.method} {path}` | {shown} |"
        )
    return "\n".join([*lines, *footnotes.lines()])


def _section(kind: str, cases: list[Case], reasons: Mapping[str, str]) -> str:
    footnotes = _Footnotes(reasons)
    lines = [
        f"## {kind.capitalize()}",
        "",
        "| | | " + " | ".join(f"{actor.door}<br>{actor.level}" for actor in ACTORS) + " |",
        "| --- | --- |" + " :---: |" * len(ACTORS),
    ]
    for case in cases:
        cells = [_cell(case, actor, footnotes) for actor in ACTORS]
        lines.append(f"| {case.act} | {case.what}{footnotes(case.note)} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, *footnotes.lines()])


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
        texts = [f"{number}. {self._reasons[reason].strip()}" for number, reason in enumerate(self._given, 1)]
        return ["", *texts, ""] if texts else [""]


def _cell(case: Case, actor: Actor, footnotes: _Footnotes) -> str:
    reason = case.why_open(actor, _NEWEST)
    if reason:
        return f"⚠{footnotes(reason)}"
    shown = _shown(case.expected(actor, _NEWEST))
    for version in sorted({*case.before, *case.open_before}):
        older = case.why_open(actor, version - 1)
        then = f"⚠{footnotes(older)}" if older else _shown(case.expected(actor, version - 1))
        if then != shown:
            shown += f"<br>{then} before {version}"
    return shown


def _shown(outcome: str) -> str:
    return {"ok": "✓", "none": "·", _REFUSED: "✗", "01007": "`01007`"}.get(outcome) or f"✗ `{outcome}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
