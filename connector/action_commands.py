"""``dataplane access`` and ``dataplane catalogue``: the connector's actions, for people and for scripts."""

import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from components.access import FractalOpsRole
from components.projects import ManagedService
from connector.actions import AccessInputs, ProjectAccessInputs, TeamAccessInputs
from connector.audit import current_user
from connector.catalogue import CATALOGUE_FILE, catalogue_text
from connector.errors import ConnectorError
from connector.executor import SupabaseExecutor
from connector.options import EnvironmentOption
from connector.service_binding import SERVICE_CATALOGUE_FILE, service_catalogue_text
from embedded.workplace import ENVIRONMENT

__all__ = ["add_action_commands"]

_NOBODY = "none"
_ROLES = [*(role.value for role in FractalOpsRole), _NOBODY]

_Project = Annotated[str, typer.Argument(help="Slug of the project.")]
_Role = Annotated[str, typer.Option("--role", help=f"One of {', '.join(_ROLES)}; `{_NOBODY}` takes access away.")]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the plan, and change nothing.")]
_Actor = Annotated[str | None, typer.Option("--actor", help="Who asks, for the audit log; by default who runs this.")]
_Json = Annotated[bool, typer.Option("--json", help="Answer with the whole result, as a JSON object.")]


def add_action_commands(  # noqa: C901 five commands, each by itself
    app: typer.Typer, messages: Callable[[], AbstractContextManager[None]], said: Console, answer: Console
) -> None:
    """Adds the commands.

    Args:
        messages: turns every foreseeable error into one message and exit code 1.
        said: for people, beside what a command answers.
        answer: for what it answers.
    """
    access = typer.Typer(help="Attach projects, and give teams and people a role on them.", no_args_is_help=True)
    app.add_typer(access, name="access")

    def execute(
        action: str, inputs: dict[str, Any], actor: str | None, environment: str, *, dry_run: bool, as_json: bool
    ) -> None:
        with messages():
            executor = SupabaseExecutor.for_environment(environment)
            with said.status(f"{'Planning' if dry_run else 'Carrying out'} {action}"):
                result = executor.execute(action, inputs, actor=actor or current_user(), dry_run=dry_run)
        if as_json:
            sys.stdout.write(json.dumps(result, indent=2) + "\n")
        else:
            _show(result, answer)

    @access.command("project")
    def project_access(
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
        lifecycle: Annotated[
            str | None, typer.Option(help="`detached` ends all access and keeps the data; `attached` undoes it.")
        ] = None,
        dry_run: _DryRun = False,
        actor: _Actor = None,
        as_json: _Json = False,
        environment: EnvironmentOption = ENVIRONMENT,
    ) -> None:
        """Attach a project, or change how it is attached; what is not named stays as it is."""
        given = {
            "display_name": name,
            "cell": cell,
            "owners": owner or None,
            "managed_services": list(dict.fromkeys([ManagedService.POSTGRES.value, *service])) if service else None,
            "exposed": exposed,
            "lifecycle": lifecycle,
        }
        inputs = {"project": project, **{key: value for key, value in given.items() if value is not None}}
        execute(ProjectAccessInputs.action, inputs, actor, environment, dry_run=dry_run, as_json=as_json)

    @access.command("team")
    def team_access(
        project: _Project,
        team: Annotated[str, typer.Argument(help="As the sign-in's group claim has it.")],
        role: _Role,
        dry_run: _DryRun = False,
        actor: _Actor = None,
        as_json: _Json = False,
        environment: EnvironmentOption = ENVIRONMENT,
    ) -> None:
        """Give a team its role on a project, in place of any other."""
        inputs = {"project": project, "team": team, "role": _role(role)}
        execute(TeamAccessInputs.action, inputs, actor, environment, dry_run=dry_run, as_json=as_json)

    @access.command("user")
    def user_access(
        project: _Project,
        user: Annotated[str, typer.Argument(help="Login name.")],
        role: _Role,
        dry_run: _DryRun = False,
        actor: _Actor = None,
        as_json: _Json = False,
        environment: EnvironmentOption = ENVIRONMENT,
    ) -> None:
        """Give a person a role on a project, in place of any other."""
        inputs = {"project": project, "user": user, "role": _role(role)}
        execute(AccessInputs.action, inputs, actor, environment, dry_run=dry_run, as_json=as_json)

    @access.command("action")
    def any_action(
        action: Annotated[str, typer.Argument(help="Name of an action of the catalogue.")],
        dry_run: _DryRun = False,
        actor: _Actor = None,
        environment: EnvironmentOption = ENVIRONMENT,
    ) -> None:
        """Carry out an action with the inputs on standard input, a JSON object, and answer with its result."""
        with messages():
            try:
                inputs = json.load(sys.stdin)
            except ValueError as error:
                raise ConnectorError(f"standard input is not JSON: {error}") from None
            if not isinstance(inputs, dict):
                raise ConnectorError("standard input: expected a JSON object with the action's inputs")
        execute(action, inputs, actor, environment, dry_run=dry_run, as_json=True)

    @app.command()
    def catalogue(
        check_only: Annotated[bool, typer.Option("--check", help="Fail if the committed file is out of date.")] = False,
    ) -> None:
        """Write the entries of the catalogues: connector-catalog.json and service-catalog.json."""
        texts = {CATALOGUE_FILE: catalogue_text(), SERVICE_CATALOGUE_FILE: service_catalogue_text()}
        with messages():
            for file, text in texts.items():
                if not check_only:
                    file.write_text(text, encoding="utf-8")
                elif not file.is_file() or file.read_text(encoding="utf-8") != text:
                    raise ConnectorError(f"{file.name} is out of date: run `./dataplane catalogue`")


def _role(role: str) -> str | None:
    return None if role == _NOBODY else role


def _show(result: dict[str, Any], answer: Console) -> None:
    for line in result["edit"]:
        style = {"+": "green", "-": "red"}.get(line[:1])
        answer.print(escape(line), style=style)
    for change in result["changes"]:
        answer.print(f"  {escape(change)}")
    would = "would change" if result["dry_run"] else "changed"
    answer.print(f"{len(result['changes'])} resources {would}, {result['unchanged']} unchanged")
    if result["lease"] and not result["dry_run"]:
        lease = result["lease"]
        answer.print(f"Leases: bao read {lease['lease_path']}   (levels: {', '.join(lease['levels'])})")
