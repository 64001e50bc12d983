"""A run as text and as JSON: what changes for each project, then the resources, then how many of each there are."""

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import unified_diff
from functools import cached_property
from typing import Any

from data_plane.engine.steps import Change, EngineRun, PropertyChange, Step
from data_plane.engine.summary import ProjectSummary, project_of, summarize

__all__ = ["StackReport", "counts_by_group", "report_document", "report_lines"]

_REMARKS = {Change.CREATE: ", a new project", Change.DELETE: ", no longer managed"}
_SIGNS = {Change.CREATE: "+", Change.UPDATE: "~", Change.REPLACE: "±", Change.DELETE: "-"}
_SHORT = 70
"""How many characters of a value are shown unless all are asked for."""
_CONTEXT = 12
"""How much is shown before the first difference."""
_AREA_WIDTH = 11
_NOT_DELETED = "disableDelete"
"""The input of a resource that stays on its server when a stack lets go of it."""


@dataclass(frozen=True)
class StackReport:
    """One stack's run, with its steps by URN.

    Args:
        only: the projects to tell of; all, and what they share, if there is none.
    """

    run: EngineRun
    steps: Mapping[str, Step]
    only: Collection[str] = ()

    @cached_property
    def projects(self) -> list[ProjectSummary]:
        """What changes for each project."""
        return [found for found in summarize(self.steps.values()) if not self.only or found.project in self.only]

    @cached_property
    def resources(self) -> dict[str | None, list[Step]]:
        """The resources that change, by project; None for what projects share."""
        found: dict[str | None, list[Step]] = {}
        for step in self.steps.values():
            if step.custom and step.change is not Change.SAME:
                project = project_of(step, self.steps)
                if not self.only or project in self.only:
                    found.setdefault(project, []).append(step)
        in_order = sorted(found, key=lambda project: (project is None, project or ""))
        return {project: sorted(found[project], key=lambda step: step.name) for project in in_order}

    @property
    def changes(self) -> bool:
        """Whether anything is not as it was."""
        return bool(self.projects or self.resources)


def report_lines(reports: Sequence[StackReport], *, preview: bool, full: bool) -> Iterator[str]:
    """The report for people.

    Args:
        full: whether values are shown whole, and those of what is created, too.
    """
    for summary in (found for report in reports for found in report.projects):
        yield f"{summary.project}{_REMARKS.get(summary.change, '')}:"
        area = None
        for sentence in summary.sentences:
            head = sentence.area.value if sentence.area is not area else ""
            area = sentence.area
            yield f"  {head:{_AREA_WIDTH}}{sentence.text.removeprefix(f'{sentence.area.value}: ')}"
        yield ""
    for report in reports:
        for project, found in report.resources.items():
            # Of an `up` they are only counted: a first one creates some hundreds.
            steps = [step for step in found if preview or full or step.change is not Change.CREATE]
            if not steps:
                continue
            yield f"Resources of {report.run.stack}, {project or 'shared by its projects'}:"
            for step in steps:
                yield from _resource_lines(step, full=full)
            yield ""
    for report in reports:
        yield f"{report.run.stack}: {_counts(report.run, preview=preview)}"
        yield from (f"  {line}" for remark in report.run.remarks for line in remark.splitlines())


def _resource_lines(step: Step, *, full: bool) -> Iterator[str]:
    stays = step.change is Change.DELETE and (step.old or {}).get(_NOT_DELETED) is True
    remark = " (only the stack's record of it: it stays where it is)" if stays else ""
    yield f"  {_SIGNS[step.change]} {step.type.rpartition(':')[2]} {step.name}{remark}"
    if full or step.change in {Change.UPDATE, Change.REPLACE}:
        for change in step.properties:
            yield from (f"      {line}" for line in _property(change, step.change, full=full))


def _property(found: PropertyChange, change: Change, *, full: bool) -> Iterator[str]:
    old, new = found.old, found.new
    if change in {Change.CREATE, Change.DELETE}:
        yield f"{found.path}: {_shortened(_text(new if change is Change.CREATE else old), full=full)}"
    elif full and isinstance(old, str) and isinstance(new, str) and "\n" in old + new:
        yield f"{found.path}:"
        yield from (f"  {line}" for line in [*unified_diff(old.splitlines(), new.splitlines(), n=1, lineterm="")][2:])
    else:
        if not full and isinstance(old, list) and isinstance(new, list):
            # What is in both says nothing of the change.
            old, new = [item for item in old if item not in new], [item for item in new if item not in old]
        before, after = _text(old), _text(new)
        skipped = 0 if full else _alike(before, after)
        shown = (_shortened(f"…{text[skipped:]}" if skipped else text, full=full) for text in (before, after))
        yield f"{found.path}: {' → '.join(shown)}"


def _alike(one: str, other: str) -> int:
    """How much of the beginning of two long texts need not be shown, because it is the same."""
    if max(len(one), len(other)) <= _SHORT:
        return 0
    differ = (at for at, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1])
    return max(0, next(differ, min(len(one), len(other))) - _CONTEXT)


def _text(value: Any) -> str:
    if value is None:
        return "not set"
    return value if isinstance(value, str) and "\n" not in value else json.dumps(value, ensure_ascii=False)


def _shortened(text: str, *, full: bool) -> str:
    return text if full or len(text) <= _SHORT else f"{text[: _SHORT - 1]}…"


def _counts(run: EngineRun, *, preview: bool) -> str:
    if not run.affected:
        return "not affected, nothing that it depends on has changed"
    counts = {"create": run.created, "update": run.updated, "replace": run.replaced, "delete": run.deleted}
    done = [f"{count} {f'to {what}' if preview else f'{what}d'}" for what, count in counts.items() if count]
    same = [f"{run.same} unchanged"] if run.same or not done else []
    return ", ".join([*(done or ["no change"]), *same])


def counts_by_group(steps: Mapping[str, Step]) -> dict[str, int]:
    """How many resources there are of each project, and in each other part of a stack."""
    groups = (_group(step, steps) for step in steps.values() if step.custom)
    return dict(sorted(Counter(groups).items()))


def _group(step: Step, steps: Mapping[str, Step]) -> str:
    if (project := project_of(step, steps)) is not None:
        return project
    above = []
    while (parent := steps.get(step.parent)) is not None:
        above.append(parent.name)
        step = parent
    if not above:
        return "other"
    whole = above.pop()
    # Of the components in it, the outermost that has a name of its own.
    part = next((name for name in reversed(above) if name != whole), whole)
    return part.removeprefix(f"{whole}-")


def report_document(reports: Sequence[StackReport], *, preview: bool) -> dict[str, Any]:
    """The report for programs: one object, whose keys are these.

    - ``preview``: whether nothing was applied; ``changes``: whether anything is, or would be, otherwise than before.
    - ``projects``: ``project``, ``stack``, ``change`` (create, update, delete) and ``sentences``, access first. Each
      has ``area`` and ``text``, and where they apply ``field`` of the project's file, ``old``, ``new``, ``who``, and
      the levels that ``who`` ``gains`` and ``loses``.
    - ``resources``: those that change, with ``stack``, ``project`` (null if several share it), ``change``, ``type``,
      ``name``, ``urn`` and ``properties``: ``path``, ``old``, ``new``; secrets are ``[secret]``, null is "not there".
    - ``stacks``: ``stack``, whether it was ``affected``, how many resources to ``create``, ``update``, ``replace``,
      ``delete`` and leave the ``same``, and ``remarks``.
    """
    return {
        "preview": preview,
        "changes": any(report.changes for report in reports),
        "projects": [
            {
                "project": summary.project,
                "stack": report.run.stack,
                "change": summary.change.value,
                "sentences": [
                    {
                        "area": sentence.area.value,
                        "text": sentence.text,
                        "field": sentence.field,
                        "old": sentence.old,
                        "new": sentence.new,
                        "who": sentence.who,
                        "gains": [level.value for level in sentence.gains],
                        "loses": [level.value for level in sentence.loses],
                    }
                    for sentence in summary.sentences
                ],
            }
            for report in reports
            for summary in report.projects
        ],
        "resources": [
            {
                "stack": report.run.stack,
                "project": project,
                "change": step.change.value,
                "type": step.type,
                "name": step.name,
                "urn": step.urn,
                "properties": [{"path": found.path, "old": found.old, "new": found.new} for found in step.properties],
            }
            for report in reports
            for project, steps in report.resources.items()
            for step in steps
        ],
        "stacks": [
            {
                "stack": report.run.stack,
                "affected": report.run.affected,
                "create": report.run.created,
                "update": report.run.updated,
                "replace": report.run.replaced,
                "delete": report.run.deleted,
                "same": report.run.same,
                "remarks": report.run.remarks,
            }
            for report in reports
        ],
    }
