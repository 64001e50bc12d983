"""Backups of the database in an S3-compatible object store, and the objects that a restore runs.

Physical backups have Barman's layout in every mode, so each mode can be restored into the other:

- ``statefulset``: PostgreSQL hands each segment of its write-ahead log to a container beside it, the archiver, which
  uploads it (Supabase's image has no program that could); a CronJob uploads base backups, reading the data volume.
- ``cloudnativepg``: the operator's Barman Cloud plugin does both.
- ``external``: none; the database's owner makes them.

Logical backups are ``pg_dump``'s, by a CronJob, in all modes. The scripts are in ``scripts/``; the image is that of the
service ``backups`` in ``stacks/images.yaml``: PostgreSQL's programs, of the server's major version, and Barman's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pulumi
import pulumi_kubernetes as k8s

from components.central.cluster import Cluster
from components.central.files import SCRIPTS
from components.central.service_deployment import checksum, container, pod_spec
from components.central.service_secrets import SecretAccess, ServiceSecret, ServiceSecretArgs, secret_field
from data_plane.model.backup_objects import ARCHIVER_PLUGIN, OBJECT_STORE, RESTORE_JOB, archiver_plugin, backup_jobs
from data_plane.model.backup_settings import S3_KEYS, BackupSettings, store_variables
from data_plane.model.catalog import Service
from data_plane.model.cluster_names import CLOUD_NATIVE_PG_CLUSTER, service_name
from data_plane.model.cluster_settings import DatabaseMode
from data_plane.model.service_logins import service_logins

__all__ = ["Archiving", "Backups", "BackupsArgs", "archiving", "required_backup_secrets"]

_CONFIG_MAP = "supabase-backup-scripts"
_SCRIPTS_FOLDER = "/backup-scripts"
_HANDOVER_FOLDER = "/backup-handover"
_DATA = "/var/lib/postgresql/data"
_CONFIGURATION = "/etc/postgresql"
_CLAIM = f"data-{service_name(Service.DATABASE)}-0"
_BACKUP_DEADLINE_SECONDS = 6 * 3600
_RESTORE_DEADLINE_SECONDS = 24 * 3600
_START_DEADLINE_SECONDS = 3600
"""A backup that could not start on time is made up for within an hour."""
_SCRATCH_LIMIT = "4Gi"
"""Barman buffers what it uploads, at most 100 MiB at a time for each of its processes."""
_COURIER_RESOURCES = {
    "requests": {"cpu": "20m", "memory": "96Mi", "ephemeral-storage": "64Mi"},
    "limits": {"memory": "512Mi", "ephemeral-storage": "1280Mi"},
}
_COURIER_SILENT_MINUTES = 5


def required_backup_secrets(settings: BackupSettings | None) -> dict[str, str]:
    """The keys of ``connectors/supabase`` that backups need and that cannot be generated; what needs them, by key."""
    return {} if settings is None else dict.fromkeys(S3_KEYS.values(), "kubernetes.backups")


@dataclass(frozen=True)
class Archiving:
    """The settings by which the database's own resources ship its write-ahead log."""

    parameters: Mapping[str, str] = field(default_factory=dict)
    """Settings of PostgreSQL."""
    companions: Sequence[Mapping[str, Any]] = ()
    """Containers that start before the server and stop after it (``initContainers`` with ``restartPolicy: Always``)."""
    volumes: Sequence[Mapping[str, Any]] = ()
    """Of the Pod."""
    mounts: Sequence[Mapping[str, Any]] = ()
    """Of the server's container."""
    annotations: Mapping[str, str] = field(default_factory=dict)
    """Of the Pod: it has to notice when the scripts change."""
    plugins: Sequence[Mapping[str, Any]] = ()
    """Of a CloudNativePG Cluster."""


def archiving(cluster: Cluster) -> Archiving:
    """Arguments for :class:`~components.central.database.Database`; empty without physical backups."""
    settings = cluster.settings.backups
    if settings is None or settings.physical is None:
        return Archiving()
    timeout = {"archive_timeout": f"{settings.physical.archive_timeout}s"}
    match cluster.settings.database.mode:
        case DatabaseMode.STATEFUL_SET:
            return Archiving(
                parameters={
                    "archive_mode": "on",
                    "archive_command": f"{_SCRIPTS_FOLDER}/queue-wal.sh %p {_HANDOVER_FOLDER}",
                    **timeout,
                },
                companions=[_archiver(cluster, settings)],
                volumes=[
                    _scripts_volume(),
                    {"name": "backup-handover", "empty_dir": {"size_limit": "16Mi"}},
                    {"name": "archiver-scratch", "empty_dir": {"size_limit": "1Gi"}},
                ],
                mounts=[_scripts_mount(), _handover_mount()],
                annotations={"supabase-data-plane/backup-scripts": checksum(_scripts(settings))},
            )
        case DatabaseMode.CLOUD_NATIVE_PG:
            return Archiving(parameters=timeout, plugins=[archiver_plugin(settings.server, is_archiver=True)])
        case DatabaseMode.EXTERNAL:
            return Archiving()


@dataclass(frozen=True)
class BackupsArgs:
    """Arguments of :class:`Backups`."""

    cluster: Cluster
    access: SecretAccess
    settings: BackupSettings


class Backups(pulumi.ComponentResource):
    """Makes backups on schedule, removes old ones, and keeps ready what a restore runs.

    Creates the account and the secrets of the jobs, a ConfigMap with the scripts, and the CronJobs or, with
    CloudNativePG, the plugin's ObjectStore and a ScheduledBackup. The database needs the ConfigMap and the Secret
    before it starts: declare it after, with what :func:`archiving` gives.
    """

    def __init__(self, name: str, args: BackupsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("supabase-data-plane:central:Backups", name, None, opts)
        self._name, self._cluster, self._settings = name, args.cluster, args.settings
        cluster, service = args.cluster, Service.BACKUPS
        self._on_cluster = pulumi.ResourceOptions(parent=self, provider=cluster.provider)
        self._labels = cluster.labels(service)
        self._namespace = cluster.namespace(service)
        account = k8s.core.v1.ServiceAccount(
            name, metadata=self._metadata(service_name(service)), automount_service_account_token=False,
            opts=self._on_cluster,
        )  # fmt: skip
        mode = cluster.settings.database.mode
        # The services' passwords are for a restore, which brings back those of another time.
        passwords = {"POSTGRES_PASSWORD", *service_logins(cluster.api_servers).values()}
        secret = ServiceSecret(
            name,
            service,
            cluster,
            args.access,
            ServiceSecretArgs(
                (*S3_KEYS.values(), *sorted(passwords)),
                {
                    **{variable: secret_field(key) for variable, key in S3_KEYS.items()},
                    **{key: secret_field(key) for key in sorted(passwords)},
                },
                # CloudNativePG follows changes of Secrets with the label.
                {**self._labels, "cnpg.io/reload": "true"} if mode is DatabaseMode.CLOUD_NATIVE_PG else self._labels,
                account,
            ),
            opts=pulumi.ResourceOptions(parent=self),
        )
        scripts = k8s.core.v1.ConfigMap(
            name, metadata=self._metadata(_CONFIG_MAP), data=_scripts(args.settings), opts=self._on_cluster
        )
        self._after = pulumi.ResourceOptions.merge(
            self._on_cluster, pulumi.ResourceOptions(depends_on=[secret, scripts])
        )
        names = backup_jobs(mode, args.settings)
        if args.settings.physical is not None and mode is DatabaseMode.STATEFUL_SET:
            self._cron_job(names["physical"], args.settings.physical.schedule, self._base_backup(args.settings))
            self._restore()
        if args.settings.physical is not None and mode is DatabaseMode.CLOUD_NATIVE_PG:
            self._cloud_native_pg(args.settings)
        if args.settings.logical is not None:
            variables = {"BACKUP_RETAIN_DAYS": str(args.settings.logical.retain_days)}
            pod = self._pod("logical-backup.sh", {**variables, **self._connection()})
            self._cron_job(names["logical"], args.settings.logical.schedule, pod)
        self.register_outputs({"destination": args.settings.destination})

    def _metadata(self, name: str) -> dict[str, Any]:
        return {"name": name, "namespace": self._namespace, "labels": self._labels}

    def _connection(self) -> dict[str, str]:
        cluster = self._cluster
        return {
            "PGHOST": cluster.database_host,
            "PGPORT": str(cluster.database_port),
            "PGDATABASE": cluster.database_name,
            "PGUSER": cluster.admin_user,
            "PGSSLMODE": cluster.sslmode,
            "PGCONNECT_TIMEOUT": "15",
        }

    def _pod(
        self,
        script: str,
        variables: Mapping[str, str],
        *,
        passwords: Sequence[str] = (),
        mounts: Sequence[Mapping[str, Any]] = (),
        volumes: Sequence[Mapping[str, Any]] = (),
        init_containers: Sequence[Mapping[str, Any]] = (),
    ) -> dict[str, Any]:
        """A Pod that runs one of the scripts, as the user that owns the database's files.

        Args:
            passwords: entries of the Secret that become variables of the same name.
        """
        cluster, settings = self._cluster, self._settings
        particulars = {
            "command": [f"{_SCRIPTS_FOLDER}/{script}"],
            "env": [
                *_store_env(settings),
                *({"name": name, "value": value} for name, value in variables.items()),
                *(_secret_env(key, key) for key in passwords),
                *([_secret_env("PGPASSWORD", "POSTGRES_PASSWORD")] if "PGHOST" in variables else []),
            ],
        }
        pod = pod_spec(
            cluster,
            Service.BACKUPS,
            user=settings.database_user,
            group=settings.database_group,
            volumes=[_scripts_volume(), {"name": "scratch", "empty_dir": {"size_limit": _SCRATCH_LIMIT}}, *volumes],
            init_containers=init_containers,
            containers=[
                container(
                    cluster,
                    Service.BACKUPS,
                    str(Service.BACKUPS),
                    particulars,
                    [_scripts_mount(), _passwd_mount(), _scratch_mount("scratch"), *mounts],
                )
            ],
        )
        # The kubelet would give the data volume's files to a group and let it write, and PostgreSQL refuses such files.
        for unwanted in ("fs_group", "fs_group_change_policy"):
            pod["security_context"].pop(unwanted)
        return {**pod, "restart_policy": "Never"}

    def _base_backup(self, settings: BackupSettings) -> dict[str, Any]:
        physical, cluster = settings.physical, self._cluster
        if physical is None:
            raise ValueError("there are no physical backups")
        variables = {
            "BACKUP_RETENTION": f"RECOVERY WINDOW OF {physical.retain_days} DAYS",
            "BACKUP_MINIMUM": str(physical.retain_minimum),
            "PGDATA": _DATA,
            **self._connection(),
        }
        pod = self._pod(
            "base-backup.sh",
            variables,
            mounts=[
                {"name": "data", "mount_path": _DATA, "sub_path": _data_folder(cluster), "read_only": True},
                {"name": "configuration", "mount_path": _CONFIGURATION, "read_only": True},
            ],
            volumes=[
                {"name": "data", "persistent_volume_claim": {"claim_name": _CLAIM}},
                {"name": "configuration", "empty_dir": {"size_limit": "16Mi"}},
            ],
            # Barman wants the server's configuration too, which is in the database's image.
            init_containers=[
                container(
                    cluster,
                    Service.BACKUPS,
                    "configuration",
                    {
                        "image": cluster.catalog.image(Service.DATABASE),
                        "command": ["cp", "-R", f"{_CONFIGURATION}/.", "/configuration/"],
                        "resources": _COURIER_RESOURCES,
                    },
                    [{"name": "configuration", "mount_path": "/configuration"}],
                )
            ],
        )
        # The volume can be mounted by several Pods, but on one node only: the server's.
        beside = {
            "label_selector": {"match_labels": cluster.selector(Service.DATABASE)},
            "topology_key": "kubernetes.io/hostname",
        }
        return {
            **pod,
            "affinity": {"pod_affinity": {"required_during_scheduling_ignored_during_execution": [beside]}},
        }

    def _restore(self) -> None:
        cluster = self._cluster
        logins = {
            cluster.admin_user: "POSTGRES_PASSWORD",
            "postgres": "POSTGRES_PASSWORD",
            **service_logins(cluster.api_servers),
        }
        variables = {
            "PGDATA": f"/volume/{_data_folder(cluster)}",
            "RESTORE_DATABASE": cluster.database_name,
            "RESTORE_PASSWORDS": "\n".join(f"{role} {key}" for role, key in logins.items()),
            "RESTORE_SHARED_BUFFERS": "256MB",
        }
        pod = self._pod(
            "restore-physical.sh",
            variables,
            passwords=sorted(set(logins.values())),
            # All of the volume: the files change places in it.
            mounts=[{"name": "data", "mount_path": "/volume"}],
            volumes=[{"name": "data", "persistent_volume_claim": {"claim_name": _CLAIM}}],
        )
        self._cron_job(
            RESTORE_JOB, "0 0 1 1 *", pod, suspend=True, deadline_seconds=_RESTORE_DEADLINE_SECONDS, backoff_limit=0
        )

    def _cron_job(
        self,
        name: str,
        schedule: str,
        pod: Mapping[str, Any],
        *,
        suspend: bool = False,
        deadline_seconds: int = _BACKUP_DEADLINE_SECONDS,
        backoff_limit: int = 1,
    ) -> None:
        k8s.batch.v1.CronJob(
            f"{self._name}-{name.rpartition('-')[2]}",
            metadata=self._metadata(name),
            spec={
                "schedule": schedule,
                "time_zone": "Etc/UTC",
                "suspend": suspend,
                "concurrency_policy": "Forbid",
                "starting_deadline_seconds": _START_DEADLINE_SECONDS,
                "successful_jobs_history_limit": 3,
                "failed_jobs_history_limit": 3,
                "job_template": {
                    "spec": {
                        "backoff_limit": backoff_limit,
                        "active_deadline_seconds": deadline_seconds,
                        "template": {"metadata": {"labels": self._labels}, "spec": pod},
                    }
                },
            },
            opts=self._after,
        )

    def _cloud_native_pg(self, settings: BackupSettings) -> None:
        if settings.physical is None:
            raise ValueError("there are no physical backups")
        secret = service_name(Service.BACKUPS)
        encryption = {} if settings.encryption == "bucket" else {"encryption": settings.encryption}
        endpoint = {} if settings.endpoint is None else {"endpointURL": settings.endpoint}
        k8s.apiextensions.CustomResource(
            f"{self._name}-store",
            api_version="barmancloud.cnpg.io/v1",
            kind="ObjectStore",
            metadata=self._metadata(OBJECT_STORE),
            spec={
                "configuration": {
                    "destinationPath": settings.destination,
                    **endpoint,
                    "s3Credentials": {
                        "accessKeyId": {"name": secret, "key": "AWS_ACCESS_KEY_ID"},
                        "secretAccessKey": {"name": secret, "key": "AWS_SECRET_ACCESS_KEY"},
                    },
                    "wal": {"compression": "gzip", **encryption},
                    "data": {"compression": "gzip", "immediateCheckpoint": True, **encryption},
                },
                "retentionPolicy": f"{settings.physical.retain_days}d",
                "instanceSidecarConfiguration": {
                    "env": [
                        {"name": "AWS_DEFAULT_REGION", "value": settings.region},
                        # Checksums that many S3-compatible servers do not know.
                        *(
                            {"name": f"AWS_{part}", "value": "when_required"}
                            for part in ("REQUEST_CHECKSUM_CALCULATION", "RESPONSE_CHECKSUM_VALIDATION")
                            if settings.endpoint is not None
                        ),
                    ],
                    "resources": _COURIER_RESOURCES,
                },
            },
            opts=self._after,
        )
        k8s.apiextensions.CustomResource(
            f"{self._name}-schedule",
            api_version="postgresql.cnpg.io/v1",
            kind="ScheduledBackup",
            metadata=self._metadata(secret),
            spec={
                # The operator's schedules begin with seconds.
                "schedule": f"0 {settings.physical.schedule}",
                "backupOwnerReference": "self",
                "cluster": {"name": CLOUD_NATIVE_PG_CLUSTER},
                "method": "plugin",
                "pluginConfiguration": {"name": ARCHIVER_PLUGIN},
            },
            opts=self._after,
        )


def _scripts(settings: BackupSettings) -> dict[str, str]:
    files = {path.name: path.read_text(encoding="utf-8") for path in sorted(SCRIPTS.glob("*.*"))}
    # PostgreSQL's programs want the name of the user that they run as, which the image does not have.
    user = f"postgres:x:{settings.database_user}:{settings.database_group}::/tmp:/bin/bash\n"
    return {**files, "passwd": f"root:x:0:0::/root:/bin/bash\n{user}"}


def _archiver(cluster: Cluster, settings: BackupSettings) -> dict[str, Any]:
    alive = f"[[ -n $(find {_HANDOVER_FOLDER}/alive -mmin -{_COURIER_SILENT_MINUTES}) ]]"
    return container(
        cluster,
        Service.BACKUPS,
        "wal-archiver",
        {
            "command": [f"{_SCRIPTS_FOLDER}/wal-archiver.sh", _HANDOVER_FOLDER],
            # Stops after the server, so that what that writes last is shipped too.
            "restart_policy": "Always",
            "env": [*_store_env(settings), {"name": "PGDATA", "value": _DATA}],
            "security_context": {
                "allow_privilege_escalation": False,
                "read_only_root_filesystem": True,
                "capabilities": {"drop": ["ALL"]},
                "run_as_non_root": True,
                "run_as_user": settings.database_user,
                "run_as_group": settings.database_group,
            },
            "liveness_probe": {"exec_": {"command": ["/bin/bash", "-c", alive]}, "period_seconds": 60},
            "resources": _COURIER_RESOURCES,
        },
        [
            _scripts_mount(),
            _passwd_mount(),
            _handover_mount(),
            _scratch_mount("archiver-scratch"),
            {"name": "data", "mount_path": _DATA, "sub_path": _data_folder(cluster), "read_only": True},
        ],
    )


def _data_folder(cluster: Cluster) -> str:
    """The folder of the volume that the server has at :data:`_DATA`."""
    return cluster.settings.database.data_folder


def _store_env(settings: BackupSettings) -> list[dict[str, Any]]:
    plain = [{"name": name, "value": value} for name, value in store_variables(settings).items()]
    return [*plain, *(_secret_env(name, name) for name in S3_KEYS)]


def _secret_env(name: str, entry: str) -> dict[str, Any]:
    secret = {"name": service_name(Service.BACKUPS), "key": entry}
    return {"name": name, "value_from": {"secret_key_ref": secret}}


def _scripts_volume() -> dict[str, Any]:
    return {"name": "backup-scripts", "config_map": {"name": _CONFIG_MAP, "default_mode": 0o555}}


def _scripts_mount() -> dict[str, Any]:
    return {"name": "backup-scripts", "mount_path": _SCRIPTS_FOLDER, "read_only": True}


def _passwd_mount() -> dict[str, Any]:
    return {"name": "backup-scripts", "mount_path": "/etc/passwd", "sub_path": "passwd", "read_only": True}


def _handover_mount() -> dict[str, Any]:
    return {"name": "backup-handover", "mount_path": _HANDOVER_FOLDER}


def _scratch_mount(volume: str) -> dict[str, Any]:
    return {"name": volume, "mount_path": "/tmp"}  # noqa: S108 a folder of the container
