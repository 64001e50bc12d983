"""The logins of the PostgRESTs that serve one tenant each."""

from collections.abc import Iterable
from typing import Any

import psycopg
import pulumi
from pulumi.dynamic import CreateResult, DiffResult, ReadResult, Resource, ResourceProvider, UpdateResult

from components.postgres import CONNECTION, DatabaseConnection, connect, connection_of

__all__ = ["ApiLogins", "ApiLoginsError"]


class ApiLoginsError(RuntimeError):
    """The logins could not be made; none of them was."""


class _Provider(ResourceProvider):
    def create(self, props: dict[str, Any]) -> CreateResult:
        return CreateResult(id_="api-logins", outs=self._apply(props))

    def update(self, _id: str, _olds: dict[str, Any], news: dict[str, Any]) -> UpdateResult:
        return UpdateResult(outs=self._apply(news))

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        changed = any(olds.get(key) != news.get(key) for key in (*CONNECTION, "logins"))
        return DiffResult(changes=changed, replaces=[], stables=[])

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        with connect(props) as connection:
            # Those that may sign in: declared or not, so that one too many shows.
            rows = connection.execute(
                "select rolname from pg_catalog.pg_roles"
                " where rolname ~ '^proj_[a-z0-9_]+_authenticator$' and rolcanlogin and not rolinherit order by 1"
            ).fetchall()
        return ReadResult(id_=id_, outs={**connection_of(props), "logins": [row[0] for row in rows]})

    def delete(self, _id: str, props: dict[str, Any]) -> None:
        """They may sign in no more."""
        self._apply({**props, "logins": []})

    @staticmethod
    def _apply(props: dict[str, Any]) -> dict[str, Any]:
        try:
            with connect(props) as connection:
                connection.execute("select data_plane.apply_api_logins(%s)", [props["logins"]])
        except psycopg.Error as error:
            raise ApiLoginsError(f"the logins of projects' own APIs were not made: {str(error).strip()}") from None
        return {**connection_of(props), "logins": props["logins"]}


class ApiLogins(Resource, module="central", name="ApiLogins"):
    """Makes the logins, and lets those sign in no more that are no longer declared.

    They are made without a password. A cell makes each a member of its tenant's API roles, and of nothing else.

    Args:
        database: the central database, as a superuser.
        logins: their names, ``proj_x_authenticator``.

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
        props = {**database.properties(), "logins": sorted(logins)}
        secret = pulumi.ResourceOptions(additional_secret_outputs=["password"])
        super().__init__(_Provider(), name, props, pulumi.ResourceOptions.merge(opts, secret))
