"""Vector: brings the services' logs from the nodes to Logflare.

The transformations are what Supabase's ``docker/volumes/logs/vector.yml`` does to each service's lines, so that
Studio's log pages find the fields they ask for; the source is the nodes' log files instead of a Docker socket.
"""

from io import StringIO
from typing import Any

import pulumi
import pulumi_kubernetes as k8s
from ruamel.yaml import YAML

from components.central.cluster import Cluster
from components.central.service_deployment import ServiceArgs, checksum, container, pod_spec
from components.central.service_secrets import ServiceSecret, ServiceSecretArgs, secret_field
from data_plane.model.catalog import Service
from data_plane.model.cluster_names import PORTS, service_name

__all__ = ["Logs", "vector_config"]

_TOKEN = "LOGFLARE_PUBLIC_ACCESS_TOKEN"
_CONFIG = "/etc/vector"
_STATE = "/var/lib/vector"

# Service → (Logflare's source for it, how a line of it is taken apart).
_SOURCES: dict[Service, tuple[str, str]] = {
    Service.GATEWAY: (
        "cloudflare.logs.prod",
        """\
parsed, err = parse_regex(.event_message, r'^(?P<client>\\S+) \\[(?P<time>[^\\]]+)\\] (?P<request>.*)$')
if err != null { abort }
pattern = r'^"(?P<method>\\S+) (?P<path>\\S+) (?P<protocol>[^"]+)" (?P<status>\\d+) '
request, err = parse_regex(parsed.request, pattern)
if err != null { abort }
.timestamp = to_timestamp(parsed.time) ?? .timestamp
.metadata.request.headers.cf_connecting_ip = parsed.client
.metadata.request.method = request.method
.metadata.request.path = request.path
.metadata.request.protocol = request.protocol
.metadata.response.status_code = to_int!(request.status)
""",
    ),
    Service.AUTH: (
        "gotrue.logs.prod",
        """\
parsed, err = parse_json(.event_message)
if err == null && is_object(parsed) {
  .metadata = object!(parsed)
  .metadata.timestamp = parsed.time
}
""",
    ),
    Service.REST: (
        "postgREST.logs.prod",
        """\
parsed, err = parse_regex(.event_message, r'^(?P<time>[^:]+:[^:]+:[^:]+): (?P<message>.*)$')
if err == null {
  .event_message = parsed.message
  .timestamp = to_timestamp(parsed.time) ?? .timestamp
}
.metadata.host = .project
""",
    ),
    Service.REALTIME: (
        "realtime.logs.prod",
        """\
.metadata.project = .project
.metadata.external_id = .project
parsed, err = parse_regex(.event_message, r'^(?P<time>\\d+:\\d+:\\d+\\.\\d+) \\[(?P<level>\\w+)\\] (?P<message>.*)$')
if err == null {
  .event_message = parsed.message
  .metadata.level = parsed.level
}
""",
    ),
    Service.STORAGE: (
        "storage.logs.prod.2",
        """\
.metadata.project = .project
.metadata.tenantId = .project
parsed, err = parse_json(.event_message)
if err == null && is_object(parsed) {
  .event_message = parsed.msg
  .metadata.level = parsed.level
  .metadata.timestamp = parsed.time
  .metadata.context = [{"host": parsed.hostname, "pid": parsed.pid}]
}
""",
    ),
    Service.FUNCTIONS: ("deno-relay-logs", ".metadata.project_ref = .project\n"),
    Service.DATABASE: (
        "postgres.logs",
        """\
.metadata.host = "db-default"
.metadata.parsed.timestamp = .timestamp
parsed, err = parse_regex(.event_message, r'\\b(?P<level>DEBUG\\d?|INFO|NOTICE|WARNING|ERROR|LOG|FATAL|PANIC):')
.metadata.parsed.error_severity = if err == null { parsed.level } else { "LOG" }
""",
    ),
}


def vector_config(cluster: Cluster) -> str:
    """Vector's configuration file. The token is a variable that Vector fills in itself."""
    namespaces = sorted({cluster.namespace_name(service) for service in _SOURCES})
    transforms: dict[str, Any] = {
        "lines": {
            "type": "remap",
            "inputs": ["pods"],
            "source": (
                '.project = "default"\n'
                ".event_message = string!(del(.message))\n"
                '.appname = .kubernetes.pod_labels."app.kubernetes.io/name"\n'
                "del(.kubernetes)\ndel(.file)\ndel(.stream)\ndel(.source_type)\n"
            ),
        },
        "by_service": {
            "type": "route",
            "inputs": ["lines"],
            "route": {str(service): f'.appname == "{service_name(service)}"' for service in _SOURCES},
        },
    }
    sinks: dict[str, Any] = {}
    for service, (source, remap) in _SOURCES.items():
        transforms[f"{service}_lines"] = {
            "type": "remap",
            "inputs": [f"by_service.{service}"],
            "source": remap,
        }
        sinks[f"logflare_{service}"] = {
            "type": "http",
            "inputs": [f"{service}_lines"],
            "encoding": {"codec": "json"},
            "method": "post",
            "request": {
                "retry_max_duration_secs": 30,
                "retry_initial_backoff_secs": 1,
                "headers": {"x-api-key": f"${{{_TOKEN}?{_TOKEN} is not set}}"},
            },
            "uri": f"{cluster.url(Service.ANALYTICS)}/api/logs?source_name={source}",
        }
    config = {
        "data_dir": _STATE,
        "api": {"enabled": True, "address": f"0.0.0.0:{PORTS[Service.LOGS]['http']}"},
        "sources": {
            "pods": {
                "type": "kubernetes_logs",
                "extra_namespace_label_selector": f"kubernetes.io/metadata.name in ({', '.join(namespaces)})",
            }
        },
        "transforms": transforms,
        "sinks": sinks,
    }
    text = StringIO()
    YAML(typ="safe").dump(config, text)
    return text.getvalue()


class Logs(pulumi.ComponentResource):
    """Creates Vector as a DaemonSet in a namespace of its own, because it has to read the nodes' log files."""

    def __init__(self, name: str, args: ServiceArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("supabase-data-plane:central:Logs", name, None, opts)
        cluster, service = args.cluster, Service.LOGS
        on_cluster = pulumi.ResourceOptions(parent=self, provider=cluster.provider)
        labels = cluster.labels(service)
        metadata = {"name": service_name(service), "namespace": cluster.namespace(service), "labels": labels}
        # Of the whole cluster, which may hold several stacks.
        cluster_wide = {"name": cluster.namespace_name(service), "labels": labels}
        # Vector asks the cluster's API which Pod a file belongs to.
        account = k8s.core.v1.ServiceAccount(
            name, metadata=metadata, automount_service_account_token=False, opts=on_cluster
        )
        role = k8s.rbac.v1.ClusterRole(
            name,
            metadata=cluster_wide,
            rules=[
                {"api_groups": [""], "resources": ["namespaces", "nodes", "pods"], "verbs": ["get", "list", "watch"]}
            ],
            opts=on_cluster,
        )
        k8s.rbac.v1.ClusterRoleBinding(
            name,
            metadata=cluster_wide,
            role_ref={"api_group": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": cluster_wide["name"]},
            subjects=[
                {
                    "kind": "ServiceAccount",
                    "name": service_name(service),
                    "namespace": cluster.namespace(service),
                }
            ],
            opts=pulumi.ResourceOptions.merge(on_cluster, pulumi.ResourceOptions(depends_on=[role, account])),
        )
        secret = ServiceSecret(
            name,
            service,
            cluster,
            args.access,
            ServiceSecretArgs((_TOKEN,), {_TOKEN: secret_field(_TOKEN)}, labels, account),
            opts=pulumi.ResourceOptions(parent=self),
        )
        text = vector_config(cluster)
        config = k8s.core.v1.ConfigMap(name, metadata=metadata, data={"vector.yaml": text}, opts=on_cluster)
        k8s.apps.v1.DaemonSet(
            name,
            metadata={**metadata, "annotations": {"secret.reloader.stakater.com/reload": service_name(service)}},
            spec={
                "selector": {"match_labels": cluster.selector(service)},
                "update_strategy": {"type": "RollingUpdate", "rolling_update": {"max_unavailable": "10%"}},
                "template": {
                    "metadata": {
                        "labels": labels,
                        "annotations": {"supabase-data-plane/files": checksum(text)},
                    },
                    "spec": self._pod(cluster),
                },
            },
            opts=pulumi.ResourceOptions.merge(on_cluster, pulumi.ResourceOptions(depends_on=[secret, config])),
        )
        self.register_outputs({})

    @staticmethod
    def _pod(cluster: Cluster) -> dict[str, Any]:
        service = Service.LOGS
        health = {"http_get": {"path": "/health", "port": "http"}}
        mounts: list[dict[str, Any]] = [
            {"name": "config", "mount_path": _CONFIG, "read_only": True},
            {"name": "state", "mount_path": _STATE},
            {"name": "logs", "mount_path": "/var/log", "read_only": True},
        ]
        pod = pod_spec(
            cluster,
            service,
            user=0,
            group=None,
            volumes=[
                {"name": "config", "config_map": {"name": service_name(service)}},
                # How far each file was read: kept on the node, so that a new Pod resumes there.
                {"name": "state", "host_path": {"path": _STATE, "type": "DirectoryOrCreate"}},
                {"name": "logs", "host_path": {"path": "/var/log", "type": "Directory"}},
            ],
            containers=[
                container(
                    cluster,
                    service,
                    str(service),
                    {
                        "args": ["--config", f"{_CONFIG}/vector.yaml"],
                        "ports": [{"name": "http", "container_port": PORTS[service]["http"]}],
                        "env": [
                            {
                                "name": "VECTOR_SELF_NODE_NAME",
                                "value_from": {"field_ref": {"field_path": "spec.nodeName"}},
                            },
                            {
                                "name": _TOKEN,
                                "value_from": {"secret_key_ref": {"name": service_name(service), "key": _TOKEN}},
                            },
                        ],
                        "readiness_probe": {**health, "period_seconds": 10},
                        "liveness_probe": {**health, "period_seconds": 30, "failure_threshold": 3},
                    },
                    mounts,
                )
            ],
        )
        # The files belong to root; reading them needs no capability beyond that.
        pod["security_context"] = {"run_as_user": 0, "seccomp_profile": {"type": "RuntimeDefault"}}
        pod["automount_service_account_token"] = True
        del pod["topology_spread_constraints"]
        return pod
