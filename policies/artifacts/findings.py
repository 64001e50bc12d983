"""Findings of the check: what is forbidden, and what could not be checked."""

from dataclasses import dataclass, field
from pathlib import PurePosixPath

__all__ = ["INSTEAD", "RULE", "Finding", "Place", "Problem", "Report", "UncheckedError"]

RULE = "bundled_database_service_forbidden"
INSTEAD = (
    "Attach the project to the central Supabase instead: a file stacks/<environment>/projects/<slug>.yaml in the data"
    " plane's repository, then `dataplane lease` for a connection"
)


@dataclass(frozen=True, order=True)
class Place:
    """Where something stands: a file under the root, and line and column from 1."""

    file: PurePosixPath
    line: int = 1
    column: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, order=True)
class Finding:
    """A database, or another part of a Supabase, that a project brings along."""

    place: Place
    service: str
    why: str


@dataclass(frozen=True, order=True)
class Problem:
    """What could not be checked, and so is no pass."""

    place: Place
    message: str


@dataclass
class Report:
    """Everything about one run."""

    findings: set[Finding] = field(default_factory=set)
    problems: set[Problem] = field(default_factory=set)
    files: set[PurePosixPath] = field(default_factory=set)

    @property
    def exit_code(self) -> int:
        """0: nothing is forbidden; 1: something is; 2: something could not be checked."""
        return 2 if self.problems else 1 if self.findings else 0


class UncheckedError(Exception):
    """A file, or a part of one, cannot be checked.

    Args:
        place: where.
        message: what was wrong and what would be right.
    """

    def __init__(self, place: Place, message: str) -> None:
        super().__init__(f"{place}: {message}")
        self.problem = Problem(place, message)


class MalformedError(UncheckedError):
    """A text is no YAML at all, which whatever tool is given it reports as well."""
