"""SQL text as statements, each with its place in the file; read by PostgreSQL's own parser (pglast)."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

from pglast import ast, parse_sql
from pglast.parser import ParseError, Token, scan

from data_plane.connector.migrations.files import ScriptFile
from data_plane.errors import MigrationError

__all__ = ["NO_TRANSACTION", "Statement", "parsed", "statements_of", "tokens_of", "wants_no_transaction"]

NO_TRANSACTION = "-- dataplane: no-transaction"
"""The line, before any statement, that makes each statement of a file its own transaction."""

_RESTRICT = re.compile(r"^\\(?:un)?restrict [^\n]*$", re.MULTILINE)
"""What newer releases of pg_dump put around a dump, for psql alone; without any effect on what is between."""
_META_COMMAND = re.compile(r"^[ \t]*\\[a-z!?]", re.MULTILINE)


@dataclass(frozen=True)
class Statement:
    """One statement of a file."""

    text: str
    line: int
    """Where it begins, counted from 1."""
    begin: int = 0
    """The same in characters from the beginning of the file."""

    @cached_property
    def node(self) -> ast.Node:
        """The statement as PostgreSQL parses it."""
        return parsed(self.text)


@lru_cache(maxsize=64)
def parsed(text: str) -> ast.Node:
    """The parse tree of one statement.

    Raises:
        ParseError: if it is not one.
    """
    node = parse_sql(text)[0].stmt
    if node is None:
        raise ParseError("an empty statement")
    return node


def statements_of(file: ScriptFile) -> list[Statement]:
    """The statements of a file.

    Raises:
        MigrationError: if PostgreSQL's parser does not take the file, with the line.
    """
    # As long as before, so that places are the file's.
    text = _RESTRICT.sub(lambda line: " " * len(line[0]), file.text)
    try:
        found = parse_sql(text)
    except ParseError as error:
        raise MigrationError(_unreadable(file, error)) from error
    return list(_cut(text, found))


def tokens_of(text: str) -> list[Token]:
    """The tokens of a text, without comments; none of a text that is not SQL (a function's may be anything)."""
    return list(_tokens(text))


@lru_cache(maxsize=64)
def _tokens(text: str) -> tuple[Token, ...]:
    # Each rule looks at the same text.
    try:
        return tuple(token for token in scan(text) if token.name not in {"SQL_COMMENT", "C_COMMENT"})
    except ParseError:
        return ()


def wants_no_transaction(file: ScriptFile) -> bool:
    """Whether the file says :data:`NO_TRANSACTION` before its first statement."""
    for line in file.text.splitlines():
        if line.strip() == NO_TRANSACTION:
            return True
        if line.strip() and not line.lstrip().startswith("--"):
            return False
    return False


def _cut(text: str, found: tuple[ast.RawStmt, ...]) -> Iterator[Statement]:
    for raw in found:
        begin = raw.stmt_location or 0
        end = begin + raw.stmt_len if raw.stmt_len else len(text)
        # The parser counts what stands before a statement as its own; its line is that of its first word.
        first = next((token.start for token in tokens_of(text[begin:end])), 0)
        begin += first
        yield Statement(text[begin:end].rstrip(), text.count("\n", 0, begin) + 1, begin)


def _unreadable(file: ScriptFile, error: ParseError) -> str:
    message, *position = error.args
    # At the end of the input there is no position.
    line = file.text.count("\n", 0, position[0] if position and position[0] is not None else len(file.text)) + 1
    meta = _META_COMMAND.search(file.text)
    if meta is not None:
        at = file.text.count("\n", 0, meta.start()) + 1
        return f"{file.path}:{at}: commands of psql (\\…) are not SQL: take the line out"
    if "copy" in file.text.casefold() and re.search(r"^\\\.$", file.text, re.MULTILINE):
        return f"{file.path}: rows of COPY … FROM stdin are not SQL: dump them as INSERTs"
    return f"{file.path}:{line}: {message}"
