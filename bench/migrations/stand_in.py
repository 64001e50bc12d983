"""The same files on a plain Supabase: who is at fault if they do not run here."""

import re
from pathlib import Path
from typing import Any

import psycopg
from pglast import ast, enums
from psycopg import sql

from data_plane.connector.migrations import migration_files
from data_plane.connector.migrations.script import Statement, statements_of
from data_plane.errors import MigrationError

__all__ = ["fault_of_the_files"]

_STOOD_IN_FOR = (
    *(
        "pg_cron",
        "pg_net",
        "pgmq",
        "pgjwt",
        "pgsodium",
        "pg_graphql",
        "pg_jsonschema",
        "pg_tle",
        "supabase_vault",
        "http",
    ),
    *("hypopg", "index_advisor", "plpgsql_check", "wrappers", "supabase-dbdev", "basejump-supabase_test_helpers"),
)
"""Extensions of Supabase's image of which stand_in.sql has what migrations call, if anything."""
_SAVEPOINTS = frozenset(
    {
        enums.TransactionStmtKind.TRANS_STMT_SAVEPOINT,
        enums.TransactionStmtKind.TRANS_STMT_RELEASE,
        enums.TransactionStmtKind.TRANS_STMT_ROLLBACK_TO,
    }
)
_SEARCH_PATH = 'set search_path = "$user", public, extensions'


class _NotJudgedError(Exception):
    """The files need an extension that is neither here nor stood in for; it is not held against them."""


def fault_of_the_files(supabase: Path, session: psycopg.Connection[Any]) -> str | None:
    """Why the files fail on a standalone Supabase, too; None if they run there, or it cannot be seen here.

    As with the Supabase CLI a file is one transaction, as far as it does not commit by itself. Extensions that are
    not installed are taken as there; what they would bring is in the stand-in.

    Args:
        session: not in autocommit mode.
    """
    available = {row[0] for row in session.execute("select name from pg_available_extensions").fetchall()}
    try:
        for file in migration_files(supabase):
            session.execute("reset all")
            session.execute(_SEARCH_PATH)
            for statement in statements_of(file):
                try:
                    _run(statement, session, available)
                except psycopg.Error as error:
                    return f"{file.path.name}:{statement.line}: {error.diag.message_primary or error}"
            session.commit()
    except _NotJudgedError:
        return None
    except MigrationError as error:
        return str(error).replace(f"{supabase}/migrations/", "").partition("\n")[0]
    except psycopg.Error as error:
        return f"{file.path.name}: {error.diag.message_primary or error}"
    return None


def _run(statement: Statement, session: psycopg.Connection[Any], available: set[str]) -> None:
    match statement.node:
        case ast.TransactionStmt(kind=enums.TransactionStmtKind.TRANS_STMT_COMMIT):
            session.commit()
        case ast.TransactionStmt(kind=enums.TransactionStmtKind.TRANS_STMT_ROLLBACK):
            session.rollback()
        case ast.TransactionStmt(kind=kind) if kind not in _SAVEPOINTS:
            pass
        case ast.CreateExtensionStmt(extname=str(name)) as node if name not in available:
            _take_as_there(node, session)
        case ast.CreateExtensionStmt(extname=str(name)) if _has(name, session):
            pass
        case (
            ast.AlterExtensionStmt()
            | ast.DropStmt(removeType=enums.ObjectType.OBJECT_EXTENSION)
            | ast.CommentStmt(objtype=enums.ObjectType.OBJECT_EXTENSION)
        ):
            pass
        case ast.IndexStmt(concurrent=True) | ast.DropStmt(concurrent=True):
            text = re.sub(r"\bconcurrently\b", "", statement.text, count=1, flags=re.IGNORECASE)
            session.execute(text.encode())
        case _:
            session.execute(statement.text.encode())


def _take_as_there(node: ast.CreateExtensionStmt, session: psycopg.Connection[Any]) -> None:
    if node.extname not in _STOOD_IN_FOR:
        raise _NotJudgedError
    for option in node.options or ():
        if option.defname == "schema" and option.arg.sval != "pg_catalog":
            schema = sql.Identifier(option.arg.sval)
            session.execute(sql.SQL("create schema if not exists {}").format(schema))


def _has(extension: str, session: psycopg.Connection[Any]) -> bool:
    return session.execute("select from pg_extension where extname = %s", [extension]).fetchone() is not None
