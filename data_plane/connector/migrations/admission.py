"""What of a migration has no place in a session that projects share, as the database judges it.

The judgement is the database's own (``data_plane.refused_tokens``), which refuses the statement anyway. Here every
place is named before anything runs.
"""

import re
from collections.abc import Callable, Iterator, Sequence

import psycopg
from pglast import ast
from pglast.stream import maybe_double_quote_name

__all__ = ["Judge", "judge_of", "refused_in", "without_set_config"]

Judge = Callable[[str, str], Sequence[tuple[int, str]]]
"""Lines and tokens of a text in a language that are refused."""

_LISTS = frozenset({"search_path", "temp_tablespaces", "DateStyle"})
_PLAIN_LIST = re.compile(r'[\w$", ]+')


def judge_of(connection: psycopg.Connection, schema: str) -> Judge | None:
    """What judges the functions of a tenant; None if it shares no session, or the platform is older than that."""
    try:
        row = connection.execute("select data_plane.needs_admission(%s)", [schema]).fetchone()
    except (psycopg.errors.UndefinedFunction, psycopg.errors.InvalidSchemaName, psycopg.errors.InsufficientPrivilege):
        return None
    if not row or not row[0]:
        return None

    def judge(language: str, text: str) -> Sequence[tuple[int, str]]:
        found = connection.execute(
            "select distinct * from data_plane.refused_tokens(%s, %s) order by 1", [language, text]
        )
        return [(int(line), str(token)) for line, token in found]

    return judge


def refused_in(text: str, node: ast.Node, body: str | None, judge: Judge) -> Iterator[tuple[int, str]]:
    """The lines of a statement, counted from 0, and what is refused there.

    Args:
        text: the statement.
        node: the same, parsed.
        body: the text of the function that it makes; None if it makes none.
    """
    if not isinstance(node, ast.CreateFunctionStmt) or body is None:
        return
    options = {option.defname: option.arg for option in node.options or ()}
    volatility = options["volatility"].sval if "volatility" in options else "volatile"
    language = options["language"].sval.lower() if "language" in options else "sql"
    if volatility != "volatile" and language in {"sql", "plpgsql"}:
        return
    name = ".".join(str(part.sval) for part in node.funcname or ())
    # A text in dollars stands in the statement as it is; of another the line is the statement's.
    at = text.find(body)
    begin = text.count("\n", 0, at) if at >= 0 else 0
    for line, token in judge(language, body):
        yield begin + line - 1 if at >= 0 else 0, f"{token} in function {name}"


def without_set_config(node: ast.Node) -> str | None:
    """``SET`` for a statement that is one call of ``set_config`` with constants, as dumps begin with; else None.

    A project that shares a session may not call the function, and its migrations may say the same by the command.
    """
    if not isinstance(node, ast.SelectStmt) or node.fromClause or len(node.targetList or ()) != 1:
        return None
    call = (node.targetList or ())[0].val
    if not isinstance(call, ast.FuncCall) or (call.funcname or ())[-1].sval != "set_config":
        return None
    values = [argument.val if isinstance(argument, ast.A_Const) else None for argument in call.args or ()]
    match values:
        case [ast.String(sval=str(name)), ast.String(sval=str(value)), ast.Boolean(boolval=local)]:
            words = "set local" if local else "set"
            quoted = ".".join(maybe_double_quote_name(part) for part in name.split("."))
            plain = name in _LISTS and _PLAIN_LIST.fullmatch(value)
            literal = value if plain else "'" + value.replace("'", "''") + "'"
            return f"{words} {quoted} = {literal}"
    return None
