"""Committed files that a command writes, or checks to be up to date."""

from collections.abc import Mapping
from pathlib import Path

from data_plane.errors import FileOutdatedError
from data_plane.state_dir import CHECKOUT

__all__ = ["write_or_check"]


def write_or_check(texts: Mapping[Path, str], *, check_only: bool, command: str) -> None:
    """Writes files of the checkout, or looks whether they are as they would be written.

    Args:
        command: what writes them.

    Raises:
        FileOutdatedError: with the first that differs, if they are only checked.
    """
    for file, text in texts.items():
        if not check_only:
            file.write_text(text, encoding="utf-8")
        elif not file.is_file() or file.read_text(encoding="utf-8") != text:
            raise FileOutdatedError(f"{file.relative_to(CHECKOUT)} is out of date: run `{command}`")
