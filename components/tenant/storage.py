"""A tenant's bucket in Storage. Who may do what in it is decided by the rules in ``platform_storage.sql``."""

from collections.abc import Mapping
from typing import Any

import psycopg
import pulumi
from psycopg import sql
from pulumi.dynamic import Resource

from components.postgres import DatabaseConnection, connect
from components.projects import StorageSettings
from components.tenant.declared_row import DeclaredRowProvider

__all__ = ["TenantBucket"]


class _Provider(DeclaredRowProvider):
    table = "buckets"
    columns = ("public", "file_size_limit", "allowed_mime_types")

    def settled(self, connection: psycopg.Connection[Any], tenant: str) -> None:
        connection.execute("select data_plane.apply_buckets(%s)", [tenant])

    def present(self, connection: psycopg.Connection[Any], tenant: str) -> Mapping[str, Any] | None:
        row = connection.execute("select data_plane.storage_is_there()").fetchone()
        if row is None or not row[0]:
            return super().present(connection, tenant)
        query = sql.SQL("select {} from storage.buckets where id = %s").format(
            sql.SQL(", ").join(map(sql.Identifier, self.columns))
        )
        bucket = connection.execute(query, [tenant]).fetchone()
        return None if bucket is None else dict(zip(self.columns, bucket, strict=True))

    def delete(self, _id: str, props: dict[str, Any]) -> None:
        """The bucket and its files outlive the stack, but nobody reads them without a token."""
        with connect(props) as connection:
            connection.execute("update data_plane.buckets set public = false where tenant = %s", [props["tenant"]])
            self.settled(connection, props["tenant"])


class TenantBucket(Resource, module="tenant", name="TenantBucket"):
    """The bucket of a tenant, by the name of its schema; never deleted.

    Where Storage has not made its tables yet, the bucket is declared all the same, and comes to be with them.

    Args:
        database: the central database.
        tenant: the tenant's schema, and the bucket's ID.
        settings: what the project says of it.
        attached: whether anybody may use it. A public bucket is read without any role, so detaching has to end that
            here; for everything else the roles' loss of the schema is enough.

    Raises:
        DatabaseUnavailableError, DeclaredRowError: while it is applied.
    """

    def __init__(
        self,
        name: str,
        *,
        database: DatabaseConnection,
        tenant: str,
        settings: StorageSettings,
        attached: bool,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        props = {
            **database.properties(),
            "tenant": tenant,
            "public": settings.public and attached,
            "file_size_limit": settings.file_size_limit,
            "allowed_mime_types": settings.allowed_mime_types,
        }
        secret = pulumi.ResourceOptions(additional_secret_outputs=["password"])
        super().__init__(_Provider(), name, props, pulumi.ResourceOptions.merge(opts, secret))
