"""Who may talk to whom: one table, from which every service's NetworkPolicies follow.

All namespaces deny everything first. A line of the table opens one way, on both of its ends; DNS is open to all.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import pulumi
import pulumi_kubernetes as k8s

from components.catalog import Service
from components.central.cluster import PORTS, Cluster, service_name
from components.cluster_settings import DatabaseMode, StorageBackend

__all__ = ["Flow", "Outside", "Traffic", "flows"]

CLIENT_LABEL = "supabase-data-plane/client"
"""Namespaces with this label, ``true``, may use the pooler: where projects' workloads run."""
_METRICS_LABEL = "supabase-data-plane/metrics"
"""Namespaces with this label, ``true``, may read metrics: where Prometheus runs."""
_OPERATOR_NAMESPACE = "cnpg-system"
_HTTPS = 443
_INSTANCE_MANAGER = 8000
"""Where CloudNativePG asks an instance how it is."""
_CLUSTER_PORTS = (4369, 5369, 9000, 9001, 9002, 9003, 9004, 9005)
"""What nodes of one Elixir service use among themselves: epmd, gen_rpc, and the range that Erlang is given."""


class Outside(StrEnum):
    """Ends that are no service of the stack."""

    INGRESS = "ingress"
    """The ingress controller."""
    CLIENTS = "clients"
    """Projects' workloads in the cluster."""
    PROMETHEUS = "prometheus"
    DATABASE_CLIENTS = "database clients"
    """OpenBao, and whoever runs this program."""
    INTERNET = "internet"
    """Mail servers, sign-in providers, object stores."""
    EXTERNAL_DATABASE = "external database"
    OPERATOR = "CloudNativePG"
    KUBERNETES_API = "Kubernetes API"


End = Service | Outside


@dataclass(frozen=True)
class Flow:
    """One way that is open."""

    source: End
    target: End
    ports: tuple[int, ...]


def flows(cluster: Cluster) -> list[Flow]:
    """The ways that are open, for what a stack's settings switch on."""
    table = [*_inside(), *_to_database(cluster), *_to_the_world(cluster), *_from_outside(cluster)]
    return [
        flow
        for flow in table
        # A rule without peers would let everybody in.
        if all(_present(cluster, end) and _peers(cluster, end) for end in (flow.source, flow.target))
    ]


def _present(cluster: Cluster, end: End) -> bool:
    return cluster.runs(end) if isinstance(end, Service) else True


def _inside() -> Iterator[Flow]:
    # Whatever serves requests is reached through the gateway alone.
    for upstream in (
        Service.AUTH,
        Service.REST,
        Service.REALTIME,
        Service.STORAGE,
        Service.STUDIO,
        Service.META,
        Service.FUNCTIONS,
    ):
        yield Flow(Service.GATEWAY, upstream, _ports(upstream, "http"))
    for source, target in (
        (Service.STORAGE, Service.IMGPROXY),
        (Service.STUDIO, Service.META),
        (Service.STUDIO, Service.GATEWAY),
        (Service.STUDIO, Service.ANALYTICS),
        (Service.FUNCTIONS, Service.GATEWAY),
        (Service.LOGS, Service.ANALYTICS),
    ):
        yield Flow(source, target, _ports(target, "http"))
    for cluster_of_nodes in (Service.REALTIME, Service.POOLER):
        yield Flow(cluster_of_nodes, cluster_of_nodes, _CLUSTER_PORTS)


def _to_database(cluster: Cluster) -> Iterator[Flow]:
    database: End = Service.DATABASE if cluster.runs(Service.DATABASE) else Outside.EXTERNAL_DATABASE
    port = (cluster.database_port,)
    for user in (
        Service.AUTH,
        Service.REST,
        Service.REALTIME,
        Service.STORAGE,
        Service.POOLER,
        Service.META,
        Service.ANALYTICS,
        Service.BACKUPS,
        Service.JWKS,
    ):
        yield Flow(user, database, port)
    yield Flow(Outside.DATABASE_CLIENTS, Service.DATABASE, port)
    if cluster.settings.database.mode is DatabaseMode.CLOUD_NATIVE_PG:
        yield Flow(Service.DATABASE, Service.DATABASE, (*port, _INSTANCE_MANAGER))
        yield Flow(Outside.OPERATOR, Service.DATABASE, (*port, _INSTANCE_MANAGER))
        yield Flow(Service.DATABASE, Outside.KUBERNETES_API, (_HTTPS, 6443))


def _to_the_world(cluster: Cluster) -> Iterator[Flow]:
    settings = cluster.settings
    mail = (settings.auth.smtp.port,) if settings.auth.smtp else ()
    yield Flow(Service.AUTH, Outside.INTERNET, (_HTTPS, *mail))
    yield Flow(Service.FUNCTIONS, Outside.INTERNET, (_HTTPS,))
    if settings.storage.backend is StorageBackend.S3:
        for user in (Service.STORAGE, Service.IMGPROXY):
            yield Flow(user, Outside.INTERNET, (_port_of(settings.storage.endpoint),))
    if settings.backups is not None:
        # PostgreSQL ships its own write-ahead log.
        for user in (Service.BACKUPS, Service.DATABASE):
            yield Flow(user, Outside.INTERNET, (_port_of(settings.backups.endpoint),))
    yield Flow(Service.LOGS, Outside.KUBERNETES_API, (_HTTPS, 6443))


def _from_outside(cluster: Cluster) -> Iterator[Flow]:
    if cluster.settings.gateway.exposure.type != "none":
        yield Flow(Outside.INGRESS, Service.GATEWAY, _ports(Service.GATEWAY, "http"))
    yield Flow(Outside.CLIENTS, Service.POOLER, _ports(Service.POOLER, "session", "transaction"))
    if cluster.settings.service_monitors:
        for service, port in (
            (Service.GATEWAY, "status"),
            (Service.AUTH, "metrics"),
            (Service.REST, "admin"),
            (Service.IMGPROXY, "metrics"),
        ):
            yield Flow(Outside.PROMETHEUS, service, _ports(service, port))


def _ports(service: Service, *names: str) -> tuple[int, ...]:
    return tuple(PORTS[service][name] for name in names)


def _port_of(endpoint: str | None) -> int:
    if endpoint is None:
        return _HTTPS
    scheme, _, rest = endpoint.partition("://")
    _, _, port = rest.partition("/")[0].rpartition(":")
    return int(port) if port.isdigit() else {"http": 80, "https": _HTTPS}[scheme]


class Traffic(pulumi.ComponentResource):
    """The NetworkPolicies of all namespaces.

    Creates, for each namespace, one policy that denies everything but DNS, and for each service at most one policy
    with the ways that lead to it and from it.
    """

    def __init__(self, name: str, cluster: Cluster, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("supabase-data-plane:central:Traffic", name, None, opts)
        child = pulumi.ResourceOptions(parent=self, provider=cluster.provider)
        for place, namespace in cluster.namespaces.items():
            k8s.networking.v1.NetworkPolicy(
                f"{name}-deny{place.value}",
                metadata={"name": "deny-by-default", "namespace": namespace},
                spec={"pod_selector": {}, "policy_types": ["Ingress", "Egress"], "egress": [_dns()]},
                opts=child,
            )
        table = flows(cluster)
        services = {end for flow in table for end in (flow.source, flow.target) if isinstance(end, Service)}
        for service in sorted(services):
            k8s.networking.v1.NetworkPolicy(
                f"{name}-{service}",
                metadata={
                    "name": service_name(service),
                    "namespace": cluster.namespace(service),
                    "labels": cluster.labels(service),
                },
                spec={
                    "pod_selector": {"match_labels": cluster.pods(service)},
                    "policy_types": ["Ingress", "Egress"],
                    "ingress": [
                        {"from_": _peers(cluster, flow.source), "ports": _tcp(flow.ports)}
                        for flow in table
                        if flow.target is service
                    ],
                    "egress": [
                        {"to": _peers(cluster, flow.target), "ports": _tcp(flow.ports)}
                        for flow in table
                        if flow.source is service
                    ],
                },
                opts=child,
            )
        self.register_outputs({})


def _dns() -> dict[str, Any]:
    return {
        "to": [
            {
                "namespace_selector": {"match_labels": {"kubernetes.io/metadata.name": "kube-system"}},
                "pod_selector": {"match_labels": {"k8s-app": "kube-dns"}},
            }
        ],
        "ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}],
    }


def _tcp(ports: Iterable[int]) -> list[dict[str, Any]]:
    return [{"protocol": "TCP", "port": port} for port in sorted(set(ports))]


def _peers(cluster: Cluster, end: End) -> list[dict[str, Any]]:
    settings = cluster.settings
    if isinstance(end, Service):
        return [
            {
                "namespace_selector": _named(cluster.namespace_name(end)),
                "pod_selector": {"match_labels": cluster.pods(end)},
            }
        ]
    match end:
        case Outside.INGRESS:
            return [{"namespace_selector": _named(str(settings.gateway.exposure.controller_namespace))}]
        case Outside.CLIENTS:
            return [
                {"namespace_selector": {"match_labels": {CLIENT_LABEL: "true"}}},
                *({"namespace_selector": _named(name)} for name in settings.pooler.client_namespaces),
            ]
        case Outside.PROMETHEUS:
            return [{"namespace_selector": {"match_labels": {_METRICS_LABEL: "true"}}}]
        case Outside.DATABASE_CLIENTS:
            database = settings.database
            return [
                *({"namespace_selector": _named(name)} for name in database.client_namespaces),
                *({"ip_block": {"cidr": cidr}} for cidr in database.client_cidrs),
            ]
        case Outside.INTERNET:
            return [{"ip_block": {"cidr": cidr}} for cidr in settings.external_cidrs]
        case Outside.OPERATOR:
            return [{"namespace_selector": _named(_OPERATOR_NAMESPACE)}]
        case Outside.KUBERNETES_API:
            # Its address is the provider's affair, and no policy can name it.
            return [{"ip_block": {"cidr": "0.0.0.0/0"}}]
        case Outside.EXTERNAL_DATABASE:
            return [{"ip_block": {"cidr": cidr}} for cidr in settings.database.server_cidrs]


def _named(namespace: str) -> dict[str, Any]:
    return {"match_labels": {"kubernetes.io/metadata.name": namespace}}
