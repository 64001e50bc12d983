"""A tenant stays isolated: what is refused, what the program does and is let through, and what may not be missing."""

import json
from dataclasses import replace
from typing import Any

import pytest

from data_plane.engine.runner.policy import PolicyPack
from data_plane.engine.runner.properties import UNKNOWN
from policies.openbao_policies import PathRule, UnreadablePolicyError, read_policy
from policies.tenant_isolation import POLICIES
from tests.support.analyzer import CENTRAL, TENANT, Declared, checked_resource, checked_stack, told
from tests.support.small_programs import a_cell, project
from tests.support.whole_program import CENTRAL_STACK, cell_program, with_urns

GROUP = {policy.name for policy in POLICIES}
CELL = "supabase-data-plane:cell:Cell"
REVOKE = ["select data_plane.revoke('{{name}}')"]


def role(name: str = "proj_shop_owner", **properties: Any) -> Declared:
    return Declared("postgresql:index/role:Role", {"name": name, **properties})


def grant(schema: Any = "proj_shop", to: Any = "proj_shop_anon", kind: str = "schema", **more: Any) -> Declared:
    properties = {"database": "postgres", "schema": schema, "role": to, "objectType": kind, "privileges": ["USAGE"]}
    return Declared("postgresql:index/grant:Grant", {**properties, **more})


def defaults(owner: str = "proj_shop_owner", to: str = "proj_shop_anon", **more: Any) -> Declared:
    properties = {"owner": owner, "role": to, "schema": "proj_shop", "objectType": "table", "privileges": ["SELECT"]}
    return Declared("postgresql:index/defaultPrivileges:DefaultPrivileges", {**properties, **more})


def membership(to: str, of: str, **more: Any) -> Declared:
    return Declared("postgresql:index/grantRole:GrantRole", {"role": to, "grantRole": of, **more})


def schema(name: str = "proj_shop", owner: Any = "proj_shop_owner", **more: Any) -> Declared:
    return Declared("postgresql:index/schema:Schema", {"name": name, "owner": owner, **more})


def lease(name: Any = "proj_shop_owner", **more: Any) -> Declared:
    properties = {
        "backend": "database",
        "name": name,
        "dbName": "supabase",
        "defaultTtl": 900,
        "maxTtl": 3600,
        "creationStatements": ["select data_plane.issue('{{name}}', '{{password}}', 'proj_shop_owner')"],
        "revocationStatements": REVOKE,
    }
    return Declared("vault:database/secretBackendRole:SecretBackendRole", {**properties, **more})


def token(name: str, claims: Any) -> Declared:
    template = claims if isinstance(claims, str) else json.dumps(claims)
    return Declared("vault:identity/oidcRole:OidcRole", {"name": name, "key": "supabase", "template": template})


def served_by(login: object, tenant: str = "proj_shop") -> Declared:
    return Declared("pulumi-python:dynamic/tenant:TenantApiAccess", {"tenant": tenant, "login": login})


def policy(name: str, text: Any) -> Declared:
    return Declared("vault:index/policy:Policy", {"name": name, "policy": text})


def renews(name: str, **allowed: list[str]) -> Declared:
    rule = {"capabilities": ["update"], "allowed_parameters": allowed}
    return policy(name, json.dumps({"path": {"sys/leases/renew": rule}}))


def allows(name: str, path: str, *capabilities: str) -> Declared:
    words = ", ".join(f'"{capability}"' for capability in capabilities or ("read",))
    return policy(name, f'path "{path}" {{\n  capabilities = [{words}]\n}}\n')


def group(name: str, *policies: str) -> Declared:
    return Declared("vault:identity/group:Group", {"name": name, "type": "internal", "policies": list(policies)})


def in_central(resource: Declared) -> Declared:
    return replace(resource, stack=CENTRAL_STACK, parents=[CENTRAL])


INSIDE, PUBLIC, LOGIN = "tenant-grants-stay-inside", "no-grant-to-public", "tenant-roles-cannot-log-in"
POWER, BYPASS, OWNED = "no-powerful-role", "bypass-rls-for-service-roles-only", "tenant-owns-its-schema"
BOUNDED, REVOCABLE, ONE = "lease-lifetimes-are-bounded", "leases-are-revocable", "leases-and-tokens-are-of-one-tenant"
PATHS, EXPOSED, WHOLE = "openbao-policy-names-one-tenant", "only-tenant-schemas-are-exposed", "tenant-is-complete"
OWN_LEASE = "database/creds/proj_shop_owner"

VIOLATIONS: list[tuple[str, Declared, str]] = [
    # A schema that is no tenant's, or another tenant's role.
    (INSIDE, grant("public"), "public"),
    (INSIDE, grant("auth"), "auth"),
    (INSIDE, grant("storage", "proj_shop_service_role"), "storage"),
    (INSIDE, grant("Proj_Shop"), "Proj_Shop"),
    (INSIDE, grant(None, kind="database"), "the database"),
    (INSIDE, grant("proj_shop", "proj_other_anon"), "proj_other_anon is no role of the tenant proj_shop"),
    (INSIDE, grant("proj_shop", "proj_shop_eu_anon"), "proj_shop_eu_anon"),
    (INSIDE, grant("proj_shop_eu", "proj_shop_anon"), "proj_shop_anon"),
    (INSIDE, grant("proj_shop", "anon"), "anon is no role of the tenant"),
    (INSIDE, grant("proj_shop", "authenticated"), "authenticated"),
    (INSIDE, grant("proj_shop", "postgres"), "postgres"),
    (INSIDE, grant("proj_shop", "proj_shop_reporting"), "proj_shop_reporting"),
    (INSIDE, grant(withGrantOption=True), "could pass the grant on"),
    (INSIDE, grant(withGrantOption=UNKNOWN), "could pass the grant on"),
    (INSIDE, defaults("postgres"), "postgres is no tenant's owner"),
    (INSIDE, defaults("proj_shop_service_role"), "proj_shop_service_role is no tenant's owner"),
    (INSIDE, defaults(schema="public"), "public"),
    (INSIDE, defaults(to="proj_other_anon"), "proj_other_anon"),
    (INSIDE, defaults(to="anon"), "anon"),
    (INSIDE, defaults(withGrantOption=True), "could pass its privileges on"),
    (INSIDE, membership("proj_other_owner", "proj_shop_owner"), "proj_other_owner becomes a member"),
    (INSIDE, membership("anon", "proj_shop_anon"), "anon becomes a member"),
    (INSIDE, membership("proj_shop_owner", "postgres"), "postgres, which is no tenant's role"),
    (INSIDE, membership("proj_shop_owner", "pg_read_all_data"), "pg_read_all_data"),
    (INSIDE, membership("authenticator", "supabase_admin"), "supabase_admin"),
    (INSIDE, membership("authenticator", "proj_shop_anon", withAdminOption=True), "could give proj_shop_anon"),
    (INSIDE, membership("proj_other_authenticator", "proj_shop_anon"), "only TenantApiAccess"),
    (INSIDE, membership("cell_one_authenticator", "proj_shop_anon"), "only TenantApiAccess"),
    (INSIDE, membership("cell_one_authenticator", "service_role"), "service_role, which is no tenant's role"),
    (INSIDE, grant("proj_shop", "authenticator"), "authenticator is no role of the tenant"),
    (INSIDE, grant("proj_shop", "proj_other_authenticator"), "proj_other_authenticator is no role of the tenant"),
    (INSIDE, served_by("proj_other_authenticator"), "proj_other_authenticator becomes a member"),
    (INSIDE, served_by("authenticator"), "authenticator becomes a member"),
    (INSIDE, served_by("cell_authenticator"), "cell_authenticator becomes a member"),
    (INSIDE, served_by("supabase_storage_admin"), "supabase_storage_admin becomes a member"),
    (INSIDE, role(roles=["data_plane_tenant", "pg_execute_server_program"]), "pg_execute_server_program"),
    (INSIDE, role("proj_shop_anon", roles=["authenticated"]), "authenticated"),
    (INSIDE, role("proj_shop_service_role", roles=["service_role"]), "service_role"),
    (INSIDE, role("proj_shop_owner", roles=["proj_other_owner"]), "proj_other_owner"),
    (INSIDE, role("reporting", roles=["proj_shop_owner"]), "the tenant's role proj_shop_owner"),
    # Everybody.
    (PUBLIC, grant(to="public"), "PUBLIC"),
    (PUBLIC, grant(to="PUBLIC"), "PUBLIC"),
    (PUBLIC, grant(to='"public"', kind="table", privileges=["SELECT"]), "PUBLIC"),
    (PUBLIC, grant(to="public", privileges=UNKNOWN), "PUBLIC"),
    (PUBLIC, defaults(to="public"), "PUBLIC"),
    (PUBLIC, membership("public", "proj_shop_anon"), "PUBLIC"),
    (PUBLIC, in_central(grant("auth", "public")), "PUBLIC"),
    # Roles.
    (LOGIN, role(login=True), "may log in"),
    (LOGIN, role(login=UNKNOWN), "may log in"),
    (LOGIN, role("proj_shop_anon", login="true"), "may log in"),
    (LOGIN, role("proj_shop_service_role", password="any"), "has a password"),
    (POWER, role(superuser=True), "SUPERUSER"),
    (POWER, role(createRole=True), "CREATEROLE"),
    (POWER, role(createDatabase=True), "CREATEDB"),
    (POWER, role(replication=True), "REPLICATION"),
    (POWER, role("reporting", superuser=UNKNOWN), "SUPERUSER"),
    (POWER, in_central(role("helper", superuser=True)), "SUPERUSER"),
    (BYPASS, role("proj_shop_owner", bypassRowLevelSecurity=True), "proj_shop_owner"),
    (BYPASS, role("proj_shop_authenticated", bypassRowLevelSecurity=True), "proj_shop_authenticated"),
    (BYPASS, role("service_role", bypassRowLevelSecurity=True), "service_role"),
    (BYPASS, role("proj_shop_anon", bypassRowLevelSecurity=UNKNOWN), "proj_shop_anon"),
    (OWNED, schema(owner=None), "its creator"),
    (OWNED, schema(owner="postgres"), "postgres"),
    (OWNED, schema(owner="proj_other_owner"), "proj_other_owner"),
    (OWNED, schema(owner="proj_shop_service_role"), "proj_shop_service_role"),
    (OWNED, schema(dropCascade=True), "dropped with all in it"),
    # Leases.
    (BOUNDED, lease(defaultTtl=None), "defaultTtl is not set"),
    (BOUNDED, lease(maxTtl=None), "maxTtl is not set"),
    (BOUNDED, lease(defaultTtl=0), "defaultTtl is not set"),
    (BOUNDED, lease(defaultTtl=172800, maxTtl=172800), "more than 86400 s"),
    (BOUNDED, lease(maxTtl=86401), "86401 s, more than 86400 s"),
    (BOUNDED, lease(defaultTtl=7200), "is less than defaultTtl (7200 s)"),
    (BOUNDED, lease(defaultTtl=UNKNOWN, maxTtl=0), "maxTtl is not set"),
    (REVOCABLE, lease(revocationStatements=[]), "no revocation statements"),
    (REVOCABLE, lease(revocationStatements=None), "no revocation statements"),
    (REVOCABLE, lease(revocationStatements=["", "  "]), "no revocation statements"),
    (REVOCABLE, lease(revocationStatements=["select 1"]), "names the lease's login"),
    (ONE, lease("reporting"), "reporting is no tenant's role and level"),
    (ONE, lease("proj_shop"), "proj_shop is no tenant's role and level"),
    (ONE, lease("proj_shop_admin"), "proj_shop_admin"),
    (ONE, lease(creationStatements=["select issue('{{name}}', 'proj_other_owner')"]), "name proj_other_owner"),
    (ONE, lease(renewStatements=['grant proj_other_anon to "{{name}}"']), "name proj_other_anon"),
    (ONE, lease(creationStatements=['create role "{{name}}" SUPERUSER login']), "more than a login"),
    (ONE, lease(creationStatements=['create role "{{name}}" login bypassrls']), "more than a login"),
    (ONE, token("proj_shop_anon", {"role": "proj_other_anon"}), "of another name"),
    (ONE, token("proj_shop_anon", {"role": "proj_shop_service_role"}), "of another name"),
    (ONE, token("proj_shop_owner", {"role": "proj_shop_owner"}), "no API role of a tenant"),
    (ONE, token("proj_shop_anon", {"role": "service_role"}), "no API role of a tenant"),
    (ONE, token("proj_shop_anon", {"sub": "someone"}), "(none)"),
    (ONE, token("proj_shop_anon", "{not json"), "is no JSON"),
    # OpenBao's policies and groups.
    (PATHS, allows("proj_shop_owner", "database/creds/*"), "not a path of its own"),
    (PATHS, allows("proj_shop_owner", "database/creds/proj_shop*"), "not a path of its own"),
    (PATHS, allows("proj_shop_owner", "database/creds/proj_other_owner"), "not a path of its own"),
    (PATHS, allows("proj_shop_anon", OWN_LEASE), "not a path of its own"),
    (PATHS, allows("proj_shop_owner", "connectors/data/supabase"), "not a path of its own"),
    (PATHS, allows("proj_shop_owner", "connectors/data/supabase/tenants"), "not a path of its own"),
    (PATHS, allows("proj_shop_anon", "connectors/data/supabase/*"), "not a path of its own"),
    (PATHS, allows("proj_shop_anon", "connectors/data/supabase/gateway"), "not a path of its own"),
    (PATHS, allows("proj_shop_owner", "identity/oidc/token/proj_shop_owner"), "not a path of its own"),
    (PATHS, allows("proj_shop_anon", "identity/oidc/token/proj_shop_storage"), "not a path of its own"),
    (PATHS, allows("proj_shop_owner", "sys/leases/revoke/database/creds/*", "update"), "not a path of its own"),
    (PATHS, allows("proj_shop_owner", "sys/leases/renew", "update"), "takes other leases than its own"),
    (PATHS, renews("proj_shop_owner", lease_id=["database/creds/*"], increment=[]), "takes other leases than its own"),
    (PATHS, renews("proj_shop_owner", lease_id=[f"{OWN_LEASE}*"], increment=[]), "takes other leases than its own"),
    (PATHS, renews("proj_shop_anon", lease_id=[f"{OWN_LEASE}/*"], increment=[]), "takes other leases than its own"),
    # `*` is for fields that the rule does not name, url_lease_id among them.
    (PATHS, renews("proj_shop_owner", lease_id=[f"{OWN_LEASE}/*"], **{"*": []}), "takes other leases than its own"),
    (PATHS, allows("proj_shop_owner", "auth/token/lookup", "update"), "not a path of its own"),
    (PATHS, allows("proj_shop_owner", OWN_LEASE, "read", "sudo"), "sudo"),
    (PATHS, policy("proj_shop_owner", f'path "{OWN_LEASE}" {{ policy = "sudo" }}'), "sudo"),
    (PATHS, policy("proj_shop_owner", json.dumps({"path": {OWN_LEASE: {"capabilities": ["sudo"]}}})), "sudo"),
    (PATHS, allows("helper", "sys/rotate", "update", "sudo"), "sudo"),
    (PATHS, allows("helper", "*"), "reaches over tenants"),
    (PATHS, allows("helper", "database/creds/*"), "reaches over tenants"),
    (PATHS, allows("helper", "database/+/proj_shop_owner"), "only the tenant's own policy may name it"),
    (PATHS, allows("helper", "+/creds/+"), "reaches over tenants"),
    (PATHS, allows("helper", "sys/leases/*"), "reaches over tenants"),
    (PATHS, allows("helper", "identity/oidc/token/*"), "reaches over tenants"),
    (PATHS, allows("helper", "sys/policies/acl/proj_*"), "reaches over tenants"),
    (PATHS, allows("helper", OWN_LEASE), "only the tenant's own policy may name it"),
    (PATHS, allows("helper", "database/creds/{{identity.entity.name}}"), "depends on who asks"),
    (PATHS, policy("helper", 'path "database/creds/x" { capabilities = ["read" '), "cannot be read"),
    (PATHS, policy("helper", "allow everything"), "cannot be read"),
    (PATHS, group("proj_shop_owner", "proj_shop_owner", "proj_other_owner"), "another group's"),
    (PATHS, group("builders", "proj_shop_owner"), "another group's"),
    (PATHS, group("proj_shop_owner", "proj_shop_owner", "operators"), "besides its own"),
    (PATHS, group("operators", "root"), "root"),
    # What the API serves.
    (EXPOSED, grant("auth", "authenticator"), "auth would be opened to the API"),
    (EXPOSED, grant("vault", "cell_one_authenticator"), "vault would be opened to the API"),
    (EXPOSED, grant("proj_shop", "authenticator"), "proj_shop would be opened to the API"),
    (EXPOSED, grant("proj_shop", "proj_shop_authenticator", kind="table"), "proj_shop would be opened to the API"),
    (EXPOSED, membership("authenticator", "proj_shop_anon"), "could become proj_shop_anon"),
    (EXPOSED, membership("cell_one_authenticator", "proj_shop_owner"), "could become proj_shop_owner"),
    (EXPOSED, membership("proj_shop_authenticator", "proj_shop_owner"), "could become proj_shop_owner"),
]  # fmt: skip

LET_THROUGH: list[tuple[str, Declared]] = [
    ("usage for a tenant's own role", grant()),
    ("a schema that begins like another's", grant("proj_shop_eu", "proj_shop_eu_anon")),
    ("a slug that ends like a level", grant("proj_anon", "proj_anon_anon")),
    ("a schema not known yet", grant(UNKNOWN)),
    ("a role not known yet", grant(to=UNKNOWN)),
    ("tables for a tenant's own role", grant(kind="table", privileges=["SELECT"])),
    ("PostgreSQL's default taken away", defaults(to="public", objectType="function", privileges=[])),
    ("PUBLIC with no privileges", grant(to="public", kind="function", privileges=[])),
    ("a role whose name only holds the word", grant("proj_public", "proj_public_anon")),
    ("defaults for a tenant's own role", defaults()),
    ("defaults by the old type", replace(defaults(), type="postgresql:index/defaultPrivileg:DefaultPrivileg")),
    ("an API of the tenant's own assumes its roles", served_by("proj_shop_authenticator")),
    ("its cell's API assumes its roles", served_by("cell_one_authenticator")),
    ("nobody assumes its roles", served_by(None)),
    ("memberships of the platform's own logins", membership("prometheus", "pg_monitor")),
    ("a tenant's owner", role(roles=["data_plane_tenant"], login=False)),
    ("a tenant's anon", role("proj_shop_anon", roles=["anon"], login=False)),
    ("a login of the platform's", role("prometheus", login=True, password="from OpenBao")),
    ("a service role that passes row-level security", role("proj_shop_service_role", bypassRowLevelSecurity=True)),
    ("attributes that are off", role(superuser=False, createRole=False, createDatabase=False, replication=False)),
    ("a central role that passes row-level security",
     in_central(role("supabase_storage_admin", bypassRowLevelSecurity=True))),
    ("central grants on central schemas", in_central(grant("auth", "supabase_auth_admin"))),
    ("a tenant's schema", schema()),
    ("an owner not known yet", schema(owner=UNKNOWN)),
    ("a schema of the platform's", schema("extensions", "supabase_admin")),
    ("a lease within its bounds", lease()),
    ("a lease as long as the bound", lease(defaultTtl=86400, maxTtl=86400)),
    ("a lease whose TTL is not known yet", lease(defaultTtl=UNKNOWN)),
    ("revocation statements not known yet", lease(revocationStatements=UNKNOWN)),
    ("one revocation statement not known yet", lease(revocationStatements=[UNKNOWN])),
    ("lease roles of other engines", lease("readers", backend="analytics-database")),
    ("a token of its own role", token("proj_shop_anon", {"role": "proj_shop_anon"})),
    ("a token for the tenant's bucket", token("proj_shop_storage", {"role": "proj_shop_service_role"})),
    ("a token role without claims of ours", Declared("vault:identity/oidcRole:OidcRole", {"name": "data_plane"})),
    ("its own lease path", allows("proj_shop_owner", OWN_LEASE)),
    ("giving back its own leases", allows("proj_shop_owner", f"sys/leases/revoke/{OWN_LEASE}/*", "update")),
    ("renewing its own leases", renews("proj_shop_owner", lease_id=[f"{OWN_LEASE}/*"], increment=[])),
    ("the token that asks", allows("proj_shop_owner", "auth/token/renew-self", "update")),
    ("its own token", allows("proj_shop_anon", "identity/oidc/token/proj_shop_anon")),
    ("the publishable key", allows("proj_shop_anon", "connectors/data/supabase/tenants")),
    ("the tenant's bucket", allows("proj_shop_service_role", "identity/oidc/token/proj_shop_storage")),
    ("a service's own secret", allows("supabase-auth", "connectors/data/supabase/auth")),
    ("a wildcard away from tenants", allows("ci", "secret/data/ci/*")),
    ("deny rules", policy("ci", 'path "secret/data/ci" { capabilities = ["deny"] }')),
    ("a policy not known yet", policy("ci", UNKNOWN)),
    ("a tenant's group", group("proj_shop_owner", "proj_shop_owner")),
    ("a detached tenant's group", group("proj_shop_owner")),
    ("a team's group", group("builders", "ci")),
    ("a group whose policy is not known yet", group("proj_shop_owner", UNKNOWN)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "resource", "expected"), VIOLATIONS, ids=range(len(VIOLATIONS)))
def test_what_leaves_the_walls_is_refused(cell_pack: PolicyPack, central_pack: PolicyPack, name: str,
                                          resource: Declared, expected: str) -> None:  # fmt: skip
    pack = central_pack if resource.stack == CENTRAL_STACK else cell_pack
    found = [violation for violation in checked_resource(pack, resource) if violation.mandatory]
    assert name in told(found), f"refused by {sorted(told(found))} only"
    assert any(expected in message for message in told(found)[name]), told(found)[name]


@pytest.mark.parametrize(("why", "resource"), LET_THROUGH, ids=[why for why, _ in LET_THROUGH])
def test_what_stays_inside_is_let_through(cell_pack: PolicyPack, central_pack: PolicyPack, why: str,
                                          resource: Declared) -> None:  # fmt: skip
    pack = central_pack if resource.stack == CENTRAL_STACK else cell_pack
    assert not {name: text for name, text in told(checked_resource(pack, resource)).items() if name in GROUP}


def test_every_policy_has_a_case_that_it_refuses() -> None:
    assert {name for name, _, _ in VIOLATIONS} | {WHOLE} == GROUP


@pytest.mark.parametrize("parents", [[], [CELL, TENANT], [CENTRAL]])
def test_calling_oneself_central_moves_no_wall(cell_pack: PolicyPack, parents: list[str]) -> None:
    found = checked_resource(cell_pack, replace(grant("auth"), parents=parents))
    assert INSIDE in told(found)


# The whole tenant


def findings(pack: PolicyPack, resources: list[Declared]) -> list[str]:
    return told(checked_stack(pack, resources)).get(WHOLE, [])


def test_the_programs_own_tenants_pass(cell_pack: PolicyPack) -> None:
    refused = [violation for item in cell_program() for violation in checked_resource(cell_pack, item)]
    assert not refused
    assert not checked_stack(cell_pack, cell_program())


def test_a_detached_tenant_is_whole_too(cell_pack: PolicyPack) -> None:
    detached = with_urns(a_cell(project(lifecycle="detached")), "prod-cell-1")
    assert not [violation for item in detached for violation in checked_resource(cell_pack, item)]
    assert not checked_stack(cell_pack, detached)


NEEDED = {
    "postgresql:index/schema:Schema",
    "postgresql:index/role:Role",
    "postgresql:index/grant:Grant",
    "postgresql:index/defaultPrivileges:DefaultPrivileges",
    "vault:database/secretBackendRole:SecretBackendRole",
    "vault:identity/oidcRole:OidcRole",
    "vault:index/policy:Policy",
    "vault:identity/group:Group",
    "pulumi-python:dynamic/tenant:LeaseRevocation",
    "pulumi-python:dynamic/tenant:TenantApiAccess",
    "pulumi-python:dynamic/tenant:TenantSchemas",
}
OPTIONAL = {"proj_my_app_storage"}
PARTS = [item for item in cell_program() if item.type in NEEDED and item.properties.get("name") not in OPTIONAL]


@pytest.mark.parametrize("dropped", PARTS, ids=[f"{item.type.rpartition(':')[2]} {item.name}" for item in PARTS])
def test_a_tenant_that_lacks_one_part_is_refused(cell_pack: PolicyPack, dropped: Declared) -> None:
    left = [item for item in cell_program() if item.urn != dropped.urn]
    (message,) = findings(cell_pack, left)
    assert "lacks: " in message
    assert ("proj_shop" if "shop" in dropped.name else "proj_my_app") in message


def test_a_component_without_anything_in_it_is_no_tenant(cell_pack: PolicyPack) -> None:
    (message,) = findings(cell_pack, [Declared(TENANT, {}, name="shop", parents=[CELL])])
    assert "proj_shop lacks: schema proj_shop; role proj_shop_owner" in message


def test_a_schema_beside_the_component_is_no_tenant(cell_pack: PolicyPack) -> None:
    messages = findings(cell_pack, [*cell_program(), schema("proj_side", "proj_side_owner")])
    assert any("proj_side is no part of a ProjectTenant" in message for message in messages)
    assert any("proj_side lacks" in message for message in messages)


def test_a_part_of_another_tenant_does_not_make_one_whole(cell_pack: PolicyPack) -> None:
    other = [item for item in cell_program() if item.properties.get("name") != "proj_my_app_owner"]
    (message,) = findings(cell_pack, [*other, role("proj_shop_eu_owner")])
    assert "role proj_my_app_owner" in message


def test_names_not_known_yet_are_not_taken_for_missing(cell_pack: PolicyPack) -> None:
    named = next(item for item in cell_program() if item.type == "postgresql:index/role:Role")
    unknown = replace(named, properties={**named.properties, "name": UNKNOWN})
    assert not findings(cell_pack, [unknown if item.urn == named.urn else item for item in cell_program()])


# Reading OpenBao's policies


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("", []),
        ('path "a/b" { capabilities = ["read"] }', [("a/b", {"read"})]),
        ('path "a" {\n  capabilities = ["read", "list",]\n}', [("a", {"read", "list"})]),
        ('path "a" { capabilities = [] } path "b" { policy = "write" }', [("a", set()), ("b", {"write"})]),
        ('# said # before\npath "a#b" { // here\n capabilities = ["read"] /* and\n here */ }', [("a#b", {"read"})]),
        (
            'path "a" { capabilities = ["create"] required_parameters = ["x"] allowed_parameters = { "x" = ["1"], "*" = [] } }',
            [("a", {"create"})],
        ),
        ('path "a" { capabilities = ["read"] control_group = { factor "f" { n = 1 } } }', None),
        ('path "a" { min_wrapping_ttl = "1s" max_wrapping_ttl = 90 }', [("a", set())]),
        ('{"path": {"a": {"capabilities": ["read"]}, "b": {"policy": "sudo"}}}', [("a", {"read"}), ("b", {"sudo"})]),
        ('{"path": [{"a": {"capabilities": ["read"]}}, {"a": {"capabilities": ["sudo"]}}]}',
         [("a", {"read"}), ("a", {"sudo"})]),
        ('path "a" { capabilities = ["read"] capabilities = ["sudo"] }', None),
        ('path "a" { capabilities = "read" }', None),
        ('path "a" { capabilities = [read] }', [("a", {"read"})]),
        ("path a { }", None),
        ('path "a" {', None),
        ('path "a" { capabilities = ["read"', None),
        ('name = "x"', None),
        ("path \"a\" { capabilities = ['sudo'] }", None),
        ("{", None),
        ('{"path": 3}', None),
        ('{"path": {"a": {"capabilities": "sudo"}}}', None),
        ("[]", None),
    ],
)  # fmt: skip
def test_a_policy_is_read_or_refused(text: str, rules: list[tuple[str, set[str]]] | None) -> None:
    if rules is None:
        with pytest.raises(UnreadablePolicyError):
            read_policy(text)
    else:
        assert read_policy(text) == [PathRule(path, frozenset(capabilities)) for path, capabilities in rules]
