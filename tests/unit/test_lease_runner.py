"""What a command that is kept supplied with leases gets, where something goes wrong meanwhile."""

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from data_plane.connector import lease_runner
from data_plane.connector.lease_runner import ManagedLease, _Child
from data_plane.connector.leases import Lease
from data_plane.local.processes import wait_until
from data_plane.model.naming import AccessLevel
from tests.bound import tenant_binding
from tests.unit.test_leases import LEASE


class Leases:
    """Leases of an OpenBao that renews none."""

    def __init__(self) -> None:
        self.revoked: list[str] = []
        self.taken = 0

    def __call__(self, _client: Any) -> "Leases":
        return self

    def issue(self, *_of: Any) -> Lease:
        self.taken += 1
        return replace(LEASE, lease_id=f"lease-{self.taken}")

    def renew(self, *_of: Any) -> int:
        return 0

    def revoke(self, lease_id: str) -> None:
        self.revoked.append(lease_id)


@pytest.fixture
def leases(monkeypatch: pytest.MonkeyPatch) -> Leases:
    found = Leases()
    monkeypatch.setattr(lease_runner, "LeaseClient", found)
    return found


def supply(folder: Path, say: Callable[[str], None]) -> ManagedLease:
    client: Any = SimpleNamespace(auth=SimpleNamespace(token=SimpleNamespace(renew_self=lambda: None)))
    return ManagedLease(lambda: client, tenant_binding(project="shop"), AccessLevel.SERVICE_ROLE, folder, say)


def test_a_new_lease_for_which_there_is_no_room_leaves_the_former_in_force(leases: Leases, tmp_path: Path) -> None:
    said: list[str] = []
    found = supply(tmp_path, said.append)
    before = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    (tmp_path / ".lease.env").mkdir()  # so that the second of the files cannot be written
    assert not found.refresh()
    assert (leases.taken, leases.revoked, found.lease.lease_id) == (2, ["lease-2"], "lease-1")
    assert {name: (tmp_path / name).read_text(encoding="utf-8") for name in before} == before
    assert said[0].startswith("no new lease yet, trying again: ")
    (tmp_path / ".lease.env").rmdir()
    assert found.refresh()
    found.give_back()
    assert leases.revoked == ["lease-2", "lease-1", "lease-3"]


RELOADS = """\
import signal, sys, time
signal.signal(signal.SIGHUP, lambda *_: open(sys.argv[1], "a").write("reloaded\\n"))
open(sys.argv[1], "a").write("started\\n")
time.sleep(600)
"""


def test_a_command_that_has_read_its_settings_anew_is_still_started_again(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    child = _Child([sys.executable, "-c", RELOADS, str(notes)])

    def said(*lines: str) -> bool:
        return wait_until(lambda: notes.exists() and notes.read_text(encoding="utf-8").split() == [*lines], 60)

    with child.signals():
        child.start({})
        assert said("started")
        os.kill(os.getpid(), signal.SIGHUP)
        assert said("started", "reloaded")
        child.restart({})
        assert said("started", "reloaded", "started")
        os.kill(os.getpid(), signal.SIGTERM)
        assert child.wait(60) == -signal.SIGTERM
        child.restart({})
        assert child.wait(0) == -signal.SIGTERM, "one that was stopped is not started again"
