"""What the tests share: a checkout of their own, and a data plane brought up in it once."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from kubernetes.client import ApiClient, CoreV1Api

from components.naming import AccessLevel
from connector.bindings import LocalDataPlane
from connector.leases import Lease, LeaseClient
from embedded.engines import EmbeddedEngine, EngineRun
from embedded.home import CHECKOUT, Home
from embedded.kubernetes import EmbeddedKubernetes, add_nodes, add_volumes, install_crds, why_unavailable
from embedded.processes import wait_until
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


_DATA = [CHECKOUT / "stacks" / name for name in ("images.yaml", "resources.yaml")]


def make_checkout(folder: Path, projects: dict[str, str]) -> Path:
    """The program with other projects; code and environment are the real ones."""
    (folder / "stacks" / "local" / "projects").mkdir(parents=True)
    for name in ("Pulumi.yaml", "__main__.py"):
        shutil.copy(CHECKOUT / name, folder / name)
    for path in [*(CHECKOUT / "stacks").glob("Pulumi.local-*.yaml"), *_DATA]:
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


@dataclass(frozen=True)
class Cluster:
    """A Kubernetes control plane with two nodes on which pods get ready at once, and volumes for claims."""

    server: EmbeddedKubernetes
    api: ApiClient
    """Of the administrator."""
    kubeconfig: Path
    kubectl: Path

    def namespace(self, labels: dict[str, str] | None = None) -> str:
        """A new namespace, for one test."""
        name = f"test-{uuid4().hex[:8]}"
        core = CoreV1Api(self.api)
        core.create_namespace({"metadata": {"name": name, "labels": labels or {}}})  # type: ignore[arg-type]
        assert wait_until(lambda: bool(core.list_namespaced_service_account(name).items), 60), "no service account"
        return name


@pytest.fixture(scope="session")
def kubernetes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One control plane for all tests; each uses namespaces of its own. The first time ever, it is built."""
    if (reason := why_unavailable()) is not None:
        pytest.skip(reason)
    server = EmbeddedKubernetes(Home(tmp_path_factory.mktemp("kubernetes")), request.config.get_terminal_writer().line)
    server.start()
    api = server.client()
    add_nodes(api, 2)
    add_volumes(api, 20)
    yield Cluster(server, api, server.kubeconfig, server.programs / "kubectl")
    api.close()  # type: ignore[no-untyped-call]
    server.stop()


@pytest.fixture(scope="session")
def kubernetes_with_crds(kubernetes: Cluster) -> Cluster:
    """The same control plane, where the operators' kinds are defined."""
    install_crds(kubernetes.api)
    return kubernetes
