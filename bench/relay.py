"""How long a sign-up takes to become a row of the project's: ``python -m bench.relay``, four minutes.

At 1,000 tenants, of which 50 have sign-ups, and a trigger that makes a profile; the relay's script and its server on
this machine. Beside it, on the same server: ``select 1``, the same trigger in the session that signs the user
up, as in a standalone Supabase, and a round of the relay when there is nothing to do.
"""

import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from itertools import repeat
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import psycopg
from psycopg import sql

from components.central.files import platform_sql
from data_plane.local.postgres import LocalPostgres
from data_plane.local.relay import LocalRelay
from data_plane.state_dir import StateDir

_ROUNDS = 30
_SECONDS = 60
_AUTH = """
create table auth.users (
    id uuid primary key, email text, raw_app_meta_data jsonb, raw_user_meta_data jsonb, last_sign_in_at timestamptz,
    email_confirmed_at timestamptz);
select data_plane.adopt_auth(), data_plane.adopt_users()
"""
_TENANT = """
do $$
declare tenant text := 'proj_t' || {number};
begin
    execute format('create role %I_owner in role data_plane_tenant', tenant);
    execute format('create role %I_authenticated in role authenticated', tenant);
    execute format('create role %I_anon in role anon', tenant);
    execute format('create role %I_service_role bypassrls in role data_plane_tenant', tenant);
    execute format('create schema %I authorization %I', tenant, tenant || '_owner');
    execute format('grant usage on schema %I to %I', tenant, tenant || '_authenticated');
    insert into data_plane.sign_in values (tenant, 'open');
    insert into data_plane.user_tables values (tenant, true);
    perform data_plane.provide_users(tenant);
    execute format('set local role %I', tenant || '_owner');
    execute format('create table %I.profiles (id uuid primary key references %I.users on delete cascade,'
        ' made_at timestamptz default clock_timestamp())', tenant, tenant || '$auth');
    execute format('create function %1$I.handle_new_user() returns trigger language plpgsql security definer as'
        ' ''begin insert into %1$I.profiles (id) values (new.id); return new; end''', tenant);
    execute format('create trigger made after insert on %I.users for each row execute function %I.handle_new_user()',
        tenant || '$auth', tenant);
    reset role;
end $$
"""
_DIRECT = """
create table public.users as table auth.users;
create table public.profiles (id uuid, made_at timestamptz default clock_timestamp());
create function public.handle_new_user() returns trigger language plpgsql security definer as
    'begin insert into public.profiles (id) values (new.id); return new; end';
create trigger made after insert on public.users for each row execute function public.handle_new_user()
"""


def main(tenants: int = 1000, active: int = 50, seconds: int = _SECONDS) -> None:
    """Makes the tenants, signs users up for a minute, and prints the quantiles."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        home = StateDir(Path(folder))
        server = LocalPostgres(home)
        server.start()
        stack.callback(server.stop)
        admin = stack.enter_context(server.connect())
        admin.autocommit = True
        admin.execute(platform_sql().encode())
        for (name,) in admin.execute("select evtname from pg_event_trigger").fetchall():
            admin.execute(f"drop event trigger {name}".encode())  # they cost when tables are made, and nothing here
        admin.execute(_AUTH.encode())
        admin.execute(_DIRECT.encode())
        admin.execute("set synchronous_commit = off")
        for number in range(tenants):
            admin.execute(_TENANT.format(number=number).encode())
        admin.execute("set synchronous_commit = on")
        admin.execute("delete from data_plane.user_events")
        admin.execute("vacuum analyze")

        def timed(work: Callable[[], object]) -> float:
            found = []
            for _ in range(_ROUNDS):
                start = time.perf_counter()
                work()
                found.append(time.perf_counter() - start)
            return median(found)

        def sign_up(schema: str = "auth", project: str | None = None) -> str:
            user = str(uuid.uuid4())
            admin.execute(
                sql.SQL(
                    "insert into {} (id, email, raw_user_meta_data)"
                    " values (%s, 'someone@example.org', jsonb_build_object('project', %s::text))"
                ).format(sql.Identifier(schema, "users")),
                [user, project],
            )
            return user

        baseline = timed(lambda: admin.execute("select 1"))
        costs = {
            "select 1": baseline,
            "a round with nothing to do": timed(lambda: admin.execute("select * from data_plane.open_deliveries()")),
            "a sign-up for no project": timed(sign_up),
            "a sign-up for a project, of Auth's transaction": timed(lambda: sign_up(project="t0")),
            "a sign-up whose trigger makes the profile itself": timed(lambda: sign_up("public")),
        }
        print(f"{tenants} tenants, {active} active; medians")
        for name, cost in costs.items():
            print(f"{name:50} {cost * 1000:9.2f} ms {cost / baseline:9.1f}")

        relay = LocalRelay(home)
        relay.start(server)
        stack.callback(relay.stop)
        _wait_until_empty(admin)

        def measured(title: str, pauses: Iterable[float]) -> None:
            """Users sign up for one active project after the other, with these pauses between them."""
            signed_up: dict[str, float] = {}
            due = time.monotonic()
            for place, pause in enumerate(pauses):
                due += pause
                time.sleep(max(0, due - time.monotonic()))
                before = time.time()
                signed_up[sign_up(project=f"t{place % active}")] = before
            _wait_until_empty(admin)
            delays = _delays(admin, active, signed_up)
            of_100 = quantiles(delays, n=100)
            print(
                f"{title:50} p50 {of_100[49]:.2f} s, p95 {of_100[94]:.2f} s, p99 {of_100[98]:.2f} s,"
                f" longest {max(delays):.2f} s, of {len(delays)}"
            )

        measured("each active project every second", repeat(1 / active, active * seconds))
        measured("each active project every ten seconds", repeat(10 / active, active * seconds // 10))
        measured("all active projects at once, every ten seconds", [10, *repeat(0, active - 1)] * (seconds // 10))


def _delays(admin: "psycopg.Connection[Any]", active: int, signed_up: Mapping[str, float]) -> list[float]:
    """From each sign-up to its profile; there has to be one for each, no more and no less."""
    delays: list[float] = []
    for number in range(active):
        query = sql.SQL("select id::text, extract(epoch from made_at)::float8 from {}").format(
            sql.Identifier(f"proj_t{number}", "profiles")
        )
        rows: list[Any] = admin.execute(query).fetchall()
        delays += [made - signed_up[user] for user, made in rows if user in signed_up]
    if len(delays) != len(signed_up):
        sys.exit(f"{len(signed_up)} sign-ups made {len(delays)} profiles")
    return delays


def _wait_until_empty(admin: "psycopg.Connection[Any]") -> None:
    while admin.execute("select 1 from data_plane.user_events limit 1").fetchone():
        time.sleep(0.1)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
