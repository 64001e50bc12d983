"""What is wrong with somebody's input, said so that it can be mended without reading code."""

from collections.abc import Iterable
from dataclasses import dataclass

import pulumi

__all__ = ["ConfigurationError", "Problem"]


@dataclass(frozen=True, order=True)
class Problem:
    """One thing that is wrong in one place.

    Args:
        file: the file, relative to the checkout where it lies inside it.
        line: 1-based; 0 where the whole file is meant.
        field: dotted path of the setting, e.g. ``limits.lease_ttl``.
        found: what stands there.
        expected: what would be right.
    """

    file: str
    line: int
    field: str
    found: str
    expected: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.field}: found {self.found}; expected {self.expected}"


class ConfigurationError(pulumi.RunError):
    """Input that cannot be used. Holds every problem found; nothing has been applied when it is raised."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = sorted(problems)
        count = len(self.problems)
        head = f"{count} problem{'s' if count != 1 else ''} in the configuration; nothing was applied:"
        super().__init__("\n".join([head, *(f"  {problem}" for problem in self.problems)]))
