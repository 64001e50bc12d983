"""What a project's schemas have beyond its files, and lack of them, as SQL that has been tried.

The statements are run where the files were, until what is there is what the schemas have. So they are in an order in
which they run, say what PostgreSQL takes, and what they do not reach is known.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg

from data_plane.connector.migrations.definitions import Definition, definitions_of
from data_plane.model.naming import TenantNames

__all__ = ["Difference", "difference"]

_ROUNDS = 4
_RELATIONS = frozenset({"table", "view", "materialized view", "sequence"})
_WITH_THE_OBJECT = frozenset({"right", "row-level security", "default", "not null", "comment"})
"""What a new object has by itself, of default privileges, say: looked at once it is there."""
_WITH_ROWS = frozenset({"table", "column", "materialized view", "sequence"})
"""What is never dropped to be made anew."""
_LABELS = re.compile(r"'(?:[^']|'')*'")


@dataclass
class Difference:
    """How to get from the files to the schemas."""

    statements: list[str] = field(default_factory=list)
    unsaid: list[str] = field(default_factory=list)
    """What the statements do not bring about, in words."""


@dataclass(frozen=True)
class _Step:
    """One change, and the ways to it: the first that runs is taken."""

    ways: list[str]


def difference(scratch: psycopg.Connection[Any], names: TenantNames, wanted: Sequence[Definition]) -> Difference:
    """The difference between what the files make and what is there.

    Args:
        scratch: where the files have run; what is wanted is there afterwards, as far as it can be.
        wanted: what the schemas have.
    """
    found = Difference()
    for turn in range(_ROUNDS):
        steps = list(_steps(definitions_of(scratch, names), wanted, objects_alone=turn == 0))
        done = _run(scratch, steps)
        found.statements += done
        if not done and turn > 0:
            break
    found.unsaid += _left(definitions_of(scratch, names), wanted)
    return found


def _steps(present: Sequence[Definition], wanted: Sequence[Definition], *, objects_alone: bool) -> Iterator[_Step]:
    there = {item.key: item for item in present}
    to_be = {item.key: item for item in wanted}
    gone = {item.identity for item in present if item.kind in _RELATIONS and item.key not in to_be}
    for item in reversed(present):
        goes_along = item.relation in gone and item.identity != item.relation
        if item.key not in to_be and item.dropped and not goes_along and not _later(item, objects_alone=objects_alone):
            yield _Step([item.dropped])
    for item in wanted:
        before = there.get(item.key)
        if _later(item, objects_alone=objects_alone):
            continue
        if before is None:
            comes_along = item.kind == "column" and ("table", item.relation) not in there
            if item.made and not comes_along:
                yield _Step([item.made])
        elif before.definition != item.definition:
            yield _Step(list(_changes(before, item)))


def _later(item: Definition, *, objects_alone: bool) -> bool:
    return objects_alone and item.kind in _WITH_THE_OBJECT


def _changes(before: Definition, after: Definition) -> Iterator[str]:
    if after.replaced:
        yield after.replaced
    if after.kind == "type" and (added := _added_labels(before, after)):
        yield added
    if before.dropped and after.made and after.kind not in _WITH_ROWS:
        yield f"{before.dropped};\n{after.made}"


def _added_labels(before: Definition, after: Definition) -> str | None:
    """`add value` for what an enumeration has more; None if it is none, or has not all that it had, in that order."""
    if not (before.definition.startswith("enum (") and after.definition.startswith("enum (")):
        return None
    old, new = _LABELS.findall(before.definition), _LABELS.findall(after.definition)
    if [label for label in new if label in old] != old:
        return None
    statements = []
    for place, label in enumerate(new):
        if label not in old:
            where = f" after {new[place - 1]}" if place else f" before {old[0]}" if old else ""
            statements.append(f"alter type {after.identity} add value {label}{where}")
    return ";\n".join(statements)


def _run(scratch: psycopg.Connection[Any], steps: list[_Step]) -> list[str]:
    """Runs what can be, again and again while that makes more possible; gives what ran, in that order."""
    done: list[str] = []
    before = -1
    while steps and len(done) > before:
        before = len(done)
        waiting = []
        for step in steps:
            way = next((way for way in step.ways if _runs(scratch, way)), None)
            if way is None:
                waiting.append(step)
            else:
                done.append(way)
        steps = waiting
    return done


def _runs(scratch: psycopg.Connection[Any], statement: str) -> bool:
    try:
        with scratch.transaction():
            scratch.execute(statement.encode())
    except psycopg.Error:
        if scratch.closed:
            raise
        return False
    return True


def _left(present: Sequence[Definition], wanted: Sequence[Definition]) -> list[str]:
    there, to_be = ({item.key: item for item in items} for items in (present, wanted))
    lines = []
    for key in dict.fromkeys((*to_be, *there)):
        before, after = there.get(key), to_be.get(key)
        if before is not None and after is not None and before.definition != after.definition:
            lines.append(f"{key[0]} {key[1]}: {_short(after)} in the schema, {_short(before)} by the files")
        elif before is None:
            lines.append(f"{key[0]} {key[1]}: only in the schema")
        elif after is None:
            lines.append(f"{key[0]} {key[1]}: only by the files")
    # A name may have a line's end in it, and what is said here becomes a comment.
    return [" ".join(line.split()) for line in lines]


def _short(item: Definition) -> str:
    return " ".join(item.definition.split()) or "nothing"
