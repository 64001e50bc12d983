"""What a project has besides its first schema (users, further schemas, jobs), turned against the platform and others.

Each attack is what somebody with an `owner` lease, or code of the project's in a session of the platform's, can do. What
it is measured by is that `up`, Auth and the guard go on, and that nobody becomes the project who was not let.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from data_plane.local.postgres import LocalPostgres
from tests.integration.pg_cron import let_tenants_have_jobs, make_stand_in
from tests.integration.relay_world import ONE, TWO, delivery_session, reset, sign_up, users_database
from tests.support.platform_database import API_LOGIN, Connection, connect, issue, new_id, run
from tests.support.postgresqls import binaries, oldest_and_newest

EVERY_MINUTE = "* * * * *"
JOBS = f"{ONE}$jobs"


@pytest.fixture(scope="module", params=oldest_and_newest())
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPostgres]:
    with users_database(tmp_path_factory.mktemp("pg"), binaries()[request.param]) as server:
        make_stand_in(server)
        run(server, "select data_plane.restrict_cron()")
        for tenant in (ONE, TWO):
            issue(server, f"lease_{tenant}_owner_a", f"{tenant}_owner", "1 day")
        yield server


@pytest.fixture
def server(database: LocalPostgres) -> LocalPostgres:
    run(database, "select pg_terminate_backend(pid, 30000) from data_plane.delivery_sessions()")
    reset(database)
    run(database, "delete from data_plane.jobs")
    run(database, "delete from cron.job")
    run(database, "delete from data_plane.forgotten_jobs")
    run(database, "delete from data_plane.invitations")
    run(database, "delete from data_plane.schemas")
    let_tenants_have_jobs(database)
    return database


@pytest.fixture
def owner(server: LocalPostgres) -> Iterator[Connection]:
    """A lease as the project's owner; its transaction stays open."""
    with lease(server, ONE) as session:
        yield session


@contextmanager
def lease(server: LocalPostgres, tenant: str) -> Iterator[Connection]:
    session = connect(server, f"lease_{tenant}_owner_a", "pw")
    try:
        yield session
    finally:
        session.close()


def up(server: LocalPostgres, statement: str, *values: object) -> None:
    """As `up` does it, but with less patience."""
    with server.connect() as admin:
        # Longer than PostgreSQL takes to end an autovacuum that has a table, which is a second.
        admin.execute("set lock_timeout = '5s'; set statement_timeout = '60s'")
        admin.execute(statement.encode(), values)


@contextmanager
def job_session(server: LocalPostgres) -> Iterator[Connection]:
    """A session as pg_cron begins it for a job: the login does not count for its background workers."""
    run(server, f"alter role \"{JOBS}\" connection limit 1 password 'pw' valid until 'infinity'")
    session = connect(server, JOBS, "pw")
    run(server, f"alter role \"{JOBS}\" connection limit 0 password null valid until '1970-01-01 00:00+00'")
    session.autocommit = True
    try:
        yield session
    finally:
        session.close()
        # There is a place for one.
        run(server, "select pg_terminate_backend(pid, 30000) from pg_stat_activity where usename = %s", JOBS)


def test_invitations_that_a_project_holds_do_not_stop_auth(server: LocalPostgres, owner: Connection) -> None:
    """Sign-ups for a project that took its invitations back, and did not commit, would use up Auth's connections."""
    owner.execute("select data_plane_api.invite_member(email := 'guest@example.org')")
    owner.commit()
    owner.execute("select data_plane_api.remove_member(email := 'guest@example.org')")
    user = new_id()
    with connect(server, "supabase_auth_admin") as auth:
        auth.execute("set lock_timeout = '500ms'; set statement_timeout = '20s'")
        auth.execute(
            "insert into auth.users (id, email, raw_user_meta_data, email_confirmed_at)"
            " values (%s, 'guest@example.org', '{\"project\": \"one\"}', now())",
            [user],
        )
    assert run(server, "select 1 from data_plane.members where user_id = %s", user) == [(1,)]


def test_members_that_a_project_holds_do_not_stop_auth(server: LocalPostgres, owner: Connection) -> None:
    user = sign_up(server, ONE, "member@example.org")
    owner.execute("select data_plane_api.invite_member(email := 'member@example.org')")
    owner.commit()
    owner.execute("select data_plane_api.remove_member(user_id := %s)", [user])
    with connect(server, "supabase_auth_admin") as auth:
        auth.execute("set lock_timeout = '500ms'; set statement_timeout = '20s'")
        auth.execute("update auth.users set email_confirmed_at = now() where id = %s", [user])
    owner.commit()
    assert run(server, "select 1 from data_plane.members where user_id = %s", user) == []


def test_an_extension_that_is_there_locks_nothing_of_the_platform(server: LocalPostgres, owner: Connection) -> None:
    """`if not exists` takes no right; what the platform does then would stay locked until that transaction ends."""
    owner.execute("create extension if not exists pg_cron")
    up(server, "revoke all on schema cron from public; select data_plane.restrict_cron()")
    with lease(server, TWO) as other:
        other.execute("set lock_timeout = '500ms'")
        other.execute("create extension if not exists pg_cron")


@pytest.mark.parametrize(
    "squatter",
    [
        "create domain {home}.users as int",
        "create type {home}.users as enum ('a')",
        "create view {home}.users as select 1 as id",
        "create type {home}.users as (id int)",
        "create table {home}.users_pkey (a int)",
    ],
)
def test_whatever_has_the_name_of_the_users_does_not_stop_up(
    server: LocalPostgres, owner: Connection, squatter: str
) -> None:
    home = f'"{ONE}$auth"'
    owner.execute(f"drop table {home}.users cascade".encode())
    owner.execute(squatter.format(home=home).encode())
    owner.commit()
    up(server, "select data_plane.provide_users(%s)", ONE)


def test_a_schema_that_is_being_made_does_not_stop_up(server: LocalPostgres, owner: Connection) -> None:
    owner.execute("select data_plane_api.create_schema('wanted')")
    up(
        server,
        "insert into data_plane.schemas (tenant, declared) values ('proj_one', '{wanted,other}');"
        "select data_plane.apply_schemas('proj_one')",
    )
    up(server, 'drop schema "proj_one$wanted", "proj_one$other"')


def test_users_of_a_project_that_makes_schemas_are_provided(server: LocalPostgres, owner: Connection) -> None:
    """As when a project of before there were tables of users is brought up."""
    run(server, f'drop schema "{ONE}$auth" cascade')
    owner.execute("select data_plane_api.create_schema('wanted')")
    up(server, "select data_plane.provide_users(%s)", ONE)


def test_grants_that_are_open_do_not_keep_a_project_attached(server: LocalPostgres, owner: Connection) -> None:
    owner.execute("select data_plane_api.create_schema('wanted')")
    owner.execute(f'grant usage on schema "{ONE}$wanted" to {ONE}_anon'.encode())
    owner.commit()
    owner.execute(f'grant usage on schema "{ONE}$wanted" to {ONE}_authenticated'.encode())
    up(
        server,
        "insert into data_plane.schemas (tenant, attached) values ('proj_one', false);"
        "select data_plane.apply_schemas('proj_one')",
    )
    ((usable,),) = run(server, f"select has_schema_privilege('{ONE}_anon', '{ONE}$wanted', 'usage')")
    assert not usable
    run(server, "update data_plane.schemas set attached = true; select data_plane.apply_schemas('proj_one')")
    up(server, 'drop schema "proj_one$wanted"')


def test_a_job_that_holds_its_own_login_does_not_stop_up(server: LocalPostgres) -> None:
    with job_session(server) as job:
        job.execute(f'set role "{JOBS}"'.encode())
        job.execute(f"alter role \"{JOBS}\" set application_name = 'changed'".encode())
        job.execute("begin")
        job.execute(f"alter role \"{JOBS}\" set application_name = 'held'".encode())
        up(server, "select data_plane.provide_jobs(%s)", ONE)
    assert run(server, "select * from data_plane.job_login_faults(%s)", ONE) == []


def test_a_job_that_is_being_changed_does_not_stop_the_guard(server: LocalPostgres, owner: Connection) -> None:
    """Others' runs and jobs are cleared away all the same."""
    for tenant in (ONE, TWO):
        with lease(server, tenant) as session:
            session.execute("select data_plane_api.schedule_job('old', %s, 'select 1')", [EVERY_MINUTE])
            session.execute("select data_plane_api.unschedule_job('old')")
            session.commit()
    run(server, "select data_plane.sweep_jobs()")
    run(server, "update data_plane.forgotten_jobs set since = since - interval '1 min'")
    owner.execute("select data_plane_api.schedule_job('old', %s, 'select 1')", [EVERY_MINUTE])
    up(server, "select data_plane.sweep_jobs()")
    assert run(server, "select username from cron.job") == [(JOBS,)]
    owner.commit()
    run(server, "select data_plane.sweep_jobs()")
    assert run(server, "select command, schedule from cron.job") == [("select 1", EVERY_MINUTE)]


@pytest.mark.parametrize("kind", ["relay", "jobs"])
@pytest.mark.parametrize("member", [f"{TWO}_owner", "anon", API_LOGIN, f"lease_{TWO}_owner_a"])
@pytest.mark.parametrize("role", [f"{ONE}_owner", "itself"])
def test_a_login_of_a_project_lets_nobody_become_the_project(
    server: LocalPostgres, kind: str, member: str, role: str
) -> None:
    """Nor may a user who has left it: a login that may choose its members would be the way."""
    login = f"{ONE}${kind}"
    with delivery_session(server, ONE) if kind == "relay" else job_session(server) as session:
        session.execute(f'set role "{login if role == "itself" else role}"'.encode())
        for given in (login, f"{ONE}_owner"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                session.execute(f'grant "{given}" to {member}'.encode())
