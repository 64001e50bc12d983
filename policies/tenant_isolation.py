"""A tenant stays isolated: its grants, roles, leases, policies and exposure are its own, and it is whole."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pulumi_policy import Policy, Severity

from data_plane.model.naming import (
    API_LEVELS,
    CONNECTORS_MOUNT,
    DATABASE_MOUNT,
    TENANTS_SECRET,
    AccessLevel,
)
from policies.central import CENTRAL_SETTINGS, is_central
from policies.openbao_policies import PathRule, UnreadablePolicyError, read_policy
from policies.rules import Config, Finding, Resource, resource_policy, stack_policy
from policies.unknown import is_unknown

__all__ = ["LEASE_SETTINGS", "POLICIES", "tenant_and_level"]

_COMPONENT = "supabase-data-plane:tenant:ProjectTenant"
_SCHEMA = "postgresql:index/schema:Schema"
_ROLE = "postgresql:index/role:Role"
_GRANT = "postgresql:index/grant:Grant"
_GRANT_ROLE = "postgresql:index/grantRole:GrantRole"
_DEFAULTS = ("postgresql:index/defaultPrivileges:DefaultPrivileges", "postgresql:index/defaultPrivileg:DefaultPrivileg")
_LEASE_ROLE = "vault:database/secretBackendRole:SecretBackendRole"
_TOKEN_ROLE = "vault:identity/oidcRole:OidcRole"
_POLICY = "vault:index/policy:Policy"
_GROUP = "vault:identity/group:Group"
_API_ACCESS = "pulumi-python:dynamic/tenant:TenantApiAccess"
_SCHEMAS = "pulumi-python:dynamic/tenant:TenantSchemas"
_REVOCATION = "pulumi-python:dynamic/tenant:LeaseRevocation"

_TENANT = re.compile(r"proj_[a-z][a-z0-9_]*")
_CELL_LOGIN = re.compile(r"cell_[a-z][a-z0-9_]*_authenticator")
_LEVELS = sorted((level.value for level in AccessLevel), key=len, reverse=True)
# What a tenant's role may be a member of, by level: the platform's own, as ProjectTenant gives them.
_MEMBER_OF = {
    "owner": {"data_plane_tenant"},
    "service_role": {"data_plane_tenant"},
    "authenticated": {"authenticated"},
    "anon": {"anon"},
}
_INSTEAD = "Declare tenants with ProjectTenant only, from a file stacks/<environment>/projects/<slug>.yaml"


def _text(value: object) -> str:
    return value if isinstance(value, str) and not is_unknown(value) else ""


def _on(value: object) -> bool:
    return value is True or value == "true" or is_unknown(value)


def _texts(value: object) -> list[str]:
    return [_text(entry) for entry in value] if isinstance(value, list | tuple) else []


def tenant_and_level(role: str) -> tuple[str, str] | None:
    """``proj_a_b_owner`` → ``proj_a_b``, ``owner``; None if it is no tenant's role."""
    for level in _LEVELS:
        schema = role.removesuffix(f"_{level}")
        if schema != role and _TENANT.fullmatch(schema):
            return schema, level
    return None


def _is_tenant_schema(name: str) -> bool:
    return bool(_TENANT.fullmatch(name))


def _serves(role: str, schema: str) -> bool:
    """Whether a role is the login of a PostgREST that may serve a tenant: a cell's, or the tenant's own."""
    return role == f"{schema}_authenticator" or bool(_CELL_LOGIN.fullmatch(role))


def _is_api_login(role: str) -> bool:
    return role.endswith("authenticator")


def _is_public(role: object) -> bool:
    return isinstance(role, str) and role.strip().strip('"').lower() == "public"


# Grants


def _grants_inside(resource: Resource, config: Config) -> Iterable[str]:
    if is_central(resource, config):
        return
    if resource.type == _GRANT:
        yield from _grant(resource.properties)
    elif resource.type in _DEFAULTS:
        yield from _default_privileges(resource.properties)
    elif resource.type == _GRANT_ROLE:
        yield from _membership(resource.properties)
    elif resource.type == _API_ACCESS:
        schema, login = (_text(resource.properties.get(key)) for key in ("tenant", "login"))
        if login and not _serves(login, schema):
            yield f"{login} becomes a member of the roles of {schema}: only its cell's API, or its own, may"
    elif resource.type == _ROLE:
        yield from _memberships_of(resource.properties)


def _grant(properties: Mapping[str, Any]) -> Iterator[str]:
    schema, role = _text(properties.get("schema")), _text(properties.get("role"))
    if not is_unknown(properties.get("schema")):
        if not _is_tenant_schema(schema):
            on = schema or f"the {properties.get('objectType', 'database')}"
            yield f"a grant on {on} is not inside a tenant's schema"
        elif role and not _is_public(role) and (tenant_and_level(role) or ("",))[0] != schema:
            yield f"{role} is no role of the tenant {schema}"
    if _on(properties.get("withGrantOption")):
        yield f"{role} could pass the grant on"


def _default_privileges(properties: Mapping[str, Any]) -> Iterator[str]:
    owner, role, schema = (_text(properties.get(key)) for key in ("owner", "role", "schema"))
    tenant = tenant_and_level(owner)
    if owner and (tenant is None or tenant[1] != "owner"):
        yield f"{owner} is no tenant's owner"
    elif tenant and schema and schema != tenant[0]:
        yield f"{owner} gives privileges in {schema}, which is not its own schema"
    elif tenant and role and not _is_public(role) and (tenant_and_level(role) or ("",))[0] != tenant[0]:
        yield f"{role} is no role of the tenant {tenant[0]}"
    if _on(properties.get("withGrantOption")):
        yield f"{role} could pass its privileges on"


def _membership(properties: Mapping[str, Any]) -> Iterator[str]:
    role, granted = _text(properties.get("role")), _text(properties.get("grantRole"))
    tenant = tenant_and_level(granted)
    if _on(properties.get("withAdminOption")):
        yield f"{role} could give {granted} to others"
    if not role or not granted:
        return
    if tenant is None:
        if tenant_and_level(role) or _is_api_login(role):
            yield f"{role} becomes a member of {granted}, which is no tenant's role"
    else:
        yield f"{role} becomes a member of {granted}: only TenantApiAccess gives a tenant's roles to a login"


def _memberships_of(properties: Mapping[str, Any]) -> Iterator[str]:
    tenant = tenant_and_level(_text(properties.get("name")))
    for granted in _texts(properties.get("roles")):
        if tenant is None:
            if tenant_and_level(granted):
                yield f"{properties.get('name')} is a member of the tenant's role {granted}"
        elif granted and granted not in _MEMBER_OF[tenant[1]]:
            yield f"{properties.get('name')} is a member of {granted}"


def _to_public(resource: Resource, _config: Config) -> Iterable[str]:
    if resource.type in {_GRANT, *_DEFAULTS} and _is_public(resource.properties.get("role")):
        privileges = resource.properties.get("privileges")
        if privileges or is_unknown(privileges):
            yield "everybody (PUBLIC) is granted something"
    elif resource.type == _GRANT_ROLE and _is_public(resource.properties.get("role")):
        yield "everybody (PUBLIC) becomes a member of a role"


# Roles


def _cannot_log_in(resource: Resource, _config: Config) -> Iterable[str]:
    name = _text(resource.properties.get("name"))
    if resource.type != _ROLE or not tenant_and_level(name):
        return
    if _on(resource.properties.get("login")):
        yield f"{name} may log in"
    if resource.properties.get("password") not in (None, ""):
        yield f"{name} has a password"


_POWERS = {
    "superuser": "SUPERUSER",
    "createRole": "CREATEROLE",
    "createDatabase": "CREATEDB",
    "replication": "REPLICATION",
}


def _powers(resource: Resource, _config: Config) -> Iterable[str]:
    if resource.type == _ROLE:
        for key, power in _POWERS.items():
            if _on(resource.properties.get(key)):
                yield f"role {_text(resource.properties.get('name'))} has {power}"


def _bypass(resource: Resource, config: Config) -> Iterable[str]:
    if resource.type != _ROLE or not _on(resource.properties.get("bypassRowLevelSecurity")):
        return
    name = _text(resource.properties.get("name"))
    if (tenant_and_level(name) or ("", ""))[1] != "service_role" and not is_central(resource, config):
        yield f"role {name} passes row-level security"


def _schema_owned(resource: Resource, _config: Config) -> Iterable[str]:
    if resource.type != _SCHEMA:
        return
    name, owner = _text(resource.properties.get("name")), _text(resource.properties.get("owner"))
    if "$" in name and _is_tenant_schema(name.partition("$")[0]):
        yield f"schema {name} is a tenant's further one: only TenantSchemas makes these"
    if not _is_tenant_schema(name):
        return
    if owner != f"{name}_owner" and not is_unknown(resource.properties.get("owner")):
        yield f"schema {name} belongs to {owner or 'its creator'}, not to {name}_owner"
    if _on(resource.properties.get("dropCascade")):
        yield f"schema {name} would be dropped with all in it"


# Leases and tokens


def _bounded(resource: Resource, config: Config) -> Iterable[str]:
    if resource.type != _LEASE_ROLE:
        return
    maximum = int(config["leaseTtlMaximum"])
    name = _text(resource.properties.get("name"))
    values = {key: resource.properties.get(key) for key in ("defaultTtl", "maxTtl")}
    for key, value in values.items():
        if is_unknown(value):
            continue
        if not isinstance(value, int | float) or value <= 0:
            yield f"{name}: {key} is not set, so a lease lasts as long as the engine lets it"
        elif value > maximum:
            yield f"{name}: {key} is {value:g} s, more than {maximum} s"
    ttl, longest = values["defaultTtl"], values["maxTtl"]
    if isinstance(ttl, int | float) and isinstance(longest, int | float) and 0 < longest < ttl:
        yield f"{name}: maxTtl ({longest:g} s) is less than defaultTtl ({ttl:g} s)"


def _revocable(resource: Resource, _config: Config) -> Iterable[str]:
    if resource.type != _LEASE_ROLE:
        return
    name = _text(resource.properties.get("name"))
    statements = resource.properties.get("revocationStatements")
    given = [text for text in _texts(statements) if text.strip()]
    if not given and not is_unknown(statements) and not any(map(is_unknown, statements or ())):
        yield f"{name} has no revocation statements: a revoked lease would keep its login"
    elif given and not any("{{name}}" in text for text in given):
        yield f"{name}: no revocation statement names the lease's login ({{{{name}}}})"


def _lease_of_one(resource: Resource, _config: Config) -> Iterable[str]:
    name = _text(resource.properties.get("name"))
    if resource.type == _LEASE_ROLE and _text(resource.properties.get("backend")) in {DATABASE_MOUNT, ""}:
        if name and tenant_and_level(name) is None:
            yield f"{name} is no tenant's role and level, so no tenant's limits hold for its leases"
        for key in ("creationStatements", "renewStatements"):
            for text in _texts(resource.properties.get(key)):
                others = sorted(set(re.findall(r"proj_[a-z0-9_]+", text)) - {name})
                if others:
                    yield f"{name}: {key} name {', '.join(others)}"
                if key == "creationStatements" and re.search(
                    r"\b(superuser|createrole|bypassrls|replication)\b", text, re.IGNORECASE
                ):
                    yield f"{name}: {key} make more than a login of the tenant's"
    elif resource.type == _TOKEN_ROLE:
        yield from _token(name, resource.properties)


def _token(name: str, properties: Mapping[str, Any]) -> Iterator[str]:
    template = _text(properties.get("template"))
    if not template:
        return
    try:
        claims = json.loads(template)
    except ValueError:
        yield f"{name}: its template is no JSON, so what its tokens say cannot be known"
        return
    role = str(claims.get("role", "")) if isinstance(claims, dict) else ""
    tenant = tenant_and_level(role)
    if tenant is None or tenant[1] == "owner":
        yield f"{name}: its tokens carry the role {role or '(none)'}, which is no API role of a tenant"
    elif name not in {role, f"{tenant[0]}_storage"}:
        yield f"{name}: its tokens carry the role {role} of another name"


# Policies


_REACHED = (
    "database/creds/proj_a_owner",
    "database/roles/proj_a_owner",
    "sys/leases/revoke/database/creds/proj_a_owner/x",
    "sys/leases/renew/database/creds/proj_a_owner/x",
    "sys/leases/lookup/database/creds/proj_a_owner/x",
    "sys/leases/revoke-prefix/database/creds/proj_a_owner",
    "identity/oidc/token/proj_a_anon",
    "identity/oidc/role/proj_a_anon",
    "identity/group/name/proj_a_owner",
    "sys/policies/acl/proj_a_owner",
    "sys/policy/proj_a_owner",
    "connectors/data/supabase",
    "connectors/metadata/supabase",
)


# What every token may do with itself, as OpenBao's policy `default` says it.
_OWN_TOKEN = tuple(f"auth/token/{action}-self" for action in ("lookup", "renew", "revoke"))
# Where the lease is named by the request's body, so that the path says nothing of whose it is.
_LEASE_IN_BODY = "sys/leases/renew"


def _one_tenant(resource: Resource, config: Config) -> Iterable[str]:
    if resource.type == _GROUP:
        yield from _group(resource.properties)
    if resource.type != _POLICY or is_unknown(resource.properties.get("policy")):
        return
    name = _text(resource.properties.get("name"))
    try:
        rules = read_policy(_text(resource.properties.get("policy")))
    except UnreadablePolicyError as error:
        yield f"{name} cannot be read, so it is not known what it allows: {error}"
        return
    for rule in rules:
        yield from _rule(name, rule, config)


def _rule(name: str, rule: PathRule, config: Config) -> Iterator[str]:
    if "sudo" in rule.capabilities:
        yield f"{name} has sudo on {rule.path}"
    if "{{" in rule.path:
        yield f"{name}: {rule.path} depends on who asks, so it is no one tenant's"
        return
    tenant = tenant_and_level(name)
    if tenant:
        if rule.path not in _own_paths(name, tenant[0], tenant[1]):
            yield f"{name}: {rule.path} is not a path of its own"
        own = {"lease_id": [f"{DATABASE_MOUNT}/creds/{name}/*"], "increment": []}
        if rule.path == _LEASE_IN_BODY and rule.allowed != own:
            yield f"{name}: {rule.path} takes other leases than its own (allowed_parameters)"
        return
    wildcard = "*" in rule.path or "+" in rule.path
    reached = [path for path in _REACHED if _covers(rule.path, path)]
    if wildcard and reached and rule.path not in config["allowedPaths"]:
        yield f"{name}: {rule.path} reaches over tenants ({reached[0].replace('proj_a', 'proj_…')})"
    elif re.search(r"(^|/)proj_[a-z]", rule.path):
        yield f"{name}: {rule.path} is a tenant's, and only the tenant's own policy may name it"


def _own_paths(name: str, schema: str, level: str) -> set[str]:
    lease = f"{DATABASE_MOUNT}/creds/{name}"
    paths = {lease, f"sys/leases/revoke/{lease}/*", f"sys/leases/renew/{lease}/*", *_OWN_TOKEN, _LEASE_IN_BODY}
    if level in API_LEVELS:
        paths |= {f"identity/oidc/token/{name}", f"{CONNECTORS_MOUNT}/data/{TENANTS_SECRET}"}
    if level == AccessLevel.SERVICE_ROLE:
        paths.add(f"identity/oidc/token/{schema}_storage")
    return paths


def _covers(rule: str, path: str) -> bool:
    """Whether OpenBao's rule holds for a path: `+` is one part, `*` at the end is whatever follows."""
    pattern = "".join(
        "[^/]+" if part == "+" else re.escape(part) for part in re.split(r"(?:(?<=/)|^)(\+)(?=/|$)", rule.rstrip("*"))
    )
    return bool(re.match(pattern + ("" if rule.endswith("*") else r"\Z"), path))


def _group(properties: Mapping[str, Any]) -> Iterator[str]:
    name = _text(properties.get("name"))
    for policy in _texts(properties.get("policies")):
        if tenant_and_level(policy) and policy != name:
            yield f"group {name} is given the policy {policy}, which is another group's"
        elif tenant_and_level(name) and policy and policy != name:
            yield f"group {name} is given the policy {policy} besides its own"
        elif policy == "root":
            yield f"group {name} is given the policy root"


# Exposure


def _exposed(resource: Resource, _config: Config) -> Iterable[str]:
    properties = resource.properties
    login, schema = _text(properties.get("role")), _text(properties.get("schema"))
    if resource.type == _GRANT and _is_api_login(login):
        yield f"{schema or properties.get('objectType', 'a database')} would be opened to the API by a grant to {login}"
    elif resource.type == _GRANT_ROLE and _is_api_login(login):
        granted = _text(properties.get("grantRole"))
        if tenant_and_level(granted):
            yield f"the API could become {granted} by a grant to {login}"


# Completeness


@dataclass(frozen=True)
class _Part:
    """One resource that every tenant has, and what to call it."""

    type: str
    key: tuple[object, ...]
    label: str


def _parts(schema: str) -> Iterator[_Part]:
    def role(level: str) -> str:
        return f"{schema}_{level}"

    yield _Part(_SCHEMA, (schema,), f"schema {schema}")
    for level in AccessLevel:
        yield _Part(_ROLE, (role(level),), f"role {role(level)}")
        yield _Part(_LEASE_ROLE, (role(level),), f"lease role {role(level)}")
        yield _Part(_POLICY, (role(level),), f"policy {role(level)}")
        yield _Part(_GROUP, (role(level),), f"group {role(level)}")
    for level in API_LEVELS:
        yield _Part(_TOKEN_ROLE, (role(level),), f"token role {role(level)}")
        yield _Part(_GRANT, (schema, "schema", role(level)), f"grant of {schema} to {role(level)}")
        for kind in ("table", "sequence", "function"):
            yield _Part(
                _DEFAULTS[0], (role("owner"), kind, role(level)), f"default privileges on {kind}s for {role(level)}"
            )
    yield _Part(_API_ACCESS, (schema,), f"who may assume the API roles of {schema}")
    yield _Part(_DEFAULTS[0], (role("owner"), "function", "public"), "the default that nobody else executes functions")
    yield _Part(_SCHEMAS, (schema,), f"what becomes of further schemas of {schema}")
    yield _Part(_REVOCATION, (schema,), f"revocation of the leases of {schema}")


_KEYS: dict[str, tuple[str, ...]] = {
    _SCHEMA: ("name",),
    _ROLE: ("name",),
    _LEASE_ROLE: ("name",),
    _POLICY: ("name",),
    _GROUP: ("name",),
    _TOKEN_ROLE: ("name",),
    _API_ACCESS: ("tenant",),
    _SCHEMAS: ("tenant",),
    _GRANT: ("schema", "objectType", "role"),
    _DEFAULTS[0]: ("owner", "objectType", "role"),
    _REVOCATION: ("tenant",),
}


def _complete(resources: Sequence[Resource], _config: Config) -> Iterable[Finding]:
    there: set[tuple[str, tuple[object, ...]]] = set()
    tenants: dict[str, str] = {}
    unknown = False
    for resource in resources:
        kind = _DEFAULTS[0] if resource.type in _DEFAULTS else resource.type
        if kind == _COMPONENT:
            tenants.setdefault(f"proj_{resource.name.replace('-', '_')}", resource.urn)
        if kind not in _KEYS:
            continue
        key = tuple(resource.properties.get(name) for name in _KEYS[kind])
        unknown = unknown or any(map(is_unknown, key))
        there.add((kind, key))
        if kind == _SCHEMA and _is_tenant_schema(_text(key[0])):
            tenants.setdefault(str(key[0]), resource.urn)
            if _COMPONENT not in resource.parent_types:
                yield Finding(f"schema {key[0]} is no part of a ProjectTenant", resource.urn)
    for schema, urn in sorted(tenants.items()):
        missing = [part.label for part in _parts(schema) if (part.type, part.key) not in there]
        if missing and not unknown:
            yield Finding(f"the tenant {schema} lacks: {'; '.join(missing)}", urn)


LEASE_SETTINGS: dict[str, dict[str, Any]] = {
    "leaseTtlMaximum": {
        "type": "integer",
        "minimum": 5,
        "default": 86400,
        "description": "The longest lease of any tenant, in seconds; the stacks' leaseTtlMaximum.",
    },
}
_PATH_SETTINGS: dict[str, dict[str, Any]] = {
    **CENTRAL_SETTINGS,
    "allowedPaths": {
        "type": "array",
        "items": {"type": "string"},
        "default": [],
        "description": "Paths with a wildcard over tenants that the platform's own policies may have.",
    },
}

POLICIES: list[Policy] = [
    resource_policy(
        "tenant-grants-stay-inside",
        "A grant is on a tenant's schema and to that tenant's roles.",
        _grants_inside,
        instead=_INSTEAD,
        settings=CENTRAL_SETTINGS,
        severity=Severity.CRITICAL,
    ),
    resource_policy(
        "no-grant-to-public",
        "Nothing is granted to everybody.",
        _to_public,
        instead="Grant to the tenant's own roles; to take PostgreSQL's default away, declare PUBLIC with no privileges",
        severity=Severity.CRITICAL,
    ),
    resource_policy(
        "tenant-roles-cannot-log-in",
        "A tenant's roles are what leases start as; nobody logs in as them.",
        _cannot_log_in,
        instead="Leave `login` off and take a lease: `dataplane lease`",
    ),
    resource_policy(
        "no-powerful-role",
        "No role has power over the server.",
        _powers,
        instead="Leave these attributes off; what needs them is done by platform.sql in the central stack",
        severity=Severity.CRITICAL,
    ),
    resource_policy(
        "bypass-rls-for-service-roles-only",
        "Only a tenant's service_role passes row-level security.",
        _bypass,
        instead="Write a row-level security policy, or use the tenant's service_role",
        settings=CENTRAL_SETTINGS,
        severity=Severity.CRITICAL,
    ),
    resource_policy(
        "tenant-owns-its-schema",
        "A tenant's schema belongs to its owner role, and is never dropped with what is in it.",
        _schema_owned,
        instead=_INSTEAD,
    ),
    resource_policy(
        "lease-lifetimes-are-bounded",
        "Leases end: with a TTL, and with a maximum that renewals do not pass.",
        _bounded,
        instead="Set limits.lease_ttl and lease_max_ttl in the project's file, within the stack's leaseTtlMaximum",
        settings=LEASE_SETTINGS,
    ),
    resource_policy(
        "leases-are-revocable",
        "A revoked lease is gone.",
        _revocable,
        instead="Give revocationStatements that drop the lease's login, as TenantLeases does",
        severity=Severity.CRITICAL,
    ),
    resource_policy(
        "leases-and-tokens-are-of-one-tenant",
        "A lease role or a token role is of one tenant and level.",
        _lease_of_one,
        instead=_INSTEAD,
        severity=Severity.CRITICAL,
    ),
    resource_policy(
        "openbao-policy-names-one-tenant",
        "A policy of OpenBao reaches one tenant and level, by paths without wildcards over tenants and without sudo.",
        _one_tenant,
        instead="Name the tenant's own paths, one policy for each level, as TenantAccess does",
        settings=_PATH_SETTINGS,
        severity=Severity.CRITICAL,
    ),
    resource_policy(
        "only-tenant-schemas-are-exposed",
        "The API serves tenants' schemas, as their API roles, where TenantApiAccess says so, and nothing else.",
        _exposed,
        instead="Set `exposed: true` in the project's file: TenantApiAccess then lets in the login that serves it",
        severity=Severity.CRITICAL,
    ),
    stack_policy(
        "tenant-is-complete",
        "A tenant is whole: schema, roles, grants, lease roles, token roles, policies, groups and revocation.",
        _complete,
        instead=_INSTEAD,
    ),
]
