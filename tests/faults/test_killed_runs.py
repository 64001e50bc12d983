"""Killed without warning, at random, anywhere: the same command again, and everything is as if nothing had happened.

The seed is part of each failure's message; ``DATA_PLANE_FAULT_SEED`` repeats it.
"""

import json
import os
import random
import signal
import subprocess
import sys
from typing import Any

import psycopg
import pytest

from data_plane.connector.audit import AuditLog
from data_plane.connector.cells import LocalCells
from data_plane.connector.executor import SupabaseExecutor
from data_plane.connector.leases import LeaseClient
from data_plane.connector.reconcile_credentials import connector_secret
from data_plane.connector.rotation import rotate
from data_plane.local.environment import LocalEnvironment
from data_plane.local.processes import wait_until
from data_plane.local.servers import ADMIN_USER, LOOPBACK
from data_plane.model.naming import AccessLevel, TenantNames
from data_plane.state_dir import CHECKOUT
from tests.conftest import ALPHA, BETA, NewLocalEnv, Plane, bring_up
from tests.faults.behind import CELL
from tests.state import differences, state

SEED = int(os.environ.get("DATA_PLANE_FAULT_SEED") or random.SystemRandom().randrange(10**6))
POINTS = 5
"""How often a first `up` is killed."""
LONGEST_DELAY_SECONDS = 0.05
"""About what one resource takes."""


@pytest.fixture(scope="module")
def chance() -> random.Random:
    return random.Random(SEED)  # noqa: S311 no secret


@pytest.fixture(scope="module")
def both(new_local_env: NewLocalEnv, chance: random.Random) -> tuple[LocalEnvironment, LocalEnvironment]:
    """Two data planes of the same files: one that was left in peace, and one whose first run was killed many times."""
    projects = {"alpha.yaml": ALPHA, "beta-two.yaml": BETA}
    undisturbed, victim = new_local_env(projects), new_local_env(projects)
    whole = sum((run.created or 0) + (run.same or 0) for run in bring_up(undisturbed))
    # Spread over the whole run: each share of it has one point.
    share = whole // POINTS
    points = [share * number + chance.randrange(1, share) for number in range(POINTS)]
    kills = [killed(victim, point, chance.uniform(0, LONGEST_DELAY_SECONDS), "up") for point in points]
    assert all(kills[:-1]), f"seed {SEED}: only the last may come too late"
    bring_up(victim)
    return undisturbed, victim


def killed(local_env: LocalEnvironment, at: int, delay: float, kind: str, *more: str) -> bool:
    """Whether it got to the point where it kills itself."""
    place = [str(local_env.servers.home.path), str(local_env.root), str(at), f"{delay:.3f}"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.killed", *place, kind, *more], cwd=CHECKOUT, capture_output=True, text=True
    )
    assert done.returncode in (0, -signal.SIGKILL), f"seed {SEED}, point {at}: {done.stderr}"
    return done.returncode == -signal.SIGKILL


def edit_both(both: tuple[LocalEnvironment, LocalEnvironment], slug: str, before: str, after: str) -> None:
    for local_env in both:
        path = local_env.root / "stacks" / "local" / "projects" / f"{slug}.yaml"
        text = path.read_text(encoding="utf-8")
        assert before in text
        path.write_text(text.replace(before, after), encoding="utf-8")


def assert_same(both: tuple[LocalEnvironment, LocalEnvironment]) -> None:
    undisturbed, victim = both
    found = differences(state(undisturbed), state(victim))
    assert not found, f"seed {SEED}: {found}"


def run_cell(local_env: LocalEnvironment) -> None:
    local_env.run_stack(CELL, preview=False, on_step=lambda _step: None)


def test_a_first_run_killed_at_many_points_converges(both: tuple[LocalEnvironment, LocalEnvironment]) -> None:
    assert_same(both)
    assert Plane(both[1]).lease("alpha", AccessLevel.OWNER).ttl_seconds == 600


def test_a_change_of_the_central_stack_killed_half_way_converges(
    both: tuple[LocalEnvironment, LocalEnvironment], chance: random.Random
) -> None:
    for local_env in both:
        stack = local_env.root / "stacks" / "Pulumi.local-central.yaml"
        text = stack.read_text(encoding="utf-8")
        stack.write_text(f"{text}  supabase-data-plane:leaseTtlMaximum: 20h\n", encoding="utf-8")
        with local_env.servers.postgres.connect() as admin:
            # So that the platform's SQL has to be applied again as well.
            admin.execute("drop event trigger data_plane_row_level_security")
    undisturbed, victim = both
    bring_up(undisturbed)
    for _ in range(2):
        assert killed(victim, chance.randrange(1, 120), chance.uniform(0, LONGEST_DELAY_SECONDS), "up")
    bring_up(victim)
    assert_same(both)


def test_a_detachment_killed_half_way_ends_every_lease_when_it_is_run_again(
    both: tuple[LocalEnvironment, LocalEnvironment], chance: random.Random
) -> None:
    undisturbed, victim = both
    lease = Plane(victim).lease("alpha", AccessLevel.OWNER)
    with psycopg.connect(lease.connection_string) as session:
        session.execute("create table kept as select 1 as a")
    with psycopg.connect(Plane(undisturbed).lease("alpha", AccessLevel.OWNER).connection_string) as session:
        session.execute("create table kept as select 1 as a")
    edit_both(both, "alpha", "limits:", "lifecycle: detached\nlimits:")
    run_cell(undisturbed)
    assert killed(victim, chance.randrange(1, 85), chance.uniform(0, LONGEST_DELAY_SECONDS), "cell")
    run_cell(victim)
    assert_same(both)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(lease.connection_string)
    assert Plane(victim).rows("select count(*) from pg_roles where rolname like 'lease\\_proj\\_alpha%%'") == [(0,)]
    assert Plane(victim).rows("select a from proj_alpha.kept") == [(1,)]
    edit_both(both, "alpha", "lifecycle: detached\n", "")
    for local_env in both:
        run_cell(local_env)
    assert_same(both)


def test_an_action_killed_at_random_is_finished_by_the_same_again(
    both: tuple[LocalEnvironment, LocalEnvironment], chance: random.Random
) -> None:
    undisturbed, victim = both
    inputs: dict[str, Any] = {"project": "late", "owners": ["lara"], "managed_services": ["postgres", "auth"]}
    action = "upsert_database_project_access"

    def do(local_env: LocalEnvironment) -> dict[str, Any]:
        home = local_env.servers.home
        executor = SupabaseExecutor(LocalCells(local_env), home, AuditLog(home.path / "a.jsonl"), root=local_env.root)
        return executor.execute(action, inputs, actor="tester")

    do(undisturbed)
    file = victim.root / "stacks" / "local" / "projects" / "late.yaml"
    assert killed(
        victim,
        chance.randrange(1, 130),
        chance.uniform(0, LONGEST_DELAY_SECONDS),
        "action",
        json.dumps([action, inputs]),
    )
    assert not file.exists(), "the file is written when the cell has it"
    do(victim)
    assert_same(both)
    assert Plane(victim).lease("late", AccessLevel.OWNER, "lara").schema == "proj_late"


@pytest.mark.parametrize("at", range(1, 5))
def test_a_rotation_of_the_superusers_password_killed_anywhere_is_finished_by_the_same_again(
    both: tuple[LocalEnvironment, LocalEnvironment], at: int
) -> None:
    _, victim = both
    servers = victim.servers
    # Before PostgreSQL is told, before OpenBao is, before PostgreSQL commits, before it is remembered here.
    assert killed(victim, at, 0, "rotate", "POSTGRES_PASSWORD")
    rotate(
        servers.openbao.client(),
        "POSTGRES_PASSWORD",
        lambda password: psycopg.connect(
            host=LOOPBACK, port=servers.postgres.known_port, dbname="postgres", user=ADMIN_USER, password=password
        ),
    )
    password = connector_secret(servers.openbao.client())["POSTGRES_PASSWORD"]
    servers.postgres.remember_password(password)
    with servers.postgres.connect() as admin:
        assert admin.execute("select 1").fetchone() == (1,)


def test_a_lease_of_a_killed_supplier_is_still_listed_and_can_be_ended(
    both: tuple[LocalEnvironment, LocalEnvironment],
) -> None:
    _, victim = both
    operator = LeaseClient(victim.servers.openbao.client())
    names = TenantNames("alpha")
    before = set(operator.live(names, AccessLevel.OWNER))
    place = [str(victim.servers.home.path), str(victim.root), "0", "0", "run"]
    supplier = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.killed", *place, sys.executable, "-c", "input()"],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )

    def taken() -> set[str]:
        return set(operator.live(names, AccessLevel.OWNER)) - before

    assert wait_until(lambda: bool(taken()) or supplier.poll() is not None, 120)
    supplier.kill()
    supplier.communicate()  # its command ends, too, when there is nothing more to read
    (lease_id,) = taken()
    found = operator.details(names, AccessLevel.OWNER)
    (seconds,) = [item.ttl_seconds for item in found if item.lease_id == lease_id]
    assert 0 < seconds <= 600
    operator.revoke(lease_id)
    assert not taken()
    assert Plane(victim).rows("select from pg_roles where rolname like 'lease\\_proj\\_alpha\\_owner%%'") == [()] * len(
        before
    )


def test_after_all_of_that_both_are_the_same_and_there_is_nothing_to_do(
    both: tuple[LocalEnvironment, LocalEnvironment],
) -> None:
    assert_same(both)
    assert [(run.created, run.updated) for run in bring_up(both[1])] == [(0, 0), (0, 0)], f"seed {SEED}"
