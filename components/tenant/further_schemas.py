"""A tenant's schemas beside its first one: those that its file declares, and which of them are served."""

from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
import pulumi
from psycopg import sql

from components.database_resource import DatabaseResource
from components.platform import DatabaseConnection
from components.tenant.table_row import TableRowProvider

__all__ = ["TenantSchemas"]


class _Provider(TableRowProvider):
    table = "schemas"
    columns = ("declared", "exposed", "attached")

    def after_write(self, connection: psycopg.Connection[Any], tenant: str) -> None:
        connection.execute("select data_plane.apply_schemas(%s)", [tenant])

    def read_row(self, connection: psycopg.Connection[Any], key: Mapping[str, str]) -> Mapping[str, Any] | None:
        row = connection.execute(
            "select declared, exposed, attached from data_plane.present_schemas(%s)", [key["tenant"]]
        ).fetchone()
        return None if row is None or row[2] is None else dict(zip(self.columns, row, strict=True))

    def delete(self, _id: str, props: dict[str, Any]) -> None:
        """They are served no more; their data outlives the stack."""
        query = sql.SQL("update data_plane.schemas set declared = '{}', exposed = '{}' where tenant = %s")
        self.write(props, query, [props["tenant"]])


class TenantSchemas(DatabaseResource, module="tenant", name="TenantSchemas"):
    """Makes the declared schemas, owned like the first one, and serves those that are to be served.

    A project's owner makes others with ``data_plane_api.create_schema``. None of either is ever dropped here. What the
    project lets its own roles do with them is taken while it is detached, and given back as it was.

    Args:
        database: the central database.
        tenant: the tenant's schema.
        declared: the schemas that the project's file names.
        exposed: those of them that are served.
        attached: whether anybody but the owner may use them.

    Raises:
        DatabaseUnavailableError, TableRowError: while it is applied.
    """

    def __init__(
        self,
        name: str,
        *,
        database: DatabaseConnection,
        tenant: str,
        declared: Sequence[str],
        exposed: Sequence[str],
        attached: bool,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        props = {
            "tenant": tenant,
            "declared": list(declared),
            "exposed": list(exposed),
            "attached": attached,
        }
        super().__init__(_Provider(), name, database, props, opts)
