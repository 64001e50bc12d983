"""Realtime, as far as PostgreSQL sees it: the tables that it makes, and what it sends when somebody joins a topic.

Facts of supabase/realtime at 2.129.8 (the newest that could be read; the image is 2.134.10), in words of our own: tables
and columns of its migrations, the rights that they give, and the statements of authorization.ex, messages.ex, connect.ex,
replication_connection.ex and seeds.exs, in their order.
"""

import json
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql
from psycopg.errors import Error, InsufficientPrivilege

from data_plane.local.postgres import LocalPostgres
from tests.support.platform_database import PASSWORD, Connection, connect, run

PLATFORM_TENANT = "supabase-realtime"

OWN_TABLES = """
create schema if not exists _realtime;
create table if not exists _realtime.tenants (
    id uuid primary key,
    name text,
    external_id text unique,
    jwt_secret text,
    jwt_jwks jsonb,
    postgres_cdc_default text default 'postgres_cdc_rls',
    max_concurrent_users integer not null default 200,
    max_events_per_second integer not null default 100,
    max_presence_events_per_second integer default 1000,
    max_payload_size_in_kb integer default 3000,
    max_bytes_per_second integer not null default 100000,
    max_channels_per_client integer not null default 100,
    max_joins_per_second integer not null default 500,
    suspend boolean default false,
    private_only boolean not null default false,
    migrations_ran integer default 0,
    presence_enabled boolean not null default false,
    feature_flags jsonb not null default '{}',
    gcm_migrated_at timestamp(0),
    inserted_at timestamp(0) not null,
    updated_at timestamp(0) not null,
    constraint jwt_secret_or_jwt_jwks_required check (jwt_secret is not null or jwt_jwks is not null)
);
create table if not exists _realtime.extensions (
    id uuid primary key,
    type text,
    settings jsonb,
    tenant_external_id text references _realtime.tenants (external_id) on delete cascade,
    inserted_at timestamp(0) not null,
    updated_at timestamp(0) not null,
    unique (tenant_external_id, type)
);
"""

TENANT_TABLES = """
do $$ begin
    if not exists (select from pg_roles where rolname = 'supabase_realtime_admin') then
        create role supabase_realtime_admin nologin noinherit;
        grant anon, authenticated, service_role to supabase_realtime_admin;
    end if;
end $$;
create schema if not exists realtime;
grant usage on schema realtime to anon, authenticated, service_role;
grant all on schema realtime to supabase_realtime_admin;
create table realtime.schema_migrations (version bigint primary key, inserted_at timestamp(0));
insert into realtime.schema_migrations select generate_series(1, 80);
create table realtime.messages (
    topic text not null,
    extension text not null,
    payload jsonb,
    event text,
    private boolean default false,
    updated_at timestamp not null default now(),
    inserted_at timestamp not null default now(),
    id uuid not null default gen_random_uuid(),
    binary_payload bytea,
    primary key (id, inserted_at)
) partition by range (inserted_at);
alter table realtime.messages owner to supabase_realtime_admin;
alter table realtime.messages enable row level security;
grant select, insert, update on realtime.messages to anon, authenticated, service_role;
create table realtime.subscription (
    id bigint generated always as identity primary key,
    subscription_id uuid not null,
    entity regclass not null,
    claims jsonb not null
);
alter table realtime.subscription owner to supabase_realtime_admin;
grant select on realtime.subscription to anon, authenticated, service_role;
create function realtime.topic() returns text language sql stable as $$
    select nullif(current_setting('realtime.topic', true), '')
$$;
create function realtime.send(payload jsonb, event text, topic text, private boolean default true) returns void
language plpgsql as $$
begin
    insert into realtime.messages (payload, event, topic, private, extension) values (payload, event, topic, private, 'broadcast');
exception when others then
    raise warning 'WarnSendingBroadcastMessage: %%', sqlerrm;
end
$$;
"""


def start(server: LocalPostgres) -> None:
    """Realtime's start: migrations of both schemas, its own tenant, the days' partitions."""
    run(server, OWN_TABLES)
    if run(server, "select to_regclass('realtime.messages') is null") == [(True,)]:
        run(server, TENANT_TABLES)
    seed(server)
    run(server, PARTITIONS)


PARTITIONS = """
do $$ begin
    for day in -1..3 loop
        execute format(
            'create table if not exists realtime.%%I partition of realtime.messages for values from (%%L) to (%%L)',
            'messages_' || to_char(now() at time zone 'utc' + make_interval(days => day), 'YYYY_MM_DD'),
            (now() at time zone 'utc' + make_interval(days => day))::date,
            (now() at time zone 'utc' + make_interval(days => day + 1))::date);
    end loop;
end $$;
"""


def seed(server: LocalPostgres, host: str = "g1:host") -> None:
    """Realtime deletes its own tenant and writes it anew each time; values are sealed with its key."""
    settings = {
        "db_host": host,
        "db_port": "g1:port",
        "db_name": "g1:name",
        "db_user": "g1:the superuser",
        "db_password": "g1:the superuser's",
        "region": "us-east-1",
        "publication": "supabase_realtime",
        "slot_name": "supabase_realtime_replication_slot",
        "ssl_enforced": False,
    }
    with server.connect() as admin:
        admin.execute("set search_path to _realtime")
        admin.execute("delete from tenants where external_id = %s", [PLATFORM_TENANT])
        admin.execute(
            "insert into tenants (id, name, external_id, jwt_secret, jwt_jwks, inserted_at, updated_at)"
            " values (gen_random_uuid(), %s, %s, %s, '{\"keys\": []}', now(), now())",
            [PLATFORM_TENANT, PLATFORM_TENANT, "g1:secret"],
        )
        admin.execute(
            "insert into extensions (id, type, settings, tenant_external_id, inserted_at, updated_at)"
            " values (gen_random_uuid(), 'postgres_cdc_rls', %s::jsonb, %s, now(), now())",
            [json.dumps(settings), PLATFORM_TENANT],
        )


@dataclass(frozen=True)
class Permissions:
    """What a token may do with a topic; an error counts as no permission."""

    read: bool
    write: bool


@contextmanager
def tenant_session(server: LocalPostgres, tenant: str) -> Iterator[Connection]:
    """A session of Realtime's pool for a tenant: as the login in its row, or the superuser's for its own."""
    if tenant == PLATFORM_TENANT:
        with server.connect() as session:
            session.autocommit = True
            yield session
        return
    with connect(server, f"{tenant}$realtime") as session:
        session.autocommit = True
        yield session


def join(
    session: Connection,
    claims: Mapping[str, object],
    topic: str,
    *,
    extension: str = "broadcast",
    headers: Mapping[str, str] | None = None,
) -> Permissions:
    """Whether the token's bearer may read the topic, and whether it may write to it."""
    try:
        read = _may_read(session, claims, topic, extension, headers or {})
    except Error:
        session.rollback()
        read = False
    try:
        write = _may_write(session, claims, topic, extension, headers or {})
    except Error:
        session.rollback()
        write = False
    return Permissions(read, write)


def _may_read(
    session: Connection, claims: Mapping[str, object], topic: str, extension: str, headers: Mapping[str, str]
) -> bool:
    probe = str(uuid.uuid4())
    session.execute("begin")
    session.execute(
        'insert into "realtime"."messages" ("id", "topic", "extension", "updated_at", "inserted_at")'
        " values (%s, %s, %s, now() at time zone 'utc', now() at time zone 'utc')",
        [probe, topic, extension],
    )
    _assume(session, claims, topic, headers)
    seen = session.execute('select m0."id" from "realtime"."messages" as m0 where m0."id" = any (%s)', [[probe]])
    found = seen.fetchall()
    session.execute("rollback and chain")
    session.execute("commit")
    return bool(found)


def _may_write(
    session: Connection, claims: Mapping[str, object], topic: str, extension: str, headers: Mapping[str, str]
) -> bool:
    session.execute("begin")
    _assume(session, claims, topic, headers)
    session.execute("savepoint probe")
    try:
        session.execute(
            'insert into "realtime"."messages" ("topic", "extension", "updated_at", "inserted_at")'
            " values (%s, %s, now() at time zone 'utc', now() at time zone 'utc')",
            [topic, extension],
        )
        written = True
    except InsufficientPrivilege:
        session.execute("rollback to savepoint probe")
        written = False
    session.execute("rollback and chain")
    session.execute("commit")
    return written


def _assume(session: Connection, claims: Mapping[str, object], topic: str, headers: Mapping[str, str]) -> None:
    session.execute(
        "select set_config('role', %s, true), set_config('realtime.topic', %s, true),"
        " set_config('request.jwt.claims', %s, true), set_config('request.jwt.claim.sub', %s, true),"
        " set_config('request.jwt.claim.role', %s, true), set_config('request.headers', %s, true)",
        [
            claims["role"],
            topic,
            json.dumps(claims),
            str(claims.get("sub", "")),
            claims["role"],
            json.dumps(dict(headers)),
        ],
    )


def replay(session: Connection, topic: str) -> list[tuple[Any, ...]]:
    """What was sent to a topic before: read as the login, past no role of the token's."""
    return session.execute(
        "select m0.payload from realtime.messages as m0 where m0.topic = %s and m0.private = true"
        " and m0.extension = 'broadcast' and m0.inserted_at >= now() - interval '1 day' limit 25",
        [topic],
    ).fetchall()


def declare(server: LocalPostgres, tenant: str, **changes: object) -> None:
    """A project with Realtime, as its resource leaves it; the password is the tests'."""
    row = {
        "tenant": tenant, "attached": True, "public": False, "topics": "users", "max_concurrent_users": 20,
        "max_events_per_second": 10, "max_bytes_per_second": 1000, "max_channels_per_client": 5, "max_joins_per_second": 7,
        "sealed_user": f"g1:{tenant}", "sealed_password": "g1:pw", **changes,
    }  # fmt: skip
    columns = sql.SQL(", ").join(map(sql.Identifier, row))
    with server.connect() as admin:
        admin.execute("delete from data_plane.realtime where tenant = %s", [tenant])
        admin.execute(
            sql.SQL("insert into data_plane.realtime ({}) values ({})").format(
                columns, sql.SQL(", ").join(sql.Placeholder() for _ in row)
            ),
            list(row.values()),
        )
        admin.execute("select data_plane.apply_realtime(%s)", [tenant])
        admin.execute(
            sql.SQL("alter role {} password {}").format(sql.Identifier(f"{tenant}$realtime"), sql.Literal(PASSWORD))
        )


def withdraw(server: LocalPostgres, tenant: str) -> None:
    run(server, "delete from data_plane.realtime where tenant = %s", tenant)
    run(server, "select data_plane.apply_realtime(%s)", tenant)


def replication_refused(server: LocalPostgres, tenant: str) -> str:
    """What PostgreSQL says when Realtime asks for the stream of stored messages as the tenant's login."""
    try:
        psycopg.connect(
            host="127.0.0.1", port=server.port, user=f"{tenant}$realtime", password=PASSWORD, dbname="postgres",
            options="", replication="database",
        ).close()  # fmt: skip
    except psycopg.OperationalError as error:
        return str(error)
    return ""
