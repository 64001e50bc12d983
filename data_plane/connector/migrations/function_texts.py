"""The texts of functions and DO blocks: which there are in a statement, and the statements that stand in them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pglast import ast, parse_sql
from pglast.parser import ParseError, Token

from data_plane.connector.migrations.edits import string_parts
from data_plane.connector.migrations.script import tokens_of

__all__ = ["Embedded", "bodies_of", "embedded_statements", "executed_strings", "is_statement", "sql_body", "strings_in"]

_STATEMENT = re.compile(
    r"\s*(?:alter|analyze|call|comment|create|delete|drop|grant|insert|lock|refresh|revoke|select|truncate|update|with)\s",
    re.IGNORECASE,
)
_BEGINS = frozenset({"ASCII_59", "BEGIN_P", "THEN", "ELSE", "LOOP"})
_ENDS = "ASCII_59"
_UTILITY = frozenset({"ALTER", "COMMENT", "CREATE", "DROP", "GRANT", "REVOKE", "INSERT", "UPDATE", "DELETE_P"})
_DEPTH = {"ASCII_40": 1, "ASCII_41": -1}


@dataclass(frozen=True)
class Embedded:
    """A statement in the text of a function."""

    begin: int
    end: int
    text: str
    node: ast.Node


def bodies_of(node: ast.Node) -> Iterator[str]:
    """The text of the function that a statement makes, or of the block that it runs."""
    options: tuple[ast.DefElem, ...] = ()
    if isinstance(node, ast.CreateFunctionStmt):
        options = node.options or ()
    elif isinstance(node, ast.DoStmt):
        options = node.args or ()
    for option in options:
        if option.defname == "as":
            parts = option.arg if isinstance(option.arg, tuple) else (option.arg,)
            yield from (part.sval for part in parts if isinstance(part, ast.String) and part.sval)


def sql_body(node: ast.Node) -> tuple[ast.RawStmt, ...] | None:
    """The statements of a function in SQL: PostgreSQL looks at them when it is made, other than at plpgsql's."""
    options = node.options or () if isinstance(node, ast.CreateFunctionStmt) else ()
    if not any(option.defname == "language" and option.arg.sval.lower() == "sql" for option in options):
        return None
    try:
        return parse_sql("".join(bodies_of(node)))
    except ParseError:
        return None


def strings_in(text: str) -> Iterator[str]:
    """The strings of a text, as they are without their quotes."""
    for token in tokens_of(text):
        if token.name == "SCONST":
            opening, content, _ = string_parts(text[token.start : token.end + 1])
            yield content if opening.startswith("$") else content.replace("''", "'")


def is_statement(text: str) -> bool:
    """Whether a string begins as a statement of SQL does."""
    return _STATEMENT.match(text) is not None


def embedded_statements(text: str) -> Iterator[Embedded]:
    """The statements of a text that are about objects or rights, or write rows; those that can be read as SQL."""
    tokens = tokens_of(text)
    for place, token in enumerate(tokens):
        if token.name not in _UTILITY or (place and tokens[place - 1].name not in _BEGINS):
            continue
        end = _end(text, tokens, place)
        part = text[token.start : end]
        try:
            (raw,) = parse_sql(part)
        except (ParseError, ValueError):
            continue
        if raw.stmt is not None:
            yield Embedded(token.start, end, part, raw.stmt)


def executed_strings(text: str) -> Iterator[tuple[int, int, Token]]:
    """Where ``execute`` runs a string that is in the text, alone or as a format: its beginning, end and the string."""
    tokens = tokens_of(text)
    for place, token in enumerate(tokens):
        if token.name != "EXECUTE" or (place and tokens[place - 1].name not in _BEGINS):
            continue
        at = place + 1
        while at < len(tokens) and _opens(text, tokens[at]):
            at += 1
        if at < len(tokens) and tokens[at].name == "SCONST":
            yield token.start, _end(text, tokens, place), tokens[at]


def _opens(text: str, token: Token) -> bool:
    return text[token.start : token.end + 1].lower() in {"(", "format"}


def _end(text: str, tokens: list[Token], place: int) -> int:
    """Where the statement that begins at a place ends, without its semicolon."""
    depth = 0
    for token in tokens[place:]:
        depth += _DEPTH.get(token.name, 0)
        if token.name == _ENDS and depth <= 0:
            return token.start
    return len(text)
