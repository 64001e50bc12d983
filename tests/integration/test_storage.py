"""Who reaches which file: the rules on Storage's tables, by the statements that Storage runs, and the bucket resource."""

import base64
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from psycopg.errors import InsufficientPrivilege, LockNotAvailable

from components.naming import AccessLevel
from components.postgres import DatabaseUnavailableError
from components.tenant.declared_row import DeclaredRowError
from components.tenant.storage import _Provider
from embedded.postgres import EmbeddedPostgres
from embedded.servers import ADMIN_USER, LOOPBACK
from tests.conftest import Plane, bring_up
from tests.integration.platform_database import (
    Connection,
    add_tenants,
    api_request,
    apply_platform,
    connect,
    issue,
    new_id,
    revoke,
    run,
    running,
)
from tests.integration.test_platform_sql import binaries

# The columns, grants and row-level security of Storage's tables that matter here, in the steps in which its migrations
# bring them; by its own login. Like the official image's, the grants are of everything.
STORAGE_LOGIN = """
    do $$
    begin
        if to_regrole('supabase_storage_admin') is null then
            create role supabase_storage_admin login noinherit;
        end if;
    end
    $$;
    alter role supabase_storage_admin password 'for-this-test';
    grant authenticator to supabase_storage_admin;
    create schema if not exists storage authorization supabase_storage_admin;
    grant usage on schema storage to anon, authenticated, service_role;
    alter default privileges for role supabase_storage_admin in schema storage
        grant all on tables to anon, authenticated, service_role;
"""
STORAGE_TABLES = [
    "create table storage.buckets (id text primary key, name text not null unique, owner uuid)",
    """create table storage.objects (id uuid primary key default gen_random_uuid(), name text, owner uuid, metadata jsonb,
        bucket_id text references storage.buckets (id), unique (bucket_id, name))""",
    "alter table storage.objects enable row level security",
    "alter table storage.buckets enable row level security",
    "alter table storage.buckets add column public boolean default false",
    "alter table storage.buckets add column file_size_limit varchar, add column allowed_mime_types text[]",
    "alter table storage.buckets alter column file_size_limit type bigint using file_size_limit::bigint",
    "alter table storage.objects add column owner_id text, add column version text",
    """create table storage.s3_multipart_uploads (id text primary key, bucket_id text references storage.buckets (id),
        key text, owner_id text)""",
    """create table storage.s3_multipart_uploads_parts (id uuid primary key default gen_random_uuid(), upload_id text,
        bucket_id text references storage.buckets (id), owner_id text)""",
    "create table storage.forgotten (id int)",
    "grant all on storage.buckets, storage.objects to anon, authenticated, service_role",
]
ONE, TWO = "proj_one", "proj_two_b"


def make_storage(server: EmbeddedPostgres) -> None:
    run(server, STORAGE_LOGIN)
    with connect(server, "supabase_storage_admin") as storage:
        for statement in STORAGE_TABLES:
            storage.execute(statement.encode())
            storage.commit()


@pytest.fixture(scope="module", params=sorted(binaries()))
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """Buckets of both tenants, that of `two-b` public. On the newest PostgreSQL, Storage was there first."""
    with running(tmp_path_factory.mktemp("pg"), binaries()[request.param]) as server:
        storage_first = request.param == max(binaries())
        if storage_first:
            run(server, "create role authenticator login noinherit; create role anon nologin noinherit;")
            run(server, "create role authenticated nologin noinherit; create role service_role nologin bypassrls;")
            make_storage(server)
        apply_platform(server)
        add_tenants(server)
        run(server, "insert into data_plane.buckets (tenant, public) values (%s, false), (%s, true)", ONE, TWO)
        if storage_first:
            apply_platform(server)
        else:
            make_storage(server)
        yield server


@contextmanager
def storage(
    database: EmbeddedPostgres,
    role: str,
    sub: str | None = None,
    claims: Mapping[str, object] | None = None,
    operation: str = "storage.object.x",
) -> Iterator[Connection]:
    """A request to Storage with a token of this role."""
    given = {**({} if sub is None else {"sub": sub}), **(claims or {})}
    with api_request(database, role, given, login="supabase_storage_admin") as session:
        session.execute(
            "select set_config('storage.operation', %s, true), set_config('storage.allow_delete_query', 'true', true)",
            [operation],
        )
        yield session


def upload(session: Connection, bucket: str, name: str, owner: str | None) -> None:
    session.execute(
        "insert into storage.objects (name, owner_id, bucket_id, version) values (%s, %s, %s, '1')",
        [name, owner, bucket],
    )


def upsert(session: Connection, bucket: str, name: str, owner: str | None) -> None:
    session.execute(
        "insert into storage.objects (name, owner_id, bucket_id, version) values (%s, %s, %s, '2')"
        " on conflict (name, bucket_id) do update set version = excluded.version, owner_id = excluded.owner_id returning *",
        [name, owner, bucket],
    )


def names(session: Connection, bucket: str) -> set[str]:
    rows = session.execute("select name from storage.objects where bucket_id = %s", [bucket]).fetchall()
    return {row[0] for row in rows}


def delete(session: Connection, bucket: str, name: str) -> int:
    query = "delete from storage.objects where bucket_id = %s and name = %s returning *"
    return len(session.execute(query, [bucket, name]).fetchall())


def move(session: Connection, bucket: str, name: str, to_bucket: str, to_name: str, owner: str | None) -> int:
    query = "update storage.objects set name = %s, bucket_id = %s, owner_id = %s where bucket_id = %s and name = %s returning *"
    return len(session.execute(query, [to_name, to_bucket, owner, bucket, name]).fetchall())


@pytest.fixture
def files(database: EmbeddedPostgres) -> dict[str, str]:
    """One file of a user's in each bucket; their owners by bucket."""
    run(database, "set storage.allow_delete_query = 'true'; delete from storage.objects")
    owners = {}
    for bucket in (ONE, TWO):
        owners[bucket] = new_id()
        with storage(database, f"{bucket}_authenticated", owners[bucket]) as session:
            upload(session, bucket, "file", owners[bucket])
    return owners


ADMIN = {"storage_admin": True}


def test_buckets_come_to_be_with_storage(database: EmbeddedPostgres) -> None:
    rows = run(database, "select id, name, public, file_size_limit, allowed_mime_types from storage.buckets order by 1")
    assert rows == [(ONE, ONE, False, None, None), (TWO, TWO, True, None, None)]


def test_users_read_their_bucket_and_no_other(database: EmbeddedPostgres, files: dict[str, str]) -> None:
    for mine, other in ((ONE, TWO), (TWO, ONE)):
        with storage(database, f"{mine}_authenticated", new_id()) as session:
            assert names(session, mine) == {"file"}
            assert names(session, other) == set()
            assert session.execute("select count(*) from storage.objects").fetchone() == (1,)


def test_anybody_reads_a_public_bucket_only(database: EmbeddedPostgres, files: dict[str, str]) -> None:
    for tenant, readable in ((ONE, set()), (TWO, {"file"})):
        with storage(database, f"{tenant}_anon") as session:
            assert names(session, tenant) == readable
            assert names(session, ONE if tenant == TWO else TWO) == set()
            for owner in (None, files[tenant]):
                with pytest.raises(InsufficientPrivilege), session.transaction():
                    upload(session, tenant, "new", owner)
            assert delete(session, tenant, "file") == 0
            assert move(session, tenant, "file", tenant, "moved", None) == 0


def test_users_add_change_and_delete_files_of_their_own(database: EmbeddedPostgres, files: dict[str, str]) -> None:
    me = new_id()
    with storage(database, f"{ONE}_authenticated", me) as session:
        upload(session, ONE, "mine", me)
        upsert(session, ONE, "mine", me)
        assert move(session, ONE, "mine", ONE, "folder/mine", me) == 1
        assert names(session, ONE) == {"file", "folder/mine"}
        assert delete(session, ONE, "folder/mine") == 1


def test_users_do_not_touch_files_of_others(database: EmbeddedPostgres, files: dict[str, str]) -> None:
    me = new_id()
    with storage(database, f"{ONE}_authenticated", me) as session:
        assert delete(session, ONE, "file") == 0
        assert move(session, ONE, "file", ONE, "taken", me) == 0
        for name, owner in (("new", files[ONE]), ("new", None), ("file", me)):
            with pytest.raises(InsufficientPrivilege), session.transaction():
                upsert(session, ONE, name, owner)
        upload(session, ONE, "mine", me)
        with pytest.raises(InsufficientPrivilege), session.transaction():
            move(session, ONE, "mine", ONE, "given", files[ONE])


@pytest.mark.parametrize("claims", [{}, ADMIN])
def test_nobody_reaches_another_tenants_bucket(
    database: EmbeddedPostgres, files: dict[str, str], claims: dict[str, object]
) -> None:
    """Not even with the owner's identity."""
    for me in (new_id(), files[TWO]):
        with storage(database, f"{ONE}_authenticated", me, claims) as session:
            for act in (upload, upsert):
                with pytest.raises(InsufficientPrivilege), session.transaction():
                    act(session, TWO, "intruder", me)
            assert delete(session, TWO, "file") == 0
            assert move(session, TWO, "file", ONE, "stolen", me) == 0
            upload(session, ONE, "mine", me)
            with pytest.raises(InsufficientPrivilege), session.transaction():
                move(session, ONE, "mine", TWO, "planted", me)
            assert session.execute("select id from storage.buckets").fetchall() == [(ONE,)]
            session.rollback()


def test_a_storage_admin_does_everything_in_the_own_bucket(database: EmbeddedPostgres, files: dict[str, str]) -> None:
    backend = new_id()
    with storage(database, f"{ONE}_authenticated", backend, ADMIN, "storage.bucket.empty") as session:
        assert session.execute("select id from storage.buckets").fetchall() == [(ONE,)]
        upsert(session, ONE, "file", backend)
        upload(session, ONE, "for somebody", files[ONE])
        assert move(session, ONE, "file", ONE, "moved", None) == 1
        assert delete(session, ONE, "moved") == 1
        assert names(session, ONE) == {"for somebody"}


@pytest.mark.parametrize("claim", [False, "yes", 1, None, ["true"]])
def test_only_the_true_claim_makes_a_storage_admin(
    database: EmbeddedPostgres, files: dict[str, str], claim: object
) -> None:
    with storage(database, f"{ONE}_authenticated", new_id(), {"storage_admin": claim}) as session:
        assert delete(session, ONE, "file") == 0


def test_nobody_administers_storage_without_being_a_user(database: EmbeddedPostgres, files: dict[str, str]) -> None:
    with storage(database, f"{TWO}_anon", files[TWO], ADMIN) as session:
        assert delete(session, TWO, "file") == 0
        with pytest.raises(InsufficientPrivilege), session.transaction():
            upload(session, TWO, "new", files[TWO])


@pytest.mark.parametrize("role", [f"{ONE}_authenticated", f"{TWO}_authenticated", f"{TWO}_anon"])
def test_a_bucket_is_not_emptied_by_whoever_can_read_it(
    database: EmbeddedPostgres, files: dict[str, str], role: str
) -> None:
    """Storage empties a bucket past all rules for everybody to whom it shows the bucket."""
    with storage(database, role, new_id(), operation="storage.bucket.empty") as session:
        assert session.execute("select id from storage.buckets").fetchall() == []
    with storage(database, role, new_id(), operation="storage.bucket.get") as session:
        assert len(session.execute("select id from storage.buckets").fetchall()) == 1


@pytest.mark.parametrize("claims", [{}, ADMIN])
def test_buckets_are_declared_and_not_made_by_requests(database: EmbeddedPostgres, claims: dict[str, object]) -> None:
    with storage(database, f"{ONE}_authenticated", new_id(), claims) as session:
        for name in ("mine", f"{ONE}_more", TWO):
            with pytest.raises(InsufficientPrivilege), session.transaction():
                session.execute("insert into storage.buckets (id, name) values (%s, %s)", [name, name])
        for statement in (
            "update storage.buckets set public = true returning *",
            "delete from storage.buckets returning *",
        ):
            assert session.execute(statement.encode()).fetchall() == []


def test_uploads_in_parts_are_seen_by_whose_they_are(database: EmbeddedPostgres) -> None:
    me = new_id()
    run(database, "delete from storage.s3_multipart_uploads")
    for bucket, owner in ((ONE, me), (ONE, new_id()), (TWO, me)):
        run(
            database,
            "insert into storage.s3_multipart_uploads (id, bucket_id, key, owner_id) values (%s, %s, 'k', %s)",
            new_id(), bucket, owner,
        )  # fmt: skip
    for claims, seen in (({}, 1), (ADMIN, 2)):
        with storage(database, f"{ONE}_authenticated", me, claims) as session:
            assert session.execute("select count(*) from storage.s3_multipart_uploads").fetchone() == (seen,)
    with storage(database, f"{ONE}_anon", me) as session:
        assert session.execute("select count(*) from storage.s3_multipart_uploads").fetchone() == (0,)


def test_a_service_role_has_no_right_that_would_pass_the_rules(database: EmbeddedPostgres) -> None:
    """It bypasses row-level security, in whatever table it may use."""
    rows = run(
        database,
        """
        select c.relname, p.name from pg_class c
        cross join unnest(array['select', 'insert', 'update', 'delete', 'truncate', 'references', 'trigger']) as p (name)
        where c.relnamespace = 'storage'::regnamespace and c.relkind = 'r'
            and (has_table_privilege('proj_one_service_role', c.oid, p.name)
                or has_table_privilege('proj_one_owner', c.oid, p.name))
        """,
    )
    assert rows == []
    for operation in ("select count(*) from storage.objects", "select count(*) from storage.buckets"):
        with storage(database, f"{ONE}_service_role") as session, pytest.raises(InsufficientPrivilege):
            session.execute(operation.encode())


def test_nobody_has_a_right_that_row_level_security_does_not_see(database: EmbeddedPostgres) -> None:
    query = """
        select c.relname, r.rolname from pg_class c cross join pg_roles r
        where c.relnamespace = 'storage'::regnamespace and c.relkind = 'r'
            and r.rolname in ('anon', 'authenticated', 'proj_one_anon', 'proj_one_authenticated')
            and (has_table_privilege(r.oid, c.oid, 'truncate, references, trigger') or not c.relrowsecurity)
        """
    assert run(database, query) == []
    with connect(database, "supabase_storage_admin") as session:
        session.execute("create table storage.later (id int)")
        session.execute("grant all on storage.objects, storage.later to anon, authenticated")
    assert run(database, query) == []
    run(database, "drop table storage.later")


def test_a_lease_writes_no_file_whatever_it_claims(database: EmbeddedPostgres, files: dict[str, str]) -> None:
    """Claims are Storage's word in Storage's sessions; in a lease's they are the lease's own."""
    issue(database, "lease_claims", f"{ONE}_authenticated")
    with connect(database, "lease_claims", "pw") as session:
        session.execute(
            "select set_config('request.jwt.claims', %s, false), set_config('storage.allow_delete_query', 'true', false)",
            [f'{{"sub": "{files[ONE]}", "storage_admin": true}}'],
        )
        assert names(session, ONE) == {"file"}, "reading is what every user of the project may do"
        assert names(session, TWO) == set()
        assert delete(session, ONE, "file") == 0
        assert move(session, ONE, "file", ONE, "moved", files[ONE]) == 0
        for act in (upload, upsert):
            with pytest.raises(InsufficientPrivilege), session.transaction():
                act(session, ONE, "planted", files[ONE])
        for statement in (
            "truncate storage.objects",
            "create trigger t before insert on storage.objects execute function x()",
        ):
            with pytest.raises(InsufficientPrivilege), session.transaction():
                session.execute(statement.encode())
    revoke(database, "lease_claims")


def test_detaching_ends_all_access_at_once(database: EmbeddedPostgres, files: dict[str, str]) -> None:
    run(database, "revoke usage on schema proj_one from proj_one_authenticated, proj_one_anon")
    try:
        with storage(database, f"{ONE}_authenticated", files[ONE], ADMIN) as session:
            assert names(session, ONE) == set()
            assert delete(session, ONE, "file") == 0
            with pytest.raises(InsufficientPrivilege), session.transaction():
                upload(session, ONE, "new", files[ONE])
    finally:
        run(database, "grant usage on schema proj_one to proj_one_authenticated, proj_one_anon")


def test_other_rules_of_the_platform_let_no_tenant_out(database: EmbeddedPostgres, files: dict[str, str]) -> None:
    """Supabase's examples permit things to `authenticated`, which every tenant's role is a member of."""
    run(database, "create policy example on storage.objects for all to authenticated using (true) with check (true)")
    try:
        with storage(database, f"{ONE}_authenticated", files[TWO]) as session:
            assert names(session, TWO) == set()
            with pytest.raises(InsufficientPrivilege), session.transaction():
                upload(session, TWO, "new", files[TWO])
        with storage(database, "authenticated", new_id()) as session:
            assert names(session, ONE) == {"file"}, "the platform's own role is as the platform's rules say"
    finally:
        run(database, "drop policy example on storage.objects")


def test_rules_are_made_anew_only_when_they_differ(database: EmbeddedPostgres) -> None:
    """Making one locks out everybody who is using Storage."""
    query = "select array_agg(oid order by oid) from pg_policy where polname like 'data_plane: %%'"
    before = run(database, query)
    with storage(database, f"{ONE}_authenticated", new_id()) as session:
        names(session, ONE)
        with database.connect() as admin:
            admin.execute("set lock_timeout to '500ms'")
            admin.execute("select data_plane.adopt_services()")
            with pytest.raises(LockNotAvailable), admin.transaction():
                admin.execute("alter table storage.objects add column x int")
    assert run(database, query) == before
    run(database, 'drop policy "data_plane: a tenant sees its bucket" on storage.buckets')
    run(database, "select data_plane.adopt_services()")
    assert len(run(database, query)[0][0]) == len(before[0][0])


# The resource


@pytest.fixture
def properties(database: EmbeddedPostgres) -> dict[str, Any]:
    return {
        "host": LOOPBACK,
        "port": float(database.known_port),
        "database": "postgres",
        "username": ADMIN_USER,
        "password": database.admin_password,
        "sslmode": "disable",
        "tenant": "proj_third",
        "public": False,
        "file_size_limit": float(50 << 20),
        "allowed_mime_types": ["image/*"],
    }


def bucket(database: EmbeddedPostgres) -> list[tuple[Any, ...]]:
    return run(
        database, "select public, file_size_limit, allowed_mime_types from storage.buckets where id = 'proj_third'"
    )


def test_a_bucket_is_changed_in_place_and_drift_is_noticed(
    database: EmbeddedPostgres, properties: dict[str, Any]
) -> None:
    provider = _Provider()
    made = provider.create(properties)
    assert bucket(database) == [(False, 50 << 20, ["image/*"])]
    assert not provider.diff(made.id, dict(made.outs or {}), properties).changes
    assert not provider.diff(
        made.id, dict(provider.read(made.id, dict(made.outs or {})).outs or {}), properties
    ).changes

    run(database, "update storage.buckets set public = true where id = 'proj_third'")
    seen = dict(provider.read(made.id, dict(made.outs or {})).outs or {})
    assert provider.diff(made.id, seen, properties).changes
    changed = {**properties, "file_size_limit": None, "allowed_mime_types": None}
    provider.update(made.id, seen, changed)
    assert bucket(database) == [(False, None, None)]

    run(database, "set storage.allow_delete_query = 'true'; delete from storage.buckets where id = 'proj_third'")
    seen = dict(provider.read(made.id, dict(made.outs or {})).outs or {})
    provider.update(made.id, seen, {**changed, "public": True})
    assert bucket(database) == [(True, None, None)]
    provider.delete(made.id, properties)
    assert bucket(database) == [(False, None, None)], "nothing is deleted, and nothing is open"


def test_what_is_missing_is_said(database: EmbeddedPostgres, properties: dict[str, Any]) -> None:
    provider = _Provider()
    with pytest.raises(DatabaseUnavailableError, match="cannot be used"):
        provider.create({**properties, "password": "wrong"})
    with pytest.raises(DeclaredRowError, match=r"proj_third in data_plane\.buckets: .*check"):
        provider.create({**properties, "allowed_mime_types": []})
    with pytest.raises(DeclaredRowError, match="bring the central stack up first"):
        provider.create({**properties, "database": "template1"})


# Through the components


def test_a_project_with_storage_has_a_bucket_and_a_token_for_it(storage_plane: Plane) -> None:
    assert storage_plane.rows("select tenant, public, file_size_limit, allowed_mime_types from data_plane.buckets") == [
        ("proj_gallery", True, 5 << 20, ["image/png", "image/webp"])
    ]
    assert storage_plane.rows("select tenant, sign_up from data_plane.sign_in") == [("proj_gallery", "open")]
    binding = storage_plane.workplace.bindings()["gallery"]
    assert binding["storage"] == {
        "url": "http://127.0.0.1:8000/storage/v1",
        "bucket": "proj_gallery",
        "tokenPath": "identity/oidc/token/proj_gallery_storage",
    }
    assert "storage" not in storage_plane.workplace.bindings()["plain"]


def test_whoever_may_use_the_service_role_may_administer_the_bucket(storage_plane: Plane) -> None:
    for user, allowed in (("olga", True), ("sam", True), ("cora", False), ("pat", False)):
        client = storage_plane.workplace.sign_in(user)
        answer = client.adapter.request("get", "/v1/identity/oidc/token/proj_gallery_storage", raise_exception=False)
        if not allowed:
            assert answer.status_code == 403, user
            continue
        payload = answer["data"]["token"].split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        assert (claims["role"], claims["storage_admin"], claims["project"]) == (
            "proj_gallery_authenticated",
            True,
            "gallery",
        )
        assert claims["aud"] == "proj_gallery"
    lease = storage_plane.lease("gallery", AccessLevel.AUTHENTICATED)
    assert lease.token is not None
    assert "storage_admin" not in str(base64.urlsafe_b64decode(lease.token.split(".")[1] + "=="))


def test_a_public_bucket_of_a_detached_project_is_not_public(storage_plane: Plane) -> None:
    file = storage_plane.workplace.root / "stacks" / "local" / "projects" / "gallery.yaml"
    attached = file.read_text(encoding="utf-8")
    try:
        file.write_text(attached + "lifecycle: detached\n", encoding="utf-8")
        bring_up(storage_plane.workplace)
        assert storage_plane.rows("select public from data_plane.buckets") == [(False,)]
    finally:
        file.write_text(attached, encoding="utf-8")
        bring_up(storage_plane.workplace)
    assert storage_plane.rows("select public from data_plane.buckets") == [(True,)]
    (run_again,) = [run for run in bring_up(storage_plane.workplace) if run.stack == "local-cell-1"]
    assert (run_again.created, run_again.updated) == (0, 0)


GALLERY = """\
slug: gallery
display_name: Gallery
cell: cell-1
owners: [olga]
users:
  solution_admin: [sam]
  project_contributor: [cora]
managed_services: [postgres, auth, storage]
sign_up: open
storage:
  public: true
  file_size_limit: 5MiB
  allowed_mime_types: [image/png, image/webp]
"""
PLAIN = """\
slug: plain
display_name: Plain
cell: cell-1
owners: [pat]
"""


@pytest.fixture(scope="module")
def storage_plane(new_workplace: Any) -> Plane:
    workplace = new_workplace({"gallery.yaml": GALLERY, "plain.yaml": PLAIN})
    bring_up(workplace)
    return Plane(workplace)
