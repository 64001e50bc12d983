"""Carrying out one cell of the isolation matrix."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from pglast import ast, parse_sql
from pglast.parser import ParseError, split

from tests.security.isolation import FURTHER, Actor, Case, Door
from tests.security.world import ELSEWHERE, HIDDEN, LARGE_OBJECTS, VICTIM, Connection, World, tenant_of

__all__ = ["attempt"]


def attempt(world: World, case: Case, actor: Actor, *, beside: bool = False) -> str:
    """What comes of it when an actor tries something: ``ok``, ``none``, or an SQLSTATE.

    Args:
        beside: with the further schemas of all tenants.
    """
    mine = tenant_of(actor)
    # A dollar sign needs no quotes, but at a name's beginning.
    home = f"{mine.schema}{FURTHER}" if beside else mine.schema
    statement = (case.beside() if beside else case.sql).format(
        me=mine.schema,
        other=VICTIM.schema,
        hidden=HIDDEN.schema,
        elsewhere=ELSEWHERE.schema,
        my_large_object=LARGE_OBJECTS[mine],
        other_large_object=LARGE_OBJECTS[VICTIM],
        **world.bystanders,
    )
    try:
        if actor.door is not Door.TOKEN:
            with world.session(actor, alone=case.alone) as session:
                return _outcome(session, statement)
        with _function(world.owner(mine), f"{home}.attempt", statement), world.session(actor) as session:
            return _outcome(session, f"select {home}.attempt()", called=True)
    except psycopg.Error as error:
        return error.sqlstate or type(error).__name__


def _outcome(session: Connection, statement: str, *, called: bool = False) -> str:
    warnings: list[str] = []

    def note(diagnostic: psycopg.errors.Diagnostic) -> None:
        warnings.append(diagnostic.sqlstate or "")

    session.add_notice_handler(note)
    try:
        cursor = session.execute(statement.encode())
        while cursor.nextset():
            pass
        seen = cursor.fetchall() if cursor.description else None
    finally:
        session.remove_notice_handler(note)
    if "01007" in warnings:
        return "01007"
    if called and seen is not None:
        return str(seen[0][0])
    if seen is not None:
        return "ok" if any(any(column is not None for column in row) for row in seen) else "none"
    return "none" if cursor.rowcount == 0 else "ok"


@contextmanager
def _function(owner: Connection, name: str, statement: str) -> Iterator[None]:
    """A function of the project's that does what the statement says, and answers what :func:`_outcome` would."""
    *before, last = _statements(statement)
    text = f"""
        create function {name}() returns text language plpgsql as $attempt$
        #variable_conflict use_column
        declare
            attempt_row record;
            attempt_seen boolean := false;
            attempt_count bigint;
        begin
            {" ".join(f"{_plain(part)};" for part in before)}
            {_counted(last)}
        end
        $attempt$"""
    owner.execute(text.encode())
    try:
        yield
    finally:
        owner.execute(f"drop function {name}()".encode())


def _statements(text: str) -> list[str]:
    try:
        return list(split(text))
    except ParseError:  # a statement that is newer than the parser
        return [text]


def _plain(statement: str) -> str:
    return f"perform{statement.strip()[len('select') :]}" if _returns_rows(statement) else statement


def _counted(statement: str) -> str:
    if _returns_rows(statement):
        return f"""
            for attempt_row in {statement} loop
                attempt_seen := attempt_seen or not (attempt_row is null);
            end loop;
            return case when attempt_seen then 'ok' else 'none' end;"""
    if statement.lower().startswith(("insert", "update", "delete", "merge")):
        return f"""
            {statement};
            get diagnostics attempt_count = row_count;
            return case attempt_count when 0 then 'none' else 'ok' end;"""
    return f"{statement}; return 'ok';"


def _returns_rows(statement: str) -> bool:
    try:
        return isinstance(parse_sql(statement)[0].stmt, ast.SelectStmt | ast.ExplainStmt)
    except ParseError:
        return False
