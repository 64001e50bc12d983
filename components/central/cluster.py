"""The cluster that the services run on, as their components see it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pulumi
import pulumi_kubernetes as k8s

from data_plane.model.catalog import Catalog, Service
from data_plane.model.cluster_names import (
    CLOUD_NATIVE_PG_CLUSTER,
    PORTS,
    Place,
    Priority,
    place_of,
    priority_of,
    service_name,
)
from data_plane.model.cluster_settings import ClusterSettings, DatabaseMode
from data_plane.model.naming import ApiServer

__all__ = ["Cluster"]

_SEVERAL = frozenset({Service.REST})
"""The services that have several instances. All instances may talk to the same others."""


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
    api_servers: tuple[ApiServer, ...] = ()
    """The instances of PostgREST that serve tenants."""
    priorities: Mapping[Priority, pulumi.Output[str]] = field(default_factory=dict)
    """The names of the PriorityClasses, known once they are there."""

    def namespace_name(self, service: Service) -> str:
        """The name of the namespace that a service lives in."""
        return f"{self.settings.namespace}{place_of(service).value}"

    def namespace(self, service: Service) -> pulumi.Output[str]:
        """The same, known once it is there."""
        return self.namespaces[place_of(service)]

    def priority_class(self, service: Service) -> pulumi.Input[str]:
        """The PriorityClass of a service's Pods."""
        priority = priority_of(service)
        return self.priorities.get(priority) or self.settings.priority_class(priority).name

    def host(self, service: Service, instance: str | None = None) -> str:
        """The name under which Pods of every namespace reach a service."""
        return f"{service_name(service, instance)}.{self.namespace_name(service)}.svc"

    def url(self, service: Service, port: str = "http") -> str:
        """A service's URL inside of the cluster, without a path."""
        return f"http://{self.host(service)}:{PORTS[service][port]}"

    def labels(self, service: Service, instance: str | None = None) -> dict[str, str]:
        """The labels of everything that belongs to a service."""
        return {
            **self.selector(service, instance),
            **(self.pods(service) if service in _SEVERAL else {}),
            "app.kubernetes.io/managed-by": "pulumi",
            "app.kubernetes.io/version": self.catalog.version(service),
        }

    def pods(self, service: Service) -> dict[str, str]:
        """The labels by which others find a service's Pods."""
        if service is Service.DATABASE and self.settings.database.mode is DatabaseMode.CLOUD_NATIVE_PG:
            # The operator's own: it does not bear its other labels being changed (cloudnative-pg issue 11438).
            return {"cnpg.io/cluster": CLOUD_NATIVE_PG_CLUSTER}
        if service in _SEVERAL:
            return {"app.kubernetes.io/component": str(service), "app.kubernetes.io/part-of": "supabase"}
        return self.selector(service)

    @staticmethod
    def selector(service: Service, instance: str | None = None) -> dict[str, str]:
        """The labels by which the Pods of one instance of a service are found; they never change."""
        return {"app.kubernetes.io/name": service_name(service, instance), "app.kubernetes.io/part-of": "supabase"}

    def database_url(self, scheme: str, login: str, password_key: str, database: str | None = None) -> str:
        """A connection URL, as an External Secrets template.

        Args:
            password_key: the key of the password. It may be any text, and is percent-encoded: ``urlquery`` is Go's
                encoding of a query, in which a blank is ``+``.
        """
        password = f'{{{{ .{password_key} | urlquery | replace "+" "%20" }}}}'
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
