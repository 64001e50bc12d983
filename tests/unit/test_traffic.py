"""Who may talk to whom, told from the NetworkPolicies as a cluster understands them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from ipaddress import ip_address, ip_network
from itertools import product
from typing import Any

import pytest

from data_plane.model.catalog import Service
from data_plane.model.cluster_names import PORTS
from tests.support.cluster_program import (
    BACKUPS,
    CLUSTER,
    EVERYTHING,
    EXTERNAL,
    FILES,
    INGRESS,
    NOTHING,
    VARIANTS,
    at,
    declared,
    merged,
    pod_templates,
    variant,
)
from tests.support.declared import Program

POLICY = "kubernetes:networking.k8s.io/v1:NetworkPolicy"
NAME = "kubernetes.io/metadata.name"
ELSEWHERE = "198.18.0.1"
"""The address of whatever has no other."""


# A model of NetworkPolicies: https://kubernetes.io/docs/concepts/services-networking/network-policies/


@dataclass(frozen=True)
class Peer:
    """A Pod, or with no namespace a machine outside of the cluster."""

    namespace: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    namespace_labels: Mapping[str, str] = field(default_factory=dict)
    address: str = ELSEWHERE


@dataclass(frozen=True)
class Policies:
    """All of a stack's policies."""

    items: tuple[Mapping[str, Any], ...]

    def open(self, source: Peer, target: Peer, port: int, protocol: str = "TCP") -> bool:
        """Whether a connection gets out of the one and into the other."""
        return self.lets_out(source, target, port, protocol) and self.lets_in(source, target, port, protocol)

    def lets_out(self, source: Peer, target: Peer, port: int, protocol: str = "TCP") -> bool:
        return self._allows("egress", "to", source, target, port, protocol)

    def lets_in(self, source: Peer, target: Peer, port: int, protocol: str = "TCP") -> bool:
        return self._allows("ingress", "from", target, source, port, protocol)

    def of(self, pod: Peer) -> list[Mapping[str, Any]]:
        """Those that select a Pod."""
        return [
            item
            for item in self.items
            if item["metadata"]["namespace"] == pod.namespace and _selects(item["spec"]["podSelector"], pod.labels)
        ]

    def _allows(self, way: str, ends: str, of: Peer, other: Peer, port: int, protocol: str) -> bool:
        mine = [item["spec"] for item in self.of(of) if way.capitalize() in item["spec"]["policyTypes"]]
        return not mine or any(
            _has_peer(rule.get(ends), other, of) and _has_port(rule.get("ports"), port, protocol)
            for spec in mine
            for rule in spec.get(way, [])
        )


def _selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    assert set(selector) <= {"matchLabels"}
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


def _has_peer(peers: list[dict[str, Any]] | None, other: Peer, of: Peer) -> bool:
    return not peers or any(_is_peer(peer, other, of) for peer in peers)


def _is_peer(peer: Mapping[str, Any], other: Peer, of: Peer) -> bool:
    assert set(peer) <= {"namespaceSelector", "podSelector", "ipBlock"}
    if "ipBlock" in peer:
        block = peer["ipBlock"]
        assert set(block) <= {"cidr", "except"}
        # What the API server refuses: an exception that is not a part of the network, and less than it.
        assert all(_is_part(ip_network(inside), ip_network(block["cidr"])) for inside in block.get("except", []))
        address = ip_address(other.address)
        return address in ip_network(block["cidr"]) and not any(
            address in ip_network(inside) for inside in block.get("except", [])
        )
    if other.namespace is None:
        return False
    names = {**other.namespace_labels, NAME: other.namespace}
    in_namespace = (
        _selects(peer["namespaceSelector"], names) if "namespaceSelector" in peer else other.namespace == of.namespace
    )
    return in_namespace and _selects(peer.get("podSelector", {}), other.labels)


def _is_part(network: Any, of: Any) -> bool:
    return network.version == of.version and network != of and bool(network.subnet_of(of))


def _has_port(ports: list[dict[str, Any]] | None, port: int, protocol: str) -> bool:
    return not ports or any((item["port"], item["protocol"]) == (port, protocol) for item in ports)


# The stack's own ends


def policies_of(program: Program) -> Policies:
    return Policies(tuple(item.inputs for item in program.all(POLICY)))


@cache
def policies(name: str) -> Policies:
    return policies_of(variant(name))


def pod(service: Service) -> Peer:
    suffix = {Service.DATABASE: "-data", Service.BACKUPS: "-data", Service.LOGS: "-logs"}.get(service, "")
    labels = {"app.kubernetes.io/name": f"supabase-{service}", "app.kubernetes.io/part-of": "supabase"}
    if service is Service.REST:
        # All of its instances have it.
        labels["app.kubernetes.io/component"] = "rest"
    if service is Service.DATABASE:
        # What CloudNativePG puts on the Pods that it makes; on the others it changes nothing.
        labels["cnpg.io/cluster"] = "supabase-postgres"
    return Peer(f"supabase{suffix}", labels)


def rules(items: Policies, way: str) -> Iterator[dict[str, Any]]:
    return (rule for item in items.items for rule in item["spec"].get(way, []))


def ports_worth_trying(items: Policies) -> set[int]:
    """All that some rule or some service names, and two that none does."""
    named = {port["port"] for way in ("ingress", "egress") for rule in rules(items, way) for port in rule["ports"]}
    return named | {port for ports in PORTS.values() for port in ports.values()} | {22, 8888}


def reached(items: Policies, source: Peer) -> set[tuple[Service, int]]:
    """The services and ports that let a peer in."""
    there = {item["metadata"]["namespace"] for item in items.items}
    pods = {service: pod(service) for service in Service if service is not Service.WAIT}
    return {
        (service, port)
        for service, port in product(pods, ports_worth_trying(items))
        if pods[service].namespace in there and items.lets_in(source, pods[service], port)
    }


def in_namespace(name: str, **labels: str) -> Peer:
    return Peer(name, {"app": "anything"}, {key.replace("__", "/").replace("_", "-"): v for key, v in labels.items()})


STRANGERS = {
    "a Pod elsewhere": in_namespace("default"),
    "a Pod in the services' namespace": Peer("supabase", {"app": "intruder"}),
    "a Pod in the database's namespace": Peer("supabase-data", {"app": "intruder"}),
    "a Pod that calls itself the gateway, elsewhere": Peer("default", pod(Service.GATEWAY).labels),
    "a Pod in a namespace that says it is no client": in_namespace("team", supabase_data_plane__client="false"),
    "a DNS server": Peer("kube-system", {"k8s-app": "kube-dns"}),
    "a machine outside": Peer(address="203.0.113.7"),
}
INGRESS_CONTROLLER = in_namespace("ingress-nginx")
CLIENT = in_namespace("team", supabase_data_plane__client="true")
PROMETHEUS = in_namespace("monitoring", supabase_data_plane__metrics="true")
OPERATOR = in_namespace("cnpg-system")
DNS = Peer("kube-system", {"k8s-app": "kube-dns"}, address="10.96.0.10")


# From outside


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("stranger", STRANGERS)
def test_a_stranger_reaches_nothing(name: str, stranger: str) -> None:
    assert reached(policies(name), STRANGERS[stranger]) == set()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("as it comes", set()),
        ("everything", {(Service.GATEWAY, 8000)}),
        ("Gateway API", {(Service.GATEWAY, 8000)}),
        ("another's Gateway", {(Service.GATEWAY, 8000)}),
    ],
)
def test_an_ingress_controller_reaches_the_gateway_where_it_is_exposed(
    name: str, expected: set[tuple[Service, int]]
) -> None:
    assert reached(policies(name), INGRESS_CONTROLLER) == expected


@pytest.mark.parametrize("name", ["as it comes", "everything", "CloudNativePG"])
def test_clients_reach_the_poolers_two_ports_alone(name: str) -> None:
    assert reached(policies(name), CLIENT) == {(Service.POOLER, 5432), (Service.POOLER, 6543)}


def test_a_namespace_that_is_named_reaches_the_pooler_without_a_label() -> None:
    assert reached(policies("everything"), in_namespace("team-a")) == {(Service.POOLER, 5432), (Service.POOLER, 6543)}


def test_without_a_pooler_clients_reach_nothing() -> None:
    assert reached(policies("nothing"), CLIENT) == set()


@pytest.mark.parametrize("source", [in_namespace("openbao"), Peer(address="198.51.100.9")])
def test_those_who_may_administer_the_database_reach_it_and_nothing_else(source: Peer) -> None:
    assert reached(policies("everything"), source) == {(Service.DATABASE, 5432)}


def test_prometheus_reaches_metrics_where_they_are_asked_for() -> None:
    assert reached(policies("as it comes"), PROMETHEUS) == set()
    assert reached(policies("everything"), PROMETHEUS) == {
        (Service.GATEWAY, 8100),
        (Service.AUTH, 9100),
        (Service.REST, 3001),
        (Service.IMGPROXY, 8081),
    }


# Between services

_CLUSTER_PORTS = (4369, 5369, *range(9000, 9006))
_BEHIND_THE_GATEWAY = {
    Service.AUTH: 9999,
    Service.REST: 3000,
    Service.REALTIME: 4000,
    Service.STORAGE: 5000,
    Service.STUDIO: 3000,
    Service.META: 8080,
    Service.FUNCTIONS: 9000,
}
_USES_DATABASE = (
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
)
Way = tuple[Service, Service, int]
OPEN: set[Way] = {
    *((Service.GATEWAY, service, port) for service, port in _BEHIND_THE_GATEWAY.items()),
    *((service, Service.DATABASE, 5432) for service in _USES_DATABASE),
    *((service, service, port) for service in (Service.REALTIME, Service.POOLER) for port in _CLUSTER_PORTS),
    (Service.STORAGE, Service.IMGPROXY, 5001),
    (Service.STUDIO, Service.META, 8080),
    (Service.STUDIO, Service.GATEWAY, 8000),
    (Service.STUDIO, Service.ANALYTICS, 4000),
    (Service.FUNCTIONS, Service.GATEWAY, 8000),
    (Service.LOGS, Service.ANALYTICS, 4000),
}
"""Every way between services that may be open, with everything switched on."""
OFF = {
    "as it comes": {Service.FUNCTIONS, Service.ANALYTICS, Service.LOGS, Service.BACKUPS},
    "everything": set(),
    "nothing": {
        *(Service.DATABASE, Service.POOLER, Service.IMGPROXY, Service.STUDIO, Service.META),
        *(Service.FUNCTIONS, Service.ANALYTICS, Service.LOGS, Service.BACKUPS),
    },
    "external database": {Service.DATABASE, Service.FUNCTIONS, Service.ANALYTICS, Service.LOGS},
}


def open_ways(items: Policies, off: set[Service]) -> set[Way]:
    there = [service for service in Service if service not in off and service is not Service.WAIT]
    return {
        (source, target, port)
        for source, target in product(there, there)
        for port in ports_worth_trying(items)
        if items.open(pod(source), pod(target), port)
    }


@pytest.mark.parametrize("name", OFF)
def test_between_services_exactly_the_named_ways_are_open(name: str) -> None:
    off = OFF[name]
    expected = {way for way in OPEN if not off & {way[0], way[1]}}
    assert open_ways(policies(name), off) == expected


def test_cloud_native_pg_opens_replication_and_the_operators_way_besides() -> None:
    items = policies("CloudNativePG")
    off = OFF["as it comes"] - {Service.BACKUPS}
    replication = {(Service.DATABASE, Service.DATABASE, port) for port in (5432, 8000)}
    assert open_ways(items, off) == {way for way in OPEN if not off & {way[0], way[1]}} | replication
    assert reached(items, OPERATOR) == {(Service.DATABASE, 5432), (Service.DATABASE, 8000)}
    assert items.lets_out(pod(Service.DATABASE), Peer(address="10.96.0.1"), 6443)


@pytest.mark.parametrize("name", ["as it comes", "everything"])
def test_without_cloud_native_pg_its_operator_is_a_stranger(name: str) -> None:
    assert reached(policies(name), OPERATOR) == set()
    assert not policies(name).lets_out(pod(Service.DATABASE), Peer(address="10.96.0.1"), 6443)


@pytest.mark.parametrize("name", OFF)
def test_a_service_that_is_off_has_no_policy_and_stands_in_nobody_elses(name: str) -> None:
    text = [str(item) for item in policies(name).items]
    for service in OFF[name]:
        assert not [item for item in text if f"'supabase-{service}'" in item], service


# To the world


def ports_out(items: Policies, service: Service, address: str = "203.0.113.7") -> set[int]:
    return {port for port in ports_worth_trying(items) if items.lets_out(pod(service), Peer(address=address), port)}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, {Service.AUTH: {443}, Service.STORAGE: {443}, Service.IMGPROXY: {443}}),
        (NOTHING, {Service.AUTH: {443}}),
        (
            EVERYTHING,
            {
                Service.AUTH: {443, 587},
                Service.STORAGE: {443},
                Service.IMGPROXY: {443},
                Service.FUNCTIONS: {443},
                Service.DATABASE: {443},
                Service.BACKUPS: {443},
            },
        ),
        (
            {
                "storage": {"endpoint": "https://s3.example.org:9000"},
                "backups": {**BACKUPS, "endpoint": "http://s3.example.org"},
                "imgproxy": {"enabled": False},
            },
            {Service.AUTH: {443}, Service.STORAGE: {9000}, Service.DATABASE: {80}, Service.BACKUPS: {80}},
        ),
        ({"externalCidrs": []}, {}),
        ({"externalCidrs": ["203.0.114.0/24"]}, {}),
        ({"externalCidrs": ["203.0.113.0/24"], "storage": {**FILES, "replicas": 1}}, {Service.AUTH: {443}}),
    ],
)
def test_only_who_has_business_in_the_world_gets_there(
    change: dict[str, Any], expected: dict[Service, set[int]]
) -> None:
    items = policies_of(declared(change))
    running = {item["metadata"]["name"].removeprefix("supabase-") for item in items.items} - {"deny-by-default"}
    found = {Service(name): ports_out(items, Service(name)) for name in running}
    assert {service: ports for service, ports in found.items() if ports} == expected


# Where nothing of the stack has business, by what it is.
WITHIN = {
    "metadata": ("169.254.169.254", "169.254.170.2", "168.63.129.16", "100.100.100.200", "192.0.0.192"),
    "metadata by IPv6": ("fd00:ec2::254", "fd20:ce::254", "fe80::a9fe:a9fe"),
    "the node itself": ("127.0.0.1", "0.0.0.1", "::1", "::", "::7f00:1"),
    "IPv4 in IPv6": (
        "::ffff:169.254.169.254",
        "::ffff:10.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b::a00:1",
        "2002:a00:1::",
    ),
    "the cluster": ("10.96.0.1", "10.244.3.7", "172.20.0.1", "192.168.49.2", "100.64.0.10", "fd00:10:96::1"),
    "machines beside it": ("10.0.0.5", "172.31.255.254", "198.18.0.1", "fc00::1", "fec0::1", "64:ff9b:1::a00:1"),
    "multicast and reserved": ("224.0.0.1", "255.255.255.255", "ff02::1"),
}
WORLD = ("203.0.113.7", "9.255.255.255", "11.0.0.0", "172.32.0.1", "169.253.0.1", "2606:4700::1", "64:ff9b::808:808")
USERS_OF_THE_WORLD = (
    *(Service.AUTH, Service.FUNCTIONS, Service.STORAGE, Service.IMGPROXY, Service.BACKUPS, Service.DATABASE),
)


def everything_with(**change: Any) -> Policies:
    return policies_of(declared(merged(EVERYTHING, change)))


def test_the_world_is_neither_the_cluster_nor_a_private_network_nor_a_metadata_service() -> None:
    items = everything_with(externalCidrs=["0.0.0.0/0", "::/0"])
    for service in USERS_OF_THE_WORLD:
        for address in WORLD:
            assert 443 in ports_out(items, service, address), (service, address)
        for kind, addresses in WITHIN.items():
            for address in addresses:
                assert not ports_out(items, service, address), (service, kind, address)
    everybody = [service for service in Service if service not in (Service.WAIT, *USERS_OF_THE_WORLD)]
    for service in everybody:
        assert not [address for address in WORLD if ports_out(items, service, address)], service


@pytest.mark.parametrize("name", VARIANTS)
def test_nobody_reaches_a_metadata_service_or_the_node(name: str) -> None:
    items = policies(name)
    for kind in ("metadata", "metadata by IPv6", "the node itself", "multicast and reserved"):
        for service, address in product([item for item in Service if item is not Service.WAIT], WITHIN[kind]):
            if pod(service).namespace in {item["metadata"]["namespace"] for item in items.items}:
                assert not ports_out(items, service, address), (service, address)


def test_a_private_network_that_is_listed_is_reached_and_none_beside_it() -> None:
    items = everything_with(externalCidrs=["0.0.0.0/0", "10.0.5.0/24", "fd12::/48"])
    assert ports_out(items, Service.AUTH, "10.0.5.25") == {443, 587}
    assert ports_out(items, Service.STORAGE, "fd12::9") == {443}
    assert not ports_out(items, Service.AUTH, "10.0.6.25")
    assert not ports_out(items, Service.AUTH, "fd13::9")


def test_the_cluster_s_own_networks_are_not_part_of_a_listed_one() -> None:
    items = everything_with(
        externalCidrs=["0.0.0.0/0", "10.0.0.0/8", "100.64.0.0/10"],
        clusterCidrs=["10.96.0.0/12", "198.51.100.7/32"],
    )
    assert ports_out(items, Service.AUTH, "10.0.5.25") == {443, 587}
    for address in ("10.96.0.1", "198.51.100.7", "100.100.100.200"):
        assert not ports_out(items, Service.AUTH, address), address
    assert ports_out(items, Service.LOGS, "10.96.0.1") == {443, 6443}
    for address in ("10.0.5.25", "203.0.113.7"):
        assert not ports_out(items, Service.LOGS, address), address


def test_without_addresses_of_the_api_it_is_reached_in_private_networks_and_nowhere_else() -> None:
    items = policies("everything")
    for address in ("10.96.0.1", "172.20.0.1", "192.168.49.2", "100.64.0.10", "fd00:10:96::1"):
        assert ports_out(items, Service.LOGS, address) == {443, 6443}, address
    for address in (*WORLD, "169.254.169.254", "100.100.100.200"):
        assert not ports_out(items, Service.LOGS, address), address


def test_addresses_of_the_api_are_all_that_who_uses_it_reaches() -> None:
    known = {"apiServerCidrs": ["203.0.113.7/32", "10.96.0.1/32"], "clusterCidrs": ["10.0.0.0/8"]}
    for items, user in (
        (everything_with(**known), Service.LOGS),
        (policies_of(declared(merged(VARIANTS["CloudNativePG"], {**known, "externalCidrs": []}))), Service.DATABASE),
    ):
        for address in ("203.0.113.7", "10.96.0.1"):
            assert {443, 6443} <= ports_out(items, user, address), (user, address)
        assert not ports_out(items, user, "10.96.0.2"), user


def test_an_external_database_is_reached_at_its_addresses_and_its_port_by_those_who_use_it() -> None:
    items = policies_of(declared(merged(EVERYTHING, {"database": {**EXTERNAL, "tlsSecret": None}})))
    outside = "203.0.113.7"
    for service in Service:
        if service in (Service.WAIT, Service.DATABASE):
            continue
        for address in ("192.0.2.10", "192.0.2.11"):
            more = ports_out(items, service, address) - ports_out(items, service, outside)
            assert more == ({6432} if service in _USES_DATABASE else set()), service
        assert 6432 not in ports_out(items, service, "192.0.2.12")
    assert "supabase-database" not in [item["metadata"]["name"] for item in items.items]


@pytest.mark.parametrize("name", VARIANTS)
def test_everybody_may_ask_dns_and_only_dns_there(name: str) -> None:
    items = policies(name)
    for template in pod_templates(variant(name)):
        source = Peer(template.namespace, template.metadata["labels"])
        assert items.lets_out(source, DNS, 53, "UDP")
        assert items.lets_out(source, DNS, 53, "TCP")
        assert not items.lets_out(source, Peer("kube-system", {"k8s-app": "other"}), 53, "UDP")
        assert not items.lets_out(source, Peer("default", DNS.labels), 53, "UDP")


# The policies themselves


@pytest.mark.parametrize("name", VARIANTS)
def test_no_rule_is_without_peers_or_ports(name: str) -> None:
    """Kubernetes reads a rule without peers as everybody, and without ports as all of them."""
    for way, ends in (("ingress", "from"), ("egress", "to")):
        found = [*rules(policies(name), way)]
        assert found
        for rule in found:
            assert rule[ends]
            assert rule["ports"]
            assert all(rule[ends])


@pytest.mark.parametrize("name", VARIANTS)
def test_every_workloads_pods_are_denied_all_but_what_one_policy_of_theirs_says(name: str) -> None:
    program, items = variant(name), policies(name)
    pods = [Peer(template.namespace, template.metadata["labels"]) for template in pod_templates(program)]
    for cluster in program.all(CLUSTER):
        labels = {"cnpg.io/cluster": cluster.inputs["metadata"]["name"]}
        pods.append(Peer(cluster.inputs["metadata"]["namespace"], labels))
    assert len(pods) >= 6
    for item in pods:
        names = sorted(found["metadata"]["name"] for found in items.of(item))
        own = item.labels.get("app.kubernetes.io/name", "supabase-database")
        # A PostgREST for one project talks to whom the one for all does.
        assert names == ["deny-by-default", "supabase-rest" if own.startswith("supabase-rest-") else own]


@pytest.mark.parametrize("name", VARIANTS)
def test_every_namespace_denies_both_directions_by_default(name: str) -> None:
    namespaces = {item.inputs["metadata"]["name"] for item in variant(name).all("kubernetes:core/v1:Namespace")}
    denied = [item for item in policies(name).items if item["metadata"]["name"] == "deny-by-default"]
    assert {item["metadata"]["namespace"] for item in denied} == namespaces
    for item in denied:
        assert item["spec"]["podSelector"] == {}
        assert sorted(item["spec"]["policyTypes"]) == ["Egress", "Ingress"]
        assert not item["spec"].get("ingress")


@pytest.mark.parametrize("namespace", ["prod", "a-b"])
def test_another_namespaces_stack_is_a_stranger(namespace: str) -> None:
    items = policies_of(declared(merged(EVERYTHING, at("namespace", namespace))))
    mine = Peer(namespace, pod(Service.GATEWAY).labels)
    target = Peer(namespace, pod(Service.REST).labels)
    assert items.open(mine, target, 3000)
    assert not items.lets_in(pod(Service.GATEWAY), target, 3000)


def test_an_exposed_gateways_door_is_for_the_controllers_namespace_alone() -> None:
    items = policies_of(declared(at("gateway.exposure", {**INGRESS, "controllerNamespace": "traefik"})))
    assert items.lets_in(in_namespace("traefik"), pod(Service.GATEWAY), 8000)
    assert not items.lets_in(INGRESS_CONTROLLER, pod(Service.GATEWAY), 8000)
