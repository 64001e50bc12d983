"""Where it is noted what a project has run: the schema ``proj_x$migrations`` beside its own.

It is the project's, as the schema ``supabase_migrations`` is in a standalone Supabase, so that it is backed up, moved
and dropped with the project; and it is not the main schema, so that clients which read that see the project's own
tables alone. Earlier programs kept ``proj_x.supabase_migrations``: that is read where it is, and moved by the first run
that writes. A central stack that cannot make further schemas yet keeps it there.
"""

import contextlib
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from data_plane.errors import MigrationError
from data_plane.model.naming import API_LEVELS, TenantNames

__all__ = ["SCHEMA_NAME", "Notes", "exists", "find_notes", "note_tables", "provide_notes"]

SCHEMA_NAME = "migrations"
"""Of the further schema, as :func:`data_plane_api.create_schema` takes it."""

_CREATE_MIGRATIONS = sql.SQL(
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
    )
    """
)
_CREATE_SEEDS = sql.SQL(
    """
    create table if not exists {table} (
        path text primary key,
        hash text not null,
        at timestamptz not null default clock_timestamp(),
        by text not null default session_user
    )
    """
)


@dataclass(frozen=True)
class Notes:
    """The tables of one project."""

    schema: str
    migrations_name: str
    seeds_name: str

    @property
    def migrations(self) -> sql.Identifier:
        """The table of migrations."""
        return sql.Identifier(self.schema, self.migrations_name)

    @property
    def seeds(self) -> sql.Identifier:
        """The table of seed files."""
        return sql.Identifier(self.schema, self.seeds_name)


def find_notes(connection: psycopg.Connection[Any], names: TenantNames) -> Notes | None:
    """A project's tables, wherever they are; None if nothing was noted yet."""
    return next((notes for notes in (_beside(names), _inside(names)) if exists(connection, notes.migrations)), None)


def provide_notes(connection: psycopg.Connection[Any], names: TenantNames, wait_seconds: int) -> Notes:
    """A project's tables, made if they are missing and moved if they are where they were in earlier programs.

    Raises:
        MigrationError: if an earlier program noted migrations after the move.
        psycopg.errors.LockNotAvailable: if another run holds the earlier table for too long.
    """
    inside, beside = _inside(names), _beside(names)
    if exists(connection, beside.seeds) and not exists(connection, inside.migrations):
        return beside
    # Another first run may be quicker, which `if not exists` does not see.
    with contextlib.suppress(psycopg.errors.UniqueViolation):
        return _provide(connection, names, wait_seconds)
    return _provide(connection, names, wait_seconds)


def _provide(connection: psycopg.Connection[Any], names: TenantNames, wait_seconds: int) -> Notes:
    inside, beside = _inside(names), _beside(names)
    with connection.transaction():
        connection.execute(sql.SQL("set local lock_timeout = {}").format(sql.Literal(f"{wait_seconds}s")))
        notes = beside if _make_schema(connection, beside.schema) else inside
        if notes is beside:
            _move(connection, inside, beside)
        for table, create in ((notes.migrations, _CREATE_MIGRATIONS), (notes.seeds, _CREATE_SEEDS)):
            if exists(connection, table):
                continue
            connection.execute(create.format(table=table))
            roles = sql.SQL(", ").join(sql.Identifier(names.role(level)) for level in API_LEVELS)
            connection.execute(sql.SQL("revoke all on {} from {}").format(table, roles))
    return notes


def note_tables(names: TenantNames) -> list[tuple[str, str]]:
    """Schema and name of each table in which something of a project may be noted."""
    return [
        (notes.schema, table)
        for notes in (_beside(names), _inside(names))
        for table in (notes.migrations_name, notes.seeds_name)
    ]


def exists(connection: psycopg.Connection[Any], table: sql.Identifier) -> bool:
    """Whether there is such a table."""
    found = connection.execute("select to_regclass(%s)", [table.as_string(connection)]).fetchone()
    return found is not None and found[0] is not None


def _beside(names: TenantNames) -> Notes:
    return Notes(f"{names.schema}${SCHEMA_NAME}", "schema_migrations", "seed_files")


def _inside(names: TenantNames) -> Notes:
    return Notes(names.schema, "supabase_migrations", "supabase_seed_files")


def _make_schema(connection: psycopg.Connection[Any], schema: str) -> bool:
    """Whether the schema is there now; not if the central stack is of a program that has no such schemas."""
    if connection.execute("select to_regnamespace(quote_ident(%s))", [schema]).fetchone() != (None,):
        return True
    made = connection.execute("select to_regprocedure('data_plane_api.create_schema(text)')").fetchone()
    if made == (None,):
        return False
    connection.execute("select data_plane_api.create_schema(%s)", [SCHEMA_NAME])
    return True


def _move(connection: psycopg.Connection[Any], inside: Notes, beside: Notes) -> None:
    """Moves the tables of an earlier program; of two runs at once the second finds them moved."""
    between = Notes(beside.schema, inside.migrations_name, inside.seeds_name)
    for old, moved, new, new_name in (
        (inside.migrations, between.migrations, beside.migrations, beside.migrations_name),
        (inside.seeds, between.seeds, beside.seeds, beside.seeds_name),
    ):
        if not exists(connection, old):
            continue
        try:
            with connection.transaction():
                connection.execute(sql.SQL("lock table {} in access exclusive mode").format(old))
        except psycopg.errors.UndefinedTable:
            continue
        if not exists(connection, new):
            connection.execute(sql.SQL("alter table {} set schema {}").format(old, sql.Identifier(beside.schema)))
            connection.execute(sql.SQL("alter table {} rename to {}").format(moved, sql.Identifier(new_name)))
            continue
        if connection.execute(sql.SQL("select from {} limit 1").format(old)).fetchone() is not None:
            raise MigrationError(
                f"there are two histories: {new.as_string(connection)}, and {old.as_string(connection)}, which an "
                "earlier version of this program has kept since. Bring every checkout up to date, note with "
                "`dataplane migration repair` what the first history lacks, and drop the second"
            )
        connection.execute(sql.SQL("drop table {}").format(old))
