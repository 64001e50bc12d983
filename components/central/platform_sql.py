"""``platform.sql`` and the files beside it, applied: what no resource of the postgresql provider can express."""

import hashlib
from pathlib import Path
from typing import Any

import psycopg
import pulumi
from psycopg import sql
from pulumi.dynamic import CreateResult, DiffResult, ReadResult, Resource, ResourceProvider, UpdateResult

from components.postgres import CONNECTION, DatabaseConnection, connect, connection_of, explain

__all__ = ["PLATFORM_SCHEMA", "PlatformSql", "PlatformSqlError", "platform_sql"]

PLATFORM_SCHEMA = "data_plane"
_FILES = (
    "platform.sql",
    "platform_api.sql",
    "platform_keys.sql",
    "platform_sign_in.sql",
    "platform_storage.sql",
    "platform_pooler.sql",
    "platform_drift.sql",
    "platform_services.sql",
)
_NO_RECORD = "the record of the platform's objects is gone"
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
        changed = moved or olds.get("checksum") != _checksum(news["sql"]) or olds.get("changed_by_hand")
        return DiffResult(changes=bool(changed), replaces=[], stables=[])

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        with connect(props) as connection:
            row = connection.execute(
                "select obj_description(oid, 'pg_namespace') from pg_namespace where nspname = %s", [PLATFORM_SCHEMA]
            ).fetchone()
            applied = row[0].rpartition(" ")[2] if row and row[0] else ""
            try:
                changed = _changed_by_hand(connection) if applied else []
            except (psycopg.errors.UndefinedFunction, psycopg.errors.UndefinedTable):
                changed = [_NO_RECORD]
        return ReadResult(id_=id_, outs={**connection_of(props), "checksum": applied, "changed_by_hand": changed})

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
                row = connection.execute(
                    "select obj_description(to_regnamespace(%s), 'pg_namespace')", [PLATFORM_SCHEMA]
                ).fetchone()
                # The same files again only put right what they can; what is left then is no part of them.
                if row is None or not str(row[0]).endswith(checksum) or not _is_recorded(connection):
                    _record(connection)
                changed = _changed_by_hand(connection)
                connection.execute(remark)
        except psycopg.Error as error:
            raise PlatformSqlError(f"platform.sql was not applied: {explain(error)}") from None
        return {**connection_of(props), "checksum": checksum, "changed_by_hand": changed}


def _record(connection: psycopg.Connection[Any]) -> None:
    connection.execute("delete from data_plane.applied_objects")
    connection.execute("insert into data_plane.applied_objects select * from data_plane.present_objects()")


def _is_recorded(connection: psycopg.Connection[Any]) -> bool:
    return connection.execute("select from data_plane.applied_objects limit 1").rowcount > 0


def _changed_by_hand(connection: psycopg.Connection[Any]) -> list[str]:
    return [str(row[0]) for row in connection.execute("select data_plane.changed_objects()")]


def _warn(lines: list[str] | None) -> None:
    for line in lines or []:
        pulumi.log.warn(f"in PostgreSQL, {line}")


class PlatformSql(Resource, module="central", name="PlatformSql"):
    """Applies ``platform.sql`` in one transaction, again whenever the file or the database changes.

    It records the file's checksum in the comment of the schema ``data_plane``, so that a restored or replaced database
    is noticed on refresh, and in a table what it made, so that changes by hand are: they are put right, and what these
    files cannot put right is named in ``changed_by_hand`` and in a warning of each run. Deleting the resource leaves
    everything in place.

    Args:
        database: the central database, as a superuser.

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
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        props = {**database.properties(), "sql": platform_sql(), "checksum": None, "changed_by_hand": None}
        secret = pulumi.ResourceOptions(additional_secret_outputs=["password"])
        super().__init__(_Provider(), name, props, pulumi.ResourceOptions.merge(opts, secret))
        self.changed_by_hand.apply(_warn)
