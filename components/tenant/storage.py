"""A tenant's buckets in Storage. Who may do what in them is decided by the rules in ``platform_storage.sql``."""

from collections.abc import Mapping
from typing import Any, ClassVar

import psycopg
import pulumi
from psycopg import sql

from components.database_resource import DatabaseResource
from components.platform import DatabaseConnection
from components.tenant.table_row import TableRowProvider
from data_plane.clients.postgres import in_transaction
from data_plane.model.projects import BucketSettings

__all__ = ["TenantBucket", "bucket_id"]


class _Provider(TableRowProvider):
    table = "buckets"
    columns = ("public", "file_size_limit", "allowed_mime_types")
    further_key: ClassVar[Mapping[str, str]] = {"bucket": "", "origin": "file"}

    def after_write(self, connection: psycopg.Connection[Any], tenant: str) -> None:
        connection.execute("select data_plane.apply_buckets(%s)", [tenant])

    def read_row(self, connection: psycopg.Connection[Any], key: Mapping[str, str]) -> Mapping[str, Any] | None:
        row = connection.execute("select data_plane.storage_is_there()").fetchone()
        if row is None or not row[0]:
            return super().read_row(connection, key)
        query = sql.SQL("select {} from storage.buckets where id = %s").format(
            sql.SQL(", ").join(map(sql.Identifier, self.columns))
        )
        bucket = connection.execute(query, [bucket_id(key["tenant"], key["bucket"])]).fetchone()
        return None if bucket is None else dict(zip(self.columns, bucket, strict=True))

    def delete(self, _id: str, props: dict[str, Any]) -> None:
        """The bucket and its files outlive the stack, but nobody reads them without a token.

        A further bucket is from then on as a migration has declared it, or closed but to the back end if none has.
        """
        key = self.key_of(props)

        def close(connection: psycopg.Connection[Any]) -> None:
            if key["bucket"]:
                connection.execute(
                    "insert into data_plane.buckets (tenant, bucket, origin, file_size_limit, allowed_mime_types)"
                    " select tenant, bucket, 'migration', file_size_limit, allowed_mime_types from data_plane.buckets"
                    " where tenant = %(tenant)s and bucket = %(bucket)s and origin = %(origin)s on conflict do nothing",
                    key,
                )
                connection.execute(
                    "delete from data_plane.buckets"
                    " where tenant = %(tenant)s and bucket = %(bucket)s and origin = %(origin)s",
                    key,
                )
            else:
                connection.execute(
                    "update data_plane.buckets set public = false where tenant = %(tenant)s and bucket = ''", key
                )
            self.after_write(connection, props["tenant"])

        in_transaction(props, close)


def bucket_id(tenant: str, bucket: str = "") -> str:
    """The ID of a bucket of a tenant, by which clients name it; that of its first one without a name."""
    return f"{tenant}.{bucket}" if bucket else tenant


class TenantBucket(DatabaseResource, module="tenant", name="TenantBucket"):
    """A bucket that a project's file declares; never deleted.

    Where Storage has not made its tables yet, the bucket is recorded, and made once they are there.

    Args:
        database: the central database.
        tenant: the tenant's schema.
        bucket: its name; the first one, whose ID is the tenant's schema, has none.
        settings: what the project says of it.
        attached: whether anybody may use it. A public bucket is read without any role, so detaching has to end that
            here; for everything else the roles' loss of the schema is enough.

    Raises:
        DatabaseUnavailableError, TableRowError: while it is applied.
    """

    def __init__(
        self,
        name: str,
        *,
        database: DatabaseConnection,
        tenant: str,
        bucket: str = "",
        settings: BucketSettings,
        attached: bool,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        props = {
            "tenant": tenant,
            "bucket": bucket,
            "origin": "file",
            "public": settings.public and attached,
            "file_size_limit": settings.file_size_limit,
            "allowed_mime_types": settings.allowed_mime_types,
        }
        super().__init__(_Provider(), name, database, props, opts)
