"""What is wrong with somebody's input, said so that it can be mended without reading code."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import pulumi
from pydantic import ValidationError
from pydantic_core import PydanticCustomError

__all__ = ["ConfigurationError", "Problem", "at_field", "problems_of"]

Path = tuple[int | str, ...]
_AT_FIELD = "at_field"
_SHOWN_CHARACTERS = 80


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


def at_field(field: str, found: str, expected: str) -> PydanticCustomError:
    """What a validator of a whole model raises when one of its fields does not fit the others."""
    return PydanticCustomError(_AT_FIELD, "{expected}", {"field": field, "found": found, "expected": expected})


def problems_of(
    error: ValidationError,
    file: str,
    *,
    line_of: Callable[[Path], int] = lambda _path: 0,
    known_keys: Callable[[Path], Iterable[str]],
    skip: int = 0,
) -> Iterator[Problem]:
    """What pydantic found, as problems.

    Args:
        file: where the input is kept.
        line_of: the line of a field.
        known_keys: the keys that an object may have.
        skip: leading parts of pydantic's paths that are no part of the input, such as a union's tag.
    """
    for detail in error.errors(include_url=False):
        path = tuple(part for part in detail["loc"][skip:] if part != "[key]")
        context = detail.get("ctx", {})
        found = repr(detail["input"])
        match detail["type"]:
            case "missing":
                found, expected = "nothing", "this field"
            case "extra_forbidden":
                found, expected = "an unknown key", f"one of: {', '.join(sorted(known_keys(path[:-1])))}"
            case "at_field":
                path, found, expected = (*path, context["field"]), context["found"], context["expected"]
            case "string_pattern_mismatch":
                expected = f"a match of {context['pattern']}"
            case "value_error":
                expected = str(context["error"])
            case _:
                expected = detail["msg"][:1].lower() + detail["msg"][1:]
        field = ".".join(str(part) for part in path) or "document"
        yield Problem(file, line_of(path), field, _clip(found), expected)


def _clip(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 3]}..."
