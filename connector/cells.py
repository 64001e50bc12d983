"""Runs of one cell: what an edited project would change, and changing it."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pulumi
from pulumi import automation
from pulumi.automation import EngineEvent, OpType

from components.projects import known_cells, load_projects
from connector.errors import ConnectorError
from embedded.engines import EmbeddedEngine, PulumiEngine
from embedded.errors import EmbeddedError
from embedded.runner.deployment import policy_config, policy_packs
from embedded.runner.monitor import Change, Step
from embedded.workplace import ENVIRONMENT, Workplace

__all__ = ["AutomationCells", "CellRun", "CellRunError", "Cells", "LocalCells", "stack_of"]

_BUSY_WAIT_SECONDS = 600
_BUSY_POLL_SECONDS = 3
_CHANGES = {
    OpType.CREATE: "create",
    OpType.CREATE_REPLACEMENT: "create",
    OpType.UPDATE: "update",
    OpType.DELETE: "delete",
    OpType.DELETE_REPLACED: "delete",
    OpType.REPLACE: "replace",
}


class CellRunError(ConnectorError):
    """A cell was not brought up; what it has changed until then is in ``run``."""

    def __init__(self, message: str, run: "CellRun") -> None:
        super().__init__(message)
        self.run = run


@dataclass
class CellRun:
    """What a run of a cell changes, or would."""

    stack: str
    changes: list[str] = field(default_factory=list)
    """One line each: ``create postgresql:index/role:Role my-app-schema-owner``."""
    unchanged: int = 0

    def add(self, change: str, kind: str, name: str) -> None:
        """Notes a resource that was changed."""
        self.changes.append(f"{change} {kind} {name}")


class Cells(ABC):
    """The cells of an environment, run one at a time from a checkout."""

    environment: str

    @abstractmethod
    def run(self, root: Path, stack: str, *, preview: bool) -> CellRun:
        """Previews a cell with the policies, or applies it.

        Raises:
            CellRunError: if it did not get through; it can be run again.
        """

    @abstractmethod
    def bindings(self, root: Path, stack: str) -> dict[str, dict[str, Any]]:
        """What the cell's projects bind to, by slug, as its last run left it."""


def stack_of(root: Path, environment: str, cell: str) -> str:
    """The Pulumi stack of a cell.

    Raises:
        ConnectorError: if no stack file declares it.
    """
    cells = known_cells(root, environment)
    if cell not in cells:
        there = ", ".join(cells) or "none"
        raise ConnectorError(
            f"no stacks/Pulumi.*.yaml is cell {cell!r} of environment {environment!r}; there are: {there}"
        )
    return cells[cell]


class LocalCells(Cells):
    """The cells on this machine, with the engine that last brought them up."""

    environment = ENVIRONMENT

    def __init__(self, workplace: Workplace) -> None:
        self._workplace = workplace

    def run(self, root: Path, stack: str, *, preview: bool) -> CellRun:
        self._workplace.servers.start()
        run = self._run(root, stack, preview=preview)
        if not preview:
            self._workplace.let_people_in(load_projects(root, ENVIRONMENT))
        return run

    def _run(self, root: Path, stack: str, *, preview: bool) -> CellRun:
        engine = self._workplace.engine
        if isinstance(engine, PulumiEngine):
            with self._workplace.operator(), engine.prepared(stack, self._workplace.config(stack)) as file:
                return AutomationCells(ENVIRONMENT, engine.environment(), config_file=file).run(
                    root, stack, preview=preview
                )
        run = CellRun(stack)

        def on_step(step: Step) -> None:
            if step.custom and step.change is Change.SAME:
                run.unchanged += 1
            elif step.custom:
                run.add(step.change.value, step.type, step.name)

        here = Workplace(self._workplace.servers, EmbeddedEngine(self._workplace.servers.home, root), root)
        try:
            here.run_stack(stack, preview=preview, on_step=on_step)
        except (pulumi.RunError, EmbeddedError) as error:
            raise CellRunError(str(error), run) from None
        return run

    def bindings(self, root: Path, stack: str) -> dict[str, dict[str, Any]]:
        del root
        return dict(self._workplace.engine.outputs(stack).get("tenants") or {})


class AutomationCells(Cells):
    """Cells that the Pulumi CLI runs, through its Automation API.

    Args:
        environment: name of the folder under ``stacks/``.
        variables: environment variables for the CLI, beside the process's own.
        config_file: a stack configuration other than the committed one.
    """

    def __init__(
        self, environment: str, variables: Mapping[str, str] | None = None, config_file: Path | None = None
    ) -> None:
        self.environment = environment
        self._variables = dict(variables or {})
        self._config_file = config_file

    def run(self, root: Path, stack: str, *, preview: bool) -> CellRun:
        run = CellRun(stack)
        settings = policy_config(root)
        packs = [str(pack) for pack in policy_packs(root)]
        options: dict[str, Any] = {
            "policy_packs": packs,
            # One for each pack, in their order.
            "policy_pack_configs": [str(settings)] * len(packs) if settings else None,
            "config_file": str(self._config_file) if self._config_file else None,
            "color": "never",
        }

        def attempt() -> None:
            selected = self._selected(root, stack)
            # Always first: a policy's refusal in the middle of an update would leave half of it.
            planned = CellRun(stack)
            selected.preview(**options, on_event=_noting(planned, "resource_pre_event"))
            if preview:
                run.changes, run.unchanged = planned.changes, planned.unchanged
                return
            selected.up(
                **options, on_event=_noting(run, "res_outputs_event"), show_secrets=False, suppress_outputs=True
            )

        self._when_free(stack, run, attempt)
        return run

    def bindings(self, root: Path, stack: str) -> dict[str, dict[str, Any]]:
        try:
            outputs = self._selected(root, stack).outputs()
        except automation.CommandError as error:
            raise ConnectorError(f"the outputs of stack {stack} cannot be read: {_cause(error)}") from None
        return dict(outputs["tenants"].value) if "tenants" in outputs else {}

    def _selected(self, root: Path, stack: str) -> automation.Stack:
        workspace = automation.LocalWorkspace(work_dir=str(root), env_vars=self._variables)
        return automation.Stack.select(stack, workspace)

    @staticmethod
    def _when_free(stack: str, run: CellRun, attempt: Callable[[], None]) -> None:
        """Another update of the stack, wherever it runs, is waited for."""
        deadline = time.monotonic() + _BUSY_WAIT_SECONDS
        while True:
            try:
                return attempt()
            except automation.ConcurrentUpdateError:
                if time.monotonic() > deadline:
                    raise CellRunError(
                        f"stack {stack} has been busy for {_BUSY_WAIT_SECONDS // 60} minutes; if no update is running, "
                        f"one was killed: `pulumi cancel --stack {stack}` lets it go",
                        run,
                    ) from None
                time.sleep(_BUSY_POLL_SECONDS)
            except automation.CommandError as error:
                raise CellRunError(f"Pulumi did not finish stack {stack}: {_cause(error)}", run) from None


def _noting(run: CellRun, which: str) -> Callable[[EngineEvent], None]:
    def note(event: EngineEvent) -> None:
        told = getattr(event, which)
        if told is None:
            return
        metadata = told.metadata
        if metadata.type.startswith(("supabase-data-plane:", "pulumi:")):
            return
        if metadata.op in _CHANGES:
            run.add(_CHANGES[metadata.op], metadata.type, metadata.urn.rpartition("::")[2])
        else:
            run.unchanged += 1

    return note


def _cause(error: automation.CommandError) -> str:
    """The lines of the CLI's output that say what went wrong."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = [line for line in lines if "error:" in line.casefold() or "mandatory" in line.casefold()]
    return "\n".join(dict.fromkeys(said or lines[-5:]))
