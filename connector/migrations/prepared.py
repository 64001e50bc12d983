"""A migration as it is going to be run: its statements, adapted or not, and what stands against them."""

import difflib
from collections import defaultdict
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from pglast import ast, enums

from connector.errors import MigrationError, MigrationRefusedError
from connector.migrations.adaptation import adapted
from connector.migrations.boundaries import Boundary, Finding, Scope, findings_in
from connector.migrations.files import ScriptFile
from connector.migrations.script import NO_TRANSACTION, Statement, statements_of, wants_no_transaction

__all__ = ["PreparedFile", "PreparedStatement", "prepared", "refuse"]

_SHOWN = 10
_TRANSACTION = {
    enums.TransactionStmtKind.TRANS_STMT_BEGIN: "the file is one transaction already",
    enums.TransactionStmtKind.TRANS_STMT_START: "the file is one transaction already",
    enums.TransactionStmtKind.TRANS_STMT_COMMIT: "the file is one transaction already",
}
_SAVEPOINTS = frozenset(
    {
        enums.TransactionStmtKind.TRANS_STMT_SAVEPOINT,
        enums.TransactionStmtKind.TRANS_STMT_RELEASE,
        enums.TransactionStmtKind.TRANS_STMT_ROLLBACK_TO,
    }
)


@dataclass(frozen=True)
class PreparedStatement:
    """One statement."""

    original: Statement
    text: str
    """What is run."""
    left_out: str | None
    """Why it is not; None if it is."""


@dataclass(frozen=True)
class PreparedFile:
    """One file."""

    file: ScriptFile
    statements: list[PreparedStatement]
    findings: list[Finding]
    in_transaction: bool

    @property
    def to_run(self) -> list[PreparedStatement]:
        """The statements that are run."""
        return [statement for statement in self.statements if statement.left_out is None]

    @property
    def changed(self) -> bool:
        """Whether what is run is not what stands in the file."""
        return any(item.left_out or item.text != item.original.text for item in self.statements)

    def diff(self) -> list[str]:
        """What the adaptation makes of the file, as a unified diff."""
        text, at = [], 0
        whole = self.file.text
        for item in self.statements:
            begin, end = item.original.begin, item.original.begin + len(item.original.text)
            replaced = f"-- left out: {item.left_out}" if item.left_out else item.text
            text += [whole[at:begin], replaced]
            at = end + (1 if item.left_out and whole[end : end + 1] == ";" else 0)
        text.append(whole[at:])
        name = self.file.path.name
        after = "".join(text).splitlines()
        return list(difflib.unified_diff(whole.splitlines(), after, name, f"{name} (adapted)", lineterm="", n=0))


def prepared(
    file: ScriptFile, scope: Scope, *, adapt: bool = False, leave_out: AbstractSet[Boundary] = frozenset()
) -> PreparedFile:
    """A file as it is run in a project's slice.

    Args:
        adapt: rewrite what names ``public`` and Supabase's roles, and leave out what has no effect here.
        leave_out: boundaries whose statements are left out.

    Raises:
        MigrationError: if the file cannot be read as SQL, or mixes transactions of its own with that of the file.
    """
    found = statements_of(file)
    # A file that is one such statement can mean nothing else.
    in_transaction = not wants_no_transaction(file) and not (len(found) == 1 and _cannot_be_rolled_back(found[0]))
    statements: list[PreparedStatement] = []
    findings: list[Finding] = []
    for statement in found:
        reason = _transaction_control(file, statement)
        if in_transaction and _cannot_be_rolled_back(statement):
            words = " ".join(statement.text.split()[:3]).lower()
            raise MigrationError(
                f"{file.path}:{statement.line}: `{words} …` cannot run in a transaction with others. Put it into a "
                f"file of its own, or begin the file with the line\n  {NO_TRANSACTION}\n"
                "and write each statement so that it may be run again (`if not exists`)"
            )
        if reason is not None:
            statements.append(PreparedStatement(statement, statement.text, reason))
            continue
        if adapt:
            result = adapted(statement, scope, leave_out)
            statements.append(PreparedStatement(statement, result.statement.text, result.left_out))
            findings += result.findings
            continue
        reached = findings_in(statement, scope)
        chosen = [finding for finding in reached if finding.boundary in leave_out]
        reason = f"{chosen[0].what} (--leave-out {chosen[0].boundary.value})" if chosen else None
        statements.append(PreparedStatement(statement, statement.text, reason))
        findings += [] if chosen else reached
    return PreparedFile(file, statements, findings, in_transaction)


def refuse(files: list[PreparedFile]) -> None:
    """Raises if any file reaches over a boundary.

    Raises:
        MigrationRefusedError: with the places, by boundary, and what to do about each.
    """
    places: defaultdict[Boundary, list[str]] = defaultdict(list)
    for item in files:
        for finding in item.findings:
            places[finding.boundary].append(f"{item.file.path.name}:{finding.line} {finding.what}")
    if not places:
        return
    lines = ["nothing was run:"]
    for boundary, found in places.items():
        lines.append(f"  {boundary.value}: {boundary.advice}")
        lines += [f"    {place}" for place in found[:_SHOWN]]
        if len(found) > _SHOWN:
            lines.append(f"    and {len(found) - _SHOWN} more")
    raise MigrationRefusedError("\n".join(lines))


def _transaction_control(file: ScriptFile, statement: Statement) -> str | None:
    node = statement.node
    if not isinstance(node, ast.TransactionStmt) or node.kind in _SAVEPOINTS:
        return None
    if node.kind in _TRANSACTION:
        return _TRANSACTION[node.kind]
    raise MigrationError(
        f"{file.path}:{statement.line}: {statement.text.split()[0].lower()}: the file is one transaction, which is "
        "rolled back if a statement fails; take the line out"
    )


def _cannot_be_rolled_back(statement: Statement) -> bool:
    node = statement.node
    return bool(
        (isinstance(node, ast.IndexStmt | ast.DropStmt) and node.concurrent)
        or (isinstance(node, ast.ReindexStmt) and any(p.defname == "concurrently" for p in node.params or ()))
        or (isinstance(node, ast.VacuumStmt) and node.is_vacuumcmd)
    )
