"""Changes of Auth's users in their projects' own tables, brought there by the relay's real script."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from data_plane.connector.relay_report import read_relay_report
from data_plane.local.postgres import LocalPostgres
from tests.integration.relay_world import (
    HANDLE_NEW_USER,
    ONE,
    TWO,
    Relay,
    add_tenant,
    attach,
    change,
    delivery_session,
    events_of,
    eventually,
    relaying,
    reset,
    sign_up,
    users_database,
    users_of,
)
from tests.support.platform_database import connect, run
from tests.support.postgresqls import binaries, oldest_and_newest


@pytest.fixture(scope="module", params=oldest_and_newest())
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPostgres]:
    with users_database(tmp_path_factory.mktemp("pg"), binaries()[request.param]) as server:
        yield server


@pytest.fixture
def server(database: LocalPostgres) -> LocalPostgres:
    reset(database)
    return database


@pytest.fixture
def relay(server: LocalPostgres, tmp_path: Path) -> Iterator[Relay]:
    with relaying(server, tmp_path) as running:
        yield running


def trigger(server: LocalPostgres, tenant: str, body: str, when: str = "after insert") -> None:
    """Puts a trigger of the project's on its table."""
    run(
        server,
        f"""set role {tenant}_owner;
        create table if not exists {tenant}.seen (at timestamptz default clock_timestamp(), id uuid, what text);
        create or replace function {tenant}.hostile() returns trigger language plpgsql as $$ begin {body.replace("%", "%%")} end $$;
        create or replace trigger hostile {when} on "{tenant}$auth".users for each row execute function {tenant}.hostile()
        """,
    )


def retry_now(server: LocalPostgres) -> None:
    run(server, "update data_plane.user_events set next_try_at = now()")


# What arrives


@pytest.mark.usefixtures("relay")
def test_a_sign_up_makes_a_profile_with_the_rights_of_the_project_alone(server: LocalPostgres) -> None:
    run(server, HANDLE_NEW_USER.format(tenant=ONE))
    user = sign_up(server, ONE, "new@example.org")
    eventually(lambda: run(server, f"select 1 from {ONE}.profiles"))
    assert [(str(id_), *rest) for id_, *rest in run(server, f"select * from {ONE}.profiles")] == [
        (user, "new@example.org", f"{ONE}_owner {ONE}$relay")
    ]
    assert users_of(server, TWO) == {}
    assert events_of(server, ONE) == []


@pytest.mark.usefixtures("relay")
def test_each_change_comes_in_its_order_and_as_it_was_then(server: LocalPostgres) -> None:
    trigger(
        server,
        ONE,
        "insert into seen (id, what) values (new.id, coalesce(old.email, '-') || '>' || new.email); return new;",
        "after update of email",
    )
    user = sign_up(server, ONE, "0")
    for email in "12345":
        change(server, user, f"email = '{email}'")
    change(server, user, "last_sign_in_at = now()")
    eventually(lambda: not events_of(server, ONE))
    assert [what for (what,) in run(server, f"select what from {ONE}.seen order by at")] == [
        f"{before}>{before + 1}" for before in range(5)
    ]
    ((signed_in,),) = run(server, f'select last_sign_in_at is not null from "{ONE}$auth".users')
    assert signed_in


@pytest.mark.usefixtures("relay")
def test_a_user_who_leaves_or_is_deleted_goes_with_what_refers_to_him(server: LocalPostgres) -> None:
    run(server, HANDLE_NEW_USER.format(tenant=ONE))
    leaving, deleted, staying = (sign_up(server, ONE) for _ in range(3))
    eventually(lambda: len(run(server, f"select 1 from {ONE}.profiles")) == 3)
    run(server, "delete from data_plane.members where user_id = %s", leaving)
    with connect(server, "supabase_auth_admin") as auth:
        auth.execute("delete from auth.users where id = %s", [deleted])
    eventually(lambda: len(users_of(server, ONE)) == 1)
    assert list(users_of(server, ONE)) == [staying]
    assert [str(id_) for (id_,) in run(server, f"select id from {ONE}.profiles")] == [staying]


@pytest.mark.usefixtures("relay")
def test_nothing_secret_and_nothing_of_other_projects_arrives(server: LocalPostgres) -> None:
    run(server, "alter table auth.users add column if not exists encrypted_password text")
    user = sign_up(server, ONE)
    change(
        server,
        user,
        "encrypted_password = 'hash', raw_app_meta_data ="
        ' \'{"provider": "email", "project": "two-b", "projects": {"one": {"plan": "a"}, "two-b": {"plan": "b"}}}\'',
    )
    eventually(lambda: run(server, f"select 1 from \"{ONE}$auth\".users where raw_app_meta_data <> '{{}}'"))
    ((row,),) = run(server, f'select to_jsonb(u) from "{ONE}$auth".users u')
    assert row["raw_app_meta_data"] == {"provider": "email", "plan": "a"}
    assert "encrypted_password" not in row


@pytest.mark.usefixtures("relay")
def test_a_table_that_the_project_has_changed_gets_what_it_has_columns_for(server: LocalPostgres) -> None:
    run(
        server,
        f"alter table \"{ONE}$auth\".users drop column raw_user_meta_data, drop column phone, add column nick text default 'n'",
    )
    user = sign_up(server, ONE, "a@example.org")
    change(server, user, "email = 'b@example.org'")
    eventually(lambda: users_of(server, ONE) == {user: "b@example.org"})
    eventually(lambda: not events_of(server, ONE))


# What fails


@pytest.mark.usefixtures("relay")
def test_a_failing_event_is_kept_and_holds_up_its_user_alone(server: LocalPostgres) -> None:
    trigger(
        server,
        ONE,
        "if new.email like 'bad%' then raise exception E'no \\x1b[31m%', repeat('x', 9999); end if; return new;",
    )
    bad = sign_up(server, ONE, "bad@example.org")
    change(server, bad, "email = 'bad2@example.org'")
    good = sign_up(server, ONE, "good@example.org")
    other = sign_up(server, TWO)
    eventually(lambda: good in users_of(server, ONE) and other in users_of(server, TWO))
    eventually(lambda: events_of(server, ONE)[0][2])
    with server.connect() as admin:
        report = read_relay_report(admin)
    assert report.late is None
    (waiting,) = report.waiting
    assert (waiting.tenant, waiting.waiting, waiting.failing) == (ONE, 2, 1)
    assert waiting.error is not None
    assert waiting.error.startswith("no ?[31mxxx")
    assert len(waiting.error) == 300
    assert waiting.error.isprintable()
    assert [kind for kind, *_ in events_of(server, ONE)] == ["join", "change"]
    trigger(server, ONE, "insert into seen (id, what) values (new.id, new.email); return new;")
    retry_now(server)
    eventually(lambda: users_of(server, ONE).get(bad) == "bad2@example.org")
    assert run(server, f"select what from {ONE}.seen") == [("bad@example.org",)], "the first one came first"
    eventually(lambda: not events_of(server, ONE))


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("perform pg_sleep(60); return new;", "statement timeout"),
        ("set statement_timeout = 0; loop end loop;", "statement timeout"),
        (
            "loop begin perform pg_sleep(1); exception when query_canceled then null; end; end loop;",
            "was ended, or ended itself",
        ),
        (
            "set role none; perform pg_terminate_backend(pg_backend_pid()); perform pg_sleep(5);",
            "was ended, or ended itself",
        ),
        ("set role none; perform pg_cancel_backend(pg_backend_pid()); perform pg_sleep(5);", "user request"),
        ("set role none; return new;", "permission denied"),
        ("assert false; return new;", "assertion failed"),
        ("raise notice '%', repeat('x', 100000000); raise '%', repeat('x', 100000000);", "xxx"),
    ],
    ids=["sleeps", "loops", "catches", "terminates", "cancels", "drops its role", "asserts", "floods"],
)
@pytest.mark.usefixtures("relay")
def test_a_project_whose_trigger_misbehaves_is_alone_with_it(server: LocalPostgres, body: str, error: str) -> None:
    trigger(server, ONE, body)
    sign_up(server, ONE)
    seconds = []
    for _ in range(3):
        # At work on it again, unless it is still.
        run(
            server,
            "update data_plane.user_events set next_try_at = now()"
            " where id in (select id from data_plane.user_events for update skip locked)",
        )
        started = time.monotonic()
        user = sign_up(server, TWO)
        eventually(lambda found=user: found in users_of(server, TWO))  # type: ignore[misc]
        seconds.append(time.monotonic() - started)
    assert min(seconds) < 5, "it takes that long until the first project's is given up"
    eventually(lambda: [found for _, _, found in events_of(server, ONE) if found and error in found], 90)
    assert users_of(server, ONE) == {}
    trigger(server, ONE, "return new;")
    retry_now(server)
    eventually(lambda: len(users_of(server, ONE)) == 1)


@pytest.mark.usefixtures("relay")
def test_what_a_project_defers_to_the_end_of_a_transaction_is_heard(server: LocalPostgres) -> None:
    trigger(server, ONE, "return new;")
    run(
        server,
        f"""set role {ONE}_owner;
        create or replace function {ONE}.hostile() returns trigger language plpgsql as $$ begin raise 'at the end'; end $$;
        create constraint trigger late after insert on "{ONE}$auth".users deferrable initially deferred
            for each row execute function {ONE}.hostile()""",
    )
    sign_up(server, ONE)
    eventually(lambda: events_of(server, ONE)[0][2] == "at the end")
    assert users_of(server, ONE) == {}


@pytest.mark.usefixtures("relay")
def test_a_locked_table_holds_up_neither_auth_nor_other_projects(server: LocalPostgres) -> None:
    with server.connect() as holder:
        holder.execute(f"set role {ONE}_owner".encode())
        holder.execute(f'lock table "{ONE}$auth".users in access exclusive mode'.encode())
        user = sign_up(server, ONE)
        change(server, user, "email = 'changed@example.org'")
        other = sign_up(server, TWO)
        eventually(lambda: other in users_of(server, TWO))
        eventually(lambda: "lock timeout" in (events_of(server, ONE)[0][2] or ""))
    retry_now(server)
    eventually(lambda: users_of(server, ONE) == {user: "changed@example.org"})


# What is killed


def test_what_is_killed_in_the_middle_is_done_once(server: LocalPostgres, tmp_path: Path) -> None:
    """The relay with all of its processes, then only the session, each while a trigger is at work."""
    trigger(server, ONE, "insert into seen (id) values (new.id); perform pg_sleep(1); return new;")
    sleeping = "select pid from pg_stat_activity where usename = %s and wait_event = 'PgSleep'"
    with relaying(server, tmp_path) as relay:
        for kill in ("relay", "session"):
            user = sign_up(server, ONE)
            eventually(lambda: run(server, sleeping, f"{ONE}$relay"))
            if kill == "relay":
                relay.kill()
                relay.start()
            else:
                run(server, f"select pg_terminate_backend(pid) from ({sleeping}) found", f"{ONE}$relay")
            retry_now(server)
            eventually(lambda found=user: found in users_of(server, ONE))  # type: ignore[misc]
            eventually(lambda: not events_of(server, ONE))
    counted = run(server, f"select id, count(*) from {ONE}.seen group by 1")
    assert [times for _, times in counted] == [1, 1]


def test_a_crash_of_the_server_loses_and_repeats_nothing(server: LocalPostgres, tmp_path: Path) -> None:
    waits = "while exists (select from seen where what = 'shut') loop perform pg_sleep(0.02); end loop;"
    trigger(server, ONE, f"{waits} insert into seen (id) values (new.id); return new;")
    with relaying(server, tmp_path):
        users = [sign_up(server, ONE) for _ in range(3)]
        eventually(lambda: len(users_of(server, ONE)) == 3)
        run(server, f"insert into {ONE}.seen (what) values ('shut')")
        users += [sign_up(server, ONE) for _ in range(17)]
        eventually(
            lambda: run(server, "select 1 from pg_stat_activity where wait_event = 'PgSleep' and usename ~ %s", ONE)
        )
        # Every session is ended at once, and nothing is written: the next start recovers, as from a crash.
        crash = [*server.prefix, str(server.binaries / "pg_ctl"), "stop", "-m", "immediate", "-D", str(server.data)]
        subprocess.run(crash, check=True, stdout=subprocess.DEVNULL)
        server.start()
        assert len(users_of(server, ONE)) == 3
        run(server, f"delete from {ONE}.seen where what = 'shut'")
        users.append(sign_up(server, ONE))
        eventually(lambda: len(users_of(server, ONE)) == 21, 90)
        eventually(lambda: not events_of(server, ONE))
    assert sorted(users) == sorted(users_of(server, ONE))
    assert [times for _, times in run(server, f"select id, count(*) from {ONE}.seen group by 1")] == [1] * 21


def test_two_relays_at_once_deliver_once(server: LocalPostgres, tmp_path: Path) -> None:
    trigger(server, ONE, "insert into seen (id) values (new.id); return new;")
    with relaying(server, tmp_path / "a"), relaying(server, tmp_path / "b"):
        users = [sign_up(server, ONE) for _ in range(30)]
        eventually(lambda: not events_of(server, ONE), 60)
    assert sorted(users_of(server, ONE)) == sorted(users)
    assert [times for _, times in run(server, f"select id, count(*) from {ONE}.seen group by 1")] == [1] * 30


# What is compared


def test_a_project_that_is_attached_again_is_compared_with_its_members(server: LocalPostgres, tmp_path: Path) -> None:
    with relaying(server, tmp_path):
        staying, leaving, changing = (sign_up(server, ONE, "before") for _ in range(3))
        eventually(lambda: len(users_of(server, ONE)) == 3)
        attach(server, ONE, attached=False)
        run(server, "delete from data_plane.members where user_id = %s", leaving)
        change(server, changing, "email = 'after'")
        joining = sign_up(server, ONE, "joined")
        assert events_of(server, ONE) == [], "nothing is kept for a detached project"
        time.sleep(1.5)
        assert len(users_of(server, ONE)) == 3
        attach(server, ONE)
        wanted = {staying: "before", changing: "after", joining: "joined"}
        eventually(lambda: users_of(server, ONE) == wanted)
        eventually(lambda: not events_of(server, ONE))


def test_a_comparison_goes_through_a_large_table_in_parts(server: LocalPostgres, tmp_path: Path) -> None:
    """2,500 members, of whom 1,250 are missing, and 2,500 rows of nobody: more than one part has of each."""
    attach(server, ONE, attached=False)
    run(server, "insert into auth.users (id) select md5(i::text)::uuid from generate_series(1, 2500) i")
    run(server, f"insert into data_plane.members select md5(i::text)::uuid, '{ONE}' from generate_series(1, 2500) i")
    run(server, f'insert into "{ONE}$auth".users (id) select md5(i::text)::uuid from generate_series(1251, 5000) i')
    attach(server, ONE)
    with relaying(server, tmp_path):
        eventually(lambda: not events_of(server, ONE), 90)
    assert set(users_of(server, ONE)) == {
        str(id_) for (id_,) in run(server, "select user_id from data_plane.members where tenant = %s", ONE)
    }


def test_a_backlog_that_nobody_works_off_becomes_a_comparison(server: LocalPostgres, tmp_path: Path) -> None:
    user = sign_up(server, ONE, "0")
    for email in range(1, 30):
        change(server, user, f"email = '{email}'")
    run(server, "select data_plane.collapse_events(%s, 100)", ONE)
    assert len(events_of(server, ONE)) == 30
    run(server, "select data_plane.collapse_events(%s, 29)", ONE)
    assert events_of(server, ONE) == [("resync", 0, None)]
    with relaying(server, tmp_path):
        eventually(lambda: users_of(server, ONE) == {user: "29"})
        eventually(lambda: not events_of(server, ONE))


def test_a_long_profile_is_read_when_it_is_delivered(server: LocalPostgres, tmp_path: Path) -> None:
    """A user chooses what it says and how long it is: it is not kept for each change and each project."""
    user = sign_up(server, ONE)
    noise = "select string_agg(md5(i::text), '') from generate_series(1, 2000) i"
    for _ in range(5):
        change(server, user, f"raw_user_meta_data = jsonb_build_object('noise', ({noise}), 'at', clock_timestamp())")
    ((kept,),) = run(server, "select sum(pg_column_size(snapshot)) from data_plane.user_events")
    assert kept < 5000
    with relaying(server, tmp_path):
        eventually(lambda: not events_of(server, ONE))
    ((length,),) = run(server, f"select length(raw_user_meta_data ->> 'noise') from \"{ONE}$auth\".users")
    assert length == 64000


# Order and races


def test_a_change_while_somebody_joins_is_not_lost(server: LocalPostgres, tmp_path: Path) -> None:
    user = sign_up(server, TWO, "before")
    with connect(server, "supabase_auth_admin") as auth, server.connect() as joining:
        auth.execute("update auth.users set email = 'after' where id = %s", [user])
        joining.execute("set lock_timeout = '300ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            # Waits for the change, whose transaction does not see the membership.
            joining.execute("insert into data_plane.members values (%s, %s)", [user, ONE])
    run(server, "insert into data_plane.members values (%s, %s)", user, ONE)
    with relaying(server, tmp_path):
        eventually(lambda: users_of(server, ONE) == {user: "after"})


def test_a_change_behind_a_leaving_brings_nobody_back(server: LocalPostgres, tmp_path: Path) -> None:
    user = sign_up(server, ONE, "before")
    with server.connect() as leaving:
        leaving.execute("delete from data_plane.members where user_id = %s", [user])
        change(server, user, "email = 'after'")
    assert [kind for kind, *_ in events_of(server, ONE)] == ["join", "leave", "change"]
    with relaying(server, tmp_path):
        eventually(lambda: not events_of(server, ONE))
    assert users_of(server, ONE) == {}


@pytest.mark.usefixtures("relay")
def test_who_leaves_and_joins_again_is_new_to_the_project(server: LocalPostgres) -> None:
    trigger(server, ONE, "insert into seen (id) values (new.id); return new;")
    user = sign_up(server, ONE)
    run(server, "delete from data_plane.members where user_id = %s", user)
    run(server, "insert into data_plane.members values (%s, %s)", user, ONE)
    eventually(lambda: not events_of(server, ONE))
    assert list(users_of(server, ONE)) == [user]
    assert len(run(server, f"select 1 from {ONE}.seen")) == 2


def test_fifty_projects_at_once_are_served_whatever_some_of_them_do(server: LocalPostgres, tmp_path: Path) -> None:
    """Each by its own login; those of five whose triggers sleep wait for each other."""
    tenants = [f"proj_many{number}" for number in range(50)]
    for tenant in tenants:
        add_tenant(server, tenant)
        run(server, HANDLE_NEW_USER.format(tenant=tenant))
    asleep = tenants[::10]
    for tenant in asleep:
        run(
            server,
            f"create or replace function {tenant}.handle_new_user() returns trigger language plpgsql as"
            " $$ begin perform pg_sleep(100); return new; end $$",
        )
    with relaying(server, tmp_path):
        eventually(lambda: not run(server, "select 1 from data_plane.user_events"), 90)
        users = {tenant: sign_up(server, tenant) for tenant in tenants}
        awake = set(tenants) - set(asleep)
        eventually(
            lambda: not {tenant for (tenant,) in run(server, "select tenant from data_plane.user_events")} & awake, 40
        )
        for tenant in awake:
            rows = run(server, f"select id::text, made_by from {tenant}.profiles")
            assert rows == [(users[tenant], f"{tenant}_owner {tenant}$relay")]
        eventually(lambda: all(events_of(server, tenant)[0][2] for tenant in asleep), 90)
    run(server, "delete from data_plane.user_events")


def test_a_session_without_events_ends_by_itself(server: LocalPostgres, relay: Relay) -> None:
    sign_up(server, ONE)
    present = "select 1 from data_plane.delivery_sessions()"
    eventually(lambda: users_of(server, ONE))
    eventually(lambda: not run(server, present), 12)  # it would be ended after 15 s
    relay.kill()
    run(server, "update data_plane.relay set crowded = true")
    with delivery_session(server, ONE) as session:
        started = time.monotonic()
        assert session.execute("select * from data_plane.begin_delivery()").fetchone() == (False, True)
        assert time.monotonic() - started < 3, "where others want its place it does not wait"
    run(server, "update data_plane.relay set crowded = false")


# What keeps it to its bounds


def test_no_password_outlives_its_seconds(server: LocalPostgres) -> None:
    ((password,),) = run(server, "select data_plane.open_delivery(%s)", ONE)
    connect(server, f"{ONE}$relay", password).close()
    run(server, f"alter role \"{ONE}$relay\" valid until '{time.strftime('%Y-%m-%d')}'")
    with pytest.raises(psycopg.OperationalError, match="authentication failed"):
        connect(server, f"{ONE}$relay", password)
    run(server, "update data_plane.deliveries set password_until = now() - interval '2 min'")
    run(server, "update data_plane.deliveries set password_until = null where tenant <> %s", ONE)
    run(server, "select data_plane.end_overdue_deliveries()")
    assert run(server, "select rolpassword from pg_authid where rolname = %s", f"{ONE}$relay") == [(None,)]


def test_a_session_is_ended_when_its_time_is_over_whatever_it_has_set(server: LocalPostgres, relay: Relay) -> None:
    relay.kill()
    trigger(
        server,
        ONE,
        "set statement_timeout = 0; begin perform pg_sleep(100); exception when query_canceled then"
        " perform pg_sleep(100); end; return new;",
    )
    sign_up(server, ONE)
    relay.start()
    eventually(lambda: run(server, "select 1 from data_plane.delivery_sessions()"))
    eventually(lambda: not run(server, "select 1 from data_plane.delivery_sessions()"), 60)
    ((slow,),) = run(server, "select slow_until > now() from data_plane.deliveries where tenant = %s", ONE)
    assert slow, "it waits with others that were slow"


def test_what_is_changed_of_it_is_named_and_put_right(server: LocalPostgres) -> None:
    def problems() -> list[str]:
        return [found for (found,) in run(server, "select found from data_plane.privilege_drift(%s)", [ONE])]

    assert problems() == []
    run(server, f'grant {TWO}_anon to "{ONE}$relay"; alter role "{ONE}$relay" inherit connection limit 5')
    run(server, f'drop schema "{ONE}$auth" cascade')
    found = "\n".join(problems())
    for line in (
        f'schema "{ONE}$auth" is gone',
        f'login "{ONE}$relay" is not as it was made',
        f'login "{ONE}$relay" is a member of {TWO}_anon',
    ):
        assert line in found
    run(server, "select data_plane.provide_users(%s)", ONE)
    assert problems() == []
    assert users_of(server, ONE) == {}
