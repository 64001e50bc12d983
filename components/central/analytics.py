"""Logflare: keeps the services' logs where Studio finds them.

Variables: Supabase's ``docker/docker-compose.logs.yml``. It keeps them in the database ``_supabase``, beside what the
pooler keeps there.
"""

import pulumi

from components.central.realtime import ERLANG_DISTRIBUTION
from components.central.service_deployment import Probes, ServiceArgs, ServiceDeployment, ServiceDeploymentArgs
from components.central.service_secrets import secret_field
from data_plane.model.catalog import Service

__all__ = ["ANALYTICS_SCHEMA", "Analytics"]

_NOBODY = 65534
INTERNAL_DATABASE = "_supabase"
"""Supabase's own database for what is no user's data."""
ANALYTICS_SCHEMA = "_analytics"
_START = "./logflare eval Logflare.Release.migrate && exec ./logflare start --sname logflare"


class Analytics(pulumi.ComponentResource):
    """Creates Logflare; only Vector and Studio reach it."""

    def __init__(self, name: str, args: ServiceArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("supabase-data-plane:central:Analytics", name, None, opts)
        cluster = args.cluster
        ServiceDeployment(
            name,
            Service.ANALYTICS,
            ServiceDeploymentArgs(
                cluster=cluster,
                access=args.access,
                replicas=1,
                user=_NOBODY,
                # `/health` answers 503 until the sources are seeded and while memory is short: no reason to restart.
                probes=Probes(
                    readiness={"http_get": {"path": "/health", "port": "http"}},
                    liveness={"tcp_socket": {"port": "http"}},
                    startup_seconds=300,
                ),
                command=["/bin/sh", "-c", _START],
                env={
                    "LOGFLARE_NODE_HOST": "127.0.0.1",
                    "DB_HOSTNAME": cluster.database_host,
                    "DB_PORT": str(cluster.database_port),
                    "DB_DATABASE": INTERNAL_DATABASE,
                    "DB_USERNAME": cluster.admin_user,
                    "DB_SCHEMA": ANALYTICS_SCHEMA,
                    "LOGFLARE_SINGLE_TENANT": "true",
                    "LOGFLARE_SUPABASE_MODE": "true",
                    "LOGFLARE_MIN_CLUSTER_SIZE": "1",
                    "POSTGRES_BACKEND_SCHEMA": ANALYTICS_SCHEMA,
                    "LOGFLARE_FEATURE_FLAG_OVERRIDE": "multibackend=true",
                    "ERL_AFLAGS": ERLANG_DISTRIBUTION,
                    "RELEASE_TMP": "/tmp/release",  # noqa: S108 a folder of the container
                },
                secret_keys=(
                    "POSTGRES_PASSWORD",
                    "LOGFLARE_PUBLIC_ACCESS_TOKEN",
                    "LOGFLARE_PRIVATE_ACCESS_TOKEN",
                ),
                secret_env={
                    "DB_PASSWORD": secret_field("POSTGRES_PASSWORD"),
                    "POSTGRES_BACKEND_URL": cluster.database_url(
                        "postgresql", cluster.admin_user, "POSTGRES_PASSWORD", INTERNAL_DATABASE
                    ),
                    "LOGFLARE_PUBLIC_ACCESS_TOKEN": secret_field("LOGFLARE_PUBLIC_ACCESS_TOKEN"),
                    "LOGFLARE_PRIVATE_ACCESS_TOKEN": secret_field("LOGFLARE_PRIVATE_ACCESS_TOKEN"),
                },
                recreate=True,
                grace_seconds=60,
            ),
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.register_outputs({})
