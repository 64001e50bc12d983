"""Property bags as they travel between the SDK and an engine: secrets and unknown values are marked inside them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf import struct_pb2
from pulumi.runtime import rpc

__all__ = ["UNKNOWN", "Properties", "has_unknown"]

UNKNOWN: str = rpc.UNKNOWN
"""Stands for a value that is known only once something has been applied."""

_SIGNATURE: str = rpc._special_sig_key  # noqa: SLF001
_SECRET: str = rpc._special_secret_sig  # noqa: SLF001


@dataclass
class Properties:
    """Plain values, and the names of those at the top that are secret or contain a secret."""

    values: dict[str, Any] = field(default_factory=dict)
    secrets: set[str] = field(default_factory=set)

    @classmethod
    def decode(cls, struct: struct_pb2.Struct) -> "Properties":
        """From the wire. Null properties are left out, as an engine does."""
        result = cls()
        for key, value in struct.fields.items():
            plain, secret = _decode(value)
            if plain is not None:
                result.values[key] = plain
            if secret:
                result.secrets.add(key)
        return result

    def encode(self) -> struct_pb2.Struct:
        """For the wire."""
        struct = struct_pb2.Struct()
        for key, value in self.values.items():
            struct[key] = {_SIGNATURE: _SECRET, "value": value} if key in self.secrets else value
        return struct

    def without(self, names: Iterable[str]) -> "Properties":
        """A copy that lacks some properties."""
        left_out = set(names)
        return Properties({k: v for k, v in self.values.items() if k not in left_out}, self.secrets - left_out)

    def updated(self, values: Mapping[str, Any]) -> "Properties":
        """A copy with further or other values."""
        return Properties({**self.values, **values}, set(self.secrets))

    @property
    def unknown(self) -> bool:
        """Whether any value in it is not known yet."""
        return has_unknown(self.values)


def has_unknown(value: Any) -> bool:
    """Whether a value is unknown or contains something that is."""
    if isinstance(value, dict):
        return any(has_unknown(item) for item in value.values())
    if isinstance(value, list):
        return any(has_unknown(item) for item in value)
    return bool(value == UNKNOWN)


def _decode(value: struct_pb2.Value) -> tuple[Any, bool]:
    match value.WhichOneof("kind"):
        case "struct_value":
            fields = value.struct_value.fields
            if _SIGNATURE in fields and fields[_SIGNATURE].string_value == _SECRET:
                return _decode(fields["value"])[0], True
            items = {key: _decode(item) for key, item in fields.items()}
            return {key: plain for key, (plain, _) in items.items() if plain is not None}, _any_secret(items.values())
        case "list_value":
            elements = [_decode(item) for item in value.list_value.values]
            return [plain for plain, _ in elements], _any_secret(elements)
        case "number_value":
            number = value.number_value
            return int(number) if number.is_integer() else number, False
        case "string_value":
            return value.string_value, False
        case "bool_value":
            return value.bool_value, False
        case _:
            return None, False


def _any_secret(pairs: Iterable[tuple[Any, bool]]) -> bool:
    return any(secret for _, secret in pairs)
