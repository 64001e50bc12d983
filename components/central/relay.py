"""The relay: delivers Auth's changes of users to their projects' tables, in a session for each project.

A Deployment runs ``scripts/relay.sh`` with the database's image and a login that may do nothing but open deliveries.
pg_cron, whose jobs can run as a tenant's role, would take a job of each tenant, which costs also when there is nothing
to do; runs at most once a second; and opens its connections as a superuser.
"""

import pulumi

from components.central.database_loop import FOLDER, run_loop
from components.central.files import SCRIPTS
from components.central.service_deployment import ServiceArgs
from data_plane.model.catalog import Service

__all__ = ["Relay"]


class Relay(pulumi.ComponentResource):
    """Creates the Deployment that runs the relay; it is ready while the database answers."""

    def __init__(self, name: str, args: ServiceArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("supabase-data-plane:central:Relay", name, None, opts)
        # Kubernetes takes $$ for an escaped $ where it puts variables into a command.
        script = (SCRIPTS / "relay.sh").read_text(encoding="utf-8").replace("$", "$$")
        run_loop(name, Service.RELAY, args, script, parent=self, env={"RELAY_FOLDER": FOLDER})
        self.register_outputs({})
