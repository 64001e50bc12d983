"""Edge Functions, where a platform wants them; off unless asked for.

Variables: Supabase's ``docker/docker-compose.yml``. What runs there is the platform's, not a tenant's: it holds the
secret key, so it is not given the database's address as the compose file does.
"""

import pulumi

from components.central.jwks_sync import JWKS_ENTRY, JWKS_SECRET
from components.central.service_deployment import Probes, ServiceArgs, ServiceDeployment, ServiceDeploymentArgs
from components.central.service_secrets import secret_field
from data_plane.model.catalog import Service
from data_plane.model.cluster_names import PORTS

__all__ = ["Functions"]

_USER = 1000
_CODE = "/home/deno/functions"


class Functions(pulumi.ComponentResource):
    """Creates the edge runtime, reachable through the gateway under ``/functions/v1``."""

    def __init__(self, name: str, args: ServiceArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("supabase-data-plane:central:Functions", name, None, opts)
        cluster = args.cluster
        settings = cluster.settings.functions
        code = {"persistent_volume_claim": {"claim_name": settings.claim, "read_only": True}}
        keys = ("SUPABASE_PUBLISHABLE_KEY", "SUPABASE_SECRET_KEY", "JWT_SECRET")
        ServiceDeployment(
            name,
            Service.FUNCTIONS,
            ServiceDeploymentArgs(
                cluster=cluster,
                access=args.access,
                replicas=settings.replicas,
                user=_USER,
                probes=Probes.tcp("http"),
                arguments=[
                    "start",
                    "--main-service",
                    f"{_CODE}/main",
                    "--port",
                    str(PORTS[Service.FUNCTIONS]["http"]),
                ],
                env={
                    "DENO_DIR": "/tmp/deno",  # noqa: S108 a folder of the container
                    "SUPABASE_URL": cluster.url(Service.GATEWAY),
                    "SUPABASE_PUBLIC_URL": cluster.public_url,
                    "VERIFY_JWT": str(settings.verify_jwt).lower(),
                },
                secret_keys=keys,
                secret_env={
                    "JWT_SECRET": secret_field("JWT_SECRET"),
                    "SUPABASE_ANON_KEY": secret_field("SUPABASE_PUBLISHABLE_KEY"),
                    "SUPABASE_SERVICE_ROLE_KEY": secret_field("SUPABASE_SECRET_KEY"),
                    "SUPABASE_PUBLISHABLE_KEYS": f'{{"default":"{secret_field("SUPABASE_PUBLISHABLE_KEY")}"}}',
                    "SUPABASE_SECRET_KEYS": f'{{"default":"{secret_field("SUPABASE_SECRET_KEY")}"}}',
                },
                shared_env={"SUPABASE_JWKS": (JWKS_SECRET, JWKS_ENTRY)},
                starts_anew_with=(JWKS_SECRET,),
                volumes=(("code", code, _CODE),),
                waits_for_database=False,
            ),
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.register_outputs({})
