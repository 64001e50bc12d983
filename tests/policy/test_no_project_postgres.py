"""Nobody gets a Postgres of their own: every door, what is refused at it, and what looks like it and is not."""

import json
from dataclasses import replace
from typing import Any

import pytest

from data_plane.engine.runner.policy import PolicyPack
from data_plane.engine.runner.properties import UNKNOWN
from tests.support.analyzer import CENTRAL, Declared, checked_resource, checked_stack, told

GROUP = {
    "no-postgres-workload",
    "no-postgres-operator-resource",
    "no-postgres-helm",
    "no-postgres-manifest",
    "no-managed-postgres",
    "no-postgres-database-or-admin-role",
    "no-postgres-container",
    "no-postgres-by-command",
    "no-postgres-on-machines",
    "no-postgres-container-by-image-id",
    "no-bundled-supabase",
}


def pod(image: str, **more: Any) -> dict[str, Any]:
    return {"containers": [{"name": "app", "image": image, **more}]}


def workload(image: str, **more: Any) -> dict[str, Any]:
    return {"spec": {"template": {"spec": pod(image, **more)}}}


def deployment(image: str, **more: Any) -> Declared:
    return Declared("kubernetes:apps/v1:Deployment", workload(image, **more))


def custom(version: str, kind: str, **spec: Any) -> Declared:
    return Declared(f"kubernetes:{version}:{kind}", {"apiVersion": version, "kind": kind, "spec": spec})


def release(chart: str, values: dict[str, Any] | None = None, repo: str = "") -> Declared:
    return Declared(
        "kubernetes:helm.sh/v3:Release",
        {"chart": chart, "values": values or {}, **({"repositoryOpts": {"repo": repo}} if repo else {})},
    )


def command(text: str) -> Declared:
    return Declared("command:local:Command", {"create": text})


SERVERS = [
    "postgres",
    "postgres:16",
    "docker.io/library/postgres:16-alpine",
    "index.docker.io/postgres@sha256:" + "0" * 64,
    "registry.example.com:5000/mirror/docker.io/library/postgres:17.2",
    "public.ecr.aws/docker/library/postgres:15",
    "rancher/mirrored-library-postgres:14",
    "bitnami/postgresql:16.4.0-debian-12-r0",
    "registry-1.docker.io/bitnamilegacy/postgresql-repmgr:16",
    "ghcr.io/cloudnative-pg/postgresql:17.2",
    "ghcr.io/cloudnative-pg/postgis:16-3.4",
    "ghcr.io/zalando/spilo-16:3.3-p1",
    "registry.developers.crunchydata.com/crunchydata/crunchy-postgres:ubi8-16.2-0",
    "crunchydata/crunchy-postgres-gis:ubi8",
    "percona/percona-distribution-postgresql:16",
    "postgis/postgis:16-3.4",
    "kartoza/postgis:16",
    "pgvector/pgvector:pg16",
    "ankane/pgvector:latest",
    "timescale/timescaledb:latest-pg16",
    "timescale/timescaledb-ha:pg16",
    "citusdata/citus:12",
    "cockroachdb/cockroach:v24.1.0",
    "yugabytedb/yugabyte:2.20",
    "neondatabase/neon:latest",
    "neondatabase/compute-node-v16:1",
    "quay.io/enterprisedb/edb-postgres-advanced:16",
    "google/alloydbomni:16",
    "apache/age:latest",
    "tensorchord/pgvecto-rs:pg16-v0.2.1",
    "paradedb/paradedb:latest",
    "supabase/postgres:17.6.1.136",
    "supabase/gotrue:v2.196.0",
    "harbor.example.com/proxy/supabase/realtime:v2",
    "example.com/team/my-postgres:dev",
    "example.com/team/postgres16:1",
    "gcr.io/project/POSTGRES-custom:1",
    "ghcr.io/cloudnative-pg/cloudnative-pg:1.24.0",
    "ghcr.io/zalando/postgres-operator:v1.13.0",
]

CLIENTS = [
    "edoburu/pgbouncer:1.23",
    "bitnami/pgbouncer:1",
    "dpage/pgadmin4:8",
    "quay.io/prometheuscommunity/postgres-exporter:v0.15.0",
    "bitnami/postgres-exporter:0.15",
    "wrouesnel/postgres_exporter",
    "adminer:4",
    "sosedoff/pgweb",
    "ankane/pghero",
    "pgpool/pgpool:4",
    "ghcr.io/postgresml/pgcat:1",
    "postgrest/postgrest:v14",
    "kong:3.9",
    "hasura/graphql-engine:v2",
    "graphile/postgraphile",
    "jbergknoff/postgresql-client",
    "prodrigestivill/postgres-backup-local:16",
    "ghcr.io/amacneil/dbmate:2",
    "flyway/flyway:10",
    "gcr.io/cloud-sql-connectors/cloud-sql-proxy:2",
    "registry.opensource.zalan.do/acid/postgres-operator-ui:v1",
    "pgbackrest/pgbackrest:2",
    "mysql:8",
    "redis:7",
    "node:22",
    "registry.example.com/postgres/app:1",
    "example.com/supabase-client:1",
]

KINDS = [
    ("kubernetes:core/v1:Pod", {"spec": pod("postgres:16")}),
    ("kubernetes:apps/v1:StatefulSet", workload("postgres:16")),
    ("kubernetes:apps/v1:DaemonSet", workload("postgres:16")),
    ("kubernetes:apps/v1:ReplicaSet", workload("postgres:16")),
    ("kubernetes:core/v1:ReplicationController", workload("postgres:16")),
    ("kubernetes:core/v1:PodTemplate", {"template": {"spec": pod("postgres:16")}}),
    ("kubernetes:batch/v1:Job", workload("postgres:16")),
    ("kubernetes:batch/v1:CronJob", {"spec": {"jobTemplate": workload("postgres:16")}}),
    ("kubernetes:apps/v1:DeploymentList", {"items": [workload("nginx:1.27"), workload("postgres:16")]}),
    ("kubernetes:apps/v1:DeploymentPatch", workload("postgres:16")),
    ("kubernetes:argoproj.io/v1alpha1:Rollout", workload("postgres:16")),
    ("kubernetes:serving.knative.dev/v1:Service", workload("postgres:16")),
    (
        "kubernetes:core/v1:Pod",
        {"spec": {**pod("nginx:1.27"), "initContainers": [{"name": "db", "image": "postgres"}]}},
    ),
    (
        "kubernetes:core/v1:Pod",
        {"spec": {**pod("nginx:1.27"), "ephemeralContainers": [{"name": "db", "image": "postgres"}]}},
    ),
    (
        "kubernetes:core/v1:Pod",
        {"spec": {"containers": [{"name": "a", "image": UNKNOWN}, {"name": "db", "image": "postgres"}]}},
    ),
]

DISGUISED = [
    deployment("example.com/data:1", command=["docker-entrypoint.sh", "postgres"], volumeMounts=[{"name": "d", "mountPath": "/var/lib/postgresql/data"}]),
    deployment("example.com/data:1", volumeMounts=[{"name": "d", "mountPath": "/bitnami/postgresql"}]),
    deployment("example.com/data:1", env=[{"name": "PGDATA", "value": "/data"}]),
    deployment("example.com/data:1", env=[{"name": "POSTGRES_HOST_AUTH_METHOD", "value": "trust"}]),
    deployment("debian:12", command=["sh", "-c", "initdb -D /data && exec postgres -D /data"]),
    deployment("debian:12", command=["postgres", "-c", "max_connections=10"]),
    deployment("debian:12", command=["sh", "-c"], args=["pg_ctl -D /data start"]),
    deployment("debian:12", command=["sh", "-c", "nc -z db 5432 || exec gosu postgres postgres -D /data"]),
    deployment("debian:12", command=["sh", "-c", "prepare && postgres \\\n  $OPTIONS 2> log"]),
]  # fmt: skip

OPEN_DOORS = [
    deployment("app:1", env=[{"name": "POSTGRES_PASSWORD", "valueFrom": {}}, {"name": "PGHOST", "value": "db"}]),
    deployment("app:1", command=["sh", "-c", "psql -h postgres -U postgres -c 'select 1'"]),
    deployment("app:1", command=["wait-for", "postgres:5432"]),
    deployment("busybox:1", command=["sh", "-c", "until nc -z postgres 5432; do sleep 1; done; exec node app.js"]),
    deployment("busybox:1", command=["sh", "-c", "until getent hosts postgres; do sleep 1; done"]),
    deployment("app:1", command=["sh", "-c", "gosu postgres pg_dump --file dump"]),
    deployment("app:1", args=["--database", "postgres"]),
    deployment("app:1", args=["-dsn", "postgres://postgres@db/postgres"]),
    deployment("app:1", volumeMounts=[{"name": "d", "mountPath": "/var/lib/app"}]),
    Declared("kubernetes:core/v1:ConfigMap", {"data": {"image": "postgres:16"}}),
    Declared("kubernetes:core/v1:Service", {"metadata": {"name": "postgres"}, "spec": {"ports": [{"port": 5432}]}}),
]


@pytest.mark.parametrize("image", SERVERS)
def test_a_workload_with_a_servers_image_is_refused(cell_pack: PolicyPack, image: str) -> None:
    assert_refused(cell_pack, deployment(image), "no-postgres-workload")


@pytest.mark.parametrize("image", CLIENTS)
def test_a_workload_that_only_talks_to_one_is_let_through(cell_pack: PolicyPack, image: str) -> None:
    assert_allowed(cell_pack, deployment(image))


@pytest.mark.parametrize(("kind", "properties"), KINDS, ids=lambda value: value if isinstance(value, str) else "")
def test_every_kind_of_workload_is_looked_into(cell_pack: PolicyPack, kind: str, properties: dict[str, Any]) -> None:
    assert_refused(cell_pack, Declared(kind, properties), "no-postgres-workload")


@pytest.mark.parametrize("resource", DISGUISED, ids=lambda resource: json.dumps(resource.properties)[60:140])
def test_a_server_under_another_name_is_known_by_what_it_does(cell_pack: PolicyPack, resource: Declared) -> None:
    assert_refused(cell_pack, resource, "no-postgres-workload")


@pytest.mark.parametrize("resource", OPEN_DOORS, ids=lambda resource: json.dumps(resource.properties)[:90])
def test_an_application_that_uses_a_database_is_let_through(cell_pack: PolicyPack, resource: Declared) -> None:
    assert_allowed(cell_pack, resource)


OPERATORS = [
    custom("postgresql.cnpg.io/v1", "Cluster", instances=3),
    custom("acid.zalan.do/v1", "postgresql", teamId="a"),
    custom("postgres-operator.crunchydata.com/v1beta1", "PostgresCluster"),
    custom("stackgres.io/v1", "SGCluster"),
    custom("pgv2.percona.com/v2", "PerconaPGCluster"),
    custom("kubedb.com/v1", "Postgres"),
    custom("postgresql.k8s.enterprisedb.io/v1", "Cluster"),
    custom("kubegres.reactive-tech.io/v1", "Kubegres"),
    custom("crdb.cockroachlabs.com/v1alpha1", "CrdbCluster"),
    custom("rds.services.k8s.aws/v1alpha1", "DBInstance", engine="postgres"),
    custom("rds.services.k8s.aws/v1alpha1", "DBInstance", engine=UNKNOWN),
    custom("rds.aws.upbound.io/v1beta1", "Instance", forProvider={"engine": "aurora-postgresql"}),
    custom("sql.cnrm.cloud.google.com/v1beta1", "SQLInstance", databaseVersion="POSTGRES_16"),
    custom("dbforpostgresql.azure.com/v1api20221201", "FlexibleServer"),
    Declared(
        "kubernetes:apiextensions.k8s.io:CustomResource", {"apiVersion": "postgresql.cnpg.io/v1", "kind": "Cluster"}
    ),
]
NO_OPERATORS = [
    custom("postgresql.cnpg.io/v1", "Pooler"),
    custom("postgresql.cnpg.io/v1", "ScheduledBackup"),
    custom("kubedb.com/v1", "MySQL"),
    custom("cluster.x-k8s.io/v1beta1", "Cluster"),
    custom("rds.services.k8s.aws/v1alpha1", "DBInstance", engine="mysql"),
    custom("stackgres.io/v1", "SGPoolingConfig"),
]


@pytest.mark.parametrize("resource", OPERATORS, ids=lambda resource: str(resource.type))
def test_what_an_operator_makes_a_server_of_is_refused(cell_pack: PolicyPack, resource: Declared) -> None:
    assert_refused(cell_pack, resource, "no-postgres-operator-resource")


@pytest.mark.parametrize("resource", NO_OPERATORS, ids=lambda resource: str(resource.type))
def test_other_kinds_of_an_operators_are_let_through(cell_pack: PolicyPack, resource: Declared) -> None:
    assert_allowed(cell_pack, resource)


CHARTS = [
    release("postgresql", repo="https://charts.bitnami.com/bitnami"),
    release("oci://registry-1.docker.io/bitnamicharts/postgresql-ha"),
    release("supabase"),
    release("cluster", repo="https://cloudnative-pg.github.io/charts"),
    release("cloudnative-pg"),
    release("zalando/postgres-operator"),
    release("wiki", {"postgresql": {"enabled": True}}),
    release("wiki", {"global": {"bundle": {"postgresql-ha": {"enabled": True}}}}),
    release("wiki", {"db": {"image": {"registry": "docker.io", "repository": "bitnami/postgresql", "tag": "16"}}}),
    release("wiki", {"initImage": "postgres:16"}),
    release("wiki", {"postgresql": {"enabled": UNKNOWN}}),
    release("wiki", {"extraContainers": {"containers": [{"name": "db", "image": "postgres"}]}}),
    release("gitea"),
    Declared("kubernetes:helm.sh/v3:Chart", {"chart": "postgresql", "fetchOpts": {"repo": "https://x.example"}}),
    Declared("kubernetes:helm.sh/v4:Chart", {"chart": "oci://ghcr.io/x/charts/postgresql"}),
    Declared(
        "kubernetes:helm.sh/v4:Chart",
        {
            "chart": "wiki",
            "valueYamlFiles": [
                {
                    "4dabf18193072939515e22adb298388d": "c44067f5952c0a294b673a41bacd8c17",
                    "text": "postgresql:\n  enabled: true\n",
                }
            ],
        },
    ),
]
OTHER_CHARTS = [
    release("wiki", {"postgresql": {"enabled": False, "image": {"repository": "bitnami/postgresql"}}}),
    release("wiki", {"externalPostgresql": {"host": "db", "existingSecret": "lease"}}),
    release("gitea", {"postgresql": {"enabled": False}, "postgresql-ha": {"enabled": False}}),
    release("prometheus-postgres-exporter"),
    release("pgadmin4"),
    release("cluster", repo="https://charts.example.com/kafka"),
    release("wiki", {"image": {"repository": "requarks/wiki", "tag": "2"}, "db": {"type": "postgres"}}),
    release("nginx"),
]


@pytest.mark.parametrize("resource", CHARTS, ids=lambda resource: json.dumps(resource.properties)[:90])
def test_a_chart_that_runs_or_bundles_one_is_refused(cell_pack: PolicyPack, resource: Declared) -> None:
    assert_refused(cell_pack, resource, "no-postgres-helm")


@pytest.mark.parametrize("resource", OTHER_CHARTS, ids=lambda resource: json.dumps(resource.properties)[:90])
def test_a_chart_that_bundles_none_is_let_through(cell_pack: PolicyPack, resource: Declared) -> None:
    assert_allowed(cell_pack, resource)


POD_YAML = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers:\n  - {name: a, image: %s}\n"
MANIFESTS = [
    Declared("kubernetes:yaml:ConfigGroup", {"yaml": [POD_YAML % "nginx", POD_YAML % "postgres:16"]}),
    Declared("kubernetes:yaml/v2:ConfigGroup", {"yaml": POD_YAML % "nginx" + "---\n" + POD_YAML % "postgis/postgis"}),
    Declared("kubernetes:yaml:ConfigGroup", {"objs": [{"apiVersion": "v1", "kind": "Pod", "spec": pod("postgres")}]}),
    Declared(
        "kubernetes:yaml/v2:ConfigGroup",
        {
            "objs": [
                {"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": "kubedb.com/v1", "kind": "Postgres"}]}
            ]
        },
    ),
]


@pytest.mark.parametrize("resource", MANIFESTS, ids=lambda resource: json.dumps(resource.properties)[:60])
def test_a_manifest_inside_the_program_is_read(cell_pack: PolicyPack, resource: Declared) -> None:
    assert_refused(cell_pack, resource, "no-postgres-manifest")


def test_a_manifest_without_one_is_let_through(cell_pack: PolicyPack) -> None:
    assert_allowed(cell_pack, Declared("kubernetes:yaml:ConfigGroup", {"yaml": [POD_YAML % "nginx", "{{ not yaml"]}))


CLOUDS = [
    ("aws:rds/instance:Instance", {"engine": "postgres"}),
    ("aws:rds/cluster:Cluster", {"engine": "aurora-postgresql"}),
    ("aws:rds/cluster:Cluster", {"engine": UNKNOWN}),
    ("aws:lightsail/database:Database", {"blueprintId": "postgres_16"}),
    ("aws-native:rds:DbInstance", {"engine": "postgres"}),
    ("gcp:sql/databaseInstance:DatabaseInstance", {"databaseVersion": "POSTGRES_16"}),
    ("gcp:alloydb/cluster:Cluster", {}),
    ("azure:postgresql/flexibleServer:FlexibleServer", {}),
    ("azure:cosmosdb/postgresqlCluster:PostgresqlCluster", {}),
    ("azure-native:dbforpostgresql:Server", {}),
    ("azure-native:dbforpostgresql/v20230601preview:Server", {}),
    ("digitalocean:index/databaseCluster:DatabaseCluster", {"engine": "pg"}),
    ("aiven:index/pg:Pg", {}),
    ("neon:index/project:Project", {}),
    ("supabase:index/project:Project", {}),
    ("render:index/postgres:Postgres", {}),
    ("heroku:addon/addon:Addon", {"plan": "heroku-postgresql:mini"}),
    ("crunchybridge:index/cluster:Cluster", {}),
    ("ovh:CloudProject/database:Database", {"engine": "postgresql"}),
    ("linode:index/databasePostgresql:DatabasePostgresql", {}),
    ("scaleway:index/databaseInstance:DatabaseInstance", {"engine": "PostgreSQL-15"}),
    ("yandex:index/mdbPostgresqlCluster:MdbPostgresqlCluster", {}),
    ("alicloud:rds/instance:Instance", {"engine": "PostgreSQL"}),
    ("timescale:index/service:Service", {}),
]
OTHER_CLOUDS = [
    ("aws:rds/instance:Instance", {"engine": "mysql"}),
    ("aws:rds/subnetGroup:SubnetGroup", {}),
    ("aws:rds/cluster:Cluster", {"engine": "aurora-mysql"}),
    ("gcp:sql/databaseInstance:DatabaseInstance", {"databaseVersion": "MYSQL_8_0"}),
    ("azure:mysql/flexibleServer:FlexibleServer", {}),
    ("digitalocean:index/databaseCluster:DatabaseCluster", {"engine": "redis"}),
    ("aiven:index/kafka:Kafka", {}),
    ("heroku:addon/addon:Addon", {"plan": "heroku-redis:mini"}),
    ("alicloud:rds/instance:Instance", {"engine": "MySQL"}),
    ("aws:s3/bucket:Bucket", {"bucket": "postgres-backups"}),
]


@pytest.mark.parametrize(("kind", "properties"), CLOUDS, ids=lambda value: str(value)[:50])
def test_a_managed_server_is_refused(cell_pack: PolicyPack, kind: str, properties: dict[str, Any]) -> None:
    assert_refused(cell_pack, Declared(kind, properties), "no-managed-postgres")


@pytest.mark.parametrize(("kind", "properties"), OTHER_CLOUDS, ids=lambda value: str(value)[:50])
def test_other_managed_services_are_let_through(cell_pack: PolicyPack, kind: str, properties: dict[str, Any]) -> None:
    assert_allowed(cell_pack, Declared(kind, properties))


ROLE = "postgresql:index/role:Role"
DATABASES = [
    Declared("postgresql:index/database:Database", {"name": "own"}),
    Declared("postgresql:index/server:Server", {"serverName": "far", "fdwName": "postgres_fdw"}),
    Declared(ROLE, {"name": "proj_a_owner", "createDatabase": True}),
    Declared(ROLE, {"name": "boss", "superuser": True}),
    Declared(ROLE, {"name": "boss", "superuser": UNKNOWN}),
]


@pytest.mark.parametrize("resource", DATABASES, ids=lambda resource: str(resource.properties)[:60])
def test_a_database_beside_the_central_one_is_refused(cell_pack: PolicyPack, resource: Declared) -> None:
    assert_refused(cell_pack, resource, "no-postgres-database-or-admin-role")


def test_an_ordinary_role_is_let_through(cell_pack: PolicyPack) -> None:
    assert_allowed(cell_pack, Declared(ROLE, {"name": "proj_a_owner", "createDatabase": False, "login": False}))


COMPOSE = "services:\n  db:\n    image: postgres:16\n"
CONTAINERS = [
    Declared("docker:index/container:Container", {"image": "postgres:16"}),
    Declared("docker:index/service:Service", {"taskSpec": {"containerSpec": {"image": "postgres:16"}}}),
    Declared("docker-build:index:Image", {"dockerfile": {"inline": "FROM --platform=linux/amd64 postgres:16 AS db\n"}}),
    Declared("dokploy:index/compose:Compose", {"name": "x", "composeFile": COMPOSE}),
    Declared("portainer:index/stack:Stack", {"stackFileContent": COMPOSE}),
    Declared("aws:ecs/taskDefinition:TaskDefinition", {"containerDefinitions": json.dumps([{"image": "postgres:16"}])}),
    Declared(
        "gcp:cloudrunv2/service:Service", {"template": {"containers": [{"image": "docker.io/library/postgres:16"}]}}
    ),
    Declared(
        "nomad:index/job:Job",
        {"jobspec": 'job "a" { group "b" { task "c" { config { image = "postgres:16" } } } }'},
    ),
]
OTHER_CONTAINERS = [
    Declared("docker:index/container:Container", {"image": "redis:7", "envs": ["POSTGRES_HOST=db"]}),
    Declared("docker:index/remoteImage:RemoteImage", {"name": "postgres:16"}),
    Declared("dokploy:index/compose:Compose", {"composeFile": "services:\n  app:\n    image: app:1\n"}),
    Declared("aws:ecs/taskDefinition:TaskDefinition", {"containerDefinitions": json.dumps([{"image": "app:1"}])}),
]


@pytest.mark.parametrize("resource", CONTAINERS, ids=lambda resource: str(resource.type))
def test_a_container_elsewhere_is_refused(cell_pack: PolicyPack, resource: Declared) -> None:
    assert_refused(cell_pack, resource, "no-postgres-container")


@pytest.mark.parametrize("resource", OTHER_CONTAINERS, ids=lambda resource: str(resource.type))
def test_other_containers_are_let_through(cell_pack: PolicyPack, resource: Declared) -> None:
    assert_allowed(cell_pack, resource)


def test_dokploys_own_postgres_is_refused(cell_pack: PolicyPack) -> None:
    assert_refused(cell_pack, Declared("dokploy:index/postgres:Postgres", {"name": "db"}), "no-managed-postgres")


COMMANDS = [
    "docker run -d --name pg -e POSTGRES_PASSWORD=$P -p 5432:5432 postgres:16",
    "podman run --rm docker.io/library/postgres:16-alpine",
    "set -e\ndocker run \\\n  --detach \\\n  timescale/timescaledb:latest-pg16",
    "helm upgrade --install db bitnami/postgresql -n app",
    "helm install wiki requarks/wiki --set postgresql.enabled=true",
    "apt-get update && apt-get install -y postgresql-16",
    "initdb -D /data && pg_ctl -D /data -l log start",
    "systemctl start postgresql",
    "createdb app",
    "psql -h db -c 'create database app'",
    "supabase start",
    "kubectl run pg --image=postgres:16",
    "kubectl apply -f - <<EOF\napiVersion: postgresql.cnpg.io/v1\nkind: Cluster\nmetadata:\n  name: x\nEOF",
    "docker compose -f - up -d <<EOF\n" + COMPOSE + "EOF",
]
OTHER_COMMANDS = [
    "psql \"$DATABASE_URL\" -c 'select 1'",
    "pg_dump --schema proj_a -f dump.sql",
    "docker run -e DATABASE_URL=postgres://db/app --name postgres app:1",
    "docker run --link postgres redis:7",
    "apt-get install -y postgresql-client-16",
    "helm upgrade --install postgresql ./charts/app",
    "echo 'postgres is central' > notes.txt",
    "supabase gen types --db-url $URL",
    "pg_isready -h postgres",
]


@pytest.mark.parametrize("text", COMMANDS)
def test_a_command_that_starts_one_is_refused(cell_pack: PolicyPack, text: str) -> None:
    assert_refused(cell_pack, command(text), "no-postgres-by-command")


@pytest.mark.parametrize("text", OTHER_COMMANDS)
def test_other_commands_are_let_through(cell_pack: PolicyPack, text: str) -> None:
    assert_allowed(cell_pack, command(text))


def test_a_dynamic_resource_is_judged_by_what_it_is_given_not_by_its_code(cell_pack: PolicyPack) -> None:
    kind = "pulumi-python:dynamic/thing:Thing"
    assert_refused(cell_pack, Declared(kind, {"command": ["docker", "run", "postgres:16"]}), "no-postgres-by-command")
    assert_allowed(cell_pack, Declared(kind, {"__provider": "gASV createdb x docker run postgres:16"}))


# The one allowed place


CENTRAL_DATABASE = replace(
    deployment("supabase/postgres:17.6.1.136"), stack="local-central", parents=(CENTRAL, "supabase-data-plane:central:Database")
)  # fmt: skip
FORGED = {
    "in a cell": replace(CENTRAL_DATABASE, stack="prod-cell-1"),
    "in another project": replace(CENTRAL_DATABASE, project="shop"),
    "without the component": replace(CENTRAL_DATABASE, parents=()),
    "inside another component": replace(CENTRAL_DATABASE, parents=("shop:index:Shop", CENTRAL)),
    "in a component of a like name": replace(CENTRAL_DATABASE, parents=("shop:central:SupabaseCentral",)),
    "with a name that reads like an URN": replace(
        CENTRAL_DATABASE, stack="prod-cell-1", name=f"x::{CENTRAL}$y", parents=()
    ),
    "in a stack of a like name": replace(CENTRAL_DATABASE, stack="local-central-2"),
    "with labels that claim it": replace(
        CENTRAL_DATABASE,
        parents=(),
        properties={
            **CENTRAL_DATABASE.properties,
            "metadata": {"labels": {"app.kubernetes.io/part-of": "supabase-central", "kind": "central"}},
        },
    ),
}


def test_the_central_stack_runs_it(central_pack: PolicyPack) -> None:
    assert_allowed(central_pack, CENTRAL_DATABASE)


@pytest.mark.parametrize("resource", FORGED.values(), ids=FORGED)
def test_nothing_that_a_project_can_write_makes_it_central(central_pack: PolicyPack, resource: Declared) -> None:
    assert_refused(central_pack, resource, "no-postgres-workload")


def test_it_has_to_be_the_stack_that_is_running(cell_pack: PolicyPack) -> None:
    assert_refused(cell_pack, CENTRAL_DATABASE, "no-postgres-workload")


# A standalone Supabase


def test_services_of_supabase_are_not_bundled(cell_pack: PolicyPack) -> None:
    stack = [
        replace(deployment("example.com/mirror/gotrue:v2"), name="auth"),
        replace(deployment("kong:3.9"), name="kong"),
    ]
    assert "no-bundled-supabase" in told(checked_stack(cell_pack, stack))


def test_a_gateway_or_postgrest_alone_is_no_bundle(cell_pack: PolicyPack) -> None:
    for image in ("kong:3.9", "postgrest/postgrest:v14"):
        assert "no-bundled-supabase" not in told(checked_stack(cell_pack, [deployment(image)]))


def assert_refused(pack: PolicyPack, resource: Declared, policy: str) -> None:
    found = [violation for violation in checked_resource(pack, resource) if violation.policy == policy]
    assert found, f"{policy} has nothing against it"
    assert all(violation.mandatory for violation in found)
    assert "stacks/<environment>/projects/" in found[0].message


def assert_allowed(pack: PolicyPack, resource: Declared) -> None:
    found = {policy: messages for policy, messages in told(checked_resource(pack, resource)).items() if policy in GROUP}
    assert not found


# Images that are known by their ID only

PULLED = Declared("docker:index/remoteImage:RemoteImage", {"name": "postgres:16"}, name="pulled")
ANOTHER = Declared("docker:index/remoteImage:RemoteImage", {"name": "redis:7"}, name="another")
BY_ID = Declared("docker:index/container:Container", {"name": "x", "image": UNKNOWN}, name="by-id")


def depending(pack: PolicyPack, resource: Declared, source: Declared) -> dict[str, list[str]]:
    asked, urn, properties = resource.request()
    asked.propertyDependencies["image"].urns.append(source.urn)
    return told(pack.check_stack([source.request(), (asked, urn, properties)]))


def test_a_container_by_the_id_of_a_servers_image_is_refused(cell_pack: PolicyPack) -> None:
    found = depending(cell_pack, BY_ID, PULLED)["no-postgres-container-by-image-id"]
    assert "postgres:16" in found[0]


def test_a_container_by_the_id_of_another_image_is_let_through(cell_pack: PolicyPack) -> None:
    assert "no-postgres-container-by-image-id" not in depending(cell_pack, BY_ID, ANOTHER)


def test_a_container_by_an_id_that_was_pulled_before_is_refused(cell_pack: PolicyPack) -> None:
    identity = "sha256:" + "5" * 64
    pulled = replace(PULLED, properties={"name": "postgres:16", "imageId": identity})
    container = replace(BY_ID, properties={"name": "x", "image": identity})
    assert "no-postgres-container-by-image-id" in told(checked_stack(cell_pack, [pulled, container]))


def test_a_server_that_is_pulled_and_not_run_is_let_through(cell_pack: PolicyPack) -> None:
    assert "no-postgres-container-by-image-id" not in told(checked_stack(cell_pack, [PULLED]))


@pytest.mark.parametrize(
    ("kind", "properties"),
    [
        ("kubernetes:yaml:ConfigGroup", {"yaml": 5}),
        ("kubernetes:yaml/v2:ConfigGroup", {"objs": True}),
        ("kubernetes:yaml/v2:ConfigFile", {"file": 5}),
        ("kubernetes:helm.sh/v3:Release", {"chart": "x", "values": [1]}),
        ("kubernetes:yaml:ConfigGroup", {"yaml": "a: &a [*a, *a]"}),
    ],
)
def test_what_cannot_be_checked_is_refused_with_the_reason(
    cell_pack: PolicyPack, kind: str, properties: dict[str, Any]
) -> None:
    found = [violation for violation in checked_resource(cell_pack, Declared(kind, properties)) if violation.mandatory]
    assert any("cannot be checked, so it is refused" in violation.message for violation in found)
