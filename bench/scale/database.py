"""What PostgreSQL and OpenBao hold of so many tenants, and what it costs PostgREST."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psycopg
from psycopg import sql

from bench.scale.leases import after_a_lease
from data_plane.local.environment import LocalEnvironment
from data_plane.model.naming import AccessLevel, ApiServer
from data_plane.model.projects import Project

__all__ = ["Holdings", "holdings"]

_CATALOGUES = ("pg_authid", "pg_auth_members", "pg_namespace", "pg_default_acl", "pg_db_role_setting")


@dataclass(frozen=True)
class Holdings:
    """At a number of tenants."""

    tenants: int
    catalog_rows: int
    catalog_mib: float
    """Of these catalogs with their indexes."""
    openbao_mib: float
    """OpenBao's storage, logs of changes included."""
    state_mib: float
    """What the local runner remembers of all stacks."""
    pre_config_ms: float
    schema_list_bytes: int
    set_role_ms: float
    """Becoming a tenant's role, as for every request of PostgREST's."""
    set_role_after_lease_ms: float
    """The same, the first time after a lease has come or gone."""
    backend_mib_fresh: float
    """Memory of a backend that has served nothing."""
    backend_mib_all: float
    """And of one that has become an API role of every tenant of a cell and looked at its schema."""


def holdings(local_env: LocalEnvironment, projects: Sequence[Project]) -> Holdings:
    """Measures them on a data plane with these tenants."""
    server = local_env.servers.postgres
    with server.connect() as admin:
        admin.autocommit = True
        rows, size = 0, 0
        for name in _CATALOGUES:
            rows += _number(admin, sql.SQL("select count(*) from {}").format(sql.Identifier(name)))
            size += _number(admin, sql.SQL("select pg_total_relation_size({})").format(name))
        with server.connect() as session:
            session.autocommit = True
            login = ApiServer.of_cell(projects[-1].cell).login
            session.execute(sql.SQL("set session authorization {}").format(sql.Identifier(login)))
            pid = session.info.backend_pid
            fresh = _private_mib(pid)
            pre_config, listed = _pre_config(session)
            role = projects[-1].names.role(AccessLevel.ANON)
            session.execute(sql.SQL("set role {}").format(sql.Identifier(role)))
            session.execute("reset role")
            usual = median(_set_role(session, role) for _ in range(9))
            first = after_a_lease(admin, session, role)
            for project in (project for project in projects if project.cell == projects[-1].cell):
                _set_role(session, project.names.role(AccessLevel.AUTHENTICATED))
                session.execute(sql.SQL("set search_path to {}").format(sql.Identifier(project.names.schema)))
                session.execute("select to_regclass('notes')")
            used = _private_mib(pid)
    home = local_env.servers.home.path
    return Holdings(
        tenants=len(projects),
        catalog_rows=rows,
        catalog_mib=size / 2**20,
        openbao_mib=_folder_mib(home / "openbao"),
        state_mib=_folder_mib(home / "state"),
        pre_config_ms=pre_config,
        schema_list_bytes=listed,
        set_role_ms=usual,
        set_role_after_lease_ms=first,
        backend_mib_fresh=fresh,
        backend_mib_all=used,
    )


def _pre_config(session: psycopg.Connection[Any]) -> tuple[float, int]:
    times: list[float] = []
    listed = 0
    for _ in range(15):
        with session.transaction():
            start = time.perf_counter()
            session.execute("select data_plane.pre_config()")
            times.append(time.perf_counter() - start)
            row = session.execute("select octet_length(current_setting('pgrst.db_schemas'))").fetchone()
            listed = row[0] if row else 0
    return median(times) * 1e3, listed


def _set_role(session: psycopg.Connection[Any], role: str) -> float:
    start = time.perf_counter()
    session.execute(sql.SQL("set role {}").format(sql.Identifier(role)))
    taken = time.perf_counter() - start
    session.execute("reset role")
    return taken * 1e3


def _number(connection: psycopg.Connection[Any], query: sql.Composed) -> int:
    row = connection.execute(query).fetchone()
    return int(row[0]) if row else 0


def _private_mib(pid: int) -> float:
    """What a backend has for itself, without the shared buffers that it has touched."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    found = dict(line.split(":", 1) for line in status.splitlines())
    return int(found["RssAnon"].split()[0]) / 1024


def _folder_mib(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20
