"""The lock that a killed run of the CLI leaves on its stack."""

import json
import os
import re
import socket
from pathlib import Path

import psutil
from pulumi import automation

from data_plane.errors import RunFailedError

__all__ = ["describe_locks", "forget_killed_runs"]

_ENDING_SECONDS = 120
_ORGANIZATION = "organization"


def forget_killed_runs(selected: automation.Stack, backend: Path, project: str) -> list[str]:
    """Removes the locks of killed runs and clears their unfinished operations, and gives what there is to say of it.

    Args:
        selected: the stack. Nobody else on this machine begins to run it meanwhile.
        backend: the folder of the state.
        project: name of the Pulumi project.

    Raises:
        RunFailedError: if a run is still under way, or is another machine's.
    """
    folder = backend / ".pulumi" / "locks" / _ORGANIZATION / project / selected.name
    locks = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.json"))]
    if not locks:
        return []
    for lock in locks:
        _wait_for_end(selected.name, lock["hostname"], int(lock["pid"]))
        _kill_plugins(int(lock["pid"]))
    selected.cancel()
    return [f"a run of stack {selected.name} was killed: its lock is removed{_clear_pending(selected)}"]


def _clear_pending(selected: automation.Stack) -> str:
    """Clears the operations that a killed run has begun, and gives the end of a sentence about them."""
    workspace = selected.workspace
    # By the commands: the Automation API's own export has the secrets in plain text.
    exported = workspace.pulumi_command.run(
        ["stack", "export", "--stack", selected.name], workspace.work_dir, {}
    ).stdout
    deployment = json.loads(exported).get("deployment") or {}
    pending = {
        operation["resource"]["urn"]: operation["type"] for operation in deployment.get("pending_operations") or []
    }
    if not pending:
        return ""
    file = Path(workspace.work_dir) / "state.json"
    file.write_text(exported, encoding="utf-8")
    # Which drops them.
    imported = ["stack", "import", "--stack", selected.name, "--file", str(file)]
    workspace.pulumi_command.run(imported, workspace.work_dir, {})
    file.unlink()
    known = {resource["urn"] for resource in deployment.get("resources") or []}
    if changed := sorted(pending.keys() & known):
        selected.refresh(target=changed, color="never", show_secrets=False)
    created = sorted(urn.rpartition("::")[2] for urn in pending.keys() - known)
    maybe = f"; perhaps made, and not yet in its state: {', '.join(created)}" if created else ""
    return f", {len(pending)} unfinished operations are cleared{maybe}"


def _kill_plugins(pid: int) -> None:
    """Ends the plugins that a killed CLI has left: its session, which nobody else can have while one of them lives."""
    if _is_anothers(pid):
        return
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == pid:
                process.kill()
                process.wait(_ENDING_SECONDS)
        except (psutil.Error, OSError):
            continue


def _is_anothers(pid: int) -> bool:
    """Whether a number is by now another process's, which may be the first of a session of its own."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _wait_for_end(stack: str, host: str, pid: int) -> None:
    """A run whose starter was killed ends by itself, in order."""
    if host != socket.gethostname():
        raise RunFailedError(
            f"stack {stack} is locked by process {pid} on {host}. Once that has ended: pulumi cancel --stack {stack}"
        )
    try:
        process = psutil.Process(pid)
        if "pulumi" in process.name():  # the number may by now be another's
            process.wait(_ENDING_SECONDS)
    except psutil.NoSuchProcess:
        return
    except psutil.TimeoutExpired as error:
        raise RunFailedError(f"process {pid} still runs stack {stack}; try again when it has ended") from error


def describe_locks(stack: str, error: automation.CommandError) -> str:
    """What to do about a lock in a backend that others use, too."""
    holders = re.findall(r"created by \S+@\S+ \(pid \d+\) at \S+", str(error))
    who = f" ({'; '.join(holders)})" if holders else ""
    return (
        f"stack {stack} is locked by another run{who}. If that still goes on, wait for it. If it was killed, and no "
        "process of that number is on that machine any more, remove its lock and read again what it left unfinished:\n"
        f"  pulumi cancel --stack {stack}\n"
        f"  pulumi refresh --clear-pending-creates --stack {stack}"
    )
