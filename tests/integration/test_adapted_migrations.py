"""Migrations that were written for a standalone Supabase, run in a project's slice of a real database."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from data_plane.connector.migrations import Migrator, Rule, migration_files
from data_plane.errors import MigrationError, MigrationRefusedError
from data_plane.local.postgres import LocalPostgres
from data_plane.local.servers import LOOPBACK
from data_plane.model.naming import TenantNames
from tests.support import platform_database
from tests.support.platform_database import api_request, issue, new_id, run
from tests.support.postgresqls import binaries, oldest_and_newest

NAMES = TenantNames("one")
LOGIN = "lease_one_owner"


@pytest.fixture(scope="module", params=oldest_and_newest())
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPostgres]:
    """A platform with two projects, which have users and Storage, and a lease for the first."""
    with platform_database.running(
        tmp_path_factory.mktemp("adapted"),
        binaries()[request.param],
        platform_database.apply_platform,
        platform_database.add_tenants,
    ) as made:
        for tenant in platform_database.TENANTS:
            run(made, "insert into data_plane.user_tables (tenant, attached) values (%s, true)", tenant)
            run(made, "select data_plane.provide_users(%s)", tenant)
            run(made, "insert into data_plane.buckets (tenant) values (%s)", tenant)
        issue(made, LOGIN, f"{NAMES.schema}_owner")
        yield made


class Project:
    """The first project: its files, and a session as its owner."""

    def __init__(self, owner: psycopg.Connection[Any], folder: Path) -> None:
        self.owner = owner
        self.folder = folder
        (folder / "migrations").mkdir()

    def up(self, *texts: str, **how: Any) -> list[str]:
        """Runs files that are pending together with those of before."""
        for number, text in enumerate(texts, len(list((self.folder / "migrations").iterdir())) + 1):
            (self.folder / "migrations" / f"{number}_a.sql").write_text(text, encoding="utf-8")
        migrator = Migrator(self.owner, NAMES, **how)
        return [file.version for file in migrator.up(migrator.plan(migration_files(self.folder)))]

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        return self.owner.execute(query.encode()).fetchall()


@pytest.fixture
def project(server: LocalPostgres, tmp_path: Path) -> Iterator[Project]:
    """With nothing in it but what its tests before left; objects have names of their own in each."""
    run(server, 'drop schema if exists "proj_one$migrations" cascade')
    with psycopg.connect(
        host=LOOPBACK, port=server.port, user=LOGIN, password="pw", dbname="postgres", autocommit=True
    ) as owner:
        yield Project(owner, tmp_path)


SIGN_UP = """
create table public.card (user_id uuid primary key references auth.users (id) on delete cascade, nick text);
alter table public.card enable row level security;
grant all on public.card to authenticated;
create policy "own card" on public.card for select to authenticated using (auth.uid() = user_id);
create function public.make_card() returns trigger language plpgsql security definer set search_path = '' as $$
begin
  insert into public.card (user_id, nick) values (new.id, new.raw_user_meta_data ->> 'nick');
  return new;
end $$;
create trigger after_sign_up after insert on auth.users for each row execute function public.make_card();
create function public.mail_of(who uuid) returns text language sql stable security definer set search_path = '' as
$$ select u.email from auth.users u where u.id = who $$;
"""


def test_a_row_comes_to_be_when_a_member_does_and_goes_with_it(server: LocalPostgres, project: Project) -> None:
    assert project.up(SIGN_UP) == ["1"]
    member, stranger = new_id(), new_id()
    # As the relay brings it, in a session of the project's.
    for person, nick in ((member, "ann"), (stranger, "bob")):
        project.owner.execute(
            'insert into "proj_one$auth".users (id, email, raw_user_meta_data) values (%s, %s, jsonb_build_object(%s::text, %s::text))',
            [person, f"{nick}@example.org", "nick", nick],
        )
    with api_request(server, "proj_one_authenticated", {"sub": member}) as request:
        assert request.execute("select nick from proj_one.card").fetchall() == [("ann",)]
        assert request.execute("select proj_one.mail_of(%s)", [member]).fetchall() == [("ann@example.org",)]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            request.execute('select * from "proj_one$auth".users')
    project.owner.execute('delete from "proj_one$auth".users where id = %s', [member])
    assert project.rows("select nick from card") == [("bob",)]


def test_helpers_in_a_schema_of_their_own_serve_policies(server: LocalPostgres, project: Project) -> None:
    project.up(
        """
        create schema if not exists private;
        create table private.admin (user_id uuid primary key);
        create function private.is_admin() returns boolean language sql stable security definer set search_path = private as
        $$ select exists (select from admin a where a.user_id = auth.uid()) $$;
        grant usage on schema private to authenticated;
        create table public.ledger (id int);
        create policy "admins" on public.ledger to authenticated using ((select private.is_admin()));
        grant select on public.ledger to authenticated;
        insert into public.ledger values (1);
        """,
        # A later file names what an earlier one has made.
        "alter table private.admin add column since date; comment on schema private is 'helpers';",
    )
    admin = new_id()
    project.owner.execute('insert into "proj_one$private".admin values (%s)', [admin])
    for person, seen in ((admin, [(1,)]), (new_id(), [])):
        with api_request(server, "proj_one_authenticated", {"sub": person}) as request:
            assert request.execute("select id from proj_one.ledger").fetchall() == seen
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                request.execute('select * from "proj_one$private".admin')
    # In a run of its own the schema is known from the database.
    assert project.up("drop policy admins on public.ledger; drop schema private cascade;") == ["3"]
    assert project.rows("select to_regnamespace('\"proj_one$private\"')::text") == [(None,)]


BUCKET = (
    "insert into storage.buckets (id, name, public) values ('receipts', 'receipts', false) on conflict (id) do nothing;"
)
RULE = """
create policy "owner adds a receipt" on storage.objects for insert to authenticated
  with check (bucket_id = 'receipts' and (storage.foldername(name))[1] = auth.uid()::text);
"""


def test_buckets_and_rules_are_declared(project: Project) -> None:
    project.up(
        BUCKET + RULE,
        "insert into storage.buckets (id, name, public) values ('receipts', 'receipts', true) on conflict do nothing;",
        "update storage.buckets set file_size_limit = 1000 where id = 'receipts';",
    )
    assert project.rows(
        "select id, public, file_size_limit from data_plane_api.list_buckets() where id like '%receipts'"
    ) == [("proj_one.receipts", False, 1000)]
    ((name, command, roles, check),) = project.rows(
        "select name, command, roles, check_expression from data_plane_api.list_storage_rules()"
    )
    assert (name, command, roles) == ("owner adds a receipt", "insert", ["authenticated"])
    assert "'proj_one.receipts'" in check
    project.up('drop policy "owner adds a receipt" on storage.objects;')
    assert project.rows("select from data_plane_api.list_storage_rules()") == []


def test_a_rule_that_the_platform_refuses_is_told_before_anything_runs(project: Project) -> None:
    rule = "create policy p on storage.objects for select using (bucket_id = 'receipts' and pg_sleep(1) is null);"
    with pytest.raises(MigrationRefusedError, match=r"storage: .*\n    2_a\.sql:1 .*pg_sleep"):
        project.up("create table public.never (a int);", rule)
    assert project.rows("select to_regclass('never')") == [(None,)]
    assert project.up(leave_out=frozenset({Rule.STORAGE})) == ["1", "2"]
    assert project.rows("select to_regclass('never')::text") == [("never",)]


def test_what_is_tried_beforehand_runs_nothing_of_the_files(project: Project) -> None:
    # Tried before the first file runs, the block would fail, and the bucket's size could not be read.
    assert project.up(
        "create table public.size (bytes bigint); create function public.most() returns bigint language sql as 'select 7';",
        "do $$ begin update size set bytes = 1; insert into storage.buckets (id, name) values ('tried', 'tried'); end $$;",
        "insert into storage.buckets (id, name, file_size_limit) values ('sized', 'sized', public.most());",
    ) == ["1", "2", "3"]


def test_a_bucket_of_a_project_without_storage_is_told_before_anything_runs(
    server: LocalPostgres, project: Project
) -> None:
    run(server, "delete from data_plane.buckets where tenant = 'proj_one'")
    try:
        with pytest.raises(MigrationRefusedError, match="this project has no Storage"):
            project.up("create table public.unseen (id int);", BUCKET)
        assert project.rows("select to_regclass('unseen')::text") == [(None,)]
    finally:
        run(server, "insert into data_plane.buckets (tenant) values ('proj_one')")


def test_a_guarded_publication_is_passed_over(project: Project) -> None:
    project.up("""
        create table public.bid (id bigint primary key, cents int);
        alter table public.bid replica identity full;
        do $$ begin
          if not exists (select from pg_publication_tables where pubname = 'supabase_realtime' and tablename = 'bid') then
            execute 'alter publication supabase_realtime add table public.bid';
          end if;
        end $$;
    """)
    assert project.rows("select relreplident::text from pg_class where oid = 'bid'::regclass") == [("f",)]
    assert project.rows("select from pg_publication_tables where tablename = 'bid'") == []


def test_another_publication_and_a_job_without_a_guard_are_refused_before_anything_runs(project: Project) -> None:
    for second, boundary in (
        ("do $$ begin execute 'create publication audit for table public.half'; end $$;", "realtime"),
        ("select cron.schedule('tidy', '0 3 * * *', 'select 1');", "extensions"),
    ):
        (project.folder / "migrations" / "2_a.sql").unlink(missing_ok=True)
        (project.folder / "migrations" / "1_a.sql").unlink(missing_ok=True)
        with pytest.raises(MigrationRefusedError, match=rf"nothing was run:\n  {boundary}: "):
            project.up("create table public.half (a int);", second)
        assert project.rows("select to_regclass('half')") == [(None,)]


def test_a_guarded_job_is_the_nothing_that_it_is_without_pg_cron(project: Project) -> None:
    assert project.up("""
        create table public.draft (id bigint primary key, at timestamptz default now());
        do $$ begin
          if exists (select from pg_extension where extname = 'pg_cron') then
            perform cron.schedule('tidy', '0 3 * * *', 'delete from public.draft where at < now() - interval ''30 days''');
          end if;
        end $$;
    """) == ["1"]


def test_rules_for_topics_are_declared(project: Project) -> None:
    project.up("""
        create policy "members listen" on realtime.messages for select to authenticated
          using (realtime.topic() = 'lobby');
    """)
    found = (
        "select p.proname from pg_proc p where p.pronamespace = 'proj_one'::regnamespace and p.proname like 'topic%'"
    )
    assert project.rows(found) == [("topic select: members listen",)]
    project.up('drop policy "members listen" on realtime.messages;')
    assert project.rows(found) == []


def test_a_file_cannot_reach_another_projects_users_or_schemas(project: Project) -> None:
    for text in (
        'select * from "proj_two_b$auth".users;',
        'do $$ begin perform from "proj_two_b$auth".users; end $$;',
        'create table x (a uuid references "proj_two_b$auth".users);',
        'set search_path = "proj_two_b$private";',
    ):
        (project.folder / "migrations" / "1_a.sql").unlink(missing_ok=True)
        with pytest.raises(MigrationError, match="other-projects"):
            project.up(text)
