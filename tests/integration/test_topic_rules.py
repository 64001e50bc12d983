"""A project's own rules for Realtime topics: what they let, who may declare them, and where their SQL runs."""

from collections.abc import Iterator, Sequence

import psycopg
import pytest
from psycopg.errors import Error, FeatureNotSupported, InsufficientPrivilege, InvalidParameterValue

from data_plane.local.postgres import LocalPostgres
from tests.integration import realtime_model as model
from tests.integration.realtime_model import PLATFORM_TENANT, Permissions, declare, join, tenant_session
from tests.support.platform_database import (
    TENANTS,
    Connection,
    add_tenants,
    apply_platform,
    connect,
    issue,
    run,
    running,
)
from tests.support.postgresqls import binaries, oldest_and_newest

ONE, TWO = TENANTS
NOTHING, READS, ALL = Permissions(False, False), Permissions(True, False), Permissions(True, True)
ANN, BOB = "5c1d6bd9-0c8f-4a3e-8a43-6f0a1c0a7f10", "77c1a1f2-59d6-4f2f-9f5f-0d8b1d1c2a31"
# The example of Supabase's documentation, in the spelling of a migration.
MEMBERS = (
    "exists (select user_id from rooms_users where user_id = (select auth.uid()) and room_topic = (select realtime.topic())"
    " and realtime.messages.extension in ('broadcast', 'presence'))"
)


@pytest.fixture(scope="module", params=oldest_and_newest())
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPostgres]:
    with running(tmp_path_factory.mktemp("pg"), binaries()[request.param], apply_platform, add_tenants) as server:
        model.start(server)
        for tenant in TENANTS:
            declare(server, tenant)
            issue(server, f"lease_{tenant}_owner_rt", f"{tenant}_owner")
            with owner(server, tenant) as session:
                session.execute("create table rooms_users (user_id uuid, room_topic text)")
                session.execute("insert into rooms_users values (%s, 'room'), (%s, 'bobs')", [ANN, BOB])
                session.execute("create policy mine on rooms_users for select using (user_id = (select auth.uid()))")
                session.execute(f"grant select on rooms_users to {tenant}_authenticated".encode())
        yield server


@pytest.fixture(autouse=True)
def no_rules(database: LocalPostgres) -> Iterator[None]:
    yield
    for tenant in TENANTS:
        with owner(database, tenant) as session:
            for (name,) in session.execute("select function_name from data_plane.topic_rules(%s)", [tenant]).fetchall():
                session.execute(f'drop function "{name}"(text, text)'.encode())


def owner(database: LocalPostgres, tenant: str) -> Connection:
    return connect(database, f"lease_{tenant}_owner_rt", "pw")


def rule(
    database: LocalPostgres,
    name: str,
    command: str,
    expression: str | None,
    check: str | None = None,
    *,
    roles: Sequence[str] = ("authenticated",),
    permissive: bool = True,
    tenant: str = ONE,
) -> None:
    with owner(database, tenant) as session:
        session.execute(
            "select data_plane_api.declare_topic_rule(%s, %s, %s, %s, %s, %s)",
            [name, command, list(roles), expression, check, permissive],
        )


def may(
    database: LocalPostgres, user: str, topic: str, *, level: str = "authenticated", extension: str = "broadcast"
) -> Permissions:
    with tenant_session(database, ONE) as session:
        return join(session, {"role": f"{ONE}_{level}", "sub": user}, topic, extension=extension)


def test_a_room_is_its_members(database: LocalPostgres) -> None:
    assert may(database, BOB, "room") == ALL, "without rules, topics are for all users"
    rule(database, "members read", "select", MEMBERS)
    assert (may(database, ANN, "room"), may(database, BOB, "room")) == (READS, NOTHING)
    rule(database, "members write", "insert", None, MEMBERS)
    assert (may(database, ANN, "room"), may(database, BOB, "room")) == (ALL, NOTHING)
    assert may(database, ANN, "bobs") == NOTHING
    assert may(database, BOB, "bobs", extension="presence") == ALL
    with tenant_session(database, TWO) as session:
        assert join(session, {"role": f"{TWO}_authenticated", "sub": BOB}, "room") == ALL, (
            "another project's are its own"
        )


def test_all_is_both_and_a_rule_is_replaced_by_its_name(database: LocalPostgres) -> None:
    rule(database, "r", "ALL", "topic = 'a'", "topic = 'b'")
    assert [may(database, ANN, topic) for topic in "abc"] == [READS, Permissions(False, True), NOTHING]
    rule(database, "r", "all", "messages.topic like 'a%'")
    assert [may(database, ANN, topic) for topic in ("a", "b")] == [ALL, NOTHING]
    long = "Only those who are members of a room may read what is said in it, and nobody else"
    rule(database, long, "select", "true -- and a comment")
    assert may(database, ANN, "b") == READS
    with owner(database, ONE) as session:
        dropped = "select data_plane_api.drop_topic_rule(%s)"
        assert [session.execute(dropped, [name]).fetchone() for name in (long, long, "r")] == [
            (True,),
            (False,),
            (True,),
        ]
    assert may(database, ANN, "b") == ALL


def test_restrictive_rules_and_roles_hold(database: LocalPostgres) -> None:
    rule(database, "all", "all", "true", roles=["public"])
    rule(database, "not this", "all", "topic <> 'secret'", permissive=False, roles=[f"{ONE}_authenticated"])
    assert (may(database, ANN, "secret"), may(database, ANN, "room")) == (NOTHING, ALL)
    assert may(database, ANN, "room", level="anon") == NOTHING, "it may not join at all"
    declare(database, ONE, public=True)
    assert (may(database, ANN, "secret", level="anon"), may(database, ANN, "room", level="anon")) == (ALL, ALL)
    declare(database, ONE)
    rule(database, "all", "all", "true", roles=["service_role"])
    assert may(database, ANN, "room") == NOTHING
    rule(database, "all", "all", "null")
    assert may(database, ANN, "room") == NOTHING
    rule(database, "all", "all", "1 / 0 = 1")
    assert may(database, ANN, "room") == NOTHING


def test_with_rules_alone_topics_are_closed_without_one(database: LocalPostgres) -> None:
    declare(database, ONE, topics="rules")
    assert may(database, ANN, "room") == NOTHING
    rule(database, "r", "select", "true")
    assert may(database, ANN, "room") == READS
    declare(database, ONE)


@pytest.mark.parametrize("command", ["update", "delete", "", "select; drop table rooms_users", "select, too"])
def test_what_realtime_does_not_ask_for_is_no_rule(database: LocalPostgres, command: str) -> None:
    with pytest.raises(FeatureNotSupported):
        rule(database, "r", command, "true", "true")


def test_a_rule_says_something(database: LocalPostgres) -> None:
    for name, command, expression, check in (
        ("r", "select", None, "true"), ("r", "insert", "true", None), ("", "select", "true", None),
    ):  # fmt: skip
        with pytest.raises(InvalidParameterValue):
            rule(database, name, command, expression, check)
    for wrong in ("", "tru", "topic =", "true)", "no_such_column = 1", "(select 1)"):
        with pytest.raises(Error):
            rule(database, "r", "select", wrong)
    assert may(database, BOB, "room") == ALL


def test_only_an_owner_declares_rules_and_its_own(database: LocalPostgres) -> None:
    for level in ("service_role", "authenticated", "anon"):
        issue(database, f"lease_one_{level}_rule", f"{ONE}_{level}")
        for call in ("declare_topic_rule('r', 'select', null, 'true')", "drop_topic_rule('r')"):
            with (
                connect(database, f"lease_one_{level}_rule", "pw") as session,
                pytest.raises(InsufficientPrivilege),
            ):
                session.execute(f"select data_plane_api.{call}".encode())


# Texts that would reach further, if anybody else's rights ran them
ESCAPES = [
    "true) from pg_authid; alter role {one}_owner superuser; select (true",
    "true); create policy p on realtime.messages using (true); select (true",
    "(select count(*) from data_plane.realtime) > 0",
    "(select count(*) from _realtime.extensions) > 0",
    "(select count(*) from {two}.rooms_users) > 0",
    "(select count(*) from realtime.subscription) >= 0",
    "(select data_plane.publish_keys('{{}}'))",
    "pg_read_file('/etc/passwd') is not null",
    "set_config('role', 'supabase_admin', true) = 'supabase_admin'",
    "(select lo_import('/etc/passwd')) > 0",
]


@pytest.mark.parametrize("text", ESCAPES)
def test_an_expression_reaches_no_further_than_its_project(database: LocalPostgres, text: str) -> None:
    before = run(database, "select count(*), count(*) filter (where rolsuper) from pg_roles")
    policies = run(database, "select count(*) from pg_policy")
    try:
        rule(database, "r", "all", text.format(one=ONE, two=TWO))
    except Error:
        assert run(database, "select count(*) from data_plane.topic_rules(%s)", ONE) == [(0,)]
    else:
        assert may(database, ANN, "room") == NOTHING
    assert run(database, "select count(*), count(*) filter (where rolsuper) from pg_roles") == before
    assert run(database, "select count(*) from pg_policy") == policies


# What a project whose API is its own may write: admission does not look at it.
HOSTILE = """
    set local session_replication_role to replica;
    create function {one}.spy(text, text) returns boolean language plpgsql {kind} as $f$
    begin
        perform dblink_free();
        return true;
    exception when undefined_function then
        begin
            execute 'set local role supabase_admin';
            execute 'alter role {one}_owner superuser';
        exception when others then
            null;
        end;
        raise warning 'it ran as % for %', current_user, session_user;
        return true;
    end $f$;
    create or replace function {one}."topic select: spy"(text, text) returns boolean language sql stable as
        $f$ select {one}.spy('a constant', 'another') $f$;
    alter function {one}.spy(text, text) owner to {one}_owner;
    alter function {one}."topic select: spy"(text, text) owner to {one}_owner;
    grant execute on function {one}.spy(text, text), {one}."topic select: spy"(text, text) to {one}_authenticated;
"""


@pytest.mark.parametrize("kind", ["immutable", "stable", "volatile"])
def test_a_rules_sql_runs_in_the_projects_own_sessions_alone(database: LocalPostgres, kind: str) -> None:
    run(database, HOSTILE.format(one=ONE, kind=kind).replace("%", "%%"))
    messages: list[str] = []
    token = {"role": f"{ONE}_authenticated", "sub": ANN}

    def heard(notice: psycopg.errors.Diagnostic) -> None:
        messages.append(notice.message_primary or "")

    try:
        with tenant_session(database, PLATFORM_TENANT) as session:
            session.add_notice_handler(heard)
            assert join(session, token, "room") == NOTHING
        assert messages == [], "not even while a statement is planned"
        with tenant_session(database, ONE) as session:
            session.add_notice_handler(heard)
            assert join(session, token, "room") == READS
            assert session.execute("select current_user, session_user").fetchone() == (
                f"{ONE}$realtime",
                f"{ONE}$realtime",
            )
        assert messages == [f"it ran as {ONE}_authenticated for {ONE}$realtime"]
        assert run(database, "select rolsuper from pg_roles where rolname = %s", f"{ONE}_owner") == [(False,)]
    finally:
        run(database, f'drop function {ONE}."topic select: spy"(text, text), {ONE}.spy(text, text)')


def test_a_rule_that_sleeps_or_fails_holds_up_its_own_project_alone(database: LocalPostgres) -> None:
    rule(database, "slow", "select", "(select pg_sleep(60)) is not null")
    assert may(database, ANN, "room") == NOTHING
    with tenant_session(database, TWO) as session:
        assert join(session, {"role": f"{TWO}_authenticated"}, "room") == ALL
