"""A project's migrations on real servers: with a lease, in the project's schema."""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from data_plane.connector.audit import LOG_VARIABLE
from data_plane.connector.bindings import LocalDataPlane
from data_plane.connector.migrations import Limits, Migrator, Rule, State, migration_files, seed_files
from data_plane.connector.migrations.session import owner_session
from data_plane.errors import LeaseError, MigrationError, MigrationRefusedError
from data_plane.local.processes import wait_until
from data_plane.model.naming import AccessLevel, TenantNames
from data_plane.state_dir import CHECKOUT
from tests.conftest import NewLocalEnv, NewPlane, Plane, bring_up

SHOP = """\
slug: shop
display_name: Shop
cell: cell-1
owners: [olga]
users: {project_viewer: [vera]}
limits: {lease_ttl: 8s, lease_max_ttl: 10m}
"""
RIVAL = "slug: rival\ndisplay_name: Rival\ncell: cell-1\nowners: [rita]\n"
NAMES = TenantNames("shop")
HISTORY = '"proj_shop$migrations".schema_migrations'


@pytest.fixture(scope="module")
def shop(new_plane: NewPlane) -> Plane:
    """The tenants shop, whose leases last 8 s, and rival."""
    return new_plane({"shop.yaml": SHOP, "rival.yaml": RIVAL})


class Repository:
    """A project's repository, and its slice, emptied before each test."""

    def __init__(self, plane: Plane, folder: Path) -> None:
        self.plane = plane
        self.supabase = folder / "supabase"
        (self.supabase / "migrations").mkdir(parents=True)

    def write(self, **files: str) -> None:
        for name, text in files.items():
            (self.supabase / "migrations" / f"{name.removeprefix('_')}.sql").write_text(text, encoding="utf-8")

    @contextmanager
    def migrator(self, limits: Limits | None = None, **how: Any) -> Iterator[Migrator]:
        data_plane = LocalDataPlane(self.plane.local_env)
        client = data_plane.client("shop", AccessLevel.OWNER, None)
        with owner_session(client, data_plane.binding("shop")) as connection:
            yield Migrator(connection, NAMES, limits, **how)

    def up(self, limits: Limits | None = None, *, include_all: bool = False, **how: Any) -> list[str]:
        with self.migrator(limits, **how) as migrator:
            applied = migrator.up(migrator.plan(migration_files(self.supabase), include_all=include_all))
        return [file.version for file in applied]

    def history(self) -> dict[str, State]:
        with self.migrator() as migrator:
            return {version: entry.state for version, entry in migrator.history.entries().items()}

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        return self.plane.rows(query, *values)


@pytest.fixture
def repository(shop: Plane, tmp_path: Path) -> Repository:
    with shop.admin() as admin:
        admin.execute('drop schema if exists "proj_shop$migrations" cascade')
        names = admin.execute(
            "select c.relkind = 'v', c.relname from pg_class c"
            " where c.relnamespace = 'proj_shop'::regnamespace and relkind in ('r', 'v', 'p')"
        ).fetchall()
        for view, name in names:
            drop = sql.SQL("drop view if exists {} cascade" if view else "drop table if exists {} cascade")
            admin.execute(drop.format(sql.Identifier("proj_shop", name)))
        for (signature,) in admin.execute(
            "select oid::regprocedure::text from pg_proc where pronamespace = 'proj_shop'::regnamespace"
        ).fetchall():
            admin.execute(f"drop function {signature} cascade".encode())
        for (name,) in admin.execute(
            "select typname from pg_type where typnamespace = 'proj_shop'::regnamespace and typtype = 'e'"
        ).fetchall():
            admin.execute(sql.SQL("drop type {} cascade").format(sql.Identifier("proj_shop", name)))
    return Repository(shop, tmp_path)


def test_files_run_in_the_order_of_their_names_and_are_written_down(repository: Repository) -> None:
    repository.write(
        _0001_log="create table log (id int generated always as identity, what text);",
        _0002_more="insert into log (what) values ('a'); insert into log (what) values ('b');",
    )
    assert repository.up() == ["0001", "0002"]
    repository.write(_0003_last="insert into log (what) values ('c');")
    assert repository.up() == ["0003"]
    assert repository.up() == []
    assert repository.rows("select what from proj_shop.log order by id") == [("a",), ("b",), ("c",)]
    assert repository.rows(f"select version, name, statements, adapted from {HISTORY} order by 1")[1] == (
        "0002",
        "more",
        ["insert into log (what) values ('a')", "insert into log (what) values ('b')"],
        False,
    )
    owners = repository.rows("select distinct tableowner from pg_tables where schemaname = 'proj_shop'")
    assert owners == [("proj_shop_owner",)]
    ((by,),) = repository.rows(f"select distinct by from {HISTORY} where version <> '0003'")
    assert by.startswith("lease_proj_shop_owner_")


def test_a_file_that_fails_leaves_nothing_and_those_before_it_stay(repository: Repository) -> None:
    repository.write(
        _1_good="create table good (a int);",
        _2_bad="create table half (a int);\n\ninsert into half\n  values ('x');",
        _3_never="create table never (a int);",
    )
    with pytest.raises(MigrationError) as caught:
        repository.up()
    assert str(caught.value).splitlines() == [
        f'{repository.supabase}/migrations/2_bad.sql:4: invalid input syntax for type integer: "x"',
        "The file was rolled back. Correct it and run the same command again.",
    ]
    assert repository.history() == {"1": State.APPLIED}
    assert repository.rows("select tablename from pg_tables where schemaname = 'proj_shop' order by 1") == [
        ("good",),
    ]
    repository.write(_2_bad="create table half (a int);")
    assert repository.up() == ["2", "3"]


def test_a_deferred_constraint_fails_the_file_that_broke_it(repository: Repository) -> None:
    repository.write(
        _1_a="create table p (a int primary key); create table c (a int references p deferrable initially deferred);",
        _2_b="insert into c values (1);",
    )
    with pytest.raises(MigrationError, match=r"2_b\.sql: insert or update on table \"c\" violates foreign key"):
        repository.up()
    assert repository.history() == {"1": State.APPLIED}


def test_nothing_at_all_runs_if_a_later_file_names_another_project(repository: Repository) -> None:
    repository.write(_1_a="create table a ();", _2_b="create view b as select * from proj_rival.secrets;")
    with pytest.raises(MigrationError, match=r"other-projects: .*\n    2_b\.sql:1 proj_rival\.secrets"):
        repository.up()
    assert repository.history() == {}


ORDINARY = """\
-- As a project with a Supabase of its own writes it.
create extension if not exists plpgsql with schema public;
create type public.mood as enum ('ok', 'low');
create table public.notes (
    id bigint generated always as identity primary key, owner uuid default auth.uid(), mood public.mood, body text
);
alter table public.notes enable row level security;
create policy "own notes" on public.notes for all to authenticated
    using ((select auth.uid()) = owner and auth.role() = 'authenticated');
grant all on table public.notes to anon, authenticated;
grant usage on schema public to anon, authenticated;
alter table public.notes owner to postgres;
create function public.count_notes() returns bigint language plpgsql security definer set search_path = public as $$
begin
    return (select count(*) from public.notes);
end $$;
do $$ begin
    if not exists (select from pg_type where typname = 'level') then
        create type public.level as enum ('x');
    end if;
end $$;
"""


def test_a_file_written_for_a_supabase_of_its_own_is_refused_as_it_is(repository: Repository) -> None:
    repository.write(_1_a=ORDINARY)
    with pytest.raises(
        MigrationError, match=r"or run without --as-is\n    1_a\.sql:3 public\.mood\n    1_a\.sql:4 public\.notes"
    ):
        repository.up(rewrite=False)


def test_adapted_it_works_as_it_would_there(repository: Repository) -> None:
    with repository.plane.admin() as admin:
        admin.execute("drop type if exists proj_rival.level; create type proj_rival.level as enum ('theirs')")
    repository.write(_1_a=ORDINARY)
    assert repository.up() == ["1"]
    assert repository.rows(f"select adapted from {HISTORY}") == [(True,)]
    # The guard asked for its own schema: the rival's type of that name did not count.
    assert repository.rows("select to_regtype('proj_shop.level')::text") == [("proj_shop.level",)]
    claims = {"role": "proj_shop_authenticated", "sub": "6f1c8a52-0000-4000-8000-000000000001"}
    with repository.plane.admin() as admin:
        request = "select set_config('role', %s, true), set_config('request.jwt.claims', %s, true)"
        admin.execute(request, [claims["role"], json.dumps(claims)])
        admin.execute("insert into proj_shop.notes (body) values ('mine')")
        admin.execute("insert into proj_shop.notes (body) values ('mine too')")
        assert admin.execute("select count(*) from proj_shop.notes").fetchall() == [(2,)]
        claims["sub"] = "6f1c8a52-0000-4000-8000-000000000002"
        admin.execute("reset role")
        admin.execute(request, [claims["role"], json.dumps(claims)])
        assert admin.execute("select count(*) from proj_shop.notes").fetchall() == [(0,)]
        assert admin.execute("select proj_shop.count_notes()").fetchall() == [(2,)]
    # `grant all` would have had TRUNCATE in it, which passes row-level security by.
    rights = repository.rows(
        "select distinct privilege_type from information_schema.role_table_grants"
        " where table_schema = 'proj_shop' and table_name = 'notes' and grantee = 'proj_shop_anon' order by 1"
    )
    assert [right for (right,) in rights] == ["DELETE", "INSERT", "SELECT", "UPDATE"]


def test_a_foreign_key_to_auths_users_is_one_to_the_projects_own(repository: Repository) -> None:
    repository.write(
        _1_a="create table profiles (\n    id uuid primary key\n    references auth.users on delete cascade\n);"
    )
    assert repository.up() == ["1"]
    assert repository.rows(
        "select confrelid::regclass::text from pg_constraint where conrelid = 'proj_shop.profiles'::regclass and contype = 'f'"
    ) == [('"proj_shop$auth".users',)]


def test_what_is_left_out_is_chosen_by_name(repository: Repository) -> None:
    text = "create table public.t ();\ncreate trigger new_session after insert on auth.sessions execute function f();"
    repository.write(_1_a=text)
    with pytest.raises(MigrationError, match=r"auth: a project reads, references .*\n    1_a\.sql:2 auth\.sessions"):
        repository.up()
    assert repository.up(leave_out=frozenset({Rule.AUTH})) == ["1"]


def test_an_index_is_built_concurrently_outside_of_a_transaction(repository: Repository) -> None:
    repository.write(_1_a="create table t (a int);", _2_b="create index concurrently if not exists i on t (a);")
    assert repository.up() == ["1", "2"]
    assert repository.rows("select indisvalid from pg_index where indexrelid = 'proj_shop.i'::regclass") == [(True,)]


def test_a_file_without_a_transaction_goes_on_where_it_failed(repository: Repository) -> None:
    text = "-- dataplane: no-transaction\ninsert into t values (1);\ninsert into t values ('x');\ninsert into t values (3);"
    repository.write(_1_a="create table t (a int);", _2_b=text)
    with pytest.raises(MigrationError, match=r"2_b\.sql:3: .*\nThe statements before it have run\. Correct it and run"):
        repository.up()
    assert repository.history() == {"1": State.APPLIED, "2": State.STARTED}
    repository.write(_2_b=text.replace("(1)", "(7)"))
    with pytest.raises(MigrationError, match="its first 1 statements have run and were others: put them back"):
        repository.up()
    repository.write(_2_b=text.replace("'x'", "2"))
    assert repository.up() == ["2"]
    assert repository.rows("select a from proj_shop.t order by 1") == [(1,), (2,), (3,)]
    assert repository.history() == {"1": State.APPLIED, "2": State.APPLIED}


def test_a_file_with_commits_that_it_needs_goes_on_after_the_last_one(repository: Repository) -> None:
    text = """\
begin;
alter type mood add value 'calm';
insert into t values ('sad');
commit;
begin;
insert into t values ('calm');
insert into t values ('wild');
commit;
"""
    repository.write(_1_a="create type mood as enum ('sad'); create table t (m mood);", _2_b=text)
    with pytest.raises(
        MigrationError, match=r"2_b\.sql:7: .*\nIt was rolled back to its last commit\. Correct it and run"
    ):
        repository.up()
    assert repository.history() == {"1": State.APPLIED, "2": State.STARTED}
    assert repository.rows("select m::text from proj_shop.t order by 1") == [("sad",)]
    repository.write(_2_b=text.replace("wild", "calm"))
    assert repository.up() == ["2"]
    assert repository.rows("select m::text from proj_shop.t order by 1") == [("calm",), ("calm",), ("sad",)]
    assert repository.history() == {"1": State.APPLIED, "2": State.APPLIED}


def test_files_and_history_that_diverge_are_refused_with_the_way_out(repository: Repository) -> None:
    repository.write(_1_a="create table a ();", _3_c="create table c ();")
    repository.up()
    repository.write(_1_a="create table a (); -- later")
    with pytest.raises(
        MigrationError, match=r"changed since they were applied: 1_a\.sql\. .*`dataplane migration repair --applied 1`"
    ):
        repository.up()
    with repository.migrator() as migrator:
        migrator.repair(migration_files(repository.supabase), ["1"], applied=True)
    assert repository.up() == []

    repository.write(_2_b="create table b ();")
    with pytest.raises(
        MigrationError, match=r"older than the last one applied \(3_c\.sql\): 2_b\.sql\..*--include-all"
    ):
        repository.up()
    assert repository.up(include_all=True) == ["2"]

    (repository.supabase / "migrations" / "2_b.sql").unlink()
    with pytest.raises(
        MigrationError, match=r"migrations without a file: 2\..*`dataplane migration repair --reverted 2`"
    ):
        repository.up()
    with repository.migrator() as migrator:
        migrator.repair(migration_files(repository.supabase), ["2"], applied=False)
    assert repository.up() == []


def test_a_baseline_is_noted_and_not_run(repository: Repository) -> None:
    repository.write(_1_a="select 1/0;", _2_b="select 1/0;", _3_c="create table c ();")
    with repository.migrator() as migrator:
        files = migration_files(repository.supabase)
        assert [file.version for file in migrator.baseline(files, "2")] == ["1", "2"]
        assert migrator.baseline(files, "2_b.sql") == []
        with pytest.raises(MigrationError, match="there is no migration 9; there are: 1, 2, 3"):
            migrator.baseline(files, "9")
    assert repository.up() == ["3"]
    assert repository.history() == {"1": State.BASELINE, "2": State.BASELINE, "3": State.APPLIED}


def test_what_a_file_sets_for_its_session_is_not_the_next_ones(repository: Repository) -> None:
    repository.write(
        _1_a="select pg_catalog.set_config('search_path', '', false); set statement_timeout = '1ms';",
        _2_b="create table here as select current_setting('statement_timeout') as timeout;",
    )
    repository.up()
    assert repository.rows("select timeout from proj_shop.here") == [("10min",)]


def test_what_a_shared_session_cannot_have_is_named_with_its_line_before_anything_runs(repository: Repository) -> None:
    repository.write(
        _1_a="create table t (a int);",
        _2_b="""
create function empty(name text) returns void language plpgsql as $$
declare
    n bigint;
begin
    execute format('delete from %I', name);
end
$$;
""",
    )
    with pytest.raises(MigrationRefusedError, match="session: other projects' requests") as caught:
        repository.up()
    assert "2_b.sql:6 execute in function empty" in str(caught.value)
    assert "api: dedicated" in str(caught.value)
    assert repository.history() == {}


def test_the_database_judges_as_the_check_before_does(repository: Repository) -> None:
    text = "create function f() returns void language plpgsql as $$begin\nreset all; end$$"
    lease = repository.plane.lease("shop", AccessLevel.OWNER).connection_string
    with psycopg.connect(lease) as owner, pytest.raises(psycopg.errors.InsufficientPrivilege) as caught:
        owner.execute(text.encode())
    assert "line 2 of its text: reset" in str(caught.value)
    repository.write(_1_a=text + ";")
    with pytest.raises(MigrationRefusedError, match=r"1_a\.sql:2 reset in function f"):
        repository.up()
    # A function that only reads is let in by both.
    repository.write(_1_a=text.replace("plpgsql as", "plpgsql stable as") + ";")
    assert repository.up() == ["1"]


def test_two_runs_at_once_take_turns(repository: Repository) -> None:
    repository.write(_1_a="create table t (a int); select pg_sleep(1);")
    repository.write(**{f"_{n}_x": f"insert into t values ({n}); select pg_sleep(0.1);" for n in range(2, 7)})
    with ThreadPoolExecutor(3) as pool:
        applied = [version for run in [pool.submit(repository.up) for _ in range(3)] for version in run.result()]
    assert sorted(applied) == ["1", "2", "3", "4", "5", "6"]
    assert repository.rows("select a from proj_shop.t order by 1") == [(n,) for n in range(2, 7)]


def test_a_run_that_has_to_wait_too_long_says_for_what(repository: Repository) -> None:
    repository.write(_1_a="create table t (a int);")
    repository.up()
    until_told = "do $$ begin while not exists (select from t) loop perform pg_sleep(0.1); end loop; end $$;"
    repository.write(_2_b=until_told)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(repository.up)
        try:
            assert wait_until(
                lambda: bool(
                    repository.rows("select from pg_stat_activity where query ~ '^do .* exists .select from'")
                ),
                60,
            )
            with pytest.raises(
                MigrationError, match="another run of shop's migrations has been under way for 1 s: wait for it"
            ):
                repository.up(Limits(turn_seconds=1))
        finally:
            with repository.plane.admin() as admin:
                admin.execute("insert into proj_shop.t values (1)")
        assert first.result() == ["2"]


def test_another_tenant_cannot_hold_a_run_up(repository: Repository) -> None:
    repository.write(_1_a="create table t ();")
    repository.up()
    rival = repository.plane.lease("rival", AccessLevel.OWNER)
    with psycopg.connect(rival.connection_string) as session, pytest.raises(psycopg.errors.InsufficientPrivilege):
        session.execute(f"lock table {HISTORY}".encode())


def test_a_table_in_use_is_not_waited_for_while_others_wait_behind(repository: Repository) -> None:
    repository.write(_1_a="create table t ();")
    repository.up()
    repository.write(_2_b="alter table t add column a int;")
    with repository.plane.admin() as reader:
        reader.execute("lock table proj_shop.t in access share mode")
        began = time.monotonic()
        with pytest.raises(MigrationError, match=r"2_b\.sql:1: .*lock timeout\n  Somebody holds a lock on the table"):
            repository.up(Limits(lock_seconds=1))
        assert time.monotonic() - began < 60, "the table is in use for as long as this lasts"
    assert repository.up() == ["2"]


def test_a_statement_that_takes_too_long_is_cancelled(repository: Repository) -> None:
    repository.write(_1_a="select pg_sleep(300);")
    with pytest.raises(
        MigrationError, match=r"1_a\.sql:1: canceling statement .*\n  It took longer than --statement-timeout"
    ):
        repository.up(Limits(statement_seconds=1))


def test_a_migration_may_take_longer_than_a_lease_lasts(repository: Repository) -> None:
    repository.write(_1_a="create table t (); select pg_sleep(14);")
    assert repository.up() == ["1"]


def test_the_lease_is_given_back_at_the_end(repository: Repository) -> None:
    """Of a project whose leases last longer than this waits."""
    plane = LocalDataPlane(repository.plane.local_env)
    with owner_session(plane.client("rival", AccessLevel.OWNER, None), plane.binding("rival")) as session:
        row = session.execute("select session_user").fetchone()
    assert row is not None
    assert row[0].startswith("lease_proj_rival_owner")
    assert wait_until(lambda: not repository.rows("select from pg_roles where rolname = %s", row[0]), 60)


def test_the_history_is_nothing_for_the_api(repository: Repository) -> None:
    repository.write(_1_a="create table t ();")
    repository.up()
    for level in (AccessLevel.ANON, AccessLevel.AUTHENTICATED, AccessLevel.SERVICE_ROLE):
        lease = repository.plane.lease("shop", level, "olga")
        with psycopg.connect(lease.connection_string) as session, pytest.raises(psycopg.errors.InsufficientPrivilege):
            session.execute(f"select * from {HISTORY}".encode())


def test_who_may_not_be_owner_may_not_migrate(repository: Repository) -> None:
    data_plane = LocalDataPlane(repository.plane.local_env)
    client = data_plane.client("shop", AccessLevel.OWNER, "vera")
    with (
        pytest.raises(LeaseError, match="you may not use shop as owner"),
        owner_session(client, data_plane.binding("shop")),
    ):
        pass


def test_seeds_run_with_the_same_walls(repository: Repository) -> None:
    repository.write(_1_a="create table t (a int primary key);")
    repository.up()
    seed = repository.supabase / "seed.sql"
    seed.write_text("insert into public.t values (1) on conflict do nothing;\n")
    with repository.migrator() as migrator:
        migrator.seed(seed_files(repository.supabase))
        migrator.seed(seed_files(repository.supabase))
        seed.write_text("insert into t values (2);\ninsert into auth.users (id) values (gen_random_uuid());\n")
        with pytest.raises(
            MigrationError, match=r"nothing was run:\n  auth: .*\n    seed\.sql:2 insert into auth\.users"
        ):
            migrator.seed(seed_files(repository.supabase), again=True)
    assert repository.rows("select a from proj_shop.t") == [(1,)]


# Faults


def test_postgresql_restarted_in_the_middle_loses_nothing_but_the_file_under_way(repository: Repository) -> None:
    repository.write(
        _1_a="create table a ();", _2_b="create table b (); select pg_sleep(300);", _3_c="create table c ();"
    )
    postgres = repository.plane.local_env.servers.postgres
    failed: list[BaseException] = []

    def run() -> None:
        try:
            repository.up()
        except MigrationError as error:
            failed.append(error)

    running = threading.Thread(target=run)
    running.start()
    assert wait_until(
        lambda: bool(repository.rows("select from pg_stat_activity where query ~ '^select pg_sleep'")), 60
    )
    postgres.stop()
    postgres.start()
    running.join(120)
    message = str(failed[0])
    assert "the connection was lost while 2_b.sql ran" in message
    assert "1 files before it were applied. It was rolled back; run the same command again" in message
    assert repository.history() == {"1": State.APPLIED}
    repository.write(_2_b="create table b ();")
    assert repository.up() == ["2", "3"]


def test_postgresql_that_is_down_is_told_before_anything_runs(repository: Repository) -> None:
    repository.write(_1_a="create table a ();")
    postgres = repository.plane.local_env.servers.postgres
    postgres.stop()
    try:
        with pytest.raises((LeaseError, MigrationError), match="shop"):
            repository.up()
    finally:
        postgres.start()
    assert repository.up() == ["1"]


def test_openbao_sealed_in_the_middle_does_not_end_a_run(repository: Repository) -> None:
    repository.write(_1_a="create table a (); select pg_sleep(5);")
    openbao = repository.plane.local_env.servers.openbao
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(repository.up)
        assert wait_until(
            lambda: bool(repository.rows("select from pg_stat_activity where query ~ '^select pg_sleep'")), 60
        )
        openbao.client().sys.seal()
        try:
            assert first.result(120) == ["1"]
            with pytest.raises(Exception, match="sealed"):
                repository.up()
        finally:
            openbao.start()
    assert repository.up() == []


# The command


class Command:
    """`dataplane`, as a person runs it in the repository."""

    def __init__(self, repository: Repository, log: Path) -> None:
        self._folder = repository.supabase.parent
        home = repository.plane.local_env.servers.home.path
        self.environment = {
            **os.environ,
            "DATA_PLANE_HOME": str(home),
            "DATA_PLANE_ENGINE": "local",
            "COLUMNS": "200",
            LOG_VARIABLE: str(log),
        }
        self.environment.pop("VAULT_TOKEN", None)

    def arguments(self, *arguments: str) -> list[str]:
        return [
            str(CHECKOUT / "dataplane"),
            "migration",
            arguments[0],
            "-p",
            "shop",
            "--user",
            "olga",
            *arguments[1:],
        ]

    def __call__(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.arguments(*arguments), cwd=self._folder, env=self.environment, capture_output=True, text=True
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    def started(self, *arguments: str, sigint: signal.Handlers = signal.SIG_DFL) -> "subprocess.Popen[str]":
        """Started with SIGINT as a terminal's job has it, or as a shell's background job has it: ignored."""
        before = signal.signal(signal.SIGINT, sigint)  # a child gets what its parent has
        try:
            return subprocess.Popen(
                self.arguments(*arguments),
                cwd=self._folder,
                env=self.environment,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        finally:
            signal.signal(signal.SIGINT, before)


@pytest.fixture
def migrate(repository: Repository, tmp_path: Path) -> Command:
    return Command(repository, tmp_path / "audit.jsonl")


def test_a_dry_run_shows_the_rewrite_and_changes_nothing(repository: Repository, migrate: Command) -> None:
    repository.write(_1_a="create table public.t (a int);\ncreate schema if not exists public;\n")
    ran = migrate("up", "--dry-run")
    shown = ran.stdout
    assert "adapted: public 1, there already 1" in ran.stderr
    assert "-create table public.t (a int);" in shown
    assert "+create table proj_shop.t (a int);" in shown
    assert "+-- left out: the project's schema is there" in shown
    assert "1 migration would be applied; 0 are" in shown
    assert repository.rows("select from pg_tables where schemaname = 'proj_shop'") == []
    assert "nothing was run:" in migrate("up", "--as-is", "--dry-run", code=1).stderr


def test_the_command_migrates_tells_the_state_and_keeps_an_audit_log(
    repository: Repository, migrate: Command, tmp_path: Path
) -> None:
    repository.write(_1_a="create table t (a int);\ncreate view v as select a from t;")
    done = migrate("up")
    assert "1 migration applied to proj_shop; 0 were before" in done.stdout
    shown = "view proj_shop.v shows all rows of proj_shop.t, past row-level security, to proj_shop_anon, "
    assert done.stderr.count(shown) == 1
    assert "alter view proj_shop.v set (security_invoker = true), or revoke select on proj_shop.v from" in done.stderr
    assert "Without a policy, so only owner and service role see rows: t" in done.stderr
    repository.write(_2_b="create table u ();")
    states = {row["version"]: row["state"] for row in json.loads(migrate("status", "--json").stdout)}
    assert states == {"1": "applied", "2": "pending"}
    migrate("baseline", "2")
    migrate("repair", "--reverted", "2")
    migrate("up")
    assert [line.split()[2] for line in migrate("status").stdout.splitlines()[1:]] == ["applied", "applied"]
    entries = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    ended = [(entry["action"], entry["outcome"]) for entry in entries if entry["event"] == "end"]
    assert ended == [
        ("migrate_up", "done"),
        ("migrate_baseline", "done"),
        ("migrate_repair", "done"),
        ("migrate_up", "done"),
    ]
    assert entries[1]["applied"] == ["1"]
    assert entries[0]["actor"] == "olga"


def test_a_killed_run_leaves_a_state_from_which_the_same_command_goes_on(
    repository: Repository, migrate: Command
) -> None:
    repository.write(_1_a="create table a ();", _2_b="create table b (); select pg_sleep(300);")
    process = migrate.started("up")
    assert wait_until(
        lambda: bool(repository.rows("select from pg_stat_activity where query ~ '^select pg_sleep'")), 60
    )
    process.send_signal(signal.SIGKILL)
    process.communicate()
    # Its session ends with its lease at the latest: nobody renews it any more.
    gone = "select from pg_stat_activity where usename ~ '^lease_proj_shop_owner'"
    assert wait_until(lambda: not repository.rows(gone), 120)
    repository.write(_2_b="create table b ();")
    assert "1 migration applied to proj_shop; 1 were before" in migrate("up").stdout


@pytest.mark.parametrize(
    ("sent", "sigint", "code"),
    [
        (signal.SIGINT, signal.SIG_DFL, 128 + signal.SIGINT),
        (signal.SIGTERM, signal.SIG_DFL, 128 + signal.SIGTERM),
        (signal.SIGTERM, signal.SIG_IGN, 128 + signal.SIGTERM),
    ],
    ids=["Ctrl-C", "terminated", "terminated in the background"],
)
def test_an_interrupted_run_cancels_its_statement(
    repository: Repository, migrate: Command, sent: signal.Signals, sigint: signal.Handlers, code: int
) -> None:
    repository.write(_1_a="create table a (); select pg_sleep(300);")
    process = migrate.started("up", sigint=sigint)
    sleeping = "select from pg_stat_activity where query ~ '^select pg_sleep' and state = 'active'"
    assert wait_until(lambda: bool(repository.rows(sleeping)), 60)
    process.send_signal(sent)
    _, said = process.communicate(timeout=120)
    assert process.returncode == code
    assert "interrupted; the same command can be run again" in said
    assert not repository.rows(sleeping)
    # A login that a lock keeps from being dropped is dropped by the guard's next sweep.
    leases = "select from pg_roles where rolname ~ '^lease_proj_shop_owner'"
    assert not repository.rows(f"{leases} and rolcanlogin")
    assert wait_until(lambda: not repository.rows(leases), 60)
    assert repository.history() == {}


def test_a_migration_with_a_secret_in_it_is_not_printed(repository: Repository, migrate: Command) -> None:
    repository.write(_1_a="create table t (a int check (a > 0), b text);\ninsert into t values (-1, 'hunter2-secret');")
    said = migrate("up", code=1).stderr
    assert "violates check constraint" in said
    assert "hunter2-secret" not in said


def test_an_extension_of_the_central_stack_can_be_used_and_none_made(
    new_local_env: NewLocalEnv, tmp_path: Path
) -> None:
    local_env = new_local_env({"shop.yaml": SHOP})
    settings = local_env.root / "stacks" / "Pulumi.local-central.yaml"
    with local_env.servers.postgres.connect() as admin:
        found = admin.execute("select name from pg_available_extensions where name in ('vector', 'hstore')").fetchall()
    assert found, "this PostgreSQL has none of the extensions that the test knows"
    ((extension,), *_) = found
    settings.write_text(settings.read_text() + f"  supabase-data-plane:extensions: [{extension}]\n")
    bring_up(local_env)
    first, second = bring_up(local_env), bring_up(local_env)
    assert [run.updated for run in (*first, *second)] == [0] * len([*first, *second])
    repository = Repository(Plane(local_env), tmp_path)
    value = "'[1,2]'" if extension == "vector" else "'a=>1'"
    repository.write(
        _1_a=f"create extension if not exists {extension} with schema extensions;\n"
        f"create table t (v {extension} default {value});\ninsert into t default values;",
        _2_b="create extension tablefunc;",
    )
    with pytest.raises(
        MigrationError, match=r"extensions: ask for it in `extensions` .*\n    2_b\.sql:1 create extension tablefunc"
    ):
        repository.up()
    (repository.supabase / "migrations" / "2_b.sql").unlink()
    assert repository.up() == ["1"]
    assert repository.rows("select count(*) from proj_shop.t") == [(1,)]
