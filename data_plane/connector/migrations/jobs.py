"""Scheduled jobs of a migration: pg_cron's functions, and the platform's that stand for them.

A job runs as the project's owner, in a session of its own; the platform's functions take the same arguments, but for
the name, which they always want.
"""

import hashlib
import re
from collections.abc import Iterator

from pglast import ast
from pglast.parser import Token

from data_plane.connector.migrations.edits import Edit, Kind, identifier
from data_plane.connector.migrations.rewritten import Original, Rewritten
from data_plane.connector.migrations.script import tokens_of

__all__ = ["JOB_FUNCTIONS", "is_guarded", "job_edits", "job_rule", "job_texts"]

_CALLS = {"schedule": "schedule_job", "unschedule": "unschedule_job"}
_TABLES = {"job": "list_jobs", "job_run_details": "job_runs"}
"""Of pg_cron's tables, the functions that give the project's own rows with the same columns."""
JOB_FUNCTIONS = frozenset({*_CALLS.values(), *_TABLES.values()})
"""The platform's functions, which raise an error where there is no pg_cron."""
_NAMED = 3
_READS = frozenset({"FROM", "JOIN"})
_GUARD = re.compile(r"pg_cron|nspname\s*=\s*'cron'|\bto_reg\w+\s*\(\s*'cron|\bexception\s+when\b", re.IGNORECASE)


def is_guarded(text: str) -> bool:
    """Whether a block asks for pg_cron before it schedules anything, or goes on without."""
    return _GUARD.search(text) is not None


def job_rule(original: Original) -> Rewritten | None:
    """Leaves out what tidies up pg_cron's log."""
    match original.node:
        case ast.DeleteStmt(relation=ast.RangeVar(schemaname="cron", relname="job_run_details")):
            return Rewritten(None, (Kind.JOBS,), "the platform keeps the newest runs of each job")
    return None


def job_edits(text: str) -> Iterator[Edit]:
    """``cron.schedule`` and ``cron.unschedule`` as the platform's; a job without a name gets one from its text."""
    tokens = tokens_of(text)
    for place, arguments in _calls(text, tokens, "cron", _CALLS):
        function = identifier(text, tokens[place + 2]) or ""
        begin, end = tokens[place].start, tokens[place + 2].end + 1
        yield Edit(begin, end, f"data_plane_api.{_CALLS[function]}", (Kind.JOBS,))
        if function == "schedule" and len(arguments) == _NAMED - 1:
            first = tokens[place + 4].start
            digest = hashlib.sha256(text[first : arguments[-1][-1].end + 1].encode()).hexdigest()
            yield Edit(first, first, f"'job_{digest[:12]}', ", ())
    for place, token in enumerate(tokens[:-2]):
        table = identifier(text, tokens[place + 2])
        reads = place > 0 and tokens[place - 1].name in _READS and (place < 2 or tokens[place - 2].name != "DELETE_P")
        if identifier(text, token) == "cron" and tokens[place + 1].name == "ASCII_46" and table in _TABLES and reads:
            after = tokens[place + 3] if place + 3 < len(tokens) else None
            named = after is not None and after.name in {"AS", "IDENT"}
            alias = "" if named else f" as {table}"
            end = tokens[place + 2].end + 1
            yield Edit(token.start, end, f"data_plane_api.{_TABLES[table]}(){alias}", (Kind.JOBS,))


def job_texts(text: str) -> Iterator[Token]:
    """The strings that are the commands of jobs."""
    tokens = tokens_of(text)
    for schema, functions in (("cron", _CALLS), ("data_plane_api", {"schedule_job": ""})):
        for place, arguments in _calls(text, tokens, schema, functions):
            if identifier(text, tokens[place + 2]) in {"schedule", "schedule_job"} and arguments:
                yield from _first_strings(arguments[-1])


def _first_strings(argument: list[Token]) -> Iterator[Token]:
    """The string that an argument is, begins with or is a format of, and what is put behind it."""
    found = False
    for before, token in zip([None, *argument], argument, strict=False):
        if token.name == "SCONST" and (not found or (before is not None and before.name == "Op")):
            found = True
            yield token


def _calls(
    text: str, tokens: list[Token], schema: str, functions: dict[str, str]
) -> Iterator[tuple[int, list[list[Token]]]]:
    """The places of calls, each with the tokens of its arguments."""
    for place in range(len(tokens) - 4):
        if identifier(text, tokens[place]) != schema or tokens[place + 1].name != "ASCII_46":
            continue
        if identifier(text, tokens[place + 2]) not in functions or tokens[place + 3].name != "ASCII_40":
            continue
        arguments: list[list[Token]] = [[]]
        depth = 0
        for token in tokens[place + 3 :]:
            depth += {"ASCII_40": 1, "ASCII_91": 1, "ASCII_41": -1, "ASCII_93": -1}.get(token.name, 0)
            if not depth:
                break
            if depth == 1 and token.name == "ASCII_44":
                arguments.append([])
            elif not (depth == 1 and token.name == "ASCII_40" and not arguments[0]):
                arguments[-1].append(token)
        yield place, [argument for argument in arguments if argument]
