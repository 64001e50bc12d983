"""Which migrations a project's schema has: the table ``supabase_migrations`` in it.

It is the tenant's own, unlike the schema of that name that the Supabase CLI makes in a database of one's own, and no
API role has any right on it. Its lock is what makes two runs of one project take turns: an advisory lock could be
taken by every other tenant of the database, this one cannot.
"""

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from components.naming import API_LEVELS, TenantNames
from connector.errors import MigrationError
from connector.migrations.files import MigrationFile

__all__ = ["HISTORY_TABLE", "Entry", "History", "State"]

HISTORY_TABLE = "supabase_migrations"

_COLUMNS = sql.SQL("version, name, checksum, state, done, adapted, finished_at, by")
_CREATE = sql.SQL(
    """
    create table if not exists {table} (
        version text primary key,
        name text not null,
        checksum text not null,
        state text not null check (state in ('applied', 'baseline', 'started')),
        statements text[] not null default '{{}}',
        done integer not null default 0,
        adapted boolean not null default false,
        started_at timestamptz not null default clock_timestamp(),
        finished_at timestamptz,
        by text not null default session_user,
        backend integer not null default pg_backend_pid()
    );
    """
)


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
        self._table = sql.Identifier(names.schema, HISTORY_TABLE)

    def entries(self) -> dict[str, Entry]:
        """All of them, by version; none if there is no table yet."""
        if not self._is_there():
            return {}
        query = sql.SQL("select {} from {} order by version").format(_COLUMNS, self._table)
        with self._connection.cursor(row_factory=dict_row) as cursor:
            return {row["version"]: Entry(**{**row, "state": State(row["state"])}) for row in cursor.execute(query)}

    @contextmanager
    def turn(self) -> Iterator[dict[str, Entry]]:
        """A transaction in which no other run of the project does anything; gives what the history is then.

        Raises:
            MigrationError: if another run does not end in time.
        """
        self._make()
        with self._connection.transaction():
            self._connection.execute("select set_config('lock_timeout', %s, true)", [f"{self._wait_seconds}s"])
            try:
                self._connection.execute(sql.SQL("lock table {} in share row exclusive mode").format(self._table))
            except psycopg.errors.LockNotAvailable:
                raise MigrationError(
                    f"another run of {self._names.slug}'s migrations has been under way for {self._wait_seconds} s: "
                    "wait for it, and run the same command again"
                ) from None
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

    def statements(self, version: str) -> list[str]:
        """The statements of a migration, as they were run."""
        query = sql.SQL("select statements from {} where version = %s").format(self._table)
        row = self._connection.execute(query, [version]).fetchone()
        return list(row[0]) if row else []

    def runs_elsewhere(self, version: str) -> bool:
        """Whether another session is at a migration that is started. A lease's login is one session's or its pool's."""
        query = sql.SQL(
            """
            select from {} m join pg_catalog.pg_stat_activity a on a.pid = m.backend and a.usename = m.by
            where m.version = %s and a.pid <> pg_backend_pid()
            """
        ).format(self._table)
        return self._connection.execute(query, [version]).fetchone() is not None

    def _is_there(self) -> bool:
        found = self._connection.execute("select to_regclass(%s)", [self._table.as_string(self._connection)]).fetchone()
        return found is not None and found[0] is not None

    def _make(self) -> None:
        if self._is_there():
            return
        roles = sql.SQL(", ").join(sql.Identifier(self._names.role(level)) for level in API_LEVELS)
        # Another first run may be quicker, which `if not exists` does not see.
        with contextlib.suppress(psycopg.errors.UniqueViolation), self._connection.transaction():
            self._connection.execute(_CREATE.format(table=self._table))
            self._connection.execute(sql.SQL("revoke all on {} from {}").format(self._table, roles))
