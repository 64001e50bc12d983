"""PostgreSQL moved to a newer major version: rehearsed, refused, killed on the way, and done."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from components.central import platform_sql as platform_sql_module
from components.central.files import platform_sql
from data_plane.clients.inventory import Part
from data_plane.clients.platform_sql import sha256_of
from data_plane.errors import UpgradeError
from data_plane.local import upgrade as upgrade_module
from data_plane.local.postgres import SWITCH_NOTE, LocalPostgres
from data_plane.local.postgres_programs import Programs
from data_plane.local.processes import LOOPBACK, wait_until
from data_plane.local.servers import Servers
from data_plane.local.upgrade import Upgrade, forget_old
from data_plane.state_dir import CHECKOUT, StateDir
from tests.support.platform_database import (
    add_tenants,
    apply_platform,
    connection_properties,
    copy_data,
    issue,
    revoke,
    run,
)
from tests.support.postgresqls import binaries

_BY_MAJOR = {Programs(folder).major: folder for folder in binaries().values()}
_OLD, _NEW = min(_BY_MAJOR), max(_BY_MAJOR)
_LEASE = "lease_proj_one_owner_test"
_FILL = """
set role proj_one_owner;
set search_path = proj_one, public;
create table notes (
    id bigint generated always as identity primary key,
    body text not null check (body <> ''),
    tags text[] not null default '{}'
);
insert into notes (body, tags) select 'note ' || n, array['a'] from generate_series(1, 500) n;
delete from notes where id % 7 = 0;
create table members (note bigint references notes on delete cascade, person uuid, primary key (note, person));
create policy own on notes for select to proj_one_authenticated
    using (exists (select 1 from members m where m.note = notes.id and m.person = auth.uid()));
create view recent with (security_invoker = true) as
    select n.id, (select count(*) from members m where m.note = n.id) as people from notes n order by id desc limit 10;
create materialized view totals as select count(*) as notes from notes;
create type mood as enum ('good', 'it''s bad');
create domain positive as int check (value > 0);
create function later(a int default 3, b mood default 'good') returns bigint language sql stable
begin atomic
    select count(*) from notes where id > a;
end;
create function touch() returns trigger language plpgsql as $$ begin return new; end $$;
create trigger touched before insert on notes for each row when (new.body <> 'x') execute function touch();
create table visits (id positive, day date) partition by range (day);
create table visits_2026 partition of visits for values from ('2026-01-01') to ('2027-01-01');
insert into visits select n, '2026-02-02' from generate_series(1, 10) n;
create index notes_by_body on notes (lower(body)) where tags is not null;
create sequence counter start 7;
select nextval('counter'), nextval('counter');
comment on table notes is 'what people wrote: é 漢字';
grant select on notes to proj_one_anon;
reset role;
select lo_from_bytea(4711, 'x');
"""


def fill(server: LocalPostgres) -> None:
    with server.connect() as admin:
        admin.autocommit = True
        admin.execute(_FILL.encode())
        admin.execute("alter system set work_mem = '5MB'")
    platform_sql_module._Provider().create({**connection_properties(server), "sql": platform_sql()})


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    """A server of the older version with two tenants, which was started once and is stopped."""
    copy_data(tmp_path / "home", _BY_MAJOR[_OLD], apply_platform, add_tenants, fill)
    made = at(tmp_path / "home")
    yield made
    made.stop()
    shutil.rmtree(tmp_path / "home")


def at(home: Path) -> Servers:
    made = Servers(StateDir(home))
    made.postgres = LocalPostgres(made.home, _BY_MAJOR[_OLD])
    return made


def upgrade_of(servers: Servers, **options: Any) -> Upgrade:
    return Upgrade(servers, _NEW, folder=_BY_MAJOR[_NEW], **options)


def files_of(servers: Servers) -> set[str]:
    return {path.name for path in servers.home.path.iterdir()} - {"upgrade.lock", "servers.lock"}


def named(parts: list[Part]) -> dict[str, Part]:
    return {part.name: part for part in parts}


def test_an_upgrade_is_rehearsed_then_done_and_everything_is_there(servers: Servers) -> None:
    old = servers.postgres
    old.start()
    issue(old, _LEASE, "proj_one_owner")
    before = files_of(servers)
    rehearsed = upgrade_of(servers).rehearse()
    assert rehearsed.is_equal, rehearsed.parts
    assert named(rehearsed.parts)["proj_one"].counts["rows"] == 429 + 10
    assert (old.port is not None, old.made_by) == (True, _OLD)
    assert files_of(servers) == before

    # A rehearsal is of its moment; what is written since has to come along.
    run(old, "insert into proj_one.notes (body) values ('since')")
    outcome = upgrade_of(servers).run()
    assert outcome.is_equal, outcome.parts
    assert named(outcome.parts)["proj_one"].counts["leases"] == 1
    new = servers.postgres
    assert (new.made_by, new.port, new.admin_password) == (_NEW, new.known_port, old.admin_password)
    with psycopg.connect(host=LOOPBACK, port=new.port, user=_LEASE, password="pw", dbname="postgres") as lease:
        assert lease.execute("select current_user, count(*) from proj_one.notes").fetchone() == ("proj_one_owner", 430)
    assert run(new, "select nextval('proj_one.counter'), current_setting('work_mem')") == [(9, "5MB")]
    revoke(new, _LEASE)
    # What only the new version has is taken from projects there, and `up` finds the platform as it was applied.
    assert run(new, "select bool_or(has_function_privilege('public', oid, 'execute')) from pg_proc"
               " where proname = 'pg_logical_emit_message'") == [(False,)]  # fmt: skip
    state = (
        platform_sql_module._Provider().read("data_plane", {**connection_properties(new), "sql": platform_sql()}).outs
        or {}
    )
    assert state["changed_by_hand"] == []
    assert state["checksum"] == sha256_of(platform_sql())

    with pytest.raises(UpgradeError, match=r"names a newer version"):
        upgrade_of(servers).check()
    kept = servers.home.path / f"postgres-{_OLD}"
    assert (kept / "PG_VERSION").read_text(encoding="utf-8").strip() == str(_OLD)
    assert forget_old(servers.home) == [kept]
    assert not kept.exists()


def test_a_project_that_cannot_be_restored_keeps_the_old_server(servers: Servers) -> None:
    """Its code runs with its own rights, and can do no more than be named."""
    old = servers.postgres
    old.start()
    run(
        old,
        """set role proj_two_b_owner; set search_path = proj_two_b;
        create function spite() returns boolean language plpgsql immutable as $$ begin
            if current_setting('application_name') like 'pg_restore%%' then
                execute 'alter role proj_two_b_owner superuser'; end if;
            return true; end $$;
        create table spiteful (id int check (spite())); insert into spiteful values (1)""",
    )
    before = files_of(servers)
    outcome = upgrade_of(servers).run()
    assert outcome.problem is not None
    assert "proj_two_b" in outcome.problem
    differing = {(difference.part, difference.kind, difference.name) for part in outcome.parts for difference in part.differences}  # fmt: skip
    assert differing == {("proj_two_b", "rows", "proj_two_b.spiteful")}
    assert (servers.postgres.made_by, servers.postgres.port) == (_OLD, old.known_port)
    assert run(old, "select count(*) from proj_two_b.spiteful") == [(1,)]
    assert files_of(servers) - {"guard.json", "guard.log", "relay", "relay.json", "relay.log"} == before


_KILLED = """
import os, signal, sys
from pathlib import Path
from data_plane.local.upgrade import Upgrade
from tests.integration.test_upgrade import at, upgrade_of

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

home, moment = sys.argv[1:]
if moment == "between the renames":
    rename, seen = Path.rename, []
    def counted(self, target):
        if Path(target).name == "postgres" and "upgrade" in self.parts:
            die()
        return rename(self, target)
    Path.rename = counted
upgrade_of(at(Path(home)), say=lambda text: die() if text.startswith(moment) else None).run()
"""


@pytest.mark.parametrize("moment", ["copying", "restoring into", "between the renames"])
def test_an_upgrade_that_is_killed_leaves_the_old_server_as_it_was(servers: Servers, moment: str) -> None:
    home = servers.home.path
    command = [sys.executable, "-c", _KILLED, str(home), moment]
    assert subprocess.run(command, cwd=CHECKOUT, env={**os.environ, "PYTHONPATH": str(CHECKOUT)}).returncode == -9
    if moment == "between the renames":
        assert not servers.postgres.data.exists()
    servers.postgres.start()
    assert servers.postgres.made_by == _OLD
    assert run(servers.postgres, "select count(*) from proj_one.notes") == [(429,)]
    assert not (home / SWITCH_NOTE).exists()
    # The next one ends what this one has left running.
    upgrade_module._clear(home / "upgrade")
    assert wait_until(lambda: servers_in(home) == {home / "postgres"}, 60)
    assert not (home / "upgrade").exists()


def servers_in(home: Path) -> set[Path]:
    found = set()
    for process in psutil.process_iter(["name", "cwd"]):
        folder = Path(process.info["cwd"] or "/")
        if process.info["name"] == "postgres" and home in folder.parents:
            found.add(folder)
    return found


def test_what_stands_in_the_way_is_one_error_before_anything_stops(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UpgradeError, match=r"no PostgreSQL 99 on this machine: install it, or name its folder"):
        Upgrade(servers, 99).check()
    with pytest.raises(UpgradeError, match=rf"has PostgreSQL {_NEW}, and --to says 99"):
        Upgrade(servers, 99, folder=_BY_MAJOR[_NEW]).check()
    with pytest.raises(UpgradeError, match=rf"is PostgreSQL {_OLD}: --to names a newer version"):
        Upgrade(servers, _OLD).check()
    (tmp_path / "bin").mkdir()
    with pytest.raises(UpgradeError, match="has no program `postgres`"):
        Upgrade(servers, _NEW, folder=tmp_path / "bin").check()
    for name in ("postgres", "pg_ctl"):
        (tmp_path / "bin" / name).symlink_to(_BY_MAJOR[_NEW] / name)
    with pytest.raises(UpgradeError, match=r"lacks initdb, pg_dump, pg_dumpall, pg_restore, psql"):
        Upgrade(servers, _NEW, folder=tmp_path / "bin").check()
    usage = shutil.disk_usage("/")
    with monkeypatch.context() as context:
        context.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=600 * 2**20))
        with pytest.raises(UpgradeError, match=r"has 600 MiB free, and the upgrade may need 1\d\d\d MiB"):
            upgrade_of(servers).check()
    (servers.home.path / f"postgres-{_OLD}").mkdir()
    with pytest.raises(UpgradeError, match="kept from an earlier upgrade: remove it with"):
        upgrade_of(servers).check()
    forget_old(servers.home)
    assert servers.postgres.port is None, "it was started for that"
    with pytest.raises(UpgradeError, match=r"there is no local database yet"):
        Upgrade(Servers(StateDir(tmp_path / "empty")), _NEW).check()

    with monkeypatch.context() as context:
        name = "vector" if "vector" in servers.postgres.programs.usual_extensions else "citext"
        servers.postgres.start()
        servers.postgres.provide_extensions()
        context.setattr(Programs, "has_extension", lambda _self, asked: asked != name)
        with pytest.raises(UpgradeError, match=rf"has no extension {name}.*--without {name}"):
            upgrade_of(servers).check()
        assert upgrade_of(servers, without=[name]).check()
        run(servers.postgres, f"create table public.used (column_of extensions.{name})")
        for without in ([], [name]):
            with pytest.raises(UpgradeError, match=rf"{name} in database postgres, which is used by .*public\.used"):
                upgrade_of(servers, without=without).check()
        run(servers.postgres, "drop table public.used; comment on schema data_plane is 'another'")
        context.undo()
        with pytest.raises(UpgradeError, match="is not this program's: run `dataplane up` first"):
            upgrade_of(servers).check()
