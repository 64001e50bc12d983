"""The file in a repository that remembers its project: ``.dataplane.toml``.

    project = "my-app"
    environment = "prod"     # `local` unless given
    folder = "supabase"      # within the repository; this unless given

It comes with a checkout, so its author is not trusted. It says nothing but these names: no address, no
credential, no path outside of the repository, no environment that the stacks here do not declare. What is used of it is
shown each time, and a project on the command line wins over all of it.

``project_id`` in ``supabase/config.toml`` is no project's slug: `supabase init` takes the name of the folder for it.
Nor is there a place for ours in that file, of which the Supabase CLI refuses what it does not know.
"""

import json
import os
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_plane.connector.whole_file import write_whole
from data_plane.errors import LinkError
from data_plane.model.naming import SLUG_PATTERN
from data_plane.state_dir import CHECKOUT, ENVIRONMENT

__all__ = ["DEFAULT_FOLDER", "LINK_FILE", "ProjectLink", "find_link", "write_link"]

LINK_FILE = ".dataplane.toml"
DEFAULT_FOLDER = Path("supabase")
"""What the Supabase CLI makes in a repository."""

_KEYS = ("project", "environment", "folder")
_MAX_BYTES = 4096
_HEADER = "# The project of the central Supabase that this repository is of; written by `dataplane project link`.\n"


@dataclass(frozen=True)
class ProjectLink:
    """What a repository remembers."""

    path: Path
    """The file."""
    project: str
    environment: str = ENVIRONMENT
    folder: Path = DEFAULT_FOLDER
    """The folder ``supabase``, from the file's own."""

    @property
    def supabase(self) -> Path:
        """The same, from the current folder."""
        return Path(os.path.relpath(self.path.parent / self.folder))


def find_link(start: Path, root: Path = CHECKOUT) -> ProjectLink | None:
    """What the nearest file says, from a folder up to the repository's top; without a repository, in the folder alone.

    Args:
        start: where the command was called.
        root: the checkout of the program, which knows the environments.

    Raises:
        ConnectorError: if the file is not one to go by.
    """
    start = start.resolve()
    top = _top(start)
    for folder in _upwards(start, top):
        path = folder / LINK_FILE
        if path.is_symlink() or path.exists():
            return _read(path, top, root)
    return None


def write_link(
    start: Path, project: str, environment: str, folder: Path | None = None, root: Path = CHECKOUT
) -> ProjectLink:
    """Remembers a project at the top of the repository; without one, in the folder itself.

    Args:
        folder: the folder ``supabase``, from the start; the one that is there, else the repository's.

    Raises:
        ConnectorError: if it could not be read back.
    """
    start = start.resolve()
    top = _top(start)
    if folder is None:
        folder = start / DEFAULT_FOLDER if (start / DEFAULT_FOLDER).is_dir() else top / DEFAULT_FOLDER
    relative = Path(os.path.relpath(start / folder, top))
    link = ProjectLink(top / LINK_FILE, project, environment, relative)
    found = {"project": project, "environment": environment, "folder": relative.as_posix()}
    _checked(link.path, found, top, root)
    if link.path.is_symlink() or (link.path.exists() and not link.path.is_file()):
        raise LinkError(f"{link.path} is not a regular file: remove it")
    lines = [f"{key} = {json.dumps(found[key])}\n" for key in _KEYS]
    try:
        write_whole(link.path, _HEADER + "".join(lines))
    except OSError as error:
        raise LinkError(f"{link.path} cannot be written: {error.strerror}") from error
    return link


def _top(start: Path) -> Path:
    return next((folder for folder in (start, *start.parents) if (folder / ".git").exists()), start)


def _upwards(start: Path, top: Path) -> Iterator[Path]:
    for folder in (start, *start.parents):
        yield folder
        if folder == top:
            return


def _read(path: Path, top: Path, root: Path) -> ProjectLink:
    if path.is_symlink() or not path.is_file():
        raise LinkError(f"{path} is not a regular file: replace it by one, or give --project")
    owner = path.stat().st_uid
    if owner not in {os.geteuid(), 0}:
        raise LinkError(f"{path} belongs to another user (uid {owner}), so it is ignored: give --project")
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_BYTES + 1)
        if len(text) > _MAX_BYTES:
            raise LinkError(f"{path} is longer than {_MAX_BYTES} bytes: it holds {', '.join(_KEYS)} alone")
        found = tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise LinkError(f"{path} is not TOML: {error}") from error
    except OSError as error:
        raise LinkError(f"{path} cannot be read: {error.strerror}") from error
    return _checked(path, found, top, root)


def _checked(path: Path, found: dict[str, Any], top: Path, root: Path) -> ProjectLink:
    wrong = [key for key in found if key not in _KEYS]
    if wrong:
        raise LinkError(f"{path}: found {wrong[0]!r}; expected {', '.join(_KEYS)} alone")
    project = found.get("project")
    if not isinstance(project, str) or not re.fullmatch(SLUG_PATTERN.strip("^$"), project):
        raise LinkError(f"{path}: project: found {project!r}; expected a project's slug, {SLUG_PATTERN}")
    environment = found.get("environment", ENVIRONMENT)
    stacks = root / "stacks"
    known = sorted({ENVIRONMENT, *(folder.parent.name for folder in stacks.glob("*/projects"))})
    # Without a checkout there is only what a file with a binding says, of whatever environment that is.
    if not isinstance(environment, str) or (stacks.is_dir() and environment not in known):
        raise LinkError(f"{path}: environment: found {environment!r}; expected one of {', '.join(known)}")
    folder = found.get("folder", DEFAULT_FOLDER.as_posix())
    place = path.parent / folder if isinstance(folder, str) and "\0" not in folder else None
    if place is None or Path(folder).is_absolute() or not place.resolve().is_relative_to(top):
        raise LinkError(f"{path}: folder: found {folder!r}; expected a folder within {top}")
    return ProjectLink(path, project, environment, Path(folder))
