"""Who reaches which file: the rules on Storage's tables, by the statements that Storage runs, and the bucket resource."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from psycopg.errors import InsufficientPrivilege, LockNotAvailable

from components.tenant.storage import _Provider
from components.tenant.table_row import TableRowError
from data_plane.clients.postgres import DatabaseUnavailableError
from data_plane.local.postgres import LocalPostgres
from data_plane.local.servers import ADMIN_USER, LOOPBACK
from data_plane.model.naming import AccessLevel
from tests.conftest import NewPlane, Plane, bring_up
from tests.support.platform_database import (
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
from tests.support.postgresqls import binaries, oldest_and_newest
from tests.support.storage import (
    ADMIN,
    AS_SIGNED,
    OF_THE_IMAGE,
    ONE,
    OWN_NAME,
    TWO,
    delete,
    make_storage,
    names,
    rows_as_signed,
    storage,
    upload,
    upsert,
)


@pytest.fixture(scope="module", params=oldest_and_newest())
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPostgres]:
    """Buckets of both tenants, that of `two-b` public. On the newest PostgreSQL, Storage was there first."""
    with running(tmp_path_factory.mktemp("pg"), binaries()[request.param]) as server:
        storage_first = request.param == max(binaries())
        if storage_first:
            run(server, f"{OF_THE_IMAGE}; create role postgres nologin")
            make_storage(server)
        apply_platform(server)
        add_tenants(server)
        run(server, "insert into data_plane.buckets (tenant, public) values (%s, false), (%s, true)", ONE, TWO)
        if storage_first:
            apply_platform(server)
        else:
            make_storage(server)
        yield server


def move(session: Connection, bucket: str, name: str, to_bucket: str, to_name: str, owner: str | None) -> int:
    query = "update storage.objects set name = %s, bucket_id = %s, owner_id = %s where bucket_id = %s and name = %s returning *"
    return len(session.execute(query, [to_name, to_bucket, owner, bucket, name]).fetchall())


@pytest.fixture
def files(database: LocalPostgres) -> dict[str, str]:
    """One file of a user's in each bucket; their owners by bucket."""
    run(database, "set storage.allow_delete_query = 'true'; delete from storage.objects")
    owners = {}
    for bucket in (ONE, TWO):
        owners[bucket] = new_id()
        with storage(database, f"{bucket}_authenticated", owners[bucket]) as session:
            upload(session, bucket, "file", owners[bucket])
    return owners


def test_buckets_come_to_be_with_storage(database: LocalPostgres) -> None:
    rows = run(database, "select id, name, public, file_size_limit, allowed_mime_types from storage.buckets order by 1")
    assert rows == [(ONE, ONE, False, None, None), (TWO, TWO, True, None, None)]


def test_users_read_their_bucket_and_no_other(database: LocalPostgres, files: dict[str, str]) -> None:
    for mine, other in ((ONE, TWO), (TWO, ONE)):
        with storage(database, f"{mine}_authenticated", new_id()) as session:
            assert names(session, mine) == {"file"}
            assert names(session, other) == set()
            assert session.execute("select count(*) from storage.objects").fetchone() == (1,)


def test_anybody_reads_a_public_bucket_only(database: LocalPostgres, files: dict[str, str]) -> None:
    for tenant, readable in ((ONE, set()), (TWO, {"file"})):
        with storage(database, f"{tenant}_anon") as session:
            assert names(session, tenant) == readable
            assert names(session, ONE if tenant == TWO else TWO) == set()
            for owner in (None, files[tenant]):
                with pytest.raises(InsufficientPrivilege), session.transaction():
                    upload(session, tenant, "new", owner)
            assert delete(session, tenant, "file") == 0
            assert move(session, tenant, "file", tenant, "moved", None) == 0


def test_users_add_change_and_delete_files_of_their_own(database: LocalPostgres, files: dict[str, str]) -> None:
    me = new_id()
    with storage(database, f"{ONE}_authenticated", me) as session:
        upload(session, ONE, "mine", me)
        upsert(session, ONE, "mine", me)
        assert move(session, ONE, "mine", ONE, "folder/mine", me) == 1
        assert names(session, ONE) == {"file", "folder/mine"}
        assert delete(session, ONE, "folder/mine") == 1


def test_users_do_not_touch_files_of_others(database: LocalPostgres, files: dict[str, str]) -> None:
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
    database: LocalPostgres, files: dict[str, str], claims: dict[str, object]
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


def test_a_storage_admin_does_everything_in_the_own_bucket(database: LocalPostgres, files: dict[str, str]) -> None:
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
    database: LocalPostgres, files: dict[str, str], claim: object
) -> None:
    with storage(database, f"{ONE}_authenticated", new_id(), {"storage_admin": claim}) as session:
        assert delete(session, ONE, "file") == 0


def test_nobody_administers_storage_without_being_a_user(database: LocalPostgres, files: dict[str, str]) -> None:
    with storage(database, f"{TWO}_anon", files[TWO], ADMIN) as session:
        assert delete(session, TWO, "file") == 0
        with pytest.raises(InsufficientPrivilege), session.transaction():
            upload(session, TWO, "new", files[TWO])


@pytest.mark.parametrize("role", [f"{ONE}_authenticated", f"{TWO}_authenticated", f"{TWO}_anon"])
def test_a_reader_does_not_empty_a_bucket(database: LocalPostgres, files: dict[str, str], role: str) -> None:
    """Storage empties a bucket past all rules for everybody to whom it shows the bucket."""
    with storage(database, role, new_id(), operation="storage.bucket.empty") as session:
        assert session.execute("select id from storage.buckets").fetchall() == []
    with storage(database, role, new_id(), operation="storage.bucket.get") as session:
        assert len(session.execute("select id from storage.buckets").fetchall()) == 1


@pytest.mark.parametrize("claims", [{}, ADMIN])
def test_buckets_are_declared_and_not_made_by_requests(database: LocalPostgres, claims: dict[str, object]) -> None:
    with storage(database, f"{ONE}_authenticated", new_id(), claims) as session:
        for name in ("mine", f"{ONE}_more", TWO):
            with pytest.raises(InsufficientPrivilege), session.transaction():
                session.execute("insert into storage.buckets (id, name) values (%s, %s)", [name, name])
        for statement in (
            "update storage.buckets set public = true returning *",
            "delete from storage.buckets returning *",
        ):
            assert session.execute(statement.encode()).fetchall() == []


def test_uploads_in_parts_are_seen_by_whose_they_are(database: LocalPostgres) -> None:
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


def test_a_service_role_has_no_right_that_would_pass_the_rules(database: LocalPostgres) -> None:
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
    for table in ("storage.objects", "storage.buckets"):
        with database.connect() as session:
            session.execute("set role proj_one_service_role")
            with pytest.raises(InsufficientPrivilege):
                session.execute(f"select count(*) from {table}".encode())


def test_storage_cannot_become_a_tenants_service_role(database: LocalPostgres) -> None:
    """Not by way of PostgREST's login either, which Storage's own migrations make it a member of."""
    with pytest.raises(InsufficientPrivilege), storage(database, f"{ONE}_service_role"):
        pass


def test_nobody_has_a_right_that_row_level_security_does_not_see(database: LocalPostgres) -> None:
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


def test_a_lease_writes_no_file_whatever_it_claims(database: LocalPostgres, files: dict[str, str]) -> None:
    """Claims are Storage's word in Storage's sessions; in a lease's they are the lease's own."""
    issue(database, "lease_claims", f"{ONE}_authenticated")
    with connect(database, "lease_claims", "pw") as session:
        claims = f'{{"sub": "{files[ONE]}", "storage_admin": true}}'
        session.execute(f"set request.jwt.claims = '{claims}'; set storage.allow_delete_query = 'true'".encode())
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


END_ALL_ACCESS = {
    "detached": (
        "revoke usage on schema proj_two_b from proj_two_b_authenticated, proj_two_b_anon",
        "grant usage on schema proj_two_b to proj_two_b_authenticated, proj_two_b_anon",
    ),
    "without Storage": (
        "revoke proj_two_b_authenticated, proj_two_b_anon from supabase_storage_admin, authenticator",
        "grant proj_two_b_authenticated, proj_two_b_anon to supabase_storage_admin, authenticator",
    ),
    "dropped": (
        "alter role proj_two_b_authenticated rename to proj_two_b_gone",
        "alter role proj_two_b_gone rename to proj_two_b_authenticated",
    ),
}


@pytest.mark.parametrize("ended", END_ALL_ACCESS)
def test_what_storage_has_signed_ends_with_the_project(
    database: LocalPostgres, files: dict[str, str], ended: str
) -> None:
    """And what it serves without asking who it is for. (`two-b` has a public bucket.)"""
    run(
        database,
        "insert into storage.buckets (id, name) values ('of the platform', 'of the platform') on conflict do nothing",
    )
    run(database, "insert into storage.objects (bucket_id, name) values ('of the platform', 'file')")
    end, undo = END_ALL_ACCESS[ended]
    attached = {request: rows_as_signed(database, shape, TWO) for request, shape in AS_SIGNED.items()}
    assert [request for request, found in attached.items() if 0 in found] == []
    run(database, end)
    try:
        left = {request: rows_as_signed(database, shape, TWO) for request, shape in AS_SIGNED.items()}
        assert [request for request, found in left.items() if 0 not in found] == []
        for untouched in (ONE, "of the platform"):
            served = {request: rows_as_signed(database, shape, untouched) for request, shape in AS_SIGNED.items()}
            assert [request for request, found in served.items() if 0 in found] == [], untouched
        with storage(database, OWN_NAME) as session:
            everything = "select bucket_id from storage.objects union all select id from storage.buckets"
            assert {row[0] for row in session.execute(everything)} == {ONE, "of the platform"}
    finally:
        run(database, undo)
        run(database, "set storage.allow_delete_query = 'true'; delete from storage.objects")
    assert run(database, "select public from storage.buckets where id = %s", TWO) == [(True,)]


def test_what_storage_does_in_its_own_name_passes_no_rules(database: LocalPostgres) -> None:
    """A new table of Storage's is its own to use too, and one of buckets' is held to the rule."""
    assert run(database, "select rolbypassrls, rolsuper, rolcanlogin from pg_roles where rolname = %s", OWN_NAME) == [
        (False, False, False)
    ]
    members = "select m.member::regrole::text from pg_auth_members m where m.roleid = %s::regrole"
    assert run(database, members, OWN_NAME) == [("supabase_storage_admin",)]
    with connect(database, "supabase_storage_admin") as session:
        session.execute("create table storage.versions (id int, bucket_id text)")
        session.commit()
        session.execute(f"set local role {OWN_NAME}".encode())
        session.execute("insert into storage.versions values (1, %s)", [TWO])
        for bucket in ("proj_nobody", "proj_third_thing"):
            with pytest.raises(InsufficientPrivilege), session.transaction():
                session.execute("insert into storage.versions values (1, %s)", [bucket])
    run(database, "drop table storage.versions")


def test_detaching_ends_all_access_at_once(database: LocalPostgres, files: dict[str, str]) -> None:
    run(database, "revoke usage on schema proj_one from proj_one_authenticated, proj_one_anon")
    try:
        with storage(database, f"{ONE}_authenticated", files[ONE], ADMIN) as session:
            assert names(session, ONE) == set()
            assert delete(session, ONE, "file") == 0
            with pytest.raises(InsufficientPrivilege), session.transaction():
                upload(session, ONE, "new", files[ONE])
    finally:
        run(database, "grant usage on schema proj_one to proj_one_authenticated, proj_one_anon")


def test_other_rules_of_the_platform_let_no_tenant_out(database: LocalPostgres, files: dict[str, str]) -> None:
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


def test_rules_are_made_anew_only_when_they_differ(database: LocalPostgres) -> None:
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
def properties(database: LocalPostgres) -> dict[str, Any]:
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


def bucket(database: LocalPostgres) -> list[tuple[Any, ...]]:
    return run(
        database, "select public, file_size_limit, allowed_mime_types from storage.buckets where id = 'proj_third'"
    )


def test_a_bucket_is_changed_in_place_and_drift_is_noticed(database: LocalPostgres, properties: dict[str, Any]) -> None:
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


def test_what_is_missing_is_said(database: LocalPostgres, properties: dict[str, Any]) -> None:
    provider = _Provider()
    with pytest.raises(DatabaseUnavailableError, match="cannot be used"):
        provider.create({**properties, "password": "wrong"})
    with pytest.raises(TableRowError, match=r"proj_third in data_plane\.buckets: .*check"):
        provider.create({**properties, "allowed_mime_types": []})
    with pytest.raises(TableRowError, match="bring the central stack up first"):
        provider.create({**properties, "database": "template1"})


# Through the components


def test_a_project_with_storage_has_a_bucket_and_a_token_for_it(storage_plane: Plane) -> None:
    assert storage_plane.rows("select tenant, public, file_size_limit, allowed_mime_types from data_plane.buckets") == [
        ("proj_gallery", True, 5 << 20, ["image/png", "image/webp"])
    ]
    assert storage_plane.rows("select tenant, sign_up from data_plane.sign_in") == [("proj_gallery", "open")]
    binding = storage_plane.local_env.bindings()["gallery"].document()
    assert binding["storage"] == {
        "url": "http://127.0.0.1:8000/storage/v1",
        "bucket": "proj_gallery",
        "tokenPath": "identity/oidc/token/proj_gallery_storage",
    }
    assert "storage" not in storage_plane.local_env.bindings()["plain"].document()


def test_the_service_role_administers_the_bucket(storage_plane: Plane) -> None:
    for user, allowed in (("olga", True), ("sam", True), ("cora", False), ("pat", False)):
        client = storage_plane.local_env.sign_in(user)
        response = client.adapter.request("get", "/v1/identity/oidc/token/proj_gallery_storage", raise_exception=False)
        if not allowed:
            assert response.status_code == 403, user
            continue
        payload = response["data"]["token"].split(".")[1]
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
    file = storage_plane.local_env.root / "stacks" / "local" / "projects" / "gallery.yaml"
    attached = file.read_text(encoding="utf-8")
    try:
        file.write_text(attached + "lifecycle: detached\n", encoding="utf-8")
        bring_up(storage_plane.local_env)
        assert storage_plane.rows("select public from data_plane.buckets") == [(False,)]
    finally:
        file.write_text(attached, encoding="utf-8")
        bring_up(storage_plane.local_env)
    assert storage_plane.rows("select public from data_plane.buckets") == [(True,)]
    (run_again,) = [run for run in bring_up(storage_plane.local_env) if run.stack == "local-cell-1"]
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
def storage_plane(new_plane: NewPlane) -> Plane:
    return new_plane({"gallery.yaml": GALLERY, "plain.yaml": PLAIN})


STORAGES_PATH = "storage, public, extensions, data_plane_storage_session, pg_catalog"
"""The search path of Storage 1.70 with the setting DATABASE_SEARCH_PATH of this program."""


def become(session: Connection, role: str) -> None:
    """As Storage does at every change of roles."""
    session.execute(
        "select set_config('role', %s, true), set_config('request.jwt.claims', %s, true),"
        " set_config('storage.operation', 'storage.object.upload', true), set_config('lock_timeout', '5000ms', true)",
        [role, json.dumps({"role": role, "sub": "u"})],
    )


def test_storage_changes_roles_within_a_transaction(database: LocalPostgres) -> None:
    user = f"{ONE}_authenticated"
    with connect(database, "supabase_storage_admin") as session:
        session.execute(f"set search_path to {STORAGES_PATH}".encode())
        for role in (OWN_NAME, user, OWN_NAME, user, f"{ONE}_anon", OWN_NAME):
            become(session, role)
            found = session.execute("select current_user, current_setting('request.jwt.claims')::json ->> 'role'")
            assert found.fetchone() == (role, role)
        session.commit()
        assert session.execute("select current_user, current_setting('lock_timeout')").fetchone() == (
            "supabase_storage_admin",
            "0",
        )


@pytest.mark.parametrize(
    ("setting", "value", "local"),
    [
        ("role", "data_plane_storage", "false"),
        ("session_authorization", "postgres", "true"),
        ("session_replication_role", "replica", "true"),
        ("row_security", "off", "true"),
        ("role to none; select 1 --", "x", "true"),
    ],
)
def test_storage_sets_for_a_project_what_it_has_to_and_no_more(
    database: LocalPostgres, setting: str, value: str, local: str
) -> None:
    with connect(database, "supabase_storage_admin") as session:
        session.execute(f"set search_path to {STORAGES_PATH}".encode())
        become(session, f"{ONE}_authenticated")
        with pytest.raises(InsufficientPrivilege, match="permission denied to set"):
            session.execute(f"select set_config(%s, %s, {local})".encode(), [setting, value])


@pytest.mark.parametrize("login", ["PostgREST", "a lease"])
def test_storages_way_to_change_roles_is_closed_to_every_other_session(database: LocalPostgres, login: str) -> None:
    call = "select data_plane_storage_session.set_config('role', %s, true)"
    if login == "a lease":
        issue(database, "lease_of_roles", f"{ONE}_authenticated")
        with connect(database, "lease_of_roles", "pw") as session, pytest.raises(InsufficientPrivilege, match="to set"):
            session.execute(call, [f"{ONE}_anon"])
        revoke(database, "lease_of_roles")
        return
    for role in (f"{TWO}_service_role", f"{TWO}_authenticated", "anon"):
        with (
            api_request(database, f"{ONE}_authenticated") as session,
            pytest.raises(InsufficientPrivilege, match="to set"),
        ):
            session.execute(call, [role])
