"""Each Node client's own ways, and Drizzle's reading of a schema."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import psycopg
import pytest

from data_plane.connector.leases import Lease
from data_plane.model.naming import AccessLevel
from tests.clients.sessions import IN_NODE, NodeSession
from tests.conftest import Plane

COMMON = {"rolled_back": 2, "moment": "2026-03-29T01:30:00.000Z"}
DRIVER = {**COMMON, "prepared": [42, 1], "copied": ["one", "two"], "notified": "hello"}
EXPECTED: dict[str, dict[str, Any]] = {
    "node-postgres": DRIVER,
    "postgres.js": DRIVER,
    "Drizzle": {**COMMON, "prepared": ["one", 1]},
}
TABLES = """
create type mood as enum ('fine', 'foul');
create table authors (
    id bigint generated always as identity primary key, name text not null unique, mood mood default 'fine');
create table books (
    id bigint generated always as identity primary key, title text not null,
    author bigint references authors on delete cascade);
create index books_by_title on books (title);
create policy reading on authors for select to proj_shop_authenticated using (true);
create view titles as select title from books;
"""


@pytest.mark.parametrize("name", EXPECTED)
def test_the_clients_own_ways(shop: Plane, node_folder: Path, name: str) -> None:
    session = NodeSession(node_folder, IN_NODE[name], shop.lease("shop", AccessLevel.OWNER).connection_string)
    assert session.idioms() == EXPECTED[name]
    session.close()


def drizzle_kit(folder: Path, out: Path, lease: Lease, command: str) -> None:
    # It takes no absolute folder.
    environment = {**os.environ, **lease.variables(), "DRIZZLE_OUT": os.path.relpath(out, folder)}
    done = subprocess.run(
        ["node_modules/.bin/drizzle-kit", command, "--config", "drizzle.config.mjs"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_drizzle_reads_the_tenants_schema(shop: Plane, node_folder: Path, tmp_path: Path) -> None:
    lease = shop.lease("shop", AccessLevel.OWNER)
    with psycopg.connect(lease.connection_string) as session:
        session.execute(TABLES.encode())
    drizzle_kit(node_folder, tmp_path, lease, "pull")
    pulled = (tmp_path / "schema.ts").read_text("utf-8")
    assert set(re.findall(r'(?:table|view|enum)\("(\w+)"', pulled)) == {"authors", "books", "titles", "mood"}
    assert 'pgSchema("proj_shop")' in pulled
    assert 'name: "books_author_fkey"' in pulled
    assert 'index("books_by_title")' in pulled
    assert re.search(r'pgPolicy\("reading".*to: \["proj_shop_authenticated"\]', pulled)
    assert "rival" not in pulled


def test_drizzle_writes_migrations_that_an_owner_can_run(shop: Plane, node_folder: Path, tmp_path: Path) -> None:
    lease = shop.lease("shop", AccessLevel.OWNER)
    drizzle_kit(node_folder, tmp_path, lease, "generate")
    (migration,) = tmp_path.glob("*.sql")
    assert re.fullmatch(r"\d{14}_\w+\.sql", migration.name)
    with psycopg.connect(lease.connection_string) as session:
        session.execute(migration.read_bytes())
        session.execute("insert into authors (name) values ('Ada')")
    with psycopg.connect(shop.lease("shop", AccessLevel.AUTHENTICATED).connection_string) as session:
        assert session.execute("select name, mood::text from authors").fetchall() == [("Ada", "fine")]
