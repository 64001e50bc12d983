"""What the pooler learns of logins, and what a lease is on a connection that the pooler shares."""

import base64
import hashlib
import hmac
import re
from collections.abc import Iterator

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege

from data_plane.local.postgres import LocalPostgres
from tests.support.platform_database import (
    add_tenants,
    apply_platform,
    connect,
    issue,
    revoke,
    run,
    running,
)
from tests.support.postgresqls import binaries

AUTH_QUERY = "select usename, passwd from data_plane.pooler_auth($1)"


@pytest.fixture(scope="module", params=sorted(binaries()))
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPostgres]:
    with running(tmp_path_factory.mktemp("pg"), binaries()[request.param], apply_platform, add_tenants) as server:
        yield server


def ask(database: LocalPostgres, name: str) -> list[tuple[str, str]]:
    """What Supavisor's manager connection gets; it wants at most one row, of two columns, the first what it asked for."""
    with connect(database, "pgbouncer") as manager:
        cursor = manager.execute(AUTH_QUERY.replace("$1", "%s").encode(), [name])
        assert cursor.description is not None
        assert [column.name for column in cursor.description] == ["usename", "passwd"]
        return [(str(user), str(verifier)) for user, verifier in cursor.fetchall()]


def test_a_lease_is_known_by_its_verifier(database: LocalPostgres) -> None:
    login = "lease_proj_two_b_service_role_Ab3dEf6hIj9lMnOpQrSt"
    assert ask(database, login) == []
    issue(database, login, "proj_two_b_service_role")
    ((user, verifier),) = ask(database, login)
    assert user == login
    # The form that Supavisor takes apart, and enough to check a password with and no more.
    match = re.fullmatch(r"SCRAM-SHA-256\$(\d+):([^$]+)\$([^:]+):(.+)", verifier)
    assert match is not None
    salted = hashlib.pbkdf2_hmac("sha256", b"pw", base64.b64decode(match[2]), int(match[1]))
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    assert hashlib.sha256(client_key).digest() == base64.b64decode(match[3])
    assert hmac.digest(salted, b"Server Key", "sha256") == base64.b64decode(match[4])
    revoke(database, login)
    assert ask(database, login) == []


def test_an_expired_lease_is_unknown(database: LocalPostgres) -> None:
    issue(database, "lease_late", "proj_one_anon", expires="-1 second")
    assert ask(database, "lease_late") == []
    with connect(database, "openbao_lease_issuer") as issuer:
        issuer.execute("select data_plane.renew_lease('lease_late', now() + interval '1 hour')")
    assert len(ask(database, "lease_late")) == 1
    revoke(database, "lease_late")


@pytest.mark.parametrize(
    "name",
    [
        "supabase_admin",
        "postgres",
        "authenticator",
        "supabase_auth_admin",
        "openbao_lease_issuer",
        "data_plane_keys",
        "proj_one_owner",
        "proj_one_service_role",
        "service_role",
        "lease_",
        "lease_%",
        "",
        "lease_x' or 1=1 --",
    ],
)
def test_nothing_else_comes_in_through_the_pooler(database: LocalPostgres, name: str) -> None:
    assert ask(database, name) == []


@pytest.mark.parametrize(
    "made_as",
    [
        "superuser login valid until '2099-01-01' in role proj_one_owner",
        "bypassrls login valid until '2099-01-01' in role proj_one_owner",
        "createrole login valid until '2099-01-01' in role proj_one_owner",
        "replication login valid until '2099-01-01' in role proj_one_owner",
        "nologin valid until '2099-01-01' in role proj_one_owner",
        "login in role proj_one_owner",
        "login valid until '2099-01-01' in role service_role",
        "login valid until '2099-01-01'",
    ],
)
def test_what_looks_like_a_lease_and_is_none_stays_out(database: LocalPostgres, made_as: str) -> None:
    run(database, f"create role lease_imitation password 'pw' {made_as}")
    try:
        assert ask(database, "lease_imitation") == []
    finally:
        run(database, "drop role lease_imitation")


def test_the_pooler_finds_its_own_login_when_it_is_registered(database: LocalPostgres) -> None:
    """Supavisor's API refuses a tenant whose auth_query does not know the manager itself."""
    ((user, verifier),) = ask(database, "pgbouncer")
    assert user == "pgbouncer"
    assert verifier.startswith("SCRAM-SHA-256$")


@pytest.mark.parametrize("login", ["authenticator", "openbao_lease_issuer", "supabase_auth_admin", "data_plane_keys"])
def test_only_the_pooler_asks(database: LocalPostgres, login: str) -> None:
    with connect(database, login) as session, pytest.raises(InsufficientPrivilege):
        session.execute("select * from data_plane.pooler_auth('pgbouncer')")


def test_a_lease_cannot_ask(database: LocalPostgres) -> None:
    issue(database, "lease_curious", "proj_one_owner")
    with connect(database, "lease_curious", "pw") as session, pytest.raises(InsufficientPrivilege):
        session.execute("select * from data_plane.pooler_auth('lease_curious')")
    revoke(database, "lease_curious")


@pytest.mark.parametrize("statement", ["select * from pg_authid", "set role proj_one_owner", "create table t (a int)"])
def test_the_poolers_login_can_do_nothing_else(database: LocalPostgres, statement: str) -> None:
    with connect(database, "pgbouncer") as session, pytest.raises(InsufficientPrivilege):
        session.execute(statement.encode())


STATE = "select current_user, current_setting('search_path'), current_setting('statement_timeout')"


def test_a_shared_connection_starts_as_the_tenants_role_for_every_client(database: LocalPostgres) -> None:
    """In session mode Supavisor says DISCARD ALL between two clients of one lease, in transaction mode nothing."""
    issue(database, "lease_shared", "proj_one_owner")
    start = ("proj_one_owner", "proj_one, extensions", "7s")
    with connect(database, "lease_shared", "pw") as server:
        server.autocommit = True
        assert server.execute(STATE).fetchone() == start
        server.execute("set role none; set search_path to pg_temp; set statement_timeout to 1000")
        server.execute("discard all")
        assert server.execute(STATE).fetchone() == start
        # What a client sets for its transaction ends with it; that is all that transaction mode is safe for.
        with server.transaction():
            server.execute("set local role none; set local search_path to pg_temp")
        assert server.execute(STATE).fetchone() == start
        server.execute("reset role")
        assert server.execute(STATE).fetchone() == start
    revoke(database, "lease_shared")


def test_revoking_a_lease_ends_the_connections_that_the_pooler_holds(database: LocalPostgres) -> None:
    issue(database, "lease_pooled", "proj_one_owner")
    idle = connect(database, "lease_pooled", "pw")
    idle.commit()
    revoke(database, "lease_pooled")
    with pytest.raises(psycopg.errors.AdminShutdown):
        idle.execute("select 1")
