"""Sizes as people write them (``512KiB``, ``50MiB``, ``2GiB``), kept as whole bytes."""

import re
from typing import Annotated

from pydantic import BeforeValidator, Field, PlainSerializer

__all__ = ["Size", "format_size", "parse_size"]

_BYTES = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_PATTERN = r"^[1-9][0-9]{0,5}(KiB|MiB|GiB|TiB)$"


def parse_size(text: object) -> int:
    """Bytes of a size.

    Raises:
        ValueError: if it is not a whole number with one of the units KiB, MiB, GiB, TiB.
    """
    if isinstance(text, str) and (match := re.fullmatch(_PATTERN.strip("^$"), text)):
        return int(text.removesuffix(match[1])) * _BYTES[match[1]]
    raise ValueError("a whole number with its unit: KiB, MiB, GiB or TiB, e.g. 50MiB")


def format_size(size: int) -> str:
    """The shortest way to write it: 52428800 is ``50MiB``."""
    for unit in reversed(_BYTES):
        if size and size % _BYTES[unit] == 0:
            return f"{size // _BYTES[unit]}{unit}"
    return f"{size}B"


Size = Annotated[
    int,
    BeforeValidator(parse_size, json_schema_input_type=Annotated[str, Field(pattern=_PATTERN)]),
    PlainSerializer(format_size, when_used="json-unless-none"),
]
"""A pydantic field that reads ``50MiB``, holds 52428800, and is written as it was read."""
