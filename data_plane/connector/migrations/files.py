"""Migration files: which there are, in which order, and what is in them.

Names and order are the Supabase CLI's: ``<digits>_<name>.sql`` in ``supabase/migrations``, by file name
(https://supabase.com/docs/guides/deployment/database-migrations). SQL under another name is passed over, as there, and
named, because its author meant it to run.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from data_plane.errors import MigrationError

__all__ = [
    "MIGRATION_NAME",
    "MigrationFile",
    "ScriptFile",
    "SeedFile",
    "migration_files",
    "read_script",
    "seed_files",
]

MIGRATION_NAME = re.compile(r"([0-9]+)_(.*)\.sql")
"""The name of a migration: its version and what it is called."""

_SHOWN = 3
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


@dataclass(frozen=True)
class SeedFile(ScriptFile):
    """A file of data."""

    key: str
    """Its path within the folder ``supabase``."""


def migration_files(supabase: Path, on_passed_over: Callable[[Path], None] = lambda _path: None) -> list[MigrationFile]:
    """The migrations of a repository, in the order in which they are run.

    Args:
        supabase: the folder ``supabase``.
        on_passed_over: is told each ``*.sql`` in or below the folder of migrations that is none by its name.

    Raises:
        MigrationError: if there is no folder with migrations, two have one version, one cannot be read, or all were
            passed over.
    """
    folder = supabase / "migrations"
    if not folder.is_dir():
        raise MigrationError(f"there is no folder {folder}: say where `supabase/` is with --folder")
    found: dict[str, MigrationFile] = {}
    passed_over: list[Path] = []
    for path in sorted(folder.rglob("*.sql"), key=lambda path: path.name):
        if not path.is_file():
            continue
        parts = MIGRATION_NAME.fullmatch(path.name)
        if parts is None or path.parent != folder:
            passed_over.append(path)
            on_passed_over(path)
            continue
        version, name = parts.groups()
        if version in found:
            raise MigrationError(
                f"{path} and {found[version].path.name} have one version, {version}: give one of them another"
            )
        found[version] = MigrationFile(path, read_script(path).text, version, name)
    if passed_over and not found:
        shown = ", ".join(str(path.relative_to(folder)) for path in passed_over[:_SHOWN])
        more = f" and {len(passed_over) - _SHOWN} more" if len(passed_over) > _SHOWN else ""
        raise MigrationError(
            f"no file directly in {folder} is named like a migration, <digits>_<name>.sql: "
            f"{shown}{more}. Give each a version, as `dataplane migration new` does"
        )
    return list(found.values())


def read_script(path: Path) -> ScriptFile:
    """A file of SQL.

    Raises:
        MigrationError: if it cannot be read, or is not UTF-8.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise MigrationError(f"{path} is not UTF-8 (byte {error.start}): save it as UTF-8") from error
    except OSError as error:
        raise MigrationError(f"{path} cannot be read: {error.strerror}") from error
    return ScriptFile(path, text.removeprefix(_BOM))


def seed_files(supabase: Path, sql_paths: list[str] | None = None) -> list[SeedFile]:
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
    return [_seed_file(supabase, path.relative_to(root)) for path in chosen]


def _seed_file(supabase: Path, relative: Path) -> SeedFile:
    script = read_script(supabase / relative)
    return SeedFile(script.path, script.text, relative.as_posix())
