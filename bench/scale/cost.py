"""What something costs: time on the clock, time of processors, memory."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from embedded.home import CHECKOUT
from embedded.workplace import Workplace

__all__ = ["Cost", "run_stack", "server_time"]

_TICK = os.sysconf("SC_CLK_TCK")


@dataclass
class Cost:
    """What one or more runs took."""

    seconds: float = 0.0
    """On the clock, with the start of the interpreter."""
    processor_seconds: float = 0.0
    """Of the run's own processes, the policy pack's included."""
    postgresql_seconds: float = 0.0
    """Processor time of the server."""
    openbao_seconds: float = 0.0
    resident_mib: float = 0.0
    """The most that a process of a run had at any time."""
    created: int = 0
    updated: int = 0
    same: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        added = {field.name: getattr(self, field.name) + getattr(other, field.name) for field in fields(self)}
        return Cost(**{**added, "resident_mib": max(self.resident_mib, other.resident_mib)})

    def times(self, factor: float) -> "Cost":
        """What as many such runs take, one after the other."""
        scaled = {field.name: getattr(self, field.name) * factor for field in fields(self)}
        return Cost(**{**scaled, "resident_mib": self.resident_mib})

    def as_dict(self) -> dict[str, float]:
        """For the results file."""
        return {key: round(value, 4) for key, value in asdict(self).items()}


@dataclass(frozen=True)
class ServerTime:
    """Processor seconds of the servers."""

    postgresql: float
    openbao: float


@contextmanager
def server_time(workplace: Workplace) -> Iterator[list[ServerTime]]:
    """Puts into the list what the servers have used meanwhile."""
    used: list[ServerTime] = []
    before = _server_time(workplace)
    yield used
    after = _server_time(workplace)
    used.append(ServerTime(after.postgresql - before.postgresql, after.openbao - before.openbao))


def run_stack(workplace: Workplace, folder: Path, stack: str, action: str) -> Cost:
    """Runs a stack in a process of its own.

    Args:
        action: ``up``, ``preview`` or ``sdk`` (:mod:`bench.scale.child`).
    """
    command = [sys.executable, "-m", "bench.scale.child", str(folder), stack, action]
    start = time.perf_counter()
    with server_time(workplace) as servers:
        process = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    if process.returncode != 0:
        raise RuntimeError(f"{action} of {stack} failed:\n{process.stderr}")
    done: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return Cost(
        time.perf_counter() - start,
        done["processor_seconds"],
        servers[0].postgresql,
        servers[0].openbao,
        done["resident_mib"],
        done["created"],
        done["updated"],
        done["same"],
    )


def _server_time(workplace: Workplace) -> ServerTime:
    home = workplace.servers.home
    postmaster = int((home.path / "postgres" / "postmaster.pid").read_text(encoding="utf-8").split()[0])
    children = [
        pid
        for pid in map(int, filter(str.isdecimal, (path.name for path in Path("/proc").iterdir())))
        if _parent(pid) == postmaster
    ]
    openbao = int(home.read_json("openbao.json")["pid"])
    return ServerTime(_used(postmaster) + sum(map(_used, children)), _used(openbao))


def _stat(pid: int) -> list[str]:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return []
    return text.rpartition(")")[2].split()


def _parent(pid: int) -> int:
    found = _stat(pid)
    return int(found[1]) if found else 0


def _used(pid: int) -> float:
    """Of a process and of its children that have ended."""
    found = _stat(pid)
    return sum(map(int, found[11:15])) / _TICK if found else 0.0
