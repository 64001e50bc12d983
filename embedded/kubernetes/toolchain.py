"""The Go toolchain on PATH, and the folder for what is got with it."""

import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

from embedded.errors import ServerError

__all__ = ["cache_folder", "go_version", "run_go", "why_unavailable"]

MODULE = Path(__file__).resolve().parent
_VERSION = re.compile(r"\bgo(\d+)\.(\d+)(?:\.(\d+))?")
_CHOSEN = {
    # No flag of the user's own may change what is built, nor a newer toolchain be fetched behind their back.
    "GOFLAGS": "",
    "GOWORK": "off",
    "GOTOOLCHAIN": "local",
    "CGO_ENABLED": "0",
}


@cache
def go_version() -> str:
    """What ``go version`` says: release, system, machine. Empty if there is no Go."""
    command = shutil.which("go")
    if command is None:
        return ""
    done = subprocess.run([command, "version"], env={**os.environ, **_CHOSEN}, capture_output=True, text=True)
    return done.stdout.strip()


def why_unavailable() -> str | None:
    """Why Kubernetes cannot be built here, or None if it can."""
    needed = _release((MODULE / "go.mod").read_text(encoding="utf-8").replace("\ngo ", "\ngo"))
    wanted = ".".join(map(str, needed))
    found = go_version()
    if not found:
        return f"Go is not on PATH; the local Kubernetes is built with Go {wanted} or newer"
    if _release(found) < needed:
        return f"{found} is on PATH; the local Kubernetes is built with Go {wanted} or newer"
    return None


def run_go(*arguments: str | Path, folder: Path) -> str:
    """Runs the ``go`` command and gives its output.

    Raises:
        ServerError: with the end of what it says.
    """
    done = subprocess.run(["go", *arguments], cwd=folder, env={**os.environ, **_CHOSEN}, capture_output=True, text=True)
    if done.returncode != 0:
        end = "\n".join(f"    {line}" for line in (done.stderr or done.stdout).strip().splitlines()[-8:])
        raise ServerError(f"`go {arguments[0]}` failed; run the same command again once this is mended:\n{end}")
    return done.stdout


def cache_folder() -> Path:
    """Where things stay that take long to get: below ``XDG_CACHE_HOME``, else ``~/.cache``.

    Raises:
        ServerError: if it cannot be made.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    folder = (Path(base) if base else Path.home() / ".cache") / "supabase-data-plane"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ServerError(
            f"{folder} cannot be used: {error.strerror}. Set XDG_CACHE_HOME to a folder that you may write to."
        ) from None
    return folder


def _release(text: str) -> tuple[int, ...]:
    match = _VERSION.search(text)
    return tuple(int(part or 0) for part in match.groups()) if match else ()
