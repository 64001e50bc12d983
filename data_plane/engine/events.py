"""What the engine's event log says of a run: its steps, what failed, and what policies are violated."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pulumi.automation import EngineEvent, OpType
from pulumi.automation.events import DiagnosticEvent, PolicyEvent, StepEventMetadata, StepEventStateMetadata
from pulumi.runtime import rpc

from data_plane.engine.steps import NOT_KNOWN_YET, SECRET, Change, EngineRun, Step

__all__ = ["EventLog"]

_CHANGES = {
    OpType.SAME: Change.SAME,
    OpType.CREATE: Change.CREATE,
    OpType.IMPORT: Change.CREATE,
    OpType.UPDATE: Change.UPDATE,
    OpType.CREATE_REPLACEMENT: Change.REPLACE,
    OpType.IMPORT_REPLACEMENT: Change.REPLACE,
    OpType.DELETE: Change.DELETE,
}
"""The other operations are parts of a replacement, or change nothing."""
_PULUMIS_OWN = "pulumi:"
_FROM_PATH = "using pulumi-resource-"
"""The engine warns of every plugin that it finds on PATH; the one of dynamic resources always is there."""
_MANDATORY = "mandatory"
_TRACEBACK = "Traceback (most recent call last):"
_OURS = re.compile(r"^(?:components|data_plane)(?:\.\w+)+: ", re.MULTILINE)
"""How the last line of a traceback begins whose exception has a message for people."""
_SIGNATURE = "4dabf18193072939515e22adb298388d"
"""The key of an object that stands for a value of another kind; among inputs only for a secret."""


class EventLog:
    """Collects the events of one run of the CLI.

    Args:
        stack: whose run it is.
        preview: whether nothing is applied; a run that applies previews before, and those steps are not counted.
        on_step: called for each step.
    """

    def __init__(self, stack: str, *, preview: bool, on_step: Callable[[Step], None]) -> None:
        self._stack = stack
        self._preview = preview
        self._on_step = on_step
        self._counts: Counter[Change] = Counter()
        self._errors: list[str] = []
        self._warnings: list[str] = []
        self._violations: list[PolicyEvent] = []

    def remark(self, texts: Iterable[str]) -> None:
        """Takes what there was to say before the run."""
        self._warnings.extend(texts)

    def add(self, event: EngineEvent) -> None:
        """Takes one event."""
        done = event.res_outputs_event
        if done is not None and bool(done.planning) is self._preview:
            self._add_step(done.metadata)
        if event.diagnostic_event is not None:
            self._add_message(event.diagnostic_event)
        if event.policy_event is not None:
            self._violations.append(event.policy_event)

    @property
    def errors(self) -> list[str]:
        """What went wrong, one text each; empty if nothing is known of it."""
        refusals = [_violation(found) for found in self._violations if found.enforcement_level == _MANDATORY]
        found = list(dict.fromkeys([*refusals, *self._errors]))
        # The engine repeats the program's own words behind "an unhandled error occurred".
        return [text for text in found if not any(text != other and text.endswith(other) for other in found)]

    @property
    def run(self) -> EngineRun:
        """The run as it is so far."""
        advice = [_violation(found) for found in self._violations if found.enforcement_level != _MANDATORY]
        return EngineRun(
            self._stack,
            self._counts[Change.CREATE],
            self._counts[Change.UPDATE],
            self._counts[Change.SAME],
            list(dict.fromkeys([*self._warnings, *advice])),
            replaced=self._counts[Change.REPLACE],
            deleted=self._counts[Change.DELETE],
        )

    def _add_step(self, metadata: StepEventMetadata) -> None:
        if metadata.op not in _CHANGES or metadata.type.startswith(_PULUMIS_OWN):
            return
        state = metadata.new or metadata.old
        step = Step(
            metadata.urn,
            metadata.type,
            metadata.urn.rpartition("::")[2],
            _CHANGES[OpType(metadata.op)],
            custom=bool(state and state.custom),
            changed=(*(metadata.diffs or ()), *(metadata.detailed_diff or {})),
            parent=state.parent if state else "",
            old=_found(metadata.old, metadata.new) if metadata.old else None,
            new=_known(metadata.new.inputs or {}) if metadata.new else None,
        )
        if step.custom:
            self._counts[step.change] += 1
        self._on_step(step)

    def _add_message(self, event: DiagnosticEvent) -> None:
        text = event.message.strip()
        if event.ephemeral or not text:
            return
        if event.severity == "error":
            text = _without_traceback(text)
            _, _, name = (event.urn or "").rpartition("::")
            type_ = (event.urn or "").split("::")[2].rpartition("$")[2] if name else ""
            self._errors.append(f"{name} ({type_}): {text}" if name and name != self._stack else text)
        elif event.severity == "warning" and not text.startswith(_FROM_PATH):
            self._warnings.append(text)


def _without_traceback(text: str) -> str:
    """The message of one of our errors, which the plugin of dynamic resources gives with where it was raised."""
    *_, last = text.rpartition(_TRACEBACK)
    found = _OURS.search(last) if _TRACEBACK in text else None
    return last[found.end() :] if found else text


def _found(old: StepEventStateMetadata, new: StepEventStateMetadata | None) -> dict[str, Any]:
    """The inputs of before; where they are what is declared, what was read of the resource and is not as declared."""
    inputs, outputs = dict(old.inputs or {}), old.outputs or {}
    if new is not None and inputs == dict(new.inputs or {}):
        inputs |= {name: outputs[name] for name in inputs if name in outputs}
    return _known(inputs)


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _value(value) for name, value in values.items()}


def _value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return SECRET if _SIGNATURE in value else _known(value)
    if isinstance(value, list):
        return [_value(item) for item in value]
    return NOT_KNOWN_YET if value == rpc.UNKNOWN else value


def _violation(found: PolicyEvent) -> str:
    place = f"\n    {found.resource_urn}" if found.resource_urn else ""
    return f"{found.policy_name}: {found.message.strip()}{place}"
