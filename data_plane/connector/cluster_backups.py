"""Backups of a deployed environment: what the cluster's CronJobs do, done now, and a restore, step by step."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import Any

import psycopg
import yaml
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from pydantic import ValidationError
from ruamel.yaml import YAML
from urllib3.exceptions import MaxRetryError

from data_plane.clients.openbao import OpenBaoUnavailableError, connect
from data_plane.clients.postgres import PLATFORM_SESSION, DatabaseUnavailableError
from data_plane.connector.backups import Backups, RestoreRequest, s3_credentials
from data_plane.connector.reconcile_credentials import connector_secret, reconcile_credentials
from data_plane.errors import BackupError, DeploymentError, KubernetesError, UsageError
from data_plane.local.backups import list_backups
from data_plane.local.processes import wait_until
from data_plane.model.backup_list import BackupList
from data_plane.model.backup_objects import ARCHIVER_PLUGIN, RESTORE_JOB, backup_jobs, recovery
from data_plane.model.backup_settings import BackupSettings
from data_plane.model.catalog import Service
from data_plane.model.cluster_names import CLOUD_NATIVE_PG_CLUSTER, Place, service_name
from data_plane.model.cluster_settings import ClusterSettings, DatabaseMode
from data_plane.model.problems import ConfigurationError, problems_of
from data_plane.model.projects import stack_files
from data_plane.model.settings import DatabaseSettings
from data_plane.state_dir import CHECKOUT

__all__ = ["CentralStack", "ClusterApi", "ClusterBackups", "central_stack", "cluster_errors"]

_POLL_SECONDS = 2.0
_STOP_SECONDS = 600
_START_SECONDS = 1800
_JOB_SECONDS = 24 * 3600
_LOG_LINES = 20
_WANTED = "supabase-data-plane/variables"
_SERVER = service_name(Service.DATABASE)


@dataclass(frozen=True)
class CentralStack:
    """What a deployed environment's central stack says of its database and its backups."""

    name: str
    kubernetes: ClusterSettings
    database: DatabaseSettings
    openbao_address: str

    @property
    def backups(self) -> BackupSettings:
        """Raises: ConnectorError: if the stack makes none."""
        if self.kubernetes.backups is None:
            raise DeploymentError(f"stack {self.name} has no kubernetes.backups: it makes no backups")
        return self.kubernetes.backups


def central_stack(environment: str, root: Path = CHECKOUT) -> CentralStack:
    """The central stack of an environment, from ``stacks/Pulumi.*.yaml``.

    Raises:
        ConnectorError: if there is none, or it runs nothing on a cluster.
        ConfigurationError: with every problem of its settings.
    """
    for path in stack_files(root):
        document = YAML(typ="safe").load(path.read_text(encoding="utf-8")) or {}
        settings = {key.rpartition(":")[2]: value for key, value in (document.get("config") or {}).items()}
        if (settings.get("kind"), settings.get("environment")) != ("central", environment):
            continue
        if "kubernetes" not in settings:
            raise DeploymentError(
                f"stacks/{path.name} has no setting `kubernetes`: its database is backed up elsewhere"
            )
        try:
            return CentralStack(
                path.name.removeprefix("Pulumi.").removesuffix(".yaml"),
                ClusterSettings.model_validate(settings["kubernetes"]),
                DatabaseSettings.model_validate(settings.get("database") or {}),
                str((settings.get("openbao") or {}).get("address", "")),
            )
        except ValidationError as error:
            model = ClusterSettings if error.title == ClusterSettings.__name__ else DatabaseSettings
            raise ConfigurationError(problems_of(error, f"stacks/{path.name}", model)) from error
    raise DeploymentError(f"no stacks/Pulumi.*.yaml is the central stack of environment {environment!r}")


@contextmanager
def cluster_errors() -> Iterator[None]:
    """Turns what a cluster refuses, or its silence, into one clear error."""
    try:
        yield
    except ApiException as error:
        raise KubernetesError(f"the cluster refused: {error.reason or 'no reason given'} ({error.status})") from error
    except MaxRetryError as error:
        raise KubernetesError(f"the cluster does not answer: {error.reason}") from error


class ClusterApi:
    """The few things that backups ask of a cluster, in one namespace.

    Args:
        namespace: the database's.
        context: of the kubeconfig; the current one unless given.
    """

    def __init__(self, namespace: str, context: str | None = None) -> None:
        self.namespace = namespace
        try:
            api = config.new_client_from_config(context=context)  # type: ignore[no-untyped-call]
        except config.ConfigException as error:
            raise KubernetesError(f"the cluster cannot be reached: {error}") from error
        # The client's types say that everything may be None.
        self._apps: Any = client.AppsV1Api(api)
        self._batch: Any = client.BatchV1Api(api)
        self._core: Any = client.CoreV1Api(api)
        self._custom: Any = client.CustomObjectsApi(api)

    def suspend(self, cron_job: str, *, suspend: bool) -> None:
        """Keeps a CronJob from starting Jobs, or lets it."""
        self._batch.patch_namespaced_cron_job(cron_job, self.namespace, {"spec": {"suspend": suspend}})

    def run(self, cron_job: str, variables: Mapping[str, str]) -> str:
        """Makes a Job of what a CronJob holds, with further variables, and gives its name."""
        found = self._batch.read_namespaced_cron_job(cron_job, self.namespace)
        spec = found.spec.job_template.spec
        container = spec.template.spec.containers[0]
        container.env = [*(container.env or []), *(client.V1EnvVar(name=k, value=v) for k, v in variables.items())]
        metadata = client.V1ObjectMeta(
            generate_name=f"{cron_job}-",
            labels=dict(found.metadata.labels or {}),
            annotations={_WANTED: json.dumps(variables, sort_keys=True)},
        )
        made = self._batch.create_namespaced_job(self.namespace, client.V1Job(metadata=metadata, spec=spec))
        return str(made.metadata.name)

    def unfinished(self, cron_job: str) -> str | None:
        """A Job of :meth:`run` that has not ended, if there is one."""
        names = [str(job.metadata.name) for job in self._batch.list_namespaced_job(self.namespace).items]
        running = [name for name in names if name.startswith(f"{cron_job}-") and self.outcome(name) is None]
        return running[0] if running else None

    def succeeded(self, cron_job: str, variables: Mapping[str, str]) -> bool:
        """Whether the last Job of :meth:`run` was one with the same variables, and succeeded."""
        jobs = self._batch.list_namespaced_job(self.namespace).items
        mine = [job for job in jobs if str(job.metadata.name).startswith(f"{cron_job}-")]
        if not mine:
            return False
        last = str(max(mine, key=lambda job: job.metadata.creation_timestamp).metadata.name)
        return self.has(last, variables) and self.outcome(last) is True

    def has(self, job: str, variables: Mapping[str, str]) -> bool:
        """Whether a Job of :meth:`run` was made with these variables."""
        found = self._batch.read_namespaced_job(job, self.namespace).metadata.annotations or {}
        return bool(found.get(_WANTED) == json.dumps(variables, sort_keys=True))

    def outcome(self, job: str) -> bool | None:
        """Whether a Job succeeded; None while it has not ended."""
        conditions = self._batch.read_namespaced_job(job, self.namespace).status.conditions or []
        ended = {item.type for item in conditions if item.status == "True"} & {"Complete", "Failed"}
        return None if not ended else "Complete" in ended

    def log(self, job: str) -> str:
        """The end of what a Job's last Pod said."""
        pods = self._core.list_namespaced_pod(self.namespace, label_selector=f"job-name={job}").items
        if not pods:
            return "(it had no Pod)"
        last = max(pods, key=lambda pod: pod.metadata.creation_timestamp)
        try:
            text = self._core.read_namespaced_pod_log(last.metadata.name, self.namespace, tail_lines=_LOG_LINES)
        except ApiException as error:
            return f"(no log: {error.reason})"
        return str(text).strip()

    def scale(self, stateful_set: str, replicas: int) -> None:
        """Asks for a number of Pods."""
        self._apps.patch_namespaced_stateful_set_scale(stateful_set, self.namespace, {"spec": {"replicas": replicas}})

    def pods(self, stateful_set: str) -> tuple[int, int]:
        """How many Pods there are, and how many of them are ready."""
        status = self._apps.read_namespaced_stateful_set(stateful_set, self.namespace).status
        return status.replicas or 0, status.ready_replicas or 0

    def back_up_cluster(self, cluster: str) -> None:
        """Asks CloudNativePG for a base backup."""
        body: dict[str, Any] = {
            "apiVersion": "postgresql.cnpg.io/v1",
            "kind": "Backup",
            "metadata": {"generateName": f"{cluster}-", "namespace": self.namespace},
            "spec": {
                "cluster": {"name": cluster},
                "method": "plugin",
                "pluginConfiguration": {"name": ARCHIVER_PLUGIN},
            },
        }
        self._custom.create_namespaced_custom_object("postgresql.cnpg.io", "v1", self.namespace, "backups", body)


class ClusterBackups(Backups):
    """Backups of a deployed environment.

    Args:
        stack: its central stack.
        say: is told what is going on.
        api: the cluster; that of the stack's settings unless given.
    """

    def __init__(self, stack: CentralStack, say: Callable[[str], None], api: ClusterApi | None = None) -> None:
        self._stack = stack
        self._say = say
        self._given_api = api

    @cached_property
    def _api(self) -> ClusterApi:
        settings = self._stack.kubernetes
        return self._given_api or ClusterApi(f"{settings.namespace}{Place.DATA.value}", settings.context)

    @property
    def _mode(self) -> DatabaseMode:
        return self._stack.kubernetes.database.mode

    def back_up(self) -> None:
        if self._mode is DatabaseMode.CLOUD_NATIVE_PG and self._stack.backups.physical is not None:
            self._api.back_up_cluster(CLOUD_NATIVE_PG_CLUSTER)
            self._say("asked CloudNativePG for a base backup: kubectl get backups shows how it goes")
        for kind, cron_job in backup_jobs(self._mode, self._stack.backups).items():
            self._say(f"making a {kind} backup")
            self._wait(self._api.run(cron_job, {}), f"the {kind} backup")

    def available(self) -> BackupList:
        openbao = connect(self._stack.openbao_address)
        credentials = s3_credentials(connector_secret(openbao), "kubernetes.backups")
        return list_backups(self._stack.backups, credentials, self._say)

    def plan(self, request: RestoreRequest) -> list[str]:
        if request.dump is not None or request.project is not None:
            raise BackupError(
                "dumps of a deployed environment are restored by hand: docs/how-to/back-up-and-restore.md"
            )
        match self._mode:
            case DatabaseMode.EXTERNAL:
                raise BackupError(
                    "an external database is restored by its operator; for what dumps hold, see "
                    "docs/how-to/back-up-and-restore.md"
                )
            case DatabaseMode.CLOUD_NATIVE_PG:
                return self._new_cluster(request)
            case DatabaseMode.STATEFUL_SET:
                backup = self.start_from(request)
                goal = "all there is" if request.to is None else f"{request.to:%Y-%m-%d %H:%M:%S}Z"
                namespace = self._api.namespace
                return [
                    f"suspend the backups in namespace {namespace}",
                    f"scale StatefulSet {_SERVER} to 0; nobody can work meanwhile",
                    f"run a Job of {RESTORE_JOB}: physical backup {backup.backup_id}, then the log up to {goal}",
                    "the present files stay on the volume, in a folder beside the new ones",
                    f"scale StatefulSet {_SERVER} to 1 and resume the backups; if the Job fails, on the present files",
                    "give OpenBao's and the services' logins today's passwords, and end every lease",
                ]

    def restore(self, request: RestoreRequest) -> None:
        if self._mode is not DatabaseMode.STATEFUL_SET:
            raise BackupError("with CloudNativePG a restore is a new Cluster: the plan says how; nothing was done")
        backup = self.start_from(request)
        api = self._api
        variables = {
            "RESTORE_BACKUP": backup.backup_id,
            "RESTORE_TO": "" if request.to is None else request.to.isoformat(),
            "RESTORE_TIMELINE": request.timeline,
        }
        # What an earlier, interrupted call began goes on by itself.
        job = api.unfinished(RESTORE_JOB)
        if job is not None and not api.has(job, variables):
            raise BackupError(
                f"job {job} restores something else, and nothing was done: give the command that began it again, or "
                "wait until the job has ended"
            )
        cron_jobs = list(backup_jobs(self._mode, self._stack.backups).values())
        for cron_job in cron_jobs:
            api.suspend(cron_job, suspend=True)
        if job is None and api.pods(_SERVER)[0] == 0 and api.succeeded(RESTORE_JOB, variables):
            self._say("an earlier call has restored the files already")
        else:
            if job is None:
                self._stop()
                job = api.run(RESTORE_JOB, variables)
            self._say(f"restoring: kubectl logs -f -n {api.namespace} job/{job}")
            # Never with the Job still at work: it moves the server's files.
            self._ended(job, "the restore")
        self._say("starting PostgreSQL")
        api.scale(_SERVER, 1)
        for cron_job in cron_jobs:
            api.suspend(cron_job, suspend=False)
        if job is not None:
            self._succeeded(job, "the restore; PostgreSQL is being started on the former files")
        self._until(lambda: api.pods(_SERVER)[1] == 1, _START_SECONDS, "PostgreSQL is not ready")
        self.reconcile_credentials()
        self._say(f"done; now bring the stacks in line: pulumi up --refresh --stack {self._stack.name}, then the cells")

    def check(self, request: RestoreRequest) -> None:
        raise UsageError(
            "--check: a drill of a deployed environment is described in docs/how-to/back-up-and-restore.md"
        )

    def reconcile_credentials(self) -> None:
        """Brings passwords and leases in line with OpenBao."""
        database = self._stack.database
        try:
            openbao = connect(self._stack.openbao_address)
        except OpenBaoUnavailableError as error:
            raise OpenBaoUnavailableError(f"{error}; then run: dataplane secret reconcile") from error
        password = connector_secret(openbao).get("POSTGRES_PASSWORD")
        try:
            connection = psycopg.connect(
                host=database.host,
                port=database.port,
                dbname=database.name,
                user=database.admin_user,
                password=password,
                sslmode=database.sslmode,
                connect_timeout=15,
                options=PLATFORM_SESSION,
            )
        except psycopg.OperationalError as error:
            raise DatabaseUnavailableError(
                f"PostgreSQL at {database.host}:{database.port} cannot be reached from here ({str(error).strip()}), to "
                "end the leases of another time: run `dataplane secret reconcile` where it can"
            ) from error
        with connection:
            reconcile_credentials(openbao, connection)

    def _new_cluster(self, request: RestoreRequest) -> list[str]:
        settings = self._stack.backups
        to = None if request.to is None else request.to.isoformat()
        # The plugin refuses to write where another Cluster wrote.
        successor = settings.model_copy(update={"server": f"{settings.server}-2"})
        stream = StringIO()
        yaml.safe_dump({"spec": recovery(successor, settings.server, to)}, stream, sort_keys=False)
        return [
            f"set kubernetes.backups.server to {successor.server}, where the new Cluster will write",
            f"kubectl get cluster {CLOUD_NATIVE_PG_CLUSTER} -o yaml > old.yaml; delete the Cluster, not its volumes",
            "make the new one of old.yaml with these parts instead (and without its `bootstrap`):\n"
            + stream.getvalue(),
            f"dataplane secret reconcile, then pulumi up --refresh --stack {self._stack.name}, then the cells",
        ]

    def _stop(self) -> None:
        self._say("stopping PostgreSQL")
        self._api.scale(_SERVER, 0)
        self._until(lambda: self._api.pods(_SERVER)[0] == 0, _STOP_SECONDS, "PostgreSQL has not stopped")

    def _wait(self, job: str, what: str) -> None:
        self._ended(job, what)
        self._succeeded(job, what)

    def _ended(self, job: str, what: str) -> None:
        self._until(lambda: self._api.outcome(job) is not None, _JOB_SECONDS, f"{what} (job {job}) has not ended")

    def _succeeded(self, job: str, what: str) -> None:
        if not self._api.outcome(job):
            raise BackupError(f"job {job} failed: {what}; the end of its log:\n{self._api.log(job)}")

    @staticmethod
    def _until(done: Callable[[], bool], seconds: float, otherwise: str) -> None:
        if not wait_until(done, seconds, _POLL_SECONDS):
            raise BackupError(f"{otherwise} within {seconds / 60:.0f} minutes; run the same command again to resume")
