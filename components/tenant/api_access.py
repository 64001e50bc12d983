"""Which services may assume a tenant's API roles: who serves its schema, and whether Storage knows it."""

from collections.abc import Mapping
from typing import Any

import psycopg
import pulumi
from psycopg import sql
from pulumi.dynamic import Resource

from components.postgres import DatabaseConnection, connect
from components.tenant.declared_row import DeclaredRowProvider

__all__ = ["TenantApiAccess"]


class _Provider(DeclaredRowProvider):
    table = "api_access"
    columns = ("login", "storage")

    def settled(self, connection: psycopg.Connection[Any], tenant: str) -> None:
        connection.execute("select data_plane.apply_api_access(%s)", [tenant])

    def present(self, connection: psycopg.Connection[Any], tenant: str) -> Mapping[str, Any] | None:
        row = connection.execute("select login, storage from data_plane.present_api_access(%s)", [tenant]).fetchone()
        return None if row is None else dict(zip(self.columns, row, strict=True))

    def delete(self, _id: str, props: dict[str, Any]) -> None:
        """No service may assume the roles any more."""
        with connect(props) as connection:
            connection.execute(sql.SQL("delete from data_plane.api_access where tenant = %s"), [props["tenant"]])
            self.settled(connection, props["tenant"])


class TenantApiAccess(Resource, module="tenant", name="TenantApiAccess"):
    """Lets one PostgREST, and Storage, assume a tenant's API roles, and no other login of a service.

    Memberships that are there and not declared are taken away, with every engine: an engine that only adds would leave
    a project open to the SQL of those that it was served with before.

    Args:
        database: the central database.
        tenant: the tenant's schema.
        login: PostgREST's login; None if nobody serves the tenant.
        storage: whether it has a bucket.

    Raises:
        DatabaseUnavailableError, DeclaredRowError: while it is applied.
    """

    def __init__(
        self,
        name: str,
        *,
        database: DatabaseConnection,
        tenant: str,
        login: str | None,
        storage: bool,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        props = {**database.properties(), "tenant": tenant, "login": login, "storage": storage}
        secret = pulumi.ResourceOptions(additional_secret_outputs=["password"])
        super().__init__(_Provider(), name, props, pulumi.ResourceOptions.merge(opts, secret))
