"""Functions of a project that are one expression of their arguments: a storage rule is given the expression instead.

A rule on files runs in Storage's session and may call no function of a project's. One like ``select split_part(path,
'/', 1)`` needs no call: what the rule says stays the same, and the database judges the expression as if it had been
written there.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from pglast import ast, enums
from pglast.parser import ParseError, Token
from pglast.stream import RawStream
from pglast.visitors import Ancestor, Visitor

from data_plane.connector.migrations.edits import Edit, edited
from data_plane.connector.migrations.function_texts import bodies_of
from data_plane.connector.migrations.script import Statement, parsed, tokens_of

__all__ = ["PlainFunction", "has_rules", "plain_functions", "with_expressions"]

_RULE = re.compile(r"\bon\s+\"?storage\"?\s*\.\s*\"?objects\b", re.IGNORECASE)
_RETURNED = {
    "sql": re.compile(r"\s*select\b([^;]*);?\s*", re.IGNORECASE),
    "plpgsql": re.compile(r"\s*begin\s+return\b([^;]*);\s*end\s*;?\s*", re.IGNORECASE),
}
_OPTIONS = frozenset({"as", "language", "volatility", "security", "set", "parallel", "cost", "leakproof"})
_OPENING, _CLOSING, _COMMA, _DOT = "ASCII_40", "ASCII_41", "ASCII_44", "ASCII_46"


@dataclass(frozen=True)
class PlainFunction:
    """A function that is one expression."""

    parameters: tuple[tuple[str, str], ...]
    """Name and type of each."""
    expression: str
    returns: str

    def of(self, arguments: list[str]) -> str:
        """The expression with arguments in the parameters' place."""
        given = dict(zip((name for name, _ in self.parameters), self._cast(arguments), strict=True))
        edits = [Edit(at, -1, given[name], ()) for at, name in _columns(self.expression) if name in given]
        edits += [Edit(at, -1, list(given.values())[number - 1], ()) for at, number in _numbers(self.expression)]
        return f"(({edited(self.expression, edits)})::{self.returns})"

    def _cast(self, arguments: list[str]) -> Iterator[str]:
        for argument, (_, kind) in zip(arguments, self.parameters, strict=True):
            yield f"(({argument})::{kind})"


def has_rules(texts: Iterable[str]) -> bool:
    """Whether any file declares a rule on files."""
    return any(_RULE.search(text) for text in texts)


def plain_functions(statements: Iterable[Statement]) -> Iterator[tuple[str, PlainFunction | None]]:
    """Each function that statements make, by its name in the files; None for one that is more than an expression."""
    for statement in statements:
        if isinstance(statement.node, ast.CreateFunctionStmt):
            yield _name(statement.node.funcname), _plain(statement.node)


def with_expressions(text: str, functions: Mapping[str, PlainFunction]) -> str:
    """A policy with the expressions of the functions that it calls in place of the calls."""
    visitor = _Calls()
    visitor(parsed(text))
    edits = []
    for call in visitor.calls:
        function = functions.get(_name(call.funcname))
        found = _arguments(text, call) if function is not None and _is_plain_call(call) else None
        if function is not None and found is not None and len(found[2]) == len(function.parameters):
            edits.append(Edit(found[0], found[1], function.of(found[2]), ()))
    # A call within another's arguments stays one, and is refused.
    outer = [e for e in edits if not any(o is not e and o.begin <= e.begin < o.end for o in edits)]
    return edited(text, outer)


def _plain(node: ast.CreateFunctionStmt) -> PlainFunction | None:
    options = {option.defname: option.arg for option in node.options or ()}
    parameters = tuple(node.parameters or ())
    if set(options) - _OPTIONS or "language" not in options or node.returnType is None or node.returnType.setof:
        return None
    if any(p.mode != enums.FunctionParameterMode.FUNC_PARAM_DEFAULT or p.defexpr or not p.name for p in parameters):
        return None
    if "set" in options and options["set"].name != "search_path":
        return None
    shape = _RETURNED.get(options["language"].sval.lower())
    found = shape.fullmatch(next(bodies_of(node), "")) if shape is not None else None
    if found is None or not _is_expression(found[1]):
        return None
    named = tuple((str(p.name), RawStream()(p.argType)) for p in parameters)
    if any(not 0 < number <= len(named) for _, number in _numbers(found[1])):
        return None
    return PlainFunction(named, found[1].strip(), RawStream()(node.returnType))


def _is_expression(text: str) -> bool:
    """Whether a text is one expression, and asks no table."""
    try:
        node = parsed(f"select {text}")
    except ParseError:
        return False
    visitor = _Queries()
    visitor(node)
    comments = "--" in text or "/*" in text
    return not comments and visitor.count == 1 and visitor.is_expression


def _is_plain_call(call: ast.FuncCall) -> bool:
    odd = call.agg_order or call.agg_filter or call.over or call.agg_star or call.agg_distinct or call.func_variadic
    return not odd and not any(isinstance(argument, ast.NamedArgExpr) for argument in call.args or ())


def _arguments(text: str, call: ast.FuncCall) -> tuple[int, int, list[str]] | None:
    """Where a call begins and ends, and the texts of its arguments."""
    tokens = [token for token in tokens_of(text) if token.start >= (call.location or 0)]
    opening = next((place for place, token in enumerate(tokens) if token.name == _OPENING), None)
    if opening is None:
        return None
    depth, begin, arguments = 0, opening + 1, []
    for place, token in enumerate(tokens[opening:], opening):
        depth += {_OPENING: 1, "ASCII_91": 1, _CLOSING: -1, "ASCII_93": -1}.get(token.name, 0)
        if (depth == 1 and token.name == _COMMA) or depth == 0:
            if place > begin:
                arguments.append(text[tokens[begin].start : tokens[place - 1].end + 1])
            begin = place + 1
        if depth == 0:
            return tokens[0].start, token.end + 1, arguments
    return None


def _columns(expression: str) -> Iterator[tuple[int, str]]:
    """The names in an expression that stand alone, each with its place in it."""
    visitor = _Names()
    visitor(parsed(f"select {expression}"))
    for location, name in visitor.columns:
        yield location - len("select "), name


def _numbers(expression: str) -> Iterator[tuple[int, int]]:
    tokens: list[Token] = tokens_of(expression)
    for token in tokens:
        if token.name == "PARAM":
            yield token.start, int(expression[token.start + 1 : token.end + 1])


def _name(words: tuple[ast.Node, ...] | None) -> str:
    """The name of a function in the files: in the first schema it needs none."""
    parts = [str(getattr(part, "sval", "")) for part in words or ()]
    return ".".join(parts[1:] if parts[:1] == ["public"] else parts)


class _Calls(Visitor):
    def __init__(self) -> None:
        self.calls: list[ast.FuncCall] = []

    def visit_FuncCall(self, ancestors: Ancestor, node: ast.FuncCall) -> None:  # noqa: N802
        self.calls.append(node)


class _Names(Visitor):
    def __init__(self) -> None:
        self.columns: list[tuple[int, str]] = []

    def visit_ColumnRef(self, ancestors: Ancestor, node: ast.ColumnRef) -> None:  # noqa: N802
        match node.fields:
            case (ast.String(sval=str(name)),) if node.location is not None:
                self.columns.append((node.location, name))


class _Queries(Visitor):
    """How many queries a tree has, and whether it is a query of one value that reads nothing."""

    count = 0
    is_expression = True

    def visit_SelectStmt(self, ancestors: Ancestor, node: ast.SelectStmt) -> None:  # noqa: N802
        self.count += 1
        more = (
            node.fromClause,
            node.whereClause,
            node.groupClause,
            node.havingClause,
            node.sortClause,
            node.limitCount,
            node.limitOffset,
            node.valuesLists,
            node.withClause,
            node.distinctClause,
            node.larg,
            node.lockingClause,
            node.intoClause,
        )
        if any(more) or len(node.targetList or ()) != 1:
            self.is_expression = False
