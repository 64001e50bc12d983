"""Where things are on the cluster: namespaces, names, labels and ports, in this one place.

The services live in three namespaces, one for each level of the Pod Security Standards, so that the strictest one is
enforced on everything that can bear it:

- ``<namespace>``: ``restricted``; everything that serves requests;
- ``<namespace>-data``: ``baseline``; PostgreSQL on Supabase's image, whose entrypoint starts as root to own its
  volume and
  then becomes ``postgres``, and its backups;
- ``<namespace>-logs``: ``privileged``; Vector, which reads the containers' logs from the node.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import pulumi
import pulumi_kubernetes as k8s

from components.catalog import Catalog, Service
from components.cluster_settings import ClusterSettings, DatabaseMode
from components.naming import TenantNames

__all__ = ["CLOUD_NATIVE_PG_CLUSTER", "PORTS", "Cluster", "Place", "PodSecurity", "place_of", "service_name"]

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
}
"""The ports that each service listens on: those of Supabase's compose file, and those for probes and metrics."""

_APART = frozenset({Service.REST})
"""The services of which a project may have an instance of its own. All instances may talk to the same others."""

CLOUD_NATIVE_PG_CLUSTER = "supabase-postgres"
"""CloudNativePG's Cluster; its primary is at the Service of that name with ``-rw``."""


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


def place_of(service: Service) -> Place:
    """Where a service lives."""
    match service:
        case Service.DATABASE | Service.BACKUPS:
            return Place.DATA
        case Service.LOGS:
            return Place.LOGS
        case _:
            return Place.SERVICES


def service_name(service: Service, apart: str | None = None) -> str:
    """The name of everything that a service consists of.

    Args:
        apart: the project that it is for, where it is an instance for one project alone.
    """
    return f"supabase-{service}" if apart is None else f"supabase-{service}-{apart}"


@dataclass(frozen=True)
class Cluster:
    """The cluster as the services' components see it."""

    provider: k8s.Provider
    settings: ClusterSettings
    catalog: Catalog
    namespaces: Mapping[Place, pulumi.Output[str]]
    """The names of the namespaces, known once they are there."""
    database_host: str
    """PostgreSQL as the services reach it."""
    database_port: int
    database_name: str
    admin_user: str
    """PostgreSQL's superuser."""
    sslmode: str
    """As the services use it."""
    public_url: pulumi.Input[str]
    """The gateway's URL from outside, without a path."""
    served_apart: tuple[TenantNames, ...] = ()
    """The tenants with a PostgREST of their own."""

    def namespace_name(self, service: Service) -> str:
        """The name of the namespace that a service lives in."""
        return f"{self.settings.namespace}{place_of(service).value}"

    def namespace(self, service: Service) -> pulumi.Output[str]:
        """The same, known once it is there."""
        return self.namespaces[place_of(service)]

    def host(self, service: Service, apart: str | None = None) -> str:
        """The name under which Pods of every namespace reach a service."""
        return f"{service_name(service, apart)}.{self.namespace_name(service)}.svc"

    def url(self, service: Service, port: str = "http") -> str:
        """A service's URL inside of the cluster, without a path."""
        return f"http://{self.host(service)}:{PORTS[service][port]}"

    def labels(self, service: Service, apart: str | None = None) -> dict[str, str]:
        """The labels of everything that belongs to a service."""
        return {
            **self.selector(service, apart),
            **(self.pods(service) if service in _APART else {}),
            "app.kubernetes.io/managed-by": "pulumi",
            "app.kubernetes.io/version": self.catalog.version(service),
        }

    def pods(self, service: Service) -> dict[str, str]:
        """The labels by which others find a service's Pods."""
        if service is Service.DATABASE and self.settings.database.mode is DatabaseMode.CLOUD_NATIVE_PG:
            # The operator's own: it does not bear its other labels being changed (cloudnative-pg issue 11438).
            return {"cnpg.io/cluster": CLOUD_NATIVE_PG_CLUSTER}
        if service in _APART:
            return {"app.kubernetes.io/component": str(service), "app.kubernetes.io/part-of": "supabase"}
        return self.selector(service)

    @staticmethod
    def selector(service: Service, apart: str | None = None) -> dict[str, str]:
        """The labels by which the Pods of one instance of a service are found; they never change."""
        return {"app.kubernetes.io/name": service_name(service, apart), "app.kubernetes.io/part-of": "supabase"}

    def database_url(self, scheme: str, login: str, password: str, database: str | None = None) -> str:
        """A connection URL.

        Args:
            password: an External Secrets field, never a value.
        """
        place = f"{self.database_host}:{self.database_port}/{database or self.database_name}"
        return f"{scheme}://{login}:{password}@{place}"

    def runs(self, service: Service) -> bool:
        """Whether a service is on this cluster."""
        settings = self.settings
        optional = {
            Service.DATABASE: settings.database.mode is not DatabaseMode.EXTERNAL,
            Service.POOLER: settings.pooler.enabled,
            Service.IMGPROXY: settings.imgproxy.enabled,
            Service.STUDIO: settings.studio.enabled,
            Service.META: settings.studio.enabled,
            Service.FUNCTIONS: settings.functions.enabled,
            Service.ANALYTICS: settings.analytics.enabled,
            Service.LOGS: settings.logs.enabled,
            Service.BACKUPS: settings.backups is not None,
        }
        return optional.get(service, True)
