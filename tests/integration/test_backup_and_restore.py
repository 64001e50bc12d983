"""Backups: made, destroyed what they were made of, restored, and compared. The scripts are those that a cluster's jobs run."""

import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests

from components.central.files import SCRIPTS
from data_plane.connector.backups import RestoreRequest
from data_plane.connector.leases import Lease
from data_plane.connector.local_backups import LocalBackups
from data_plane.errors import BackupError, PartialError
from data_plane.local.barman import install_barman
from data_plane.local.environment import LocalEnvironment
from data_plane.local.postgres import find_binaries
from data_plane.local.processes import wait_until
from data_plane.local.servers import Servers
from data_plane.model.backup_settings import S3_KEYS, BackupSettings, LogicalBackupSettings, PhysicalBackupSettings
from data_plane.model.connector_secrets import SecretsMissingError
from data_plane.model.naming import AccessLevel
from tests.conftest import ALPHA, BETA, NewLocalEnv, NewPlane, Plane, bring_up
from tests.support.backups import BUCKET, CATALOGUE, KEYS, client, settings_for, store

__all__ = ["store"]

ROWS = 50
RESET = """
drop table if exists notes, moods cascade;
drop function if exists count_notes();
drop type if exists mood;
"""
MIGRATION = """
create table notes (
    id bigint generated always as identity primary key,
    author uuid not null default '00000000-0000-0000-0000-000000000001',
    body text not null check (body <> ''),
    tags text[] not null default '{}',
    written timestamptz not null default now()
);
create index notes_by_author on notes (author);
create policy own_notes on notes for select using (author = auth.uid());
create view recent as select id, body from notes order by written desc limit 10;
create function count_notes() returns bigint language sql stable as $$ select count(*) from notes $$;
create type mood as enum ('good', 'bad');
create table moods (note bigint references notes on delete cascade, mood mood not null, primary key (note, mood));
comment on table notes is 'what people wrote: é ü 漢字';
"""


def snapshot(plane: Plane) -> dict[str, Any]:
    """The catalog, and the rows of every table of every tenant."""
    with plane.admin() as admin:
        found: dict[str, Any] = {name: admin.execute(query.encode()).fetchall() for name, query in CATALOGUE.items()}
        tables = admin.execute(
            "select c.oid::regclass::text from pg_class c join pg_namespace n on n.oid = relnamespace"
            " where nspname like 'proj\\_%' and relkind = 'r' order by 1"
        ).fetchall()
        found["rows"] = {
            str(table): admin.execute(f"select t::text from {table} t order by 1".encode()).fetchall()
            for (table,) in tables
        }
    return found


def write_as(lease: Lease, statements: str) -> None:
    with psycopg.connect(lease.connection_string, connect_timeout=60) as connection:
        connection.execute(statements.encode())


def refused(lease: Lease) -> bool:
    try:
        psycopg.connect(lease.connection_string, connect_timeout=60).close()
    except psycopg.OperationalError as error:
        return "authentication failed" in str(error)
    return False


@dataclass
class Backed:
    """A data plane of its own, two tenants with data in it, and where its backups go."""

    plane: Plane
    settings: BackupSettings
    messages: list[str]

    @property
    def backups(self) -> LocalBackups:
        return LocalBackups(self.plane.local_env.servers, self.messages.append, self.settings)

    def only(self, kind: str) -> None:
        """Leaves the other kind out, where a test does not need it."""
        other = {"physical": "logical", "logical": "physical"}[kind]
        self.settings = self.settings.model_copy(update={other: None})


@pytest.fixture(scope="module")
def two_tenants(new_plane: NewPlane) -> Plane:
    """A data plane of this file's own: its server is stopped, killed and restored."""
    return new_plane({"alpha.yaml": ALPHA, "beta-two.yaml": BETA})


@pytest.fixture
def backed(two_tenants: Plane, store: str, request: pytest.FixtureRequest) -> Backed:
    """The tenants with the same data in them for each test, and a place for its backups."""
    return with_data(two_tenants, settings_for(store, request.node.name))


@pytest.fixture(scope="module")
def physical(two_tenants: Plane, store: str) -> Backed:
    """The same with a physical backup, for the tests that leave it and the server as they are."""
    return with_backup(two_tenants, settings_for(store, "physical"), "physical")


@pytest.fixture(scope="module")
def logical(two_tenants: Plane, store: str) -> Backed:
    """The same with a dump. The tests that have it come one after the other; the last ones damage it."""
    return with_backup(two_tenants, settings_for(store, "logical"), "logical")


def with_data(plane: Plane, settings: BackupSettings) -> Backed:
    put_keys(plane.local_env, KEYS)
    for project in ("alpha", "beta-two"):
        lease = plane.lease(project, AccessLevel.OWNER)
        write_as(lease, RESET + MIGRATION)
        rows = f"select '{project} ' || n, array['t' || n] from generate_series(1, {ROWS}) n"
        write_as(lease, f"insert into notes (body, tags) {rows}")
        write_as(lease, "insert into moods select id, 'good' from notes where id % 5 = 0")
    return Backed(plane, settings, [])


def with_backup(plane: Plane, settings: BackupSettings, kind: str) -> Backed:
    made = with_data(plane, settings)
    made.only(kind)
    made.backups.back_up()
    return made


def put_keys(local_env: LocalEnvironment, keys: dict[str, str]) -> None:
    local_env.servers.openbao.client().secrets.kv.v2.patch("supabase", keys, mount_point="connectors")


def aside(servers: Servers) -> list[Path]:
    return sorted(servers.home.path.glob("postgres.before-*"))


def changes(local_env: LocalEnvironment) -> list[tuple[int | None, int | None]]:
    return [(run.created, run.updated) for run in bring_up(local_env)]


def moment(plane: Plane) -> datetime:
    """A moment between what was committed before and what comes after."""
    time.sleep(0.05)
    ((now,),) = plane.rows("select clock_timestamp()")
    time.sleep(0.05)
    return datetime.fromisoformat(str(now)).astimezone(UTC)


def test_a_drill_leaves_the_running_server_alone(physical: Backed) -> None:
    before = snapshot(physical.plane)
    files = set(physical.plane.local_env.servers.home.path.iterdir())
    physical.backups.check(RestoreRequest())
    assert snapshot(physical.plane) == before
    assert set(physical.plane.local_env.servers.home.path.iterdir()) == files
    assert "can be restored; nothing was changed" in physical.messages[-1]


def test_secrets_are_in_no_message_and_no_argument(physical: Backed) -> None:
    servers = physical.plane.local_env.servers
    secrets = [*KEYS.values(), servers.postgres.admin_password]
    messages = "\n".join(physical.messages) + servers.postgres.log.read_text(encoding="utf-8")
    ((command,),) = physical.plane.rows("select setting from pg_settings where name = 'archive_command'")
    assert not any(secret in messages + str(command) for secret in secrets)
    assert (servers.home.path / "backups.env").stat().st_mode & 0o077 == 0


def test_another_databases_place_is_refused(physical: Backed, new_local_env: NewLocalEnv) -> None:
    other = new_local_env({"alpha.yaml": ALPHA})
    other.servers.reset()  # a template's copies are one database for PostgreSQL
    other.servers.start()
    bring_up(other)
    put_keys(other, KEYS)
    with pytest.raises(BackupError, match=r"holds backups of another database .* give this one a prefix of its own"):
        LocalBackups(other.servers, physical.messages.append, physical.settings).back_up()
    other.servers.stop()


def test_wrong_credentials_are_named(physical: Backed, store: str) -> None:
    before = snapshot(physical.plane)
    requests.post(f"{store}/moto-api/reset-auth", data=b"0", timeout=60)  # from here on it asks who one is
    try:
        with pytest.raises(BackupError, match=r"cannot be listed: .*InvalidAccessKeyId"):
            physical.backups.back_up()
        with pytest.raises(BackupError, match=r"InvalidAccessKeyId"):
            physical.backups.restore(RestoreRequest(backup="20260101T000000"))
    finally:
        requests.post(f"{store}/moto-api/reset-auth", data=b"1000000000", timeout=60)
    assert snapshot(physical.plane) == before


def test_a_dump_holds_no_password(logical: Backed) -> None:
    (dump,) = logical.backups.available().logical
    key = f"{logical.settings.prefix}/central/dumps/{dump.stamp}/globals.sql"
    text = client(str(logical.settings.endpoint)).get_object(Bucket=BUCKET, Key=key)["Body"].read().decode()
    assert "CREATE ROLE proj_alpha_owner" in text
    assert "PASSWORD" not in text
    assert "SCRAM" not in text


def test_one_project_comes_back_beside_the_present_one(logical: Backed) -> None:
    plane = logical.plane
    lease = plane.lease("alpha", AccessLevel.OWNER)
    write_as(lease, "delete from notes; drop table moods")
    before = snapshot(plane)
    logical.backups.restore(RestoreRequest(project="alpha"))
    (schema,), *further = plane.rows("select nspname from pg_namespace where nspname like 'restored\\_%%' order by 1")
    assert str(schema).startswith("restored_alpha_")
    assert further == [(f"{schema}$auth",)]
    with psycopg.connect(lease.connection_string) as owner:
        assert owner.execute(f"select count(*) from {schema}.notes".encode()).fetchone() == (ROWS,)
        assert owner.execute(f"select count(*) from {schema}.moods".encode()).fetchone() == (ROWS // 5,)
        owner.execute(f"insert into notes (body, tags) select body, tags from {schema}.notes".encode())
    assert plane.rows(f"select relrowsecurity from pg_class where oid = '{schema}.notes'::regclass") == [(True,)]
    assert plane.rows(f"select policyname from pg_policies where schemaname = '{schema}'") == [("own_notes",)]
    for level in (AccessLevel.SERVICE_ROLE, AccessLevel.AUTHENTICATED):
        with (
            pytest.raises(psycopg.errors.InsufficientPrivilege),
            psycopg.connect(plane.lease("alpha", level).connection_string) as other,
        ):
            other.execute(f"select from {schema}.notes".encode())
    assert plane.rows("select has_schema_privilege('cell_cell_1_authenticator', %s, 'usage')", schema) == [(False,)]
    with psycopg.connect(lease.connection_string) as owner:
        owner.execute(f'drop schema {schema}, "{schema}$auth" cascade'.encode())
        owner.execute("delete from notes")
    now = snapshot(plane)
    assert {key: value for key, value in now.items() if key != "rows"} == {
        k: v for k, v in before.items() if k != "rows"
    }
    with pytest.raises(BackupError, match="there is no role proj_gone_owner"):
        logical.backups.restore(RestoreRequest(project="gone"))


def test_a_damaged_dump_is_noticed(logical: Backed) -> None:
    (dump,) = logical.backups.available().logical
    s3 = client(str(logical.settings.endpoint))
    key = f"{logical.settings.prefix}/central/dumps/{dump.stamp}/postgres.dump"
    body = s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    s3.put_object(Bucket=BUCKET, Key=key, Body=body + b"x")
    before = snapshot(logical.plane)
    with pytest.raises(BackupError, match="database postgres was not restored"):
        logical.backups.restore(RestoreRequest(dump="latest"))
    assert "its checksum is not the one in the manifest" in "\n".join(logical.messages)
    assert snapshot(logical.plane) == before, "the former server is not in its place"


def test_a_dump_that_broke_off_is_no_dump(logical: Backed) -> None:
    (dump,) = logical.backups.available().logical
    s3 = client(str(logical.settings.endpoint))
    root = f"{logical.settings.prefix}/central/dumps"
    s3.delete_object(Bucket=BUCKET, Key=f"{root}/{dump.stamp}/manifest.json")
    assert logical.backups.available().logical == []
    with pytest.raises(BackupError, match="there is no dump yet"):
        logical.backups.plan(RestoreRequest(dump="latest"))


def test_a_destroyed_database_comes_back_as_it_was_at_a_moment(backed: Backed) -> None:
    backed.only("physical")
    plane, servers = backed.plane, backed.plane.local_env.servers
    old_leases = [plane.lease("alpha", AccessLevel.OWNER), plane.lease("beta-two", AccessLevel.SERVICE_ROLE)]
    write_as(old_leases[0], "set role none; select lo_create(4711)")
    backed.backups.back_up()
    write_as(plane.lease("alpha", AccessLevel.OWNER), "insert into notes (body) values ('after the backup')")
    before = snapshot(plane)
    then = moment(plane)
    write_as(plane.lease("alpha", AccessLevel.OWNER), "delete from notes; drop table moods")
    write_as(
        plane.lease("beta-two", AccessLevel.OWNER),
        "update notes set body = 'overwritten'; drop policy own_notes on notes",
    )
    since = plane.lease("beta-two", AccessLevel.OWNER)
    assert snapshot(plane) != before
    servers.postgres.stop()
    shutil.rmtree(servers.postgres.data)

    request = RestoreRequest(to=then)
    plan = backed.backups.plan(request)
    assert any("nobody can work meanwhile" in step for step in plan)
    backed.backups.restore(request)

    assert snapshot(plane) == before
    assert all(refused(lease) for lease in [*old_leases, since]), "a lease of another time still works"
    assert plane.rows("select rolname from pg_roles where rolname like 'lease\\_%%'") == []
    assert plane.rows("select lomowner::regrole::text from pg_largeobject_metadata") == [("proj_alpha_owner",)]
    assert changes(plane.local_env) == [(0, 0), (0, 0)]
    fresh = plane.lease("alpha", AccessLevel.OWNER)
    write_as(fresh, "insert into notes (body) values ('life goes on')")
    # … and from here on backups are made again, on the new timeline.
    backed.backups.back_up()
    physical = backed.backups.available().physical
    assert [backup.timeline - physical[0].timeline for backup in physical] == [0, 1]
    write_as(fresh, "insert into notes (body) values ('the last thing')")
    after = snapshot(plane)
    backed.backups.restore(RestoreRequest())
    assert snapshot(plane) == after
    assert len(aside(servers)) == 1, "the files that were there before the second restore are gone"


def test_what_was_not_archived_is_taken_from_the_old_files(backed: Backed) -> None:
    """A server that was killed has written more than it could ship."""
    backed.only("physical")
    plane, servers = backed.plane, backed.plane.local_env.servers
    backed.backups.back_up()
    write_as(plane.lease("alpha", AccessLevel.OWNER), "insert into notes (body) values ('just before the crash')")
    before = snapshot(plane)
    pid = int((servers.postgres.data / "postmaster.pid").read_text(encoding="utf-8").splitlines()[0])
    os.kill(pid, 9)
    assert wait_until(lambda: servers.postgres.port is None, 60)
    (servers.postgres.data / "PG_VERSION").unlink()
    backed.backups.restore(RestoreRequest())
    assert snapshot(plane) == before


def test_a_failed_restore_changes_nothing(backed: Backed) -> None:
    backed.only("physical")
    plane = backed.plane
    backed.backups.back_up()
    before = snapshot(plane)
    # The guard writes something every other second.
    beyond = datetime.now(UTC) + timedelta(hours=1)
    with pytest.raises(BackupError, match="the archive has nothing after"):
        backed.backups.restore(RestoreRequest(to=beyond))
    assert snapshot(plane) == before, "the server does not run as before"
    with pytest.raises(BackupError, match="the first one ended"):
        backed.backups.plan(RestoreRequest(to=beyond - timedelta(days=1)))
    with pytest.raises(BackupError, match="there is no complete physical backup 'x'"):
        backed.backups.plan(RestoreRequest(backup="x"))
    # The remains of the failed one are not in the way of the next.
    write_as(plane.lease("alpha", AccessLevel.OWNER), "insert into notes (body) values ('x')")
    then = moment(plane)
    write_as(plane.lease("alpha", AccessLevel.OWNER), "delete from notes")
    backed.backups.restore(RestoreRequest(to=then))
    assert plane.rows("select count(*) from proj_alpha.notes") == [(ROWS + 1,)]


def test_an_interrupted_restore_goes_on(backed: Backed) -> None:
    backed.only("physical")
    plane, servers = backed.plane, backed.plane.local_env.servers
    backed.backups.back_up()
    before = snapshot(plane)
    servers.postgres.stop()
    started = subprocess.Popen(
        [*servers.postgres.prefix, SCRIPTS / "restore-physical.sh"],
        env={**os.environ, "BACKUP_ENV_FILE": str(servers.home.path / "backups.env")},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    working = servers.home.path / "postgres.restoring"
    assert wait_until((working / "data").exists, 120)
    os.killpg(started.pid, 9)
    started.wait()
    assert (servers.postgres.data / "PG_VERSION").is_file(), "the former files are not in their place"
    backed.backups.restore(RestoreRequest())
    assert snapshot(plane) == before
    assert not working.exists()


def test_a_dump_comes_back_into_an_empty_server(backed: Backed) -> None:
    backed.only("logical")
    plane = backed.plane
    old = plane.lease("alpha", AccessLevel.OWNER)
    backed.backups.back_up()
    before = snapshot(plane)
    write_as(old, "delete from notes; drop function count_notes()")
    backed.backups.restore(RestoreRequest(dump="latest"))
    assert snapshot(plane) == before
    assert refused(old)
    assert plane.rows("select rolname from pg_roles where rolname like 'lease\\_%%'") == []
    assert changes(plane.local_env) == [(0, 0), (0, 0)]
    write_as(plane.lease("alpha", AccessLevel.OWNER), "insert into notes (body) values ('life goes on')")


def test_what_a_project_keeps_out_of_a_dump_or_refuses_is_named(
    backed: Backed, monkeypatch: pytest.MonkeyPatch
) -> None:
    backed.only("logical")
    monkeypatch.setenv("BACKUP_LOCK_SECONDS", "2")
    plane = backed.plane
    owner = plane.lease("alpha", AccessLevel.OWNER)
    write_as(
        owner,
        """create function spite() returns boolean language plpgsql as $$ begin
            if current_setting('application_name') like 'pg_restore%' then raise exception 'not me'; end if;
            return true; end $$;
        create table spiteful (id int check (spite())); insert into spiteful values (1)""",
    )
    with psycopg.connect(owner.connection_string) as locking:
        locking.execute("lock table moods in access exclusive mode")
        with pytest.raises(PartialError, match=r"complete but for: proj_alpha\.moods"):
            backed.backups.back_up()
    (dump,) = backed.backups.available().logical
    assert dump.missing == ["proj_alpha.moods (locked, or not to be read by its owner)"]
    with pytest.raises(PartialError, match=r"proj_alpha: COPY failed .*not me.*the dump is without proj_alpha\.moods"):
        backed.backups.restore(RestoreRequest(dump="latest"))
    assert plane.rows("select to_regclass('proj_alpha.moods')") == [(None,)]
    assert plane.rows("select count(*) from proj_beta_two.moods") == [(ROWS // 5,)]
    assert refused(owner), "passwords and leases are not as OpenBao has them"
    write_as(plane.lease("alpha", AccessLevel.OWNER), "drop table spiteful; drop function spite()")


def test_old_backups_are_removed_and_the_newest_stay(backed: Backed) -> None:
    settings = backed.settings.model_copy(
        update={
            "physical": PhysicalBackupSettings(retain_days=7, retain_minimum=1),
            "logical": LogicalBackupSettings(retain_days=7),
        }
    )
    backed.settings = settings
    for _ in range(2):
        backed.backups.back_up()
        time.sleep(1.1)  # a dump is named by its second
    found = backed.backups.available()
    assert (len(found.physical), len(found.logical)) == (2, 2)
    for number, days in ((0, 30), (1, 20)):
        age(settings, found.physical[number].backup_id, days)
        rename_dump(settings, found.logical[number].stamp, days)
    backed.only("logical")
    backed.backups.back_up()
    young = backed.backups.available().logical[-1]
    time.sleep(1.1)
    backed.settings = settings
    backed.backups.back_up()
    left = backed.backups.available()
    # The second of the old ones stays: without it the days between it and the third could not be restored.
    assert left.physical[0].backup_id == found.physical[1].backup_id
    assert left.logical[0].stamp == young.stamp
    assert (len(left.physical), len(left.logical)) == (2, 2)
    first_needed = segments(settings)[0]
    assert first_needed > "000000010000000000000001", "segments that no backup needs are still there"
    backed.backups.check(RestoreRequest(backup=left.physical[0].backup_id))


def age(settings: BackupSettings, backup_id: str, days: int) -> None:
    """Lets a base backup look as if it had been made earlier."""
    s3 = client(str(settings.endpoint))
    key = f"{settings.prefix}/central/base/{backup_id}/backup.info"
    lines = s3.get_object(Bucket=BUCKET, Key=key)["Body"].read().decode().splitlines()
    old = datetime.now(UTC) - timedelta(days=days)
    text = old.strftime("%a %b %d %H:%M:%S %Y")
    kept = [line for line in lines if not line.startswith(("begin_time=", "end_time="))]
    kept += [f"begin_time={text}", f"end_time={text}"]
    s3.put_object(Bucket=BUCKET, Key=key, Body="\n".join(kept).encode())


def rename_dump(settings: BackupSettings, stamp: str, days: int) -> None:
    s3 = client(str(settings.endpoint))
    root = f"{settings.prefix}/central/dumps/"
    old = (datetime.now(UTC) - timedelta(days=days)).strftime("%Y%m%dT%H%M%SZ")
    for item in s3.list_objects_v2(Bucket=BUCKET, Prefix=f"{root}{stamp}/")["Contents"]:
        body = s3.get_object(Bucket=BUCKET, Key=item["Key"])["Body"].read().replace(stamp.encode(), old.encode())
        s3.put_object(Bucket=BUCKET, Key=item["Key"].replace(stamp, old), Body=body)
        s3.delete_object(Bucket=BUCKET, Key=item["Key"])


def segments(settings: BackupSettings) -> list[str]:
    listed = client(str(settings.endpoint)).list_objects_v2(Bucket=BUCKET, Prefix=f"{settings.prefix}/central/wals/")
    return sorted(Path(item["Key"]).name.partition(".")[0] for item in listed.get("Contents", []))


def test_without_the_object_store_nothing_is_lost_and_it_is_said(backed: Backed, store: str) -> None:
    backed.only("physical")
    plane = backed.plane
    backed.backups.back_up()
    place = store.removeprefix("http://")
    gone = backed.settings.model_copy(update={"endpoint": "http://127.0.0.1:1"})
    with pytest.raises(BackupError, match=r"at http://127\.0\.0\.1:1 cannot be listed"):
        LocalBackups(plane.local_env.servers, backed.messages.append, gone).back_up()
    # The file that the archive_command reads names the place that does not answer by now.
    write_as(plane.lease("alpha", AccessLevel.OWNER), "insert into notes (body) values ('while it was away')")
    ((waiting,),) = plane.rows("select pg_walfile_name(pg_switch_wal())")
    assert wait_until(lambda: plane.rows("select failed_count > 0 from pg_stat_archiver") == [(True,)], 120)
    status = plane.local_env.servers.postgres.data / "pg_wal" / "archive_status"
    assert (status / f"{waiting}.ready").exists(), "PostgreSQL believes that the segment is safe"
    before = snapshot(plane)
    backed.backups.available()  # writes the right place again
    assert wait_until((status / f"{waiting}.done").exists, 180), f"{place} is back and nothing is shipped"
    backed.backups.restore(RestoreRequest())
    assert snapshot(plane) == before


def test_missing_keys_are_named_with_the_command(backed: Backed) -> None:
    local_env = backed.plane.local_env
    put_keys(local_env, dict.fromkeys(KEYS, ""))
    with pytest.raises(SecretsMissingError) as caught:
        backed.backups.available()
    for key in S3_KEYS.values():
        assert f"bao kv patch -mount=connectors supabase {key}=-" in str(caught.value)


def test_the_archiver_carries_what_the_database_hands_over(backed: Backed, tmp_path: Path) -> None:
    """The pair of scripts that a cluster has, instead of the direct way of the local data plane."""
    backed.only("physical")
    plane, servers = backed.plane, backed.plane.local_env.servers
    backed.backups.back_up()
    handover = tmp_path / "handover"
    handover.mkdir()
    command = f"{SCRIPTS}/queue-wal.sh %p {handover}"
    with servers.postgres.connect() as admin:
        admin.autocommit = True
        admin.execute(f"alter system set archive_command = '{command}'".encode())
        admin.execute("select pg_reload_conf()")
    environment = {**os.environ, "BACKUP_ENV_FILE": str(servers.home.path / "backups.env")}
    archiver = subprocess.Popen(
        [*servers.postgres.prefix, SCRIPTS / "wal-archiver.sh", handover], env=environment, stderr=subprocess.DEVNULL
    )
    try:
        write_as(plane.lease("alpha", AccessLevel.OWNER), "insert into notes (body) values ('carried')")
        ((segment,),) = plane.rows("select pg_walfile_name(pg_switch_wal())")
        assert wait_until(lambda: segment in segments(backed.settings), 120)
        assert wait_until(
            lambda: plane.rows("select last_archived_wal >= %s from pg_stat_archiver", segment) == [(True,)], 60
        )
        # A later segment may be on its way.
        assert wait_until(lambda: [path.name for path in handover.iterdir()] == ["alive"], 60)
    finally:
        backed.backups._backups.archive()  # the direct way again: there is no archiver to answer any more
        archiver.terminate()
        assert archiver.wait(timeout=60) == 0


def test_the_database_hears_what_the_archiver_met(tmp_path: Path, store: str) -> None:
    """Each half by itself: no archiver, and a archiver that fails."""
    script = SCRIPTS / "queue-wal.sh"
    alone = subprocess.run(
        [script, "pg_wal/000000010000000000000007", tmp_path],
        env={**os.environ, "HAND_OVER_ATTEMPTS": "3"},
        capture_output=True,
        text=True,
    )
    assert alone.returncode == 1
    assert "the container wal-archiver does not answer" in alone.stderr
    programs = install_barman(lambda _text: None)
    archiver = subprocess.Popen(
        [SCRIPTS / "wal-archiver.sh", tmp_path],
        env={
            "PATH": f"{programs}:{find_binaries()}:{os.environ['PATH']}",
            "BACKUP_DESTINATION": f"s3://{BUCKET}/archiver",
            "BACKUP_SERVER": "central",
            "BACKUP_ENDPOINT": store,
            "AWS_ACCESS_KEY_ID": "a",
            "AWS_SECRET_ACCESS_KEY": "b",
            "PGDATA": str(tmp_path / "nothing"),
        },
        stderr=subprocess.DEVNULL,
    )
    try:
        failed = subprocess.run([script, "pg_wal/000000010000000000000007", tmp_path], capture_output=True, text=True)
    finally:
        archiver.terminate()
        archiver.wait(timeout=60)
    assert failed.returncode == 1
    assert "holds no database" in failed.stderr
