"""The graph that the components declare: names, parents, order, options, outputs."""

import json
import re
from collections.abc import Callable
from typing import Any

import pulumi
import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct

from components.central.central import SupabaseCentral, SupabaseCentralArgs
from components.platform import WorkloadAuthMethod
from components.tenant.access import policy_document
from data_plane.model.naming import API_LEVELS, AccessLevel, TenantNames
from data_plane.model.settings import AuthMethodSettings, WorkloadAuthSettings
from tests.support.declared import Declared, Program, declare
from tests.support.small_programs import ENDPOINT, a_cell, a_central, project

ROLE = "postgresql:index/role:Role"
SCHEMA = "postgresql:index/schema:Schema"
GRANT = "postgresql:index/grant:Grant"
GROUP = "vault:identity/group:Group"
LEASE_ROLE = "vault:database/secretBackendRole:SecretBackendRole"


@pytest.fixture(scope="module")
def cell() -> Program:
    return a_cell(project())


@pytest.fixture(scope="module")
def central() -> Program:
    return a_central(existing_password=None)


def open_part(struct: Struct) -> dict[str, Any]:
    """The part of a property bag that is not marked secret."""
    signature = pulumi.runtime.rpc._special_sig_key

    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            return "secret" if signature in value else {key: strip(item) for key, item in value.items()}
        return [strip(item) for item in value] if isinstance(value, list) else value

    return {key: strip(value) for key, value in MessageToDict(struct).items()}


def parent_name(item: Declared) -> str:
    return item.request.parent.split("::")[-1]


def test_a_tenants_roles_are_as_least_privilege_wants_them(cell: Program) -> None:
    roles = {item.inputs["name"]: item.inputs for item in cell.all(ROLE)}
    assert sorted(roles) == sorted(f"proj_my_app_{level}" for level in AccessLevel)
    for name, inputs in roles.items():
        assert inputs["login"] is False
        assert not {"superuser", "createRole", "createDatabase", "replication", "password"} & set(inputs)
        assert inputs["bypassRowLevelSecurity"] is (name == "proj_my_app_service_role")
        assert (inputs["connectionLimit"], inputs["statementTimeout"]) == (4, 5000)
        assert inputs["searchPaths"] == ["proj_my_app", "extensions"]
    assert roles["proj_my_app_anon"]["roles"] == ["anon"]
    assert roles["proj_my_app_authenticated"]["roles"] == ["authenticated"]
    assert roles["proj_my_app_service_role"]["roles"] == ["data_plane_tenant"]


@pytest.mark.parametrize("type_", [ROLE, SCHEMA])
def test_what_holds_data_is_protected_and_outlives_the_stack(cell: Program, type_: str) -> None:
    assert cell.all(type_)
    assert all(item.request.protect and item.request.retainOnDelete for item in cell.all(type_))


def test_the_schema_belongs_to_the_owner_and_is_never_dropped_with_its_objects(cell: Program) -> None:
    inputs = cell.only(SCHEMA, "my-app-schema").inputs
    assert (inputs["name"], inputs["owner"], inputs["dropCascade"]) == ("proj_my_app", "proj_my_app_owner", False)


def test_usage_is_granted_to_the_tenants_roles_alone(cell: Program) -> None:
    granted = {item.inputs["role"]: item.inputs["privileges"] for item in cell.all(GRANT)}
    names = TenantNames("my-app")
    assert granted == {names.role(level): ["USAGE"] for level in API_LEVELS}


def test_grants_on_one_schema_wait_for_each_other(cell: Program) -> None:
    """Two at once would update one row of pg_namespace, and PostgreSQL refuses the second."""
    grants = {item.urn: item for item in cell.all(GRANT)}
    waited_for = {urn: {d for d in item.request.dependencies if d in grants} for urn, item in grants.items()}
    order: list[str] = []
    while len(order) < len(grants):
        ready = [urn for urn, needs in waited_for.items() if urn not in order and needs <= set(order)]
        assert len(ready) == 1, "two grants could run at once"
        order += ready


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"anon": 1, "authenticated": 1, "service_role": 1, "api": "cell_cell_1_authenticator"}),
        ({"api": "dedicated"}, {"anon": 1, "authenticated": 1, "service_role": 1, "api": "proj_my_app_authenticator"}),
        ({"exposed": False}, {"anon": 1, "authenticated": 1, "service_role": 1, "api": None}),
        ({"lifecycle": "detached"}, {"anon": 0, "authenticated": 0, "service_role": 0, "api": None}),
    ],
)
def test_exposure_and_lifecycle_are_privileges_not_missing_resources(
    changes: dict[str, Any], expected: dict[str, Any]
) -> None:
    cell = a_cell(project(**changes))
    granted = {
        item.inputs["role"].removeprefix("proj_my_app_"): len(item.inputs["privileges"]) for item in cell.all(GRANT)
    }
    (access,) = cell.all("pulumi-python:dynamic/tenant:TenantApiAccess")
    assert {**granted, "api": access.inputs.get("login")} == expected


def test_a_detached_tenant_keeps_every_resource_and_loses_every_access() -> None:
    attached, detached = a_cell(project()), a_cell(project(lifecycle="detached"))
    kept = {(item.type, item.name) for item in detached.resources}
    assert kept == {(item.type, item.name) for item in attached.resources}
    for group in detached.all(GROUP):
        assert not group.inputs["policies"]
        assert not group.inputs["memberEntityIds"]
        assert not group.inputs["memberGroupIds"]
    (revocation,) = detached.all("pulumi-python:dynamic/tenant:LeaseRevocation")
    assert revocation.inputs["attached"] is False


def test_leases_are_revoked_after_nobody_can_take_another(cell: Program) -> None:
    (revocation,) = cell.all("pulumi-python:dynamic/tenant:LeaseRevocation")
    groups = {item.urn for item in cell.all(GROUP)}
    assert groups <= set(revocation.request.dependencies)


def test_the_revocation_knows_who_holds_a_level(cell: Program) -> None:
    (revocation,) = cell.all("pulumi-python:dynamic/tenant:LeaseRevocation")
    held = {
        f"{level}/{kind}/{identifier}"
        for item in cell.all(GROUP)
        for level in AccessLevel
        if item.inputs["metadata"]["level"] == level
        for kind, key in (("entity", "memberEntityIds"), ("group", "memberGroupIds"))
        for identifier in item.inputs[key] or ()
    }
    assert held
    assert revocation.inputs["holders"] == sorted(held)


def test_lease_roles_carry_the_projects_limits_and_all_statements(cell: Program) -> None:
    roles = cell.all(LEASE_ROLE)
    assert len(roles) == len(AccessLevel)
    for item in roles:
        assert (item.inputs["defaultTtl"], item.inputs["maxTtl"]) == (600, 3600)
        (creation,) = item.inputs["creationStatements"]
        filled_in = "'{{name}}', '{{password}}', '{{expiration}}'"
        assert creation == f"select data_plane.issue_lease({filled_in}, '{item.inputs['name']}', 5000, '600 s')"
        assert all("{{name}}" in item.inputs[f"{kind}Statements"][0] for kind in ("creation", "renew", "revocation"))
        assert item.inputs["rollbackStatements"] == item.inputs["revocationStatements"]


def test_tokens_carry_the_tenants_role_and_the_owner_has_none(cell: Program) -> None:
    roles = {item.inputs["name"]: item.inputs for item in cell.all("vault:identity/oidcRole:OidcRole")}
    administers = roles.pop("proj_my_app_storage")
    assert json.loads(administers["template"]) == {
        "role": "proj_my_app_authenticated",
        "project": "my-app",
        "storage_admin": True,
        "api_server": "cell_cell_1",
    }
    assert (administers["clientId"], administers["ttl"]) == ("proj_my_app", 900)
    assert sorted(roles) == sorted(f"proj_my_app_{level}" for level in API_LEVELS)
    for name, inputs in roles.items():
        assert json.loads(inputs["template"]) == {"role": name, "project": "my-app", "api_server": "cell_cell_1"}
        assert (inputs["clientId"], inputs["ttl"]) == ("proj_my_app", 900)


@pytest.mark.parametrize(
    ("changes", "server"),
    [({"api": "dedicated"}, "proj_my_app"), ({"exposed": False}, None), ({"cell": "cell-2"}, "cell_cell_2")],
)
def test_tokens_name_the_api_server_that_serves_the_tenant(changes: dict[str, Any], server: str | None) -> None:
    for item in a_cell(project(**changes)).all("vault:identity/oidcRole:OidcRole"):
        assert json.loads(item.inputs["template"]).get("api_server") == server


def test_groups_follow_the_role_map(cell: Program) -> None:
    def members(level: str) -> tuple[list[str], list[str]]:
        inputs = cell.only(GROUP, f"my-app-access-group-{level}").inputs
        return inputs["memberEntityIds"], inputs["memberGroupIds"]

    assert members("owner") == (["id-of-olga"], [])
    assert members("service-role") == (["id-of-olga", "id-of-sam"], [])
    assert members("authenticated") == (["id-of-cora", "id-of-olga", "id-of-sam"], ["id-of-team-builders"])
    assert members("anon") == (["id-of-cora", "id-of-olga", "id-of-sam", "id-of-vera"], ["id-of-team-builders"])


def test_a_policy_names_its_own_paths_and_no_pattern_over_tenants() -> None:
    for level in AccessLevel:
        document = policy_document(TenantNames("ab"), level)
        paths = re.findall(r'^path "([^"]+)"', document, re.MULTILINE)
        shared = [path for path in paths if "proj_" not in path]
        own = [f"auth/token/{action}-self" for action in ("lookup", "renew", "revoke")]
        published = [] if level is AccessLevel.OWNER else ["connectors/data/supabase/tenants"]
        assert shared == [*published, *own, "sys/leases/renew"]
        assert (
            f'allowed_parameters = {{ "lease_id" = ["database/creds/proj_ab_{level.value}/*"], "increment" = [] }}'
            in document
        )
        assert set(shared) < set(paths)
        for path in set(paths) - set(shared):
            assert f"/proj_ab_{level.value}" in path
            assert "+" not in path
            assert "*" not in path.removesuffix("/*")


def test_only_the_service_roles_policy_gives_a_token_for_the_bucket() -> None:
    path = "identity/oidc/token/proj_ab_storage"
    for level in AccessLevel:
        given = policy_document(TenantNames("ab"), level, storage=True)
        assert (path in given) is (level is AccessLevel.SERVICE_ROLE)
        assert path not in policy_document(TenantNames("ab"), level)


SIGN_IN = "pulumi-python:dynamic/tenant:TenantSignIn"
BUCKET = "pulumi-python:dynamic/tenant:TenantBucket"


def test_a_project_declares_what_its_managed_services_need() -> None:
    plain = a_cell(project(managed_services=["postgres"]))
    assert not [*plain.all(SIGN_IN), *plain.all(BUCKET)]
    assert not [item for item in plain.all("vault:identity/oidcRole:OidcRole") if "storage" in item.name]
    assert "storage" not in plain.result["my-app"]

    settings = {"public": True, "file_size_limit": "2MiB", "allowed_mime_types": ["image/*"]}
    services = ["postgres", "auth", "storage"]
    full = a_cell(project(managed_services=services, sign_up="open", storage=settings))
    (sign_in,), (bucket,) = full.all(SIGN_IN), full.all(BUCKET)
    assert (sign_in.inputs["tenant"], sign_in.inputs["sign_up"]) == ("proj_my_app", "open")
    assert bucket.inputs["tenant"] == "proj_my_app"
    assert (bucket.inputs["public"], bucket.inputs["file_size_limit"]) == (True, 2 << 20)
    assert bucket.inputs["allowed_mime_types"] == ["image/*"]
    assert full.result["my-app"]["storage"]["bucket"] == "proj_my_app"
    assert "buckets" not in full.result["my-app"]["storage"]


def test_each_bucket_of_a_project_is_declared_by_its_name() -> None:
    further = {"receipts": {"file_size_limit": "1MiB"}, "avatars": {"public": True}}
    full = a_cell(project(storage={"public": False, "buckets": further}))
    found = {item.inputs["bucket"]: (item.name, item.inputs["public"]) for item in full.all(BUCKET)}
    assert found == {
        "": ("my-app-bucket", False),
        "receipts": ("my-app-bucket-receipts", False),
        "avatars": ("my-app-bucket-avatars", True),
    }
    assert full.result["my-app"]["storage"]["buckets"] == {
        "receipts": "proj_my_app.receipts",
        "avatars": "proj_my_app.avatars",
    }
    detached = a_cell(project(storage={"buckets": further}, lifecycle="detached"))
    assert {item.inputs["public"] for item in detached.all(BUCKET)} == {False}


def test_a_project_declares_its_further_schemas_and_who_is_served_them_comes_after() -> None:
    cell = a_cell(project(schemas={"private": {}, "api": {"exposed": True}}))
    (schemas,) = cell.all("pulumi-python:dynamic/tenant:TenantSchemas")
    assert (schemas.inputs["declared"], schemas.inputs["exposed"]) == (["api", "private"], ["api"])
    assert schemas.inputs["attached"] is True
    (access,) = cell.all("pulumi-python:dynamic/tenant:TenantApiAccess")
    assert schemas.urn in access.request.dependencies
    for item in cell.all("vault:identity/oidcRole:OidcRole"):
        assert json.loads(item.inputs["template"])["schemas"] == "api"
    assert cell.result["my-app"]["schemas"] == {
        "private": {"schema": "proj_my_app$private", "exposed": False},
        "api": {"schema": "proj_my_app$api", "exposed": True},
    }
    (detached,) = a_cell(project(lifecycle="detached")).all("pulumi-python:dynamic/tenant:TenantSchemas")
    assert detached.inputs["attached"] is False


def test_a_detached_projects_bucket_is_public_to_nobody() -> None:
    detached = a_cell(project(storage={"public": True}, lifecycle="detached"))
    assert detached.all(BUCKET)[0].inputs["public"] is False


REALTIME = "pulumi-python:dynamic/tenant:TenantRealtime"


def test_a_projects_realtime_is_what_its_file_says() -> None:
    assert not a_cell(project()).all(REALTIME)
    services = ["postgres", "realtime"]
    program = a_cell(project(managed_services=services, realtime={"public": True, "max_events_per_second": 7}))
    (found,) = program.all(REALTIME)
    assert (found.inputs["tenant"], found.inputs["public"], found.inputs["attached"]) == ("proj_my_app", True, True)
    assert (found.inputs["max_events_per_second"], found.inputs["topics"]) == (7, "users")
    realtime = program.result["my-app"]["realtime"]
    assert (realtime["url"].rpartition("/realtime")[2], realtime["project"], realtime["private"]) == (
        "/v1",
        "my-app",
        True,
    )
    detached = a_cell(project(managed_services=services, lifecycle="detached"))
    assert detached.all(REALTIME)[0].inputs["attached"] is False


def test_keys_are_announced_before_they_are_published(central: Program) -> None:
    (announced,) = central.all("vault:identity/oidcRole:OidcRole")
    assert announced.inputs["key"] == "supabase"
    assert "role" not in str(announced.inputs.get("template"))
    (published,) = central.all("pulumi-python:dynamic/central:VerifyingKeys")
    assert announced.urn in published.request.dependencies
    (platform,) = central.all("pulumi-python:dynamic/central:PlatformSql")
    assert platform.urn in published.request.dependencies


def test_people_and_teams_are_written_once_and_stay(cell: Program) -> None:
    both = a_cell(project(), project(slug="other"))
    endpoints = "vault:generic/endpoint:Endpoint"
    assert [item.name for item in both.all(endpoints)] == [item.name for item in cell.all(endpoints)]
    assert all(item.inputs["disableDelete"] and item.inputs["disableRead"] for item in both.all(endpoints))


def test_every_resource_is_below_its_component_with_an_explicit_provider(cell: Program, central: Program) -> None:
    for program in (cell, central):
        for item in program.resources:
            if item.type in {"pulumi:pulumi:Stack", "supabase-data-plane:cell:Cell"}:
                continue
            if item.type == "supabase-data-plane:central:SupabaseCentral":
                continue
            assert "supabase-data-plane:" in item.request.parent, item.name
            if item.type.startswith(("postgresql:", "vault:")):
                assert item.request.provider, item.name
            if program is cell and item.type.startswith("pulumi-python:"):
                assert "cell-1-dynamic" in item.request.provider, item.name
    assert parent_name(cell.only(SCHEMA, "my-app-schema")) == "my-app-schema"
    assert parent_name(cell.only(LEASE_ROLE, "my-app-leases-lease-anon")) == "my-app-leases"


def test_a_binding_has_everything_a_consumer_needs_and_no_secret() -> None:
    binding = a_cell(project()).result["my-app"]
    assert binding["schema"] == "proj_my_app"
    assert binding["apiUrl"] == "https://api.internal/rest/v1"
    assert binding["requiredManagedServices"] == ["postgres", "storage"]
    assert binding["leasePaths"]["owner"] == "database/creds/proj_my_app_owner"
    assert binding["tokenPaths"]["anon"] == "identity/oidc/token/proj_my_app_anon"
    assert binding["openbaoAddress"] == "https://bao.internal"
    assert "from-openbao" not in json.dumps(binding)


def test_the_database_password_reaches_providers_as_a_secret_only(cell: Program, central: Program) -> None:
    for program in (cell, central):
        holders = [item for item in program.resources if "from-openbao" in str(item.inputs)]
        assert holders
        for item in holders:
            assert "from-openbao" not in str(open_part(item.request.object)), item.name


def test_secrets_are_generated_for_every_key_and_adopted_only_where_given() -> None:
    kinds = "pulumi-python:dynamic/central:ConnectorSecrets"
    for password, adopted in ((None, []), (pulumi.Output.secret, ["POSTGRES_PASSWORD"])):
        given: Callable[[], Any] = (lambda: None) if password is None else (lambda: "already-there")
        secrets = a_central(existing_password=given()).only(kinds, "supabase-secrets")
        assert sorted(secrets.inputs["kinds"]) == [
            "JWT_SECRET",
            "PG_META_CRYPTO_KEY",
            "POSTGRES_PASSWORD",
            "S3_PROTOCOL_ACCESS_KEY_ID",
            "S3_PROTOCOL_ACCESS_KEY_SECRET",
            "SECRET_KEY_BASE",
            "SUPABASE_PUBLISHABLE_KEY",
            "SUPABASE_SECRET_KEY",
            "VAULT_ENC_KEY",
        ]
        assert sorted(secrets.inputs["adopted"]) == adopted
        assert secrets.request.protect


def test_the_signing_key_outlives_the_tokens_it_signed(central: Program) -> None:
    (key,) = central.all("vault:identity/oidcKey:OidcKey")
    assert key.inputs["algorithm"] == "ES256"
    assert key.inputs["verificationTtl"] > 900


def test_leases_are_hashed_before_postgresql_sees_them(central: Program) -> None:
    (connection,) = central.all("vault:database/secretBackendConnection:SecretBackendConnection")
    postgresql = connection.inputs["postgresql"]
    assert postgresql["passwordAuthentication"] == "scram-sha-256"
    assert "{{password}}" in postgresql["connectionUrl"]
    assert "postgresql.password" in connection.request.ignoreChanges


def test_the_sign_in_method_is_looked_up_unless_it_is_managed() -> None:
    assert a_central().result[0] == "auth_found_1"
    managed = AuthMethodSettings(path="userpass", type="userpass", managed=True)
    program = a_central(login=managed)
    assert program.result[0] == "auth_login_1"
    assert [item.inputs["path"] for item in program.all("vault:index/authBackend:AuthBackend")] == ["userpass"]


# Workloads


KUBERNETES_ROLE = "vault:kubernetes/authBackendRole:AuthBackendRole"
APPROLE = "vault:appRole/authBackendRole:AuthBackendRole"
ENDPOINTS = "vault:generic/endpoint:Endpoint"
WORKLOADS = {
    "api": {"level": "service_role", "kubernetes": {"namespace": "shop", "service_account": "api.v2"}},
    "ci": {"level": "owner", "approle": {"secret_id_ttl": "1h", "bound_cidrs": ["10.0.0.0/8", "fd00::1/128"]}},
}


@pytest.fixture(scope="module")
def with_workloads() -> Program:
    return a_cell(project(workloads=WORKLOADS))


def test_a_tenants_guard_depends_on_everything_else_of_it(with_workloads: Program) -> None:
    """What it does not depend on is deleted before the engine asks the guard."""
    by_urn = {item.urn: item for item in with_workloads.resources}
    guard = with_workloads.only("supabase-data-plane:removal:RemovalGuard", "my-app-removal-guard")
    assert guard.request.protect
    reached, following = set(), [guard.urn]
    while following:
        item = by_urn[following.pop()]
        reached.add(item.urn)
        further = {*item.request.dependencies, item.request.parent, item.request.provider.rpartition("::")[0]}
        following += [urn for urn in further if urn in by_urn and urn not in reached]
    (drift,) = [item for item in with_workloads.resources if item.name == "cell-1-privilege-drift"]
    assert set(by_urn) - reached == {drift.urn}
    assert drift.request.protect
    assert set(drift.request.dependencies) >= set(guard.request.dependencies)


def test_a_tenant_from_another_cell_is_known_where_the_engine_puts_it(cell: Program) -> None:
    aliases = cell.only("supabase-data-plane:tenant:ProjectTenant", "my-app").request.aliases
    assert [alias.spec.noParent for alias in aliases] == [True]


def test_an_empty_cell_can_be_destroyed() -> None:
    (drift,) = [item for item in a_cell().resources if item.name == "cell-1-privilege-drift"]
    assert not drift.request.protect


def test_a_service_account_signs_in_by_its_exact_name_with_no_policy_of_its_own(with_workloads: Program) -> None:
    (role,) = with_workloads.all(KUBERNETES_ROLE)
    assert role.inputs == {
        "backend": "k8s",
        "roleName": "proj_my_app-api",
        "boundServiceAccountNames": ["api.v2"],
        "boundServiceAccountNamespaces": ["shop"],
        "audience": "openbao",
        "aliasNameSource": "serviceaccount_name",
        "tokenTtl": 3600,
        "tokenMaxTtl": 3600,
        "tokenNoDefaultPolicy": True,
    }
    alias = with_workloads.only(ENDPOINTS, "my-app-workloads-api-alias")
    assert alias.urn in role.request.dependencies, "it could sign in before it is known who it is"
    assert json.loads(alias.inputs["dataJson"]) == {
        "name": "shop/api.v2",
        "mount_accessor": "auth_kubernetes_1",
        "canonical_id": "id-of-_workload.kubernetes.shop.api.v2",
    }


def test_an_approle_signs_in_with_a_secret_id_that_ends_and_a_role_id_of_openbaos(with_workloads: Program) -> None:
    (role,) = with_workloads.all(APPROLE)
    assert role.inputs == {
        "backend": "approle",
        "roleName": "proj_my_app-ci",
        "bindSecretId": True,
        "secretIdTtl": 3600,
        "secretIdBoundCidrs": ["10.0.0.0/8", "fd00::1/128"],
        # As OpenBao gives them back.
        "tokenBoundCidrs": ["10.0.0.0/8", "fd00::1"],
        "tokenTtl": 3600,
        "tokenMaxTtl": 3600,
        "tokenNoDefaultPolicy": True,
    }
    alias = with_workloads.only(ENDPOINTS, "my-app-workloads-ci-alias")
    assert json.loads(alias.inputs["dataJson"])["name"] == "role-id-of-my-app-workloads-ci"


def test_a_workload_is_in_the_group_of_its_level_alone(with_workloads: Program) -> None:
    members = {item.inputs["name"]: item.inputs["memberEntityIds"] for item in with_workloads.all(GROUP)}
    found = {
        level: [identity for identity in members[f"proj_my_app_{level}"] if "_workload" in identity]
        for level in AccessLevel
    }
    assert found == {
        AccessLevel.OWNER: ["id-of-_workload.approle.role-id-of-my-app-workloads-ci"],
        AccessLevel.SERVICE_ROLE: ["id-of-_workload.kubernetes.shop.api.v2"],
        AccessLevel.AUTHENTICATED: [],
        AccessLevel.ANON: [],
    }


def test_a_detached_tenants_workloads_are_in_no_group() -> None:
    detached = a_cell(project(workloads=WORKLOADS, lifecycle="detached"))
    assert len(detached.all(KUBERNETES_ROLE)) == len(detached.all(APPROLE)) == 1
    assert not any(item.inputs["memberEntityIds"] for item in detached.all(GROUP))


def test_a_tenant_without_workloads_declares_nothing_for_them(cell: Program) -> None:
    assert not [item for item in cell.resources if "workload" in item.name or "TenantWorkloads" in item.type]


def test_a_binding_says_how_workloads_sign_in_and_where_the_pooler_is(with_workloads: Program) -> None:
    binding = with_workloads.result["my-app"]
    assert binding["workloads"] == {
        "api": {
            "level": "service_role",
            "method": "kubernetes",
            "mount": "k8s",
            "role": "proj_my_app-api",
            "namespace": "shop",
            "serviceAccount": "api.v2",
            "audience": "openbao",
        },
        "ci": {
            "level": "owner",
            "method": "approle",
            "mount": "approle",
            "role": "proj_my_app-ci",
            "secretIdTtlSeconds": 3600,
        },
    }
    assert binding["leaseTtlSeconds"] == 600
    assert binding["pooler"] == {
        "host": "pooler.internal",
        "sessionPort": 5432,
        "transactionPort": 6543,
        "tenant": "supabase",
        "sslmode": "disable",
    }


def a_central_with(**login: Any) -> Program:
    def program() -> pulumi.Output[Any]:
        args = SupabaseCentralArgs(
            endpoint=ENDPOINT,
            openbao_address="https://bao.internal",
            api_url="https://api.internal",
            login=AuthMethodSettings(),
            lease_ttl_maximum=86400,
            workload_login=WorkloadAuthSettings.model_validate(login),
        )
        return pulumi.Output.from_input(SupabaseCentral("supabase", args).platform.workload_logins)

    return declare(program)


def test_methods_of_workloads_are_looked_up_unless_they_are_managed() -> None:
    assert a_central_with().result == {}
    found = a_central_with(approle={}, kubernetes={"path": "clusters", "audience": "bao"})
    assert found.result == {
        "approle": WorkloadAuthMethod("approle", "auth_found_1"),
        "kubernetes": WorkloadAuthMethod("clusters", "auth_found_1", "bao"),
    }
    assert not found.all("vault:index/authBackend:AuthBackend")
    managed = a_central_with(
        approle={"managed": True}, kubernetes={"managed": True, "kubernetesHost": "https://k8s.internal:6443"}
    )
    assert {login.accessor for login in managed.result.values()} == {"auth_login_1"}
    methods = managed.all("vault:index/authBackend:AuthBackend")
    assert {(item.inputs["type"], item.inputs["path"]) for item in methods} == {
        ("approle", "approle"),
        ("kubernetes", "kubernetes"),
    }
    (config,) = managed.all("vault:kubernetes/authBackendConfig:AuthBackendConfig")
    assert config.inputs["kubernetesHost"] == "https://k8s.internal:6443"


def test_tenants_may_know_the_publishable_key_and_nothing_else(central: Program) -> None:
    (copy,) = central.all("pulumi-python:dynamic/central:ServiceSecretCopy")
    assert (copy.inputs["path"], copy.inputs["keys"]) == ("supabase/tenants", ["SUPABASE_PUBLISHABLE_KEY"])


def test_extensions_are_in_the_schema_that_tenants_search_and_stay() -> None:
    program = a_central(extensions=["pgcrypto", "vector"])
    found = program.all("postgresql:index/extension:Extension")
    assert [(item.name, item.inputs["name"], item.inputs["schema"]) for item in found] == [
        ("supabase-extensions-pgcrypto", "pgcrypto", "extensions"),
        ("supabase-extensions-vector", "vector", "extensions"),
    ]
    assert all(item.request.retainOnDelete for item in found)
    assert all(set(item.request.ignoreChanges) == {"schema", "version"} for item in found)
