"""What a run of a stack did, or in a preview would do."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

__all__ = [
    "NOT_KNOWN_YET",
    "SECRET",
    "Change",
    "EngineRun",
    "Properties",
    "PropertyChange",
    "Step",
    "differences",
]

SECRET = "[secret]"
"""Stands for a secret value wherever a run is described; the CLI's own word."""
NOT_KNOWN_YET = "[known after up]"
"""Stands for a value that something has to be applied for."""

_INTERNAL = "__"
"""How the names of a dynamic resource's own properties begin, e.g. of its provider's code."""

Properties = Mapping[str, Any]


class Change(StrEnum):
    """What was done to a resource, or in a preview would be."""

    CREATE = "create"
    UPDATE = "update"
    REPLACE = "replace"
    DELETE = "delete"
    SAME = "same"


@dataclass(frozen=True)
class PropertyChange:
    """A property before and after a step; None stands for one that is not there."""

    path: str
    old: Any
    new: Any


@dataclass(frozen=True)
class Step:
    """One resource of the program and what it took to have it as declared."""

    urn: str
    type: str
    name: str
    change: Change
    custom: bool
    """Whether it is something on a server, not a component that groups such things."""
    changed: tuple[str, ...] = ()
    """Names of the inputs that differed, for an update."""
    parent: str = ""
    """URN of the component that it is part of."""
    old: Properties | None = None
    """The former values, by the names of inputs: as found where that differs from what was declared."""
    new: Properties | None = None
    """What is declared."""

    @property
    def properties(self) -> list[PropertyChange]:
        """The inputs that differ; secrets and what is not known yet are only named."""
        found = list(differences(self.old or {}, self.new or {}))
        told = {_property_in(change.path) for change in found}
        if self.change in {Change.UPDATE, Change.REPLACE}:
            # A secret looks the same before and after.
            named = dict.fromkeys(map(_property_in, self.changed))
            found += [
                PropertyChange(name, (self.old or {}).get(name), (self.new or {}).get(name))
                for name in named
                if name not in told and not name.startswith(_INTERNAL)
            ]
        return found


def _property_in(path: str) -> str:
    return path.partition(".")[0].partition("[")[0]


def differences(old: Properties, new: Properties, path: str = "") -> Iterator[PropertyChange]:
    """Where two sets of properties differ, mappings gone through; without a dynamic resource's own."""
    for name in sorted({*old, *new}):
        before, after = old.get(name), new.get(name)
        here = f"{path}.{name}" if path else name
        if before == after or name.startswith(_INTERNAL):
            continue
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from differences(before, after, here)
        else:
            yield PropertyChange(here, before, after)


@dataclass(frozen=True)
class EngineRun:
    """How a run of one stack ended. Components and Pulumi's own resources are not counted."""

    stack: str
    created: int
    updated: int
    same: int
    remarks: list[str] = field(default_factory=list)
    """Warnings and advisory policies."""
    replaced: int = 0
    deleted: int = 0
    affected: bool = True
    """Whether the stack was run: nothing that it depends on has changed since its last run otherwise."""
