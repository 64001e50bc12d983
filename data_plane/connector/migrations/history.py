"""Which migrations a project's schema has, and which seed files were run in it.

No API role has any right on the tables. The lock of the first is what makes two runs of one project take turns: an
advisory lock could be taken by every other tenant of the database, this one cannot.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from data_plane.connector.migrations.files import MigrationFile, SeedFile
from data_plane.connector.migrations.notes import Notes, find_notes, provide_notes
from data_plane.errors import MigrationError
from data_plane.model.naming import TenantNames

__all__ = ["Entry", "History", "State"]

_COLUMNS = sql.SQL("version, name, checksum, state, done, adapted, finished_at, by")


class State(StrEnum):
    """How far a migration is."""

    APPLIED = "applied"
    BASELINE = "baseline"
    """Its effect was there before: it was not run."""
    STARTED = "started"
    """Some of its statements have run, each in a transaction of its own; the next run goes on after them."""


@dataclass(frozen=True)
class Entry:
    """A migration that the schema has, or has a part of."""

    version: str
    name: str
    checksum: str
    state: State
    done: int
    """Statements that have run, of a migration without a transaction."""
    adapted: bool
    """Whether it was rewritten for the project's slice."""
    finished_at: datetime | None
    by: str
    """The login that ran it, which is a lease's."""


class History:
    """The migrations of one project.

    Args:
        connection: in autocommit mode, as the tenant's owner.
        wait_seconds: how long another run is waited for.
    """

    def __init__(self, connection: psycopg.Connection[Any], names: TenantNames, wait_seconds: int = 60) -> None:
        self._connection = connection
        self._names = names
        self._wait_seconds = wait_seconds
        self._notes: Notes | None = None

    @property
    def _tables(self) -> Notes:
        if self._notes is None:
            raise RuntimeError("what is noted is noted in turn()")
        return self._notes

    @property
    def _table(self) -> sql.Identifier:
        return self._tables.migrations

    def entries(self) -> dict[str, Entry]:
        """All of them, by version; none if there is no table yet."""
        rows = self._read(
            lambda notes: sql.SQL("select {} from {} order by version").format(_COLUMNS, notes.migrations)
        )
        return {row["version"]: Entry(**{**row, "state": State(row["state"])}) for row in rows}

    @contextmanager
    def turn(self) -> Iterator[dict[str, Entry]]:
        """A transaction in which no other run of the project does anything; gives what the history is then.

        Raises:
            MigrationError: if another run does not end in time.
        """
        try:
            self._notes = provide_notes(self._connection, self._names, self._wait_seconds)
        except psycopg.errors.LockNotAvailable as error:
            raise self._busy() from error
        with self._connection.transaction():
            self._connection.execute(
                sql.SQL("set local lock_timeout = {}").format(sql.Literal(f"{self._wait_seconds}s"))
            )
            try:
                self._connection.execute(sql.SQL("lock table {} in share row exclusive mode").format(self._table))
            except psycopg.errors.LockNotAvailable as error:
                raise self._busy() from error
            yield self.entries()

    def record(
        self, file: MigrationFile, state: State, statements: Sequence[str] = (), *, adapted: bool = False
    ) -> None:
        """Notes a migration; of one that is there, what is new of it."""
        finished = sql.SQL("clock_timestamp()") if state is not State.STARTED else sql.SQL("null")
        query = sql.SQL(
            """
            insert into {table} (version, name, checksum, state, statements, done, adapted, finished_at)
            values (%s, %s, %s, %s, %s, %s, %s, {finished})
            on conflict (version) do update set
                name = excluded.name, checksum = excluded.checksum, state = excluded.state,
                statements = excluded.statements, adapted = excluded.adapted, finished_at = excluded.finished_at,
                by = excluded.by, backend = excluded.backend
            """
        ).format(table=self._table, finished=finished)
        done = len(statements) if state is State.APPLIED else 0
        self._connection.execute(
            query, [file.version, file.name, file.checksum, state.value, list(statements), done, adapted]
        )

    def step(self, version: str, done: int) -> None:
        """Notes how many statements of a migration without a transaction have run."""
        query = sql.SQL("update {} set done = %s where version = %s").format(self._table)
        self._connection.execute(query, [done, version])

    def finish(self, version: str) -> None:
        """Notes that the last of them has run."""
        query = sql.SQL("update {} set state = 'applied', finished_at = clock_timestamp() where version = %s")
        self._connection.execute(query.format(self._table), [version])

    def forget(self, version: str) -> None:
        """Takes a migration out, as if it had never run; the schema stays as it is."""
        self._connection.execute(sql.SQL("delete from {} where version = %s").format(self._table), [version])

    def forget_all(self) -> None:
        """Takes all migrations and seed files out. Within a :meth:`turn`."""
        for table in (self._tables.migrations, self._tables.seeds):
            self._connection.execute(sql.SQL("delete from {}").format(table))

    def statements(self, version: str) -> list[str]:
        """The statements of a migration, as they were run."""
        query = sql.SQL("select statements from {} where version = %s").format(self._table)
        row = self._connection.execute(query, [version]).fetchone()
        return list(row[0]) if row else []

    def all_statements(self) -> list[str]:
        """The statements of all migrations, as they were run."""
        rows = self._read(lambda notes: sql.SQL("select unnest(statements) as text from {}").format(notes.migrations))
        return [row["text"] for row in rows]

    def runs_elsewhere(self, version: str) -> bool:
        """Whether another session is at a migration that is started. A lease's login is one session's or its pool's."""
        query = sql.SQL(
            """
            select from {} m join pg_catalog.pg_stat_activity a on a.pid = m.backend and a.usename = m.by
            where m.version = %s and a.pid <> pg_backend_pid()
            """
        ).format(self._table)
        return self._connection.execute(query, [version]).fetchone() is not None

    def seeds(self) -> dict[str, str]:
        """The checksum of each seed file when it was last noted, by its path within the folder ``supabase``."""
        rows = self._read(lambda notes: sql.SQL("select path, hash from {}").format(notes.seeds))
        return {row["path"]: row["hash"] for row in rows}

    def record_seed(self, file: SeedFile) -> None:
        """Notes a seed file as it is now. Within a :meth:`turn`."""
        query = sql.SQL(
            """
            insert into {} (path, hash) values (%s, %s)
            on conflict (path) do update
            set hash = excluded.hash, at = clock_timestamp(), by = session_user
            """
        ).format(self._tables.seeds)
        self._connection.execute(query, [file.key, file.checksum])

    def _read(self, query: Callable[[Notes], sql.Composed]) -> list[dict[str, Any]]:
        """The rows of a query of the tables, wherever they are; none while there is no such table."""
        for _ in range(2):  # a run that begins meanwhile may move them
            notes = find_notes(self._connection, self._names)
            if notes is None:
                return []
            try:
                with self._connection.transaction(), self._connection.cursor(row_factory=dict_row) as cursor:
                    return cursor.execute(query(notes)).fetchall()
            except psycopg.errors.UndefinedTable:
                continue
        return []

    def _busy(self) -> MigrationError:
        return MigrationError(
            f"another run of {self._names.slug}'s migrations has been under way for {self._wait_seconds} s: "
            "wait for it, and run the same command again"
        )
