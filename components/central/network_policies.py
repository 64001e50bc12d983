"""Allowed flows, from which NetworkPolicies are generated.

All namespaces deny everything first. A line of the table opens one flow, on both ends; DNS is open to all.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

import pulumi
import pulumi_kubernetes as k8s

from components.central.cluster import Cluster
from data_plane.model.catalog import Service
from data_plane.model.cluster_names import PORTS, service_name
from data_plane.model.cluster_settings import DatabaseMode, StorageBackend
from data_plane.model.networks import NEVER, OWN, PRIVATE, excepted

__all__ = ["ExternalPeer", "Flow", "NetworkPolicies", "flows"]

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


class ExternalPeer(StrEnum):
    """Ends of flows that are not services of the stack."""

    INGRESS = "ingress"
    """The ingress controller."""
    CLIENTS = "clients"
    """Projects' workloads in the cluster."""
    PROMETHEUS = "prometheus"
    DATABASE_CLIENTS = "database clients"
    """OpenBao, and the machines that run this program."""
    INTERNET = "internet"
    """Mail servers, sign-in providers, object stores: no private network that the settings do not list."""
    EXTERNAL_DATABASE = "external database"
    OPERATOR = "CloudNativePG"
    KUBERNETES_API = "Kubernetes API"


End = Service | ExternalPeer


@dataclass(frozen=True)
class Flow:
    """One allowed flow."""

    source: End
    target: End
    ports: tuple[int, ...]


def flows(cluster: Cluster) -> list[Flow]:
    """The allowed flows among the services that a stack's settings switch on."""
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
    database: End = Service.DATABASE if cluster.runs(Service.DATABASE) else ExternalPeer.EXTERNAL_DATABASE
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
        Service.GUARD,
        Service.RELAY,
    ):
        yield Flow(user, database, port)
    yield Flow(ExternalPeer.DATABASE_CLIENTS, Service.DATABASE, port)
    if cluster.settings.database.mode is DatabaseMode.CLOUD_NATIVE_PG:
        yield Flow(Service.DATABASE, Service.DATABASE, (*port, _INSTANCE_MANAGER))
        yield Flow(ExternalPeer.OPERATOR, Service.DATABASE, (*port, _INSTANCE_MANAGER))
        yield Flow(Service.DATABASE, ExternalPeer.KUBERNETES_API, (_HTTPS, 6443))


def _to_the_world(cluster: Cluster) -> Iterator[Flow]:
    settings = cluster.settings
    mail = (settings.auth.smtp.port,) if settings.auth.smtp else ()
    yield Flow(Service.AUTH, ExternalPeer.INTERNET, (_HTTPS, *mail))
    yield Flow(Service.FUNCTIONS, ExternalPeer.INTERNET, (_HTTPS,))
    if settings.storage.backend is StorageBackend.S3:
        for user in (Service.STORAGE, Service.IMGPROXY):
            yield Flow(user, ExternalPeer.INTERNET, (_port_of(settings.storage.endpoint),))
    if settings.backups is not None:
        # PostgreSQL ships its own write-ahead log.
        for user in (Service.BACKUPS, Service.DATABASE):
            yield Flow(user, ExternalPeer.INTERNET, (_port_of(settings.backups.endpoint),))
    yield Flow(Service.LOGS, ExternalPeer.KUBERNETES_API, (_HTTPS, 6443))


def _from_outside(cluster: Cluster) -> Iterator[Flow]:
    if cluster.settings.gateway.exposure.type != "none":
        yield Flow(ExternalPeer.INGRESS, Service.GATEWAY, _ports(Service.GATEWAY, "http"))
    yield Flow(ExternalPeer.CLIENTS, Service.POOLER, _ports(Service.POOLER, "session", "transaction"))
    if cluster.settings.service_monitors:
        for service, port in (
            (Service.GATEWAY, "status"),
            (Service.AUTH, "metrics"),
            (Service.REST, "admin"),
            (Service.IMGPROXY, "metrics"),
        ):
            yield Flow(ExternalPeer.PROMETHEUS, service, _ports(service, port))


def _ports(service: Service, *names: str) -> tuple[int, ...]:
    return tuple(PORTS[service][name] for name in names)


def _port_of(endpoint: str | None) -> int:
    if endpoint is None:
        return _HTTPS
    scheme, _, rest = endpoint.partition("://")
    _, _, port = rest.partition("/")[0].rpartition(":")
    return int(port) if port.isdigit() else {"http": 80, "https": _HTTPS}[scheme]


class NetworkPolicies(pulumi.ComponentResource):
    """The NetworkPolicies of all namespaces.

    Creates, for each namespace, one policy that denies everything but DNS, and for each service at most one policy
    with the flows to it and from it.
    """

    def __init__(self, name: str, cluster: Cluster, opts: pulumi.ResourceOptions | None = None) -> None:
        renamed = pulumi.ResourceOptions(aliases=[pulumi.Alias(type_="supabase-data-plane:central:Traffic")])
        super().__init__(
            "supabase-data-plane:central:NetworkPolicies", name, None, pulumi.ResourceOptions.merge(opts, renamed)
        )
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
        case ExternalPeer.INGRESS:
            return [{"namespace_selector": _named(str(settings.gateway.exposure.controller_namespace))}]
        case ExternalPeer.CLIENTS:
            return [
                {"namespace_selector": {"match_labels": {CLIENT_LABEL: "true"}}},
                *({"namespace_selector": _named(name)} for name in settings.pooler.client_namespaces),
            ]
        case ExternalPeer.PROMETHEUS:
            return [{"namespace_selector": {"match_labels": {_METRICS_LABEL: "true"}}}]
        case ExternalPeer.DATABASE_CLIENTS:
            database = settings.database
            return [
                *({"namespace_selector": _named(name)} for name in database.client_namespaces),
                *({"ip_block": {"cidr": cidr}} for cidr in database.client_cidrs),
            ]
        case ExternalPeer.INTERNET:
            own = [ip_network(cidr) for cidr in settings.cluster_cidrs]
            return [_block(cidr, [*NEVER, *PRIVATE, *own]) for cidr in settings.external_cidrs]
        case ExternalPeer.OPERATOR:
            return [{"namespace_selector": _named(_OPERATOR_NAMESPACE)}]
        case ExternalPeer.KUBERNETES_API:
            known = settings.api_server_cidrs or settings.cluster_cidrs
            return [_block(cidr, NEVER) for cidr in known or OWN]
        case ExternalPeer.EXTERNAL_DATABASE:
            return [_block(cidr, NEVER) for cidr in settings.database.server_cidrs]


def _block(cidr: str, without: Iterable[IPv4Network | IPv6Network]) -> dict[str, Any]:
    inside = excepted(cidr, without)
    return {"ip_block": {"cidr": cidr, "except_": inside} if inside else {"cidr": cidr}}


def _named(namespace: str) -> dict[str, Any]:
    return {"match_labels": {"kubernetes.io/metadata.name": namespace}}
