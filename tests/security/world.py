"""Tenants that attack and tenants that are attacked, on one data plane, with a session for every way in."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import hvac
import psycopg

from data_plane.local.servers import LOOPBACK
from data_plane.model.naming import API_LEVELS, AccessLevel, ApiServer, TenantNames
from tests.conftest import Plane
from tests.security.isolation import FURTHER, Actor, Door
from tests.support.auth import AUTH_TABLES
from tests.support.storage import make_storage

Connection = psycopg.Connection[tuple[Any, ...]]

PROJECT = """\
slug: {slug}
display_name: {slug}
cell: {cell}
owners: [{slug}-owner]
users:
  solution_admin: [{slug}-admin]
  project_contributor: [{slug}-contributor]
  project_viewer: [{slug}-viewer]
managed_services: [postgres, auth, storage]
exposed: {exposed}
{api}limits:
  lease_ttl: 1h
  lease_max_ttl: 2h
  connection_limit: 20
  statement_timeout: 20s
"""

ATTACKER, APART, VICTIM, HIDDEN, ELSEWHERE = (
    TenantNames(slug) for slug in ("alpha", "delta", "beta-two", "hidden", "elsewhere")
)
"""Alpha, and delta over a PostgREST of its own, attack beta-two, which shares alpha's, hidden, which has none, and
elsewhere, which is served by another cell's."""
TENANTS = (ATTACKER, APART, VICTIM, HIDDEN, ELSEWHERE)
CELL, OTHER_CELL = ApiServer.of_cell("cell-1"), ApiServer.of_cell("cell-2")
"""The API servers of alpha's and beta-two's cell, and of elsewhere's."""

PROJECTS = {
    f"{names.slug}.yaml": PROJECT.format(
        slug=names.slug,
        cell="cell-2" if names == ELSEWHERE else "cell-1",
        exposed=str(names != HIDDEN).lower(),
        api="api: dedicated\n" if names == APART else "",
    )
    for names in TENANTS
}

SERVICE_PASSWORD = "for-this-test"

# One of everything that a tenant can have, made by its owner.
BELONGINGS = """
    create table notes (id int generated always as identity primary key, body text, open boolean default true);
    insert into notes (body, open) values ('public', true), ('private', false);
    create policy readable on notes for select using (open);
    create policy writable on notes for insert with check (open);
    create table secrets (body text);
    insert into secrets values ('nobody sees this');
    create view definer_view as select * from notes;
    create view invoker_view with (security_invoker) as select * from notes;
    create materialized view frozen as select * from notes;
    create sequence counter;
    create type mood as enum ('fine', 'sad');
    create type pair as (a int, b int);
    create domain slug as text check (value ~ '^[a-z]+$');
    create function answer() returns int language sql as 'select 42';
    create function peek() returns text language sql security definer as 'select string_agg(body, '','') from secrets';
    create procedure work() language sql as 'select 1';
    create aggregate total(int) (sfunc = int4pl, stype = int);
    create operator === (leftarg = int, rightarg = int, function = int4eq);
    create collation plain from "C";
    create text search configuration words (copy = simple);
    create text search dictionary terms (template = simple);
    create statistics grouped (dependencies) on body, open from notes;
    create function on_change() returns trigger language plpgsql as 'begin return new; end';
    create trigger changed before update on notes for each row execute function on_change();
    create index by_body on notes (body);
    comment on table notes is 'internal: see the wiki';
    select lo_from_bytea({large_object}, 'a large object');
"""
# A further schema, opened to the tenant's own roles as its first one is by default.
BESIDE = """
    select data_plane_api.create_schema('private');
    set search_path = {schema};
    grant usage on schema {schema} to {anon}, {authenticated}, {service_role};
    alter default privileges in schema {schema} grant select, insert, update, delete on tables to {anon}, {authenticated};
    alter default privileges in schema {schema} grant all on tables to {service_role};
    alter default privileges in schema {schema}
        grant usage, select on sequences to {anon}, {authenticated}, {service_role};
"""
# What the platform's server may have beside its tenants.
PLATFORM = """
    create publication supabase_realtime;
    create foreign data wrapper platform_wrapper;
    create server platform_server foreign data wrapper platform_wrapper;
    create user mapping for supabase_admin server platform_server options (password 'not for tenants');
"""
LARGE_OBJECTS = {names: 70_001 + number for number, names in enumerate(TENANTS)}


@dataclass
class World:
    """A data plane with the tenants on it."""

    plane: Plane
    major: int
    """PostgreSQL's version."""
    _sessions: dict[Actor, Connection] = field(default_factory=dict)
    _owners: dict[TenantNames, Connection] = field(default_factory=dict)
    _people: dict[str, hvac.Client] = field(default_factory=dict)
    _others: list[Connection] = field(default_factory=list)

    @classmethod
    def on(cls, plane: Plane) -> "World":
        """Fills the tenants of a plane that is up with one of everything."""
        with plane.admin() as admin:
            major = admin.info.server_version // 10_000
            for login in ("authenticator", CELL.login, OTHER_CELL.login, APART.authenticator, "supabase_auth_admin"):
                admin.execute("select data_plane.set_password(%s, %s)", [login, SERVICE_PASSWORD])
            # A local environment has a stand-in for one of them.
            admin.execute("drop table if exists auth.users cascade")
            admin.execute(AUTH_TABLES.encode())
            admin.execute("reset role")
            admin.execute(PLATFORM.encode())
        make_storage(plane.local_env.servers.postgres)
        world = cls(plane, major)
        with plane.admin() as admin:
            for names in TENANTS:
                admin.execute("insert into storage.objects (bucket_id, name) values (%s, 'a file')", [names.schema])
                admin.execute("insert into data_plane.invitations values (%s, 'guest@example.org')", [names.schema])
        for names in TENANTS:
            owner = world.owner(names)
            owner.execute(BELONGINGS.format(large_object=LARGE_OBJECTS[names]).encode())
            schema = names.schema + FURTHER
            owner.execute(BESIDE.format(schema=schema, **{level: names.role(level) for level in API_LEVELS}).encode())
            owner.execute(BELONGINGS.format(large_object=LARGE_OBJECTS[names] + 10_000).encode())
            owner.execute("reset search_path")
        return world

    def admin(self) -> Connection:
        return self.plane.admin()

    def rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        return self.plane.rows(statement, *values)

    def lease(self, names: TenantNames, level: AccessLevel) -> Connection:
        return psycopg.connect(
            self.plane.lease(names.slug, level).connection_string, connect_timeout=30, autocommit=True
        )

    def owner(self, names: TenantNames) -> Connection:
        """A session of the tenant's owner, the same each time."""
        if names not in self._owners:
            self._owners[names] = self.lease(names, AccessLevel.OWNER)
        return self._owners[names]

    def person(self, name: str) -> hvac.Client:
        """OpenBao as somebody signed in."""
        if name not in self._people:
            self._people[name] = self.plane.local_env.sign_in(name)
        return self._people[name]

    def token(self, names: TenantNames, level: AccessLevel) -> str:
        """A new API token."""
        return str(self.person(f"{names.slug}-owner").read(names.token_path(level))["data"]["token"])

    def login(self, name: str, password: str = SERVICE_PASSWORD) -> Connection:
        """A session of one of the services."""
        return psycopg.connect(
            host=LOOPBACK,
            port=self.plane.local_env.servers.postgres.port,
            user=name,
            password=password,
            dbname="postgres",
            connect_timeout=30,
            autocommit=True,
        )

    @cached_property
    def bystanders(self) -> dict[str, object]:
        """Sessions of others, for the SQL of the matrix: by login or process ID."""
        lease = self.lease(VICTIM, AccessLevel.OWNER)
        others = {"other": lease, "admin": self.admin(), "api": self.login(CELL.login)}
        self._others.extend(others.values())
        pids = {f"{name}_pid": session.info.backend_pid for name, session in others.items()}
        return {**pids, "other_lease": lease.info.user}

    @contextmanager
    def session(self, actor: Actor, *, alone: bool = False) -> Iterator[Connection]:
        """The actor's session, inside a transaction that is rolled back.

        Args:
            alone: outside of one, which only a lease can be.
        """
        if actor not in self._sessions or self._sessions[actor].closed:
            login = {Door.TOKEN: CELL.login, Door.DEDICATED: APART.authenticator}.get(actor.door)
            self._sessions[actor] = self.login(login) if login else self.lease(ATTACKER, actor.level)
        session = self._sessions[actor]
        if alone and actor.door is Door.LEASE:
            yield session
            return
        with session.transaction(force_rollback=True):
            if actor.door is not Door.LEASE:
                begin_request(session, tenant_of(actor), actor.level)
            yield session

    def close(self) -> None:
        for session in (*self._sessions.values(), *self._owners.values(), *self._others):
            session.close()


def tenant_of(actor: Actor) -> TenantNames:
    """The tenant that an actor is of."""
    return APART if actor.door is Door.DEDICATED else ATTACKER


def begin_request(
    session: Connection, names: TenantNames, level: AccessLevel, claims: dict[str, object] | None = None
) -> None:
    """What PostgREST does before a request's own statement, in the request's transaction.

    Source: src/PostgREST/Query/PreQuery.hs at v14: the transaction's variables in one statement, then the pre-request
    function if one is set.
    """
    message = {"role": names.role(level), "project": names.slug, **(claims or {})}
    session.execute(
        "select set_config('search_path', %s, true), set_config('role', %s, true),"
        " set_config('request.jwt.claims', %s, true), set_config('request.method', 'POST', true)",
        [f'"{names.schema}", "public", "extensions"', names.role(level), json.dumps(message)],
    )
