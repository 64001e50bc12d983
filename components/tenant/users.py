"""A tenant's table of its own users, and the login by which they come there (``platform_users.sql``)."""

from collections.abc import Mapping
from typing import Any

import psycopg
import pulumi

from components.database_resource import DatabaseResource
from components.platform import DatabaseConnection
from components.tenant.table_row import TableRowProvider

__all__ = ["TenantUsers"]


class _Provider(TableRowProvider):
    table = "user_tables"
    columns = ("attached",)

    def after_write(self, connection: psycopg.Connection[Any], tenant: str) -> None:
        connection.execute("select data_plane.provide_users(%s)", [tenant])

    def read_row(self, connection: psycopg.Connection[Any], key: Mapping[str, str]) -> Mapping[str, Any] | None:
        """None also where the table or the login is gone or changed, so that they are made again."""
        row = super().read_row(connection, key)
        if row and connection.execute("select data_plane.users_problems(array[%s])", [key["tenant"]]).rowcount:
            return None
        return row

    def delete(self, _id: str, _props: dict[str, Any]) -> None:
        """Nothing: the table is the tenant's data, which outlives the stack."""


class TenantUsers(DatabaseResource, module="tenant", name="TenantUsers"):
    """The table ``proj_x$auth.users``, which the tenant's objects may refer to and have triggers on.

    Args:
        database: the central database.
        tenant: the tenant's schema.
        attached: whether the table follows Auth; if not, its rows stay as they are, and are compared with the members
            when it does again.

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
