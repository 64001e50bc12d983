"""Buckets and rules that a project declares itself: what they let, whom they never meet, and whom they cannot hold up."""

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from psycopg import sql
from psycopg.errors import (
    ConfigurationLimitExceeded,
    FeatureNotSupported,
    InsufficientPrivilege,
    InvalidParameterValue,
    InvalidTextRepresentation,
    ObjectNotInPrerequisiteState,
    ProgramLimitExceeded,
)

from components.tenant.storage import _Provider
from data_plane.clients.postgres import explain
from data_plane.local.postgres import LocalPostgres
from data_plane.local.servers import ADMIN_USER, LOOPBACK
from tests.support.platform_database import (
    MEMBER_OF,
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
    ONE,
    OWN_NAME,
    STORAGE_FUNCTIONS,
    TWO,
    delete,
    make_storage,
    names,
    rows_as_signed,
    storage,
    upload,
    upsert,
)

NEIGHBOUR = "proj_two"
"""A project whose name is how another's begins."""
OWNER = "lease_rules_one"


@pytest.fixture(scope="module", params=oldest_and_newest())
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPostgres]:
    with running(tmp_path_factory.mktemp("pg"), binaries()[request.param], apply_platform, add_tenants) as server:
        add_project(server, NEIGHBOUR)
        make_storage(server)
        with connect(server, "supabase_storage_admin") as session:
            for statement in STORAGE_FUNCTIONS:
                session.execute(statement.encode())
        for tenant in (ONE, TWO, NEIGHBOUR):
            run(server, "insert into data_plane.buckets (tenant) values (%s)", tenant)
            issue(server, f"lease_rules_{tenant.removeprefix('proj_')}", f"{tenant}_owner")
        run(server, "insert into data_plane.buckets (tenant, bucket) values (%s, 'papers')", ONE)
        guard(server)
        yield server


def add_project(server: LocalPostgres, name: str) -> None:
    with server.connect() as admin:
        for level, parent in MEMBER_OF.items():
            role = sql.Identifier(f"{name}_{level}")
            admin.execute(sql.SQL("create role {} nologin in role {}").format(role, sql.Identifier(parent)))
        admin.execute(
            sql.SQL("create schema {0} authorization {1}").format(sql.Identifier(name), sql.Identifier(f"{name}_owner"))
        )
        for level in ("authenticated", "anon"):
            role = sql.Identifier(f"{name}_{level}")
            admin.execute(sql.SQL("grant usage on schema {} to {}").format(sql.Identifier(name), role))
            admin.execute(sql.SQL("grant {} to supabase_storage_admin").format(role))


@pytest.fixture(autouse=True)
def no_rules_of_before(database: LocalPostgres) -> None:
    run(
        database,
        "set storage.allow_delete_query = 'true'; delete from storage.objects; delete from storage.s3_multipart_uploads",
    )
    run(
        database,
        "set storage.allow_delete_query = 'true'; delete from storage.buckets where id not in (select id from data_plane.buckets where origin = 'file')",
    )
    run(database, "delete from data_plane.buckets where origin = 'migration'; delete from data_plane.storage_rules")
    run(database, "select data_plane.recheck_storage_rules()")
    guard(database)


@contextmanager
def owner(database: LocalPostgres, tenant: str = ONE) -> Iterator[Connection]:
    """A session of a project's owner, whose every statement is a transaction."""
    with connect(database, f"lease_rules_{tenant.removeprefix('proj_')}", "pw") as session:
        session.autocommit = True
        yield session


def bucket(session: Connection, name: str, *, public: bool = False) -> str:
    row = session.execute("select data_plane_api.declare_bucket(%s, %s)", [name, public]).fetchone()
    assert row is not None
    return str(row[0])


def rule(
    session: Connection,
    using: str | None,
    check: str | None = None,
    *,
    command: str = "select",
    roles: tuple[str, ...] = ("authenticated",),
    name: str = "rule",
    permissive: bool = True,
) -> None:
    session.execute(
        "select data_plane_api.declare_storage_rule(%s, %s, %s, %s, %s, %s)",
        [name, command, list(roles), using, check, permissive],
    )


def guard(database: LocalPostgres) -> None:
    """A run of the guard's, with everybody's turn."""
    run(database, "update data_plane.storage_rules set applied_at = null")
    run(database, "select data_plane.apply_storage()")


def problems(database: LocalPostgres) -> list[tuple[Any, ...]]:
    return run(
        database, "select name, problem, pending from data_plane.storage_rules where pending or problem is not null"
    )


def put(database: LocalPostgres, bucket_id: str, name: str, owner_id: str | None = None, **more: object) -> None:
    """A file, past all rules."""
    run(
        database,
        "insert into storage.objects (bucket_id, name, owner_id, owner, metadata) values (%s, %s, %s, %s::uuid, %s::jsonb)",
        bucket_id, name, owner_id, owner_id, more.get("metadata"),
    )  # fmt: skip


# Buckets


def test_a_migrations_bucket_comes_to_be_and_has_no_default_rules(database: LocalPostgres) -> None:
    with owner(database) as session:
        assert bucket(session, "receipts") == f"{ONE}.receipts"
    guard(database)
    assert run(database, "select id, name, public from storage.buckets where id like '%%.%%' order by 1") == [
        (f"{ONE}.papers", f"{ONE}.papers", False),
        (f"{ONE}.receipts", f"{ONE}.receipts", False),
    ]
    for place in (f"{ONE}.receipts", f"{ONE}.papers", ONE):
        put(database, place, "file", new_id())
    me = new_id()
    with storage(database, f"{ONE}_authenticated", me) as session:
        assert names(session, f"{ONE}.receipts") == set()
        assert names(session, f"{ONE}.papers") == names(session, ONE) == {"file"}
        with pytest.raises(InsufficientPrivilege), session.transaction():
            upload(session, f"{ONE}.receipts", "mine", me)
        upload(session, f"{ONE}.papers", "mine", me)
        seen = {row[0] for row in session.execute("select id from storage.buckets")}
        assert seen == {ONE, f"{ONE}.papers", f"{ONE}.receipts"}


def test_a_bucket_of_the_file_stays_as_it_is(database: LocalPostgres) -> None:
    heard: list[str] = []
    with owner(database) as session:
        session.add_notice_handler(lambda notice: heard.append(str(notice.message_primary)))
        assert bucket(session, "papers", public=True) == f"{ONE}.papers"
    guard(database)
    assert heard == ["bucket papers stays as the project's file has it"]
    assert run(database, "select public from storage.buckets where id = %s", f"{ONE}.papers") == [(False,)]


def test_the_file_takes_over_a_migrations_bucket(database: LocalPostgres) -> None:
    with owner(database) as session:
        bucket(session, "later", public=True)
    guard(database)
    run(database, "insert into data_plane.buckets (tenant, bucket, public) values (%s, 'later', false)", ONE)
    try:
        guard(database)
        assert run(database, "select public from storage.buckets where id = %s", f"{ONE}.later") == [(False,)]
    finally:
        run(database, "delete from data_plane.buckets where bucket = 'later'")


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", ".hidden", "-a", "a/b", "a b", "a$b", "ä", "a\\b", "a%b", "a'b", "x" * 100, "logs--table-s3", "a\n", "../etc"],
)  # fmt: skip
def test_a_name_that_s3_or_a_folder_would_not_take_is_refused(database: LocalPostgres, name: str) -> None:
    with owner(database) as session, pytest.raises(InvalidParameterValue, match="not the name of a bucket"):
        bucket(session, name)


@pytest.mark.parametrize(
    "name", ["avatars", "User_files", "a.b.c", "2024", "team-logos", f"{TWO}.stolen", "proj_two_b"]
)
def test_whatever_a_bucket_is_called_it_is_the_projects(database: LocalPostgres, name: str) -> None:
    with owner(database) as session:
        made = bucket(session, name)
    assert made == f"{ONE}.{name}"
    guard(database)
    with storage(database, f"{TWO}_authenticated", new_id(), ADMIN) as other:
        assert other.execute("select id from storage.buckets").fetchall() == [(TWO,)]


def test_a_project_has_no_more_buckets_than_its_limit(database: LocalPostgres) -> None:
    run(database, "insert into data_plane.limits values (%s, 20, 1000, 10737418240, 30, 900, 60, 10, 3, 10, 5000)", ONE)
    try:
        with owner(database) as session:
            for name in ("a", "b", "a"):
                bucket(session, name)
            with pytest.raises(ConfigurationLimitExceeded, match="has its 3 buckets"):
                bucket(session, "c")
    finally:
        run(database, "delete from data_plane.limits")


def test_only_the_owner_of_a_project_with_storage_declares(database: LocalPostgres) -> None:
    for level in ("service_role", "authenticated", "anon"):
        issue(database, f"lease_level_{level}", f"{ONE}_{level}")
        with connect(database, f"lease_level_{level}", "pw") as session, pytest.raises(InsufficientPrivilege):
            session.execute("select data_plane_api.declare_bucket('x')")
        revoke(database, f"lease_level_{level}")
    with owner(database) as session:
        session.execute(
            f"create or replace function {ONE}.declare_for_me() returns text language sql security definer as"
            " $$ select data_plane_api.declare_bucket('x') $$".encode()
        )
    with api_request(database, f"{ONE}_authenticated") as session, pytest.raises(InsufficientPrivilege):
        session.execute(f"select {ONE}.declare_for_me()".encode())
    run(database, "update data_plane.buckets set tenant = 'proj_none' where tenant = %s", TWO)
    try:
        with owner(database, TWO) as session, pytest.raises(ObjectNotInPrerequisiteState, match="managed_services"):
            bucket(session, "x")
    finally:
        run(database, "update data_plane.buckets set tenant = %s where tenant = 'proj_none'", TWO)


# Rules

ME, OTHER = "6f1c8a52-6f0e-4a53-9f3a-0d3c1f7f2f10", "7a2c8a52-6f0e-4a53-9f3a-0d3c1f7f2f11"
FILES = {f"{ME}/a.png", f"{OTHER}/b.png", "public/c.txt", f"{ME}/sub/d.PDF", "e"}
MINE = {f"{ME}/a.png", f"{ME}/sub/d.PDF"}
# The forms that projects' files have, each with the files that it lets ME see: those of MINE are ME's.
FORMS: dict[str, set[str]] = {
    "true": FILES,
    "false": set(),
    "bucket_id = 'proj_one.receipts'": FILES,
    "bucket_id = 'proj_one.elsewhere'": set(),
    "bucket_id in ('proj_one.receipts', 'proj_one.elsewhere') and true": FILES,
    "bucket_id = any (array['proj_one.receipts'])": FILES,
    "auth.uid() = owner": MINE,
    "auth.uid()::text = owner_id": MINE,
    "(select auth.uid()) = owner": MINE,
    "owner_id = (select auth.uid()::text)": MINE,
    "bucket_id = 'proj_one.receipts' and (storage.foldername(name))[1] = auth.uid()::text": MINE,
    "bucket_id = 'proj_one.receipts' AND (select auth.uid())::text = (storage.foldername(name))[1]": MINE,
    "(bucket_id = 'proj_one.receipts'::text) AND ((auth.uid())::text = (storage.foldername(name))[1])": MINE,
    '(("bucket_id" = \'proj_one.receipts\'::"text") AND (("auth"."uid"())::"text" = ("storage"."foldername"("name"))[1]))': MINE,
    "(storage.foldername(storage.objects.name))[1] = 'public'": {"public/c.txt"},
    "(string_to_array(objects.name, '/'))[1] = auth.uid()::text": MINE,
    "split_part(name, '/', 1)::text = (auth.jwt() ->> 'sub')": MINE,
    "path_tokens[1] = auth.uid()::text and array_length(path_tokens, 1) = 3": {f"{ME}/sub/d.PDF"},
    "name like (auth.uid() || '/%')": MINE,
    "starts_with(name, 'public/')": {"public/c.txt"},
    "lower(storage.extension(name)) in ('png', 'pdf') and not name like 'public/%'": {*MINE, f"{OTHER}/b.png"},
    "storage.filename(name) = 'a.png'": {f"{ME}/a.png"},
    "auth.role() = 'proj_one_authenticated'": FILES,
    "auth.jwt() -> 'app_metadata' ->> 'role' = 'admin'": FILES,
    "((auth.jwt() -> 'app_metadata') -> 'teams') ? 'red'": FILES,
    "coalesce((auth.jwt() ->> 'is_anonymous')::boolean, false) is false": FILES,
    "(metadata ->> 'size')::int < 5 * 1024 * 1024": {"e"},
    "case when owner is null then true else owner_id = auth.uid()::text end": {*MINE, "public/c.txt", "e"},
    "owner_id is not distinct from auth.uid()::text": MINE,
    "name ~ '^[0-9a-f]{8}-[0-9a-f-]{27}/[^/]+[.]png$'": {f"{ME}/a.png", f"{OTHER}/b.png"},
    "auth.email() = 'me@example.org' and length(name) < 100 and created_at > now() - interval '1 day'": FILES,
    "position('sub' in name) > 0 or name between 'd' and 'f' and nullif(name, 'x') <> 'y'": {f"{ME}/sub/d.PDF", "e"},
    "storage.operation() = 'storage.object.x'": FILES,
    "current_setting('request.jwt.claims', true)::jsonb ->> 'sub' = owner_id": MINE,
}


@pytest.mark.parametrize("expression", FORMS)
def test_a_rule_of_a_form_that_projects_use_lets_what_it_says(database: LocalPostgres, expression: str) -> None:
    with owner(database) as session:
        bucket(session, "receipts")
        guard(database)
        for name in FILES:
            holder = ME if name in MINE else OTHER if name.startswith(OTHER) else None
            put(database, f"{ONE}.receipts", name, holder, metadata='{"size": 9}' if name == "e" else None)
        rule(session, expression)
    guard(database)
    assert problems(database) == []
    claims = {"app_metadata": {"role": "admin", "teams": ["red"]}, "email": "me@example.org"}
    with storage(database, f"{ONE}_authenticated", ME, claims) as session:
        assert names(session, f"{ONE}.receipts") == FORMS[expression]
    with storage(database, f"{ONE}_anon", ME, claims) as session:
        assert names(session, f"{ONE}.receipts") == set(), "the rule is for users"


def test_writing_is_as_the_rules_say(database: LocalPostgres) -> None:
    own = "bucket_id = 'proj_one.receipts' and (storage.foldername(name))[1] = auth.uid()::text"
    with owner(database) as session:
        bucket(session, "receipts")
        rule(
            session,
            None,
            own,
            command="insert",
            name="Users can upload a file into a folder of their own, whatever it is called",
        )
        rule(session, own, own, command="update", name="change")
        rule(session, own, command="delete", name="delete")
        rule(session, own, name="see")
    guard(database)
    assert problems(database) == []
    place = f"{ONE}.receipts"
    put(database, place, f"{OTHER}/theirs")
    with storage(database, f"{ONE}_authenticated", ME) as session:
        upload(session, place, f"{ME}/mine", ME)
        upsert(session, place, f"{ME}/mine", ME)
        for name in (f"{OTHER}/new", f"{OTHER}/theirs", "top"):
            with pytest.raises(InsufficientPrivilege), session.transaction():
                upsert(session, place, name, ME)
        with pytest.raises(InsufficientPrivilege), session.transaction():
            session.execute("update storage.objects set name = %s where name = %s", [f"{OTHER}/x", f"{ME}/mine"])
        assert delete(session, place, f"{OTHER}/theirs") == 0
        assert delete(session, place, f"{ME}/mine") == 1


def seen_by(database: LocalPostgres, me: str) -> dict[str, set[str]]:
    with storage(database, f"{ONE}_authenticated", me) as session:
        return {place: names(session, place) for place in (ONE, f"{ONE}.papers")}


def test_own_rules_take_the_place_of_the_default_ones_of_their_bucket(database: LocalPostgres) -> None:
    """A rule that lets owners read would say nothing if every user read anyway."""
    me = new_id()
    for place in (ONE, f"{ONE}.papers"):
        put(database, place, "theirs", new_id())
        put(database, place, "mine", me)
    every = {"theirs", "mine"}
    with owner(database) as session:
        rule(session, "name <> 'secret'", name="restricts", permissive=False)
        guard(database)
        assert seen_by(database, me) == {ONE: every, f"{ONE}.papers": every}, "a rule that restricts gives nothing"
        rule(session, "owner_id = auth.uid()::text and bucket_id = 'proj_one.papers' and true", name="of one bucket")
        assert seen_by(database, me)[f"{ONE}.papers"] == every, "the guard has not been there"
        guard(database)
        assert seen_by(database, me) == {ONE: every, f"{ONE}.papers": {"mine"}}
        rule(session, "owner_id = auth.uid()::text or bucket_id = 'proj_one.elsewhere'", name="of any bucket")
        guard(database)
        assert seen_by(database, me) == {ONE: {"mine"}, f"{ONE}.papers": {"mine"}}
        with storage(database, f"{ONE}_authenticated", new_id(), ADMIN) as admin:
            assert names(admin, ONE) == names(admin, f"{ONE}.papers") == every, "a back end needs no rule"
            assert delete(admin, f"{ONE}.papers", "mine") == 1
            upload(admin, f"{ONE}.papers", "mine", me)
            admin.commit()
        for name in ("of any bucket", "of one bucket"):
            assert session.execute("select data_plane_api.drop_storage_rule(%s)", [name]).fetchone() == (True,)
            assert session.execute("select data_plane_api.drop_storage_rule(%s)", [name]).fetchone() == (False,)
        guard(database)
        assert seen_by(database, me) == {ONE: every, f"{ONE}.papers": every}


def test_a_restrictive_rule_binds_all_but_administrators(database: LocalPostgres) -> None:
    put(database, ONE, "secret")
    put(database, ONE, "open")
    with owner(database) as session:
        rule(session, "name <> 'secret'", name="hide", permissive=False, roles=("public",))
    guard(database)
    with storage(database, f"{ONE}_authenticated", new_id()) as session:
        assert names(session, ONE) == {"open"}
    with storage(database, f"{ONE}_authenticated", new_id(), ADMIN) as session:
        assert names(session, ONE) == {"open", "secret"}


@pytest.mark.parametrize(
    ("using", "check", "command", "roles", "error"),
    [
        ("true", "true", "select", ["authenticated"], InvalidParameterValue),
        ("true", None, "insert", ["authenticated"], InvalidParameterValue),
        (None, None, "all", ["authenticated"], InvalidParameterValue),
        ("true", None, "truncate", ["authenticated"], InvalidParameterValue),
        ("true", None, "select", ["postgres"], InvalidParameterValue),
        ("true", None, "select", [f"{TWO}_anon"], InvalidParameterValue),
        ("true", None, "select", ["data_plane_storage"], InvalidParameterValue),
        ("true", None, "select", [f"{ONE}_owner"], InvalidParameterValue),
        ("true", None, "select", [None], InvalidParameterValue),
        (" or ".join(["true"] * 500), None, "select", ["anon"], ProgramLimitExceeded),
        ("name = '" + "x" * 7000 + "'", None, "select", ["anon"], ProgramLimitExceeded),
        ("(" * 50 + "true" + ")" * 50, None, "select", ["anon"], ProgramLimitExceeded),
        ("||".join(["metadata::text"] * 30) + " = ''", None, "select", ["anon"], ProgramLimitExceeded),
        ("exists (select from proj_one.members)", None, "select", ["anon"], FeatureNotSupported),
        ("proj_one.may_see(name)", None, "select", ["anon"], FeatureNotSupported),
    ],
)
def test_what_is_no_rule_is_refused(
    database: LocalPostgres,
    using: str | None,
    check: str | None,
    command: str,
    roles: list[str],
    error: type[Exception],
) -> None:
    with owner(database) as session, pytest.raises(error):
        rule(session, using, check, command=command, roles=tuple(roles))
    assert run(database, "select 1 from data_plane.storage_rules") == []


def test_a_refusal_says_why(database: LocalPostgres) -> None:
    with owner(database) as session, pytest.raises(FeatureNotSupported) as refused:
        rule(session, "bucket_id = 'x' and name in (select path from proj_one.files)")
    assert "what is in a table" in explain(refused.value)
    assert "sessions that serve every project" in str(refused.value.diag.message_hint)


def test_a_rule_for_service_role_alone_is_not_needed(database: LocalPostgres) -> None:
    with owner(database) as session:
        rule(session, "true", command="all", roles=("service_role",))
    assert run(database, "select 1 from data_plane.storage_rules") == []


def test_rules_have_a_bound(database: LocalPostgres) -> None:
    with owner(database) as session:
        for number in range(8):
            rule(session, f"name <> '{'x' * 3900}'", name=f"long {number}")
        with pytest.raises(ConfigurationLimitExceeded, match="32,000 bytes"):
            rule(session, f"name <> '{'x' * 3900}'", name="long too many")
        run(database, "delete from data_plane.storage_rules")
        for number in range(100):
            rule(session, "true", name=f"rule {number}")
        rule(session, "false", name="rule 7")
        with pytest.raises(ConfigurationLimitExceeded, match="100 storage rules"):
            rule(session, "true", name="one too many")


# Two projects never meet


def test_what_one_project_permits_or_restricts_is_nothing_to_another(database: LocalPostgres) -> None:
    """Not to one whose name begins like its own, either."""
    places = {ONE: f"{ONE}.shared", TWO: f"{TWO}.shared", NEIGHBOUR: f"{NEIGHBOUR}.shared"}
    for tenant in places:
        with owner(database, tenant) as session:
            bucket(session, "shared", public=tenant == TWO)
    guard(database)
    for tenant, place in places.items():
        put(database, place, f"of {tenant}", new_id())
        put(database, tenant, f"of {tenant}", new_id())

    def seen(tenant: str, role: str, claims: dict[str, object]) -> set[str]:
        with storage(database, f"{tenant}_{role}", new_id(), claims) as session:
            return {f"{row[0]}/{row[1]}" for row in session.execute("select bucket_id, name from storage.objects")}

    looks: list[tuple[str, str, dict[str, object]]] = [
        (tenant, role, claims)
        for tenant in (TWO, NEIGHBOUR)
        for role in ("authenticated", "anon")
        for claims in (dict[str, object](), dict[str, object](ADMIN))
    ]
    before = [seen(*look) for look in looks]
    with owner(database) as session:
        rule(session, "true", "true", command="all", roles=("public",), name="everything")
        rule(session, "bucket_id like '%' or bucket_id is null", name="everything again", roles=("public",))
        guard(database)
        assert problems(database) == []
        assert seen(ONE, "anon", {}) == {f"{ONE}/of {ONE}", f"{ONE}.shared/of {ONE}"}
        assert [seen(*look) for look in looks] == before
        for place in (TWO, f"{TWO}.shared", NEIGHBOUR, f"{NEIGHBOUR}.shared"):
            with storage(database, f"{ONE}_authenticated", new_id(), ADMIN) as request:
                with pytest.raises(InsufficientPrivilege), request.transaction():
                    upload(request, place, "intruder", None)
                assert delete(request, place, f"of {place.split('.')[0]}") == 0
                upload(request, f"{ONE}.shared", "mine", None)
                with pytest.raises(InsufficientPrivilege), request.transaction():
                    request.execute("update storage.objects set bucket_id = %s where name = 'mine'", [place])
                request.rollback()
        rule(session, "false", "false", command="all", roles=("public",), name="nothing", permissive=False)
        guard(database)
        assert seen(ONE, "authenticated", {}) == set()
        assert [seen(*look) for look in looks] == before


def test_nobody_reads_of_another_project_which_rules_its_buckets_have(database: LocalPostgres) -> None:
    """The roles that Storage assumes read that table when a rule does. Who could name it would see its own lines."""
    for level in ("owner", "service_role", "authenticated", "anon"):
        with database.connect() as session:
            session.execute(f"set role {ONE}_{level}".encode())
            with pytest.raises(InsufficientPrivilege):
                session.execute("select id from data_plane.default_rule_buckets")
    with database.connect() as session:
        session.execute(
            "create function proj_one.named() returns setof text language sql begin atomic"
            " select id from data_plane.default_rule_buckets; end"
        )
        session.execute("set role proj_one_authenticated")
        assert sorted(session.execute("select proj_one.named()")) == [(ONE,), (f"{ONE}.papers",)]
        session.rollback()


def test_a_rule_is_asked_of_no_file_of_another_project(database: LocalPostgres) -> None:
    """What it is asked of, it can tell: by the error of a cast, or by how long it takes."""
    put(database, TWO, "a secret name of two")
    put(database, NEIGHBOUR, "a secret name of a neighbour")
    put(database, ONE, ME)
    with owner(database) as session:
        rule(session, "name::uuid is not null", name="tells", roles=("public",))
        rule(session, "name::uuid is not null", name="tells too", roles=("public",), permissive=False)
    guard(database)
    for statement in (
        "select name from storage.objects",
        "select name from storage.objects where bucket_id = 'proj_two_b'",
        "select name from storage.objects where name like '%%secret%%' or bucket_id like 'proj%%'",
        "select count(*) from storage.objects o join storage.buckets b on b.id = o.bucket_id",
    ):
        with storage(database, f"{ONE}_authenticated", new_id()) as request:
            assert len(request.execute(statement.encode()).fetchall()) in (0, 1)
    put(database, ONE, "no uuid")
    with (
        storage(database, f"{ONE}_authenticated", new_id()) as request,
        pytest.raises(InvalidTextRepresentation, match="no uuid"),
    ):
        request.execute("select name from storage.objects").fetchall()


def test_detaching_ends_what_rules_give_and_attaching_gives_it_again(database: LocalPostgres) -> None:
    with owner(database) as session:
        bucket(session, "receipts", public=True)
        rule(session, "true", roles=("public",))
    guard(database)
    for place in (ONE, f"{ONE}.receipts"):
        put(database, place, "file")

    def found() -> list[object]:
        with storage(database, f"{ONE}_anon") as anybody, storage(database, OWN_NAME) as own:
            return [
                names(anybody, f"{ONE}.receipts"),
                names(own, f"{ONE}.receipts"),
                own.execute("select id from storage.buckets where id like 'proj\\_one%%' order by 1").fetchall(),
            ]

    attached = [{"file"}, {"file"}, [(ONE,), (f"{ONE}.papers",), (f"{ONE}.receipts",)]]
    assert found() == attached
    run(database, "revoke usage on schema proj_one from proj_one_authenticated, proj_one_anon")
    try:
        assert found() == [set(), set(), []]
        signed = {request: rows_as_signed(database, shape, f"{ONE}.receipts") for request, shape in AS_SIGNED.items()}
        assert [request for request, rows in signed.items() if 0 not in rows] == []
    finally:
        run(database, "grant usage on schema proj_one to proj_one_authenticated, proj_one_anon")
    assert found() == attached


def test_rules_do_not_keep_storage_from_its_index(database: LocalPostgres) -> None:
    with owner(database) as session:
        bucket(session, "receipts")
        rule(session, "bucket_id = 'proj_one.receipts' and (storage.foldername(name))[1] = auth.uid()::text")
        rule(session, "owner_id = auth.uid()::text and bucket_id = 'proj_one.receipts'", name="other")
    guard(database)
    run(
        database,
        "insert into storage.objects (bucket_id, name) select %s, 'f' || i from generate_series(1, 20000) i",
        TWO,
    )
    run(
        database,
        "insert into storage.objects (bucket_id, name) select %s, 'f' || i from generate_series(1, 2000) i",
        f"{ONE}.receipts",
    )
    run(database, "analyze storage.objects")
    with storage(database, f"{ONE}_authenticated", ME) as session:
        for where in ("bucket_id = 'proj_one.receipts' and name = 'f7'", "bucket_id = 'proj_one.receipts'"):
            plan = "\n".join(
                row[0] for row in session.execute(f"explain select * from storage.objects where {where}".encode())
            )
            assert "Seq Scan on objects" not in plan, plan


# Nobody is held up


def test_a_project_that_declares_and_stays_in_its_transaction_keeps_nobody_waiting(database: LocalPostgres) -> None:
    place = f"{ONE}.papers"
    with connect(database, OWNER, "pw") as session:  # one transaction
        bucket(session, "receipts")
        rule(session, "true", roles=("public",))
        rule(session, "false", name="other", permissive=False)
        held = "select distinct relation::regclass::text from pg_locks where pid = %s and relation::regclass::text like 'storage.%%'"
        assert run(database, held, session.info.backend_pid) == []
        for tenant in (ONE, TWO):
            with storage(database, f"{tenant}_authenticated", ME) as request:
                request.execute("set lock_timeout = '300ms'")
                upload(request, tenant, "new", ME)
                assert names(request, tenant) == {"new"}
                assert delete(request, tenant, "new") == 1
        # The platform, the guard and the others that declare.
        with database.connect() as admin:
            admin.execute("set lock_timeout = '300ms'")
            admin.execute("select data_plane.apply_storage()")
            admin.execute("select data_plane.adopt_services()")
            admin.execute(
                "insert into data_plane.buckets (tenant, bucket) values (%s, 'receipts') on conflict (tenant, bucket, origin)"
                " do update set public = excluded.public",
                [ONE],
            )
            admin.execute("select data_plane.apply_buckets(%s)", [ONE])
            admin.execute("delete from data_plane.buckets where bucket = 'receipts' and origin = 'file'")
        with owner(database, TWO) as other:
            other.execute("set lock_timeout = '300ms'")
            bucket(other, "receipts")
            rule(other, "true")
        assert run(database, "select 1 from data_plane.storage_rules where tenant = %s", ONE) == []
    guard(database)
    assert problems(database) == []
    put(database, place, "file")
    with storage(database, f"{ONE}_anon") as request:
        assert names(request, place) == {"file"}


def test_declaring_is_undone_with_its_transaction(database: LocalPostgres) -> None:
    with connect(database, OWNER, "pw") as session:
        bucket(session, "receipts")
        rule(session, "true")
        session.rollback()
    guard(database)
    assert run(database, "select 1 from data_plane.buckets where origin = 'migration'") == []
    assert run(database, "select 1 from pg_policy where polname like 'proj%%'") == []


def test_the_guard_makes_nobody_queue_behind_a_transaction_that_has_storages_tables(database: LocalPostgres) -> None:
    """And ends it in the end, where it is a project's; a backup it waits for."""
    issue(database, "lease_reads", f"{TWO}_authenticated")
    with owner(database) as session:
        rule(session, "true")
    with connect(database, "lease_reads", "pw") as reader, database.connect() as backup:
        backup.autocommit = False
        reader.execute("select count(*) from storage.objects")
        backup.execute("select count(*) from storage.objects")
        run(database, "select pg_sleep(2.2)")
        run(database, "select data_plane.apply_storage()")
        assert reader.execute("select 1").fetchone() == (1,)
        assert run(database, "select pending from data_plane.storage_rules") == [(True,)]
        run(database, "select data_plane.apply_storage('1 s')")
        run(database, "select data_plane.apply_storage('1 s')")
        with pytest.raises(Exception, match=r"terminating connection|closed"):
            reader.execute("select 1")
        assert backup.execute("select 1").fetchone() == (1,)
        ended = run(database, "select tenant, login, what, value from data_plane.guard_actions where what = 'lock'")
        assert ended == [(TWO, "lease_reads", "lock", "storage.objects, while a rule waits")]
        assert run(database, "select pending from data_plane.storage_rules") == [(True,)]
    run(database, "select data_plane.apply_storage()")
    assert run(database, "select pending from data_plane.storage_rules") == [(False,)]
    revoke(database, "lease_reads")


def test_waiting_for_storage_is_short(database: LocalPostgres) -> None:
    with owner(database) as session:
        rule(session, "true")
    with storage(database, f"{ONE}_authenticated", ME) as request, database.connect() as admin:
        names(request, ONE)
        admin.execute("set statement_timeout = '10s'")
        admin.execute("select data_plane.apply_storage()")
        assert run(database, "select pending, problem from data_plane.storage_rules") == [(True, None)]


def test_a_project_that_declares_again_and_again_has_a_turn_every_ten_seconds(database: LocalPostgres) -> None:
    with owner(database) as session, owner(database, TWO) as other:
        rule(session, "true")
        run(database, "select data_plane.apply_storage()")
        rule(session, "false")
        rule(session, "false", name="more")
        rule(other, "true")
        run(database, "select data_plane.apply_storage()")
        pending = "select tenant, name from data_plane.storage_rules where pending order by 1, 2"
        assert run(database, pending) == [(ONE, "more"), (ONE, "rule")]
        run(
            database,
            "update data_plane.storage_rules set applied_at = now() - interval '11 s' where applied_at is not null",
        )
        run(database, "select data_plane.apply_storage()")
        assert run(database, pending) == []
        rule(session, "false")
        assert run(database, pending) == [], "the same again is nothing new"


def test_a_declaration_is_not_ended_for_its_own_lock(database: LocalPostgres) -> None:
    """The guard ends sessions with a lock on what is no project's; a judgement has one for milliseconds."""
    stop = threading.Event()
    rounds: list[None] = []

    def watch() -> None:
        with database.connect() as admin:
            while not stop.is_set():
                admin.execute("select data_plane.enforce_limits()")
                rounds.append(None)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with owner(database) as session:
            number = 0
            while number < 150 or (len(rounds) <= 5 and watcher.is_alive()):
                number += 1
                rule(session, f"name <> '{number}'")
    finally:
        stop.set()
        watcher.join()
    assert len(rounds) > 5, "the guard did not look"
    assert run(database, "select 1 from data_plane.guard_actions where what = 'lock' and login = %s", OWNER) == []


# What lasts


def test_what_a_hand_has_changed_is_made_again(database: LocalPostgres) -> None:
    put(database, f"{ONE}.papers", "file")
    with owner(database) as session:
        rule(session, "bucket_id = 'proj_one.papers'", name="see", roles=("public",))
    guard(database)
    query = "select polname, pg_get_expr(polqual, polrelid), polroles::regrole[]::text from pg_policy where polname like 'proj%%'"
    made = run(database, query)
    assert len(made) == 1
    for hand in (
        'drop policy "proj_one: see" on storage.objects',
        'alter policy "proj_one: see" on storage.objects using (true)',
        'alter policy "proj_one: see" on storage.objects to public',
        """create policy "proj_one: nobody's" on storage.objects using (true)""",
    ):
        run(database, hand)
        assert run(database, query) != made
        run(database, "select data_plane.adopt_services()")
        guard(database)
        assert run(database, query) == made, hand


def test_rules_come_back_with_storages_tables(database: LocalPostgres) -> None:
    """As after a restore that had none of the policies; they are recorded before Storage is there, too."""
    with owner(database) as session:
        rule(session, "bucket_id = 'proj_one.papers'", roles=("public",))
        guard(database)
        run(database, "alter table storage.objects rename column bucket_id to bucket_id_gone")
        try:
            rule(session, "bucket_id = 'proj_one.papers' and name <> 'x'", name="later", roles=("public",))
            guard(database)
            assert ("later", None, True) in problems(database)
        finally:
            run(database, "alter table storage.objects rename column bucket_id_gone to bucket_id")
    run(database, "do $$ declare p record; begin for p in select polname from pg_policy where polname like 'proj%%' loop"
        " execute format('drop policy %%I on storage.objects', p.polname); end loop; end $$")  # fmt: skip
    run(database, "select data_plane.adopt_services()")

    guard(database)

    assert problems(database) == []
    assert len(run(database, "select 1 from pg_policy where polname like 'proj%%'")) == 2


def test_what_storage_does_not_have_yet_is_said_and_tried_again(database: LocalPostgres) -> None:
    run(database, "alter function storage.extension(text) rename to extension_gone")
    try:
        with owner(database) as session:
            rule(session, "storage.extension(name) = 'png'", roles=("public",))
            guard(database)
            listed = session.execute(
                "select name, in_force, problem from data_plane_api.list_storage_rules()"
            ).fetchall()
            assert listed == [("rule", False, "function storage.extension(text) does not exist")]
    finally:
        run(database, "alter function storage.extension_gone(text) rename to extension")
    run(database, "select data_plane.adopt_services()")
    guard(database)
    with owner(database) as session:
        assert session.execute("select in_force, problem from data_plane_api.list_storage_rules()").fetchall() == [
            (True, None)
        ]
        assert session.execute(
            "select id, declared_by, default_rules from data_plane_api.list_buckets()"
        ).fetchall() == [
            (ONE, "file", False),
            (f"{ONE}.papers", "file", False),
        ]
    with owner(database, TWO) as other:
        assert other.execute("select * from data_plane_api.list_storage_rules()").fetchall() == []
        assert other.execute("select id from data_plane_api.list_buckets()").fetchall() == [(TWO,)]


def test_the_rules_of_a_dropped_project_go(database: LocalPostgres) -> None:
    gone = "proj_gone"
    add_project(database, gone)
    run(database, "insert into data_plane.buckets (tenant) values (%s)", gone)
    issue(database, "lease_rules_gone", f"{gone}_owner")
    with owner(database, gone) as session:
        bucket(session, "receipts")
        rule(session, "true", roles=("public",))
    with owner(database) as session:
        rule(session, "true", name="another's")
    guard(database)
    revoke(database, "lease_rules_gone")
    run(database, f"revoke usage on schema {gone} from {gone}_authenticated, {gone}_anon")
    run(database, "select data_plane.drop_project('gone')")
    policies = "select polname from pg_policy where polname like 'proj%%'"
    assert run(database, policies) == [("proj_one: another's",)]
    assert run(database, "select tenant from data_plane.storage_rules") == [(ONE,)]
    guard(database)
    assert run(database, "select id from data_plane.default_rule_buckets where id like 'proj\\_gone%%'") == []
    with storage(database, OWN_NAME) as request:
        assert request.execute("select id from storage.buckets where id like 'proj\\_gone%%'").fetchall() == []


# The resource


def test_a_bucket_of_the_file_is_declared_changed_and_let_go(database: LocalPostgres) -> None:
    """Let go, it is a migration's if one has declared it, and else closed to all but the back end."""
    properties = {
        "host": LOOPBACK,
        "port": float(database.known_port),
        "database": "postgres",
        "username": ADMIN_USER,
        "password": database.admin_password,
        "sslmode": "disable",
        "tenant": ONE,
        "bucket": "invoices",
        "origin": "file",
        "public": True,
        "file_size_limit": None,
        "allowed_mime_types": None,
    }
    shown = "select public, file_size_limit from storage.buckets where id = 'proj_one.invoices'"
    ours = "select 1 from data_plane.default_rule_buckets where id = 'proj_one.invoices'"
    provider = _Provider()
    made = provider.create(properties)
    outs = dict(made.outs or {})
    assert made.id == "buckets/proj_one/invoices/file"
    assert (run(database, shown), len(run(database, ours))) == ([(True, None)], 1)
    assert not provider.diff(made.id, dict(provider.read(made.id, outs).outs or {}), properties).changes
    assert provider.diff(made.id, outs, {**properties, "bucket": "other"}).replaces == ["bucket"]
    provider.update(made.id, outs, {**properties, "file_size_limit": float(1 << 20)})
    assert run(database, shown) == [(True, 1 << 20)]
    provider.delete(made.id, outs)
    assert (run(database, shown), run(database, ours)) == ([(False, 1 << 20)], [])

    provider.create(properties)
    with owner(database) as session:
        run(database, "insert into data_plane.buckets (tenant, bucket, origin, file_size_limit) values (%s, 'invoices', 'migration', 7)"
            " on conflict (tenant, bucket, origin) do update set file_size_limit = 7, public = true", ONE)  # fmt: skip
        provider.delete(made.id, outs)
        assert run(database, shown) == [(True, 7)]
        assert bucket(session, "invoices") == "proj_one.invoices"
    guard(database)
    assert run(database, shown) == [(False, None)]


def test_the_first_bucket_of_a_state_of_before_is_the_same_one(database: LocalPostgres) -> None:
    """Replacing it would end with the old one's deletion, which closes it."""
    before = {"tenant": ONE, "public": False, "file_size_limit": None, "allowed_mime_types": None}
    now = {**before, "bucket": "", "origin": "file"}
    found = _Provider().diff(f"buckets/{ONE}", before, now)
    assert (found.changes, found.replaces) == (False, [])


# Servers of their own


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[LocalPostgres]:
    with running(tmp_path / "pg", binaries()[max(binaries())]) as server:
        yield server


def test_a_table_of_before_there_were_several_buckets_keeps_its_rows(empty: LocalPostgres) -> None:
    run(empty, "create schema data_plane")
    run(
        empty,
        "create table data_plane.buckets (tenant text primary key check (tenant ~ '^proj_[a-z0-9_]+$'),"
        " public boolean not null default false, file_size_limit bigint check (file_size_limit > 0),"
        " allowed_mime_types text[] check (cardinality(allowed_mime_types) > 0))",
    )
    run(empty, "insert into data_plane.buckets values ('proj_one', true, 5, '{image/*}')")
    for _ in range(2):
        apply_platform(empty)
    assert run(empty, "select id, tenant, bucket, origin, public, file_size_limit from data_plane.buckets") == [
        (ONE, ONE, "", "file", True, 5)
    ]
    assert run(empty, "select id from data_plane.default_rule_buckets") == [(ONE,)]
    run(
        empty,
        "insert into data_plane.buckets (tenant, bucket, origin) values ('proj_one', 'a', 'file'), ('proj_one', 'a', 'migration')",
    )


def test_what_is_declared_before_storage_is_there_comes_to_be_with_it(empty: LocalPostgres) -> None:
    apply_platform(empty)
    add_tenants(empty)
    run(empty, "insert into data_plane.buckets (tenant) values (%s)", ONE)
    issue(empty, OWNER, f"{ONE}_owner")
    with owner(empty) as session:
        bucket(session, "receipts")
        rule(session, "bucket_id = 'proj_one.receipts' and (storage.foldername(name))[1] = 'open'", roles=("public",))
    guard(empty)
    make_storage(empty)
    with connect(empty, "supabase_storage_admin") as session:
        for statement in STORAGE_FUNCTIONS:
            session.execute(statement.encode())
    guard(empty)
    put(empty, f"{ONE}.receipts", "open/file")
    put(empty, f"{ONE}.receipts", "closed/file")
    with storage(empty, f"{ONE}_anon") as request:
        assert names(request, f"{ONE}.receipts") == {"open/file"}


def test_a_dump_has_the_rules_and_their_policies(database: LocalPostgres, tmp_path: Path) -> None:
    with owner(database) as session:
        bucket(session, "receipts", public=True)
        rule(
            session,
            "bucket_id = 'proj_one.receipts' and name <> 'it''s \\'",
            name='see; it\'s "one"',
            roles=("public",),
        )
        rule(session, "true", "name <> ''", command="update", permissive=False, name="narrow")
    guard(database)
    environment = {
        "PGPASSWORD": database.admin_password,
        "PGHOST": LOOPBACK,
        "PGPORT": str(database.port),
        "PGUSER": ADMIN_USER,
    }
    archive = str(tmp_path / "archive")
    parts = ["--schema", "data_plane", "--schema", "storage", "--schema", "auth"]
    for program, arguments in (
        ("pg_dump", ["--format", "custom", "--file", archive, *parts, "postgres"]),
        ("createdb", ["--template", "template0", "again"]),
        ("pg_restore", ["--dbname", "again", archive]),
    ):
        subprocess.run(
            [database.binaries / program, *arguments],
            env=environment,
            check=program != "pg_restore",
            capture_output=True,
        )
    policies = "select polname, polpermissive, (select array_agg(r::regrole::text order by r::regrole::text) from unnest(polroles) r), pg_get_expr(polqual, polrelid) from pg_policy where polname like 'proj%' order by 1"
    declared = "select tenant, name, using_expression, pending, data_plane.present_storage_policy(tenant, name) = applied from data_plane.storage_rules order by 1, 2"
    buckets = "select id, origin, public from data_plane.buckets order by 1, 2"
    with database.connect() as here, database.connect("again") as there:
        for query in (policies, declared, buckets):
            found = here.execute(query.encode()).fetchall()
            assert len(found) >= 2
            assert there.execute(query.encode()).fetchall() == found
    subprocess.run([database.binaries / "dropdb", "again"], env=environment, check=True)
