"""The audit log of the connector's actions: who did what to which project, when, and how it ended."""

import getpass
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any
from uuid import uuid4

from data_plane.errors import AuditLogError, DataPlaneError
from data_plane.state_dir import StateDir

__all__ = ["AuditLog", "AuditedAction", "Outcome", "current_user"]

LOG_VARIABLE = "DATA_PLANE_AUDIT_LOG"
_FILE = "audit.jsonl"
_ERROR_CHARACTERS = 2000


class Outcome(StrEnum):
    """How an action ended."""

    DONE = "done"
    REFUSED = "refused"
    """The input, the data file or a policy was against it; nothing was changed."""
    FAILED = "failed"
    INTERRUPTED = "interrupted"


@dataclass
class AuditedAction:
    """An action under way. What is noted here becomes part of its last line."""

    id: str
    notes: dict[str, Any] = field(default_factory=dict)

    def note(self, **notes: Any) -> None:
        """Adds what is known by now: numbers and names, never a secret."""
        self.notes.update(notes)


class AuditLog:
    """A file of JSON lines, two for each action: when it begins and when it ends.

    An action without a second line was killed. The file is made readable for its owner alone, and only ever added to.

    Args:
        path: where it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def default(cls, home: StateDir) -> "AuditLog":
        """The file that ``DATA_PLANE_AUDIT_LOG`` names, else ``audit.jsonl`` among the local data."""
        return cls(Path(os.environ.get(LOG_VARIABLE) or home.path / _FILE))

    @contextmanager
    def action(self, action: str, actor: str, **about: Any) -> Iterator[AuditedAction]:
        """Writes down that an action begins, and how it ends.

        Raises:
            ConnectorError: if the log cannot be written, so before anything is done.
        """
        under_way = AuditedAction(uuid4().hex)
        head = {"id": under_way.id, "action": action, "actor": actor, **about}
        began = time.monotonic()
        self._write({"at": _now(), "event": "begin", **head})
        outcome = Outcome.FAILED
        error: dict[str, str] = {}
        try:
            yield under_way
            outcome = Outcome.DONE
        except (KeyboardInterrupt, SystemExit):
            outcome = Outcome.INTERRUPTED
            raise
        except Exception as caught:
            outcome = under_way.notes.pop("outcome", Outcome.FAILED)
            error = {"error": " ".join(str(caught).split())[:_ERROR_CHARACTERS]}
            if isinstance(caught, DataPlaneError):
                error["code"] = caught.code
            raise
        finally:
            end = {**head, "outcome": outcome.value, "seconds": round(time.monotonic() - began, 3), **under_way.notes}
            self._write({"at": _now(), "event": "end", **end, **error})

    def _write(self, entry: dict[str, Any]) -> None:
        line = json.dumps(entry, ensure_ascii=False) + "\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                # One write of one line: appended whole, beside other writers.
                os.write(handle, line.encode())
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            raise AuditLogError(
                f"the audit log {self.path} cannot be written: {error.strerror}. "
                f"Set {LOG_VARIABLE} to a file that you may write to."
            ) from error


def current_user() -> str:
    """Who runs this process: the actor unless another is named."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid-{os.getuid()}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
