"""Documents as text, the same for the same content; and files that are whole or not there."""

import difflib
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from data_plane.errors import ServiceBindingError

__all__ = ["GENERATOR", "as_yaml", "difference", "write_whole"]

GENERATOR: Final = "dataplane project binding"
"""What stands at the beginning of every file that this package wrote."""

_HEAD_CHARACTERS = 200


class _Dumper(yaml.SafeDumper):
    """Keys as they come, and text of several lines as a block."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def as_yaml(documents: Iterable[Mapping[str, Any]], notes: Iterable[str]) -> str:
    """YAML documents under a head that says who wrote them.

    Args:
        notes: further lines of the head.
    """
    lines = (f"Written by `{GENERATOR}`, without any secret in it.", *notes)
    head = "".join(f"# {line}".rstrip() + "\n" for line in lines)
    bodies = (
        yaml.dump(dict(document), Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=True)
        for document in documents
    )
    return head + "---\n".join(bodies)


def difference(path: Path, text: str) -> str:
    """What would change of a file, as a unified diff; empty if nothing would.

    Raises:
        ConnectorError: if it cannot be read.
    """
    try:
        there = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ServiceBindingError(f"{path} cannot be read: {_cause(error)}") from error
    lines = (there.splitlines(keepends=True), text.splitlines(keepends=True))
    return "".join(difflib.unified_diff(*lines, fromfile=str(path), tofile="as it would be written"))


def write_whole(path: Path, text: str, *, force: bool) -> None:
    """Writes a file in one step.

    Args:
        force: also over a file that :data:`GENERATOR` did not write.

    Raises:
        ConnectorError: if somebody else's file is there, or it cannot be written.
    """
    draft: Path | None = None
    try:
        if path.exists() and not force and not _is_ours(path):
            raise ServiceBindingError(f"{path} was not written by `{GENERATOR}`: name another file, or add --force")
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        draft = Path(name)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        draft.chmod(0o644)
        draft.replace(path)
    except OSError as error:
        raise ServiceBindingError(f"{path} cannot be written: {_cause(error)}") from error
    finally:
        if draft is not None:
            draft.unlink(missing_ok=True)


def _is_ours(path: Path) -> bool:
    with path.open(encoding="utf-8", errors="replace") as file:
        return GENERATOR in file.read(_HEAD_CHARACTERS)


def _cause(error: OSError | UnicodeDecodeError) -> str:
    return (getattr(error, "strerror", None) or str(error)).lower()
