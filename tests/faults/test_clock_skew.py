"""The clocks of OpenBao and PostgreSQL differ: a lease lasts as long as it was given for, by either."""

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from data_plane.connector.bindings import LocalDataPlane
from data_plane.connector.leases import LeaseClient
from data_plane.local.environment import LocalEnvironment
from data_plane.model.naming import AccessLevel
from tests.conftest import ALPHA, NewPlane, Plane

LEASE_SECONDS = 600
RENEWED_SECONDS = 1200

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler to build another clock with")


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("clock") / "clock.so"
    source = Path(__file__).with_name("clock.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", made, source, "-ldl"], check=True)
    made.parent.chmod(0o755)
    return made


@pytest.fixture(scope="module")
def local_env(new_plane: NewPlane) -> LocalEnvironment:
    return new_plane({"alpha.yaml": ALPHA}).local_env


@pytest.fixture(params=[0, 3600, -3600, 90, -90], ids=lambda seconds: f"{seconds:+d}s")
def skewed(request: pytest.FixtureRequest, local_env: LocalEnvironment, shim: Path) -> Iterator[tuple[Plane, int]]:
    """The data plane, with PostgreSQL's clock ahead of OpenBao's by so many seconds."""
    postgres = local_env.servers.postgres
    postgres.stop()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LD_PRELOAD", str(shim))
        patch.setenv("CLOCK_AHEAD_SECONDS", str(request.param))
        postgres.start()
    plane = Plane(local_env)
    ahead = plane.rows("select extract(epoch from clock_timestamp())::float")[0][0] - time.time()
    assert abs(ahead - request.param) < 30, "the server did not take the other clock"
    yield plane, int(request.param)
    postgres.stop()
    postgres.start()


def remaining(plane: Plane, login: str) -> float:
    """Seconds for which PostgreSQL, by its own clock, lets a login in."""
    query = "select extract(epoch from rolvaliduntil - clock_timestamp())::float from pg_roles where rolname = %s"
    return float(plane.rows(query, login)[0][0])


def test_a_lease_is_good_for_its_time_and_no_longer(skewed: tuple[Plane, int]) -> None:
    plane, seconds = skewed
    log = plane.local_env.servers.postgres.log
    already = log.stat().st_size
    binding = LocalDataPlane(plane.local_env)
    client = LeaseClient(binding.client("alpha", AccessLevel.OWNER, None))
    lease = client.issue(binding.binding("alpha"), AccessLevel.OWNER)
    with psycopg.connect(lease.connection_string) as session:
        assert session.execute("select current_user").fetchone() == ("proj_alpha_owner",)
    assert abs(remaining(plane, lease.username) - LEASE_SECONDS) < 25
    assert client.renew(lease.lease_id, RENEWED_SECONDS) == RENEWED_SECONDS
    assert abs(remaining(plane, lease.username) - RENEWED_SECONDS) < 25
    client.revoke(lease.lease_id)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(lease.connection_string)
    message = re.findall(r"the clocks of OpenBao and PostgreSQL differ by (-?)\d", log.read_bytes()[already:].decode())
    assert set(message) == (set() if seconds == 0 else {"-" if seconds > 0 else ""})
