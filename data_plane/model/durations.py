"""Durations as people write them (``90s``, ``15m``, ``24h``, ``7d``), kept as whole seconds."""

import re
from collections.abc import Iterable
from typing import Annotated

from pydantic import BeforeValidator, Field, PlainSerializer

__all__ = ["Duration", "format_duration", "format_go_duration", "parse_duration"]

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_PATTERN = r"^[1-9][0-9]{0,8}[smhd]$"


def parse_duration(text: object) -> int:
    """Seconds of a duration.

    Raises:
        ValueError: if it is not a whole number with one of the units s, m, h, d.
    """
    if isinstance(text, str) and re.fullmatch(_PATTERN.strip("^$"), text):
        return int(text[:-1]) * _SECONDS[text[-1]]
    raise ValueError("a whole number with its unit: s, m, h or d, e.g. 15m")


def format_duration(seconds: int, units: Iterable[str] = ("d", "h", "m")) -> str:
    """The shortest way to write it: 900 is ``15m``."""
    for unit in units:
        if seconds and seconds % _SECONDS[unit] == 0:
            return f"{seconds // _SECONDS[unit]}{unit}"
    return f"{seconds}s"


def format_go_duration(seconds: int) -> str:
    """The same for Kubernetes and what else is written in Go, which knows no days: 86400 is ``24h``."""
    return format_duration(seconds, ("h", "m"))


Duration = Annotated[
    int,
    BeforeValidator(parse_duration, json_schema_input_type=Annotated[str, Field(pattern=_PATTERN)]),
    PlainSerializer(format_duration, when_used="json"),
]
"""A pydantic field that reads ``15m``, holds 900, and is written as it was read."""
