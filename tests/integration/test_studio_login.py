"""What Studio and postgres-meta may see, and what of a project's code their sessions run: none."""

from collections.abc import Iterator

import pytest
from psycopg import sql
from psycopg.errors import InsufficientPrivilege

from data_plane.local.postgres import LocalPostgres
from data_plane.model.service_logins import STUDIO_LOGIN
from tests.support.auth import AUTH_TABLES
from tests.support.platform_database import (
    PASSWORD,
    TENANTS,
    Connection,
    add_tenants,
    apply_platform,
    connect,
    issue,
    run,
    running,
)
from tests.support.postgres_meta import PostgresMeta, postgres_meta
from tests.support.postgresqls import binaries, oldest_and_newest
from tests.support.storage import make_storage


@pytest.fixture(scope="module", params=oldest_and_newest())
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPostgres]:
    """Auth's and Storage's tables come after the platform, as on a new server."""
    with running(tmp_path_factory.mktemp("pg"), binaries()[request.param], apply_platform, add_tenants) as server:
        run(server, AUTH_TABLES)
        make_storage(server)
        with server.connect() as admin:
            admin.execute(sql.SQL("alter role {} password {}").format(sql.Identifier(STUDIO_LOGIN), PASSWORD))
        yield server


@pytest.fixture
def studio(database: LocalPostgres) -> Iterator[Connection]:
    with connect(database, STUDIO_LOGIN) as session:
        yield session


@pytest.mark.parametrize("relation", ["auth.users", "auth.sessions", "storage.buckets", "storage.objects"])
def test_studio_reads_and_writes_the_services_tables(studio: Connection, relation: str) -> None:
    studio.execute(f"select * from {relation}".encode())
    studio.execute(f"delete from {relation}".encode())
    studio.rollback()


def test_studio_may_use_no_projects_schema_and_become_no_other_role(
    database: LocalPostgres, studio: Connection
) -> None:
    rows = studio.execute(
        "select n.nspname::text from pg_namespace n where n.nspname like 'proj\\_%%'"
        " and has_schema_privilege(n.oid, 'usage, create')"
    ).fetchall()
    assert rows == []
    others = studio.execute(
        "select rolname::text from pg_roles where rolname <> current_user and pg_has_role(oid, 'member')"
        " and rolname not like 'pg\\_read\\_all\\_%%' and rolname <> 'pg_use_reserved_connections'"
    ).fetchall()
    assert others == []
    assert run(
        database,
        "select rolsuper or rolcreaterole or rolcreatedb or rolreplication from pg_roles where rolname = %s",
        STUDIO_LOGIN,
    ) == [(False,)]


def test_looking_at_a_projects_table_runs_nothing_of_the_projects(database: LocalPostgres, studio: Connection) -> None:
    """A view's functions, and those of constants in an index's predicate, run with the rights of who asks."""
    tenant = TENANTS[0]
    run(
        database,
        f"""
        set role {tenant}_owner;
        create table {tenant}.bait (a int);
        create function {tenant}.spring() returns boolean language plpgsql immutable as
            $$ begin raise exception 'ran as %%', current_user using errcode = 'P0042'; end $$;
        create view {tenant}.shown as select {tenant}.spring() as a;
        grant select on {tenant}.shown, {tenant}.bait to public
        """,
    )
    for relation in ("bait", "shown"):
        with pytest.raises(InsufficientPrivilege):
            studio.execute(f"select * from {tenant}.{relation}".encode())
        studio.rollback()


# The real postgres-meta


LISTS = (
    "schemas", "tables", "columns", "views", "materialized-views", "foreign-tables", "functions", "triggers", "policies",
    "types", "roles", "extensions", "publications", "indexes", "config",
)  # fmt: skip
"""What Studio's pages list."""
TENANT = TENANTS[1]


@pytest.fixture(scope="module")
def of_studio(database: LocalPostgres) -> Iterator[PostgresMeta]:
    """As it is deployed."""
    run(database, f"set role {TENANT}_owner; create table {TENANT}.diary as select 'a secret' as entry")
    with postgres_meta(database, STUDIO_LOGIN, PASSWORD) as meta:
        yield meta


@pytest.fixture(scope="module")
def of_project(database: LocalPostgres) -> Iterator[PostgresMeta]:
    """With an owner's lease of a project."""
    issue(database, "lease_studio", f"{TENANT}_owner")
    with postgres_meta(database, "lease_studio", "pw") as meta:
        yield meta


@pytest.mark.parametrize("what", LISTS)
def test_studio_lists_what_there_is_in_the_platforms_schemas(of_studio: PostgresMeta, what: str) -> None:
    """By schema, as its pages do: of all, what a project grants to PUBLIC would be listed, which fails."""
    status, found = of_studio.call(f"/{what}?included_schemas=auth,storage,public,extensions")
    assert status == 200, found
    assert isinstance(found, list)
    if what == "tables":
        assert {"users", "objects"} <= {table["name"] for table in found}


@pytest.mark.parametrize(
    ("statement", "works"),
    [
        ("select id, email from auth.users limit 1", True),
        ("update storage.buckets set public = false where false", True),
        ("select query from pg_stat_activity limit 1", True),
        ("explain select * from auth.users", True),
        (f"select * from {TENANT}.diary", False),
        (f"create table {TENANT}.mine (id int)", False),
        (f"set role {TENANT}_owner", False),
        (f"drop table {TENANT}.diary", False),
        ("create policy mine on storage.objects using (true)", False),
        ("create table public.mine (id int)", False),
        ("create role mine", False),
        ("select rolpassword from pg_authid", False),
        ("select data_plane.revoke_lease('lease_studio')", False),
        ("select pg_read_file('/etc/passwd')", False),
        ("copy (select 1) to program 'id'", False),
        ("alter system set log_statement = 'all'", False),
    ],
)
def test_the_sql_editor_runs_what_the_login_may(of_studio: PostgresMeta, statement: str, works: bool) -> None:
    status, response = of_studio.query(statement)
    if works:
        assert status == 200, response
    else:
        assert status == 400
        assert response["code"] == "42501", response


def test_a_table_made_with_an_owners_lease_is_the_projects_and_can_be_used(
    database: LocalPostgres, of_project: PostgresMeta
) -> None:
    """What Studio's table editor sends; the lease is what makes it possible."""
    api = f"{TENANT}_anon, {TENANT}_authenticated, {TENANT}_service_role"
    run(
        database, f"alter default privileges for role {TENANT}_owner in schema {TENANT} grant select on tables to {api}"
    )
    status, table = of_project.call("/tables", {"schema": TENANT, "name": "made", "comment": "in the editor"})
    assert status == 200, table
    assert table["rls_enabled"] is True
    for column in (
        {"name": "id", "type": "int8", "is_identity": True, "is_primary_key": True},
        {"name": "note", "type": "text", "default_value": "none"},
    ):
        status, made = of_project.call("/columns", {"table_id": table["id"], **column})
        assert status == 200, made
    policy = {"schema": TENANT, "table": "made", "name": "all", "command": "SELECT", "definition": "true"}
    status, made = of_project.call("/policies", {**policy, "roles": [f"{TENANT}_authenticated"]})
    assert status == 200, made
    assert of_project.query(f"insert into {TENANT}.made default values")[0] == 200
    with database.connect() as session:
        session.execute(f"set role {TENANT}_authenticated".encode())
        assert session.execute(f"select note from {TENANT}.made".encode()).fetchall() == [("none",)]
    assert run(database, "select relowner::regrole::text from pg_class where relname = 'made'") == [
        (f"{TENANT}_owner",)
    ]
    listed = of_project.call(f"/tables?included_schemas={TENANT}")[1]
    assert "made" in [found["name"] for found in listed]
    assert of_project.query(f"select * from {TENANTS[0]}.bait")[0] == 400
    assert of_project.call(f"/tables/{table['id']}?cascade=true", method="DELETE")[0] == 200
