"""The Deployment of a loop that works on the database: the guard's, and the relay's."""

import pulumi

from components.central.service_deployment import Probes, ServiceArgs, ServiceDeployment, ServiceDeploymentArgs
from components.central.service_secrets import secret_field
from data_plane.model.catalog import Service

__all__ = ["FOLDER", "run_loop"]

FOLDER = "/tmp"  # noqa: S108 a folder of the container
"""Where a loop touches ``alive`` when it goes round, and ``done`` when the database has answered."""

_NOBODY = 65534


def run_loop(
    name: str,
    service: Service,
    args: ServiceArgs,
    script: str,
    *,
    parent: pulumi.Resource,
    env: dict[str, str] | None = None,
) -> None:
    """Creates the Deployment of a loop; it is ready while the database answers.

    Args:
        service: ``guard`` has the login ``data_plane_guard``, with ``GUARD_PASSWORD``; the others likewise.
        script: of the shell, as Kubernetes takes it; it finds the database by the variables of libpq.
        env: further variables.
    """
    cluster = args.cluster
    password = f"{service.value.upper()}_PASSWORD"
    ServiceDeployment(
        name,
        service,
        ServiceDeploymentArgs(
            cluster=cluster,
            access=args.access,
            replicas=1,
            user=_NOBODY,
            command=["/bin/sh", "-c", script],
            # Ready is who is answered. Alive is whose loop goes round, also while the database is away.
            probes=Probes(_newer_than_a_minute("done"), _newer_than_a_minute("alive")),
            env={
                "PGHOST": cluster.database_host,
                "PGPORT": str(cluster.database_port),
                "PGDATABASE": cluster.database_name,
                "PGUSER": f"data_plane_{service.value}",
                "PGSSLMODE": cluster.sslmode,
                "PGAPPNAME": f"data-plane-{service.value}",
                **(env or {}),
            },
            secret_keys=(password,),
            secret_env={"PGPASSWORD": secret_field(password)},
        ),
        opts=pulumi.ResourceOptions(parent=parent),
    )


def _newer_than_a_minute(name: str) -> dict[str, object]:
    return {"exec_": {"command": ["/bin/sh", "-c", f'test -n "$(find {FOLDER}/{name} -mmin -1)"']}}
