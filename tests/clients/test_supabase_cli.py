"""What Supabase's own CLI does with a lease, and what it cannot."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from data_plane.connector.leases import Lease, LeaseFormat
from data_plane.model.naming import AccessLevel
from tests.conftest import Plane

Command = Callable[..., "subprocess.CompletedProcess[str]"]
TABLES = """
create type mood as enum ('fine', 'foul');
create table authors (id bigint generated always as identity primary key, name text not null, mood mood default 'fine');
create table books (id uuid primary key, author bigint references authors);
create function age(author authors) returns int language sql as 'select 42';
"""


@pytest.fixture
def lease(shop: Plane) -> Lease:
    """An owner's, with two tables in the schema."""
    lease = shop.lease("shop", AccessLevel.OWNER)
    with psycopg.connect(lease.connection_string) as session:
        session.execute(TABLES.encode())
    return lease


@pytest.fixture
def supabase(node_folder: Path, lease: Lease, tmp_path: Path) -> Command:
    """Runs the CLI in a project of its own, where the lease is the service file's and no argument holds a password."""
    program = node_folder / "node_modules" / "@supabase" / "cli-linux-x64" / "bin" / "supabase"
    if not program.is_file():
        pytest.skip("the CLI is locked for Linux on x86-64 alone: npm has its newer versions for no other system yet")
    migrations = tmp_path / "supabase" / "migrations"
    migrations.mkdir(parents=True)
    (tmp_path / "supabase" / "config.toml").write_text('project_id = "shop"\n', encoding="utf-8")
    (migrations / "20260101000000_pages.sql").write_text("create table pages ();\n", encoding="utf-8")
    (tmp_path / "pg_service.conf").write_text(lease.render(LeaseFormat.SERVICE) + "\n", encoding="utf-8")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "PGSERVICEFILE": str(tmp_path / "pg_service.conf"),
        "PGSERVICE": lease.project,
        "SUPABASE_TELEMETRY_DISABLED": "1",
        "DO_NOT_TRACK": "1",
    }

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            [program, *arguments, "--remote=postgresql://"],
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=180,
        )
        assert lease.password not in done.stdout + done.stderr
        return done

    return run


@pytest.mark.parametrize(
    ("language", "expected"),
    [
        ("typescript", ['"proj_shop": {', '"authors": {', '"mood": "fine"|"foul"', '"books_author_fkey"']),
        ("python", ["class ProjShopAuthors(BaseModel):", 'Literal["fine", "foul"]']),
        ("go", ["type ProjShopAuthorsSelect struct {"]),
    ],
)
def test_it_generates_types_of_the_tenants_schema(supabase: Command, language: str, expected: list[str]) -> None:
    done = supabase("gen", "types", "--lang", language, "--schema", "proj_shop")
    assert done.returncode == 0, done.stderr
    assert [text for text in expected if text not in done.stdout] == []
    assert "rival" not in done.stdout


def test_it_generates_no_types_of_another_tenants_schema(supabase: Command) -> None:
    done = supabase("gen", "types", "--schema", "proj_rival")
    assert done.returncode == 0, done.stderr
    assert "rival" not in done.stdout
    assert "secret" not in done.stdout


def test_its_list_of_migrations_and_its_dry_run_work(supabase: Command) -> None:
    assert "20260101000000" in supabase("migration", "list").stdout
    assert "20260101000000_pages.sql" in supabase("db", "push", "--dry-run").stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["db", "push", "--yes"],
        ["migration", "up", "--yes"],
        ["migration", "repair", "--status", "applied", "20260101000000", "--yes"],
    ],
)
def test_it_cannot_run_migrations_since_its_history_is_a_schema_of_its_own(
    supabase: Command, shop: Plane, arguments: list[str]
) -> None:
    done = supabase(*arguments)
    assert done.returncode != 0
    assert "permission denied for database" in done.stderr
    assert shop.rows("select from pg_tables where tablename = 'pages'") == []
    assert shop.rows("select from pg_namespace where nspname = 'supabase_migrations'") == []
