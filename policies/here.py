"""Files beside a program: what its charts, manifests and compose files say, where they are here."""

from collections.abc import Iterator
from pathlib import Path

from policies.texts import TEXT_MAX_CHARACTERS
from policies.unknown import is_unknown

__all__ = ["folder_here", "text_here", "texts_here"]

_ROOT = Path(__file__).resolve().parents[1]


def _bases() -> tuple[Path, ...]:
    # The engine runs the pack in its own folder, and the program in that of its Pulumi.yaml.
    return Path.cwd(), _ROOT


def text_here(name: object) -> str:
    """The text of a file; empty if it is not here, no regular file, or too large."""
    return next(texts_here(name), "")


def texts_here(name: object) -> Iterator[str]:
    """The texts of the files that a name or a pattern with ``*`` stands for."""
    if not isinstance(name, str) or not name or is_unknown(name) or "\0" in name:
        return
    for base in _bases():
        found = sorted(base.glob(name)) if "*" in name and not name.startswith("/") else [base / name]
        files = [path for path in found if path.is_file() and path.stat().st_size <= TEXT_MAX_CHARACTERS]
        yield from (path.read_text(encoding="utf-8", errors="replace") for path in files)
        if files:
            return


def folder_here(name: object) -> Path | None:
    """A folder; None if it is not here."""
    if not isinstance(name, str) or not name or is_unknown(name) or "://" in name:
        return None
    return next((base / name for base in _bases() if (base / name).is_dir()), None)
