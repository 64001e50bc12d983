"""Which services' logins may become a tenant's API roles, as it is declared, changed and meddled with."""

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql
from psycopg.errors import CheckViolation, UndefinedObject

from components.central.files import platform_sql
from data_plane.model.naming import API_LEVELS, AccessLevel
from tests.security.world import (
    APART,
    ATTACKER,
    CELL,
    ELSEWHERE,
    HIDDEN,
    OTHER_CELL,
    TENANTS,
    VICTIM,
    Connection,
    World,
)

PLATFORM, STORAGE = "authenticator", "supabase_storage_admin"


@pytest.fixture
def admin(world: World) -> Iterator[Connection]:
    """The superuser, whose changes nobody else sees, and which are undone."""
    with world.admin() as session, session.transaction(force_rollback=True):
        yield session


def members(session: Connection, schema: str) -> dict[str, set[str]]:
    """The logins of services by the level that they may assume, leases apart."""
    rows = session.execute(
        """
        select replace(role.rolname, %(schema)s || '_', ''), login.rolname
        from pg_auth_members m join pg_roles role on role.oid = m.roleid join pg_roles login on login.oid = m.member
        where role.rolname like replace(%(schema)s, '_', '\\_') || '\\_%%' and login.rolname not like 'lease\\_%%'
            -- the project's own, for its users, jobs and topics
            and login.rolname !~ '[$]'
        """,
        {"schema": schema},
    ).fetchall()
    return {level: {login for of, login in rows if of == level} for level, _ in rows}


def declare(session: Connection, schema: str, login: str | None, *, storage: bool) -> None:
    session.execute(
        "update data_plane.api_access set login = %s, storage = %s where tenant = %s", [login, storage, schema]
    )
    session.execute("select data_plane.apply_api_access(%s)", [schema])


def served_by(login: str) -> dict[str, set[str]]:
    return {"anon": {login, STORAGE}, "authenticated": {login, STORAGE}, "service_role": {login}}


def test_a_tenant_is_given_to_the_login_that_serves_it_and_to_storage_without_its_service_role(
    admin: Connection,
) -> None:
    assert members(admin, ATTACKER.schema) == served_by(CELL.login)
    assert members(admin, VICTIM.schema) == served_by(CELL.login)
    assert members(admin, APART.schema) == served_by(APART.authenticator)
    assert members(admin, ELSEWHERE.schema) == served_by(OTHER_CELL.login)
    assert members(admin, HIDDEN.schema) == {"anon": {STORAGE}, "authenticated": {STORAGE}}


def usage(session: Connection, schema: str) -> set[str]:
    """The logins of PostgRESTs that serve a schema."""
    rows = session.execute(
        "select grantee::regrole::text from pg_namespace, aclexplode(nspacl) where nspname = %s"
        " and data_plane.is_api_login(grantee::regrole::text)",
        [schema],
    ).fetchall()
    return {row[0] for row in rows}


def test_a_schema_is_served_by_the_login_that_may_become_its_roles_and_by_no_other(admin: Connection) -> None:
    served = {names: usage(admin, names.schema) for names in TENANTS}
    assert served == {
        ATTACKER: {CELL.login},
        VICTIM: {CELL.login},
        APART: {APART.authenticator},
        ELSEWHERE: {OTHER_CELL.login},
        HIDDEN: set(),
    }


@pytest.mark.parametrize("login", [PLATFORM, CELL.login, OTHER_CELL.login, APART.authenticator])
def test_each_login_may_become_the_roles_of_its_own_tenants_and_nothing_else(world: World, login: str) -> None:
    rows = world.rows(
        "select roleid::regrole::text from pg_auth_members where member = %s::regrole"
        " and roleid <> coalesce(to_regrole('pg_use_reserved_connections'), 0)",
        login,
    )
    mine = {
        PLATFORM: {"anon", "authenticated", "service_role"},
        CELL.login: {names.role(level) for names in (ATTACKER, VICTIM) for level in API_LEVELS},
        OTHER_CELL.login: {ELSEWHERE.role(level) for level in API_LEVELS},
        APART.authenticator: {APART.role(level) for level in API_LEVELS},
    }
    assert {row[0] for row in rows} == mine[login]
    every = [row[0] for row in world.rows("select rolname from pg_roles where rolname ~ '^proj_'")]
    with world.login(login) as session:
        became = set()
        for role in every:
            try:
                session.execute(sql.SQL("set role {}").format(sql.Identifier(role)))
            except psycopg.errors.InsufficientPrivilege:
                continue
            became.add(role)
            session.execute("reset role")
    assert became - {login} == mine[login] & set(every)


def test_a_tenant_that_moves_to_another_cell_is_served_there_alone(admin: Connection) -> None:
    declare(admin, VICTIM.schema, OTHER_CELL.login, storage=True)
    assert members(admin, VICTIM.schema) == served_by(OTHER_CELL.login)
    assert usage(admin, VICTIM.schema) == {OTHER_CELL.login}


def test_what_a_version_before_gave_the_platforms_login_is_taken_away(admin: Connection) -> None:
    """The cell's run takes away its tenants', and the platform's SQL what no cell declares any more."""
    admin.execute("alter table data_plane.api_access drop constraint api_access_login")
    admin.execute("update data_plane.api_access set login = 'authenticator' where tenant = %s", [VICTIM.schema])
    admin.execute("delete from data_plane.api_access where tenant = %s", [ATTACKER.schema])
    for names in (VICTIM, ATTACKER):
        roles = [names.role(level) for level in API_LEVELS]
        admin.execute(sql.SQL("grant {} to authenticator").format(sql.SQL(", ").join(map(sql.Identifier, roles))))
        admin.execute(sql.SQL("grant usage on schema {} to authenticator").format(sql.Identifier(names.schema)))
    admin.execute(platform_sql().encode())
    assert PLATFORM not in set().union(*members(admin, ATTACKER.schema).values())
    assert PLATFORM in members(admin, VICTIM.schema)["anon"], "served until its cell is brought up"
    declare(admin, VICTIM.schema, CELL.login, storage=True)
    assert members(admin, VICTIM.schema) == served_by(CELL.login)
    assert usage(admin, VICTIM.schema) == {CELL.login}


def test_a_change_takes_away_what_was_given_before(admin: Connection) -> None:
    for login in (CELL.login, APART.authenticator, CELL.login):
        declare(admin, APART.schema, login, storage=True)
        assert members(admin, APART.schema) == served_by(login)
    declare(admin, APART.schema, None, storage=False)
    assert members(admin, APART.schema) == {}


def test_what_was_given_by_hand_shows_and_is_taken_away(admin: Connection) -> None:
    admin.execute("grant proj_hidden_service_role to authenticator")
    admin.execute("grant proj_delta_service_role to authenticator, supabase_storage_admin")
    shown = admin.execute(
        "select tenant, (data_plane.present_api_access(tenant)).login from data_plane.api_access order by tenant"
    ).fetchall()
    assert dict(shown) == {
        ATTACKER.schema: CELL.login,
        VICTIM.schema: CELL.login,
        ELSEWHERE.schema: OTHER_CELL.login,
        HIDDEN.schema: "authenticator in part",
        APART.schema: f"authenticator in part and {APART.authenticator}",
    }
    admin.execute("select data_plane.apply_api_access(tenant) from data_plane.api_access")
    assert members(admin, HIDDEN.schema) == {"anon": {STORAGE}, "authenticated": {STORAGE}}
    assert members(admin, APART.schema) == served_by(APART.authenticator)


def test_doing_it_again_changes_nothing(admin: Connection) -> None:
    query = b"select xmin, to_jsonb(m) from pg_auth_members m order by roleid, member, grantor"
    before = admin.execute(query).fetchall()
    admin.execute("select data_plane.apply_api_access(tenant) from data_plane.api_access")
    assert admin.execute(query).fetchall() == before


def test_leases_are_left_alone(world: World, admin: Connection) -> None:
    with world.lease(ATTACKER, AccessLevel.ANON) as lease:
        declare(admin, ATTACKER.schema, None, storage=False)
        row = admin.execute("select pg_has_role(%s, 'proj_alpha_anon', 'member')", [lease.info.user]).fetchone()
        assert row == (True,)


def test_a_login_that_is_not_there_is_named_with_what_to_do(admin: Connection) -> None:
    with pytest.raises(UndefinedObject, match="there is no login proj_alpha_authenticator") as caught:
        declare(admin, ATTACKER.schema, ATTACKER.authenticator, storage=False)
    assert "Bring the central stack up first" in str(caught.value.diag.message_hint)


@pytest.mark.parametrize(
    "login",
    [
        "supabase_admin",
        "authenticator",
        "cell_authenticator",
        "proj_beta_two_authenticator",
        "authenticated",
        "proj_alpha_owner",
    ],
)
def test_no_other_login_can_be_declared(admin: Connection, login: str) -> None:
    with pytest.raises(CheckViolation):
        declare(admin, ATTACKER.schema, login, storage=False)


def test_the_login_of_one_tenants_postgrest_has_nothing_else(world: World) -> None:
    rows = world.rows(
        "select rolsuper or rolcreaterole or rolcreatedb or rolreplication or rolbypassrls, rolinherit, rolcanlogin"
        " from pg_roles where rolname = %s",
        APART.authenticator,
    )
    assert rows == [(False, False, True)]
    with world.login(APART.authenticator) as session:
        for table in (f"{APART.schema}.notes", f"{VICTIM.schema}.notes", "auth.users", "data_plane.api_access"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                session.execute(f"select * from {table}".encode())


def test_what_tenants_have_in_common_cannot_be_assumed_where_postgresql_tells_that_apart(world: World) -> None:
    if world.major < 16:
        pytest.skip("before PostgreSQL 16 whoever has a role's privileges may assume it")
    rows = world.rows(
        "select distinct set_option, inherit_option from pg_auth_members"
        " where roleid in ('anon'::regrole, 'authenticated'::regrole, 'data_plane_tenant'::regrole)"
        " and member::regrole::text like 'proj\\_%%'"
    )
    assert rows == [(False, True)]
