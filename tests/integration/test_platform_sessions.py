"""Every connection with the platform's rights: it finds names nobody else supplies, and waits for nobody without end."""

import ast
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from components.central import platform_sql as platform_sql_module
from components.central.files import platform_sql
from data_plane.cli.superuser import superuser_of
from data_plane.clients import postgres
from data_plane.clients.postgres import PLATFORM_SESSION
from data_plane.engine.engines import PulumiEngine
from data_plane.local.postgres import LocalPostgres
from data_plane.local.providers.postgresql import PostgresqlProvider
from data_plane.local.servers import ADMIN_USER, LOOPBACK
from data_plane.state_dir import CHECKOUT, StateDir
from tests.support.platform_database import (
    add_tenants,
    apply_platform,
    connect,
    connection_properties,
    issue,
    revoke,
    running,
)
from tests.support.postgresqls import binaries

# Sessions with a lease are a tenant's: they have its rights, and the bounds of its lease.
WITH_A_LEASE = {"data_plane/connector/migrations/session.py", "data_plane/connector/lease_rotation.py"}
# Sessions of a project's owner on a server that is thrown away afterwards; the files run with the limits of a run.
ON_A_SCRATCH_SERVER = {"data_plane/cli/migration_diff.py"}
OPENS = {"connect", "ConnectionPool", "AsyncConnection", "AsyncConnectionPool"}
NAMES = ("search_path", "lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")


def opened(file: Path) -> Iterator[ast.Call]:
    """The calls of a file that open a connection to PostgreSQL."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        if isinstance(called, ast.Subscript):
            called = called.value
        if (isinstance(called, ast.Attribute) and ast.unparse(called.value) == "psycopg" and called.attr in OPENS) or (
            isinstance(called, ast.Name) and called.id in OPENS - {"connect"}
        ):
            yield node


def has_bounds(call: ast.Call, text: str) -> bool:
    options = [keyword.value for keyword in call.keywords if keyword.arg == "options"]
    if options:
        return ast.unparse(options[0]) == "PLATFORM_SESSION"
    # By the arguments of all of the provider's connections, which the next test looks at live.
    return "self._arguments" in ast.unparse(call) and '"options": PLATFORM_SESSION' in text


def test_no_connection_is_opened_without_bounds() -> None:
    found = 0
    for folder in ("components", "data_plane", "policies"):
        for file in sorted((CHECKOUT / folder).rglob("*.py")):
            name = file.relative_to(CHECKOUT).as_posix()
            for call in opened(file):
                if name in WITH_A_LEASE | ON_A_SCRATCH_SERVER:
                    continue
                found += 1
                assert has_bounds(call, file.read_text(encoding="utf-8")), f"{name}:{call.lineno}"
    assert found >= 8


@pytest.fixture(scope="module", params=["15", "wheel18"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPostgres]:
    if request.param not in binaries():
        pytest.skip(f"no PostgreSQL {request.param} here")
    with running(tmp_path_factory.mktemp("sessions"), binaries()[request.param], apply_platform, add_tenants) as made:
        yield made


def bounds(connection: "psycopg.Connection[tuple[object, ...]]") -> list[object]:
    with connection:
        rows = [connection.execute("select pg_catalog.current_setting(%s)", [name]).fetchone() for name in NAMES]
    return [row and row[0] for row in rows]


def test_each_kind_of_connection_has_them(server: LocalPostgres, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = ["pg_catalog,pg_temp", "30s", "2min", "2min"]
    # What the caller has set for his own sessions does not count.
    monkeypatch.setenv("PGOPTIONS", "-c lock_timeout=0 -c search_path=public")
    assert bounds(postgres.connect(connection_properties(server))) == expected
    assert bounds(server.connect()) == expected
    for name, value in (
        ("PGHOST", LOOPBACK),
        ("PGPORT", server.port),
        ("PGUSER", ADMIN_USER),
        ("PGDATABASE", "postgres"),
    ):
        monkeypatch.setenv(name, str(value))
    assert bounds(superuser_of(None)(server.admin_password)) == expected
    client = PostgresqlProvider()
    client.connect(connection_properties(server))
    try:
        row = client._rows(
            "select pg_catalog.current_setting('lock_timeout') as a, current_setting('search_path') as b"
        )
        assert row == [{"a": "30s", "b": "pg_catalog,pg_temp"}]
        elsewhere = client._rows("select current_setting('lock_timeout') as a", database="template1")
        assert elsewhere == [{"a": "30s"}]
    finally:
        client.close()


def test_no_tenant_can_take_the_lock_by_which_runs_take_turns(server: LocalPostgres) -> None:
    """Anybody can take an advisory lock, and keep it."""
    issue(server, "lease_blocker", "proj_one_owner")
    with connect(server, "lease_blocker", "pw") as session:
        session.execute("select pg_advisory_xact_lock(n) from generate_series(1, 3) n")
        session.execute("select pg_advisory_xact_lock(7264190355), pg_advisory_xact_lock(2, hashtext('roles'))")
        for table in ("pg_authid", "pg_namespace", "pg_auth_members", "pg_default_acl"):
            for mode in ("share update exclusive", "share", "access exclusive"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege), session.transaction():
                    session.execute(f"lock table pg_catalog.{table} in {mode} mode".encode())
        began = time.monotonic()
        platform_sql_module._Provider().create({**connection_properties(server), "sql": platform_sql()})
        client = PostgresqlProvider()
        client.connect(connection_properties(server))
        try:
            role = {"name": "proj_one_owner", "connectionLimit": 7, "roles": ["data_plane_tenant"]}
            client._write_role(role, client._read_role(role))
        finally:
            client.close()
        assert time.monotonic() - began < 25, "it waited for the lock, which takes 30 s"
    revoke(server, "lease_blocker")


def test_the_official_providers_connections_have_them_too(tmp_path: Path) -> None:
    """It reads libpq's variables, and has no setting of its own for this."""
    command = tmp_path / "cli"
    command.write_text("#!/bin/sh\necho v3.999.0\n", encoding="utf-8")
    command.chmod(0o700)
    engine = PulumiEngine(StateDir(tmp_path), command)
    assert engine.environment()["PGOPTIONS"] == PLATFORM_SESSION
