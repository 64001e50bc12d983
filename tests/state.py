"""Everything that a run can change, as text that two data planes can be compared by."""

import re
from typing import Any

from data_plane.local.environment import LocalEnvironment

# What a sign-in or a lease adds is not a run's. Names stand for OIDs, so that two servers can be compared.
_CATALOGUE = {
    "roles": "select rolname, rolcanlogin, rolinherit, rolsuper, rolcreaterole, rolcreatedb, rolreplication,"
    " rolbypassrls, rolconnlimit from pg_roles where rolname !~ '^(pg_|lease_)'",
    "memberships": "select roleid::regrole::text, member::regrole::text, admin_option from pg_auth_members"
    " where member::regrole::text !~ '^\"?lease_'",
    "settings": "select setrole::regrole::text, s from pg_db_role_setting, unnest(setconfig) s"
    " where setrole::regrole::text !~ '^\"?lease_'",
    "schemas": "select nspname, pg_get_userbyid(nspowner), a::text from pg_namespace, unnest(coalesce(nspacl, '{}')) a"
    " where nspname !~ '^pg_'",
    "default privileges": "select defaclrole::regrole::text, n.nspname, defaclobjtype::text, a::text"
    " from pg_default_acl d left join pg_namespace n on n.oid = d.defaclnamespace, unnest(defaclacl) a",
    "functions": "select p.oid::regprocedure::text, md5(prosrc), prosecdef, pg_get_userbyid(proowner), a::text"
    " from pg_proc p left join lateral unnest(proacl) a on true"
    " where pronamespace::regnamespace::text in ('data_plane', 'data_plane_api', 'auth')",
    "tables": "select c.oid::regclass::text, relkind::text, relrowsecurity, pg_get_userbyid(relowner), a::text"
    " from pg_class c left join lateral unnest(relacl) a on true"
    " where relkind in ('r', 'p', 'v') and relnamespace::regnamespace::text ~ '^(data_plane|auth|proj_)'",
    "event triggers": "select evtname, evtevent, evtenabled::text, evttags from pg_event_trigger",
    "extensions": "select extname, extnamespace::regnamespace::text from pg_extension",
    "databases": "select datname, a::text from pg_database, unnest(coalesce(datacl, '{}')) a",
    "declared buckets": "select * from data_plane.buckets",
    "declared sign-ins": "select * from data_plane.sign_in",
    "published keys": "select count(*) from data_plane.verifying_keys",
}

_MANY = {
    "policies": "sys/policies/acl",
    "lease roles": "database/roles",
    "lease connections": "database/config",
    "token roles": "identity/oidc/role",
    "signing keys": "identity/oidc/key",
    "groups": "identity/group/name",
    "entities": "identity/entity/name",
}
_OF_THE_MOMENT = {
    "accessor",
    "creation_time",
    "id",
    "last_update_time",
    "local_mount_accessor",
    "modified",
    "modify_index",
    "uuid",
    "version",
}


def state(local_env: LocalEnvironment) -> dict[str, list[str]]:
    """The catalog of PostgreSQL, and what OpenBao has, without values of secrets."""
    return {**_of_postgresql(local_env), **_of_openbao(local_env)}


def differences(one: dict[str, list[str]], other: dict[str, list[str]]) -> dict[str, tuple[list[str], list[str]]]:
    """Where two data planes are not the same, by part: what only the one has, what only the other has."""
    found = {}
    for part in sorted({*one, *other}):
        mine, its = set(one.get(part, ())), set(other.get(part, ()))
        if mine != its:
            found[part] = (sorted(mine - its), sorted(its - mine))
    return found


def _of_postgresql(local_env: LocalEnvironment) -> dict[str, list[str]]:
    with local_env.servers.postgres.connect() as admin:
        return {name: sorted(map(repr, admin.execute(query.encode()).fetchall())) for name, query in _CATALOGUE.items()}


def _of_openbao(local_env: LocalEnvironment) -> dict[str, list[str]]:
    client = local_env.servers.openbao.client()
    names = {entry["id"]: entry["name"] for entry in _all(client, "identity/entity/name").values()}
    names |= {entry["id"]: entry["name"] for entry in _all(client, "identity/group/name").values()}
    names |= {entry["accessor"]: path for path, entry in client.read("sys/auth")["data"].items()}
    ports = re.compile(r"(?<=127\.0\.0\.1:)\d+")

    def plain(value: Any) -> Any:
        if value in ({}, []):
            return None  # what was written and what was written twice: no difference to anybody
        if isinstance(value, dict):
            return {key: plain(item) for key, item in sorted(value.items()) if key not in _OF_THE_MOMENT}
        if isinstance(value, list):
            return sorted((plain(item) for item in value), key=repr)
        return ports.sub("PORT", names.get(value, value)) if isinstance(value, str) else value

    found: dict[str, list[str]] = {}
    for part, path in _MANY.items():
        found[part] = [f"{name} {plain(entry)!r}" for name, entry in _all(client, path).items()]
    for part, path in {"mounts": "sys/mounts", "auth methods": "sys/auth"}.items():
        found[part] = [
            f"{name} {entry['type']} {entry['description']} {entry['config']['max_lease_ttl']}"
            for name, entry in client.read(path)["data"].items()
        ]
    found["secrets"] = [
        f"{name}: {key}"
        for name in client.list("connectors/metadata")["data"]["keys"]
        if not name.endswith("/")
        for key in client.read(f"connectors/data/{name}")["data"]["data"]
    ]
    return found


def _all(client: Any, path: str) -> dict[str, dict[str, Any]]:
    listed = client.list(path)
    names = listed["data"]["keys"] if listed else []
    return {name: client.read(f"{path}/{name}")["data"] for name in names if name != "root"}
