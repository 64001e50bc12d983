"""``dataplane lease``, ``run``, ``leases``, ``renew`` and ``revoke``, added to the command line."""

import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from components.durations import format_duration, parse_duration
from components.naming import AccessLevel, TenantNames
from connector.bindings import data_plane_of
from connector.errors import ConnectorError
from connector.leases import LeaseClient, LeaseFormat, LiveLease
from connector.supply import OnNewLease, run_supplied
from embedded.workplace import ENVIRONMENT

__all__ = ["add_lease_commands"]

_Project = Annotated[str, typer.Option("--project", "-p", help="Slug of the project.")]
_Level = Annotated[AccessLevel, typer.Option("--as", help="Access level.")]
_User = Annotated[str | None, typer.Option(help="Local data plane: who asks; else somebody who may.")]
_Environment = Annotated[
    str, typer.Option("--environment", "-e", help="`local`, or a deployed environment under stacks/.")
]


def add_lease_commands(  # noqa: C901 five commands, each by itself
    app: typer.Typer, messages: Callable[[], AbstractContextManager[None]], said: Console, answer: Console
) -> None:
    """Adds the commands.

    Args:
        messages: turns every foreseeable error into one message and exit code 1.
        said: for people, beside what a command answers.
        answer: for what it answers.
    """

    @app.command()
    def lease(
        project: _Project,
        level: _Level,
        form: Annotated[LeaseFormat, typer.Option("--format", "-f", help="How to print it.")] = LeaseFormat.TEXT,
        user: _User = None,
        environment: _Environment = ENVIRONMENT,
    ) -> None:
        """Take a lease: a connection string and, for API levels, a token."""
        with messages():
            plane = data_plane_of(environment)
            binding = plane.binding(project)
            taken = LeaseClient(plane.client(project, level, user)).issue(binding, level)
            sys.stdout.write(taken.render(form) + "\n")

    @app.command()
    def run(
        command: Annotated[list[str], typer.Argument(help="What to run, after `--`.", metavar="-- COMMAND …")],
        project: _Project,
        level: _Level,
        on_new_lease: Annotated[
            OnNewLease, typer.Option(help="What the command gets to know of a new lease, beside the files.")
        ] = OnNewLease.NOTHING,
        user: _User = None,
        environment: _Environment = ENVIRONMENT,
    ) -> None:
        """Run a command with a lease that is renewed, and replaced before it ends; then give it back.

        The command has the variables of `lease --format env`, and PGSERVICEFILE and PGSERVICE, which libpq reads for
        each connection, so that new ones always work. What reads DATABASE_URL only at its start takes
        --on-new-lease restart, or reads the dotenv file DATA_PLANE_LEASE_FILE again on a SIGHUP.
        """
        with messages():
            plane = data_plane_of(environment)
            code = run_supplied(
                command,
                lambda: plane.client(project, level, user),
                plane.binding(project),
                level,
                on_new_lease,
                lambda text: said.print(escape(text)),
            )
        raise typer.Exit(code)

    @app.command()
    def leases(
        project: Annotated[str | None, typer.Option("--project", "-p", help="One project; all without it.")] = None,
        as_json: Annotated[bool, typer.Option("--json", help="Answer with a JSON list.")] = False,
        environment: _Environment = ENVIRONMENT,
    ) -> None:
        """List the leases that are in force. Takes an operator's token; shows no credentials."""
        with messages():
            plane = data_plane_of(environment)
            slugs = [plane.binding(project)["project"]] if project else sorted(plane.bindings())
            client = LeaseClient(plane.operator())
            found = [
                item for slug in slugs for level in AccessLevel for item in client.details(TenantNames(slug), level)
            ]
        if as_json:
            sys.stdout.write(json.dumps([_listed(item) for item in found], indent=2) + "\n")
        else:
            answer.print(_table(found) if found else "there is no live lease")

    @app.command()
    def renew(
        lease_ids: Annotated[list[str], typer.Argument(help="IDs of leases, as `lease` printed them.")],
        project: _Project,
        level: _Level,
        lasting: Annotated[
            str | None, typer.Option("--for", help="How long from now, e.g. 30m; by default the project's lease_ttl.")
        ] = None,
        user: _User = None,
        environment: _Environment = ENVIRONMENT,
    ) -> None:
        """Let leases last longer, up to the project's lease_max_ttl from when they were taken."""
        with messages():
            try:
                seconds = None if lasting is None else parse_duration(lasting)
            except ValueError as error:
                raise ConnectorError(f"--for: found {lasting!r}; expected {error}") from None
            client = LeaseClient(data_plane_of(environment).client(project, level, user))
            for lease_id in lease_ids:
                answer.print(f"{lease_id} lasts {format_duration(client.renew(lease_id, seconds))} from now")

    @app.command()
    def revoke(
        lease_ids: Annotated[list[str] | None, typer.Argument(help="IDs of leases, as `lease` printed them.")] = None,
        project: Annotated[str | None, typer.Option("--project", "-p", help="All leases of a project.")] = None,
        environment: _Environment = ENVIRONMENT,
    ) -> None:
        """Give leases back: their sessions end and their logins are dropped."""
        with messages():
            if bool(lease_ids) == bool(project):
                raise ConnectorError("name lease IDs, or a project with --project")
            plane = data_plane_of(environment)
            client = LeaseClient(plane.operator())
            if project:
                plane.binding(project)
                names = TenantNames(project)
                lease_ids = [found for level in AccessLevel for found in client.live(names, level)]
            for lease_id in lease_ids or []:
                client.revoke(lease_id)
                answer.print(f"revoked {lease_id}")
            if not lease_ids:
                answer.print("there was no live lease")


def _listed(item: LiveLease) -> dict[str, str]:
    return {
        "lease_id": item.lease_id,
        "level": item.level.value,
        "issued_at": item.issued_at.isoformat(timespec="seconds"),
        "expires_at": item.expires_at.isoformat(timespec="seconds"),
    }


def _table(found: list[LiveLease]) -> Table:
    table = Table("lease", "age", "ends in", box=None, pad_edge=False)
    for item in found:
        age = max(0, int((datetime.now(UTC) - item.issued_at).total_seconds()))
        table.add_row(item.lease_id, f"{age} s", f"{item.ttl_seconds} s")
    return table
