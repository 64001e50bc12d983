"""Pools go on with a new lease: libpq's and asyncpg's through the service file, Node's through the dotenv file."""

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import psycopg_pool
import pytest
import sqlalchemy

from data_plane.connector.bindings import LocalDataPlane
from data_plane.connector.lease_runner import ManagedLease
from data_plane.connector.leases import LeaseClient
from data_plane.model.naming import AccessLevel
from tests.conftest import Plane

LOGIN = "select session_user::text"


@pytest.fixture
def supply(shops: Plane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ManagedLease]:
    """What `dataplane run` keeps for its command: files with a lease, whose variables this process has."""
    plane = LocalDataPlane(shops.local_env)
    level = AccessLevel.SERVICE_ROLE
    made = ManagedLease(lambda: plane.client("shop", level, None), plane.binding("shop"), level, tmp_path, pytest.fail)
    for key, value in made.variables().items():
        if value is None:
            monkeypatch.delenv(key, raising=False)
        else:
            monkeypatch.setenv(key, value)
    yield made
    made.give_back()


def replace(supply: ManagedLease, operator: LeaseClient) -> str:
    """Revokes the lease under whoever uses it, and has another put into the files.

    Returns:
        The new login.
    """
    before = supply.lease
    operator.revoke(before.lease_id)
    assert supply.refresh()
    assert supply.lease.username != before.username
    return supply.lease.username


def test_psycopgs_pool(supply: ManagedLease, operator: LeaseClient) -> None:
    pool = psycopg_pool.ConnectionPool("", min_size=2, max_size=3, check=psycopg_pool.ConnectionPool.check_connection)
    with pool:
        with pool.connection() as session:
            assert session.execute(LOGIN).fetchone() == (supply.lease.username,)
        login = replace(supply, operator)
        with pool.connection() as session:
            assert session.execute(LOGIN).fetchone() == (login,)


def test_psycopgs_asynchronous_pool(supply: ManagedLease, operator: LeaseClient) -> None:
    async def go() -> None:
        check = psycopg_pool.AsyncConnectionPool.check_connection
        async with psycopg_pool.AsyncConnectionPool("", min_size=2, max_size=3, check=check) as pool:
            async with pool.connection() as session:
                assert await (await session.execute(LOGIN)).fetchone() == (supply.lease.username,)
            login = await asyncio.to_thread(replace, supply, operator)
            async with pool.connection() as session:
                assert await (await session.execute(LOGIN)).fetchone() == (login,)

    asyncio.run(go())


def test_asyncpgs_pool(supply: ManagedLease, operator: LeaseClient) -> None:
    async def go() -> None:
        async with asyncpg.create_pool("postgresql://?service=shop", min_size=1, max_size=2) as pool:
            assert await pool.fetchval(LOGIN) == supply.lease.username
            login = await asyncio.to_thread(replace, supply, operator)
            async with asyncio.timeout(60):
                while pool.get_idle_size():  # noqa: ASYNC110 until it has noticed that the server ended its session
                    await asyncio.sleep(0.01)
            assert await pool.fetchval(LOGIN) == login

    asyncio.run(go())


@pytest.mark.parametrize("url", ["postgresql+psycopg://", "postgresql+psycopg:///?service=shop"])
def test_sqlalchemys_pool(supply: ManagedLease, operator: LeaseClient, url: str) -> None:
    engine = sqlalchemy.create_engine(url, pool_pre_ping=True)
    with engine.connect() as session:
        assert session.exec_driver_sql(LOGIN).scalar() == supply.lease.username
    login = replace(supply, operator)
    with engine.connect() as session:
        assert session.exec_driver_sql(LOGIN).scalar() == login
    engine.dispose()


def test_nodes_pools(supply: ManagedLease, operator: LeaseClient, node_folder: Path) -> None:
    with subprocess.Popen(
        ["node", "pools.mjs"], cwd=node_folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for turn in range(2):
            login = supply.lease.username if turn == 0 else replace(supply, operator)
            process.stdin.write("\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline()) == {"pg": login, "postgres": login}
        process.stdin.close()
