"""Tries what the platform judges, before anything runs: the buckets and storage rules that files declare.

The database alone knows what it will take. What is tried is rolled back, and locks nothing that anybody waits for.
"""

from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Any

import psycopg
from pglast import ast
from pglast.visitors import Ancestor, Visitor
from psycopg.errors import ObjectNotInPrerequisiteState

from data_plane.connector.migrations.edits import Kind
from data_plane.connector.migrations.prepared import PreparedFile, PreparedStatement
from data_plane.connector.migrations.scope import Finding, Rule

__all__ = ["rehearsed"]

_DECLARED = frozenset({Kind.BUCKETS, Kind.STORAGE_RULES})


def rehearsed(
    connection: psycopg.Connection[Any], files: list[PreparedFile], leave_out: AbstractSet[Rule]
) -> list[PreparedFile]:
    """Files with what the platform refuses of them among their findings; or left out, if that is chosen."""
    results = []
    with connection.transaction(force_rollback=True):
        for file in files:
            statements: list[PreparedStatement] = []
            findings = list(file.findings)
            for statement in file.statements:
                refusal = _refusal(connection, statement) if _is_declaration(statement) else None
                if refusal is None:
                    statements.append(statement)
                elif Rule.STORAGE in leave_out:
                    reason = f"{refusal} (--leave-out {Rule.STORAGE.value})"
                    statements.append(
                        replace(statement, text=statement.original.text, left_out=reason, kinds=(Kind.CHOSEN,))
                    )
                else:
                    statements.append(statement)
                    findings.append(Finding(Rule.STORAGE, refusal, statement.original.line))
            results.append(replace(file, statements=statements, findings=findings))
    return results


def _is_declaration(statement: PreparedStatement) -> bool:
    """Whether it does nothing but declare what is written out in it: a block does more, an expression may need more."""
    node = statement.original.node
    if statement.left_out is not None or not _DECLARED.intersection(statement.kinds):
        return False
    if isinstance(node, ast.InsertStmt) and node.selectStmt is not None:
        visitor = _Expressions()
        visitor(node.selectStmt)
        return not visitor.found
    return isinstance(node, ast.CreatePolicyStmt)


class _Expressions(Visitor):
    """Whether values are anything but constants."""

    found = False

    def visit_FuncCall(self, ancestors: Ancestor, node: ast.FuncCall) -> None:  # noqa: N802
        self.found = True

    def visit_RangeVar(self, ancestors: Ancestor, node: ast.RangeVar) -> None:  # noqa: N802
        self.found = self.found or (node.schemaname, node.relname) != ("storage", "buckets")


def _refusal(connection: psycopg.Connection[Any], statement: PreparedStatement) -> str | None:
    try:
        with connection.transaction():
            connection.execute(statement.text.encode())
    except psycopg.Error as error:
        # A project without Storage is refused, too, with what psycopg counts among the errors of operation.
        if isinstance(error, psycopg.OperationalError) and not isinstance(error, ObjectNotInPrerequisiteState):
            raise
        return str(error.diag.message_primary or error)
    return None
