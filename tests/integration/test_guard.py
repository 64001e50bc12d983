"""The guard as it is deployed: its loop, its login, and a NOTIFY queue that is full."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest

from components.central.guard import _LOOP
from data_plane.clients.postgres import set_password
from data_plane.local.postgres import LocalPostgres
from data_plane.local.processes import LOOPBACK, wait_until
from tests.support.platform_database import (
    PASSWORD,
    add_tenants,
    apply_platform,
    connect,
    issue,
    revoke,
    run,
    running,
)
from tests.support.postgresqls import binaries, oldest_and_newest
from tests.support.storage import make_storage

_QUEUE_SETTING_SINCE = 17


@pytest.fixture(scope="module", params=oldest_and_newest())
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPostgres]:
    with running(
        tmp_path_factory.mktemp("pg"), binaries()[request.param], apply_platform, add_tenants, make_storage
    ) as made:
        with made.connect() as admin:
            admin.execute("alter role data_plane_guard password 'for-this-test'")
        yield made


@pytest.fixture
def loop(server: LocalPostgres, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The container's command, with its files in another folder."""
    environment = {
        "PATH": f"{server.binaries}:{os.environ['PATH']}",
        "PGHOST": LOOPBACK,
        "PGPORT": str(server.port),
        "PGDATABASE": "postgres",
        "PGUSER": "data_plane_guard",
        "PGPASSWORD": PASSWORD,
    }
    script = _LOOP.replace("/tmp/", f"{tmp_path}/")  # noqa: S108
    if not (server.binaries / "psql").exists() and shutil.which("psql") is None:
        pytest.skip("there is no psql here")
    process = subprocess.Popen(["/bin/sh", "-c", script], env=environment, start_new_session=True)
    yield process
    with suppress(ProcessLookupError):
        os.killpg(process.pid, 9)
    process.wait()
    assert wait_until(lambda: backend(server) is None, 60), "its last run would count for another's"


def backend(server: LocalPostgres) -> int | None:
    found = run(server, "select pid from pg_stat_activity where usename = 'data_plane_guard'")
    return int(found[0][0]) if found else None


def test_the_loop_runs_on_one_connection_and_comes_back_when_it_is_cut(
    server: LocalPostgres, loop: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    def runs() -> list[tuple[object, ...]]:
        return run(server, "select ran_at from data_plane.guard where ran_at is not null")

    assert wait_until(lambda: bool(runs()), 60)
    first, connection = runs(), backend(server)
    assert connection is not None
    assert wait_until(lambda: runs() != first, 60)
    assert backend(server) == connection
    assert (tmp_path / "done").stat().st_mtime > time.time() - 60
    run(server, "select pg_terminate_backend(%s, 5000)", connection)
    again = runs()
    assert wait_until(lambda: runs() != again, 60)
    assert backend(server) not in (None, connection)
    assert loop.poll() is None


def test_the_guards_login_can_do_nothing_else(server: LocalPostgres) -> None:
    with connect(server, "data_plane_guard") as guard:
        guard.autocommit = True
        allowed = guard.execute(
            "select p.oid::regprocedure::text from pg_proc p join pg_namespace n on n.oid = p.pronamespace"
            " where n.nspname like 'data\\_plane%' and has_schema_privilege(n.oid, 'usage')"
            " and has_function_privilege(p.oid, 'execute')"
        ).fetchall()
        assert sorted(allowed) == [("data_plane.apply_storage()",), ("data_plane.enforce_limits()",)]
        for statement in (
            "select * from data_plane.guard",
            "update data_plane.limits set leases = 1",
            "set role proj_one_owner",
            "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'supabase_admin'",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                guard.execute(statement)


def test_two_runs_at_once_are_one(server: LocalPostgres) -> None:
    with server.connect() as first, server.connect() as second:
        first.execute("select 1 from data_plane.guard for update")
        second.execute("set statement_timeout = '30s'")
        before = second.execute("select ran_at from data_plane.guard").fetchone()
        second.execute("select data_plane.enforce_limits()")
        assert second.execute("select ran_at from data_plane.guard").fetchone() == before


@pytest.mark.parametrize("seconds", [0, 1.3], ids=["at once", "once the guard no longer looks for one"])
def test_nobody_else_loses_a_deadlock_to_the_guard(server: LocalPostgres, seconds: float) -> None:
    """An `up` that changes the platform's tables waits as long as it must; the guard gives way and runs afterwards."""
    before = run(server, "select ran_at from data_plane.guard")
    waits = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and application_name = %s"
    with ThreadPoolExecutor() as pool, server.connect() as guard:
        guard.autocommit = True
        guard.execute("set application_name to 'this guard'")
        with server.connect() as up:
            up.execute("set local deadlock_timeout = '1s'")
            up.execute("lock table data_plane.api_access in access exclusive mode")
            at_work = pool.submit(guard.execute, "select data_plane.enforce_limits()")
            assert wait_until(lambda: run(server, waits, "this guard") == [(1,)], 60)
            time.sleep(seconds)
            up.execute("lock table data_plane.guard_actions, data_plane.guard in access exclusive mode")
        at_work.result(timeout=60)
    assert run(server, "select ran_at from data_plane.guard") != before


def test_what_a_run_has_ended_is_recorded_though_its_first_try_fails(server: LocalPostgres) -> None:
    issue(server, "lease_locker", "proj_one_anon")
    with ThreadPoolExecutor() as pool, connect(server, "lease_locker", "pw") as locker:
        locker.execute("lock table storage.objects in share mode")
        with server.connect() as up:
            up.execute("lock table data_plane.guard in share mode")
            at_work = pool.submit(run, server, "select data_plane.enforce_limits()")
            gone = "select 1 from pg_stat_activity where usename = 'lease_locker'"
            assert wait_until(lambda: run(server, gone) == [], 60)
            time.sleep(0.6)  # longer than the guard waits for a lock
        at_work.result(timeout=60)
        with suppress(psycopg.OperationalError):
            locker.execute("select 1")
    assert run(server, "select tenant, login, what from data_plane.guard_actions order by id") == [
        ("proj_one", "lease_locker", "lock"),
        ("proj_one", "lease_locker", "lease closed"),
    ]
    assert run(server, "select rolconnlimit from pg_roles where rolname = 'lease_locker'") == [(0,)]
    run(server, "delete from data_plane.guard_actions")
    revoke(server, "lease_locker")


def test_what_a_run_has_ended_is_recorded_though_another_run_is_at_it(server: LocalPostgres) -> None:
    issue(server, "lease_hoarder", "proj_one_anon")
    with ThreadPoolExecutor() as pool, connect(server, "lease_hoarder", "pw") as hoarder:
        hoarder.execute("select count(pg_advisory_xact_lock(n)) from generate_series(1, 10500) n")
        with server.connect() as other:
            other.execute("select from data_plane.guard for update")
            at_work = pool.submit(run, server, "select data_plane.enforce_limits()")
            gone = "select 1 from pg_stat_activity where usename = 'lease_hoarder'"
            assert wait_until(lambda: run(server, gone) == [], 60)
            time.sleep(0.3)  # as long as a run takes
        at_work.result(timeout=60)
        with suppress(psycopg.OperationalError):
            hoarder.execute("select 1")
    assert run(server, "select tenant, login, what from data_plane.guard_actions order by id") == [
        ("proj_one", "lease_hoarder", "locks"),
        ("proj_one", "lease_hoarder", "lease closed"),
    ]
    run(server, "delete from data_plane.guard_actions")
    revoke(server, "lease_hoarder")


_ENDLESS = "do $$ begin loop begin perform pg_sleep(60); exception when query_canceled then end; end loop; end $$"


@pytest.mark.parametrize(
    ("statement", "end"),
    [("select pg_sleep(60)", psycopg.errors.QueryCanceled), (_ENDLESS, psycopg.errors.AdminShutdown)],
    ids=["one that ends", "one that catches it"],
)
def test_a_statement_is_cancelled_before_its_session_ends_however_late_the_guard_is(
    server: LocalPostgres, statement: LiteralString, end: type[psycopg.Error]
) -> None:
    issue(server, "lease_slow", "proj_one_anon")
    run(
        server,
        "insert into data_plane.limits values ('proj_one', 20, 1000, 10737418240, 1, 900, 60)"
        " on conflict (tenant) do nothing",
    )
    late = "select 1 from pg_stat_activity where usename = 'lease_slow' and clock_timestamp() - query_start > '7 s'"
    with ThreadPoolExecutor() as pool, connect(server, "lease_slow", "pw") as slow:
        slow.execute("set statement_timeout = 0")
        at_work = pool.submit(slow.execute, statement)
        assert wait_until(lambda: run(server, late) == [(1,)], 60)
        run(server, "select data_plane.enforce_limits()")
        if end is psycopg.errors.AdminShutdown:
            run(server, "select data_plane.enforce_limits()")
        with pytest.raises(end):
            at_work.result(timeout=50)
    assert {what for (what,) in run(server, "select what from data_plane.guard_actions")} == {"statement"}
    run(server, "delete from data_plane.guard_actions")
    run(server, "delete from data_plane.limits")
    revoke(server, "lease_slow")


@pytest.mark.parametrize("hidden", [False, True], ids=["by itself", "with a table that its index makes"])
def test_vacuum_full_is_no_growth(server: LocalPostgres, hidden: bool) -> None:
    """A full tenant is told to run it, and would be ended for what it writes. What else is made meanwhile counts."""
    rows = "select g as a, repeat('x', 1000) as body from generate_series(1, 5000) g"
    measured = "select bytes from data_plane.measured_storage() where tenant = 'proj_one'"
    issue(server, "lease_vacuuming", "proj_one_owner")
    with ThreadPoolExecutor() as pool, connect(server, "lease_vacuuming", "pw") as owner:
        owner.autocommit = True
        for statement in (
            f"create table kept as {rows}",
            f"create function make() returns void language plpgsql as $$begin create table proj_one.hidden as {rows}; end$$",
            (
                "create function slow(a int) returns int immutable language plpgsql as $$begin"
                " if a = 1 and current_setting('test.slow', true) = 'on' then"
                f" {'perform proj_one.make();' if hidden else ''} perform pg_sleep(5); end if; return a; end$$"
            ),
            "create index on kept (slow(a))",
            "set test.slow = 'on'",
        ):
            owner.execute(statement.encode())
        ((before,),) = run(server, measured)
        at_work = pool.submit(owner.execute, "vacuum full kept")
        asleep = "select 1 from pg_stat_activity where usename = 'lease_vacuuming' and wait_event = 'PgSleep'"
        assert wait_until(lambda: run(server, asleep) != [] or at_work.done(), 20)
        ((during,),) = run(server, measured)
        at_work.result(timeout=60)
        for table in ("kept", *(["hidden"] if hidden else [])):
            owner.execute(f"drop table {table} cascade".encode())
        owner.execute("drop function make(), slow(int)")
    assert (during > before + 4_000_000) is hidden, (before, during)
    revoke(server, "lease_vacuuming")


def test_what_the_guard_did_is_bounded(server: LocalPostgres) -> None:
    run(server, "insert into data_plane.guard_actions (what) select 'x' from generate_series(1, 10100)")
    run(server, "select data_plane.enforce_limits()")
    assert run(server, "select count(*) from data_plane.guard_actions") == [(10000,)]
    run(server, "delete from data_plane.guard_actions")


def test_in_a_full_notification_queue_others_make_tables_and_postgrest_is_told_later(server: LocalPostgres) -> None:
    major = run(server, "select current_setting('server_version_num')::int / 10000")[0][0]
    if major < _QUEUE_SETTING_SINCE:
        pytest.skip("its queue holds 8 GB, whatever is set")
    with server.connect() as admin:
        admin.autocommit = True
        admin.execute("alter system set max_notify_queue_pages = 64")
    server.stop()
    server.start()
    issue(server, "lease_one", "proj_one_anon")
    issue(server, "lease_two", "proj_two_b_owner")
    with connect(server, "lease_one", "pw") as listener, connect(server, "lease_one", "pw") as sender:
        listener.autocommit = sender.autocommit = True
        for statement in ("listen fight", "begin", "select 1"):
            listener.execute(statement)
        assert any(is_refused(sender, number) for number in range(200))
        with connect(server, "lease_two", "pw") as other, server.connect() as ear:
            ear.autocommit = True
            ear.execute("listen pgrst")
            with other.transaction():
                other.execute("create table made_meanwhile (a int)")
            time.sleep(3)  # what is open longer than two seconds holds the queue up
            for _ in range(2):
                run(server, "select data_plane.enforce_limits()")
            with pytest.raises(psycopg.errors.AdminShutdown):
                listener.execute("select 1")
            run(server, "select data_plane.enforce_limits()")
            told = {notice.payload for notice in ear.notifies(timeout=60, stop_after=2)}
            assert told | {notice.payload for notice in ear.notifies(timeout=1)} == {"reload config", "reload schema"}


def is_refused(sender: psycopg.Connection[tuple[object, ...]], number: int) -> bool:
    try:
        sender.execute("select pg_notify('fight', repeat('x', 7900) || %s::text)", [number])
    except psycopg.errors.ProgramLimitExceeded:
        return True
    return False


def test_who_locks_what_is_no_tenants_is_ended(server: LocalPostgres) -> None:
    """A role that may change a row may lock the table; row-level security is not asked."""
    issue(server, "lease_locker", "proj_one_anon")
    issue(server, "lease_waiter", "proj_one_anon")
    issue(server, "lease_maker", "proj_one_owner")
    with connect(server, "lease_maker", "pw") as maker, connect(server, "lease_locker", "pw") as locker:
        maker.execute("create table made (id int primary key, body text)")
        maker.execute("create index on made (body)")
        locker.execute("lock table storage.objects in share mode")
        with connect(server, "lease_waiter", "pw") as waiter:
            waiter.pgconn.send_query(b"begin; lock table storage.objects in access exclusive mode")
            assert wait_until(lambda: run(server, "select count(*) from pg_locks where not granted") == [(1,)], 60)
            run(server, "select data_plane.enforce_limits()")
            waiter.pgconn.finish()
        with suppress(psycopg.OperationalError):
            locker.execute("select 1")
        assert locker.closed
        maker.execute("select 1")
    done = run(server, "select login, what, value from data_plane.guard_actions where what = 'lock' order by 1")
    assert done == [
        ("lease_locker", "lock", "storage.objects: ShareLock"),
        ("lease_waiter", "lock", "storage.objects: AccessExclusiveLock"),
    ]
    run(server, "delete from data_plane.guard_actions; drop table proj_one.made")
    for login in ("lease_locker", "lease_waiter", "lease_maker"):
        revoke(server, login)


def test_what_a_leases_own_login_stores_counts_as_its_projects(server: LocalPostgres) -> None:
    issue(server, "lease_storing", "proj_one_anon")
    measured = "select bytes from data_plane.measured_storage() where tenant = 'proj_one'"
    ((before,),) = run(server, measured)
    with connect(server, "lease_storing", "pw") as session:
        session.execute("set role none")
        session.execute("select lo_from_bytea(0, decode(repeat('ab', 200000), 'hex'))")
        session.commit()
    ((after,),) = run(server, measured)
    assert after - before >= 200_000
    run(server, "select lo_unlink(oid) from pg_largeobject_metadata")
    revoke(server, "lease_storing")


@pytest.fixture
def own_login(server: LocalPostgres) -> Iterator[str]:
    """The login of a PostgREST of a project's own."""
    login = "proj_one_authenticator"
    run(server, "select data_plane.apply_api_logins(array['cell_one_authenticator', %s])", login)
    yield login
    run(server, f"drop owned by {login}")
    run(server, f"drop role {login}")


def test_what_the_login_of_a_postgrest_of_its_own_stores_counts_as_its_projects(
    server: LocalPostgres, own_login: str
) -> None:
    """In its sessions any SQL of the project runs, which may go back to the login."""
    login = own_login
    run(server, f"alter role {login} password '{PASSWORD}'")
    measured = "select bytes from data_plane.measured_storage() where tenant = 'proj_one'"
    ((before,),) = run(server, measured)
    with connect(server, login) as session:
        session.execute("select lo_from_bytea(0, decode(repeat('ab', 200000), 'hex'))")
        session.commit()
    ((after,),) = run(server, measured)
    assert after - before >= 200_000
    run(server, "select lo_unlink(oid) from pg_largeobject_metadata")


def test_a_postgrest_of_a_projects_own_gets_no_connection_that_is_reserved_for_services(
    server: LocalPostgres, own_login: str
) -> None:
    """Its project's SQL may give the login a password, and sign in with it."""
    ((version,),) = run(server, "select current_setting('server_version_num')::int")
    if version < 160000:
        pytest.skip("before PostgreSQL 16 no connection is reserved but for superusers")
    logins = ["cell_one_authenticator", own_login]
    run(server, f"grant pg_use_reserved_connections to {own_login}")  # as it was before
    run(server, "select data_plane.apply_api_logins(%s)", logins)
    member = "select pg_has_role(%s, 'pg_use_reserved_connections', 'member')"
    assert [run(server, member, login) for login in logins] == [[(True,)], [(False,)]]


def test_a_password_that_a_postgrest_of_a_projects_own_gives_its_login_is_put_back(
    server: LocalPostgres, own_login: str
) -> None:
    """It would outlast every lease of the project."""
    login = own_login
    try:
        with server.connect() as admin:
            set_password(admin, login, "the first")
        session = connect(server, login, "the first")
        session.execute(f"alter role {login} password 'known'".encode())
        session.commit()
        run(server, "select data_plane.enforce_limits()")
        with pytest.raises(psycopg.OperationalError):
            session.execute("select 1")
        with pytest.raises(psycopg.OperationalError, match="authentication failed"):
            connect(server, login, "known")
        connect(server, login, "the first").close()
        assert run(
            server, "select tenant, what, bound from data_plane.guard_actions where value like '%%did not give%%'"
        ) == [("proj_one", "password", "as given")]
        with server.connect() as admin:
            set_password(admin, login, "the second")
            run(server, "select data_plane.enforce_limits()")  # before it is committed
        run(server, "select data_plane.enforce_limits()")
        connect(server, login, "the second").close()
        run(server, "select data_plane.set_password(%s, 'in plain')", login)
        run(server, "select data_plane.enforce_limits()")
        connect(server, login, "in plain").close()
        with server.connect() as admin:
            admin.execute("select data_plane.apply_api_logins(array['cell_one_authenticator'])")
        run(server, "select data_plane.enforce_limits()")
        assert run(server, "select rolpassword, rolcanlogin from pg_authid where rolname = %s", login) == [
            (None, False)
        ]
    finally:
        run(server, "delete from data_plane.guard_actions")
