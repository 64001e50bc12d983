"""Leases over time: renewed, listed, replaced, ended. Short lives, real waiting."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from components.naming import AccessLevel, TenantNames
from connector.bindings import LocalDataPlane
from connector.errors import LeaseError
from connector.leases import Lease, LeaseClient, LeaseFormat
from embedded.home import CHECKOUT
from embedded.processes import wait_until
from embedded.workplace import Workplace
from tests.conftest import Plane, bring_up

BRIEF = """\
slug: brief
display_name: Brief
cell: cell-1
owners: [olga]
limits: {lease_ttl: 6s, lease_max_ttl: 14s}
"""
NAMES = TenantNames("brief")


@pytest.fixture(scope="module")
def brief(new_workplace: Callable[[dict[str, str]], Workplace]) -> Plane:
    """A tenant whose leases last 6 s, and 14 s with renewals."""
    workplace = new_workplace({"brief.yaml": BRIEF})
    bring_up(workplace)
    return Plane(workplace)


def works(lease: Lease) -> bool:
    with contextlib.suppress(psycopg.OperationalError), psycopg.connect(lease.connection_string, connect_timeout=5):
        return True
    return False


def test_a_lease_that_is_not_renewed_ends_with_its_sessions_and_its_login(brief: Plane) -> None:
    lease = brief.lease("brief", AccessLevel.OWNER)
    session = psycopg.connect(lease.connection_string)
    assert wait_until(lambda: not works(lease), 30)
    with pytest.raises(psycopg.OperationalError):
        session.execute("select 1")
    assert wait_until(lambda: not brief.rows("select from pg_roles where rolname = %s", lease.username), 30)


def test_a_renewed_lease_lasts_longer_but_never_past_its_maximum(brief: Plane) -> None:
    plane = LocalDataPlane(brief.workplace)
    client = LeaseClient(plane.client("brief", AccessLevel.OWNER, None))
    lease = client.issue(plane.binding("brief"), AccessLevel.OWNER)
    began = time.monotonic()
    time.sleep(4)
    assert client.renew(lease.lease_id) == 6
    time.sleep(4)
    assert time.monotonic() - began > lease.ttl_seconds
    assert works(lease)
    assert client.renew(lease.lease_id, 600) <= 7
    assert wait_until(lambda: not works(lease), 30)
    assert time.monotonic() - began < 25
    with pytest.raises(LeaseError, match="is no longer in force: take another"):
        client.renew(lease.lease_id)


def test_a_lease_cannot_be_renewed_by_another_tenants_people(plane: Plane) -> None:
    lease = plane.lease("beta-two", AccessLevel.OWNER)
    vera = LeaseClient(LocalDataPlane(plane.workplace).client("alpha", AccessLevel.ANON, "vera"))
    with pytest.raises(LeaseError, match="may not renew"):
        vera.renew(lease.lease_id)


def test_leases_are_listed_with_their_times_and_without_credentials(plane: Plane) -> None:
    lease = plane.lease("alpha", AccessLevel.SERVICE_ROLE)
    operator = LeaseClient(LocalDataPlane(plane.workplace).operator())
    found = {item.lease_id: item for item in operator.details(TenantNames("alpha"), AccessLevel.SERVICE_ROLE)}
    assert abs((found[lease.lease_id].expires_at - lease.expires_at).total_seconds()) < 10
    assert 500 < found[lease.lease_id].ttl_seconds <= 600
    assert lease.password not in repr(found)
    operator.revoke(lease.lease_id)
    assert lease.lease_id not in operator.live(TenantNames("alpha"), AccessLevel.SERVICE_ROLE)


def test_psql_takes_a_lease_as_a_service_file(plane: Plane, tmp_path: Path) -> None:
    lease = plane.lease("alpha", AccessLevel.AUTHENTICATED)
    (tmp_path / "pg_service.conf").write_text(lease.render(LeaseFormat.SERVICE) + "\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGSERVICEFILE", str(tmp_path / "pg_service.conf"))
        session = psycopg.connect("service=alpha")
    with session:
        assert session.execute("select current_user").fetchone() == ("proj_alpha_authenticated",)


LOOP = """\
import os, pathlib, signal, sys, time
import psycopg
notes = pathlib.Path(sys.argv[1])
hups = []
signal.signal(signal.SIGHUP, lambda *_: hups.append(1))
until = time.monotonic() + float(sys.argv[2])
while time.monotonic() < until:
    with psycopg.connect("") as session:
        user = session.execute("select session_user").fetchone()[0]
    with notes.open("a") as file:
        file.write(f"{os.getpid()} {user} {len(hups)} {os.environ['DATA_PLANE_LEASE_ID']}\\n")
    time.sleep(0.3)
sys.exit(7)
"""


def supplied(plane: Plane, arguments: list[str], command: list[str]) -> "subprocess.Popen[str]":
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from components.naming import AccessLevel\n"
        "from connector.bindings import LocalDataPlane\n"
        "from connector.supply import OnNewLease, run_supplied\n"
        "from embedded.engines import EmbeddedEngine\n"
        "from embedded.home import Home\n"
        "from embedded.servers import Servers\n"
        "from embedded.workplace import Workplace\n"
        "home, root = Home(), Path(sys.argv[1])\n"
        "plane = LocalDataPlane(Workplace(Servers(home), EmbeddedEngine(home, root), root))\n"
        "sys.exit(run_supplied(sys.argv[3:], lambda: plane.client('brief', AccessLevel.OWNER, None),\n"
        "    plane.binding('brief'), AccessLevel.OWNER, OnNewLease(sys.argv[2]), lambda text: print(text, file=sys.stderr)))\n"
    )
    home = plane.workplace.servers.home.path
    environment = {**os.environ, "DATA_PLANE_HOME": str(home), "PYTHONPATH": str(CHECKOUT), "PGUSER": "nobody"}
    return subprocess.Popen(
        [sys.executable, "-c", program, str(plane.workplace.root), *arguments, *command],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("on_new_lease", ["nothing", "hup", "restart"])
def test_a_command_is_kept_supplied_past_the_end_of_its_first_lease(
    brief: Plane, tmp_path: Path, on_new_lease: str
) -> None:
    notes = tmp_path / "notes"
    seconds = 22  # more than the 14 s that any lease lasts
    running = supplied(brief, [on_new_lease], [sys.executable, "-c", LOOP, str(notes), str(seconds)])
    if on_new_lease == "restart":
        assert wait_until(lambda: notes.exists() and len({line.split()[0] for line in notes.open()}) > 1, 60)
        running.send_signal(signal.SIGTERM)
        _, error = running.communicate(timeout=60)
        assert running.returncode == 128 + signal.SIGTERM, error
    else:
        _, error = running.communicate(timeout=120)
        assert running.returncode == 7, error
    rows = [line.split() for line in notes.read_text(encoding="utf-8").splitlines()]
    users = list(dict.fromkeys(user for _, user, _, _ in rows))
    assert len(users) > 1
    if on_new_lease == "nothing":
        assert (len({row[0] for row in rows}), {row[2] for row in rows}) == (1, {"0"})
    if on_new_lease == "hup":
        assert int(rows[-1][2]) >= 1
    if on_new_lease == "restart":
        assert len({row[3] for row in rows}) > 1
    assert "Traceback" not in error
    # At the end everything was given back, and no file is left.
    assert brief.rows("select from pg_roles where rolname = any(%s)", users) == []


def test_a_command_whose_lease_is_revoked_gets_another(brief: Plane, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    patient = LOOP.replace('with psycopg.connect("") as session:', "with connected() as session:").replace(
        "hups = []",
        "hups = []\ndef connected():\n    while True:\n        try:\n            return psycopg.connect('')\n"
        "        except psycopg.OperationalError:\n            time.sleep(0.1)",
    )
    running = supplied(brief, ["nothing"], [sys.executable, "-c", patient, str(notes), "8"])
    assert wait_until(notes.exists, 30)
    first = notes.read_text(encoding="utf-8").split()[3]
    assert re.fullmatch(r"database/creds/proj_brief_owner/\w+", first)
    LeaseClient(LocalDataPlane(brief.workplace).operator()).revoke(first)
    _, error = running.communicate(timeout=60)
    assert running.returncode == 7, error
    assert len({line.split()[1] for line in notes.open(encoding="utf-8")}) == 2


def test_a_command_that_does_not_exist_is_named_and_no_lease_is_left(brief: Plane) -> None:
    operator = LeaseClient(LocalDataPlane(brief.workplace).operator())
    before = set(operator.live(NAMES, AccessLevel.OWNER))
    running = supplied(brief, ["nothing"], ["/no/such/command"])
    _, error = running.communicate(timeout=60)
    assert "/no/such/command cannot be started: no such file or directory" in error
    assert set(operator.live(NAMES, AccessLevel.OWNER)) <= before


def test_a_service_file_names_the_project(plane: Plane) -> None:
    lease = plane.lease("alpha", AccessLevel.ANON)
    lines = lease.render(LeaseFormat.SERVICE).splitlines()
    assert lines[0] == "[alpha]"
    assert f"user={lease.username}" in lines
    assert json.loads(lease.render(LeaseFormat.JSON))["level"] == "anon"
