"""What the central stack declares on a cluster: which resources, how they are kept, what they may know and do."""

import re
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from components.central import logs
from components.central.files import SCRIPTS
from components.central.services import required_secrets
from data_plane.model.catalog import Service, load_catalog
from data_plane.model.connector_secrets import CLUSTER_SECRETS, SUPABASE_SECRETS
from data_plane.model.naming import TENANTS_SECRET
from data_plane.state_dir import CHECKOUT
from tests.support.cluster_program import (
    API_SERVERS,
    API_URL,
    BACKUPS,
    CLOUD_NATIVE_PG,
    CLUSTER,
    CRON_JOB,
    DAEMON_SET,
    DEPLOYMENT,
    EVERYTHING,
    NOTHING,
    SMTP,
    STATEFUL_SET,
    VARIANTS,
    PodTemplate,
    at,
    declared,
    merged,
    pod_templates,
    service_of,
    settings_of,
    variant,
)
from tests.support.declared import Declared, Program

CLAIM = "kubernetes:core/v1:PersistentVolumeClaim"
CONFIG_MAP = "kubernetes:core/v1:ConfigMap"
EXTERNAL_SECRET = "kubernetes:external-secrets.io/v1:ExternalSecret"
GATEWAY = "kubernetes:gateway.networking.k8s.io/v1:Gateway"
INGRESS = "kubernetes:networking.k8s.io/v1:Ingress"
MONITOR = "kubernetes:monitoring.coreos.com/v1:ServiceMonitor"
NAMESPACE = "kubernetes:core/v1:Namespace"
PDB = "kubernetes:policy/v1:PodDisruptionBudget"
ROUTE = "kubernetes:gateway.networking.k8s.io/v1:HTTPRoute"
SERVICE = "kubernetes:core/v1:Service"
COPY = "pulumi-python:dynamic/central:ServiceSecretCopy"

ALWAYS = {f"supabase-{name}" for name in ("auth", "gateway", "guard", "realtime", "relay", "rest", "storage")}
every_variant = pytest.mark.parametrize("name", VARIANTS)


def object_names(program: Program, type_: str) -> list[str]:
    return sorted(item.inputs["metadata"]["name"] for item in program.all(type_))


def spec(program: Program, type_: str, name: str) -> dict[str, Any]:
    """Of the one object of that name."""
    (found,) = [item for item in program.all(type_) if item.inputs["metadata"]["name"] == name]
    return dict(found.inputs["spec"])


def env_of(program: Program, service: str) -> dict[str, Any]:
    (template,) = [item for item in pod_templates(program) if item.name == service]
    (container,) = template.spec["containers"]
    return {entry["name"]: entry.get("value") for entry in container["env"]}


# Which resources there are


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("as it comes", {"imgproxy", "meta", "pooler", "studio"}),
        ("everything", {"analytics", "functions", "imgproxy", "meta", "pooler", "studio"}),
        ("nothing", set()),
        ("API servers", {"imgproxy", "meta", "pooler", "rest-cell-cell-1", "rest-proj-shop-2", "studio"}),
    ],
)
def test_what_is_switched_on_runs_and_nothing_else(name: str, more: set[str]) -> None:
    program = variant(name)
    expected = ALWAYS | {f"supabase-{service}" for service in more}
    assert set(object_names(program, DEPLOYMENT)) == expected
    assert object_names(program, DAEMON_SET) == (["supabase-logs"] if name == "everything" else [])
    assert "supabase-jwks" in object_names(program, CRON_JOB)
    addresses = {found for found in object_names(program, SERVICE) if not found.startswith("supabase-database")}
    assert addresses == expected - {"supabase-guard", "supabase-relay"}, "what listens to nobody needs no address"


@pytest.mark.parametrize(
    ("change", "expected"),
    [({}, ["supabase", "supabase-data"]), (EVERYTHING, ["supabase", "supabase-data", "supabase-logs"])],
)
def test_namespaces_enforce_the_strictest_standard_that_they_can_bear(
    change: dict[str, Any], expected: list[str]
) -> None:
    program = declared(change)
    assert object_names(program, NAMESPACE) == expected
    levels = {"supabase": "restricted", "supabase-data": "baseline", "supabase-logs": "privileged"}
    for item in program.all(NAMESPACE):
        metadata = item.inputs["metadata"]
        assert metadata["labels"]["pod-security.kubernetes.io/enforce"] == levels[metadata["name"]]


def test_a_stateful_set_has_its_volume_its_addresses_and_its_password() -> None:
    program = variant("as it comes")
    database = spec(program, STATEFUL_SET, "supabase-database")
    assert database["replicas"] == 1
    assert database["serviceName"] == "supabase-database-pods"
    assert database["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    (claim,) = database["volumeClaimTemplates"]
    assert claim["spec"]["resources"] == {"requests": {"storage": "100Gi"}}
    assert {"supabase-database", "supabase-database-pods"} <= set(object_names(program, SERVICE))
    assert spec(program, SERVICE, "supabase-database-pods")["clusterIP"] == "None"
    assert "supabase-database" in object_names(program, EXTERNAL_SECRET)
    assert env_of(program, "supabase-meta")["PG_META_DB_HOST"] == "supabase-database.supabase-data.svc"
    assert env_of(program, "supabase-meta")["PG_META_DB_SSL_MODE"] == "disable"


def test_pg_cron_runs_jobs_in_background_workers_in_the_platforms_database() -> None:
    (database,) = [item for item in pod_templates(declared({})) if item.kind == "StatefulSet"]
    arguments = dict(argument.split("=", 1) for argument in database.spec["containers"][0]["args"] if "=" in argument)
    assert arguments["cron.database_name"] == "postgres"
    assert arguments["cron.use_background_workers"] == "on"
    assert arguments["cron.log_statement"] == "off"
    assert int(arguments["cron.max_running_jobs"]) < int(arguments["max_worker_processes"])


RESERVES = {"superuser_reserved_connections=10", "reserved_connections=90", "max_locks_per_transaction=128"}


def test_the_database_keeps_connections_for_services_and_bounds_the_memory_of_each_process() -> None:
    (database,) = [item for item in pod_templates(declared({})) if item.kind == "StatefulSet"]
    (container,) = database.spec["containers"]
    assert {*RESERVES, "max_connections=600", "max_prepared_transactions=0"} <= set(container["args"])
    assert container["command"][:2] == ["/bin/bash", "-c"]
    # An eighth of 8 GiB; what follows runs the image's entrypoint with the server's arguments.
    assert container["command"][2] == 'ulimit -d 1048576 && exec "$@"'
    assert container["args"][:2] == ["docker-entrypoint.sh", "postgres"]


@pytest.mark.parametrize(("image", "reserved"), [("pg:17.6-1", True), ("pg:15.8-1", False), ("pg:latest", False)])
def test_a_version_without_reserved_connections_is_not_given_any(image: str, reserved: bool) -> None:
    program = declared({"database": {**CLOUD_NATIVE_PG, "image": image}})
    parameters = spec(program, CLUSTER, "supabase-postgres")["postgresql"]["parameters"]
    assert ("reserved_connections" in parameters) is reserved
    assert parameters["superuser_reserved_connections"] == "10"


def test_a_tls_secret_makes_the_stateful_set_and_its_clients_speak_tls() -> None:
    program = declared(at("database.tlsSecret", "postgres-tls"))
    (database,) = [item for item in pod_templates(program) if item.kind == "StatefulSet"]
    (container,) = database.spec["containers"]
    assert {"ssl=on", "ssl_cert_file=/etc/postgresql-tls/tls.crt", "ssl_key_file=/etc/postgresql-tls/tls.key"} <= set(
        container["args"]
    )
    assert [item["secret"]["secretName"] for item in database.spec["volumes"] if "secret" in item] == ["postgres-tls"]
    assert env_of(program, "supabase-meta")["PG_META_DB_SSL_MODE"] == "require"
    assert env_of(program, "supabase-realtime")["DB_SSL"] == "true"
    assert "?sslmode=require" in secret_templates(program)["supabase-rest"]["PGRST_DB_URI"]


def test_cloud_native_pg_gets_a_cluster_and_no_stateful_set() -> None:
    program = declared({"database": {**CLOUD_NATIVE_PG, "walStorage": "9Gi", "parameters": {"work_mem": "8MB"}}})
    cluster = spec(program, CLUSTER, "supabase-postgres")
    assert (cluster["instances"], cluster["imageName"]) == (3, CLOUD_NATIVE_PG["image"])
    assert (cluster["storage"]["size"], cluster["walStorage"]["size"]) == ("100Gi", "9Gi")
    assert cluster["postgresql"]["parameters"]["work_mem"] == "8MB"
    assert "wal_level" not in cluster["postgresql"]["parameters"]
    (made,) = program.all(CLUSTER)
    assert made.inputs["metadata"]["annotations"]["pulumi.com/waitFor"] == "condition=Ready"
    (role,) = cluster["managed"]["roles"]
    assert role["passwordSecret"] == {"name": "supabase-database"}
    assert {"username", "password"} <= set(secret_templates(program)["supabase-database"])
    assert not program.all(STATEFUL_SET)
    assert not [found for found in object_names(program, SERVICE) if found.startswith("supabase-database")]
    assert env_of(program, "supabase-meta")["PG_META_DB_HOST"] == "supabase-postgres-rw.supabase-data.svc"
    assert env_of(program, "supabase-meta")["PG_META_DB_SSL_MODE"] == "require"


@pytest.mark.parametrize(("instances", "synchronous"), [(1, False), (2, False), (3, True)])
def test_a_commit_waits_for_a_replica_once_losing_one_stops_nobody(instances: int, synchronous: bool) -> None:
    program = declared({"database": {**CLOUD_NATIVE_PG, "instances": instances}})
    assert ("synchronous" in spec(program, CLUSTER, "supabase-postgres")["postgresql"]) is synchronous


def test_an_external_database_is_used_where_it_is_and_nothing_is_made_for_it() -> None:
    program = variant("external database")
    assert not [*program.all(STATEFUL_SET), *program.all(CLUSTER)]
    of_database = [
        item for item in program.resources if str(item.inputs.get("metadata", {})).find("supabase-database") >= 0
    ]
    assert of_database == []
    env = env_of(program, "supabase-meta")
    assert (env["PG_META_DB_HOST"], env["PG_META_DB_PORT"]) == ("db.example.org", "6432")
    assert env["PG_META_DB_SSL_MODE"] == "verify-full"
    assert (
        "@db.example.org:6432/postgres?sslmode=verify-full"
        in secret_templates(program)["supabase-rest"]["PGRST_DB_URI"]
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("as it comes", {INGRESS: 0, GATEWAY: 0, ROUTE: 0}),
        ("everything", {INGRESS: 1, GATEWAY: 0, ROUTE: 0}),
        ("Gateway API", {INGRESS: 0, GATEWAY: 1, ROUTE: 1}),
        ("another's Gateway", {INGRESS: 0, GATEWAY: 0, ROUTE: 1}),
    ],
)
def test_the_gateway_is_exposed_as_asked(name: str, expected: dict[str, int]) -> None:
    program = variant(name)
    assert {type_: len(program.all(type_)) for type_ in expected} == expected
    assert {item.inputs["spec"].get("type", "ClusterIP") for item in program.all(SERVICE)} == {"ClusterIP"}


def test_an_ingress_has_tls_for_the_public_host() -> None:
    (ingress,) = variant("everything").all(INGRESS)
    annotations = ingress.inputs["metadata"]["annotations"]
    assert ingress.inputs["spec"]["ingressClassName"] == "nginx"
    assert ingress.inputs["spec"]["tls"] == [{"hosts": ["api.example.org"], "secretName": "api-tls"}]
    assert [rule["host"] for rule in ingress.inputs["spec"]["rules"]] == ["api.example.org"]
    assert annotations["cert-manager.io/cluster-issuer"] == "letsencrypt"


def test_a_gateway_of_its_own_terminates_tls_and_takes_no_foreign_route() -> None:
    program = variant("Gateway API")
    (listener,) = spec(program, GATEWAY, "supabase-gateway")["listeners"]
    assert (listener["protocol"], listener["port"], listener["hostname"]) == ("HTTPS", 443, "api.example.org")
    assert listener["tls"] == {"mode": "Terminate", "certificateRefs": [{"name": "api-tls"}]}
    assert listener["allowedRoutes"] == {"namespaces": {"from": "Same"}}
    route = spec(program, ROUTE, "supabase-gateway")
    assert route["parentRefs"] == [{"name": "supabase-gateway"}]
    assert route["hostnames"] == ["api.example.org"]
    assert route["rules"] == [{"backendRefs": [{"name": "supabase-gateway", "port": 8000}]}]


def test_a_route_joins_anothers_gateway() -> None:
    assert spec(variant("another's Gateway"), ROUTE, "supabase-gateway")["parentRefs"] == [
        {"namespace": "infra", "name": "public"}
    ]


@pytest.mark.parametrize(
    ("name", "mode", "strategy"),
    [
        ("files on one node", "ReadWriteOnce", "Recreate"),
        ("files on all nodes", "ReadWriteMany", "RollingUpdate"),
    ],
)
def test_files_are_on_a_volume_that_imgproxy_only_reads(name: str, mode: str, strategy: str) -> None:
    program = variant(name)
    claim = spec(program, CLAIM, "supabase-storage-files")
    assert claim["accessModes"] == [mode]
    assert claim["resources"] == {"requests": {"storage": "7Gi"}}
    storage, imgproxy = (spec(program, DEPLOYMENT, f"supabase-{service}") for service in ("storage", "imgproxy"))
    assert storage["strategy"]["type"] == strategy
    for deployment, only_read in ((storage, False), (imgproxy, True)):
        (volume,) = [item for item in deployment["template"]["spec"]["volumes"] if item["name"] == "files"]
        found = volume["persistentVolumeClaim"]
        assert found["claimName"] == "supabase-storage-files"
        assert found.get("readOnly", False) is only_read
    assert env_of(program, "supabase-storage")["STORAGE_BACKEND"] == "file"
    assert "AWS_ACCESS_KEY_ID" not in env_of(program, "supabase-storage")


@pytest.mark.parametrize(("name", "beside"), [("files on one node", True), ("files on all nodes", False)])
def test_imgproxy_runs_where_a_volume_for_one_node_is(name: str, beside: bool) -> None:
    pod = spec(variant(name), DEPLOYMENT, "supabase-imgproxy")["template"]["spec"]
    assert ("affinity" in pod) is beside
    if beside:
        (rule,) = pod["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert rule["topologyKey"] == "kubernetes.io/hostname"
        assert rule["labelSelector"]["matchLabels"]["app.kubernetes.io/name"] == "supabase-storage"


def test_files_in_an_object_store_need_no_volume() -> None:
    program = declared({"storage": {"endpoint": "https://s3.example.org:9000", "forcePathStyle": True}})
    assert not program.all(CLAIM)
    env = env_of(program, "supabase-storage")
    assert (env["STORAGE_S3_BUCKET"], env["STORAGE_S3_ENDPOINT"]) == ("files", "https://s3.example.org:9000")
    assert env["STORAGE_S3_FORCE_PATH_STYLE"] == "true"
    assert {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} <= set(env)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("as it comes", []),
        ("everything", ["supabase-auth", "supabase-gateway", "supabase-imgproxy", "supabase-rest"]),
    ],
)
def test_metrics_are_read_only_where_asked_for_and_at_a_port_that_is_there(name: str, expected: list[str]) -> None:
    program = variant(name)
    assert object_names(program, MONITOR) == expected
    for item in program.all(MONITOR):
        ports = {port["name"] for port in spec(program, SERVICE, item.inputs["metadata"]["name"])["ports"]}
        assert {endpoint["port"] for endpoint in item.inputs["spec"]["endpoints"]} <= ports


def test_what_belongs_to_the_whole_cluster_has_the_stacks_name() -> None:
    change = {"namespace": "prod", "openbao": {"inCluster": False, "kubernetesCa": "-----BEGIN CERTIFICATE-----"}}
    program = declared(merged(EVERYTHING, change))
    found = [item for item in program.resources if item.type.startswith("kubernetes:rbac.authorization.k8s.io")]
    assert {item.inputs["metadata"]["name"] for item in found} == {"prod-logs", "prod-openbao-login"}


@pytest.mark.parametrize(("name", "bound"), [("as it comes", 0), ("OpenBao elsewhere", 1)])
def test_only_an_openbao_outside_has_the_services_let_tokens_be_reviewed(name: str, bound: int) -> None:
    program = variant(name)
    assert len(program.all("kubernetes:rbac.authorization.k8s.io/v1:ClusterRoleBinding")) == bound


# How they are kept

KEPT = {
    *(NAMESPACE, STATEFUL_SET, CLAIM, CLUSTER),
    *("postgresql:index/database:Database", "postgresql:index/schema:Schema"),
}
KEPT_SECRETS = {"supabase-connectors", "supabase-secrets"}


@every_variant
def test_what_holds_data_is_protected_and_outlives_the_stack_and_nothing_else_is(name: str) -> None:
    program = variant(name)
    kept = {item.urn for item in program.resources if item.type in KEPT or item.name in KEPT_SECRETS}
    assert {item.urn for item in program.resources if item.request.protect} == kept
    assert kept <= {item.urn for item in program.resources if item.request.retainOnDelete}


@every_variant
def test_everything_is_below_the_central_supabase_with_an_explicit_provider(name: str) -> None:
    program = variant(name)
    parents = {item.urn: item.request.parent for item in program.resources}
    (root,) = [item.urn for item in program.resources if item.type == "supabase-data-plane:central:SupabaseCentral"]
    for item in program.resources:
        if item.type == "pulumi:pulumi:Stack":
            continue
        assert root in [item.urn, *_ancestors(item.urn, parents)], item.urn
        if item.type.startswith(("kubernetes:", "vault:", "postgresql:")):
            package = item.type.partition(":")[0]
            assert f"pulumi:providers:{package}::supabase-" in item.request.provider, item.urn


def _ancestors(urn: str, parents: Mapping[str, str]) -> Iterator[str]:
    while urn := parents.get(urn, ""):
        yield urn


@every_variant
def test_what_runs_waits_for_its_logins_its_schemas_and_the_signing_key(name: str) -> None:
    program = variant(name)
    needed = {
        item.urn
        for item in program.resources
        if item.type
        in {
            "pulumi-python:dynamic/central:ServiceLogins",
            "postgresql:index/schema:Schema",
            "postgresql:index/database:Database",
            "vault:identity/oidcKey:OidcKey",
        }
    }
    assert len(needed) == 6
    serving = [item for item in pod_templates(program) if not item.namespace.endswith("-data")]
    assert len(serving) >= 6
    for template in serving:
        assert needed <= set(template.resource.request.dependencies), template.name


@every_variant
def test_what_is_put_into_postgresql_waits_for_it(name: str) -> None:
    program = variant(name)
    servers = {item.urn for type_ in (STATEFUL_SET, CLUSTER) for item in program.all(type_)}
    (provider,) = program.all("pulumi:providers:postgresql")
    assert servers <= set(provider.request.dependencies)
    assert len(servers) == (0 if name in ("nothing", "external database") else 1)


@every_variant
def test_a_workload_waits_for_its_account_and_its_secret(name: str) -> None:
    program = variant(name)
    accounts = {item.inputs["metadata"]["name"]: item.urn for item in program.all("kubernetes:core/v1:ServiceAccount")}
    secrets = {item.inputs["metadata"]["name"]: item.urn for item in program.all(EXTERNAL_SECRET)}
    for template in pod_templates(program):
        account = template.spec["serviceAccountName"]
        wanted = {accounts[account], *([secrets[account]] if account in secrets else [])}
        assert wanted <= _transitive(program, template.resource), template.name


def _transitive(program: Program, item: Declared) -> set[str]:
    by_urn = {found.urn: found for found in program.resources}
    found: set[str] = set()
    open_ends = [*item.request.dependencies]
    while open_ends:
        urn = open_ends.pop()
        if urn not in found:
            found.add(urn)
            open_ends += by_urn[urn].request.dependencies
    return found


@every_variant
def test_a_drained_node_takes_one_replica_at_a_time_and_never_the_only_database(name: str) -> None:
    program = variant(name)
    several = {
        item.inputs["metadata"]["name"] for item in program.all(DEPLOYMENT) if item.inputs["spec"]["replicas"] > 1
    }
    database = {item.inputs["metadata"]["name"] for item in program.all(STATEFUL_SET)}
    assert set(object_names(program, PDB)) == several | database
    for item in program.all(PDB):
        wanted = 0 if item.inputs["metadata"]["name"] in database else 1
        assert item.inputs["spec"]["maxUnavailable"] == wanted


# What they know

SECRET_NAME = re.compile(r"(SECRET|PASSWORD|PASS|TOKEN|KEYS?|KEY_ID|KEY_BASE|KEY_GCM|COOKIE|JWKS|_URI|BACKEND_URL)$")
NO_SECRET = {
    # Where a function is, and where services are.
    *("GOTRUE_HOOK_CUSTOM_ACCESS_TOKEN_URI", "PGRST_OPENAPI_SERVER_PROXY_URI"),
}


def secret_templates(program: Program) -> dict[str, dict[str, str]]:
    """The Secrets that External Secrets makes: name → entry → template."""
    targets = [item.inputs["spec"]["target"] for item in program.all(EXTERNAL_SECRET)]
    return {target["name"]: target["template"]["data"] for target in targets}


def fields_in(template: Mapping[str, str]) -> set[str]:
    """The keys that a template's actions name."""
    actions = [action for text in template.values() for action in re.findall(r"\{\{(.*?)\}\}", text)]
    return {found for action in actions for found in re.findall(r"(?<![\w$.])\.(\w+)", action)}


@every_variant
def test_no_secret_is_a_plain_variable(name: str) -> None:
    program = variant(name)
    secret = [
        (template.name, entry)
        for template in pod_templates(program)
        for entry in template.env
        if SECRET_NAME.search(entry["name"]) and entry["name"] not in NO_SECRET
    ]
    assert len(secret) > 20
    for owner, entry in secret:
        assert "secretKeyRef" in entry.get("valueFrom", {}), f"{owner}: {entry['name']}"


@every_variant
def test_no_plain_text_of_a_pod_holds_a_password_in_a_url(name: str) -> None:
    for template in pod_templates(variant(name)):
        for entry in template.env:
            assert not re.search(r"://[^/@]*:[^/@]*@", entry.get("value") or ""), f"{template.name}: {entry['name']}"


@every_variant
def test_every_entry_that_a_pod_asks_of_a_secret_is_there(name: str) -> None:
    program = variant(name)
    entries = secret_templates(program)
    foreign = {"api-tls", "postgres-tls"}
    asked = 0
    for template in pod_templates(program):
        for entry in template.env:
            if reference := entry.get("valueFrom", {}).get("secretKeyRef"):
                asked += 1
                assert reference["key"] in entries[reference["name"]], f"{template.name}: {entry['name']}"
        for volume in template.spec["volumes"]:
            if (secret := volume.get("secret")) and secret["secretName"] not in foreign:
                items = {item["key"] for item in secret.get("items", [])}
                assert items <= set(entries[secret["secretName"]]), f"{template.name}: {volume['name']}"
    assert asked > 20


@every_variant
def test_a_pod_asks_for_its_own_secret_and_the_public_keys_alone(name: str) -> None:
    for template in pod_templates(variant(name)):
        references = [entry.get("valueFrom", {}).get("secretKeyRef") for entry in template.env]
        volumes = [volume.get("secret", {}).get("secretName") for volume in template.spec["volumes"]]
        asked = {*(item["name"] for item in references if item), *filter(None, volumes)}
        allowed = {template.name, template.spec["serviceAccountName"], "supabase-jwks-public"}
        if template.kind == "StatefulSet":
            allowed |= {"postgres-tls", "supabase-backups"}
        assert asked <= allowed, template.name


@every_variant
def test_a_services_copy_has_the_keys_that_its_templates_name_and_no_other(name: str) -> None:
    program = variant(name)
    named: dict[str, set[str]] = {}
    for item in program.all(EXTERNAL_SECRET):
        (source,) = item.inputs["spec"]["dataFrom"]
        further = {data["secretKey"] for data in item.inputs["spec"].get("data", [])}
        fields = fields_in(item.inputs["spec"]["target"]["template"]["data"])
        assert further <= fields
        named.setdefault(source["extract"]["key"], set()).update(fields - further)
    copies = {item.inputs["path"]: set(item.inputs["keys"]) for item in program.all(COPY)}
    # Tenants read theirs with their own tokens, and it is no service's.
    assert copies.pop(TENANTS_SECRET) == {"SUPABASE_PUBLISHABLE_KEY", "ANON_KEY"}
    assert copies == named
    assert len(copies) >= 6


@every_variant
def test_a_url_encodes_every_secret_that_is_put_into_it(name: str) -> None:
    """A password that was there first may have any character."""
    texts = [
        text
        for item in variant(name).all(EXTERNAL_SECRET)
        for text in item.inputs["spec"]["target"]["template"]["data"].values()
        if re.match(r"[a-z]+://", text)
    ]
    assert len(texts) >= 2
    fields = [field for text in texts for field in re.findall(r"\{\{(.*?)\}\}", text)]
    assert [field for field in fields if '| urlquery | replace "+" "%20"' not in field] == []


@every_variant
def test_every_key_that_a_service_copies_is_generated_or_asked_for(name: str) -> None:
    known = {*SUPABASE_SECRETS, *CLUSTER_SECRETS, *required_secrets(settings_of(VARIANTS[name]))}
    known |= {server.password_key for server in API_SERVERS if name == "API servers"}
    for item in variant(name).all(COPY):
        assert set(item.inputs["keys"]) <= known, item.name


@every_variant
def test_a_policy_reads_one_services_copy_and_its_role_is_for_that_services_account(name: str) -> None:
    program = variant(name)
    policies = program.all("vault:index/policy:Policy")
    assert {item.inputs["name"].replace("-", "/", 1) for item in policies} == {
        item.inputs["path"] for item in program.all(COPY) if item.inputs["path"] != TENANTS_SECRET
    }
    for item in policies:
        service = item.inputs["name"].removeprefix("supabase-")
        assert item.inputs["policy"] == (
            f'path "connectors/data/supabase/{service}" {{\n  capabilities = ["read"]\n}}\n'
        )
        assert not re.search(r"[*+]", item.inputs["policy"])
        role = program.only("vault:kubernetes/authBackendRole:AuthBackendRole", item.name).inputs
        suffix = {Service.DATABASE: "-data", Service.BACKUPS: "-data", Service.LOGS: "-logs"}.get(
            service_of(item.inputs["name"]), ""
        )
        assert role["tokenPolicies"] == [item.inputs["name"]]
        assert role["boundServiceAccountNames"] == [f"supabase-{service}"]
        assert role["boundServiceAccountNamespaces"] == [f"supabase{suffix}"]
        assert role["audience"] == "openbao"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (NOTHING, {}),
        (
            {},
            dict.fromkeys(
                ("STORAGE_S3_ACCESS_KEY_ID", "STORAGE_S3_SECRET_ACCESS_KEY"), "kubernetes.storage.backend: s3"
            ),
        ),
        (merged(NOTHING, {"auth": {"smtp": SMTP}}), {"GOTRUE_SMTP_PASS": "kubernetes.auth.smtp"}),
        (
            merged(NOTHING, {"auth": {"secrets": ["GOTRUE_EXTERNAL_GITHUB_SECRET"]}}),
            {"GOTRUE_EXTERNAL_GITHUB_SECRET": "kubernetes.auth.secrets"},
        ),
        (
            merged(NOTHING, {"backups": BACKUPS}),
            dict.fromkeys(("BACKUP_S3_ACCESS_KEY_ID", "BACKUP_S3_SECRET_ACCESS_KEY"), "kubernetes.backups"),
        ),
    ],
)
def test_a_secret_that_cannot_be_generated_is_named_with_the_setting_that_needs_it(
    change: dict[str, Any], expected: dict[str, str]
) -> None:
    assert required_secrets(settings_of(change)) == expected
    secrets = declared(change).only("pulumi-python:dynamic/central:ConnectorSecrets", "supabase-secrets")
    assert secrets.inputs["required"] == expected


# What they may do


@every_variant
def test_every_container_asks_for_memory_and_has_a_limit(name: str) -> None:
    for template in pod_templates(variant(name)):
        for container in template.containers:
            resources = container["resources"]
            assert resources["requests"]["cpu"], f"{template.name}: {container['name']}"
            assert resources["requests"]["memory"], f"{template.name}: {container['name']}"
            assert resources["limits"]["memory"], f"{template.name}: {container['name']}"


@every_variant
def test_whatever_runs_on_is_asked_whether_it_lives_and_is_ready(name: str) -> None:
    running = [item for item in pod_templates(variant(name)) if item.kind != "CronJob"]
    assert len(running) >= 5
    for template in running:
        for container in template.spec["containers"]:
            wanted = {"livenessProbe", "readinessProbe", *(["startupProbe"] if template.kind != "DaemonSet" else [])}
            assert wanted <= set(container), template.name
            ports = {port["name"] for port in container["ports"]}
            asked = [container[probe].get("httpGet") or container[probe].get("tcpSocket") for probe in wanted]
            assert {probe["port"] for probe in asked if probe} <= ports, template.name


AS_ROOT = {"may run as root"}
EXCEPTIONS = {
    "supabase-database": {*AS_ROOT, "may write its own files", "adds capabilities"},
    "supabase-logs": {*AS_ROOT, "sees the node's files", "has a token of the cluster"},
}
"""What the restricted standard, and what this stack asks beyond it, is not met by; everything else meets all."""


def laxities(template: PodTemplate) -> set[str]:
    pod = template.spec
    found = {
        "has a token of the cluster": pod.get("automountServiceAccountToken") is not False,
        "sees the node's files": any("hostPath" in volume for volume in pod["volumes"]),
        "shares the node": bool({"hostNetwork", "hostPID", "hostIPC"} & set(pod)),
    }
    return {name for name, holds in found.items() if holds}.union(
        *(_laxities_of(container, pod.get("securityContext", {})) for container in template.containers)
    )


def _laxities_of(container: Mapping[str, Any], pod: Mapping[str, Any]) -> set[str]:
    own = container.get("securityContext", {})
    either = {**pod, **own}
    found = {
        "may run as root": not (either.get("runAsNonRoot") and either.get("runAsUser")),
        "has every system call": either.get("seccompProfile") != {"type": "RuntimeDefault"},
        "may gain privileges": own.get("allowPrivilegeEscalation") is not False or bool(own.get("privileged")),
        "may write its own files": own.get("readOnlyRootFilesystem") is not True,
        "keeps capabilities": own.get("capabilities", {}).get("drop") != ["ALL"],
        "adds capabilities": bool(own.get("capabilities", {}).get("add")),
    }
    return {name for name, holds in found.items() if holds}


@every_variant
def test_every_pod_is_restricted_but_for_the_named_exceptions(name: str) -> None:
    for template in pod_templates(variant(name)):
        assert laxities(template) == EXCEPTIONS.get(template.name, set()), template.name


def test_the_database_gets_the_capabilities_to_hand_its_volume_over_and_no_other() -> None:
    (database,) = [item for item in pod_templates(variant("as it comes")) if item.kind == "StatefulSet"]
    added = {tuple(container["securityContext"]["capabilities"]["add"]) for container in database.containers}
    assert added == {("CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID")}


@every_variant
def test_images_are_the_catalogs(name: str) -> None:
    catalog = load_catalog(CHECKOUT, registry=settings_of(VARIANTS[name]).registry)
    for template in pod_templates(variant(name)):
        service = service_of(template.spec["serviceAccountName"])
        beside = {Service.DATABASE: Service.BACKUPS, Service.BACKUPS: Service.DATABASE}.get(service, Service.WAIT)
        allowed = {catalog.image(service), catalog.image(beside)}
        assert {container["image"] for container in template.spec["containers"]} == {catalog.image(service)}
        assert {container["image"] for container in template.containers} <= allowed, template.name


def test_a_mirrors_password_is_given_to_every_pod() -> None:
    for template in pod_templates(variant("a mirror")):
        assert template.spec["imagePullSecrets"] == [{"name": "mirror"}], template.name
        assert all(container["image"].startswith("mirror.example.org/hub/") for container in template.containers)


@every_variant
def test_everything_that_a_pod_mounts_is_declared_beside_it(name: str) -> None:
    program = variant(name)
    there = {
        (kind, item.inputs["metadata"]["namespace"], item.inputs["metadata"]["name"])
        for kind, type_ in (("configMap", CONFIG_MAP), ("persistentVolumeClaim", CLAIM))
        for item in program.all(type_)
    }
    # A setting names what is there already, and a StatefulSet makes claims itself.
    there |= {
        ("persistentVolumeClaim", "supabase", "functions"),
        ("persistentVolumeClaim", "supabase-data", "data-supabase-database-0"),
    }
    for template in pod_templates(program):
        volumes = {volume["name"] for volume in template.spec["volumes"]}
        if template.kind == "StatefulSet":
            volumes.add("data")
        for container in template.containers:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes, template.name
        for volume in template.spec["volumes"]:
            for kind, key in (("configMap", "name"), ("persistentVolumeClaim", "claimName")):
                if kind in volume:
                    assert (kind, template.namespace, volume[kind][key]) in there, template.name


@every_variant
def test_a_services_address_leads_to_its_pods_at_ports_that_they_open(name: str) -> None:
    program = variant(name)
    pods = pod_templates(program)
    for item in program.all(SERVICE):
        selector = item.inputs["spec"]["selector"].items()
        (template,) = [
            pod
            for pod in pods
            if pod.namespace == item.inputs["metadata"]["namespace"] and selector <= pod.metadata["labels"].items()
        ]
        opened = {port["name"]: port["containerPort"] for port in template.spec["containers"][0]["ports"]}
        for port in item.inputs["spec"]["ports"]:
            assert opened[port["name"]] == port["port"], template.name


@every_variant
def test_the_public_url_is_the_only_one_that_leaves_the_cluster(name: str) -> None:
    urls = [
        (template.name, entry["name"], entry["value"])
        for template in pod_templates(variant(name))
        for entry in template.env
        if str(entry.get("value")).startswith("http")
    ]
    assert urls
    inside = re.compile(r"http://supabase-[a-z]+\.supabase\.svc:\d+(/.*)?")
    public = re.compile(re.escape(API_URL) + r"(/.*)?")
    strangers = {(key, url) for _, key, url in urls if not inside.fullmatch(url) and not public.fullmatch(url)}
    assert {key for key, _ in strangers} <= {"GOTRUE_SITE_URL", "STORAGE_S3_ENDPOINT"}, strangers


# Change


def checksums(program: Program) -> dict[str, dict[str, str]]:
    return {item.name: dict(item.metadata.get("annotations", {})) for item in pod_templates(program)}


@pytest.mark.parametrize(
    ("change", "service", "annotation"),
    [
        (at("pooler.poolSize", 21), "supabase-pooler", "supabase-data-plane/files"),
        (at("gateway.bodyLimit", 11), "supabase-gateway", "supabase-data-plane/routes"),
        (at("database.maxConnections", 301), "supabase-database", "supabase-data-plane/parameters"),
    ],
)
def test_a_changed_file_rolls_the_pods_that_read_it_and_no_others(
    change: dict[str, Any], service: str, annotation: str
) -> None:
    before, after = checksums(variant("everything")), checksums(declared(merged(EVERYTHING, change)))
    assert before.keys() == after.keys()
    changed = {(name, key) for name in before for key in before[name] if before[name][key] != after[name].get(key)}
    assert (service, annotation) in changed
    assert {name for name in before if before[name] != after[name]} == {service}


def test_a_changed_rule_for_logs_rolls_vector(monkeypatch: pytest.MonkeyPatch) -> None:
    before = checksums(variant("everything"))
    monkeypatch.setattr(logs, "vector_config", lambda _cluster: "sources: {}\n")
    after = checksums(declared(EVERYTHING))
    assert {name for name in before if before[name] != after[name]} == {"supabase-logs"}


@every_variant
def test_what_reads_a_config_map_has_its_checksum(name: str) -> None:
    for template in pod_templates(variant(name)):
        if template.kind != "CronJob" and any("configMap" in volume for volume in template.spec["volumes"]):
            assert any(key.startswith("supabase-data-plane/") for key in template.metadata["annotations"])


def test_declaring_the_same_twice_gives_the_same() -> None:
    def described(program: Program) -> dict[str, Any]:
        return {item.urn: item.inputs for item in program.resources if item.type.startswith("kubernetes:")}

    assert described(declared(EVERYTHING)) == described(variant("everything"))


def _as_kubernetes_expands(text: str, variables: dict[str, Any]) -> str:
    """What becomes of an element of a container's `command`: $$ is an escaped $, $(NAME) a variable that is there."""
    return re.sub(
        r"\$(?:(\$)|\(([^)]*)\))",
        lambda found: "$" if found[1] else str(variables.get(found[2], found[0])),
        text,
    )


def test_the_relays_shell_gets_the_script_as_it_is() -> None:
    (template,) = [item for item in pod_templates(variant("as it comes")) if item.name == "supabase-relay"]
    (container,) = template.spec["containers"]
    variables = env_of(variant("as it comes"), "supabase-relay")
    script = _as_kubernetes_expands(container["command"][2], variables)
    assert script == (SCRIPTS / "relay.sh").read_text(encoding="utf-8")
    assert "$$" in script
    assert subprocess.run(["/bin/sh", "-n", "-c", script], check=False).returncode == 0


def test_storage_acts_in_a_name_that_passes_no_rules() -> None:
    """As ``service_role`` it would serve what it has signed for projects that are detached."""
    program = variant("as it comes")
    environment = env_of(program, "supabase-storage")
    assert environment["DB_SERVICE_ROLE"] == "data_plane_storage"
    assert "SERVICE_KEY" not in environment
    assert "SERVICE_ROLE_KEY" not in str(secret_templates(program)["supabase-storage"])


@pytest.mark.parametrize("autoconfirm", [True, False])
def test_the_database_is_told_whether_addresses_are_shown_to_be_ones_own(autoconfirm: bool) -> None:
    change = {"auth": {"emailAutoconfirm": autoconfirm, "smtp": SMTP}}
    (platform,) = declared(change).all("pulumi-python:dynamic/central:PlatformSql")
    assert platform.inputs["sql"].endswith(
        f"update data_plane.sign_in_settings set email_autoconfirm = {str(autoconfirm).lower()};\n"
    )


def test_another_data_folder_is_that_of_the_server_and_of_every_backup() -> None:
    """A newer major version begins in its own; the former one, and the image's configuration, stay beside it."""
    program = declared({**at("database.dataFolder", "pgdata-17"), "backups": BACKUPS})
    of_volume = {
        (template.name, mount.get("subPath"))
        for template in pod_templates(program)
        for container in [*template.spec["containers"], *template.spec.get("initContainers", [])]
        for mount in container.get("volumeMounts", [])
        if mount["name"] == "data" and mount["mountPath"].startswith(("/var/lib/postgresql", "/etc/postgresql"))
    }
    assert {folder for _, folder in of_volume} == {"pgdata-17", "custom"}
    assert "pgdata" not in str(spec(program, STATEFUL_SET, "supabase-database")).replace("pgdata-17", "")
    for name in ("supabase-backups-physical", "supabase-restore"):
        pod = str(spec(program, CRON_JOB, name))
        assert "pgdata-17" in pod
        assert "pgdata" not in pod.replace("pgdata-17", "")
