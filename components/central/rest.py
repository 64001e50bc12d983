"""PostgREST: the platform's and the tenants' schemas as APIs.

Variables: PostgREST's configuration page. Not carried over from Supabase's compose file is
``PGRST_APP_SETTINGS_JWT_SECRET``: it puts a signing secret where every tenant's SQL can read it.
"""

import pulumi

from components.central.service_deployment import Metrics, Probes, ServiceArgs, ServiceDeployment, ServiceDeploymentArgs
from components.central.service_secrets import secret_field
from data_plane.model.catalog import Service
from data_plane.model.cluster_names import PORTS
from data_plane.model.naming import PLATFORM_AUTHENTICATOR, PLATFORM_SCHEMA, ApiServer
from data_plane.model.service_logins import SERVICE_LOGINS

__all__ = ["BASE_SCHEMAS", "EXTRA_SEARCH_PATH", "Rest"]

_USER = 1000
BASE_SCHEMAS = ("public", "storage", "graphql_public", "data_plane_api")
"""Served whether or not there are tenants, and at a cold start before the pre-config function is heard."""
EXTRA_SEARCH_PATH = ("public", "extensions")


class Rest(pulumi.ComponentResource):
    """Creates an instance of PostgREST, reachable through the gateway under ``/rest/v1`` and ``/graphql/v1``.

    There is one for the platform's own schemas, whose login may become no tenant's role, one for each cell, and one for
    each project that has one of its own. All serve the platform's schemas: a signed-in user calls ``data_plane_api`` as
    the tenant's role that the token names, which the instance that serves the tenant may become and no other.

    Which schemas it serves and which keys it believes it learns from the database (``data_plane.pre_config``), again
    whenever the database says so; neither takes a restart.

    Args:
        server: which tenants it serves; no tenant unless given. The gateway sends it what brings their tokens.
    """

    def __init__(
        self,
        name: str,
        args: ServiceArgs,
        opts: pulumi.ResourceOptions | None = None,
        *,
        server: ApiServer | None = None,
    ) -> None:
        super().__init__("supabase-data-plane:central:Rest", name, None, opts)
        cluster = args.cluster
        settings = cluster.settings.rest
        size = settings.dedicated if server is not None and server.dedicated else settings
        own_login = PLATFORM_AUTHENTICATOR if server is None else server.login
        password = SERVICE_LOGINS[PLATFORM_AUTHENTICATOR] if server is None else server.password_key
        login = cluster.database_url("postgres", own_login, password)
        ports = PORTS[Service.REST]
        ServiceDeployment(
            name,
            Service.REST,
            ServiceDeploymentArgs(
                cluster=cluster,
                access=args.access,
                instance=None if server is None else server.instance,
                replicas=size.replicas,
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
                    # Without a token nobody is a tenant's: only the platform's serves such requests.
                    **({"PGRST_DB_ANON_ROLE": "anon"} if server is None else {}),
                    "PGRST_DB_MAX_ROWS": str(settings.max_rows),
                    "PGRST_DB_POOL": str(size.pool_size),
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
