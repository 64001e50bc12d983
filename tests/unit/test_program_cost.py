"""What a run costs grows with what the program declares, not with its square. Counted, not timed."""

import asyncio
import gc
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from data_plane.engine.runner.deployment import Result, deploy
from data_plane.engine.runner.properties import UNKNOWN, Properties
from data_plane.engine.runner.state import StackState
from data_plane.engine.stack_files import load_config
from data_plane.local.providers import PROVIDERS
from data_plane.state_dir import StateDir
from tests.conftest import make_checkout

PROJECT = """\
slug: project-{number}
display_name: A project
cell: cell-1
owners: [olga]
managed_services: [postgres, auth, storage]
"""


def previewed(folder: Path, tenants: int) -> Result:
    """A preview of a cell of so many tenants before there is any server, so with all that servers say unknown."""
    home = StateDir(folder / "home")
    home.prepare()
    central = StackState(home, "local-central")
    database = dict.fromkeys(("host", "port", "database", "name", "adminUser", "sslmode"), UNKNOWN)
    known = dict.fromkeys(("openbaoAddress", "loginAccessor", "apiUrl"), UNKNOWN)
    central.outputs = Properties({"platform": {"database": database, **known}})
    central.save()
    files = {f"project-{number}.yaml": PROJECT.format(number=number) for number in range(tenants)}
    root = make_checkout(folder / "checkout", files)
    return deploy(home, root, "local-cell-1", load_config(root, "local-cell-1", {}, {}), PROVIDERS, preview=True)


def test_twice_the_tenants_are_twice_the_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at = 0
    wait = asyncio.wait

    async def counted(futures: Collection[Any], **options: Any) -> Any:
        nonlocal looked_at
        looked_at += len(futures)
        return await wait(futures, **options)

    monkeypatch.setattr(asyncio, "wait", counted)
    found: dict[int, tuple[int, int]] = {}
    for tenants in (4, 8):
        looked_at = 0
        steps = len(previewed(tmp_path / str(tenants), tenants).steps)
        found[tenants] = (steps, looked_at)
    (few, few_looked_at), (many, many_looked_at) = found[4], found[8]
    assert many > 1.8 * few
    # Not a single look for each resource. Polled, it was hundreds, and twice as many with twice the tenants.
    assert few_looked_at < few
    assert many_looked_at < many


def test_a_run_leaves_the_garbage_collector_as_it_was(tmp_path: Path) -> None:
    assert gc.isenabled()
    previewed(tmp_path, 1)
    assert gc.isenabled()
