"""What a project's schemas hold, each object with the statements that make and drop it, in PostgreSQL's own words.

`pg_dump` would say the same, and calls `set_config`, which a lease may not. Only the catalogs are read, and no table
of the project's, so no lock is waited for.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from data_plane.connector.migrations.notes import note_tables
from data_plane.model.naming import API_LEVELS, TenantNames

__all__ = ["Definition", "definitions_of"]

_QUERY = Path(__file__).with_name("definitions.sql")
_TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class Definition:
    """An object, or a part of one that can be changed by itself."""

    kind: str
    """Also of what hangs on an object: a column, a comment, a right."""
    identity: str
    relation: str
    """The relation that it is or hangs on; empty for others."""
    definition: str
    """What is compared."""
    made: str | None
    """The statement that makes it; None if none says all of it."""
    dropped: str | None
    """That which drops it; None if it goes with something else."""
    replaced: str | None
    """That which makes it of another of the same name; None if that is dropped first."""

    @property
    def key(self) -> tuple[str, str]:
        """What it goes by."""
        return self.kind, self.identity


def definitions_of(connection: psycopg.Connection[Any], names: TenantNames) -> list[Definition]:
    """All of a project's, in an order in which they could be made.

    Args:
        connection: in autocommit mode, as the project's owner.
    """
    with connection.transaction():
        connection.execute(
            sql.SQL("set local statement_timeout = {}").format(sql.Literal(f"{_TIMEOUT_SECONDS}s")),
        )
        # So that names come with their schema.
        connection.execute("set local search_path to pg_catalog")
        schemas = connection.execute(
            "select oid from pg_namespace where nspname = %s or starts_with(nspname, %s)",
            [names.schema, f"{names.schema}$"],
        ).fetchall()
        noted = connection.execute(
            "select c.oid from pg_class c join pg_namespace n on n.oid = c.relnamespace"
            " join unnest(%s::text[], %s::text[]) as noted (schema, name) on (schema, name) = (n.nspname, c.relname)",
            [list(column) for column in zip(*note_tables(names), strict=True)],
        ).fetchall()
        values = {
            ":schemas": sql.SQL("{}::oid[]").format([oid for (oid,) in schemas]),
            ":noted": sql.SQL("{}::oid[]").format([oid for (oid,) in noted]),
            ":roles": sql.SQL("{}::text[]").format([names.role(level) for level in API_LEVELS]),
        }
        text = _QUERY.read_text(encoding="utf-8")
        for placeholder, value in values.items():
            text = text.replace(placeholder, value.as_string(connection))
        return [Definition(*row) for row in connection.execute(text.encode()).fetchall()]
