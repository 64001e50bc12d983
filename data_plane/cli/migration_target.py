"""What the commands of ``dataplane migration`` share: whose schema is migrated, by whom, and from which files."""

import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import psycopg
import typer
from rich.markup import escape

from data_plane.cli.console import counted, stderr, stdout
from data_plane.cli.identity import IdentityOptions
from data_plane.cli.lease import ViaOption
from data_plane.cli.options import ProjectOption
from data_plane.connector.audit import AuditedAction, AuditLog, Outcome, current_user
from data_plane.connector.migrations import MigrationFile, Rule, Seeded, SeedFile, migration_files, seed_files
from data_plane.connector.migrations.session import owner_session
from data_plane.errors import MigrationError, MigrationRefusedError
from data_plane.model.naming import AccessLevel, TenantNames
from data_plane.state_dir import StateDir

__all__ = ["AsIsOption", "LeaveOutOption", "MigrationTarget", "files_of", "seeds_of", "tell_seeded"]

AsIsOption = Annotated[
    bool,
    typer.Option(
        "--as-is/--rewrite",
        envvar="DATA_PLANE_AS_IS",
        help="Run files as they are, or rewritten for the project's schemas and roles (the default).",
    ),
]
LeaveOutOption = Annotated[
    list[Rule] | None,
    typer.Option("--leave-out", help="Leave out statements that break this rule; may be given several times."),
]


@dataclass(frozen=True)
class MigrationTarget(IdentityOptions):
    """The project whose schema is migrated, and who does it."""

    project: ProjectOption = ""
    via: ViaOption = None

    @property
    def names(self) -> TenantNames:
        """What the project's schema and roles are called."""
        return TenantNames(self.project)

    @contextmanager
    def session(self) -> Iterator[psycopg.Connection[Any]]:
        """A session as the project's owner."""
        plane = self.plane()
        client = self.caller().sign_in(plane, self.project, AccessLevel.OWNER)()
        with owner_session(client, plane.binding(self.project), self.via) as connection:
            yield connection

    @contextmanager
    def audited(self, action: str) -> Iterator[AuditedAction]:
        """Writes into the audit log that something is done, and how it ends."""
        about = {"project": self.project, "environment": self.environment}
        actor = self.user or self.workload or current_user()
        with AuditLog.default(StateDir()).action(action, actor, **about) as under_way:
            try:
                yield under_way
            except MigrationRefusedError:
                under_way.note(outcome=Outcome.REFUSED)
                raise


def files_of(folder: Path) -> list[MigrationFile]:
    """The migrations of a repository; names on the way what is passed over.

    Raises:
        MigrationError: as :func:`data_plane.connector.migrations.migration_files`.
    """

    def passed_over(path: Path) -> None:
        reason = "migrations are <digits>_<name>.sql in the folder itself"
        stderr.print(f"[yellow]passed over: {escape(str(path))} ({reason})[/]")

    return migration_files(folder, passed_over)


def seeds_of(folder: Path) -> list[SeedFile]:
    """The seed files that `config.toml` names, or `seed.sql`; none if it switches them off.

    Raises:
        MigrationError: if it is not TOML, or names what is none.
    """
    path = folder / "config.toml"
    try:
        config = tomllib.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise MigrationError(f"{path} is not TOML: {error}") from None
    settings = config.get("db", {}).get("seed", {})
    return [] if settings.get("enabled") is False else seed_files(folder, settings.get("sql_paths"))


def tell_seeded(seeded: Seeded, schema: str) -> None:
    """Says what became of the seed files."""
    before = len(seeded.unchanged) + len(seeded.changed)
    stdout.print(f"{counted(len(seeded.run), 'seed file')} run in {schema}; {before} were before")
    if seeded.changed:
        names = ", ".join(escape(file.key) for file in seeded.changed)
        stderr.print(
            f"[yellow]{names}: changed since it was run, and not run again, because rows would be there twice. If it "
            "is made for that (`on conflict do nothing`): `dataplane migration seed --again`[/]",
        )
