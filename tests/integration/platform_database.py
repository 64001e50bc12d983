"""What the tests of the platform's SQL share: a database with two tenants, and sessions as its services have them."""

import json
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from components.central.platform_sql import platform_sql
from embedded.home import Home
from embedded.postgres import EmbeddedPostgres
from embedded.servers import LOOPBACK

Connection = psycopg.Connection[tuple[Any, ...]]

PASSWORD = "for-this-test"
TENANTS = ("proj_one", "proj_two_b")
MEMBER_OF = {
    "owner": "data_plane_tenant",
    "service_role": "data_plane_tenant",
    "authenticated": "authenticated",
    "anon": "anon",
}


@contextmanager
def running(folder: Path, binaries: Path) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(Home(folder), binaries)
    server.start()
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def apply_platform(server: EmbeddedPostgres) -> None:
    with server.connect() as admin:
        admin.execute(platform_sql().encode())


def add_tenants(server: EmbeddedPostgres) -> None:
    """Tenants as the components make them, and passwords for the logins of the services."""
    with server.connect() as admin:
        for tenant in TENANTS:
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
                admin.execute(sql.SQL("grant {} to authenticator").format(role))
        for login in ("authenticator", "supabase_auth_admin", "pgbouncer", "data_plane_keys", "openbao_lease_issuer"):
            admin.execute(sql.SQL("alter role {} login password {}").format(sql.Identifier(login), PASSWORD))


def connect(server: EmbeddedPostgres, user: str, password: str = PASSWORD) -> Connection:
    return psycopg.connect(
        host=LOOPBACK, port=server.port, user=user, password=password, dbname="postgres", connect_timeout=5
    )


def run(server: EmbeddedPostgres, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """A statement of the superuser's."""
    with server.connect() as admin:
        cursor = admin.execute(statement.encode(), values)
        return cursor.fetchall() if cursor.description else []


@contextmanager
def api_request(
    server: EmbeddedPostgres, role: str, claims: Mapping[str, object] | None = None, *, login: str = "authenticator"
) -> Iterator[Connection]:
    """A transaction as PostgREST and Storage begin it: their login assumes the role of the token."""
    with connect(server, login) as session:
        session.execute(
            "select set_config('role', %s, true), set_config('request.jwt.claims', %s, true)",
            [role, json.dumps({"role": role, **(claims or {})})],
        )
        yield session


def new_id() -> str:
    return str(uuid.uuid4())


def issue(server: EmbeddedPostgres, login: str, role: str, expires: str = "1 hour") -> None:
    with connect(server, "openbao_lease_issuer") as issuer:
        verifier = issuer.pgconn.encrypt_password(b"pw", login.encode(), b"scram-sha-256").decode()
        issuer.execute(
            "select data_plane.issue_lease(%s, %s, now() + %s::interval, %s, 7000)", [login, verifier, expires, role]
        )


def revoke(server: EmbeddedPostgres, login: str) -> None:
    with connect(server, "openbao_lease_issuer") as issuer:
        issuer.execute("select data_plane.revoke_lease(%s)", [login])
