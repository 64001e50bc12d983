"""The logins of the PostgRESTs that serve tenants: one for each cell, and one for each project with its own."""

from collections.abc import Iterable, Mapping
from typing import Any

import psycopg
import pulumi
from pulumi.dynamic import ReadResult

from components.database_resource import DatabaseResource
from components.dynamic import ApplyingProvider
from components.platform import DatabaseConnection
from data_plane.clients.postgres import CONNECTION, connect, connection_of, in_transaction
from data_plane.errors import DataPlaneError

__all__ = ["ApiLogins", "ApiLoginsError"]


class ApiLoginsError(DataPlaneError):
    """The logins could not be made; none of them was."""

    code = "api-logins"


class _Provider(ApplyingProvider):
    inputs = (*CONNECTION, "logins")

    def id_of(self, props: Mapping[str, Any]) -> str:
        return "api-logins"

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        with connect(props) as connection:
            # Those that may sign in and read PostgREST's configuration: declared or not, so that one too many shows.
            rows = connection.execute(
                "select rolname from pg_catalog.pg_roles"
                " where rolname ~ '^(cell|proj)_[a-z0-9_]+_authenticator$' and rolcanlogin and not rolinherit"
                " and pg_catalog.has_schema_privilege(rolname, 'data_plane', 'usage')"
                " and pg_catalog.has_table_privilege(rolname, 'data_plane.verifying_keys', 'select')"
                " and pg_catalog.has_function_privilege("
                "rolname, pg_catalog.to_regprocedure('data_plane.pre_config()')::oid, 'execute')"
                " order by 1"
            ).fetchall()
        return ReadResult(id_=id_, outs={**connection_of(props), "logins": [row[0] for row in rows]})

    def delete(self, _id: str, props: dict[str, Any]) -> None:
        """They may sign in no more."""
        self.apply({**props, "logins": []}, props)

    def apply(self, props: dict[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
        try:
            in_transaction(
                props, lambda session: session.execute("select data_plane.apply_api_logins(%s)", [props["logins"]])
            )
        except psycopg.Error as error:
            raise ApiLoginsError(f"the logins of the API servers were not made: {str(error).strip()}") from error
        return {**connection_of(props), "logins": props["logins"]}


class ApiLogins(DatabaseResource, module="central", name="ApiLogins"):
    """Creates the logins, and disables those that are no longer declared.

    They are made without a password. Central makes them, because it gives them their passwords before it starts the
    PostgRESTs that use them; the cells make each a member of its tenants' API roles, and of nothing else.

    Args:
        database: the central database, as a superuser.
        logins: their names (:attr:`data_plane.model.naming.ApiServer.login`).

    Raises:
        DatabaseUnavailableError, ApiLoginsError: while it is applied.
    """

    def __init__(
        self,
        name: str,
        *,
        database: DatabaseConnection,
        logins: Iterable[str],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        props = {"logins": sorted(logins)}
        super().__init__(_Provider(), name, database, props, opts)
