"""The isolation matrix: what is tried, by whom, and what comes of it; and the page that shows it.

``python -m tests.security.isolation`` writes ``docs/isolation.md`` from ``isolation.yaml``.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import groupby
from pathlib import Path
from typing import Any

import yaml

from components.naming import API_LEVELS, AccessLevel

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
`tests/security` runs on a real data plane, on every PostgreSQL that is there: **{cells} cells** of {rows} rows.

- **lease**: a session with a lease of that level. **token**: a request to the shared PostgREST with a token of that level, in which SQL of
  the project's own runs, which is the most that a request can do. **dedicated**: the same to a PostgREST that serves this project
  alone (`api: dedicated`).
- ✗ refused, with `42501` (insufficient privilege) if no other SQLSTATE stands there. · done, but no row was seen or changed. ✓ done.
  `01007`: PostgreSQL warned, and nothing was granted.
- ⚠ known to be open, with the reason below the table.

"""


def page() -> str:
    """The matrix as Markdown."""
    cases, reasons = load()
    parts = [_HEAD.format(cells=len(cases) * len(ACTORS), rows=len(cases))]
    parts.extend(_section(kind, list(rows), reasons) for kind, rows in groupby(cases, key=lambda case: case.kind))
    return "\n".join(parts)


def _section(kind: str, cases: list[Case], reasons: Mapping[str, str]) -> str:
    numbers: dict[str, int] = {}

    def footnote(reason: str) -> str:
        return f"<sup>{numbers.setdefault(reason, len(numbers) + 1)}</sup>"

    lines = [
        f"## {kind.capitalize()}",
        "",
        "| | | " + " | ".join(f"{actor.door}<br>{actor.level}" for actor in ACTORS) + " |",
        "| --- | --- |" + " :---: |" * len(ACTORS),
    ]
    for case in cases:
        what = case.what + (footnote(case.note) if case.note else "")
        cells = [_cell(case, actor, footnote) for actor in ACTORS]
        lines.append(f"| {case.act} | {what} | " + " | ".join(cells) + " |")
    lines.append("")
    lines += [f"{number}. {reasons[reason].strip()}" for reason, number in numbers.items()]
    return "\n".join(lines) + ("\n" if numbers else "")


def _cell(case: Case, actor: Actor, footnote: "Any") -> str:
    reason = case.why_open(actor, _NEWEST)
    if reason:
        return f"⚠{footnote(reason)}"
    shown = _shown(case.expected(actor, _NEWEST))
    for version in sorted({*case.before, *case.open_before}):
        older = case.why_open(actor, version - 1)
        then = f"⚠{footnote(older)}" if older else _shown(case.expected(actor, version - 1))
        if then != shown:
            shown += f"<br>{then} before {version}"
    return shown


def _shown(outcome: str) -> str:
    return {"ok": "✓", "none": "·", _REFUSED: "✗", "01007": "`01007`"}.get(outcome) or f"✗ `{outcome}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
