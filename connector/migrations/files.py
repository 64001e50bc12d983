"""Migration files: which there are, in which order, and what is in them.

Names and order are the Supabase CLI's: ``<digits>_<name>.sql`` in ``supabase/migrations``, by file name
(https://supabase.com/docs/guides/deployment/database-migrations). What has another name is no migration and left
alone, as there.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from connector.errors import MigrationError

__all__ = ["DEFAULT_FOLDER", "MigrationFile", "ScriptFile", "migration_files", "read_script", "seed_files"]

DEFAULT_FOLDER = Path("supabase")
"""What the Supabase CLI makes in a repository."""

_NAME = re.compile(r"([0-9]+)_(.*)\.sql")
_DEFAULT_SEEDS = ["./seed.sql"]
_BOM = "\N{ZERO WIDTH NO-BREAK SPACE}"


@dataclass(frozen=True)
class ScriptFile:
    """A file of SQL."""

    path: Path
    text: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the text, whatever its line endings: a checkout on another system is the same file."""
        return hashlib.sha256(self.text.replace("\r\n", "\n").encode()).hexdigest()


@dataclass(frozen=True)
class MigrationFile(ScriptFile):
    """One migration."""

    version: str
    """The digits before the name, as they stand there."""
    name: str


def migration_files(supabase: Path) -> list[MigrationFile]:
    """The migrations of a repository, in the order in which they are run.

    Args:
        supabase: the folder ``supabase``.

    Raises:
        MigrationError: if there is no folder with migrations, two have one version, or one cannot be read.
    """
    folder = supabase / "migrations"
    if not folder.is_dir():
        raise MigrationError(f"there is no folder {folder}: say where `supabase/` is with --folder")
    found: dict[str, MigrationFile] = {}
    for path in sorted(folder.iterdir(), key=lambda path: path.name):
        parts = _NAME.fullmatch(path.name)
        if parts is None or not path.is_file():
            continue
        version, name = parts.groups()
        if version in found:
            raise MigrationError(
                f"{path} and {found[version].path.name} have one version, {version}: give one of them another"
            )
        found[version] = MigrationFile(path, read_script(path).text, version, name)
    return list(found.values())


def read_script(path: Path) -> ScriptFile:
    """A file of SQL.

    Raises:
        MigrationError: if it cannot be read, or is not UTF-8.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise MigrationError(f"{path} is not UTF-8 (byte {error.start}): save it as UTF-8") from None
    except OSError as error:
        raise MigrationError(f"{path} cannot be read: {error.strerror}") from None
    return ScriptFile(path, text.removeprefix(_BOM))


def seed_files(supabase: Path, sql_paths: list[str] | None = None) -> list[ScriptFile]:
    """The seed files of a repository, in order.

    Args:
        supabase: the folder ``supabase``.
        sql_paths: ``db.seed.sql_paths`` of its ``config.toml``: paths and patterns within the folder.

    Raises:
        MigrationError: if one is outside of the folder or cannot be read.
    """
    root = supabase.resolve()
    chosen: dict[Path, None] = {}
    for pattern in _DEFAULT_SEEDS if sql_paths is None else sql_paths:
        relative = pattern.removeprefix("./")
        if Path(relative).is_absolute() or ".." in Path(relative).parts:
            raise MigrationError(f"{supabase / 'config.toml'}: db.seed.sql_paths: {pattern!r} is outside of {supabase}")
        chosen.update(dict.fromkeys(path for path in sorted(root.glob(relative)) if path.is_file()))
    return [read_script(supabase / path.relative_to(root)) for path in chosen]
