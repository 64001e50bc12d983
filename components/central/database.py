"""PostgreSQL, run in one of three ways behind one interface.

- ``statefulset``: one Pod on Supabase's image, with its volume. What the official compose file does, on a cluster.
- ``cloudnativepg``: a ``Cluster`` of the CloudNativePG operator: a primary, replicas and failover.
- ``external``: nothing is created; the stack's ``database`` says where it is.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pulumi
import pulumi_kubernetes as k8s

from components.central.backups import Archiving
from components.central.cluster import Cluster
from components.central.service_deployment import checksum, container, pod_spec
from components.central.service_secrets import SecretAccess, ServiceSecret, ServiceSecretArgs, secret_field
from data_plane.model.catalog import Service, bytes_of
from data_plane.model.cluster_names import CLOUD_NATIVE_PG_CLUSTER, PORTS, service_name
from data_plane.model.cluster_settings import DatabaseMode
from data_plane.model.server_parameters import cron_parameters, data_limit_command, server_parameters

__all__ = ["ADMIN_USER", "Database", "DatabaseArgs"]

ADMIN_USER = "supabase_admin"
"""The superuser of Supabase's image."""
_PRELOADED = (
    "pg_stat_statements",
    "pgaudit",
    "plpgsql",
    "plpgsql_check",
    "pg_cron",
    "pg_net",
    "pgsodium",
    "auto_explain",
    "pg_tle",
    "plan_filter",
    "supabase_vault",
)
"""What ``postgresql.conf`` of Supabase's image loads; CloudNativePG writes a file of its own."""
_DATA = "/var/lib/postgresql/data"
_CUSTOM = "/etc/postgresql-custom"
_TLS = "/etc/postgresql-tls"
_SHUTDOWN_SECONDS = 300
"""A checkpoint of a large database takes its time; what is cut short is made good at the next start."""
_READY_SECONDS = 600
_ENTRYPOINT = "docker-entrypoint.sh"
"""Of the image, which a command hides."""
_PROCESS_KIBIBYTES_MINIMUM = 256 * 1024

# An empty volume hides what the image has in this folder (an included configuration, the root key of pgsodium once it
# is made), where Docker would have copied it. The key is not in the image, so an upgrade never overwrites it.
_KEEP_CUSTOM = (
    f"mkdir -p /volume/custom && cp -R {_CUSTOM}/. /volume/custom/ && chown -R postgres:postgres /volume/custom"
)
_OWN_TLS = f"install -o postgres -g postgres -m 0600 /tls-secret/tls.crt /tls-secret/tls.key {_TLS}/"


@dataclass(frozen=True)
class DatabaseArgs:
    """Arguments of :class:`Database`."""

    cluster: Cluster
    access: SecretAccess
    archiving: Archiving = field(default_factory=Archiving)
    """What ships the write-ahead log."""
    after: Sequence[pulumi.Resource] = ()
    """Resources that the server needs before it starts."""


class Database(pulumi.ComponentResource):
    """Creates PostgreSQL where this stack runs it, waits for it, and keeps its volume whatever happens to the stack."""

    def __init__(self, name: str, args: DatabaseArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("supabase-data-plane:central:Database", name, None, opts)
        self._name = name
        self._args = args
        match args.cluster.settings.database.mode:
            case DatabaseMode.STATEFUL_SET:
                self._stateful_set()
            case DatabaseMode.CLOUD_NATIVE_PG:
                self._cloud_native_pg()
            case DatabaseMode.EXTERNAL:
                pass
        self.register_outputs({})

    def _stateful_set(self) -> None:
        args, cluster, service = self._args, self._args.cluster, Service.DATABASE
        settings = cluster.settings.database
        on_cluster = pulumi.ResourceOptions(parent=self, provider=cluster.provider)
        labels = cluster.labels(service)
        metadata = {"name": service_name(service), "namespace": cluster.namespace(service), "labels": labels}
        account = k8s.core.v1.ServiceAccount(
            self._name, metadata=metadata, automount_service_account_token=False, opts=on_cluster
        )
        # Both at the first start only; later, `dataplane secret rotate` changes the login itself.
        secret_env = {
            "POSTGRES_PASSWORD": secret_field("POSTGRES_PASSWORD"),
            "PGPASSWORD": secret_field("POSTGRES_PASSWORD"),
        }
        secret = ServiceSecret(
            self._name,
            service,
            cluster,
            args.access,
            ServiceSecretArgs(("POSTGRES_PASSWORD",), secret_env, labels, account),
            opts=pulumi.ResourceOptions(parent=self),
        )
        headless = k8s.core.v1.Service(
            f"{self._name}-pods",
            metadata={**metadata, "name": f"{service_name(service)}-pods"},
            spec={
                "cluster_ip": "None",
                "selector": cluster.selector(service),
                "ports": [{"name": "postgres", "port": PORTS[service]["postgres"]}],
                "publish_not_ready_addresses": True,
            },
            opts=on_cluster,
        )
        pod = self._pod(secret_env)
        k8s.apps.v1.StatefulSet(
            self._name,
            metadata={
                **metadata,
                "annotations": {"pulumi.com/timeoutSeconds": str(_READY_SECONDS)},
            },
            spec={
                "replicas": 1,
                "service_name": f"{service_name(service)}-pods",
                "selector": {"match_labels": cluster.selector(service)},
                "update_strategy": {"type": "RollingUpdate"},
                # Scaling to nothing, or deleting the set, keeps the data.
                "persistent_volume_claim_retention_policy": {"when_deleted": "Retain", "when_scaled": "Retain"},
                "template": {
                    "metadata": {
                        "labels": labels,
                        "annotations": {
                            "supabase-data-plane/parameters": checksum(self._parameters()),
                            **args.archiving.annotations,
                        },
                    },
                    "spec": pod,
                },
                "volume_claim_templates": [
                    {
                        "metadata": {"name": "data"},
                        "spec": {
                            "access_modes": ["ReadWriteOnce"],
                            "resources": {"requests": {"storage": settings.storage}},
                            **({"storage_class_name": settings.storage_class} if settings.storage_class else {}),
                        },
                    }
                ],
            },
            opts=pulumi.ResourceOptions.merge(
                on_cluster,
                pulumi.ResourceOptions(
                    protect=cluster.settings.applied,
                    retain_on_delete=cluster.settings.applied,
                    depends_on=[secret, headless, *args.after],
                    # Kubernetes lets nobody change it; a volume grows by its claim (docs/how-to/upgrade.md).
                    ignore_changes=["spec.volumeClaimTemplates"],
                ),
            ),
        )
        k8s.core.v1.Service(
            self._name,
            metadata=metadata,
            spec={
                "type": "ClusterIP",
                "selector": cluster.selector(service),
                "ports": [{"name": "postgres", "port": PORTS[service]["postgres"], "target_port": "postgres"}],
            },
            opts=on_cluster,
        )
        k8s.policy.v1.PodDisruptionBudget(
            self._name,
            metadata=metadata,
            # There is no second one to take over: a node is drained when somebody has decided on the moment.
            spec={"max_unavailable": 0, "selector": {"match_labels": cluster.selector(service)}},
            opts=on_cluster,
        )

    def _pod(self, secret_env: Mapping[str, str]) -> dict[str, Any]:
        args, cluster, service = self._args, self._args.cluster, Service.DATABASE
        tls = cluster.settings.database.tls_secret
        mounts: list[dict[str, Any]] = [
            {"name": "data", "mount_path": _DATA, "sub_path": cluster.settings.database.data_folder},
            {"name": "data", "mount_path": _CUSTOM, "sub_path": "custom"},
            {"name": "run", "mount_path": "/var/run/postgresql"},
            {"name": "scratch", "mount_path": "/tmp"},  # noqa: S108 a folder of the container
            {"name": "memory", "mount_path": "/dev/shm"},  # noqa: S108 POSIX shared memory, for parallel queries
            *([{"name": "tls", "mount_path": _TLS, "read_only": True}] if tls else []),
            *(dict(mount) for mount in args.archiving.mounts),
        ]
        volumes: list[dict[str, Any]] = [
            {"name": "run", "empty_dir": {"medium": "Memory", "size_limit": "16Mi"}},
            {"name": "scratch", "empty_dir": {"size_limit": "1Gi"}},
            {"name": "memory", "empty_dir": {"medium": "Memory", "size_limit": "1Gi"}},
            # PostgreSQL wants a key that is its own and nobody else's, as a Secret's files cannot be: it gets a copy.
            *(
                [
                    {"name": "tls", "empty_dir": {"medium": "Memory", "size_limit": "1Mi"}},
                    {"name": "tls-secret", "secret": {"secret_name": tls, "default_mode": 0o400}},
                ]
                if tls
                else []
            ),
            *(dict(volume) for volume in args.archiving.volumes),
        ]
        # The entrypoint starts as root, gives the volume to `postgres` and becomes it: five capabilities, which the
        # baseline standard allows and the restricted one does not.
        as_root = {
            "allow_privilege_escalation": False,
            "capabilities": {"drop": ["ALL"], "add": ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"]},
        }
        check = {"exec_": {"command": ["pg_isready", "--username", "postgres", "--host", "localhost"]}}
        own_mounts: list[dict[str, Any]] = [
            {"name": "data", "mount_path": "/volume"},
            *([{"name": "tls", "mount_path": _TLS}] if tls else []),
            *([{"name": "tls-secret", "mount_path": "/tls-secret", "read_only": True}] if tls else []),
        ]
        arguments = [_ENTRYPOINT, "postgres", "-c", "config_file=/etc/postgresql/postgresql.conf"]
        for key, value in sorted(self._parameters().items()):
            arguments += ["-c", f"{key}={value}"]
        pod = pod_spec(
            cluster,
            service,
            user=0,
            group=None,
            grace_seconds=_SHUTDOWN_SECONDS,
            volumes=volumes,
            init_containers=[
                container(
                    cluster,
                    service,
                    "keep-configuration",
                    {
                        "command": ["/bin/bash", "-euc", f"{_KEEP_CUSTOM}\n{_OWN_TLS if tls else ''}"],
                        "security_context": as_root,
                    },
                    own_mounts,
                ),
                *args.archiving.companions,
            ],
            containers=[
                container(
                    cluster,
                    service,
                    str(service),
                    {
                        "command": ["/bin/bash", "-c", data_limit_command(self._process_kibibytes()), "bash"],
                        "args": arguments,
                        "security_context": as_root,
                        "ports": [{"name": "postgres", "container_port": PORTS[service]["postgres"]}],
                        "env": [
                            {"name": "PGDATA", "value": _DATA},
                            {"name": "POSTGRES_DB", "value": cluster.database_name},
                            {"name": "PGDATABASE", "value": cluster.database_name},
                            {"name": "POSTGRES_HOST", "value": "/var/run/postgresql"},
                            *(
                                {
                                    "name": key,
                                    "value_from": {"secret_key_ref": {"name": service_name(service), "key": key}},
                                }
                                for key in secret_env
                            ),
                        ],
                        "startup_probe": {**check, "period_seconds": 5, "failure_threshold": _READY_SECONDS // 5},
                        "readiness_probe": {**check, "period_seconds": 5, "timeout_seconds": 5},
                        # Slow is not dead: recovery and checkpoints take long, and a restart would begin them again.
                        "liveness_probe": {
                            **check,
                            "period_seconds": 30,
                            "timeout_seconds": 10,
                            "failure_threshold": 6,
                        },
                    },
                    mounts,
                )
            ],
        )
        pod["security_context"] = {"seccomp_profile": {"type": "RuntimeDefault"}}
        return pod

    def _parameters(self) -> dict[str, str]:
        settings = self._args.cluster.settings.database
        tls = (
            {"ssl": "on", "ssl_cert_file": f"{_TLS}/tls.crt", "ssl_key_file": f"{_TLS}/tls.key"}
            if settings.tls_secret
            else {}
        )
        return {
            **server_parameters(self._major(), settings.max_connections),
            # The image loads pg_cron.
            **cron_parameters(self._args.cluster.database_name),
            # Realtime and logical backups of single tables read it.
            "wal_level": "logical",
            "password_encryption": "scram-sha-256",
            **tls,
            **self._args.archiving.parameters,
            **settings.parameters,
        }

    def _major(self) -> int | None:
        """The version of PostgreSQL that the image's tag begins with."""
        cluster = self._args.cluster
        image = cluster.settings.database.image
        tag = image.rpartition(":")[2] if image else cluster.catalog.version(Service.DATABASE)
        digits = re.match(r"\d+", tag)
        return int(digits[0]) if digits else None

    def _process_kibibytes(self) -> int:
        """The memory limit of one server process: an eighth of the container's."""
        cluster = self._args.cluster
        memory = cluster.catalog.resources(Service.DATABASE).limits.memory
        return max(_PROCESS_KIBIBYTES_MINIMUM, bytes_of(memory) // 8 // 1024) if memory else _PROCESS_KIBIBYTES_MINIMUM

    def _cloud_native_pg(self) -> None:
        args, cluster, service = self._args, self._args.cluster, Service.DATABASE
        settings = cluster.settings.database
        on_cluster = pulumi.ResourceOptions(parent=self, provider=cluster.provider)
        labels = cluster.labels(service)
        metadata = {"name": service_name(service), "namespace": cluster.namespace(service), "labels": labels}
        account = k8s.core.v1.ServiceAccount(
            self._name,
            # The operator makes the account of the Pods itself; this one only fetches the secret.
            metadata=metadata,
            automount_service_account_token=False,
            opts=on_cluster,
        )
        secret = ServiceSecret(
            self._name,
            service,
            cluster,
            args.access,
            ServiceSecretArgs(
                ("POSTGRES_PASSWORD",),
                {"username": ADMIN_USER, "password": secret_field("POSTGRES_PASSWORD")},
                {**labels, "cnpg.io/reload": "true"},
                account,
            ),
            opts=pulumi.ResourceOptions(parent=self),
        )
        amounts = cluster.catalog.resources(service)
        storage_class = {"storageClass": settings.storage_class} if settings.storage_class else {}
        spec: dict[str, Any] = {
            "instances": settings.instances,
            "imageName": settings.image,
            "primaryUpdateStrategy": "unsupervised",
            "priorityClassName": cluster.priority_class(service),
            "storage": {"size": settings.storage, **storage_class},
            **({"walStorage": {"size": settings.wal_storage, **storage_class}} if settings.wal_storage else {}),
            "resources": {
                "requests": amounts.requests.amounts(),
                "limits": amounts.limits.amounts(),
            },
            "affinity": {"topologyKey": "kubernetes.io/hostname", "podAntiAffinityType": "preferred"},
            "bootstrap": {"initdb": {"dataChecksums": True, "encoding": "UTF8"}},
            "managed": {
                "roles": [
                    {
                        "name": ADMIN_USER,
                        "ensure": "present",
                        "login": True,
                        "superuser": True,
                        "replication": True,
                        "passwordSecret": {"name": secret.secret_name},
                    }
                ]
            },
            "postgresql": {
                "parameters": {key: value for key, value in self._parameters().items() if key != "wal_level"},
                "shared_preload_libraries": [*_PRELOADED],
                # With three or more instances nothing that was committed is on one node alone.
                **({"synchronous": {"method": "any", "number": 1}} if settings.instances > 2 else {}),
            },
            **({"plugins": [*args.archiving.plugins]} if args.archiving.plugins else {}),
        }
        k8s.apiextensions.CustomResource(
            self._name,
            api_version="postgresql.cnpg.io/v1",
            kind="Cluster",
            metadata={
                **metadata,
                "name": CLOUD_NATIVE_PG_CLUSTER,
                # The operator's condition of that name; without it the resource would count as made at once.
                "annotations": {
                    "pulumi.com/waitFor": "condition=Ready",
                    "pulumi.com/timeoutSeconds": str(_READY_SECONDS),
                },
            },
            spec=spec,
            opts=pulumi.ResourceOptions.merge(
                on_cluster,
                pulumi.ResourceOptions(
                    protect=cluster.settings.applied,
                    retain_on_delete=cluster.settings.applied,
                    depends_on=[secret, *args.after],
                ),
            ),
        )
