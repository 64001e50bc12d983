"""Data planes of any number of tenants, each in a folder of its own."""

import shutil
from pathlib import Path

from ruamel.yaml import YAML

from data_plane.engine.engines import LocalRunner
from data_plane.local.environment import LocalEnvironment
from data_plane.local.providers import PROVIDERS
from data_plane.local.servers import Servers
from data_plane.model.projects import Project
from data_plane.state_dir import CHECKOUT, StateDir

__all__ = ["cell_of", "new_local_env", "open_local_env", "tenants", "write_project", "write_projects"]

_PEOPLE = 20
_STACKS = CHECKOUT / "stacks"


def cell_of(number: int, size: int) -> str:
    """The cell of a tenant by its number, if cells hold so many."""
    return f"cell-{number // size + 1}"


def tenants(count: int, size: int) -> list[Project]:
    """So many tenants, as the program sees them."""
    yaml = YAML(typ="safe")
    return [Project.model_validate(yaml.load(_file(number, cell_of(number, size)))) for number in range(count)]


def new_local_env(folder: Path, count: int, size: int) -> LocalEnvironment:
    """A data plane whose servers run and in which nothing was brought up yet.

    Args:
        folder: an empty one; servers that may not be root have to get into it.
        count: of tenants.
        size: of their cells.
    """
    for name in ("home", "checkout"):
        (folder / name).mkdir(mode=0o755)
    for name in ("Pulumi.yaml", "__main__.py"):
        shutil.copy(CHECKOUT / name, folder / "checkout" / name)
    for name in ("components", "policies", ".venv"):
        (folder / "checkout" / name).symlink_to(CHECKOUT / name)
    write_projects(folder / "checkout", count, size)
    local_env = open_local_env(folder)
    local_env.servers.start()
    return local_env


def open_local_env(folder: Path) -> LocalEnvironment:
    """The data plane that :func:`new_local_env` has made in a folder."""
    home = StateDir(folder / "home")
    root = folder / "checkout"
    return LocalEnvironment(Servers(home), LocalRunner(home, PROVIDERS, root), root)


def write_projects(root: Path, count: int, size: int) -> None:
    """The files of so many tenants, and the stacks of their cells, in the place of all that were there."""
    stacks = root / "stacks"
    shutil.rmtree(stacks, ignore_errors=True)
    (stacks / "local" / "projects").mkdir(parents=True)
    for name in ("images.yaml", "resources.yaml"):
        shutil.copy(_STACKS / name, stacks / name)
    bound = f"  supabase-data-plane:cellSize: {size + 1}\n"  # one is attached later
    for name, text in {
        "central": (_STACKS / "Pulumi.local-central.yaml").read_text(encoding="utf-8"),
        **{cell_of(first, size): _cell_stack(cell_of(first, size)) for first in range(0, count, size)},
    }.items():
        (stacks / f"Pulumi.local-{name}.yaml").write_text(text + bound, encoding="utf-8")
    for number in range(count):
        write_project(root, number, cell_of(number, size))


def write_project(root: Path, number: int, cell: str, lifecycle: str = "attached") -> None:
    """One project's file."""
    file = root / "stacks" / "local" / "projects" / f"tenant-{number:05d}.yaml"
    file.write_text(_file(number, cell, lifecycle), encoding="utf-8")


def _cell_stack(cell: str) -> str:
    text = (_STACKS / "Pulumi.local-cell-1.yaml").read_text(encoding="utf-8")
    return text.replace(":cell: cell-1\n", f":cell: {cell}\n")


def _file(number: int, cell: str, lifecycle: str = "attached") -> str:
    """A project as they come: a few people, and everything that a tenant has resources for."""
    return f"""\
slug: tenant-{number:05d}
display_name: Tenant {number}
cell: {cell}
owners: [owner-{number % _PEOPLE}]
users:
  project_contributor: [contributor-{number % _PEOPLE}]
managed_services: [postgres, auth, storage]
lifecycle: {lifecycle}
"""
