"""Whose tokens are for which project: the hook that Auth calls, and the members of projects."""

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.errors import (
    InsufficientPrivilege,
    InvalidParameterValue,
    ObjectNotInPrerequisiteState,
)

from embedded.postgres import EmbeddedPostgres
from tests.integration.platform_database import (
    add_tenants,
    api_request,
    apply_platform,
    connect,
    issue,
    new_id,
    revoke,
    run,
    running,
)
from tests.integration.test_platform_sql import binaries

# The columns of Auth's tables that matter here, as Auth makes them: with its own login.
AUTH_TABLES = """
    grant create, usage on schema auth to supabase_auth_admin;
    set role supabase_auth_admin;
    create table auth.users (
        id uuid primary key,
        email text,
        raw_app_meta_data jsonb,
        raw_user_meta_data jsonb,
        last_sign_in_at timestamptz
    );
    alter table auth.users add column email_confirmed_at timestamptz;
    create table auth.sessions (id uuid primary key, user_id uuid not null references auth.users (id) on delete cascade);
"""


@pytest.fixture(scope="module", params=sorted(binaries()))
def bare(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """The platform on a database that Auth has not come to yet."""
    with running(tmp_path_factory.mktemp("pg"), binaries()[request.param]) as server:
        apply_platform(server)
        add_tenants(server)
        yield server


@pytest.fixture(scope="module")
def database(bare: EmbeddedPostgres) -> EmbeddedPostgres:
    """Project `one` is open, `two-b` closed. Auth has made its tables after the platform was there."""
    run(bare, AUTH_TABLES)
    run(bare, "insert into data_plane.sign_in values ('proj_one', 'open'), ('proj_two_b', 'closed')")
    return bare


class User:
    """A user as Auth makes one, and what is done with that user's token."""

    def __init__(self, database: EmbeddedPostgres, *, named: object = None, confirmed: bool = False) -> None:
        self._database = database
        self.id = new_id()
        self.session = new_id()
        self.email = f"{self.id[:8]}@example.org"
        with connect(database, "supabase_auth_admin") as auth:
            auth.execute(
                "insert into auth.users (id, email, raw_app_meta_data, raw_user_meta_data, email_confirmed_at)"
                " values (%s, %s, '{}', %s, case when %s then now() end)",
                [self.id, self.email, json.dumps({} if named is None else {"project": named}), confirmed],
            )
            auth.execute("insert into auth.sessions values (%s, %s)", [self.session, self.id])

    def confirm(self) -> None:
        with connect(self._database, "supabase_auth_admin") as auth:
            auth.execute("update auth.users set email_confirmed_at = now() where id = %s", [self.id])

    def projects(self) -> list[str]:
        rows = run(self._database, "select tenant from data_plane.members where user_id = %s order by 1", self.id)
        return [row[0] for row in rows]

    def token(self, **changes: object) -> dict[str, Any]:
        """The claims of a token that Auth would sign now."""
        ((app_metadata,),) = run(self._database, "select raw_app_meta_data from auth.users where id = %s", self.id)
        claims = {
            "aud": "authenticated",
            "exp": 1,
            "iat": 1,
            "sub": self.id,
            "email": self.email,
            "phone": "",
            "role": "authenticated",
            "aal": "aal1",
            "session_id": self.session,
            "is_anonymous": False,
            "app_metadata": app_metadata,
            "user_metadata": {},
            **changes,
        }
        return hook(self._database, self.id, claims)

    def call(self, function: str, *values: object, role: str = "authenticated", **claims: object) -> list[Any]:
        """Calls a function with this user's token, through PostgREST."""
        given = {"sub": self.id, "session_id": self.session, **claims}
        with api_request(self._database, role, given) as session:
            return rpc(session, function, *values)


def rpc(session: "psycopg.Connection[tuple[Any, ...]]", function: str, *values: object, **named: object) -> list[Any]:
    arguments = [*["%s"] * len(values), *(f"{name} => %s" for name in named)]
    query = f"select * from data_plane_api.{function}({', '.join(arguments)})"
    return session.execute(query.encode(), [*values, *named.values()]).fetchall()


def hook(database: EmbeddedPostgres, user_id: str, claims: dict[str, Any]) -> dict[str, Any]:
    """What Auth does before it signs: the function in its own transaction, within two seconds."""
    event = {"metadata": {"name": "customize-access-token"}, "user_id": user_id, "authentication_method": "password"}
    with connect(database, "supabase_auth_admin") as auth:
        auth.execute("set local statement_timeout to '2000'")
        row = auth.execute(
            'select "data_plane"."access_token_hook"(%s)', [json.dumps({**event, "claims": claims})]
        ).fetchone()
    assert row is not None
    assert set(row[0]) == {"claims"}
    return dict(row[0]["claims"])


def manage(database: EmbeddedPostgres, tenant: str, function: str, **named: object) -> Any:
    """A project's back end, through PostgREST with a token of its service_role."""
    with api_request(database, f"{tenant}_service_role") as session:
        return rpc(session, function, **named)


def members(database: EmbeddedPostgres, tenant: str) -> dict[str, str]:
    return {str(user or email): state for user, email, state, _ in manage(database, tenant, "list_members")}


# Before Auth is there


def test_without_auth_there_is_nobody(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = binaries()[min(binaries())]
    with running(tmp_path_factory.mktemp("pg"), folder) as server:
        apply_platform(server)
        add_tenants(server)
        run(server, "insert into data_plane.sign_in values ('proj_one', 'open')")
        assert hook(server, new_id(), {"role": "authenticated"}) == {"role": "authenticated"}
        assert manage(server, "proj_one", "list_members") == []
        manage(server, "proj_one", "invite_member", email="guest@example.org")
        assert members(server, "proj_one") == {"guest@example.org": "invited"}
        with (
            api_request(server, "authenticated", {"sub": new_id(), "session_id": new_id()}) as session,
            pytest.raises(InsufficientPrivilege, match="nobody is signed in"),
        ):
            rpc(session, "my_projects")


@pytest.mark.parametrize("first", ["auth", "platform"])
def test_auth_may_come_before_or_after(tmp_path_factory: pytest.TempPathFactory, first: str) -> None:
    folder = binaries()[max(binaries())]
    with running(tmp_path_factory.mktemp("pg"), folder) as server:
        if first == "auth":
            run(server, "create role supabase_auth_admin login noinherit; create schema auth;" + AUTH_TABLES)
        for _ in range(2):
            apply_platform(server)
        if first == "platform":
            run(server, AUTH_TABLES)
        add_tenants(server)
        run(server, "insert into data_plane.sign_in values ('proj_one', 'open')")
        assert User(server, named="one").projects() == ["proj_one"]
        for _ in range(2):
            apply_platform(server)
        assert run(server, "select count(*) from pg_trigger where tgname like 'data_plane%%'") == [(1,)]
        assert run(server, "select has_column_privilege('data_plane_tenant', 'auth.users', 'id', 'references')") == [
            (True,)
        ]


# Tokens


def test_a_token_is_for_the_project_of_its_user(database: EmbeddedPostgres) -> None:
    claims = User(database, named="one").token()
    assert (claims["role"], claims["project"]) == ("proj_one_authenticated", "one")


def test_whoever_is_a_member_of_nothing_stays_authenticated(database: EmbeddedPostgres) -> None:
    claims = User(database).token()
    assert claims["role"] == "authenticated"
    assert "project" not in claims


def test_every_claim_that_auth_needs_stays_as_it_was(database: EmbeddedPostgres) -> None:
    user = User(database, named="one")
    claims = user.token(user_metadata={"name": "N"}, amr=[{"method": "password"}])
    assert {key: value for key, value in claims.items() if key not in {"role", "project"}} == {
        "aud": "authenticated",
        "exp": 1,
        "iat": 1,
        "sub": user.id,
        "email": user.email,
        "phone": "",
        "aal": "aal1",
        "session_id": user.session,
        "is_anonymous": False,
        "app_metadata": {},
        "user_metadata": {"name": "N"},
        "amr": [{"method": "password"}],
    }


@pytest.mark.parametrize("role", ["service_role", "proj_two_b_service_role", "supabase_admin", ""])
@pytest.mark.parametrize("named", ["one", None])
def test_auth_issues_nothing_beyond_a_signed_in_users_role(
    database: EmbeddedPostgres, role: str, named: str | None
) -> None:
    claims = User(database, named=named).token(role=role, storage_admin=True, project="two-b")
    assert claims["role"] == ("proj_one_authenticated" if named else "authenticated")
    assert claims.get("project") == named
    assert "storage_admin" not in claims


def test_of_several_projects_the_chosen_one_counts_and_without_a_choice_none(database: EmbeddedPostgres) -> None:
    user = User(database, named="one", confirmed=True)
    manage(database, "proj_two_b", "invite_member", user_id=user.id)
    user.call("join_project", "two-b")
    assert user.projects() == ["proj_one", "proj_two_b"]
    for chosen, role in (("one", "proj_one"), ("two-b", "proj_two_b")):
        claims = user.token(app_metadata={"project": chosen})
        assert (claims["role"], claims["project"]) == (f"{role}_authenticated", chosen)
    for nothing in ({}, {"project": None}, {"project": "none"}, {"project": ["one"]}, {"project": "two_b"}, None):
        claims = user.token(app_metadata=nothing)
        assert (claims["role"], claims.get("project")) == ("authenticated", None)


def test_a_choice_without_membership_counts_for_nothing(database: EmbeddedPostgres) -> None:
    claims = User(database, named="one").token(app_metadata={"project": "two-b"})
    assert (claims["role"], claims["project"]) == ("proj_one_authenticated", "one")
    assert User(database).token(app_metadata={"project": "two-b"})["role"] == "authenticated"


def test_what_a_user_writes_of_himself_counts_for_nothing(database: EmbeddedPostgres) -> None:
    user = User(database)
    with connect(database, "supabase_auth_admin") as auth:
        auth.execute("""update auth.users set raw_user_meta_data = '{"project": "one"}' where id = %s""", [user.id])
    assert user.projects() == []
    assert user.token(user_metadata={"project": "one", "role": "service_role"})["role"] == "authenticated"


@pytest.mark.parametrize(
    ("take_away", "give_back"),
    [
        ("revoke usage on schema proj_one from proj_one_authenticated", "grant usage on schema proj_one to proj_one_authenticated"),
        ("delete from data_plane.sign_in where tenant = 'proj_one'", "insert into data_plane.sign_in values ('proj_one', 'open')"),
        ("alter schema proj_one owner to postgres_or_so", "alter schema proj_one owner to proj_one_owner"),
    ],
)  # fmt: skip
def test_no_token_is_for_a_project_that_is_not_attached(
    database: EmbeddedPostgres, take_away: str, give_back: str
) -> None:
    if "postgres_or_so" in take_away:
        run(database, "create role postgres_or_so")
    user = User(database, named="one")
    assert user.token()["project"] == "one"
    run(database, take_away)
    try:
        assert user.token()["role"] == "authenticated"
        assert user.call("my_projects") == []
        with pytest.raises(InsufficientPrivilege):
            user.call("switch_project", "one")
        assert User(database, named="one").projects() == []
        with pytest.raises(ObjectNotInPrerequisiteState if "owner" not in take_away else InsufficientPrivilege):
            manage(database, "proj_one", "list_members")
    finally:
        run(database, give_back)
    assert user.token()["project"] == "one"


@pytest.mark.parametrize(
    "role", ["authenticator", "anon", "authenticated", "service_role", "proj_one_service_role", "proj_one_owner"]
)
def test_only_auth_calls_the_hook(database: EmbeddedPostgres, role: str) -> None:
    ((may,),) = run(
        database, "select has_function_privilege(%s, 'data_plane.access_token_hook(jsonb)', 'execute')", role
    )
    assert may is False


@pytest.mark.parametrize("table", ["members", "invitations", "sign_in", "buckets"])
@pytest.mark.parametrize("role", ["supabase_auth_admin", "authenticator", "authenticated", "proj_one_service_role"])
def test_nobody_reads_the_tables_behind_it(database: EmbeddedPostgres, table: str, role: str) -> None:
    ((may,),) = run(database, f"select has_table_privilege(%s, 'data_plane.{table}', 'select, insert, delete')", role)
    assert may is False


# Becoming a member


def test_signing_up_for_an_open_project_makes_a_member(database: EmbeddedPostgres) -> None:
    assert User(database, named="one").projects() == ["proj_one"]


@pytest.mark.parametrize(
    "named", ["two-b", "two_b", "proj_two_b", "none", "", "o%", 7, ["one"], {"a": "one"}, "x" * 500]
)
def test_signing_up_for_anything_else_makes_none_and_succeeds(database: EmbeddedPostgres, named: object) -> None:
    assert User(database, named=named).projects() == []


def test_an_invited_address_joins_when_it_is_confirmed(database: EmbeddedPostgres) -> None:
    for confirmed_at_once in (False, True):
        address = f"{new_id()}@Example.org"
        manage(database, "proj_two_b", "invite_member", email=f" {address} ")
        assert members(database, "proj_two_b")[address.lower()] == "invited"
        with connect(database, "supabase_auth_admin") as auth:
            user = new_id()
            auth.execute(
                """insert into auth.users (id, email, raw_user_meta_data, email_confirmed_at)
                values (%s, %s, '{"project": "two-b"}', case when %s then now() end)""",
                [user, address.lower(), confirmed_at_once],
            )
        if not confirmed_at_once:
            assert user not in members(database, "proj_two_b"), "anybody may type an address"
            run(database, "update auth.users set email_confirmed_at = now() where id = %s", user)
        assert members(database, "proj_two_b")[user] == "member"
        assert address.lower() not in members(database, "proj_two_b")


def test_an_invitation_pulls_nobody_in_who_did_not_ask(database: EmbeddedPostgres) -> None:
    user = User(database, named="one", confirmed=True)
    manage(database, "proj_two_b", "invite_member", email=user.email)
    manage(database, "proj_two_b", "invite_member", user_id=user.id)
    assert user.projects() == ["proj_one"]
    assert user.token()["project"] == "one"
    assert user.call("my_projects") == [("one", "member", True), ("two-b", "invited", False)]
    user.call("join_project", "two-b")
    assert user.token()["project"] == "two-b"
    user.call("switch_project", "one")
    assert user.token()["project"] == "one"
    assert user.call("my_projects") == [("one", "member", True), ("two-b", "member", False)]


def test_a_new_project_may_be_open_to_users_of_others(database: EmbeddedPostgres) -> None:
    user = User(database)
    user.call("join_project", "one")
    assert user.projects() == ["proj_one"]
    assert user.token()["role"] == "proj_one_authenticated"
    user.call("leave_project", "one", role="proj_one_authenticated")
    assert user.projects() == []
    assert user.token()["role"] == "authenticated"


@pytest.mark.parametrize("project", ["two-b", "two_b", "none", "", None])
def test_nobody_joins_or_switches_uninvited(database: EmbeddedPostgres, project: str | None) -> None:
    user = User(database, confirmed=True)
    for function in ("join_project", "switch_project"):
        with pytest.raises(InsufficientPrivilege, match="project"):
            user.call(function, project)
    assert user.projects() == []


def test_an_unconfirmed_address_accepts_no_invitation(database: EmbeddedPostgres) -> None:
    user = User(database)
    manage(database, "proj_two_b", "invite_member", email=user.email)
    with pytest.raises(InsufficientPrivilege):
        user.call("join_project", "two-b")
    assert user.call("my_projects") == []
    user.confirm()
    user.call("join_project", "two-b")
    assert user.projects() == ["proj_two_b"]


def test_a_deleted_user_is_no_member(database: EmbeddedPostgres) -> None:
    user = User(database, named="one")
    with connect(database, "supabase_auth_admin") as auth:
        auth.execute("delete from auth.users where id = %s", [user.id])
    assert user.projects() == []


# Whose call it is


@pytest.mark.parametrize("function", ["my_projects", "switch_project", "join_project", "leave_project"])
def test_a_subject_without_the_users_session_is_nobody(database: EmbeddedPostgres, function: str) -> None:
    """Any SQL can set the claims of its own request, and tenants write SQL."""
    victim, other = User(database, named="one"), User(database)
    values = [] if function == "my_projects" else ["one"]
    for spoofed in ({"session_id": None}, {"session_id": new_id()}, {"session_id": other.session}, {"sub": other.id}):
        with pytest.raises(InsufficientPrivilege, match="nobody is signed in"):
            victim.call(function, *values, **spoofed)
    assert victim.projects() == ["proj_one"]


@pytest.mark.parametrize("role", ["anon", "proj_one_anon", "proj_one_service_role", "service_role"])
def test_only_a_users_token_calls_what_is_for_users(database: EmbeddedPostgres, role: str) -> None:
    user = User(database, named="one")
    with pytest.raises(InsufficientPrivilege, match="permission denied"):
        user.call("my_projects", role=role)


@pytest.mark.parametrize("role", ["anon", "authenticated", "proj_one_anon", "proj_one_authenticated", "service_role"])
@pytest.mark.parametrize("function", ["list_members", "invite_member", "remove_member"])
def test_only_a_projects_back_end_manages_members(database: EmbeddedPostgres, role: str, function: str) -> None:
    with api_request(database, role) as session, pytest.raises(InsufficientPrivilege):
        rpc(session, function)


# Projects and each other's members


def test_a_project_lists_its_own_members_alone(database: EmbeddedPostgres) -> None:
    of_one, of_two = User(database, named="one"), User(database, confirmed=True)
    manage(database, "proj_two_b", "invite_member", user_id=of_two.id)
    of_two.call("join_project", "two-b")
    assert of_one.id in members(database, "proj_one")
    assert of_one.id not in members(database, "proj_two_b")
    assert of_two.id in members(database, "proj_two_b")
    assert of_two.id not in members(database, "proj_one")
    rows = manage(database, "proj_two_b", "list_members")
    assert (of_two.email, "member") in {(email, state) for _, email, state, _ in rows}


def test_a_project_removes_its_own_members_alone(database: EmbeddedPostgres) -> None:
    user = User(database, named="one", confirmed=True)
    for named in ({"user_id": user.id}, {"email": user.email}):
        assert manage(database, "proj_two_b", "remove_member", **named) == [(False,)]
        assert user.projects() == ["proj_one"]
        assert manage(database, "proj_one", "remove_member", **named) == [(True,)]
        assert user.projects() == []
        user.call("join_project", "one")
    manage(database, "proj_one", "invite_member", email="once@example.org")
    assert manage(database, "proj_two_b", "remove_member", email="once@example.org") == [(False,)]
    assert manage(database, "proj_one", "remove_member", email="Once@example.org") == [(True,)]
    assert manage(database, "proj_one", "remove_member", email="once@example.org") == [(False,)]


def test_inviting_tells_nothing_of_who_there_is(database: EmbeddedPostgres) -> None:
    of_one = User(database, named="one", confirmed=True)
    before = members(database, "proj_two_b")
    for known, unknown in ((of_one.email, "nobody@example.org"), (of_one.id, new_id())):
        key = "email" if "@" in known else "user_id"
        answers = [manage(database, "proj_two_b", "invite_member", **{key: value}) for value in (known, known, unknown)]
        assert answers[0] == answers[1] == answers[2]
    after = members(database, "proj_two_b")
    assert {state for who, state in after.items() if who not in before} == {"invited"}
    rows = manage(database, "proj_two_b", "list_members")
    assert [email for user, email, _, _ in rows if str(user) == of_one.id] == [None], "an ID does not give an address"
    assert of_one.projects() == ["proj_one"]


@pytest.mark.parametrize(
    "named", [{}, {"email": "a@b", "user_id": new_id()}, {"email": ""}, {"email": "a"}, {"email": "a b@c"}, {"email": "a@" + "b" * 300}]
)  # fmt: skip
def test_an_invitation_needs_one_usable_address_or_id(database: EmbeddedPostgres, named: dict[str, object]) -> None:
    with pytest.raises(InvalidParameterValue):
        manage(database, "proj_one", "invite_member", **named)


def test_a_lease_manages_the_members_of_its_own_project(database: EmbeddedPostgres) -> None:
    user = User(database, named="one")
    for login, role in (("lease_keeper_1", "proj_one_owner"), ("lease_keeper_2", "proj_one_service_role")):
        issue(database, login, role)
        with connect(database, login, "pw") as session:
            assert user.id in {str(row[0]) for row in rpc(session, "list_members")}
            session.execute("set role none")
            with pytest.raises(InsufficientPrivilege):
                rpc(session, "list_members")
        revoke(database, login)
    issue(database, "lease_reader", "proj_one_authenticated")
    with connect(database, "lease_reader", "pw") as session, pytest.raises(InsufficientPrivilege):
        rpc(session, "list_members")
    revoke(database, "lease_reader")


def test_no_argument_names_a_project_for_those_who_manage_one(database: EmbeddedPostgres) -> None:
    rows = run(
        database,
        "select proname, pg_get_function_identity_arguments(oid) from pg_proc"
        " where pronamespace = 'data_plane_api'::regnamespace and has_function_privilege('data_plane_tenant', oid, 'execute')",
    )
    assert dict(rows) == {
        "list_members": "",
        "invite_member": "email text, user_id uuid",
        "remove_member": "user_id uuid, email text",
    }


def test_a_definers_rights_do_not_reach_another_tenants_role(database: EmbeddedPostgres) -> None:
    """A tenant's own security definer function runs as its owner; whose call it is, is still the token's role."""
    run(
        database,
        "create function proj_one.peek() returns bigint language sql security definer"
        " as 'select count(*) from data_plane_api.list_members()';"
        "alter function proj_one.peek() owner to proj_one_owner; grant execute on function proj_one.peek() to proj_one_anon",
    )
    with api_request(database, "proj_one_anon") as session, pytest.raises(InsufficientPrivilege):
        session.execute("select proj_one.peek()")
    run(database, "drop function proj_one.peek()")
