"""Ports and processes of the local servers."""

import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

from embedded.errors import ServerError
from embedded.home import Home

__all__ = ["is_free", "is_process", "port_for", "stop_process", "tail", "wait_until"]

LOOPBACK = "127.0.0.1"
_NAME_CHARACTERS = 15  # what Linux keeps of a program's name


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of the loopback address."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def port_for(server: str, home: Home) -> int:
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
        with socket.socket() as probe:
            probe.bind((LOOPBACK, 0))
            port = int(probe.getsockname()[1])
    elif not is_free(port):
        raise ServerError(
            f"port {port} on {LOOPBACK}, which {server} uses, is taken by another program. "
            f"Stop that program, or set {variable} to a free port and run the same command again."
        )
    if ports.get(server) != port:
        home.write_json("ports.json", {**ports, server: port})
    return port


def wait_until(ready: Callable[[], bool], seconds: float) -> bool:
    """Whether something came true in time."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def is_process(pid: int, name: str) -> bool:
    """Whether a process is there and is the program ``name``, not some other that got its number since."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        try:
            os.kill(pid, 0)
        except OSError:
            return False
        return not Path("/proc/self").exists()  # no /proc here (macOS): the number has to do
    found, _, rest = status.partition("(")[2].rpartition(")")
    return found == name[:_NAME_CHARACTERS] and not rest.startswith(" Z")


def stop_process(pid: int, is_running: Callable[[], bool], name: str, seconds: float = 20) -> None:
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
