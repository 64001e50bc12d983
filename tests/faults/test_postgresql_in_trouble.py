"""PostgreSQL restarted, out of connections, read-only, locked, or with a password that somebody has changed."""

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg
import pytest
from hvac.exceptions import VaultError
from psycopg import sql

from data_plane.clients.postgres import set_password, when_ready
from data_plane.connector.bindings import LocalDataPlane
from data_plane.connector.leases import LeaseClient
from data_plane.connector.reconcile_credentials import reconcile_credentials
from data_plane.errors import LeaseError
from data_plane.local.processes import wait_until
from data_plane.local.providers import postgresql
from data_plane.model.naming import AccessLevel
from tests.conftest import bring_up
from tests.faults.behind import Behind
from tests.state import differences, state

EARLY = "alpha-schema-owner"
_ROUNDS = 6
_ROUND_SECONDS = 0.5


@contextmanager
def connections_taken(behind: Behind, *, even_reserved: bool) -> Iterator[None]:
    """All of the server's connections held by somebody, but for those that are kept for superusers."""
    servers = behind.local_env.servers
    password = "a1b2c3d4e5f6"
    with servers.postgres.connect() as admin:
        admin.execute("create role greedy login")
        set_password(admin, "greedy", password)
        # OpenBao ends its own after a while, and would leave their places to the run.
        admin.execute(
            "select pg_terminate_backend(pid, 30000) from pg_stat_activity where usename = 'openbao_lease_issuer'"
        )
    who: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": servers.postgres.port,
        "dbname": "postgres",
        "application_name": "greedy",
    }
    try:
        with ExitStack() as held:

            def hold(user: str, password: str) -> None:
                while True:
                    held.enter_context(psycopg.connect(**who, user=user, password=password))

            def hold_all(user: str, password: str) -> None:
                with pytest.raises(psycopg.OperationalError, match=r"connection slots|too many clients"):
                    hold(user, password)

            holders = {"greedy": password}
            if even_reserved:
                holders["supabase_admin"] = servers.postgres.admin_password
            for _ in range(_ROUNDS):  # sessions that have just ended may have held some
                for user, known in holders.items():
                    hold_all(user, known)
                time.sleep(_ROUND_SECONDS)
            yield
    finally:
        # A place is free again some time after its session was closed here.
        assert wait_until(lambda: all_given_back(behind), 60)
        with when_ready(servers.postgres.connect) as admin:
            admin.execute("drop role greedy")


def all_given_back(behind: Behind) -> bool:
    try:
        return behind.plane.rows("select from pg_stat_activity where application_name = 'greedy'") == []
    except psycopg.OperationalError:
        return False


def test_a_run_gets_through_on_the_connections_that_are_kept_for_superusers(behind: Behind) -> None:
    seconds = behind.change()
    with connections_taken(behind, even_reserved=False):
        behind.run()
    assert behind.is_applied(seconds)


def test_without_any_connection_left_the_run_says_so_and_where_to_look(behind: Behind) -> None:
    seconds = behind.change()
    with connections_taken(behind, even_reserved=True):
        message = behind.refusal()
    assert "No connection is left. See in pg_stat_activity who holds them, end what is idle or raise" in message
    behind.run()
    assert behind.is_applied(seconds)


def test_a_server_that_takes_no_writes_is_named_as_such(behind: Behind) -> None:
    before = state(behind.local_env)
    seconds = behind.change()
    lease = LeaseClient(behind.local_env.sign_in("olga"))
    writing = {"options": "-c default_transaction_read_only=off"}
    servers = behind.local_env.servers
    admin = psycopg.connect(
        host="127.0.0.1",
        port=servers.postgres.port,
        dbname="postgres",
        user="supabase_admin",
        password=servers.postgres.admin_password,
        autocommit=True,
        **writing,  # type: ignore[arg-type]
    )
    with admin:
        admin.execute("alter system set default_transaction_read_only = on")
        admin.execute("select pg_reload_conf()")
        try:
            assert wait_until(lambda: behind.plane.rows("show default_transaction_read_only") == [("on",)], 60)
            message = behind.refusal()
            with pytest.raises(LeaseError) as caught:
                lease.issue(LocalDataPlane(behind.local_env).binding("alpha"), AccessLevel.OWNER)
        finally:
            admin.execute("alter system reset default_transaction_read_only")
            admin.execute("select pg_reload_conf()")
    assert wait_until(lambda: behind.plane.rows("show default_transaction_read_only") == [("off",)], 60)
    for text in (message, str(caught.value)):
        assert "read-only transaction" in text
        assert "a standby, or default_transaction_read_only is on" in text
        assert "Name the primary or turn that off, then run the same command again" in text
    behind.run()
    assert behind.is_applied(seconds)
    assert set(differences(before, state(behind.local_env))) == {"settings", "lease roles"}


def test_what_another_session_holds_is_not_waited_for_for_ever(behind: Behind, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = behind.change()
    with behind.plane.admin() as somebody, monkeypatch.context() as patch:
        patch.setattr(postgresql, "PLATFORM_SESSION", "-c lock_timeout=1s -c statement_timeout=120s")
        somebody.execute("alter role proj_alpha_anon set work_mem to '5MB'")
        message = behind.refusal()
        somebody.rollback()
    assert "PostgreSQL at 127.0.0.1" in message
    assert "Another session holds what it needs. See in pg_locks and pg_stat_activity which" in message
    behind.run()
    assert behind.is_applied(seconds)


def test_restarted_in_the_middle_the_same_command_finishes_the_run(
    behind: Behind, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = behind.change()
    servers = behind.local_env.servers
    with behind.plane.admin() as admin:
        admin.execute("create table proj_alpha.kept as select 1 as a")
    with monkeypatch.context() as patch:
        patch.setattr(postgresql, "_WAIT_SECONDS", 3)
        message = behind.refusal(EARLY, lambda: servers.postgres._control("stop", "-m", "immediate"))
    assert "PostgreSQL at 127.0.0.1" in message
    assert "start it" in message.lower()
    assert "run the same command again" in message
    servers.start()
    behind.run()
    assert behind.is_applied(seconds)
    assert behind.plane.rows("select a from proj_alpha.kept") == [(1,)]
    with behind.plane.admin() as admin:
        admin.execute("drop table proj_alpha.kept")


def test_a_superusers_password_that_somebody_changed_is_named(behind: Behind) -> None:
    servers = behind.local_env.servers
    with behind.plane.admin() as admin:
        set_password(admin, "supabase_admin", "changed-by-hand")
        admin.commit()
        try:
            message = behind.refusal()
        finally:
            set_password(admin, "supabase_admin", servers.postgres.admin_password)
    assert 'password authentication failed for user "supabase_admin"' in message
    assert "It has another password than is known here. Give both the same (docs/how-to/rotate-secrets.md)" in message
    behind.run()


def test_openbaos_own_password_that_somebody_changed_is_named_and_realigned(behind: Behind) -> None:
    leases = LeaseClient(behind.local_env.sign_in("olga"))
    binding = LocalDataPlane(behind.local_env).binding("alpha")
    with behind.plane.admin() as admin:
        set_password(admin, "openbao_lease_issuer", "changed-by-hand")
        admin.commit()  # before OpenBao may sign in again
        admin.execute(
            "select pg_terminate_backend(pid, 60000) from pg_stat_activity where usename = 'openbao_lease_issuer'"
        )
    with pytest.raises(LeaseError, match="password authentication failed") as caught:
        leases.issue(binding, AccessLevel.OWNER)
    assert "`dataplane secret reconcile` gives both the same" in str(caught.value)
    with behind.plane.admin() as admin:
        reconcile_credentials(behind.local_env.servers.openbao.client(), admin)
    assert leases.issue(binding, AccessLevel.OWNER).username.startswith("lease_proj_alpha_owner_")


def test_a_lease_while_postgresql_is_down_fails_with_one_sentence(behind: Behind) -> None:
    servers = behind.local_env.servers
    leases = LeaseClient(behind.local_env.sign_in("olga"))
    binding = LocalDataPlane(behind.local_env).binding("alpha")
    servers.postgres.stop()
    try:
        with pytest.raises(LeaseError) as caught:
            leases.issue(binding, AccessLevel.OWNER)
    finally:
        servers.start()
    assert re.fullmatch(
        r"no lease for alpha as owner: OpenBao cannot reach PostgreSQL(?: at 127\.0\.0\.1:\d+)? \([A-Za-z /]+\): .*[Rr]un "
        r"the same command again",
        str(caught.value),
    )
    assert isinstance(caught.value.__cause__, VaultError)
    assert leases.issue(binding, AccessLevel.OWNER).username.startswith("lease_proj_alpha_owner_")


def test_slow_connections_and_cut_ones_end_in_the_same_state(behind: Behind) -> None:
    seconds = behind.change()
    behind.database.delay_seconds = 0.02
    try:
        behind.run()
    finally:
        behind.database.delay_seconds = 0.0
    assert behind.is_applied(seconds)
    seconds = behind.change()
    message = behind.refusal(EARLY, lambda: cut_off(behind))
    assert "connection was cut" in message or "does not run there" in message, message
    behind.database.cut = lambda _number: False
    behind.run()
    assert behind.is_applied(seconds)


def cut_off(behind: Behind) -> None:
    behind.database.cut = lambda _number: True
    behind.database.cut_all()


def test_a_lease_that_expired_while_openbao_was_away_lets_nobody_in(behind: Behind) -> None:
    """VALID UNTIL is PostgreSQL's own, so a login ends in time even if nobody revokes it."""
    leases = LeaseClient(behind.local_env.sign_in("olga"))
    lease = leases.issue(LocalDataPlane(behind.local_env).binding("alpha"), AccessLevel.OWNER)
    with behind.plane.admin() as admin:
        admin.execute(
            sql.SQL("alter role {} valid until {}").format(
                sql.Identifier(lease.username), sql.Literal(time.strftime("%Y-%m-%d", time.gmtime(0)))
            )
        )
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(lease.connection_string)
    bring_up(behind.local_env)
    left = "select from pg_roles where rolname = %s"
    # The run, or the guard if it has the login just then.
    assert wait_until(lambda: not behind.plane.rows(left, lease.username), 60), "a run drops it"


def test_after_all_of_that_there_is_nothing_to_do(behind: Behind) -> None:
    assert [(run.created, run.updated) for run in bring_up(behind.local_env)] == [(0, 0), (0, 0)]
