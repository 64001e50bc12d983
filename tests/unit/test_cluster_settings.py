"""The setting ``kubernetes``: what is wrong in it is said with its file and the whole way to the setting."""

from collections.abc import Mapping
from typing import Any

import pytest

from data_plane.model.backup_settings import BackupSettings
from data_plane.model.catalog import Service
from data_plane.model.cluster_settings import ClusterSettings
from data_plane.model.problems import ConfigurationError
from data_plane.model.settings import CentralSettings
from tests.support.cluster_program import BACKUPS, CLOUD_NATIVE_PG, EXTERNAL, INGRESS, MINIMAL, SMTP, at, merged
from tests.support.settings import CENTRAL, load

# Supabase's image on the cluster has no certificate of its own.
PLAIN = {**CENTRAL, "database": {**CENTRAL["database"], "sslmode": "disable"}}
FOUND_NOTHING = "found nothing; expected"


def cluster(change: Mapping[str, Any] | None = None, **stack: Any) -> ClusterSettings:
    database = {"host": "db.internal", "sslmode": "disable"}
    settings = load({**CENTRAL, "database": database, **stack, "kubernetes": merged(MINIMAL, change or {})})
    assert isinstance(settings, CentralSettings)
    assert settings.kubernetes is not None
    return settings.kubernetes


def problems(change: Mapping[str, Any], **stack: Any) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        cluster(change, **stack)
    return [str(problem) for problem in caught.value.problems]


def only_problem(change: Mapping[str, Any], **stack: Any) -> str:
    (problem,) = problems(change, **stack)
    return problem


# What is not said


def test_little_is_needed_and_the_rest_is_as_supabase_has_it() -> None:
    settings = cluster()
    assert (settings.namespace, settings.context, settings.render_to) == ("supabase", None, None)
    assert (settings.registry, settings.pull_secret, settings.service_monitors) == (None, None, False)
    assert (settings.database.mode, settings.database.instances, settings.database.storage) == (
        "statefulset",
        1,
        "100Gi",
    )
    assert (settings.pooler.enabled, settings.pooler.tenant, settings.pooler.pool_size) == (True, "supabase", 20)
    assert (settings.auth.jwt_expiry, settings.auth.disable_signup, settings.auth.anonymous_users) == (
        3600,
        False,
        False,
    )
    assert (settings.rest.max_rows, settings.rest.pool_size, settings.rest.pool_wait) == (1000, 10, 10)
    assert (settings.rest.dedicated.replicas, settings.rest.dedicated.pool_size) == (1, 2)
    assert (settings.storage.backend, settings.storage.region) == ("s3", "us-east-1")
    assert settings.storage.file_size_limit_bytes == 50 * 1024 * 1024
    assert settings.openbao.in_cluster
    assert (settings.openbao.auth_path, settings.openbao.audience, settings.openbao.refresh) == (
        "kubernetes",
        "openbao",
        300,
    )


def test_what_the_world_could_misuse_is_off_unless_asked_for() -> None:
    settings = cluster()
    assert settings.gateway.exposure.type == "none"
    assert not settings.functions.enabled
    assert not settings.analytics.enabled
    assert not settings.logs.enabled
    assert settings.backups is None
    assert settings.database.client_namespaces == settings.database.client_cidrs == []
    assert settings.pooler.client_namespaces == settings.gateway.trusted_proxies == []


def test_what_serves_requests_has_two_replicas() -> None:
    settings = cluster()
    parts = (settings.pooler, settings.gateway, settings.auth, settings.rest, settings.realtime, settings.storage)
    assert {part.replicas for part in parts} == {2}


def test_backups_are_of_both_kinds_unless_one_is_switched_off() -> None:
    both, logical = cluster({"backups": BACKUPS}).backups, cluster({"backups": {**BACKUPS, "physical": None}}).backups
    assert isinstance(both, BackupSettings)
    assert both.physical is not None
    assert both.logical is not None
    assert (both.physical.schedule, both.physical.retain_days, both.physical.archive_timeout) == ("15 1 * * *", 14, 60)
    assert (both.logical.schedule, both.logical.retain_days) == ("45 3 * * *", 30)
    assert both.destination == "s3://backups/prod/central"
    assert isinstance(logical, BackupSettings)
    assert logical.physical is None


def test_a_central_stack_without_the_setting_has_no_cluster() -> None:
    settings = load(CENTRAL)
    assert isinstance(settings, CentralSettings)
    assert settings.kubernetes is None


# What does not exist

_KEYS = (
    "analytics, apiServerCidrs, auth, backups, clusterCidrs, context, database, externalCidrs, functions, gateway, images, "
    "imgproxy, logs, namespace, openbao, pooler, priorityClasses, pullSecret, realtime, registry, renderTo, resources, rest, serviceMonitors, storage, studio"
)
_DATABASE_KEYS = (
    "clientCidrs, clientNamespaces, dataFolder, image, instances, maxConnections, mode, parameters, serverCidrs, storage, "
    "storageClass, tlsSecret, walStorage"
)


@pytest.mark.parametrize(
    ("path", "known"),
    [
        (
            "nameSpace",
            _KEYS,
        ),
        ("database.replicas", _DATABASE_KEYS),
        ("database.wal_size", _DATABASE_KEYS),
        ("imgproxy.on", "enabled, replicas, webp"),
        ("analytics.replicas", "enabled"),
        (
            "gateway.exposure.class",
            "annotations, className, clusterIssuer, controllerNamespace, parentGateway, tlsSecret, type",
        ),
        ("auth.smtp.password", "adminEmail, host, port, senderName, user"),
        ("resources.rest.request", "limits, requests"),
        ("resources.rest.requests.gpu", "cpu, ephemeral-storage, memory"),
        ("backups.physical.retention", "archiveTimeout, retainDays, retainMinimum, schedule"),
        ("backups.logical.archiveTimeout", "retainDays, schedule"),
    ],
)
def test_an_unknown_setting_lists_the_known_ones_of_its_place(path: str, known: str) -> None:
    base = {"backups": BACKUPS} if path.startswith("backups") else {}
    expected = f"stacks/Pulumi.prod-1.yaml: kubernetes.{path}: found an unknown key; expected one of: {known}"
    assert expected in problems(merged(base, at(path, "x")))


def test_an_unknown_service_has_no_resources() -> None:
    problem = only_problem({"resources": {"kong": {"requests": {}}}})
    assert problem.startswith("stacks/Pulumi.prod-1.yaml: kubernetes.resources.kong: found 'kong'; expected one of: ")


# What does not go together


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            at("database.instances", 3),
            "database.instances: found 3; expected 1, or `mode: cloudnativepg`, which keeps replicas",
        ),
        (at("database.mode", "cloudnativepg"), f"database.image: {FOUND_NOTHING} an image made for CloudNativePG"),
        (
            at("database.image", "supabase/postgres:17"),
            "database.image: found 'supabase/postgres:17'; expected nothing; the image stands in stacks/images.yaml, or under kubernetes.images",
        ),
        (
            {"database": {**EXTERNAL, "image": "a/b:1"}},
            "database.image: found 'a/b:1'; expected nothing; the image stands in stacks/images.yaml, or under kubernetes.images",
        ),
        (
            at("database.walStorage", "10Gi"),
            "database.walStorage: found '10Gi'; expected nothing, or `mode: cloudnativepg`",
        ),
        (
            at("database.dataFolder", "custom"),
            "database.dataFolder: found 'custom'; expected another name: that folder has the configuration",
        ),
        (
            {"database": {**CLOUD_NATIVE_PG, "dataFolder": "pgdata-17"}},
            "database.dataFolder: found 'pgdata-17'; expected nothing; with `mode: statefulset` alone it is ours",
        ),
        (
            {"database": {**CLOUD_NATIVE_PG, "tlsSecret": "tls"}},
            "database.tlsSecret: found 'tls'; expected nothing; CloudNativePG makes its certificates itself",
        ),
        (at("database.mode", "external"), f"database.serverCidrs: {FOUND_NOTHING} the database's addresses"),
        (
            at("database.serverCidrs", ["10.0.0.5/32"]),
            "database.serverCidrs: found addresses; expected nothing, or `mode: external`",
        ),
        (
            {"database": {**CLOUD_NATIVE_PG, "serverCidrs": ["10.0.0.5/32"]}},
            "database.serverCidrs: found addresses; expected nothing, or `mode: external`",
        ),
        *(
            (
                at("gateway.exposure", {**INGRESS, key: None}),
                f"gateway.exposure.{key}: {FOUND_NOTHING} {remedy}",
            )
            for key, remedy in (
                ("controllerNamespace", "the namespace of the ingress controller's Pods"),
                ("className", "the class of the controller, e.g. nginx"),
                ("tlsSecret", "the name of a TLS secret: the gateway is not exposed without TLS"),
            )
        ),
        (
            at("gateway.exposure", {**INGRESS, "type": "gateway-api", "tlsSecret": None}),
            f"gateway.exposure.tlsSecret: {FOUND_NOTHING} the name of a TLS secret",
        ),
        (
            at("gateway.exposure", {**INGRESS, "parentGateway": "infra/public"}),
            "gateway.exposure.parentGateway: found 'infra/public'; expected nothing, or `type: gateway-api`",
        ),
        (
            at("gateway.exposure", {"type": "gateway-api", "parentGateway": "infra/public"}),
            f"gateway.exposure.controllerNamespace: {FOUND_NOTHING} the namespace",
        ),
        (
            at("gateway.corsOrigins", ["https://app.example.org", "*"]),
            "gateway.corsOrigins: found * beside others; expected the origins that may read answers, or * alone",
        ),
        (at("auth.emailAutoconfirm", False), f"auth.smtp: {FOUND_NOTHING} host, user and adminEmail"),
        (at("storage.bucket", None), f"storage.bucket: {FOUND_NOTHING} the S3 bucket for files, or `backend: file`"),
        (at("storage.backend", "file"), "storage.bucket: found 'files'; expected nothing, or `backend: s3`"),
        (
            {"storage": {"backend": "file", "bucket": None}},
            "storage.replicas: found 2; expected 1, or `accessMode: ReadWriteMany`, or `backend: s3`",
        ),
        (at("functions.enabled", True), f"functions.claim: {FOUND_NOTHING} the PersistentVolumeClaim"),
        (
            at("openbao.kubernetesCa", "-----BEGIN CERTIFICATE-----"),
            "openbao.kubernetesCa: found a certificate; expected nothing, or `inCluster: false`",
        ),
        (at("openbao.inCluster", False), f"openbao.kubernetesCa: {FOUND_NOTHING} the API's CA certificate"),
        (
            {"renderTo": "manifests", "context": "prod"},
            "context: found 'prod'; expected nothing, because renderTo writes files only",
        ),
        (
            at("logs.enabled", True),
            "logs.enabled: found true; expected false, or `analytics.enabled: true`, where the logs go",
        ),
        (
            {"backups": {**BACKUPS, "physical": None, "logical": None}},
            "backups.physical: found nothing, and no `logical` either; expected one of them, or no `backups` at all",
        ),
    ],
)
def test_what_does_not_go_together_is_said_at_the_setting_to_change(change: dict[str, Any], expected: str) -> None:
    assert only_problem(change).startswith(f"stacks/Pulumi.prod-1.yaml: kubernetes.{expected}")


@pytest.mark.parametrize(
    "change",
    [
        {"database": {**CLOUD_NATIVE_PG, "walStorage": "10Gi"}},
        {"database": EXTERNAL},
        at("database.tlsSecret", "tls"),
        at("gateway.exposure", {**INGRESS, "clusterIssuer": "letsencrypt"}),
        at("gateway.exposure", {**INGRESS, "type": "gateway-api"}),
        at(
            "gateway.exposure",
            {"type": "gateway-api", "parentGateway": "infra/public", "controllerNamespace": "istio-system"},
        ),
        {"auth": {"emailAutoconfirm": False, "emailSignup": False}},
        {"storage": {"backend": "file", "bucket": None, "replicas": 1}},
        {"storage": {"backend": "file", "bucket": None, "accessMode": "ReadWriteMany"}},
        {"functions": {"enabled": True, "claim": "functions"}},
        {"openbao": {"inCluster": False, "kubernetesCa": "-----BEGIN CERTIFICATE-----"}},
        {"analytics": {"enabled": True}, "logs": {"enabled": True}},
        {"backups": {**BACKUPS, "endpoint": "https://s3.example.org:9000"}},
    ],
)
def test_what_goes_together_is_accepted(change: dict[str, Any]) -> None:
    settings = cluster(change, apiUrl="https://api.example.org").model_dump(by_alias=True)
    assert merged(settings, _present(change)) == settings


def _present(change: dict[str, Any]) -> dict[str, Any]:
    found = {key: _present(value) if isinstance(value, dict) else value for key, value in change.items()}
    return {key: value for key, value in found.items() if value is not None}


@pytest.mark.parametrize("type_", ["ingress", "gateway-api"])
def test_an_exposed_gateway_has_a_public_url_over_tls(type_: str) -> None:
    exposed = at("gateway.exposure", {**INGRESS, "type": type_})
    assert only_problem(exposed, apiUrl="http://api.example.org") == (
        "stacks/Pulumi.prod-1.yaml: apiUrl: found 'http://api.example.org'; "
        "expected https://…, because kubernetes.gateway.exposure has TLS"
    )


def test_tls_to_postgresql_is_asked_for_only_where_it_is_served() -> None:
    asked = {"host": "db.internal", "sslmode": "require"}
    assert only_problem({}, database=asked) == (
        "stacks/Pulumi.prod-1.yaml: database.sslmode: found 'require'; "
        "expected disable, or kubernetes.database.tlsSecret with the server's certificate"
    )
    serving = ({"tlsSecret": "tls"}, CLOUD_NATIVE_PG, EXTERNAL)
    modes = [cluster({"database": database}, database=asked).database.mode for database in serving]
    assert modes == ["statefulset", "cloudnativepg", "external"]


def test_a_gateway_that_is_not_exposed_may_have_a_plain_url() -> None:
    assert cluster(apiUrl="http://127.0.0.1:8000").gateway.exposure.type == "none"


# What is a secret


@pytest.mark.parametrize(
    "name",
    [
        "GOTRUE_JWT_SECRET",
        "GOTRUE_EXTERNAL_GITHUB_SECRET",
        "GOTRUE_SMTP_PASS",
        "GOTRUE_SMS_TWILIO_AUTH_TOKEN",
        "GOTRUE_SMS_VONAGE_API_SECRET",
        "GOTRUE_SMS_MESSAGEBIRD_ACCESS_KEY",
        "GOTRUE_SAML_PRIVATE_KEY",
        "GOTRUE_JWT_KEYS",
        "GOTRUE_HOOK_SEND_SMS_SECRETS",
        "GOTRUE_OPERATOR_TOKEN",
        "GOTRUE_DB_PASSWORD",
    ],
)
def test_a_secret_of_auth_is_no_plain_setting(name: str) -> None:
    assert only_problem({"auth": {"settings": {name: "hunter2"}}}) == (
        f"stacks/Pulumi.prod-1.yaml: kubernetes.auth.settings: found a mapping with {name}; "
        f"expected no {name}: name it under `secrets` and put its value into OpenBao"
    )


@pytest.mark.parametrize(
    "name", ["GOTRUE_EXTERNAL_GITHUB_ENABLED", "GOTRUE_EXTERNAL_GITHUB_CLIENT_ID", "GOTRUE_JWT_AUD"]
)
def test_any_other_setting_of_auth_may_be_given(name: str) -> None:
    assert cluster({"auth": {"settings": {name: "x"}}}).auth.settings == {name: "x"}


def test_what_is_no_setting_of_auth_is_refused() -> None:
    problem = only_problem({"auth": {"settings": {"DATABASE_URL": "x"}}})
    assert problem.endswith("expected names that start with GOTRUE_, not DATABASE_URL")


def test_a_secret_of_auth_is_named_and_its_value_is_not() -> None:
    assert cluster({"auth": {"secrets": ["GOTRUE_SMTP_PASS"]}}).auth.secrets == ["GOTRUE_SMTP_PASS"]


# Numbers, addresses, names


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        *((f"{service}.replicas", number) for service in ("gateway", "auth", "rest", "storage") for number in (0, 101)),
        ("database.instances", 0),
        ("database.instances", 10),
        ("database.maxConnections", 24),
        ("database.maxConnections", "many"),
        ("pooler.poolSize", 0),
        ("pooler.maxClients", 100_001),
        ("gateway.bodyLimit", 1025),
        ("rest.maxRows", 0),
        ("realtime.maxConcurrentUsers", 0),
        ("auth.smtp.port", 65536),
    ],
)
def test_a_number_stays_inside_of_its_bounds(path: str, wrong: Any) -> None:
    change = merged({"auth": {"smtp": SMTP}} if "smtp" in path else {}, at(path, wrong))
    place = f"stacks/Pulumi.prod-1.yaml: kubernetes.{path}: found {wrong!r}; expected "
    assert only_problem(change).startswith(tuple(f"{place}{right}" for right in ("at least", "at most", "a whole")))


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        ("namespace", "Supabase"),
        ("namespace", "supabase_1"),
        ("pullSecret", "-pull"),
        ("registry", "https://registry.example.org"),
        ("registry", "registry.example.org/mirror/"),
        ("database.storage", "100GB"),
        ("storage.bucket", "My_Bucket"),
        ("storage.endpoint", "s3.example.org:9000"),
        ("storage.region", "US East"),
        ("storage.fileSizeLimit", "50MB"),
        ("storage.size", "-1Gi"),
        ("auth.siteUrl", "app.example.org"),
        ("auth.siteUrl", "javascript:alert(1)"),
        ("openbao.address", "bao.internal:8200"),
        ("openbao.kubernetesHost", "10.0.0.1"),
        ("openbao.authPath", "auth/kubernetes"),
        ("gateway.exposure.parentGateway", "public"),
    ],
)
def test_a_text_has_the_form_that_its_place_wants(path: str, wrong: str) -> None:
    found = f"found {wrong!r}; expected "
    assert only_problem(at(path, wrong)).startswith(f"stacks/Pulumi.prod-1.yaml: kubernetes.{path}: {found}")


@pytest.mark.parametrize("wrong", ["app.example.org", "https://app.example.org/", "https://App.example.org", "**"])
def test_an_origin_is_what_a_browser_says(wrong: str) -> None:
    problem = only_problem({"gateway": {"corsOrigins": ["https://app.example.org:8443", wrong]}})
    expected = f"kubernetes.gateway.corsOrigins.1: found {wrong!r}; expected "
    assert problem.startswith(f"stacks/Pulumi.prod-1.yaml: {expected}")


@pytest.mark.parametrize(
    "path",
    [
        "externalCidrs",
        "clusterCidrs",
        "database.clientCidrs",
        "gateway.trustedProxies",
        "gateway.operatorSources",
    ],
)
@pytest.mark.parametrize("wrong", ["10.0.0.1", "10.0.0.0/255.0.0.0", "everywhere", "10.0.0.0/8 "])
def test_an_address_range_is_named_with_its_place_in_the_list(path: str, wrong: str) -> None:
    problem = only_problem(at(path, ["10.0.0.0/8", wrong]))
    assert problem.startswith(f"stacks/Pulumi.prod-1.yaml: kubernetes.{path}.1: found {wrong!r}; expected")


@pytest.mark.parametrize("wrong", ["300.0.0.0/8", "10.0.0.0/33", "::/129", "....../8", "10.0.0.5/8", "10.0.0.0/08"])
def test_an_address_range_that_no_network_has_is_refused(wrong: str) -> None:
    problem = only_problem({"externalCidrs": [wrong]})
    assert problem.startswith(f"stacks/Pulumi.prod-1.yaml: kubernetes.externalCidrs.0: found {wrong!r}; expected")


@pytest.mark.parametrize(
    "wrong",
    [
        *("169.254.169.254/32", "169.254.0.0/16", "127.0.0.0/8", "168.63.129.16/32", "224.0.0.0/8"),
        *("::1/128", "fe80::/64", "fd00:ec2::254/128", "::ffff:10.0.0.0/104", "64:ff9b::a9fe:a9fe/128"),
    ],
)
def test_what_no_pod_has_business_with_cannot_be_listed(wrong: str) -> None:
    expected = "no address of the node itself, of a metadata service or of multicast"
    problem = only_problem({"externalCidrs": ["0.0.0.0/0", wrong]})
    assert problem == f"stacks/Pulumi.prod-1.yaml: kubernetes.externalCidrs.1: found {wrong!r}; expected {expected}"


@pytest.mark.parametrize("wrong", ["10.96.0.0/12", "10.96.0.1/32"])
def test_the_cluster_s_own_networks_are_not_outside_of_it(wrong: str) -> None:
    problem = only_problem({"externalCidrs": [wrong], "clusterCidrs": ["10.96.0.0/12"]})
    expected = f"kubernetes.externalCidrs.0: found {wrong!r}; expected a network outside of clusterCidrs"
    assert problem == f"stacks/Pulumi.prod-1.yaml: {expected}"


@pytest.mark.parametrize("right", ["0.0.0.0/0", "10.0.0.5/32", "fd00::/8", "::/0"])
def test_an_address_range_is_ipv4s_or_ipv6s(right: str) -> None:
    assert cluster({"externalCidrs": [right]}).external_cidrs == [right]


@pytest.mark.parametrize(
    ("path", "wrong"),
    [("auth.jwtExpiry", "1 hour"), ("openbao.refresh", "300"), ("rest.poolWait", "0s"), ("auth.jwtExpiry", 3600)],
)
def test_a_duration_has_its_unit(path: str, wrong: Any) -> None:
    problem = only_problem(at(path, wrong))
    expected = f"kubernetes.{path}: found {wrong!r}; expected a whole number with its unit"
    assert problem.startswith(f"stacks/Pulumi.prod-1.yaml: {expected}")


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        ("database.mode", "docker"),
        ("gateway.exposure.type", "loadbalancer"),
        ("storage.backend", "nfs"),
        ("storage.accessMode", "ReadOnlyMany"),
    ],
)
def test_a_choice_lists_what_there_is_to_choose(path: str, wrong: str) -> None:
    found = f"found {wrong!r}; expected one of: "
    assert only_problem(at(path, wrong)).startswith(f"stacks/Pulumi.prod-1.yaml: kubernetes.{path}: {found}")


@pytest.mark.parametrize(
    "schedule",
    [
        "",
        "daily",
        "@daily",
        "60 1 * * *",
        "0 24 * * *",
        "0 1 0 * *",
        "0 1 * 13 *",
        "0 1 * *",
        "0 1 * * * *",
        "5-1 * * * *",
    ],
)
def test_a_schedule_is_crons(schedule: str) -> None:
    problem = only_problem({"backups": {**BACKUPS, "logical": {"schedule": schedule}}})
    expected = f"found {schedule!r}; expected minute, hour, day, month and weekday as cron has them"
    assert problem.startswith(f"stacks/Pulumi.prod-1.yaml: kubernetes.backups.logical.schedule: {expected}")


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        ("bucket", "My_Bucket"),
        ("prefix", "/prod"),
        ("prefix", "prod//central"),
        ("prefix", ".."),
        ("server", "Central"),
        ("endpoint", "https://s3.example.org/path"),
    ],
)
def test_backups_have_a_place_that_an_object_store_takes(path: str, wrong: str) -> None:
    found = f"found {wrong!r}; expected "
    problem = only_problem({"backups": {**BACKUPS, path: wrong}})
    assert problem.startswith(f"stacks/Pulumi.prod-1.yaml: kubernetes.backups.{path}: {found}")


# All of it


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        ({"auth": None}, "auth"),
        ({"storage": None}, "storage"),
        ({"auth": {"siteUrl": None}}, "auth.siteUrl"),
        ({"auth": {"smtp": {"host": "smtp.example.org", "user": "m"}}}, "auth.smtp.adminEmail"),
        ({"backups": {"bucket": "backups"}}, "backups.prefix"),
    ],
)
def test_what_has_no_default_is_asked_for(change: dict[str, Any], missing: str) -> None:
    expected = f"stacks/Pulumi.prod-1.yaml: kubernetes.{missing}: found nothing; expected this field"
    assert only_problem(change) == expected


def test_all_wrong_settings_come_at_once() -> None:
    wrong = {"namespace": "X", "auth": {"siteUrl": "x"}, "storage": {"bucket": "X"}, "rest": {"rows": 1}}
    fields = [problem.split(": ")[1] for problem in problems(wrong)]
    assert fields == [f"kubernetes.{name}" for name in ("auth.siteUrl", "namespace", "rest.rows", "storage.bucket")]


def test_resources_are_by_service() -> None:
    settings = cluster({"resources": {"rest": {"requests": {"cpu": "1", "memory": "1Gi"}}}})
    assert [*settings.resources] == [Service.REST]
    assert settings.resources[Service.REST].requests.memory == "1Gi"


def test_the_program_cannot_ask_for_tls_of_a_database_that_has_no_certificate() -> None:
    encrypted = {**CENTRAL["database"], "sslmode": "require"}
    (problem,) = problems({}, database=encrypted)
    assert "database.sslmode: found 'require'; expected disable, or kubernetes.database.tlsSecret" in problem
    assert cluster({"database": {"tlsSecret": "postgres-tls"}}, database=encrypted)
    assert cluster({"renderTo": "manifests"}, database=encrypted)
