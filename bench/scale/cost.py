"""What something costs: time on the clock, time of processors, memory."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import psutil

from data_plane.local.environment import LocalEnvironment
from data_plane.state_dir import CHECKOUT

__all__ = ["Cost", "run_stack", "server_time"]


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
def server_time(local_env: LocalEnvironment) -> Iterator[list[ServerTime]]:
    """Puts into the list what the servers have used meanwhile."""
    used: list[ServerTime] = []
    before = _server_time(local_env)
    yield used
    after = _server_time(local_env)
    used.append(ServerTime(after.postgresql - before.postgresql, after.openbao - before.openbao))


def run_stack(local_env: LocalEnvironment, folder: Path, stack: str, action: str) -> Cost:
    """Runs a stack in a process of its own.

    Args:
        action: ``up``, ``preview`` or ``sdk`` (:mod:`bench.scale.child`).
    """
    command = [sys.executable, "-m", "bench.scale.child", str(folder), stack, action]
    start = time.perf_counter()
    with server_time(local_env) as servers:
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


def _server_time(local_env: LocalEnvironment) -> ServerTime:
    home = local_env.servers.home
    pid = (home.path / "postgres" / "postmaster.pid").read_text(encoding="utf-8").split()[0]
    postmaster, openbao = psutil.Process(int(pid)), psutil.Process(int(home.read_json("openbao.json")["pid"]))
    return ServerTime(sum(map(_used, [postmaster, *postmaster.children()])), _used(openbao))


def _used(process: psutil.Process) -> float:
    """Of a process and of its children that have ended."""
    try:
        return float(sum(process.cpu_times()[:4]))
    except psutil.NoSuchProcess:
        return 0.0
