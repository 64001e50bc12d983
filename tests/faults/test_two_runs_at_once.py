"""Two runs at once, and a run beside an action: one waits for the other, and what both mean is there in the end."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from data_plane.connector.audit import AuditLog
from data_plane.connector.cells import CellRun, LocalCells
from data_plane.connector.executor import SupabaseExecutor
from data_plane.errors import ProjectDetachedError
from data_plane.local.environment import LocalEnvironment
from data_plane.model.naming import AccessLevel
from tests.conftest import ALPHA, BETA, NewLocalEnv, Plane, bring_up


@pytest.fixture(scope="module")
def local_env(new_local_env: NewLocalEnv) -> LocalEnvironment:
    return new_local_env({"alpha.yaml": ALPHA, "beta-two.yaml": BETA})


def test_two_first_runs_at_once_make_everything_once(local_env: LocalEnvironment) -> None:
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(bring_up, local_env) for _ in range(2)]
        runs = [job.result() for job in both]
    for index in (0, 1):
        made = sorted(run[index].created or 0 for run in runs)
        assert made[0] == 0, "both have made something"
        assert made[1] > 50
    assert Plane(local_env).lease("alpha", AccessLevel.OWNER).schema == "proj_alpha"


class Meeting(LocalCells):
    """Cells in which an ``up`` begins as soon as an action has been applied, before its edit is on disk."""

    def __init__(self, local_env: LocalEnvironment) -> None:
        super().__init__(local_env)
        self._of = local_env
        self.up: threading.Thread | None = None
        self.seconds_given = 3.0

    def run(self, root: Path, stack: str, *, preview: bool) -> CellRun:
        done = super().run(root, stack, preview=preview)
        arrived = threading.Event()

        def on_stack(at: str) -> None:
            if at == stack:
                arrived.set()

        def up() -> None:
            list(self._of.run(preview=False, on_stack=on_stack, on_step=lambda _step: None))

        self.up = threading.Thread(target=up)
        self.up.start()
        assert arrived.wait(300)
        # A run that did not wait would have read the file as it was, and be through by then.
        self.up.join(self.seconds_given)
        return done


def action_beside_a_run(local_env: LocalEnvironment, action: str, **inputs: Any) -> dict[str, Any]:
    cells = Meeting(local_env)
    home = local_env.servers.home
    executor = SupabaseExecutor(cells, home, AuditLog(home.path / "audit.jsonl"), root=local_env.root)
    result = executor.execute(action, inputs, actor="tester")
    assert cells.up is not None
    cells.up.join(300)
    assert not cells.up.is_alive()
    return result


def test_access_that_is_given_beside_a_run_is_not_taken_back_by_it(local_env: LocalEnvironment) -> None:
    action_beside_a_run(local_env, "upsert_database_access", project="alpha", user="nina", role="project_contributor")
    file = local_env.root / "stacks" / "local" / "projects" / "alpha.yaml"
    assert "nina" in YAML(typ="safe").load(file.read_text(encoding="utf-8"))["users"]["project_contributor"]
    assert Plane(local_env).lease("alpha", AccessLevel.AUTHENTICATED, "nina").schema == "proj_alpha"


def test_a_detachment_beside_a_run_is_not_undone_by_it(local_env: LocalEnvironment) -> None:
    action_beside_a_run(local_env, "upsert_database_project_access", project="beta-two", lifecycle="detached")
    with pytest.raises(ProjectDetachedError, match="project beta-two is detached"):
        Plane(local_env).lease("beta-two", AccessLevel.OWNER)
