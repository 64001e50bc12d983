"""Runs a project's migrations: what is pending, in order, one transaction a file."""

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import psycopg

from components.naming import TenantNames
from connector.errors import MigrationError
from connector.migrations.boundaries import Boundary, Scope
from connector.migrations.files import MigrationFile, ScriptFile
from connector.migrations.history import Entry, History, State
from connector.migrations.prepared import PreparedFile, PreparedStatement, prepared, refuse
from connector.migrations.script import NO_TRANSACTION

__all__ = ["Limits", "Migrator", "Plan", "scope_of"]

_SHOWN = 5


@dataclass(frozen=True)
class Limits:
    """How long things may take, in seconds."""

    statement_seconds: int = 600
    """A statement; 0 for no limit."""
    lock_seconds: int = 10
    """Waiting for a lock: while DDL waits for one, everybody else waits behind it."""
    turn_seconds: int = 60
    """Waiting for another run of the same project's migrations."""


@dataclass(frozen=True)
class Plan:
    """What a run would do."""

    pending: list[tuple[MigrationFile, PreparedFile]]
    applied: int


class Migrator:
    """A project's migrations, over one connection.

    Args:
        connection: in autocommit mode, as the tenant's owner.
        adapt: rewrite what was written for a Supabase of one's own.
        leave_out: boundaries whose statements are not run.
    """

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        names: TenantNames,
        limits: Limits | None = None,
        *,
        adapt: bool = False,
        leave_out: AbstractSet[Boundary] = frozenset(),
    ) -> None:
        self._connection = connection
        self._names = names
        self._limits = limits or Limits()
        self._adapt = adapt
        self._leave_out = leave_out
        self.history = History(connection, names, self._limits.turn_seconds)

    def plan(self, files: Sequence[MigrationFile], *, include_all: bool = False) -> Plan:
        """What of the files is pending, checked as a whole.

        Args:
            include_all: also run what is older than the last one applied.

        Raises:
            MigrationError: if files and history have diverged, or a pending file cannot be read.
        """
        entries = self.history.entries()
        _refuse_divergence(files, entries, include_all=include_all)
        scope = scope_of(self._connection, self._names)
        pending = [
            (file, prepared(file, scope, adapt=self._adapt, leave_out=self._leave_out))
            for file in files
            if file.version not in entries or entries[file.version].state is State.STARTED
        ]
        return Plan(pending, len(files) - len(pending))

    def up(self, plan: Plan, on_file: Callable[[MigrationFile], None] = lambda _file: None) -> list[MigrationFile]:
        """Runs what is pending.

        Returns:
            The files that this run applied; another one may have been quicker with some.

        Raises:
            MigrationError: at the first file that does not get through, which leaves nothing behind. Before anything
                is run, if any file reaches over a boundary.
        """
        refuse([item for _, item in plan.pending])
        applied: list[MigrationFile] = []
        for file, item in plan.pending:
            on_file(file)
            try:
                done = self._one(file, item)
            except psycopg.Error as error:
                raise MigrationError(self._lost(file, item, error, applied)) from None
            if done:
                applied.append(file)
        return applied

    def seed(self, files: Sequence[ScriptFile], on_file: Callable[[ScriptFile], None] = lambda _file: None) -> None:
        """Runs seed files, each in a transaction. They are data, and in no history: what has run once runs again.

        Raises:
            MigrationError: as :meth:`up`.
        """
        scope = scope_of(self._connection, self._names)
        items = [prepared(file, scope, adapt=self._adapt, leave_out=self._leave_out) for file in files]
        refuse(items)
        for item in items:
            on_file(item.file)
            try:
                self._fresh()
                with self._connection.transaction():
                    for statement in item.to_run:
                        self._execute(item, statement)
            except psycopg.Error as error:
                raise MigrationError(self._lost(item.file, item, error, [])) from None

    def baseline(self, files: Sequence[MigrationFile], version: str) -> list[MigrationFile]:
        """Notes every migration up to a version as applied, without running it: the schema has it already.

        Raises:
            MigrationError: if there is no such version.
        """
        chosen = files[: _place(files, version) + 1]
        with self.history.turn() as entries:
            new = [file for file in chosen if file.version not in entries]
            for file in new:
                self.history.record(file, State.BASELINE)
        return new

    def repair(self, files: Sequence[MigrationFile], versions: Sequence[str], *, applied: bool) -> None:
        """Corrects the history, and nothing else.

        Args:
            applied: note the versions as applied, with the checksum that their files have now; else forget them.

        Raises:
            MigrationError: if there is no such file, or no such entry.
        """
        with self.history.turn() as entries:
            for version in versions:
                if applied:
                    self.history.record(files[_place(files, version)], State.APPLIED)
                elif version in entries:
                    self.history.forget(version)
                else:
                    raise MigrationError(f"the history has no version {version}; there are: {_some(list(entries))}")

    def unprotected(self) -> list[str]:
        """Tables with row-level security and no policy: nobody but owner and service role sees a row of them."""
        found = self._connection.execute(
            """
            select c.relname from pg_catalog.pg_class c
            where c.relnamespace = %s::regnamespace and c.relkind in ('r', 'p') and c.relrowsecurity
                and c.relname <> 'supabase_migrations'
                and not c.relispartition
                and not exists (select from pg_catalog.pg_policy p where p.polrelid = c.oid)
            order by 1
            """,
            [self._names.schema],
        )
        return [row[0] for row in found]

    def _one(self, file: MigrationFile, item: PreparedFile) -> bool:
        if not item.in_transaction:
            return self._step_by_step(file, item)
        self._fresh()
        with self.history.turn() as entries:
            if file.version in entries:
                return False
            self._set_limits(local=True)
            for statement in item.to_run:
                self._execute(item, statement)
            self._connection.execute("set constraints all immediate")
            texts = [statement.text for statement in item.to_run]
            self.history.record(file, State.APPLIED, texts, adapted=item.changed)
        return True

    def _step_by_step(self, file: MigrationFile, item: PreparedFile) -> bool:
        texts = [statement.text for statement in item.to_run]
        self._fresh()
        with self.history.turn() as entries:
            entry = entries.get(file.version)
            if entry is not None and entry.state is not State.STARTED:
                return False
            if entry is not None and self.history.runs_elsewhere(file.version):
                raise MigrationError(
                    f"{file.path.name} is being run by another session ({entry.by}): wait for it, "
                    "and run the same command again"
                )
            done = entry.done if entry is not None else 0
            if self.history.statements(file.version)[:done] != texts[:done]:
                raise MigrationError(
                    f"{file.path}: its first {done} statements have run and were others: put them back as they were, "
                    f"or `migrate repair --reverted {file.version}` to run all of it again"
                )
            self.history.record(file, State.STARTED, texts, adapted=item.changed)
        self._set_limits(local=False)
        for number, statement in enumerate(item.to_run[done:], done + 1):
            self._execute(item, statement)
            self.history.step(file.version, number)
        self.history.finish(file.version)
        return True

    def _execute(self, item: PreparedFile, statement: PreparedStatement) -> None:
        try:
            self._connection.execute(statement.text.encode())
        except psycopg.Error as error:
            if self._connection.closed:
                raise
            raise MigrationError(_failure(item, statement, error)) from None

    def _fresh(self) -> None:
        """What a file set for its session is not the next one's."""
        self._connection.execute("reset all")
        self._set_limits(local=False)

    def _set_limits(self, *, local: bool) -> None:
        limits = self._limits
        for setting, seconds in (
            ("statement_timeout", limits.statement_seconds),
            ("lock_timeout", limits.lock_seconds),
        ):
            self._connection.execute("select set_config(%s, %s, %s)", [setting, f"{seconds}s", local])

    def _lost(self, file: ScriptFile, item: PreparedFile, error: psycopg.Error, applied: Sequence[ScriptFile]) -> str:
        cause = str(error).strip().partition("\n")[0]
        if not self._connection.closed:
            return f"{file.path.name}: {cause}"
        before = f"{len(applied)} files before it were applied. " if applied else ""
        after = "It was rolled back" if item.in_transaction else "What of it had run is kept"
        return (
            f"the connection was lost while {file.path.name} ran: {cause}\n{before}{after}; "
            "run the same command again, it goes on from there"
        )


def scope_of(connection: psycopg.Connection[Any], names: TenantNames) -> Scope:
    """A project's slice, as its database is now."""
    extensions = connection.execute(
        "select extname, extnamespace::regnamespace::text from pg_catalog.pg_extension"
    ).fetchall()
    objects = connection.execute(
        """
        select o.name, n.nspname
        from (
            select 'pg_catalog.pg_proc'::regclass as kind, oid, proname as name, pronamespace as home
            from pg_catalog.pg_proc
            union all select 'pg_catalog.pg_type'::regclass, oid, typname, typnamespace from pg_catalog.pg_type
            union all select 'pg_catalog.pg_opclass'::regclass, oid, opcname, opcnamespace from pg_catalog.pg_opclass
        ) o
        join pg_catalog.pg_depend d on d.classid = o.kind and d.objid = o.oid and d.deptype = 'e'
        join pg_catalog.pg_namespace n on n.oid = o.home
        where n.nspname <> 'pg_catalog'
        """
    ).fetchall()
    schemas = connection.execute("select nspname from pg_catalog.pg_namespace").fetchall()
    return Scope(names, dict(extensions), dict(objects), frozenset(row[0] for row in schemas))


def _refuse_divergence(files: Sequence[MigrationFile], entries: Mapping[str, Entry], *, include_all: bool) -> None:
    by_version = {file.version: file for file in files}
    gone = [version for version in entries if version not in by_version]
    if gone:
        raise MigrationError(
            f"the schema has migrations without a file: {_some(gone)}. Bring the files back, or "
            f"`migrate repair --reverted {gone[0]}` if what they did is undone"
        )
    changed = [
        file.path.name
        for file in files
        if file.version in entries
        and entries[file.version].state is not State.STARTED
        and entries[file.version].checksum != file.checksum
    ]
    if changed:
        raise MigrationError(
            f"changed since they were applied: {_some(changed)}. Put them back and write a new migration, or "
            f"`migrate repair --applied {changed[0].partition('_')[0]}` if the schema has the change"
        )
    done = [place for place, file in enumerate(files) if file.version in entries]
    late = [file.path.name for file in files[: done[-1] if done else 0] if file.version not in entries]
    if late and not include_all:
        raise MigrationError(
            f"older than the last one applied ({files[done[-1]].path.name}): {_some(late)}. "
            "Give them a later version, or run them after all with --include-all"
        )


def _place(files: Sequence[MigrationFile], version: str) -> int:
    for place, file in enumerate(files):
        if version in {file.version, file.path.name}:
            return place
    raise MigrationError(f"there is no migration {version}; there are: {_some([file.version for file in files])}")


def _some(items: Sequence[str]) -> str:
    shown = ", ".join(items[:_SHOWN]) or "none"
    return f"{shown} and {len(items) - _SHOWN} more" if len(items) > _SHOWN else shown


def _failure(item: PreparedFile, statement: PreparedStatement, error: psycopg.Error) -> str:
    diagnosis = error.diag
    position = int(diagnosis.statement_position or 1)
    line = statement.original.line + statement.text.count("\n", 0, position - 1)
    said = [f"{item.file.path}:{line}: {diagnosis.message_primary or error}"]
    # The detail of a wrong value or a broken constraint is the row, which may hold anything.
    detail = None if (error.sqlstate or "")[:2] in {"22", "23"} else diagnosis.message_detail
    said += [f"  {text}" for text in (detail, diagnosis.message_hint, _advice(error)) if text]
    if item.in_transaction:
        said.append("The file was rolled back. Mend it and run the same command again.")
    else:
        said.append("The statements before it have run. Mend it and run the same command again, which goes on there.")
    return "\n".join(said)


def _advice(error: psycopg.Error) -> str | None:
    match error:
        case psycopg.errors.LockNotAvailable():
            return (
                "Somebody holds a lock on the table: run it again when the project is quieter, or with --lock-timeout."
            )
        case psycopg.errors.QueryCanceled():
            return "It took longer than --statement-timeout allows."
        case psycopg.errors.UnsafeNewEnumValueUsage():
            return "A value that is added to a type can be used once the file is through: use it in the next file."
        case psycopg.errors.ActiveSqlTransaction():
            return f"It cannot run in a transaction: a file of its own whose first line is `{NO_TRANSACTION}`."
        case psycopg.errors.InsufficientPrivilege():
            return "A project's owner may do everything in its own schema, and nothing elsewhere."
    return None
