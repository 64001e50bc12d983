"""ServiceAccount, Deployment, Service and PodDisruptionBudget of one service.

All services are alike in what a cluster wants of them, which is here, so that a service's own file says only what is
particular to it.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pulumi
import pulumi_kubernetes as k8s

from components.central.cluster import Cluster
from components.central.service_secrets import SecretAccess, ServiceSecret, ServiceSecretArgs
from data_plane.model.catalog import Service
from data_plane.model.cluster_names import PORTS, service_name

__all__ = [
    "Files",
    "Metrics",
    "Probes",
    "ServiceArgs",
    "ServiceDeployment",
    "ServiceDeploymentArgs",
    "checksum",
    "container",
    "pod_spec",
]

_SCRATCH_LIMIT = "512Mi"
_REQUIRED = "required_during_scheduling_ignored_during_execution"
_DRAIN_SECONDS = 5
"""How long a Pod goes on serving after it is told to end: what routers take to forget it."""


@dataclass(frozen=True)
class Probes:
    """How a container is asked whether it runs (liveness) and whether it can take requests (readiness)."""

    readiness: Mapping[str, Any]
    liveness: Mapping[str, Any]
    startup_seconds: int = 120
    """How long it may take to start."""

    @staticmethod
    def http(path: str, port: str, *, live: tuple[str, str] | None = None, startup_seconds: int = 120) -> "Probes":
        """Over HTTP; ``live`` is path and port of the liveness probe where they differ."""
        live_path, live_port = live or (path, port)
        return Probes(
            {"http_get": {"path": path, "port": port}},
            {"http_get": {"path": live_path, "port": live_port}},
            startup_seconds,
        )

    @staticmethod
    def tcp(port: str, *, startup_seconds: int = 120) -> "Probes":
        """By a connection."""
        return Probes({"tcp_socket": {"port": port}}, {"tcp_socket": {"port": port}}, startup_seconds)

    @staticmethod
    def command(*command: str, startup_seconds: int = 120) -> "Probes":
        """By a command in the container."""
        return Probes({"exec_": {"command": [*command]}}, {"exec_": {"command": [*command]}}, startup_seconds)


@dataclass(frozen=True)
class Files:
    """Files of a ConfigMap or a Secret, in a container."""

    path: str
    """The folder."""
    contents: Mapping[str, str] = field(default_factory=dict)
    """Names and texts of a ConfigMap that is made for them."""
    secret: str | None = None
    """The Secret that holds them instead."""
    items: tuple[str, ...] = ()
    """Which of the Secret's entries; all if empty."""


@dataclass(frozen=True)
class Metrics:
    """The port and path that Prometheus reads."""

    port: str
    path: str = "/metrics"


@dataclass(frozen=True)
class ServiceArgs:
    """Arguments of every service's component; the rest is in the cluster's settings."""

    cluster: Cluster
    access: SecretAccess


@dataclass(frozen=True)
class ServiceDeploymentArgs:
    """Arguments of :class:`ServiceDeployment`."""

    cluster: Cluster
    access: SecretAccess
    replicas: int
    user: int
    """The numeric user that the container runs as; the image's own where it has one."""
    probes: Probes
    instance: str | None = None
    """Which instance, of a service that has several (:attr:`data_plane.model.naming.ApiServer.instance`)."""
    group: int | None = None
    env: Mapping[str, pulumi.Input[str]] = field(default_factory=dict)
    secret_keys: tuple[str, ...] = ()
    """Keys of ``connectors/supabase`` that the service may read."""
    secret_env: Mapping[str, str] = field(default_factory=dict)
    """Variables made of them: see :func:`~components.central.service_secrets.secret_field`."""
    shared_env: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Variables from Secrets that are not this service's alone: name and entry of the Secret."""
    secret_files: Mapping[str, str] = field(default_factory=dict)
    """Files made of them, by name; mounted by ``files``."""
    field_env: Mapping[str, str] = field(default_factory=dict)
    """Variables that hold a field of the Pod, e.g. its address."""
    command: Sequence[str] | None = None
    arguments: Sequence[str] | None = None
    writable: tuple[str, ...] = ("/tmp",)  # noqa: S108 a folder of the container
    """Folders on scratch volumes; the rest of the file system is read-only."""
    files: tuple[Files, ...] = ()
    volumes: tuple[tuple[str, Mapping[str, Any], str], ...] = ()
    """Further volumes: name, source, folder."""
    prepare: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Commands that run one after the other before the service starts, in its image and with its variables."""
    waits_for_database: bool = True
    metrics: Metrics | None = None
    grace_seconds: int = 30
    """How long it may take to end."""
    recreate: bool = False
    """Whether the old Pod has to end before the new one starts, as with a volume for one node."""
    beside: Service | None = None
    """The service on whose node it has to run, because they share a volume for one node."""
    starts_anew_with: tuple[str, ...] = ()
    """Secrets beside its own whose change it notices only when it starts."""
    annotations: Mapping[str, pulumi.Input[str]] = field(default_factory=dict)
    """Of the Pods."""


class ServiceDeployment(pulumi.ComponentResource):
    """One service on the cluster.

    Creates a ServiceAccount without a mounted token, the secrets that the service may read, ConfigMaps for its files, a
    Deployment whose Pods meet the restricted Pod Security Standard, a Service if it listens, and with more than one
    replica a PodDisruptionBudget. A changed ConfigMap rolls the Pods; a changed Secret does where Stakater's Reloader
    is installed.
    """

    deployment: k8s.apps.v1.Deployment

    def __init__(
        self, name: str, service: Service, args: ServiceDeploymentArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        renamed = pulumi.ResourceOptions(aliases=[pulumi.Alias(type_="supabase-data-plane:central:Workload")])
        super().__init__(
            "supabase-data-plane:central:ServiceDeployment", name, None, pulumi.ResourceOptions.merge(opts, renamed)
        )
        cluster, own_name = args.cluster, service_name(service, args.instance)
        on_cluster = pulumi.ResourceOptions(parent=self, provider=cluster.provider)
        labels, selector = cluster.labels(service, args.instance), cluster.selector(service, args.instance)
        metadata = {"name": own_name, "namespace": cluster.namespace(service), "labels": labels}

        account = k8s.core.v1.ServiceAccount(
            name, metadata=metadata, automount_service_account_token=False, opts=on_cluster
        )
        waits: list[pulumi.Resource] = [account]
        if args.secret_keys:
            waits.append(
                ServiceSecret(
                    name,
                    service,
                    cluster,
                    args.access,
                    ServiceSecretArgs(
                        args.secret_keys, {**args.secret_env, **args.secret_files}, labels, account, args.instance
                    ),
                    opts=pulumi.ResourceOptions(parent=self),
                )
            )
        volumes, mounts = self._volumes(name, service, args, on_cluster)
        texts = {file.path: dict(file.contents) for file in args.files if file.contents}
        pod = pod_spec(
            cluster,
            service,
            instance=args.instance,
            user=args.user,
            group=args.group,
            grace_seconds=args.grace_seconds,
            volumes=volumes,
            init_containers=[
                *([_wait_for_database(cluster)] if args.waits_for_database else []),
                *(
                    container(cluster, service, step, {"command": [*command], **_variables(service, args)}, mounts)
                    for step, command in args.prepare.items()
                ),
            ],
            containers=[
                container(
                    cluster,
                    service,
                    str(service),
                    {**_command(args), **_variables(service, args), **_lifecycle(service, args)},
                    mounts,
                )
            ],
        )
        if args.beside is not None:
            pod["affinity"] = {"pod_affinity": {_REQUIRED: [_on_the_node_of(cluster, args.beside)]}}
        self.deployment = k8s.apps.v1.Deployment(
            name,
            metadata={**metadata, "annotations": _starts_anew_with(service, args)},
            spec={
                "replicas": args.replicas,
                "revision_history_limit": 5,
                "selector": {"match_labels": selector},
                "strategy": {"type": "Recreate"}
                if args.recreate
                else {"type": "RollingUpdate", "rolling_update": {"max_surge": 1, "max_unavailable": 0}},
                "template": {
                    "metadata": {
                        "labels": labels,
                        "annotations": {
                            **({"supabase-data-plane/files": checksum(texts)} if texts else {}),
                            **args.annotations,
                        },
                    },
                    "spec": pod,
                },
            },
            opts=pulumi.ResourceOptions.merge(on_cluster, pulumi.ResourceOptions(depends_on=waits)),
        )
        if PORTS[service]:
            k8s.core.v1.Service(
                name,
                metadata=metadata,
                spec={
                    "type": "ClusterIP",
                    "selector": selector,
                    "ports": [
                        {"name": port, "port": number, "target_port": port, "protocol": "TCP"}
                        for port, number in PORTS[service].items()
                    ],
                },
                opts=on_cluster,
            )
        if args.replicas > 1:
            k8s.policy.v1.PodDisruptionBudget(
                name,
                metadata=metadata,
                spec={
                    "max_unavailable": 1,
                    "selector": {"match_labels": selector},
                    # A Pod that is not ready serves nobody; draining its node should not wait for it.
                    "unhealthy_pod_eviction_policy": "AlwaysAllow",
                },
                opts=on_cluster,
            )
        if args.metrics is not None and cluster.settings.service_monitors:
            _service_monitor(name, metadata, selector, args.metrics, on_cluster)
        self.register_outputs({"deployment": own_name})

    @staticmethod
    def _volumes(
        name: str, service: Service, args: ServiceDeploymentArgs, opts: pulumi.ResourceOptions
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        volumes: list[dict[str, Any]] = []
        mounts: list[dict[str, Any]] = []
        for number, path in enumerate(args.writable):
            volumes.append({"name": f"scratch-{number}", "empty_dir": {"size_limit": _SCRATCH_LIMIT}})
            mounts.append({"name": f"scratch-{number}", "mount_path": path})
        for number, file in enumerate(args.files):
            volume = f"files-{number}"
            mounts.append({"name": volume, "mount_path": file.path, "read_only": True})
            if file.secret is not None:
                items = [{"key": item, "path": item} for item in file.items]
                volumes.append({"name": volume, "secret": {"secret_name": file.secret, "items": items}})
                continue
            own_name = service_name(service, args.instance)
            config = f"{own_name}-{number}" if number else own_name
            k8s.core.v1.ConfigMap(
                f"{name}-{number}" if number else name,
                metadata={
                    "name": config,
                    "namespace": args.cluster.namespace(service),
                    "labels": args.cluster.labels(service, args.instance),
                },
                data=dict(file.contents),
                opts=opts,
            )
            volumes.append({"name": volume, "config_map": {"name": config}})
        for volume, source, path in args.volumes:
            volumes.append({"name": volume, **source})
            mounts.append({"name": volume, "mount_path": path})
        return volumes, mounts


def pod_spec(
    cluster: Cluster,
    service: Service,
    *,
    user: int,
    group: int | None,
    volumes: Sequence[Mapping[str, Any]],
    containers: Sequence[Mapping[str, Any]],
    init_containers: Sequence[Mapping[str, Any]] = (),
    grace_seconds: int = 30,
    instance: str | None = None,
) -> dict[str, Any]:
    """A Pod that meets the restricted Pod Security Standard and spreads over nodes and zones.

    Args:
        grace_seconds: how long its containers may take to end.
        instance: which, of a service that has several.
    """
    pull_secret = cluster.settings.pull_secret
    return {
        "service_account_name": service_name(service, instance),
        "automount_service_account_token": False,
        # Variables for every other Service would tell a service of what it does not use.
        "enable_service_links": False,
        "priority_class_name": cluster.priority_class(service),
        "termination_grace_period_seconds": grace_seconds,
        **({"image_pull_secrets": [{"name": pull_secret}]} if pull_secret else {}),
        "security_context": {
            "run_as_non_root": True,
            "run_as_user": user,
            "run_as_group": user if group is None else group,
            "fs_group": user if group is None else group,
            "fs_group_change_policy": "OnRootMismatch",
            "seccomp_profile": {"type": "RuntimeDefault"},
        },
        "topology_spread_constraints": [
            {
                "max_skew": 1,
                "topology_key": key,
                "when_unsatisfiable": "ScheduleAnyway",
                "label_selector": {"match_labels": cluster.selector(service, instance)},
            }
            for key in ("kubernetes.io/hostname", "topology.kubernetes.io/zone")
        ],
        "init_containers": [*init_containers],
        "containers": [*containers],
        "volumes": [*volumes],
    }


def container(
    cluster: Cluster,
    service: Service,
    name: str,
    particulars: Mapping[str, Any],
    mounts: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """A container that may do nothing but run its program.

    Args:
        service: whose image and resources it has.
        particulars: command, variables, ports, probes.
    """
    amounts = cluster.catalog.resources(service)
    return {
        "name": name,
        "image": cluster.catalog.image(service),
        "image_pull_policy": "IfNotPresent",
        "resources": {"requests": amounts.requests.amounts(), "limits": amounts.limits.amounts()},
        "security_context": {
            "allow_privilege_escalation": False,
            "read_only_root_filesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volume_mounts": [*mounts],
        **particulars,
    }


def checksum(value: object) -> str:
    """A short digest by which Pods notice that their files have changed."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _on_the_node_of(cluster: Cluster, other: Service) -> dict[str, Any]:
    return {
        "label_selector": {"match_labels": cluster.selector(other)},
        "topology_key": "kubernetes.io/hostname",
    }


def _starts_anew_with(service: Service, args: ServiceDeploymentArgs) -> dict[str, str]:
    own = (service_name(service, args.instance),) if args.secret_keys else ()
    secrets = [*own, *args.starts_anew_with]
    return {"secret.reloader.stakater.com/reload": ",".join(secrets)} if secrets else {}


def _command(args: ServiceDeploymentArgs) -> dict[str, Any]:
    return {
        **({"command": [*args.command]} if args.command else {}),
        **({"args": [*args.arguments]} if args.arguments else {}),
    }


def _variables(service: Service, args: ServiceDeploymentArgs) -> dict[str, Any]:
    plain = [{"name": name, "value": value} for name, value in args.env.items()]
    from_pod = [
        {"name": name, "value_from": {"field_ref": {"field_path": path}}} for name, path in args.field_env.items()
    ]
    own = service_name(service, args.instance)
    secret = [{"name": name, "value_from": {"secret_key_ref": {"name": own, "key": name}}} for name in args.secret_env]
    shared = [
        {"name": name, "value_from": {"secret_key_ref": {"name": owner, "key": entry}}}
        for name, (owner, entry) in args.shared_env.items()
    ]
    return {"env": [*from_pod, *plain, *secret, *shared]}


def _lifecycle(service: Service, args: ServiceDeploymentArgs) -> dict[str, Any]:
    period = 5
    return {
        "ports": [
            {"name": port, "container_port": number, "protocol": "TCP"} for port, number in PORTS[service].items()
        ],
        "startup_probe": {
            **args.probes.liveness,
            "period_seconds": period,
            "timeout_seconds": 5,
            "failure_threshold": max(1, args.probes.startup_seconds // period),
        },
        "readiness_probe": {**args.probes.readiness, "period_seconds": period, "timeout_seconds": 5},
        "liveness_probe": {
            **args.probes.liveness,
            "period_seconds": 10,
            "timeout_seconds": 5,
            # Half a minute: a restart helps against a hang and against nothing else.
            "failure_threshold": 3,
        },
        "lifecycle": {"pre_stop": {"sleep": {"seconds": _DRAIN_SECONDS}}},
    }


def _wait_for_database(cluster: Cluster) -> dict[str, Any]:
    script = 'until nc -z -w 3 "$DB_HOST" "$DB_PORT"; do echo "waiting for $DB_HOST:$DB_PORT"; sleep 2; done'
    particulars = {
        "command": ["/bin/sh", "-c", script],
        "env": [
            {"name": "DB_HOST", "value": cluster.database_host},
            {"name": "DB_PORT", "value": str(cluster.database_port)},
        ],
    }
    return container(cluster, Service.WAIT, "wait-for-database", particulars, ())


def _service_monitor(
    name: str,
    metadata: Mapping[str, Any],
    selector: Mapping[str, str],
    metrics: Metrics,
    opts: pulumi.ResourceOptions,
) -> None:
    k8s.apiextensions.CustomResource(
        f"{name}-monitor",
        api_version="monitoring.coreos.com/v1",
        kind="ServiceMonitor",
        metadata=metadata,
        spec={
            "selector": {"matchLabels": selector},
            "endpoints": [{"port": metrics.port, "path": metrics.path, "interval": "30s"}],
        },
        opts=opts,
    )
