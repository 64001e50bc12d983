"""PostgREST: the tenants' schemas as an API.

Variables: PostgREST's configuration page. Not carried over from Supabase's compose file is
``PGRST_APP_SETTINGS_JWT_SECRET``: it puts a signing secret where every tenant's SQL can read it.
"""

import pulumi

from components.catalog import Service
from components.central.cluster import PORTS
from components.central.platform_sql import PLATFORM_SCHEMA
from components.central.service_logins import SERVICE_LOGINS, own_login_key
from components.central.service_secrets import secret_field
from components.central.workload import Metrics, Probes, ServiceArgs, Workload, WorkloadArgs
from components.naming import SHARED_AUTHENTICATOR, TenantNames

__all__ = ["BASE_SCHEMAS", "EXTRA_SEARCH_PATH", "Rest"]

_USER = 1000
BASE_SCHEMAS = ("public", "storage", "graphql_public", "data_plane_api")
"""Served whether or not there are tenants, and at a cold start before the pre-config function is heard."""
EXTRA_SEARCH_PATH = ("public", "extensions")


class Rest(pulumi.ComponentResource):
    """Creates PostgREST, reachable through the gateway under ``/rest/v1`` and ``/graphql/v1``.

    Which schemas it serves and which keys it believes it learns from the database (``data_plane.pre_config``), again
    whenever the database says so; neither takes a restart.

    Args:
        apart: the one tenant that it serves; all others by default. Its login may become that tenant's roles alone, and
            the gateway sends it what brings that tenant's tokens.
    """

    def __init__(
        self,
        name: str,
        args: ServiceArgs,
        opts: pulumi.ResourceOptions | None = None,
        *,
        apart: TenantNames | None = None,
    ) -> None:
        super().__init__("supabase-data-plane:central:Rest", name, None, opts)
        cluster = args.cluster
        settings = cluster.settings.rest
        own_login = SHARED_AUTHENTICATOR if apart is None else apart.authenticator
        password = SERVICE_LOGINS[SHARED_AUTHENTICATOR] if apart is None else own_login_key(apart)
        login = cluster.database_url("postgres", own_login, secret_field(password))
        ports = PORTS[Service.REST]
        Workload(
            name,
            Service.REST,
            WorkloadArgs(
                cluster=cluster,
                access=args.access,
                apart=None if apart is None else apart.slug,
                replicas=settings.replicas,
                user=_USER,
                # Ready is: connected, and the schemas are known.
                probes=Probes.http("/ready", "admin", live=("/live", "admin")),
                env={
                    "PGRST_SERVER_PORT": str(ports["http"]),
                    "PGRST_ADMIN_SERVER_PORT": str(ports["admin"]),
                    "PGRST_DB_SCHEMAS": ",".join(BASE_SCHEMAS),
                    "PGRST_DB_EXTRA_SEARCH_PATH": ",".join(EXTRA_SEARCH_PATH),
                    "PGRST_DB_PRE_CONFIG": f"{PLATFORM_SCHEMA}.pre_config",
                    "PGRST_DB_CONFIG": "true",
                    # A LISTEN of its own, so never through a pooler.
                    "PGRST_DB_CHANNEL_ENABLED": "true",
                    "PGRST_DB_ANON_ROLE": "anon",
                    "PGRST_DB_MAX_ROWS": str(settings.max_rows),
                    "PGRST_DB_POOL": str(settings.pool_size),
                    "PGRST_DB_POOL_ACQUISITION_TIMEOUT": str(settings.pool_wait),
                    "PGRST_OPENAPI_SERVER_PROXY_URI": pulumi.Output.concat(cluster.public_url, "/rest/v1"),
                    "PGRST_APP_SETTINGS_JWT_EXP": str(cluster.settings.auth.jwt_expiry),
                    "PGRST_LOG_LEVEL": "warn",
                },
                secret_keys=(password, "JWT_JWKS"),
                secret_env={
                    "PGRST_DB_URI": f"{login}?sslmode={cluster.sslmode}",
                    # Until the database's answer takes its place.
                    "PGRST_JWT_SECRET": secret_field("JWT_JWKS"),
                },
                metrics=Metrics("admin"),
            ),
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.register_outputs({})
