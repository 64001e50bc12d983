"""Moves a project from one cell to another: its state between two Pulumi stacks, then ``cell:`` in its file.

Nothing of the project is made anew or deleted on a server, so its data, its access and its leases go on. In this order:

1. The new cell is brought up if it never was, and central before it, which makes the login of the cell's PostgREST.
2. The states of both stacks are written to files.
3. ``pulumi state move`` takes the project's resources to the new cell's stack.
4. A preview of both stacks, as they will be, rehearses the rest. It may create and delete nothing of the project.
5. ``cell:`` is changed in the project's file.
6. Both stacks are brought up.

What fails in 3 to 5 is undone: both states are put back. What is killed there is finished, or taken back, by the same
command, and ``up`` refuses to run until then.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_plane.connector.cells import CellRun, CellRunError, Cells, cells_of, stack_of
from data_plane.connector.project_files import ProjectFile, checkout_with
from data_plane.engine.stack_files import load_config
from data_plane.errors import DataPlaneError, ProjectMoveError, ProjectNotFoundError
from data_plane.model.naming import TENANT_TYPE
from data_plane.model.problems import ConfigurationError
from data_plane.model.projects import known_cells, load_projects, slugs_of
from data_plane.state_dir import CHECKOUT, StateDir

__all__ = ["ProjectMove", "StackStates"]

_DEFAULT_DYNAMIC = "pulumi:providers:pulumi-python::default"
_PEOPLE = "vault:generic/endpoint:Endpoint"


@dataclass(frozen=True)
class StackStates:
    """The states of an environment's stacks, as the Pulumi CLI reaches them.

    Args:
        pulumi: gives what the CLI answers to a command about a stack, which comes first; raises if it fails.
    """

    pulumi: Callable[..., str]

    def resources(self, stack: str) -> list[dict[str, Any]]:
        """The resources in a stack's state; none if there is no such stack."""
        known = json.loads(self.pulumi(stack, "stack", "ls", "--json")) or []
        if stack not in {entry["name"].rpartition("/")[2] for entry in known}:
            return []
        exported = json.loads(self.pulumi(stack, "stack", "export", "--stack", stack))
        return list(exported["deployment"].get("resources") or [])

    def save(self, stack: str, file: Path) -> None:
        """Writes a stack's state to a file; its secrets stay encrypted."""
        self.pulumi(stack, "stack", "export", "--stack", stack, "--file", str(file))
        file.chmod(0o600)

    def restore(self, stack: str, file: Path) -> None:
        """Puts back a state that was saved."""
        self.pulumi(stack, "stack", "import", "--stack", stack, "--file", str(file))

    def move(self, source: str, target: str, urn: str) -> None:
        """Moves a resource with its children."""
        self.pulumi(target, "state", "move", "--yes", "--source", source, "--dest", target, urn)


@dataclass(frozen=True)
class ProjectMove:
    """Moves projects of one environment between its cells.

    Args:
        cells: what runs the environment's stacks.
        states: their states; None with the local runner, which keeps none that would have to move.
        home: the folder for the states from before, whose locks say which cell is busy.
        say: is told what happens.
        root: the checkout.
    """

    cells: Cells
    states: StackStates | None
    home: StateDir
    say: Callable[[str], None]
    root: Path = CHECKOUT

    @classmethod
    def of(cls, environment: str, say: Callable[[str], None], root: Path = CHECKOUT) -> "ProjectMove":
        """What moves the projects of ``local``, or of a deployed environment that the Pulumi CLI reaches from here."""
        home = StateDir()
        cells = cells_of(environment, home, root)
        return cls(cells, None if cells.cli is None else StackStates(cells.cli), home, say, root)

    def to(self, slug: str, cell: str) -> list[CellRun]:
        """Moves a project to a cell. If it is there already, the runs that an earlier move has left are made.

        Raises:
            ConnectorError: with what is wrong, where the project is now, and how to go on.
        """
        environment = self.cells.environment
        target = stack_of(self.root, environment, cell)
        stacks = known_cells(self.root, environment)
        with ExitStack() as locks:
            for name in sorted(stacks):
                locks.enter_context(self.home.cell_lock(environment, name))
            file = ProjectFile.of(self.root, environment, slug)
            if file.before is None:
                known = slugs_of(self.root, environment)
                raise ProjectNotFoundError.among(slug, known, f" in environment {environment!r}")
            before = str(file.document.get("cell"))
            file.set("cell", cell)
            with checkout_with(self.root, file) as edited:
                try:
                    load_projects(edited, environment, cell_size=_cell_size(edited, target))
                except ConfigurationError as error:
                    raise ProjectMoveError(str(error)) from error
                move = _Move(self, slug, target, edited, self.home.moves(environment) / slug)
                source = move.carried_out([*stacks.values()], file)
                runs = self._brought_up(slug, cell, before, target, source)
                move.end()
        return runs

    def _brought_up(self, slug: str, cell: str, before: str, target: str, source: str | None) -> list[CellRun]:
        try:
            return [self.bring_up(stack) for stack in (target, *([source] if source else []))]
        except CellRunError as error:
            back = f", and `dataplane project move {slug} --to {before}` moves it back" if before != cell else ""
            raise ProjectMoveError(
                f"{error}\nProject {slug} is in cell {cell} now, in its file and in the state of stack {target}; what "
                f"is left is a run of {target}{f' and {source}' if source else ''}. The same command makes it{back}."
            ) from error

    def bring_up(self, stack: str) -> CellRun:
        """Brings a stack up, and says so."""
        self.say(f"Bringing up {stack}")
        return self.cells.run(self.root, stack, preview=False)


@dataclass(frozen=True)
class _Move:
    """One project on its way.

    Args:
        edited: a checkout in which the project's file says its new cell.
        saved: the folder for the states from before; the file ``move.json`` in it says that the move has not ended.
    """

    moves: ProjectMove
    slug: str
    target: str
    edited: Path
    saved: Path

    def carried_out(self, stacks: Sequence[str], file: ProjectFile) -> str | None:
        """Moves the state, rehearses the rest, and writes the project's file.

        Returns:
            The stack that the project came from, if it came from one.
        """
        states = self.moves.states
        if states is None:
            held = [stack for stack in stacks if self.slug in self.moves.cells.bindings(self.moves.root, stack)]
            file.write()
            return next((stack for stack in held if stack != self.target), None)
        source = self._interrupted(states)
        resources = {stack: states.resources(stack) for stack in stacks}
        urns = {stack: urn for stack, found in resources.items() if (urn := _urn_of(found, self.slug))}
        if source is None:
            if not urns:
                raise ProjectMoveError(f"no stack has project {self.slug} yet: write its cell into its file, and `up`")
            source = next((stack for stack in urns if stack != self.target), None)
            if source is not None:
                self._prepare(states, source, resources)
        with self._undone_if_it_fails(states, source):
            if source is not None and self.target not in urns:
                self.moves.say(f"Moving the state of {self.slug} from {source} to {self.target}")
                states.move(source, self.target, urns[source])
            self.moves.say("Rehearsing what is left")
            for stack in (self.target, *([source] if source else [])):
                self._rehearse(stack)
            file.write()
        return source

    def end(self) -> None:
        """Notes that nothing is left to do. The states from before stay."""
        (self.saved / "move.json").unlink(missing_ok=True)

    def _interrupted(self, states: StackStates) -> str | None:
        """The other stack of a move of this project that was killed. Its state is put back if it was half-written."""
        note = self.saved / "move.json"
        if not note.exists():
            return None
        source, target = json.loads(note.read_text(encoding="utf-8"))
        if all(_urn_of(states.resources(stack), self.slug) for stack in (source, target)):
            # The engine saves the new state first.
            states.restore(target, self._file(target))
        if target == self.target:
            return str(source)
        return None

    def _prepare(self, states: StackStates, source: str, resources: dict[str, list[dict[str, Any]]]) -> None:
        central = {stack: _central_of(self.moves.root, stack) for stack in (source, self.target)}
        if len(set(central.values())) != 1:
            raise ProjectMoveError(f"{source} and {self.target} are of two central stacks, which share no data")
        of_tenant = f"${TENANT_TYPE}$"
        if any(of_tenant in item["urn"] and _DEFAULT_DYNAMIC in item.get("provider", "") for item in resources[source]):
            raise ProjectMoveError(f"stack {source} was last brought up by an earlier version: bring it up first")
        if not resources[self.target]:
            for stack in (central[source], self.target):
                self.moves.bring_up(stack)
        self.saved.mkdir(parents=True, exist_ok=True, mode=0o700)
        for stack in (source, self.target):
            states.save(stack, self._file(stack))
        self.moves.home.write_json(
            str((self.saved / "move.json").relative_to(self.moves.home.path)), [source, self.target]
        )
        self.moves.say(f"The states from before are in {self.saved}")

    @contextmanager
    def _undone_if_it_fails(self, states: StackStates, source: str | None) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            if source is None:
                raise
            for stack in (self.target, source):
                try:
                    states.restore(stack, self._file(stack))
                except DataPlaneError as failed:
                    raise ProjectMoveError(
                        f"{error}\nThe state of stack {stack} could not be put back: {failed}\nWhere the states are is "
                        f"shown by `pulumi stack --stack …`; `pulumi stack import --stack {stack} --file "
                        f"{self._file(stack)}` puts it back. The project's file is as it was."
                    ) from failed
            self.end()
            if isinstance(error, DataPlaneError | OSError):
                raise ProjectMoveError(
                    f"{error}\nProject {self.slug} was not moved: both states and its file are as they were."
                ) from error
            raise

    def _rehearse(self, stack: str) -> None:
        run = self.moves.cells.run(self.edited, stack, preview=True)
        wrong = [change for change in run.changes if not _is_of_a_move(change)]
        if wrong:
            listed = "\n".join(f"  {change}" for change in wrong)
            raise ProjectMoveError(f"the run of {stack} after the move would make and delete things:\n{listed}")

    def _file(self, stack: str) -> Path:
        return self.saved / f"{stack}.json"


def _urn_of(resources: Sequence[dict[str, Any]], slug: str) -> str | None:
    found = (item["urn"] for item in resources if item["type"] == TENANT_TYPE and item["urn"].endswith(f"::{slug}"))
    return next(found, None)


def _is_of_a_move(change: str) -> bool:
    """Whether a change is an update, or about what a cell itself has: its people, written by name and never deleted."""
    operation, kind, name = change.split(" ", 2)
    match operation:
        case "update":
            return True
        case "create":
            return (kind == _PEOPLE and "-people-" in name) or kind.endswith(":TenantPrivilegeDrift")
        case "delete":
            return kind == _PEOPLE and "-people-" in name
        case _:
            return False


def _setting(root: Path, stack: str, key: str) -> str:
    values = load_config(root, stack, {}, {}).values
    return next(value for name, value in values.items() if name.rpartition(":")[2] == key)


def _central_of(root: Path, stack: str) -> str:
    return _setting(root, stack, "centralStack").rpartition("/")[2]


def _cell_size(root: Path, stack: str) -> int:
    return int(_setting(root, stack, "cellSize"))
