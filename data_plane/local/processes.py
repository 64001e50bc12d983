"""Ports and processes of the local servers."""

import os
import secrets
import signal
import socket
import time
from collections.abc import Callable, Collection
from pathlib import Path

import psutil

from data_plane.errors import ServerError
from data_plane.state_dir import StateDir

__all__ = [
    "ADMIN_USER",
    "LOOPBACK",
    "free_port",
    "is_free",
    "is_process",
    "port_for",
    "stop_process",
    "tail",
    "wait_until",
]

LOOPBACK = "127.0.0.1"
ADMIN_USER = "supabase_admin"
"""PostgreSQL's superuser."""
_NAME_CHARACTERS = 15  # what Linux keeps of a program's name
_PORTS = range(12000, 20000)
_PORT_TRIES = 1000


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of the loopback address."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def free_port(besides: Collection[int] = ()) -> int:
    """A port of the loopback address that nobody has.

    None that the kernel gives to connections: one of any program might get it before the server listens, or while it
    is down.

    Args:
        besides: ports that are somebody's who does not listen now.

    Raises:
        ServerError: if there is none.
    """
    candidates = (secrets.choice(_PORTS) for _ in range(_PORT_TRIES))  # not `random`: tests seed it alike
    for port in candidates:
        if port not in besides and is_free(port):
            return port
    raise ServerError(f"no port from {_PORTS.start} to {_PORTS.stop} is free on {LOOPBACK}.")


def port_for(server: str, home: StateDir) -> int:
    """The port of a server that is not running: the one it is told to have, else the one it had, else a free one.

    ``DATA_PLANE_<SERVER>_PORT`` tells it. The port is remembered, because leases and OpenBao's configuration name it.

    Raises:
        ServerError: if that port is taken or is no port.
    """
    variable = f"DATA_PLANE_{server.upper()}_PORT"
    told = os.environ.get(variable)
    if told is not None and not (told.isdecimal() and 0 < int(told) < 65536):
        raise ServerError(f"{variable} is {told!r}; expected a port from 1 to 65535.")
    ports: dict[str, int] = home.read_json("ports.json") or {}
    port = int(told) if told else ports.get(server)
    if port is None:
        port = free_port(ports.values())
    elif not is_free(port):
        raise ServerError(
            f"port {port} on {LOOPBACK}, which {server} uses, is taken by another program. "
            f"Stop that program, or set {variable} to a free port and run the same command again."
        )
    if ports.get(server) != port:
        home.write_json("ports.json", {**ports, server: port})
    return port


def wait_until(ready: Callable[[], bool], seconds: float, poll_seconds: float = 0.05) -> bool:
    """Whether something came true in time."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            return False
        time.sleep(poll_seconds)
    return True


def is_process(pid: int, name: str) -> bool:
    """Whether a process is there and is the program ``name``, not some other that got its number since."""
    try:
        process = psutil.Process(pid)
        found = process.name()[:_NAME_CHARACTERS]
        return bool(found == name[:_NAME_CHARACTERS] and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def stop_process(pid: int, is_running: Callable[[], bool], name: str, seconds: float = 60) -> None:
    """Asks a process to end and waits for it.

    Raises:
        ServerError: if it does not.
    """
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return
    if not wait_until(lambda: not is_running(), seconds):
        raise ServerError(f"{name} (process {pid}) did not stop within {seconds:.0f} s; end it and try again.")


def tail(path: Path, lines: int = 5) -> str:
    """The end of a log, for a message."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "(no log)"
    return "\n".join(f"    {line}" for line in text.strip().splitlines()[-lines:]) or "(empty log)"
