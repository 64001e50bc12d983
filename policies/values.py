"""Plain data: what stands at a path, and whether it fits a pattern."""

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from policies.unknown import is_unknown

__all__ = ["entries_of", "looked_up", "mappings", "matches", "text_of", "texts_of", "values_at"]


def looked_up(document: object, path: str) -> object:
    """The value at a dotted path; None if there is none."""
    for key in path.split("."):
        if not isinstance(document, Mapping):
            return document if is_unknown(document) else None
        document = document.get(key)
    return document


def values_at(document: object, path: str) -> Iterator[object]:
    """The values at a dotted path, whose keys count in any case; ``[]`` after a key is each entry of its list."""
    if not path:
        yield document
        return
    key, _, rest = path.partition(".")
    if is_unknown(document):
        yield document
    if not isinstance(document, Mapping):
        return
    name = key.removesuffix("[]").lower()
    found = next((value for own, value in document.items() if str(own).lower() == name), None)
    if found is None:
        return
    for value in found if key.endswith("[]") and isinstance(found, list) else [found]:
        yield from values_at(value, rest)


def matches(value: object, pattern: str) -> bool:
    """Whether a value fits one of the patterns (``a|b``), whatever its case. One that is not known yet may: it does."""
    if is_unknown(value):
        return True
    return isinstance(value, str) and any(fnmatchcase(value.lower(), one.lower()) for one in pattern.split("|"))


def text_of(value: object) -> str:
    """A value as a text; empty if it is a list, a mapping, nothing, or not known yet."""
    return "" if value is None or is_unknown(value) or isinstance(value, Mapping | list) else str(value)


def texts_of(value: object) -> list[str]:
    """The texts of a list, or the one that stands in its place."""
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [text_of(entry) for entry in value]
    return [text_of(value)] if text_of(value) else []


def entries_of(value: object) -> list[Any]:
    """The entries of a list; none if it is none."""
    return value if isinstance(value, list) else []


def mappings(value: object) -> list[Mapping[str, Any]]:
    """The mappings of a list."""
    return [entry for entry in entries_of(value) if isinstance(entry, Mapping)]
