"""Realtime of two projects in one database: who joins which topic, what is stored, and the rows that Realtime finds.

Realtime itself cannot be run here. What it sends is modelled in realtime_model.py, and run on real servers as the logins
that it is given.
"""

from collections.abc import Iterator

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege, OperationalError

from components.tenant.realtime import _Provider
from data_plane.local.postgres import LocalPostgres
from data_plane.local.servers import LOOPBACK
from tests.integration import realtime_model as model
from tests.integration.realtime_model import PLATFORM_TENANT, Permissions, declare, join, tenant_session, withdraw
from tests.support.platform_database import (
    API_LOGIN,
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

ONE, TWO = TENANTS
NOTHING, READS, ALL = Permissions(False, False), Permissions(True, False), Permissions(True, True)
# What an operator's applications may have: policies for the platform's own users.
OPERATORS = """
    create policy "operator reads" on realtime.messages for select to authenticated using (true);
    create policy "operator writes" on realtime.messages for insert to authenticated with check (true);
"""


@pytest.fixture(scope="module", params=oldest_and_newest())
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPostgres]:
    with running(tmp_path_factory.mktemp("pg"), binaries()[request.param], apply_platform, add_tenants) as server:
        # Before Realtime has any table: the tenant comes to be with them.
        declare(server, ONE)
        model.start(server)
        declare(server, TWO)
        run(server, OPERATORS)
        for tenant in TENANTS:
            for level in ("anon", "authenticated", "service_role", "owner"):
                issue(server, f"lease_{tenant}_{level}_rt", f"{tenant}_{level}")
        yield server


@pytest.fixture(autouse=True)
def as_declared(database: LocalPostgres) -> Iterator[None]:
    yield
    assert run(database, "select count(*) from realtime.messages where topic <> 'kept'") == [(0,)], "nothing is stored"


def lease(database: LocalPostgres, role: str) -> Connection:
    return connect(database, f"lease_{role}_rt", "pw")


def claims(role: str, **more: object) -> dict[str, object]:
    return {"role": role, "sub": "5c1d6bd9-0c8f-4a3e-8a43-6f0a1c0a7f10", "exp": 2**31, **more}


# Who joins


@pytest.mark.parametrize("tenant", TENANTS)
@pytest.mark.parametrize("extension", ["broadcast", "presence"])
def test_a_projects_users_use_its_topics(database: LocalPostgres, tenant: str, extension: str) -> None:
    with tenant_session(database, tenant) as session:
        assert join(session, claims(f"{tenant}_authenticated"), "room", extension=extension) == ALL
        assert join(session, claims(f"{tenant}_anon"), "room", extension=extension) == NOTHING
        assert join(session, claims(f"{tenant}_authenticated"), "room", extension=extension) == ALL


FOREIGN = [
    f"{TWO}_authenticated", f"{TWO}_anon", f"{TWO}_service_role", f"{TWO}_owner", f"{TWO}$realtime",
    "authenticated", "anon", "service_role", "authenticator", "postgres", "supabase_admin", "supabase_realtime_admin",
    "data_plane_realtime", "data_plane_tenant", API_LOGIN, f"{ONE}_owner", f"{ONE}_service_role", "", "nobody",
    f"{ONE}_authenticated;reset role", f'"{ONE}_authenticated"',
]  # fmt: skip


@pytest.mark.parametrize("role", FOREIGN)
def test_any_other_token_joins_nothing_whatever_it_says(database: LocalPostgres, role: str) -> None:
    headers = {"x-data-plane-project": "one", "x-forwarded-host": ONE, "host": ONE}
    message = claims(role, project="one", tenant=ONE, session_project="one", iss=ONE, app_metadata={"role": ONE})
    with tenant_session(database, ONE) as session:
        for topic in ("room", ONE, f"{ONE}:room", f"{TWO}:room"):
            assert join(session, message, topic, headers=headers) == NOTHING
        assert join(session, claims(f"{ONE}_authenticated"), "room") == ALL


@pytest.mark.parametrize("level", ["authenticated", "anon", "service_role", "owner"])
def test_in_the_platforms_own_tenant_a_projects_token_joins_nothing(database: LocalPostgres, level: str) -> None:
    # Its session is the superuser's, who can assume every role.
    with tenant_session(database, PLATFORM_TENANT) as session:
        session.execute("set data_plane.topics to 'users'")
        found = join(session, claims(f"{ONE}_{level}"), "room")
        assert found == (NOTHING if level != "service_role" else found)
        assert not found.write or level == "service_role"
        assert join(session, claims("authenticated"), "room") == ALL, (
            "an operator's policies are for the platform's users"
        )


def test_without_a_session_of_the_token_only_a_public_project_is_joined(database: LocalPostgres) -> None:
    declare(database, ONE, public=True)
    try:
        with tenant_session(database, ONE) as session:
            assert join(session, claims(f"{ONE}_anon"), "room") == READS
            assert join(session, claims(f"{TWO}_anon"), "room") == NOTHING
    finally:
        declare(database, ONE)
    with tenant_session(database, ONE) as session:
        assert join(session, claims(f"{ONE}_anon"), "room") == NOTHING


def test_the_login_has_no_other_right(database: LocalPostgres) -> None:
    attributes = run(
        database,
        "select rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls, rolconnlimit from pg_roles"
        " where rolname = %s",
        f"{ONE}$realtime",
    )
    assert attributes == [(False, False, False, False, False, 10)]
    members = run(
        database,
        "select r.rolname from pg_auth_members m join pg_roles r on r.oid = m.roleid"
        " where m.member = %s::regrole order by 1",
        f'"{ONE}$realtime"',
    )
    assert members == [("data_plane_realtime",), (f"{ONE}_authenticated",)]
    assert "WAL sender" in (message := model.replication_refused(database, ONE)) or "walsender" in message
    with tenant_session(database, ONE) as session:
        for statement in (
            "create table realtime.messages_2000_01_01 partition of realtime.messages for values from ('2000-01-01') to ('2000-01-02')",
            "drop table realtime.messages",
            "do $$ begin lock table realtime.messages in share mode; end $$",
            "update realtime.messages set topic = 'x'",
            "create publication p for table realtime.messages",
            "select pg_create_logical_replication_slot('s', 'pgoutput')",
            "select * from _realtime.tenants",
            "select * from _realtime.extensions",
            "select * from data_plane.realtime",
            "create temp table t (n int)",
        ):
            with pytest.raises((InsufficientPrivilege, psycopg.errors.ObjectNotInPrerequisiteState)):
                session.execute(statement.encode())
        session.execute("select 1")


# What is stored


@pytest.mark.parametrize("tenant", TENANTS)
@pytest.mark.parametrize("level", ["anon", "authenticated", "service_role", "owner"])
def test_a_lease_stores_no_message_and_sees_none(database: LocalPostgres, tenant: str, level: str) -> None:
    run(
        database,
        "insert into realtime.messages (topic, extension, payload, event, private) values ('kept', 'broadcast', '{}', 'e', true)",
    )
    with lease(database, f"{tenant}_{level}") as session:
        session.autocommit = True
        for setting in ("data_plane.topics", "request.jwt.claims", "realtime.topic"):
            session.execute(f"set {setting} to 'users'".encode())
        seen: list[object] = []
        for statement in (
            "select realtime.send('{}', 'e', 't', true)",
            "insert into realtime.messages (topic, extension) values ('t', 'broadcast')",
            "insert into realtime.messages (topic, extension, payload, event, private) values ('t', 'broadcast', '{}', 'e', true)",
            "update realtime.messages set topic = 't'",
            "delete from realtime.messages",
            "do $$ begin lock table realtime.messages in access exclusive mode; end $$",
            f'set role "{tenant}$realtime"',
        ):
            try:
                session.execute(statement.encode())
            except InsufficientPrivilege:
                continue
            assert "realtime.send" in statement, "which only warns"
        for table in ("messages", "subscription"):
            try:
                seen += session.execute(f"select 1 from realtime.{table}".encode()).fetchall()
            except InsufficientPrivilege:
                continue
        assert seen == []
    assert run(database, "select count(*) from realtime.messages where topic <> 'kept'") == [(0,)]


def test_a_request_of_the_api_stores_no_message(database: LocalPostgres) -> None:
    with (
        api_request(database, f"{ONE}_authenticated", settings={"data_plane.topics": "users"}) as session,
        pytest.raises(InsufficientPrivilege),
    ):
        session.execute("insert into realtime.messages (topic, extension) values ('t', 'broadcast')")


def test_what_the_platform_has_sent_is_replayed_to_no_project(database: LocalPostgres) -> None:
    run(
        database,
        "insert into realtime.messages (topic, extension, payload, event, private) values ('kept', 'broadcast', '{}', 'e', true)",
    )
    with tenant_session(database, PLATFORM_TENANT) as session:
        assert model.replay(session, "kept")
    for tenant in TENANTS:
        with tenant_session(database, tenant) as session:
            assert model.replay(session, "kept") == []


def test_subscriptions_are_seen_by_no_project(database: LocalPostgres) -> None:
    run(
        database,
        "insert into realtime.subscription (subscription_id, entity, claims)"
        " values (gen_random_uuid(), 'pg_class', '{\"email\": \"a@example.org\"}')",
    )
    with api_request(database, f"{ONE}_authenticated") as session:
        assert session.execute("select * from realtime.subscription").fetchall() == []
    with api_request(database, "authenticated") as session:
        assert session.execute("select * from realtime.subscription").fetchall()


def test_the_guard_keeps_the_days_partitions(database: LocalPostgres) -> None:
    old = "messages_2020_01_01"
    run(
        database,
        f"create table realtime.{old} partition of realtime.messages for values from ('2020-01-01') to ('2020-01-02')",
    )
    tomorrow = run(database, "select 'messages_' || to_char(now() at time zone 'utc' + interval '1 day', 'YYYY_MM_DD')")
    run(database, f"drop table realtime.{tomorrow[0][0]}")
    run(database, "select data_plane.keep_message_partitions()")
    found = {row[0] for row in run(database, "select relname from pg_class where relname like 'messages_2%%'")}
    assert old not in found
    assert tomorrow[0][0] in found
    owners = run(
        database,
        "select distinct relowner::regrole::text from pg_class where relname ~ '^messages(_\\d{4}_\\d\\d_\\d\\d)?$'"
        " and relnamespace = 'realtime'::regnamespace and relname = %s",
        tomorrow[0][0],
    )
    assert owners == [("supabase_realtime_admin",)]


# The rows that Realtime finds


def tenant_row(database: LocalPostgres, tenant: str) -> dict[str, object]:
    found = run(
        database,
        "select to_jsonb(t) || jsonb_build_object('settings', e.settings) from _realtime.tenants t"
        " join _realtime.extensions e on e.tenant_external_id = t.external_id where t.external_id = %s",
        tenant,
    )
    assert len(found) == 1
    row = found[0][0]
    assert isinstance(row, dict)
    return row


def test_a_projects_tenant_is_what_its_file_says(database: LocalPostgres) -> None:
    row = tenant_row(database, ONE)
    assert {key: row[key] for key in ("private_only", "suspend", "max_concurrent_users", "max_joins_per_second")} == {
        "private_only": True, "suspend": False, "max_concurrent_users": 20, "max_joins_per_second": 7,
    }  # fmt: skip
    assert row["postgres_cdc_default"] != "postgres_cdc_rls", "so that no client is subscribed to a table"
    settings = row["settings"]
    assert isinstance(settings, dict)
    assert (settings["db_user"], settings["db_password"], settings["db_host"]) == (f"g1:{ONE}", "g1:pw", "g1:host")
    assert settings["publication"] == "data_plane_none"
    declare(database, ONE, max_concurrent_users=21)
    changed = tenant_row(database, ONE)
    assert (changed["id"], changed["max_concurrent_users"]) == (row["id"], 21)
    declare(database, ONE)


def test_realtimes_next_start_changes_no_projects_tenant_but_what_it_says_of_the_database(
    database: LocalPostgres,
) -> None:
    before = tenant_row(database, ONE)
    model.seed(database, host="g1:another")
    after = tenant_row(database, ONE)
    settings = after["settings"]
    assert isinstance(settings, dict)
    assert (after["id"], settings["db_host"], settings["db_user"]) == (before["id"], "g1:another", f"g1:{ONE}")
    assert tenant_row(database, PLATFORM_TENANT)["private_only"] is True
    model.seed(database)


def test_keys_follow_in_every_tenant_and_no_topic_is_for_everybody(database: LocalPostgres) -> None:
    keys = (
        '{"keys": [{"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": "%s",'
        ' "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}'
    )
    for name in ("first", "second"):
        run(database, "select data_plane.publish_keys(%s::jsonb)", keys % name)
        found = run(database, "select distinct jwt_jwks #>> '{keys,0,kid}' from _realtime.tenants")
        assert found == [(name,)]
    run(database, "update _realtime.tenants set private_only = false, jwt_jwks = '{\"keys\": []}'")
    found = run(database, "select distinct private_only, jwt_jwks #>> '{keys,0,kid}' from _realtime.tenants")
    assert found == [(True, "second")]
    run(database, "delete from data_plane.verifying_keys")


def test_a_detached_project_is_suspended_and_its_sessions_end(database: LocalPostgres) -> None:
    with tenant_session(database, TWO) as session:
        declare(database, TWO, attached=False)
        with pytest.raises(OperationalError):
            session.execute("select 1")
    with pytest.raises(OperationalError), tenant_session(database, TWO):
        pass
    assert tenant_row(database, TWO)["suspend"] is True
    declare(database, TWO)
    assert tenant_row(database, TWO)["suspend"] is False
    with tenant_session(database, TWO) as session:
        assert join(session, claims(f"{TWO}_authenticated"), "room") == ALL


def test_a_project_without_realtime_leaves_nothing(database: LocalPostgres) -> None:
    withdraw(database, TWO)
    assert run(database, "select from _realtime.tenants where external_id = %s", TWO) == []
    assert run(database, "select from _realtime.extensions where tenant_external_id = %s", TWO) == []
    assert run(database, "select from pg_roles where rolname = %s", f"{TWO}$realtime") == []
    withdraw(database, TWO)
    declare(database, TWO)


def test_drift_names_no_login_of_realtimes_but_what_it_should_not_be(database: LocalPostgres) -> None:
    drift = "select found from data_plane.privilege_drift(array[%s, %s]) where found like '%%$realtime%%'"
    assert run(database, drift, ONE, TWO) == []
    run(database, f'grant {TWO}_authenticated, {ONE}_owner to "{ONE}$realtime"')
    found = {row[0] for row in run(database, drift, ONE, TWO)}
    run(database, f'revoke {TWO}_authenticated, {ONE}_owner from "{ONE}$realtime"')
    assert len(found) == 2
    apply_platform(database)
    assert run(database, drift, ONE, TWO) == []


def test_what_realtime_brings_along_is_no_change_by_hand(database: LocalPostgres) -> None:
    with database.connect() as admin:
        before = sorted(admin.execute("select data_plane.present_objects()").fetchall())
    run(database, "drop schema realtime cascade")
    model.start(database)
    run(database, OPERATORS)
    with database.connect() as admin:
        assert sorted(admin.execute("select data_plane.present_objects()").fetchall()) == before
    # Its migrations give more than it uses, after the table is there.
    run(database, "grant select, insert, update on realtime.messages to anon, authenticated, service_role")
    for role, wanted in (("authenticated", False), ("anon", False), ("service_role", True)):
        found = run(database, "select has_table_privilege(%s, 'realtime.messages', 'update')", role)
        assert found == [(wanted,)]
    with tenant_session(database, ONE) as session:
        assert join(session, claims(f"{ONE}_authenticated"), "room") == ALL


def test_realtimes_table_may_be_made_step_by_step(database: LocalPostgres) -> None:
    run(database, "drop schema realtime cascade")
    run(database, "create schema realtime; create table realtime.messages (id bigint, topic text not null)")
    run(database, "alter table realtime.messages add extension text")
    assert run(database, "select count(*) from pg_policies where schemaname = 'realtime'")[0][0] >= 4
    run(database, "alter table realtime.messages rename to messages_old; drop table realtime.messages_old")
    run(database, "drop schema realtime cascade")
    model.start(database)
    run(database, OPERATORS)
    with tenant_session(database, ONE) as session:
        assert join(session, claims(f"{ONE}_authenticated"), "room") == ALL


# The resource


def test_the_resource_gives_a_password_that_realtime_alone_can_read(
    database: LocalPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider, key = _Provider(), "0123456789abcdef" * 2
    monkeypatch.setattr("components.tenant.realtime._key", lambda _props: key)
    props = {
        "host": LOOPBACK, "port": database.port, "database": "postgres", "username": "supabase_admin",
        "password": database.admin_password, "sslmode": "disable", "address": "https://openbao.example", "tenant": TWO,
        "attached": True, "public": False, "topics": "users", "max_concurrent_users": 200, "max_events_per_second": 100,
        "max_bytes_per_second": 1 << 17, "max_channels_per_client": 100, "max_joins_per_second": 100,
    }  # fmt: skip
    outs = provider.create(props).outs or {}

    def is_sealed() -> bool:
        return bool((provider.read("id", outs).outs or {})["sealed"])

    assert outs["sealed"] is True
    sealed = run(database, "select sealed_user, sealed_password from data_plane.realtime where tenant = %s", TWO)[0]
    settings = tenant_row(database, TWO)["settings"]
    assert isinstance(settings, dict)
    assert (settings["db_user"], settings["db_password"]) == sealed
    assert is_sealed()
    provider.update("id", outs, {**props, "max_concurrent_users": 201})
    assert run(database, "select sealed_user, sealed_password from data_plane.realtime where tenant = %s", TWO) == [
        sealed
    ]
    # Another key, or a password that was changed by a hand.
    key = "f" * 32
    assert not is_sealed()
    assert provider.diff("id", {**outs, "sealed": False}, props).changes
    provider.update("id", outs, props)
    assert is_sealed()
    run(database, f"alter role \"{TWO}$realtime\" password 'by-hand'")
    assert not is_sealed()
    provider.delete("id", outs)
    assert run(database, "select from _realtime.tenants where external_id = %s", TWO) == []
    declare(database, TWO)
