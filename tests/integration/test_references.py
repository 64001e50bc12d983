"""What a tenant's objects may refer to, by the searches that find whatever refers to anything else."""

from collections.abc import Iterator
from typing import Any

import pytest
from psycopg import sql
from psycopg.errors import InsufficientPrivilege

from data_plane.local.postgres import LocalPostgres
from tests.support.auth import AUTH_TABLES
from tests.support.platform_database import (
    add_tenants,
    apply_platform,
    connect,
    issue,
    new_id,
    revoke,
    run,
    running,
)
from tests.support.postgresqls import binaries, oldest_and_newest
from tests.support.storage import make_storage

# As tenants could before, and as the official image grants its own tables.
BEFORE = """
    create table public.notices (id int primary key);
    grant all on public.notices to anon, authenticated;
    grant references (id) on auth.users to data_plane_tenant;
    grant trigger on auth.sessions to proj_one_owner;
    grant truncate on data_plane.members to public;
    create table proj_one.profiles (
        id uuid primary key, owner uuid references auth.users (id) on delete cascade, peer uuid);
    create table proj_one.parts (id uuid references auth.users (id)) partition by hash (id);
    create table proj_one.part partition of proj_one.parts for values with (modulus 1, remainder 0);
    create table proj_two_b.things (id int primary key);
    create table proj_one.shared (thing int references proj_two_b.things (id));
    create view proj_one.mails as select email from auth.users;
    create view proj_one.someone as select id from data_plane.signed_in_user();
    create function proj_one.on_user() returns trigger language plpgsql as 'begin return new; end';
    create trigger on_user after insert on auth.users for each row execute function proj_one.on_user();
    alter table proj_one.profiles owner to proj_one_owner;
"""


@pytest.fixture(scope="module", params=oldest_and_newest())
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPostgres]:
    """The services' tables, and what tenants may have made of them before it was refused."""
    with running(tmp_path_factory.mktemp("pg"), binaries()[request.param], apply_platform, add_tenants) as server:
        run(server, AUTH_TABLES)
        make_storage(server)
        run(server, BEFORE)
        apply_platform(server)
        for login, role in LEASES.items():
            issue(server, login, role)
        run(server, "grant create on schema proj_one to proj_one_service_role, proj_one_authenticated, proj_one_anon")
        yield server
        for login in LEASES:
            revoke(server, login)


LEASES = {f"lease_{level}": f"proj_one_{level}" for level in ("owner", "service_role", "authenticated", "anon")}
SERVICE_RELATIONS = """
    select n.nspname, c.relname, a.attname, format_type(a.atttypid, null), k.indrelid is not null from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    left join pg_index k on k.indrelid = c.oid and k.indisprimary and k.indnatts = 1
    join pg_attribute a on a.attrelid = c.oid and a.attnum = coalesce(k.indkey[0], 1)
    where n.nspname in ('auth', 'storage', 'data_plane') and c.relkind in ('r', 'p')
"""
"""Their tables, with a column, its type, and whether it is the key."""
SHAPES = {
    "view": "create view proj_one.made as select t.{column} from {table} t",
    "materialized view": "create materialized view proj_one.made as select t.{column} from {table} t with no data",
    "column": "create table proj_one.made (a {table})",
    "array": "create table proj_one.made (a {table}[])",
    "composite": "create type proj_one.made as (a {table})",
    "domain": "create domain proj_one.made as {table}",
    "child": "create table proj_one.made () inherits ({table})",
    "foreign key": "create table proj_one.made (a {type}, foreign key (a) references {table})",
    "later foreign key": "create table proj_one.made (a {type});"
    " alter table proj_one.made add foreign key (a) references {table} ({column}) not valid",
    "policy": "create table proj_one.made ();"
    " create policy p on proj_one.made using (exists (select from {table} t where t.{column} is not null))",
    "altered policy": "create table proj_one.made (); create policy p on proj_one.made;"
    " alter policy p on proj_one.made using (exists (select from {table}))",
    "function body": "create function proj_one.made() returns bigint begin atomic select count(*) from {table}; end",
    "function argument": "create function proj_one.made({table}) returns int language sql as 'select 1'",
    "function result": "create function proj_one.made() returns setof {table} language plpgsql as 'begin end'",
    "rule": "create table proj_one.made (a int);"
    " create rule r as on insert to proj_one.made do also select count(*) from {table}",
    "replaced view": "create view proj_one.made as select null::int as a;"
    " create or replace view proj_one.made as select null::int as a from {table}",
    "in a function": "do $d$ begin execute 'create view proj_one.made as select from {table}'; end $d$",
    "trigger": "create trigger made after insert on {table} execute function proj_one.on_user()",
    "rule on it": "create rule made as on insert to {table} do nothing",
    "index": "create index on {table} ({column})",
    "statistics": "create statistics proj_one.made on {column}, ctid from {table}",
    "row": "create view proj_one.made as select null::{table} as a",
}


def test_nobody_whom_tenants_are_has_what_row_level_security_does_not_see(database: LocalPostgres) -> None:
    """The catalog, and not the function by which it is closed, is asked."""
    privileges = ["references", "trigger", "truncate"]
    if run(database, "select current_setting('server_version_num')::int")[0][0] >= 170_000:
        privileges.append("maintain")
    query = """
        select c.oid::regclass::text, r.rolname, p.name from pg_class c
        join pg_namespace n on n.oid = c.relnamespace
        cross join pg_roles r cross join unnest(%s::text[]) as p (name)
        where c.relkind in ('r', 'p', 'v', 'm', 'f')
            and n.nspname not in ('pg_catalog', 'information_schema') and n.nspname not like 'proj\\_%%'
            and (r.rolname ~ '^(proj|lease)_' or r.rolname in ('anon', 'authenticated', 'data_plane_tenant'))
            and (has_table_privilege(r.oid, c.oid, p.name)
                or p.name = 'references' and has_any_column_privilege(r.oid, c.oid, p.name))
        """
    assert run(database, query, privileges) == []
    assert run(database, "select * from data_plane.open_relations()") == []
    assert (
        run(
            database,
            "select t.oid::regtype::text from pg_type t join pg_class c on c.reltype = t.oid"
            " join pg_namespace n on n.oid = c.relnamespace, pg_roles r"
            " where n.nspname in ('auth', 'storage', 'data_plane') and r.rolname ~ '^proj_one_'"
            " and has_type_privilege(r.oid, t.oid, 'usage')",
        )
        == []
    )


def test_tables_that_a_service_makes_later_are_closed_too(database: LocalPostgres) -> None:
    with connect(database, "supabase_storage_admin") as storage:
        storage.execute("create table storage.later (id int primary key)")
    try:
        assert run(database, "select * from data_plane.open_relations()") == []
        for shape in ("column", "foreign key"):
            assert unrefused(database, "lease_owner", SHAPES[shape], [("storage", "later", "id", "int", True)]) == []
    finally:
        run(database, "drop table storage.later")


def unrefused(
    database: LocalPostgres, login: str, shape: str, relations: list[tuple[Any, ...]]
) -> list[tuple[Any, ...]]:
    """The relations of which a lease could make something; it is taken back."""
    made = []
    # What has a semicolon in it is one statement.
    statements = [shape] if "begin" in shape else shape.split("; ")
    with connect(database, login, "pw") as session:
        for schema, table, column, of_type, is_key in relations:
            if "foreign key" in shape and not is_key:
                continue
            names = {
                "table": sql.Identifier(schema, table),
                "column": sql.Identifier(column),
                "type": sql.SQL(of_type),
            }
            try:
                with session.transaction(force_rollback=True):
                    for statement in statements:
                        session.execute(sql.SQL(statement).format(**names))
                made.append((schema, table))
            except InsufficientPrivilege:
                pass
    return made


@pytest.mark.parametrize("login", LEASES)
@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_that_refers_to_a_services_table_can_be_made(database: LocalPostgres, login: str, shape: str) -> None:
    relations = run(database, SERVICE_RELATIONS)
    assert sum(is_key for *_, is_key in relations) > 10
    assert unrefused(database, login, SHAPES[shape], relations) == []


@pytest.mark.parametrize(
    "statement",
    [
        "create view proj_one.made as select id from data_plane.signed_in_user()",
        "create view proj_one.made as select data_plane.tenant_of('x')",
        "create table proj_one.made (a text default data_plane.slug_of('proj_x'))",
        "create function proj_one.made() returns text return data_plane.slug_of('proj_x')",
        "create table proj_one.made (a text check (data_plane.slug_of(a) = a))",
        "create type proj_one.made as (a data_plane.members)",
    ],
)
def test_nothing_holds_up_what_the_platform_replaces(database: LocalPostgres, statement: str) -> None:
    with connect(database, "lease_owner", "pw") as session, pytest.raises(InsufficientPrivilege):
        session.execute(statement.encode())


@pytest.mark.parametrize(
    "statement",
    [
        "create table proj_one.made (owner uuid default auth.uid())",
        (
            "create table proj_one.made (owner uuid);"
            " create policy p on proj_one.made using (owner = (select auth.uid()) and auth.jwt() is not null)"
        ),
        "create view proj_one.made as select auth.role(), auth.email()",
        "create function proj_one.made() returns uuid return auth.uid()",
        "create view proj_one.made as select * from data_plane_api.list_members()",
        "create table proj_one.made (a int primary key, b int references proj_one.made)",
        "create table proj_one.made (at timestamptz, state information_schema.yes_or_no)",
        "create function proj_one.made() returns bigint language plpgsql as 'begin return (select 1 from auth.users); end'",
    ],
)
def test_what_projects_use_of_the_platform_stays(database: LocalPostgres, statement: str) -> None:
    with connect(database, "lease_owner", "pw") as session:
        session.execute(statement.encode())
        session.rollback()


def test_a_service_changes_its_tables_as_it_likes(database: LocalPostgres) -> None:
    run(database, "drop view if exists proj_one.mails")
    with connect(database, "supabase_auth_admin") as auth:
        for statement in (
            "alter table auth.users alter column email type varchar(255)",
            "alter table auth.users add column token text default random()::text",
            "alter table auth.users drop column last_sign_in_at",
            "create table auth.identities (id uuid primary key, user_id uuid references auth.users (id))",
            "create view auth.confirmed as select u from auth.users u where email_confirmed_at is not null",
        ):
            auth.execute(statement.encode())
        auth.rollback()
    run(database, "create view proj_one.mails as select email from auth.users")


def test_what_was_made_before_is_named_with_the_way_out(database: LocalPostgres) -> None:
    found = run(database, "select found, remedy from data_plane.privilege_drift(array['proj_one', 'proj_two_b'])")
    assert {remedy for what, remedy in found if "refers to" in what or "depends on" in what or "trigger" in what} == {
        None
    }
    named = "\n".join(what for what, _ in found)
    for expected in (
        "profiles refers to auth.users: ",
        ": alter table proj_one.profiles drop constraint profiles_owner_fkey (data_plane_api.list_members()",
        ": alter table proj_one.parts drop constraint parts_id_fkey",
        "alter table proj_one.shared drop constraint shared_thing_fkey",
        "drop trigger on_user on auth.users",
        "rule _RETURN on view proj_one.mails depends on ",
    ):
        assert expected in named, named
    assert "part_id_fkey" not in named, "it goes with the one of the table it is a part of"
    assert run(database, "select count(*) from data_plane.outside_references(array['proj_two_b'])") == [(0,)]


def test_a_project_gets_rid_of_its_own_and_goes_on(database: LocalPostgres) -> None:
    user = new_id()
    with connect(database, "supabase_auth_admin") as auth:
        auth.execute("insert into auth.users (id) values (%s)", [user])
    with connect(database, "lease_owner", "pw") as session:
        session.execute("insert into proj_one.profiles values (gen_random_uuid(), %s)", [user])
        session.execute("alter table proj_one.profiles add column more int")
        session.execute("alter table proj_one.profiles drop constraint profiles_owner_fkey")
        with pytest.raises(InsufficientPrivilege), session.transaction():
            session.execute("alter table proj_one.profiles add foreign key (owner) references auth.users (id)")
    with connect(database, "supabase_auth_admin") as auth:
        auth.execute("delete from auth.users where id = %s", [user])
    assert run(database, "select owner::text from proj_one.profiles") == [(user,)]
    assert "profiles" not in str(run(database, "select * from data_plane.outside_references(array['proj_one'])"))


def test_what_another_than_the_owner_granted_is_named(database: LocalPostgres) -> None:
    run(
        database,
        "create role lender; grant references on public.notices to lender with grant option;"
        " set role lender; grant references on public.notices to anon",
    )
    try:
        apply_platform(database)
        named = str(run(database, "select data_plane.changed_objects()"))
        assert "REFERENCES on public.notices is still granted to anon, by another than its owner" in named
    finally:
        run(database, "revoke all on public.notices from lender cascade; drop role lender")
