"""``dataplane project attach``, ``detach``, ``access`` and ``action``: the connector's actions."""

import json
import re
import sys
from typing import Annotated, Any

import typer
from rich.markup import escape

from data_plane.cli.console import counted, messages, print_json, print_table, require_terminal, stderr, stdout
from data_plane.cli.options import EnvironmentOption, JsonOption, complete_project
from data_plane.connector.actions import AccessInputs, ProjectAccessInputs, TeamAccessInputs
from data_plane.connector.audit import current_user
from data_plane.connector.bindings import data_plane_of
from data_plane.connector.executor import SupabaseExecutor
from data_plane.connector.leases import LeaseClient
from data_plane.connector.project_files import ProjectFile
from data_plane.errors import ActionRefusedError, ProjectNotFoundError, UsageError
from data_plane.model.access import FractalOpsRole
from data_plane.model.naming import SLUG_PATTERN, AccessLevel, TenantNames
from data_plane.model.projects import Lifecycle, ManagedService, load_projects
from data_plane.state_dir import CHECKOUT, ENVIRONMENT

__all__ = ["app"]

_Project = Annotated[str, typer.Argument(metavar="SLUG", help="The project.", autocompletion=complete_project)]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the plan, and change nothing.")]
_Actor = Annotated[str | None, typer.Option("--actor", help="Name for the audit log; by default the current user.")]


app = typer.Typer()


@app.command()
def attach(
    project: _Project,
    owner: Annotated[list[str] | None, typer.Option("--owner", help="Owners, in place of those before.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="The name shown to people.")] = None,
    cell: Annotated[str | None, typer.Option(help="Cell of a new project; else the first with room.")] = None,
    service: Annotated[
        list[str] | None,
        typer.Option("--service", help="Managed services beside postgres, in place of those before."),
    ] = None,
    exposed: Annotated[
        bool | None, typer.Option("--exposed/--hidden", help="Whether the API serves the schema.")
    ] = None,
    dry_run: _DryRun = False,
    actor: _Actor = None,
    as_json: JsonOption = False,
    environment: EnvironmentOption = ENVIRONMENT,
) -> None:
    """Attach a project, or change how it is attached; what is not named stays as it is.

    A detached project is attached again, with the data that it had.
    """
    with messages():
        given = {
            "display_name": name,
            "cell": cell,
            "owners": owner or None,
            "managed_services": list(dict.fromkeys([ManagedService.POSTGRES.value, *service])) if service else None,
            "exposed": exposed,
            "lifecycle": Lifecycle.ATTACHED.value if _is_detached(project, environment) else None,
        }
        inputs = {"project": project, **{key: value for key, value in given.items() if value is not None}}
        _execute(ProjectAccessInputs.action, inputs, actor, environment, dry_run=dry_run, as_json=as_json)


@app.command()
def detach(
    project: _Project,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    dry_run: _DryRun = False,
    actor: _Actor = None,
    as_json: JsonOption = False,
    environment: EnvironmentOption = ENVIRONMENT,
) -> None:
    """End all access to a project, and keep its data. Its leases are revoked, which ends their sessions.

    `project attach` undoes it; `project drop` deletes the data.
    """
    with messages():
        if not (yes or dry_run):
            stderr.print(f"{escape(project)} ({escape(environment)}) has {_live_leases(project, environment)}.")
            require_terminal(" whether they may end: --yes says so beforehand")
            typer.confirm("End them and all access?", abort=True, err=True)
        inputs = {"project": project, "lifecycle": Lifecycle.DETACHED.value}
        _execute(ProjectAccessInputs.action, inputs, actor, environment, dry_run=dry_run, as_json=as_json)
        if not (dry_run or as_json):
            where = _option_for(environment)
            stdout.print(
                f"Its data stays: `dataplane project attach {project}{where}` lets it back in, "
                f"`dataplane project drop {project}{where}` removes it."
            )


@app.command()
def access(
    project: _Project,
    team: Annotated[str | None, typer.Option("--team", help="A team, as the sign-in's group claim has it.")] = None,
    user: Annotated[str | None, typer.Option("--user", help="A person, by login name.")] = None,
    role: Annotated[
        str | None,
        typer.Option("--role", help=f"In place of any other: {', '.join(role.value for role in FractalOpsRole)}."),
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Take the access away.")] = False,
    dry_run: _DryRun = False,
    actor: _Actor = None,
    as_json: JsonOption = False,
    environment: EnvironmentOption = ENVIRONMENT,
) -> None:
    """Give a team or a person a role on a project, or take it away. Without either, show who has which."""
    with messages():
        if team is None and user is None:
            if role is not None or remove:
                raise UsageError("say whose access it is about, with --team or --user")
            _show_access(project, environment, as_json=as_json)
            return
        if team is not None and user is not None:
            raise UsageError("either a team (--team) or a person (--user)")
        if (role is None) is not remove:
            raise UsageError("either a role (--role) or no access (--remove)")
        who = {"team": team} if team is not None else {"user": user}
        action = TeamAccessInputs.action if team is not None else AccessInputs.action
        inputs = {"project": project, **who, "role": role}
        _execute(action, inputs, actor, environment, dry_run=dry_run, as_json=as_json)


@app.command()
def action(
    name: Annotated[str, typer.Argument(metavar="ACTION", help="Name of an action of the catalog.")],
    dry_run: _DryRun = False,
    actor: _Actor = None,
    environment: EnvironmentOption = ENVIRONMENT,
) -> None:
    """Carry out an action of the connector's catalog, with JSON on standard input. Answers with its result as JSON."""
    with messages():
        try:
            inputs = json.load(sys.stdin)
        except ValueError as error:
            raise ActionRefusedError(f"standard input is not JSON: {error}") from error
        if not isinstance(inputs, dict):
            raise ActionRefusedError("standard input: expected a JSON object with the action's inputs")
        _execute(name, inputs, actor, environment, dry_run=dry_run, as_json=True)


def _execute(
    action_name: str, inputs: dict[str, Any], actor: str | None, environment: str, *, dry_run: bool, as_json: bool
) -> None:
    executor = SupabaseExecutor.for_environment(environment)
    with stderr.status(f"{'Planning' if dry_run else 'Carrying out'} {action_name}"):
        result = executor.execute(action_name, inputs, actor=actor or current_user(), dry_run=dry_run)
    if as_json:
        print_json(result)
    else:
        _show(result)


def _is_detached(project: str, environment: str) -> bool:
    if not re.fullmatch(SLUG_PATTERN, project):
        return False  # which the action refuses
    file = ProjectFile.of(CHECKOUT, environment, project)
    return file.before is not None and file.document.get("lifecycle") == Lifecycle.DETACHED


def _live_leases(project: str, environment: str) -> str:
    plane = data_plane_of(environment)
    names, client = TenantNames(plane.binding(project).project), LeaseClient(plane.operator())
    count = sum(len(client.live(names, level)) for level in AccessLevel)
    return counted(count, "live lease") if count else "no live leases"


def _show_access(slug: str, environment: str, *, as_json: bool) -> None:
    found = {project.slug: project for project in load_projects(CHECKOUT, environment)}
    if slug not in found:
        raise ProjectNotFoundError.among(slug, found, f" in stacks/{environment}/projects")
    rows = [
        (kind.removesuffix("s"), name, role.value)
        for kind in ("users", "teams")
        for role, name in found[slug].members(kind)
    ]
    if as_json:
        print_json([dict(zip(("kind", "name", "role"), row, strict=True)) for row in rows])
    else:
        print_table(("kind", "name", "role"), rows)


def _option_for(environment: str) -> str:
    return "" if environment == ENVIRONMENT else f" -e {environment}"


def _show(result: dict[str, Any]) -> None:
    for line in result["edit"]:
        style = {"+": "green", "-": "red"}.get(line[:1])
        stdout.print(escape(line), style=style)
    for sentence in result["summary"]:
        stdout.print(f"  {escape(sentence)}")
    would = "would change" if result["dry_run"] else "changed"
    stdout.print(f"{counted(len(result['changes']), 'resource')} {would}, {result['unchanged']} unchanged")
    if result["lease"] and not result["dry_run"]:
        where = _option_for(result["environment"])
        levels = ", ".join(result["lease"]["levels"])
        stdout.print(f"Next: dataplane lease -p {result['project']}{where} --as LEVEL   (levels: {levels})")
