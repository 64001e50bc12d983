"""The Go toolchain, and programs that are built with it once and kept in the user's cache."""

import os
import re
import shutil
import subprocess
from collections import deque
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

from filelock import FileLock, Timeout

from data_plane.errors import BuildError

__all__ = ["build_once", "cache_folder", "follow_go", "go_version", "run_go", "why_no_go"]

_VERSION = re.compile(r"\bgo ?(\d+)\.(\d+)(?:\.(\d+))?")
_CHOSEN = {
    # No flag of the user's own may change what is built, nor a newer toolchain be fetched behind their back.
    "GOFLAGS": "",
    "GOWORK": "off",
    "GOTOOLCHAIN": "local",
    "CGO_ENABLED": "0",
}
_BUILD_SECONDS = 3600
_SHOWN_LINES = 8


@cache
def go_version() -> str:
    """What ``go version`` says: release, system, machine. Empty if there is no Go on PATH."""
    command = shutil.which("go")
    if command is None:
        return ""
    done = subprocess.run([command, "version"], env={**os.environ, **_CHOSEN}, capture_output=True, text=True)
    return done.stdout.strip()


def why_no_go(module: Path, what: str) -> str | None:
    """Why a module cannot be built with the Go on PATH, or None if it can.

    Args:
        module: the folder of its ``go.mod``.
        what: what is built from it, in the words of the message.
    """
    needed = _release((module / "go.mod").read_text(encoding="utf-8"))
    wanted = ".".join(map(str, needed))
    found = go_version()
    if not found:
        return f"Go is not on PATH; {what} is built with Go {wanted} or newer"
    if _release(found) < needed:
        return f"{found} is on PATH; {what} is built with Go {wanted} or newer"
    return None


def run_go(*arguments: str | Path, folder: Path, command: str | Path = "go") -> str:
    """Runs the ``go`` command and gives its output.

    Args:
        folder: of the module.
        command: another Go than the one on PATH.

    Raises:
        BuildError: with the end of what it says.
    """
    done = subprocess.run(
        [command, *arguments], cwd=folder, env={**os.environ, **_CHOSEN}, capture_output=True, text=True
    )
    if done.returncode != 0:
        raise _failed(arguments[0], (done.stderr or done.stdout).strip().splitlines())
    return done.stdout


def follow_go(*arguments: str | Path, folder: Path, command: str | Path = "go", on_line: Callable[[str], None]) -> None:
    """Like :func:`run_go`, but ``on_line`` is given each line of output when it comes."""
    last: deque[str] = deque(maxlen=_SHOWN_LINES)
    with subprocess.Popen(
        [command, *arguments],
        cwd=folder,
        env={**os.environ, **_CHOSEN},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        for line in process.stdout or ():
            last.append(line.rstrip())
            on_line(last[-1])
    if process.returncode != 0:
        raise _failed(arguments[0], last)


def _failed(subcommand: str | Path, lines: Iterable[str]) -> BuildError:
    end = "\n".join(f"    {line}" for line in [*lines][-_SHOWN_LINES:])
    return BuildError(f"`go {subcommand}` failed. Fix this and run it again:\n{end}")


def build_once(folder: Path, what: str, build: Callable[[Path], None]) -> Path:
    """A folder of the cache, built first if it is not there: by one process at a time, and whole or not at all.

    Args:
        folder: where the result stays.
        what: what is built, in the words of a message.
        build: is given a draft of the folder to fill.

    Raises:
        BuildError: if it cannot be built, or another process takes longer than an hour.
    """
    if folder.is_dir():
        return folder
    try:
        with FileLock(folder.with_name(f"{folder.name}.lock"), timeout=_BUILD_SECONDS):
            if not folder.is_dir():
                draft = folder.with_name(f"{folder.name}.draft")
                shutil.rmtree(draft, ignore_errors=True)  # what an interrupted build left
                draft.mkdir(mode=0o700)
                build(draft)
                draft.replace(folder)
    except Timeout as error:
        raise BuildError(
            f"another process has been building {what} for {_BUILD_SECONDS // 60} minutes; try again"
        ) from error
    return folder


def cache_folder() -> Path:
    """Where things stay that take long to get: below ``XDG_CACHE_HOME``, else ``~/.cache``.

    Raises:
        BuildError: if it cannot be made.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    folder = (Path(base) if base else Path.home() / ".cache") / "supabase-data-plane"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BuildError(
            f"{folder} cannot be used: {error.strerror}. Set XDG_CACHE_HOME to a folder that you may write to."
        ) from error
    return folder


def _release(text: str) -> tuple[int, ...]:
    match = _VERSION.search(text)
    return tuple(int(part or 0) for part in match.groups()) if match else ()
