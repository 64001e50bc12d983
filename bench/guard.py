"""What a run of the guard costs: ``python -m bench.guard``, a minute.

Beside the least that a statement costs (``select 1``) and the query of ``dataplane project status``, on a server of its
own.
"""

import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import psycopg

from components.central.files import platform_sql
from data_plane.connector.guard_report import read_guard_report
from data_plane.local.postgres import LocalPostgres
from data_plane.local.processes import LOOPBACK
from data_plane.state_dir import StateDir

_TABLES = 10
_SESSIONS = 200
_ROUNDS = 21
_TENANT = """
do $$
declare tenant text := 'proj_t' || {number};
begin
    execute format('create role %I_owner in role data_plane_tenant', tenant);
    execute format('create role %I_service_role bypassrls in role data_plane_tenant', tenant);
    execute format('create role %I_authenticated in role authenticated', tenant);
    execute format('create role %I_anon in role anon', tenant);
    execute format('create schema %I authorization %I', tenant, tenant || '_owner');
    execute format('set local role %I', tenant || '_owner');
    for i in 1..{tables} loop
        execute format('create table %I.t%s (id int primary key, body text)', tenant, i);
    end loop;
    reset role;
end $$
"""


def main(tenants: int = 1000) -> None:
    """Makes the tenants and their sessions, measures in alternating rounds, and prints the medians."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        server = LocalPostgres(StateDir(Path(folder)))
        server.start()
        stack.callback(server.stop)
        admin = stack.enter_context(server.connect())
        admin.autocommit = True
        admin.execute(platform_sql().encode())
        for (name,) in admin.execute("select evtname from pg_event_trigger").fetchall():
            admin.execute(f"drop event trigger {name}".encode())  # they cost when tables are made, and nothing here
        admin.execute("set synchronous_commit = off")
        for number in range(tenants):
            admin.execute(_TENANT.format(number=number, tables=_TABLES).encode())
        for number in range(_SESSIONS):
            login = f"lease_proj_t{number % tenants}_anon_{number}"
            admin.execute(
                "select data_plane.create_login(%s, 'x', now() + interval '1 h', %s, 30000, '1 h')",
                [login, f"proj_t{number % tenants}_anon"],
            )
            admin.execute(f"alter role {login} password 'x'".encode())
            place = f"host={LOOPBACK} port={server.port} dbname=postgres"
            session = stack.enter_context(psycopg.connect(place, user=login, password="x", autocommit=True))
            session.execute("select 1")

        def timed(name: str, work: Callable[[], object], before: str = "select 1") -> None:
            admin.execute(before.encode())
            start = time.perf_counter()
            work()
            times[name].append(time.perf_counter() - start)

        def guard() -> object:
            return admin.execute("select data_plane.enforce_limits()")

        times: defaultdict[str, list[float]] = defaultdict(list)
        for _ in range(_ROUNDS):
            timed("select 1", lambda: admin.execute("select 1"))
            timed("the query of status", lambda: read_guard_report(admin))
            timed("a run", guard, "update data_plane.guard set measured_at = now()")
            timed("a run that measures storage", guard, "update data_plane.guard set measured_at = null")
        ended = admin.execute("select count(*) from data_plane.guard_actions").fetchone()
        print(f"{tenants} tenants of {_TABLES} tables, {_SESSIONS} sessions; ended: {ended}")
        floor = median(times["select 1"])
        for name, found in times.items():
            print(f"{name:30} {median(found) * 1000:9.2f} ms {median(found) / floor:9.1f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
