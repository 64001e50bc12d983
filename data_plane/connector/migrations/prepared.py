"""A migration as it is going to be run: its statements, adapted or not, and what stands against them."""

import difflib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from pglast import ast, enums

from data_plane.connector.migrations.admission import without_set_config
from data_plane.connector.migrations.edits import Kind
from data_plane.connector.migrations.files import ScriptFile
from data_plane.connector.migrations.rewrite import rewritten
from data_plane.connector.migrations.rules import findings_in
from data_plane.connector.migrations.scope import Finding, Rule, Scope
from data_plane.connector.migrations.script import NO_TRANSACTION, Statement, statements_of, wants_no_transaction
from data_plane.errors import MigrationError, MigrationRefusedError

__all__ = ["PreparedFile", "PreparedStatement", "prepared", "refuse"]

_SHOWN = 10
_TRANSACTION = {
    enums.TransactionStmtKind.TRANS_STMT_BEGIN: "the file is one transaction already",
    enums.TransactionStmtKind.TRANS_STMT_START: "the file is one transaction already",
    enums.TransactionStmtKind.TRANS_STMT_COMMIT: "the file is one transaction already",
}
_COMMIT = enums.TransactionStmtKind.TRANS_STMT_COMMIT
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
    kinds: tuple[Kind, ...] = ()
    """What was adapted in it."""


@dataclass(frozen=True)
class PreparedFile:
    """One file."""

    file: ScriptFile
    statements: list[PreparedStatement]
    findings: list[Finding]
    in_transaction: bool
    """Whether the whole file is one."""
    keeps_commits: bool = False
    """Whether it is as many as it says itself, with `commit`."""

    @property
    def transactions(self) -> Iterator[list[PreparedStatement]]:
        """The statements that are run, as they are committed together."""
        if self.in_transaction:
            yield self.to_run
            return
        together: list[PreparedStatement] = []
        for statement in self.statements:
            if statement.left_out is None:
                together.append(statement)
            if not self.keeps_commits or _is_commit(statement.original):
                yield together
                together = []
        yield together

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
    file: ScriptFile, scope: Scope, *, rewrite: bool = True, leave_out: AbstractSet[Rule] = frozenset()
) -> PreparedFile:
    """A file as it is run in a project's slice.

    Args:
        rewrite: rewrite what was written for a standalone Supabase, and leave out what has no effect here.
        leave_out: boundaries whose statements are left out.

    Raises:
        MigrationError: if the file cannot be read as SQL, or mixes transactions of its own with that of the file.
    """
    found = statements_of(file)
    # A file that is one such statement can mean nothing else.
    in_transaction = not wants_no_transaction(file) and not (len(found) == 1 and _cannot_be_rolled_back(found[0]))
    keeps_commits = in_transaction and _needs_its_commits(found)
    statements: list[PreparedStatement] = []
    findings: list[Finding] = []
    for statement in found:
        reason = _transaction_control(file, statement)
        if reason is not None and keeps_commits:
            reason = "what stands up to each commit is run as one transaction"
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
        if rewrite:
            result = rewritten(statement, scope, leave_out)
            text, kinds = result.statement.text, result.kinds
            if (command := without_set_config(result.statement.node)) is not None:
                text, kinds = command, (*kinds, Kind.SETTINGS)
            statements.append(PreparedStatement(statement, text, result.left_out, kinds))
            findings += result.findings
            continue
        reached = findings_in(statement, scope)
        chosen = [finding for finding in reached if finding.rule in leave_out]
        reason = f"{chosen[0].what} (--leave-out {chosen[0].rule.value})" if chosen else None
        statements.append(PreparedStatement(statement, without_set_config(statement.node) or statement.text, reason))
        findings += [] if chosen else reached
    return PreparedFile(file, statements, findings, in_transaction and not keeps_commits, keeps_commits)


def refuse(files: list[PreparedFile]) -> None:
    """Raises if any file reaches over a boundary.

    Raises:
        MigrationRefusedError: with the places, by boundary, and what to do about each.
    """
    places: defaultdict[Rule, list[str]] = defaultdict(list)
    for item in files:
        for finding in item.findings:
            places[finding.rule].append(f"{item.file.path.name}:{finding.line} {finding.what}")
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


def _needs_its_commits(found: Sequence[Statement]) -> bool:
    """Whether a file adds a value to a type and commits before it ends: only then may the rest use the value."""
    added = False
    for place, statement in enumerate(found):
        node = statement.node
        added = added or (isinstance(node, ast.AlterEnumStmt) and node.newVal is not None and node.oldVal is None)
        if added and _is_commit(statement):
            return any(not isinstance(later.node, ast.TransactionStmt) for later in found[place + 1 :])
    return False


def _is_commit(statement: Statement) -> bool:
    return isinstance(statement.node, ast.TransactionStmt) and statement.node.kind == _COMMIT


def _cannot_be_rolled_back(statement: Statement) -> bool:
    node = statement.node
    return bool(
        (isinstance(node, ast.IndexStmt | ast.DropStmt) and node.concurrent)
        or (isinstance(node, ast.ReindexStmt) and any(p.defname == "concurrently" for p in node.params or ()))
        or (isinstance(node, ast.VacuumStmt) and node.is_vacuumcmd)
    )
