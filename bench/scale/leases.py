"""How fast leases are issued: by OpenBao, as people and programs get them, and by the SQL function alone."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median
from typing import Any

import hvac
import psycopg
from psycopg import sql
from psycopg_pool import ConnectionPool

from data_plane.local.environment import LocalEnvironment
from data_plane.model.naming import LEASE_ISSUER, AccessLevel
from data_plane.model.projects import Project

__all__ = ["LeaseRate", "after_a_lease", "by_openbao", "by_sql"]

_COUNT = 120


@dataclass(frozen=True)
class LeaseRate:
    """How leases come when so many ask at the same time."""

    how: str
    workers: int
    p50_ms: float
    p99_ms: float
    per_second: float


def by_openbao(local_env: LocalEnvironment, projects: list[Project], workers: int) -> LeaseRate:
    """Leases of ``authenticated`` for a project's owner, who has signed in."""
    owner = projects[0].owners[0]
    local_env.create_local_users(projects[:1])
    own = [project for project in projects if owner in project.owners]
    paths = [project.names.lease_path(AccessLevel.AUTHENTICATED) for project in own]
    token = local_env.sign_in(owner).token
    of_thread = threading.local()

    def client() -> hvac.Client:
        if not hasattr(of_thread, "client"):
            of_thread.client = hvac.Client(url=local_env.servers.openbao.address, token=token, timeout=60)
        return of_thread.client

    rate = _rate("OpenBao", workers, lambda number: client().read(paths[number % len(paths)]))
    local_env.servers.openbao.client().sys.revoke_prefix("database/creds")
    return rate


def by_sql(local_env: LocalEnvironment, projects: list[Project], workers: int) -> LeaseRate:
    """What of it is PostgreSQL's: ``issue_lease`` with a finished verifier, over as many connections."""
    server = local_env.servers.postgres
    issuer = sql.Identifier(LEASE_ISSUER)
    with server.connect() as admin:
        row = admin.execute("select rolpassword from pg_authid where rolname = %s", [LEASE_ISSUER]).fetchone()
        dsn = admin.info.dsn
    verifier = row[0] if row else ""
    roles = [project.names.role(AccessLevel.AUTHENTICATED) for project in projects]
    made: list[str] = []

    def as_issuer(connection: psycopg.Connection[Any]) -> None:
        # The function is for the issuer alone, whose password is OpenBao's.
        connection.execute(sql.SQL("set session authorization {}").format(issuer))

    with ConnectionPool(
        dsn,
        min_size=workers,
        max_size=workers,
        kwargs={"autocommit": True, "password": server.admin_password},
        configure=as_issuer,
    ) as pool:
        pool.wait()

        def issue(number: int) -> None:
            name = f"lease_bench_{workers}_{number}"
            made.append(name)
            with pool.connection() as connection:
                connection.execute(
                    "select data_plane.issue_lease(%s, %s, now() + interval '1 hour', %s, 30000)",
                    [name, verifier, roles[number % len(roles)]],
                )

        rate = _rate("SQL alone", workers, issue)
        for name in made:
            with pool.connection() as connection:
                connection.execute("select data_plane.revoke_lease(%s)", [name])
    return rate


def after_a_lease(
    connection: psycopg.Connection[Any], authenticator: psycopg.Connection[Any], role: str, rounds: int = 7
) -> float:
    """Milliseconds that PostgREST's login needs to become a role right after a lease has come or gone.

    PostgreSQL then looks up anew what the login is a member of: three roles of every tenant that it serves.
    """
    times: list[float] = []
    for number in range(rounds):
        connection.execute(sql.SQL("create role {} in role anon").format(sql.Identifier(f"lease_bench_{number}")))
        start = time.perf_counter()
        authenticator.execute(sql.SQL("set role {}").format(sql.Identifier(role)))
        times.append(time.perf_counter() - start)
        authenticator.execute("reset role")
        connection.execute(sql.SQL("drop role {}").format(sql.Identifier(f"lease_bench_{number}")))
    return median(times) * 1e3


def _rate(how: str, workers: int, work: Callable[[int], object]) -> LeaseRate:
    times: list[float] = []

    def one(number: int) -> None:
        start = time.perf_counter()
        work(number)
        times.append(time.perf_counter() - start)

    with ThreadPoolExecutor(workers) as executor:
        list(executor.map(one, range(workers)))  # connections, first plans
        times.clear()
        start = time.perf_counter()
        list(executor.map(one, range(workers, workers + _COUNT)))
        whole = time.perf_counter() - start
    ordered = sorted(times)
    p99 = ordered[min(len(ordered) - 1, round(len(ordered) * 0.99))]
    return LeaseRate(how, workers, median(ordered) * 1e3, p99 * 1e3, _COUNT / whole)
