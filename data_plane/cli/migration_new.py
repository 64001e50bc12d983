"""``dataplane migration new``: a file for the next migration."""

import os
import stat
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from data_plane.cli.console import messages, stderr, stdout
from data_plane.cli.options import FolderOption, is_given
from data_plane.connector.migrations.new_file import new_migration
from data_plane.connector.project_link import DEFAULT_FOLDER, find_link
from data_plane.errors import MigrationError

__all__ = ["new", "write_new"]


def new(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="What it is called, e.g. add_shelves.")],
    folder: FolderOption = DEFAULT_FOLDER,
) -> None:
    """Make a file for the next migration, with the time as its version. Asks no server.

    What is piped into the command becomes its text.
    """
    with messages():
        path = write_new(_folder(context, folder), name, _piped())
        stdout.print(escape(str(path)))


def write_new(folder: Path, name: str, text: str) -> Path:
    """Makes the file, and says if its place is not the last.

    Raises:
        MigrationError: as :func:`data_plane.connector.migrations.new_file.new_migration`.
    """
    path = new_migration(folder, name, text)
    later = [other.name for other in path.parent.glob("*.sql") if other.name > path.name and other.name[0].isdigit()]
    if later:
        stderr.print(
            f"[yellow]{escape(max(later))} comes after it by name: where that is applied, this takes --include-all[/]",
        )
    return path


def _folder(context: typer.Context, folder: Path) -> Path:
    """The folder that was given; else the one that the repository remembers."""
    link = None if is_given(context, "folder") else find_link(Path.cwd())
    return folder if link is None else link.supabase


def _piped() -> str:
    """What another command writes to this one's standard input, or a file; nothing from a terminal."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError, AttributeError):
        return ""
    if not (stat.S_ISFIFO(mode) or stat.S_ISREG(mode)):
        return ""
    if stat.S_ISFIFO(mode):
        stderr.print("[dim]reading SQL from standard input to its end[/]")
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise MigrationError(f"standard input is not UTF-8 (byte {error.start})") from None
