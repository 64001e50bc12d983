"""Privilege drift in a cell's tenants: manual changes that no other resource sees, reverted or reported."""

from collections.abc import Mapping
from typing import Any

import psycopg
import pulumi
from psycopg import sql
from psycopg.types.json import Jsonb
from pulumi.dynamic import ReadResult

from components.database_resource import DatabaseResource
from components.dynamic import ApplyingProvider
from components.platform import DatabaseConnection
from data_plane.clients.postgres import CONNECTION, connect, connection_of, explain
from data_plane.errors import DataPlaneError

__all__ = ["PrivilegeDriftError", "TenantPrivilegeDrift"]

_LOCK_TIMEOUT = "2s"
_CENTRAL_FIRST = "the database has no data_plane.privilege_drift: bring the central stack up first"


class PrivilegeDriftError(DataPlaneError):
    """The tenants' schemas could not be inspected or repaired."""

    code = "privilege-drift"


class _Provider(ApplyingProvider):
    inputs = (*CONNECTION, "tenants", "role_settings")

    def id_of(self, props: Mapping[str, Any]) -> str:
        return "privilege-drift"

    def is_current(self, olds: Mapping[str, Any], news: Mapping[str, Any]) -> bool:
        return not olds.get("auto_remediate")

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        try:
            with connect(props) as connection:
                return ReadResult(id_=id_, outs=_described(connection, props, []))
        except (psycopg.errors.UndefinedFunction, psycopg.errors.UndefinedTable):
            nothing: dict[str, Any] = {"role_settings": {}, "auto_remediate": [], "needs_review": []}
            return ReadResult(id_=id_, outs={**connection_of(props), "tenants": props["tenants"], **nothing})

    def delete(self, _id: str, _props: dict[str, Any]) -> None:
        """Nothing: the database keeps its privileges."""

    def apply(self, props: dict[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
        try:
            with connect(props) as connection:
                connection.execute("select data_plane.declare_role_settings(%s)", [Jsonb(props["role_settings"])])
                connection.commit()
                return _described(connection, props, _remedied(connection, props))
        except psycopg.errors.UndefinedFunction as error:
            raise PrivilegeDriftError(_CENTRAL_FIRST) from error
        except psycopg.Error as error:
            raise PrivilegeDriftError(
                f"privilege drift in the tenants' schemas was not repaired: {explain(error)}"
            ) from error


def _drift(connection: psycopg.Connection[Any], props: dict[str, Any]) -> list[tuple[str, str | None]]:
    found = connection.execute(
        "select found, remedy from data_plane.privilege_drift(%s) order by found", [list(props["tenants"])]
    )
    return list(found)


def _remedied(connection: psycopg.Connection[Any], props: dict[str, Any]) -> list[str]:
    """Reverts each by itself: what one tenant keeps locked, say, is reported, and holds up no other's."""
    remedies = dict.fromkeys(remedy for _, remedy in _drift(connection, props) if remedy is not None)
    connection.commit()
    failed = []
    for remedy in remedies:
        try:
            with connection.transaction():
                connection.execute(sql.SQL("set local lock_timeout = {}").format(_LOCK_TIMEOUT))
                connection.execute(remedy.encode())
        except psycopg.Error as error:
            if connection.broken:
                raise
            failed.append(f"not done: {remedy}: {explain(error)}")
    return failed


def _described(connection: psycopg.Connection[Any], props: dict[str, Any], failed: list[str]) -> dict[str, Any]:
    found = _drift(connection, props)
    declared = connection.execute(
        "select subject, settings from data_plane.role_settings where subject = any (%s)", [list(props["tenants"])]
    )
    return {
        **connection_of(props),
        "tenants": props["tenants"],
        "role_settings": dict(declared.fetchall()),
        "auto_remediate": [*failed, *(what for what, remedy in found if remedy is not None)],
        "needs_review": [what for what, remedy in found if remedy is None],
    }


def _warn(lines: list[str] | None) -> None:
    for line in lines or []:
        pulumi.log.warn(line)


class TenantPrivilegeDrift(DatabaseResource, module="tenant", name="TenantPrivilegeDrift"):
    """Detects privilege drift in tenant schemas, and reverts or reports it.

    Reverted are undeclared grants on tenants' schemas and roles and undeclared settings of their roles; objects that
    others have made get the project's owner and the grants of what that makes; logins of ended leases are dropped. What
    may be a project's own decision is reported only: in ``needs_review``, and as a warning of each run.

    Args:
        database: the central database.
        role_settings: the settings of each tenant's roles, by schema, which has to exist.

    Raises:
        DatabaseUnavailableError, PrivilegeDriftError: while it is applied.
    """

    auto_remediate: pulumi.Output[list[str]]
    """What was found and the next update reverts."""
    needs_review: pulumi.Output[list[str]]

    def __init__(
        self,
        name: str,
        *,
        database: DatabaseConnection,
        role_settings: Mapping[str, list[str]],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        props = {
            "tenants": sorted(role_settings),
            "role_settings": dict(role_settings),
            "auto_remediate": None,
            "needs_review": None,
        }
        super().__init__(_Provider(), name, database, props, opts)
        self.auto_remediate.apply(_warn)
        self.needs_review.apply(_warn)
