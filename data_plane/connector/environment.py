"""The environment variables of the caller: what the programs that this command starts get of them.

Programs of the platform get none that says what an interpreter imports, and look for other programs in absolute folders
only: the current folder is whatever somebody is checking. A command under ``run`` gets what the caller has, without the
credentials that its lease stands in for.
"""

import os
import re
from collections.abc import Mapping

__all__ = ["command_environment", "isolate"]

_OURS = re.compile(r"DATA_PLANE_(ROLE_ID|SECRET_ID|TOKEN)(_FILE)?")
"""What a workload signs in with, and where it lies."""
_OPENBAOS = re.compile(r"(VAULT|BAO)_(.*_)?(TOKEN|SECRET|PASSWORD|PASSCODE|JWT|KEY|ROLE_ID)(_.*)?")
"""OpenBao's tokens and whatever else signs in there; not its address, namespace or certificate authority."""
_STATES = re.compile(r"PULUMI_(ACCESS_TOKEN|CONFIG_PASSPHRASE(_FILE)?)")
"""What opens the state of the stacks, in which the platform's secrets are."""
_LIBPQS = re.compile(r"PG(?!APPNAME$).*")
"""What the caller has for libpq would come before what the lease's service file says."""
_WITHHELD = (_OURS, _OPENBAOS, _STATES, _LIBPQS)

_PLUGINS, _NONE = "PYDANTIC_DISABLE_PLUGINS", "__all__"
"""Looking for Pydantic's plugins reads what every installed package says of itself; whatever one is, it is not run."""

_taken: dict[str, str] = {}
"""What :func:`isolate` has changed, as it was."""


def isolate() -> None:
    """Takes out of this process's environment what lets the current folder decide which code runs."""
    for name in [name for name in os.environ if name.startswith("PYTHON")]:
        _taken[name] = os.environ.pop(name)
    if _PLUGINS in os.environ:
        _taken[_PLUGINS] = os.environ[_PLUGINS]
    os.environ[_PLUGINS] = _NONE
    path = os.environ.get("PATH")
    if path is not None:
        _taken["PATH"] = path
        os.environ["PATH"] = os.pathsep.join(filter(os.path.isabs, path.split(os.pathsep)))


def command_environment(lease: Mapping[str, str | None]) -> dict[str, str]:
    """What a command is started with that is to have a lease and nothing else of the platform's.

    Args:
        lease: the lease's variables; None where this lease has none, so that no other lease's is left in its place.
    """
    callers = {**{name: value for name, value in os.environ.items() if (name, value) != (_PLUGINS, _NONE)}, **_taken}
    kept = {name: value for name, value in callers.items() if not any(rule.fullmatch(name) for rule in _WITHHELD)}
    return {name: value for name, value in {**kept, **lease}.items() if value is not None}
