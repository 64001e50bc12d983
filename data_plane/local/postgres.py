"""A private PostgreSQL on the loopback address, kept between runs.

Its superuser is ``supabase_admin``, as in Supabase's image.
"""

import os
import pwd
import secrets
import shutil
import subprocess
from functools import cached_property
from pathlib import Path

import psycopg
from psycopg import sql

from data_plane.clients.postgres import PLATFORM_SESSION, set_password
from data_plane.errors import ServerError
from data_plane.local.postgres_programs import Programs, find_programs
from data_plane.local.processes import ADMIN_USER, LOOPBACK, port_for, tail
from data_plane.model.server_parameters import cron_parameters, data_limit_command, server_parameters
from data_plane.model.usual_extensions import USUAL_EXTENSIONS
from data_plane.state_dir import StateDir

__all__ = ["ADMIN_USER", "PASSWORD_FILE", "SWITCH_NOTE", "LocalPostgres", "find_binaries"]

PASSWORD_FILE = "postgres-admin-password"
"""Of the superuser, in the private folder."""
SWITCH_NOTE = "upgrade-switch.json"
"""Names, while an upgrade lets two data folders change places, where the old one goes."""
_START_SECONDS = 60
_STOP_SECONDS = 60
_DATA_KIBIBYTES = 1 << 20
"""What each of the server's processes may have of memory that it does not share: 1 GiB."""
_NEVER_STARTED = "the local PostgreSQL was never started: run `dataplane up`."


def find_binaries() -> Path:
    """The folder with PostgreSQL's programs.

    Raises:
        ServerError: if there is none.
    """
    return find_programs().folder


class LocalPostgres:
    """The local PostgreSQL of one :class:`~data_plane.state_dir.StateDir`."""

    def __init__(self, home: StateDir, binaries: Path | None = None) -> None:
        self.home = home
        self.data = home.path / "postgres"
        self.log = home.path / "postgres.log"
        self._binaries = binaries

    @cached_property
    def programs(self) -> Programs:
        """The PostgreSQL that it runs."""
        return Programs(self._binaries) if self._binaries else find_programs(self.made_by)

    @property
    def binaries(self) -> Path:
        """The folder with PostgreSQL's programs."""
        return self.programs.folder

    @property
    def admin_password(self) -> str:
        """The superuser's password, made when the database is."""
        try:
            return (self.home.path / PASSWORD_FILE).read_text(encoding="utf-8").strip()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ServerError(_NEVER_STARTED) from error

    @property
    def superuser_variables(self) -> dict[str, str]:
        """Variables of libpq for a connection as the superuser, its password among them."""
        return {
            "PGHOST": LOOPBACK,
            "PGPORT": str(self.known_port),
            "PGUSER": ADMIN_USER,
            "PGPASSWORD": self.admin_password,
            "PGDATABASE": "postgres",
        }

    @property
    def port(self) -> int | None:
        """The port of the running server, or None."""
        try:
            lines = (self.data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return int(lines[3]) if len(lines) > 3 and self._control("status", check=False) == 0 else None

    @property
    def known_port(self) -> int:
        """The port that the server has or, while it is down, will have again.

        Raises:
            ServerError: if it was never started.
        """
        ports: dict[str, int] = self.home.read_json("ports.json") or {}
        if "postgres" not in ports:
            raise ServerError(_NEVER_STARTED)
        return ports["postgres"]

    def start(self) -> int:
        """Makes the database if there is none, starts the server if it is not running, and gives its port.

        Raises:
            ServerError: with the end of the server's log.
        """
        self.home.prepare()
        self._undo_half_switch()
        running = self.port
        if running is not None:
            return running
        major = self._checked_version()
        if not (self.data / "PG_VERSION").is_file():
            self._initialise()
        port = self._choose_port()
        parameters = {
            "listen_addresses": LOOPBACK,
            "port": str(port),
            "unix_socket_directories": "",
            **server_parameters(major),
            **self._further_parameters(),
        }
        settings = " ".join(f"-c {name}={value}" for name, value in parameters.items())
        if self._control("start", "-l", str(self.log), "-o", settings, check=False) != 0:
            raise ServerError(f"PostgreSQL did not start; the end of {self.log}:\n{tail(self.log)}")
        return port

    def stop(self) -> None:
        """Stops the server if it is running; its data stays."""
        if self.port is not None:
            self._control("stop", "-m", "fast", "-t", str(_STOP_SECONDS))

    def connect(self, dbname: str = "postgres") -> "psycopg.Connection[tuple[object, ...]]":
        """A connection as the superuser."""
        return psycopg.connect(
            host=LOOPBACK,
            port=self.port,
            dbname=dbname,
            user=ADMIN_USER,
            password=self.admin_password,
            connect_timeout=10,
            options=PLATFORM_SESSION,
        )

    def provide_extensions(self) -> None:
        """Makes the usual extensions that this PostgreSQL comes with, where Supabase's image has them."""
        with self.connect() as connection:
            lacking = connection.execute(
                "select name from pg_available_extensions where installed_version is null and name = any(%s)",
                [list(USUAL_EXTENSIONS)],
            ).fetchall()
            connection.execute("create schema if not exists extensions")
            for (name,) in lacking:
                connection.execute(
                    sql.SQL("create extension {} schema extensions cascade").format(sql.Identifier(str(name)))
                )

    def adopt_password(self, password: str) -> None:
        """Gives the superuser a password that it had before, in the running server and in the private folder."""
        with self.connect() as connection:
            set_password(connection, ADMIN_USER, password)
        self.remember_password(password)

    def remember_password(self, password: str) -> None:
        """Keeps the superuser's password, which somebody has changed, in the private folder."""
        self.home.write_private(PASSWORD_FILE, password + "\n")

    def _choose_port(self) -> int:
        return port_for("postgres", self.home)

    def _further_parameters(self) -> dict[str, str]:
        if not self.programs.has_library("pg_cron"):
            return {}
        return {"shared_preload_libraries": "pg_cron", **cron_parameters("postgres")}

    def _undo_half_switch(self) -> None:
        """Puts the data back that an upgrade, killed between its two renames, has put aside."""
        note = self.home.read_json(SWITCH_NOTE)
        if note is not None and not self.data.exists():
            self.data.with_name(note["aside"]).rename(self.data)
        if note is not None:
            (self.home.path / SWITCH_NOTE).unlink()

    @property
    def made_by(self) -> int | None:
        """The version that made the data; None while there is none."""
        try:
            return int((self.data / "PG_VERSION").read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _checked_version(self) -> int:
        """The programs' version, which has to be that of the data."""
        made_by = self.made_by or self.programs.major
        if self.programs.major != made_by:
            raise ServerError(
                f"{self.data} was made by PostgreSQL {made_by}, and {self.binaries} has {self.programs.major}. "
                f"Set DATA_PLANE_POSTGRES_BIN to version {made_by}'s programs, or run `dataplane local reset`."
            )
        return made_by

    def _initialise(self) -> None:
        shutil.rmtree(self.data, ignore_errors=True)  # what an interrupted initdb left
        password = self.home.write_private(PASSWORD_FILE, secrets.token_hex(24) + "\n")
        arguments: list[str | Path] = [
            "-D",
            self.data,
            "-U",
            ADMIN_USER,
            "-A",
            "scram-sha-256",
            f"--pwfile={password}",
            "-E",
            "UTF8",
        ]
        if os.geteuid() == 0 and self.prefix[0] == "setpriv":
            self.data.mkdir()
            self._give_away(self.data, password)
        command: list[str | Path] = [
            *self.prefix,
            self.binaries / "initdb",
            *arguments,
            "--no-locale",
            "--no-instructions",
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            shutil.rmtree(self.data, ignore_errors=True)
            raise ServerError(f"initdb failed in {self.data}:\n{done.stderr.strip()}")

    def _control(self, action: str, *arguments: str, check: bool = True) -> int:
        waiting = [] if action == "status" else ["-w", "-t", str(_START_SECONDS)]
        bounded = ["sh", "-c", data_limit_command(_DATA_KIBIBYTES), "sh"] if action == "start" else []
        command: list[str | Path] = [
            *bounded,
            *self.prefix,
            self.binaries / "pg_ctl",
            action,
            "-D",
            self.data,
            *waiting,
        ]
        done = subprocess.run(
            [*command, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        if check and done.returncode != 0:
            raise ServerError(f"pg_ctl {action} failed; the end of {self.log}:\n{tail(self.log)}")
        return done.returncode

    @cached_property
    def prefix(self) -> list[str]:
        """What lets root run PostgreSQL, which refuses to be root.

        A user namespace in which root goes by another name keeps its rights on its own files, so that it works below
        ``/root`` too; where there are none, the server runs as ``nobody``.
        """
        if os.geteuid() != 0:
            return []
        nobody = pwd.getpwnam("nobody")
        prefix = ["unshare", "--user", f"--map-user={nobody.pw_uid}", f"--map-group={nobody.pw_gid}"]
        if shutil.which("unshare") and subprocess.run([*prefix, "true"], capture_output=True).returncode == 0:
            return prefix
        return ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]

    def _give_away(self, *paths: Path) -> None:
        nobody = pwd.getpwnam("nobody")
        self.log.touch()
        for path in (*paths, self.log):
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
        closed = [folder for folder in self.home.path.parents if not folder.stat().st_mode & 0o001]
        if closed:
            raise ServerError(
                f"PostgreSQL cannot run as root, and `nobody` cannot enter {closed[-1]}. "
                "Run as another user, or set DATA_PLANE_HOME to a folder that everybody may enter."
            )
        self.home.path.chmod(0o711)
