"""``dataplane backup``: backups of an environment's database, made, listed and restored."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.markup import escape

from data_plane.cli.console import messages, print_json, print_table, stderr, stdout
from data_plane.cli.options import EnvironmentOption, JsonOption, complete_project
from data_plane.connector.backups import Backups, RestoreRequest, parse_moment
from data_plane.connector.local_backups import LocalBackups
from data_plane.local.servers import Servers
from data_plane.model.backup_list import LogicalBackup, PhysicalBackup
from data_plane.state_dir import ENVIRONMENT

__all__ = ["app", "backups_of"]


app = typer.Typer()


@contextmanager
def backups_of(environment: str) -> Iterator[Backups]:
    """An environment's backups, with every foreseeable error as one message."""

    def say(text: str) -> None:
        stderr.print(escape(text), style="dim")

    with messages():
        if environment == ENVIRONMENT:
            yield LocalBackups(Servers(), say)
            return
        # The client of a cluster's API is large, and an extra of its own.
        from data_plane.connector.cluster_backups import ClusterBackups, central_stack, cluster_errors  # noqa: PLC0415

        with cluster_errors():
            yield ClusterBackups(central_stack(environment), say)


@app.command()
def create(as_json: JsonOption = False, environment: EnvironmentOption = ENVIRONMENT) -> None:
    """Back up the database now, physically and logically, beside what happens on schedule."""
    with backups_of(environment) as found:
        found.back_up()
        _show(found, as_json=as_json)


@app.command(name="list")
def list_backups(as_json: JsonOption = False, environment: EnvironmentOption = ENVIRONMENT) -> None:
    """Show what there is to restore from."""
    with backups_of(environment) as found:
        _show(found, as_json=as_json)


@app.command()
def restore(
    to: Annotated[str | None, typer.Option(help="A moment with its zone, e.g. 2026-01-31T14:05:00Z.")] = None,
    backup_id: Annotated[str | None, typer.Option("--backup", help="The physical backup to start from.")] = None,
    dump: Annotated[str | None, typer.Option(help="A dump instead, or `latest`.")] = None,
    project: Annotated[
        str | None,
        typer.Option(
            "--project",
            "-p",
            help="One project, beside the present one, from a dump.",
            autocompletion=complete_project,
        ),
    ] = None,
    timeline: Annotated[str, typer.Option(help="After a former restore: which history to follow.")] = "latest",
    check: Annotated[bool, typer.Option("--check", help="A drill: try it out, and change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do it, instead of showing what would be done.")] = False,
    environment: EnvironmentOption = ENVIRONMENT,
) -> None:
    """Show how the database would be restored; with --yes, restore it. Nothing is deleted."""
    with backups_of(environment) as found:
        moment = None if to is None else parse_moment(to)
        request = RestoreRequest(moment, backup_id, dump, project, timeline)
        request.check()
        if check:
            found.check(request)
            stdout.print("It can be restored.")
            return
        for number, step in enumerate(found.plan(request), start=1):
            stdout.print(f"{number}. {escape(step)}")
        if not yes:
            stdout.print("\nNothing was done. The same command with --yes does it.")
            return
        found.restore(request)
        stdout.print("Restored.")


def _show(backups: Backups, *, as_json: bool) -> None:
    found = backups.available()
    if as_json:
        print_json([*map(_physical, found.physical), *map(_logical, found.logical)])
        return
    rows = []
    for item in found.physical:
        remark = f"PostgreSQL {item.version}, timeline {item.timeline}"
        rows.append((item.backup_id, "physical", f"any moment since {item.ended:%Y-%m-%d %H:%M:%S}Z", remark))
    for dump in found.logical:
        remark = f"{', '.join(dump.databases)}; {dump.size / 2**20:.1f} MiB"
        if dump.missing:
            remark += f"; without {'; '.join(dump.missing)}"
        rows.append((dump.stamp, "dump", "its own moment", remark))
    if rows:
        print_table(("backup", "kind", "restores to", "remark"), rows)
    else:
        stdout.print("There is no backup yet: `dataplane backup create` makes one.")


def _physical(item: PhysicalBackup) -> dict[str, Any]:
    return {
        "backup": item.backup_id,
        "kind": "physical",
        "restores_since": item.ended.isoformat(timespec="seconds"),
        "version": item.version,
        "timeline": item.timeline,
    }


def _logical(dump: LogicalBackup) -> dict[str, Any]:
    return {
        "backup": dump.stamp,
        "kind": "dump",
        "databases": list(dump.databases),
        "bytes": dump.size,
        "missing": list(dump.missing),
    }
