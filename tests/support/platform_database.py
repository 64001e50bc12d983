"""What the tests of the platform's SQL share: a database with two tenants, and sessions as its services have them."""

import json
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from components.central.files import platform_sql
from data_plane.local.postgres import LocalPostgres
from data_plane.local.servers import ADMIN_USER, LOOPBACK
from data_plane.state_dir import StateDir
from tests.support.templates import TEMPLATES

Connection = psycopg.Connection[tuple[Any, ...]]

PASSWORD = "for-this-test"
TENANTS = ("proj_one", "proj_two_b")
API_LOGIN = "cell_one_authenticator"
"""That of the PostgREST which serves them."""
MEMBER_OF = {
    "owner": "data_plane_tenant",
    "service_role": "data_plane_tenant",
    "authenticated": "authenticated",
    "anon": "anon",
}


@contextmanager
def running(folder: Path, binaries: Path, *steps: Callable[[LocalPostgres], None]) -> Iterator[LocalPostgres]:
    """A server, and what the steps have made on it, from a copy of data that is made once for all tests.

    Args:
        folder: for its data; it goes afterwards.
        binaries: PostgreSQL's programs.
        steps: functions of a module; equal names make equal data.
    """
    copy_data(folder, binaries, *steps)
    server = LocalPostgres(StateDir(folder), binaries)
    server.start()
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def copy_data(folder: Path, binaries: Path, *steps: Callable[[LocalPostgres], None]) -> None:
    """Fills the folder of a server that was never started; see :func:`running`."""

    def make(draft: Path) -> None:
        if steps:
            copy_data(draft, binaries, *steps[:-1])
        server = LocalPostgres(StateDir(draft), binaries)
        server.start()
        try:
            if steps:
                steps[-1](server)
            else:  # a machine that goes down takes the tests with it
                with (server.data / "postgresql.conf").open("a", encoding="utf-8") as settings:
                    settings.write("fsync = off\nfull_page_writes = off\n")
        finally:
            server.stop()
        (draft / "ports.json").unlink()

    TEMPLATES.copy(repr((binaries, [(step.__module__, step.__qualname__) for step in steps])), make, folder)


def apply_platform(server: LocalPostgres) -> None:
    with server.connect() as admin:
        admin.execute(platform_sql().encode())


def add_tenants(server: LocalPostgres, tenants: Sequence[str] = TENANTS) -> None:
    """Tenants as the components make them, and passwords for the logins of the services."""
    with server.connect() as admin:
        admin.execute("select data_plane.apply_api_logins(array[%s])", [API_LOGIN])
        for tenant in tenants:
            schema = sql.Identifier(tenant)
            for level, parent in MEMBER_OF.items():
                role = sql.Identifier(f"{tenant}_{level}")
                bypass = sql.SQL("bypassrls" if level == "service_role" else "nobypassrls")
                admin.execute(
                    sql.SQL("create role {} nologin inherit {} connection limit 5 in role {}").format(
                        role, bypass, sql.Identifier(parent)
                    )
                )
            admin.execute(
                sql.SQL("create schema {} authorization {}").format(schema, sql.Identifier(f"{tenant}_owner"))
            )
            for level in ("service_role", "authenticated", "anon"):
                role = sql.Identifier(f"{tenant}_{level}")
                admin.execute(sql.SQL("grant usage on schema {} to {}").format(schema, role))
            admin.execute("insert into data_plane.api_access values (%s, %s, true)", [tenant, API_LOGIN])
            admin.execute("select data_plane.apply_api_access(%s)", [tenant])
        for login in (
            "authenticator",
            API_LOGIN,
            "supabase_auth_admin",
            "pgbouncer",
            "data_plane_keys",
            "openbao_lease_issuer",
        ):
            admin.execute(sql.SQL("alter role {} login password {}").format(sql.Identifier(login), PASSWORD))


def connection_properties(server: LocalPostgres) -> dict[str, Any]:
    """By which a resource finds the server, as its superuser."""
    return {
        "host": LOOPBACK,
        "port": server.port,
        "database": "postgres",
        "username": ADMIN_USER,
        "password": server.admin_password,
        "sslmode": "disable",
    }


def connect(server: LocalPostgres, user: str, password: str = PASSWORD) -> Connection:
    return psycopg.connect(
        host=LOOPBACK, port=server.port, user=user, password=password, dbname="postgres", connect_timeout=30
    )


def run(server: LocalPostgres, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """A statement of the superuser's."""
    with server.connect() as admin:
        cursor = admin.execute(statement.encode(), values)
        # Rows without columns are rows; a description they have not.
        return cursor.fetchall() if cursor.rownumber is not None else []


@contextmanager
def api_request(
    server: LocalPostgres,
    role: str,
    claims: Mapping[str, object] | None = None,
    *,
    login: str | None = None,
    settings: Mapping[str, str] | None = None,
) -> Iterator[Connection]:
    """A transaction as PostgREST and Storage begin it: their login assumes the role of the token.

    All settings are in one statement, as theirs are: who has assumed the role may not call the function any more.

    Args:
        login: PostgREST's unless given, the cell's for a tenant's role and the platform's for others.
    """
    values = {"role": role, "request.jwt.claims": json.dumps({"role": role, **(claims or {})}), **(settings or {})}
    calls = ", ".join("set_config(%s, %s, true)" for _ in values)
    with connect(server, login or (API_LOGIN if role.startswith("proj_") else "authenticator")) as session:
        session.execute(f"select {calls}".encode(), [part for item in values.items() for part in item])
        yield session


def new_id() -> str:
    return str(uuid.uuid4())


def issue(server: LocalPostgres, login: str, role: str, expires: str = "1 hour") -> None:
    with connect(server, "openbao_lease_issuer") as issuer:
        verifier = issuer.pgconn.encrypt_password(b"pw", login.encode(), b"scram-sha-256").decode()
        issuer.execute(
            "select data_plane.issue_lease(%s, %s, now() + %s::interval, %s, 7000)", [login, verifier, expires, role]
        )


def revoke(server: LocalPostgres, login: str) -> None:
    with connect(server, "openbao_lease_issuer") as issuer:
        issuer.execute("select data_plane.revoke_lease(%s)", [login])
