"""Puts the providers where the Pulumi CLI looks for plugins."""

from importlib import metadata
from pathlib import Path

from data_plane.engine.python_program import write_python_program

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
        module = ["pulumi.dynamic"] if name == _DYNAMIC else ["data_plane.local.providers", name]
        write_python_program(folder / f"resource-{name}-v{version(name)}" / f"pulumi-resource-{name}", "-m", *module)
