"""A tenant as it stands in the catalogs, and what each access level can and cannot do with a real lease."""

import time
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.errors import InsufficientPrivilege, UndefinedTable

from data_plane.connector.leases import Lease, LeaseClient
from data_plane.errors import LeaseError
from data_plane.local.servers import LOOPBACK
from data_plane.model.naming import API_LEVELS, AccessLevel, ApiServer
from tests.conftest import Plane

OWNER, SERVICE, AUTHENTICATED, ANON = (
    AccessLevel.OWNER,
    AccessLevel.SERVICE_ROLE,
    AccessLevel.AUTHENTICATED,
    AccessLevel.ANON,
)
API_LOGIN = ApiServer.of_cell("cell-1").login


def connect(lease: Lease) -> "psycopg.Connection[tuple[Any, ...]]":
    return psycopg.connect(lease.connection_string, connect_timeout=30, autocommit=True)


@pytest.fixture(scope="module")
def notes(plane: Plane) -> Plane:
    """A table in alpha with two rows, one of which a policy shows to everybody; a function and a view beside it."""
    with connect(plane.lease("alpha", OWNER)) as session:
        session.execute("create table notes (id int generated always as identity, body text, open boolean)")
        session.execute("insert into notes (body, open) values ('public', true), ('private', false)")
        session.execute(
            "create policy readable on notes for select to proj_alpha_anon, proj_alpha_authenticated using (open)"
        )
        session.execute("create policy writable on notes for insert to proj_alpha_authenticated with check (open)")
        session.execute("create function answer() returns int language sql as 'select 42'")
        session.execute("create type mood as enum ('fine')")
    return plane


# The catalog


def test_roles_are_as_a_careful_dba_would_have_left_them(plane: Plane) -> None:
    rows = plane.rows(
        """
        select rolname, rolcanlogin, rolinherit, rolbypassrls, rolconnlimit,
            rolsuper or rolcreaterole or rolcreatedb or rolreplication,
            array(select roleid::regrole::text from pg_auth_members where member = r.oid order by 1)
        from pg_roles r where rolname like 'proj\\_alpha\\_%%' order by 1
        """
    )
    assert rows == [
        ("proj_alpha_anon", False, True, False, 3, False, ["anon"]),
        ("proj_alpha_authenticated", False, True, False, 3, False, ["authenticated"]),
        ("proj_alpha_owner", False, True, False, 3, False, ["data_plane_tenant"]),
        ("proj_alpha_service_role", False, True, True, 3, False, ["data_plane_tenant"]),
    ]


def test_settings_are_the_projects_limits(plane: Plane) -> None:
    rows = plane.rows("select setrole::regrole::text, setconfig from pg_db_role_setting where setdatabase = 0")
    settings = {role: sorted(config) for role, config in rows if role.startswith("proj_alpha_")}
    assert len(settings) == 4
    for config in settings.values():
        assert config == [
            "idle_in_transaction_session_timeout=60000",
            "search_path=proj_alpha, extensions",
            "statement_timeout=20000",
        ]


@pytest.mark.parametrize(("schema", "exposed"), [("proj_alpha", True), ("proj_beta_two", False)])
def test_the_schemas_access_list_names_the_tenant_and_the_login_that_serves_it_only(
    plane: Plane, schema: str, exposed: bool
) -> None:
    rows = plane.rows(
        """
        select grantee::regrole::text, string_agg(privilege_type, ',' order by privilege_type), bool_or(is_grantable)
        from pg_namespace n, aclexplode(nspacl) where nspname = %s group by 1
        """,
        schema,
    )
    expected = {(f"{schema}_{level}", "USAGE", False) for level in API_LEVELS}
    expected |= {(f"{schema}_owner", "CREATE,USAGE", False)}
    expected |= {(API_LOGIN, "USAGE", False)} if exposed else set()
    assert set(rows) == expected


def test_default_privileges_cover_what_migrations_create_and_leave_the_public_out(plane: Plane) -> None:
    rows = plane.rows(
        """
        select coalesce(nspname, '-'), defaclobjtype::text, case grantee when 0 then 'PUBLIC' else grantee::regrole::text end,
            string_agg(privilege_type, ',' order by privilege_type)
        from pg_default_acl d left join pg_namespace n on n.oid = defaclnamespace, aclexplode(defaclacl)
        where defaclrole = 'proj_alpha_owner'::regrole group by 1, 2, 3
        """
    )
    rights = {(schema, kind, role.removeprefix("proj_alpha_")): privileges for schema, kind, role, privileges in rows}
    assert rights == {
        ("-", "f", "owner"): "EXECUTE",
        **{("proj_alpha", "f", level.value): "EXECUTE" for level in API_LEVELS},
        # Functions in a further schema, of which its users' is one: policies call helpers there.
        **{("proj_alpha$auth", "f", level.value): "EXECUTE" for level in API_LEVELS},
        **{("proj_alpha", "S", level.value): "SELECT,USAGE" for level in API_LEVELS},
        ("proj_alpha", "r", "anon"): "DELETE,INSERT,SELECT,UPDATE",
        ("proj_alpha", "r", "authenticated"): "DELETE,INSERT,SELECT,UPDATE",
        ("proj_alpha", "r", "service_role"): "DELETE,INSERT,SELECT,TRUNCATE,UPDATE",
    }


def test_the_cells_api_may_become_the_api_roles_of_exposed_tenants_and_nothing_more(plane: Plane) -> None:
    """SQL that runs over the API may become whatever its login may, so an unexposed tenant is out of reach."""
    rows = plane.rows(
        "select member::regrole::text, roleid::regrole::text from pg_auth_members"
        " where member::regrole::text like '%%authenticator' and roleid::regrole::text not like 'pg\\_%%' order by 1, 2"
    )
    assert rows == [
        *(("authenticator", role) for role in ("anon", "authenticated", "service_role")),
        *((API_LOGIN, f"proj_alpha_{level}") for level in sorted(API_LEVELS)),
    ]
    assert plane.rows("select rolinherit from pg_roles where rolname = %s", API_LOGIN) == [(False,)]


# Leases


@pytest.mark.parametrize("level", list(AccessLevel))
def test_every_level_leases_a_login_that_starts_as_its_role(plane: Plane, level: AccessLevel) -> None:
    lease = plane.lease("alpha", level)
    with connect(lease) as session:
        row = session.execute(
            "select current_user, session_user, current_setting('search_path'), current_setting('statement_timeout')"
        ).fetchone()
    assert row == (f"proj_alpha_{level}", lease.username, "proj_alpha, extensions", "20s")
    assert lease.ttl_seconds == 600
    (login,) = plane.rows(
        "select rolinherit, rolconnlimit, rolvaliduntil > now() and rolvaliduntil < now() + interval '11 min',"
        " rolsuper or rolcreaterole or rolcreatedb or rolreplication or rolbypassrls,"
        " array(select roleid::regrole::text from pg_auth_members where member = r.oid)"
        " from pg_roles r where rolname = %s",
        lease.username,
    )
    assert login == (False, 3, True, False, [f"proj_alpha_{level}"])


def test_postgresql_stores_a_lease_as_a_scram_verifier(plane: Plane) -> None:
    lease = plane.lease("alpha", ANON)
    ((verifier,),) = plane.rows("select rolpassword from pg_authid where rolname = %s", lease.username)
    assert verifier.startswith("SCRAM-SHA-256$")


def test_a_lease_opens_no_more_connections_than_the_project_may(plane: Plane) -> None:
    lease = plane.lease("alpha", OWNER)
    sessions = [connect(lease) for _ in range(3)]
    with pytest.raises(psycopg.OperationalError, match="too many connections for role"):
        connect(lease)
    for session in sessions:
        session.close()


CASES: list[tuple[AccessLevel, str, type[Exception] | int | None]] = [
    # level, statement, what comes of it: rows, nothing, or the refusal
    (OWNER, "select * from notes", 2),
    (OWNER, "create table made (a int); drop table made", None),
    (OWNER, "truncate made_up", UndefinedTable),
    (SERVICE, "select * from notes", 2),
    (SERVICE, "update notes set body = body", None),
    (SERVICE, "create table made (a int)", InsufficientPrivilege),
    (SERVICE, "alter table notes disable row level security", InsufficientPrivilege),
    (SERVICE, "select answer()", 1),
    (AUTHENTICATED, "select * from notes", 1),
    (AUTHENTICATED, "insert into notes (body, open) values ('mine', false)", InsufficientPrivilege),
    (AUTHENTICATED, "truncate notes", InsufficientPrivilege),
    (AUTHENTICATED, "create table made (a int)", InsufficientPrivilege),
    (AUTHENTICATED, "drop table notes", InsufficientPrivilege),
    (AUTHENTICATED, "select answer()", 1),
    (ANON, "select * from notes", 1),
    (ANON, "insert into notes (body, open) values ('mine', true)", InsufficientPrivilege),
    (ANON, "delete from notes returning *", 0),
    (ANON, "create policy p on notes for select using (true)", InsufficientPrivilege),
    (ANON, "grant select on notes to public", None),
]


@pytest.mark.parametrize(("level", "statement", "outcome"), CASES)
def test_inside_its_schema_each_level_can_do_what_it_is_for(
    notes: Plane, level: AccessLevel, statement: str, outcome: type[Exception] | int | None
) -> None:
    with connect(notes.lease("alpha", level)) as session, session.transaction(force_rollback=True):
        if isinstance(outcome, type):
            with pytest.raises(outcome):
                session.execute(statement.encode())
            return
        cursor = session.execute(statement.encode())
        if outcome is not None:
            assert len(cursor.fetchall()) == outcome
    assert notes.rows("select count(*) from pg_class, aclexplode(relacl) where relname = 'notes' and grantee = 0") == [
        (0,)
    ]


OUTSIDE = [
    "select * from proj_alpha.notes",
    "insert into proj_alpha.notes (body, open) values ('x', true)",
    "select proj_alpha.answer()",
    "select null::proj_alpha.mood",
    "create table proj_alpha.intruder (a int)",
    "create view v as select * from proj_alpha.notes",
    "create schema mine",
    "create table public.intruder (a int)",
    "create role intruder",
    "set role proj_alpha_owner",
    "set role proj_alpha_anon",
    "set role postgres_or_so",
    "set role supabase_admin",
    "set session authorization proj_alpha_owner",
    "set role authenticator",
    "set role cell_cell_1_authenticator",
    "set role service_role",
    "drop extension plpgsql",
    "copy (select 1) to program 'true'",
    "copy (select 1) to '/tmp/x'",
    "select pg_read_file('/etc/passwd')",
    "select * from pg_authid",
    "alter role proj_alpha_owner login",
    "set session_replication_role = replica",
    "create event trigger t on ddl_command_end execute function data_plane.notify_postgrest()",
    "create publication p for all tables",
    "select data_plane.issue_lease('lease_x', 'x', now(), 'proj_alpha_owner', 1)",
    "select data_plane.create_login('lease_x', 'x', now(), 'proj_alpha_owner', 1, null)",
    "select data_plane.revoke_lease('lease_x')",
    "create table child (a int references proj_alpha.notes (id))",
    "drop schema proj_beta_two cascade",
    "grant usage on schema proj_beta_two to proj_alpha_anon",
]


@pytest.mark.parametrize("level", list(AccessLevel))
@pytest.mark.parametrize("statement", OUTSIDE)
def test_outside_its_schema_no_level_can_do_anything(notes: Plane, level: AccessLevel, statement: str) -> None:
    if level is not OWNER and statement.startswith("grant usage on schema proj_beta_two"):
        pytest.skip("PostgreSQL warns that nothing was granted instead of refusing")
    with connect(notes.lease("beta-two", level)) as session, session.transaction(force_rollback=True):
        with pytest.raises(psycopg.Error) as caught:
            session.execute(statement.encode())
        # 42501 insufficient privilege; 22023 no such role; 42939 reserved; each is a refusal, not a failure on the way.
        assert caught.value.sqlstate in {"42501", "22023", "42939"}, (caught.value.sqlstate, str(caught.value))


def test_what_a_lease_makes_stays_when_the_lease_is_gone(plane: Plane) -> None:
    first = plane.lease("beta-two", OWNER)
    session = connect(first)
    session.execute("create table kept (a int)")
    session.execute("insert into kept values (7)")
    LeaseClient(plane.local_env.servers.openbao.client()).revoke(first.lease_id)
    with pytest.raises(psycopg.errors.AdminShutdown):
        session.execute("select 1")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        connect(first)
    assert plane.rows("select count(*) from pg_roles where rolname = %s", first.username) == [(0,)]
    second = plane.lease("beta-two", OWNER)
    assert second.username != first.username
    with connect(second) as again:
        assert again.execute("select a from kept").fetchall() == [(7,)]
        assert again.execute(
            "select relowner::regrole::text, relrowsecurity from pg_class where relname = 'kept'"
        ).fetchone() == (
            "proj_beta_two_owner",
            True,
        )
        again.execute("drop table kept")


def test_only_the_holder_of_a_lease_gives_it_back(plane: Plane) -> None:
    taken = plane.lease("alpha", AUTHENTICATED, "cora")
    for other in ("bert", "vera"):
        with pytest.raises(LeaseError, match="may not revoke"):
            LeaseClient(plane.local_env.sign_in(other)).revoke(taken.lease_id)
    LeaseClient(plane.local_env.sign_in("cora")).revoke(taken.lease_id)
    assert plane.rows("select count(*) from pg_roles where rolname = %s", taken.username) == [(0,)]


@pytest.mark.parametrize(
    ("user", "allowed"),
    [
        ("olga", set(AccessLevel)),
        ("mike", set(AccessLevel)),
        ("sam", {SERVICE, AUTHENTICATED, ANON}),
        ("cora", {AUTHENTICATED, ANON}),
        ("vera", {ANON}),
        ("bert", set()),
    ],
)
def test_people_lease_what_their_role_maps_to(plane: Plane, user: str, allowed: set[AccessLevel]) -> None:
    for level in AccessLevel:
        if level in allowed:
            assert plane.lease("alpha", level, user).level is level
        else:
            with pytest.raises(LeaseError, match=f"you may not use alpha as {level}"):
                plane.lease("alpha", level, user)


def test_a_team_leases_what_its_role_maps_to(plane: Plane) -> None:
    """userpass knows no teams, so somebody is put into the team's group as a sign-in with a group claim would."""
    client = plane.local_env.servers.openbao.client()
    client.write_data("auth/userpass/users/tess", data={"password": "tess-has-a-password"})
    accessor = client.read("sys/auth")["data"]["userpass/"]["accessor"]
    entity = client.write_data("identity/entity", data={"name": "tess"})["data"]["id"]
    client.write_data(
        "identity/entity-alias", data={"name": "tess", "mount_accessor": accessor, "canonical_id": entity}
    )
    team = client.read("identity/group/name/team-builders")["data"]
    assert team["type"] == "external"
    assert team["alias"]["name"] == "builders"
    stand_in = client.write_data(
        "identity/group", data={"name": "stand-in", "type": "internal", "member_entity_ids": [entity]}
    )["data"]["id"]
    level_group = client.read("identity/group/name/proj_alpha_authenticated")["data"]
    assert team["id"] in level_group["member_group_ids"]
    client.write_data("identity/group/name/proj_alpha_authenticated", data={"member_group_ids": [team["id"], stand_in]})
    client.auth.userpass.login("tess", "tess-has-a-password")
    binding = plane.local_env.bindings()["alpha"]
    assert LeaseClient(client).issue(binding, AUTHENTICATED).level is AUTHENTICATED
    with pytest.raises(LeaseError, match="may not"):
        LeaseClient(client).issue(binding, SERVICE)
    root = plane.local_env.servers.openbao.client()
    root.write_data("identity/group/name/proj_alpha_authenticated", data={"member_group_ids": [team["id"]]})


def test_nobody_can_reach_another_tenants_paths(plane: Plane) -> None:
    client = plane.local_env.sign_in("olga")
    paths = [
        "database/creds/proj_beta_two_owner",
        "database/creds/proj_beta_two_anon",
        "database/creds/*",
        "database/creds/proj_alpha_owner/../proj_beta_two_owner",
        "database/roles/proj_alpha_owner",
        "database/config/supabase",
        "connectors/data/supabase",
        "identity/oidc/token/proj_beta_two_anon",
        "identity/oidc/role/proj_alpha_anon",
        "sys/policies/acl/proj_alpha_owner",
        "identity/group/name/proj_beta_two_owner",
        "sys/leases/lookup/database/creds/proj_alpha_owner",
    ]
    for path in paths:
        response = client.adapter.request("get", f"/v1/{path}", raise_exception=False)
        assert response.status_code in {403, 404, 405}, path
        assert response.status_code == 403 or "*" in path or ".." in path, path
    for path, data in {
        "database/roles/proj_alpha_owner": {"db_name": "supabase"},
        "identity/group/name/proj_beta_two_owner": {"policies": ["proj_alpha_owner"]},
        "sys/policies/acl/proj_alpha_anon": {"policy": 'path "*" { capabilities = ["sudo"] }'},
        "sys/leases/revoke-prefix/database/creds/proj_beta_two_owner": {},
        "auth/token/create": {"policies": ["root"]},
        "database/rotate-root/supabase": {},
    }.items():
        response = client.adapter.request("post", f"/v1/{path}", json=data, raise_exception=False)
        assert response.status_code == 403 or "child policies must be subset of parent" in response.text, path


def test_an_expired_lease_is_gone(plane: Plane) -> None:
    client = plane.local_env.servers.openbao.client()
    client.write_data("database/roles/proj_alpha_anon", data={**_short(client, "proj_alpha_anon"), "default_ttl": "8s"})
    try:
        lease = plane.lease("alpha", ANON)
        session = connect(lease)
        assert lease.ttl_seconds == 8
        deadline = time.monotonic() + 60
        while plane.rows("select 1 from pg_roles where rolname = %s", lease.username):
            assert time.monotonic() < deadline, "the login outlived its lease"
            time.sleep(0.2)
        with pytest.raises(psycopg.errors.AdminShutdown):
            session.execute("select 1")
    finally:
        client.write_data(
            "database/roles/proj_alpha_anon", data={**_short(client, "proj_alpha_anon"), "default_ttl": "600s"}
        )


def _short(client: Any, role: str) -> dict[str, Any]:
    return dict(client.read(f"database/roles/{role}")["data"])


def test_a_renewed_lease_lasts_longer_in_postgresql_too(plane: Plane) -> None:
    lease = plane.lease("alpha", ANON, "vera")
    query = "select rolvaliduntil from pg_roles where rolname = %s"
    ((before,),) = plane.rows(query, lease.username)
    time.sleep(1.1)
    client = plane.local_env.sign_in("vera")
    client.write_data(f"sys/leases/renew/{lease.lease_id}", data={"increment": 600})
    ((after,),) = plane.rows(query, lease.username)
    assert after > before


# What PostgREST does with a token: its login assumes the role that it names, inside one transaction.


def as_postgrest(plane: Plane, role: str, claims: str) -> "psycopg.Connection[tuple[Any, ...]]":
    with plane.admin() as admin:
        admin.execute(f"alter role {API_LOGIN} password 'for-this-test'".encode())
    session = psycopg.connect(
        host=LOOPBACK,
        port=plane.local_env.servers.postgres.port,
        user=API_LOGIN,
        password="for-this-test",
        dbname="postgres",
    )
    session.execute("select set_config('role', %s, true), set_config('request.jwt.claims', %s, true)", [role, claims])
    return session


def test_a_requests_claims_reach_policies_through_auth_uid(notes: Plane) -> None:
    someone = "6f1c8a52-6f0e-4a53-9f3a-0d3c1f7f2f10"
    with as_postgrest(notes, "proj_alpha_authenticated", f'{{"sub": "{someone}", "role": "x"}}') as session:
        row = session.execute("select auth.uid()::text, auth.role(), count(*) from proj_alpha.notes").fetchone()
    assert row == (someone, "x", 1)


def test_a_lease_can_be_any_user_of_its_project(notes: Plane) -> None:
    """What README and the threat model say of leases; a policy limits tokens."""
    users = ["6f1c8a52-6f0e-4a53-9f3a-0d3c1f7f2f10", "7a2d9b63-7f1f-4b64-8f4b-1e4d2f8f3f21"]
    with connect(notes.lease("alpha", OWNER)) as session:
        session.execute("create table diaries (owner uuid, body text)")
        session.execute("create policy own on diaries to proj_alpha_authenticated using (owner = auth.uid())")
        session.execute("insert into diaries select unnest(%s::uuid[]), 'dear'", [users])
    with connect(notes.lease("alpha", AccessLevel.AUTHENTICATED)) as session:
        assert session.execute("select from diaries").rowcount == 0
        for user in users:
            claims = sql.Literal(f'{{"sub": "{user}"}}')
            session.execute(sql.SQL("set request.jwt.claims = {}").format(claims))
            assert session.execute("select owner::text from diaries").fetchall() == [(user,)]


def test_the_login_itself_reads_nothing_of_a_tenant(notes: Plane) -> None:
    with as_postgrest(notes, "proj_alpha_anon", "{}") as session:
        session.execute("reset role")
        with pytest.raises(InsufficientPrivilege):
            session.execute("select * from proj_alpha.notes")


def test_a_token_of_an_unexposed_tenant_opens_nothing(notes: Plane) -> None:
    with pytest.raises(InsufficientPrivilege, match="permission denied to set role"):
        as_postgrest(notes, "proj_beta_two_service_role", "{}")


def test_only_exposed_tenants_are_served(plane: Plane) -> None:
    with as_postgrest(plane, "proj_alpha_anon", "{}") as session:
        session.execute("reset role")
        session.execute("select data_plane.pre_config()")
        row = session.execute("select current_setting('pgrst.db_schemas')").fetchone()
    assert row == ("public,storage,data_plane_api,proj_alpha",)
