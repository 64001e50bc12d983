"""Empties a project's schemas, so that its migrations can run from the first one on.

With the project's own rights and in its own schemas, so nothing of anybody else's is in reach. What the platform made
there stays: the first schema with its grants and default privileges, the table of users with its rows, files in
buckets.
"""

from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from data_plane.connector.migrations.history import History
from data_plane.connector.migrations.notes import SCHEMA_NAME, note_tables
from data_plane.errors import MigrationError
from data_plane.model.naming import API_LEVELS, TenantNames

__all__ = ["Contents", "clear", "contents_of", "forget_rules"]

_SHOWN = 5
_USERS_NAME = "auth"
"""Of the further schema with the platform's table of users."""

# Relations first: with them goes what cannot be dropped alone, such as the sequence of an identity column.
_OBJECTS = """
    select i.type, i.identity
    from pg_catalog.pg_depend d
    join pg_catalog.pg_namespace n on n.oid = d.refobjid
    cross join lateral pg_catalog.pg_identify_object(d.classid, d.objid, 0) as i
    where d.refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass and d.deptype = 'n'
        and d.classid not in (
            'pg_catalog.pg_default_acl'::pg_catalog.regclass, 'pg_catalog.pg_extension'::pg_catalog.regclass)
        and n.nspname = any (%s) and i.identity <> all (%s)
        and exists (
            select from pg_catalog.pg_shdepend o
            where o.dbid = (select oid from pg_catalog.pg_database where datname = current_database())
                and o.classid = d.classid and o.objid = d.objid and o.deptype = 'o'
                and o.refobjid = quote_ident(current_user)::pg_catalog.regrole)
        and not exists (
            select from pg_catalog.pg_depend e
            where e.classid = d.classid and e.objid = d.objid and e.deptype = 'e')
    order by case i.type
        when 'view' then 1 when 'materialized view' then 1 when 'table' then 2 when 'foreign table' then 2
        when 'operator family' then 3 else 4 end, i.identity
"""
_KEYWORDS = {
    **dict.fromkeys(("function", "procedure", "aggregate"), "routine"),
    "statistics object": "statistics",
}
# What is outside of the schemas and would go with something in them: a view that an operator made, say.
_OUTSIDE = """
    with inside as (
        select 'pg_catalog.pg_class'::pg_catalog.regclass as classid, oid as objid, relnamespace as home
        from pg_catalog.pg_class
        union all select 'pg_catalog.pg_proc'::pg_catalog.regclass, oid, pronamespace from pg_catalog.pg_proc
        union all select 'pg_catalog.pg_type'::pg_catalog.regclass, oid, typnamespace from pg_catalog.pg_type
    )
    select distinct pg_catalog.pg_describe_object(d.classid, d.objid, 0)
    from pg_catalog.pg_depend d
    join inside i on (i.classid, i.objid) = (d.refclassid, d.refobjid)
    join pg_catalog.pg_namespace own on own.oid = i.home and own.nspname = any (%(schemas)s)
    left join pg_catalog.pg_rewrite w on d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass and w.oid = d.objid
    left join pg_catalog.pg_constraint k
        on d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass and k.oid = d.objid
    left join pg_catalog.pg_attrdef a on d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass and a.oid = d.objid
    left join pg_catalog.pg_trigger t on d.classid = 'pg_catalog.pg_trigger'::pg_catalog.regclass and t.oid = d.objid
    left join pg_catalog.pg_policy p on d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass and p.oid = d.objid
    join inside o on (o.classid, o.objid) in (
        (d.classid, d.objid),
        ('pg_catalog.pg_class'::pg_catalog.regclass,
            coalesce(w.ev_class, nullif(k.conrelid, 0), a.adrelid, t.tgrelid, p.polrelid)))
    join pg_catalog.pg_namespace n on n.oid = o.home
    where n.nspname <> all (%(schemas)s) and n.nspname <> 'pg_toast'
    order by 1
"""
# Of the table of users: what a project hangs on it.
_ON_USERS = """
    select 'trigger', tgname from pg_catalog.pg_trigger where tgrelid = %(users)s and not tgisinternal
    union all
    select 'policy', polname from pg_catalog.pg_policy where polrelid = %(users)s
    union all
    select 'rule', rulename from pg_catalog.pg_rewrite where ev_class = %(users)s
"""


@dataclass(frozen=True)
class Contents:
    """What would be dropped."""

    schemas: list[str]
    objects: list[tuple[str, str]]
    """Kind and name of each that does not go with another."""
    rows: int
    """In its tables, about."""

    def counted(self) -> str:
        """The same in words."""
        kinds = [kind for kind, _ in self.objects]
        parts = [
            f"{kinds.count(kind)} × {kind}" for kind in sorted(set(kinds), key=lambda kind: (kind != "table", kind))
        ]
        return f"{', '.join(parts) or 'nothing'} with about {self.rows} rows, in {', '.join(self.schemas)}"


def contents_of(connection: psycopg.Connection[Any], names: TenantNames) -> Contents:
    """What a project has in its schemas beside what the platform keeps there."""
    schemas = [row[0] for row in connection.execute(_SCHEMAS, [names.schema, f"{names.schema}$"]).fetchall()]
    kept = [_quoted(connection, *table) for table in (*note_tables(names), (_users_schema(names), "users"))]
    objects = connection.execute(_OBJECTS, [schemas, kept]).fetchall()
    (rows,) = connection.execute(
        """
        select coalesce(sum(greatest(c.reltuples, s.n_live_tup, 0)), 0)::bigint
        from pg_catalog.pg_class c
        join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        left join pg_catalog.pg_stat_all_tables s on s.relid = c.oid
        where n.nspname = any (%s) and c.relkind = 'r'
            and pg_catalog.format('%%I.%%I', n.nspname, c.relname) <> all (%s)
        """,
        [schemas, kept],
    ).fetchone() or (0,)
    return Contents(schemas, [(kind, identity) for kind, identity in objects], rows)


def clear(connection: psycopg.Connection[Any], names: TenantNames, history: History, lock_seconds: int) -> None:
    """Drops all of it in one transaction, the project's jobs too, and forgets which migrations and seeds were run.

    Args:
        lock_seconds: how long a lock is waited for, while others wait behind.

    Raises:
        MigrationError: if another run does not end in time, or something outside would go, too.
        psycopg.Error: if something cannot be dropped; then nothing was.
    """
    with history.turn():
        connection.execute(sql.SQL("set local lock_timeout = {}").format(sql.Literal(f"{lock_seconds}s")))
        contents = contents_of(connection, names)
        outside = connection.execute(_OUTSIDE, {"schemas": contents.schemas}).fetchall()
        if outside:
            shown = ", ".join(what for (what,) in outside[:_SHOWN])
            raise MigrationError(f"objects outside of the project depend on it and would be dropped, too: {shown}")
        for kind, identity in contents.objects:
            keyword = _KEYWORDS.get(kind, kind)
            connection.execute(sql.SQL("drop {} if exists {} cascade").format(sql.SQL(keyword), sql.SQL(identity)))
        _clear_users(connection, names)
        for job in _listed(connection, "select jobname from data_plane_api.list_jobs()"):
            connection.execute("select data_plane_api.unschedule_job(%s::text)", [job])
        for schema in contents.schemas:
            name = schema.partition("$")[2]
            if name and name not in {_USERS_NAME, SCHEMA_NAME} and not _is_exposed(connection, schema):
                connection.execute("select data_plane_api.drop_schema(%s, true)", [name])
        history.forget_all()


_SCHEMAS = """
    select nspname::text from pg_catalog.pg_namespace
    where nspname = %s or pg_catalog.starts_with(nspname::text, %s)
    order by 1
"""


def _users_schema(names: TenantNames) -> str:
    return f"{names.schema}${_USERS_NAME}"


def _quoted(connection: psycopg.Connection[Any], schema: str, table: str) -> str:
    """As PostgreSQL writes it: quoted only where it has to be."""
    row = connection.execute("select pg_catalog.format('%%I.%%I', %s::text, %s::text)", [schema, table]).fetchone()
    return str(row[0]) if row else ""


def _clear_users(connection: psycopg.Connection[Any], names: TenantNames) -> None:
    """Takes off the table of users what the project hung on it, and the rights that it gave."""
    table = sql.Identifier(_users_schema(names), "users")
    (users,) = connection.execute("select to_regclass(%s)::oid", [table.as_string(connection)]).fetchone() or (None,)
    if users is None:
        return
    for kind, name in connection.execute(_ON_USERS, {"users": users}).fetchall():
        connection.execute(
            sql.SQL("drop {} if exists {} on {} cascade").format(sql.SQL(kind), sql.Identifier(name), table)
        )
    roles = sql.SQL(", ").join(sql.Identifier(names.role(level)) for level in API_LEVELS)
    connection.execute(sql.SQL("revoke all on {} from {}").format(table, roles))
    connection.execute(sql.SQL("revoke all on schema {} from {}").format(sql.Identifier(_users_schema(names)), roles))


def forget_rules(connection: psycopg.Connection[Any], history: History) -> list[str]:
    """Takes back the rules on files that none of the migrations that ran declares, and gives their names.

    After these have run, not before: a bucket that loses its rules meanwhile would have the platform's own, which may
    let in more. One whose name stands in any statement that declares rules is kept.
    """
    declaring = [text for text in history.all_statements() if "declare_storage_rule" in text]
    left = [
        name
        for name in _listed(connection, "select name from data_plane_api.list_storage_rules()")
        if not any(name in text or name.replace("'", "''") in text for text in declaring)
    ]
    for name in left:
        connection.execute("select data_plane_api.drop_storage_rule(%s)", [name])
    return left


def _listed(connection: psycopg.Connection[Any], query: str) -> list[str]:
    """Names; none without pg_cron, or from a central stack of an earlier program."""
    try:
        with connection.transaction():
            return [name for (name,) in connection.execute(query.encode()).fetchall()]
    except (psycopg.errors.FeatureNotSupported, psycopg.errors.UndefinedFunction):
        return []


def _is_exposed(connection: psycopg.Connection[Any], schema: str) -> bool:
    """Whether the project's file declares the schema to be served; then it stays, empty."""
    row = connection.execute("select data_plane.is_exposed(%s)", [schema]).fetchone()
    return bool(row and row[0])
