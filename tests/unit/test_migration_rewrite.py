"""What an adaptation makes of users, schemas, buckets, rules, publications and jobs, and what it refuses to guess."""

from dataclasses import replace
from pathlib import Path

import pytest

from data_plane.connector.migrations.edits import Kind
from data_plane.connector.migrations.extension_rule import used_extensions
from data_plane.connector.migrations.files import ScriptFile
from data_plane.connector.migrations.own_schemas import made_schemas
from data_plane.connector.migrations.plain_functions import plain_functions
from data_plane.connector.migrations.prepared import prepared
from data_plane.connector.migrations.rewrite import RewrittenStatement, rewritten
from data_plane.connector.migrations.scope import Scope
from data_plane.connector.migrations.script import statements_of
from data_plane.connector.migrations.summary import summed_up
from data_plane.model.naming import TenantNames

SCOPE = Scope(
    TenantNames("shop"),
    extensions={"pgcrypto": "extensions", "pg_cron": "pg_catalog"},
    schemas=frozenset({"proj_shop", "proj_shop$auth", "public"}),
    further=frozenset({"private", "app"}),
    used_extensions=frozenset(),
)
NO_CRON = replace(SCOPE, extensions={"pgcrypto": "extensions"})


def adapt(text: str, scope: Scope = SCOPE) -> RewrittenStatement:
    (statement,) = statements_of(ScriptFile(Path("m.sql"), text))
    return rewritten(statement, scope)


def refused(text: str, scope: Scope = SCOPE) -> list[str]:
    result = adapt(text, scope)
    assert result.left_out is None
    return [f"{finding.rule.value}: {finding.what}" for finding in result.findings]


def becomes(before: str, after: str, scope: Scope = SCOPE) -> None:
    result = adapt(before, scope)
    assert (result.statement.text, result.left_out, result.findings) == (after, None, [])
    # It stands as it is when it is adapted again, as a part of another run.
    assert adapt(after, scope).statement.text == after


# Users

USERS = [
    (
        "create table public.card (owner uuid references auth.users (id) on delete cascade)",
        'create table proj_shop.card (owner uuid references "proj_shop$auth".users (id) on delete cascade)',
    ),
    (
        'alter table card add constraint k foreign key (owner) references "auth"."users" (id) not valid',
        'alter table card add constraint k foreign key (owner) references "proj_shop$auth"."users" (id) not valid',
    ),
    (
        "create trigger greet after insert on auth.users for each row execute function public.greet()",
        'create trigger greet after insert on "proj_shop$auth".users for each row execute function proj_shop.greet()',
    ),
    ("drop trigger if exists greet on auth.users", 'drop trigger if exists greet on "proj_shop$auth".users'),
    (
        "create policy p on card using (exists (select from auth.users u where u.id = auth.uid() and u.email like 'a%'))",
        (
            'create policy p on card using (exists (select from "proj_shop$auth".users u where u.id = auth.uid()'
            " and u.email like 'a%'))"
        ),
    ),
    (
        "create function mail(who uuid) returns text language sql as $$ select email from auth.users where id = who $$",
        (
            "create function mail(who uuid) returns text language sql as"
            ' $$ select email from "proj_shop$auth".users where id = who $$'
        ),
    ),
    (
        "create function f(u auth.users) returns auth.users language plpgsql as $$ declare r auth.users%rowtype; begin return u; end $$",
        (
            'create function f(u "proj_shop$auth".users) returns "proj_shop$auth".users language plpgsql as'
            ' $$ declare r "proj_shop$auth".users%rowtype; begin return u; end $$'
        ),
    ),
    (
        "do $$ begin execute 'create trigger t after insert on auth.users for each row execute function public.f()'; end $$",
        (
            'do $$ begin execute \'create trigger t after insert on "proj_shop$auth".users for each row'
            " execute function proj_shop.f()'; end $$"
        ),
    ),
    ("select 'auth.users'::regclass", "select '\"proj_shop$auth\".users'::regclass"),
    ("comment on table auth.users is 'ours'", "comment on table \"proj_shop$auth\".users is 'ours'"),
    (
        "alter table auth.users enable row level security",
        'alter table "proj_shop$auth".users enable row level security',
    ),
    ("grant select on auth.users to service_role", 'grant select on "proj_shop$auth".users to proj_shop_service_role'),
    (
        "create function f() returns int language sql set search_path = public, auth as $$ select 1 $$",
        (
            'create function f() returns int language sql set search_path = proj_shop, "proj_shop$auth", auth as'
            " $$ select 1 $$"
        ),
    ),
    (
        "select auth.uid(), auth.jwt(), auth.role(), auth.email()",
        "select auth.uid(), auth.jwt(), auth.role(), auth.email()",
    ),
]


@pytest.mark.parametrize(("before", "after"), USERS)
def test_users_of_auth_become_the_projects_own(before: str, after: str) -> None:
    becomes(before, after)


def test_a_guard_on_the_table_of_users_asks_for_the_projects() -> None:
    guard = "do $$ begin if exists (select from information_schema.tables where table_schema = '{}' and table_name = 'users') then null; end if; end $$"
    becomes(guard.format("auth"), guard.format("proj_shop$auth"))


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("insert into auth.users (id) values (gen_random_uuid())", "insert into auth.users"),
        ("update auth.users set email = 'x'", "update auth.users"),
        ("delete from only auth.users", "delete from auth.users"),
        ("truncate table auth.users", "truncate auth.users"),
        ("drop table if exists auth.users", "drop table auth.users"),
        ("create table if not exists auth.users (id uuid)", "create table auth.users"),
        (
            "create function f() returns void language plpgsql as $$ begin execute 'delete from auth.users'; end $$",
            "delete from auth.users",
        ),
        ("select cron.schedule('a', '@daily', 'delete from auth.users')", "delete from auth.users"),
        ("alter table auth.users add column nick text", "alter table auth.users"),
        ("do $$ begin delete from auth.users; end $$", "delete from auth.users"),
        (
            "create function f() returns void language plpgsql as $$ begin update auth.users set banned_until = now(); end $$",
            "update auth.users",
        ),
        ("create function f() returns void language sql as $$ delete from auth.users $$", "delete from auth.users"),
        ("create view v as select encrypted_password from auth.users", "auth.users.encrypted_password"),
        ("create view v as select u.deleted_at from card c join auth.users as u on true", "auth.users.deleted_at"),
        ("create view v as select users.banned_until from auth.users", "auth.users.banned_until"),
    ],
)
def test_what_is_auths_alone_is_refused(text: str, what: str) -> None:
    assert f"auth: {what}" in refused(text)


def test_a_column_of_another_table_is_not_taken_for_one_of_the_users() -> None:
    text = "create view v as select c.deleted_at, u.email from card c join auth.users u on u.id = c.owner"
    assert refused(text) == []


def test_other_tables_of_auth_are_refused() -> None:
    assert refused("create view v as select * from auth.sessions") == ["auth: auth.sessions"]
    assert refused("create table t (a uuid references auth.identities)") == ["auth: auth.identities"]


def test_a_project_without_users_is_told_so() -> None:
    without = replace(SCOPE, schemas=frozenset({"proj_shop"}))
    assert refused("create table card (owner uuid references auth.users)", without) == ["auth: auth.users"]


# Schemas

SCHEMAS = [
    ("create schema if not exists private", "select data_plane_api.create_schema('private')"),
    ('create schema "private" authorization postgres', "select data_plane_api.create_schema('private')"),
    ("drop schema private cascade", "select data_plane_api.drop_schema('private', cascade => true)"),
    ("create table private.t (a int)", 'create table "proj_shop$private".t (a int)'),
    (
        "select private.f(1), a.private from private.t a",
        'select "proj_shop$private".f(1), a.private from "proj_shop$private".t a',
    ),
    ("select private.t.a from private.t", 'select "proj_shop$private".t.a from "proj_shop$private".t'),
    ("comment on schema private is 'x'", "comment on schema \"proj_shop$private\" is 'x'"),
    (
        "grant usage on schema private to authenticated",
        'grant usage on schema "proj_shop$private" to proj_shop_authenticated',
    ),
    (
        "alter default privileges for role postgres in schema private grant all on tables to authenticated",
        (
            'alter default privileges for role proj_shop_owner in schema "proj_shop$private"'
            " grant SELECT, INSERT, UPDATE, DELETE on tables to proj_shop_authenticated"
        ),
    ),
    ("set search_path to private, public", 'set search_path to "proj_shop$private", proj_shop'),
    ("select 'private.t'::regclass", "select '\"proj_shop$private\".t'::regclass"),
    (
        "select 1 from pg_tables where schemaname = any (array['private', 'public'])",
        "select 1 from pg_tables where schemaname = any (array['proj_shop$private', 'proj_shop'])",
    ),
    ("alter table public.t set schema private", 'alter table proj_shop.t set schema "proj_shop$private"'),
    (
        "create policy p on t using (private.may(auth.uid()))",
        'create policy p on t using ("proj_shop$private".may(auth.uid()))',
    ),
    (
        (
            "create function private.f() returns void language plpgsql set search_path = 'private' as"
            " $$ begin insert into private.t values (1); execute format('alter table private.%I owner to postgres', x); end $$"
        ),
        (
            "create function \"proj_shop$private\".f() returns void language plpgsql set search_path = 'proj_shop$private' as"
            ' $$ begin insert into "proj_shop$private".t values (1);'
            " execute format('alter table \"proj_shop$private\".%I owner to proj_shop_owner', x); end $$"
        ),
    ),
    (
        "do 'begin create schema if not exists private; end'",
        "do 'begin perform data_plane_api.create_schema(''private''); end'",
    ),
]


@pytest.mark.parametrize(("before", "after"), SCHEMAS)
def test_further_schemas_become_the_projects_own(before: str, after: str) -> None:
    becomes(before, after)


ALIASES = [
    # A table's alias, and a schema, have one name here.
    (
        "select app.id, app.f(app.id) from app.t app",
        'select app.id, "proj_shop$app".f(app.id) from "proj_shop$app".t app',
    ),
    (
        (
            "create function f() returns void language plpgsql as $$ begin"
            " perform app.id from public.apps app where app.f(app.id) and exists (select from app.t); end $$"
        ),
        (
            "create function f() returns void language plpgsql as $$ begin"
            ' perform app.id from proj_shop.apps app where "proj_shop$app".f(app.id) and exists (select from "proj_shop$app".t); end $$'
        ),
    ),
    (
        "create function f(app record) returns int language plpgsql as $$ begin return app.id + app.f(); end $$",
        'create function f(app record) returns int language plpgsql as $$ begin return app.id + "proj_shop$app".f(); end $$',
    ),
    # Settings have dots, too.
    (
        "create function f() returns text language sql as $$ select current_setting('app.user') $$",
        "create function f() returns text language sql as $$ select current_setting('app.user') $$",
    ),
    ("select set_config('app.user', 'private.t', true), 1", "select set_config('app.user', 'private.t', true), 1"),
    ("insert into t values ('private.x', 'see app.y')", "insert into t values ('private.x', 'see app.y')"),
]


@pytest.mark.parametrize(("before", "after"), ALIASES)
def test_an_alias_is_told_from_a_schema(before: str, after: str) -> None:
    becomes(before, after)


def test_what_may_be_an_alias_or_a_schema_is_refused() -> None:
    # `app.t` is a column in one statement and a table in another.
    text = (
        "create function f() returns void language plpgsql as $$ begin"
        " perform app.t from public.apps app; perform 1 from app.t; end $$"
    )
    assert refused(text) == ["schemas: app.… in a function's text: the schema or an alias? rename the alias"]


@pytest.mark.parametrize(
    "text",
    [
        'create schema "Private"',
        "create schema " + "x" * 60,
        "create schema proj_rival",
        "create schema migrations",
        "create schema pg_x",
    ],
)
def test_a_name_that_no_schema_of_a_project_can_have_is_refused(text: str) -> None:
    assert [line.split(":")[0] for line in refused(text)] == ["schemas"]


@pytest.mark.parametrize(
    "text", ["alter schema private rename to x", "drop schema public cascade", "drop schema other"]
)
def test_what_cannot_be_done_to_a_schema_is_refused(text: str) -> None:
    assert refused(text)


@pytest.mark.parametrize(
    "text",
    [
        "create schema if not exists extensions",
        "create schema auth",
        "grant usage on schema auth, extensions to anon",
        "grant all on all tables in schema cron to postgres",
        "revoke all on storage.objects from anon",
        "revoke all on database postgres from public",
        "alter schema private owner to postgres",
        "drop schema if exists left_over",
    ],
)
def test_what_the_platform_has_or_declares_is_left_out(text: str) -> None:
    assert adapt(text).left_out


def test_schemas_are_found_wherever_they_are_made() -> None:
    text = """
        create schema a; create schema if not exists "b";
        do $$ begin execute 'create schema if not exists c'; create schema d; end $$;
        select 'create schema e';
    """
    assert list(made_schemas(statements_of(ScriptFile(Path("m.sql"), text)))) == ["a", "b", "d", "c"]
    assert SCOPE.with_schemas(["a", "auth", "storage", "A", "pg_x"]).further == {"private", "app", "a"}


# Storage

BUCKETS = [
    (
        "insert into storage.buckets (id, name, public) values ('receipts', 'receipts', true)",
        "select data_plane_api.declare_bucket('receipts', public => TRUE)",
    ),
    (
        (
            "insert into storage.buckets (name, id, allowed_mime_types, file_size_limit, owner) values"
            " ('a', 'a', '{image/png}', 1024 * 1024, null), ('b', 'b', default, default, null)"
        ),
        (
            "select data_plane_api.declare_bucket('a', file_size_limit => 1024 * 1024, allowed_mime_types => '{image/png}'),"
            " data_plane_api.declare_bucket('b')"
        ),
    ),
    (
        "insert into storage.buckets (id, name) values ('a', 'a') on conflict (id) do nothing",
        (
            "select case when not exists (select from data_plane_api.list_buckets() as b where b.id = 'proj_shop.a')"
            " then data_plane_api.declare_bucket('a') end"
        ),
    ),
    (
        (
            "insert into storage.buckets (id, name, public) select 'a', 'a', true"
            " where not exists (select 1 from storage.buckets where id = 'a')"
        ),
        (
            "select case when not exists (select from data_plane_api.list_buckets() as b where b.id = 'proj_shop.a')"
            " then data_plane_api.declare_bucket('a', public => TRUE) end"
        ),
    ),
    (
        (
            "insert into storage.buckets (id, name, public) values ('a', 'a', true)"
            " on conflict (id) do update set public = excluded.public"
        ),
        (
            "select data_plane_api.declare_bucket('a', public => TRUE, file_size_limit => case when exists"
            " (select from data_plane_api.list_buckets() as b where b.id = 'proj_shop.a') then"
            " (select b.file_size_limit from data_plane_api.list_buckets() as b where b.id = 'proj_shop.a') else NULL end,"
            " allowed_mime_types => case when exists"
            " (select from data_plane_api.list_buckets() as b where b.id = 'proj_shop.a') then"
            " (select b.allowed_mime_types from data_plane_api.list_buckets() as b where b.id = 'proj_shop.a') else NULL end)"
        ),
    ),
    (
        "update storage.buckets set public = false where id = 'a'",
        (
            "select case when exists (select from data_plane_api.list_buckets() as b where b.id = 'proj_shop.a') then"
            " data_plane_api.declare_bucket('a', public => FALSE,"
            " file_size_limit => (select b.file_size_limit from data_plane_api.list_buckets() as b where b.id = 'proj_shop.a'),"
            " allowed_mime_types => (select b.allowed_mime_types from data_plane_api.list_buckets() as b where b.id = 'proj_shop.a'))"
            " end"
        ),
    ),
    (
        "do $$ begin insert into storage.buckets (id, name) values ('a', 'a'); end $$",
        "do $$ begin perform data_plane_api.declare_bucket('a'); end $$",
    ),
]


@pytest.mark.parametrize(("before", "after"), BUCKETS)
def test_buckets_are_declared(before: str, after: str) -> None:
    becomes(before, after)


@pytest.mark.parametrize(
    "text",
    [
        "insert into storage.buckets values ('a', 'a')",
        "insert into storage.buckets (id, name) values ('a', 'b')",
        "insert into storage.buckets (id, name) select id, id from public.wanted",
        "insert into storage.buckets (id, name) values ('a', 'a') returning id",
        "insert into storage.buckets (id, name, surprise) values ('a', 'a', 1)",
        "insert into storage.buckets (id, name) values ('a', 'a') on conflict (id) do update set public = true",
        "update storage.buckets set public = true",
        "update storage.buckets set id = 'b' where id = 'a'",
        "delete from storage.buckets where id = 'a'",
        "select * from storage.buckets",
        "insert into storage.objects (bucket_id, name) values ('a', 'x')",
        "create trigger t after insert on storage.objects for each row execute function f()",
        "alter table storage.objects add column a int",
    ],
)
def test_what_cannot_be_told_of_buckets_is_refused(text: str) -> None:
    assert {line.split(":")[0] for line in refused(text)} == {"storage"}


RULES = [
    (
        (
            'create policy "owner adds" on storage.objects for insert to authenticated with check'
            " (bucket_id = 'receipts' and (storage.foldername(name))[1] = auth.uid()::text)"
        ),
        (
            "select data_plane_api.declare_storage_rule('owner adds', 'insert', array['proj_shop_authenticated'], null,"
            " 'bucket_id = ''proj_shop.receipts'' and (storage.foldername(name))[1] = auth.uid()::text')"
        ),
    ),
    (
        "create policy p on storage.objects using (bucket_id in ('a', 'b') or 'c' = bucket_id or bucket_id = any (array['d']))",
        (
            "select data_plane_api.declare_storage_rule('p', 'all', array['public'],"
            " 'bucket_id in (''proj_shop.a'', ''proj_shop.b'') or ''proj_shop.c'' = bucket_id"
            " or bucket_id = any (array[''proj_shop.d''])', null)"
        ),
    ),
    (
        (
            'create policy "it\'s" on storage.objects as restrictive for update to anon, service_role'
            " using (auth.role() -- signed in\n = 'authenticated') with check (name <> 'authenticated')"
        ),
        (
            "select data_plane_api.declare_storage_rule('it''s', 'update', array['proj_shop_anon', 'proj_shop_service_role'],"
            " 'auth.role()  \n = ''proj_shop_authenticated''', 'name <> ''authenticated''', false)"
        ),
    ),
    (
        "create policy p on storage.objects using (name ~ '\\w')",
        "select data_plane_api.declare_storage_rule('p', 'all', array['public'], E'name ~ ''\\\\w''', null)",
    ),
    ("drop policy if exists p on storage.objects", "select data_plane_api.drop_storage_rule('p')"),
    (
        (
            "do $$ begin if not exists (select from pg_policies where tablename = 'objects' and schemaname = 'storage' and policyname = 'p')"
            " then create policy p on storage.objects using (bucket_id = 'a'); end if; end $$"
        ),
        (
            "do $$ begin if not exists (select from pg_policies where tablename = 'objects' and schemaname = 'storage' and policyname = 'p')"
            " then perform data_plane_api.declare_storage_rule('p', 'all', array['public'], 'bucket_id = ''proj_shop.a''', null);"
            " end if; end $$"
        ),
    ),
]


@pytest.mark.parametrize(("before", "after"), RULES)
def test_policies_on_objects_are_declared_as_rules(before: str, after: str) -> None:
    becomes(before, after)


@pytest.mark.parametrize(
    ("condition", "reason"),
    [
        ("exists (select from public.members where id = auth.uid())", "it asks table members"),
        ("owner in (select id from auth.users)", "it asks table users"),
        ("public.may_read(name)", "it calls proj_shop.may_read"),
        ("private.may_read(name)", "it calls proj_shop$private.may_read"),
        ("storage.get_size_by_bucket() is null", "it calls storage.get_size_by_bucket"),
        ("bucket_id = name", "it compares bucket_id with what is no string"),
        ("bucket_id like 'a%'", "it compares bucket_id with what is no string"),
        ("(bucket_id, name) = ('a', 'b')", "it compares bucket_id with what is no string"),
    ],
)
def test_a_rule_that_storage_cannot_evaluate_is_refused_with_its_reason(condition: str, reason: str) -> None:
    (found,) = refused(f"create policy p on storage.objects using ({condition})")
    assert found.startswith(f"storage: policy p on storage.objects: {reason}")


def test_a_policy_on_buckets_is_left_out_unless_it_restricts() -> None:
    assert adapt("create policy p on storage.buckets for select using (true)").kinds == (Kind.BUCKET_RIGHTS,)
    assert refused("create policy p on storage.buckets as restrictive for select using (true)")


def test_bucket_names_outside_of_a_comparison_stay_data() -> None:
    text = "create policy p on storage.objects using (bucket_id = 'a' and name = 'a')"
    assert adapt(text).statement.text.endswith("'bucket_id = ''proj_shop.a'' and name = ''a''', null)")


# Realtime

PUBLICATIONS = [
    "alter publication supabase_realtime add table public.bid, public.lot",
    "alter publication supabase_realtime set table bid",
    "create publication supabase_realtime for all tables",
    "drop publication if exists supabase_realtime",
]


@pytest.mark.parametrize("text", PUBLICATIONS)
def test_realtimes_publication_is_adapted_to_nothing(text: str) -> None:
    result = adapt(text)
    assert result.left_out
    assert result.kinds == (Kind.PUBLICATIONS,)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            "do $$ begin if true then execute 'alter publication supabase_realtime add table public.bid'; end if; end $$",
            "do $$ begin if true then null; end if; end $$",
        ),
        (
            "do $$ begin\n  alter publication supabase_realtime add table public.bid;\nexception when others then null; end $$",
            "do $$ begin\n  null;\nexception when others then null; end $$",
        ),
        (
            "do $$ begin execute format('alter publication supabase_realtime add table %I.%I', 'public', t); end $$",
            "do $$ begin null; end $$",
        ),
        (
            "do $$ begin execute 'alter publication supabase_realtime add table ' || quote_ident(t); end $$",
            "do $$ begin null; end $$",
        ),
        ("alter table public.bid replica identity full", "alter table proj_shop.bid replica identity full"),
    ],
)
def test_realtimes_publication_is_found_in_blocks_and_in_what_they_execute(before: str, after: str) -> None:
    becomes(before, after)


@pytest.mark.parametrize(
    "text",
    [
        "alter publication audit add table bid",
        "create publication supabase_realtime2 for all tables",
        "do $$ begin execute 'alter publication audit add table bid'; end $$",
        # What else it runs would be lost.
        "do $$ begin execute 'alter publication supabase_realtime add table ' || t || '; drop table x'; end $$",
        "do $$ begin execute format('alter publication %I add table bid', p); end $$",
        "create function f() returns void language plpgsql as $$ begin execute 'drop publication audit'; end $$",
    ],
)
def test_any_other_publication_is_refused_before_it_runs(text: str) -> None:
    assert {line.split(":")[0] for line in refused(text)} == {"realtime"}


def test_policies_on_messages_are_declared_as_rules_for_topics() -> None:
    becomes(
        """create policy "members listen" on realtime.messages for select to authenticated using (extension = 'broadcast'
  and exists (select from public.member m where m.topic = (select realtime.topic())))""",
        """select data_plane_api.declare_topic_rule('members listen', 'select', array['proj_shop_authenticated'], """
        """'extension = ''broadcast''\n  and exists (select from proj_shop.member m where m.topic = (select realtime.topic()))', null)""",
    )
    becomes("drop policy if exists p on realtime.messages", "select data_plane_api.drop_topic_rule('p')")
    assert adapt("alter table realtime.messages enable row level security").left_out
    assert refused("create policy p on realtime.messages for update using (true)") == ["realtime: realtime.messages"]


# Jobs

JOBS = [
    (
        "select cron.schedule('tidy', '0 3 * * *', 'delete from public.draft where note <> ''public.x''')",
        "select data_plane_api.schedule_job('tidy', '0 3 * * *', 'delete from proj_shop.draft where note <> ''public.x''')",
    ),
    (
        "select cron.schedule('tidy', '0 3 * * *', $$ select private.tidy() $$)",
        "select data_plane_api.schedule_job('tidy', '0 3 * * *', $$ select \"proj_shop$private\".tidy() $$)",
    ),
    (
        "select cron.unschedule('tidy') where exists (select 1 from cron.job where jobname = 'tidy')",
        (
            "select data_plane_api.unschedule_job('tidy') where exists"
            " (select 1 from data_plane_api.list_jobs() as job where jobname = 'tidy')"
        ),
    ),
    (
        (
            "create function again() returns void language plpgsql as"
            " $$ begin perform cron.schedule('tidy', '@daily', 'select public.f()'); end $$"
        ),
        (
            "create function again() returns void language plpgsql as"
            " $$ begin perform data_plane_api.schedule_job('tidy', '@daily', 'select proj_shop.f()'); end $$"
        ),
    ),
]


@pytest.mark.parametrize(("before", "after"), JOBS)
def test_jobs_are_scheduled_by_the_platform(before: str, after: str) -> None:
    becomes(before, after)


def test_the_text_of_a_job_is_adapted_however_it_is_put_together() -> None:
    becomes(
        "select cron.schedule('a', '@daily', format('select public.f(%L)', 'public.x'))",
        "select data_plane_api.schedule_job('a', '@daily', format('select proj_shop.f(%L)', 'public.x'))",
    )
    becomes(
        "select cron.schedule('a', '@daily', 'select public.f(' || n || ') from private.t')",
        "select data_plane_api.schedule_job('a', '@daily', 'select proj_shop.f(' || n || ') from \"proj_shop$private\".t')",
    )


def test_a_job_without_a_name_gets_one_from_its_text() -> None:
    first, again, other = (
        adapt(f"select cron.schedule('* * * * *', '{text}')").statement.text
        for text in ("select 1", "select 1", "select 2")
    )
    assert first.startswith("select data_plane_api.schedule_job('job_")
    assert first.endswith("', '* * * * *', 'select 1')")
    assert first == again
    assert first.split(",")[0] != other.split(",")[0]


GUARDED = (
    "do $$ begin if exists (select from pg_extension where extname = 'pg_cron') then"
    " perform cron.schedule('tidy', '0 3 * * *', 'delete from public.draft'); end if; end $$"
)


def test_a_guarded_job_runs_as_the_nothing_that_it_is_without_pg_cron() -> None:
    assert refused(GUARDED, NO_CRON) == []
    assert (
        "data_plane_api.schedule_job('tidy', '0 3 * * *', 'delete from proj_shop.draft')"
        in adapt(GUARDED).statement.text
    )


@pytest.mark.parametrize(
    "text",
    [
        "select cron.schedule('tidy', '0 3 * * *', 'select 1')",
        "select cron.unschedule('tidy') where exists (select from cron.job)",
        "do $$ begin perform cron.schedule('tidy', '0 3 * * *', 'select 1'); end $$",
    ],
)
def test_an_unguarded_job_is_refused_without_pg_cron(text: str) -> None:
    assert {line.split(":")[0] for line in refused(text, NO_CRON)} == {"extensions"}


@pytest.mark.parametrize(
    "text",
    ["update cron.job set active = false", "select cron.alter_job(1)", "insert into cron.job (command) values ('x')"],
)
def test_what_else_is_of_pg_cron_is_refused(text: str) -> None:
    assert {line.split(":")[0] for line in refused(text)} == {"extensions"}


# Extensions and roles


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("create extension pgcrypto", "the database has extension pgcrypto"),
        ("create extension if not exists pg_graphql", "the platform's"),
        ("create extension if not exists pg_net", "no file uses extension pg_net"),
        ("drop extension if exists pg_net", "stay"),
    ],
)
def test_extensions_that_need_not_be_made_are_left_out(text: str, says: str) -> None:
    assert says in (adapt(text).left_out or "")


def test_an_extension_that_something_uses_is_refused() -> None:
    assert set(used_extensions(["-- net.http_post(x)\nselect 1", 'select "net".http_get(y)', "select http ('z')"])) == {
        "pg_net",
        "http",
    }
    using = replace(SCOPE, used_extensions=frozenset({"pg_net"}))
    assert refused("create extension pg_net", using) == [
        "extensions: create extension pg_net: no project gets extension pg_net: it sends requests from the server"
    ]
    assert "this PostgreSQL lacks extension postgis; a deployed" in refused("create extension if not exists postgis")[0]
    assert refused("drop extension pgcrypto cascade") == ["extensions: drop extension pgcrypto"]


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("grant execute on function f(jsonb) to supabase_auth_admin", "What a token claims of a person comes from"),
        (
            "alter role authenticator set pgrst.db_aggregates_enabled = 'true'",
            "it is the login of everybody's PostgREST",
        ),
    ],
)
def test_a_role_of_the_platforms_is_refused_with_what_to_do(text: str, hint: str) -> None:
    (found,) = refused(text)
    assert found.startswith("roles: ")
    assert hint in found


def test_webhooks_are_named_as_what_they_are() -> None:
    text = "create trigger t after insert on card for each row execute function supabase_functions.http_request('u', 'POST')"
    assert refused(text) == ["webhooks: supabase_functions.http_request"]


# Texts of functions


def test_statements_in_a_block_are_adapted_as_those_around_it() -> None:
    becomes(
        "do $$ begin grant all on public.t to anon; alter table t owner to postgres;"
        " execute format('grant select on %I to %I, anon', t, r); execute 'grant usage on schema public to anon'; end $$",
        "do $$ begin grant SELECT, INSERT, UPDATE, DELETE on proj_shop.t to proj_shop_anon; alter table t owner to proj_shop_owner;"
        " execute format('grant select on %I to %I, proj_shop_anon', t, r); execute 'select 1'; end $$",
    )


def test_a_dump_with_every_name_in_quotation_marks_is_adapted() -> None:
    becomes(
        """alter table only "public"."t" alter column "n" set default "nextval"('"public"."s"'::"regclass")""",
        """alter table only proj_shop."t" alter column "n" set default "nextval"('proj_shop."s"'::"regclass")""",
    )
    becomes(
        """create policy "p" on "public"."t" using (("auth"."role"() = 'authenticated'::"text"))""",
        """create policy "p" on proj_shop."t" using (("auth"."role"() = 'proj_shop_authenticated'::"text"))""",
    )
    becomes(
        """create policy "p" on "storage"."objects" using (("bucket_id" = 'a'::"text"))""",
        "select data_plane_api.declare_storage_rule('p', 'all', array['public'],"
        """ '("bucket_id" = ''proj_shop.a''::"text")', null)""",
    )


def test_a_question_for_rights_is_asked_of_the_projects_role_and_table() -> None:
    becomes(
        "select has_table_privilege('anon', 'private.t', 'select')",
        "select has_table_privilege('proj_shop_anon', '\"proj_shop$private\".t', 'select')",
    )


def test_a_quoted_body_is_adapted_like_one_in_dollars() -> None:
    becomes(
        "create function f() returns text language plpgsql as 'begin return (select ''public'' from public.t); end'",
        "create function f() returns text language plpgsql as 'begin return (select ''public'' from proj_shop.t); end'",
    )


def test_a_format_whose_parts_would_change_places_is_not_guessed() -> None:
    text = "do $$ begin execute format('create policy %I on storage.objects using (owner = %L)', a, b); end $$"
    assert {line.split(":")[0] for line in refused(text)} == {"storage"}


# The run


def test_a_run_is_summed_up_with_where_the_effect_differs() -> None:
    text = """\
create table public.bid (id int references auth.users);
alter publication supabase_realtime add table public.bid;
grant all on public.bid to anon;
"""
    item = prepared(ScriptFile(Path("1_a.sql"), text), SCOPE)
    assert list(summed_up([item])) == [
        "adapted: public 2, roles 1, auth.users 1, publications 1, grants 1",
        "  auth.users: has a row for each member of the project, which follows Auth within seconds (1_a.sql:1)",
        "  publications: changes to tables are not sent; Realtime gives broadcast and presence (1_a.sql:2)",
        "  grants: ALL became SELECT, INSERT, UPDATE, DELETE: TRUNCATE passes row-level security by (1_a.sql:3)",
    ]
    assert list(summed_up([prepared(ScriptFile(Path("1_a.sql"), "select 1"), SCOPE)])) == []


def test_three_boundaries_are_one_adaptation() -> None:
    text = """\
create table public.seat (user_id uuid references auth.users (id), row_no int);
insert into storage.buckets (id, name) values ('plans', 'plans') on conflict do nothing;
alter publication supabase_realtime add table public.seat;
create function public.seat_user() returns trigger language plpgsql security definer as $$ begin return new; end $$;
create trigger seat_user after insert on auth.users for each row execute function public.seat_user();
"""
    item = prepared(ScriptFile(Path("1_a.sql"), text), SCOPE)
    assert item.findings == []
    assert len(item.to_run) == 4
    assert "-alter publication supabase_realtime add table public.seat;" in item.diff()


# Functions that only read

SHARED = replace(
    SCOPE, judge=lambda _language, text: [(1, word) for word in ("execute", "set_config") if word in text.lower()]
)


def made_function(body: str, options: str = "", returns: str = "boolean") -> str:
    return f"create function ask(what text) returns {returns} language plpgsql{options} as $$ {body} $$"


@pytest.mark.parametrize(
    "body",
    [
        "declare found boolean; begin execute format('select %I from shelf where owner = %L limit 1', what, 'me') into found; return found; end",
        "begin for k in 1..3 loop execute 'select count(*) > $1 from shelf' into strict k using k; end loop; return k > 1; exception when others then return false; end",
        "declare n int := 1; begin n := n + 1; perform lower(what); execute ('select true'); return auth.uid() is null; end",
    ],
)
def test_a_function_that_only_reads_is_declared_so_for_its_execute(body: str) -> None:
    body = body.replace("begin for k", "declare k int; begin for k")
    result = adapt(made_function(body), SHARED)
    assert result.statement.text == made_function(body) + " stable"
    assert (result.findings, result.kinds) == ([], (Kind.STABLE,))
    # Nobody asks for it where no session is shared.
    assert adapt(made_function(body)).kinds == ()


@pytest.mark.parametrize(
    "body",
    [
        "begin execute what; return true; end",
        "begin execute 'select ' || what; return true; end",
        "begin execute format('select %s from shelf', what); return true; end",
        "begin execute format('%I', what); return true; end",
        "begin execute format(what, 'shelf'); return true; end",
        "begin execute 'delete from shelf'; return true; end",
        "begin execute 'select 1; delete from shelf'; return true; end",
        "begin execute 'with gone as (delete from shelf returning 1) select from gone'; return true; end",
        "begin execute 'select from shelf for update'; return true; end",
        "begin execute 'select 1 into table copied'; return true; end",
        "begin execute 'select nextval(''numbers'')'; return true; end",
        "begin execute 'select true'; insert into shelf values (1); return true; end",
        "begin execute 'select true'; perform place_order(what); return true; end",
        "begin execute 'select true'; return place_order(what); end",
        "begin execute 'select true'; if random() > 0.5 then return true; end if; return false; end",
        "declare n int[]; begin execute 'select true'; n[place_order(what)] := 1; return true; end",
        "declare c refcursor; begin open c for execute 'select true'; return true; end",
        "begin execute 'select true'; perform set_config('role', 'x', true); return true; end",
        "begin execute 'select true'; commit; return true; end",
        "begin execute 'select true'; call place_order(what); return true; end",
    ],
)
def test_any_other_function_with_execute_stays_refused(body: str) -> None:
    assert "session: execute in function ask" in refused(made_function(body), SHARED)


@pytest.mark.parametrize("options", [" volatile", " stable", " window"])
def test_what_a_function_says_of_itself_stays(options: str) -> None:
    body = "begin execute 'select true'; return true; end"
    assert adapt(made_function(body, options), SHARED).statement.text == made_function(body, options)


# Functions that are one expression, in storage rules


def rule_of(*functions: str, condition: str) -> tuple[str, tuple[Kind, ...]]:
    file = ScriptFile(Path("m.sql"), ";\n".join(functions))
    found = {name: function for name, function in plain_functions(statements_of(file)) if function is not None}
    result = adapt(
        f"create policy \"très à part\" on storage.objects for select to authenticated using (bucket_id = 'a' and {condition})",
        replace(SCOPE, expressions=found),
    )
    return result.statement.text, result.kinds


@pytest.mark.parametrize(
    ("function", "call", "message"),
    [
        (
            "create function public.top(path text) returns text language sql immutable as $$ select split_part(path, 'é', 1) $$",
            "public.top(name)",
            "((split_part(((name)::text), 'é', 1))::text)",
        ),
        (
            (
                "create function private.of(path text, other int) returns uuid language plpgsql set search_path = '' as\n"
                "$$ begin return split_part(path, '/', other + $2)::uuid; end; $$"
            ),
            "private.of(lower(name), array_length(array[1, 2], 1)) ",
            (
                "((split_part(((lower(name))::text), '/', ((array_length(array[1, 2], 1))::integer)"
                " + ((array_length(array[1, 2], 1))::integer))::uuid)::uuid)"
            ),
        ),
    ],
)
def test_a_rule_has_the_expression_of_a_function_that_is_one(function: str, call: str, message: str) -> None:
    text, kinds = rule_of(function, condition=f"{call} = 'x'")
    assert message.replace("'", "''") in text
    assert kinds[:2] == (Kind.STORAGE_RULES, Kind.EXPRESSIONS)


@pytest.mark.parametrize(
    "function",
    [
        "create function private.f(path text) returns boolean language sql as $$ select exists (select from shelf) $$",
        "create function private.f(path text) returns boolean language sql as $$ select owner from shelf limit 1 $$",
        "create function private.f(path text) returns boolean language sql as $$ select true; select false $$",
        "create function private.f(path text) returns setof boolean language sql as $$ select true $$",
        "create function private.f(path text default 'x') returns boolean language sql as $$ select true $$",
        "create function private.f(path text) returns boolean language sql strict as $$ select true $$",
        "create function private.f(path text) returns boolean language sql set role = x as $$ select true $$",
        "create function private.f(path text) returns boolean language sql as $$ select $2 $$",
        "create function private.f(path text, more text) returns boolean language sql as $$ select true $$",
        "create function private.f(path text) returns boolean language sql as $$ select private.g(path) $$",
        "create function private.f(path text) returns boolean language plpgsql as $$ begin delete from shelf; return true; end $$",
        "create function private.f(path text) returns boolean language plpgsql as $$ begin return true; exception when others then return false; end $$",
    ],
)
def test_a_rule_that_calls_more_than_an_expression_stays_refused(function: str) -> None:
    text, kinds = rule_of(function, condition="private.f(name)")
    assert Kind.STORAGE_RULES not in kinds
    assert text.startswith("create policy")


# Settings of the API server


@pytest.mark.parametrize(
    "text",
    [
        "alter role authenticator set pgrst.db_aggregates_enabled = 'true'",
        "alter role authenticator set pgrst.db_pre_request = 'private.check'",
        "alter role authenticator set pgrst.db_schemas = 'public, api'",
        "alter role authenticator reset all",
        "alter role anon set pgrst.db_aggregates_enabled = 'true'",
    ],
)
def test_a_setting_of_everybodys_api_server_stays_refused(text: str) -> None:
    assert [found.partition(":")[0] for found in refused(text)] == ["roles"]


# Rights on several schemas


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            "grant usage on schema public, private to anon, service_role",
            'grant usage on schema "proj_shop$private" to proj_shop_anon, proj_shop_service_role',
        ),
        (
            'revoke all on schema "app", storage, public, private from public',
            'revoke all on schema "proj_shop$app", "proj_shop$private" from public',
        ),
    ],
)
def test_of_several_schemas_the_projects_own_get_rights(before: str, after: str) -> None:
    becomes(before, after)
    assert Kind.DEFAULTS in adapt(before).kinds


def test_rights_on_a_schema_that_nobody_knows_stay_refused() -> None:
    assert refused("grant usage on schema public, private, other to anon")
