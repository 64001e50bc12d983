"""A tenant's login for scheduled jobs, and whether its jobs run (``platform_jobs.sql``)."""

from typing import Any

import psycopg
import pulumi

from components.database_resource import DatabaseResource
from components.platform import DatabaseConnection
from components.tenant.table_row import TableRowProvider

__all__ = ["TenantJobs"]


class _Provider(TableRowProvider):
    table = "job_access"
    columns = ("attached",)

    def after_write(self, connection: psycopg.Connection[Any], tenant: str) -> None:
        connection.execute("select data_plane.provide_jobs(%s)", [tenant])

    def delete(self, _id: str, props: dict[str, Any]) -> None:
        """No job of the tenant's runs any more."""
        self.forget(props)


class TenantJobs(DatabaseResource, module="tenant", name="TenantJobs"):
    """Lets a tenant have jobs. Detached, those that it has are kept and do not run, and one under way ends.

    Args:
        database: the central database.
        tenant: the tenant's schema.
        attached: whether its jobs run.

    Raises:
        DatabaseUnavailableError, TableRowError: while it is applied.
    """

    def __init__(
        self,
        name: str,
        *,
        database: DatabaseConnection,
        tenant: str,
        attached: bool,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        props = {"tenant": tenant, "attached": attached}
        super().__init__(_Provider(), name, database, props, opts)
