"""A disk that is full: each message names it, nothing that was there is damaged, and with room everything goes on."""

import os
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from io import RawIOBase
from pathlib import Path

import psycopg
import pytest

from data_plane.clients.postgres import explain
from data_plane.engine.engines import LocalRunner
from data_plane.errors import DataPlaneError, ServerError
from data_plane.local.environment import LocalEnvironment
from data_plane.local.providers import PROVIDERS, postgresql
from data_plane.local.servers import Servers
from data_plane.model.naming import AccessLevel
from data_plane.state_dir import StateDir
from tests.conftest import ALPHA, Plane, bring_up, make_checkout

SIZE_MIB = 640


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A small disk of its own."""
    folder = tmp_path_factory.mktemp("disk")
    mounting = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m,mode=0755", "none", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mounting, capture_output=True).returncode != 0:
        pytest.skip("a small disk can be mounted by root alone, and not in every container")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="module")
def plane(disk: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """A data plane whose servers have their data there; a row in alpha."""
    servers = Servers(StateDir(tmp_path_factory.mktemp("home")))
    servers.postgres.data = disk / "postgres"
    (disk / "openbao").mkdir()
    servers.home.prepare()
    (servers.home.path / "openbao").symlink_to(disk / "openbao")
    root = make_checkout(tmp_path_factory.mktemp("checkout"), {"alpha.yaml": ALPHA})
    local_env = LocalEnvironment(servers, LocalRunner(servers.home, PROVIDERS, root), root)
    servers.start()
    bring_up(local_env)
    plane = Plane(local_env)
    with psycopg.connect(plane.lease("alpha", AccessLevel.OWNER).connection_string) as session:
        session.execute("create table kept as select 1 as a")
    yield plane
    servers.stop()


def _write_on(file: RawIOBase, size: int) -> None:
    while file.write(bytes(size)) == size:
        pass
    file.write(bytes(size))


@contextmanager
def full(disk: Path) -> Iterator[None]:
    """No byte is left on it, and none that a server gives back meanwhile, e.g. at a checkpoint."""
    filler = disk / "filler"
    over = threading.Event()

    def keep_full(file: RawIOBase) -> None:
        while not over.wait(0.02):
            with suppress(OSError):
                _write_on(file, 512)

    try:
        with filler.open("ab", buffering=0) as file, ThreadPoolExecutor(1) as pool:
            for size in (1 << 20, 512):
                with pytest.raises(OSError, match="No space left"):
                    _write_on(file, size)
            kept = pool.submit(keep_full, file)
            try:
                yield
            finally:
                over.set()
            kept.result()
    finally:
        filler.unlink()


def test_a_run_on_servers_whose_disk_is_full_says_so_and_goes_on_when_there_is_room(
    plane: Plane, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local_env = plane.local_env
    file = local_env.root / "stacks" / "local" / "projects" / "alpha.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("timeout: 20s", "timeout: 21s"), encoding="utf-8")
    with full(disk):
        with plane.admin() as admin, pytest.raises(psycopg.Error) as of_a_project:
            # What a project may do by itself: more rows than there is room for.
            admin.execute("create table proj_alpha.big as select repeat('x', 1000) from generate_series(1, 200000)")
        with monkeypatch.context() as patch:
            patch.setattr(postgresql, "_WAIT_SECONDS", 3)
            with pytest.raises(DataPlaneError) as caught:
                bring_up(local_env)
    assert "Its disk is full. Make room" in explain(of_a_project.value)
    assert "no space left on device" in str(caught.value)
    assert "its disk is full; make room, then run the same command again" in str(caught.value)
    local_env.servers.stop()
    local_env.servers.start()
    bring_up(local_env)
    assert [(run.created, run.updated) for run in bring_up(local_env)] == [(0, 0), (0, 0)]
    assert plane.rows("select a from proj_alpha.kept") == [(1,)]
    assert plane.lease("alpha", AccessLevel.OWNER).ttl_seconds == 600


def test_what_was_written_before_stays_whole(disk: Path) -> None:
    home = StateDir(disk / "home")
    home.prepare()
    home.write_json("tried.json", {"a": 1})
    with (
        full(disk),
        pytest.raises(DataPlaneError, match=r"tried\.json cannot be written: No space left on device\. Make room"),
    ):
        home.write_json("tried.json", {"a": "x" * 100_000})
    assert home.read_json("tried.json") == {"a": 1}
    assert not list(home.path.glob(".tried.json.*")), "the draft was left"


def test_a_start_and_a_run_are_refused_while_there_is_too_little_room(disk: Path) -> None:
    home = StateDir(disk / "other")
    with full(disk):
        for attempt in (Servers(home).start, home.lock("stack-local-central").__enter__):
            with pytest.raises(ServerError, match=r"has 0 MiB free and the servers need 512 MiB\. Make room"):
                attempt()
    assert not (disk / "other" / "postgres").exists()
