"""Whose tokens are for which project: the hook that Auth calls, and the members of projects."""

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from psycopg import sql
from psycopg.errors import (
    ConfigurationLimitExceeded,
    FeatureNotSupported,
    InsufficientPrivilege,
    InvalidParameterValue,
    ObjectNotInPrerequisiteState,
)

from data_plane.local.postgres import LocalPostgres
from tests.support.auth import AUTH_TABLES, User, hook, rpc
from tests.support.platform_database import (
    API_LOGIN,
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
from tests.support.postgresqls import binaries


@pytest.fixture(scope="module", params=sorted(binaries()))
def bare(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPostgres]:
    """The platform on a database that Auth has not come to yet."""
    with running(tmp_path_factory.mktemp("pg"), binaries()[request.param], apply_platform, add_tenants) as server:
        yield server


@pytest.fixture(scope="module")
def database(bare: LocalPostgres) -> LocalPostgres:
    """Project `one` is open, `two-b` closed. Auth has made its tables after the platform was there."""
    run(bare, AUTH_TABLES)
    run(bare, "insert into data_plane.sign_in values ('proj_one', 'open'), ('proj_two_b', 'closed')")
    return bare


def manage(database: LocalPostgres, tenant: str, function: str, **named: object) -> Any:
    """A project's back end, through PostgREST with a token of its service_role."""
    with api_request(database, f"{tenant}_service_role") as session:
        return rpc(session, function, **named)


def members(database: LocalPostgres, tenant: str) -> dict[str, str]:
    return {str(user or email): state for user, email, state, _ in manage(database, tenant, "list_members")}


# Before Auth is there


def test_without_auth_there_is_nobody(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = binaries()[min(binaries())]
    with running(tmp_path_factory.mktemp("pg"), folder, apply_platform, add_tenants) as server:
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
            run(
                server, "create role postgres; create role supabase_auth_admin login; create schema auth;" + AUTH_TABLES
            )
        for _ in range(2):
            apply_platform(server)
        if first == "platform":
            run(server, AUTH_TABLES)
        add_tenants(server)
        run(server, "insert into data_plane.sign_in values ('proj_one', 'open')")
        assert User(server, named="one").projects() == ["proj_one"]
        for _ in range(2):
            apply_platform(server)
        assert run(server, "select tgname from pg_trigger where tgname like 'data_plane%%' order by 1") == [
            ("data_plane_join_at_sign_up",),
            ("data_plane_record_membership",),
            ("data_plane_record_user_change",),
        ]
        assert run(
            server,
            "select conrelid::regclass::text from pg_constraint"
            " where contype = 'f' and confrelid::regclass::text like 'auth.%%' and conrelid::regclass::text like 'data%%' order by 1",
        ) == [("data_plane.members",), ("data_plane.session_projects",)]


# Tokens


def test_a_token_is_for_the_project_of_its_user(database: LocalPostgres) -> None:
    claims = User(database, named="one").token()
    assert (claims["role"], claims["project"]) == ("proj_one_authenticated", "one")


def test_a_token_names_the_api_server_that_serves_its_project(database: LocalPostgres) -> None:
    user = User(database, named="one")
    assert user.token()["api_server"] == "cell_one"
    assert user.token(api_server="cell_elsewhere")["api_server"] == "cell_one"
    assert "api_server" not in User(database).token(api_server="cell_elsewhere")
    run(database, "update data_plane.api_access set login = null where tenant = 'proj_one'")
    try:
        assert "api_server" not in user.token()
    finally:
        run(database, f"update data_plane.api_access set login = '{API_LOGIN}' where tenant = 'proj_one'")


def test_a_token_names_the_further_schemas_that_its_project_serves(database: LocalPostgres) -> None:
    user = User(database, named="one")
    assert "schemas" not in user.token(schemas="private")
    assert "schemas" not in User(database).token(schemas="private")
    run(database, "insert into data_plane.schemas values ('proj_one', '{api,b,quiet}', '{api,b}', true)")
    try:
        assert user.token(schemas="private")["schemas"] == "api,b"
    finally:
        run(database, "delete from data_plane.schemas")


def test_a_user_without_a_project_stays_authenticated(database: LocalPostgres) -> None:
    claims = User(database).token()
    assert claims["role"] == "authenticated"
    assert "project" not in claims


def test_every_claim_that_auth_needs_stays_as_it_was(database: LocalPostgres) -> None:
    user = User(database, named="one")
    claims = user.token(user_metadata={"name": "N"}, amr=[{"method": "password"}])
    assert {key: value for key, value in claims.items() if key not in {"role", "project", "api_server"}} == {
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
    database: LocalPostgres, role: str, named: str | None
) -> None:
    claims = User(database, named=named).token(role=role, storage_admin=True, project="two-b")
    assert claims["role"] == ("proj_one_authenticated" if named else "authenticated")
    assert claims.get("project") == named
    assert "storage_admin" not in claims


@pytest.fixture
def of_both(database: LocalPostgres) -> User:
    """A member of both projects, in a new session."""
    user = User(database, named="one", confirmed=True)
    manage(database, "proj_two_b", "invite_member", user_id=user.id)
    user.sign_in("two-b")
    user.call("join_project", "two-b")
    assert user.projects() == ["proj_one", "proj_two_b"]
    user.sign_in()
    return user


def test_a_session_is_for_the_project_that_it_was_begun_for(database: LocalPostgres, of_both: User) -> None:
    for project, role in (("one", "proj_one"), ("two-b", "proj_two_b")):
        of_both.sign_in(project)
        claims = of_both.token()
        assert (claims["role"], claims["project"]) == (f"{role}_authenticated", project)
        # Whatever the request is named for that refreshes it (Auth keeps that one's user agent), or the user's default is.
        run(
            database,
            "update auth.sessions set user_agent = 'x data-plane-project/two-b' where id = %s",
            of_both.session,
        )
        for standing in ({"project": "one"}, {"project": "two-b"}, {}):
            assert of_both.token(app_metadata=standing) == {**claims, "app_metadata": standing}


@pytest.mark.parametrize("named", ["none", "-", "two_b", "proj_two_b", "one,two-b", "o%", "x" * 500])
def test_a_session_for_no_project_of_the_users_is_for_none(database: LocalPostgres, named: str) -> None:
    """Also for a member of one project: so a session is had in which another can be joined."""
    user = User(database, named="one")
    user.sign_in(named)
    for _ in range(2):
        claims = user.token(app_metadata={"project": "one"})
        assert (claims["role"], claims.get("project")) == ("authenticated", None)


def test_without_a_name_the_default_counts_and_of_several_without_one_none(
    database: LocalPostgres, of_both: User
) -> None:
    for nothing in ({}, {"project": None}, {"project": "none"}, {"project": ["one"]}, {"project": "two_b"}, None):
        claims = of_both.token(app_metadata=nothing)
        assert (claims["role"], claims.get("project")) == ("authenticated", None)
    assert of_both.token(app_metadata={"project": "two-b"})["project"] == "two-b"
    assert of_both.token(app_metadata={"project": "one"})["project"] == "two-b", "the session began with it"


def test_a_session_of_before_is_for_the_project_that_was_chosen_then(database: LocalPostgres, of_both: User) -> None:
    """Its user agent names none, and nothing is known of it until it is refreshed."""
    assert run(database, "select from data_plane.session_projects where session_id = %s", of_both.session) == []
    run(database, """update auth.users set raw_app_meta_data = '{"project": "two-b"}' where id = %s""", of_both.id)
    assert of_both.token()["role"] == "proj_two_b_authenticated"
    run(database, """update auth.users set raw_app_meta_data = '{"project": "one"}' where id = %s""", of_both.id)
    assert of_both.token()["role"] == "proj_two_b_authenticated"


def test_a_session_without_a_project_gets_one_once(database: LocalPostgres, of_both: User) -> None:
    for begun in (None, "-"):
        of_both.sign_in(begun)
        assert of_both.token()["role"] == "authenticated"
        assert of_both.call("my_projects") == [("one", "member", False), ("two-b", "member", False)]
        for _ in range(2):
            of_both.call("switch_project", "one")
        assert of_both.call("my_projects") == [("one", "member", True), ("two-b", "member", False)]
        assert of_both.token()["role"] == "proj_one_authenticated"
        with pytest.raises(InsufficientPrivilege, match="for another project"):
            of_both.call("switch_project", "two-b")
        assert of_both.token()["role"] == "proj_one_authenticated"


def test_a_session_of_a_forgotten_password_is_for_none(database: LocalPostgres) -> None:
    """The gateway takes no new password with a token for a project."""
    user = User(database, named="one")
    user.sign_in("one")
    assert user.token("recovery")["role"] == "authenticated"
    assert user.token("token_refresh")["role"] == "authenticated"
    user.call("switch_project", "one")
    assert user.token("token_refresh")["project"] == "one"


def test_a_session_whose_membership_ended_is_for_none(database: LocalPostgres, of_both: User) -> None:
    of_both.sign_in("one")
    assert of_both.token()["project"] == "one"
    manage(database, "proj_one", "remove_member", user_id=of_both.id)
    for _ in range(2):
        claims = of_both.token()
        assert claims["role"] == "authenticated", "not the one that is left"
    of_both.sign_in()
    assert of_both.token()["project"] == "two-b"
    assert "session_project" not in of_both.token(session_project="one")


def test_what_a_project_has_seen_of_a_session_acts_for_the_user_nowhere(database: LocalPostgres, of_both: User) -> None:
    """Also after the project has taken its member out, by which the session's tokens are for none."""
    of_both.sign_in("one")
    of_both.token()
    manage(database, "proj_one", "remove_member", user_id=of_both.id)
    claims = of_both.token()
    assert (claims["role"], claims["session_project"]) == ("authenticated", "one")
    for function, *values in (
        ("my_projects",),
        ("leave_project", "two-b"),
        ("switch_project", "two-b"),
        ("join_project", "one"),
    ):
        with pytest.raises(InsufficientPrivilege, match="for no project"):
            of_both.call(function, *values, session_project=claims["session_project"])
    assert of_both.projects() == ["proj_two_b"]


def test_the_session_of_another_user_gives_no_project(database: LocalPostgres) -> None:
    user, other = User(database, named="one"), User(database)
    for session in (other.session, new_id(), None):
        assert user.token(session_id=session)["role"] == "authenticated"
    assert user.token()["project"] == "one"
    assert other.token()["role"] == "authenticated"


def test_what_is_known_of_a_session_ends_with_it(database: LocalPostgres) -> None:
    user = User(database, named="one")
    user.token()
    with connect(database, "supabase_auth_admin") as auth:
        auth.execute("delete from auth.sessions where id = %s", [user.session])
    assert run(database, "select from data_plane.session_projects where session_id = %s", user.session) == []


def test_a_default_without_membership_counts_for_nothing(database: LocalPostgres) -> None:
    claims = User(database, named="one").token(app_metadata={"project": "two-b"})
    assert (claims["role"], claims["project"]) == ("proj_one_authenticated", "one")
    assert User(database).token(app_metadata={"project": "two-b"})["role"] == "authenticated"


def test_what_a_user_writes_of_himself_counts_for_nothing(database: LocalPostgres) -> None:
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
    database: LocalPostgres, take_away: str, give_back: str
) -> None:
    if "postgres_or_so" in take_away:
        run(database, "create role postgres_or_so")
    user = User(database, named="one")
    assert user.token()["project"] == "one"
    begun = user.session
    run(database, take_away)
    try:
        assert user.token()["role"] == "authenticated"
        user.sign_in()
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
    assert user.token(session_id=begun)["project"] == "one"


@pytest.mark.parametrize(
    "role", ["authenticator", "anon", "authenticated", "service_role", "proj_one_service_role", "proj_one_owner"]
)
def test_only_auth_calls_the_hook(database: LocalPostgres, role: str) -> None:
    ((may,),) = run(
        database, "select has_function_privilege(%s, 'data_plane.access_token_hook(jsonb)', 'execute')", role
    )
    assert may is False


def test_open_invitations_are_bounded(database: LocalPostgres) -> None:
    """No limit of the guard's sees them: they are the platform's rows."""
    fill = "select 'proj_two_b', i || '@example.net' from generate_series(1, 9999) i"
    run(database, f"insert into data_plane.invitations (tenant, email) {fill}")
    try:
        manage(database, "proj_two_b", "invite_member", email="last@example.net")
        with pytest.raises(ConfigurationLimitExceeded, match="10,000"):
            manage(database, "proj_two_b", "invite_member", email="one-more@example.net")
        manage(database, "proj_one", "invite_member", email="one-more@example.net")
        assert manage(database, "proj_two_b", "remove_member", email="last@example.net") == [(True,)]
        manage(database, "proj_two_b", "invite_member", email="one-more@example.net")
    finally:
        run(database, "delete from data_plane.invitations where email like %s", "%@example.net")


@pytest.mark.parametrize(
    "table", ["members", "invitations", "sign_in", "sign_in_settings", "session_projects", "buckets"]
)
@pytest.mark.parametrize("role", ["supabase_auth_admin", "authenticator", "authenticated", "proj_one_service_role"])
def test_nobody_reads_the_tables_behind_it(database: LocalPostgres, table: str, role: str) -> None:
    ((may,),) = run(database, f"select has_table_privilege(%s, 'data_plane.{table}', 'select, insert, delete')", role)
    assert may is False


# Becoming a member


def test_signing_up_for_an_open_project_makes_a_member(database: LocalPostgres) -> None:
    assert User(database, named="one").projects() == ["proj_one"]


@pytest.mark.parametrize(
    "named", ["two-b", "two_b", "proj_two_b", "none", "", "o%", 7, ["one"], {"a": "one"}, "x" * 500]
)
def test_signing_up_for_anything_else_makes_none_and_succeeds(database: LocalPostgres, named: object) -> None:
    assert User(database, named=named).projects() == []


def test_an_invited_address_joins_when_it_is_confirmed(database: LocalPostgres) -> None:
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


def test_an_invitation_pulls_nobody_in_who_did_not_ask(database: LocalPostgres) -> None:
    user = User(database, named="one", confirmed=True)
    manage(database, "proj_two_b", "invite_member", email=user.email)
    manage(database, "proj_two_b", "invite_member", user_id=user.id)
    assert user.projects() == ["proj_one"]
    assert user.token()["project"] == "one"
    user.sign_in("two-b")
    assert user.token()["role"] == "authenticated"
    assert user.call("my_projects") == [("one", "member", False), ("two-b", "invited", False)]
    user.call("join_project", "two-b")
    assert user.token()["project"] == "two-b"
    assert user.call("my_projects") == [("one", "member", False), ("two-b", "member", True)]


def test_a_new_project_may_be_open_to_users_of_others(database: LocalPostgres) -> None:
    user = User(database)
    user.call("join_project", "one")
    assert user.projects() == ["proj_one"]
    assert user.token()["role"] == "proj_one_authenticated"
    user.sign_in("-")
    user.call("leave_project", "one")
    assert user.projects() == []
    assert user.token()["role"] == "authenticated"


@pytest.mark.parametrize("project", ["two-b", "two_b", "none", "", None])
def test_nobody_joins_or_switches_uninvited(database: LocalPostgres, project: str | None) -> None:
    user = User(database, confirmed=True)
    for function in ("join_project", "switch_project"):
        with pytest.raises(InsufficientPrivilege, match="project"):
            user.call(function, project)
    assert user.projects() == []


def test_an_unconfirmed_address_accepts_no_invitation(database: LocalPostgres) -> None:
    user = User(database)
    manage(database, "proj_two_b", "invite_member", email=user.email)
    with pytest.raises(InsufficientPrivilege):
        user.call("join_project", "two-b")
    assert user.call("my_projects") == []
    user.confirm()
    user.call("join_project", "two-b")
    assert user.projects() == ["proj_two_b"]


def test_an_address_that_nobody_has_to_show_is_no_invitation(database: LocalPostgres) -> None:
    """With emailAutoconfirm Auth confirms whatever address is typed."""
    user = User(database, confirmed=True)
    manage(database, "proj_two_b", "invite_member", email=user.email)
    run(database, "update data_plane.sign_in_settings set email_autoconfirm = true")
    try:
        newcomer = f"{new_id()}@example.org"
        with pytest.raises(FeatureNotSupported, match="an address cannot be invited"):
            manage(database, "proj_two_b", "invite_member", email=newcomer)
        run(database, "insert into data_plane.invitations (tenant, email) values ('proj_two_b', %s)", newcomer)
        with connect(database, "supabase_auth_admin") as auth:
            auth.execute(
                """insert into auth.users (id, email, raw_user_meta_data, email_confirmed_at)
                values (%s, %s, '{"project": "two-b"}', now())""",
                [new_id(), newcomer],
            )
        assert newcomer not in {
            email for _, email, state, _ in manage(database, "proj_two_b", "list_members") if state == "member"
        }
        with pytest.raises(InsufficientPrivilege):
            user.call("join_project", "two-b")
        assert user.call("my_projects") == []
        manage(database, "proj_two_b", "invite_member", user_id=user.id)
        user.call("join_project", "two-b")
        assert user.projects() == ["proj_two_b"]
    finally:
        run(database, "update data_plane.sign_in_settings set email_autoconfirm = false")


def test_a_deleted_user_is_no_member(database: LocalPostgres) -> None:
    user = User(database, named="one")
    with connect(database, "supabase_auth_admin") as auth:
        auth.execute("delete from auth.users where id = %s", [user.id])
    assert user.projects() == []


# Whose call it is


@pytest.mark.parametrize("function", ["my_projects", "switch_project", "join_project", "leave_project"])
def test_a_subject_without_the_users_session_is_nobody(database: LocalPostgres, function: str) -> None:
    """Any SQL can set the claims of its own request, and tenants write SQL."""
    victim, other = User(database, named="one"), User(database)
    values = [] if function == "my_projects" else ["one"]
    for spoofed in ({"session_id": None}, {"session_id": new_id()}, {"session_id": other.session}, {"sub": other.id}):
        with pytest.raises(InsufficientPrivilege, match="nobody is signed in"):
            victim.call(function, *values, **spoofed)
    assert victim.projects() == ["proj_one"]


USERS_OWN = ["my_projects", "switch_project", "join_project", "leave_project"]


@pytest.mark.parametrize("function", USERS_OWN)
@pytest.mark.parametrize(
    "login", ["proj_one_anon", "proj_one_authenticated", "proj_one_service_role", "proj_one_owner"]
)
def test_a_lease_does_nothing_in_a_users_name(
    database: LocalPostgres, of_both: User, login: str, function: str
) -> None:
    """With all that a project sees of its user: the ID, and that of a session, of either kind."""
    values = [] if function == "my_projects" else ["two-b"]
    issue(database, "lease_forger", login)
    try:
        for begun in ("one", "-"):
            of_both.sign_in(begun)
            before = of_both.token()
            for role in ("authenticated", None):
                claims = {"role": "authenticated", "sub": of_both.id, "session_id": of_both.session}
                with connect(database, "lease_forger", "pw") as session:
                    session.execute(sql.SQL("set request.jwt.claims = {}").format(json.dumps(claims)))
                    if role is not None:
                        with suppress(InsufficientPrivilege), session.transaction():
                            session.execute(f"set role {role}".encode())
                    with pytest.raises(InsufficientPrivilege):
                        rpc(session, function, *values)
            assert of_both.token() == before
        assert of_both.projects() == ["proj_one", "proj_two_b"]
    finally:
        revoke(database, "lease_forger")


@pytest.mark.parametrize("function", USERS_OWN)
@pytest.mark.parametrize(
    ("login", "role"),
    [
        (API_LOGIN, "proj_one_authenticated"),
        ("proj_one_authenticator", "proj_one_authenticated"),
        ("proj_one_authenticator", "authenticated"),
        ("supabase_storage_admin", "authenticated"),
    ],
)
def test_a_token_for_a_project_is_not_enough_for_another(
    database: LocalPostgres, of_both: User, login: str, role: str, function: str
) -> None:
    """Nor is any session but the central PostgREST's, where a project's SQL may run."""
    values = [] if function == "my_projects" else ["two-b"]
    run(
        database,
        """do $$ begin
            if to_regrole('proj_one_authenticator') is null then
                create role proj_one_authenticator login noinherit;
            end if;
        end $$;
        grant proj_one_authenticated, authenticated to proj_one_authenticator, supabase_storage_admin;
        select data_plane.grant_session_functions('proj_one_authenticator');
        alter role proj_one_authenticator password 'for-this-test';
        alter role supabase_storage_admin password 'for-this-test'""",
    )
    of_both.sign_in("one")
    before = of_both.token()
    claims = {"sub": of_both.id, "session_id": of_both.session}
    with (
        api_request(database, role, claims, login=login) as session,
        pytest.raises(InsufficientPrivilege, match="for no project") as refusal,
    ):
        rpc(session, function, *values)
    assert "X-Data-Plane-Project" in str(refusal.value.diag.message_hint)
    assert of_both.token() == before
    assert of_both.projects() == ["proj_one", "proj_two_b"]


@pytest.mark.parametrize("role", ["anon", "proj_one_anon", "proj_one_service_role", "service_role"])
def test_only_a_users_token_calls_what_is_for_users(database: LocalPostgres, role: str) -> None:
    user = User(database, named="one")
    with pytest.raises(InsufficientPrivilege, match="permission denied"):
        user.call("my_projects", role=role)


@pytest.mark.parametrize("role", ["anon", "authenticated", "proj_one_anon", "proj_one_authenticated", "service_role"])
@pytest.mark.parametrize("function", ["list_members", "invite_member", "remove_member"])
def test_only_a_projects_back_end_manages_members(database: LocalPostgres, role: str, function: str) -> None:
    with api_request(database, role) as session, pytest.raises(InsufficientPrivilege):
        rpc(session, function)


# Projects and each other's members


def test_a_project_lists_its_own_members_alone(database: LocalPostgres) -> None:
    of_one, of_two = User(database, named="one"), User(database, confirmed=True)
    manage(database, "proj_two_b", "invite_member", user_id=of_two.id)
    of_two.call("join_project", "two-b")
    assert of_one.id in members(database, "proj_one")
    assert of_one.id not in members(database, "proj_two_b")
    assert of_two.id in members(database, "proj_two_b")
    assert of_two.id not in members(database, "proj_one")
    rows = manage(database, "proj_two_b", "list_members")
    assert (of_two.email, "member") in {(email, state) for _, email, state, _ in rows}


def test_a_project_removes_its_own_members_alone(database: LocalPostgres) -> None:
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


def test_inviting_tells_nothing_of_who_there_is(database: LocalPostgres) -> None:
    of_one = User(database, named="one", confirmed=True)
    before = members(database, "proj_two_b")
    for known, unknown in ((of_one.email, "nobody@example.org"), (of_one.id, new_id())):
        key = "email" if "@" in known else "user_id"
        responses = [
            manage(database, "proj_two_b", "invite_member", **{key: value}) for value in (known, known, unknown)
        ]
        assert responses[0] == responses[1] == responses[2]
    after = members(database, "proj_two_b")
    assert {state for who, state in after.items() if who not in before} == {"invited"}
    rows = manage(database, "proj_two_b", "list_members")
    assert [email for user, email, _, _ in rows if str(user) == of_one.id] == [None], "an ID does not give an address"
    assert of_one.projects() == ["proj_one"]


@pytest.mark.parametrize(
    "named", [{}, {"email": "a@b", "user_id": new_id()}, {"email": ""}, {"email": "a"}, {"email": "a b@c"}, {"email": "a@" + "b" * 300}]
)  # fmt: skip
def test_an_invitation_needs_one_usable_address_or_id(database: LocalPostgres, named: dict[str, object]) -> None:
    with pytest.raises(InvalidParameterValue):
        manage(database, "proj_one", "invite_member", **named)


def test_a_lease_manages_the_members_of_its_own_project(database: LocalPostgres) -> None:
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


def test_no_argument_names_a_project_for_those_who_manage_one(database: LocalPostgres) -> None:
    """Nor a role: whose call it is, is the assumed role's to say, and what is named is named inside of that project."""
    rows = run(
        database,
        "select distinct unnest(coalesce(proargnames[1:pronargs], '{}')) from pg_proc"
        " where pronamespace = 'data_plane_api'::regnamespace and has_function_privilege('data_plane_tenant', oid, 'execute')"
        " order by 1",
    )
    assert [name for (name,) in rows] == [
        *(
            "allowed_mime_types",
            "cascade",
            "check_expression",
            "command",
            "email",
            "file_size_limit",
            "job_id",
            "job_name",
        ),
        *("name", "permissive", "public", "roles", "schedule", "user_id", "using_expression"),
    ]


def test_a_definers_rights_do_not_reach_another_tenants_role(database: LocalPostgres) -> None:
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
