"""Python programs, each installed once in a virtual environment from pinned requirements, in the user's cache."""

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from data_plane.engine.go import cache_folder
from data_plane.errors import ServerError

__all__ = ["install_tool"]

_COMPLETE = "complete"
_INSTALL_SECONDS = 600


def install_tool(name: str, requirements: Path, say: Callable[[str], None]) -> Path:
    """The folder with a tool's programs and its Python.

    Args:
        name: of the tool.
        requirements: every package with its version and hashes.
        say: is told if it has to be installed first.

    Raises:
        ServerError: if it cannot be installed.
    """
    key = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:16]
    folder = cache_folder() / f"{name.lower()}-{key}"
    try:
        with FileLock(folder.with_suffix(".lock"), timeout=_INSTALL_SECONDS):
            if not (folder / _COMPLETE).exists():
                say(f"Installing {name}; only the first time")
                # An environment cannot be moved once it is made, so it is marked when it is whole.
                _run(name, sys.executable, "-I", "-m", "venv", "--clear", folder)
                pip = ("pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile")
                python = folder / "bin" / "python"
                _run(name, python, "-I", "-m", *pip, "--no-deps", "--require-hashes", "-r", requirements)
                (folder / _COMPLETE).touch()
    except Timeout as error:
        raise ServerError(f"another process has been installing {name} for ten minutes; try again") from error
    return folder / "bin"


def _run(name: str, *command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        end = "\n".join(f"    {line}" for line in (done.stderr or done.stdout).strip().splitlines()[-5:])
        raise ServerError(f"{name} could not be installed; correct this, then run the same command again:\n{end}")
