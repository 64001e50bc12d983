"""``platform.sql``, applied: what the database needs that no resource of the postgresql provider can express."""

import hashlib
from pathlib import Path
from typing import Any

import psycopg
import pulumi
from psycopg import sql
from pulumi.dynamic import CreateResult, DiffResult, ReadResult, Resource, ResourceProvider, UpdateResult

__all__ = ["PLATFORM_SCHEMA", "PlatformSql", "PlatformSqlError", "platform_sql"]

PLATFORM_SCHEMA = "data_plane"
_CONNECTION = ("host", "port", "database", "username", "password", "sslmode")
_CONNECT_TIMEOUT_SECONDS = 15
_LOCK_TIMEOUT = "30s"
# Any constant will do: two runs at once wait for each other instead of failing on the same catalogue row.
_ADVISORY_LOCK = 7_264_190_355


class PlatformSqlError(RuntimeError):
    """The platform's SQL could not be applied; nothing of it was."""


def platform_sql() -> str:
    """The reviewed SQL file."""
    return Path(__file__).with_name("platform.sql").read_text(encoding="utf-8")


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class _Provider(ResourceProvider):
    def create(self, props: dict[str, Any]) -> CreateResult:
        return CreateResult(id_=PLATFORM_SCHEMA, outs=self._apply(props))

    def update(self, _id: str, _olds: dict[str, Any], news: dict[str, Any]) -> UpdateResult:
        return UpdateResult(outs=self._apply(news))

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        moved = any(olds.get(key) != news.get(key) for key in _CONNECTION)
        return DiffResult(changes=moved or olds.get("checksum") != _checksum(news["sql"]), replaces=[], stables=[])

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        with _connect(props) as connection:
            row = connection.execute(
                "select obj_description(oid, 'pg_namespace') from pg_namespace where nspname = %s", [PLATFORM_SCHEMA]
            ).fetchone()
        applied = row[0].rpartition(" ")[2] if row and row[0] else ""
        return ReadResult(id_=id_, outs={**_described(props), "checksum": applied})

    def delete(self, _id: str, _props: dict[str, Any]) -> None:
        """Nothing: tenants' leases depend on it, and data outlives the stack."""

    def _apply(self, props: dict[str, Any]) -> dict[str, Any]:
        checksum = _checksum(props["sql"])
        remark = sql.SQL("comment on schema {} is {}").format(
            sql.Identifier(PLATFORM_SCHEMA), f"central data plane; platform.sql sha256 {checksum}"
        )
        try:
            with _connect(props) as connection, connection.transaction():
                connection.execute("select pg_advisory_xact_lock(%s)", [_ADVISORY_LOCK])
                connection.execute(sql.SQL("set local lock_timeout = {}").format(_LOCK_TIMEOUT))
                connection.execute(props["sql"].encode())
                connection.execute(remark)
        except psycopg.Error as error:
            raise PlatformSqlError(f"platform.sql was not applied: {str(error).strip()}") from None
        return {**_described(props), "checksum": checksum}


def _described(props: dict[str, Any]) -> dict[str, Any]:
    # The password too: on refresh a provider is given nothing but the outputs. The engine keeps it as a secret.
    return {key: props[key] for key in _CONNECTION}


def _connect(props: dict[str, Any]) -> psycopg.Connection[Any]:
    try:
        return psycopg.connect(
            host=props["host"],
            port=int(props["port"]),
            dbname=props["database"],
            user=props["username"],
            password=props["password"],
            sslmode=props["sslmode"],
            connect_timeout=_CONNECT_TIMEOUT_SECONDS,
            application_name="supabase-data-plane",
        )
    except psycopg.OperationalError as error:
        place = f"{props['host']}:{int(props['port'])}"
        raise PlatformSqlError(f"PostgreSQL at {place} cannot be used: {str(error).strip()}") from None


class PlatformSql(Resource, module="central", name="PlatformSql"):
    """Applies ``platform.sql`` in one transaction, again whenever the file or the database changes.

    It records the file's checksum in the comment of the schema ``data_plane``, so that a restored or replaced database
    is noticed on refresh. Deleting the resource leaves everything in place.

    Args:
        host, port, database, username, password, sslmode: the central database, as a superuser. The password has to
            be a secret.

    Raises:
        PlatformSqlError: while it is applied, if the database cannot be reached or refuses a statement.
    """

    checksum: pulumi.Output[str]
    """SHA-256 of the SQL that was applied; unknown until it has been."""

    def __init__(
        self,
        name: str,
        *,
        host: pulumi.Input[str],
        port: pulumi.Input[int],
        database: pulumi.Input[str],
        username: pulumi.Input[str],
        password: pulumi.Input[str],
        sslmode: pulumi.Input[str],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        props = {
            "host": host,
            "port": port,
            "database": database,
            "username": username,
            "password": password,
            "sslmode": sslmode,
            "sql": platform_sql(),
            "checksum": None,
        }
        secret = pulumi.ResourceOptions(additional_secret_outputs=["password"])
        super().__init__(_Provider(), name, props, pulumi.ResourceOptions.merge(opts, secret))
