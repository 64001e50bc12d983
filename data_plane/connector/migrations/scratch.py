"""A PostgreSQL on this machine for as long as it is needed, with the platform's SQL and a project of the same name.

The project is as empty as one that was just attached. What runs in it has the rights that a lease as its owner has:
files of a repository may hold anything.
"""

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import psycopg
from psycopg import sql

from components.central.files import platform_sql
from data_plane.local.postgres import LocalPostgres
from data_plane.local.processes import LOOPBACK
from data_plane.model.naming import API_LEVELS, AccessLevel, ApiServer, TenantNames
from data_plane.state_dir import StateDir

__all__ = ["ProjectFacts", "Scratch", "facts_of", "scratch"]

_CONNECT_SECONDS = 10
_MEMBER_OF = {
    AccessLevel.OWNER: "data_plane_tenant",
    AccessLevel.SERVICE_ROLE: "data_plane_tenant",
    AccessLevel.AUTHENTICATED: "authenticated",
    AccessLevel.ANON: "anon",
}
_JOBS_EXTENSION = "pg_cron"
# Jobs are not compared, and a server with the extension would run them.
_JOBS = """
create or replace function data_plane_api.schedule_job(job_name text, schedule text, command text) returns bigint
language sql set search_path = pg_catalog, pg_temp as 'select 1::bigint';
create or replace function data_plane_api.unschedule_job(job_name text) returns boolean
language sql set search_path = pg_catalog, pg_temp as 'select true';
create or replace function data_plane_api.unschedule_job(job_id bigint) returns boolean
language sql set search_path = pg_catalog, pg_temp as 'select true';
"""
AUTH_TABLES = Path(__file__).resolve().parents[2] / "local" / "auth_tables.sql"


@dataclass(frozen=True)
class ProjectFacts:
    """What of a real project's surroundings its migrations depend on."""

    major: int
    """The server's version."""
    extensions: dict[str, str]
    """Each with its schema."""
    shares_session: bool
    """Whether its functions run in a PostgREST that others use, too."""
    has_users: bool
    """Whether it has a table of users."""
    has_storage: bool
    """Whether it has buckets."""


@dataclass(frozen=True)
class Scratch:
    """A server of its own."""

    conninfo: str
    """As the project's owner; with a password."""
    folder: Path
    """With all that it keeps."""
    binaries: Path
    missing: list[str]
    """Extensions that this machine does not have."""
    assumed: dict[str, str]
    """Those that are not there and that migrations may take to be."""
    major: int


def facts_of(connection: psycopg.Connection[Any], names: TenantNames) -> ProjectFacts:
    """The facts of a project, over a session of its owner's."""
    extensions = connection.execute(
        "select extname, extnamespace::regnamespace::text from pg_catalog.pg_extension where extname <> 'plpgsql'"
    ).fetchall()
    row = connection.execute("select data_plane.needs_admission(%s)", [names.schema]).fetchone()
    users = sql.Identifier(f"{names.schema}$auth", "users").as_string(connection)
    has_users = connection.execute("select to_regclass(%s)", [users]).fetchone() != (None,)
    try:
        with connection.transaction():
            buckets = connection.execute("select from data_plane_api.list_buckets()").fetchall()
    except psycopg.errors.UndefinedFunction:
        buckets = []  # a central stack of an older program
    major = connection.info.server_version // 10000
    return ProjectFacts(major, dict(extensions), bool(row and row[0]), has_users, bool(buckets))


@contextmanager
def scratch(names: TenantNames, facts: ProjectFacts) -> Iterator[Scratch]:
    """Starts the server, and deletes it with all in it.

    Raises:
        data_plane.errors.ServerError: if it does not start.
    """
    folder = Path(mkdtemp(prefix="dataplane-diff-"))
    server = LocalPostgres(StateDir(folder))
    try:
        server.start()
        with server.connect() as admin:
            admin.execute(platform_sql().encode())
            missing = _add_extensions(admin, facts.extensions)
            admin.execute("set local role supabase_auth_admin")
            admin.execute(AUTH_TABLES.read_bytes())
            admin.execute("reset role")
            password = _add_project(admin, names, facts)
            major = admin.info.server_version // 10000
        conninfo = psycopg.conninfo.make_conninfo(
            host=LOOPBACK,
            port=server.port or 0,
            dbname="postgres",
            user=_login(names),
            password=password,
            connect_timeout=_CONNECT_SECONDS,
        )
        assumed = {name: schema for name, schema in facts.extensions.items() if name == _JOBS_EXTENSION}
        yield Scratch(conninfo, folder, server.binaries, missing, assumed, major)
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _login(names: TenantNames) -> str:
    return f"lease_{names.schema}"


def _add_extensions(admin: psycopg.Connection[Any], wanted: dict[str, str]) -> list[str]:
    available = {row[0] for row in admin.execute("select name from pg_catalog.pg_available_extensions").fetchall()}
    for name in sorted((wanted.keys() & available) - {_JOBS_EXTENSION}):
        schema = sql.Identifier(wanted[name])
        admin.execute(sql.SQL("create schema if not exists {}").format(schema))
        admin.execute(
            sql.SQL("create extension if not exists {} schema {} cascade").format(sql.Identifier(name), schema)
        )
    return sorted(wanted.keys() - available - {_JOBS_EXTENSION})


def _add_project(admin: psycopg.Connection[Any], names: TenantNames, facts: ProjectFacts) -> str:
    """A tenant as :mod:`components.tenant.project_tenant` makes it, and a login as a lease is; gives its password."""
    for statement in _project(names):
        admin.execute(statement)
    login = ApiServer("cell_scratch").login if facts.shares_session else None
    if login is not None:
        admin.execute("select data_plane.apply_api_logins(array[%s])", [login])
    admin.execute("insert into data_plane.api_access values (%s, %s, false)", [names.schema, login])
    admin.execute("select data_plane.apply_api_access(%s)", [names.schema])
    if facts.has_storage:
        admin.execute("insert into data_plane.buckets (tenant) values (%s)", [names.schema])
    if _JOBS_EXTENSION in facts.extensions:
        admin.execute(_JOBS)
    if facts.has_users:
        admin.execute("insert into data_plane.user_tables values (%s, true)", [names.schema])
        admin.execute("select data_plane.provide_users(%s)", [names.schema])
    password = secrets.token_hex(24)
    owner, user = sql.Identifier(names.role(AccessLevel.OWNER)), sql.Identifier(_login(names))
    admin.execute(sql.SQL("create role {} login password {} in role {}").format(user, password, owner))
    admin.execute(sql.SQL("alter role {} set role to {}").format(user, sql.Literal(names.role(AccessLevel.OWNER))))
    admin.execute(sql.SQL("alter role {} set search_path to {}, extensions").format(user, sql.Identifier(names.schema)))
    return password


def _project(names: TenantNames) -> Iterator[sql.Composed]:
    schema = sql.Identifier(names.schema)
    role = {level: sql.Identifier(names.role(level)) for level in AccessLevel}
    for level, parent in _MEMBER_OF.items():
        yield sql.SQL("create role {} nologin inherit {} in role {}").format(
            role[level],
            sql.SQL("bypassrls" if level is AccessLevel.SERVICE_ROLE else "nobypassrls"),
            sql.Identifier(parent),
        )
    yield sql.SQL("create schema {} authorization {}").format(schema, role[AccessLevel.OWNER])
    defaults = sql.SQL("alter default privileges for role {}").format(role[AccessLevel.OWNER])
    yield sql.SQL("{} revoke all on functions from public").format(defaults)
    for level in API_LEVELS:
        yield sql.SQL("grant usage on schema {} to {}").format(schema, role[level])
        rows = "select, insert, update, delete" + (", truncate" if level is AccessLevel.SERVICE_ROLE else "")
        for granted in (f"{rows} on tables", "usage, select on sequences", "execute on functions"):
            yield sql.SQL("{} in schema {} grant {} to {}").format(defaults, schema, sql.SQL(granted), role[level])
