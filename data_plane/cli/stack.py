"""``dataplane up``, ``preview`` and ``affected``: the stacks of an environment."""

import json
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from typing import Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from data_plane.cli.console import messages, print_json, stderr, stdout
from data_plane.cli.options import complete_project
from data_plane.connector.affected import AffectedError, Stack, affected_stacks, changed_paths, every_stack
from data_plane.connector.lease_rotation import verify_connection
from data_plane.connector.leases import LeaseClient
from data_plane.connector.unleased_logins import UnleasedLogins, unleased_logins
from data_plane.engine.engines import EngineChoice, PulumiEngine, choose_engine, find_cli
from data_plane.engine.report import StackReport, counts_by_group, report_document, report_lines
from data_plane.engine.steps import Change, EngineRun, Step
from data_plane.engine.summary import projects_of
from data_plane.errors import ConnectorError, DataPlaneError, ProjectNotFoundError
from data_plane.local.environment import LocalEnvironment
from data_plane.local.providers.for_engines import LOCAL_PROVIDERS
from data_plane.local.servers import Servers
from data_plane.model.naming import AccessLevel
from data_plane.model.projects import Lifecycle, Project, known_cells
from data_plane.state_dir import CHECKOUT, ENVIRONMENT, StateDir

__all__ = ["app"]

_CHANGES = 2
_READ = ("PostgreSQL", "OpenBao")
"""The servers that a preview of the local environment reads."""

app = typer.Typer()


_Engine = Annotated[
    EngineChoice, typer.Option("--engine", envvar="DATA_PLANE_ENGINE", help="What runs the program.", show_default=True)
]
_Refresh = Annotated[bool, typer.Option("--refresh", help="Read first what is really there, to find manual changes.")]
_Every = Annotated[
    bool, typer.Option("--all", help="Run every stack, also where nothing has changed since its last run.")
]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
_Diff = Annotated[bool, typer.Option("--diff", help="Show every property in full, also of what is created.")]


@app.command()
def up(
    engine: _Engine = EngineChoice.AUTO,
    refresh: _Refresh = False,
    every: _Every = False,
    as_json: _Json = False,
    diff: _Diff = False,
    lease: Annotated[
        bool, typer.Option("--lease", help="Lease every attached project as its owner, not only new ones.")
    ] = False,
) -> None:
    """Start the local servers and bring up every stack that is affected. A new project gets a lease as its owner."""
    with messages():
        local_env = _local_env(engine)
        local_env.projects()
        with stderr.status("Starting PostgreSQL and OpenBao"):
            local_env.servers.start()
        running = _run_local(local_env, preview=False, refresh=refresh, every=every)
        reports = _shown(running, preview=False, as_json=as_json, full=diff)
        projects = local_env.projects()  # an action may have changed them meanwhile
        local_env.create_local_users(projects)
        for login in _unleased(local_env, projects):
            stderr.print(f"[yellow]{escape(str(login))}[/]", soft_wrap=True)
        if not as_json:
            new = {found.project for item in reports for found in item.projects if found.change is Change.CREATE}
            attached = [project for project in projects if project.lifecycle is Lifecycle.ATTACHED]
            _show_leases(local_env, [project for project in attached if lease or project.slug in new])


@app.command()
def preview(
    engine: _Engine = EngineChoice.AUTO,
    refresh: _Refresh = False,
    every: _Every = False,
    project: Annotated[
        list[str] | None,
        typer.Option(
            "--project",
            "-p",
            help="Only this project; can be given again.",
            metavar="SLUG",
            autocompletion=complete_project,
        ),
    ] = None,
    stack: Annotated[
        str | None, typer.Option(help="A stack of a deployed environment, whose state is at PULUMI_BACKEND_URL.")
    ] = None,
    as_json: _Json = False,
    diff: _Diff = False,
    detailed_exitcode: Annotated[
        bool, typer.Option("--detailed-exitcode", help="End with 0 without changes, 2 with changes, 1 after a failure.")
    ] = False,
) -> None:
    """Show what `up` would change: for each project, access first, then the resources. Nothing is changed.

    Reading the local environment takes its servers: they are started where they do not run, and left running.

    With --json, standard output is one object: `changes` (whether there are any); `projects`, each with `project`,
    `stack`, `change` and its `sentences` (`area`, `text`, `field`, `old`, `new`; for access `who`, `gains`, `loses`);
    `resources` (`stack`, `project`, `change`, `type`, `name`, `urn`, and `properties` of `path`, `old`, `new`); and
    `stacks`, each with its counts and `remarks`. Secrets are `[secret]`.
    """
    with messages():
        only = project or []
        if stack is not None:
            running = _preview_deployed(stack, refresh=refresh, only=only)
        else:
            running = _preview_local(_local_env(engine), refresh=refresh, every=every, only=only)
        reports = _shown(running, preview=True, as_json=as_json, full=diff)
    if detailed_exitcode and any(report.changes for report in reports):
        raise typer.Exit(_CHANGES)


def _local_env(engine: EngineChoice) -> LocalEnvironment:
    servers = Servers()
    chosen = choose_engine(engine, servers.home, lambda text: stderr.print(escape(text)), LOCAL_PROVIDERS)
    return LocalEnvironment(servers, chosen)


def _preview_local(
    local_env: LocalEnvironment, *, refresh: bool, every: bool, only: Collection[str]
) -> Iterator[StackReport]:
    projects = {found.slug: found for found in local_env.projects()}
    _refuse_unknown(only, projects)
    if stopped := [found.name for found in local_env.servers.status() if not found.running and found.name in _READ]:
        stderr.print(f"Starting {' and '.join(stopped)}: a preview reads what is there, and changes nothing in it.")
    local_env.servers.start()
    return _run_local(local_env, preview=True, refresh=refresh, every=every, only=[projects[slug] for slug in only])


def _run_local(
    local_env: LocalEnvironment, *, preview: bool, refresh: bool, every: bool, only: Collection[Project] = ()
) -> Iterator[StackReport]:
    """Runs the stacks of the local environment, those of some projects alone if there are any."""
    stderr.print(f"Engine: {local_env.engine.label}")
    cells = known_cells(local_env.root, ENVIRONMENT)
    stacks = [local_env.stacks()[0], *dict.fromkeys(cells[project.cell] for project in only)]
    slugs = [project.slug for project in only]
    with _shown_progress("previewing" if preview else "applying") as progress:
        try:
            for run in local_env.run(
                preview=preview,
                on_stack=progress.begin,
                on_step=progress.add,
                refresh=refresh,
                every=every,
                only=stacks if only else None,
            ):
                yield progress.end(run, slugs)
        except Exception:
            if preview:
                yield from progress.broken_off(slugs)
            raise


def _preview_deployed(stack: str, *, refresh: bool, only: Collection[str]) -> Iterator[StackReport]:
    """Previews a stack of a deployed environment with this checkout's program and policies."""
    command = find_cli()
    if command is None:
        raise ConnectorError("the stacks of a deployed environment are run by the Pulumi CLI: put it on PATH")
    home = StateDir()
    home.prepare()
    engine = PulumiEngine(home, command, shared_backend=True)
    with _shown_progress("previewing") as progress:
        progress.begin(stack)
        try:
            run = engine.preview_or_gone(stack, on_step=progress.add, refresh=refresh)
        except DataPlaneError:
            yield from progress.broken_off(only)
            raise
        report = progress.end(run, only)
        _refuse_unknown(only, projects_of(report.steps))
        yield report


def _refuse_unknown(slugs: Iterable[str], known: Collection[str]) -> None:
    if unknown := sorted(set(slugs) - set(known)):
        raise ProjectNotFoundError.among(unknown[0], known)


class _Progress:
    """Shows how far a run is, and at the end of each stack how many resources it has of what."""

    def __init__(self, doing: str, progress: Progress) -> None:
        self._doing = doing
        self._progress = progress
        self._task = progress.add_task("", total=None)
        self._stack = ""
        self._steps: dict[str, Step] = {}

    def begin(self, stack: str) -> None:
        """A stack's run begins."""
        self._stack, self._steps = stack, {}
        self._progress.update(self._task, description=f"{self._doing} {stack}", completed=0)

    def add(self, step: Step) -> None:
        """A step was made."""
        if step.custom and step.urn not in self._steps:
            self._progress.advance(self._task)
        self._steps[step.urn] = step

    def broken_off(self, only: Collection[str]) -> Iterator[StackReport]:
        """The stack's run has failed: what it had found until then, if anything."""
        if not self._steps:
            return
        changes = Counter(step.change for step in self._steps.values() if step.custom)
        run = EngineRun(
            self._stack,
            changes[Change.CREATE],
            changes[Change.UPDATE],
            changes[Change.SAME],
            ["This is incomplete: the preview failed."],
            replaced=changes[Change.REPLACE],
            deleted=changes[Change.DELETE],
        )
        yield StackReport(run, self._steps, only)

    def end(self, run: EngineRun, only: Collection[str]) -> StackReport:
        """The stack's run has ended."""
        if run.affected:
            groups = ", ".join(f"{name} {count}" for name, count in counts_by_group(self._steps).items())
            self._progress.console.print(f"{run.stack}: {groups or 'no resources'}", soft_wrap=True, markup=False)
        return StackReport(run, self._steps, only)


@contextmanager
def _shown_progress(doing: str) -> Iterator[_Progress]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as progress:
        yield _Progress(doing, progress)


def _shown(running: Iterator[StackReport], *, preview: bool, as_json: bool, full: bool) -> list[StackReport]:
    """Goes through the stacks' runs and shows them; after a failure those until then, as text."""
    reports: list[StackReport] = []
    try:
        for report in running:
            reports.append(report)  # noqa: PERF402 those before a failure are shown
    finally:
        if not as_json:
            for line in report_lines(reports, preview=preview, full=full):
                stdout.print(line, markup=False)
    if as_json:
        print_json(report_document(reports, preview=preview))
    return reports


def _unleased(local_env: LocalEnvironment, projects: list[Project]) -> list[UnleasedLogins]:
    servers = local_env.servers
    with servers.postgres.connect() as connection:
        slugs = [project.slug for project in projects]
        return unleased_logins(connection, LeaseClient(servers.openbao.client()), slugs)


def _show_leases(local_env: LocalEnvironment, projects: list[Project]) -> None:
    bindings = local_env.bindings() if projects else {}
    for project in projects:
        owner = local_env.somebody_with(project, AccessLevel.OWNER)
        taken = LeaseClient(local_env.sign_in(owner)).issue(bindings[project.slug], AccessLevel.OWNER)
        verify_connection(taken)
        stdout.print(
            f"\n{project.display_name}: schema {taken.schema}, as its owner, for {taken.ttl_seconds // 60} min",
            markup=False,
        )
        stdout.print(f"  psql '{taken.connection_string}'", markup=False)
    if projects:
        stdout.print("\nMore: dataplane lease --project SLUG --as authenticated --format dotenv")


class _Format(StrEnum):
    """How to print the stacks."""

    TEXT = "text"
    JSON = "json"


@app.command()
def affected(
    base: Annotated[str | None, typer.Option(help="The revision that the change goes into.", metavar="REV")] = None,
    head: Annotated[str, typer.Option(help="The revision with the change.", metavar="REV")] = "HEAD",
    everything: Annotated[bool, typer.Option("--all", help="Every stack, whatever has changed.")] = False,
    deployed: Annotated[bool, typer.Option("--deployed", help="Only stacks of deployed environments.")] = False,
    form: Annotated[
        _Format, typer.Option("--format", "-f", help="Names, or a matrix for GitHub Actions.")
    ] = _Format.TEXT,
) -> None:
    """Print the stacks that a committed change affects."""
    with messages():
        found = _asked_for(base, head, everything=everything, deployed=deployed)
    if form is _Format.JSON:
        sys.stdout.write(json.dumps({"include": [asdict(stack) for stack in found]}) + "\n")
    else:
        sys.stdout.writelines(f"{stack.stack}\n" for stack in found)


def _asked_for(base: str | None, head: str, *, everything: bool, deployed: bool) -> list[Stack]:
    if everything == (base is not None):
        raise AffectedError("name what the change is compared with by --base, or ask for --all")
    if base is None:
        return every_stack(CHECKOUT, head, deployed=deployed)
    return affected_stacks(changed_paths(CHECKOUT, base, head), CHECKOUT, base, head, deployed=deployed)
