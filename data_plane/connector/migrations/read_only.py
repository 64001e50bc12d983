"""Functions that only read: they are declared ``stable``, where a session that projects share takes no other.

PostgreSQL holds a function to that, so the declaration takes away and gives nothing. It would change what a function
does that writes, or that calls one which gives another value each time; so each statement of it has to be a query, with
no functions in it but those that are known here, and what it executes has to be written out.
"""

import re
from collections.abc import Iterator
from typing import Any

from pglast import ast, parse_plpgsql, parse_sql
from pglast.parser import ParseError
from pglast.visitors import Ancestor, Visitor

from data_plane.connector.migrations.admission import Judge
from data_plane.connector.migrations.function_texts import bodies_of
from data_plane.connector.migrations.script import parsed, tokens_of

__all__ = ["declared_stable"]

_STATEMENTS = frozenset(
    {
        "assign",
        "block",
        "case",
        "dynexecute",
        "dynfors",
        "execsql",
        "exit",
        "foreach_a",
        "fori",
        "fors",
        "getdiag",
        "if",
        "loop",
        "perform",
        "raise",
        "return",
        "return_next",
        "return_query",
        "while",
    }
)
_OPTIONS = frozenset({"as", "language", "security", "set", "strict"})
_FUNCTIONS = frozenset(
    {
        "array_agg",
        "array_length",
        "avg",
        "bool_and",
        "bool_or",
        "btrim",
        "cardinality",
        "concat",
        "concat_ws",
        "count",
        "current_setting",
        "format",
        "json_agg",
        "json_build_object",
        "jsonb_agg",
        "jsonb_build_array",
        "jsonb_build_object",
        "jsonb_object_agg",
        "left",
        "length",
        "lower",
        "max",
        "min",
        "now",
        "quote_ident",
        "quote_literal",
        "quote_nullable",
        "replace",
        "right",
        "row_number",
        "row_to_json",
        "split_part",
        "string_agg",
        "substr",
        "substring",
        "sum",
        "to_char",
        "to_json",
        "to_jsonb",
        "to_regclass",
        "upper",
    }
)
"""Functions of PostgreSQL's that neither write nor give another value each time."""
_OF_AUTH = frozenset({"uid", "jwt", "role", "email"})
_MODE_STATEMENT, _MODE_EXPRESSION = 0, 2
_ASSIGNED = re.compile(r"\s*[\w.]+(?:\[\w+\])?\s*:?=")
_SPECIFIER = re.compile(r"%(?:\d+\$)?([IL])")


def declared_stable(text: str, judge: Judge) -> str | None:
    """A statement that makes a function, with ``stable``; None if that is not needed, or may change what it does.

    Args:
        judge: says what of a text is refused in a shared session.
    """
    node = parsed(text)
    if not isinstance(node, ast.CreateFunctionStmt) or node.is_procedure:
        return None
    options = {option.defname: option.arg for option in node.options or ()}
    bodies = list(bodies_of(node))
    if set(options) - _OPTIONS or len(bodies) != 1 or options["language"].sval.lower() != "plpgsql":
        return None
    if {token.lower() for _, token in judge("plpgsql", bodies[0])} != {"execute"} or not _only_reads(text):
        return None
    end = tokens_of(text)[-1].end + 1
    return f"{text[:end]} stable{text[end:]}"


def _only_reads(text: str) -> bool:
    try:
        return all(_is_harmless(*found) for found in _parts(parse_plpgsql(text), ""))
    except ParseError:
        return False


def _parts(node: Any, within: str) -> Iterator[tuple[str, str, Any]]:
    """Each statement and expression of a function, with the key that it stands under and the statement it is in."""
    if isinstance(node, list):
        for item in node:
            yield from _parts(item, within)
    elif isinstance(node, dict):
        for key, value in node.items():
            name = key.removeprefix("PLpgSQL_")
            if key.startswith("PLpgSQL_stmt_"):
                within = name.removeprefix("stmt_")
                yield "statement", within, value
            elif isinstance(value, dict) and "PLpgSQL_expr" in value:
                executed = key == "dynquery" or (key == "query" and within in {"dynexecute", "dynfors"})
                yield "executed" if executed else "expression", within, value["PLpgSQL_expr"]
                continue
            elif key == "PLpgSQL_expr":
                yield "expression", within, value
                continue
            yield from _parts(value, within)


def _is_harmless(what: str, within: str, value: Any) -> bool:
    if what == "statement":
        return within in _STATEMENTS
    query, mode = str(value["query"]), int(value["parseMode"])
    if mode == _MODE_EXPRESSION:
        query = f"select {query}"
    elif mode != _MODE_STATEMENT:
        if not _ASSIGNED.match(query):
            return False
        query = "select " + _ASSIGNED.sub("", query, count=1)
    node = _query(query)
    if node is None:
        return False
    return what != "executed" or _is_written_out(node)


def _is_written_out(node: ast.SelectStmt) -> bool:
    """Whether what is executed is a query of which nothing but names and values is left open."""
    (target,) = node.targetList or ()
    string = target.val
    if isinstance(string, ast.FuncCall):
        if [str(part.sval) for part in string.funcname or ()][-1:] != ["format"]:
            return False
        string = (string.args or (None,))[0]
    if not isinstance(string, ast.A_Const) or not isinstance(string.val, ast.String):
        return False
    text = str(string.val.sval)
    if string is not target.val:
        text = _SPECIFIER.sub(lambda one: "a_name" if one[1] == "I" else "'a value'", text)
        if "%" in text:
            return False
    return _query(text) is not None


def _query(text: str) -> ast.SelectStmt | None:
    """A query that neither writes nor locks; None for anything else."""
    try:
        (raw,) = parse_sql(text)
    except (ParseError, ValueError):
        return None
    visitor = _Reads()
    visitor(raw)
    return raw.stmt if isinstance(raw.stmt, ast.SelectStmt) and visitor.only else None


class _Reads(Visitor):
    """Whether a tree has only what reads in it."""

    only = True

    def visit(self, ancestors: Ancestor, node: ast.Node) -> None:
        match node:
            case ast.InsertStmt() | ast.UpdateStmt() | ast.DeleteStmt() | ast.MergeStmt():
                self.only = False
            case ast.LockingClause() | ast.IntoClause():
                self.only = False
            case ast.FuncCall():
                words = [str(part.sval) for part in node.funcname or ()]
                known = words[-1] in _FUNCTIONS and words[:-1] in ([], ["pg_catalog"])
                self.only = self.only and (known or (words[:-1] == ["auth"] and words[-1] in _OF_AUTH))
