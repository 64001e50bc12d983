"""Resource fights: one project takes what it can of the server, and the others, the services and `up` go on.

Each attack is one of alpha's; the guard that the local servers start has to end it. What "the others" is stands in
:func:`others_work`, which is asked again until it holds or the guard's time is over.
"""

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import psycopg
import pytest
from psycopg import errors, sql

from components.central.files import platform_sql
from data_plane.connector.leases import Lease
from data_plane.errors import LeaseError
from data_plane.model.naming import AccessLevel
from data_plane.model.timings import GUARD_PERIOD_SECONDS as PERIOD_SECONDS
from tests.security.world import ATTACKER, CELL, VICTIM, Connection, World, begin_request

_WITHIN_SECONDS = 15 * PERIOD_SECONDS
"""Two runs of the guard at most, the second of which closes what the first could not, on a machine that is as busy as
can be; still less than what is to be ended would take by itself."""
_MEASURED_WITHIN_SECONDS = 180
"""Storage is measured every ten seconds, and less often where that takes more than half a second."""


@pytest.fixture(scope="module", autouse=True)
def _only_the_guard_ends_sessions(world: World) -> Iterator[None]:
    """Alpha's sessions of other tests would count as its own."""
    for session in (*world._sessions.values(), *world._owners.values(), *world._others):
        session.close()
    for kept in (world._sessions, world._owners, world._others):
        kept.clear()
    yield
    with world.admin() as admin:
        admin.execute("delete from data_plane.guard_actions")


@pytest.fixture(autouse=True)
def _limits_as_declared(world: World) -> Iterator[None]:
    with world.admin() as admin:
        before = admin.execute("select * from data_plane.limits where tenant = %s", [ATTACKER.schema]).fetchone()
        forget_actions(admin)
    yield
    with world.admin() as admin:
        admin.execute("delete from data_plane.limits where tenant = %s", [ATTACKER.schema])
        values = sql.SQL(", ").join(map(sql.Literal, before or ()))
        admin.execute(sql.SQL("insert into data_plane.limits values ({})").format(values))
        # `suspended` counts these, and the next test is another day.
        forget_actions(admin)


def forget_actions(admin: Connection) -> None:
    """As if the guard had never done anything; a run that is at it has recorded what it did."""
    admin.execute("select from data_plane.guard for update")
    admin.execute("delete from data_plane.guard_actions")


def limit(world: World, **limits: int) -> None:
    with world.admin() as admin:
        for name, value in limits.items():
            admin.execute(
                sql.SQL("update data_plane.limits set {} = %s where tenant = %s").format(sql.Identifier(name)),
                [value, ATTACKER.schema],
            )


def connect(lease: Lease, **options: Any) -> Connection:
    return psycopg.connect(lease.connection_string, connect_timeout=30, autocommit=True, **options)


def others_work(world: World) -> None:
    """Another project takes a lease and makes a table, Auth signs somebody up, PostgREST serves, and `up` runs."""
    with connect(world.plane.lease(VICTIM.slug, AccessLevel.OWNER)) as owner:
        owner.execute("set lock_timeout = '5s'")
        owner.execute("create table made_meanwhile (a int); insert into made_meanwhile values (1)")
        owner.execute("drop table made_meanwhile")
    with world.login("supabase_auth_admin") as auth, auth.transaction(force_rollback=True):
        auth.execute("insert into auth.users (id, email) values (gen_random_uuid(), 'new@example.org')")
    with world.login(CELL.login) as api, api.transaction(force_rollback=True):
        begin_request(api, VICTIM, AccessLevel.ANON)
        api.execute("select count(*) from notes")
    with world.admin() as admin:
        admin.execute("set lock_timeout = '5s'; set statement_timeout = '20s'")
        admin.execute(platform_sql().encode())


def assert_others_work(world: World, seconds: float = _WITHIN_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            others_work(world)
        except (psycopg.Error, LeaseError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
        else:
            return


def actions(world: World, what: str) -> list[tuple[Any, ...]]:
    return world.rows(
        "select pid, value, bound from data_plane.guard_actions where what = %s and tenant = %s", what, ATTACKER.schema
    )


def wait_for(condition: Callable[[], bool], seconds: float = _WITHIN_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the guard did not act in time"
        time.sleep(0.2)


def is_over(session: Connection) -> bool:
    try:
        session.execute("select 1")
    except psycopg.OperationalError:
        return True
    return False


@contextmanager
def in_background(*works: Callable[[], None]) -> Iterator[None]:
    """Runs what ends with its session."""

    def run(work: Callable[[], None]) -> None:
        with suppress(psycopg.Error):
            work()

    threads = [threading.Thread(target=run, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join(_WITHIN_SECONDS)
        assert not thread.is_alive()


# Keeps what it has when there is no more to be had: an error in a block gives back that block's locks alone.
FILL_LOCK_TABLE = """
do $$
begin
    for part in 0..3000 loop
        begin
            perform pg_catalog.pg_advisory_xact_lock({first} + part * 100 + i) from generate_series(1, 100) i;
        exception when out_of_memory then
            exit;
        end;
    end loop;
    perform pg_catalog.pg_sleep(120);
end
$$
"""


def fill_lock_table(
    session: Connection, number: int, begin: Callable[[Connection], None] = lambda _session: None
) -> None:
    """Takes all that there is, again and again: where another session has it, even the first statement gets none."""
    while True:
        with suppress(errors.OutOfMemory), session.transaction():
            begin(session)
            session.execute(FILL_LOCK_TABLE.format(first=number * 1_000_000).encode())


@pytest.mark.parametrize("level", [AccessLevel.ANON, AccessLevel.OWNER])
def test_a_full_lock_table_is_emptied(world: World, level: AccessLevel) -> None:
    lease = world.plane.lease(ATTACKER.slug, level)
    sessions = [connect(lease) for _ in range(3)]
    with in_background(*(lambda s=s, n=n: fill_lock_table(s, n) for n, s in enumerate(sessions))):
        assert_others_work(world)
    wait_for(lambda: all(map(is_over, sessions)))
    wait_for(lambda: bool(actions(world, "locks")) and bool(actions(world, "lease closed")))
    with pytest.raises(psycopg.OperationalError, match="too many connections for role"):
        connect(lease)


def test_a_lock_table_filled_through_the_api_is_emptied(world: World) -> None:
    with ExitStack() as stack:
        sessions = [stack.enter_context(world.login(CELL.login)) for _ in range(2)]

        def begin(session: Connection) -> None:
            begin_request(session, ATTACKER, AccessLevel.ANON)

        with in_background(*(lambda s=s, n=n: fill_lock_table(s, n, begin) for n, s in enumerate(sessions))):
            assert_others_work(world)
        wait_for(lambda: all(map(is_over, sessions)))


def test_who_holds_up_the_notification_queue_is_ended(world: World) -> None:
    lease = world.plane.lease(ATTACKER.slug, AccessLevel.ANON)
    listener, *senders = (connect(lease) for _ in range(3))
    for statement in ("listen fight", "begin", "select 1"):
        listener.execute(statement)

    def send(session: Connection) -> None:
        while True:
            session.execute("select pg_notify('fight', repeat('x', 7900) || g) from generate_series(1, 2000) g")

    with in_background(*(lambda s=s: send(s) for s in senders)):
        wait_for(lambda: is_over(listener), 60)
        assert_others_work(world)
    wait_for(lambda: bool(actions(world, "lease closed")))
    assert actions(world, "notification queue")
    wait_for(lambda: world.rows("select pg_notification_queue_usage() < 0.05") == [(True,)])


def test_a_project_is_held_to_its_connections(world: World) -> None:
    held: list[Connection] = []
    try:
        with world.admin() as admin:
            # However slowly they come here, the guard sees all of them at once.
            admin.execute("set idle_in_transaction_session_timeout = 0")
            admin.execute("select from data_plane.guard for update")
            for _ in range(8):
                lease = world.plane.lease(ATTACKER.slug, AccessLevel.ANON)
                held += [connect(lease) for _ in range(20)]
        assert_others_work(world)
        wait_for(lambda: world.rows(_SESSIONS_OF_ALPHA) <= [(20,)])
        wait_for(lambda: bool(actions(world, "lease closed")))
        assert actions(world, "connections")
        # Fewer, since a lease whose sessions were too many is closed with all of them.
        assert sum(not is_over(session) for session in held) <= 20
    finally:
        for session in held:
            session.close()


_SESSIONS_OF_ALPHA = "select count(*) from pg_stat_activity where usename like 'lease\\_proj\\_alpha\\_%%'"


def test_a_project_has_no_more_leases_than_its_limit(world: World) -> None:
    (present,) = world.rows(
        "select count(*) from pg_auth_members m join pg_roles l on l.oid = m.member"
        " where m.roleid::regrole::text like %s and l.rolname like 'lease\\_%%'"
        " and l.rolcanlogin and l.rolvaliduntil > clock_timestamp()",
        f"{ATTACKER.schema}\\_%",
    )
    limit(world, leases=present[0] + 1)
    world.plane.lease(ATTACKER.slug, AccessLevel.ANON)
    with pytest.raises(LeaseError, match=f"proj_alpha has its {present[0] + 1} leases"):
        world.plane.lease(ATTACKER.slug, AccessLevel.OWNER)
    world.plane.lease(VICTIM.slug, AccessLevel.OWNER)


MANY = {
    "tables": "create table {me}.many_{number} ()",
    "indexes of one table": "create index on {me}.wordless (a)",
    "views": "create view {me}.many_{number} as select 1 as a",
    "sequences": "create sequence {me}.many_{number}",
    "functions": "create function {me}.many_{number}() returns int return 1",
    "types": "create type {me}.many_{number} as ()",
    "domains": "create domain {me}.many_{number} as text",
}


@pytest.mark.parametrize("what", MANY)
def test_a_project_makes_no_more_objects_than_its_limit_though_they_are_empty(world: World, what: str) -> None:
    with connect(world.plane.lease(ATTACKER.slug, AccessLevel.OWNER)) as owner:
        owner.execute(f"create table {ATTACKER.schema}.wordless (a int)")
        try:
            ((present,),) = world.rows("select data_plane.count_objects(%s)", ATTACKER.schema)
            limit(world, objects=present + 3)
            loop = "do $$ begin for number in 1 .. {times} loop execute format({text}, number); end loop; end $$"
            text = MANY[what].format(me=ATTACKER.schema, number="%s")
            with owner.transaction(force_rollback=True):
                owner.execute(sql.SQL(loop).format(times=sql.Literal(3), text=sql.Literal(text)))
            with pytest.raises(errors.ConfigurationLimitExceeded, match=f"{ATTACKER.schema} has its {present + 3} obj"):
                owner.execute(sql.SQL(loop).format(times=sql.Literal(4), text=sql.Literal(text)))
        finally:
            owner.execute(f"drop table {ATTACKER.schema}.wordless")
            limit(world, objects=5000)


def test_a_project_whose_leases_are_closed_again_and_again_gets_none_for_a_while(world: World) -> None:
    with world.admin() as admin:
        admin.execute(
            "insert into data_plane.guard_actions (tenant, what, at)"
            " select %s, 'lease closed', now() - g * interval '2 s' from generate_series(0, 9) g",
            [ATTACKER.schema],
        )
    with pytest.raises(LeaseError, match="proj_alpha gets no lease for a minute"):
        world.plane.lease(ATTACKER.slug, AccessLevel.ANON)
    world.plane.lease(VICTIM.slug, AccessLevel.ANON)


OVERLONG = {
    "a statement": ("statement", "set statement_timeout = 0; select pg_sleep(60)"),
    "a statement that catches being cancelled": (
        "statement",
        "set statement_timeout = 0; do $$ begin loop begin perform pg_sleep(60); exception when query_canceled then end; end loop; end $$",
    ),
    "a transaction": ("transaction", "begin; select 1"),
    "a snapshot": ("transaction", "begin isolation level repeatable read; select 1"),
    "an idle transaction": ("idle in transaction", "set idle_in_transaction_session_timeout = 0; begin; select 1"),
}


@pytest.mark.parametrize("name", OVERLONG)
def test_what_lasts_too_long_ends_whatever_the_session_sets(world: World, name: str) -> None:
    what, statement = OVERLONG[name]
    bounds = {"statement_timeout": 1000, "transaction_timeout": 1000, "idle_in_transaction_timeout": 1000}
    limit(
        world, **{**bounds, "transaction_timeout" if what == "transaction" else f"{what.replace(' ', '_')}_timeout": 2}
    )
    if what == "transaction":
        limit(world, statement_timeout=1)
    session = connect(world.plane.lease(ATTACKER.slug, AccessLevel.SERVICE_ROLE))
    began = time.monotonic()
    with suppress(psycopg.OperationalError):
        session.execute(statement.encode())
        while not is_over_quietly(session):
            time.sleep(0.2)
    assert time.monotonic() - began < 2 + 5 + _WITHIN_SECONDS
    wait_for(lambda: bool(actions(world, what)))
    session.close()


def is_over_quietly(session: Connection) -> bool:
    """Whether a session is gone, without a statement that would make it less idle."""
    with suppress(psycopg.Error):
        session.pgconn.consume_input()
    return session.closed


def test_the_owner_of_a_migration_may_take_longer_than_the_others(world: World) -> None:
    limit(world, statement_timeout=1)
    with connect(world.plane.lease(ATTACKER.slug, AccessLevel.OWNER)) as owner:
        owner.execute("set statement_timeout = 0")
        owner.execute(sql.SQL("select pg_sleep({})").format(1 + 2 * PERIOD_SECONDS))
    assert not actions(world, "statement")


def test_a_request_of_the_shared_api_lasts_no_longer_than_any_project_on_it_may_take(world: World) -> None:
    limits = world.rows("select tenant, statement_timeout from data_plane.limits")
    with world.admin() as admin:
        admin.execute("update data_plane.limits set statement_timeout = 2")
    try:
        with world.login(CELL.login) as api:
            api.execute("begin")
            begin_request(api, ATTACKER, AccessLevel.ANON)
            with pytest.raises(psycopg.errors.QueryCanceled):
                api.execute("set local statement_timeout = 0; select pg_sleep(60)")
    finally:
        with world.admin() as admin:
            for tenant, seconds in limits:
                admin.execute(
                    "update data_plane.limits set statement_timeout = %s where tenant = %s", [seconds, tenant]
                )
    canceled = "select tenant, login from data_plane.guard_actions where what = 'statement'"
    wait_for(lambda: world.rows(canceled) == [(None, CELL.login)])


def test_an_old_snapshot_ends_before_its_time(world: World) -> None:
    with world.admin() as admin:
        admin.execute("update data_plane.guard set snapshot_age = 50")
    try:
        session = connect(world.plane.lease(ATTACKER.slug, AccessLevel.ANON))
        session.execute("begin isolation level repeatable read; select 1")
        with world.admin() as admin:
            admin.autocommit = True
            for _ in range(60):
                admin.execute("select pg_current_xact_id()")
        wait_for(lambda: bool(actions(world, "snapshot")), 10 + _WITHIN_SECONDS)
        wait_for(lambda: is_over(session))
    finally:
        with world.admin() as admin:
            admin.execute("update data_plane.guard set snapshot_age = default")


REFUSED = {
    "write-ahead log without a table": "select pg_logical_emit_message(false, 'x', repeat('x', 1000))",
    "a lock that outlives the request": "select pg_advisory_lock(7264190355)",
    "files without bound": "set temp_file_limit = -1",
    "files without bound, next time": "alter role {role} set temp_file_limit = -1",
    "a transaction without a session": "begin; prepare transaction 'x'",
    "what the guard knows": "select * from data_plane.limits",
    "what the guard did": "delete from data_plane.guard_actions",
    "the guard's lock": "select * from data_plane.guard for update",
    "the guard": "select data_plane.enforce_limits()",
}


@pytest.mark.parametrize("level", list(AccessLevel))
@pytest.mark.parametrize("what", REFUSED)
def test_no_lease_has(world: World, level: AccessLevel, what: str) -> None:
    refusals = (psycopg.errors.InsufficientPrivilege, psycopg.errors.ObjectNotInPrerequisiteState)
    with connect(world.plane.lease(ATTACKER.slug, level)) as session, pytest.raises(refusals):
        session.execute(REFUSED[what].format(role=ATTACKER.role(level)).encode())


def test_memory_without_bound_ends_in_an_error_of_the_statement(world: World) -> None:
    (started,) = world.rows("select pg_postmaster_start_time()")
    bystander = world.login(CELL.login)
    limit(world, statement_timeout=600)
    with connect(world.plane.lease(ATTACKER.slug, AccessLevel.ANON)) as session:
        session.execute("set work_mem = '2147483647kB'")
        session.execute("set statement_timeout = 0")
        with pytest.raises(psycopg.errors.OutOfMemory):
            session.execute(
                "select array_length(array_agg(g || repeat('x', 1000)), 1) from generate_series(1, 3000000) g"
            )
        session.execute("select 1")
    bystander.execute("select 1")
    assert world.rows("select pg_postmaster_start_time()") == [started]


def test_a_full_tenant_reads_and_deletes_and_does_not_grow(world: World) -> None:
    megabyte = 1 << 20
    with connect(world.plane.lease(ATTACKER.slug, AccessLevel.OWNER)) as owner:
        owner.execute(
            "create table filled (a int, body text); create policy everything on filled using (true);"
            " grant insert (a) on filled to proj_alpha_anon"
        )
        owner.execute("alter table filled alter body set storage external")
        rights = "select oid::regclass::text, relacl from pg_class where relowner = 'proj_alpha_owner'::regrole and relkind in ('r', 'p') order by 1"
        before = _effective(world, rights)
        limit(world, storage=20 * megabyte)
        # Ended in the middle of one, or refused the next.
        with suppress(psycopg.OperationalError, psycopg.errors.InsufficientPrivilege):
            for _ in range(40):
                owner.execute("insert into filled select g, repeat('x', 1000) from generate_series(1, 1000) g")
                time.sleep(0.1)
    wait_for(lambda: bool(actions(world, "storage full")), _MEASURED_WITHIN_SECONDS)
    (used,) = world.rows("select bytes from data_plane.storage_use where tenant = 'proj_alpha'")
    with connect(world.plane.lease(ATTACKER.slug, AccessLevel.OWNER)) as owner:
        for growth in (
            "insert into filled values (1)",
            "update filled set body = body || 'x'",
            "insert into filled (a) values (1) on conflict do nothing",
            "merge into filled f using (values (1)) v (a) on false when not matched then insert values (1)",
            "insert into notes (body) values ('x')",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                owner.execute(growth.encode())
        for way_out in (
            "grant insert on filled to current_user",
            "grant insert on all tables in schema proj_alpha to proj_alpha_owner",
            "create table another (a int)",
            "create table another as select * from filled",
            "select * into another from filled",
            "create materialized view another as select * from filled",
            "create index on filled (body)",
            "alter table filled add column more text default repeat('x', 1000)",
            "do $$ begin execute 'grant update on filled to public'; end $$",
        ):
            with pytest.raises(psycopg.errors.DiskFull, match="the storage of proj_alpha is full"):
                owner.execute(way_out.encode())
        assert owner.execute("select count(*) > 0 from filled").fetchone() == (True,)
        owner.execute("delete from filled where a < 500")
        owner.execute("vacuum full filled")
    with connect(world.plane.lease(VICTIM.slug, AccessLevel.OWNER)) as other:
        other.execute("create table grows (a int); insert into grows values (1); drop table grows")
    assert used[0] < 60 * megabyte
    with connect(world.plane.lease(ATTACKER.slug, AccessLevel.OWNER)) as owner:
        owner.execute("truncate filled")
        wait_for(lambda: bool(actions(world, "storage has room again")), _MEASURED_WITHIN_SECONDS)
        owner.execute("insert into filled values (1)")
        assert _effective(world, rights) == before
        owner.execute("drop table filled")


def _effective(world: World, query: str) -> dict[str, list[str]]:
    """Privileges by table, whether they are written out or follow from owning it."""
    return {
        name: sorted(re.findall(r"[^{},]+", str(acl)))
        for name, acl in world.rows(
            query.replace("relacl", "coalesce(relacl, acldefault('r', relowner))::text as relacl")
        )
    }


def test_a_table_filled_inside_of_one_transaction_is_noticed(world: World) -> None:
    limit(world, storage=20 << 20)
    session = connect(world.plane.lease(ATTACKER.slug, AccessLevel.OWNER))
    try:
        with suppress(psycopg.OperationalError):
            session.execute("set statement_timeout = 0")
            session.execute(
                "begin; create table hidden as select repeat(g::text, 100) as body from generate_series(1, 100000) g"
            )
            wait_for(lambda: is_over(session), _MEASURED_WITHIN_SECONDS)
        wait_for(lambda: bool(actions(world, "storage")))
    finally:
        session.close()
    wait_for(
        lambda: world.rows("select is_full from data_plane.storage_use where tenant = 'proj_alpha'") == [(False,)],
        _MEASURED_WITHIN_SECONDS,
    )


def test_temporary_and_ordinary_tables_in_postgrests_ears(world: World) -> None:
    with world.admin() as ear, world.admin() as admin:
        ear.autocommit = admin.autocommit = True
        ear.execute("listen pgrst")
        for statement in (
            "create temp table t_x (a int)",
            "alter table t_x add b int",
            "create temp view v_x as select 1",
            "drop view v_x",
            "drop table t_x",
            "select 1 as a into temp t_y",
            "drop table t_y",
        ):
            admin.execute(statement.encode())
        assert not list(ear.notifies(timeout=0.5))
        admin.execute("create table public.seen (a int); drop table public.seen")
        heard = ear.notifies(timeout=_WITHIN_SECONDS, stop_after=2)
        assert {notice.payload for notice in heard} == {"reload config", "reload schema"}


# Every function of pg_catalog that changes something and that everybody may call: what bounds it. A function that none
# of these describes is one that nobody has thought about.
DECIDED = {
    r"pg_(try_)?advisory_xact_lock(_shared)?": "a lock of the transaction: the guard counts them",
    r"pg_advisory_unlock(_shared|_all)?": "gives locks back",
    r"pg_notify": "a place in the queue: the guard ends who holds it up",
    r"pg_sleep(_for|_until)?": "a statement's time",
    r"lo_.*|loread|lowrite": "large objects count as storage",
    r"nextval|setval|currval|lastval|pg_sequence_last_value|pg_get_sequence_data": "the project's own sequences",
    r"pg_(cancel|terminate)_backend": "sessions of its own role",
    r"pg_export_snapshot|pg_current_xact_id.*|txid_.*|pg_xact_.*|pg_last_committed_xact": "a transaction's time",
    r"set_config|setseed": "its own session",
    r"binary_upgrade_.*|pg_isolation_test_.*|pg_stop_making_pinned_objects|pg_import_system_collations|pg_nextoid": "refused by itself",
    r"pg_.*replication_slots?|pg_logical_slot_.*|pg_replication_slot_advance": "needs REPLICATION",
    r"pg_(clear|restore)_(attribute|relation)_stats|brin_.*|gin_.*|pg_extension_config_dump": "its own tables",
    r"pg_rotate_logfile_old|pg_read_file_old": "needs rights of their own",
    r"query_to_xml.*|cursor_to_xml.*|ts_stat|ts_rewrite": "runs a query as itself, in a statement's time",
    r"plpgsql_.*|amvalidate": "nothing",
    # What only looks.
    r"pg_(control|stat|wal|get|last|current_wal|collation|database|tablespace|total|table|indexes|relation|partition|safe|blocking|lock|is|jit|available|prepared|notification)_?.*": "reads",
    r"clock_timestamp|timeofday|current_query|random|random_normal|gen_random_uuid|uuidv[47]|array_(sample|shuffle)|currtid2": "reads",
}


def test_every_function_that_changes_something_is_decided(world: World) -> None:
    found = world.rows(
        "select distinct p.proname::text from pg_proc p where p.pronamespace = 'pg_catalog'::regnamespace"
        " and p.provolatile = 'v' and p.prokind in ('f', 'p') and not 2281 = any (p.proargtypes)"
        " and p.prorettype not in ('internal'::regtype, 'trigger'::regtype, 'event_trigger'::regtype)"
        " and has_function_privilege('proj_alpha_anon', p.oid, 'execute')"
    )
    assert len(found) > 100
    decided = re.compile("|".join(f"({pattern})" for pattern in DECIDED))
    assert sorted(name for (name,) in found if not decided.fullmatch(name)) == []


TEXTS = {
    "a comment": "comment on table {me}.wordy is {text}",
    "a comment on a column": "comment on column {me}.wordy.a is {text}",
    "a comment on a constraint": "comment on constraint positive on {me}.wordy is {text}",
    "a function": "create function {me}.says() returns text language sql as {text}",
    "a default": "alter table {me}.wordy alter a set default {text}",
    "a policy": "create policy p on {me}.wordy using (a <> {text})",
    "a check": "alter table {me}.wordy add check (a <> {text})",
    "a view": "create view {me}.shown as select {text} as a",
    "an index": "create index on {me}.wordy (a) where a <> {text}",
    "columns": "create table {me}.wide ({columns})",
}


@pytest.mark.parametrize("what", TEXTS)
def test_texts_in_the_catalogs_count_as_storage(world: World, what: str) -> None:
    query = "select bytes from data_plane.measured_storage() where tenant = %s"
    text = "'" + "".join(f"{number:x}" for number in range(200_000)) + "'"
    if what == "a view":  # PostgREST should not have to read a longer one
        text = f"{text[:100_000]}'"
    if what == "an index":  # PostgreSQL 15 keeps its predicate in one page
        text = f"{text[:3_000]}'"
    if what == "a function":
        text = f"$$select 'x' -- {text}$$"
    statement = TEXTS[what].format(
        me=ATTACKER.schema, text=text, columns=", ".join(f"c{number} int" for number in range(1500))
    )
    with connect(world.plane.lease(ATTACKER.slug, AccessLevel.OWNER)) as owner:
        try:
            owner.execute("create table wordy (a text constraint positive check (a <> ''))")
            ((before,),) = world.rows(query, ATTACKER.schema)
            owner.execute(statement.encode())
            ((after,),) = world.rows(query, ATTACKER.schema)
        finally:
            owner.execute(
                "drop table if exists wordy, wide cascade; drop view if exists shown; drop function if exists says()"
            )
    assert after > before + len(text) / 4
