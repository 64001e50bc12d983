"""The schemas of a migration, and the project's own that stand for them, told from aliases and columns.

``public.t`` is the project's ``proj_x.t``, ``private.t`` its ``"proj_x$private".t`` once its files make a schema
``private``, and ``auth.users`` its own table of users. ``app.id`` may be a column of a table with the alias ``app``:
PostgreSQL's parse tree says which it is; of a text that has none (plpgsql's), its statements are asked one by one.
"""

import itertools
import json
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from pglast import ast, parse_sql
from pglast.parser import ParseError, Token, parse_plpgsql_json
from pglast.visitors import Ancestor, Visitor

from data_plane.connector.migrations.edits import Edit, Kind, identifier, quoted_name
from data_plane.connector.migrations.scope import Scope
from data_plane.connector.migrations.script import tokens_of

__all__ = ["SCHEMA_COLUMNS", "in_search_path", "names_a_schema", "schema_edits", "schema_word", "uncertain_names"]

DOT = "ASCII_46"
_COMMA = "ASCII_44"
SCHEMA_COLUMNS = frozenset(
    {
        "schemaname",
        "table_schema",
        "schema_name",
        "nspname",
        "routine_schema",
        "constraint_schema",
        "trigger_schema",
        "sequence_schema",
        "specific_schema",
        "event_object_schema",
        "udt_schema",
        "view_schema",
    }
)
"""Columns of the catalogs that hold the name of a schema."""
_COMPARED = frozenset({"ASCII_61", "NOT_EQUALS", "IN_P", "ASCII_40", _COMMA})
_LIST = frozenset({_COMMA, "SCONST"})


def schema_edits(text: str, scope: Scope, declaration: str | None = None) -> Iterator[Edit]:
    """A schema's name wherever it stands as one, token by token.

    Args:
        declaration: the function that the text is of, whole; None if the text is SQL.
    """
    tokens = tokens_of(text)
    columns = _columns(text, scope, declaration)
    for place, token in enumerate(tokens):
        name = identifier(text, token)
        if name is None or not (name in {"public", "auth"} or name in scope.further):
            continue
        before = tokens[place - 1] if place else None
        after = tokens[place + 1] if place + 1 < len(tokens) else None
        if after is not None and after.name == DOT:
            thing = identifier(text, tokens[place + 2]) if place + 2 < len(tokens) else None
            if before is not None and before.name == DOT:
                continue
            if name in scope.further and (token.start in columns or (name, thing) in columns):
                continue
            if (edit := _qualified(scope, token, name, thing or "")) is not None:
                yield edit
        elif in_search_path(text, tokens, place):
            if (listed := _listed(scope, name)) is not None and not (name == "auth" and scope.users in text):
                yield Edit(token.start, token.end + 1, listed, (_kind(name),))
        elif _follows_schema(tokens, place) and (here := scope.schema_here(name)) is not None:
            yield Edit(token.start, token.end + 1, quoted_name(here), (_kind(name),))


def names_a_schema(text: str, tokens: list[Token], place: int) -> bool:
    """Whether a string is compared with a column that holds a schema's name, or is a search path."""
    if in_search_path(text, tokens, place) or _follows_schema(tokens, place):
        return True
    words = [text[token.start : token.end + 1].strip('"').lower() for token in tokens[max(0, place - 4) : place]]
    # set_config('search_path', '…', …)
    if words[-4:] == ["set_config", "(", "'search_path'", ","]:
        return True
    steps = place
    while steps and (tokens[steps - 1].name in _COMPARED | _LIST or _is_any(text, tokens, steps - 1)):
        steps -= 1
    if steps == place or not steps:
        return False
    before = tokens[steps - 1]
    return text[before.start : before.end + 1].strip('"').lower() in SCHEMA_COLUMNS


def schema_word(content: str, scope: Scope, *, path: bool) -> tuple[str, tuple[Kind, ...]]:
    """A string that names schemas, with the project's own in it.

    Args:
        path: whether it is a search path, where a name may have to be quoted.
    """
    kinds: list[Kind] = []

    def here(match: re.Match[str]) -> str:
        found = scope.schema_here(match[2]) if not (path and match[2] == "auth") else None
        if path and match[2] == "auth" and scope.has_users and scope.users not in content:
            kinds.append(Kind.USERS)
            return f"{quoted_name(scope.users)}, auth"
        if found is None:
            return match[0]
        kinds.append(_kind(match[2]))
        return quoted_name(found) if path and "," in content else found

    changed = re.sub(r'(?<![\w.$])("?)([a-z_][a-z0-9_]*)\1(?![\w.$])', here, content)
    return changed, tuple(kinds)


def uncertain_names(text: str, scope: Scope, declaration: str) -> set[str]:
    """Names in a function's text that may be a schema or an alias, where its statements do not tell which."""
    used = {pair[0] for pair in _pairs(text) if pair[0] in scope.further}
    risky = (_aliases(text, scope) | _aliases(declaration, scope)) & used
    return risky if risky and _of_plpgsql(declaration) is None else set()


def in_search_path(text: str, tokens: list[Token], place: int) -> bool:
    """Whether a word or string stands in the list of ``set search_path = a, b``."""
    while place >= 2 and tokens[place - 1].name == _COMMA:
        place -= 2
    if place < 2 or tokens[place - 1].name not in {"ASCII_61", "TO"}:
        return False
    setting = tokens[place - 2]
    return text[setting.start : setting.end + 1].strip('"').lower() == "search_path"


def _qualified(scope: Scope, token: Token, name: str, thing: str) -> Edit | None:
    if name == "auth":
        here = scope.users if thing == "users" and scope.has_users else None
        kind = Kind.USERS
    else:
        here, kind = scope.schema_here(name), _kind(name)
        if name == "public":
            here = scope.extension_objects.get(thing, here)
    return None if here is None else Edit(token.start, token.end + 1, quoted_name(here), (kind,))


def _listed(scope: Scope, name: str) -> str | None:
    """A schema in a search path; before Auth's, which stays, that of the project's users."""
    if name == "auth":
        return f"{quoted_name(scope.users)}, auth" if scope.has_users else None
    here = scope.schema_here(name)
    return None if here is None else quoted_name(here)


def _kind(name: str) -> Kind:
    return {"public": Kind.PUBLIC, "auth": Kind.USERS}.get(name, Kind.SCHEMAS)


def _follows_schema(tokens: list[Token], place: int) -> bool:
    """Whether a word stands in a list after SCHEMA, as in ``in schema public, x``."""
    while place and tokens[place - 1].name in {_COMMA, "IF_P", "NOT", "EXISTS"}:
        place -= 1 if tokens[place - 1].name != _COMMA else 2
    return place > 0 and tokens[place - 1].name == "SCHEMA"


def _is_any(text: str, tokens: list[Token], place: int) -> bool:
    """``any (array[`` before a list."""
    return text[tokens[place].start : tokens[place].end + 1].lower() in {"any", "array", "[", "not"}


def _columns(text: str, scope: Scope, declaration: str | None) -> set[Any]:
    """Where two names with a dot are a column: by place in SQL, by name in plpgsql."""
    if not scope.further or not any(pair[0] in scope.further for pair in _pairs(text)):
        return set()
    places = _of_sql(text)
    if places is not None:
        return set(places)
    if declaration is None:
        return set()
    risky = _aliases(text, scope) | _aliases(declaration, scope)
    columns = _of_plpgsql(declaration)
    if columns is None:
        columns = frozenset((a, b) for a, b in _pairs(text) if a and b)  # untouched, and refused
    return {pair for pair in columns if pair[0] in risky}


def _pairs(text: str) -> Iterator[tuple[str | None, str | None]]:
    tokens = tokens_of(text)
    for first, dot, second in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if dot.name == DOT:
            yield identifier(text, first), identifier(text, second)


def _aliases(text: str, scope: Scope) -> set[str]:
    """Names of schemas that stand somewhere without a dot behind them, so that they may be something else's, too."""
    tokens = tokens_of(text)
    found = set()
    for place, (token, after) in enumerate(itertools.zip_longest(tokens, tokens[1:])):
        name = identifier(text, token)
        if name not in scope.further or (after is not None and after.name == DOT):
            continue
        if not (_follows_schema(tokens, place) or in_search_path(text, tokens, place)):
            found.add(str(name))
    return found


@lru_cache(maxsize=64)
def _of_sql(text: str) -> frozenset[int] | None:
    """Where in a text the columns with the name of a table in front are; None of a text that is no SQL."""
    # A fragment may be an expression.
    for prefix in ("", "select "):
        try:
            found = _ColumnRefs(len(prefix))
            found(parse_sql(prefix + text))
        except ParseError:
            continue
        return frozenset(found.places)
    return None


@lru_cache(maxsize=64)
def _of_plpgsql(declaration: str) -> frozenset[tuple[str, str]] | None:
    """The columns with the name of a table in front, in all statements of a function; None if they cannot be read.

    Names that are a column's in one statement and an object's in another tell nothing.
    """
    try:
        read = json.loads(parse_plpgsql_json(declaration))
    except (ParseError, json.JSONDecodeError):
        return None
    columns: set[tuple[str, str]] = set()
    objects: set[tuple[str, str]] = set()
    for query in _values_of(read, "query"):
        visitor = _ColumnRefs(0)
        for candidate in (query, f"select {query}", f"select {query.partition(':=')[2]}"):
            try:
                visitor(parse_sql(candidate))
                break
            except ParseError:
                continue
        else:
            return None
        columns |= visitor.names
        objects |= visitor.objects
    return None if columns & objects else frozenset(columns)


def _values_of(tree: Any, key: str) -> Iterator[str]:
    if isinstance(tree, dict):
        for name, value in tree.items():
            if name == key and isinstance(value, str):
                yield value
            yield from _values_of(value, key)
    elif isinstance(tree, list):
        for item in tree:
            yield from _values_of(item, key)


class _ColumnRefs(Visitor):
    """Where a name with one dot is a column, and which names of objects there are."""

    def __init__(self, shift: int) -> None:
        self._shift = shift
        self.places: set[int] = set()
        self.names: set[tuple[str, str]] = set()
        self.objects: set[tuple[str, str]] = set()

    def visit_ColumnRef(self, ancestors: Ancestor, node: ast.ColumnRef) -> None:  # noqa: N802
        words = [part.sval if isinstance(part, ast.String) else "*" for part in node.fields or ()]
        if len(words) == 2:
            self.places.add((node.location or 0) - self._shift)
            self.names.add((str(words[0]), str(words[1])))

    def visit_RangeVar(self, ancestors: Ancestor, node: ast.RangeVar) -> None:  # noqa: N802
        if node.schemaname:
            self.objects.add((node.schemaname, str(node.relname)))

    def visit_FuncCall(self, ancestors: Ancestor, node: ast.FuncCall) -> None:  # noqa: N802
        words = [str(part.sval) for part in node.funcname or () if isinstance(part, ast.String)]
        if len(words) > 1:
            self.objects.add((words[-2], words[-1]))
