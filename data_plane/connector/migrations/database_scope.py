"""A project's slice, as its database is now."""

from typing import Any

import psycopg

from data_plane.connector.migrations.admission import judge_of
from data_plane.connector.migrations.scope import Scope
from data_plane.model.naming import TenantNames

__all__ = ["scope_of"]


def scope_of(connection: psycopg.Connection[Any], names: TenantNames) -> Scope:
    """What a project's migrations meet in the database.

    Args:
        connection: as the project's owner.
    """
    extensions = connection.execute(
        "select extname, extnamespace::regnamespace::text from pg_catalog.pg_extension"
    ).fetchall()
    objects = connection.execute(
        """
        select o.name, n.nspname
        from (
            select 'pg_catalog.pg_proc'::regclass as kind, oid, proname as name, pronamespace as home
            from pg_catalog.pg_proc
            union all select 'pg_catalog.pg_type'::regclass, oid, typname, typnamespace from pg_catalog.pg_type
            union all select 'pg_catalog.pg_opclass'::regclass, oid, opcname, opcnamespace from pg_catalog.pg_opclass
        ) o
        join pg_catalog.pg_depend d on d.classid = o.kind and d.objid = o.oid and d.deptype = 'e'
        join pg_catalog.pg_namespace n on n.oid = o.home
        where n.nspname <> 'pg_catalog'
        """
    ).fetchall()
    schemas = connection.execute("select nspname from pg_catalog.pg_namespace").fetchall()
    available = connection.execute("select name from pg_catalog.pg_available_extensions").fetchall()
    scope = Scope(
        names,
        dict(extensions),
        dict(objects),
        frozenset(row[0] for row in schemas),
        judge_of(connection, names.schema),
        frozenset(row[0] for row in available),
    )
    own = f"{names.schema}$"
    return scope.with_schemas(name.removeprefix(own) for name in scope.schemas if name.startswith(own))
