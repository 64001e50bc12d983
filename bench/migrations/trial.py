"""One project's migrations, tried as ``dataplane migration up`` runs them: what is refused, and what fails."""

import contextlib
from collections import Counter
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from data_plane.connector.migrations import Migrator, PreparedFile, Rule, migration_files
from data_plane.errors import MigrationError
from data_plane.model.naming import TenantNames

__all__ = ["LEFT_OUT", "Trial", "counted", "tried"]

LEFT_OUT = frozenset({Rule.AUTH, Rule.STORAGE, Rule.REALTIME, Rule.EXTENSIONS, Rule.ROLES, Rule.SERVER})


@dataclass
class Trial:
    """What became of a project's files."""

    files: int
    files_free: int = 0
    """Files that nothing stands against."""
    statements: int = 0
    statements_free: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    """Places by boundary, and by what is named there: ``auth: auth.users``."""
    error: str | None = None
    """What ended the run; None if all files were run."""

    @property
    def whole(self) -> bool:
        """Whether all of it ran."""
        return self.error is None


def tried(
    supabase: Path,
    connection: psycopg.Connection[Any],
    names: TenantNames,
    *,
    rewrite: bool = True,
    leave_out: AbstractSet[Rule] = frozenset(),
) -> Trial:
    """Runs the files in the project's empty schema.

    Args:
        supabase: the folder with ``migrations``.
        connection: as the project's owner, in autocommit mode.
        rewrite, leave_out: as :class:`Migrator` takes them.
    """
    trial = Trial(len(list((supabase / "migrations").glob("*.sql"))))
    migrator = Migrator(connection, names, rewrite=rewrite, leave_out=leave_out)
    try:
        files = migration_files(supabase)
        trial.files = len(files)
        try:
            plan = migrator.plan(files)
        except MigrationError:  # A file cannot be read: the others by themselves.
            for file in files:
                with contextlib.suppress(MigrationError):
                    counted(trial, (item for _, item in migrator.plan([file]).pending))
            raise
        counted(trial, (item for _, item in plan.pending))
        migrator.up(plan)
    except (MigrationError, psycopg.Error) as error:
        trial.error = str(error).replace(f"{supabase}/migrations/", "")
    return trial


def counted(trial: Trial, items: Iterable[PreparedFile]) -> None:
    """Adds what stands against files. A statement is refused if a finding is on one of its lines."""
    for item in items:
        trial.files_free += not item.findings
        trial.statements += len(item.statements)
        lines = {finding.line for finding in item.findings}
        for statement in item.statements:
            begin = statement.original.line
            trial.statements_free += lines.isdisjoint(range(begin, begin + statement.original.text.count("\n") + 1))
        trial.refused.update(f"{finding.rule.value}: {finding.what}" for finding in item.findings)
