"""Backups of the local PostgreSQL, made and restored by the scripts that a cluster's jobs run."""

import json
import os
import shlex
import subprocess
import tempfile
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psycopg import sql
from pydantic import ValidationError

from components.central.files import SCRIPTS
from data_plane.errors import BackupError, DataPlaneError, PartialError, ServerError
from data_plane.local.barman import install_barman
from data_plane.local.postgres import ADMIN_USER, PASSWORD_FILE
from data_plane.model.backup_list import BackupList, LogicalBackup, PhysicalBackup
from data_plane.model.backup_settings import BackupSettings, store_variables
from data_plane.model.documents import line_of, parse_mapping
from data_plane.model.problems import ConfigurationError, Problem, problems_of
from data_plane.state_dir import StateDir

if TYPE_CHECKING:
    from data_plane.local.servers import Servers

__all__ = [
    "PhysicalBackups",
    "list_backups",
    "load_backup_settings",
    "run_script",
]

_SETTINGS = "backups.yaml"
_VARIABLES = "backups.env"
_STATE = "backup-state"
_PARTIAL = 3
"""The exit code of a script that has done its work but for what it names."""
_SAMPLE = """\
bucket: backups
prefix: local
endpoint: http://127.0.0.1:9000    # leave it out for AWS
forcePathStyle: true"""


def load_backup_settings(home: StateDir) -> BackupSettings:
    """The settings in ``backups.yaml`` of the private folder, or in the file that ``DATA_PLANE_BACKUPS`` names.

    They are those that a stack has at ``kubernetes.backups``; the schedules mean nothing here.

    Raises:
        BackupError: if there is no such file.
        ConfigurationError: with every problem found in it.
    """
    path = Path(os.environ.get("DATA_PLANE_BACKUPS") or home.path / _SETTINGS)
    if not path.is_file():
        raise BackupError(
            f"{path} is missing: it says where backups go. Write it, e.g.\n\n{_SAMPLE}\n\n"
            "or let DATA_PLANE_BACKUPS name another file."
        )
    problems: list[Problem] = []
    document = parse_mapping(path, str(path), problems, first_key="bucket")
    if document is None:
        raise ConfigurationError(problems)
    try:
        return BackupSettings.model_validate(document)
    except ValidationError as error:
        found = problems_of(error, str(path), BackupSettings, line_of=lambda at: line_of(document, at))
        # pydantic quotes the input, which may be an access key in the wrong place.
        raise ConfigurationError(found) from None


class PhysicalBackups:
    """Backups of the PostgreSQL of one :class:`~data_plane.state_dir.StateDir`.

    Args:
        servers: the local servers.
        settings: where backups go.
        credentials: the object store's access key, as the AWS programs' variables.
        say: is told what is going on.
    """

    def __init__(
        self,
        servers: "Servers",
        settings: BackupSettings,
        credentials: Mapping[str, str],
        say: Callable[[str], None] = lambda _text: None,
    ) -> None:
        self._servers = servers
        self._postgres = servers.postgres
        self._home = servers.home
        self._settings = settings
        self._credentials = credentials
        self._say = say

    def back_up(self) -> None:
        """Makes a physical and a logical backup, as far as the settings have them, and removes old ones.

        Raises:
            BackupError: saying which part failed; what was made before stays.
            PartialError: if the dump is made without something, which it names.
        """
        self.archive()
        physical, logical = self._settings.physical, self._settings.logical
        if physical is not None:
            self._run(
                "base-backup.sh",
                BACKUP_RETENTION=f"RECOVERY WINDOW OF {physical.retain_days} DAYS",
                BACKUP_MINIMUM=str(physical.retain_minimum),
            )
        if logical is not None:
            self._run("logical-backup.sh", BACKUP_RETAIN_DAYS=str(logical.retain_days))

    def archive(self) -> None:
        """Lets PostgreSQL ship its write-ahead log from now on, or no longer, as the settings say.

        Restarts it if it did otherwise before.
        """
        self._servers.start()
        file = self._prepare()
        wanted = {"archive_mode": "off"}
        if self._settings.physical is not None:
            self._run("check-owner.sh")
            command = f"BACKUP_ENV_FILE={shlex.quote(str(file))} {shlex.quote(str(SCRIPTS / 'archive-wal.sh'))}"
            wanted = {
                "archive_mode": "on",
                "archive_command": command.replace("%", "%%") + ' "%p"',
                "archive_timeout": f"{self._settings.physical.archive_timeout}s",
            }
        with self._postgres.connect() as connection:
            connection.autocommit = True
            for name, value in wanted.items():
                statement = sql.SQL("alter system set {} = {}").format(sql.Identifier(name), sql.Literal(value))
                connection.execute(statement)
            connection.execute("select pg_reload_conf()")
            restart = connection.execute("show archive_mode").fetchone() != (wanted["archive_mode"],)
        if restart:
            with self._home.lock("servers"):
                self._postgres.stop()
                self._postgres.start()

    def available(self) -> BackupList:
        """What there is to restore from."""
        self._prepare()
        return _parse(self._run("list-backups.sh"))

    def restore(self, backup: str, to: datetime | None, timeline: str = "latest", *, check_only: bool = False) -> None:
        """Restores the whole server and starts it. The files that were there stay beside it.

        Args:
            backup: the ID of the physical backup to start from.
            to: the moment to get to; None for all there is.
            timeline: which history to follow after a former restore: ``latest`` or a number.
            check_only: whether to try it only, beside a server that goes on running.

        Raises:
            BackupError: if it cannot be done; unless the message says otherwise, nothing was changed.
        """
        self._prepare()
        variables = {
            "RESTORE_BACKUP": backup,
            "RESTORE_TO": "" if to is None else to.isoformat(),
            "RESTORE_TIMELINE": timeline,
            "RESTORE_DATABASE": "postgres",
            "RESTORE_PASSWORDS": f"{ADMIN_USER} PGPASSWORD",
        }
        if check_only:
            self._run("restore-physical.sh", "--check", **variables)
            return
        with self._home.lock("servers"), self._servers.database_alone():
            self._postgres.stop()
            try:
                self._run("restore-physical.sh", **variables)
            finally:
                # After a failure too: the former files are where they were.
                if (self._postgres.data / "PG_VERSION").is_file():
                    self._postgres.start()

    def restore_dump(self, stamp: str) -> Path | None:
        """Puts an empty server in the place of the present one, and a dump into it.

        Returns:
            Where the files are now that were there before.

        Raises:
            BackupError: if the dump cannot be restored; the former files are in their place again.
            PartialError: if it is restored, but for something of some projects; the former files are put aside.
        """
        self._prepare()
        with self._home.lock("servers"), self._servers.database_alone():
            password = self._postgres.admin_password
            self._postgres.stop()
            aside = self._put_aside("before")
            try:
                self._postgres.start()
                self._postgres.adopt_password(password)
                self._run("restore-logical.sh", stamp)
            except PartialError:
                raise
            except DataPlaneError:
                # Back to what was there; the restored server's files are kept for diagnosis.
                self._postgres.stop()
                self._put_aside("failed")
                self._home.write_private(PASSWORD_FILE, password + "\n")
                if aside is not None:
                    aside.rename(self._postgres.data)
                    self._postgres.start()
                raise
        return aside

    def restore_project(self, schema: str, stamp: str) -> str:
        """Puts one project as it is in a dump beside the present one.

        Returns:
            The schema that holds it.
        """
        self._prepare()
        return self._run("restore-project.sh", schema, stamp).strip()

    def _put_aside(self, why: str) -> Path | None:
        if not self._postgres.data.exists():
            return None
        aside = self._postgres.data.with_name(f"postgres.{why}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
        self._postgres.data.rename(aside)
        return aside

    def _prepare(self) -> Path:
        """The private file from which the scripts know the object store and the server."""
        if self._postgres.prefix[:1] == ["setpriv"]:
            raise ServerError(
                "root cannot make backups where there are no user namespaces: run `dataplane` as another user."
            )
        programs = install_barman(self._say)
        state = self._home.path / _STATE
        state.mkdir(exist_ok=True, mode=0o700)
        variables = {
            **store_variables(self._settings),
            **self._credentials,
            "PATH": os.pathsep.join([str(programs), str(self._postgres.binaries), os.environ.get("PATH", os.defpath)]),
            "BACKUP_STATE": str(state),
            "PGDATA": str(self._postgres.data),
            **self._postgres.superuser_variables,
            "PGSSLMODE": "disable",
        }
        lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
        return self._home.write_private(_VARIABLES, "\n".join(lines) + "\n")

    def _run(self, script: str, *arguments: str, **variables: str) -> str:
        environment = {**os.environ, "BACKUP_ENV_FILE": str(self._home.path / _VARIABLES), **variables}
        return run_script([*self._postgres.prefix, SCRIPTS / script, *arguments], environment, self._say)


def list_backups(settings: BackupSettings, credentials: Mapping[str, str], say: Callable[[str], None]) -> BackupList:
    """What there is to restore from, in any place that settings name.

    Args:
        credentials: the object store's access key, as the AWS programs' variables.

    Raises:
        BackupError: if the place cannot be reached or read.
    """
    programs = os.pathsep.join([str(install_barman(say)), os.environ.get("PATH", os.defpath)])
    environment = {**os.environ, **store_variables(settings), **credentials, "PATH": programs}
    return _parse(run_script([SCRIPTS / "list-backups.sh"], environment, say))


def run_script(command: Sequence[str | Path], environment: Mapping[str, str], say: Callable[[str], None]) -> str:
    """Runs one of the scripts and gives its standard output; what it says goes on to the listener.

    Raises:
        BackupError: with the script's own word for what went wrong; PartialError, if that is all.
    """
    said: deque[str] = deque(maxlen=8)
    # A file, because two pipes that are read one after the other can block each other.
    with tempfile.TemporaryFile("w+", encoding="utf-8") as answer:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=answer, stderr=subprocess.PIPE, text=True, env=dict(environment)
        )
        with process:
            for line in process.stderr or ():
                said.append(line.rstrip())
                say(line.rstrip())
        answer.seek(0)
        output = answer.read()
    if process.returncode != 0:
        kind = PartialError if process.returncode == _PARTIAL else BackupError
        raise kind(_message(list(said)) or f"{Path(command[-1]).name} ended with code {process.returncode}")
    return output


def _message(said: list[str]) -> str:
    """What went wrong, from a script's last lines: its own word for it, and what Barman or the object store said."""
    own = [line.partition(" error: ")[2] for line in said if " error: " in line]
    theirs = [line.partition("ERROR: ")[2] for line in said if "ERROR: " in line]
    cause = theirs[-1].partition("exception: ")[2] or theirs[-1] if theirs else ""
    if not own:
        return cause or "\n".join(said)
    return f"{own[-1]}: {cause}" if cause and cause not in own[-1] else own[-1]


def _parse(text: str) -> BackupList:
    found = json.loads(text)
    physical = [_physical(item) for item in found["physical"]["backups_list"] if item["status"] == "DONE"]
    logical = [_logical(item) for item in found["logical"]]
    return BackupList(sorted(physical, key=lambda item: item.ended), sorted(logical, key=lambda item: item.stamp))


def _physical(item: Mapping[str, Any]) -> PhysicalBackup:
    return PhysicalBackup(
        backup_id=item["backup_id"],
        began=datetime.fromisoformat(item["begin_time_iso"]),
        ended=datetime.fromisoformat(item["end_time_iso"]),
        timeline=int(item["timeline"]),
        version=int(item["version"]) // 10000,
    )


def _logical(item: Mapping[str, Any]) -> LogicalBackup:
    files = item["files"]
    databases = sorted(file["name"].removesuffix(".dump") for file in files if file["name"].endswith(".dump"))
    size = sum(int(file["bytes"]) for file in files)
    return LogicalBackup(item["stamp"], databases, size, list(item.get("missing", [])))
