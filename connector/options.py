"""What the options of several commands share."""

from typing import Annotated

import typer

from components.durations import parse_duration
from connector.errors import ConnectorError

__all__ = ["EnvironmentOption", "seconds_of"]

EnvironmentOption = Annotated[
    str, typer.Option("--environment", "-e", help="`local`, or a deployed environment under stacks/.")
]


def seconds_of(option: str, text: str) -> int:
    """The seconds that an option says.

    Args:
        option: as it is typed, e.g. ``--for``.

    Raises:
        ConnectorError: if it is no duration.
    """
    try:
        return parse_duration(text)
    except ValueError as error:
        raise ConnectorError(f"{option}: found {text!r}; expected {error}") from None
