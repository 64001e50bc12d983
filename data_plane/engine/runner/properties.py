"""Plain property values and which of them are secret, as they travel between a program, an engine and a provider."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf import struct_pb2
from pulumi.provider.experimental.property_value import PropertyValue
from pulumi.runtime import rpc

__all__ = ["UNKNOWN", "Properties", "at_path", "has_unknown", "steps_of", "with_path", "without_paths"]

_STEP = re.compile(r'\.?([^.\[\]"]+)|\["([^"]+)"\]|\[(\d+)\]')

UNKNOWN: str = rpc.UNKNOWN
"""Stands for a value that is known only once something has been applied."""


@dataclass
class Properties:
    """Plain values, and the names of those at the top that are secret or contain a secret."""

    values: dict[str, Any] = field(default_factory=dict)
    secrets: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, values: Mapping[str, PropertyValue]) -> "Properties":
        """From the SDK's form. Null properties are left out, as an engine does."""
        return cls(_plain_map(values), {key for key, value in values.items() if value.contains_secret()})

    @classmethod
    def decode(cls, struct: struct_pb2.Struct) -> "Properties":
        """From the wire."""
        return cls.of(PropertyValue.unmarshal_map(struct))

    def marked(self) -> dict[str, PropertyValue]:
        """In the SDK's form."""
        return {key: _marked(value).with_secret(key in self.secrets) for key, value in self.values.items()}

    def encode(self) -> struct_pb2.Struct:
        """For the wire."""
        return PropertyValue.marshal_map(self.marked())

    def without(self, names: Iterable[str]) -> "Properties":
        """A copy that lacks some properties."""
        left_out = set(names)
        return Properties({k: v for k, v in self.values.items() if k not in left_out}, self.secrets - left_out)

    @property
    def unknown(self) -> bool:
        """Whether any value in it is not known yet."""
        return has_unknown(self.values)


def has_unknown(value: Any) -> bool:
    """Whether a value is unknown or contains something that is."""
    if isinstance(value, Mapping):
        return any(has_unknown(item) for item in value.values())
    if isinstance(value, list):
        return any(has_unknown(item) for item in value)
    return bool(value == UNKNOWN)


def at_path(values: Any, path: str) -> Any:
    """The value at a property path (``a.b``, ``a["b.c"]``, ``a[0]``), or None."""
    for step in steps_of(path):
        try:
            values = values[step]
        except (KeyError, IndexError, TypeError):
            return None
    return values


def with_path(values: Any, path: str, value: Any) -> Any:
    """A copy with a value at a property path, or without it if the value is None; missing objects are made."""
    return _set(values, steps_of(path), value)


def without_paths(values: Mapping[str, Any], paths: Iterable[str]) -> dict[str, Any]:
    """A copy without what is at some property paths."""
    for path in paths:
        values = with_path(values, path, None)
    return dict(values)


def steps_of(path: str) -> list[str | int]:
    """The steps of a property path.

    Raises:
        NotImplementedError: if it is no such path; wildcards are none.
    """
    steps: list[str | int] = []
    position = 0
    while position < len(path):
        match = _STEP.match(path, position)
        if match is None or "*" in match.group():
            raise NotImplementedError(f"the local runner cannot ignore changes of {path!r}: name a single field")
        plain, quoted, number = match.groups()
        steps.append(int(number) if number is not None else plain or quoted)
        position = match.end()
    return steps


def _set(values: Any, steps: list[str | int], value: Any) -> Any:
    first, *rest = steps
    if isinstance(values, list) and isinstance(first, int) and first < len(values):
        return [_set(item, rest, value) if rest else value if at == first else item for at, item in enumerate(values)]
    if not isinstance(values, Mapping) or (value is None and first not in values):
        return values
    inner = _set(values.get(first, {}), rest, value) if rest else value
    return {key: item for key, item in {**values, first: inner}.items() if key != first or item is not None}


def _plain_map(values: Mapping[str, PropertyValue]) -> dict[str, Any]:
    return {key: _plain(value) for key, value in values.items() if value.value is not None}


def _plain(value: PropertyValue) -> Any:
    match value.value:
        case None | bool() | str():
            return value.value
        case float() as number:
            return int(number) if number.is_integer() else number
        case tuple() as items:
            return [_plain(item) for item in items]
        case Mapping() as items:
            return _plain_map(items)
    raise NotImplementedError(f"a property that is {value.type.value} is not supported here")


def _marked(value: Any) -> PropertyValue:
    if isinstance(value, Mapping):
        return PropertyValue({key: _marked(item) for key, item in value.items()})
    if isinstance(value, list | tuple):
        return PropertyValue([_marked(item) for item in value])
    if isinstance(value, int) and not isinstance(value, bool):
        return PropertyValue(float(value))
    return PropertyValue(value)
