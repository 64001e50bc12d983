"""Studio: the dashboard, for the infrastructure team.

Variables: Supabase's ``docker/docker-compose.yml``. It signs in to the database as its administrator, through
postgres-meta; the gateway lets nobody to it without the dashboard's password.
"""

import pulumi

from components.central.rest import BASE_SCHEMAS, EXTRA_SEARCH_PATH
from components.central.service_deployment import Probes, ServiceArgs, ServiceDeployment, ServiceDeploymentArgs
from components.central.service_secrets import secret_field
from data_plane.model.catalog import Service
from data_plane.model.cluster_names import PORTS
from data_plane.model.service_logins import STUDIO_LOGIN

__all__ = ["Studio"]

_USER = 1000
_APP = "/app/apps/studio"


class Studio(pulumi.ComponentResource):
    """Creates Studio, reachable through the gateway under ``/`` with the dashboard's name and password."""

    def __init__(self, name: str, args: ServiceArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("supabase-data-plane:central:Studio", name, None, opts)
        cluster = args.cluster
        settings = cluster.settings
        log_keys = (
            ("LOGFLARE_PUBLIC_ACCESS_TOKEN", "LOGFLARE_PRIVATE_ACCESS_TOKEN") if settings.analytics.enabled else ()
        )
        ServiceDeployment(
            name,
            Service.STUDIO,
            ServiceDeploymentArgs(
                cluster=cluster,
                access=args.access,
                replicas=1,
                user=_USER,
                probes=Probes.http("/api/platform/profile", "http"),
                env={
                    "HOSTNAME": "0.0.0.0",  # noqa: S104 its Service has to reach it
                    "PORT": str(PORTS[Service.STUDIO]["http"]),
                    "STUDIO_PG_META_URL": cluster.url(Service.META),
                    "POSTGRES_HOST": cluster.database_host,
                    "POSTGRES_PORT": str(cluster.database_port),
                    "POSTGRES_DB": cluster.database_name,
                    "POSTGRES_USER_READ_WRITE": STUDIO_LOGIN,
                    "PGRST_DB_SCHEMAS": ",".join(BASE_SCHEMAS),
                    "PGRST_DB_MAX_ROWS": str(settings.rest.max_rows),
                    "PGRST_DB_EXTRA_SEARCH_PATH": ",".join(EXTRA_SEARCH_PATH),
                    "DEFAULT_ORGANIZATION_NAME": settings.studio.organization,
                    "DEFAULT_PROJECT_NAME": settings.studio.project,
                    "SUPABASE_URL": cluster.url(Service.GATEWAY),
                    "SUPABASE_PUBLIC_URL": cluster.public_url,
                    "SNIPPETS_MANAGEMENT_FOLDER": "/app/snippets",
                    "EDGE_FUNCTIONS_MANAGEMENT_FOLDER": "/app/edge-functions",
                    "NEXT_PUBLIC_ENABLE_LOGS": str(settings.analytics.enabled).lower(),
                    "ENABLED_FEATURES_LOGS_ALL": str(settings.analytics.enabled).lower(),
                    **(
                        {
                            "LOGFLARE_URL": cluster.url(Service.ANALYTICS),
                            "NEXT_ANALYTICS_BACKEND_PROVIDER": "postgres",
                        }
                        if settings.analytics.enabled
                        else {}
                    ),
                },
                secret_keys=(
                    "STUDIO_PASSWORD",
                    "PG_META_CRYPTO_KEY",
                    "SUPABASE_PUBLISHABLE_KEY",
                    "SUPABASE_SECRET_KEY",
                    "JWT_SECRET",
                    *log_keys,
                ),
                secret_env={
                    "POSTGRES_PASSWORD": secret_field("STUDIO_PASSWORD"),
                    "PG_META_CRYPTO_KEY": secret_field("PG_META_CRYPTO_KEY"),
                    # It calls the services through the gateway, as everybody does, so it has the gateway's keys.
                    "SUPABASE_ANON_KEY": secret_field("SUPABASE_PUBLISHABLE_KEY"),
                    "SUPABASE_SERVICE_KEY": secret_field("SUPABASE_SECRET_KEY"),
                    "AUTH_JWT_SECRET": secret_field("JWT_SECRET"),
                    **{key: secret_field(key) for key in log_keys},
                },
                writable=("/tmp", f"{_APP}/.next/cache", "/app/snippets", "/app/edge-functions"),  # noqa: S108
                waits_for_database=False,
            ),
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.register_outputs({})
