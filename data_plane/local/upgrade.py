"""The local PostgreSQL, moved to a newer major version: rehearsed beside the running server, or for good.

Both work on a copy of the data. It is dumped by the new version's programs and restored into an empty server of that
version by the scripts that backups use, so that nothing of a project runs with the platform's rights; then every fact
of both is compared. Only a server without a difference takes the place of the old one, whose data is kept.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, LiteralString

import psutil
import psycopg
from psycopg import sql

from components.central.files import SCRIPTS, platform_sql
from data_plane.clients.inventory import Part, compare, take_inventory
from data_plane.clients.platform_sql import apply_platform_sql, platform_comment, sha256_in, sha256_of
from data_plane.errors import BackupError, PartialError, UpgradeError
from data_plane.local.backups import run_script
from data_plane.local.postgres import SWITCH_NOTE, LocalPostgres
from data_plane.local.postgres_programs import Programs, programs_of
from data_plane.local.processes import free_port, wait_until
from data_plane.local.servers import Servers
from data_plane.state_dir import StateDir

__all__ = ["Outcome", "Upgrade", "forget_old", "kept_data"]

_WORK = "upgrade"
_PROGRAMS = ("initdb", "postgres", "pg_ctl", "pg_dump", "pg_dumpall", "pg_restore", "psql")
_COPIES = 3
"""The copy, the dump and the new data, each at most as large as the data."""
_SPARE_BYTES = 1 << 30
_STOP_SECONDS = 60
_LISTED = 5
_NOT_CARRIED = ("archive_mode", "archive_command", "archive_timeout", "restore_command", "port", "listen_addresses")
_MINE = ("PG", "BACKUP_", "RESTORE_", "AWS_")
_FILE_SETTINGS = "select name, setting from pg_file_settings where applied and name is not null order by seqno"
_DEPENDENTS = """
with listed as (
    select d.classid, d.objid from pg_depend d join pg_extension e on e.oid = d.refobjid
    where d.refclassid = 'pg_extension'::regclass and d.deptype = 'e' and e.extname = %s
), member as (
    select classid, objid from listed
    union select l.classid, t.typarray from listed l join pg_type t on t.oid = l.objid
    where l.classid = 'pg_type'::regclass)
select distinct pg_describe_object(d.classid, d.objid, 0) from pg_depend d
join member m on d.refclassid = m.classid and d.refobjid = m.objid
where d.deptype in ('n', 'a') and d.classid not in ('pg_amop'::regclass, 'pg_amproc'::regclass) and not exists (
    select from member o where o.classid = d.classid and o.objid = d.objid) order by 1"""


@dataclass(frozen=True)
class Outcome:
    """What an upgrade, or its rehearsal, has found."""

    old: str
    """The version that was left, as the server says it."""
    new: str
    parts: list[Part]
    seconds: float
    """How long nobody could write, or would not be able to."""
    problem: str | None = None
    """What could not be restored, in the words of the restore."""
    remarks: tuple[str, ...] = ()

    @property
    def is_equal(self) -> bool:
        """Whether the new server holds everything that the old one does, and nothing else."""
        return self.problem is None and not any(part.differences for part in self.parts)


class _Beside(LocalPostgres):
    """A server of an upgrade: on a port that nobody knows, without jobs and without archiving."""

    def _choose_port(self) -> int:
        port = free_port()
        self.home.write_json("ports.json", {"postgres": port})
        return port

    def _further_parameters(self) -> dict[str, str]:
        found = super()._further_parameters()
        jobs = (
            {"cron.launch_active_jobs": "off", "cron.max_running_jobs": "0"}
            if found
            else {"shared_preload_libraries": ""}
        )
        return {**found, **jobs, "archive_mode": "off", "synchronous_commit": "off", "autovacuum": "off"}

    @property
    def parameters(self) -> dict[str, Any]:
        """Of libpq, for a connection as the superuser."""
        variables = self.superuser_variables
        return {
            "host": variables["PGHOST"],
            "port": variables["PGPORT"],
            "user": variables["PGUSER"],
            "password": variables["PGPASSWORD"],
            "dbname": variables["PGDATABASE"],
        }

    def end(self) -> None:
        """Stops the server, however it was left."""
        with suppress(OSError, ValueError, psutil.Error):
            pid = int((self.data / "postmaster.pid").read_text(encoding="utf-8").splitlines()[0])
            # Another process may have that number by now; a server's working folder is its data.
            if Path(psutil.Process(pid).cwd()) == self.data:
                os.kill(pid, signal.SIGINT)
                wait_until(lambda: not psutil.pid_exists(pid), _STOP_SECONDS)


class Upgrade:
    """The move of one environment's PostgreSQL to a newer major version.

    Args:
        servers: the local servers.
        major: the version to move to.
        folder: of its programs; looked for unless given.
        without: extensions to leave behind.
        say: is told what is going on.
    """

    def __init__(
        self,
        servers: Servers,
        major: int,
        *,
        folder: Path | None = None,
        without: Collection[str] = (),
        say: Callable[[str], None] = lambda _text: None,
    ) -> None:
        self._servers = servers
        self._home = servers.home
        self._postgres = servers.postgres
        self._major = major
        self._folder = folder
        self._without = tuple(without)
        self._say = say
        self._work = self._home.path / _WORK
        self._old = _Beside(StateDir(self._work / "old"), None)

    @cached_property
    def _programs(self) -> Programs:
        """Those of the new version.

        Raises:
            UpgradeError: if there are none, or not all of them.
        """
        if self._folder is not None and not (self._folder / "postgres").is_file():
            raise UpgradeError(f"{self._folder} has no program `postgres`: name the folder of PostgreSQL's programs")
        found = Programs(self._folder) if self._folder else programs_of(self._major)
        if found is None:
            raise UpgradeError(
                f"no PostgreSQL {self._major} on this machine: install it, or name its folder with --programs"
            )
        if found.major != self._major:
            raise UpgradeError(f"{found.folder} has PostgreSQL {found.major}, and --to says {self._major}")
        lacking = [name for name in _PROGRAMS if not (found.folder / name).is_file()]
        if lacking:
            raise UpgradeError(f"{found.folder} lacks {', '.join(lacking)}: install all of PostgreSQL {self._major}")
        return found

    @cached_property
    def _new(self) -> _Beside:
        return _Beside(StateDir(self._work / "new"), self._programs.folder)

    @property
    def _aside(self) -> Path:
        """Where the old data is kept."""
        return self._postgres.data.with_name(f"postgres-{self._postgres.made_by}")

    def check(self) -> list[str]:
        """Finds out whether it can be done, and changes nothing; starts the server if it does not run.

        Returns:
            The steps that :meth:`run` would take, for people.

        Raises:
            UpgradeError: if it cannot.
        """
        made_by, data = self._postgres.made_by, self._postgres.data
        if made_by is None:
            raise UpgradeError("there is no local database yet: `dataplane up` makes one")
        if self._major <= made_by:
            raise UpgradeError(f"the local database is PostgreSQL {made_by}: --to names a newer version")
        if self._postgres.prefix[:1] == ["setpriv"]:
            raise UpgradeError("root cannot upgrade where there are no user namespaces: run as another user")
        if self._aside.exists():
            raise UpgradeError(
                f"{self._aside} is kept from an earlier upgrade: remove it with `dataplane local upgrade --forget-old`"
            )
        programs = self._programs
        size, free = _size_of(data), shutil.disk_usage(self._home.path).free
        needed = _COPIES * size + _SPARE_BYTES
        if free < needed:
            raise UpgradeError(
                f"{self._home.path} has {free // 2**20} MiB free, and the upgrade may need {needed // 2**20} MiB: "
                "a copy of the data, a dump and the new data. Make room"
            )
        self._postgres.start()
        self._check_platform(made_by)
        self._check_extensions(programs)
        return [
            f"stop PostgreSQL {made_by}; nobody can work meanwhile",
            f"copy {data} ({size // 2**20} MiB), dump the copy, restore that into an empty PostgreSQL {self._major}",
            "compare every project and the platform: tables, rows, sequences, policies, grants, roles, leases",
            f"if nothing differs, rename {data.name} to {self._aside.name} (it is kept), and put the new data there",
            f"start PostgreSQL {self._major} ({programs.folder}) on the same port; leases and passwords stay",
        ]

    def rehearse(self) -> Outcome:
        """Does everything but the switch, beside the running server, and throws it away.

        Raises:
            UpgradeError, BackupError: if it cannot be done.
        """
        with self._home.lock(_WORK):
            self._check_and_clear()
            with self._thrown_away():
                self._say("copying the running server")
                self._copy_running()
                began = time.monotonic()
                return self._transfer(began)

    def run(self) -> Outcome:
        """Moves the database, unless something differs; then the old server runs again.

        Raises:
            UpgradeError, BackupError: if it cannot be done; the old server runs again.
        """
        with self._home.lock(_WORK), self._home.lock("servers"):
            self._check_and_clear()
            with self._servers.database_alone(), self._thrown_away():
                self._say("stopping the server; nobody can work from now on")
                began = time.monotonic()
                self._postgres.stop()
                try:
                    self._say("copying its data")
                    self._copy_stopped()
                    outcome = self._transfer(began)
                    if outcome.is_equal:
                        self._say(f"switching to PostgreSQL {self._major}")
                        self._switch()
                finally:
                    self._servers.postgres.start()
                return replace(outcome, seconds=time.monotonic() - began)

    def _check_and_clear(self) -> None:
        self.check()
        _clear(self._work)

    @contextmanager
    def _thrown_away(self) -> Iterator[None]:
        try:
            yield
        finally:
            _clear(self._work)

    def _check_platform(self, major: int) -> None:
        """What is applied anew after the upgrade has to be what is there, or the two would differ."""
        with self._postgres.connect() as connection:
            comment = platform_comment(connection)
        if comment is not None and sha256_in(comment, major) not in _platforms():
            raise UpgradeError("the platform's SQL in the database is not this program's: run `dataplane up` first")

    def _apply_platform(self) -> None:
        """Applies the platform's SQL: it takes functions from projects that only the new version has."""
        with self._new.connect() as connection:
            comment = platform_comment(connection)
            if comment is None:
                return
            # It is the old server's: the new one has other functions.
            connection.execute("delete from data_plane.applied_objects")
            apply_platform_sql(connection, _platforms()[sha256_in(comment, self._postgres.made_by or 0)])

    def _check_extensions(self, programs: Programs) -> None:
        wrong: list[str] = []
        lacking: set[str] = set()
        for database in _databases(self._postgres):
            with self._postgres.connect(database) as connection:
                for (name,) in connection.execute("select extname from pg_extension order by 1").fetchall():
                    if programs.has_extension(str(name)) and name not in self._without:
                        continue
                    users = [str(user) for (user,) in connection.execute(_DEPENDENTS, [name]).fetchall()]
                    if users:
                        shown = ", ".join(users[:_LISTED]) + (" …" if len(users) > _LISTED else "")
                        wrong.append(f"{name} in database {database}, which is used by {shown}")
                    elif name not in self._without:
                        lacking.add(str(name))
        if wrong:
            raise UpgradeError(
                f"PostgreSQL {self._major} in {programs.folder} has no extension {'; '.join(wrong)}. "
                "Install it there, or let its users do without it"
            )
        if lacking:
            names = " ".join(f"--without {name}" for name in sorted(lacking))
            raise UpgradeError(
                f"PostgreSQL {self._major} in {programs.folder} has no extension {', '.join(sorted(lacking))}. Install "
                "it there; no table, view or type uses it, so if no function's text does either, leave it behind: "
                f"{names}"
            )

    def _copy_running(self) -> None:
        self._old.home.prepare()
        environment = {**_own_environment(), **self._postgres.superuser_variables, "PGSSLMODE": "disable"}
        program = self._postgres.binaries / "pg_basebackup"
        _do([program, "--pgdata", self._old.data, "--checkpoint", "fast", "--wal-method", "stream"], environment)
        self._old.remember_password(self._postgres.admin_password)

    def _copy_stopped(self) -> None:
        self._old.home.prepare()
        _do(["cp", "-a", "--reflink=auto", self._postgres.data, self._old.data], dict(os.environ))
        self._old.remember_password(self._postgres.admin_password)

    def _transfer(self, began: float) -> Outcome:
        """Restores the copy into a new server, and compares both; they are stopped then."""
        old, new = self._old, self._new
        old.programs = self._postgres.programs
        dump = self._work / "dump"
        dump.mkdir()
        try:
            old.start()
            for database, name in self._left_behind():
                with old.connect(database) as connection:
                    connection.execute(sql.SQL("drop extension {}").format(sql.Identifier(name)))
            self._say("reading what the old server holds")
            before = take_inventory(old.parameters)
            self._say("dumping")
            self._script(old, dump, "logical-backup.sh", BACKUP_UPGRADE_TO=str(self._major), BACKUP_RETAIN_DAYS="1")
            new.start()
            self._say(f"restoring into PostgreSQL {self._major}")
            problem = None
            try:
                self._script(new, dump, "restore-logical.sh", "latest", RESTORE_UPGRADE="yes")
            except PartialError as error:
                problem = str(error)
            self._carry_passwords()
            self._apply_platform()
            remarks = self._carry_settings()
            self._say("comparing")
            after = take_inventory(new.parameters)
            return Outcome(
                before.version,
                after.version,
                compare(before, after),
                time.monotonic() - began,
                problem,
                (*remarks, *_newer_extensions(old, new), *self._told_otherwise()),
            )
        except (BackupError, psycopg.Error) as error:
            raise UpgradeError(f"{error}\nThe database is what it was before") from error
        finally:
            new.stop()
            old.stop()

    def _told_otherwise(self) -> list[str]:
        told = os.environ.get("DATA_PLANE_POSTGRES_BIN")
        if told is None or Programs(Path(told)).major == self._major:
            return []
        return [
            f"DATA_PLANE_POSTGRES_BIN still names the old version: after the upgrade, set it to {self._programs.folder}"
        ]

    def _left_behind(self) -> list[tuple[str, str]]:
        found = []
        for database in _databases(self._old):
            with self._old.connect(database) as connection:
                rows = connection.execute(
                    "select extname from pg_extension where extname = any(%s)", [list(self._without)]
                ).fetchall()
                found += [(database, str(name)) for (name,) in rows]
        return found

    def _script(self, server: _Beside, dump: Path, script: str, *arguments: str, **variables: str) -> None:
        day = str(24 * 3600)
        environment = {
            **_own_environment(),
            **server.superuser_variables,
            "PATH": os.pathsep.join([str(self._programs.folder), os.environ.get("PATH", os.defpath)]),
            "PGSSLMODE": "disable",
            "BACKUP_FOLDER": str(dump),
            "BACKUP_PROJECT_SECONDS": day,
            "TMPDIR": str(self._work),
            **variables,
        }
        run_script([SCRIPTS / script, *arguments], environment, self._say)

    def _carry_passwords(self) -> None:
        """Gives every login the verifier that it has; a dump holds none."""
        with self._old.connect() as connection:
            found = connection.execute(
                "select rolname, rolpassword from pg_authid where rolpassword is not null"
            ).fetchall()
            password = self._old.admin_password
        with self._new.connect() as connection:
            known = {name for (name,) in connection.execute("select rolname from pg_authid").fetchall()}
            for role, verifier in found:
                if role in known:
                    connection.execute(
                        sql.SQL("alter role {} password {}").format(sql.Identifier(str(role)), sql.Literal(verifier))
                    )
        self._new.remember_password(password)

    def _carry_settings(self) -> tuple[str, ...]:
        """Takes over what somebody has set in the server's files; archiving starts anew."""
        refused, left = [], []
        for name in ("pg_hba.conf", "pg_ident.conf"):
            shutil.copyfile(self._old.data / name, self._new.data / name)
        with self._old.connect() as connection:
            wanted = _pairs(connection, _FILE_SETTINGS)
        with self._new.connect() as connection:
            connection.autocommit = True
            there = _pairs(connection, _FILE_SETTINGS)
            for name, value in wanted.items():
                if there.get(name) == value:
                    continue
                if name in _NOT_CARRIED:
                    left.append(str(name))
                    continue
                try:
                    connection.execute(
                        sql.SQL("alter system set {} = {}").format(
                            sql.SQL(".").join(sql.Identifier(part) for part in str(name).split(".")),
                            sql.Literal(value),
                        )
                    )
                except psycopg.Error:
                    refused.append(str(name))
        remarks = []
        if refused:
            remarks.append(f"settings that PostgreSQL {self._major} does not take: {', '.join(refused)}")
        if any(name.startswith("archive") for name in left):
            remarks.append(
                "the write-ahead log is no longer archived: give backups a new `server` or `prefix`, then run "
                "`dataplane backup create`"
            )
        return tuple(remarks)

    def _switch(self) -> None:
        """Lets the new data take the place of the old, and starts it; or leaves the old in its place.

        A process that is killed in between leaves a note, by which the next start of the server goes back.
        """
        data, aside = self._postgres.data, self._aside
        moved = LocalPostgres(self._home, self._programs.folder)
        self._home.write_json(SWITCH_NOTE, {"aside": aside.name})
        try:
            data.rename(aside)
            self._new.data.rename(data)
            (self._home.path / SWITCH_NOTE).unlink()
            moved.start()
        except BaseException:
            moved.stop()
            if aside.exists():
                if data.exists():
                    data.rename(self._new.data)
                aside.rename(data)
            (self._home.path / SWITCH_NOTE).unlink(missing_ok=True)
            raise
        self._servers.postgres = moved


def kept_data(home: StateDir) -> list[Path]:
    """The folders with the data that upgrades have kept."""
    return sorted(path for path in home.path.glob("postgres-*") if path.name.removeprefix("postgres-").isdecimal())


def forget_old(home: StateDir) -> list[Path]:
    """Removes the data that upgrades have kept, and returns the folders that it was in."""
    with home.lock(_WORK):
        _clear(home.path / _WORK)
        found = kept_data(home)
        for path in found:
            shutil.rmtree(path)
    return found


def _databases(server: LocalPostgres) -> list[str]:
    with server.connect() as connection:
        rows = connection.execute("select datname from pg_database where datallowconn order by 1").fetchall()
    return [str(name) for (name,) in rows]


def _newer_extensions(old: _Beside, new: _Beside) -> Iterator[str]:
    query = "select extname, extversion from pg_extension"
    with old.connect() as connection:
        before = _pairs(connection, query)
    with new.connect() as connection:
        for name, version in _pairs(connection, query).items():
            if before.get(name, version) != version:
                yield f"extension {name} was {before[name]}, is {version}"


def _pairs(connection: "psycopg.Connection[tuple[Any, ...]]", query: LiteralString) -> dict[str, str]:
    return {str(name): str(value) for name, value in connection.execute(query).fetchall()}


def _clear(work: Path) -> None:
    """Ends what a killed upgrade has left."""
    for name in ("old", "new"):
        _Beside(StateDir(work / name)).end()
    shutil.rmtree(work, ignore_errors=True)


def _platforms() -> dict[str, str]:
    """The platform's SQL as a stack may apply it, by checksum."""
    texts = [platform_sql(email_autoconfirm=value) for value in (None, True, False)]
    return {sha256_of(text): text for text in texts}


def _size_of(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):  # a server removes files as it runs
            total += path.lstat().st_blocks * 512
    return total


def _own_environment() -> dict[str, str]:
    """This process's, without what would lead the scripts elsewhere."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_MINE)}


def _do(command: Sequence[str | Path], environment: dict[str, str]) -> None:
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        raise UpgradeError(f"{Path(command[0]).name} failed: {done.stderr.strip()}\nThe database is what it was before")
