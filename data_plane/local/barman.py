"""Barman, got once from its wheel and kept in the user's cache.

It has an environment of its own: on a cluster, too, it is a program in another image and no part of this one. Its pins
are in ``barman-requirements.txt``, made by ``uv pip compile --universal --generate-hashes`` from ``barman``, ``boto3``
and ``psycopg2-binary``, which stands in for the ``psycopg2`` that Barman names and that is to be had as source only.
"""

from collections.abc import Callable
from pathlib import Path

from data_plane.local.tool_environments import install_tool

__all__ = ["install_barman"]

_REQUIREMENTS = Path(__file__).with_name("barman-requirements.txt")


def install_barman(say: Callable[[str], None]) -> Path:
    """The folder with Barman's programs, and a Python that has boto3.

    Args:
        say: is told if it has to be installed first.

    Raises:
        ServerError: if it cannot be installed.
    """
    return install_tool("Barman", _REQUIREMENTS, say)
