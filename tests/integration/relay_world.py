"""What the tests of the relay share: a database with members of two projects, and the relay's real script on it."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from components.central.files import SCRIPTS
from data_plane.local.postgres import LocalPostgres
from tests.support.auth import AUTH_TABLES
from tests.support.platform_database import (
    API_LOGIN,
    MEMBER_OF,
    PASSWORD,
    TENANTS,
    Connection,
    add_tenants,
    apply_platform,
    connect,
    new_id,
    run,
    running,
)

ONE, TWO = TENANTS
DELIVERY_SECONDS = 40.0
"""Ample, on a busy machine, for what takes half a second."""

HANDLE_NEW_USER = """
    set role {tenant}_owner;
    create table {tenant}.profiles (
        id uuid primary key references "{tenant}$auth".users on delete cascade, email text, made_by text);
    create function {tenant}.handle_new_user() returns trigger language plpgsql security definer as $$
    begin
        insert into profiles values (new.id, new.email, concat_ws(' ', current_user, session_user));
        return new;
    end $$;
    create trigger on_auth_user_created after insert on "{tenant}$auth".users
        for each row execute function {tenant}.handle_new_user();
"""
"""As Supabase's guides have it, adapted; its names are those of the project's search path."""


@contextmanager
def users_database(folder: Path, binaries: Path) -> Iterator[LocalPostgres]:
    """The platform with two projects that anybody may sign up for, and Auth's tables."""
    with running(folder, binaries, apply_platform, add_tenants) as server:
        run(server, AUTH_TABLES)
        run(server, f"alter role data_plane_relay password '{PASSWORD}'")
        # A project with an API of its own may have any code in its functions.
        run(server, "select data_plane.apply_api_logins(%s)", [API_LOGIN, f"{ONE}_authenticator"])
        run(server, "update data_plane.api_access set login = tenant || '_authenticator' where tenant = %s", ONE)
        run(server, "select data_plane.apply_api_access(%s)", ONE)
        for tenant in TENANTS:
            run(server, "insert into data_plane.sign_in values (%s, 'open')", tenant)
            attach(server, tenant)
        yield server


def attach(server: LocalPostgres, tenant: str, attached: bool = True) -> None:
    """What `up` does of a project whose lifecycle is this."""
    with server.connect() as admin:
        admin.execute(
            "insert into data_plane.user_tables values (%s, %s)"
            " on conflict (tenant) do update set attached = excluded.attached",
            [tenant, attached],
        )
        admin.execute("select data_plane.provide_users(%s)", [tenant])


def add_tenant(server: LocalPostgres, tenant: str) -> None:
    """One more project that anybody may sign up for."""
    for level, parent in MEMBER_OF.items():
        run(server, f"create role {tenant}_{level} in role {parent}")
    run(server, f"create schema {tenant} authorization {tenant}_owner")
    run(server, f"grant usage on schema {tenant} to {tenant}_authenticated")
    run(server, "insert into data_plane.sign_in values (%s, 'open')", tenant)
    attach(server, tenant)


def reset(server: LocalPostgres) -> None:
    """No users, no events, and the tables as they are made."""
    run(server, "delete from auth.users")
    for tenant in TENANTS:
        run(server, f'drop schema if exists "{tenant}$auth" cascade')
        run(
            server,
            f"drop table if exists {tenant}.profiles, {tenant}.seen cascade;"
            f"drop function if exists {tenant}.handle_new_user(), {tenant}.hostile()",
        )
        attach(server, tenant)
    run(server, "delete from data_plane.user_events")
    run(server, "update data_plane.deliveries set slow_until = null, opened_at = null, unstarted = false")


class Relay:
    """The script, as a process of its own."""

    def __init__(self, server: LocalPostgres, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", (SCRIPTS / "relay.sh").read_text(encoding="utf-8")],
            start_new_session=True,
            stderr=subprocess.DEVNULL,
            env={
                "PATH": f"{self.server.binaries}:{os.environ['PATH']}",
                "PGHOST": "127.0.0.1",
                "PGPORT": str(self.server.known_port),
                "PGDATABASE": "postgres",
                "PGUSER": "data_plane_relay",
                "PGPASSWORD": PASSWORD,
                "RELAY_FOLDER": str(self.folder),
            },
        )

    def kill(self) -> None:
        """All of it at once, psql and deliveries too."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


@contextmanager
def relaying(server: LocalPostgres, folder: Path) -> Iterator[Relay]:
    relay = Relay(server, folder)
    relay.start()
    try:
        yield relay
    finally:
        relay.kill()


def sign_up(server: LocalPostgres, tenant: str, email: str = "someone@example.org") -> str:
    """As Auth makes a user who signs up for a project; it may not wait for anybody."""
    user = new_id()
    with connect(server, "supabase_auth_admin") as auth:
        auth.execute("set lock_timeout = '500ms'; set statement_timeout = '10s'")
        auth.execute(
            "insert into auth.users (id, email, raw_user_meta_data) values (%s, %s, jsonb_build_object('project', %s::text))",
            [user, email, tenant.removeprefix("proj_").replace("_", "-")],
        )
    return user


def change(server: LocalPostgres, user: str, assignment: str) -> None:
    """As Auth changes a user, without waiting for anybody."""
    with connect(server, "supabase_auth_admin") as auth:
        auth.execute("set lock_timeout = '500ms'; set statement_timeout = '10s'")
        auth.execute(f"update auth.users set {assignment} where id = %s".encode(), [user])


def users_of(server: LocalPostgres, tenant: str) -> dict[str, str]:
    return {str(id_): email for id_, email in run(server, f'select id, email from "{tenant}$auth".users')}


def events_of(server: LocalPostgres, tenant: str) -> list[tuple[Any, ...]]:
    return run(server, "select kind, attempts, error from data_plane.user_events where tenant = %s order by id", tenant)


def eventually(condition: Callable[[], object], seconds: float = DELIVERY_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.05)


def delivery_session(server: LocalPostgres, tenant: str) -> Connection:
    """A session as the relay begins it, for what its project's code may do there."""
    ((password,),) = run(server, "select data_plane.open_delivery(%s)", tenant)
    session = connect(server, f"{tenant}$relay", password)
    session.autocommit = True
    session.execute(f"set role {tenant}_owner".encode())
    return session
