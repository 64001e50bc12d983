"""Two tenants, and every client there is to try their leases with."""

import hashlib
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psycopg
import pytest
from filelock import FileLock

from data_plane.connector.bindings import LocalDataPlane
from data_plane.connector.leases import LeaseClient
from data_plane.engine.go import cache_folder
from data_plane.model.naming import AccessLevel
from tests.clients.sessions import IN_NODE, IN_PYTHON, NodeSession, Open, Session
from tests.conftest import NewPlane, Plane

SHOP = """\
slug: shop
display_name: Shop
cell: cell-1
owners: [olga]
limits: {lease_ttl: 10m, lease_max_ttl: 1h, connection_limit: 10}
"""
RIVAL = """\
slug: rival
display_name: Rival
cell: cell-1
owners: [bert]
"""
BRIEF = """\
slug: brief
display_name: Brief
cell: cell-1
owners: [olga]
limits: {lease_ttl: 10s, lease_max_ttl: 10m, connection_limit: 10}
"""
EMPTY = """
do $$
declare
    object record;
begin
    for object in
        select case relkind when 'v' then 'view' else 'table' end as kind, oid::regclass::text as name
        from pg_class where relnamespace = 'proj_shop'::regnamespace and relkind in ('r', 'v')
        union all
        select 'type', oid::regtype::text
        from pg_type where typnamespace = 'proj_shop'::regnamespace and typtype = 'e'
    loop
        execute format('drop %s if exists %s cascade', object.kind, object.name);
    end loop;
end
$$
"""
_HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def shops(new_plane: NewPlane) -> Plane:
    """The tenants shop and rival, and brief, whose leases last 10 s; rival has a table with a row."""
    return open_shops(new_plane)


@pytest.fixture
def shop(shops: Plane) -> Iterator[Plane]:
    """The same; shop's schema is emptied after the test."""
    yield shops
    with shops.admin() as admin:
        admin.execute(EMPTY)


@pytest.fixture(scope="module")
def operator(shops: Plane) -> LeaseClient:
    """Somebody who may revoke any lease."""
    return LeaseClient(LocalDataPlane(shops.local_env).operator())


@pytest.fixture(scope="session")
def node_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the clients' scripts and packages, which are installed once for every lock file."""
    missing = [name for name in ("node", "npm") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not on PATH: install Node 20.12 or newer to try its clients")
    files = [_HERE / name for name in ("package.json", "package-lock.json", ".npmrc")]
    key = hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()[:16]
    installed = cache_folder() / f"node-clients-{key}"
    installed.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(installed.with_suffix(".lock")):
        if not installed.is_dir():
            draft = installed.with_suffix(".draft")
            shutil.rmtree(draft, ignore_errors=True)  # what an interrupted installation left
            draft.mkdir()
            for file in files:
                shutil.copy(file, draft)
            done = subprocess.run(
                ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=draft, capture_output=True, text=True
            )
            assert done.returncode == 0, f"npm could not install the clients:\n{done.stderr}"
            draft.replace(installed)
    folder = tmp_path_factory.mktemp("node")
    (folder / "node_modules").symlink_to(installed / "node_modules")
    for script in (_HERE / "node").iterdir():
        shutil.copy(script, folder)
    return folder


@pytest.fixture(params=[*IN_PYTHON, *IN_NODE])
def client(request: pytest.FixtureRequest) -> Iterator[Open]:
    """Opens sessions of one client, and closes them after the test."""
    opened: list[Session] = []
    make = opener(request.param, request)

    def open_(url: str) -> Session:
        opened.append(make(url))
        return opened[-1]

    yield open_
    for session in opened:
        session.close()


def opener(name: str, request: pytest.FixtureRequest) -> Open:
    """What opens a session of the client of that name; installs Node's first."""
    if name in IN_PYTHON:
        return IN_PYTHON[name]
    return partial(NodeSession, request.getfixturevalue("node_folder"), IN_NODE[name])


def open_shops(new_plane: NewPlane) -> Plane:
    plane = new_plane({"shop.yaml": SHOP, "rival.yaml": RIVAL, "brief.yaml": BRIEF})
    with psycopg.connect(plane.lease("rival", AccessLevel.OWNER).connection_string) as session:
        session.execute("create table secrets as select 'a secret' as secret")
    return plane
