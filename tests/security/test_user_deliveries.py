"""A project's code in the session that brings it its users: it can be its own project, and nobody else.

The session is begun as the relay begins it, with the password that the relay is given; what is tried there is what a
trigger of the project's could do.
"""

from collections.abc import Iterator

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege

from data_plane.local.postgres import LocalPostgres
from tests.integration.relay_world import (
    ONE,
    TWO,
    delivery_session,
    events_of,
    eventually,
    reset,
    sign_up,
    users_database,
    users_of,
)
from tests.support.platform_database import API_LOGIN, Connection, connect, issue, revoke, run
from tests.support.postgresqls import binaries, oldest_and_newest

RELAY = f"{ONE}$relay"


@pytest.fixture(scope="module", params=oldest_and_newest())
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPostgres]:
    with users_database(tmp_path_factory.mktemp("pg"), binaries()[request.param]) as server:
        yield server


@pytest.fixture
def server(database: LocalPostgres) -> LocalPostgres:
    run(database, "select pg_terminate_backend(pid, 30000) from data_plane.delivery_sessions()")
    reset(database)
    return database


@pytest.fixture
def session(server: LocalPostgres) -> Iterator[Connection]:
    with delivery_session(server, ONE) as found:
        yield found


@pytest.mark.parametrize("role", [f"{ONE}_owner", RELAY], ids=["as the owner", "as the login itself"])
@pytest.mark.parametrize(
    "statement",
    [
        f"set role {TWO}_owner",
        f"set role {TWO}_anon",
        "set role data_plane_relay",
        "set role supabase_auth_admin",
        "set session authorization supabase_admin",
        f'select * from "{TWO}$auth".users',
        "select * from auth.users",
        "select * from data_plane.user_events",
        "update data_plane.user_events set tenant = 'proj_two_b'",
        "begin; lock table data_plane.user_events",
        "select * from data_plane.deliveries for update",
        "select * from data_plane.members",
        "select * from data_plane.open_deliveries()",
        f"select data_plane.open_delivery('{TWO}')",
        "select data_plane.end_overdue_deliveries()",
        f"select data_plane.resync_users('{TWO}')",
        f"select data_plane.collapse_events('{TWO}', 0)",
        f"select data_plane.provide_users('{ONE}')",
        "select data_plane.auth_user(gen_random_uuid())",
        f"alter role \"{RELAY}\" valid until 'infinity'",
        f'alter role "{RELAY}" connection limit -1',
        f"alter role \"{TWO}$relay\" password 'x'",
        f'grant {ONE}_owner to "{TWO}$relay"',
        "grant pg_read_all_data to proj_one_owner",
        "create role intruder",
        "create schema intruder",
        "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'supabase_admin'",
        f"select pg_terminate_backend(pid) from pg_stat_activity where usename = '{TWO}$relay'",
    ],
)
def test_it_reaches_nothing_of_anybody_else(
    server: LocalPostgres, session: Connection, role: str, statement: str
) -> None:
    with delivery_session(server, TWO) as sibling:
        session.execute(f'set role "{role}"'.encode())
        with pytest.raises(psycopg.Error) as refused:
            session.execute(statement.encode())
        assert refused.value.sqlstate == InsufficientPrivilege.sqlstate, refused.value
        session.rollback()
        sibling.execute("select 1")


def test_forged_acknowledgements_are_of_its_own_events(server: LocalPostgres, session: Connection) -> None:
    """What it says of its own is its own loss; another's stay as they are."""
    sign_up(server, ONE)
    victim = sign_up(server, TWO)
    ((event,),) = run(server, "select id from data_plane.user_events where tenant = %s", TWO)
    for call in (
        "data_plane.acknowledge_delivery(%s)",
        "data_plane.fail_delivery(%s, 'forged')",
        "data_plane.plan_resync(%s, null, null, null)",
        "data_plane.plan_resync(%s, null, null, gen_random_uuid())",
    ):
        session.execute(f"select {call}".encode(), [event])
    session.execute("select data_plane.plan_resync(-1, array[%s::uuid], array[%s::uuid], null)", [victim, victim])
    for _ in range(5):
        session.execute("select data_plane.begin_delivery(), data_plane.deliver()")
    assert events_of(server, TWO) == [("join", 0, None)]
    assert users_of(server, TWO) == {}
    assert victim not in users_of(server, ONE)
    ((mine,),) = run(server, "select count(*) from data_plane.user_events where tenant = %s", ONE)
    assert mine == 0


def test_it_is_told_of_its_own_members_alone(server: LocalPostgres, session: Connection) -> None:
    mine = sign_up(server, ONE)
    sign_up(server, TWO)
    found = session.execute(
        "select user_id, snapshot ->> 'id' from data_plane.delivery_members(null, 100000)"
    ).fetchall()
    assert [(str(user), id_) for user, id_ in found] == [(mine, mine)]


@pytest.mark.parametrize("login", ["lease_owner", "lease_service_role", API_LOGIN])
def test_no_other_session_of_the_project_is_a_delivery(server: LocalPostgres, login: str) -> None:
    role = login.replace("lease", ONE)
    if login != API_LOGIN:
        issue(server, login, role)
    with connect(server, login, "pw" if login != API_LOGIN else "for-this-test") as lease:
        lease.autocommit = True
        for call in ("begin_delivery()", "deliver()", "delivery_members(null, 1)", "acknowledge_delivery(1)"):
            with pytest.raises(InsufficientPrivilege):
                lease.execute(f"select data_plane.{call}".encode())
    if login != API_LOGIN:
        revoke(server, login)


def test_what_it_plans_is_bounded(server: LocalPostgres, session: Connection) -> None:
    forged = (
        "select data_plane.plan_resync(-1, array(select gen_random_uuid() from generate_series(1, 5000)), null, null)"
    )
    for _ in range(11):
        session.execute(forged)
    with pytest.raises(psycopg.errors.ProgramLimitExceeded):
        session.execute(forged)
    ((planned,),) = run(server, "select count(*) from data_plane.user_events where tenant = %s", ONE)
    assert planned == 11000


def test_a_password_that_it_gives_itself_is_good_for_no_longer(server: LocalPostgres, session: Connection) -> None:
    session.execute(f'set role "{RELAY}"'.encode())
    until = "select rolvaliduntil from pg_authid where rolname = %s"
    before = run(server, until, RELAY)
    session.execute(f"alter role \"{RELAY}\" password 'mine'".encode())
    assert run(server, until, RELAY) == before
    # The seconds that it has may be over before a busy machine comes to this.
    run(server, f"alter role \"{RELAY}\" valid until 'infinity'")
    with pytest.raises(psycopg.OperationalError, match="too many connections"):
        connect(server, RELAY, "mine")
    session.close()
    eventually(lambda: not run(server, "select 1 from data_plane.delivery_sessions()"))
    connect(server, RELAY, "mine").close()
    run(server, f"alter role \"{RELAY}\" valid until '{before[0][0]}'")
    run(
        server,
        "select pg_sleep(extract(epoch from valid.until - now()) + 0.2) from"
        " (select rolvaliduntil as until from pg_authid where rolname = %s) valid",
        RELAY,
    )
    with pytest.raises(psycopg.OperationalError, match="authentication failed"):
        connect(server, RELAY, "mine")


def test_settings_that_it_leaves_are_taken_back_and_named(server: LocalPostgres, session: Connection) -> None:
    session.execute(f'set role "{RELAY}"'.encode())
    session.execute(f'alter role "{RELAY}" set statement_timeout = 0'.encode())
    found = run(server, "select found from data_plane.privilege_drift(%s)", [ONE])
    assert any(f'role "{RELAY}" has the setting statement_timeout=0' in line for (line,) in found)
    run(server, "select data_plane.restore_role_settings()")
    assert run(server, "select 1 from pg_db_role_setting where setrole = %s::regrole", f'"{RELAY}"') == []


def test_a_lock_that_it_keeps_on_its_own_login_holds_up_nobody(server: LocalPostgres, session: Connection) -> None:
    session.execute(f'set role "{RELAY}"; begin; alter role "{RELAY}" password \'x\''.encode())
    sign_up(server, ONE)
    other = sign_up(server, TWO)
    run(server, f"update data_plane.deliveries set password_until = now() - interval '1 day' where tenant = '{ONE}'")
    with connect(server, "data_plane_relay") as relay:
        relay.execute("set statement_timeout = '20s'")
        opened = relay.execute("select tenant from data_plane.open_deliveries()").fetchall()
    assert opened == [(TWO,)], other


def test_it_counts_as_its_project_for_the_guard(server: LocalPostgres, session: Connection) -> None:
    session.execute(f'set role "{RELAY}"'.encode())
    session.execute("select lo_create(0) from generate_series(1, 3)")
    ((used,),) = run(server, "select data_plane.tenant_of_login(%s)", RELAY)
    assert used == ONE
    sessions = run(server, "select tenant, is_lease from data_plane.guarded_sessions() where login = %s", RELAY)
    assert sessions == [(ONE, False)]


def test_api_roles_see_nothing_of_the_table_until_the_project_says_so(server: LocalPostgres) -> None:
    run(server, f'insert into "{ONE}$auth".users (id) values (gen_random_uuid())')
    for level in ("anon", "authenticated", "service_role"):
        for what in ("users", "auth"):
            ((may,),) = run(
                server,
                f"select has_schema_privilege('{ONE}_{level}', '{ONE}$auth', 'usage')"
                if what == "auth"
                else f"select has_table_privilege('{ONE}_{level}', '\"{ONE}$auth\".users', 'select')",
            )
            assert not may
    ((protected,),) = run(server, f"select relrowsecurity from pg_class where oid = '\"{ONE}$auth\".users'::regclass")
    assert protected


def test_a_project_that_holds_every_connection_gets_its_users(server: LocalPostgres) -> None:
    """Its own limit is for its leases; the login of the delivery has a place of its own."""
    issue(server, "lease_owner", f"{ONE}_owner")
    held = [connect(server, "lease_owner", "pw") for _ in range(5)]
    try:
        with pytest.raises(psycopg.OperationalError, match="too many connections"):
            connect(server, "lease_owner", "pw")
        user = sign_up(server, ONE)
        with delivery_session(server, ONE) as session:
            session.execute("select data_plane.begin_delivery(), data_plane.deliver()")
        assert list(users_of(server, ONE)) == [user]
    finally:
        for lease in held:
            lease.close()
        revoke(server, "lease_owner")
