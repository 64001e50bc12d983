"""Leases over time: renewed, listed, replaced, ended. Short lives, real waiting."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest

from data_plane.connector.bindings import LocalDataPlane
from data_plane.connector.leases import Lease, LeaseClient, LeaseFormat
from data_plane.errors import LeaseError
from data_plane.local.processes import wait_until
from data_plane.model.naming import AccessLevel, TenantNames
from data_plane.state_dir import CHECKOUT
from tests.conftest import NewPlane, Plane

BRIEF = """\
slug: brief
display_name: Brief
cell: cell-1
owners: [olga]
limits: {lease_ttl: 12s, lease_max_ttl: 24s}
"""
NAMES = TenantNames("brief")


@pytest.fixture(scope="module")
def brief(new_plane: NewPlane) -> Plane:
    """A tenant whose leases last 12 s, and 24 s with renewals."""
    return new_plane({"brief.yaml": BRIEF})


def works(lease: Lease) -> bool:
    with contextlib.suppress(psycopg.OperationalError), psycopg.connect(lease.connection_string, connect_timeout=60):
        return True
    return False


def test_a_lease_that_is_not_renewed_ends_with_its_sessions_and_its_login(brief: Plane) -> None:
    lease = brief.lease("brief", AccessLevel.OWNER)
    session = psycopg.connect(lease.connection_string)
    assert wait_until(lambda: not works(lease), 60)
    # Nobody can sign in from the end on by PostgreSQL's clock; OpenBao ends what is open.
    assert wait_until(lambda: not brief.rows("select from pg_roles where rolname = %s", lease.username), 60)
    with pytest.raises(psycopg.errors.AdminShutdown):
        session.execute("select 1")


def test_a_renewed_lease_lasts_longer_but_never_past_its_maximum(brief: Plane) -> None:
    plane = LocalDataPlane(brief.local_env)
    client = LeaseClient(plane.client("brief", AccessLevel.OWNER, None))
    lease = client.issue(plane.binding("brief"), AccessLevel.OWNER)
    began = time.monotonic()
    time.sleep(2)
    assert client.renew(lease.lease_id) == 12
    while time.monotonic() - began <= lease.ttl_seconds:
        time.sleep(1)
        client.renew(lease.lease_id)
    assert works(lease)
    assert client.renew(lease.lease_id, 600) <= 13
    ((left,),) = brief.rows(
        "select extract(epoch from rolvaliduntil - now()) from pg_roles where rolname = %s", lease.username
    )
    assert left < 24 - 12 + 10, "OpenBao adds 5 s of its own"
    assert wait_until(lambda: not works(lease), 60)
    # Renewing says so once OpenBao has ended it, too.
    assert wait_until(lambda: not brief.rows("select from pg_roles where rolname = %s", lease.username), 60)
    with pytest.raises(LeaseError, match="has ended: take another lease"):
        client.renew(lease.lease_id)


def test_a_lease_cannot_be_renewed_by_another_tenants_people(plane: Plane) -> None:
    lease = plane.lease("beta-two", AccessLevel.OWNER)
    vera = LeaseClient(LocalDataPlane(plane.local_env).client("alpha", AccessLevel.ANON, "vera"))
    with pytest.raises(LeaseError, match="may not renew"):
        vera.renew(lease.lease_id)


def test_leases_are_listed_with_their_times_and_without_credentials(plane: Plane) -> None:
    lease = plane.lease("alpha", AccessLevel.SERVICE_ROLE)
    operator = LeaseClient(LocalDataPlane(plane.local_env).operator())
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
        "from data_plane.model.naming import AccessLevel\n"
        "from data_plane.connector.bindings import LocalDataPlane\n"
        "from data_plane.connector.lease_runner import OnNewLease, run_with_lease\n"
        "from data_plane.engine.engines import LocalRunner\n"
        "from data_plane.state_dir import StateDir\n"
        "from data_plane.local.servers import Servers\n"
        "from data_plane.local.environment import LocalEnvironment\n"
        "home, root = StateDir(), Path(sys.argv[1])\n"
        "from data_plane.local.providers import PROVIDERS\n"
        "plane = LocalDataPlane(LocalEnvironment(Servers(home), LocalRunner(home, PROVIDERS, root), root))\n"
        "sys.exit(run_with_lease(sys.argv[3:], lambda: plane.client('brief', AccessLevel.OWNER, None),\n"
        "    plane.binding('brief'), AccessLevel.OWNER, OnNewLease(sys.argv[2]), lambda text: print(text, file=sys.stderr)))\n"
    )
    home = plane.local_env.servers.home.path
    environment = {**os.environ, "DATA_PLANE_HOME": str(home), "PYTHONPATH": str(CHECKOUT), "PGUSER": "nobody"}
    return subprocess.Popen(
        [sys.executable, "-c", program, str(plane.local_env.root), *arguments, *command],
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
    seconds = 32  # more than the 24 s that any lease lasts
    running = supplied(brief, [on_new_lease], [sys.executable, "-c", LOOP, str(notes), str(seconds)])
    if on_new_lease == "restart":
        assert wait_until(lambda: notes.exists() and len({line.split()[0] for line in notes.open()}) > 1, 120)
        running.send_signal(signal.SIGTERM)
        _, error = running.communicate(timeout=120)
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
    # At the end everything was given back. A login that a lock keeps from being dropped is dropped by the next sweep.
    left = "select from pg_roles where rolname = any(%s)"
    assert brief.rows(f"{left} and rolcanlogin", users) == []
    assert wait_until(lambda: brief.rows(left, users) == [], 60)


def test_a_command_whose_lease_is_revoked_gets_another(brief: Plane, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    patient = LOOP.replace('with psycopg.connect("") as session:', "with connected() as session:").replace(
        "hups = []",
        "hups = []\ndef connected():\n    while True:\n        try:\n            return psycopg.connect('')\n"
        "        except psycopg.OperationalError:\n            time.sleep(0.1)",
    )

    def written() -> bool:
        return notes.exists() and "\n" in notes.read_text(encoding="utf-8")

    running = supplied(brief, ["nothing"], [sys.executable, "-c", patient, str(notes), "25"])
    assert wait_until(written, 60)
    first = notes.read_text(encoding="utf-8").split()[3]
    assert re.fullmatch(r"database/creds/proj_brief_owner/\w+", first)
    LeaseClient(LocalDataPlane(brief.local_env).operator()).revoke(first)
    _, error = running.communicate(timeout=120)
    assert running.returncode == 7, error
    # On a slow machine the second may end, too, and be replaced.
    assert len({line.split()[1] for line in notes.open(encoding="utf-8")}) >= 2


def test_a_command_that_does_not_exist_is_named_and_no_lease_is_left(brief: Plane) -> None:
    operator = LeaseClient(LocalDataPlane(brief.local_env).operator())
    before = set(operator.live(NAMES, AccessLevel.OWNER))
    running = supplied(brief, ["nothing"], ["/no/such/command"])
    _, error = running.communicate(timeout=120)
    assert "/no/such/command cannot be started: no such file or directory" in error
    assert set(operator.live(NAMES, AccessLevel.OWNER)) <= before


def test_a_service_file_names_the_project(plane: Plane) -> None:
    lease = plane.lease("alpha", AccessLevel.ANON)
    lines = lease.render(LeaseFormat.SERVICE).splitlines()
    assert lines[0] == "[alpha]"
    assert f"user={lease.username}" in lines
    assert json.loads(lease.render(LeaseFormat.JSON))["level"] == "anon"
