"""Carrying out one cell of the isolation matrix."""

import psycopg

from tests.security.isolation import Actor, Case
from tests.security.world import HIDDEN, LARGE_OBJECTS, VICTIM, World, tenant_of

__all__ = ["attempt"]


def attempt(world: World, case: Case, actor: Actor) -> str:
    """What comes of it when an actor tries something: ``ok``, ``none``, or an SQLSTATE."""
    mine = tenant_of(actor)
    statement = case.sql.format(
        me=mine.schema,
        other=VICTIM.schema,
        hidden=HIDDEN.schema,
        my_large_object=LARGE_OBJECTS[mine],
        other_large_object=LARGE_OBJECTS[VICTIM],
        **world.bystanders,
    )
    warnings: list[str] = []
    with world.session(actor, alone=case.alone) as session:

        def note(diagnostic: psycopg.errors.Diagnostic) -> None:
            warnings.append(diagnostic.sqlstate or "")

        session.add_notice_handler(note)
        try:
            cursor = session.execute(statement.encode())
            while cursor.nextset():
                pass
            seen = cursor.fetchall() if cursor.description else None
        except psycopg.Error as error:
            return error.sqlstate or type(error).__name__
        finally:
            session.remove_notice_handler(note)
        if "01007" in warnings:
            return "01007"
        if seen is not None:
            return "ok" if any(any(column is not None for column in row) for row in seen) else "none"
        return "none" if cursor.rowcount == 0 else "ok"
