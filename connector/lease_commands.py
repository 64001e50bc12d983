"""``dataplane lease``, ``run``, ``leases``, ``renew`` and ``revoke``, added to the command line."""

import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from components.durations import format_duration
from components.naming import AccessLevel, TenantNames
from connector.bindings import DataPlane, data_plane_of
from connector.callers import Caller, CallerOptions, project_of, taking
from connector.errors import ConnectorError
from connector.leases import Lease, LeaseClient, LeaseFormat, LiveLease, Via
from connector.options import EnvironmentOption, seconds_of
from connector.replacement import replace_lease
from connector.supply import OnNewLease, run_supplied
from embedded.workplace import ENVIRONMENT

__all__ = ["ViaOption", "add_lease_commands"]

_Project = Annotated[str, typer.Option("--project", "-p", help="Slug of the project.")]
_Level = Annotated[
    AccessLevel | None, typer.Option("--as", help="Access level; a workload has one that need not be said.")
]
ViaOption = Annotated[
    Via | None, typer.Option(help="Which way DATABASE_URL goes; through the pooler by session where there is one.")
]


@dataclass(frozen=True)
class _Holder(CallerOptions):
    """Whoever has leases to give back."""

    user: Annotated[str | None, typer.Option(help="Local data plane: who has them; else the operator.")] = None


def add_lease_commands(  # noqa: C901, PLR0915 five commands, each by itself
    app: typer.Typer, messages: Callable[[], AbstractContextManager[None]], said: Console, answer: Console
) -> None:
    """Adds the commands.

    Args:
        messages: turns every foreseeable error into one message and exit code 1.
        said: for people, beside what a command answers.
        answer: for what it answers.
    """

    @app.command()
    @taking(CallerOptions)
    def lease(
        who: CallerOptions,
        project: _Project,
        level: _Level = None,
        form: Annotated[LeaseFormat, typer.Option("--format", "-f", help="How to print it.")] = LeaseFormat.TEXT,
        via: ViaOption = None,
        replace: Annotated[
            str | None, typer.Option(metavar="LEASE_ID", help="Revoke this one once the new one is known to work.")
        ] = None,
        overlap: Annotated[
            str | None, typer.Option(help="How long the replaced one is kept beside the new one, e.g. 30s.")
        ] = None,
    ) -> None:
        """Take a lease: a connection string and, for API levels, a token. With --replace, in exchange for another."""
        with messages():
            if overlap is not None and replace is None:
                raise ConnectorError("--overlap is for --replace")
            caller, plane = who.caller(), who.plane()
            wanted, bound = caller.level_in(plane, project, level), plane.binding(project)
            client = LeaseClient(caller.sign_in(plane, project, wanted)())

            def show(taken: Lease) -> None:
                sys.stdout.write(taken.render(form) + "\n")
                sys.stdout.flush()

            if replace is None:
                show(client.issue(bound, wanted, via))
            else:
                seconds = 0 if overlap is None else seconds_of("--overlap", overlap)
                replace_lease(client, bound, wanted, replace, via=via, overlap_seconds=seconds, show=show)
                said.print(f"revoked {escape(replace)}")

    @app.command()
    @taking(CallerOptions)
    def run(
        who: CallerOptions,
        command: Annotated[list[str], typer.Argument(help="What to run, after `--`.", metavar="-- COMMAND …")],
        project: _Project,
        level: _Level = None,
        on_new_lease: Annotated[
            OnNewLease, typer.Option(help="What the command gets to know of a new lease, beside the files.")
        ] = OnNewLease.NOTHING,
        via: ViaOption = None,
    ) -> None:
        """Run a command with a lease that is renewed, and replaced before it ends; then give it back.

        The command has the variables of `lease --format env`, and PGSERVICEFILE and PGSERVICE, which libpq reads for
        each connection, so that new ones always work. What reads DATABASE_URL only at its start takes
        --on-new-lease restart, or reads the dotenv file DATA_PLANE_LEASE_FILE again on a SIGHUP.
        """
        with messages():
            caller, plane = who.caller(), who.plane()
            wanted = caller.level_in(plane, project, level)
            code = run_supplied(
                command,
                caller.sign_in(plane, project, wanted),
                plane.binding(project),
                wanted,
                on_new_lease,
                lambda text: said.print(escape(text)),
                via,
            )
        raise typer.Exit(code)

    @app.command()
    def leases(
        project: Annotated[str | None, typer.Option("--project", "-p", help="One project; all without it.")] = None,
        as_json: Annotated[bool, typer.Option("--json", help="Answer with a JSON list.")] = False,
        environment: EnvironmentOption = ENVIRONMENT,
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
    @taking(CallerOptions)
    def renew(
        who: CallerOptions,
        lease_ids: Annotated[list[str], typer.Argument(help="IDs of leases, as `lease` printed them.")],
        lasting: Annotated[
            str | None, typer.Option("--for", help="How long from now, e.g. 30m; by default the project's lease_ttl.")
        ] = None,
    ) -> None:
        """Let leases last longer, up to the project's lease_max_ttl from when they were taken."""
        with messages():
            seconds = None if lasting is None else seconds_of("--for", lasting)
            caller, plane = who.caller(), who.plane()
            sign_ins = _SignIns(caller, plane)
            for lease_id in lease_ids:
                lasts = sign_ins.client_for(lease_id).renew(lease_id, seconds)
                answer.print(f"{lease_id} lasts {format_duration(lasts)} from now")

    @app.command()
    @taking(_Holder)
    def revoke(
        who: _Holder,
        lease_ids: Annotated[list[str] | None, typer.Argument(help="IDs of leases, as `lease` printed them.")] = None,
        project: Annotated[
            str | None, typer.Option("--project", "-p", help="All leases of a project; takes an operator.")
        ] = None,
    ) -> None:
        """Give leases back: their sessions end and their logins are dropped. Who may lease may give back."""
        with messages():
            if bool(lease_ids) == bool(project):
                raise ConnectorError("name lease IDs, or a project with --project")
            caller, plane = who.caller(), who.plane()
            if project:
                if caller.named:
                    raise ConnectorError(
                        "finding all leases of a project takes an operator: leave --user and --auth out"
                    )
                operator = LeaseClient(plane.operator())
                names = TenantNames(plane.binding(project)["project"])
                lease_ids = [found for level in AccessLevel for found in operator.live(names, level)]
            sign_ins = _SignIns(caller, plane) if caller.named else None
            for lease_id in lease_ids or []:
                client = sign_ins.client_for(lease_id) if sign_ins else LeaseClient(plane.operator())
                client.revoke(lease_id)
                answer.print(f"revoked {lease_id}")
            if not lease_ids:
                answer.print("there was no live lease")


class _SignIns:
    """Clients that may use leases, signed in once for each project and level."""

    def __init__(self, caller: Caller, plane: DataPlane) -> None:
        self._caller = caller
        self._plane = plane
        self._clients: dict[tuple[str, AccessLevel], LeaseClient] = {}

    def client_for(self, lease_id: str) -> LeaseClient:
        """A client of the caller's, for the project and level that a lease's ID names."""
        project, level = project_of(lease_id, self._plane)
        if (project, level) not in self._clients:
            self._clients[project, level] = LeaseClient(self._caller.sign_in(self._plane, project, level)())
        return self._clients[project, level]


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
