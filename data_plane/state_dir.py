"""The folders that this program works on: the checkout, and the one that holds all local data."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from threading import get_ident
from typing import Any

from filelock import FileLock, Timeout

from data_plane.errors import ServerError, StateDirError

__all__ = ["CHECKOUT", "CHECKOUT_VARIABLE", "ENVIRONMENT", "SOURCES", "StateDir", "has_checkout"]

ENVIRONMENT = "local"
"""The environment of this machine."""

SOURCES = Path(__file__).resolve().parents[1]
"""The folder that the packages lie in: a checkout, or where pip installed them."""

CHECKOUT_VARIABLE = "DATA_PLANE_CHECKOUT"
CHECKOUT = SOURCES if (SOURCES / "Pulumi.yaml").is_file() else Path(os.environ.get(CHECKOUT_VARIABLE) or SOURCES)
"""The folder with ``Pulumi.yaml`` and ``stacks/``. Never the current one, which may be whatever somebody checks."""

_FREE_BYTES_NEEDED = 512 * 1024 * 1024
_LOCK_WAIT_SECONDS = 600


def has_checkout() -> bool:
    """Whether there is a checkout: an installed package knows of none unless ``DATA_PLANE_CHECKOUT`` names it."""
    return (CHECKOUT / "Pulumi.yaml").is_file()


class StateDir:
    """The folder of all local data: databases, keys, state, generated configuration.

    It is where ``DATA_PLANE_HOME`` says; else ``.local`` in the checkout, or the user's own for an installed package.

    Args:
        path: another folder.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = (path or Path(os.environ.get("DATA_PLANE_HOME") or _default_home())).resolve()

    def prepare(self) -> None:
        """Makes the folder, for this user alone.

        Raises:
            ServerError: if it cannot be made or its disk is nearly full.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            free = shutil.disk_usage(self.path).free
        except OSError as error:
            raise StateDirError(_unusable(self.path, error)) from error
        if free < _FREE_BYTES_NEEDED:
            raise ServerError(
                f"{self.path} has {free // 2**20} MiB free and the servers need {_FREE_BYTES_NEEDED // 2**20} MiB. "
                "Make room, or set DATA_PLANE_HOME to a folder on another disk."
            )

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Lets one process at a time do what ``name`` stands for; another waits.

        Raises:
            DataPlaneError: if the other takes longer than ten minutes.
        """
        self.prepare()
        lock = FileLock(self.path / f"{name}.lock", timeout=_LOCK_WAIT_SECONDS)
        try:
            lock.acquire()
        except Timeout as error:
            raise StateDirError(f"another process has been busy with {name} for ten minutes; try again") from error
        except OSError as error:
            raise StateDirError(_unwritable(lock.lock_file, error)) from error
        try:
            yield
        finally:
            lock.release()

    def cell_lock(self, environment: str, cell: str) -> AbstractContextManager[None]:
        """The lock for a run of a cell whose files may change meanwhile."""
        return self.lock(f"cell-{environment}-{cell}")

    def moves(self, environment: str) -> Path:
        """The folder with what is kept of each project's moves between cells."""
        return self.path / "moves" / environment

    def drops(self, environment: str) -> Path:
        """The folder with a note for each project whose drop has begun and not ended."""
        return self.path / "drops" / environment

    def read_json(self, name: str) -> Any:
        """A JSON file of the folder, or None.

        Raises:
            DataPlaneError: if it is there and is not JSON, or cannot be read.
        """
        path = self.path / name
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StateDirError(_unusable(path, error)) from error
        except ValueError as error:
            raise StateDirError(f"{path} is damaged ({error}); `dataplane local reset` starts afresh") from error

    def write_private(self, name: str, text: str) -> Path:
        """Writes a file that only this user may read, whole or not at all.

        Raises:
            DataPlaneError: if it cannot be written; what was there before still is.
        """
        path = self.path / name
        draft = path.with_name(f".{path.name}.{os.getpid()}.{get_ident()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        except OSError as error:
            with suppress(OSError):
                draft.unlink()
            raise StateDirError(_unwritable(path, error)) from error
        return path

    def write_json(self, name: str, value: Any) -> Path:
        """Like :meth:`write_private`, for a JSON value."""
        return self.write_private(name, json.dumps(value, indent=2, sort_keys=True) + "\n")


def _default_home() -> Path:
    if has_checkout():
        return CHECKOUT / ".local"
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "supabase-data-plane"


def _unusable(path: Path, error: OSError) -> str:
    return f"{path} cannot be used: {error.strerror}. Set DATA_PLANE_HOME to a folder that you may write to."


def _unwritable(path: Path | str, error: OSError) -> str:
    return (
        f"{path} cannot be written: {error.strerror}. "
        "Make room or give yourself the right to, then run the same command again, which resumes there."
    )
