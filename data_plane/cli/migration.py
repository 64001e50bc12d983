"""``dataplane migration``: a project's migrations and seeds."""

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from data_plane.cli.console import counted, messages, print_json, print_table, stderr, stdout
from data_plane.cli.identity import with_options
from data_plane.cli.migration_diff import diff
from data_plane.cli.migration_new import new
from data_plane.cli.migration_reset import reset
from data_plane.cli.migration_target import AsIsOption, LeaveOutOption, MigrationTarget, files_of, seeds_of, tell_seeded
from data_plane.cli.options import FolderOption, JsonOption, seconds_of
from data_plane.connector.migrations import (
    Entry,
    Limits,
    MigrationFile,
    Migrator,
    PreparedFile,
    State,
    refuse,
    summed_up,
)
from data_plane.connector.project_link import DEFAULT_FOLDER
from data_plane.errors import MigrationError, UsageError

__all__ = ["app"]

_Seconds = Annotated[str, typer.Option(metavar="DURATION")]


app = typer.Typer()


def working_on(file: Any) -> None:
    stderr.print(f"  {escape(file.path.name)}")


@app.command()
@with_options(MigrationTarget)
def up(
    target: MigrationTarget,
    folder: FolderOption = DEFAULT_FOLDER,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would run, and run nothing.")] = False,
    as_is: AsIsOption = False,
    leave_out: LeaveOutOption = None,
    include_all: Annotated[
        bool, typer.Option("--include-all", help="Also what is older than the last one applied.")
    ] = False,
    include_seed: Annotated[bool, typer.Option("--include-seed", help="Then also new seed files.")] = False,
    statement_timeout: _Seconds = "10m",
    lock_timeout: _Seconds = "10s",
) -> None:
    """Run the migrations that the schema does not have yet, in order, each file in one transaction.

    They are Supabase's: `<digits>_<name>.sql`, ordered by file name. The first that fails is rolled back and ends
    the run; those before it stay. Nothing at all is run if any of them names what is not the project's.
    """
    with messages():
        limits = Limits(
            seconds_of("--statement-timeout", statement_timeout), seconds_of("--lock-timeout", lock_timeout)
        )
        files = files_of(folder)
        seeds = seeds_of(folder) if include_seed else []
        with target.session() as connection:
            chosen = frozenset(leave_out or ())
            migrator = Migrator(connection, target.names, limits, rewrite=not as_is, leave_out=chosen)
            plan = migrator.plan(files, include_all=include_all)
            for _, item in plan.pending:
                _tell(item, stdout if dry_run else stderr, diff=dry_run)
            for line in summed_up([item for _, item in plan.pending]):
                stderr.print(escape(line))
            if dry_run:
                refuse([item for _, item in plan.pending])
                stdout.print(f"{counted(len(plan.pending), 'migration')} would be applied; {plan.applied} are")
                for file in migrator.pending_seeds(seeds):
                    stdout.print(f"then {escape(file.key)} would be run")
                return
            with target.audited("migrate_up") as under_way:
                applied = migrator.up(plan, working_on)
                under_way.note(applied=[file.version for file in applied])
                seeded = migrator.seed(seeds, working_on)
                under_way.note(seeds=[file.key for file in seeded.run])
            stdout.print(
                f"{counted(len(applied), 'migration')} applied to {target.names.schema}; {plan.applied} were before"
            )
            if seeds:
                tell_seeded(seeded, target.names.schema)
            if bare := migrator.unprotected() if applied else []:
                stderr.print("[yellow]Without a policy, so only owner and service role see rows:[/]", ", ".join(bare))
            for line in migrator.past_row_security() if applied else []:
                stderr.print(f"[yellow]{escape(line)}[/]")


@app.command()
@with_options(MigrationTarget)
def status(
    target: MigrationTarget,
    folder: FolderOption = DEFAULT_FOLDER,
    as_json: JsonOption = False,
) -> None:
    """Show which migrations the schema has, and which are pending."""
    with messages():
        files = files_of(folder)
        with target.session() as connection:
            entries = Migrator(connection, target.names).history.entries()
        rows = _statuses(files, entries)
        if as_json:
            print_json(rows)
            return
        print_table(
            ("version", "name", "state", "when"),
            [(row["version"], row["name"], row["state"], row["finished_at"] or "") for row in rows],
        )


@app.command()
@with_options(MigrationTarget)
def baseline(
    target: MigrationTarget,
    version: Annotated[str, typer.Argument(help="The last migration whose effect the schema has.")],
    folder: FolderOption = DEFAULT_FOLDER,
) -> None:
    """Note every migration up to a version as applied, without running it."""
    with messages():
        files = files_of(folder)
        with target.audited("migrate_baseline") as under_way, target.session() as connection:
            noted = Migrator(connection, target.names).baseline(files, version)
            under_way.note(baseline=[file.version for file in noted])
        stdout.print(f"{counted(len(noted), 'migration')} noted as applied to {target.names.schema}")


@app.command()
@with_options(MigrationTarget)
def repair(
    target: MigrationTarget,
    applied: Annotated[
        list[str] | None, typer.Option("--applied", help="Note this version as applied, as its file is now.")
    ] = None,
    reverted: Annotated[list[str] | None, typer.Option("--reverted", help="Forget this version.")] = None,
    folder: FolderOption = DEFAULT_FOLDER,
) -> None:
    """Correct the history of migrations. The schema itself is not touched."""
    with messages():
        if not applied and not reverted:
            raise UsageError("say what is to be corrected: --applied VERSION or --reverted VERSION")
        files = files_of(folder)
        with target.audited("migrate_repair") as under_way, target.session() as connection:
            migrator = Migrator(connection, target.names)
            migrator.repair(files, reverted or [], applied=False)
            migrator.repair(files, applied or [], applied=True)
            under_way.note(applied=applied or [], reverted=reverted or [])
        stdout.print(f"the history of {target.names.schema} is corrected")


@app.command()
@with_options(MigrationTarget)
def seed(
    target: MigrationTarget,
    folder: FolderOption = DEFAULT_FOLDER,
    again: Annotated[bool, typer.Option("--again", help="Also those that were run before.")] = False,
    as_is: AsIsOption = False,
    leave_out: LeaveOutOption = None,
) -> None:
    """Run the seed files: those of `db.seed.sql_paths` in config.toml, else seed.sql, each in one transaction.

    Each runs once, as with the Supabase CLI: if a file has changed since, only its new checksum is noted.
    """
    with messages():
        files = seeds_of(folder)
        if not files:
            raise MigrationError(f"{folder} has no seed file: seed.sql, or what db.seed.sql_paths in config.toml says")
        with target.audited("migrate_seed") as under_way, target.session() as connection:
            migrator = Migrator(connection, target.names, rewrite=not as_is, leave_out=frozenset(leave_out or ()))
            seeded = migrator.seed(files, working_on, again=again)
            under_way.note(seeds=[file.key for file in seeded.run])
        tell_seeded(seeded, target.names.schema)


app.command()(new)
app.command()(reset)
app.command()(diff)


def _tell(item: PreparedFile, console: Console, *, diff: bool) -> None:
    if diff:
        console.print(f"[bold]{escape(item.file.path.name)}[/]: {counted(len(item.to_run), 'statement')}")
        for line in item.diff():
            console.print(escape(line), style={"+": "green", "-": "red"}.get(line[:1]))
        return
    if not item.statements:
        console.print(
            f"  [yellow]{escape(item.file.path.name)} holds no statement yet; what is added later is not run[/]"
        )
    for statement in item.statements:
        if statement.left_out:
            where = f"{item.file.path.name}:{statement.original.line}"
            console.print(f"  [dim]{escape(where)}: left out: {escape(statement.left_out)}[/]")


def _statuses(files: list[MigrationFile], entries: dict[str, Entry]) -> list[dict[str, Any]]:
    by_version = {file.version: file for file in files}
    rows = []
    for version in sorted({*by_version, *entries}, key=lambda version: _order(version, by_version, entries)):
        file, entry = by_version.get(version), entries.get(version)
        finished = entry.finished_at if entry else None
        rows.append(
            {
                "version": version,
                "name": file.name if file else entry.name if entry else "",
                "state": _state(file, entry),
                "adapted": bool(entry and entry.adapted),
                "finished_at": finished.isoformat(timespec="seconds") if finished else None,
                "by": entry.by if entry else None,
            }
        )
    return rows


def _order(version: str, files: dict[str, MigrationFile], entries: dict[str, Entry]) -> str:
    return files[version].path.name if version in files else f"{version}_{entries[version].name}"


def _state(file: MigrationFile | None, entry: Entry | None) -> str:
    if entry is None:
        return "pending"
    if file is None:
        return f"{entry.state.value}, without a file"
    if entry.state is State.STARTED:
        return f"started, {entry.done} statements done"
    return entry.state.value if entry.checksum == file.checksum else f"{entry.state.value}, changed since"
