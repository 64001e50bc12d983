"""What a migration may not name, and what an adaptation makes of it. Statements are as real projects write them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.naming import TenantNames
from connector.errors import MigrationError, MigrationRefusedError
from connector.migrations.adaptation import adapted
from connector.migrations.boundaries import Boundary, Scope, findings_in
from connector.migrations.files import ScriptFile
from connector.migrations.prepared import PreparedFile, prepared, refuse
from connector.migrations.script import Statement, statements_of

SCOPE = Scope(
    TenantNames("shop"),
    extensions={"pgcrypto": "extensions"},
    extension_objects={"uuid_generate_v4": "extensions", "gin_trgm_ops": "extensions", "citext": "extensions"},
    schemas=frozenset({"proj_shop", "proj_rival", "public"}),
)


def one(text: str) -> Statement:
    (statement,) = statements_of(ScriptFile(Path("m.sql"), text))
    return statement


def reached(text: str) -> list[str]:
    return sorted({finding.boundary.value for finding in findings_in(one(text), SCOPE)})


def prepare(text: str, *, adapt: bool = True, leave_out: frozenset[Boundary] = frozenset()) -> PreparedFile:
    return prepared(ScriptFile(Path("m.sql"), text), SCOPE, adapt=adapt, leave_out=leave_out)


INSIDE = [
    "create table todos (id uuid primary key default gen_random_uuid(), owner uuid references auth.users (id))",
    "create table proj_shop.todos (id uuid, visibility text default 'public')",
    "create policy mine on todos using (owner = auth.uid() and (auth.jwt() ->> 'kind') = 'authenticated')",
    "grant select on todos to proj_shop_anon",
    "revoke execute on function f() from public",
    "create index on todos using gin (name extensions.gin_trgm_ops)",
    "create extension if not exists pgcrypto with schema extensions",
    "select set_config('search_path', '', false)",
    "set search_path = proj_shop, extensions",
    "create function f() returns int language plpgsql set search_path = '' as $$ begin return 1; end $$",
    "select t.public from todos t",
    (
        "do $$ begin if not exists (select from pg_type where typname = 'mood' and typnamespace = 'proj_shop'::regnamespace)"
        " then create type mood as enum ('a'); end if; end $$"
    ),
    (
        "do $$ begin if not exists (select from pg_constraint where conname = 'c' and conrelid = 'todos'::regclass)"
        " then null; end if; end $$"
    ),
    "insert into todos (name) values ('proj_rival.x'), ('public.x'), ('anon')",
    "notify pgrst, 'reload schema'",
    "select pg_catalog.now(), table_name from information_schema.tables",
]


@pytest.mark.parametrize("text", INSIDE)
def test_what_stays_in_the_slice_is_let_through_unchanged(text: str) -> None:
    assert reached(text) == []
    assert adapted(one(text), SCOPE).statement.text == text or adapted(one(text), SCOPE).left_out is not None


PUBLIC = ["public"]
OUTSIDE = [
    ("create table public.todos (id int)", PUBLIC),
    ('alter table only "public"."todos" add column a int', PUBLIC),
    ("drop table if exists public.todos", PUBLIC),
    ("drop policy if exists p on public.todos", PUBLIC),
    ("drop function public.f(int)", PUBLIC),
    ("comment on column public.todos.id is 'x'", PUBLIC),
    ("alter type public.mood add value 'x'", PUBLIC),
    ("create type public.mood as enum ('a')", PUBLIC),
    ("create domain public.d as text", PUBLIC),
    ("create aggregate public.a (int) (sfunc = int4pl, stype = int)", PUBLIC),
    ("select public.f(1)", PUBLIC),
    ("select 'public.todos'::regclass", PUBLIC),
    ("select public.todos.id from todos", PUBLIC),
    ("select 1::public.mood", PUBLIC),
    ("select a operator(public.+) b from t", PUBLIC),
    ("set search_path to public", PUBLIC),
    ("select set_config('search_path', 'public', false)", PUBLIC),
    ("grant select on all tables in schema public to proj_shop_anon", PUBLIC),
    ("alter table todos set schema public", PUBLIC),
    ("create schema if not exists public", PUBLIC),
    ("comment on schema public is 'x'", PUBLIC),
    ("create trigger t before update on todos for each row execute function public.f()", PUBLIC),
    ("create function f() returns void language plpgsql as $$ begin insert into public.t values (1); end $$", PUBLIC),
    ("create function f() returns int language sql set search_path = public as $$ select 1 $$", PUBLIC),
    ("grant select on todos to anon", ["shared-roles"]),
    ("create policy p on todos to authenticated using (true)", ["shared-roles"]),
    ("create policy p on todos using (auth.role() = 'authenticated')", ["shared-roles"]),
    ("create policy p on todos using ((select auth.jwt() ->> 'role') = 'service_role')", ["shared-roles"]),
    ("create policy p on todos using ('authenticated' = (select auth.role()))", ["shared-roles"]),
    ("alter table todos owner to postgres", ["shared-roles"]),
    ("alter default privileges in schema proj_shop grant all on tables to proj_shop_anon", ["defaults"]),
    ("grant usage on schema proj_shop to proj_shop_anon", ["defaults"]),
    ("do $$ begin if not exists (select from pg_type where typname = 'mood') then null; end if; end $$", ["catalogue"]),
    ("do $$ begin if exists (select from pg_policies where policyname = 'p') then null; end if; end $$", ["catalogue"]),
    ("create extension hstore", ["extensions"]),
    ("create extension pgcrypto", ["extensions"]),
    ("drop extension pgcrypto", ["extensions"]),
    ("comment on extension pgcrypto is 'x'", ["extensions"]),
    ("select cron.schedule('a', '* * * * *', 'select 1')", ["extensions"]),
    ("create role app", ["roles"]),
    ("alter role authenticator set pgrst.db_aggregates_enabled = 'true'", ["roles"]),
    ("grant anon to app", ["roles"]),
    ("set role postgres", ["roles"]),
    ("set session authorization postgres", ["roles"]),
    ("grant select on todos to proj_rival_anon", ["roles"]),
    ("create schema private", ["schemas"]),
    ("create function private.f() returns int language sql as $$ select 1 $$", ["schemas"]),
    ("drop schema private cascade", ["schemas"]),
    ("select * from proj_rival.todos", ["other-projects"]),
    ("create view v as select * from proj_rival.todos", ["other-projects"]),
    ("create table t (a int references proj_rival.todos)", ["other-projects"]),
    ("set search_path = proj_rival", ["other-projects"]),
    ("do $$ begin delete from proj_rival.todos; end $$", ["other-projects"]),
    ("create function f() returns bigint language sql as $$ select count(*) from proj_rival.t $$", ["other-projects"]),
    ("create trigger t after insert on auth.users for each row execute function f()", ["auth"]),
    ("drop trigger if exists t on auth.users", ["auth"]),
    ("create view v as select email from auth.users", ["auth"]),
    ("alter table auth.users add column x int", ["auth"]),
    ("create policy p on storage.objects using (true)", ["storage"]),
    ("insert into storage.buckets (id) values ('a')", ["storage"]),
    ("do $$ begin insert into storage.buckets (id) values ('a'); end $$", ["storage"]),
    ("do $$ begin execute 'create policy p on storage.objects using (id = ''a'')'; end $$", ["storage"]),
    ("alter publication supabase_realtime add table todos", ["realtime"]),
    ("drop publication supabase_realtime", ["realtime"]),
    ("create event trigger e on ddl_command_end execute function f()", ["server"]),
    ("create server s foreign data wrapper w", ["server"]),
    ("copy todos from program 'id'", ["server"]),
    ("alter system set work_mem = '1GB'", ["server"]),
    ("set session_replication_role = replica", ["server"]),
    ("grant connect on database postgres to proj_shop_anon", ["server"]),
]


@pytest.mark.parametrize(("text", "boundaries"), OUTSIDE)
def test_what_reaches_over_a_boundary_is_found(text: str, boundaries: list[str]) -> None:
    assert reached(text) == boundaries


def test_a_refusal_names_the_boundary_what_to_do_and_every_place() -> None:
    item = prepare("select 1;\n\ncreate table public.todos (id int);\ncreate extension hstore;", adapt=False)
    with pytest.raises(MigrationRefusedError) as caught:
        refuse([item])
    assert str(caught.value).splitlines() == [
        "nothing was run:",
        "  public: leave the schema out of the name, or run with --adapt",
        "    m.sql:3 public.todos",
        "  extensions: ask for it in `extensions` of the central stack; its objects are in the schema `extensions`",
        "    m.sql:4 create extension hstore",
    ]


def test_a_long_refusal_is_cut_and_counted() -> None:
    text = "".join(f"create table public.t{number} ();\n" for number in range(25))
    with pytest.raises(MigrationRefusedError, match=r"m\.sql:10 public\.t9\n    and 15 more$"):
        refuse([prepare(text, adapt=False)])


ADAPTED = [
    ("create table public.todos (v text default 'public')", "create table proj_shop.todos (v text default 'public')"),
    ('alter table "public"."a b" owner to "postgres"', 'alter table proj_shop."a b" owner to proj_shop_owner'),
    ("select 'public.t'::regclass, nextval('public.s')", "select 'proj_shop.t'::regclass, nextval('proj_shop.s')"),
    (
        "select public.uuid_generate_v4(), 'a'::public.citext",
        "select extensions.uuid_generate_v4(), 'a'::extensions.citext",
    ),
    (
        "grant all on table public.t to anon",
        "grant SELECT, INSERT, UPDATE, DELETE on table proj_shop.t to proj_shop_anon",
    ),
    ("grant all on table public.t to service_role", "grant all on table proj_shop.t to proj_shop_service_role"),
    (
        "grant all privileges on all tables in schema public to authenticated",
        "grant SELECT, INSERT, UPDATE, DELETE on all tables in schema proj_shop to proj_shop_authenticated",
    ),
    ("revoke all on function public.f() from public", "revoke all on function proj_shop.f() from public"),
    ("set search_path = public, extensions", "set search_path = proj_shop, extensions"),
    ("set search_path to 'public'", "set search_path to 'proj_shop'"),
    (
        "create policy p on t to authenticated, anon using (auth.role() in ('anon', 'authenticated'))",
        (
            "create policy p on t to proj_shop_authenticated, proj_shop_anon"
            " using (auth.role() in ('proj_shop_anon', 'proj_shop_authenticated'))"
        ),
    ),
    (
        (
            "create function public.f() returns void language plpgsql set \"search_path\" to 'public' as $f$\n"
            "begin -- public stays\n  execute format('alter table public.%I', x); perform 'https://public.example';\n"
            "  if exists (select from pg_tables where schemaname = 'public') then null; end if;\nend $f$"
        ),
        (
            "create function proj_shop.f() returns void language plpgsql set \"search_path\" to 'proj_shop' as $f$\n"
            "begin -- public stays\n  execute format('alter table proj_shop.%I', x); perform 'https://public.example';\n"
            "  if exists (select from pg_tables where schemaname = 'proj_shop') then null; end if;\nend $f$"
        ),
    ),
    (
        "do $$ begin if not exists (select from pg_type t where t.typname = 'mood') then null; end if; end $$",
        (
            "do $$ begin if not exists (select from pg_type t where"
            " (t.typnamespace = 'proj_shop'::regnamespace and t.typname = 'mood')) then null; end if; end $$"
        ),
    ),
]


@pytest.mark.parametrize(("before", "after"), ADAPTED)
def test_an_adaptation_changes_names_and_nothing_else(before: str, after: str) -> None:
    result = adapted(one(before), SCOPE)
    assert (result.statement.text, result.left_out, result.findings) == (after, None, [])


@pytest.mark.parametrize(("_before", "after"), ADAPTED)
def test_what_is_adapted_is_not_adapted_again(_before: str, after: str) -> None:
    assert adapted(one(after), SCOPE).statement.text == after


@pytest.mark.parametrize(
    "text",
    [
        "create schema if not exists public",
        "comment on schema public is 'standard public schema'",
        "alter schema public owner to postgres",
        'create extension if not exists "pgcrypto" with schema public',
        "comment on extension pgcrypto is 'x'",
        "grant usage on schema public to postgres, anon, authenticated, service_role",
        "alter default privileges for role postgres in schema public grant all on tables to anon",
    ],
)
def test_what_has_no_effect_here_is_left_out_with_its_reason(text: str) -> None:
    assert adapted(one(text), SCOPE).left_out


@pytest.mark.parametrize(
    ("text", "boundaries"),
    [item for item in OUTSIDE if item[1][0] not in {"public", "shared-roles", "defaults", "catalogue"}],
)
def test_what_cannot_be_adapted_is_still_refused(text: str, boundaries: list[str]) -> None:
    result = adapted(one(text), SCOPE)
    assert result.left_out is not None or [finding.boundary.value for finding in result.findings] == boundaries


def test_a_boundary_that_is_chosen_is_left_out_and_shown() -> None:
    item = prepare(
        "create table public.t (a int);\n-- sign-ups\ncreate trigger t after insert on auth.users execute function f();\n",
        leave_out=frozenset({Boundary.AUTH}),
    )
    assert [statement.text for statement in item.to_run] == ["create table proj_shop.t (a int)"]
    assert item.findings == []
    assert item.diff()[3:] == [
        "-create table public.t (a int);",
        "+create table proj_shop.t (a int);",
        "@@ -3 +3 @@",
        "-create trigger t after insert on auth.users execute function f();",
        "+-- left out: auth.users (--leave-out auth)",
    ]


WORDS = st.sampled_from(
    ["public", '"public"', "x", ".", ",", "(", ")", "'public'", "'public.x'", "select", "from", "schema", "in", "=", "::",
     "search_path", "set", "to", "anon", "$$ public.x $$", "-- c\n", "auth", "role", "'anon'", "where", "typname", "''"]
)  # fmt: skip


@given(st.lists(WORDS, max_size=14))
def test_no_text_that_parses_keeps_public_without_being_refused(words: list[str]) -> None:
    text = " ".join(["select", *words])
    try:
        (statement,) = statements_of(ScriptFile(Path("m.sql"), text))
    except (MigrationError, ValueError):
        return
    result = adapted(statement, SCOPE)
    if not result.findings and result.left_out is None:
        assert not [f for f in findings_in(result.statement, SCOPE) if f.boundary is Boundary.PUBLIC]
        assert statements_of(ScriptFile(Path("m.sql"), result.statement.text))
