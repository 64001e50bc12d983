"""``platform.sql`` on every PostgreSQL that can be had here, by itself: no OpenBao, no tenant component."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.errors import InsufficientPrivilege, InvalidParameterValue

from components.central import platform_sql as platform_sql_module
from components.central.files import platform_sql
from components.central.platform_sql import PlatformSql
from data_plane.clients.postgres import in_transaction
from data_plane.local.postgres import LocalPostgres
from data_plane.local.processes import wait_until
from data_plane.local.servers import ADMIN_USER, LOOPBACK
from data_plane.state_dir import StateDir
from tests.support.platform_database import connection_properties, running
from tests.support.postgresqls import binaries

Connection = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture(scope="module", params=sorted(binaries()))
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPostgres]:
    with running(tmp_path_factory.mktemp("pg"), binaries()[request.param]) as made:
        yield made


@pytest.fixture(scope="module")
def database(server: LocalPostgres) -> LocalPostgres:
    """The platform's objects applied twice, and two schemas that are tenants by their shape."""
    with server.connect() as admin:
        admin.execute(platform_sql().encode())
        for tenant in ("proj_one", "proj_two"):
            owner = sql.Identifier(f"{tenant}_owner")
            admin.execute(sql.SQL("create role {} nologin in role data_plane_tenant").format(owner))
            admin.execute(sql.SQL("create schema {} authorization {}").format(sql.Identifier(tenant), owner))
            admin.execute(sql.SQL("alter role {} connection limit 2").format(owner))
        admin.execute("alter role openbao_lease_issuer login password 'issuer'")
    with server.connect() as admin:
        admin.execute(platform_sql().encode())
    return server


def connect(server: LocalPostgres, user: str, password: str, dbname: str = "postgres") -> Connection:
    return psycopg.connect(
        host=LOOPBACK, port=server.port, user=user, password=password, dbname=dbname, connect_timeout=30
    )


def issue(server: LocalPostgres, login: str, role: str = "proj_one_owner") -> None:
    with connect(server, "openbao_lease_issuer", "issuer") as issuer:
        issuer.execute("select data_plane.issue_lease(%s, 'pw', now() + interval '1 hour', %s, 7000)", [login, role])


def revoke(server: LocalPostgres, login: str) -> None:
    with connect(server, "openbao_lease_issuer", "issuer") as issuer:
        issuer.execute("select data_plane.revoke_lease(%s)", [login])


def one(server: LocalPostgres, query: str, *values: object) -> Any:
    with server.connect() as admin:
        row = admin.execute(query.encode(), values).fetchone()
    return row[0] if row else None


def test_a_lease_starts_as_the_tenants_role_with_its_settings(database: LocalPostgres) -> None:
    issue(database, "lease_Start_1")
    with connect(database, "lease_Start_1", "pw") as session:
        row = session.execute(
            "select current_user, session_user, current_setting('search_path'), current_setting('statement_timeout')"
        ).fetchone()
    assert row == ("proj_one_owner", "lease_Start_1", "proj_one, extensions", "7s")
    limit = one(database, "select rolconnlimit from pg_roles where rolname = 'lease_Start_1'")
    assert limit == 2
    revoke(database, "lease_Start_1")


def test_a_lease_does_not_suffer_from_what_another_did_to_the_shared_role(database: LocalPostgres) -> None:
    """PostgreSQL lets a role change its own defaults, so every lease can change those of the role it starts as."""
    issue(database, "lease_vandal")
    with connect(database, "lease_vandal", "pw") as session:
        for setting in (
            "role to 'proj_one_owner'",
            "search_path to pg_temp",
            "statement_timeout to 1",
            "work_mem to '64kB'",
        ):
            session.execute(f"alter role proj_one_owner set {setting}".encode())
    issue(database, "lease_heir")
    with connect(database, "lease_heir", "pw") as session:
        row = session.execute(
            "select current_user, current_setting('search_path'), current_setting('statement_timeout'), current_setting('work_mem')"
        ).fetchone()
    assert row == ("proj_one_owner", "proj_one, extensions", "7s", "4MB")
    revoke(database, "lease_vandal")
    revoke(database, "lease_heir")
    with database.connect() as admin:
        admin.execute("alter role proj_one_owner reset all")


def test_the_issuer_keeps_no_way_into_a_lease(database: LocalPostgres) -> None:
    issue(database, "lease_sealed")
    members = one(
        database,
        "select count(*) from pg_auth_members where member = 'openbao_lease_issuer'::regrole",
    )
    assert members == 0
    with connect(database, "openbao_lease_issuer", "issuer") as issuer, pytest.raises(InsufficientPrivilege):
        issuer.execute("set role lease_sealed")
    revoke(database, "lease_sealed")


@pytest.mark.parametrize(
    "statement",
    [
        "create role intruder",
        "create role intruder in role proj_one_owner",
        "grant proj_one_owner to openbao_lease_issuer",
        "alter role authenticator password 'x'",
        "drop role proj_one_owner",
        "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'supabase_admin'",
        "create table public.t (a int)",
        "create table proj_one.t (a int)",
        "set role proj_one_owner",
        "set role supabase_admin",
    ],
)
def test_the_issuer_can_do_nothing_but_leases(database: LocalPostgres, statement: str) -> None:
    with connect(database, "openbao_lease_issuer", "issuer") as issuer, pytest.raises(InsufficientPrivilege):
        issuer.execute(statement.encode())


@pytest.mark.parametrize(
    ("login", "role"),
    [
        ("someone", "proj_one_owner"),
        ('lease_"; drop table x', "proj_one_owner"),
        ("lease_" + "x" * 60, "proj_one_owner"),
        ("lease_ok", "supabase_admin"),
        ("lease_ok", "postgres"),
        ("lease_ok", "authenticator"),
        ("lease_ok", "service_role"),
        ("lease_ok", "proj_none_owner"),
        ("lease_ok", "proj_one"),
        ("lease_ok", "data_plane_tenant"),
    ],
)
def test_only_leases_of_tenants_can_be_issued(database: LocalPostgres, login: str, role: str) -> None:
    with pytest.raises(InvalidParameterValue):
        issue(database, login, role)


@pytest.mark.parametrize("login", ["supabase_admin", "authenticator", "proj_one_owner", "openbao_lease_issuer"])
def test_only_leases_can_be_renewed_or_revoked(database: LocalPostgres, login: str) -> None:
    for call in ("revoke_lease(%s)", "renew_lease(%s, now())"):
        with connect(database, "openbao_lease_issuer", "issuer") as issuer, pytest.raises(InvalidParameterValue):
            issuer.execute(f"select data_plane.{call}".encode(), [login])


def test_revoking_what_is_gone_is_no_error(database: LocalPostgres) -> None:
    revoke(database, "lease_never_was")


def test_renewing_moves_the_expiry(database: LocalPostgres) -> None:
    issue(database, "lease_renewed")
    with connect(database, "openbao_lease_issuer", "issuer") as issuer:
        issuer.execute("select data_plane.renew_lease('lease_renewed', '2030-01-01 00:00:00+00')")
    until = one(database, "select rolvaliduntil::text from pg_roles where rolname = 'lease_renewed'")
    assert until.startswith("2030-01-01")
    revoke(database, "lease_renewed")


def test_revocation_ends_sessions_and_nothing_made_without_the_role_escapes(database: LocalPostgres) -> None:
    issue(database, "lease_leaver")
    session = connect(database, "lease_leaver", "pw")
    session.autocommit = True
    session.execute("set role none")
    row = session.execute("select lo_create(0)").fetchone()
    session.execute("alter default privileges grant select on tables to public")
    revoke(database, "lease_leaver")
    with pytest.raises(psycopg.errors.AdminShutdown):
        session.execute("select 1")
    assert one(database, "select count(*) from pg_roles where rolname = 'lease_leaver'") == 0
    assert row is not None
    owner = one(database, "select lomowner::regrole::text from pg_largeobject_metadata where oid = %s", row[0])
    assert owner == "proj_one_owner"


def test_without_its_role_a_lease_has_nothing(database: LocalPostgres) -> None:
    issue(database, "lease_bare")
    with database.connect() as admin:
        admin.execute("set role proj_one_owner")
        admin.execute("create table if not exists proj_one.kept (a int)")
    with connect(database, "lease_bare", "pw") as session:
        session.execute("set role none")
        for statement in ("select * from proj_one.kept", "create table proj_one.x (a int)", "create schema y"):
            with pytest.raises(InsufficientPrivilege), session.transaction():
                session.execute(statement.encode())
    revoke(database, "lease_bare")


def test_a_lease_reaches_no_other_database(database: LocalPostgres) -> None:
    """Something owned there would hold up its revocation."""
    issue(database, "lease_home")
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        connect(database, "lease_home", "pw", "template1")
    revoke(database, "lease_home")


@pytest.mark.parametrize(
    "statement",
    [
        "create table proj_one.{} (a int)",
        "create table proj_one.{} as select 1 as a",
        "select 1 as a into proj_one.{}",
        "create table proj_one.{} (a int) partition by range (a)",
        "create unlogged table proj_one.{} (a int)",
    ],
)
def test_every_new_table_of_a_tenant_has_row_level_security(database: LocalPostgres, statement: str) -> None:
    issue(database, "lease_maker")
    with connect(database, "lease_maker", "pw") as session:
        session.execute(statement.format("made").encode())
        row = session.execute("select relrowsecurity, relowner::regrole::text from pg_class where relname = 'made'")
        assert row.fetchone() == (True, "proj_one_owner")
        session.execute("drop table proj_one.made")
    revoke(database, "lease_maker")


def test_tables_outside_of_tenants_are_left_alone(database: LocalPostgres) -> None:
    with database.connect() as admin:
        admin.execute("create table public.plain (a int)")
        row = admin.execute("select relrowsecurity from pg_class where relname = 'plain'").fetchone()
        admin.execute("drop table public.plain")
    assert row == (False,)


@pytest.mark.parametrize(
    ("grantee", "allowed"),
    [
        ("proj_one_owner", True),
        ("proj_two_owner", False),
        ("authenticated", False),
        ("anon", False),
        ("service_role", False),
        ("public", False),
        ("lease_granter", False),
    ],
)
def test_a_tenant_can_let_only_its_own_roles_into_its_schema(
    database: LocalPostgres, grantee: str, allowed: bool
) -> None:
    issue(database, "lease_granter")
    with connect(database, "lease_granter", "pw") as session:
        statement = f"grant usage on schema proj_one to {grantee}".encode()
        if allowed:
            session.execute(statement)
        else:
            with pytest.raises(InsufficientPrivilege, match=r"on schema proj_one cannot be granted to"):
                session.execute(statement)
    revoke(database, "lease_granter")


@pytest.mark.parametrize("statement", ["drop schema proj_one cascade", "drop owned by proj_one_owner"])
def test_a_lease_cannot_drop_the_tenants_schema(database: LocalPostgres, statement: str) -> None:
    issue(database, "lease_dropper")
    with connect(database, "lease_dropper", "pw") as session, pytest.raises(InsufficientPrivilege):
        session.execute(statement.encode())
    revoke(database, "lease_dropper")
    assert one(database, "select count(*) from pg_namespace where nspname = 'proj_one'") == 1


def served(server: LocalPostgres) -> list[str]:
    """What PostgREST would serve: it runs the function as the authenticator at the start of a transaction."""
    with server.connect() as admin:
        admin.execute("set role authenticator")
        admin.execute("select data_plane.pre_config()")
        row = admin.execute("select current_setting('pgrst.db_schemas')").fetchone()
    assert row is not None
    return str(row[0]).split(",")


def test_exposure_is_a_grant_that_postgrest_is_told_of(database: LocalPostgres) -> None:
    with connect(database, ADMIN_USER, database.admin_password) as listener, database.connect() as admin:
        listener.autocommit = True
        listener.execute("listen pgrst")
        assert served(database) == ["public", "storage", "data_plane_api"]
        admin.execute("grant usage on schema proj_two to authenticator")
        admin.commit()
        told = [notify.payload for notify in listener.notifies(timeout=30, stop_after=2)]
        assert sorted(told) == ["reload config", "reload schema"]
        assert served(database) == ["public", "storage", "data_plane_api", "proj_two"]
        admin.execute("revoke usage on schema proj_two from authenticator")
        admin.commit()
        told = [notify.payload for notify in listener.notifies(timeout=30, stop_after=2)]
        assert sorted(told) == ["reload config", "reload schema"]
    assert served(database) == ["public", "storage", "data_plane_api"]


def test_new_tables_reach_postgrests_cache(database: LocalPostgres) -> None:
    with connect(database, ADMIN_USER, database.admin_password) as listener, database.connect() as admin:
        listener.autocommit = True
        listener.execute("listen pgrst")
        for statement in ("create table proj_one.noticed (a int)", "drop table proj_one.noticed"):
            admin.execute(statement.encode())
            admin.commit()
            told = [notify.payload for notify in listener.notifies(timeout=30, stop_after=2)]
            assert "reload schema" in told


def test_a_grant_on_a_table_makes_postgrest_reload_nothing(database: LocalPostgres) -> None:
    with connect(database, ADMIN_USER, database.admin_password) as listener, database.connect() as admin:
        admin.autocommit = True
        admin.execute("create table proj_one.granted (a int); create function proj_one.f() returns int return 1")
        listener.autocommit = True
        listener.execute("listen pgrst")
        for statement in (
            "grant select on proj_one.granted to proj_one_owner",
            "revoke select on all tables in schema proj_one from proj_one_owner",
            "grant execute on function proj_one.f() to public",
            "alter default privileges for role proj_one_owner in schema proj_one grant select on tables to public",
            "grant usage on schema proj_one to authenticator",  # the only one to be heard
        ):
            admin.execute(statement.encode())
        told = [notify.payload for notify in listener.notifies(timeout=30, stop_after=2)]
        assert sorted(told) == ["reload config", "reload schema"]
        assert list(listener.notifies(timeout=0.5)) == []
        admin.execute("revoke usage on schema proj_one from authenticator")
        admin.execute(
            "alter default privileges for role proj_one_owner in schema proj_one revoke select on tables from public"
        )
        admin.execute("drop table proj_one.granted; drop function proj_one.f()")


def test_nothing_of_the_platform_is_open_to_the_public(database: LocalPostgres) -> None:
    open_to_all = one(
        database,
        """
        select count(*) from pg_proc p join pg_namespace n on n.oid = p.pronamespace
        where n.nspname = 'data_plane' and has_function_privilege('anon', p.oid, 'execute')
          -- Policies on Realtime's messages call it as the role that asks, which cannot reach its schema.
          and p.proname <> 'may_use_topic'
        """,
    )
    assert open_to_all == 0
    assert one(database, "select has_schema_privilege('anon', 'data_plane', 'usage')") is False


def test_every_function_of_the_platform_looks_for_names_in_pg_catalog_before_pg_temp(
    database: LocalPostgres,
) -> None:
    """An empty search path would let pg_temp answer for types first."""
    loose = one(
        database,
        """
        select array_agg(p.oid::regprocedure::text) from pg_proc p
        where p.pronamespace in ('data_plane'::regnamespace, 'data_plane_api'::regnamespace)
            and not coalesce('search_path=pg_catalog, pg_temp' = any (p.proconfig), false)
        """,
    )
    assert loose is None


def test_nobody_but_a_superuser_makes_temporary_objects_in_any_database(database: LocalPostgres) -> None:
    allowed = one(
        database,
        """
        select array_agg(r.rolname || ' in ' || d.datname) from pg_roles r, pg_database d
        where has_database_privilege(r.oid, d.oid, 'temporary') and not r.rolsuper and d.datdba <> r.oid
        """,
    )
    assert allowed is None


def test_a_session_that_outlived_its_login_is_ended_by_the_next_lease(database: LocalPostgres) -> None:
    issue(database, "lease_ghost")
    session = connect(database, "lease_ghost", "pw")
    session.autocommit = True
    with database.connect() as admin:
        # What a login in the middle of a revocation amounts to: the role goes while the session stays.
        admin.execute("drop role lease_ghost")
    row = session.execute("select current_user").fetchone()
    assert row == ("proj_one_owner",)
    issue(database, "lease_other")
    with pytest.raises(psycopg.errors.AdminShutdown):
        session.execute("select 1")
    revoke(database, "lease_other")


def test_grants_that_lose_a_deadlock_against_a_patient_session_are_made(database: LocalPostgres) -> None:
    begun = threading.Event()
    attempts = []

    def grant(session: Connection) -> None:
        attempts.append(session)
        session.execute("grant proj_two_owner to openbao_lease_issuer")
        begun.set()
        session.execute("grant proj_one_owner to openbao_lease_issuer")

    with ThreadPoolExecutor(1) as pool, database.connect() as provider, database.connect() as watcher:
        watcher.autocommit = True
        provider.execute("grant proj_one_owner to openbao_lease_issuer")
        granted = pool.submit(in_transaction, connection_properties(database), grant)
        assert begun.wait(20)
        # It has looked for a deadlock by then, in vain, and would not do so again.
        waits = "select from pg_locks where not granted and waitstart < clock_timestamp() - interval '200 ms'"
        assert wait_until(lambda: watcher.execute(waits).rowcount > 0, 20, 0.01)
        provider.execute("grant proj_two_owner to openbao_lease_issuer")
        provider.commit()
        granted.result(60)
        members = (
            "select from pg_auth_members where member = 'openbao_lease_issuer'::regrole"
            " and roleid::regrole::text in ('proj_one_owner', 'proj_two_owner')"
        )
        assert watcher.execute(members).rowcount == 2
        watcher.execute("revoke proj_one_owner, proj_two_owner from openbao_lease_issuer")
    assert len(attempts) > 1


def test_sql_that_loses_a_deadlock_is_applied_again(database: LocalPostgres, monkeypatch: pytest.MonkeyPatch) -> None:
    props = {**connection_properties(database), "sql": platform_sql()}
    apply, attempts = platform_sql_module._apply, []

    def counted(session: Connection, text: str) -> list[str]:
        attempts.append(session)
        return apply(session, text)

    monkeypatch.setattr(platform_sql_module, "_apply", counted)
    with ThreadPoolExecutor(1) as pool, database.connect() as other, database.connect() as watcher:
        watcher.autocommit = True
        other.execute("set deadlock_timeout = '1h'")  # so that the other one loses it
        other.execute("lock table data_plane.limits in access exclusive mode")
        applied = pool.submit(lambda: platform_sql_module._Provider().create(props))
        waits = "select from pg_locks where relation = 'data_plane.limits'::regclass and not granted"
        assert wait_until(lambda: watcher.execute(waits).rowcount > 0, 20, 0.01)
        other.execute("lock table pg_catalog.pg_authid in share row exclusive mode")
        other.commit()
        assert (applied.result(60).outs or {})["checksum"]
    assert len(attempts) > 1


def test_the_resource_type_is_stable() -> None:
    assert PlatformSql._resource_type_name == "dynamic/central:PlatformSql"


def test_what_a_supabase_image_has_already_is_left_as_it_is(tmp_path: Path) -> None:
    """Objects as the image's own initialisation makes them: other attributes, other owners, triggers of its own."""
    server = LocalPostgres(StateDir(tmp_path / "image"))
    server.start()
    try:
        with server.connect() as admin:
            admin.execute(
                """
                create role anon nologin inherit;
                create role authenticated nologin inherit;
                create role service_role nologin inherit bypassrls;
                create role authenticator login noinherit password 'set-by-the-image';
                create role supabase_auth_admin login noinherit createrole;
                create role postgres login createrole createdb;
                create schema auth authorization supabase_auth_admin;
                create schema extensions authorization postgres;
                create schema storage;
                create schema graphql_public;
                create table auth.users (id uuid primary key);
                alter table auth.users owner to supabase_auth_admin;
                create function auth.uid() returns uuid language sql stable as 'select null::uuid';
                alter function auth.uid() owner to supabase_auth_admin;
                create function extensions.watch() returns event_trigger language plpgsql as 'begin notify pgrst; end';
                create event trigger pgrst_ddl_watch on ddl_command_end execute function extensions.watch();
                """
            )
        before = _image(server)
        for _ in range(2):
            with server.connect() as admin:
                admin.execute(platform_sql().encode())
        assert _image(server) == before
        assert served(server) == ["public", "storage", "graphql_public", "data_plane_api"]
        with server.connect() as admin:
            row = admin.execute("select has_column_privilege('data_plane_tenant', 'auth.users', 'id', 'references')")
            assert row.fetchone() == (False,)
            row = admin.execute("select has_table_privilege('data_plane_tenant', 'auth.users', 'select')")
            assert row.fetchone() == (False,)
    finally:
        server.stop()


def _image(server: LocalPostgres) -> list[tuple[Any, ...]]:
    roles = "'anon', 'authenticated', 'service_role', 'authenticator', 'supabase_auth_admin', 'postgres'"
    attributes = "rolname, rolinherit, rolcanlogin, rolcreaterole, rolbypassrls, rolpassword"
    queries = (
        f"select {attributes} from pg_authid where rolname in ({roles})",
        "select nspname, nspowner::regrole::text from pg_namespace where nspname in ('auth', 'extensions', 'storage')",
        "select prosrc, proowner::regrole::text from pg_proc where oid = 'auth.uid()'::regprocedure",
        "select evtname, evtenabled from pg_event_trigger where evtname = 'pgrst_ddl_watch'",
    )
    with server.connect() as admin:
        return [row for query in queries for row in sorted(admin.execute(query.encode()).fetchall())]


def test_no_function_of_the_platform_is_read_otherwise_by_a_caller_who_says_what_backslashes_mean(
    database: LocalPostgres,
) -> None:
    """standard_conforming_strings is anybody's to set, and decides when a function is called what its strings are."""
    unpinned = one(
        database,
        r"""
        select array_agg(oid::regprocedure::text) from pg_proc
        where pronamespace in ('data_plane'::regnamespace, 'data_plane_api'::regnamespace)
            and strpos(prosrc, '\') > 0
            and not coalesce(proconfig, '{}') @> '{standard_conforming_strings=on}'
        """,
    )
    assert unpinned is None
