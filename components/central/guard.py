"""The guard: runs ``data_plane.enforce_limits()`` every two seconds, which ends sessions beyond their project's limits.

A Deployment runs it, with the database's image and a login that may do nothing else. pg_cron could too, but not every
server has it, and it opens a connection for each run: when tenants hold every connection, or fill the table of locks
that a new one needs, it would not get in. The guard keeps one open.
"""

import pulumi

from components.central.database_loop import FOLDER, run_loop
from components.central.service_deployment import ServiceArgs
from data_plane.model.catalog import Service
from data_plane.model.timings import GUARD_PERIOD_SECONDS

__all__ = ["Guard"]

# The inner loop is psql's input, so that all runs share one connection; the outer one connects again when it is lost.
_LOOP = f"""\
while true; do
    while sleep {GUARD_PERIOD_SECONDS}; do
        touch {FOLDER}/alive
        echo 'select data_plane.enforce_limits() \\g {FOLDER}/done'
        echo 'select data_plane.apply_storage() \\g /dev/null'
    done | psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 'connect_timeout=5 tcp_user_timeout=30000' || true
done
"""


class Guard(pulumi.ComponentResource):
    """Creates the Deployment that runs the guard; it is ready while its runs come to an end."""

    def __init__(self, name: str, args: ServiceArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("supabase-data-plane:central:Guard", name, None, opts)
        run_loop(name, Service.GUARD, args, _LOOP, parent=self)
        self.register_outputs({})
