"""The platform's SQL in a database: applied, with what it made on record, and found again by the schema's comment."""

import hashlib
import re
from typing import Any

import psycopg
from psycopg import sql

from data_plane.model.naming import PLATFORM_SCHEMA

__all__ = ["applied_sha256", "apply_platform_sql", "changed_by_hand", "platform_comment", "sha256_in", "sha256_of"]

_COMMENT = re.compile(r"central data plane; (?:PostgreSQL (?P<major>\d+); )?platform\.sql sha256 (?P<sha256>\w+)")


def sha256_of(text: str) -> str:
    """The checksum of SQL."""
    return hashlib.sha256(text.encode()).hexdigest()


def apply_platform_sql(connection: psycopg.Connection[Any], text: str) -> list[str]:
    """Applies the SQL, records what it made unless that is on record, and returns what was changed by hand."""
    sha256 = sha256_of(text)
    connection.execute(text.encode())
    # The same files again revert what they can; what is left then is no part of them.
    if applied_sha256(connection) != sha256 or not _is_recorded(connection):
        connection.execute("delete from data_plane.applied_objects")
        connection.execute("insert into data_plane.applied_objects select * from data_plane.present_objects()")
    changed = changed_by_hand(connection)
    comment = f"central data plane; PostgreSQL {_major(connection)}; platform.sql sha256 {sha256}"
    connection.execute(
        sql.SQL("comment on schema {} is {}").format(sql.Identifier(PLATFORM_SCHEMA), sql.Literal(comment))
    )
    return changed


def changed_by_hand(connection: psycopg.Connection[Any]) -> list[str]:
    """The platform's objects that are not as they were applied."""
    return [str(row[0]) for row in connection.execute("select data_plane.changed_objects()")]


def applied_sha256(connection: psycopg.Connection[Any]) -> str:
    """The checksum of what was applied; empty if nothing was on this version of PostgreSQL."""
    return sha256_in(platform_comment(connection), _major(connection))


def platform_comment(connection: psycopg.Connection[Any]) -> str | None:
    """The comment of the platform's schema, if there is one."""
    row = connection.execute(
        "select obj_description(to_regnamespace(%s), 'pg_namespace')", [PLATFORM_SCHEMA]
    ).fetchone()
    return row[0] if row else None


def sha256_in(comment: str | None, major: int) -> str:
    """The checksum in such a comment; empty if the SQL was applied on another version, which has other functions.

    Args:
        major: the version of the server.
    """
    found = _COMMENT.fullmatch(comment or "")
    return found["sha256"] if found and int(found["major"] or major) == major else ""


def _is_recorded(connection: psycopg.Connection[Any]) -> bool:
    return connection.execute("select from data_plane.applied_objects limit 1").rowcount > 0


def _major(connection: psycopg.Connection[Any]) -> int:
    return connection.info.server_version // 10000
