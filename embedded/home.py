"""The one ignored folder that holds all local data: databases, keys, state, generated configuration."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from threading import get_ident
from typing import Any

from filelock import FileLock, Timeout

from embedded.errors import EmbeddedError, ServerError

__all__ = ["CHECKOUT", "Home"]

CHECKOUT = Path(__file__).resolve().parent.parent
_FREE_BYTES_NEEDED = 512 * 1024 * 1024
_LOCK_WAIT_SECONDS = 600


class Home:
    """The folder ``.local`` of the checkout, or wherever ``DATA_PLANE_HOME`` says.

    Args:
        path: another folder.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = (path or Path(os.environ.get("DATA_PLANE_HOME") or CHECKOUT / ".local")).resolve()

    def prepare(self) -> None:
        """Makes the folder, for this user alone.

        Raises:
            ServerError: if it cannot be made or its disk is nearly full.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            free = shutil.disk_usage(self.path).free
        except OSError as error:
            raise ServerError(
                f"{self.path} cannot be used: {error.strerror}. Set DATA_PLANE_HOME to a folder that you may write to."
            ) from None
        if free < _FREE_BYTES_NEEDED:
            raise ServerError(
                f"{self.path} has {free // 2**20} MiB free and the servers need {_FREE_BYTES_NEEDED // 2**20} MiB. "
                "Make room, or set DATA_PLANE_HOME to a folder on another disk."
            )

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Lets one process at a time do what ``name`` stands for; another waits.

        Raises:
            EmbeddedError: if the other takes longer than ten minutes.
        """
        self.prepare()
        lock = FileLock(self.path / f"{name}.lock", timeout=_LOCK_WAIT_SECONDS)
        try:
            lock.acquire()
        except Timeout:
            raise EmbeddedError(f"another process has been busy with {name} for ten minutes; try again") from None
        except OSError as error:
            raise EmbeddedError(_unwritable(lock.lock_file, error)) from None
        try:
            yield
        finally:
            lock.release()

    def cell_lock(self, environment: str, cell: str) -> AbstractContextManager[None]:
        """The lock of whoever runs a cell from files that may change meanwhile."""
        return self.lock(f"cell-{environment}-{cell}")

    def read_json(self, name: str) -> Any:
        """A JSON file of the folder, or None.

        Raises:
            EmbeddedError: if it is there and is not JSON.
        """
        path = self.path / name
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise EmbeddedError(f"{path} is damaged ({error}); `dataplane servers reset` starts afresh") from None

    def write_private(self, name: str, text: str) -> Path:
        """Writes a file that only this user may read, whole or not at all.

        Raises:
            EmbeddedError: if it cannot be written; what was there before still is.
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
            raise EmbeddedError(_unwritable(path, error)) from None
        return path

    def write_json(self, name: str, value: Any) -> Path:
        """Like :meth:`write_private`, for a JSON value."""
        return self.write_private(name, json.dumps(value, indent=2, sort_keys=True) + "\n")


def _unwritable(path: Path | str, error: OSError) -> str:
    return (
        f"{path} cannot be written: {error.strerror}. "
        "Make room or give yourself the right to, then run the same command again: it goes on from there."
    )
