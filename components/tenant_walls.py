"""What hands have changed in the schemas of a cell's tenants, and no other resource sees: put right, or named."""

from typing import Any

import psycopg
import pulumi
from pulumi.dynamic import CreateResult, DiffResult, ReadResult, Resource, ResourceProvider, UpdateResult

from components.postgres import CONNECTION, DatabaseConnection, connect, connection_of, explain

__all__ = ["TenantWalls", "TenantWallsError"]

_CENTRAL_FIRST = "the database has no data_plane.breaches: bring the central stack up first"


class TenantWallsError(RuntimeError):
    """The tenants' schemas could not be looked at or put right."""


class _Provider(ResourceProvider):
    def create(self, props: dict[str, Any]) -> CreateResult:
        return CreateResult(id_="tenant-walls", outs=self._put_right(props))

    def update(self, _id: str, _olds: dict[str, Any], news: dict[str, Any]) -> UpdateResult:
        return UpdateResult(outs=self._put_right(news))

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        changed = any(olds.get(key) != news.get(key) for key in (*CONNECTION, "tenants"))
        return DiffResult(changes=bool(changed or olds.get("to_put_right")), replaces=[], stables=[])

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        try:
            with connect(props) as connection:
                found = _breaches(connection, props)
        except psycopg.errors.UndefinedFunction:
            found = []
        return ReadResult(id_=id_, outs=_described(props, found))

    def delete(self, _id: str, _props: dict[str, Any]) -> None:
        """Nothing: walls are not taken down."""

    @staticmethod
    def _put_right(props: dict[str, Any]) -> dict[str, Any]:
        try:
            with connect(props) as connection:
                for _, remedy in _breaches(connection, props):
                    if remedy is not None:
                        connection.execute(remedy.encode())
                return _described(props, _breaches(connection, props))
        except psycopg.errors.UndefinedFunction:
            raise TenantWallsError(_CENTRAL_FIRST) from None
        except psycopg.Error as error:
            raise TenantWallsError(f"tenants' schemas were not put right: {explain(error)}") from None


def _breaches(connection: psycopg.Connection[Any], props: dict[str, Any]) -> list[tuple[str, str | None]]:
    found = connection.execute(
        "select found, remedy from data_plane.breaches(%s) order by found", [list(props["tenants"])]
    )
    return list(found)


def _described(props: dict[str, Any], found: list[tuple[str, str | None]]) -> dict[str, Any]:
    return {
        **connection_of(props),
        "tenants": props["tenants"],
        "to_put_right": [what for what, remedy in found if remedy is not None],
        "to_decide": [what for what, remedy in found if remedy is None],
    }


def _warn(lines: list[str] | None) -> None:
    for line in lines or []:
        pulumi.log.warn(line)


class TenantWalls(Resource, module="tenant", name="TenantWalls"):
    """Takes back rights on tenants' schemas and roles that are not declared, and gives what is in them to their owners.

    What may be a project's own decision is only named, in ``to_decide`` and as a warning of each run.

    Args:
        database: the central database.
        tenants: the schemas, which have to be there.

    Raises:
        DatabaseUnavailableError, TenantWallsError: while it is applied.
    """

    to_put_right: pulumi.Output[list[str]]
    """What was found and will be put right by the next update."""
    to_decide: pulumi.Output[list[str]]

    def __init__(
        self,
        name: str,
        *,
        database: DatabaseConnection,
        tenants: list[str],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        props = {**database.properties(), "tenants": sorted(tenants), "to_put_right": None, "to_decide": None}
        secret = pulumi.ResourceOptions(additional_secret_outputs=["password"])
        super().__init__(_Provider(), name, props, pulumi.ResourceOptions.merge(opts, secret))
        self.to_put_right.apply(_warn)
        self.to_decide.apply(_warn)
