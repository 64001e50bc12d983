"""``dataplane lease``: leases are taken, listed, renewed, revoked, and used by a command that is run with one."""

import shutil
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer
from rich.markup import escape

from data_plane.cli.console import messages, print_json, print_table, stderr, stdout
from data_plane.cli.identity import ClientIdentity, IdentityOptions, project_of, with_options
from data_plane.cli.options import (
    AllProjectsOption,
    EnvironmentOption,
    JsonOption,
    ProjectOption,
    SomeProjectOption,
    complete_project,
    refuse_one_of_all,
    seconds_of,
)
from data_plane.connector.bindings import DataPlane, data_plane_of
from data_plane.connector.lease_runner import NOT_FOUND, OnNewLease, run_with_lease
from data_plane.connector.leases import Lease, LeaseClient, LeaseFormat, LiveLease, Via
from data_plane.errors import CommandNotStartedError, LeaseEndedError, OutputError, UsageError
from data_plane.model.durations import format_duration
from data_plane.model.naming import AccessLevel, TenantNames
from data_plane.state_dir import ENVIRONMENT

__all__ = ["ViaOption", "app"]

_Level = Annotated[
    AccessLevel | None, typer.Option("--as", help="Access level; by default the workload's own, with --auth.")
]
ViaOption = Annotated[
    Via | None, typer.Option(help="Route of DATABASE_URL; by default the pooler's sessions, if there is a pooler.")
]


@dataclass(frozen=True)
class _Holder(IdentityOptions):
    """The options of a command that ends leases."""

    user: Annotated[str | None, typer.Option(help="Local data plane: who has them; else the operator.")] = None


app = typer.Typer()


class _Runner(typer.core.TyperCommand):
    """A command whose arguments are another's command line."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        separated = "--" in args
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            # By name, because typer's copy of click is its own; a misspelt option has possibilities.
            if type(error).__name__ == "NoSuchOption" and not separated and not getattr(error, "possibilities", None):
                said: Any = error
                said.message += f". Put `--` before the command: `{ctx.command_path} … -- …`"
            raise


@app.command()
@with_options(IdentityOptions)
def take(
    who: IdentityOptions,
    project: ProjectOption = "",
    level: _Level = None,
    form: Annotated[LeaseFormat, typer.Option("--format", "-f", help="How to print it.")] = LeaseFormat.TEXT,
    as_json: JsonOption = False,
    via: ViaOption = None,
    replace: Annotated[
        str | None, typer.Option(metavar="LEASE_ID", help="Revoke this one once the new one is known to work.")
    ] = None,
    overlap: Annotated[
        str | None, typer.Option(help="How long the replaced one is kept beside the new one, e.g. 30s.")
    ] = None,
) -> None:
    """Take a lease: a connection string and, for API levels, a token. With --replace, in exchange for another.

    `dataplane lease OPTIONS` is `dataplane lease take OPTIONS`.
    """
    with messages():
        if overlap is not None and replace is None:
            raise UsageError("--overlap is for --replace")
        form = LeaseFormat.JSON if as_json else form
        caller, plane = who.caller(), who.plane()
        wanted, bound = caller.level_in(plane, project, level), plane.binding(project)
        client = LeaseClient(caller.sign_in(plane, project, wanted)())
        if replace is None:
            _show(client.issue(bound, wanted, via), form, client)
            return
        # Only a replaced lease is tried, for which PostgreSQL's client library is imported.
        from data_plane.connector.lease_rotation import rotate_lease  # noqa: PLC0415

        seconds = 0 if overlap is None else seconds_of("--overlap", overlap)
        rotate_lease(
            client,
            bound,
            wanted,
            replace,
            via=via,
            overlap_seconds=seconds,
            show=lambda taken: _show(taken, form, client),
        )
        stderr.print(f"revoked {escape(replace)}")


@app.command(cls=_Runner)
@with_options(IdentityOptions)
def run(
    who: IdentityOptions,
    command: Annotated[list[str], typer.Argument(help="What to run, after `--`.", metavar="-- COMMAND …")],
    project: ProjectOption = "",
    level: _Level = None,
    on_new_lease: Annotated[
        OnNewLease, typer.Option(help="How the command learns of a new lease, apart from its files.")
    ] = OnNewLease.NOTHING,
    via: ViaOption = None,
) -> None:
    """Run a command with a lease that is renewed until it ends, and replaced where it cannot be; then give it back.

    The command has the variables of `lease --format env`, and PGSERVICEFILE and PGSERVICE, which libpq reads for
    each connection, so that new ones always work. What reads DATABASE_URL only at its start takes
    --on-new-lease restart, or reads the dotenv file DATA_PLANE_LEASE_FILE again on a SIGHUP.

    Ends with the command's exit code: 127 if there is no such command, 126 if it cannot be started, 128 and the number
    of the signal that ended it.
    """
    with messages():
        caller, plane = who.caller(), who.plane()
        code = _run(caller, plane, command, project, caller.level_in(plane, project, level), on_new_lease, via)
    raise typer.Exit(code)


@app.command(cls=_Runner)
@with_options(IdentityOptions)
def psql(
    who: IdentityOptions,
    arguments: Annotated[
        list[str] | None, typer.Argument(help="Arguments of psql, after `--`.", metavar="[-- ARGUMENT …]")
    ] = None,
    project: ProjectOption = "",
    level: Annotated[
        AccessLevel | None, typer.Option("--as", help="Access level; by default owner, or the workload's own.")
    ] = None,
    via: ViaOption = None,
) -> None:
    """Open psql with a lease, and give it back at the end.

    The password is in a file that only this user can read, never in an argument. Ends with psql's exit code.
    """
    with messages():
        caller, plane = who.caller(), who.plane()
        wanted = AccessLevel.OWNER if level is None and caller.auth is None else caller.level_in(plane, project, level)
        # Not the one of the folder that this is called in: PATH here has absolute folders only.
        program = shutil.which("psql")
        if program is None:
            raise CommandNotStartedError("psql is not on PATH: install PostgreSQL's client programs", NOT_FOUND)
        code = _run(caller, plane, [program, *(arguments or [])], project, wanted, OnNewLease.NOTHING, via)
    raise typer.Exit(code)


@app.command(name="list")
def list_leases(
    project: SomeProjectOption = None,
    all_projects: AllProjectsOption = False,
    as_json: JsonOption = False,
    environment: EnvironmentOption = ENVIRONMENT,
) -> None:
    """List the leases that are in force. Takes an operator's token; shows no credentials."""
    with messages():
        refuse_one_of_all(project, all_projects=all_projects)
        plane = data_plane_of(environment)
        slugs = [plane.binding(project).project] if project else sorted(plane.bindings())
        client = LeaseClient(plane.operator())
        found = [item for slug in slugs for level in AccessLevel for item in client.details(TenantNames(slug), level)]
        if as_json:
            print_json([_listed(item) for item in found])
        elif found:
            print_table(("lease", "level", "age", "ends in"), [_row(item) for item in found])
        else:
            stdout.print("there is no live lease")


@app.command()
@with_options(IdentityOptions)
def renew(
    who: IdentityOptions,
    lease_ids: Annotated[list[str], typer.Argument(help="IDs of leases, as `lease` printed them.", metavar="ID …")],
    lasting: Annotated[
        str | None, typer.Option("--for", help="How long from now, e.g. 30m; by default the project's lease_ttl.")
    ] = None,
) -> None:
    """Renew leases. None lasts longer than the project's lease_max_ttl from when it was taken."""
    with messages():
        seconds = None if lasting is None else seconds_of("--for", lasting)
        caller, plane = who.caller(), who.plane()
        sign_ins = _SignIns(caller, plane)
        for lease_id in lease_ids:
            lasts = sign_ins.client_for(lease_id).renew(lease_id, seconds)
            stdout.print(f"{lease_id} lasts {format_duration(lasts)} from now")


@app.command()
@with_options(_Holder)
def revoke(
    who: _Holder,
    lease_ids: Annotated[
        list[str] | None, typer.Argument(help="IDs of leases, as `lease` printed them.", metavar="[ID …]")
    ] = None,
    project: Annotated[
        str | None,
        typer.Option(
            "--project", "-p", help="All leases of a project; takes an operator.", autocompletion=complete_project
        ),
    ] = None,
) -> None:
    """Give leases back: their sessions end and their logins are dropped. Needs the same rights as taking them."""
    with messages():
        if bool(lease_ids) == bool(project):
            raise UsageError("name lease IDs, or a project with --project")
        caller, plane = who.caller(), who.plane()
        operator = None if caller.named else LeaseClient(plane.operator())
        if project:
            if operator is None:
                raise UsageError("finding all leases of a project takes an operator: leave --user and --auth out")
            names = TenantNames(plane.binding(project).project)
            lease_ids = [found for level in AccessLevel for found in operator.live(names, level)]
        sign_ins = _SignIns(caller, plane)
        ended = []
        for lease_id in lease_ids or []:
            client = operator or sign_ins.client_for(lease_id)
            if not project and not _is_live(lease_id, plane, client, listing=operator is not None):
                ended.append(lease_id)
                continue
            client.revoke(lease_id)
            stdout.print(f"revoked {lease_id}")
        if not lease_ids:
            stdout.print("there was no live lease")
        if ended:
            raise LeaseEndedError(f"there is no lease {', '.join(ended)}: it has ended, or never was")


def _run(
    caller: ClientIdentity,
    plane: DataPlane,
    command: Sequence[str],
    project: str,
    level: AccessLevel,
    on_new_lease: OnNewLease,
    via: Via | None,
) -> int:
    sign_in = caller.sign_in(plane, project, level)
    bound = plane.binding(project)
    return run_with_lease(command, sign_in, bound, level, on_new_lease, lambda text: stderr.print(escape(text)), via)


def _is_live(lease_id: str, plane: DataPlane, client: LeaseClient, *, listing: bool) -> bool:
    """Whether a lease is in force; who may not list leases is told by renewing it."""
    slug, level = project_of(lease_id, plane)
    return lease_id in client.live(TenantNames(slug), level) if listing else client.can_renew(lease_id)


def _show(taken: Lease, form: LeaseFormat, client: LeaseClient) -> None:
    """Prints a lease; gives it back if that cannot be done, because then nobody knows of it."""
    try:
        sys.stdout.write(taken.render(form) + "\n")
        sys.stdout.flush()
    except BaseException as error:
        client.revoke(taken.lease_id)
        if isinstance(error, OutputError):
            raise OutputError(f"{error}; the lease was given back") from error
        raise
    if form is LeaseFormat.TEXT and not _api_listens(taken.api_url):
        stderr.print(
            "[yellow]nothing listens at SUPABASE_URL: "
            "`dataplane local start --services` starts what this machine has[/]"
        )


def _api_listens(url: str) -> bool:
    """Whether there is a server at an address of this machine; others are not asked."""
    address = urlsplit(url)
    if address.hostname not in {"127.0.0.1", "::1", "localhost"}:
        return True
    try:
        socket.create_connection((address.hostname, address.port or 80), timeout=1).close()
    except OSError:
        return False
    return True


class _SignIns:
    """Clients that may use leases, signed in once for each project and level."""

    def __init__(self, caller: ClientIdentity, plane: DataPlane) -> None:
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


def _row(item: LiveLease) -> tuple[str, str, str, str]:
    age = max(0, int((datetime.now(UTC) - item.issued_at).total_seconds()))
    return item.lease_id, item.level.value, f"{age} s", f"{item.ttl_seconds} s"
