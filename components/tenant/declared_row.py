"""A tenant's row in one of the tables by which the platform knows what its projects declare."""

from collections.abc import Mapping
from typing import Any, ClassVar

import psycopg
from psycopg import sql
from pulumi.dynamic import CreateResult, DiffResult, ReadResult, ResourceProvider, UpdateResult

from components.postgres import CONNECTION, connect, connection_of, explain

__all__ = ["DeclaredRowError", "DeclaredRowProvider"]

_SCHEMA = "data_plane"
_KEY = "tenant"


class DeclaredRowError(RuntimeError):
    """What a project declares could not be written to the database; nothing of it was."""


class DeclaredRowProvider(ResourceProvider):
    """Writes the row, in place whenever it differs. The properties are the connection, ``tenant`` and the columns."""

    table: ClassVar[str]
    columns: ClassVar[tuple[str, ...]]

    def settled(self, connection: psycopg.Connection[Any], tenant: str) -> None:
        """What follows from the row, in the same transaction."""

    def present(self, connection: psycopg.Connection[Any], tenant: str) -> Mapping[str, Any] | None:
        """The columns as they are now; None without a row."""
        query = sql.SQL("select {} from {} where {} = %s").format(
            sql.SQL(", ").join(map(sql.Identifier, self.columns)),
            sql.Identifier(_SCHEMA, self.table),
            sql.Identifier(_KEY),
        )
        row = connection.execute(query, [tenant]).fetchone()
        return None if row is None else dict(zip(self.columns, row, strict=True))

    def create(self, props: dict[str, Any]) -> CreateResult:
        return CreateResult(id_=f"{self.table}/{props[_KEY]}", outs=self._write(props))

    def update(self, _id: str, _olds: dict[str, Any], news: dict[str, Any]) -> UpdateResult:
        return UpdateResult(outs=self._write(news))

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        replaces = [_KEY] if olds.get(_KEY) != news.get(_KEY) else []
        moved = any(olds.get(key) != news.get(key) for key in CONNECTION)
        changed = any(_plain(olds.get(key)) != _plain(news.get(key)) for key in self.columns)
        return DiffResult(changes=bool(replaces or moved or changed), replaces=replaces, stables=[])

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        with connect(props) as connection:
            found = self.present(connection, props[_KEY]) or dict.fromkeys(self.columns)
        return ReadResult(id_=id_, outs={**connection_of(props), _KEY: props[_KEY], **found})

    def _write(self, props: dict[str, Any]) -> dict[str, Any]:
        values = {key: _plain(props.get(key)) for key in self.columns}
        query = sql.SQL(
            "insert into {table} ({key}, {columns}) values (%s, {values}) on conflict ({key}) do update set {set}"
        ).format(
            table=sql.Identifier(_SCHEMA, self.table),
            key=sql.Identifier(_KEY),
            columns=sql.SQL(", ").join(map(sql.Identifier, values)),
            values=sql.SQL(", ").join(sql.Placeholder() for _ in values),
            set=sql.SQL(", ").join(sql.SQL("{0} = excluded.{0}").format(sql.Identifier(key)) for key in values),
        )
        try:
            with connect(props) as connection:
                connection.execute(query, [props[_KEY], *values.values()])
                self.settled(connection, props[_KEY])
        except psycopg.errors.UndefinedTable:
            raise DeclaredRowError(
                f"the database has no table {_SCHEMA}.{self.table}: bring the central stack up first"
            ) from None
        except psycopg.Error as error:
            raise DeclaredRowError(f"{props[_KEY]} in {_SCHEMA}.{self.table}: {explain(error)}") from None
        return {**connection_of(props), _KEY: props[_KEY], **values}


def _plain(value: Any) -> Any:
    # A number comes back from an engine as a float.
    return int(value) if isinstance(value, float) else value
