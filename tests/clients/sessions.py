"""One way to ask every client the same: a session is opened with a connection string, answers statements, is closed."""

import asyncio
import csv
import json
import os
import re
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import psycopg
import sqlalchemy
from psycopg.conninfo import conninfo_to_dict

from data_plane.local.postgres import find_binaries

Rows = list[list[str | None]]
Open = Callable[[str], "Session"]
Result = TypeVar("Result")


class RefusedError(Exception):
    """What a client said when the server or the connection would not."""

    def __init__(self, code: str | None, message: str) -> None:
        super().__init__(message)
        self.code = code
        """The SQLSTATE. No client on libpq tells it of a connection that it did not get."""


class Session(ABC):
    """An open connection of some client, each statement a transaction of its own."""

    @abstractmethod
    def rows(self, statement: str) -> Rows:
        """What a statement gives, as text.

        Raises:
            RefusedError: with the server's words, or the client's.
        """

    @abstractmethod
    def close(self) -> None:
        """Ends it, if it has not ended."""


def _text(rows: Any) -> Rows:
    return [[None if value is None else str(value) for value in row] for row in rows]


def _refused(error: Exception) -> RefusedError:
    return RefusedError(getattr(error, "sqlstate", None), str(error))


class PsycopgSession(Session):
    """psycopg."""

    def __init__(self, url: str) -> None:
        try:
            self.connection = psycopg.connect(url, autocommit=True)
        except psycopg.Error as error:
            raise _refused(error) from None

    def rows(self, statement: str) -> Rows:
        try:
            cursor = self.connection.execute(statement.encode())
            return _text(cursor.fetchall()) if cursor.description else []
        except psycopg.Error as error:
            raise _refused(error) from None

    def close(self) -> None:
        self.connection.close()


class _AsyncSession(Session):
    def __init__(self) -> None:
        self._runner = asyncio.Runner()

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        try:
            return self._runner.run(work)
        except (psycopg.Error, asyncpg.PostgresError, asyncpg.InterfaceError, ConnectionError) as error:
            raise _refused(error) from None


class AsyncPsycopgSession(_AsyncSession):
    """psycopg's asynchronous half."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.connection = self._run(psycopg.AsyncConnection.connect(url, autocommit=True))

    def rows(self, statement: str) -> Rows:
        async def ask() -> Rows:
            cursor = await self.connection.execute(statement.encode())
            return _text(await cursor.fetchall()) if cursor.description else []

        return self._run(ask())

    def close(self) -> None:
        self._run(self.connection.close())
        self._runner.close()


class AsyncpgSession(_AsyncSession):
    """asyncpg."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.connection = self._run(asyncpg.connect(url))

    def rows(self, statement: str) -> Rows:
        return _text(self._run(self.connection.fetch(statement)))

    def close(self) -> None:
        self._run(self.connection.close())
        self._runner.close()


class SqlAlchemySession(Session):
    """SQLAlchemy on psycopg, which is its choice since 2.1 where a URL names none."""

    def __init__(self, url: str) -> None:
        self.engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT")
        try:
            self.connection = self.engine.connect()
        except sqlalchemy.exc.DBAPIError as error:
            raise _refused(error.orig or error) from None

    def rows(self, statement: str) -> Rows:
        try:
            result = self.connection.exec_driver_sql(statement)
            return _text(result.all()) if result.returns_rows else []
        except sqlalchemy.exc.DBAPIError as error:
            raise _refused(error.orig or error) from None

    def close(self) -> None:
        self.connection.close()
        self.engine.dispose()


class PsqlSession(Session):
    """psql, which has the lease in a service file: its arguments are for everybody to read."""

    def __init__(self, url: str) -> None:
        self._folder = tempfile.TemporaryDirectory()
        service = Path(self._folder.name) / "pg_service.conf"
        known = conninfo_to_dict(url).items()
        service.write_text("\n".join(["[lease]", *(f"{key}={value}" for key, value in known)]) + "\n", encoding="utf-8")
        mine = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
        self._process = subprocess.Popen(
            [find_binaries() / "psql", "-X", "-q", "-t", "--csv", "-P", r"null=\N", "-v", "VERBOSITY=verbose"],
            env={**mine, "PGSERVICEFILE": str(service), "PGSERVICE": "lease"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            self.rows("select 1")
        except RefusedError:
            self.close()
            raise

    def rows(self, statement: str) -> Rows:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        lines: list[str] = []
        try:
            self._process.stdin.write(f"{statement};\n\\echo done\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended, and says why
        for line in self._process.stdout:
            if line == "done\n":
                break
            lines.append(line)
        else:
            raise RefusedError(_sqlstate(lines), "".join(lines))
        if any(re.match(r"ERROR:  ", line) for line in lines):
            raise RefusedError(_sqlstate(lines), "".join(lines))
        return [[None if value == r"\N" else value for value in row] for row in csv.reader(lines)]

    def close(self) -> None:
        self._process.communicate()
        self._folder.cleanup()


def _sqlstate(lines: list[str]) -> str | None:
    found = re.search(r"^(?:ERROR|FATAL):  (\w{5}): ", "".join(lines), re.MULTILINE)
    return found[1] if found else None


class NodeSession(Session):
    """A client in Node: ``session.mjs`` with the module of that name."""

    def __init__(self, folder: Path, client: str, url: str) -> None:
        self._process = subprocess.Popen(
            ["node", "session.mjs", client], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            self._ask(open=url)
        except RefusedError:
            self.close()
            raise

    def rows(self, statement: str) -> Rows:
        return self._ask(rows=statement)["rows"]  # type: ignore[no-any-return]

    def idioms(self) -> dict[str, Any]:
        """What the client's own ways of doing things came to."""
        return self._ask(idioms=True)["idioms"]  # type: ignore[no-any-return]

    def close(self) -> None:
        self._process.communicate(timeout=60)

    def _ask(self, **request: object) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        response: dict[str, Any] = json.loads(self._process.stdout.readline())
        if "error" in response:
            raise RefusedError(response["error"]["code"], response["error"]["message"])
        return response


IN_PYTHON: dict[str, Open] = {
    "psycopg": PsycopgSession,
    "psycopg, asynchronous": AsyncPsycopgSession,
    "asyncpg": AsyncpgSession,
    "SQLAlchemy": SqlAlchemySession,
    "psql": PsqlSession,
}
IN_NODE = {"node-postgres": "pg", "postgres.js": "postgres", "Drizzle": "drizzle"}
"""The module under ``node/`` by the client's name."""
