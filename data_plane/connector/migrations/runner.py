"""Runs a project's migrations: what is pending, in order, one transaction a file."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Any

import psycopg
from psycopg import sql

from data_plane.connector.migrations.clearing import clear, forget_rules
from data_plane.connector.migrations.database_scope import scope_of
from data_plane.connector.migrations.extension_rule import used_extensions
from data_plane.connector.migrations.files import MigrationFile, ScriptFile, SeedFile
from data_plane.connector.migrations.history import Entry, History, State
from data_plane.connector.migrations.own_schemas import made_schemas
from data_plane.connector.migrations.plain_functions import PlainFunction, has_rules, plain_functions
from data_plane.connector.migrations.prepared import PreparedFile, PreparedStatement, prepared, refuse
from data_plane.connector.migrations.rehearsal import rehearsed
from data_plane.connector.migrations.scope import Rule
from data_plane.connector.migrations.script import NO_TRANSACTION, statements_of
from data_plane.errors import MigrationError
from data_plane.model.naming import TenantNames

__all__ = ["Limits", "Migrator", "Plan", "Seeded", "scope_of"]

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


@dataclass(frozen=True)
class Seeded:
    """What became of seed files."""

    run: list[SeedFile]
    unchanged: list[SeedFile]
    """Not run: they were before."""
    changed: list[SeedFile]
    """Not run, either: they were before, as something else."""


class Migrator:
    """A project's migrations, over one connection.

    Args:
        connection: in autocommit mode, as the tenant's owner.
        rewrite: rewrite what was written for a standalone Supabase; else it is refused.
        leave_out: boundaries whose statements are not run.
        assumed: extensions that are taken to be there, each with its schema.
    """

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        names: TenantNames,
        limits: Limits | None = None,
        *,
        rewrite: bool = True,
        leave_out: AbstractSet[Rule] = frozenset(),
        assumed: Mapping[str, str] | None = None,
    ) -> None:
        self._connection = connection
        self._names = names
        self._limits = limits or Limits()
        self._rewrite = rewrite
        self._leave_out = leave_out
        self._assumed = dict(assumed or {})
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
        waiting = [
            file for file in files if file.version not in entries or entries[file.version].state is State.STARTED
        ]
        pending = list(zip(waiting, self._prepared(waiting, files), strict=True))
        return Plan(pending, len(files) - len(pending))

    def check(self, files: Sequence[ScriptFile]) -> list[PreparedFile]:
        """Refuses files that could not be run, whatever was run before; returns them as they would be.

        Raises:
            MigrationError: if one cannot be read, or reaches over a boundary.
        """
        ready = self._prepared(files, files)
        refuse(ready)
        return ready

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
                raise MigrationError(self._lost(file, item, error, applied)) from error
            if done:
                applied.append(file)
        return applied

    def pending_seeds(self, files: Sequence[SeedFile]) -> list[SeedFile]:
        """The seed files that have never been run."""
        noted = self.history.seeds()
        return [file for file in files if file.key not in noted]

    def seed(
        self,
        files: Sequence[SeedFile],
        on_file: Callable[[SeedFile], None] = lambda _file: None,
        *,
        again: bool = False,
    ) -> Seeded:
        """Runs the seed files that have not been run, each in a transaction.

        Like the Supabase CLI, of a file that has changed since it was run only the new checksum is noted: what of its
        rows is there already cannot be known.

        Args:
            again: run all of them, whatever was run.

        Raises:
            MigrationError: as :meth:`up`.
        """
        wanted = files if again else self.pending_seeds(files)
        found = self._prepared(wanted, wanted)
        refuse(found)
        items = {file.key: item for file, item in zip(wanted, found, strict=True)}
        seeded = Seeded([], [], [])
        for file in files:
            item = items.get(file.key)
            try:
                self._fresh()
                with self.history.turn():
                    noted = self.history.seeds().get(file.key)
                    if item is not None and (again or noted is None):
                        on_file(file)
                        self._set_limits(local=True)
                        for statement in item.to_run:
                            self._execute(item, statement)
                        seeded.run.append(file)
                    else:
                        (seeded.unchanged if noted == file.checksum else seeded.changed).append(file)
                    if noted != file.checksum or file in seeded.run:
                        self.history.record_seed(file)
            except psycopg.Error as error:
                raise MigrationError(self._lost(file, item, error, [])) from error
        return seeded

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

    def clear(self) -> None:
        """Drops what the project has in its schemas, in one transaction, and forgets what was run.

        Raises:
            MigrationError: if it cannot be dropped; then nothing was.
        """
        self._fresh()
        try:
            clear(self._connection, self._names, self.history, self._limits.lock_seconds)
        except psycopg.Error as error:
            cause = str(error).strip().partition("\n")[0]
            advice = _advice(error) or "Nothing was dropped."
            raise MigrationError(f"the schema cannot be emptied: {cause}\n  {advice}") from error

    def forget_rules(self) -> list[str]:
        """Takes back the storage rules that nothing that ran declares, and gives their names."""
        return forget_rules(self._connection, self.history)

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
                and c.relname not in ('supabase_migrations', 'supabase_seed_files')
                and not c.relispartition
                and not exists (select from pg_catalog.pg_policy p where p.polrelid = c.oid)
            order by 1
            """,
            [self._names.schema],
        )
        return [row[0] for row in found]

    def past_row_security(self) -> list[str]:
        """Views that show an API role rows which row-level security would keep from it, each with the way out."""
        try:
            found = self._connection.execute(
                "select * from data_plane.views_past_row_security(array[%s])", [self._names.schema]
            ).fetchall()
        except psycopg.errors.UndefinedFunction:
            return []  # a central stack of an older program
        return [row[0] for row in found]

    def _prepared(self, files: Sequence[ScriptFile], among: Sequence[ScriptFile]) -> list[PreparedFile]:
        """Files as they are going to be run.

        Args:
            among: all that make schemas for these and use extensions.
        """
        scope = scope_of(self._connection, self._names).with_schemas(_schemas_of(among))
        scope = replace(scope, extensions={**self._assumed, **scope.extensions})
        scope = replace(scope, used_extensions=frozenset(used_extensions(file.text for file in among)))
        if has_rules(file.text for file in files):
            scope = replace(scope, expressions=_expressions_of(among))
        items = [prepared(file, scope, rewrite=self._rewrite, leave_out=self._leave_out) for file in files]
        return rehearsed(self._connection, items, self._leave_out)

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
                    f"or `dataplane migration repair --reverted {file.version}` to run all of it again"
                )
            self.history.record(file, State.STARTED, texts, adapted=item.changed)
        self._set_limits(local=False)
        ends = 0
        for together in item.transactions:
            begins, ends = ends, ends + len(together)
            if ends <= done or not together:
                continue
            # What cannot run in a transaction is alone, and noted when it has run.
            with self._connection.transaction() if item.keeps_commits else contextlib.nullcontext():
                for statement in together[max(0, done - begins) :]:
                    self._execute(item, statement)
                self.history.step(file.version, ends)
        self.history.finish(file.version)
        return True

    def _execute(self, item: PreparedFile, statement: PreparedStatement) -> None:
        try:
            self._connection.execute(statement.text.encode())
        except psycopg.Error as error:
            if self._connection.closed:
                raise
            raise MigrationError(_failure(item, statement, error)) from error

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
            self._connection.execute(
                sql.SQL("set {} {} = {}").format(
                    sql.SQL("local" if local else "session"), sql.Identifier(setting), sql.Literal(f"{seconds}s")
                )
            )

    def _lost(
        self, file: ScriptFile, item: PreparedFile | None, error: psycopg.Error, applied: Sequence[ScriptFile]
    ) -> str:
        cause = str(error).strip().partition("\n")[0]
        if not self._connection.closed:
            return f"{file.path.name}: {cause}"
        before = f"{len(applied)} files before it were applied. " if applied else ""
        after = "It was rolled back" if item is None or item.in_transaction else "What of it had run is kept"
        return (
            f"the connection was lost while {file.path.name} ran: {cause}\n{before}{after}; "
            "run the same command again, which resumes there"
        )


def _schemas_of(files: Sequence[ScriptFile]) -> Iterator[str]:
    """The schemas that any of the files makes: those that have run are named by those that have not."""
    for file in files:
        # A pending one that cannot be read is told when it is prepared.
        with contextlib.suppress(MigrationError):
            yield from made_schemas(statements_of(file))


def _expressions_of(files: Sequence[ScriptFile]) -> dict[str, PlainFunction]:
    """The functions of the files that are one expression, and the same one wherever they are made."""
    found: dict[str, PlainFunction | None] = {}
    for file in files:
        with contextlib.suppress(MigrationError):
            for name, function in plain_functions(statements_of(file)):
                found[name] = function if found.get(name, function) == function else None
    return {name: function for name, function in found.items() if function is not None}


def _refuse_divergence(files: Sequence[MigrationFile], entries: Mapping[str, Entry], *, include_all: bool) -> None:
    by_version = {file.version: file for file in files}
    gone = [version for version in entries if version not in by_version]
    if gone:
        raise MigrationError(
            f"the schema has migrations without a file: {_some(gone)}. Bring the files back, or "
            f"`dataplane migration repair --reverted {gone[0]}` if what they did is undone"
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
            f"`dataplane migration repair --applied {changed[0].partition('_')[0]}` if the schema has the change"
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
        said.append("The file was rolled back. Correct it and run the same command again.")
    elif item.keeps_commits:
        said.append(
            "It was rolled back to its last commit. Correct it and run the same command again, which resumes there."
        )
    else:
        said.append(
            "The statements before it have run. Correct it and run the same command again, which resumes there."
        )
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
