"""Names that a caller puts before PostgreSQL's: no function of the platform ever runs what is behind one.

Every name that a function of the platform uses (types, functions, operators, relations) is shadowed in ``pg_temp`` and
in a schema that comes first in the caller's search path, each by something that says who evaluates it. Then every
function that the caller may execute is called, and every event trigger fired. Callers are given ``TEMPORARY`` for this,
which they do not have on a data plane: the pinned search path has to hold by itself.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
import pytest
from psycopg import sql

from data_plane.local.postgres import LocalPostgres
from tests.integration import realtime_model
from tests.support.auth import AUTH_TABLES, User
from tests.support.platform_database import (
    API_LOGIN,
    Connection,
    add_tenants,
    apply_platform,
    connect,
    issue,
    run,
    running,
)
from tests.support.postgresqls import binaries, oldest_and_newest
from tests.support.storage import make_storage

SPY = "evaluated what stands behind a shadowed name"
LEVELS = ("owner", "service_role", "authenticated", "anon")
SERVICES = ("authenticator", "supabase_auth_admin", "openbao_lease_issuer", "data_plane_keys", "pgbouncer")

# SQL's own words for types, which PostgreSQL looks up by these names.
ALIASES = {"int": "int4", "integer": "int4", "bigint": "int8", "boolean": "bool", "varchar": "varchar"}
# By the name of the parameter, else by its type: what leads furthest into the function.
ARGUMENTS = {
    "login": "lease_shadowed",
    "name": "lease_shadowed",
    "role_name": "proj_one_owner",
    "tenant_role": "proj_one_owner",
    "verifier": "secret",
    "expires": "2100-01-01",
    "lifetime": "1 hour",
    "project": "one",
    "command": "select",
    "roles": "{authenticated}",
    "using_expression": "true",
    "email": "guest@example.org",
    "jwks": '{"keys": [{"kty": "EC", "crv": "P-256", "x": "x", "y": "y", "kid": "k", "alg": "ES256"}]}',
    "event": '{"user_id": "6f1c8a52-6f0e-4a53-9f3a-0d3c1f7f2f10", "claims": {"role": "authenticated"}}',
}
BY_TYPE = {"integer": "1", "bigint": "1", "boolean": "true", "uuid": "6f1c8a52-6f0e-4a53-9f3a-0d3c1f7f2f10"}
DDL = (
    "create table proj_one.made (a pg_catalog.int4 primary key, b pg_catalog.text)",
    "create table proj_one.chosen as select 1 as a",
    "alter table proj_one.there add c pg_catalog.text",
    "grant select on proj_one.there to proj_one_anon",
    "grant usage on schema proj_one to proj_one_anon",
    "grant usage on schema proj_one to proj_two_b_anon",
    "revoke select on proj_one.there from proj_one_anon",
    "comment on table proj_one.there is 'made'",
    "create view proj_one.seen as select 1 as a",
    "create function proj_one.f(a pg_catalog.int4) returns pg_catalog.int4 language sql as 'select 1'",
    "create type proj_one.pair as (a pg_catalog.int4)",
    "create policy p on proj_one.there using (true)",
    "create function proj_one.g() returns pg_catalog.int4 language sql as 'select 1'; drop function proj_one.g()",
    "drop table proj_one.there cascade",
    "drop schema proj_one cascade",
    "drop owned by proj_one_owner",
)


@pytest.fixture(scope="module", params=oldest_and_newest())
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPostgres]:
    with running(tmp_path_factory.mktemp("pg"), binaries()[request.param], apply_platform, add_tenants) as server:
        run(server, AUTH_TABLES)
        realtime_model.start(server)
        realtime_model.declare(server, "proj_one")
        make_storage(server)
        run(server, "insert into data_plane.sign_in values ('proj_one', 'open')")
        run(server, "insert into data_plane.buckets (tenant) values ('proj_one')")
        run(server, "grant temporary on database postgres to public")
        User(server, named="one")
        for level in LEVELS:
            issue(server, f"lease_{level}", f"proj_one_{level}")
        run(server, "create schema before_all; grant usage on schema before_all to public")
        with server.connect() as admin, admin.transaction():
            names = shadow(admin, "before_all", words_of_the_platform(admin))
        assert {kind: count for kind, count in names.items() if count < 3} == {}
        yield server


def words_of_the_platform(admin: Connection) -> set[str]:
    """Every word in the text of a function of the platform; what is no name of PostgreSQL's falls away later."""
    rows = admin.execute(
        "select pg_get_functiondef(oid) from pg_proc"
        " where prokind = 'f' and pronamespace in ('data_plane'::regnamespace, 'data_plane_api'::regnamespace)"
    ).fetchall()
    words = {word for (text,) in rows for word in re.findall(r"[a-z_][a-z0-9_]*", text.lower())}
    return words | {ALIASES[word] for word in words & ALIASES.keys()}


def shadow(session: Connection, schema: str, words: set[str]) -> dict[str, int]:
    """Puts names before PostgreSQL's; returns how many of each kind.

    Some cannot be had in a language of this server (``"any"``, ``internal``), and are left out.
    """
    place = sql.Identifier(schema)
    made: dict[str, int] = {}

    def attempt(kind: str, statement: str, **parts: sql.Composable) -> None:
        try:
            with session.transaction():
                session.execute(sql.SQL(statement).format(place=place, **parts))
        except psycopg.Error:
            return
        made[kind] = made.get(kind, 0) + 1

    session.execute(
        sql.SQL(
            "create function {}.spy() returns pg_catalog.bool language plpgsql as"
            " $$ begin raise notice '% % %', {}, current_user, pg_catalog.current_query(); return true; end $$"
        ).format(place, sql.Literal(SPY))
    )
    functions = session.execute(
        "select p.proname, pg_catalog.pg_get_function_identity_arguments(p.oid), pg_catalog.pg_get_function_result(p.oid)"
        " from pg_catalog.pg_proc p where p.pronamespace = 'pg_catalog'::pg_catalog.regnamespace and p.prokind = 'f'"
        " and p.proname = any (%s)",
        [sorted(words)],
    ).fetchall()
    for name, arguments, result in functions if schema != "pg_temp" else []:  # a function is never looked for there
        returned = "return;" if result.startswith(("SETOF", "TABLE", "void")) else "return null;"
        attempt(
            "functions",
            "create function {place}.{name}(" + arguments + ") returns " + result + " language plpgsql as {body}",
            name=sql.Identifier(name),
            body=sql.Literal(f"begin perform {schema}.spy(); {returned} end"),
        )
    operators = session.execute(
        "select oprname, oprleft::pg_catalog.regtype::text, oprright::pg_catalog.regtype::text,"
        " oprresult::pg_catalog.regtype::text from pg_catalog.pg_operator where oprkind = 'b' and oprleft in"
        " (select t::pg_catalog.regtype from pg_catalog.unnest('{text,name,oid,jsonb,json,bool,int4,int8,timestamptz,"
        'interval,uuid,"char",regclass,regnamespace,anyarray}\'::text[]) t)'
    ).fetchall()
    for number, (name, left, right, result) in enumerate(operators if schema != "pg_temp" else []):
        attempt(
            "operators",
            "create function {place}.{function}(a "
            + left
            + ", b "
            + right
            + ") returns "
            + result
            + " language plpgsql as {body}; create operator {place}."
            + name
            + " (leftarg = "
            + left
            + ", rightarg = "
            + right
            + ", function = {place}.{function})",
            function=sql.Identifier(f"operator_{number}"),
            body=sql.Literal(f"begin perform {schema}.spy(); return null; end"),
        )
    for catalog, kind, statement in (
        ("pg_class", "relations", "create view {place}.{name} as select * from pg_catalog.{name} where {place}.spy()"),
        ("pg_type", "types", "create domain {place}.{name} as pg_catalog.{name} check ({place}.spy())"),
    ):
        prefix = "rel" if catalog == "pg_class" else "typ"
        rows = session.execute(
            sql.SQL("select {name} from pg_catalog.{catalog} where {schema} = 11 and {name} = any (%s)").format(
                name=sql.Identifier(f"{prefix}name"),
                catalog=sql.Identifier(catalog),
                schema=sql.Identifier(f"{prefix}namespace"),
            ),
            [sorted(words)],
        ).fetchall()
        for (name,) in rows:
            attempt(kind, statement, name=sql.Identifier(name))
    return made


@dataclass
class ClientIdentity:
    """Somebody's session in which every name is shadowed, and what was evaluated in it."""

    session: Connection
    caught: list[str]

    def attempt(self, statement: sql.Composable) -> None:
        """Executes a statement and undoes it, whatever comes of it."""
        try:
            with self.session.transaction(force_rollback=True):
                self.session.execute(statement.as_bytes(self.session))
        except psycopg.Error:
            return


@contextmanager
def calling(database: LocalPostgres, login: str, role: str | None = None) -> Iterator[ClientIdentity]:
    """A session of a login, with every name shadowed.

    Args:
        role: what it assumes, as PostgREST does for a request.
    """
    caught: list[str] = []
    password = "pw" if login.startswith("lease_") else "for-this-test"
    with connect(database, login, password) as session, database.connect() as admin:
        session.autocommit = True
        words = words_of_the_platform(admin)
        session.add_notice_handler(lambda note: caught.extend(re.findall(f"{SPY}.*", note.message_primary or "")))
        if role is not None:
            session.execute(sql.SQL("set role {}").format(sql.Identifier(role)))
        assert shadow(session, "pg_temp", words)["types"] > 3
        session.execute("set search_path = pg_temp, before_all, pg_catalog")
        caught.clear()
        yield ClientIdentity(session, caught)


def calls(session: Connection) -> list[sql.Composed]:
    """A call of every function of the platform that a session may execute."""
    rows = session.execute(
        "select n.nspname, p.proname, coalesce(p.proargnames, '{}'),"
        " (select pg_catalog.array_agg(pg_catalog.format_type(t, null) order by i)"
        "  from pg_catalog.unnest(p.proargtypes) with ordinality as a (t, i))"
        " from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace"
        " where n.nspname in ('data_plane', 'data_plane_api') and pg_catalog.has_schema_privilege(n.oid, 'usage')"
        " and pg_catalog.has_function_privilege(p.oid, 'execute')"
        " and p.prorettype not in ('pg_catalog.trigger'::pg_catalog.regtype, 'pg_catalog.event_trigger'::pg_catalog.regtype)"
    ).fetchall()
    return [
        sql.SQL("select {}({})").format(
            sql.Identifier(schema, name),
            sql.SQL(", ").join(
                sql.Literal(ARGUMENTS.get(parameter, BY_TYPE.get(kind, "proj_one")))
                for parameter, kind in zip(parameters, kinds or [], strict=False)
            ),
        )
        for schema, name, parameters, kinds in rows
    ]


CALLERS = [
    *((f"lease_{level}", None) for level in LEVELS),
    *((API_LOGIN, f"proj_one_{level}") for level in LEVELS[1:]),
    *((service, None) for service in SERVICES),
    ("proj_one$realtime", None),
    ("proj_one$realtime", "proj_one_authenticated"),
]


@pytest.mark.parametrize(("login", "role"), CALLERS)
def test_no_function_that_a_caller_may_execute_evaluates_a_shadowed_name(
    database: LocalPostgres, login: str, role: str | None
) -> None:
    with calling(database, login, role) as caller:
        with caller.session.transaction(force_rollback=True):
            caller.session.execute("set local search_path = pg_catalog, pg_temp")
            reachable = calls(caller.session)
        for call in reachable:
            caller.attempt(call)
    assert caller.caught == []


@pytest.mark.parametrize("level", LEVELS)
def test_no_event_trigger_evaluates_a_shadowed_name(database: LocalPostgres, level: str) -> None:
    with calling(database, f"lease_{level}") as caller:
        for statement in DDL:
            # After a table that it may name. Levels below the owner's may make one in their temporary schema alone.
            for schema in ("proj_one.", "pg_temp."):
                first = "create table proj_one.there (a pg_catalog.int4)"
                caller.attempt(sql.SQL("; ").join(sql.SQL(s.replace("proj_one.", schema)) for s in (first, statement)))
        caller.attempt(sql.SQL("create temporary table t (a pg_catalog.int4); grant select on t to public"))
    assert caller.caught == []


def test_no_trigger_on_a_services_table_evaluates_a_shadowed_name(database: LocalPostgres) -> None:
    with calling(database, "supabase_auth_admin") as caller:
        caller.attempt(
            sql.SQL(
                "insert into auth.users (id, email, raw_user_meta_data, email_confirmed_at) values"
                " ('6f1c8a52-6f0e-4a53-9f3a-0d3c1f7f2f10', 'new@example.org', '{\"project\": \"one\"}', '2026-01-01')"
            )
        )
    assert caller.caught == []


@pytest.mark.parametrize("role", [None, "proj_one_authenticated"])
def test_no_policy_on_realtimes_messages_evaluates_a_shadowed_name(database: LocalPostgres, role: str | None) -> None:
    with calling(database, "proj_one$realtime", role) as caller:
        caller.attempt(sql.SQL("insert into realtime.messages (topic, extension) values ('room', 'broadcast')"))
        caller.attempt(sql.SQL("select id from realtime.messages"))
    assert caller.caught == []


@pytest.mark.parametrize("setting", ["", "set search_path = ''", "set search_path = before_all, pg_catalog"])
def test_the_search_finds_a_function_that_does_not_pin_its_search_path(database: LocalPostgres, setting: str) -> None:
    run(
        database,
        "create function data_plane.loose(project text) returns text language plpgsql security definer "
        + setting
        + " as $$ begin return project::text || pg_catalog.length(project)::text; end $$;"
        " grant execute on function data_plane.loose(text) to data_plane_tenant",
    )
    try:
        with calling(database, "lease_owner") as caller:
            caller.attempt(sql.SQL("select data_plane.loose('one')"))
    finally:
        run(database, "drop function data_plane.loose(text)")
    assert any(SPY in line and "supabase_admin" in line for line in caller.caught)
