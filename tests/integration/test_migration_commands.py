"""Seeds, reset, diff and where runs are noted, as a project's owner on a PostgreSQL of each version."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from data_plane.connector.migrations import Limits, Migrator, State, migration_files, seed_files
from data_plane.connector.migrations.clearing import contents_of
from data_plane.connector.migrations.definitions import definitions_of
from data_plane.connector.migrations.difference import Difference, difference
from data_plane.connector.migrations.portable import portable
from data_plane.connector.migrations.scratch import ProjectFacts, Scratch, scratch
from data_plane.errors import MigrationError, MigrationRefusedError
from data_plane.model.naming import TenantNames
from tests.support.postgresqls import binaries, oldest_and_newest

NAMES = TenantNames("my-shop")
SCHEMA, NOTED, PRIVATE = "proj_my_shop", "proj_my_shop$migrations", "proj_my_shop$private"
FACTS = ProjectFacts(0, {}, shares_session=True, has_users=True, has_storage=True)


class Project:
    """A project's slice and its repository."""

    def __init__(self, place: Scratch, folder: Path) -> None:
        self.place = place
        self.supabase = folder / "supabase"
        (self.supabase / "migrations").mkdir(parents=True)

    def connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.place.conninfo, autocommit=True)

    @contextmanager
    def migrator(self, limits: Limits | None = None) -> Iterator[Migrator]:
        with self.connect() as session:
            yield Migrator(session, NAMES, limits)

    def write(self, **files: str) -> None:
        for name, text in files.items():
            (self.supabase / "migrations" / f"{name.removeprefix('_')}.sql").write_text(text, encoding="utf-8")

    def seed(self, text: str) -> None:
        (self.supabase / "seed.sql").write_text(text, encoding="utf-8")

    def up(self) -> list[str]:
        with self.migrator() as migrator:
            return [file.version for file in migrator.up(migrator.plan(migration_files(self.supabase)))]

    def run(self, statements: str) -> None:
        with self.connect() as session:
            session.execute(statements.encode())

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with self.connect() as session:
            return session.execute(query.encode(), values or None).fetchall()

    def relations(self) -> list[str]:
        found = self.rows(
            "select relname::text from pg_class where relnamespace = to_regnamespace(%s)"
            " and relkind in ('r', 'v', 'm', 'p') order by 1",
            SCHEMA,
        )
        return [name for (name,) in found]


@pytest.fixture(scope="module", params=oldest_and_newest())
def place(request: pytest.FixtureRequest) -> Iterator[Scratch]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATA_PLANE_POSTGRES_BIN", str(binaries()[request.param]))
        with scratch(NAMES, FACTS) as made:
            yield made


@pytest.fixture
def project(place: Scratch, tmp_path: Path) -> Iterator[Project]:
    made = Project(place, tmp_path)
    yield made
    made.run(f"drop table if exists {SCHEMA}.supabase_migrations")
    with made.migrator() as migrator:
        migrator.clear()
        migrator.forget_rules()
    made.run("select data_plane_api.drop_schema('migrations', true)")


# where it is noted


def test_what_was_run_is_noted_beside_the_projects_own_tables(project: Project) -> None:
    project.write(_1_a="create table t (a int);")
    assert project.up() == ["1"]
    assert project.relations() == ["t"]
    assert project.rows(f'select version, state from "{NOTED}".schema_migrations') == [("1", "applied")]
    api = [f"{SCHEMA}_{level}" for level in ("anon", "authenticated", "service_role")]
    assert (
        project.rows(
            "select role from unnest(%s::text[]) as role, unnest(array['schema_migrations', 'seed_files']) as t"
            " where has_schema_privilege(role, %s, 'usage') or has_table_privilege(role, format('%%I.%%I', %s::text, t), 'select')",
            api,
            NOTED,
            NOTED,
        )
        == []
    )


OLD_HISTORY = f"""
create table {SCHEMA}.supabase_migrations (
    version text primary key, name text not null, checksum text not null,
    state text not null check (state in ('applied', 'baseline', 'started')),
    statements text[] not null default '{{}}', done integer not null default 0, adapted boolean not null default false,
    started_at timestamptz not null default clock_timestamp(), finished_at timestamptz,
    by text not null default session_user, backend integer not null default pg_backend_pid()
);
"""


def note_as_before(project: Project, *versions: str) -> None:
    """As the program before this one did."""
    project.run(OLD_HISTORY)
    with project.connect() as session:
        for file in migration_files(project.supabase):
            if file.version in versions:
                session.execute(
                    sql.SQL(
                        "insert into {} (version, name, checksum, state, finished_at) values (%s, %s, %s, 'applied', now())"
                    ).format(sql.Identifier(SCHEMA, "supabase_migrations")),
                    [file.version, file.name, file.checksum],
                )


def test_an_earlier_history_is_read_where_it_is_and_moved_by_the_next_run(project: Project) -> None:
    project.write(_1_a="create table t (a int);", _2_b="create table u (a int);")
    project.run("create table t (a int)")
    note_as_before(project, "1")
    before = project.rows(f"select * from {SCHEMA}.supabase_migrations")
    with project.migrator() as migrator:
        assert {v: e.state for v, e in migrator.history.entries().items()} == {"1": State.APPLIED}
    assert project.relations() == ["supabase_migrations", "t"], "to read moves nothing"
    assert project.up() == ["2"]
    assert project.relations() == ["t", "u"]
    assert project.rows(f"select * from \"{NOTED}\".schema_migrations where version = '1'") == before
    assert project.up() == []


def test_two_runs_at_once_move_an_earlier_history_once(project: Project) -> None:
    project.write(_1_a="create table t (a int);", _2_b="create table u (a int);", _3_c="create table v (a int);")
    project.run("create table t (a int)")
    note_as_before(project, "1")
    applied: list[str] = []
    runs = [threading.Thread(target=lambda: applied.extend(project.up())) for _ in range(4)]
    for run in runs:
        run.start()
    for run in runs:
        run.join(300)
    assert sorted(applied) == ["2", "3"]
    assert project.relations() == ["t", "u", "v"]


def test_four_first_runs_at_once_run_each_file_once(project: Project) -> None:
    project.write(_1_a="create table t (a int);", _2_b="insert into t values (1);")
    applied: list[str] = []
    runs = [threading.Thread(target=lambda: applied.extend(project.up())) for _ in range(4)]
    for run in runs:
        run.start()
    for run in runs:
        run.join(300)
    assert sorted(applied) == ["1", "2"]
    assert project.rows("select a from t") == [(1,)]


def test_a_move_waits_for_a_run_of_the_earlier_program(project: Project) -> None:
    project.write(_1_a="create table t (a int);")
    note_as_before(project)
    with project.connect() as other, other.transaction():
        other.execute(f"lock table {SCHEMA}.supabase_migrations in share row exclusive mode".encode())
        with (
            project.migrator(Limits(turn_seconds=1)) as migrator,
            pytest.raises(MigrationError, match="another run of my-shop's migrations has been under way for 1 s"),
        ):
            migrator.up(migrator.plan(migration_files(project.supabase)))
    assert project.up() == ["1"]


def test_what_an_earlier_program_notes_after_the_move_is_not_lost_in_silence(project: Project) -> None:
    project.write(_1_a="create table t (a int);")
    project.up()
    note_as_before(project)
    project.write(_2_b="create table u (a int);")
    assert project.up() == ["2"], "an empty one is taken away"
    assert project.relations() == ["t", "u"]
    note_as_before(project, "1")
    project.write(_3_c="create table v (a int);")
    with pytest.raises(
        MigrationError, match=r"there are two histories: .*proj_my_shop.*earlier version of this program"
    ):
        project.up()
    assert project.relations() == ["supabase_migrations", "t", "u"]


# seeds


def test_a_seed_is_run_once(project: Project) -> None:
    project.write(_1_a="create table t (a int);")
    project.up()
    project.seed("insert into public.t values (1);")
    for expected in (1, 0):
        with project.migrator() as migrator:
            done = migrator.seed(seed_files(project.supabase))
        assert (len(done.run), len(done.unchanged), len(done.changed)) == (expected, 1 - expected, 0)
    assert project.rows("select a from t") == [(1,)]


def test_a_changed_seed_is_noted_and_not_run_as_the_supabase_cli_does(project: Project) -> None:
    project.write(_1_a="create table t (a int);")
    project.up()
    project.seed("insert into t values (1);")
    with project.migrator() as migrator:
        migrator.seed(seed_files(project.supabase))
    project.seed("insert into t values (1), (2);")
    with project.migrator() as migrator:
        assert [file.key for file in migrator.seed(seed_files(project.supabase)).changed] == ["seed.sql"]
        assert [file.key for file in migrator.seed(seed_files(project.supabase)).unchanged] == ["seed.sql"]
        assert project.rows("select a from t") == [(1,)]
        assert [file.key for file in migrator.seed(seed_files(project.supabase), again=True).run] == ["seed.sql"]
    assert project.rows("select a from t order by 1") == [(1,), (1,), (2,)]


def test_a_seed_that_fails_is_not_noted(project: Project) -> None:
    project.write(_1_a="create table t (a int unique);")
    project.up()
    project.seed("insert into t values (1);\ninsert into t values (1);")
    with project.migrator() as migrator, pytest.raises(MigrationError, match=r"seed\.sql:2: duplicate key"):
        migrator.seed(seed_files(project.supabase))
    project.seed("insert into t values (1);")
    with project.migrator() as migrator:
        assert len(migrator.seed(seed_files(project.supabase)).run) == 1


def test_two_runs_of_a_seed_at_once_take_turns(project: Project) -> None:
    project.write(_1_a="create table t (a int);")
    project.up()
    project.seed("select pg_sleep(0.3); insert into t values (1);")

    def seed() -> None:
        with project.migrator() as migrator:
            migrator.seed(seed_files(project.supabase))

    runs = [threading.Thread(target=seed) for _ in range(3)]
    for run in runs:
        run.start()
    for run in runs:
        run.join(300)
    assert project.rows("select a from t") == [(1,)]


def test_a_seed_may_set_what_it_likes_for_itself(project: Project) -> None:
    project.write(_1_a="create table t (a int);")
    project.up()
    project.seed("set search_path = ''; set statement_timeout = 0; insert into public.t values (1);")
    with project.migrator() as migrator:
        assert len(migrator.seed(seed_files(project.supabase)).run) == 1
    assert project.rows(f'select path from "{NOTED}".seed_files') == [("seed.sql",)]


# reset

EVERY_KIND = """
create type mood as enum ('a', 'b');
create domain positive as int check (value > 0);
create type pair as (a int, b mood);
create type floats as range (subtype = float8);
create sequence numbers;
create table t (id int generated always as identity primary key, s serial, m mood default 'a', p positive, t pair);
create table child (id int primary key references t on delete cascade, big int default nextval('numbers'));
create table parts (a int) partition by list (a);
create table part_one partition of parts for values in (1);
create view v with (security_invoker = true) as select id from t;
create view w with (security_invoker = true) as select id from v;
create materialized view mv as select id from t;
create function f(x int) returns int language sql stable as 'select x';
create function of_row(x t) returns int language sql stable as 'select 1';
create function noted() returns trigger language plpgsql as 'begin return new; end';
create procedure p(x int) language sql as 'select 1';
create aggregate total(int) (sfunc = int4pl, stype = int, initcond = '0');
create operator === (leftarg = int, rightarg = int, function = int4eq);
create collation german from "C";
create text search configuration words (copy = pg_catalog.simple);
create statistics both_ids on id, s from t;
create trigger noted after insert on t for each row execute function noted();
create rule quiet as on delete to v do instead nothing;
create index on t (m) where p > 1;
create policy own on t for select to proj_my_shop_authenticated using (id > 3);
comment on table t is 'hi';
comment on column t.m is 'a mood';
comment on policy own on t is 'own';
select data_plane_api.create_schema('private');
create table "proj_my_shop$private".secrets (id int references proj_my_shop.t);
create function "proj_my_shop$private".f() returns int language sql stable as 'select 1';
grant usage on schema "proj_my_shop$private" to proj_my_shop_authenticated;
grant select (id) on child to proj_my_shop_anon;
revoke insert on child from proj_my_shop_anon;
"""


def platforms(project: Project) -> list[tuple[Any, ...]]:
    """What of a project's schemas is the platform's to say."""
    return project.rows(
        "select nspname, nspowner::regrole::text, nspacl::text from pg_namespace where nspname like 'proj\\_%%'"
        " and nspname not like '%%$private' union all"
        " select defaclnamespace::regnamespace::text, defaclrole::regrole::text, defaclacl::text || defaclobjtype::text"
        " from pg_default_acl where defaclnamespace::regnamespace::text not like '%%private%%' order by 1, 2, 3"
    )


def test_every_kind_of_object_is_dropped_and_what_is_the_platforms_stays(project: Project) -> None:
    project.write(_1_a="create table t (a int);")
    project.up()
    project.seed("insert into t values (1);")
    with project.migrator() as migrator:
        migrator.seed(seed_files(project.supabase))
        migrator.clear()
    empty, before = definitions_of(project.connect(), NAMES), platforms(project)
    project.run(EVERY_KIND)
    with project.connect() as session:
        assert len(contents_of(session, NAMES).objects) > 20
    with project.migrator() as migrator:
        migrator.clear()
        assert migrator.history.entries() == {}
        assert migrator.history.seeds() == {}
    assert definitions_of(project.connect(), NAMES) == empty
    assert platforms(project) == before
    assert project.rows("select from pg_namespace where nspname = %s", PRIVATE) == []
    assert project.up() == ["1"]


BUCKET = "insert into storage.buckets (id, name) values ('receipts', 'receipts');"
RULE = "create policy \"{name}\" on storage.objects for select to authenticated using (bucket_id = 'receipts');"


def rules(project: Project) -> list[str]:
    return [name for (name,) in project.rows("select name from data_plane_api.list_storage_rules() order by 1")]


def test_rules_on_files_are_forgotten_once_the_files_have_run_that_no_more_declare_them(project: Project) -> None:
    """While there are none, a bucket would have the platform's own, which may let in more."""
    project.write(_1_a=BUCKET + RULE.format(name="it's kept") + RULE.format(name="gone"))
    project.up()
    assert rules(project) == ["gone", "it's kept"]
    project.write(_1_a=BUCKET + RULE.format(name="it's kept"))
    with project.migrator() as migrator:
        migrator.clear()
        assert rules(project) == ["gone", "it's kept"]
        migrator.up(migrator.plan(migration_files(project.supabase)))
        assert migrator.forget_rules() == ["gone"]
    assert rules(project) == ["it's kept"]
    assert project.rows("select id from data_plane_api.list_buckets() order by 1") == [
        (SCHEMA,),
        (f"{SCHEMA}.receipts",),
    ]


def test_clearing_is_whole_or_nothing(project: Project) -> None:
    project.run("create table a (x int); create table b (x int)")
    with project.connect() as reader, reader.transaction():
        reader.execute("select * from b")
        began = time.monotonic()
        with (
            project.migrator(Limits(lock_seconds=1)) as migrator,
            pytest.raises(MigrationError, match=r"the schema cannot be emptied: .*lock timeout"),
        ):
            migrator.clear()
        assert time.monotonic() - began < 60
    assert project.relations() == ["a", "b"]


def test_files_that_cannot_run_are_refused_before_anything_is_dropped(project: Project) -> None:
    project.run("create table a (x int)")
    project.write(_1_a="create table t (a int);", _2_b="create publication p;")
    with project.migrator() as migrator, pytest.raises(MigrationRefusedError, match=r"2_b\.sql:1"):
        migrator.check(migration_files(project.supabase))
    assert project.relations() == ["a"]


# diff


def differing(project: Project, *, renamed: bool = True) -> Difference:
    """The schema against what its applied files make."""
    with project.connect() as session:
        wanted = definitions_of(session, NAMES)
    with scratch(NAMES, FACTS) as other:
        with psycopg.connect(other.conninfo, autocommit=True) as tried:
            migrator = Migrator(tried, NAMES)
            migrator.up(migrator.plan(migration_files(project.supabase)))
        with psycopg.connect(other.conninfo, autocommit=True) as tried:
            found = difference(tried, NAMES, wanted)
    if renamed:
        found.statements = [portable(statement, NAMES) for statement in found.statements]
    return found


@pytest.fixture
def same_version(place: Scratch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_PLANE_POSTGRES_BIN", str(place.binaries))


@pytest.mark.usefixtures("same_version")
def test_a_schema_that_its_files_made_does_not_differ(project: Project) -> None:
    text = EVERY_KIND.replace("select data_plane_api.create_schema('private')", "create schema private")
    project.write(_1_a=text.replace('"proj_my_shop$private"', "private"))
    project.up()
    assert differing(project) == Difference()


@pytest.mark.usefixtures("same_version")
def test_what_is_shown_makes_the_files_the_schema(project: Project) -> None:
    """Shown as a file of a repository, and run as one."""
    project.write(
        _1_a="create type mood as enum ('a', 'c'); create table t (id int primary key, old text, m mood, kept text);"
        "create view v with (security_invoker = true) as select id from t;"
        "create function f() returns int language sql stable as 'select 1'; create table lost (a int);"
        "create policy p on t for select using (true); create index gone on t (kept);"
    )
    project.up()
    project.run(
        "alter type mood add value 'b' after 'a'; alter table t drop column old, add column new text not null default 'x',"
        " alter column kept set default 'k', alter column kept type varchar(20), add check (id > 0);"
        "create or replace view v with (security_invoker = true) as select id, kept as k from t;"
        "drop function f; create function f() returns text language sql stable as $$ select 'proj_my_shop.t' $$;"
        "drop table lost; drop policy p on t; drop index gone;"
        "create policy p on t for select to proj_my_shop_authenticated using (id > 3);"
        "create table added (id uuid primary key default gen_random_uuid(), t int references t, made timestamptz);"
        "select data_plane_api.create_schema('private');"
        'create function "proj_my_shop$private".is_it(x int) returns boolean language sql stable security definer'
        " set search_path = proj_my_shop as $$ select exists (select from proj_my_shop.t where id = x) $$;"
        'create policy q on added using ("proj_my_shop$private".is_it(t));'
        "revoke all on added from proj_my_shop_anon; comment on table added is 'new';"
        'grant usage on schema "proj_my_shop$private" to proj_my_shop_authenticated;'
    )
    found = differing(project)
    assert found.unsaid == []
    text = ";\n".join(found.statements)
    assert "proj_my_shop" not in text.replace("'proj_my_shop.t'", "").replace(" 'proj_my_shop.t' ", "")
    for part in (
        "create schema private",
        "drop table public.lost",
        "alter type public.mood add value 'b' after 'a'",
        "alter table public.t add column new text default 'x'::text not null",
        "alter table public.t drop column old",
        "revoke all on table public.added from anon",
        "create policy q on public.added",
        "select from public.t where id = x",
    ):
        assert part in text
    project.write(_2_b=text + ";")
    assert differing(project) == Difference()


@pytest.mark.usefixtures("same_version")
def test_what_no_statement_says_is_said_in_words(project: Project) -> None:
    project.write(_1_a="create table t (id int);")
    project.up()
    project.run('create collation german from "C"; create table u (a int) partition by list (a)')
    found = differing(project)
    assert found.unsaid == ["collation proj_my_shop.german: only in the schema"]
    assert found.statements == ["create table public.u (\n    a integer\n) partition by LIST (a)"]


@pytest.mark.usefixtures("same_version")
def test_a_table_is_never_dropped_to_be_made_anew(project: Project) -> None:
    project.write(_1_a="create table t (id int);")
    project.up()
    project.run("drop table t; create table t (id int generated always as identity) partition by list (id)")
    found = differing(project)
    assert not any("drop" in statement for statement in found.statements)
    assert {"table proj_my_shop.t", "column proj_my_shop.t.id"} <= {line.partition(":")[0] for line in found.unsaid}


@pytest.mark.usefixtures("same_version")
def test_jobs_of_files_run_nowhere_and_stop_no_comparison(project: Project) -> None:
    """The server has pg_cron; this machine need not."""
    project.write(_1_a="select cron.schedule('tidy', '0 3 * * *', 'delete from t'); create table t (a int);")
    with scratch(NAMES, replace(FACTS, extensions={"pg_cron": "pg_catalog"})) as other:
        assert other.missing == []
        with psycopg.connect(other.conninfo, autocommit=True) as tried:
            migrator = Migrator(tried, NAMES, assumed=other.assumed)
            assert len(migrator.up(migrator.plan(migration_files(project.supabase)))) == 1


def test_the_scratch_project_is_gone_afterwards_and_its_session_is_no_superuser(same_version: None) -> None:
    with scratch(NAMES, FACTS) as other:
        folder = other.folder
        with psycopg.connect(other.conninfo) as session:
            row = session.execute("select current_user, rolsuper from pg_roles where rolname = session_user").fetchone()
            assert row == (f"{SCHEMA}_owner", False)
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                session.execute("copy (select 1) to program 'true'")
        assert folder.exists()
    assert not folder.exists()
