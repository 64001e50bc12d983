"""``dataplane migrate``: a project's migrations and seeds."""

import json
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import psycopg
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from components.naming import AccessLevel, TenantNames
from connector.audit import AuditedAction, AuditLog, Outcome, current_user
from connector.callers import CallerOptions, taking
from connector.errors import ConnectorError, MigrationError, MigrationRefusedError
from connector.lease_commands import ViaOption
from connector.migrations import (
    DEFAULT_FOLDER,
    Boundary,
    Entry,
    Limits,
    MigrationFile,
    Migrator,
    PreparedFile,
    State,
    migration_files,
    refuse,
    seed_files,
)
from connector.migrations.session import owner_session
from connector.options import seconds_of
from embedded.home import Home

__all__ = ["add_migration_commands"]

_Folder = Annotated[Path, typer.Option("--folder", help="The repository's `supabase` folder.")]
_Adapt = Annotated[
    bool,
    typer.Option(
        "--adapt",
        envvar="DATA_PLANE_ADAPT",
        help="Rewrite `public` and Supabase's roles to the project's own; --dry-run shows it.",
    ),
]
_LeaveOut = Annotated[
    list[Boundary] | None,
    typer.Option("--leave-out", help="Do not run what reaches over this boundary; may be given several times."),
]
_Seconds = Annotated[str, typer.Option(metavar="DURATION")]


@dataclass(frozen=True)
class _Target(CallerOptions):
    """The project whose schema is migrated, and who does it."""

    # Has to be given; a field with a default may not stand before one without.
    project: Annotated[str, typer.Option("--project", "-p", help="Slug of the project.")] = field(kw_only=True)
    via: ViaOption = None

    @property
    def names(self) -> TenantNames:
        return TenantNames(self.project)

    @contextmanager
    def session(self) -> Iterator[psycopg.Connection[Any]]:
        plane = self.plane()
        client = self.caller().sign_in(plane, self.project, AccessLevel.OWNER)()
        with owner_session(client, plane.binding(self.project), self.via) as connection:
            yield connection

    @contextmanager
    def audited(self, action: str) -> Iterator[AuditedAction]:
        about = {"project": self.project, "environment": self.environment}
        actor = self.user or self.workload or current_user()
        with AuditLog.default(Home()).action(action, actor, **about) as under_way:
            try:
                yield under_way
            except MigrationRefusedError:
                under_way.note(outcome=Outcome.REFUSED)
                raise


def add_migration_commands(  # noqa: C901, PLR0915 five commands, each by itself
    app: typer.Typer, messages: Callable[[], AbstractContextManager[None]], said: Console, answer: Console
) -> None:
    """Adds the commands.

    Args:
        messages: turns every foreseeable error into one message and exit code 1.
        said: for people, beside what a command answers.
        answer: for what it answers.
    """
    migrate = typer.Typer(help="Run a project's supabase/migrations/*.sql in its schema.", no_args_is_help=True)
    app.add_typer(migrate, name="migrate")

    def working_on(file: Any) -> None:
        said.print(f"  {escape(file.path.name)}")

    @migrate.command()
    @taking(_Target)
    def up(
        target: _Target,
        folder: _Folder = DEFAULT_FOLDER,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would run, and run nothing.")] = False,
        adapt: _Adapt = False,
        leave_out: _LeaveOut = None,
        include_all: Annotated[
            bool, typer.Option("--include-all", help="Also what is older than the last one applied.")
        ] = False,
        include_seed: Annotated[bool, typer.Option("--include-seed", help="Then run the seed files.")] = False,
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
            files = migration_files(folder)
            seeds = _seeds(folder) if include_seed else []
            with target.session() as connection:
                migrator = Migrator(connection, target.names, limits, adapt=adapt, leave_out=frozenset(leave_out or ()))
                plan = migrator.plan(files, include_all=include_all)
                for _, item in plan.pending:
                    _tell(item, answer if dry_run else said, diff=dry_run)
                if dry_run:
                    refuse([item for _, item in plan.pending])
                    answer.print(f"{len(plan.pending)} migrations would be applied; {plan.applied} are")
                    return
                with target.audited("migrate_up") as under_way:
                    applied = migrator.up(plan, working_on)
                    under_way.note(applied=[file.version for file in applied])
                    migrator.seed(seeds, working_on)
                answer.print(f"{len(applied)} migrations applied to {target.names.schema}; {plan.applied} were before")
                if bare := migrator.unprotected() if applied else []:
                    said.print("[yellow]Without a policy, so only owner and service role see rows:[/]", ", ".join(bare))

    @migrate.command()
    @taking(_Target)
    def status(
        target: _Target,
        folder: _Folder = DEFAULT_FOLDER,
        as_json: Annotated[bool, typer.Option("--json", help="Answer with a JSON list.")] = False,
    ) -> None:
        """Show which migrations the schema has, and which are pending."""
        with messages():
            files = migration_files(folder)
            with target.session() as connection:
                entries = Migrator(connection, target.names).history.entries()
        rows = _statuses(files, entries)
        if as_json:
            sys.stdout.write(json.dumps(rows, indent=2) + "\n")
            return
        table = Table("version", "name", "state", "when", box=None, pad_edge=False)
        for row in rows:
            table.add_row(row["version"], escape(row["name"]), row["state"], row["finished_at"] or "")
        answer.print(table)

    @migrate.command()
    @taking(_Target)
    def baseline(
        target: _Target,
        version: Annotated[str, typer.Argument(help="The last migration whose effect the schema has.")],
        folder: _Folder = DEFAULT_FOLDER,
    ) -> None:
        """Note every migration up to a version as applied, without running it."""
        with messages():
            files = migration_files(folder)
            with target.audited("migrate_baseline") as under_way, target.session() as connection:
                noted = Migrator(connection, target.names).baseline(files, version)
                under_way.note(baseline=[file.version for file in noted])
            answer.print(f"{len(noted)} migrations noted as applied to {target.names.schema}")

    @migrate.command()
    @taking(_Target)
    def repair(
        target: _Target,
        applied: Annotated[
            list[str] | None, typer.Option("--applied", help="Note this version as applied, as its file is now.")
        ] = None,
        reverted: Annotated[list[str] | None, typer.Option("--reverted", help="Forget this version.")] = None,
        folder: _Folder = DEFAULT_FOLDER,
    ) -> None:
        """Correct the history of migrations. The schema itself is not touched."""
        with messages():
            if not applied and not reverted:
                raise ConnectorError("say what is to be corrected: --applied VERSION or --reverted VERSION")
            files = migration_files(folder)
            with target.audited("migrate_repair") as under_way, target.session() as connection:
                migrator = Migrator(connection, target.names)
                migrator.repair(files, reverted or [], applied=False)
                migrator.repair(files, applied or [], applied=True)
                under_way.note(applied=applied or [], reverted=reverted or [])
            answer.print(f"the history of {target.names.schema} is corrected")

    @migrate.command()
    @taking(_Target)
    def seed(
        target: _Target,
        folder: _Folder = DEFAULT_FOLDER,
        adapt: _Adapt = False,
        leave_out: _LeaveOut = None,
    ) -> None:
        """Run the seed files: those of `db.seed.sql_paths` in config.toml, else seed.sql, each in one transaction.

        They are in no history: what is run again inserts again, unless the file says `on conflict do nothing`.
        """
        with messages():
            files = _seeds(folder)
            if not files:
                raise MigrationError(
                    f"{folder} has no seed file: seed.sql, or what db.seed.sql_paths in config.toml says"
                )
            with target.audited("migrate_seed"), target.session() as connection:
                migrator = Migrator(connection, target.names, adapt=adapt, leave_out=frozenset(leave_out or ()))
                migrator.seed(files, working_on)
            answer.print(f"{len(files)} seed files run in {target.names.schema}")


def _seeds(folder: Path) -> list[Any]:
    path = folder / "config.toml"
    try:
        config = tomllib.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise MigrationError(f"{path} is not TOML: {error}") from None
    settings = config.get("db", {}).get("seed", {})
    return [] if settings.get("enabled") is False else list(seed_files(folder, settings.get("sql_paths")))


def _tell(item: PreparedFile, console: Console, *, diff: bool) -> None:
    if diff:
        console.print(f"[bold]{escape(item.file.path.name)}[/]: {len(item.to_run)} statements")
        for line in item.diff():
            console.print(escape(line), style={"+": "green", "-": "red"}.get(line[:1]), soft_wrap=True)
        return
    for statement in item.statements:
        if statement.left_out:
            where = f"{item.file.path.name}:{statement.original.line}"
            console.print(f"  [dim]{escape(where)}: left out: {escape(statement.left_out)}[/]", soft_wrap=True)


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
