"""The reference of all errors: ``python -m data_plane.connector.error_reference`` writes it as Markdown.

Its picture of the tree is in the docstring of :mod:`data_plane.errors`, too.
"""

import inspect
import sys
from collections.abc import Iterator
from importlib import import_module
from pkgutil import walk_packages

from data_plane.errors import DataPlaneError

__all__ = ["error_classes", "error_markdown", "error_tree"]

_PACKAGES = ("data_plane", "components")
_SCRIPTS = ("__main__", "object_store")
"""Modules that are run and never imported."""


def error_classes() -> list[type[DataPlaneError]]:
    """Every error class that a user may see, a base before its subclasses, siblings by name."""
    _import_all()
    return [found for found, _ in _walk(DataPlaneError, 0)]


def error_tree() -> str:
    """The tree of the classes with their codes, indented by depth."""
    _import_all()
    rows = [(f"{'  ' * depth}{found.__name__}", found.code) for found, depth in _walk(DataPlaneError, 0)]
    width = max(len(name) for name, _ in rows) + 2
    return "\n".join(f"{name:<{width}}{code}" for name, code in rows)


def error_markdown() -> str:
    """A table of all codes, for ``docs/reference/errors.md``."""
    rows = [
        f"| `{found.code}` | `{found.__name__}` | {_first_line(found)} |"
        for found in sorted(error_classes(), key=lambda found: found.code)
        if found is not DataPlaneError
    ]
    return "\n".join(["| code | class | meaning |", "| --- | --- | --- |", *rows, ""])


def _import_all() -> None:
    for package in _PACKAGES:
        for module in walk_packages(import_module(package).__path__, f"{package}."):
            if module.name.rpartition(".")[2] not in _SCRIPTS:
                import_module(module.name)


def _walk(base: type[DataPlaneError], depth: int) -> Iterator[tuple[type[DataPlaneError], int]]:
    yield base, depth
    for found in sorted(base.__subclasses__(), key=lambda found: found.__name__):
        # Private classes are caught where they are raised. A test's own are nobody's.
        if not found.__name__.startswith("_") and found.__module__.partition(".")[0] in _PACKAGES:
            yield from _walk(found, depth + 1)


def _first_line(found: type[DataPlaneError]) -> str:
    return " ".join((inspect.getdoc(found) or "").split("\n\n")[0].split()).replace("``", "`")


if __name__ == "__main__":
    sys.stdout.write(error_markdown())
