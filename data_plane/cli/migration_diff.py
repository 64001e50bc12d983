"""``dataplane migration diff``: what a project's schemas have that its files do not make, and the other way round."""

import sys
from typing import Annotated

import psycopg
import typer
from rich.markup import escape

from data_plane.cli.console import messages, stderr, stdout
from data_plane.cli.identity import with_options
from data_plane.cli.migration_new import write_new
from data_plane.cli.migration_target import AsIsOption, LeaveOutOption, MigrationTarget, files_of
from data_plane.cli.options import FolderOption
from data_plane.connector.migrations import Entry, MigrationFile, Migrator
from data_plane.connector.migrations.definitions import definitions_of
from data_plane.connector.migrations.difference import Difference, difference
from data_plane.connector.migrations.portable import portable
from data_plane.connector.migrations.scratch import ProjectFacts, Scratch, facts_of, scratch
from data_plane.connector.project_link import DEFAULT_FOLDER

__all__ = ["diff"]

_DROPS = ("drop table", "drop materialized view", "drop sequence")


@with_options(MigrationTarget)
def diff(
    target: MigrationTarget,
    folder: FolderOption = DEFAULT_FOLDER,
    file: Annotated[
        str | None, typer.Option("--file", metavar="NAME", help="Write it as a migration of that name.")
    ] = None,
    as_is: AsIsOption = False,
    leave_out: LeaveOutOption = None,
) -> None:
    """Show as SQL how the schema differs from its applied files.

    The files run on a PostgreSQL of this machine that is deleted afterwards, and so do the statements, before they
    are shown. Of the project's own database it reads only the catalogs.
    """
    with messages():
        files = files_of(folder)
        with target.session() as connection:
            entries = Migrator(connection, target.names).history.entries()
            facts = facts_of(connection, target.names)
            wanted = definitions_of(connection, target.names)
        applied = _applied(files, entries)
        stderr.print("[dim]running the files on a PostgreSQL of this machine[/]")
        with scratch(target.names, facts) as place:
            _warn(place, facts)
            with psycopg.connect(place.conninfo, autocommit=True) as tried:
                chosen = frozenset(leave_out or ())
                migrator = Migrator(tried, target.names, rewrite=not as_is, leave_out=chosen, assumed=place.assumed)
                migrator.up(migrator.plan(applied))
            with psycopg.connect(place.conninfo, autocommit=True) as tried:
                found = difference(tried, target.names, wanted)
        if not as_is:
            found.statements = [portable(statement, target.names) for statement in found.statements]
        _show(found, file)
        if file is not None and found.statements:
            path = write_new(folder, file, _text(found))
            stdout.print(escape(str(path)))
            version = path.name.partition("_")[0]
            stderr.print(f"The schema has it already, so note it: dataplane migration repair --applied {version}")


def _applied(files: list[MigrationFile], entries: dict[str, Entry]) -> list[MigrationFile]:
    """The files that the history has; names the others, and what is noted of no file."""
    waiting = [file.path.name for file in files if file.version not in entries]
    if waiting:
        stderr.print(f"[yellow]not applied yet, so left out: {escape(', '.join(waiting))}[/]")
    changed = [f.path.name for f in files if f.version in entries and entries[f.version].checksum != f.checksum]
    if changed:
        stderr.print(f"[yellow]changed since applied, taken as now: {escape(', '.join(changed))}[/]")
    gone = entries.keys() - {file.version for file in files}
    if gone:
        stderr.print(f"[yellow]applied, and without a file: {escape(', '.join(sorted(gone)))}[/]")
    return [file for file in files if file.version in entries]


def _warn(place: Scratch, facts: ProjectFacts) -> None:
    if place.missing:
        stderr.print(f"[yellow]this machine lacks extensions that the server has: {', '.join(place.missing)}[/]")
    if place.major != facts.major:
        stderr.print(
            f"[yellow]the server is PostgreSQL {facts.major} and this machine's is {place.major}, which writes some "
            "definitions differently: DATA_PLANE_POSTGRES_BIN names another's programs[/]",
        )


def _show(found: Difference, file: str | None) -> None:
    if not found.statements and not found.unsaid:
        stderr.print("the schema is what its applied files make")
        return
    if file is None:
        sys.stdout.write(_text(found))
    dropping = [line for line in found.statements if line.startswith(_DROPS) or " drop column " in line]
    if dropping:
        stderr.print(
            f"[yellow]{len(dropping)} of these statements drop rows where they run, because the schema lacks what the "
            "files make[/]",
        )


def _text(found: Difference) -> str:
    lines = [f"{statement};\n" for statement in found.statements]
    lines += [f"-- not said by the above: {line}\n" for line in found.unsaid]
    return "\n".join(lines)
