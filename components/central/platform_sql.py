"""``platform.sql`` and the files beside it, applied: what no resource of the postgresql provider can express."""

from collections.abc import Mapping
from typing import Any

import psycopg
import pulumi
from pulumi.dynamic import ReadResult

from components.central.files import platform_sql
from components.database_resource import DatabaseResource
from components.dynamic import ApplyingProvider
from components.platform import DatabaseConnection
from data_plane.clients.platform_sql import applied_sha256, apply_platform_sql, changed_by_hand, sha256_of
from data_plane.clients.postgres import CONNECTION, connect, connection_of, explain, in_transaction
from data_plane.errors import DataPlaneError
from data_plane.model.naming import PLATFORM_SCHEMA

__all__ = ["PlatformSql", "PlatformSqlError"]

_NO_RECORD = "the record of the platform's objects is gone"
# Two runs at once take turns instead of failing on the same catalog row. Only a superuser can take this lock (anybody
# can an advisory one), and nothing but another run waits for it.
_TURNS = "lock table pg_catalog.pg_authid in share update exclusive mode"


class PlatformSqlError(DataPlaneError):
    """The platform's SQL could not be applied; nothing of it was."""

    code = "platform-sql"


class _Provider(ApplyingProvider):
    inputs = CONNECTION

    def id_of(self, props: Mapping[str, Any]) -> str:
        return PLATFORM_SCHEMA

    def is_current(self, olds: Mapping[str, Any], news: Mapping[str, Any]) -> bool:
        return olds.get("checksum") == sha256_of(news["sql"]) and not olds.get("changed_by_hand")

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        with connect(props) as connection:
            applied = applied_sha256(connection)
            try:
                changed = changed_by_hand(connection) if applied else []
            except (psycopg.errors.UndefinedFunction, psycopg.errors.UndefinedTable):
                changed = [_NO_RECORD]
        return ReadResult(id_=id_, outs={**connection_of(props), "checksum": applied, "changed_by_hand": changed})

    def delete(self, _id: str, _props: dict[str, Any]) -> None:
        """Nothing: tenants' leases depend on it, and data outlives the stack."""

    def apply(self, props: dict[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
        try:
            changed = in_transaction(props, lambda session: _apply(session, props["sql"]))
        except psycopg.Error as error:
            raise PlatformSqlError(f"platform.sql was not applied: {explain(error)}") from error
        return {**connection_of(props), "checksum": sha256_of(props["sql"]), "changed_by_hand": changed}


def _apply(connection: psycopg.Connection[Any], text: str) -> list[str]:
    connection.execute(_TURNS)
    return apply_platform_sql(connection, text)


def _warn(lines: list[str] | None) -> None:
    for line in lines or []:
        pulumi.log.warn(f"in PostgreSQL, {line}")


class PlatformSql(DatabaseResource, module="central", name="PlatformSql"):
    """Applies ``platform.sql`` in one transaction, again whenever the file or the database changes.

    It records the file's checksum in the comment of the schema ``data_plane``, so that a restored or replaced database
    is noticed on refresh, and in a table what it made, so that manual changes are: they are reverted, and what these
    files cannot revert is named in ``changed_by_hand`` and in a warning of each run. Deleting the resource leaves
    everything in place.

    Args:
        database: the central database, as a superuser.
        email_autoconfirm: whether Auth takes every address for its user's; None, where Auth is not this stack's, leaves
            ``data_plane.sign_in_settings`` as it is.

    Raises:
        DatabaseUnavailableError: while it is applied, if the database cannot be reached.
        PlatformSqlError: while it is applied, if the database refuses a statement.
    """

    checksum: pulumi.Output[str]
    """SHA-256 of the SQL that was applied; unknown until it has been."""
    changed_by_hand: pulumi.Output[list[str]]
    """The platform's objects that are not as they were applied."""

    def __init__(
        self,
        name: str,
        *,
        database: DatabaseConnection,
        email_autoconfirm: bool | None = None,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        text = platform_sql(email_autoconfirm=email_autoconfirm)
        props = {"sql": text, "checksum": None, "changed_by_hand": None}
        super().__init__(_Provider(), name, database, props, opts)
        self.changed_by_hand.apply(_warn)
