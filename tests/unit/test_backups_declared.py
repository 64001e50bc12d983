"""What backups put on a cluster, in each of the database's modes."""

import json
from collections.abc import Iterator
from typing import Any

import pulumi
import pulumi_kubernetes as k8s
import pulumi_vault as vault
import pytest

from components.central.backups import Archiving, Backups, BackupsArgs, archiving, required_backup_secrets
from components.central.cluster import Cluster
from components.central.connector_secrets import ConnectorSecrets
from components.central.files import SCRIPTS
from components.central.service_secrets import SecretAccess
from data_plane.model.backup_objects import recovery
from data_plane.model.catalog import Service, load_catalog
from data_plane.model.cluster_names import Place
from data_plane.model.cluster_settings import ClusterSettings
from data_plane.model.service_logins import SERVICE_LOGINS
from data_plane.state_dir import CHECKOUT
from tests.support.declared import Declared, Program, declare

BACKUPS: dict[str, Any] = {"bucket": "backups", "prefix": "prod", "endpoint": "https://s3.example.com:9000"}
MODES: dict[str, dict[str, Any]] = {
    "statefulset": {},
    "cloudnativepg": {"mode": "cloudnativepg", "image": "example.com/supabase:17"},
    "external": {"mode": "external", "serverCidrs": ["10.0.0.5/32"]},
}
CRON_JOB = "kubernetes:batch/v1:CronJob"


def settings_for(mode: str, backups: dict[str, Any]) -> ClusterSettings:
    return ClusterSettings.model_validate(
        {
            "auth": {"siteUrl": "https://app.example.com", "emailAutoconfirm": True},
            "storage": {"backend": "file", "replicas": 1},
            "database": MODES[mode],
            "backups": backups,
        }
    )


def declared(mode: str, backups: dict[str, Any] | None = None) -> tuple[Program, Archiving]:
    settings = settings_for(mode, backups or BACKUPS)
    kept: list[Archiving] = []

    def program() -> None:
        provider = k8s.Provider("cluster")
        places = {place: pulumi.Output.from_input(f"supabase{place.value}") for place in Place}
        cluster = Cluster(
            provider=provider,
            settings=settings,
            catalog=load_catalog(CHECKOUT),
            namespaces=places,
            database_host="db.svc",
            database_port=5432,
            database_name="postgres",
            admin_user="supabase_admin",
            sslmode="require",
            public_url="https://api.example.com",
        )
        secrets = ConnectorSecrets("secrets", address="https://bao", mount="connectors", path="supabase", kinds={})
        access = SecretAccess(
            openbao=vault.Provider("openbao", address="https://bao"),
            openbao_address="https://bao",
            cluster_address="https://bao",
            auth_path="kubernetes",
            secrets=secrets,
        )
        assert settings.backups is not None
        Backups("backups", BackupsArgs(cluster, access, settings.backups))
        kept.append(archiving(cluster))

    return declare(program), kept[0]


def pod_of(job: Declared) -> dict[str, Any]:
    pod: dict[str, Any] = job.inputs["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return pod


def env_of(container: dict[str, Any]) -> dict[str, str]:
    return {item["name"]: item["value"] for item in container["env"] if "value" in item}


def containers(program: Program) -> Iterator[dict[str, Any]]:
    for job in program.all(CRON_JOB):
        yield from (*pod_of(job).get("initContainers", []), *pod_of(job)["containers"])


@pytest.mark.parametrize(
    ("mode", "jobs"),
    [
        ("statefulset", ["supabase-backups-logical", "supabase-backups-physical", "supabase-restore"]),
        ("cloudnativepg", ["supabase-backups-logical"]),
        ("external", ["supabase-backups-logical"]),
    ],
)
def test_each_mode_has_the_jobs_that_it_needs(mode: str, jobs: list[str]) -> None:
    program, _ = declared(mode)
    assert sorted(job.inputs["metadata"]["name"] for job in program.all(CRON_JOB)) == jobs
    assert {job.inputs["metadata"]["namespace"] for job in program.all(CRON_JOB)} == {"supabase-data"}


@pytest.mark.parametrize("mode", MODES)
def test_jobs_are_bounded_and_restricted(mode: str) -> None:
    program, _ = declared(mode)
    for job in program.all(CRON_JOB):
        spec = job.inputs["spec"]
        assert (spec["concurrencyPolicy"], spec["timeZone"]) == ("Forbid", "Etc/UTC")
        assert spec["successfulJobsHistoryLimit"] == spec["failedJobsHistoryLimit"] == 3
        template = spec["jobTemplate"]["spec"]
        assert template["activeDeadlineSeconds"] > 0
        assert template["backoffLimit"] <= 1
        pod = pod_of(job)
        assert pod["restartPolicy"] == "Never"
        assert pod["automountServiceAccountToken"] is False
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert (context["runAsUser"], context["runAsGroup"]) == (100, 101)
        assert "fsGroup" not in context, "the kubelet would change the rights of the database's files"
        assert all("sizeLimit" in volume["emptyDir"] for volume in pod["volumes"] if "emptyDir" in volume)
    for container in containers(program):
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize("mode", MODES)
def test_no_secret_is_in_a_manifest(mode: str) -> None:
    program, archive = declared(mode)
    secret = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD", "POSTGRES_PASSWORD", *SERVICE_LOGINS.values()}
    for container in [*containers(program), *archive.companions]:
        for item in container.get("env", []):
            if item["name"] in secret:
                assert "value" not in item
                reference = item.get("valueFrom") or item["value_from"]
                key = reference.get("secretKeyRef") or reference["secret_key_ref"]
                assert key["name"] == "supabase-backups"


def test_the_database_hands_its_log_to_the_archiver() -> None:
    program, archive = declared("statefulset")
    assert archive.parameters["archive_mode"] == "on"
    assert archive.parameters["archive_timeout"] == "60s"
    script, path, folder = archive.parameters["archive_command"].split()
    assert path == "%p"
    (archiver,) = archive.companions
    mounted = {mount["mount_path"]: mount["name"] for mount in archive.mounts}
    assert mounted[folder] == {mount["mount_path"]: mount["name"] for mount in archiver["volume_mounts"]}[folder]
    assert script.rpartition("/")[0] in mounted
    assert archiver["command"] == [f"{script.rpartition('/')[0]}/wal-archiver.sh", folder]
    assert archiver["restart_policy"] == "Always", "it would stop before the server, which writes to the last"
    data = next(mount for mount in archiver["volume_mounts"] if mount["name"] == "data")
    assert data["read_only"] is True
    assert {volume["name"] for volume in archive.volumes} >= {mount["name"] for mount in archive.mounts}
    scripts = program.only("kubernetes:core/v1:ConfigMap", "backups").inputs["data"]
    assert {path.name for path in SCRIPTS.glob("*.*")} | {"passwd"} == set(scripts)


def test_base_backups_read_the_servers_volume_beside_the_server() -> None:
    program, _ = declared("statefulset", {**BACKUPS, "physical": {"schedule": "5 4 * * 0", "retainDays": 21}})
    job = program.only(CRON_JOB, "backups-physical")
    assert job.inputs["spec"]["schedule"] == "5 4 * * 0"
    pod = pod_of(job)
    (container,) = pod["containers"]
    env = env_of(container)
    assert env["BACKUP_RETENTION"] == "RECOVERY WINDOW OF 21 DAYS"
    assert env["BACKUP_DESTINATION"] == "s3://backups/prod"
    mount = next(mount for mount in container["volumeMounts"] if mount["name"] == "data")
    assert mount == {"name": "data", "mountPath": env["PGDATA"], "subPath": "pgdata", "readOnly": True}
    claim = next(volume for volume in pod["volumes"] if volume["name"] == "data")
    assert claim["persistentVolumeClaim"] == {"claimName": "data-supabase-database-0"}
    (beside,) = pod["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert beside["labelSelector"]["matchLabels"] == Cluster.selector(Service.DATABASE)


def test_a_restore_is_ready_and_never_starts_by_itself() -> None:
    program, _ = declared("statefulset")
    job = program.only(CRON_JOB, "backups-restore")
    assert job.inputs["spec"]["suspend"] is True
    (container,) = pod_of(job)["containers"]
    env = env_of(container)
    assert container["command"][0].endswith("/restore-physical.sh")
    assert env["PGDATA"] == "/volume/pgdata"
    mount = next(mount for mount in container["volumeMounts"] if mount["name"] == "data")
    assert mount == {"name": "data", "mountPath": "/volume"}, "the files could not change places"
    wanted = dict(line.split() for line in env["RESTORE_PASSWORDS"].splitlines())
    assert wanted == {"supabase_admin": "POSTGRES_PASSWORD", "postgres": "POSTGRES_PASSWORD", **SERVICE_LOGINS}
    given = {item["name"] for item in container["env"]}
    assert given >= set(wanted.values())


def test_cloudnativepg_uses_the_plugin() -> None:
    program, archive = declared(
        "cloudnativepg", {**BACKUPS, "encryption": "AES256", "physical": {"schedule": "0 2 * * *"}}
    )
    object_store = program.only("kubernetes:barmancloud.cnpg.io/v1:ObjectStore", "backups-store").inputs
    store = object_store["spec"]
    assert store["retentionPolicy"] == "14d"
    configuration = store["configuration"]
    assert configuration["destinationPath"] == "s3://backups/prod"
    assert configuration["endpointURL"] == "https://s3.example.com:9000"
    assert configuration["wal"] == {"compression": "gzip", "encryption": "AES256"}
    credentials = configuration["s3Credentials"]["accessKeyId"]
    assert credentials == {"name": "supabase-backups", "key": "AWS_ACCESS_KEY_ID"}
    assert object_store["metadata"]["name"] != credentials["name"], "the plugin takes one for the other"
    secret = program.only("kubernetes:external-secrets.io/v1:ExternalSecret", "backups").inputs["spec"]["target"]
    assert secret["template"]["metadata"]["labels"]["cnpg.io/reload"] == "true"
    schedule = program.only("kubernetes:postgresql.cnpg.io/v1:ScheduledBackup", "backups-schedule").inputs["spec"]
    assert schedule["schedule"] == "0 0 2 * * *"
    assert (schedule["method"], schedule["cluster"]) == ("plugin", {"name": "supabase-postgres"})
    (plugin,) = archive.plugins
    assert plugin["isWALArchiver"] is True
    assert plugin["parameters"] == {"barmanObjectName": object_store["metadata"]["name"], "serverName": "central"}
    assert "archive_command" not in archive.parameters, "the operator sets it"
    assert not archive.companions


def test_a_recovered_cluster_reads_from_the_old_and_writes_to_a_new_place() -> None:
    settings = settings_for("cloudnativepg", {**BACKUPS, "server": "central-2"}).backups
    assert settings is not None
    spec = recovery(settings, "central", "2026-01-31T14:05:00+00:00")
    assert spec["bootstrap"]["recovery"]["recoveryTarget"] == {"targetTime": "2026-01-31T14:05:00+00:00"}
    (source,) = spec["externalClusters"]
    assert source["name"] == spec["bootstrap"]["recovery"]["source"]
    assert source["plugin"]["parameters"]["serverName"] == "central"
    assert spec["plugins"][0]["parameters"]["serverName"] == "central-2"
    assert "recoveryTarget" not in recovery(settings, "central")["bootstrap"]["recovery"]


def test_an_external_database_is_dumped_and_nothing_more() -> None:
    _, archive = declared("external")
    assert archive == Archiving()


def test_physical_backups_can_be_left_out() -> None:
    program, archive = declared("statefulset", {**BACKUPS, "physical": None})
    assert [job.inputs["metadata"]["name"] for job in program.all(CRON_JOB)] == ["supabase-backups-logical"]
    assert archive == Archiving()


def test_the_keys_that_somebody_has_to_give_are_known() -> None:
    settings = settings_for("statefulset", BACKUPS)
    assert set(required_backup_secrets(settings.backups)) == {"BACKUP_S3_ACCESS_KEY_ID", "BACKUP_S3_SECRET_ACCESS_KEY"}
    assert required_backup_secrets(None) == {}


def test_the_scripts_fit_into_a_config_map() -> None:
    program, _ = declared("statefulset")
    data = program.only("kubernetes:core/v1:ConfigMap", "backups").inputs["data"]
    assert len(json.dumps(data)) < 500_000
