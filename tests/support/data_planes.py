"""Data planes for tests: each on servers and in a checkout of its own, most as copies of one that was brought up."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
from filelock import FileLock, Timeout

from data_plane.connector.bindings import LocalDataPlane
from data_plane.connector.leases import Lease, LeaseClient
from data_plane.engine.engines import Engine, EngineRun, LocalRunner, PulumiEngine
from data_plane.local.environment import CENTRAL_STACK, LocalEnvironment
from data_plane.local.postgres import find_binaries
from data_plane.local.processes import is_free
from data_plane.local.providers import PROVIDERS, install_plugins
from data_plane.local.servers import Servers
from data_plane.local.stack_inputs import of_openbao
from data_plane.model.naming import AccessLevel
from data_plane.model.projects import known_cells
from data_plane.state_dir import CHECKOUT, ENVIRONMENT, StateDir
from tests.support.platform_database import copy_data
from tests.support.templates import TEMPLATES

__all__ = ["Plane", "bring_up", "brought_up", "make_checkout", "started"]

_DATA = [CHECKOUT / "stacks" / name for name in ("images.yaml", "resources.yaml")]


@dataclass
class Plane:
    """A data plane that is up, and the tenants in it."""

    local_env: LocalEnvironment

    def admin(self) -> "psycopg.Connection[tuple[Any, ...]]":
        return self.local_env.servers.postgres.connect()

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with self.admin() as connection:
            return connection.execute(query.encode(), values).fetchall()

    def lease(self, project: str, level: AccessLevel, user: str | None = None) -> Lease:
        data_plane = LocalDataPlane(self.local_env)
        return LeaseClient(data_plane.client(project, level, user)).issue(data_plane.binding(project), level)


def make_checkout(folder: Path, projects: Mapping[str, str], cells: int = 1) -> Path:
    """The program with other projects; code and environment are the real ones.

    Args:
        folder: for it.
        projects: names and texts of the projects' files.
        cells: how many there are.
    """
    (folder / "stacks" / "local" / "projects").mkdir(parents=True)
    for name in ("Pulumi.yaml", "__main__.py"):
        shutil.copy(CHECKOUT / name, folder / name)
    for path in [*(CHECKOUT / "stacks").glob("Pulumi.local-*.yaml"), *_DATA]:
        shutil.copy(path, folder / "stacks" / path.name)
    first = (folder / "stacks" / "Pulumi.local-cell-1.yaml").read_text(encoding="utf-8")
    for number in range(2, cells + 1):
        text = first.replace("cell: cell-1", f"cell: cell-{number}")
        (folder / "stacks" / f"Pulumi.local-cell-{number}.yaml").write_text(text, encoding="utf-8")
    for name in ("components", ".venv"):
        (folder / name).symlink_to(CHECKOUT / name)
    for name, text in projects.items():
        (folder / "stacks" / "local" / "projects" / name).write_text(text, encoding="utf-8")
    return folder


def bring_up(local_env: LocalEnvironment, *, preview: bool = False) -> list[EngineRun]:
    runs = list(local_env.run(preview=preview, on_stack=lambda _stack: None, on_step=lambda _step: None))
    if not preview:
        local_env.create_local_users(local_env.projects())
    return runs


@contextmanager
def started(
    folder: Path, projects: Mapping[str, str], cells: int = 1, cli: Path | None = None
) -> Iterator[LocalEnvironment]:
    """A data plane whose servers run and where nothing was brought up; servers and data go afterwards."""
    copy_servers(folder / "home")
    make_checkout(folder / "checkout", projects, cells)
    with _running(folder, cli) as made:
        yield made


def copy_servers(home: Path) -> None:
    """Fills a state folder with an empty database and an initialised OpenBao."""
    binaries = find_binaries()

    def make(draft: Path) -> None:
        copy_data(draft, binaries)
        servers = Servers(StateDir(draft))
        servers.start()
        servers.stop()
        (draft / "ports.json").unlink()

    TEMPLATES.copy(f"servers {binaries}", make, home)


@contextmanager
def brought_up(
    folder: Path, projects: Mapping[str, str], cells: int = 1, cli: Path | None = None
) -> Iterator[LocalEnvironment]:
    """A data plane with these projects: a copy of one that was brought up, with its secrets and ports.

    One data plane at a time has a set of ports; there are as many sets, and templates for each, as are needed at once.

    Args:
        folder: for it.
        projects: names and texts of the projects' files; without any, only the central stack is up.
        cells: how many there are.
        cli: the Pulumi CLI, where that is the engine; else it is the local runner.
    """
    for number in count():
        with _held(TEMPLATES.path(f"ports {number}").with_suffix(".used")) as mine:
            if mine:
                try:
                    _copy_brought_up(number, folder, projects, cells, cli)
                except _PortsTakenError:
                    shutil.rmtree(folder)
                    continue
                with _running(folder, cli) as made:
                    _renew_notes(made)
                    yield made
                return


class _PortsTakenError(Exception):
    """Some other program has a port of a set now."""


def _copy_brought_up(number: int, folder: Path, projects: Mapping[str, str], cells: int, cli: Path | None) -> None:
    def make(draft: Path) -> None:
        if projects:  # what the central stack makes is the same for all
            _copy_brought_up(number, draft, {}, 1, cli)
        else:
            copy_servers(draft / "home")
            make_checkout(draft / "checkout", {})
        made = _environment(draft, cli)
        try:
            made.servers.start()
            if projects:
                _renew_notes(made)
                shutil.rmtree(draft / "checkout")
                make_checkout(draft / "checkout", projects, cells)
                bring_up(made)
            else:
                list(made.run(preview=False, on_stack=lambda _: None, on_step=lambda _: None, only=[CENTRAL_STACK]))
        finally:
            made.servers.stop()

    TEMPLATES.copy(repr((number, find_binaries(), sorted(projects.items()), cells, cli)), make, folder)
    if not all(map(is_free, StateDir(folder / "home").read_json("ports.json").values())):
        raise _PortsTakenError


def _renew_notes(local_env: LocalEnvironment) -> None:
    """Notes of a copy that its stacks are up, as their last runs noted with the folder that they ran in."""
    if isinstance(local_env.engine, LocalRunner):
        return  # it runs every stack every time
    looked_up = of_openbao(local_env.servers.openbao.client())
    central = local_env.engine.outputs(CENTRAL_STACK)
    cells = {stack: cell for cell, stack in known_cells(local_env.root, ENVIRONMENT).items()}
    for stack in local_env.stacks():
        if local_env._last_run(stack) is not None:
            local_env._remember(stack, local_env._inputs(stack, cells.get(stack), central), looked_up)


@contextmanager
def _held(path: Path) -> Iterator[bool]:
    """Whether a lock could be had at once, which is then held."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


@contextmanager
def _running(folder: Path, cli: Path | None = None) -> Iterator[LocalEnvironment]:
    made = _environment(folder, cli)
    try:
        made.servers.start()
        yield made
    finally:
        made.servers.stop()
        shutil.rmtree(folder)


def _environment(folder: Path, cli: Path | None = None) -> LocalEnvironment:
    home, root = StateDir(folder / "home"), folder / "checkout"
    engine: Engine = LocalRunner(home, PROVIDERS, root)
    if cli is not None:
        engine = PulumiEngine(home, cli, root, install_plugins=install_plugins)
    return LocalEnvironment(Servers(home), engine, root)
