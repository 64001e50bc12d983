"""An S3-compatible server for backups, and the catalog that a restore has to bring back."""

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from data_plane.model.backup_settings import BackupSettings

BUCKET = "backups"


KEYS = {"BACKUP_S3_ACCESS_KEY_ID": "key-of-the-test", "BACKUP_S3_SECRET_ACCESS_KEY": "secret-of-the-test"}


# Everything of a tenant that a restore has to bring back, in an order that does not depend on OIDs.
CATALOGUE = {
    "roles": """
        select rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolbypassrls, rolconnlimit,
            -- The relay has a new password for each connection.
            case when rolname !~ '\\$relay$' then rolvaliduntil::text end
        from pg_roles where rolname !~ '^(pg_|lease_)' order by 1""",
    "members": """
        select m.roleid::regrole::text, m.member::regrole::text, m.admin_option from pg_auth_members m
        where m.member::regrole::text !~ 'lease_' order by 1, 2""",
    "role settings": """
        select coalesce(r.rolname, '-'), coalesce(d.datname, '-'), s.setconfig::text
        from pg_db_role_setting s left join pg_roles r on r.oid = s.setrole left join pg_database d on d.oid = s.setdatabase
        where coalesce(r.rolname, '') !~ '^lease_' order by 1, 2""",
    "databases": """
        select datname, datdba::regrole::text, datistemplate,
            (select array_agg(a::text order by a::text) from unnest(datacl) a)::text
        from pg_database order by 1""",
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
