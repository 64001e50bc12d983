"""A tenant's limits on the shared server, in the row that the guard reads (``platform_guard.sql``)."""

from typing import Any

import psycopg
import pulumi

from components.database_resource import DatabaseResource
from components.platform import DatabaseConnection
from components.tenant.table_row import TableRowProvider
from data_plane.model.projects import Limits

__all__ = ["TenantLimits"]


class _Provider(TableRowProvider):
    table = "limits"
    columns = (
        "connections",
        "leases",
        "storage",
        "statement_timeout",
        "transaction_timeout",
        "idle_in_transaction_timeout",
        "schemas",
        "buckets",
        "jobs",
        "objects",
    )

    def after_write(self, connection: psycopg.Connection[Any], tenant: str) -> None:
        connection.execute("select data_plane.declare_limits_of_roles(%s)", [tenant])
        # Its login for jobs starts with these times.
        connection.execute("select data_plane.provide_jobs(%s)", [tenant])

    def delete(self, _id: str, _props: dict[str, Any]) -> None:
        """Nothing: the tenant's data outlives the stack, and its limits with it."""


class TenantLimits(DatabaseResource, module="tenant", name="TenantLimits"):
    """The limits of a tenant, in force from the guard's next run.

    Args:
        database: the central database.
        tenant: the tenant's schema.
        limits: what the project's file says.

    Raises:
        DatabaseUnavailableError, TableRowError: while it is applied.
    """

    def __init__(
        self,
        name: str,
        *,
        database: DatabaseConnection,
        tenant: str,
        limits: Limits,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        values = {column: getattr(limits, column) for column in _Provider.columns}
        props = {"tenant": tenant, **values}
        super().__init__(_Provider(), name, database, props, opts)
