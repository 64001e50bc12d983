"""postgres-meta: what Studio sees of the database, as an API for administrators.

Variables: Supabase's ``docker/docker-compose.yml`` and ``src/server/constants.ts`` of supabase/postgres-meta.
"""

import pulumi

from components.central.service_deployment import Probes, ServiceArgs, ServiceDeployment, ServiceDeploymentArgs
from components.central.service_secrets import secret_field
from data_plane.model.catalog import Service
from data_plane.model.cluster_names import PORTS
from data_plane.model.service_logins import STUDIO_LOGIN

__all__ = ["Meta"]

_USER = 1000


class Meta(pulumi.ComponentResource):
    """Creates postgres-meta, reachable by Studio and, with the secret key alone, through the gateway under ``/pg``."""

    def __init__(self, name: str, args: ServiceArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("supabase-data-plane:central:Meta", name, None, opts)
        cluster = args.cluster
        ServiceDeployment(
            name,
            Service.META,
            ServiceDeploymentArgs(
                cluster=cluster,
                access=args.access,
                replicas=1,
                user=_USER,
                probes=Probes.http("/health", "http"),
                env={
                    "PG_META_PORT": str(PORTS[Service.META]["http"]),
                    "PG_META_DB_HOST": cluster.database_host,
                    "PG_META_DB_PORT": str(cluster.database_port),
                    "PG_META_DB_NAME": cluster.database_name,
                    "PG_META_DB_USER": STUDIO_LOGIN,
                    "PG_META_DB_SSL_MODE": cluster.sslmode,
                },
                secret_keys=("STUDIO_PASSWORD", "PG_META_CRYPTO_KEY"),
                secret_env={
                    "PG_META_DB_PASSWORD": secret_field("STUDIO_PASSWORD"),
                    "CRYPTO_KEY": secret_field("PG_META_CRYPTO_KEY"),
                },
            ),
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.register_outputs({})
