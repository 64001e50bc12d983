"""What a lease leaves on roles, which outlive it, is found and taken back: every setting, and everything else there is."""

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from components.tenant.schema import role_settings
from data_plane.local.postgres import LocalPostgres
from data_plane.local.providers.postgresql import PostgresqlProvider
from data_plane.model.naming import AccessLevel, TenantNames
from data_plane.model.projects import Limits
from tests.support.lease_statements import HOLDER, NEIGHBOUR, VICTIM, statements
from tests.support.platform_database import (
    MEMBER_OF,
    add_tenants,
    apply_platform,
    connect,
    connection_properties,
    issue,
    revoke,
    run,
    running,
)
from tests.support.postgresqls import binaries, oldest_and_newest

NAMES = TenantNames("one")
# Not in pg_settings.
HIDDEN = {"role": "none", "session_authorization": "default", "my.own": "x", "request.jwt.claims": "{}"}
SHARED_CATALOGUES = (
    "select to_jsonb(a) - 'oid' from pg_authid a",
    "select roleid::regrole::text, member::regrole::text, admin_option from pg_auth_members",
    "select setdatabase, setrole::regrole::text, unnest(setconfig) from pg_db_role_setting",
    "select objoid, classoid::regclass::text, description from pg_shdescription",
    "select objoid, classoid::regclass::text, label from pg_shseclabel",
    "select datname, datdba::regrole::text, datacl::text, datconnlimit from pg_database",
    "select spcname, spcowner::regrole::text, spcacl::text, spcoptions::text from pg_tablespace",
    "select parname, paracl::text from pg_parameter_acl",
    "select subname from pg_subscription",
    "select slot_name from pg_replication_slots",
    "select roname from pg_replication_origin",
)


@pytest.fixture(scope="module", params=oldest_and_newest())
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPostgres]:
    with running(tmp_path_factory.mktemp("settings"), binaries()[request.param], apply_platform, add_tenants) as made:
        client = provider(made)
        try:
            for level in AccessLevel:
                role = declared_role(level)
                client._write_role(role, client._read_role(role))
        finally:
            client.close()
        declare(made)
        run(made, "create role proj_one_authenticator login noinherit")
        yield made


def provider(server: LocalPostgres) -> PostgresqlProvider:
    made = PostgresqlProvider()
    made.connect(connection_properties(server))
    return made


def declare(server: LocalPostgres) -> None:
    """Declares the tenant's settings, as a run that is long over has."""
    declared = json.dumps({NAMES.schema: role_settings(NAMES, Limits())})
    run(server, "select data_plane.declare_role_settings(%s)", declared)
    run(server, "update data_plane.role_settings set declared_at = now() - interval '1 min'")


def declared_role(level: AccessLevel) -> dict[str, Any]:
    return {
        "name": NAMES.role(level),
        "roles": [MEMBER_OF[level.value]],
        "connectionLimit": 5,
        "bypassRowLevelSecurity": level is AccessLevel.SERVICE_ROLE,
        "searchPaths": [NAMES.schema, "extensions"],
        "statementTimeout": Limits().statement_timeout * 1000,
        "idleInTransactionSessionTimeout": 60_000,
    }


def found(server: LocalPostgres) -> list[str]:
    return [str(row[0]) for row in run(server, "select found from data_plane.changed_role_settings()")]


def restore(server: LocalPostgres) -> list[str]:
    return [str(row[0]) for row in run(server, "select data_plane.restore_role_settings()")]


def test_the_providers_settings_are_the_declared_ones(server: LocalPostgres) -> None:
    """Neither takes back what the other has set."""
    assert found(server) == []
    assert restore(server) == []
    client = provider(server)
    try:
        for level in AccessLevel:
            live = client._read_role(declared_role(level))
            assert live is not None
            assert {key: live[key] for key in declared_role(level)} == declared_role(level)
    finally:
        client.close()


def test_new_limits_are_left_to_the_run_and_set_where_it_was_broken_off(server: LocalPostgres) -> None:
    """The row of the limits is written first, the roles after it; the guard may run in between."""
    of_anon = "select setconfig from pg_db_role_setting where setrole = 'proj_one_anon'::regrole"
    try:
        before = run(server, of_anon)
        run(
            server,
            "insert into data_plane.limits (tenant, connections, leases, storage, statement_timeout, transaction_timeout,"
            " idle_in_transaction_timeout) values ('proj_one', 20, 1000, 1000000, 77, 900, 60)",
        )
        run(server, "select data_plane.declare_limits_of_roles('proj_one')")
        run(server, "select data_plane.enforce_limits()")
        assert run(server, of_anon) == before
        assert not run(server, "select from data_plane.guard_actions")
        run(server, "update data_plane.role_settings set declared_at = declared_at - interval '30 s'")
        run(server, "select data_plane.enforce_limits()")
        settings = run(server, of_anon)[0][0]
        assert "statement_timeout=77000" in settings
        assert "search_path=proj_one, extensions" in settings
    finally:
        run(server, "delete from data_plane.limits; delete from data_plane.guard_actions")
        declare(server)
        restore(server)


def test_what_is_declared_again_without_a_change_gives_nobody_time(server: LocalPostgres) -> None:
    times = "select subject, declared_at from data_plane.role_settings order by subject"
    before = run(server, times)
    run(
        server,
        "select data_plane.declare_role_settings(jsonb_build_object('proj_one', to_jsonb(settings)))"
        " from data_plane.role_settings where subject = 'proj_one'",
    )
    assert run(server, times) == before


def test_the_guard_writes_down_what_it_takes_back(server: LocalPostgres) -> None:
    run(server, "alter role proj_one_anon set row_security = off")
    run(server, "select data_plane.enforce_limits()")
    assert found(server) == []
    assert run(server, "select tenant, value, bound from data_plane.guard_actions where what = 'role settings'") == [
        (
            "proj_one",
            "role proj_one_anon has the setting row_security=off, which is not declared: set right",
            "as declared",
        )
    ]


@pytest.mark.parametrize("level", sorted(MEMBER_OF))
@pytest.mark.parametrize("where", ["", " in database postgres"])
def test_every_setting_that_a_lease_can_leave_is_named_and_taken_back(
    server: LocalPostgres, level: str, where: str
) -> None:
    role = NAMES.role(AccessLevel(level))
    settings = dict(run(server, "select name, reset_val from pg_settings where context <> 'internal'"))
    before = run(server, "select setrole, setdatabase, setconfig from pg_db_role_setting order by 1, 2")
    issue(server, HOLDER, role)
    left = []
    with connect(server, HOLDER, "pw") as session:
        session.autocommit = True
        for name, value in {**settings, **HIDDEN}.items():
            statement = sql.SQL("alter role {}{} set {} to {}").format(
                sql.Identifier(role), sql.SQL(where), sql.Identifier(*name.split(".")), value or ""
            )
            try:
                session.execute(statement)
                left.append(name)
            except psycopg.Error:
                pass
    revoke(server, HOLDER)
    assert {"row_security", "statement_timeout", "work_mem", "search_path", "role"} <= set(left)
    assert len(left) > 100
    named = {line.split("the setting ")[1].partition("=")[0] for line in found(server) if " has the setting " in line}
    # The provider's may have been set to what is declared.
    assert set(left) - named <= ({"statement_timeout"} if where == "" else set())
    assert restore(server)
    assert found(server) == []
    after = run(server, "select setrole, setdatabase, setconfig from pg_db_role_setting order by 1, 2")
    assert [(r, d, sorted(c)) for r, d, c in after] == [(r, d, sorted(c)) for r, d, c in before]


def test_a_change_that_is_kept_open_does_not_keep_a_setting(server: LocalPostgres) -> None:
    role = NAMES.role(AccessLevel.ANON)
    issue(server, HOLDER, role)
    with connect(server, HOLDER, "pw") as session:
        session.execute(f"alter role {role} set row_security = off".encode())
        session.commit()
        session.execute(f"alter role {role} set work_mem = '1MB'; alter role {role} password 'x'".encode())
        lines = restore(server)
        assert f"role {role} has the setting row_security=off, which is not declared: set right" in lines
        assert found(server) == []
        with pytest.raises(psycopg.errors.AdminShutdown):
            session.execute("select 1")
    revoke(server, HOLDER)


def test_postgrest_is_told_to_forget_them(server: LocalPostgres) -> None:
    run(server, f"alter role {NAMES.role(AccessLevel.ANON)} set row_security = off")
    with server.connect() as listener:
        listener.autocommit = True
        listener.execute("listen pgrst")
        restore(server)
        assert [notify.payload for notify in listener.notifies(timeout=30, stop_after=1)] == ["reload config"]
        restore(server)
        assert list(listener.notifies(timeout=0.3, stop_after=1)) == []


@pytest.mark.parametrize(
    "role", ["anon", "authenticated", "authenticator", "data_plane_tenant", "proj_one_authenticator"]
)
def test_settings_of_shared_roles_are_taken_back_to_what_they_were(server: LocalPostgres, role: str) -> None:
    run(server, f"alter role {role} set pgrst.db_schemas = 'proj_one, public'")
    run(server, f"alter role {role} in database postgres set statement_timeout = 1")
    assert len(found(server)) == 2
    restore(server)
    assert found(server) == []


def test_settings_that_the_operator_keeps_are_put_back_whatever_their_form(server: LocalPostgres) -> None:
    with server.connect() as admin:
        for setting in (
            """search_path to "$user", public, "a b\"""",
            "session_preload_libraries to plpgsql",
            "statement_timeout to '8s'",
            "pgrst.db_schemas to 'public, proj_one'",
            "application_name to 'it''s'",
            "timezone to 'Europe/Berlin'",
        ):
            admin.execute(f"alter role authenticated set {setting}".encode())
        admin.execute("select data_plane.keep_role_settings('authenticated')")
    assert found(server) == []
    of_role = "select setconfig from pg_db_role_setting where setrole = 'authenticated'::regrole"
    kept = run(server, of_role)
    run(server, "alter role authenticated reset all")
    assert len(restore(server)) == 6
    assert sorted(run(server, of_role)[0][0]) == sorted(kept[0][0])
    assert found(server) == []
    with server.connect() as admin:
        admin.execute("alter role authenticated reset all")
        admin.execute("select data_plane.keep_role_settings('authenticated')")
    assert restore(server) == []


@pytest.mark.parametrize("as_login", [False, True], ids=["as the role", "as the login"])
@pytest.mark.parametrize("level", sorted(MEMBER_OF))
def test_nothing_of_a_lease_stays_in_what_all_databases_share(
    server: LocalPostgres, level: str, as_login: bool
) -> None:
    """Every statement about roles, grants and owners that is tried on locks, this time committed."""
    before = shared(server)
    issue(server, HOLDER, f"proj_one_{level}")
    issue(server, VICTIM, f"proj_two_b_{level}")
    issue(server, NEIGHBOUR, f"proj_one_{level}")
    kept = shared(server)
    done = 0
    with connect(server, HOLDER, "pw") as session:
        session.autocommit = True
        families = statements(level, 0)
        for text in [*families["a role"], *families["a grant"], *families["default privileges"]]:
            session.execute("reset role" if not as_login else "set role none")
            if "alter role lease_holder" in text and not as_login:
                continue
            try:
                session.execute(text.encode())
                done += 1
            except psycopg.Error:
                pass
    assert done > 10
    for line in set(shared(server)) - set(kept):
        # Nothing but settings and passwords, of its login and of its tenant's role.
        assert HOLDER in line or f"proj_one_{level}" in line or (level in line and "work_mem" in line), line
    for login in (HOLDER, VICTIM, NEIGHBOUR):
        revoke(server, login)
    run(server, "select data_plane.sweep_leases()")
    restore(server)
    assert shared(server) == before


def shared(server: LocalPostgres) -> list[str]:
    with server.connect() as admin:
        return sorted(
            f"{query.split(' from ')[-1]}: {row}"
            for query in SHARED_CATALOGUES
            for row in admin.execute(query.encode())
        )
