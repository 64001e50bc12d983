"""Drops a project for good: its data, its access, its part of the state, and its file.

In this order; what an earlier call has done is not done again:

1. The project has to be detached, in its file and in what was brought up.
2. Its schemas are dumped into a file.
3. Its cell is brought up without it: its roles, policies and groups in OpenBao go, and its part of the state.
4. In one transaction the database drops its schemas, its roles, and what the platform's tables hold of it.
5. Its file is removed.

OpenBao keeps the identities of people, teams and workloads that the project named, which other projects may name too
(:mod:`components.identities`); without its policies they have no right. Files in its buckets stay until they are
deleted through Storage.

A note in the local state directory says that a drop has begun: until it has ended, ``up`` refuses to run, which would
make the project anew.
"""

import logging
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import psycopg
from hvac.exceptions import InvalidPath, VaultError

from data_plane.clients.openbao import explain as explain_openbao
from data_plane.clients.postgres import PLATFORM_SESSION, DatabaseUnavailableError, explain
from data_plane.connector.audit import AuditLog
from data_plane.connector.bindings import DeployedDataPlane
from data_plane.connector.cells import CellRun, Cells, LocalCells, cells_of, stack_of
from data_plane.connector.project_files import ProjectFile, checkout_without
from data_plane.connector.project_move import StackStates
from data_plane.connector.reconcile_credentials import connector_secret
from data_plane.engine.runner.state import StackState
from data_plane.errors import DataPlaneError, ProjectDropError, ProjectNotFoundError, UsageError
from data_plane.local.environment import LocalEnvironment
from data_plane.local.providers import PROVIDERS
from data_plane.local.servers import Servers
from data_plane.model.naming import TENANT_TYPE, TenantNames
from data_plane.model.projects import Lifecycle
from data_plane.state_dir import CHECKOUT, StateDir

__all__ = ["Database", "LocalState", "ProjectDrop", "PulumiState"]

_LOG = logging.getLogger(__name__)
_PARAMETERS = {
    "PGHOST": "host",
    "PGPORT": "port",
    "PGDATABASE": "dbname",
    "PGUSER": "user",
    "PGPASSWORD": "password",
    "PGSSLMODE": "sslmode",
}


@dataclass(frozen=True)
class Database:
    """The central PostgreSQL as its superuser.

    Args:
        variables: libpq's, with the password; what they leave out is in this process's own.
        pg_dump: the program.
    """

    variables: Mapping[str, str]
    pg_dump: str

    def connect(self) -> psycopg.Connection[Any]:
        """A new connection.

        Raises:
            DatabaseUnavailableError: if there is none to be had.
        """
        parameters: dict[str, Any] = {_PARAMETERS[name]: value for name, value in self.variables.items()}
        try:
            return psycopg.connect(**parameters, options=PLATFORM_SESSION, connect_timeout=15)
        except psycopg.OperationalError as error:
            raise DatabaseUnavailableError(f"PostgreSQL cannot be used: {explain(error)}") from error

    def has(self, names: TenantNames) -> bool:
        """Whether there is anything of a project."""
        with self.connect() as connection:
            row = connection.execute(
                "select to_regnamespace(%s) is not null or to_regrole(%s) is not null",
                [names.schema, f"{names.schema}_owner"],
            ).fetchone()
        return row == (True,)

    def dump(self, names: TenantNames, file: Path) -> None:
        """Writes a project's schemas to a file that this user alone may read, whole or not at all.

        Raises:
            ProjectDropError: if that fails, with what pg_dump says.
        """
        draft = file.with_name(f".{file.name}.{os.getpid()}")
        schemas = [f"--schema={names.schema}", f"--schema={names.schema}$*"]
        try:
            os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            done = subprocess.run(
                [self.pg_dump, "--format=custom", *schemas, f"--file={draft}"],
                env={**os.environ, **self.variables},
                capture_output=True,
                text=True,
            )
            if done.returncode:
                raise ProjectDropError(f"pg_dump failed, and nothing was dropped: {done.stderr.strip()}")
            draft.replace(file)
        except OSError as error:
            reason = f"{error.filename or file}: {(error.strerror or str(error)).lower()}"
            raise ProjectDropError(
                f"the dump cannot be written, and nothing was dropped: {reason}. Name another file with --dump"
            ) from error
        finally:
            draft.unlink(missing_ok=True)

    def drop(self, names: TenantNames) -> None:
        """Drops a project's schemas and roles, and what the platform's tables hold of it, in one transaction.

        Raises:
            ProjectDropError: if the database refuses; then nothing of that was done.
        """
        with self.connect() as connection:
            try:
                connection.execute("select data_plane.drop_project(%s)", [names.slug])
            except psycopg.Error as error:
                hint = f" {error.diag.message_hint}" if error.diag.message_hint else ""
                raise ProjectDropError(f"the database dropped nothing: {explain(error)}{hint}") from error


class State(Protocol):
    """The state of the environment's stacks, from which a project's part is removed."""

    def remove(self, cells: Cells, stack: str, slug: str, root: Path, without: Path) -> CellRun:
        """Brings a project's cell up without it, and deletes what it has in OpenBao.

        Args:
            root: the checkout as it is.
            without: the same without the project's file.

        Raises:
            ProjectDropError: if the cell has other changes, which would be applied too.
        """


@dataclass(frozen=True)
class PulumiState:
    """The Pulumi CLI's, which deletes what a program does not declare any more, once it is not protected."""

    pulumi: Callable[..., str]

    def remove(self, cells: Cells, stack: str, slug: str, root: Path, without: Path) -> CellRun:
        del root
        resources = StackStates(self.pulumi).resources(stack)
        for urn in _protected(resources, slug):
            self.pulumi(stack, "state", "unprotect", urn, "--stack", stack, "--yes")
        _refuse_other_changes(stack, cells.run(without, stack, preview=True))
        return cells.run(without, stack, preview=False)


@dataclass(frozen=True)
class LocalState:
    """The local runner's, which deletes nothing by itself."""

    local_env: LocalEnvironment

    def remove(self, cells: Cells, stack: str, slug: str, root: Path, without: Path) -> CellRun:
        del slug
        now, after = (cells.run(folder, stack, preview=True) for folder in (root, without))
        _refuse_other_changes(stack, after)
        run = cells.run(without, stack, preview=False)
        state = StackState(self.local_env.servers.home, stack)
        openbao = PROVIDERS["vault"]()
        openbao.connect({"address": self.local_env.servers.openbao.address})
        try:
            with self.local_env.operator():
                for urn in sorted(now.urns - after.urns):
                    kind = urn.split("::")[2].rpartition("$")[2]
                    known, remembered = openbao.type(kind), state.get(urn)
                    if known is not None and remembered is not None:
                        run.changes.append(f"delete {kind} {urn.rpartition('::')[2]}")
                        _delete(known.delete, remembered[1].values)
                    state.forget(urn)
        finally:
            state.save()
            openbao.close()
        return run


@dataclass(frozen=True)
class ProjectDrop:
    """Drops projects of one environment.

    Args:
        cells: what runs the environment's stacks.
        state: their state.
        database: gives the central PostgreSQL.
        home: the local state directory.
        say: is told what happens.
        root: the checkout.
    """

    cells: Cells
    state: State
    database: Callable[[], Database]
    home: StateDir
    say: Callable[[str], None]
    root: Path = CHECKOUT

    @classmethod
    def of(cls, environment: str, say: Callable[[str], None], root: Path = CHECKOUT) -> "ProjectDrop":
        """What drops the projects of ``local``, or of a deployed environment that the Pulumi CLI reaches from here."""
        home = StateDir()
        cells = cells_of(environment, home, root)
        if isinstance(cells, LocalCells):
            return cls.of_local(cells.local_env, say)
        return cls(cells, PulumiState(cells.cli), lambda: _deployed_database(environment, root), home, say, root)

    @classmethod
    def of_local(cls, local_env: LocalEnvironment, say: Callable[[str], None]) -> "ProjectDrop":
        """What drops the projects of the data plane on this machine."""
        cells, servers = LocalCells(local_env), local_env.servers
        state = LocalState(local_env) if cells.cli is None else PulumiState(cells.cli)
        return cls(cells, state, lambda: _local_database(servers), servers.home, say, local_env.root)

    def begun(self, slug: str) -> Path | None:
        """The file with the dump of a drop that has begun and not ended; None if none has."""
        note = self.home.read_json(self._note(slug))
        return None if note is None else Path(note["dump"])

    def check(self, slug: str) -> None:
        """Refuses a project that cannot be dropped now.

        Raises:
            ProjectNotFoundError: if it has no file.
            ProjectDropError: if it is attached.
        """
        environment = self.cells.environment
        file = ProjectFile.of(self.root, environment, slug)
        if file.before is None and self.begun(slug) is not None:
            return
        if file.before is None:
            raise ProjectNotFoundError(
                f"no project {slug!r} has a file in stacks/{environment}/projects. To drop one whose file was removed, "
                "put the file back with `lifecycle: detached`, run `dataplane up`, and drop it then"
            )
        stack = stack_of(self.root, environment, str(file.document.get("cell")))
        bound = self.cells.bindings(self.root, stack).get(slug, {})
        if file.document.get("lifecycle") != Lifecycle.DETACHED:
            raise ProjectDropError(f"project {slug} is attached: run `dataplane project detach {slug}` first")
        if bound.get("lifecycle", Lifecycle.DETACHED) != Lifecycle.DETACHED:
            raise ProjectDropError(
                f"project {slug} is detached in its file, and stack {stack} has not been brought up since: "
                "run `dataplane up` first"
            )

    def drop(self, slug: str, dump: Path, *, actor: str) -> CellRun:
        """Drops a project; what an earlier call has done is not done again.

        Args:
            dump: where its data goes first; not asked for where an earlier call has written it.
            actor: who does it, for the audit log.

        Raises:
            ProjectDropError: with what was not done; the same call does the rest.
        """
        environment, names = self.cells.environment, TenantNames(slug)
        self.check(slug)
        file = ProjectFile.of(self.root, environment, slug)
        if file.before is None:
            self._end(slug)  # it was killed after the last step
            return CellRun("")
        cell = str(file.document.get("cell"))
        with (
            AuditLog.default(self.home).action("drop_project", actor, environment=environment, project=slug) as entry,
            self.home.cell_lock(environment, cell),
        ):
            self.check(slug)  # another may have attached or moved it meanwhile
            file = ProjectFile.of(self.root, environment, slug)
            stack = stack_of(self.root, environment, str(file.document.get("cell")))
            database = self.database()
            entry.note(dump=str(self._dumped(database, names, dump)))
            with _resumable(slug):
                self.say(f"Removing {slug} from stack {stack} and from OpenBao")
                with checkout_without(self.root, file) as without:
                    run = self.state.remove(self.cells, stack, slug, self.root, without)
                if database.has(names):
                    self.say(f"Dropping the schemas and roles of {slug}")
                    database.drop(names)
                file.path.unlink()
            self._end(slug)
            entry.note(changes=len(run.changes))
        return run

    def _dumped(self, database: Database, names: TenantNames, dump: Path) -> Path:
        """The file with the project's data, which is written unless an earlier call has done so."""
        written = self.begun(names.slug)
        if written is not None:
            self.say(f"Resuming: its data is in {written}")
            return written
        dump = dump.absolute()
        if dump.exists():
            raise ProjectDropError(f"{dump} is there already: name another file with --dump. Nothing was dropped")
        if database.has(names):
            self.say(f"Dumping {names.schema} to {dump}")
            database.dump(names, dump)
        self.home.write_json(self._note(names.slug), {"dump": str(dump)})
        return dump

    def _end(self, slug: str) -> None:
        (self.home.path / self._note(slug)).unlink()

    def _note(self, slug: str) -> str:
        return str((self.home.drops(self.cells.environment) / f"{slug}.json").relative_to(self.home.path))


@contextmanager
def _resumable(slug: str) -> Iterator[None]:
    """What fails in here leaves a drop that the same command resumes."""
    try:
        yield
    except (DataPlaneError, psycopg.Error, OSError) as error:
        raise ProjectDropError(
            f"{error}\nProject {slug} is not dropped completely, and `up` refuses to run until it is: "
            "run the same command again"
        ) from error


def _protected(resources: Sequence[Mapping[str, Any]], slug: str) -> list[str]:
    """The protected resources of a project's part of a state."""
    parents = {str(item["urn"]): str(item.get("parent", "")) for item in resources}

    def is_of_project(urn: str) -> bool:
        while urn:
            if urn.endswith(f"${TENANT_TYPE}::{slug}"):
                return True
            urn = parents.get(urn, "")
        return False

    return [str(item["urn"]) for item in resources if item.get("protect") and is_of_project(str(item["urn"]))]


def _refuse_other_changes(stack: str, preview: CellRun) -> None:
    wrong = [change for change in preview.changes if change.split(" ", 1)[0] not in {"delete", "update"}]
    if wrong:
        listed = "\n".join(f"  {change}" for change in wrong)
        raise ProjectDropError(f"stack {stack} has other changes; bring it up first:\n{listed}")


def _delete(delete: Callable[[Mapping[str, Any]], None], properties: Mapping[str, Any]) -> None:
    try:
        delete(properties)
    except InvalidPath as error:
        _LOG.debug("already gone: %s", error)
    except VaultError as error:
        raise ProjectDropError(f"OpenBao: {explain_openbao(error)}") from error


def _local_database(servers: Servers) -> Database:
    servers.start()
    variables = {**servers.postgres.superuser_variables, "PGSSLMODE": "disable"}
    return Database(variables, str(servers.postgres.binaries / "pg_dump"))


def _deployed_database(environment: str, root: Path) -> Database:
    if not os.environ.get("PGHOST"):
        raise UsageError(
            "set PGHOST, PGPORT, PGDATABASE, PGUSER and PGSSLMODE to where the environment's PostgreSQL is"
        )
    program = shutil.which("pg_dump")
    if program is None:
        raise UsageError("pg_dump is not on PATH: install PostgreSQL's client programs, of the server's version")
    password = connector_secret(DeployedDataPlane(environment, root).operator())["POSTGRES_PASSWORD"]
    return Database({"PGPASSWORD": password}, program)
