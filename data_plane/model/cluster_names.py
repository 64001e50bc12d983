"""Namespaces, names, labels and ports on the cluster.

The services live in three namespaces, one for each level of the Pod Security Standards, so that the strictest one is
enforced on everything that can bear it:

- ``<namespace>``: ``restricted``; everything that serves requests;
- ``<namespace>-data``: ``baseline``; PostgreSQL on Supabase's image, whose entrypoint starts as root to own its
  volume and
  then becomes ``postgres``, and its backups;
- ``<namespace>-logs``: ``privileged``; Vector, which reads the containers' logs from the node.
"""

from collections.abc import Mapping
from enum import StrEnum

from data_plane.model.catalog import Service

__all__ = [
    "CLOUD_NATIVE_PG_CLUSTER",
    "JWKS_ENTRY",
    "JWKS_SECRET",
    "PORTS",
    "Place",
    "PodSecurity",
    "Priority",
    "place_of",
    "priority_of",
    "service_name",
]

PORTS: Mapping[Service, Mapping[str, int]] = {
    Service.DATABASE: {"postgres": 5432},
    Service.POOLER: {"session": 5432, "transaction": 6543, "http": 4000},
    Service.GATEWAY: {"http": 8000, "status": 8100},
    Service.AUTH: {"http": 9999, "metrics": 9100},
    Service.REST: {"http": 3000, "admin": 3001},
    Service.REALTIME: {"http": 4000},
    Service.STORAGE: {"http": 5000},
    Service.IMGPROXY: {"http": 5001, "metrics": 8081},
    Service.STUDIO: {"http": 3000},
    Service.META: {"http": 8080},
    Service.FUNCTIONS: {"http": 9000},
    Service.ANALYTICS: {"http": 4000},
    Service.LOGS: {"http": 9001},
    Service.GUARD: {},
    Service.RELAY: {},
}
"""The ports that each service listens on: those of Supabase's compose file, and those for probes and metrics."""

CLOUD_NATIVE_PG_CLUSTER = "supabase-postgres"
"""CloudNativePG's Cluster; its primary is at the Service of that name with ``-rw``."""

JWKS_SECRET = "supabase-jwks-public"
"""The Secret with the keys of both signers. They are public; a ConfigMap would do, if External Secrets made any."""

JWKS_ENTRY = "jwks.json"
"""The Secret's entry that holds them."""


class PodSecurity(StrEnum):
    """The Pod Security Standards' levels."""

    RESTRICTED = "restricted"
    BASELINE = "baseline"
    PRIVILEGED = "privileged"


class Place(StrEnum):
    """The namespaces, by what is in them; the value is the suffix of the name."""

    SERVICES = ""
    DATA = "-data"
    LOGS = "-logs"

    @property
    def pod_security(self) -> PodSecurity:
        """The level that is enforced there."""
        return {
            Place.SERVICES: PodSecurity.RESTRICTED,
            Place.DATA: PodSecurity.BASELINE,
            Place.LOGS: PodSecurity.PRIVILEGED,
        }[self]


class Priority(StrEnum):
    """Whose Pods stay where a node is short of room, the first longest."""

    DATABASE = "database"
    SERVICES = "services"


def priority_of(service: Service) -> Priority:
    """The priority of a service's Pods."""
    return Priority.DATABASE if service is Service.DATABASE else Priority.SERVICES


def place_of(service: Service) -> Place:
    """The namespace of a service."""
    match service:
        case Service.DATABASE | Service.BACKUPS:
            return Place.DATA
        case Service.LOGS:
            return Place.LOGS
        case _:
            return Place.SERVICES


def service_name(service: Service, instance: str | None = None) -> str:
    """The name of everything that a service consists of.

    Args:
        instance: which, of a service that has several.
    """
    return f"supabase-{service}" if instance is None else f"supabase-{service}-{instance}"
