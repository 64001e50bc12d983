"""The ``supabase`` connector's executor: carries out the actions that the catalog lists."""

import difflib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data_plane.connector.actions import ActionResult, Granted, ProjectAccessInputs, UpsertInputs, parsed_inputs
from data_plane.connector.audit import AuditedAction, AuditLog, Outcome
from data_plane.connector.cells import CellRun, CellRunError, Cells, cells_of, stack_of
from data_plane.connector.project_files import ProjectFile, checkout_with
from data_plane.engine.stack_files import load_config
from data_plane.errors import ActionError, ActionRefusedError, ConnectorError, DeploymentError, ProjectNotFoundError
from data_plane.model.problems import ConfigurationError
from data_plane.model.projects import Project, known_cells, load_projects
from data_plane.model.settings import BoundSettings, load_bounds
from data_plane.model.tenant_binding import TenantBinding
from data_plane.state_dir import CHECKOUT, StateDir

__all__ = ["SupabaseExecutor"]

_SHOWN_CHANGES = 10
_NAME_CHARACTERS = 127


class SupabaseExecutor:
    """Gives projects, teams and people their access, one action at a time for each cell.

    An action edits the project's data file, checks all files of the environment with the edit in, and applies the
    project's cell. The edit is on disk only once the cell has it: whatever fails, the file is as it was.

    Args:
        cells: what runs the environment's cells.
        home: the folder whose locks say which cell is busy.
        audit: where actions are written down.
        root: the checkout whose data files are edited.
    """

    def __init__(self, cells: Cells, home: StateDir, audit: AuditLog | None = None, root: Path = CHECKOUT) -> None:
        self._cells = cells
        self._home = home
        self._audit = audit or AuditLog.default(home)
        self._root = root

    @classmethod
    def for_environment(cls, environment: str, root: Path = CHECKOUT) -> "SupabaseExecutor":
        """The executor of ``local``, or of a deployed environment that the Pulumi CLI reaches from here."""
        home = StateDir()
        return cls(cells_of(environment, home, root), home, root=root)

    def execute(self, action: str, inputs: Mapping[str, Any], *, actor: str, dry_run: bool = False) -> dict[str, Any]:
        """Carries out an action; doing so again changes nothing more.

        Args:
            action: a name in :data:`data_plane.connector.actions.ACTIONS`.
            inputs: as the action's JSON Schema has them.
            actor: who asks, for the audit log.
            dry_run: only say what it would change.

        Returns:
            An :class:`~data_plane.connector.actions.ActionResult` as a JSON object.

        Raises:
            ConnectorError: with what is wrong, what was done until then, and how to go on.
        """
        about: dict[str, Any] = {"environment": self._cells.environment, "dry_run": dry_run, **_named(inputs)}
        with self._audit.action(action, actor, **about) as under_way:
            with _refused(under_way):
                parsed = parsed_inputs(action, inputs)
            return self._carried_out(parsed, under_way, dry_run=dry_run).model_dump(mode="json")

    def _carried_out(self, inputs: UpsertInputs, under_way: AuditedAction, *, dry_run: bool) -> ActionResult:
        with self._file(inputs, under_way) as (file, cell):
            with _refused(under_way):
                stack = stack_of(self._root, self._cells.environment, cell)
                _edit(file, inputs, cell)
            with checkout_with(self._root, file) as edited:
                with _refused(under_way):
                    project = self._checked(edited, stack, inputs.project)
                run = self._run(edited, stack, inputs, under_way, dry_run=dry_run)
            if not dry_run:
                self._write(file, run)
            exported = self._cells.bindings(self._root, stack).get(inputs.project)
            binding = TenantBinding.read(exported, f"stack {stack}") if exported else None
        return ActionResult(
            action=inputs.action,
            project=inputs.project,
            environment=self._cells.environment,
            dry_run=dry_run,
            file=str(file.path.relative_to(self._root)),
            edit=_diff(file, self._root),
            summary=run.summary(inputs.project),
            changes=run.changes,
            unchanged=run.unchanged,
            binding=binding.document() if binding else None,
            lease=Granted(project, inputs).reference(binding) if binding else None,
        )

    @contextmanager
    def _file(self, inputs: UpsertInputs, under_way: AuditedAction) -> Iterator[tuple[ProjectFile, str]]:
        """The project's file and cell, which is nobody else's until the end."""
        while True:
            with _refused(under_way):
                cell = self._cell_of(inputs)
            with self._home.cell_lock(self._cells.environment, cell):
                with _refused(under_way):
                    # While this one waited, another may have made the project, or filled the cell.
                    still = self._cell_of(inputs) == cell
                    file = ProjectFile.of(self._root, self._cells.environment, inputs.project)
                if still:
                    yield file, cell
                    return

    def _cell_of(self, inputs: UpsertInputs) -> str:
        file = ProjectFile.of(self._root, self._cells.environment, inputs.project)
        asked = inputs.cell if isinstance(inputs, ProjectAccessInputs) else None
        if file.before is not None:
            there = str(file.document.get("cell"))
            if asked not in {None, there}:
                raise ActionRefusedError(
                    f"project {inputs.project} is in cell {there!r}, and no action moves it: leave `cell` out"
                )
            return there
        if not inputs.creates:
            environment = self._cells.environment
            raise ProjectNotFoundError(
                f"there is no project {inputs.project!r} in environment {environment!r}: "
                f"attach it first with {ProjectAccessInputs.action}"
            )
        return asked or self._first_with_room()

    def _first_with_room(self) -> str:
        environment = self._cells.environment
        cells = known_cells(self._root, environment)
        if not cells:
            raise DeploymentError(f"no stacks/Pulumi.*.yaml is a cell of environment {environment!r}")
        taken = [project.cell for project in load_projects(self._root, environment)]
        for cell, stack in cells.items():
            if taken.count(cell) < self._bounds(self._root, stack).cell_size:
                return cell
        raise DeploymentError(
            f"every cell of environment {environment} is full ({', '.join(cells)}): "
            "add a stacks/Pulumi.<stack>.yaml of another cell, and bring it up"
        )

    def _checked(self, root: Path, stack: str, slug: str) -> Project:
        """The edited project, once all files of the environment have been found right."""
        bounds = self._bounds(root, stack)
        projects = load_projects(
            root, self._cells.environment, lease_ttl_maximum=bounds.lease_ttl_maximum, cell_size=bounds.cell_size
        )
        return next(project for project in projects if project.slug == slug)

    @staticmethod
    def _bounds(root: Path, stack: str) -> BoundSettings:
        values = load_config(root, stack, {}, {}).values
        by_name = {key.rpartition(":")[2]: value for key, value in values.items()}
        return load_bounds(by_name, f"stacks/Pulumi.{stack}.yaml")

    def _run(self, root: Path, stack: str, inputs: UpsertInputs, under_way: AuditedAction, *, dry_run: bool) -> CellRun:
        try:
            run = self._cells.run(root, stack, preview=dry_run)
        except CellRunError as error:
            applied = error.run.changes
            under_way.note(changes=len(applied), **({} if applied else {"outcome": Outcome.REFUSED}))
            raise ActionError(_failure(str(error), inputs, stack, applied), applied) from error
        under_way.note(changes=len(run.changes))
        return run

    @staticmethod
    def _write(file: ProjectFile, run: CellRun) -> None:
        if file.text == file.before:
            return
        try:
            file.path.parent.mkdir(parents=True, exist_ok=True)
            file.write()
        except OSError as error:
            raise ActionError(
                f"stack {run.stack} has the change, but {file.path} cannot be written: {error.strerror}. "
                "Make it writable and run the same action again; otherwise the next `up` reverts the change.",
                run.changes,
            ) from error


@contextmanager
def _refused(under_way: AuditedAction) -> Iterator[None]:
    """What is raised in here is about the input; nothing has been changed."""
    try:
        yield
    except ConfigurationError as error:
        under_way.note(outcome=Outcome.REFUSED)
        raise ActionRefusedError(str(error)) from error
    except ConnectorError:
        under_way.note(outcome=Outcome.REFUSED)
        raise


def _named(inputs: Mapping[str, Any]) -> dict[str, str | None]:
    """The names in unchecked inputs; the rest might be anything. A role of null takes access away."""
    named = {key: inputs[key] for key in ("project", "team", "user", "role") if key in inputs}
    return {key: None if value is None else str(value)[:_NAME_CHARACTERS] for key, value in named.items()}


def _edit(file: ProjectFile, inputs: UpsertInputs, cell: str) -> None:
    if isinstance(inputs, ProjectAccessInputs) and file.before is None:
        if not inputs.owners:
            raise ActionRefusedError(f"project {inputs.project} is new: name its `owners`, at least one")
        inputs = inputs.model_copy(update={"cell": cell})
    inputs.apply_to(file)


def _diff(file: ProjectFile, root: Path) -> list[str]:
    name = str(file.path.relative_to(root))
    before = (file.before or "").splitlines()
    return list(difflib.unified_diff(before, file.text.splitlines(), name, name, lineterm=""))


def _failure(cause: str, inputs: UpsertInputs, stack: str, applied: list[str]) -> str:
    if not applied:
        return f"{cause}\nNothing was changed. The project's file is as it was."
    shown = [f"  {change}" for change in applied[:_SHOWN_CHANGES]]
    if len(applied) > _SHOWN_CHANGES:
        shown.append(f"  and {len(applied) - _SHOWN_CHANGES} more")
    return "\n".join(
        [
            cause,
            f"Of {inputs.action} for {inputs.project}, this was applied before:",
            *shown,
            "The project's file is as it was. Run the same action again to finish it;",
            f"bringing stack {stack} up takes access back that is in no file.",
        ]
    )
