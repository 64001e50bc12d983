"""Runs of one cell: what an edited project would change, and changing it."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pulumi

from data_plane.engine.engines import LocalConfig, PulumiEngine, find_cli, last_engine
from data_plane.engine.steps import Change, Step
from data_plane.engine.summary import summarize
from data_plane.errors import ConnectorError, DataPlaneError, DeploymentError, EngineError, StackBusyError
from data_plane.model.projects import known_cells, load_projects
from data_plane.state_dir import ENVIRONMENT, StateDir

if TYPE_CHECKING:
    from data_plane.local.environment import LocalEnvironment

__all__ = ["CellRun", "CellRunError", "Cells", "DeployedCells", "LocalCells", "cells_of", "stack_of"]

_BUSY_WAIT_SECONDS = 600
_BUSY_POLL_SECONDS = 3


class CellRunError(ConnectorError):
    """A stack was not brought up completely; what the run changed until then is in ``run``."""

    code = "cell-run-failed"

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
    steps: dict[str, Step] = field(default_factory=dict)
    """Of everything that the program declared, components too, by URN."""

    @property
    def urns(self) -> set[str]:
        """Of everything that the program declared, components too."""
        return set(self.steps)

    def summary(self, project: str) -> list[str]:
        """What changes for a project, in sentences for its owner."""
        found = [summary for summary in summarize(self.steps.values()) if summary.project == project]
        return [sentence.text for summary in found for sentence in summary.sentences]

    def add(self, step: Step) -> None:
        """Notes a resource; components are not counted."""
        self.steps[step.urn] = step
        if step.custom and step.change is Change.SAME:
            self.unchanged += 1
        elif step.custom:
            self.changes.append(f"{step.change.value} {step.type} {step.name}")


class Cells(ABC):
    """The cells of an environment, run one at a time from a checkout."""

    environment: str

    @property
    def cli(self) -> Callable[..., str] | None:
        """What gives the Pulumi CLI's answer to a command about a stack; None with the local runner."""
        return None

    @abstractmethod
    def run(self, root: Path, stack: str, *, preview: bool) -> CellRun:
        """Previews a cell with the policies, or applies it.

        Raises:
            CellRunError: if it did not get through; it can be run again.
        """

    @abstractmethod
    def bindings(self, root: Path, stack: str) -> dict[str, dict[str, Any]]:
        """What the cell's projects bind to, by slug, as its last run left it."""


def cells_of(environment: str, home: StateDir, root: Path) -> "LocalCells | DeployedCells":
    """The cells of ``local``, or of a deployed environment that the Pulumi CLI reaches from here.

    Args:
        home: the private folder.
        root: the checkout.
    """
    if environment != ENVIRONMENT:
        return DeployedCells(environment, home)
    # Where only deployed environments are worked on, no local servers are installed.
    from data_plane.local.environment import LocalEnvironment  # noqa: PLC0415
    from data_plane.local.providers.for_engines import LOCAL_PROVIDERS  # noqa: PLC0415
    from data_plane.local.servers import Servers  # noqa: PLC0415

    return LocalCells(LocalEnvironment(Servers(home), last_engine(home, LOCAL_PROVIDERS), root))


def stack_of(root: Path, environment: str, cell: str) -> str:
    """The Pulumi stack of a cell.

    Raises:
        ConnectorError: if no stack file declares it.
    """
    cells = known_cells(root, environment)
    if cell not in cells:
        there = ", ".join(cells) or "none"
        raise DeploymentError(
            f"no stacks/Pulumi.*.yaml is cell {cell!r} of environment {environment!r}; there are: {there}"
        )
    return cells[cell]


class LocalCells(Cells):
    """The cells on this machine, with the engine that last brought them up."""

    environment = ENVIRONMENT

    def __init__(self, local_env: "LocalEnvironment") -> None:
        self.local_env = local_env

    @property
    def cli(self) -> Callable[..., str] | None:
        return self.local_env.engine.cli if isinstance(self.local_env.engine, PulumiEngine) else None

    def run(self, root: Path, stack: str, *, preview: bool) -> CellRun:
        self.local_env.servers.start()
        run = CellRun(stack)
        here = replace(self.local_env, engine=self.local_env.engine.at(root), root=root)
        try:
            here.run_stack(stack, preview=preview, on_step=run.add)
        except (pulumi.RunError, DataPlaneError) as error:
            raise CellRunError(str(error), run) from error
        if not preview:
            self.local_env.create_local_users(load_projects(root, ENVIRONMENT))
        return run

    def bindings(self, root: Path, stack: str) -> dict[str, dict[str, Any]]:
        del root
        return dict(self.local_env.engine.outputs(stack).get("tenants") or {})


class DeployedCells(Cells):
    """The cells of a deployed environment, whose state is where ``PULUMI_BACKEND_URL`` says.

    Args:
        environment: name of the folder under ``stacks/``.
        home: the private folder, where the CLI's files for each stack are.

    Raises:
        ConnectorError: if there is no Pulumi CLI.
    """

    def __init__(self, environment: str, home: StateDir) -> None:
        self.environment = environment
        command = find_cli()
        if command is None:
            raise EngineError("the stacks of a deployed environment are run by the Pulumi CLI: put it on PATH")
        home.prepare()
        self._engine = PulumiEngine(home, command, shared_backend=True)

    @property
    def cli(self) -> Callable[..., str]:
        return self._engine.cli

    def run(self, root: Path, stack: str, *, preview: bool) -> CellRun:
        deadline = time.monotonic() + _BUSY_WAIT_SECONDS
        while True:
            run = CellRun(stack)
            try:
                self._engine.at(root).run(stack, LocalConfig(), preview=preview, on_step=run.add)
            except StackBusyError as error:
                if time.monotonic() > deadline:
                    raise CellRunError(str(error), run) from error
                time.sleep(_BUSY_POLL_SECONDS)
            except DataPlaneError as error:
                raise CellRunError(str(error), run) from error
            else:
                return run

    def bindings(self, root: Path, stack: str) -> dict[str, dict[str, Any]]:
        return dict(self._engine.at(root).outputs(stack).get("tenants") or {})
