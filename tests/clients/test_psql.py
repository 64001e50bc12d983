"""psql with a lease: connection string, service file, COPY, prepared statements, notifications, a seed file."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from data_plane.connector.leases import Lease, LeaseFormat
from data_plane.local.postgres import find_binaries
from data_plane.model.naming import AccessLevel
from tests.conftest import Plane

SCRIPT = r"""
\connect :url
create table pages (id int, body text);
\copy pages from stdin
1	one
2	two
\.
\copy (select body from pages order by id) to stdout
select $1::int + 1 as next \bind 41 \g
listen news;
notify news, 'hello';
begin; delete from pages; rollback;
select count(*) from pages;
set time zone 'Asia/Tokyo';
select timestamptz '2026-03-29 01:30+00';
\dt
"""
SEED = """\
-- As `supabase/seed.sql` is: no schema, or the API's.
create table pages (id int generated always as identity, body text);
insert into pages (body) values ('one; with a semicolon'), ($$it's two$$);
"""


def psql(lease: Lease, folder: Path, *arguments: str, stdin: str = "", **environment: str) -> str:
    """Runs it with the lease as a service file; its arguments are for everybody to read."""
    service = folder / "pg_service.conf"
    service.write_text(lease.render(LeaseFormat.SERVICE) + "\n", encoding="utf-8")
    mine = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
    done = subprocess.run(
        [find_binaries() / "psql", "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", *arguments],
        env={**mine, "PGSERVICEFILE": str(service), "PGSERVICE": lease.project, **environment},
        input=stdin,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert lease.password not in done.stdout + done.stderr
    return done.stdout


def test_psql(shop: Plane, tmp_path: Path) -> None:
    lease = shop.lease("shop", AccessLevel.OWNER)
    # The connection string by way of a variable of psql's, which is read from standard input too.
    message = psql(lease, tmp_path, stdin=f"\\set url '{lease.connection_string}'\n{SCRIPT}")
    assert re.sub("from server process with PID .*", "", message).splitlines() == [
        "one",
        "two",
        "42",
        'Asynchronous notification "news" with payload "hello" received ',
        "2",
        "2026-03-29 10:30:00+09",
        "proj_shop|pages|table|proj_shop_owner",
    ]


def test_psql_runs_a_projects_seed_file(shop: Plane, tmp_path: Path) -> None:
    lease = shop.lease("shop", AccessLevel.OWNER)
    (tmp_path / "seed.sql").write_text(SEED, encoding="utf-8")
    psql(lease, tmp_path, "--single-transaction", "--file", str(tmp_path / "seed.sql"))
    assert psql(lease, tmp_path, "-c", "select body from pages order by id").splitlines() == [
        "one; with a semicolon",
        "it's two",
    ]


@pytest.mark.parametrize("level", list(AccessLevel))
def test_pgoptions_is_taken(shop: Plane, tmp_path: Path, level: AccessLevel) -> None:
    lease = shop.lease("shop", level)
    message = psql(lease, tmp_path, "-c", "show lock_timeout", PGOPTIONS="-c lock_timeout=1234")
    assert message == "1234ms\n"
