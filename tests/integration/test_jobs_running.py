"""Jobs as pg_cron runs them: whose session they are, what they reach, and what ends them.

Debian's pg_cron is 1.4, which is told here to be enough: it runs one job at a time, and none of these is long.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from data_plane.local.postgres import LocalPostgres
from data_plane.local.processes import wait_until
from tests.integration.pg_cron import let_tenants_have_jobs, programs_with_pg_cron
from tests.support.platform_database import Connection, add_tenants, apply_platform, connect, issue, run, running

LOGIN = "proj_one$jobs"
A_MINUTE = 150
"""At least until the next full one, on a machine that has much else to do."""
ANY_VERSION = """
create or replace function data_plane.cron_obstacle() returns text language sql stable
set search_path = pg_catalog, pg_temp as 'select null::text'
"""
JOBS = {
    "who": "insert into proj_one.seen values ('who', session_user || ' as ' || current_user"
    " || ' in ' || current_setting('search_path') || ' for ' || current_setting('statement_timeout'))",
    "unqualified": "insert into seen select 'unqualified', 'done'",
    "vacuum": "vacuum proj_one.seen",
    "other": "insert into proj_two_b.secret values ('stolen')",
    "reads": "insert into seen select 'reads', secret from proj_two_b.secret",
    "reset": "reset role; insert into seen values ('reset', current_user)",
    "none": "set role none; insert into proj_one.seen values ('none', current_user)",
    "platform": "set role supabase_admin",
    "neighbour": "set session authorization 'proj_two_b$jobs'",
    "cron": "select cron.schedule('mine', '* * * * *', 'select 1')",
    "cron rows": "update cron.job set username = 'supabase_admin'",
    "its own row": "select cron.alter_job(1, username := 'supabase_admin')",
    "more": "select data_plane_api.schedule_job('made by a job', '@daily', 'select 1')",
    "password": "set role none; alter role current_user password 'known'; alter role current_user set lock_timeout = 0",
    "limit": "set role none; alter role current_user connection limit 10",
    "lock": "do 'begin lock table data_plane.jobs; end'",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPostgres]:
    programs = programs_with_pg_cron()
    if programs is None:
        pytest.skip("pg_cron is not to be had here: no PostgreSQL of Debian's, or no package")
    with running(tmp_path_factory.mktemp("pg"), Path(programs), apply_platform, add_tenants) as made:
        let_tenants_have_jobs(made)
        yield made


@pytest.fixture(scope="module")
def obstacle(server: LocalPostgres) -> object:
    """What the platform says of this pg_cron by itself."""
    ((found,),) = run(server, "select data_plane.cron_obstacle()")
    run(server, ANY_VERSION)
    return found


@pytest.fixture(scope="module")
def owner(server: LocalPostgres, obstacle: object) -> Iterator[Connection]:
    with ExitStack() as sessions:
        for tenant in ("proj_two_b", "proj_one"):
            login = f"lease_{tenant}_owner_jobs"
            issue(server, login, f"{tenant}_owner", "1 day")
            session = sessions.enter_context(connect(server, login, "pw"))
            session.autocommit = True
            if tenant == "proj_two_b":
                session.execute("create table secret (secret text)")
                session.execute("insert into secret values ('of two')")
        session.execute("create table seen (job text, what text)")
        yield session


@pytest.fixture(scope="module")
def outcomes(server: LocalPostgres, owner: Connection) -> dict[str, tuple[str, str]]:
    """How each of the jobs ended, by name."""
    run(server, "update data_plane.limits set jobs = 100")
    run(
        server,
        "insert into data_plane.limits (tenant, connections, leases, storage, statement_timeout, transaction_timeout,"
        " idle_in_transaction_timeout, jobs) values ('proj_one', 20, 100, 10737418240, 30, 900, 60, 100)",
    )
    for name, command in JOBS.items():
        owner.execute("select data_plane_api.schedule_job(%s, '* * * * *', %s)", [name, command])

    def ended() -> dict[str, tuple[str, str]]:
        rows = owner.execute(
            "select jobname, status, return_message from data_plane_api.job_runs() where end_time is not null"
        ).fetchall()
        return {str(name): (str(status), str(message)) for name, status, message in rows}

    def settled() -> bool:
        """pg_cron notes an end with each statement of a job."""
        before = ended()
        time.sleep(2)
        return len(before) >= len(JOBS) and ended() == before

    assert wait_until(settled, A_MINUTE)
    found = ended()
    for name in JOBS:
        owner.execute("select data_plane_api.unschedule_job(%s)", [name])
    return found


def seen(owner: Connection) -> dict[str, str]:
    return dict(owner.execute("select job, what from proj_one.seen").fetchall())


def test_a_pg_cron_that_runs_one_job_at_a_time_is_not_enough(server: LocalPostgres, obstacle: object) -> None:
    ((version,),) = run(server, "select extversion from pg_extension where extname = 'pg_cron'")
    assert (obstacle == "pg_cron is older than 1.5, which runs one job at a time") is str(version).startswith("1.4")


def test_a_job_runs_as_the_owner_in_the_projects_schema(
    owner: Connection, outcomes: dict[str, tuple[str, str]]
) -> None:
    assert outcomes["who"] == ("succeeded", "INSERT 0 1")
    assert seen(owner)["who"] == f"{LOGIN} as proj_one_owner in proj_one, extensions for 15min"
    assert outcomes["unqualified"][0] == "succeeded"
    assert outcomes["vacuum"] == ("succeeded", "VACUUM")


@pytest.mark.parametrize(
    ("job", "message"),
    [
        ("other", "permission denied for schema proj_two_b"),
        ("reads", "permission denied for schema proj_two_b"),
        ("none", "permission denied for schema proj_one"),
        ("platform", "permission denied to set role"),
        ("neighbour", "permission denied to set session authorization"),
        ("cron", "permission denied for schema cron"),
        ("cron rows", "permission denied for schema cron"),
        ("its own row", "permission denied for schema cron"),
        ("limit", "permission denied"),
        ("lock", "permission denied"),
    ],
)
def test_a_job_is_never_more_than_the_owner(outcomes: dict[str, tuple[str, str]], job: str, message: str) -> None:
    status, found = outcomes[job]
    assert status == "failed"
    assert message in found


def test_a_job_that_resets_its_role_is_the_owner_again(owner: Connection, outcomes: dict[str, tuple[str, str]]) -> None:
    assert outcomes["reset"][0] == "succeeded"
    assert seen(owner)["reset"] == "proj_one_owner"


def test_a_job_may_schedule_its_own_projects_jobs(
    server: LocalPostgres, owner: Connection, outcomes: dict[str, tuple[str, str]]
) -> None:
    assert outcomes["more"][0] == "succeeded"
    assert run(server, "select username from cron.job where jobname = 'made by a job'") == [(LOGIN,)]
    owner.execute("select data_plane_api.unschedule_job('made by a job')")


def test_a_password_that_a_job_sets_opens_nothing(server: LocalPostgres, outcomes: dict[str, tuple[str, str]]) -> None:
    assert outcomes["password"][0] == "succeeded"
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        connect(server, LOGIN, "known")
    found = {row[0] for row in run(server, "select found from data_plane.job_drift(array['proj_one'])")}
    assert found == {
        'role "proj_one$jobs" has a password',
        'role "proj_one$jobs" has other settings than jobs start with',
    }
    run(server, "select data_plane.provide_jobs('proj_one')")
    assert run(server, "select found from data_plane.job_drift(array['proj_one'])") == []


def test_the_guard_ends_a_job_that_takes_too_long_or_says_too_much(
    server: LocalPostgres, owner: Connection, outcomes: dict[str, tuple[str, str]]
) -> None:
    """In one minute: an endless one, and one that is stopped because it has been ended for messages twice before."""
    run(server, "update data_plane.limits set statement_timeout = 2, transaction_timeout = 3 where tenant = 'proj_one'")
    run(
        server,
        "insert into data_plane.guard_actions (tenant, what) values ('proj_one', 'messages'), ('proj_one', 'messages')",
    )
    endless = "do $$begin set local statement_timeout = 0; loop begin perform pg_sleep(1); exception when others then end; end loop; end$$"
    flood = "set client_min_messages = notice; do $$begin loop raise notice '%', repeat('x', 1000); end loop; end$$"
    owner.execute("select data_plane_api.schedule_job('endless', '* * * * *', %s)", [endless])
    owner.execute("select data_plane_api.schedule_job('flood', '* * * * *', %s)", [flood])
    actions = "select what from data_plane.guard_actions where login = %s"
    deadline = time.monotonic() + A_MINUTE
    while time.monotonic() < deadline:
        run(server, "select data_plane.enforce_limits()")
        if {row[0] for row in run(server, actions, LOGIN)} >= {"messages", "transaction"}:
            break
        time.sleep(1)
    assert {row[0] for row in run(server, actions, LOGIN)} >= {"messages", "transaction"}
    listed = owner.execute("select jobname, stopped from data_plane_api.list_jobs()").fetchall()
    assert listed == [("endless", None), ("flood", "messages")]
    assert run(server, "select command from cron.job where jobname = 'flood'") == [("select 1",)]

    def ended() -> bool:
        return not run(server, "select 1 from pg_stat_activity where usename = %s", LOGIN)

    assert wait_until(ended, 60)
    assert wait_until(lambda: bool(failed(owner)), 60)
    owner.execute("select data_plane_api.unschedule_job('endless')")


def failed(owner: Connection) -> list[tuple[object, ...]]:
    return owner.execute("select 1 from data_plane_api.job_runs('endless') where status = 'failed'").fetchall()


def test_detaching_ends_a_job_under_way(
    server: LocalPostgres, owner: Connection, outcomes: dict[str, tuple[str, str]]
) -> None:
    owner.execute("select data_plane_api.schedule_job('long', '* * * * *', 'select pg_sleep(600)')")
    working = "select 1 from pg_stat_activity where usename = %s"
    assert wait_until(lambda: bool(run(server, working, LOGIN)), A_MINUTE)
    run(server, "update data_plane.job_access set attached = false where tenant = 'proj_one'")
    run(server, "select data_plane.provide_jobs('proj_one')")
    assert wait_until(lambda: not run(server, working, LOGIN), 60)
    assert run(server, "select command, active from cron.job where jobname = 'long'") == [("select 1", True)]
