"""Lets one PostgREST serve a tenant's schema, and it and Storage assume the tenant's API roles."""

import logging
from collections.abc import Mapping
from typing import Any

import psycopg
import pulumi
from pulumi.dynamic import DiffResult

from components.database_resource import DatabaseResource
from components.platform import DatabaseConnection
from components.tenant.table_row import TableRowError, TableRowProvider
from data_plane.clients.postgres import DatabaseUnavailableError, connect, connection_of, explain
from data_plane.model.naming import ApiServer

__all__ = ["TenantApiAccess"]

_LOG = logging.getLogger(__name__)


class _Provider(TableRowProvider):
    table = "api_access"
    columns = ("login", "storage")

    def after_write(self, connection: psycopg.Connection[Any], tenant: str) -> None:
        connection.execute("select data_plane.apply_api_access(%s)", [tenant])

    def diff(self, id_: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        # Nobody's is none: the engine leaves out what is null.
        if news.get("login") not in (None, olds.get("login"), ApiServer(news["tenant"]).login):
            _refuse_shared_api(olds, news["tenant"])
        return super().diff(id_, olds, news)

    def read_row(self, connection: psycopg.Connection[Any], key: Mapping[str, str]) -> Mapping[str, Any] | None:
        row = connection.execute(
            "select login, storage from data_plane.present_api_access(%s)", [key["tenant"]]
        ).fetchone()
        return None if row is None else dict(zip(self.columns, row, strict=True))

    def delete(self, _id: str, props: dict[str, Any]) -> None:
        """No service may assume the roles any more."""
        self.forget(props)


def _refuse_shared_api(known: dict[str, Any], tenant: str) -> None:
    """Fails, in a preview already, where a shared PostgREST would not run what the project has.

    What cannot be looked at now, the database refuses when it is applied.
    """
    try:
        with connect(connection_of(known)) as connection:
            connection.execute("select data_plane.refuse_shared_api(%s)", [tenant])
    except psycopg.errors.InsufficientPrivilege as error:
        raise TableRowError(explain(error)) from error
    except (psycopg.Error, DatabaseUnavailableError, KeyError, ValueError) as error:
        _LOG.debug("what %s has cannot be looked at before it is applied: %s", tenant, error)


class TenantApiAccess(DatabaseResource, module="tenant", name="TenantApiAccess"):
    """Lets only one PostgREST, and Storage, assume a tenant's API roles; PostgREST serves its schema.

    Memberships and grants that are there and not declared are taken away, with every engine: an engine that only adds
    would leave a project open to the SQL of those that it was served with before.

    Args:
        database: the central database.
        tenant: the tenant's schema.
        login: PostgREST's login; None if nobody serves the tenant, which is when the project is hidden or detached.
        storage: whether it has a bucket.

    Raises:
        DatabaseUnavailableError, TableRowError: while it is applied.
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
        props = {"tenant": tenant, "login": login, "storage": storage}
        super().__init__(_Provider(), name, database, props, opts)
