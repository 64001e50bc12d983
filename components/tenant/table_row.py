"""A tenant's row in one of the tables by which the platform knows what its projects declare."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import psycopg
from psycopg import sql
from pulumi.dynamic import ReadResult

from components.dynamic import ApplyingProvider
from data_plane.clients.postgres import CONNECTION, connect, connection_of, explain, in_transaction
from data_plane.errors import DataPlaneError

__all__ = ["TableRowError", "TableRowProvider"]

_SCHEMA = "data_plane"
_KEY = "tenant"


class TableRowError(DataPlaneError):
    """A row that a project declares could not be written to the database."""

    code = "table-row"


class TableRowProvider(ApplyingProvider):
    """Writes the row. The properties are the connection, ``tenant`` and the columns."""

    table: ClassVar[str]
    columns: ClassVar[tuple[str, ...]]
    further_key: ClassVar[Mapping[str, str]] = {}
    """The columns of the key beside the tenant, each with its value where the properties have none."""

    def after_write(self, connection: psycopg.Connection[Any], tenant: str) -> None:
        """Runs after the row was written, in the same transaction."""

    def read_row(self, connection: psycopg.Connection[Any], key: Mapping[str, str]) -> Mapping[str, Any] | None:
        """The columns as they are now; None without a row."""
        query = sql.SQL("select {} from {} where {}").format(
            sql.SQL(", ").join(map(sql.Identifier, self.columns)),
            sql.Identifier(_SCHEMA, self.table),
            _equal(key),
        )
        row = connection.execute(query, list(key.values())).fetchone()
        return None if row is None else dict(zip(self.columns, row, strict=True))

    def key_of(self, props: Mapping[str, Any]) -> dict[str, str]:
        """The columns of the key with their values."""
        return {_KEY: props[_KEY], **{column: props.get(column) or value for column, value in self.further_key.items()}}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.inputs, cls.identity = (*CONNECTION, *cls.columns), (_KEY, *cls.further_key)

    def value_of(self, props: Mapping[str, Any], name: str) -> Any:
        return _plain(props.get(name) or self.further_key[name] if name in self.further_key else props.get(name))

    def id_of(self, props: Mapping[str, Any]) -> str:
        return "/".join([self.table, *filter(None, self.key_of(props).values())])

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        with connect(props) as connection:
            try:
                found = self.read_row(connection, self.key_of(props))
            except (
                psycopg.errors.UndefinedTable,
                psycopg.errors.UndefinedColumn,
                psycopg.errors.UndefinedFunction,
            ):
                found = None  # the central stack is of an earlier version
        found = found or dict.fromkeys(self.columns)
        return ReadResult(id_=id_, outs={**connection_of(props), **self.key_of(props), **found})

    def forget(self, props: dict[str, Any]) -> None:
        """Takes the row away, with what follows from that. What ``delete`` does where the row is no data."""
        key = self.key_of(props)
        query = sql.SQL("delete from {} where {}").format(sql.Identifier(_SCHEMA, self.table), _equal(key))
        self.write(props, query, list(key.values()))

    def write(self, props: dict[str, Any], query: sql.Composed | sql.SQL, values: Sequence[Any]) -> None:
        """Executes a statement, and what follows from it, in one transaction."""

        def work(connection: psycopg.Connection[Any]) -> None:
            connection.execute(query, values)
            self.after_write(connection, props[_KEY])

        in_transaction(props, work)

    def apply(self, props: dict[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
        key = self.key_of(props)
        values = {column: _plain(props.get(column)) for column in self.columns}
        query = sql.SQL(
            "insert into {table} ({key}, {columns}) values ({values}) on conflict ({key}) do update set {set}"
        ).format(
            table=sql.Identifier(_SCHEMA, self.table),
            key=sql.SQL(", ").join(map(sql.Identifier, key)),
            columns=sql.SQL(", ").join(map(sql.Identifier, values)),
            values=sql.SQL(", ").join(sql.Placeholder() for _ in [*key, *values]),
            set=sql.SQL(", ").join(sql.SQL("{0} = excluded.{0}").format(sql.Identifier(key)) for key in values),
        )
        try:
            self.write(props, query, [*key.values(), *values.values()])
        except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
            raise TableRowError(
                f"the database has no table {_SCHEMA}.{self.table} as it is now: bring the central stack up first"
            ) from error
        except psycopg.Error as error:
            raise TableRowError(f"{props[_KEY]} in {_SCHEMA}.{self.table}: {explain(error)}") from error
        return {**connection_of(props), **key, **values}


def _equal(key: Mapping[str, str]) -> sql.Composed:
    return sql.SQL(" and ").join(sql.SQL("{} = %s").format(sql.Identifier(column)) for column in key)


def _plain(value: Any) -> Any:
    # A number comes back from an engine as a float.
    return int(value) if isinstance(value, float) else value
