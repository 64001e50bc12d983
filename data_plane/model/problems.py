"""What is wrong with input, in words that tell how to correct it: file, line, field, found, expected."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from data_plane.errors import DataPlaneError
from data_plane.model.durations import format_duration, parse_duration
from data_plane.model.patterns import describe_pattern
from data_plane.model.sizes import format_size, parse_size

__all__ = ["ConfigurationError", "Problem", "at_field", "describe", "keys_at", "problems_of"]

Path = tuple[int | str, ...]
_AT_FIELD = "at_field"
_SHOWN_CHARACTERS = 80
_EXPECTED = {
    "string_type": "text; put a number or a date in quotes",
    "string_too_short": "text of at least {min_length} character(s)",
    "string_too_long": "text of at most {max_length} characters",
    "int_type": "a whole number, e.g. 10",
    "int_parsing": "a whole number, e.g. 10",
    "int_from_float": "a whole number, e.g. 10",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list, e.g. [a, b]",
    "tuple_type": "a list, e.g. [a, b]",
    "dict_type": "a mapping: keys with values",
    "union_tag_invalid": "one of: {expected_tags}",
    "union_tag_not_found": "this field",
}
"""What is right, for those of pydantic's error types that are said in the same words each time."""


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


class ConfigurationError(DataPlaneError):
    """A project file or a stack's settings are wrong. Holds every problem found; nothing was applied."""

    code = "configuration"

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
    model: type[BaseModel],
    *,
    line_of: Callable[[Path], int] = lambda _path: 0,
    skip: int = 0,
) -> Iterator[Problem]:
    """What pydantic found, as problems.

    Args:
        file: where the input is kept.
        model: what the input is to be.
        line_of: the line of a field.
        skip: leading parts of pydantic's paths that are no part of the input, such as a union's tag.
    """
    for detail in error.errors(include_url=False):
        if detail["type"] == "default_factory_not_called":
            continue  # only follows from another problem
        path = tuple(part for part in detail["loc"][skip:] if part != "[key]")
        context = detail.get("ctx", {})
        match detail["type"]:
            case "missing":
                found, expected = "nothing", "this field"
            case "extra_forbidden":
                found, expected = "an unknown key", f"one of: {', '.join(keys_at(model, path[:-1]))}"
            case "at_field":
                path = (*path, *context["field"].split("."))
                found, expected = context["found"], context["expected"]
            case "model_type":
                keys = ", ".join(keys_at(model, path))
                found, expected = describe(detail["input"]), f"a mapping with keys of: {keys}" if keys else "a mapping"
            case _:
                found, expected = describe(detail["input"]), _expected(detail)
        field = ".".join(str(part) for part in path) or "document"
        yield Problem(file, line_of(path), field, _clip(found), expected)


def keys_at(model: type[BaseModel], path: Path) -> list[str]:
    """The keys that an input may have at a place, in order."""
    found: Iterable[Any] = [model]
    for part in path:
        found = [below for annotation in found for below in _below(annotation, part)]
    models = [annotation for annotation in found if _is_model(annotation)]
    return sorted({field.alias or name for item in models for name, field in item.model_fields.items()})


def _below(annotation: Any, part: int | str) -> Iterator[Any]:
    """The types that something of a type has under a key."""
    if get_origin(annotation) in (dict, list, tuple):
        yield from _alternatives(next(item for item in reversed(get_args(annotation)) if item is not Ellipsis))
    elif _is_model(annotation):
        for name, field in annotation.model_fields.items():
            if part in (name, field.alias):
                yield from _alternatives(field.annotation)


def _alternatives(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) in (Union, UnionType, Annotated):
        for item in get_args(annotation):
            yield from _alternatives(item)
    else:
        yield annotation


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def describe(value: object) -> str:
    """A value from somebody's input, in a few words."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case Mapping():
            return f"a mapping with {', '.join(map(str, value))}" if value else "an empty mapping"
        case list() | tuple():
            if not value:
                return "an empty list"
            plain = all(isinstance(item, str | int) for item in value)
            return f"[{', '.join(map(str, value))}]" if plain else f"a list of {len(value)}"
        case _:
            return repr(value)


def _expected(detail: ErrorDetails) -> str:
    """What would be right instead of an input."""
    context = detail.get("ctx", {})
    kind = detail["type"]
    if kind in _EXPECTED:
        return _EXPECTED[kind].format_map(context)
    match kind:
        case "string_pattern_mismatch":
            return describe_pattern(context["pattern"])
        case "value_error":
            return str(context["error"])
        case "enum" | "literal_error":
            return f"one of: {context['expected'].replace(' or ', ', ').replace(chr(39), '')}"
        case "too_short" | "too_long":
            bound, least = context.get("min_length"), "at least"
            if bound is None:
                bound, least = context["max_length"], "at most"
            return f"{least} {bound} entr{'y' if bound == 1 else 'ies'}"
        case "greater_than_equal":
            return f"at least {_bound(detail['input'], context['ge'])}"
        case "less_than_equal":
            return f"at most {_bound(detail['input'], context['le'])}"
        case _:
            return detail["msg"][:1].lower() + detail["msg"][1:]


def _bound(given: object, bound: int) -> str:
    """A bound in the unit in which somebody has written the value."""
    for parse, form in ((parse_duration, format_duration), (parse_size, format_size)):
        try:
            parse(given)
        except ValueError:
            continue
        return form(bound)
    return str(bound)


def _clip(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 3]}..."
