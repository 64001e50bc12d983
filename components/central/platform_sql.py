"""``platform.sql`` and the files beside it, applied: what no resource of the postgresql provider can express."""

import hashlib
from pathlib import Path
from typing import Any

import psycopg
import pulumi
from psycopg import sql
from pulumi.dynamic import CreateResult, DiffResult, ReadResult, Resource, ResourceProvider, UpdateResult

from components.postgres import CONNECTION, DatabaseConnection, connect, connection_of

__all__ = ["PLATFORM_SCHEMA", "PlatformSql", "PlatformSqlError", "platform_sql"]

PLATFORM_SCHEMA = "data_plane"
_FILES = (
    "platform.sql",
    "platform_api.sql",
    "platform_keys.sql",
    "platform_sign_in.sql",
    "platform_storage.sql",
    "platform_pooler.sql",
    "platform_services.sql",
)
_LOCK_TIMEOUT = "30s"
# Any constant will do: two runs at once wait for each other instead of failing on the same catalogue row.
_ADVISORY_LOCK = 7_264_190_355


class PlatformSqlError(RuntimeError):
    """The platform's SQL could not be applied; nothing of it was."""


def platform_sql() -> str:
    """The reviewed SQL files, in the order in which they build on each other."""
    return "\n".join(Path(__file__).with_name(name).read_text(encoding="utf-8") for name in _FILES)


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class _Provider(ResourceProvider):
    def create(self, props: dict[str, Any]) -> CreateResult:
        return CreateResult(id_=PLATFORM_SCHEMA, outs=self._apply(props))

    def update(self, _id: str, _olds: dict[str, Any], news: dict[str, Any]) -> UpdateResult:
        return UpdateResult(outs=self._apply(news))

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        moved = any(olds.get(key) != news.get(key) for key in CONNECTION)
        return DiffResult(changes=moved or olds.get("checksum") != _checksum(news["sql"]), replaces=[], stables=[])

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        with connect(props) as connection:
            row = connection.execute(
                "select obj_description(oid, 'pg_namespace') from pg_namespace where nspname = %s", [PLATFORM_SCHEMA]
            ).fetchone()
        applied = row[0].rpartition(" ")[2] if row and row[0] else ""
        return ReadResult(id_=id_, outs={**connection_of(props), "checksum": applied})

    def delete(self, _id: str, _props: dict[str, Any]) -> None:
        """Nothing: tenants' leases depend on it, and data outlives the stack."""

    def _apply(self, props: dict[str, Any]) -> dict[str, Any]:
        checksum = _checksum(props["sql"])
        remark = sql.SQL("comment on schema {} is {}").format(
            sql.Identifier(PLATFORM_SCHEMA), f"central data plane; platform.sql sha256 {checksum}"
        )
        try:
            with connect(props) as connection, connection.transaction():
                connection.execute("select pg_advisory_xact_lock(%s)", [_ADVISORY_LOCK])
                connection.execute(sql.SQL("set local lock_timeout = {}").format(_LOCK_TIMEOUT))
                connection.execute(props["sql"].encode())
                connection.execute(remark)
        except psycopg.Error as error:
            raise PlatformSqlError(f"platform.sql was not applied: {str(error).strip()}") from None
        return {**connection_of(props), "checksum": checksum}


class PlatformSql(Resource, module="central", name="PlatformSql"):
    """Applies ``platform.sql`` in one transaction, again whenever the file or the database changes.

    It records the file's checksum in the comment of the schema ``data_plane``, so that a restored or replaced database
    is noticed on refresh. Deleting the resource leaves everything in place.

    Args:
        database: the central database, as a superuser.

    Raises:
        DatabaseUnavailableError: while it is applied, if the database cannot be reached.
        PlatformSqlError: while it is applied, if the database refuses a statement.
    """

    checksum: pulumi.Output[str]
    """SHA-256 of the SQL that was applied; unknown until it has been."""

    def __init__(
        self,
        name: str,
        *,
        database: DatabaseConnection,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        props = {**database.properties(), "sql": platform_sql(), "checksum": None}
        secret = pulumi.ResourceOptions(additional_secret_outputs=["password"])
        super().__init__(_Provider(), name, props, pulumi.ResourceOptions.merge(opts, secret))
