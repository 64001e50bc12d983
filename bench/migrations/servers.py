"""The databases that migrations are tried on: the platform's with an empty project, and a plain Supabase's stand-in."""

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import yaml
from psycopg import sql

from data_plane.local.postgres import LocalPostgres
from data_plane.local.processes import LOOPBACK
from data_plane.model.naming import TenantNames
from tests.integration.pg_cron import make_stand_in
from tests.support import platform_database
from tests.support.storage import make_storage

__all__ = ["plain", "plain_database", "platform", "project"]

_OF_THE_STACK = (
    *("pgcrypto", "uuid-ossp", "citext", "pg_trgm", "unaccent", "btree_gin", "btree_gist", "ltree", "hstore"),
    *("fuzzystrmatch", "moddatetime", "vector"),
)
"""Extensions that the central stack is taken to have."""
_OF_A_SUPABASE = ("pgcrypto", "uuid-ossp")
"""Those that a standalone Supabase has from the beginning."""
_HERE = Path(__file__).parent


@contextmanager
def platform(folder: Path, binaries: Path) -> Iterator[LocalPostgres]:
    """A server with the platform's SQL, and its extensions where the stack has them."""
    with plain(folder, binaries) as server:
        platform_database.apply_platform(server)
        make_storage(server)
        make_stand_in(server)
        with server.connect() as admin:
            _add_extensions(admin, _OF_THE_STACK)
        platform_database.apply_platform(server)
        yield server


@contextmanager
def plain(folder: Path, binaries: Path) -> Iterator[LocalPostgres]:
    """A server without the platform."""
    with platform_database.running(folder / "data", _with_placeholders(binaries, folder / "programs")) as server:
        yield server


@contextmanager
def project(server: LocalPostgres, slug: str) -> Iterator[psycopg.Connection[Any]]:
    """A new project, and a session as its owner such as a lease gives."""
    schema, login = TenantNames(slug).schema, f"lease_{slug.replace(chr(45), chr(95))}"
    platform_database.add_tenants(server, [schema])
    with server.connect() as admin:
        admin.execute("insert into data_plane.buckets (tenant, public) values (%s, false)", [schema])
        admin.execute("insert into data_plane.user_tables values (%s, true)", [schema])
        admin.execute("select data_plane.provide_users(%s)", [schema])
        admin.execute("insert into data_plane.job_access values (%s, true)", [schema])
        admin.execute(sql.SQL("select data_plane.provide_jobs({})").format(schema))
    platform_database.issue(server, login, f"{schema}_owner")
    with psycopg.connect(
        host=LOOPBACK, port=server.port, user=login, password="pw", dbname="postgres", autocommit=True
    ) as session:
        yield session
    platform_database.revoke(server, login)


@contextmanager
def plain_database(server: LocalPostgres) -> Iterator[psycopg.Connection[Any]]:
    """A new database such as migrations meet in a standalone Supabase, as superuser.

    It goes afterwards, with every role made meanwhile.
    """
    with server.connect() as admin:
        admin.autocommit = True
        before = {row[0] for row in admin.execute("select rolname from pg_catalog.pg_roles").fetchall()}
        admin.execute("create database plain")
    try:
        with server.connect("plain") as session:
            session.execute((_HERE / "stand_in.sql").read_bytes())
            _add_extensions(session, _OF_A_SUPABASE)
        with server.connect("plain") as session:
            session.execute("set session authorization postgres")
            session.commit()
            yield session
    finally:
        with server.connect() as admin:
            admin.autocommit = True
            admin.execute("drop database plain with (force)")
            for (role,) in admin.execute("select rolname from pg_catalog.pg_roles").fetchall():
                if role not in before:
                    admin.execute(sql.SQL("drop role {}").format(sql.Identifier(str(role))))


def _add_extensions(admin: psycopg.Connection[Any], names: Iterable[str]) -> None:
    available = {row[0] for row in admin.execute("select name from pg_available_extensions").fetchall()}
    for name in names:
        if name in available:
            admin.execute(sql.SQL("create extension {} schema extensions").format(sql.Identifier(name)))


def _with_placeholders(binaries: Path, root: Path) -> Path:
    """A copy of PostgreSQL's programs that has placeholders for extensions it lacks; the folder with the copy's."""
    parts = [binaries.parent, *binaries.parents[2].glob("*.libs")]
    if binaries.is_relative_to("/usr/lib/postgresql"):
        parts.append(Path("/usr/share/postgresql") / binaries.parent.name)
    for part in parts:
        shutil.copytree(part, root / part.relative_to("/"), symlinks=True)
    extensions = next(root.glob("**/extension/plpgsql.control")).parent
    placeholders: dict[str, str] = yaml.safe_load((_HERE / "placeholders.yaml").read_text(encoding="utf-8"))
    for name, text in placeholders.items():
        control = extensions / f"{name}.control"
        if not control.exists():
            control.write_text("default_version = '1.6'\n", encoding="utf-8")
            control.with_name(f"{name}--1.6.sql").write_text(text, encoding="utf-8")
    for folder in (root, *root.parents[:1]):
        folder.chmod(0o755)
    return root / binaries.relative_to("/")
