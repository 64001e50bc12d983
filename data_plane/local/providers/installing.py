"""Puts the providers where the Pulumi CLI looks for plugins."""

import os
import shlex
import sys
from importlib import metadata
from pathlib import Path
from threading import get_ident

from data_plane.state_dir import CHECKOUT

__all__ = ["install_plugins", "version"]

_DYNAMIC = "pulumi-python"
_SDKS = {
    "kubernetes": "pulumi-kubernetes",
    "postgresql": "pulumi-postgresql",
    "vault": "pulumi-vault",
    _DYNAMIC: "pulumi",
}


def version(name: str) -> str:
    """The version of a provider that its SDK asks for."""
    return metadata.version(_SDKS[name])


def install_plugins(folder: Path) -> None:
    """Makes the folder a cache of plugins that run with this Python, each in the version that its SDK here asks for.

    Args:
        folder: ``plugins`` in a ``PULUMI_HOME`` of their own: official plugins lie there under the same names.
    """
    for name in _SDKS:
        place = folder / f"resource-{name}-v{version(name)}"
        place.mkdir(parents=True, exist_ok=True)
        module = ["pulumi.dynamic"] if name == _DYNAMIC else ["data_plane.local.providers", name]
        command = shlex.join([sys.executable, "-u", "-m", *module])
        path = f'PYTHONPATH={shlex.quote(str(CHECKOUT))}"${{PYTHONPATH:+:$PYTHONPATH}}"'
        program = place / f"pulumi-resource-{name}"
        text = f'#!/bin/sh\nexport {path}\nexec {command} "$@"\n'
        # Another run may be starting it: a file that is being written cannot be.
        if not program.is_file() or program.read_text(encoding="utf-8") != text:
            draft = place / f".{program.name}.{os.getpid()}.{get_ident()}"
            draft.write_text(text, encoding="utf-8")
            draft.chmod(0o755)
            draft.replace(program)
