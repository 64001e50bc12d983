"""Backups: made, destroyed what they were made of, restored, and compared. The scripts are those that a cluster's jobs run."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import psycopg
import pytest
import requests
from moto.server import ThreadedMotoServer

from components.backup_settings import S3_KEYS, BackupSettings, LogicalBackupSettings, PhysicalBackupSettings
from components.naming import AccessLevel
from connector.backups import LocalBackups, RestoreRequest
from connector.errors import ConnectorError
from connector.leases import Lease
from embedded.backups import SCRIPTS, BackupError
from embedded.barman import install_barman
from embedded.postgres import find_binaries
from embedded.processes import wait_until
from embedded.servers import Servers
from embedded.workplace import Workplace
from tests.conftest import ALPHA, BETA, Plane, bring_up

BUCKET = "backups"
KEYS = {"BACKUP_S3_ACCESS_KEY_ID": "key-of-the-test", "BACKUP_S3_SECRET_ACCESS_KEY": "secret-of-the-test"}

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

# Everything of a tenant that a restore has to bring back, in an order that does not depend on OIDs.
CATALOGUE = {
    "roles": """
        select rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolbypassrls, rolconnlimit,
            rolvaliduntil::text
        from pg_roles where rolname !~ '^(pg_|lease_)' order by 1""",
    "members": """
        select m.roleid::regrole::text, m.member::regrole::text, m.admin_option from pg_auth_members m
        where m.member::regrole::text !~ 'lease_' order by 1, 2""",
    "role settings": """
        select coalesce(r.rolname, '-'), coalesce(d.datname, '-'), s.setconfig::text
        from pg_db_role_setting s left join pg_roles r on r.oid = s.setrole left join pg_database d on d.oid = s.setdatabase
        where coalesce(r.rolname, '') !~ '^lease_' order by 1, 2""",
    "databases": "select datname, datdba::regrole::text, datacl::text from pg_database order by 1",
    "schemas": """
        select nspname, nspowner::regrole::text,
            (select array_agg(a::text order by a::text) from unnest(nspacl) a)::text
        from pg_namespace where nspname !~ '^pg_' order by 1""",
    "relations": """
        select c.oid::regclass::text, c.relkind, c.relowner::regrole::text, c.relrowsecurity, c.relforcerowsecurity,
            (select array_agg(a::text order by a::text) from unnest(c.relacl) a)::text, obj_description(c.oid, 'pg_class')
        from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where nspname !~ '^(pg_|information_schema)' order by 1""",
    "columns": """
        select attrelid::regclass::text, attnum, attname, format_type(atttypid, atttypmod), attnotnull, attidentity,
            pg_get_expr(d.adbin, d.adrelid)
        from pg_attribute a join pg_class c on c.oid = attrelid join pg_namespace n on n.oid = relnamespace
        left join pg_attrdef d on d.adrelid = attrelid and d.adnum = attnum
        where nspname !~ '^(pg_|information_schema)' and attnum > 0 and not attisdropped order by 1, 2""",
    "policies": "select schemaname, tablename, policyname, roles::text, cmd, qual, with_check from pg_policies order by 1, 2, 3",
    "constraints": """
        select conrelid::regclass::text, conname, pg_get_constraintdef(c.oid) from pg_constraint c
        join pg_namespace n on n.oid = connamespace where nspname !~ '^(pg_|information_schema)' order by 1, 2""",
    "functions": """
        select p.oid::regprocedure::text, proowner::regrole::text, pg_get_functiondef(p.oid),
            (select array_agg(a::text order by a::text) from unnest(proacl) a)::text
        from pg_proc p join pg_namespace n on n.oid = pronamespace
        where nspname !~ '^(pg_|information_schema)' and prokind = 'f' order by 1""",
    "default privileges": """
        select defaclrole::regrole::text, coalesce(nspname, '-'), defaclobjtype,
            (select array_agg(a::text order by a::text) from unnest(defaclacl) a)::text
        from pg_default_acl left join pg_namespace n on n.oid = defaclnamespace order by 1, 2, 3""",
    "event triggers": "select evtname, evtevent, evtfoid::regproc::text, evtenabled, evttags::text from pg_event_trigger order by 1",
    "comments": "select obj_description(oid, 'pg_namespace') from pg_namespace where nspname = 'data_plane'",
}


def snapshot(plane: Plane) -> dict[str, Any]:
    """The catalogue, and the rows of every table of every tenant."""
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
    with psycopg.connect(lease.connection_string, connect_timeout=10) as connection:
        connection.execute(statements.encode())


def refused(lease: Lease) -> bool:
    try:
        psycopg.connect(lease.connection_string, connect_timeout=10).close()
    except psycopg.OperationalError as error:
        return "authentication failed" in str(error)
    return False


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    """An S3-compatible server with an empty bucket."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    client(endpoint).create_bucket(Bucket=BUCKET)
    yield endpoint
    server.stop()


def client(endpoint: str) -> Any:
    keys = list(KEYS.values())
    return boto3.client(
        "s3", endpoint_url=endpoint, aws_access_key_id=keys[0], aws_secret_access_key=keys[1], region_name="us-east-1"
    )


def settings_for(endpoint: str, prefix: str, **others: Any) -> BackupSettings:
    return BackupSettings(bucket=BUCKET, prefix=prefix, endpoint=endpoint, force_path_style=True, **others)


@dataclass
class Backed:
    """A data plane of its own, two tenants with data in it, and where its backups go."""

    plane: Plane
    settings: BackupSettings
    said: list[str]

    @property
    def backups(self) -> LocalBackups:
        return LocalBackups(self.plane.workplace.servers, self.said.append, self.settings)

    def only(self, kind: str) -> None:
        """Leaves the other kind out, where a test does not need it."""
        other = {"physical": "logical", "logical": "physical"}[kind]
        self.settings = self.settings.model_copy(update={other: None})


@pytest.fixture(scope="module")
def two_tenants(new_workplace: Callable[[dict[str, str]], Workplace]) -> Iterator[Plane]:
    """A data plane of this file's own: its server is stopped, killed and restored."""
    workplace = new_workplace({"alpha.yaml": ALPHA, "beta-two.yaml": BETA})
    bring_up(workplace)
    yield Plane(workplace)
    workplace.servers.stop()


@pytest.fixture
def backed(two_tenants: Plane, store: str, request: pytest.FixtureRequest) -> Backed:
    """The tenants with the same data in them for each test, and a place for its backups."""
    plane = two_tenants
    put_keys(plane.workplace, KEYS)
    for project in ("alpha", "beta-two"):
        lease = plane.lease(project, AccessLevel.OWNER)
        write_as(lease, RESET + MIGRATION)
        rows = f"select '{project} ' || n, array['t' || n] from generate_series(1, {ROWS}) n"
        write_as(lease, f"insert into notes (body, tags) {rows}")
        write_as(lease, "insert into moods select id, 'good' from notes where id % 5 = 0")
    return Backed(plane, settings_for(store, request.node.name), [])


def put_keys(workplace: Workplace, keys: dict[str, str]) -> None:
    workplace.servers.openbao.client().secrets.kv.v2.patch("supabase", keys, mount_point="connectors")


def aside(servers: Servers) -> list[Path]:
    return sorted(servers.home.path.glob("postgres.before-*"))


def changes(workplace: Workplace) -> list[tuple[int | None, int | None]]:
    return [(run.created, run.updated) for run in bring_up(workplace)]


def moment(plane: Plane) -> datetime:
    """A moment between what was committed before and what comes after."""
    time.sleep(0.05)
    ((now,),) = plane.rows("select clock_timestamp()")
    time.sleep(0.05)
    return datetime.fromisoformat(str(now)).astimezone(UTC)


def test_a_destroyed_database_comes_back_as_it_was_at_a_moment(backed: Backed) -> None:
    backed.only("physical")
    plane, servers = backed.plane, backed.plane.workplace.servers
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
    assert changes(plane.workplace) == [(0, 0), (0, 0)]
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
    plane, servers = backed.plane, backed.plane.workplace.servers
    backed.backups.back_up()
    write_as(plane.lease("alpha", AccessLevel.OWNER), "insert into notes (body) values ('just before the crash')")
    before = snapshot(plane)
    pid = int((servers.postgres.data / "postmaster.pid").read_text(encoding="utf-8").splitlines()[0])
    os.kill(pid, 9)
    assert wait_until(lambda: servers.postgres.port is None, 10)
    (servers.postgres.data / "PG_VERSION").unlink()
    backed.backups.restore(RestoreRequest())
    assert snapshot(plane) == before


def test_a_failed_restore_changes_nothing(backed: Backed) -> None:
    backed.only("physical")
    plane = backed.plane
    backed.backups.back_up()
    before = snapshot(plane)
    beyond = datetime.now(UTC)
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


def test_a_drill_leaves_the_running_server_alone(backed: Backed) -> None:
    backed.only("physical")
    backed.backups.back_up()
    before = snapshot(backed.plane)
    files = set(backed.plane.workplace.servers.home.path.iterdir())
    backed.backups.check(RestoreRequest())
    assert snapshot(backed.plane) == before
    assert set(backed.plane.workplace.servers.home.path.iterdir()) == files
    assert "can be restored; nothing was changed" in backed.said[-1]


def test_an_interrupted_restore_goes_on(backed: Backed) -> None:
    backed.only("physical")
    plane, servers = backed.plane, backed.plane.workplace.servers
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
    assert wait_until((working / "data").exists, 60)
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
    assert changes(plane.workplace) == [(0, 0), (0, 0)]
    write_as(plane.lease("alpha", AccessLevel.OWNER), "insert into notes (body) values ('life goes on')")


def test_a_dump_holds_no_password(backed: Backed) -> None:
    backed.only("logical")
    backed.plane.lease("alpha", AccessLevel.OWNER)
    backed.backups.back_up()
    (dump,) = backed.backups.available().logical
    key = f"{backed.settings.prefix}/central/dumps/{dump.stamp}/globals.sql"
    text = client(str(backed.settings.endpoint)).get_object(Bucket=BUCKET, Key=key)["Body"].read().decode()
    assert "CREATE ROLE proj_alpha_owner" in text
    assert "PASSWORD" not in text
    assert "SCRAM" not in text


def test_one_project_comes_back_beside_the_present_one(backed: Backed) -> None:
    backed.only("logical")
    plane = backed.plane
    backed.backups.back_up()
    lease = plane.lease("alpha", AccessLevel.OWNER)
    write_as(lease, "delete from notes; drop table moods")
    before = snapshot(plane)
    backed.backups.restore(RestoreRequest(project="alpha"))
    ((schema,),) = plane.rows("select nspname from pg_namespace where nspname like 'restored\\_%%'")
    assert str(schema).startswith("restored_alpha_")
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
    assert plane.rows("select has_schema_privilege('authenticator', %s, 'usage')", schema) == [(False,)]
    with psycopg.connect(lease.connection_string) as owner:
        owner.execute(f"drop schema {schema} cascade".encode())
        owner.execute("delete from notes")
    now = snapshot(plane)
    assert {key: value for key, value in now.items() if key != "rows"} == {
        k: v for k, v in before.items() if k != "rows"
    }
    with pytest.raises(BackupError, match="there is no role proj_gone_owner"):
        backed.backups.restore(RestoreRequest(project="gone"))


def test_old_backups_are_removed_and_the_newest_stay(backed: Backed) -> None:
    settings = backed.settings.model_copy(
        update={
            "physical": PhysicalBackupSettings(retain_days=7, retain_minimum=1),
            "logical": LogicalBackupSettings(retain_days=7),
        }
    )
    backed.settings = settings
    for _ in range(3):
        backed.backups.back_up()
        time.sleep(1.1)  # a dump is named by its second
    found = backed.backups.available()
    assert (len(found.physical), len(found.logical)) == (3, 3)
    for number, days in ((0, 30), (1, 20)):
        age(settings, found.physical[number].backup_id, days)
        rename_dump(settings, found.logical[number].stamp, days)
    backed.backups.back_up()
    left = backed.backups.available()
    # The second of the old ones stays: without it the days between it and the third could not be restored.
    assert [backup.backup_id for backup in left.physical][:2] == [item.backup_id for item in found.physical[1:]]
    assert left.logical[0].stamp == found.logical[2].stamp
    assert (len(left.physical), len(left.logical)) == (3, 2)
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


def test_a_dump_that_broke_off_is_no_dump(backed: Backed) -> None:
    backed.only("logical")
    backed.backups.back_up()
    (dump,) = backed.backups.available().logical
    s3 = client(str(backed.settings.endpoint))
    root = f"{backed.settings.prefix}/central/dumps"
    s3.delete_object(Bucket=BUCKET, Key=f"{root}/{dump.stamp}/manifest.json")
    assert backed.backups.available().logical == []
    with pytest.raises(BackupError, match="there is no dump yet"):
        backed.backups.plan(RestoreRequest(dump="latest"))


def test_a_damaged_dump_is_noticed(backed: Backed) -> None:
    backed.only("logical")
    backed.backups.back_up()
    (dump,) = backed.backups.available().logical
    s3 = client(str(backed.settings.endpoint))
    key = f"{backed.settings.prefix}/central/dumps/{dump.stamp}/postgres.dump"
    body = s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    s3.put_object(Bucket=BUCKET, Key=key, Body=body + b"x")
    before = snapshot(backed.plane)
    with pytest.raises(BackupError, match="database postgres was not restored"):
        backed.backups.restore(RestoreRequest(dump="latest"))
    assert "its checksum is not the one in the manifest" in "\n".join(backed.said)
    assert snapshot(backed.plane) == before, "the former server is not in its place"


def test_without_the_object_store_nothing_is_lost_and_it_is_said(backed: Backed, store: str) -> None:
    backed.only("physical")
    plane = backed.plane
    backed.backups.back_up()
    place = store.removeprefix("http://")
    gone = backed.settings.model_copy(update={"endpoint": "http://127.0.0.1:1"})
    with pytest.raises(BackupError, match=r"at http://127\.0\.0\.1:1 cannot be listed"):
        LocalBackups(plane.workplace.servers, backed.said.append, gone).back_up()
    # The file that the archive_command reads names the place that does not answer by now.
    write_as(plane.lease("alpha", AccessLevel.OWNER), "insert into notes (body) values ('while it was away')")
    ((waiting,),) = plane.rows("select pg_walfile_name(pg_switch_wal())")
    assert wait_until(lambda: plane.rows("select failed_count > 0 from pg_stat_archiver") == [(True,)], 60)
    status = plane.workplace.servers.postgres.data / "pg_wal" / "archive_status"
    assert (status / f"{waiting}.ready").exists(), "PostgreSQL believes that the segment is safe"
    before = snapshot(plane)
    backed.backups.available()  # writes the right place again
    assert wait_until((status / f"{waiting}.done").exists, 90), f"{place} is back and nothing is shipped"
    backed.backups.restore(RestoreRequest())
    assert snapshot(plane) == before


def test_another_databases_place_is_refused(
    backed: Backed, new_workplace: Callable[[dict[str, str]], Workplace]
) -> None:
    backed.only("physical")
    backed.backups.back_up()
    other = new_workplace({"alpha.yaml": ALPHA})
    bring_up(other)
    put_keys(other, KEYS)
    with pytest.raises(BackupError, match=r"holds backups of another database .* give this one a prefix of its own"):
        LocalBackups(other.servers, backed.said.append, backed.settings).back_up()
    other.servers.stop()


def test_missing_keys_are_named_with_the_command(backed: Backed) -> None:
    workplace = backed.plane.workplace
    put_keys(workplace, dict.fromkeys(KEYS, ""))
    with pytest.raises(ConnectorError) as caught:
        backed.backups.available()
    for key in S3_KEYS.values():
        assert f"bao kv patch -mount=connectors supabase {key}=-" in str(caught.value)


def test_secrets_are_in_no_message_and_no_argument(backed: Backed) -> None:
    backed.only("physical")
    backed.backups.back_up()
    servers = backed.plane.workplace.servers
    secrets = [*KEYS.values(), servers.postgres.admin_password]
    said = "\n".join(backed.said) + servers.postgres.log.read_text(encoding="utf-8")
    ((command,),) = backed.plane.rows("select setting from pg_settings where name = 'archive_command'")
    assert not any(secret in said + str(command) for secret in secrets)
    assert (servers.home.path / "backups.env").stat().st_mode & 0o077 == 0


def test_wrong_credentials_are_named(backed: Backed, store: str) -> None:
    backed.only("physical")
    backed.backups.back_up()
    before = snapshot(backed.plane)
    requests.post(f"{store}/moto-api/reset-auth", data=b"0", timeout=10)  # from here on it asks who one is
    try:
        with pytest.raises(BackupError, match=r"cannot be listed: .*InvalidAccessKeyId"):
            backed.backups.back_up()
        with pytest.raises(BackupError, match=r"InvalidAccessKeyId"):
            backed.backups.restore(RestoreRequest(backup="20260101T000000"))
    finally:
        requests.post(f"{store}/moto-api/reset-auth", data=b"1000000000", timeout=10)
    assert snapshot(backed.plane) == before


def test_the_courier_carries_what_the_database_hands_over(backed: Backed, tmp_path: Path) -> None:
    """The pair of scripts that a cluster has, instead of the direct way of the local data plane."""
    backed.only("physical")
    plane, servers = backed.plane, backed.plane.workplace.servers
    backed.backups.back_up()
    handover = tmp_path / "handover"
    handover.mkdir()
    command = f"{SCRIPTS}/hand-over-wal.sh %p {handover}"
    with servers.postgres.connect() as admin:
        admin.autocommit = True
        admin.execute(f"alter system set archive_command = '{command}'".encode())
        admin.execute("select pg_reload_conf()")
    environment = {**os.environ, "BACKUP_ENV_FILE": str(servers.home.path / "backups.env")}
    courier = subprocess.Popen(
        [*servers.postgres.prefix, SCRIPTS / "wal-courier.sh", handover], env=environment, stderr=subprocess.DEVNULL
    )
    try:
        write_as(plane.lease("alpha", AccessLevel.OWNER), "insert into notes (body) values ('carried')")
        ((segment,),) = plane.rows("select pg_walfile_name(pg_switch_wal())")
        assert wait_until(lambda: segment in segments(backed.settings), 60)
        assert wait_until(
            lambda: plane.rows("select last_archived_wal >= %s from pg_stat_archiver", segment) == [(True,)], 10
        )
        assert sorted(path.name for path in handover.iterdir()) == ["alive"]
    finally:
        backed.backups._backups.archive()  # the direct way again: there is no courier to answer any more
        courier.terminate()
        assert courier.wait(timeout=30) == 0


def test_the_database_hears_what_the_courier_met(tmp_path: Path, store: str) -> None:
    """Each half by itself: no courier, and a courier that fails."""
    script = SCRIPTS / "hand-over-wal.sh"
    alone = subprocess.run(
        [script, "pg_wal/000000010000000000000007", tmp_path],
        env={**os.environ, "HAND_OVER_ATTEMPTS": "3"},
        capture_output=True,
        text=True,
    )
    assert alone.returncode == 1
    assert "the container wal-courier does not answer" in alone.stderr
    programs = install_barman(lambda _text: None)
    courier = subprocess.Popen(
        [SCRIPTS / "wal-courier.sh", tmp_path],
        env={
            "PATH": f"{programs}:{find_binaries()}:{os.environ['PATH']}",
            "BACKUP_DESTINATION": f"s3://{BUCKET}/courier",
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
        courier.terminate()
        courier.wait(timeout=30)
    assert failed.returncode == 1
    assert "holds no database" in failed.stderr
