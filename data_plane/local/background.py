"""Processes of the platform's beside the local servers, which outlive the command that starts them."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from data_plane.local.processes import is_process, stop_process
from data_plane.state_dir import SOURCES, StateDir

__all__ = ["BackgroundProcess"]


class BackgroundProcess:
    """One process of one :class:`~data_plane.state_dir.StateDir`, known by a file there; it logs to another."""

    kind: ClassVar[str]
    """What it is called; its files are ``<kind>.json`` and ``<kind>.log``."""
    program: ClassVar[str]
    """The name by which it is told from a process that has its number by now."""

    def __init__(self, home: StateDir) -> None:
        self.home = home

    @property
    def pid(self) -> int | None:
        """The process that runs, or None."""
        known = self.home.read_json(f"{self.kind}.json")
        return int(known["pid"]) if known and is_process(int(known["pid"]), self.program) else None

    def stop(self) -> None:
        """Ends the process, and what it has begun, if it runs."""
        pid = self.pid
        if pid is not None:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGTERM)
            stop_process(pid, lambda: is_process(pid, self.program), f"the {self.kind}")
        (self.home.path / f"{self.kind}.json").unlink(missing_ok=True)

    def _begin(self, command: Sequence[str | Path], environment: Mapping[str, str]) -> None:
        with (self.home.path / f"{self.kind}.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=SOURCES,
                env=environment,
            )
        self.home.write_json(f"{self.kind}.json", {"pid": process.pid})
