"""Scheduled jobs: what a project may schedule, what follows in pg_cron, and what is set right.

pg_cron itself is a stand-in here, without a scheduler (``test_jobs_running.py`` has the real one).
"""

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import errors

from data_plane.local.postgres import LocalPostgres
from tests.integration.pg_cron import let_tenants_have_jobs, make_stand_in
from tests.support.platform_database import (
    TENANTS,
    Connection,
    add_tenants,
    api_request,
    apply_platform,
    connect,
    issue,
    run,
    running,
)
from tests.support.postgresqls import binaries, oldest_and_newest

EVERY_MINUTE = "* * * * *"
LOGIN = "proj_one$jobs"
PARKED = ("0 0 30 2 *", "select 1")


@pytest.fixture(scope="module", params=oldest_and_newest())
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPostgres]:
    with running(tmp_path_factory.mktemp("pg"), binaries()[request.param], apply_platform, add_tenants) as server:
        yield server


@pytest.fixture(scope="module")
def before_cron(database: LocalPostgres) -> str:
    """What scheduling a job says before there is pg_cron."""
    issue(database, "lease_proj_one_owner_early", "proj_one_owner")
    with (
        connect(database, "lease_proj_one_owner_early", "pw") as session,
        pytest.raises(errors.FeatureNotSupported) as refused,
    ):
        schedule(session, "nightly")
    return str(refused.value)


@pytest.fixture
def server(database: LocalPostgres, before_cron: str) -> LocalPostgres:
    """With pg_cron, and without a job."""
    if not run(database, "select 1 from pg_extension where extname = 'pg_cron'"):
        make_stand_in(database)
        run(database, "select data_plane.restrict_cron()")
    run(database, "delete from data_plane.jobs")
    run(database, "delete from cron.job")
    run(database, "delete from cron.job_run_details")
    run(database, "delete from data_plane.forgotten_jobs")
    let_tenants_have_jobs(database)
    return database


@pytest.fixture
def owner(server: LocalPostgres) -> Iterator[Connection]:
    yield from lease(server, "proj_one")


@pytest.fixture
def other(server: LocalPostgres) -> Iterator[Connection]:
    yield from lease(server, "proj_two_b")


def lease(server: LocalPostgres, tenant: str) -> Iterator[Connection]:
    login = f"lease_{tenant}_owner_jobs"
    if not run(server, "select 1 from pg_roles where rolname = %s", login):
        issue(server, login, f"{tenant}_owner")
    with connect(server, login, "pw") as session:
        session.autocommit = True
        yield session


def schedule(
    session: Connection, name: str | None, when: str | None = EVERY_MINUTE, command: str | None = "select 1"
) -> int:
    row = session.execute("select data_plane_api.schedule_job(%s, %s, %s)", [name, when, command]).fetchone()
    assert row is not None
    return int(row[0])


def in_cron(server: LocalPostgres) -> list[tuple[object, ...]]:
    """The jobs that pg_cron would run some day."""
    found = run(server, "select username, jobname, schedule, command, active from cron.job order by jobid")
    return [row for row in found if row[2:4] != PARKED]


def parked(server: LocalPostgres) -> list[str]:
    """Those that it would not; an inactive one, or one that is gone, it would wait for."""
    found = run(server, "select username, jobname, schedule, command, active from cron.job order by jobid")
    assert all(row[4] for row in found)
    return [str(row[1]) for row in found if row[2:4] == PARKED]


def sweep(server: LocalPostgres) -> None:
    """Twice, a minute apart."""
    run(server, "select data_plane.sweep_jobs()")
    run(server, "update data_plane.forgotten_jobs set since = since - interval '1 min'")
    run(server, "select data_plane.sweep_jobs()")


def privilege_drift(server: LocalPostgres) -> list[tuple[str, str]]:
    found = run(server, "select found, remedy from data_plane.job_drift(%s)", list(TENANTS))
    return [(str(what), str(remedy)) for what, remedy in found]


def test_without_pg_cron_scheduling_says_what_is_lacking(before_cron: str) -> None:
    assert "this PostgreSQL has no pg_cron" in before_cron
    assert "pg_extension" in before_cron  # the hint


def test_a_job_is_scheduled_changed_and_taken_away(server: LocalPostgres, owner: Connection) -> None:
    job = schedule(owner, "nightly", "0 3 * * *", "vacuum")
    assert in_cron(server) == [(LOGIN, "nightly", "0 3 * * *", "vacuum", True)]
    assert schedule(owner, "nightly", "@hourly", "select 2") == job
    assert in_cron(server) == [(LOGIN, "nightly", "@hourly", "select 2", True)]
    listed = owner.execute(
        "select jobid, jobname, schedule, command, active from data_plane_api.list_jobs()"
    ).fetchall()
    assert listed == [(job, "nightly", "@hourly", "select 2", True)]
    assert owner.execute("select data_plane_api.unschedule_job('nightly')").fetchone() == (True,)
    assert owner.execute("select data_plane_api.unschedule_job('nightly')").fetchone() == (False,)
    job = schedule(owner, "nightly")
    assert owner.execute("select data_plane_api.unschedule_job(%s::bigint)", [job]).fetchone() == (True,)
    assert owner.execute("select data_plane_api.unschedule_job(%s::bigint)", [job]).fetchone() == (False,)
    assert in_cron(server) == []


def test_a_job_that_is_taken_away_is_forgotten_after_its_last_run(server: LocalPostgres, owner: Connection) -> None:
    job = schedule(owner, "nightly")
    run(
        server,
        "insert into cron.job_run_details (jobid, username, status, start_time) values (%s, %s, 'running', now())",
        job,
        LOGIN,
    )
    owner.execute("select data_plane_api.unschedule_job('nightly')")
    sweep(server)
    assert parked(server) == ["nightly"], "pg_cron would wait for the run to end, and it for pg_cron"
    assert privilege_drift(server) == []
    run(server, "update cron.job_run_details set status = 'failed'")
    sweep(server)
    assert run(server, "select 1 from cron.job") == []


def test_jobs_that_wait_to_be_forgotten_are_bounded(server: LocalPostgres, owner: Connection) -> None:
    for number in range(30):
        schedule(owner, f"job {number}")
        owner.execute("select data_plane_api.unschedule_job(%s)", [f"job {number}"])
    with pytest.raises(errors.ConfigurationLimitExceeded, match="taken away many jobs"):
        schedule(owner, "one too many")
    sweep(server)
    assert parked(server) == []
    schedule(owner, "one too many")


@pytest.mark.parametrize(
    "when",
    [
        "@reboot",
        "30 seconds",
        "* * * *",
        "* * * * * *",
        "",
        None,
        "* * * * *; select 1",
        "* * * * '",
        "\n* * * * *",
        "*" * 300,
    ],
)
def test_what_is_no_schedule_is_refused(server: LocalPostgres, owner: Connection, when: str | None) -> None:
    with pytest.raises(errors.InvalidParameterValue):
        schedule(owner, "odd", when)
    assert in_cron(server) == []


@pytest.mark.parametrize("name", [None, "", "two\nlines", "x" * 64, "ä" * 32])
def test_a_job_has_a_name_that_can_be_shown(server: LocalPostgres, owner: Connection, name: str | None) -> None:
    with pytest.raises(errors.InvalidParameterValue):
        schedule(owner, name)


@pytest.mark.parametrize("command", [None, "", "  ", "select '" + "x" * 8192 + "'"])
def test_a_jobs_command_is_bounded(server: LocalPostgres, owner: Connection, command: str | None) -> None:
    with pytest.raises(errors.InvalidParameterValue):
        schedule(owner, "odd", command=command)


def test_names_and_commands_are_data(server: LocalPostgres, owner: Connection) -> None:
    name, command = "x', '', 'supabase_admin'); --", "select 'proj_two_b'; drop table cron.job"
    schedule(owner, name, command=command)
    assert in_cron(server) == [(LOGIN, name, EVERY_MINUTE, command, True)]


def test_a_project_has_no_more_jobs_than_its_limit(server: LocalPostgres, owner: Connection, other: Connection) -> None:
    for number in range(10):
        schedule(owner, f"job {number}")
    with pytest.raises(errors.ConfigurationLimitExceeded):
        schedule(owner, "one too many")
    schedule(owner, "job 9", "@daily")  # a change is none more
    schedule(other, "job of another project")
    owner.execute("select data_plane_api.unschedule_job('job 0')")
    schedule(owner, "in its place")


def test_two_sessions_do_not_count_past_each_other(server: LocalPostgres, owner: Connection) -> None:
    for number in range(9):
        schedule(owner, f"job {number}")
    login = "lease_proj_one_owner_second"
    issue(server, login, "proj_one_owner")
    owner.autocommit = False
    with connect(server, login, "pw") as second:
        second.execute("set transaction isolation level repeatable read")
        second.execute("select 1 from data_plane_api.list_jobs()")  # its snapshot is from before
        schedule(owner, "the last")
        owner.commit()
        with pytest.raises((errors.ConfigurationLimitExceeded, errors.SerializationFailure)):
            schedule(second, "one too many")
    assert len(in_cron(server)) == 10


def test_jobs_of_another_project_are_neither_seen_nor_changed(
    server: LocalPostgres, owner: Connection, other: Connection
) -> None:
    job = schedule(owner, "nightly")
    run(
        server,
        "insert into cron.job_run_details (jobid, username, command, status, return_message, start_time, end_time)"
        " values (%s, %s, 'select 1', 'failed', 'a secret of one', now(), now())",
        job,
        LOGIN,
    )
    assert owner.execute("select status, return_message from data_plane_api.job_runs()").fetchall() == [
        ("failed", "a secret of one")
    ]
    assert other.execute("select data_plane_api.unschedule_job('nightly')").fetchone() == (False,)
    assert other.execute("select data_plane_api.unschedule_job(%s::bigint)", [job]).fetchone() == (False,)
    assert other.execute("select * from data_plane_api.list_jobs()").fetchall() == []
    assert other.execute("select * from data_plane_api.job_runs()").fetchall() == []
    schedule(other, "nightly", command="select 2")
    assert {row[:2] for row in in_cron(server)} == {(LOGIN, "nightly"), ("proj_two_b$jobs", "nightly")}


@pytest.mark.parametrize("role", ["proj_one_service_role", "proj_one_authenticated", "proj_one_anon"])
def test_only_an_owner_has_to_do_with_jobs(server: LocalPostgres, role: str) -> None:
    for call in ("schedule_job('a', '* * * * *', 'select 1')", "unschedule_job('a')", "list_jobs()", "job_runs()"):
        with api_request(server, role) as request, pytest.raises(errors.InsufficientPrivilege):
            request.execute(f"select data_plane_api.{call}".encode())


def test_nobody_reaches_pg_cron_past_the_platform(server: LocalPostgres, owner: Connection) -> None:
    for statement in (
        "select * from cron.job",
        "update cron.job set username = 'supabase_admin'",
        "delete from cron.job_run_details",
        "select cron.schedule_in_database('a', '* * * * *', 'select 1', 'postgres', 'supabase_admin')",
        "select cron.alter_job(1, username := 'supabase_admin')",
        "select data_plane.apply_jobs('proj_two_b')",
        "insert into data_plane.jobs values ('proj_one', 'a', 1, '', '')",
    ):
        with pytest.raises(errors.InsufficientPrivilege):
            owner.execute(statement.encode())


def test_a_detached_projects_jobs_stay_and_do_not_run(server: LocalPostgres, owner: Connection) -> None:
    schedule(owner, "nightly")
    # A transaction that keeps the rows does not hold the platform up.
    owner.autocommit = False
    schedule(owner, "nightly", "@daily")
    run(server, "update data_plane.job_access set attached = false where tenant = 'proj_one'")
    run(server, "select data_plane.provide_jobs('proj_one')")
    assert in_cron(server) == []
    assert parked(server) == ["nightly"]
    with pytest.raises(psycopg.errors.AdminShutdown):
        owner.execute("select 1")
    issue(server, "lease_proj_one_owner_detached", "proj_one_owner")
    with (
        connect(server, "lease_proj_one_owner_detached", "pw") as session,
        pytest.raises(errors.ObjectNotInPrerequisiteState),
    ):
        schedule(session, "another")
    run(server, "update data_plane.job_access set attached = true where tenant = 'proj_one'")
    run(server, "select data_plane.provide_jobs('proj_one')")
    assert in_cron(server) == [(LOGIN, "nightly", EVERY_MINUTE, "select 1", True)]


def test_changes_by_hand_are_named_and_set_right(server: LocalPostgres, owner: Connection) -> None:
    job = schedule(owner, "nightly")
    schedule(owner, "gone")
    assert privilege_drift(server) == []
    run(server, "update cron.job set command = 'select 3', active = false where jobid = %s", job)
    run(server, "delete from cron.job where jobname = 'gone'")
    for username in ("proj_one_owner", "lease_proj_one_owner_jobs", LOGIN):
        run(
            server,
            "insert into cron.job (schedule, command, database, username, jobname)"
            " values ('* * * * *', 'select 1', 'postgres', %s, 'by hand')",
            username,
        )
    run(
        server,
        "insert into cron.job (schedule, command, database, username, jobname)"
        " values ('* * * * *', 'select 1', 'postgres', 'supabase_admin', 'the operator''s')",
    )
    run(server, "alter role \"proj_one$jobs\" connection limit 5 password 'hand'")
    run(server, 'alter role "proj_one$jobs" set statement_timeout = 0')
    run(server, 'grant "proj_one$jobs" to proj_two_b_owner')
    run(server, 'grant proj_one_service_role to "proj_one$jobs"')
    found = privilege_drift(server)
    text = "\n".join(what for what, _ in found)
    for expected in (
        "job 'nightly' of proj_one is not in pg_cron as the project has scheduled it",
        "job 'gone' of proj_one is not in pg_cron",
        "runs as proj_one_owner and was not made by schedule_job",
        "runs as lease_proj_one_owner_jobs and was not made by schedule_job",
        'runs as "proj_one$jobs" and was not made by schedule_job',
        'role "proj_one$jobs" is not as the platform makes it',
        'role "proj_one$jobs" has a password',
        'role "proj_one$jobs" has other settings',
        'proj_two_b_owner is a member of "proj_one$jobs"',
        '"proj_one$jobs" is a member of proj_one_service_role',
    ):
        assert expected in text
    for remedy in dict.fromkeys(remedy for _, remedy in found):
        run(server, remedy)
    assert privilege_drift(server) == []
    assert in_cron(server) == [
        (LOGIN, "nightly", EVERY_MINUTE, "select 1", True),
        ("supabase_admin", "the operator's", EVERY_MINUTE, "select 1", True),
        (LOGIN, "gone", EVERY_MINUTE, "select 1", True),
    ]


def test_jobs_come_back_where_pg_cron_was_made_anew(
    server: LocalPostgres, owner: Connection, other: Connection
) -> None:
    schedule(owner, "first")
    schedule(other, "second")
    run(server, "truncate cron.job restart identity")
    for tenant in reversed(TENANTS):  # in another order, so that each has the number which the other had
        run(server, "select data_plane.provide_jobs(%s)", tenant)
    assert {row[:2] for row in in_cron(server)} == {(LOGIN, "first"), ("proj_two_b$jobs", "second")}
    assert privilege_drift(server) == []
    assert owner.execute("select jobname from data_plane_api.list_jobs()").fetchall() == [("first",)]


def test_status_shows_each_job_and_its_last_failure(server: LocalPostgres, owner: Connection) -> None:
    job = schedule(owner, "nightly")
    schedule(owner, "stopped")
    run(server, "update data_plane.jobs set stopped = 'lock' where name = 'stopped'")
    for status, message in (("succeeded", "SELECT 1"), ("failed", "ERROR: \x1b[31mno\nway" + "!" * 500)):
        run(
            server,
            "insert into cron.job_run_details (jobid, username, status, return_message, start_time, end_time)"
            " values (%s, %s, %s, %s, now(), now())",
            job,
            LOGIN,
            status,
            message,
        )
    report = run(server, "select tenant, name, state, last_status, failure from data_plane.job_report()")
    assert [row[:4] for row in report] == [
        ("proj_one", "nightly", "active", "failed"),
        ("proj_one", "stopped", "stopped: lock", None),
    ]
    failure = str(report[0][4])
    assert failure.startswith("ERROR:  [31mno way!")
    assert len(failure) == 200


def test_runs_are_forgotten_and_left_overs_of_projects_removed(server: LocalPostgres, owner: Connection) -> None:
    job = schedule(owner, "nightly")
    run(
        server,
        "insert into cron.job_run_details (jobid, username, status, start_time, end_time)"
        " select %s, %s, 'succeeded', now(), now() from generate_series(1, 30)",
        job,
        LOGIN,
    )
    run(
        server,
        "insert into cron.job_run_details (jobid, username, status, start_time, end_time)"
        " select 77, 'supabase_admin', 'succeeded', now() - interval '1 year', now() from generate_series(1, 30)",
    )
    # A tenant that an operator has dropped; its role is gone, too, which keeps pg_cron from loading any job.
    run(
        server,
        "insert into cron.job (schedule, command, database, username, jobname)"
        " values ('* * * * *', 'select 1', 'postgres', 'proj_gone$jobs', 'old'), ('* * * * *', 'select 1', 'postgres', 'proj_left$jobs', 'old')",
    )
    run(server, 'create role "proj_left$jobs" login')
    run(server, "insert into data_plane.jobs values ('proj_gone', 'old', 1, '* * * * *', 'select 1')")
    run(server, "select data_plane.sweep_jobs()")
    assert parked(server) == ["old"], "its role is there, so a run may be under way"
    sweep(server)
    kept = run(server, "select username, count(*) from cron.job_run_details group by 1 order by 1")
    assert kept == [(LOGIN, 20), ("supabase_admin", 30)]
    assert run(server, "select username from cron.job") == [(LOGIN,)]
    assert run(server, "select tenant from data_plane.jobs") == [("proj_one",)]
    assert run(server, "select rolname from pg_roles where rolname like 'proj\\_%%$jobs' order by 1") == [
        (LOGIN,),
        ("proj_two_b$jobs",),
    ]


def test_the_guard_stops_the_job_of_a_session_that_it_ended(server: LocalPostgres, owner: Connection) -> None:
    job = schedule(owner, "greedy")
    run(
        server,
        "insert into cron.job_run_details (jobid, job_pid, username, status, start_time) values (%s, 4711, %s, 'running', now())",
        job,
        LOGIN,
    )
    run(server, "select data_plane.stop_job(4711, 'proj_two_b$jobs', 'lock')")
    assert parked(server) == []
    run(server, "select data_plane.stop_job(4711, %s, 'lock')", LOGIN)
    assert parked(server) == ["greedy"]
    assert owner.execute("select active, stopped from data_plane_api.list_jobs()").fetchone() == (False, "lock")
    run(server, "select data_plane.provide_jobs('proj_one')")
    assert parked(server) == ["greedy"], "an `up` starts what the guard has stopped"
    schedule(owner, "greedy")
    assert parked(server) == []
    run(
        server,
        "insert into data_plane.guard_actions (tenant, what) select 'proj_one', 'job stopped' from generate_series(1, 3)",
    )
    with pytest.raises(errors.InsufficientResources):
        schedule(owner, "greedy")
    run(server, "delete from data_plane.guard_actions")


def test_the_login_for_jobs_takes_no_connection(server: LocalPostgres) -> None:
    run(server, "alter role \"proj_one$jobs\" password 'known' valid until 'infinity'")
    with pytest.raises(psycopg.OperationalError, match="too many connections for role"):
        connect(server, LOGIN, "known")
    run(server, "select data_plane.provide_jobs('proj_one')")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        connect(server, LOGIN, "known")
