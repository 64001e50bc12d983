"""What the tests share: a checkout of their own, and a data plane brought up in it once."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from components.naming import AccessLevel
from connector.bindings import LocalDataPlane
from connector.leases import Lease, LeaseClient
from embedded.engines import EmbeddedEngine, EngineRun
from embedded.home import CHECKOUT, Home
from embedded.servers import Servers
from embedded.workplace import Workplace

ALPHA = """\
slug: alpha
display_name: Alpha
cell: cell-1
owners: [olga]
users:
  maintainer: [mike]
  solution_admin: [sam]
  project_contributor: [cora]
  project_viewer: [vera]
teams:
  project_contributor: [builders]
managed_services: [postgres, auth]
limits:
  lease_ttl: 10m
  lease_max_ttl: 1h
  connection_limit: 3
  statement_timeout: 20s
"""

BETA = """\
slug: beta-two
display_name: Beta
cell: cell-1
owners: [bert]
managed_services: [postgres]
exposed: false
"""


def make_checkout(folder: Path, projects: dict[str, str]) -> Path:
    """The program with other projects; code and environment are the real ones."""
    (folder / "stacks" / "local" / "projects").mkdir(parents=True)
    for name in ("Pulumi.yaml", "__main__.py"):
        shutil.copy(CHECKOUT / name, folder / name)
    for path in (CHECKOUT / "stacks").glob("Pulumi.local-*.yaml"):
        shutil.copy(path, folder / "stacks" / path.name)
    for name in ("components", ".venv"):
        (folder / name).symlink_to(CHECKOUT / name)
    for name, text in projects.items():
        (folder / "stacks" / "local" / "projects" / name).write_text(text, encoding="utf-8")
    return folder


def bring_up(workplace: Workplace, *, preview: bool = False) -> list[EngineRun]:
    runs = list(workplace.run(preview=preview, on_stack=lambda _stack: None, on_step=lambda _step: None))
    if not preview:
        workplace.let_people_in(workplace.projects())
    return runs


@dataclass
class Plane:
    """A data plane that is up, and the two tenants in it."""

    workplace: Workplace

    def admin(self) -> "psycopg.Connection[tuple[Any, ...]]":
        return self.workplace.servers.postgres.connect()

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with self.admin() as connection:
            return connection.execute(query.encode(), values).fetchall()

    def lease(self, project: str, level: AccessLevel, user: str | None = None) -> Lease:
        data_plane = LocalDataPlane(self.workplace)
        return LeaseClient(data_plane.client(project, level, user)).issue(data_plane.binding(project), level)


@pytest.fixture(scope="session")
def new_workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[dict[str, str]], Workplace]]:
    """Makes data planes on servers of their own; all are stopped at the end."""
    made: list[Workplace] = []

    def make(projects: dict[str, str]) -> Workplace:
        home = Home(tmp_path_factory.mktemp("home"))
        root = make_checkout(tmp_path_factory.mktemp("checkout"), projects)
        servers = Servers(home)
        workplace = Workplace(servers, EmbeddedEngine(home, root), root)
        made.append(workplace)
        servers.start()
        return workplace

    yield make
    for workplace in made:
        workplace.servers.stop()


@pytest.fixture(scope="session")
def plane(new_workplace: Callable[[dict[str, str]], Workplace]) -> Plane:
    """Two tenants, alpha and beta-two; tests leave them as they are."""
    workplace = new_workplace({"alpha.yaml": ALPHA, "beta-two.yaml": BETA})
    bring_up(workplace)
    return Plane(workplace)
