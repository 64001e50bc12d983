"""What a migration may not name, and what an adaptation makes of it. Statements are as real projects write them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_plane.connector.migrations.admission import without_set_config
from data_plane.connector.migrations.files import ScriptFile
from data_plane.connector.migrations.prepared import PreparedFile, prepared, refuse
from data_plane.connector.migrations.rewrite import rewritten
from data_plane.connector.migrations.rules import findings_in
from data_plane.connector.migrations.scope import Rule, Scope
from data_plane.connector.migrations.script import Statement, parsed, statements_of
from data_plane.errors import MigrationError, MigrationRefusedError
from data_plane.model.naming import TenantNames

SCOPE = Scope(
    TenantNames("shop"),
    extensions={"pgcrypto": "extensions"},
    extension_objects={"uuid_generate_v4": "extensions", "gin_trgm_ops": "extensions", "citext": "extensions"},
    schemas=frozenset({"proj_shop", "proj_shop$auth", "proj_rival", "public"}),
)


def one(text: str) -> Statement:
    (statement,) = statements_of(ScriptFile(Path("m.sql"), text))
    return statement


def reached(text: str) -> list[str]:
    return sorted({finding.rule.value for finding in findings_in(one(text), SCOPE)})


def prepare(text: str, *, rewrite: bool = True, leave_out: frozenset[Rule] = frozenset()) -> PreparedFile:
    return prepared(ScriptFile(Path("m.sql"), text), SCOPE, rewrite=rewrite, leave_out=leave_out)


INSIDE = [
    "create table todos (id uuid primary key default gen_random_uuid(), owner uuid default auth.uid())",
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
    assert rewritten(one(text), SCOPE).statement.text == text or rewritten(one(text), SCOPE).left_out is not None


def test_a_policy_for_signed_in_users_means_the_projects_own() -> None:
    assert reached("create policy p on todos to authenticated, anon using (true)") == []
    assert reached("alter policy p on todos to authenticated") == []


PUBLIC = ["public"]
ADAPTABLE = {
    "comment on extension pgcrypto is 'x'",
    "create extension pgcrypto",
    "drop extension pgcrypto",
    "create schema private",
    "create trigger t after insert on auth.users for each row execute function f()",
    "drop trigger if exists t on auth.users",
    "create view v as select email from auth.users",
    "create function f(u auth.users) returns int language sql as $$ select 1 $$",
    "create table t (u auth.users)",
    "create table t (like auth.users)",
    "create policy p on storage.objects using (true)",
    "insert into storage.buckets (id) values ('a')",
    "do $$ begin insert into storage.buckets (id) values ('a'); end $$",
    "do $$ begin execute 'create policy p on storage.objects using (id = ''a'')'; end $$",
    "alter publication supabase_realtime add table todos",
    "drop publication supabase_realtime",
}
"""Statements over a boundary that have a counterpart in the project's slice, or no effect there."""
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
    ("create policy p on todos to service_role using (true)", ["shared-roles"]),
    ("alter policy p on todos to postgres", ["shared-roles"]),
    ("create policy p on todos using (auth.role() = 'authenticated')", ["shared-roles"]),
    ("create policy p on todos using ((select auth.jwt() ->> 'role') = 'service_role')", ["shared-roles"]),
    ("create policy p on todos using ('authenticated' = (select auth.role()))", ["shared-roles"]),
    ("alter table todos owner to postgres", ["shared-roles"]),
    ("alter default privileges in schema proj_shop grant all on tables to proj_shop_anon", ["defaults"]),
    ("grant usage on schema proj_shop to proj_shop_anon", ["defaults"]),
    ("do $$ begin if not exists (select from pg_type where typname = 'mood') then null; end if; end $$", ["catalog"]),
    ("do $$ begin if exists (select from pg_policies where policyname = 'p') then null; end if; end $$", ["catalog"]),
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
    ("create function f(u auth.users) returns int language sql as $$ select 1 $$", ["auth"]),
    ("create table t (u auth.users)", ["auth"]),
    ("create table t (like auth.users)", ["auth"]),
    ("create table t (a uuid references auth.sessions)", ["auth"]),
    ("create policy p on storage.objects using (true)", ["storage"]),
    ("insert into storage.buckets (id) values ('a')", ["storage"]),
    ("do $$ begin insert into storage.buckets (id) values ('a'); end $$", ["storage"]),
    ("do $$ begin execute 'create policy p on storage.objects using (id = ''a'')'; end $$", ["storage"]),
    ("create temp table t (a int)", ["temporary"]),
    ("create temporary table t as select 1 as a", ["temporary"]),
    ("select 1 as a into temp t", ["temporary"]),
    ("create temp view v as select 1 as a", ["temporary"]),
    ("create temp sequence s", ["temporary"]),
    ("create function pg_temp.f() returns int language sql as 'select 1'", ["temporary"]),
    ("create table pg_temp.t (a int)", ["temporary"]),
    ("do $$ begin create temp table t (a int); end $$", ["temporary"]),
    (
        "create function f() returns void language plpgsql as $$ begin create temporary table t (a int); end $$",
        ["temporary"],
    ),
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
    item = prepare("select 1;\n\ncreate table public.todos (id int);\ncreate extension hstore;", rewrite=False)
    with pytest.raises(MigrationRefusedError) as caught:
        refuse([item])
    assert str(caught.value).splitlines() == [
        "nothing was run:",
        "  public: leave the schema out of the name, or run without --as-is",
        "    m.sql:3 public.todos",
        "  extensions: ask for it in `extensions` of the central stack; its objects are in the schema `extensions`",
        (
            "    m.sql:4 create extension hstore: this PostgreSQL lacks extension hstore; a deployed data plane has it, in "
            "Supabase's image. For the local server docs/how-to/use-schemas-and-extensions.md says how to get it"
        ),
    ]


def test_a_long_refusal_is_cut_and_counted() -> None:
    text = "".join(f"create table public.t{number} ();\n" for number in range(25))
    with pytest.raises(MigrationRefusedError, match=r"m\.sql:10 public\.t9\n    and 15 more$"):
        refuse([prepare(text, rewrite=False)])


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
    result = rewritten(one(before), SCOPE)
    assert (result.statement.text, result.left_out, result.findings) == (after, None, [])


@pytest.mark.parametrize(("_before", "after"), ADAPTED)
def test_what_is_adapted_is_not_adapted_again(_before: str, after: str) -> None:
    again = rewritten(one(after), SCOPE)
    assert (again.statement.text, again.left_out, again.findings) == (after, None, [])


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
    assert rewritten(one(text), SCOPE).left_out


@pytest.mark.parametrize(
    ("text", "boundaries"),
    [item for item in OUTSIDE if item[1][0] not in {"public", "shared-roles", "defaults", "catalog"}],
)
def test_what_is_neither_adapted_nor_left_out_is_still_refused(text: str, boundaries: list[str]) -> None:
    result = rewritten(one(text), SCOPE)
    if text in ADAPTABLE:
        assert result.findings == []
        assert result.kinds
    else:
        assert result.left_out is None
        assert {finding.rule.value for finding in result.findings} == set(boundaries)


def test_a_boundary_that_is_chosen_is_left_out_and_shown() -> None:
    item = prepare(
        "create table public.t (a int);\n-- sessions\ncreate trigger t after insert on auth.sessions execute function f();\n",
        leave_out=frozenset({Rule.AUTH}),
    )
    assert [statement.text for statement in item.to_run] == ["create table proj_shop.t (a int)"]
    assert item.findings == []
    assert item.diff()[3:] == [
        "-create table public.t (a int);",
        "+create table proj_shop.t (a int);",
        "@@ -3 +3 @@",
        "-create trigger t after insert on auth.sessions execute function f();",
        "+-- left out: auth.sessions (--leave-out auth)",
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
    result = rewritten(statement, SCOPE)
    if not result.findings and result.left_out is None:
        assert not [f for f in findings_in(result.statement, SCOPE) if f.rule is Rule.PUBLIC]
        assert statements_of(ScriptFile(Path("m.sql"), result.statement.text))


@pytest.mark.parametrize(
    ("statement", "command"),
    [
        ("select pg_catalog.set_config('search_path', '', false)", "set search_path = ''"),
        ("select set_config('search_path', 'a, \"B\"', true)", 'set local search_path = a, "B"'),
        ("select set_config('app.user', 'it''s', true)", "set local app.\"user\" = 'it''s'"),
        ("select set_config('app.user', x, true) from t", None),
        ("select set_config('a.b', 'c', true), 1", None),
        ("select 1", None),
    ],
)
def test_a_call_of_set_config_with_constants_is_a_set(statement: str, command: str | None) -> None:
    assert without_set_config(parsed(statement)) == command
    if command is not None:
        assert parsed(command) is not None
