"""A file for the next migration, named as the Supabase CLI names it."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

from data_plane.connector.migrations.files import MIGRATION_NAME
from data_plane.errors import MigrationError

__all__ = ["new_migration"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


def new_migration(supabase: Path, name: str, text: str, now: datetime | None = None) -> Path:
    """Writes ``migrations/<UTC timestamp>_<name>.sql``, whole and over no other file.

    Args:
        supabase: the folder ``supabase``; made if it is missing.
        name: words; blanks become underscores.
        now: another time than the present.

    Raises:
        MigrationError: if the name is none, or the file cannot be written.
    """
    slug = "_".join(name.split())
    if not _NAME.fullmatch(slug):
        raise MigrationError(f"the name of a migration: found {name!r}; expected letters, digits, '_', '-' and '.'")
    folder = supabase / "migrations"
    moment = now or datetime.now(UTC)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        taken = {parts[1] for path in folder.iterdir() if (parts := MIGRATION_NAME.fullmatch(path.name))}
        while (version := moment.strftime("%Y%m%d%H%M%S")) in taken:
            moment += timedelta(seconds=1)
        path = folder / f"{version}_{slug}.sql"
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise MigrationError(f"{error.filename or folder}: no file can be written there: {error.strerror}") from error
    return path
