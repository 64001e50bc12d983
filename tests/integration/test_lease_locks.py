"""What a tenant keeps locked holds up nobody's lease, and no run: every statement that takes a lock, held open.

The statements are generated: each kind of object that can be granted, owned or locked, with each role that a lease may
name. Those that a level is refused are only counted.
"""

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from components.central.files import platform_sql
from components.central.lease_engine import ISSUER_TIMEOUT_MS
from data_plane.local.postgres import LocalPostgres
from data_plane.local.processes import wait_until
from data_plane.model.server_parameters import server_parameters
from tests.support.lease_statements import HOLDER, ME, NEIGHBOUR, OTHER, VICTIM, statements
from tests.support.platform_database import (
    MEMBER_OF,
    add_tenants,
    apply_platform,
    connect,
    issue,
    revoke,
    run,
    running,
)
from tests.support.postgresqls import binaries, oldest_and_newest

BOUND_SECONDS = 10.0
"""Of what takes 2 s at most by the platform's own bounds, on a machine that has much else to do."""
SETTINGS = '["search_path=proj_one, extensions", "statement_timeout=15000"]'


@pytest.fixture(scope="module", params=oldest_and_newest())
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPostgres]:
    with running(tmp_path_factory.mktemp("locks"), binaries()[request.param], apply_platform, add_tenants) as made:
        run(made, "select data_plane.declare_role_settings(%s)", f'{{"{ME}": {SETTINGS}}}')
        run(made, "select data_plane.restore_role_settings()")
        with made.connect() as admin:
            admin.execute(f"""
                set role {ME}_owner;
                set search_path = {ME};
                create table t (a int primary key, b int); create table u (a int); create view v as select 1 as a;
                create sequence s; create function f() returns int return 1; create procedure p() language sql as '';
                create type e as enum ('x'); create domain d as int;
                create policy old on t using (true);
            """)
        yield made


def timed(action: Callable[..., None], server: LocalPostgres, *values: str) -> float:
    """Seconds that it took; it has to succeed."""
    began = time.monotonic()
    action(server, *values)
    return time.monotonic() - began


def rights_of_ended(server: LocalPostgres, *logins: str) -> list[tuple[object, ...]]:
    """Those that could still do something."""
    return run(
        server,
        "select r.rolname from pg_authid r where r.rolname = any (%s) and (r.rolcanlogin or r.rolpassword is not null"
        " or exists (select from pg_auth_members m where m.member = r.oid))",
        list(logins),
    )


def sessions_of_ended(server: LocalPostgres, *logins: str) -> list[tuple[object, ...]]:
    """Sessions of these logins, and of logins that are gone."""
    query = "select pid from pg_stat_activity where usename = any(%s) or usesysid is not null and usename is null"
    return run(server, query, list(logins))


def lease_logins(server: LocalPostgres) -> list[str]:
    return [str(row[0]) for row in run(server, "select rolname from pg_roles where rolname ~ '^lease_'")]


@contextlib.contextmanager
def held_open(
    server: LocalPostgres, texts: list[str], *, as_login: bool
) -> Iterator[tuple[psycopg.Connection[tuple[object, ...]], list[str]]]:
    """A transaction that has run what it could of the statements, and is left open."""
    session = connect(server, HOLDER, "pw")
    done = []
    if as_login:
        session.execute("set role none")
    session.execute("set lock_timeout = '100ms'")
    session.commit()
    for text in texts:
        session.execute("savepoint s")
        try:
            session.execute(text.encode())
            done.append(text)
            session.execute("release savepoint s")
        except psycopg.Error:
            session.execute("rollback to savepoint s; release savepoint s")
    try:
        yield session, done
    finally:
        session.close()


FAMILIES = tuple(statements("anon", 0))


def cases() -> Iterator[tuple[str, str, bool]]:
    for family, level, as_login in itertools.product(FAMILIES, MEMBER_OF, (False, True)):
        # Without its role a lease owns nothing but large objects; the middle levels own no more than anon does.
        if (family in {"a role", "other"} or level in {"owner", "anon"}) and not (
            as_login and family in {"a policy", "an owner", "a table"}
        ):
            yield family, level, as_login


@pytest.mark.parametrize(("family", "level", "as_login"), list(cases()))
def test_what_a_lease_keeps_locked_holds_up_no_lease(
    server: LocalPostgres, family: str, level: str, as_login: bool
) -> None:
    issue(server, HOLDER, f"{ME}_{level}")
    issue(server, VICTIM, f"{OTHER}_{level}")
    issue(server, NEIGHBOUR, f"{ME}_{level}")
    with connect(server, HOLDER, "pw") as session:
        if as_login:
            session.execute("set role none")
        made = session.execute("select lo_create(0)").fetchone()
    assert made is not None
    with held_open(server, statements(level, int(str(made[0])))[family], as_login=as_login) as (_, done):
        took = {
            "issue for another": timed(issue, server, "lease_more", f"{OTHER}_{level}"),
            "issue for the same": timed(issue, server, "lease_same", f"{ME}_{level}"),
            "revoke another's": timed(revoke, server, VICTIM),
            "revoke the same's": timed(revoke, server, NEIGHBOUR),
        }
        began = time.monotonic()
        run(server, "select data_plane.restore_role_settings()")
        run(server, "select data_plane.sweep_leases()")
        took["restore and sweep"] = time.monotonic() - began
        assert rights_of_ended(server, VICTIM, NEIGHBOUR) == []
        took["revoke its own"] = timed(revoke, server, HOLDER)
        assert rights_of_ended(server, HOLDER) == []
        # Told to end, whether or not the login is still there to name them by.
        assert wait_until(lambda: not sessions_of_ended(server, HOLDER), 60)
    assert max(took.values()) < BOUND_SECONDS, (took, done)
    for login in ("lease_more", "lease_same"):
        revoke(server, login)
    run(server, "select data_plane.sweep_leases()")
    assert lease_logins(server) == [], done
    run(server, "select data_plane.restore_role_settings()")
    assert run(server, "select * from data_plane.changed_roles()") == []
    run(server, "select lo_unlink(oid) from pg_largeobject_metadata")


def test_the_statements_are_many_and_some_of_each_family_are_allowed(server: LocalPostgres) -> None:
    issue(server, HOLDER, f"{ME}_owner")
    issue(server, VICTIM, f"{OTHER}_owner")
    issue(server, NEIGHBOUR, f"{ME}_owner")
    allowed: dict[str, int] = {}
    families = statements("owner", 0)
    for family, texts in families.items():
        with held_open(server, texts, as_login=False) as (_, done):
            allowed[family] = len(done)
    assert sum(map(len, families.values())) > 900
    # Nobody may give anything to another role.
    assert allowed.pop("an owner") < len(families["an owner"])
    assert min(allowed.values()) > 5, allowed
    for login in (HOLDER, VICTIM, NEIGHBOUR):
        revoke(server, login)


def test_a_lease_that_keeps_coming_back_is_ended_all_the_same(server: LocalPostgres) -> None:
    """It signs in again at once, and keeps the row of its login locked."""
    issue(server, HOLDER, f"{ME}_owner")
    over = threading.Event()
    entered = []

    def insist() -> None:
        while not over.is_set():
            with contextlib.suppress(psycopg.Error), connect(server, HOLDER, "pw") as session:
                entered.append(1)
                session.execute("set role none; commit; begin; alter role lease_holder password 'y'")
                session.execute("select pg_sleep(30)")

    threads = [threading.Thread(target=insist, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        while len(entered) < 4:
            time.sleep(0.01)
        assert timed(revoke, server, HOLDER) < BOUND_SECONDS
        run(server, "select data_plane.sweep_leases()")
        assert rights_of_ended(server, HOLDER) == []
    finally:
        over.set()
        for thread in threads:
            thread.join(120)
    run(server, "select data_plane.sweep_leases()")
    assert lease_logins(server) == []
    assert wait_until(lambda: not sessions_of_ended(server), 60)


def test_more_objects_than_can_be_dropped_at_once_are_dropped_by_and_by(server: LocalPostgres) -> None:
    issue(server, HOLDER, f"{ME}_owner")
    with connect(server, HOLDER, "pw") as session:
        session.execute("set role none")
        session.execute("select lo_create(0) from generate_series(1, 3500)")
    assert timed(revoke, server, HOLDER) < BOUND_SECONDS
    assert rights_of_ended(server, HOLDER) == []
    assert lease_logins(server) == [HOLDER]
    for _ in range(2):
        run(server, "select data_plane.sweep_leases()")
    assert lease_logins(server) == []
    owners = run(server, "select distinct lomowner::regrole::text from pg_largeobject_metadata")
    assert owners == [(f"{ME}_owner",)]
    run(server, "select count(lo_unlink(oid)) from pg_largeobject_metadata")


def test_a_lease_past_its_end_is_swept_and_a_role_that_is_none_is_not(server: LocalPostgres) -> None:
    issue(server, "lease_lapsed", f"{ME}_owner", "-1 day")
    issue(server, "lease_lasting", f"{ME}_owner")
    run(server, "create role lease_manager nologin valid until '2001-01-01'")
    named = run(server, "select found from data_plane.privilege_drift('{}')")
    assert len(named) == 1
    assert str(named[0][0]).startswith("login lease_lapsed outlived its lease")
    run(server, "select data_plane.sweep_leases()")
    assert sorted(lease_logins(server)) == ["lease_lasting", "lease_manager"]
    revoke(server, "lease_lasting")
    run(server, "drop role lease_manager")


def test_the_issuers_statements_are_bounded(server: LocalPostgres) -> None:
    with connect(server, "openbao_lease_issuer") as issuer:
        bounds = [
            issuer.execute("select current_setting(%s)", [name]).fetchone()
            for name in ("statement_timeout", "idle_in_transaction_session_timeout", "lock_timeout")
        ]
    assert bounds == [(f"{ISSUER_TIMEOUT_MS // 1000}s",), (f"{ISSUER_TIMEOUT_MS // 1000}s",), ("2s",)]


def test_locks_without_a_session_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "data_plane.local.postgres.server_parameters",
        lambda major: {**server_parameters(major), "max_prepared_transactions": "5"},
    )
    with (
        running(tmp_path / "prepared", min(binaries().items())[1]) as made,
        made.connect() as admin,
        pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState),
    ):
        admin.execute(platform_sql().encode())
