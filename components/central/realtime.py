"""Realtime: changes, broadcast and presence over websockets.

Variables: ``ENVS.md`` of supabase/realtime. The image's own entrypoint migrates through ``sudo``; here the same steps
are init containers that are ``nobody`` from the start, as the server is.
"""

import pulumi

from components.central.jwks_sync import JWKS_ENTRY, JWKS_SECRET
from components.central.service_deployment import Probes, ServiceArgs, ServiceDeployment, ServiceDeploymentArgs
from components.central.service_secrets import secret_field
from data_plane.model.catalog import Service
from data_plane.model.cluster_names import PORTS, service_name

__all__ = ["ERLANG_DISTRIBUTION", "REALTIME_SCHEMA", "Realtime"]

_NOBODY = 65534
REALTIME_SCHEMA = "_realtime"
ERLANG_DISTRIBUTION = "-proto_dist inet_tcp -kernel inet_dist_listen_min 9000 inet_dist_listen_max 9005"
"""IPv4, and a range of ports that a network policy can name."""


class Realtime(pulumi.ComponentResource):
    """Creates Realtime, reachable through the gateway under ``/realtime/v1``.

    It takes its tenant (its own notion) from the first label of the host that it is called by. The platform's own has
    the name of its Service; those of projects have their schemas' names, and are rows of ``platform_realtime.sql``.
    """

    def __init__(self, name: str, args: ServiceArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("supabase-data-plane:central:Realtime", name, None, opts)
        cluster = args.cluster
        settings = cluster.settings.realtime
        ServiceDeployment(
            name,
            Service.REALTIME,
            ServiceDeploymentArgs(
                cluster=cluster,
                access=args.access,
                replicas=settings.replicas,
                user=_NOBODY,
                group=0,
                probes=Probes.http("/healthcheck", "http", startup_seconds=180),
                prepare={
                    "migrate": ["/app/bin/migrate"],
                    "seed": ["/app/bin/realtime", "eval", "Realtime.Release.seeds(Realtime.Repo)"],
                },
                command=["/usr/bin/tini", "-s", "-g", "--", "/app/bin/server"],
                field_env={"POD_IP": "status.podIP"},
                env={
                    "PORT": str(PORTS[Service.REALTIME]["http"]),
                    "APP_NAME": "realtime",
                    "SELF_HOST_TENANT_NAME": service_name(Service.REALTIME),
                    "DB_HOST": cluster.database_host,
                    "DB_PORT": str(cluster.database_port),
                    "DB_NAME": cluster.database_name,
                    # Needs a superuser (ENVS.md): it makes its tables, publications and reads the write-ahead log. Its
                    # sessions for projects are those of their own logins.
                    "DB_USER": cluster.admin_user,
                    "DB_SSL": str(cluster.sslmode != "disable").lower(),
                    "DB_AFTER_CONNECT_QUERY": f"SET search_path TO {REALTIME_SCHEMA}",
                    "DB_ENC_WRITE_GCM": "true",
                    "DNS_NODES": "''",
                    "ERL_AFLAGS": ERLANG_DISTRIBUTION,
                    "RELEASE_TMP": "/tmp/release",  # noqa: S108 a folder of the container
                    "RUN_JANITOR": "true",
                    "DISABLE_HEALTHCHECK_LOGGING": "true",
                    "TENANT_MAX_CONCURRENT_USERS": str(settings.max_concurrent_users),
                    "TENANT_MAX_EVENTS_PER_SECOND": str(settings.max_events_per_second),
                },
                secret_keys=(
                    "POSTGRES_PASSWORD",
                    "REALTIME_JWT_SECRET",
                    "REALTIME_DB_ENC_KEY",
                    "REALTIME_DB_ENC_KEY_GCM",
                    "REALTIME_SECRET_KEY_BASE",
                    "REALTIME_COOKIE",
                ),
                secret_env={
                    "DB_PASSWORD": secret_field("POSTGRES_PASSWORD"),
                    "DB_ENC_KEY": secret_field("REALTIME_DB_ENC_KEY"),
                    "DB_ENC_KEY_GCM": secret_field("REALTIME_DB_ENC_KEY_GCM"),
                    # For its own management interface; users' tokens are checked with the published keys.
                    "API_JWT_SECRET": secret_field("REALTIME_JWT_SECRET"),
                    "METRICS_JWT_SECRET": secret_field("REALTIME_JWT_SECRET"),
                    "SECRET_KEY_BASE": secret_field("REALTIME_SECRET_KEY_BASE"),
                    "RELEASE_COOKIE": secret_field("REALTIME_COOKIE"),
                },
                # What the tenant starts with; `data_plane.publish_keys` brings what comes later.
                shared_env={"API_JWT_JWKS": (JWKS_SECRET, JWKS_ENTRY)},
                grace_seconds=60,
            ),
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.register_outputs({})
