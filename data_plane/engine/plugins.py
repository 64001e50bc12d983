"""The plugins that the CLI needs for the program: which are missing, and the ones that are scripts of this Python."""

import hashlib
import json
import os
import shlex
import shutil
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from pulumi import automation

from data_plane.engine.command import Command, errors_in
from data_plane.engine.python_program import write_python_program
from data_plane.errors import EngineError

__all__ = ["missing_plugins", "refuse_missing", "write_dynamic_plugin", "write_policy_pack"]

_SDKS = {"kubernetes": "pulumi-kubernetes", "postgresql": "pulumi-postgresql", "vault": "pulumi-vault"}


def missing_plugins(command: Command, folder: Path, variables: Mapping[str, str]) -> dict[str, str]:
    """The providers that the CLI has no plugin of: name to the version that the SDK here asks for."""
    attached = {item.partition(":")[0] for item in os.environ.get("PULUMI_DEBUG_PROVIDERS", "").split(",")}
    path = os.pathsep.join([str(Path(command.command).parent), os.environ.get("PATH", "")])
    wanted = {name: metadata.version(sdk) for name, sdk in _SDKS.items()}
    left = {
        name: version
        for name, version in wanted.items()
        if name not in attached and not shutil.which(f"pulumi-resource-{name}", path=path)
    }
    if not left:
        return {}
    try:
        listed = json.loads(command.run(["plugin", "ls", "--json"], str(folder), variables).stdout or "[]")
    except automation.CommandError as error:
        raise EngineError(f"the plugins of the Pulumi CLI cannot be listed: {errors_in(error)}") from error
    there = {(plugin["name"], plugin.get("version")) for plugin in listed if plugin["kind"] == "resource"}
    return {name: version for name, version in left.items() if (name, version) not in there}


def refuse_missing(missing: Mapping[str, str]) -> None:
    """Says which plugins have to be installed first, and how.

    Raises:
        DataPlaneError: if any is missing.
    """
    if missing:
        commands = [f"  pulumi plugin install resource {name} v{version}" for name, version in sorted(missing.items())]
        raise EngineError(
            "\n".join(
                [f"the Pulumi CLI lacks its plugins {', '.join(sorted(missing))}; install them first:", *commands]
            )
        )


def write_dynamic_plugin(folder: Path) -> None:
    """Makes the plugin of dynamic resources: the official one needs an environment that a stack's settings name."""
    write_python_program(folder / "pulumi-resource-pulumi-python", "-m", "pulumi.dynamic")


def write_policy_pack(pack: Path, folder: Path) -> Path:
    """Makes a program that serves a policy pack with this Python, as ``--policy-pack`` takes it.

    One for all copies of a checkout that an action makes for a while, in which the pack is a link.
    """
    pack = pack.resolve()
    key = hashlib.sha256(bytes(pack)).hexdigest()[:16]
    program = folder / f"policy-pack-{key}"
    return write_python_program(program, "-m", "pulumi.policy", last=f'"$1" {shlex.quote(str(pack))}')
