"""What the text of a function names that is not the project's.

Only what is sure: its language may be any, and so may its aliases. Of a DO block more is said than of a function,
because it runs now.
"""

import itertools
from collections.abc import Iterator

from pglast import ast
from pglast.parser import Token

from data_plane.connector.migrations.edits import identifier
from data_plane.connector.migrations.function_texts import bodies_of, strings_in
from data_plane.connector.migrations.jobs import JOB_FUNCTIONS, is_guarded
from data_plane.connector.migrations.publications import publications_in
from data_plane.connector.migrations.schema_names import uncertain_names
from data_plane.connector.migrations.scope import PLATFORM_SCHEMAS, Rule, Scope
from data_plane.connector.migrations.script import tokens_of

__all__ = ["callable_in_auth", "findings_in_texts"]

_CALLABLE_IN_AUTH = frozenset({"uid", "jwt", "role", "email"})
_DOT = "ASCII_46"


def callable_in_auth(schema: str, thing: str) -> bool:
    """Whether it is one of Auth's functions that are everybody's."""
    return schema == "auth" and thing in _CALLABLE_IN_AUTH


def findings_in_texts(node: ast.Node, text: str, scope: Scope) -> Iterator[tuple[Rule, str]]:
    """What the texts of functions and DO blocks in a statement name.

    Args:
        text: the statement.
    """
    texts = list(bodies_of(node))
    for body in texts:
        for name in sorted(uncertain_names(body, scope, text)):
            yield Rule.SCHEMAS, f"{name}.… in a function's text: the schema or an alias? rename the alias"
    # What it executes is a string in it.
    strings = [string for body in texts for string in strings_in(body)]
    for publication in dict.fromkeys(name for part in (*texts, *strings) for name in publications_in(part)):
        yield Rule.REALTIME, f"publication {publication} in a function's text"
    runs = isinstance(node, ast.DoStmt)
    for body in [*texts, *strings] if runs else texts:
        tokens = tokens_of(body)
        for first, second in itertools.pairwise(tokens):
            if first.name in {"CREATE", "INTO"} and second.name in {"TEMP", "TEMPORARY"}:
                yield Rule.TEMPORARY, "a temporary object in a function's text"
        for schema, thing in _dotted(body, tokens):
            if (boundary := _reached(schema, thing, scope)) is not None:
                yield boundary, f"{schema}.{thing} in a function's text"
            elif runs:
                yield from _reached_now(schema, thing, scope, guarded=is_guarded(text))


def _reached(schema: str, thing: str, scope: Scope) -> Rule | None:
    """What a name in any function is refused for."""
    if schema == "public":
        return Rule.PUBLIC
    if (schema, thing) == ("auth", "users"):
        return Rule.AUTH
    return Rule.OTHER_PROJECTS if schema in scope.schemas and _is_anothers(schema, scope) else None


def _reached_now(schema: str, thing: str, scope: Scope, *, guarded: bool) -> Iterator[tuple[Rule, str]]:
    """What a name in a DO block is refused for: unlike a function's, its text runs now."""
    if schema == "data_plane_api" and thing in JOB_FUNCTIONS and not (guarded or scope.has_jobs):
        yield Rule.EXTENSIONS, f"{thing} in a DO block: this PostgreSQL has no pg_cron"
    elif schema in PLATFORM_SCHEMAS and not callable_in_auth(schema, thing):
        yield PLATFORM_SCHEMAS[schema], f"{schema}.{thing} in a DO block"


def _is_anothers(schema: str, scope: Scope) -> bool:
    return schema.startswith("proj_") and schema.partition("$")[0] != scope.names.schema


def _dotted(text: str, tokens: list[Token]) -> Iterator[tuple[str, str]]:
    """The first two parts of each name with a dot."""
    for before, name, dot, thing in zip([None, *tokens], tokens, tokens[1:], tokens[2:], strict=False):
        if dot.name != _DOT or (before is not None and before.name == _DOT):
            continue
        schema = identifier(text, name)
        if schema is not None:
            yield schema, text[thing.start : thing.end + 1].strip('"')
