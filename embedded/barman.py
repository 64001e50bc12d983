"""Barman, got once from its wheel and kept in the user's cache.

It has an environment of its own: on a cluster, too, it is a program in another image and no part of this one. Its pins
are in ``barman-requirements.txt``, made by ``uv pip compile --universal --generate-hashes`` from ``barman``, ``boto3``
and ``psycopg2-binary``, which stands in for the ``psycopg2`` that Barman names and that is to be had as source only.
"""

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from embedded.errors import ServerError
from embedded.kubernetes.toolchain import cache_folder

__all__ = ["install_barman"]

_REQUIREMENTS = Path(__file__).with_name("barman-requirements.txt")
_COMPLETE = "complete"
_INSTALL_SECONDS = 600


def install_barman(say: Callable[[str], None]) -> Path:
    """The folder with Barman's programs, and a Python that has boto3.

    Args:
        say: is told if it has to be installed first.

    Raises:
        ServerError: if it cannot be installed.
    """
    key = hashlib.sha256(_REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()[:16]
    folder = cache_folder() / f"barman-{key}"
    try:
        with FileLock(folder.with_suffix(".lock"), timeout=_INSTALL_SECONDS):
            if not (folder / _COMPLETE).exists():
                say("Installing Barman; only the first time")
                # An environment cannot be moved once it is made, so it is marked when it is whole.
                _run(sys.executable, "-m", "venv", "--clear", folder)
                pip = ("pip", "install", "--quiet", "--disable-pip-version-check")
                _run(folder / "bin" / "python", "-m", *pip, "--no-deps", "--require-hashes", "-r", _REQUIREMENTS)
                (folder / _COMPLETE).touch()
    except Timeout:
        raise ServerError("another process has been installing Barman for ten minutes; try again") from None
    return folder / "bin"


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        end = "\n".join(f"    {line}" for line in (done.stderr or done.stdout).strip().splitlines()[-5:])
        raise ServerError(f"Barman could not be installed; run the same command again once this is mended:\n{end}")
