"""The floor: what the program makes of a tenant, by the bare statements and requests, with no framework at all.

One connection each to PostgreSQL and OpenBao, one statement after the other, nothing read before or after. What it
leaves is compared with what the program leaves (:func:`catalog`), so that both have done the same.
"""

import json
import time
from collections.abc import Iterator, Sequence
from typing import Any

import hvac
import psycopg
from psycopg import sql

from components.tenant.access import policy_document
from components.tenant.leases import lease_statements
from data_plane.model.access import levels_of
from data_plane.model.naming import (
    API_LEVELS,
    DATABASE_CONNECTION,
    DATABASE_MOUNT,
    SIGNING_KEY,
    AccessLevel,
)
from data_plane.model.projects import Project
from data_plane.model.timings import TOKEN_TTL_SECONDS

__all__ = ["catalog", "make_tenants", "statements"]

_MEMBER_OF = {
    AccessLevel.OWNER: "data_plane_tenant",
    AccessLevel.SERVICE_ROLE: "data_plane_tenant",
    AccessLevel.AUTHENTICATED: "authenticated",
    AccessLevel.ANON: "anon",
}


def statements(project: Project) -> Iterator[sql.Composed]:
    """The SQL of one tenant, in an order in which it runs."""
    names, limits = project.names, project.limits
    schema = sql.Identifier(names.schema)
    role = {level: sql.Identifier(names.role(level)) for level in AccessLevel}
    for level in AccessLevel:
        bypass = sql.SQL("bypassrls" if level is AccessLevel.SERVICE_ROLE else "nobypassrls")
        yield sql.SQL("create role {} nologin inherit {} connection limit {} valid until 'infinity' in role {}").format(
            role[level], bypass, limits.connection_limit, sql.Identifier(_MEMBER_OF[level])
        )
        for setting, value in (
            ("search_path", sql.SQL("{}, extensions").format(schema)),
            ("statement_timeout", sql.Literal(limits.statement_timeout * 1000)),
            ("idle_in_transaction_session_timeout", sql.Literal(limits.idle_in_transaction_timeout * 1000)),
        ):
            yield sql.SQL("alter role {} set {} to {}").format(role[level], sql.Identifier(setting), value)
    owner = role[AccessLevel.OWNER]
    yield sql.SQL("create schema {} authorization {}").format(schema, owner)
    for level in API_LEVELS:
        yield sql.SQL("grant usage on schema {} to {}").format(schema, role[level])
    defaults = sql.SQL("alter default privileges for role {}").format(owner)
    yield sql.SQL("{} revoke all on functions from public").format(defaults)
    for level in API_LEVELS:
        more = sql.SQL(", truncate" if level is AccessLevel.SERVICE_ROLE else "")
        for granted in (
            sql.SQL("select, insert, update, delete{} on tables").format(more),
            sql.SQL("usage, select on sequences"),
            sql.SQL("execute on functions"),
        ):
            yield sql.SQL("{} in schema {} grant {} to {}").format(defaults, schema, granted, role[level])
    yield sql.SQL("insert into data_plane.schemas (tenant) values ({})").format(names.schema)
    yield sql.SQL("select data_plane.apply_schemas({})").format(names.schema)
    yield sql.SQL("insert into data_plane.api_access (tenant, login, storage) values ({}, {}, true)").format(
        names.schema, project.api_server.login if project.api_server else None
    )
    yield sql.SQL("select data_plane.apply_api_access({})").format(names.schema)
    yield sql.SQL("insert into data_plane.limits values ({}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {})").format(
        names.schema,
        limits.connections,
        limits.leases,
        limits.storage,
        limits.statement_timeout,
        limits.transaction_timeout,
        limits.idle_in_transaction_timeout,
        limits.schemas,
        limits.buckets,
        limits.jobs,
        limits.objects,
    )
    yield sql.SQL("insert into data_plane.job_access values ({}, true)").format(names.schema)
    yield sql.SQL("select data_plane.provide_jobs({})").format(names.schema)
    yield sql.SQL("insert into data_plane.sign_in (tenant, sign_up) values ({}, {})").format(
        names.schema, project.sign_up.value
    )
    yield sql.SQL("insert into data_plane.user_tables (tenant, attached) values ({}, true)").format(names.schema)
    yield sql.SQL("select data_plane.provide_users({})").format(names.schema)
    yield sql.SQL("insert into data_plane.buckets (tenant, public) values ({}, {})").format(
        names.schema, project.storage.public
    )
    yield sql.SQL("select data_plane.apply_buckets({})").format(names.schema)


def documents(project: Project, entities: dict[str, str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The requests to OpenBao of one tenant: path and body."""
    names, limits = project.names, project.limits
    for level in AccessLevel:
        lease = lease_statements(names.role(level), limits.statement_timeout, limits.lease_ttl)
        yield (
            f"{DATABASE_MOUNT}/roles/{names.role(level)}",
            {
                "db_name": DATABASE_CONNECTION,
                "creation_statements": [lease.creation],
                "renew_statements": [lease.renewal],
                "revocation_statements": [lease.revocation],
                "rollback_statements": [lease.revocation],
                "default_ttl": limits.lease_ttl,
                "max_ttl": limits.lease_max_ttl,
            },
        )
    claims: dict[str, dict[str, object]] = {names.role(level): {"role": names.role(level)} for level in API_LEVELS}
    claims[names.storage_token_role] = {"role": names.role(AccessLevel.AUTHENTICATED), "storage_admin": True}
    for name, carried in claims.items():
        served = {"api_server": project.api_server.name} if project.api_server else {}
        template = json.dumps({**carried, "project": names.slug, **served}, separators=(",", ":"))
        body = {"key": SIGNING_KEY, "client_id": names.schema, "template": template, "ttl": TOKEN_TTL_SECONDS}
        yield f"identity/oidc/role/{name}", body
    for level in AccessLevel:
        name = names.role(level)
        yield f"sys/policies/acl/{name}", {"policy": policy_document(names, level, storage=True)}
        members = {user for role, user in project.members("users") if level in levels_of(role)}
        yield (
            f"identity/group/name/{name}",
            {
                "type": "internal",
                "policies": [name],
                "member_entity_ids": [entities[user] for user in sorted(members)],
                "metadata": {"project": names.slug, "level": level.value},
            },
        )


def make_tenants(
    connection: psycopg.Connection[Any], client: hvac.Client, projects: Sequence[Project]
) -> dict[str, float]:
    """Makes tenants, and says how long PostgreSQL and OpenBao took, in seconds.

    Args:
        connection: of the superuser, in autocommit mode.
        client: of the operator.
    """
    start = time.perf_counter()
    for project in projects:
        for statement in statements(project):
            connection.execute(statement)
    in_database = time.perf_counter() - start
    accessor = client.sys.list_auth_methods()["data"]["userpass/"]["accessor"]
    entities: dict[str, str] = {}
    for user in sorted({user for project in projects for _, user in project.members("users")}):
        client.write_data(f"identity/entity/name/{user}", data={})
        entities[user] = client.read(f"identity/entity/name/{user}")["data"]["id"]
        alias = {"name": user, "mount_accessor": accessor, "canonical_id": entities[user]}
        client.write_data("identity/entity-alias", data=alias)
    for project in projects:
        for path, body in documents(project, entities):
            client.write_data(path, data=body)
    return {"postgresql": in_database, "openbao": time.perf_counter() - start - in_database}


def catalog(connection: psycopg.Connection[Any], client: hvac.Client, project: Project) -> dict[str, Any]:
    """A tenant as it is in PostgreSQL's catalogs and in OpenBao, but for the order of things and generated IDs."""
    names = project.names
    pattern = f"^{names.schema}_(owner|service_role|authenticated|anon)$"
    found: dict[str, Any] = {}
    for what, query in _CATALOGUE.items():
        values = {"schema": names.schema, "roles": pattern}
        found[what] = sorted(map(repr, connection.execute(query.encode(), values).fetchall()))
    for path, _ in documents(project, {user: "" for _, user in project.members("users")}):
        data = dict(client.read(path)["data"])
        kept = set(data) - {
            "id",
            "creation_time",
            "last_update_time",
            "modified",
            "modify_index",
            "version",
            "member_entity_ids",
        }
        found[path] = {key: data[key] for key in sorted(kept)} | {"members": len(data.get("member_entity_ids") or [])}
    return found


_CATALOGUE = {
    "roles": """
        select rolname, rolinherit, rolcanlogin, rolbypassrls, rolsuper, rolcreaterole, rolconnlimit,
            rolvaliduntil::text,
            array(select roleid::regrole::text from pg_auth_members where member = r.oid order by 1),
            array(select member::regrole::text from pg_auth_members where roleid = r.oid order by 1),
            array(select unnest(setconfig) from pg_db_role_setting where setrole = r.oid and setdatabase = 0 order by 1)
        from pg_roles r where rolname ~ %(roles)s""",
    "schema": """
        select nspname, nspowner::regrole::text, grantee::regrole::text, privilege_type
        from pg_namespace, aclexplode(nspacl) where nspname = %(schema)s""",
    "defaults": """
        select defaclrole::regrole::text, defaclnamespace::regnamespace::text, defaclobjtype,
            grantee::regrole::text, privilege_type
        from pg_default_acl, aclexplode(defaclacl) where defaclrole::regrole::text ~ %(roles)s""",
    "schemas": "select declared, exposed, attached from data_plane.schemas where tenant = %(schema)s",
    "limits": "select * from data_plane.limits where tenant = %(schema)s",
    "sign-in": "select sign_up from data_plane.sign_in where tenant = %(schema)s",
    "users": "select attached from data_plane.user_tables where tenant = %(schema)s",
    "bucket": "select public, file_size_limit, allowed_mime_types from data_plane.buckets where tenant = %(schema)s",
}
