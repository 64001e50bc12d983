"""The commands of the services that this machine has, and how it gets postgres-meta."""

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from data_plane.errors import ServerError
from data_plane.local.processes import tail
from data_plane.model.catalog import Service
from data_plane.state_dir import StateDir

__all__ = [
    "COMMAND_VARIABLES",
    "find_commands",
    "how_to_have",
    "install_postgres_meta",
    "note_commands",
    "working_folder",
]

COMMAND_VARIABLES: Mapping[Service, str] = {
    Service.REST: "DATA_PLANE_POSTGREST",
    Service.AUTH: "DATA_PLANE_AUTH",
    Service.STORAGE: "DATA_PLANE_STORAGE",
    Service.META: "DATA_PLANE_POSTGRES_META",
}
"""The variables that name a service's command."""

_NOTE = "service-commands.json"
_META_PACKAGE = "@supabase/postgres-meta"
_META_PROGRAM = "postgres-meta"


def how_to_have(service: Service) -> str:
    """What to do for a service to run here."""
    variable = COMMAND_VARIABLES.get(service)
    if variable is None:
        return "it does not run on this machine"
    other = "add --install-postgres-meta, or " if service is Service.META else ""
    return f"{other}name its command in {variable}"


def note_commands(home: StateDir) -> None:
    """Remembers the commands that variables name; one that is set to nothing makes its service forgotten.

    Raises:
        ServerError: if a variable names no program.
    """
    known: dict[str, list[str]] = home.read_json(_NOTE) or {}
    for service, variable in COMMAND_VARIABLES.items():
        told = os.environ.get(variable)
        if told is not None:
            known.pop(service, None)
        if told and told.strip():
            known[service] = _resolved(variable, told)
    home.write_json(_NOTE, known)


def find_commands(home: StateDir) -> dict[Service, list[str]]:
    """The command of each service that this machine has: the remembered ones, and postgres-meta where it is found."""
    found = {Service(name): command for name, command in (home.read_json(_NOTE) or {}).items()}
    if Service.META not in found:
        meta = _postgres_meta(home)
        if meta:
            found[Service.META] = meta
    return found


def _resolved(variable: str, told: str) -> list[str]:
    """A command whose program and files are named in full, so that it can be run from another folder."""
    try:
        words = shlex.split(told)
    except ValueError as error:
        raise ServerError(f"{variable} is {told!r}: {error}; expected a command.") from error
    program = shutil.which(words[0])
    if program is None:
        raise ServerError(f"{variable} names {words[0]!r}, which is no program on this machine.")
    return [
        str(Path(program).absolute()),
        *(str(Path(word).absolute()) if _is_file(word) else word for word in words[1:]),
    ]


def _is_file(word: str) -> bool:
    return "/" in word and Path(word).is_file()


def _postgres_meta(home: StateDir) -> list[str] | None:
    on_path = shutil.which(_META_PROGRAM)
    if on_path:
        return [str(Path(on_path).absolute())]
    node, server = shutil.which("node"), _meta_server(home)
    return [node, str(server)] if node and server.is_file() else None


def _meta_server(home: StateDir) -> Path:
    return home.path / "npm" / "node_modules" / _META_PACKAGE / "dist" / "server" / "server.js"


def install_postgres_meta(home: StateDir, version: str, say: Callable[[str], None]) -> None:
    """Gets postgres-meta from npm, unless it is there.

    Args:
        version: which.
        say: is told if it has to be installed first.

    Raises:
        ServerError: if it cannot be had.
    """
    npm = shutil.which("npm")
    if _meta_server(home).is_file():
        return
    if npm is None:
        raise ServerError("postgres-meta is installed with npm, which is not on PATH: install Node.js 20 or newer.")
    say(f"Installing postgres-meta {version} with npm; only the first time")
    home.prepare()
    log = home.path / "npm.log"
    command = [npm, "install", "--prefix", str(home.path / "npm"), "--no-audit", "--no-fund", "--ignore-scripts"]
    with log.open("ab") as output:
        done = subprocess.run(
            [*command, f"{_META_PACKAGE}@{version}"], stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    if done.returncode != 0:
        raise ServerError(f"postgres-meta could not be installed; the end of {log}:\n{tail(log)}")


def working_folder(command: Sequence[str], otherwise: Path) -> Path:
    """The folder that a service expects to be in: where its package or its migrations lie, as in its image."""
    for word in reversed(command):
        path = Path(word)
        if not path.is_absolute() or not path.is_file():
            continue
        for folder in path.resolve().parents:
            if (folder / "package.json").is_file() or (folder / "migrations").is_dir():
                return folder
    return otherwise
