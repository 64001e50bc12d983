"""Networks that lie in ``0.0.0.0/0`` and ``::/0`` and are not the internet, for network policies."""

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_network

__all__ = ["NEVER", "OWN", "PRIVATE", "excepted", "lies_in"]

_Network = IPv4Network | IPv6Network
_NAT64 = ip_network("64:ff9b::/96")


def _with_nat64(*texts: str) -> tuple[_Network, ...]:
    """The networks, and those by which a NAT64 gateway leads into the IPv4 ones among them."""
    networks = [ip_network(text) for text in texts]
    embedded = [
        IPv6Network((int(_NAT64.network_address) + int(network.network_address), 96 + network.prefixlen))
        for network in networks
        if isinstance(network, IPv4Network)
    ]
    return (*networks, *embedded)


NEVER = _with_nat64(
    *("0.0.0.0/8", "127.0.0.0/8"),
    # Metadata services of clouds, which give out the node's credentials: AWS, Google and most others, then Azure,
    # Alibaba, Oracle, and AWS and Google by IPv6.
    *("169.254.0.0/16", "168.63.129.16/32", "100.100.100.200/32", "192.0.0.192/32"),
    *("fd00:ec2::254/128", "fd20:ce::254/128"),
    *("224.0.0.0/4", "240.0.0.0/4"),
    # Unspecified, loopback and IPv4 in the old and the new spelling; link-local; multicast.
    *("::/96", "::ffff:0:0/96", "fe80::/10", "ff00::/8"),
)
"""What no Pod has business with: the node itself, metadata services, multicast."""

PRIVATE = _with_nat64(
    *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "192.0.0.0/24", "198.18.0.0/15"),
    # Local addresses, former ones, local NAT64, and two tunnels that lead to any IPv4 address.
    *("fc00::/7", "fec0::/10", "64:ff9b:1::/48", "2002::/16", "2001::/32"),
)
"""Networks of an operator's own: the cluster's Pods, Services and API are there, and machines beside it."""


OWN = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
"""Where a cluster's API and its Service usually are."""


def excepted(cidr: str, networks: Iterable[_Network]) -> list[str]:
    """Those networks that a wider one contains, as the field ``except`` of an IP block takes them."""
    inside = [network for network in dict.fromkeys(networks) if network != ip_network(cidr) and lies_in(network, cidr)]
    return [
        str(network)
        for network in inside
        if not any(other != network and lies_in(network, str(other)) for other in inside)
    ]


def lies_in(network: _Network, other: str) -> bool:
    """Whether a network is part of another, or the same."""
    outer = ip_network(other)
    if isinstance(network, IPv4Network):
        return isinstance(outer, IPv4Network) and network.subnet_of(outer)
    return isinstance(outer, IPv6Network) and network.subnet_of(outer)
