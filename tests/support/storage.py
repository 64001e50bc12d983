"""Storage's tables as its migrations make them, and requests to it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from psycopg.errors import InsufficientPrivilege

from data_plane.local.postgres import LocalPostgres
from tests.support.platform_database import (
    Connection,
    api_request,
    connect,
    run,
)

# What the official image has before the platform comes.
OF_THE_IMAGE = """
    create role authenticator login noinherit;
    create role anon nologin noinherit;
    create role authenticated nologin noinherit;
    create role service_role nologin bypassrls;
    create role supabase_storage_admin login noinherit;
    grant anon, authenticated, service_role to authenticator;
    grant authenticator to supabase_storage_admin;
    create schema storage authorization supabase_storage_admin;
    grant usage on schema storage to anon, authenticated, service_role;
    alter default privileges for role supabase_storage_admin in schema storage
        grant all on tables to anon, authenticated, service_role;
"""


# The columns, grants and row-level security of Storage's tables that matter here, in the steps in which its migrations
# bring them; by its own login. The grants are those of 0021 and 0046: where
# DB_INSTALL_ROLES is false there are no others.
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
    "grant all on storage.s3_multipart_uploads, storage.s3_multipart_uploads_parts to service_role",
    "grant select on storage.s3_multipart_uploads, storage.s3_multipart_uploads_parts to anon, authenticated",
    "create table storage.forgotten (id int)",
    "grant all on storage.buckets, storage.objects to postgres with grant option",
    "grant all on storage.buckets, storage.objects to anon, authenticated, service_role",
]


ONE, TWO = "proj_one", "proj_two_b"


def make_storage(server: LocalPostgres) -> None:
    """Starts Storage for the first time: on what the platform has made, or the image."""
    run(server, "alter role supabase_storage_admin password 'for-this-test'")
    with connect(server, "supabase_storage_admin") as storage:
        for statement in STORAGE_TABLES:
            storage.execute(statement.encode())
            storage.commit()


@contextmanager
def storage(
    database: LocalPostgres,
    role: str,
    sub: str | None = None,
    claims: Mapping[str, object] | None = None,
    operation: str = "storage.object.x",
) -> Iterator[Connection]:
    """A request to Storage with a token of this role."""
    given = {**({} if sub is None else {"sub": sub}), **(claims or {})}
    settings = {"storage.operation": operation, "storage.allow_delete_query": "true"}
    with api_request(database, role, given, login="supabase_storage_admin", settings=settings) as session:
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


ADMIN = {"storage_admin": True}


OWN_NAME = "data_plane_storage"
"""As whom Storage does what it has signed for: ``DB_SERVICE_ROLE``."""


# The statements of src/storage/database/pg.ts by which it does so, of Storage 1.74: each needs a row.
FIND_OBJECT = (
    "select id, version, metadata from storage.objects where name = %(name)s and bucket_id = %(bucket)s limit 1"
)


FIND_BUCKET = (
    "select id, public, file_size_limit, allowed_mime_types from storage.buckets where id = %(bucket)s limit 1"
)


AS_SIGNED = {
    "GET /object/sign/<bucket>/<file>": [FIND_OBJECT],
    "GET /render/image/sign/<bucket>/<file>": [FIND_OBJECT],
    "POST /object/upload/sign/<bucket>/<file>": [FIND_BUCKET],
    "PUT /object/upload/sign/<bucket>/<file>": [
        FIND_BUCKET,
        (
            "insert into storage.objects (name, bucket_id, version) values (%(name)s, %(bucket)s, '2') on conflict (name, bucket_id)"
            " do update set version = excluded.version returning *"
        ),
    ],
    "PUT /object/upload/sign/<bucket>/<new file>": [
        FIND_BUCKET,
        "insert into storage.objects (name, bucket_id, version) values (%(new)s, %(bucket)s, '1') returning *",
    ],
    "PATCH /upload/resumable/sign/<id>": [FIND_BUCKET],
    "GET /object/public/<bucket>/<file>": [FIND_BUCKET + " for share", FIND_OBJECT],
    "GET /render/image/public/<bucket>/<file>": [FIND_BUCKET, FIND_OBJECT],
    "GET /object/info/public/<bucket>/<file>": [FIND_BUCKET, FIND_OBJECT],
    "GET /s3/<bucket>?list-type=2": [
        "select id, name from storage.objects where bucket_id = %(bucket)s order by name limit 100"
    ],
    "PUT /s3/<bucket>/<file>?partNumber": [
        "insert into storage.s3_multipart_uploads_parts (upload_id, bucket_id) values ('u', %(bucket)s) returning *"
    ],
    "POST /s3/<bucket>/<file>?uploads": [
        "insert into storage.s3_multipart_uploads (id, bucket_id, key) values ('u', %(bucket)s, 'k') returning *"
    ],
    "POST /object/move": [
        "update storage.objects set name = %(new)s where bucket_id = %(bucket)s and name = %(name)s returning *"
    ],
    "POST /object/move out of it": [
        (
            "update storage.objects set bucket_id = 'of the platform', name = %(new)s where bucket_id = %(bucket)s"
            " and name = %(name)s returning *"
        )
    ],
    "DELETE /object/<bucket>/<file>": [
        "delete from storage.objects where bucket_id = %(bucket)s and name = %(name)s returning *"
    ],
}


def rows_as_signed(database: LocalPostgres, statements: list[str], bucket: str) -> list[int]:
    """What a request that Storage has signed for finds, statement by statement."""
    with storage(database, OWN_NAME) as session:
        try:
            values = {"bucket": bucket, "name": "file", "new": "new file"}
            return [len(session.execute(statement.encode(), values).fetchall()) for statement in statements]
        except InsufficientPrivilege:
            return [0]
        finally:
            session.rollback()


# As Storage's later migrations have them.
STORAGE_FUNCTIONS = [
    """create function storage.foldername(name text) returns text[] language plpgsql immutable as $$
        declare _parts text[]; begin
        select string_to_array(name, '/') into _parts; return _parts[1 : array_length(_parts, 1) - 1]; end $$""",
    """create function storage.filename(name text) returns text language plpgsql as $$
        declare _parts text[]; begin
        select string_to_array(name, '/') into _parts; return _parts[array_length(_parts, 1)]; end $$""",
    """create function storage.extension(name text) returns text language plpgsql immutable as $$
        begin return reverse(split_part(reverse(storage.filename(name)), '.', 1)); end $$""",
    """create function storage.operation() returns text language plpgsql stable as $$
        begin return current_setting('storage.operation', true); end $$""",
    """alter table storage.objects add column created_at timestamptz default now(), add column user_metadata jsonb,
        add column path_tokens text[] generated always as (string_to_array(name, '/')) stored""",
]
