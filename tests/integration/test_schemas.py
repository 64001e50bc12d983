"""Further schemas of a project: who makes them, what they are named, and the isolation of the first one on them."""

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from psycopg import errors, sql

from components.tenant import api_access as api_access_module
from components.tenant.table_row import TableRowError
from data_plane.local.postgres import LocalPostgres
from data_plane.model.service_logins import STUDIO_LOGIN
from tests.support.platform_database import (
    API_LOGIN,
    TENANTS,
    Connection,
    add_tenants,
    api_request,
    apply_platform,
    connect,
    connection_properties,
    issue,
    run,
    running,
)
from tests.support.postgresqls import binaries, oldest_and_newest

ONE, OTHER = TENANTS
PRIVATE = f"{ONE}$private"
API_ROLES = [f"{ONE}_{level}" for level in ("anon", "authenticated", "service_role")]


@pytest.fixture(scope="module", params=oldest_and_newest())
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPostgres]:
    with running(tmp_path_factory.mktemp("schemas"), binaries()[request.param], apply_platform, add_tenants) as made:
        issue(made, "lease_one_owner", f"{ONE}_owner")
        issue(made, "lease_one_service", f"{ONE}_service_role")
        issue(made, "lease_other_owner", f"{OTHER}_owner")
        yield made


@pytest.fixture(autouse=True)
def _no_further_schemas(server: LocalPostgres) -> Iterator[None]:
    yield
    with server.connect() as admin:
        for (name,) in admin.execute(
            r"select nspname from pg_namespace where nspname like '%$%' or nspname like 'restored\_%'"
        ).fetchall():
            admin.execute(sql.SQL("drop schema {} cascade").format(sql.Identifier(str(name))))
        admin.execute(
            "delete from data_plane.schemas; delete from data_plane.withheld_usage; delete from data_plane.schema_turns; delete from data_plane.limits"
        )
        admin.execute("select data_plane.apply_exposure(%s)", [ONE])
        for tenant in TENANTS:
            owner = sql.Identifier(f"{tenant}_owner")
            admin.execute(
                sql.SQL("alter default privileges for role {} revoke all on schemas from public").format(owner)
            )


@contextmanager
def owner(server: LocalPostgres, of: str = "one") -> Iterator[Connection]:
    with connect(server, f"lease_{of}_owner", "pw") as session:
        yield session


def make(server: LocalPostgres, *names: str) -> None:
    with owner(server) as session:
        for name in names:
            assert session.execute("select data_plane_api.create_schema(%s)", [name]).fetchone() == (True,)


def declare(server: LocalPostgres, declared: list[str], exposed: list[str], *, attached: bool = True) -> None:
    run(
        server,
        "insert into data_plane.schemas values (%s, %s, %s, %s) on conflict (tenant)"
        " do update set declared = excluded.declared, exposed = excluded.exposed, attached = excluded.attached",
        ONE,
        declared,
        exposed,
        attached,
    )
    run(server, "select data_plane.apply_schemas(%s)", ONE)


def rights(server: LocalPostgres, schema: str) -> set[tuple[str, str]]:
    return set(
        run(
            server,
            "select coalesce(pg_get_userbyid(nullif(acl.grantee, 0)), 'public'), acl.privilege_type from pg_namespace n,"
            " aclexplode(n.nspacl) as acl where n.nspname = %s and acl.grantee <> n.nspowner",
            schema,
        )
    )


def served(server: LocalPostgres) -> list[str]:
    with connect(server, API_LOGIN) as api:
        api.execute("select data_plane.pre_config()")
        row = api.execute("select current_setting('pgrst.db_schemas')").fetchone()
    assert row is not None
    return [name for name in str(row[0]).split(",") if name.startswith(ONE)]


def test_an_owner_makes_and_drops_a_schema_of_its_own(server: LocalPostgres) -> None:
    with owner(server) as session:
        assert session.execute("select data_plane_api.create_schema('private')").fetchone() == (True,)
        assert session.execute("select data_plane_api.create_schema('private')").fetchone() == (False,)
        session.execute(f'create table "{PRIVATE}".t (id int)')
    assert run(server, "select nspowner::regrole::text from pg_namespace where nspname = %s", PRIVATE) == [
        (f"{ONE}_owner",)
    ]
    assert rights(server, PRIVATE) == set()
    assert run(server, "select data_plane.tenant_of_schema(s::text) from unnest(array[%s, %s, %s, 'public']) s",
               ONE, PRIVATE, f"{ONE}_x$y") == [(ONE,), (ONE,), (None,), (None,)]  # fmt: skip
    assert run(server, "select s::text from data_plane.schemas_of(%s) s", ONE) == [(ONE,), (f'"{PRIVATE}"',)]
    with owner(server) as session:
        with pytest.raises(errors.DependentObjectsStillExist):
            session.execute("select data_plane_api.drop_schema('private')")
        session.rollback()
        assert session.execute("select data_plane_api.drop_schema('private', cascade => true)").fetchone() == (True,)
        assert session.execute("select data_plane_api.drop_schema('private')").fetchone() == (False,)


@pytest.mark.parametrize(
    "name",
    [None, "", "Private", "a-b", "a$b", "1a", "_a", 'a"; drop schema proj_two_b; --', "a.b", "é", "a\n", "a" * 55],
)
def test_a_forged_name_is_refused(server: LocalPostgres, name: str | None) -> None:
    with owner(server) as session, pytest.raises((errors.InvalidSchemaName, errors.NameTooLong)):
        session.execute("select data_plane_api.create_schema(%s)", [name])


def test_a_name_of_63_bytes_is_the_longest(server: LocalPostgres) -> None:
    longest = "a" * (63 - len(ONE) - 1)
    make(server, longest)
    assert run(server, "select octet_length(nspname) from pg_namespace where nspname like '%%$%%'") == [(63,)]
    with owner(server) as session, pytest.raises(errors.NameTooLong):
        session.execute("select data_plane_api.create_schema(%s)", [longest + "b"])


@pytest.mark.parametrize("call", ["create_schema('auth')", "drop_schema('auth', true)"])
def test_the_name_auth_is_kept(server: LocalPostgres, call: str) -> None:
    run(server, "select data_plane.make_schema(%s, 'auth')", ONE)
    with owner(server) as session, pytest.raises(errors.ReservedName):
        session.execute(f"select data_plane_api.{call}".encode())


def test_nobody_but_an_owner_makes_one(server: LocalPostgres) -> None:
    for login in ("lease_one_service", "authenticator"):
        password = "pw" if login.startswith("lease") else None
        with (
            connect(server, login, password) if password else connect(server, login) as session,
            pytest.raises(errors.InsufficientPrivilege),
        ):
            session.execute("select data_plane_api.create_schema('private')")
    with api_request(server, f"{ONE}_service_role") as session, pytest.raises(errors.InsufficientPrivilege):
        session.execute("select data_plane_api.create_schema('private')")
    with owner(server) as session:
        session.execute("set role none")
        with pytest.raises(errors.InsufficientPrivilege):
            session.execute("select data_plane_api.create_schema('private')")


@pytest.mark.parametrize(
    "statement",
    [
        f'create schema "{OTHER}$mine"',
        f'create schema "{PRIVATE}2"',
        f'alter schema "{PRIVATE}" rename to "{OTHER}$mine"',
        f'alter schema "{PRIVATE}" owner to {OTHER}_owner',
        f'alter schema "{PRIVATE}" owner to {ONE}_anon',
        f'drop schema "{PRIVATE}" cascade',
        f'drop schema "{ONE}$auth" cascade',
        "drop owned by current_user cascade",
        f'create table "{OTHER}$private".t ()',
        f"select data_plane.make_schema('{OTHER}', 'private')",
        f"select data_plane.remove_schema('{ONE}', 'auth', true)",
        "select * from data_plane.schemas",
        "update data_plane.schemas set exposed = declared",
        f'grant usage on schema "{PRIVATE}" to public',
        f'grant usage on schema "{PRIVATE}" to authenticated',
        f'grant usage on schema "{PRIVATE}" to {OTHER}_anon',
        f'grant usage on schema "{PRIVATE}" to {API_LOGIN}',
        f'grant usage on schema "{PRIVATE}" to data_plane_studio',
        f'grant usage on schema "{PRIVATE}" to {ONE}_anon with grant option',
        f'grant create on schema "{PRIVATE}" to supabase_storage_admin',
    ],
)
def test_an_owner_gives_away_or_loses_nothing_by_hand(server: LocalPostgres, statement: str) -> None:
    make(server, "private")
    run(server, "select data_plane.make_schema(%s, 'auth'), data_plane.make_schema(%s, 'private')", ONE, OTHER)
    with owner(server) as session, pytest.raises(psycopg.Error) as refused:
        session.execute(statement.encode())
    assert refused.value.sqlstate == "42501", refused.value
    assert run(server, "select count(*) from pg_namespace where nspname like '%%$%%'") == [(3,)]


def test_default_privileges_open_no_new_schema(server: LocalPostgres) -> None:
    with owner(server) as session:
        session.execute(f"alter default privileges grant all on schemas to public, authenticated, {OTHER}_anon")
        session.execute("select data_plane_api.create_schema('private')")
    assert rights(server, PRIVATE) == set()


def test_a_copy_from_a_dump_is_given_to_nobody_either(server: LocalPostgres) -> None:
    run(server, f"create schema restored_one_20260101t000000 authorization {ONE}_owner")
    with owner(server) as session, pytest.raises(errors.InsufficientPrivilege):
        session.execute("grant usage on schema restored_one_20260101t000000 to authenticated")


def test_a_copy_from_a_dump_has_nothing_that_a_shared_session_does_not_run(server: LocalPostgres) -> None:
    """The project's roles may be let into it, and its functions call those that stand there."""
    copy = "restored_one_20260101t000000"
    text = f"language plpgsql as 'begin set local role {OTHER}_service_role; end'"
    run(server, f"create schema {copy} authorization {ONE}_owner")
    with owner(server) as session:
        for made in ("function", "procedure"):
            returns = "returns void" if made == "function" else ""
            with pytest.raises(errors.InsufficientPrivilege, match="has no place in a session that projects share"):
                session.execute(f"create {made} {copy}.f() {returns} {text}")
            session.rollback()
    # One that was made while the project had a session of its own.
    run(server, "alter event trigger data_plane_admission disable")
    with owner(server) as session:
        session.execute(f"create function {copy}.f() returns void {text}")
    run(server, "alter event trigger data_plane_admission enable")
    assert run(server, "select function, token from data_plane.refused_functions(%s)", ONE) == [(f"{copy}.f()", "set")]
    assert run(server, "select function from data_plane.refused_functions(%s)", OTHER) == []


@pytest.mark.parametrize("kind", ["view", "materialized view"])
def test_a_view_that_stops_postgrest_is_not_taken_out_of_a_copy_from_a_dump(server: LocalPostgres, kind: str) -> None:
    copy = "restored_one_20260101t000000"
    run(server, f"create schema {copy} authorization {ONE}_owner")
    with owner(server) as session:
        session.execute(f'create {kind} {copy}.v as select 1 as "a <> b"')
        with pytest.raises(errors.InsufficientPrivilege, match="PostgREST cannot read"):
            session.execute(f"alter {kind} {copy}.v set schema {ONE}")


def test_the_number_of_schemas_is_bounded_also_for_two_at_once(server: LocalPostgres) -> None:
    run(server, "insert into data_plane.limits values (%s, 20, 1000, 10000000000, 30, 900, 60, 2, 20, 10)", ONE)
    make(server, "a")
    run(server, "select data_plane.make_schema(%s, 'auth')", ONE)  # counts for nothing
    outcomes: list[str] = []

    def second(name: str) -> None:
        try:
            make(server, name)
        except errors.ConfigurationLimitExceeded:
            outcomes.append("refused")
        else:
            outcomes.append("made")

    with owner(server) as session:
        session.execute("select data_plane_api.create_schema('b')")
        other = threading.Thread(target=second, args=["c"])
        other.start()
        other.join(0.5)
        assert other.is_alive()
        session.commit()
        other.join(60)
    assert outcomes == ["refused"]
    with owner(server) as session:
        assert session.execute("select data_plane_api.create_schema('b')").fetchone() == (False,)
        session.execute("select data_plane_api.drop_schema('b')")
    make(server, "c")
    with owner(server, "other") as session:  # another's bound is its own
        session.execute("select data_plane_api.create_schema('a')")


def test_an_older_snapshot_does_not_count_too_few(server: LocalPostgres) -> None:
    run(server, "insert into data_plane.limits values (%s, 20, 1000, 10000000000, 30, 900, 60, 1, 20, 10)", ONE)
    with owner(server) as session:
        session.execute("set transaction isolation level repeatable read")
        session.execute("select 1 from pg_class")
        make(server, "a")
        with pytest.raises((errors.SerializationFailure, errors.ConfigurationLimitExceeded)):
            session.execute("select data_plane_api.create_schema('b')")


def test_a_project_that_makes_a_schema_holds_up_no_run(server: LocalPostgres) -> None:
    """Its transaction may stay open for a while; above all, it can be detached."""
    make(server, "private")
    declare(server, ["api"], ["api"])
    with owner(server) as session:
        session.execute("select data_plane_api.create_schema('more')")
        declare(server, ["api"], [], attached=False)
        session.commit()
    declare(server, ["api"], ["api"])


def test_a_table_shows_no_row_and_only_functions_are_given(server: LocalPostgres) -> None:
    make(server, "private")
    with owner(server) as session:
        session.execute(f'create table "{PRIVATE}".t as select 1 as id')
        session.execute(f'create function "{PRIVATE}".f() returns int return 1')
        session.execute(f'grant usage on schema "{PRIVATE}" to {ONE}_anon')
    assert run(server, "select relrowsecurity from pg_class where relnamespace = %s::regnamespace", f'"{PRIVATE}"') == [
        (True,)
    ]
    with api_request(server, f"{ONE}_anon") as session:
        assert session.execute(f'select "{PRIVATE}".f()').fetchone() == (1,)
        with pytest.raises(errors.InsufficientPrivilege):
            session.execute(f'select * from "{PRIVATE}".t')


def test_a_policy_of_a_served_table_calls_a_helper_that_nobody_else_can(server: LocalPostgres) -> None:
    make(server, "private")
    with owner(server) as session:
        session.execute(f'create table "{PRIVATE}".allowed (id int)')
        session.execute(f'insert into "{PRIVATE}".allowed values (2)')
        session.execute(
            f'create function "{PRIVATE}".may_see(int) returns boolean stable security definer'
            f' begin atomic select exists (select from "{PRIVATE}".allowed a where a.id = $1); end'
        )
        session.execute("create table notes as select generate_series(1, 3) as id")
        session.execute(f'create policy seen on notes for select using ("{PRIVATE}".may_see(id))')
        session.execute(f"grant select on notes to {ONE}_anon")
    with api_request(server, f"{ONE}_anon") as session:
        assert session.execute(f"select id from {ONE}.notes").fetchall() == [(2,)]
        with pytest.raises(errors.InsufficientPrivilege):
            session.execute(f'select "{PRIVATE}".may_see(1)')
    run(server, f"drop table {ONE}.notes")


# Serving, detaching, moving


def test_a_schema_is_served_only_where_that_is_declared(server: LocalPostgres) -> None:
    make(server, "private")
    declare(server, ["api", "quiet"], ["api"])
    assert served(server) == [ONE, f"{ONE}$api"]
    assert (API_LOGIN, "USAGE") in rights(server, f"{ONE}$api")
    assert rights(server, f"{ONE}$quiet") == rights(server, PRIVATE) == set()
    assert run(server, "select login, storage from data_plane.present_api_access(%s)", ONE) == [(API_LOGIN, True)]
    # The owner may drop it and make it anew, and grant on it, meanwhile.
    with owner(server) as session:
        session.execute("select data_plane_api.drop_schema('api')")
        session.execute("select data_plane_api.create_schema('api')")
        session.execute(f'grant usage on schema "{ONE}$api" to {ONE}_anon')
    assert rights(server, f"{ONE}$api") == {(API_LOGIN, "USAGE"), (f"{ONE}_anon", "USAGE")}
    declare(server, ["quiet"], [])
    assert rights(server, f"{ONE}$api") == {(f"{ONE}_anon", "USAGE")}
    assert served(server) == [ONE]
    assert run(server, "select * from data_plane.present_schemas(%s)", ONE) == [(["quiet"], [], True)]


@pytest.mark.parametrize(
    "drift",
    [
        f'revoke usage on schema "{ONE}$api" from {API_LOGIN}',
        f'grant create on schema "{ONE}$api" to {API_LOGIN}',
        f'grant usage on schema "{PRIVATE}" to {API_LOGIN}',
    ],
)
def test_who_serves_a_schema_is_seen_and_set_right(server: LocalPostgres, drift: str) -> None:
    make(server, "private")
    declare(server, ["api"], ["api"])
    run(server, drift)
    assert run(server, "select login from data_plane.present_api_access(%s)", ONE) == [(f"{API_LOGIN} in part",)]
    run(server, "select data_plane.apply_api_access(%s)", ONE)
    assert run(server, "select login from data_plane.present_api_access(%s)", ONE) == [(API_LOGIN,)]
    assert rights(server, PRIVATE) == set()


def test_a_project_that_moves_takes_its_served_schemas_along(server: LocalPostgres) -> None:
    declare(server, ["api"], ["api"])
    run(server, "select data_plane.apply_api_logins(array[%s, 'cell_new_authenticator'])", API_LOGIN)
    try:
        run(server, "update data_plane.api_access set login = 'cell_new_authenticator' where tenant = %s", ONE)
        run(server, "select data_plane.apply_api_access(%s)", ONE)
        assert rights(server, f"{ONE}$api") == {("cell_new_authenticator", "USAGE")}
        assert f"{ONE}$api" not in served(server)
        assert run(server, "select login from data_plane.present_api_access(%s)", ONE) == [("cell_new_authenticator",)]
    finally:
        run(server, "update data_plane.api_access set login = %s where tenant = %s", API_LOGIN, ONE)
        run(server, "select data_plane.apply_api_access(%s)", ONE)
    assert f"{ONE}$api" in served(server)


def test_a_detached_project_gets_back_exactly_what_it_had_given(server: LocalPostgres) -> None:
    make(server, "private", "other")
    declare(server, ["api"], ["api"])
    with owner(server) as session:
        session.execute(f'grant usage on schema "{PRIVATE}" to {ONE}_authenticated, {ONE}_service_role')
        session.execute(f'grant create on schema "{PRIVATE}" to {ONE}_service_role')
        session.execute(f'grant usage on schema "{ONE}$api" to {ONE}_anon')
    names = (PRIVATE, f"{ONE}$other", f"{ONE}$api")
    given = {name: rights(server, name) for name in names}
    assert sum(map(len, given.values())) == 5

    run(server, "update data_plane.api_access set login = null where tenant = %s", ONE)
    declare(server, ["api"], ["api"], attached=False)
    run(server, "select data_plane.apply_api_access(%s)", ONE)
    assert all(rights(server, name) == set() for name in names)
    declare(server, ["api"], ["api"], attached=False)  # once more changes nothing
    assert run(server, "select attached from data_plane.present_schemas(%s)", ONE) == [(False,)]
    run(server, f'grant usage on schema "{ONE}$other" to {ONE}_anon')  # by hand
    assert run(server, "select attached from data_plane.present_schemas(%s)", ONE) == [(True,)]
    run(server, f'revoke usage on schema "{ONE}$other" from {ONE}_anon')

    run(server, "update data_plane.api_access set login = %s where tenant = %s", API_LOGIN, ONE)
    declare(server, ["api"], ["api"])
    run(server, "select data_plane.apply_api_access(%s)", ONE)
    assert {name: rights(server, name) for name in names} == given
    assert run(server, "select * from data_plane.withheld_usage") == []
    assert run(server, "select attached from data_plane.present_schemas(%s)", ONE) == [(True,)]


def test_a_declared_schema_that_is_gone_is_seen_and_comes_back(server: LocalPostgres) -> None:
    declare(server, ["api", "private"], [])
    with owner(server) as session:
        session.execute("select data_plane_api.drop_schema('api')")
    assert run(server, "select declared from data_plane.present_schemas(%s)", ONE) == [(["private"],)]
    run(server, "select data_plane.apply_schemas(%s)", ONE)
    assert run(server, "select declared from data_plane.present_schemas(%s)", ONE) == [(["api", "private"],)]


def test_a_declared_schema_that_is_somebodys_is_given_back(server: LocalPostgres) -> None:
    run(server, f'create schema "{ONE}$api" authorization data_plane_studio')
    with owner(server) as session, pytest.raises(errors.ObjectNotInPrerequisiteState):
        session.execute("select data_plane_api.create_schema('api')")
    declare(server, ["api"], [])
    assert run(server, "select nspowner::regrole::text from pg_namespace where nspname = %s", f"{ONE}$api") == [
        (f"{ONE}_owner",)
    ]


# Other isolation


def test_a_function_of_a_further_schema_is_judged_like_the_others(server: LocalPostgres) -> None:
    make(server, "private")
    sets_a_role = (
        f'create function "{PRIVATE}".f() returns void language plpgsql as'
        f" $$ begin set local role {OTHER}_owner; end $$"
    )
    with owner(server) as session, pytest.raises(errors.InsufficientPrivilege, match="has no place in a session"):
        session.execute(sets_a_role.encode())
    run(server, "update data_plane.api_access set login = %s where tenant = %s", f"{ONE}_authenticator", ONE)
    try:
        with owner(server) as session:  # with a PostgREST of its own
            session.execute(sets_a_role.encode())
    finally:
        run(server, "update data_plane.api_access set login = %s where tenant = %s", API_LOGIN, ONE)
    ((function, line, _),) = run(server, "select * from data_plane.refused_functions(%s)", ONE)
    assert (function, line) == (f'"{PRIVATE}".f()', 1)
    # A preview of the way back says so.
    before = {**connection_properties(server), "tenant": ONE, "login": f"{ONE}_authenticator", "storage": True}
    now = {**before, "login": API_LOGIN}
    diff = api_access_module._Provider().diff
    with pytest.raises(TableRowError, match=r'cannot be served together.*\n"proj_one\$private".f\(\), line 1'):
        diff("", before, now)
    assert diff("", {**before, "port": 1}, now).changes  # what cannot be looked at is not refused
    assert diff("", now, before).changes
    assert diff("", {**before, "login": None}, before).changes
    assert not diff("", now, now).changes
    with pytest.raises(errors.InsufficientPrivilege, match="cannot be served together"):
        run(server, "select data_plane.apply_api_access(%s)", ONE)
    declare(server, ["api"], ["api"])
    run(server, "select data_plane.serve_or_withhold(%s)", ONE)
    assert served(server) == []
    run(server, f'drop function "{PRIVATE}".f()')
    run(server, "select data_plane.apply_api_access(%s)", ONE)
    assert served(server) == [ONE, f"{ONE}$api"]


def test_an_aggregate_takes_rows_of_its_own_project_alone(server: LocalPostgres) -> None:
    make(server, "private")
    aggregate = """
        create domain "{0}"."text/plain" as text;
        create function "{0}".step(state "{0}"."text/plain", {1}) returns "{0}"."text/plain"
            language sql as 'select state';
        create aggregate "{0}".shown({1}) (sfunc = "{0}".step, stype = "{0}"."text/plain")"""
    with owner(server) as session:
        session.execute("create table notes (id int)")
        session.execute(aggregate.format(PRIVATE, f"{ONE}.notes").encode())
        session.rollback()
        with pytest.raises(errors.InsufficientPrivilege, match="an aggregate over others' rows"):
            session.execute(aggregate.format(PRIVATE, "anyelement").encode())


def privilege_drift(server: LocalPostgres) -> dict[str, str | None]:
    return dict(run(server, "select found, remedy from data_plane.privilege_drift(array[%s]) order by 1", ONE))


def test_schemas_may_refer_to_each_other_and_to_nothing_else(server: LocalPostgres) -> None:
    make(server, "private")
    run(server, "create table if not exists public.somebodys (id int primary key)")
    with owner(server) as session:
        session.execute("create table notes (id int primary key)")
        session.execute(f'create table "{PRIVATE}".t (id int primary key references notes)')
        session.execute(f'alter table notes add foreign key (id) references "{PRIVATE}".t deferrable')
        session.execute(f'create view "{PRIVATE}".v as select * from notes')
        session.execute(
            f'create function "{PRIVATE}".g() returns trigger language plpgsql as $$ begin return new; end $$'
        )
        session.execute(f'create trigger g before insert on notes for each row execute function "{PRIVATE}".g()')
        session.commit()
        with pytest.raises(errors.InsufficientPrivilege):
            session.execute(f"create view \"{PRIVATE}\".names as select data_plane.tenant_of('x')")
    assert privilege_drift(server) == {}
    run(server, f'alter table "{PRIVATE}".t add foreign key (id) references public.somebodys')
    run(server, f'create trigger t before insert on public.somebodys execute function "{PRIVATE}".g()')
    run(server, f"create view \"{PRIVATE}\".names as select data_plane.tenant_of('x') as t")
    run(server, f"create policy p on \"{PRIVATE}\".t using (data_plane.tenant_of('x') is null)")
    found = [line for line, remedy in privilege_drift(server).items() if remedy is None]
    assert len(found) == 4
    assert sum("refers to public.somebodys" in line for line in found) == 1
    assert sum("trigger t on public.somebodys" in line for line in found) == 1
    assert sum("depends on function data_plane.tenant_of" in line for line in found) == 2
    run(server, "drop table public.somebodys cascade; drop table proj_one.notes cascade")


@pytest.mark.parametrize(
    ("drift", "found"),
    [
        ('grant usage on schema "{0}" to data_plane_studio', 'USAGE on schema "{0}" is granted to data_plane_studio'),
        ('grant usage on schema "{0}" to proj_two_b_anon', 'USAGE on schema "{0}" is granted to proj_two_b_anon'),
        ('grant create on schema "{0}" to public', 'CREATE on schema "{0}" is granted to public'),
        ('alter schema "{0}" owner to data_plane_studio', 'schema "{0}" belongs to data_plane_studio'),
        ('create table "{0}".t (id int)', '"{0}".t belongs to supabase_admin'),
        ('create function "{0}".f() returns int return 1', 'function "{0}".f() belongs to supabase_admin'),
    ],
)
def test_what_hands_have_changed_in_a_further_schema_is_set_right(
    server: LocalPostgres, drift: str, found: str
) -> None:
    make(server, "private")
    run(server, drift.format(PRIVATE))
    remedies = privilege_drift(server)
    remedy = remedies.pop(found.format(PRIVATE))
    assert remedy is not None
    assert remedies == {}
    run(server, remedy)
    assert privilege_drift(server) == {}
    with owner(server) as session:
        session.execute(f'create table "{PRIVATE}".mine (id int)')


KINDS = """
    create type {s}.mood as enum ('calm', 'loud');
    create type {s}.pair as (a int, b text);
    create domain {s}.short as text check (length(value) < 9);
    create type {s}.span as range (subtype = int);
    create sequence {s}.numbers;
    create function {s}.twice(a int) returns int return a * 2;
    create function {s}.noted() returns trigger language plpgsql as 'begin return new; end';
    create procedure {s}.nothing(a int) language sql as 'select 1';
    create function {s}.add_short(state int, a {s}.short) returns int return state + 1;
    create aggregate {s}.shorts({s}.short) (sfunc = {s}.add_short, stype = int, initcond = '0');
    create table {s}.plain (id serial primary key, number int generated always as identity, a {s}.mood, b {s}.short);
    create index plain_b on {s}.plain (b);
    create trigger noted before insert on {s}.plain for each row execute function {s}.noted();
    create policy everybody on {s}.plain using (true);
    create statistics {s}.plain_ab on a, b from {s}.plain;
    create table {s}.parts (id bigint generated by default as identity, at date) partition by range (at);
    create table {s}.parts_first partition of {s}.parts for values from ('2020-01-01') to ('2021-01-01');
    create view {s}.shown with (security_invoker = true) as select * from {s}.plain;
    create materialized view {s}.counted as select 1 as n;
    create table {s}.copied as select 1 as id;
    create collation {s}.letters from "C";
    create operator {s}.~=~ (function = {s}.twice, rightarg = int);
    create text search dictionary {s}.words (template = pg_catalog.simple);
    create text search configuration {s}.prose (copy = pg_catalog.simple);
"""
"""Every kind of object that a schema's owner can make."""
DEFAULTS = """
    alter default privileges for role {t}_owner revoke execute on functions from public;
    alter default privileges for role {t}_owner in schema {t} grant select, insert, update, delete on tables to {api};
    alter default privileges for role {t}_owner in schema {t} grant truncate on tables to {t}_service_role;
    alter default privileges for role {t}_owner in schema {t} grant usage, select on sequences to {api};
    alter default privileges for role {t}_owner in schema {t} grant execute on functions to {api};
"""
"""As TenantSchema declares them."""
TWINS = ("proj_made", "proj_given")


@pytest.fixture
def twins(server: LocalPostgres) -> Iterator[LocalPostgres]:
    """Two tenants that are alike: the objects of one are made by its owner, those of the other by others."""
    add_tenants(server, TWINS)
    for tenant in TWINS:
        api = ", ".join(f"{tenant}_{level}" for level in ("anon", "authenticated", "service_role"))
        run(server, DEFAULTS.format(t=tenant, api=api))
        run(server, "insert into data_plane.user_tables values (%s, true)", tenant)
        run(server, "select data_plane.provide_users(%s), data_plane.make_schema(%s, 'private')", tenant, tenant)
    yield server
    for tenant in TWINS:
        run(server, "delete from data_plane.api_access where tenant = %s", tenant)
        run(server, "select data_plane.apply_api_access(%s)", tenant)
        run(
            server, f"revoke usage on schema {tenant} from {tenant}_anon, {tenant}_authenticated, {tenant}_service_role"
        )
        run(server, "select data_plane.drop_project(%s)", tenant.removeprefix("proj_"))
        run(server, "select data_plane.sweep_jobs()")


def described(server: LocalPostgres, tenant: str, schema: str) -> list[str]:
    """Each object of a schema with its owner, grants and row-level security, as pg_dump sees them."""
    done = subprocess.run(
        [server.binaries / "pg_dump", "--schema-only", "--schema", f'"{tenant}{schema}"'],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, **server.superuser_variables},
    )
    lines = done.stdout.replace(tenant, "TENANT").splitlines()
    return sorted(line for line in lines if line and not line.startswith(("--", "SET", "\\")))


def make_kinds(server: LocalPostgres, schema: str, role: str) -> None:
    with server.connect() as admin:
        admin.execute(f'grant all on schema "{schema}" to {role}; set role {role}'.encode())
        admin.execute(KINDS.format(s=f'"{schema}"').encode())


def revert_drift(server: LocalPostgres, tenant: str) -> list[str]:
    """What `up` does; gives what it found."""
    drift = "select found, remedy from data_plane.privilege_drift(array[%s])"
    found = run(server, drift, tenant)
    with server.connect() as admin:
        for _, remedy in found:
            admin.execute(remedy.encode())
    assert run(server, drift, tenant) == []
    return [line for line, _ in found]


@pytest.mark.parametrize("maker", ["supabase_admin", STUDIO_LOGIN])
def test_what_others_make_in_a_projects_schemas_becomes_what_its_owner_makes(twins: LocalPostgres, maker: str) -> None:
    mine, given = TWINS
    schemas = ("", "$private", "$auth")
    for schema in schemas:
        make_kinds(twins, mine + schema, f"{mine}_owner")
        make_kinds(twins, given + schema, maker)
    assert revert_drift(twins, mine) == []
    assert any(line.endswith(f"belongs to {maker}") for line in revert_drift(twins, given))
    for schema in schemas:
        assert described(twins, mine, schema) == described(twins, given, schema)


def test_what_was_given_to_the_owner_without_grants_gets_them(twins: LocalPostgres) -> None:
    """As a run of an earlier version left it."""
    mine, given = TWINS
    for role, tenant in ((f"{mine}_owner", mine), ("supabase_admin", given)):
        with twins.connect() as admin:
            admin.execute(f"set role {role}; create table {tenant}.t (id serial)".encode())
            admin.execute(f"create function {tenant}.f() returns int return 1".encode())
            admin.execute(
                f"reset role; alter table {tenant}.t owner to {tenant}_owner;"
                f"alter function {tenant}.f() owner to {tenant}_owner".encode()
            )
    assert revert_drift(twins, mine) == []
    assert sorted(revert_drift(twins, given)) == [
        f"function {given}.f() lacks the grants of what {given}_owner makes",
        f"{given}.t lacks the grants of what {given}_owner makes",
        f"{given}.t_id_seq lacks the grants of what {given}_owner makes",
    ]
    assert described(twins, mine, "") == described(twins, given, "")


def test_what_a_project_has_granted_or_revoked_itself_is_no_drift(twins: LocalPostgres) -> None:
    mine, _ = TWINS
    with twins.connect() as admin:
        admin.execute(f"set role {mine}_owner; create table {mine}.t (id int)".encode())
        admin.execute(f"revoke all on {mine}.t from {mine}_anon, {mine}_authenticated, {mine}_service_role".encode())
        admin.execute(
            f"create function {mine}.f() returns int return 1; grant execute on function {mine}.f() to public"
        )
    assert revert_drift(twins, mine) == []


def test_grants_to_the_projects_roles_stay_and_others_go_with_the_former_owner(twins: LocalPostgres) -> None:
    _, given = TWINS
    run(twins, f"create table {given}.t (id int); grant trigger on {given}.t to {given}_anon")
    run(twins, f"grant select on {given}.t to public, {OTHER}_anon, {STUDIO_LOGIN}")
    revert_drift(twins, given)
    rights = run(
        twins,
        "select distinct acl.grantee::regrole::text from pg_class c, aclexplode(c.relacl) acl where c.oid = %s::regclass",
        f"{given}.t",
    )
    assert {name for (name,) in rights} == {
        f"{given}_{level}" for level in ("owner", "anon", "authenticated", "service_role")
    }
    assert run(twins, "select has_table_privilege(%s, %s, 'trigger')", f"{given}_anon", f"{given}.t") == [(True,)]


def test_what_a_project_has_to_decide_is_named_of_its_further_schemas_too(server: LocalPostgres) -> None:
    make(server, "private")
    with owner(server) as session:
        session.execute(f'create table "{PRIVATE}".t (id int)')
        session.execute(f'create table "{PRIVATE}".bare (id int)')
        session.execute(f'alter table "{PRIVATE}".bare disable row level security')
        session.execute(f'create view "{PRIVATE}".v as select * from "{PRIVATE}".t')
        session.execute(f'grant select on "{PRIVATE}".v to {ONE}_anon')
        session.commit()
        (bare,) = privilege_drift(server)
        assert bare.startswith(f'table "{PRIVATE}".bare has row-level security off')
        # Who may not use the schema reads no view of it.
        session.execute(f'grant usage on schema "{PRIVATE}" to {ONE}_anon')
        session.commit()
        (view,) = privilege_drift(server).keys() - {bare}
        assert view.startswith(f'view "{PRIVATE}".v shows all rows of "{PRIVATE}".t')


def test_too_deep_views_are_refused_across_schemas(server: LocalPostgres) -> None:
    make(server, "private")
    places = (f'"{PRIVATE}"', ONE)
    with owner(server) as session:
        session.execute(f"create view {places[0]}.v0 as select 1 as id".encode())
        for depth in range(1, 32):
            session.execute(
                f"create view {places[depth % 2]}.v{depth} as select * from {places[(depth + 1) % 2]}.v{depth - 1}"
            )
        with pytest.raises(errors.InsufficientPrivilege, match="more than 32 views"):
            session.execute(f"create view {places[0]}.v32 as select * from {places[1]}.v31")
        session.rollback()


def test_further_schemas_count_as_the_projects_storage(server: LocalPostgres) -> None:
    make(server, "private")
    before = dict(run(server, "select * from data_plane.measured_storage()"))
    with owner(server) as session:
        session.execute(
            f"create table \"{PRIVATE}\".big as select repeat('x', 1000) as x from generate_series(1, 3000)"
        )
        session.execute(f"comment on table \"{PRIVATE}\".big is '{'c' * 1000}'")
    after = dict(run(server, "select * from data_plane.measured_storage()"))
    assert after.keys() == before.keys() == set(TENANTS)
    assert after[ONE] - before[ONE] > 3_000_000
    assert after[OTHER] == before[OTHER]

    run(server, "insert into data_plane.limits values (%s, 20, 1000, 1000000, 30, 900, 60)", ONE)
    run(server, "select data_plane.enforce_storage()")
    with owner(server) as session:
        with pytest.raises(errors.InsufficientPrivilege):
            session.execute(f'insert into "{PRIVATE}".big values (1)')
        session.rollback()
        with pytest.raises(errors.DiskFull):
            session.execute(f'create table "{PRIVATE}".more (id int)')
        session.rollback()
        session.execute(f'truncate "{PRIVATE}".big')
    run(server, "select data_plane.enforce_storage()")
    with owner(server) as session:
        session.execute(f'insert into "{PRIVATE}".big values (1)')


def test_a_dropped_project_leaves_nothing_and_takes_nothing_of_anothers(server: LocalPostgres) -> None:
    """As docs/how-to/use-schemas-and-extensions.md has it."""
    for level in ("owner", "anon", "authenticated", "service_role"):
        run(server, f"create role proj_gone_{level} nologin")
    run(server, "create schema proj_gone authorization proj_gone_owner")
    run(server, "create schema proj_gone_too authorization proj_gone_owner")  # another project's name, under any owner
    run(server, "select data_plane.make_schema('proj_gone', 'private')")
    run(server, "insert into data_plane.user_tables values ('proj_gone', true)")
    run(server, "select data_plane.provide_users('proj_gone'), data_plane.provide_jobs('proj_gone')")
    run(server, "create table proj_gone.kept (id int)")
    run(server, "insert into data_plane.sign_in (tenant) values ('proj_gone'), ('proj_gone_too')")
    run(server, "grant usage on schema proj_gone to proj_gone_anon")
    with pytest.raises(errors.ObjectInUse, match="attached"):
        run(server, "select data_plane.drop_project('gone')")
    run(server, "revoke usage on schema proj_gone from proj_gone_anon")
    run(server, "create role lease_of_gone login in role proj_gone_anon")
    with pytest.raises(errors.ObjectInUse, match="lease_of_gone"):
        run(server, "select data_plane.drop_project('gone')")
    run(server, "drop role lease_of_gone")
    run(server, "alter schema proj_gone_too owner to current_user")
    run(server, "select data_plane.drop_project('gone')")
    assert run(server, "select nspname from pg_namespace where nspname like 'proj_gone%%'") == [("proj_gone_too",)]
    assert run(server, "select tenant from data_plane.sign_in where tenant like 'proj_gone%%'") == [("proj_gone_too",)]
    run(server, "select data_plane.sweep_jobs()")
    assert run(server, "select rolname from pg_roles where rolname like 'proj_gone%%'") == []
    with pytest.raises(errors.UndefinedObject, match="there is no project"):
        run(server, "select data_plane.drop_project('gone')")
    run(server, "drop schema proj_gone_too; delete from data_plane.sign_in where tenant = 'proj_gone_too'")


def test_the_platforms_sql_again_changes_nothing_of_further_schemas(server: LocalPostgres) -> None:
    make(server, "private")
    declare(server, ["api"], ["api"])
    before = [rights(server, name) for name in (PRIVATE, f"{ONE}$api")]
    # As a database of before has it.
    run(
        server,
        "alter table data_plane.limits drop column schemas, drop column buckets, drop column jobs, drop column objects",
    )
    apply_platform(server)
    assert [rights(server, name) for name in (PRIVATE, f"{ONE}$api")] == before
    assert run(server, "select l.schemas, l.buckets, l.jobs, l.objects from data_plane.limits_of('proj_x') l") == [
        (10, 20, 10, 5000)
    ]
