"""A number of tenants in cells of a size: everything that is measured of them, on servers of their own."""

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.scale.cost import Cost, run_stack, server_time
from bench.scale.database import holdings
from bench.scale.floor import catalog, make_tenants
from bench.scale.leases import by_openbao, by_sql
from bench.scale.projects import cell_of, new_local_env, tenants, write_project
from data_plane.local.environment import CENTRAL_STACK, LocalEnvironment
from data_plane.model.projects import Project

__all__ = ["Layout", "measured"]

_SAMPLE = 3
_WORKERS = (1, 10)


@dataclass(frozen=True)
class Layout:
    """So many tenants in cells of a size."""

    tenants: int
    cell_size: int

    @property
    def stacks(self) -> list[str]:
        """The stacks of its cells."""
        return [f"local-{cell_of(first, self.cell_size)}" for first in range(0, self.tenants, self.cell_size)]


def measured(layout: Layout, say: Callable[[str], None], *, whole: bool, every: bool = False) -> dict[str, Any]:
    """All of a layout, for the results file.

    Cells are alike, so three at most are run, beside tenants in all others that the floor's statements have made
    before; what three cost is counted as often as there are cells.

    Args:
        say: is told what is being done.
        whole: whether what does not depend on the size of cells is measured as well: the floor, leases, catalogs.
        every: whether each cell is run.

    Raises:
        RuntimeError: if a run fails, or the floor has not left what the program has left.
    """
    stacks = layout.stacks if every else layout.stacks[:_SAMPLE]
    projects = tenants(layout.tenants, layout.cell_size)
    found: dict[str, Any] = {**asdict(layout), "cells_run": len(stacks)}
    times = len(layout.stacks) / len(stacks)
    with _plane(layout) as (folder, local_env):
        say("central")
        run_stack(local_env, folder, CENTRAL_STACK, "up")
        _floor(local_env, projects[len(stacks) * layout.cell_size :])
        with _notifications(local_env) as told:
            found["first"] = _all(local_env, folder, stacks, "up", say).times(times).as_dict()
        found["notifications"] = told[0] * times
        for name, action in (("unchanged", "up"), ("preview", "preview"), ("sdk", "sdk")):
            found[name] = _all(local_env, folder, stacks, action, say).times(times).as_dict()
        if whole:
            program = _made(local_env, layout)
            say("leases and catalogs")
            rates = [rate(local_env, projects, workers) for workers in _WORKERS for rate in (by_openbao, by_sql)]
            found["leases"] = [asdict(rate) for rate in rates]
            found["holdings"] = asdict(holdings(local_env, projects))
        last = stacks[-1]
        write_project(local_env.root, layout.tenants, last.removeprefix("local-"))
        found["attach"] = _all(local_env, folder, [last], "up", say).as_dict()
        write_project(local_env.root, 0, cell_of(0, layout.cell_size), "detached")
        found["detach"] = _all(local_env, folder, stacks[:1], "up", say).as_dict()
    if whole:
        say("floor")
        with _plane(layout) as (folder, local_env):
            run_stack(local_env, folder, CENTRAL_STACK, "up")
            found["floor"] = _floor(local_env, projects).as_dict()
            floor = _made(local_env, layout)
            if differing := sorted(key for key in program if program[key] != floor.get(key)):
                raise RuntimeError(f"the floor has not left what the program has left: {', '.join(differing)}")
    return found


def _all(local_env: LocalEnvironment, folder: Path, stacks: list[str], action: str, say: Callable[[str], None]) -> Cost:
    cost = Cost()
    for stack in stacks:
        say(f"{action} {stack}")
        cost += run_stack(local_env, folder, stack, action)
    return cost


def _floor(local_env: LocalEnvironment, projects: Sequence[Project]) -> Cost:
    client = local_env.servers.openbao.client()
    with local_env.servers.postgres.connect() as connection, server_time(local_env) as servers:
        connection.autocommit = True
        before = os.times()
        taken = make_tenants(connection, client, projects)
        after = os.times()
    mine = after.user + after.system - before.user - before.system
    return Cost(sum(taken.values()), mine, servers[0].postgresql, servers[0].openbao, created=len(projects))


def _made(local_env: LocalEnvironment, layout: Layout) -> dict[str, Any]:
    """The first tenant as it stands."""
    project = tenants(layout.cell_size, layout.cell_size)[0]
    with local_env.servers.postgres.connect() as connection:
        return catalog(connection, local_env.servers.openbao.client(), project)


@contextmanager
def _plane(layout: Layout) -> Iterator[tuple[Path, LocalEnvironment]]:
    with tempfile.TemporaryDirectory(prefix="scale-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        local_env = new_local_env(folder, layout.tenants, layout.cell_size)
        try:
            yield folder, local_env
        finally:
            local_env.servers.stop()


@contextmanager
def _notifications(local_env: LocalEnvironment) -> Iterator[list[int]]:
    """Puts into the list how often PostgREST was told to reload something."""
    told: list[int] = []
    with local_env.servers.postgres.connect() as listener:
        listener.autocommit = True
        listener.execute("listen pgrst")
        yield told
        told.append(len(list(listener.notifies(timeout=1))))
