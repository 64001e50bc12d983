"""Variables in compose files (https://github.com/compose-spec/compose-spec, 12-interpolation)."""

import re
from collections.abc import Mapping

from policies.artifacts.variables import UNKNOWN

__all__ = ["VariableSyntaxError", "interpolated", "read_variables"]

_LENGTH_MAX = 16_384
"""Characters that a value may have once its variables are in it."""
_DEPTH_MAX = 16
_FILE_MAX_CHARACTERS = 1_000_000
"""Of all values of a file together; those after that are not known."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LINE = re.compile(r"(?:export\s+)?(?P<name>[A-Za-z_][\w.]*)\s*(?:=|:)\s*(?P<value>.*)", re.DOTALL)


class VariableSyntaxError(ValueError):
    """The text is none that Compose could put variables into."""


def interpolated(text: str, variables: Mapping[str, str]) -> str:
    """A text with its variables put in; one without a value is empty, as Compose has it.

    One that has to be given (``${X:?…}``) and is not becomes :data:`UNKNOWN`.

    Raises:
        VariableSyntaxError: for what Compose could not read either.
    """
    return _Reader(text, variables).read() if "$" in text else text


class _Reader:
    def __init__(self, text: str, variables: Mapping[str, str]) -> None:
        self._text, self._variables = text, variables

    def read(self) -> str:
        found, _ = self._until(0, "", 0)
        return found

    def _until(self, at: int, end: str, depth: int) -> tuple[str, int]:
        """What stands up to an end sign, and where that is."""
        if depth > _DEPTH_MAX:
            raise VariableSyntaxError(f"variables are nested deeper than {_DEPTH_MAX} levels")
        parts: list[str] = []
        length = 0
        while at < len(self._text):
            sign = self._text[at]
            if sign == end:
                return "".join(parts), at
            if sign != "$":
                part, at = sign, at + 1
            else:
                part, at = self._variable(at + 1, depth)
            parts.append(part)
            length += len(part)
            if length > _LENGTH_MAX:
                raise VariableSyntaxError(f"with its variables it has more than {_LENGTH_MAX} characters")
        if end:
            raise VariableSyntaxError("a `${` is never closed")
        return "".join(parts), at

    def _variable(self, at: int, depth: int) -> tuple[str, int]:
        if self._text[at : at + 1] == "$":
            return "$", at + 1
        braces = self._text[at : at + 1] == "{"
        name = _NAME.match(self._text, at + braces)
        if name is None:
            raise VariableSyntaxError("a `$` is followed by no name; a plain one is written `$$`")
        value = self._variables.get(name.group())
        if not braces:
            return value or "", name.end()
        return self._operation(name.end(), value, depth)

    def _operation(self, at: int, value: str | None, depth: int) -> tuple[str, int]:
        if self._text[at : at + 1] == "}":
            return value or "", at + 1
        empty_counts = self._text[at : at + 1] == ":"
        operator = self._text[at + empty_counts : at + empty_counts + 1]
        if operator not in {"-", "?", "+"}:
            raise VariableSyntaxError("expected `${NAME}`, or one of `:-`, `-`, `:?`, `?`, `:+`, `+` after the name")
        other, end = self._until(at + empty_counts + 1, "}", depth + 1)
        given = bool(value) if empty_counts else value is not None
        if operator == "+":
            return (other if given else ""), end + 1
        if not given and operator == "?":
            return UNKNOWN, end + 1
        return (value or "" if given else other), end + 1


def read_variables(text: str) -> dict[str, str]:
    """The variables of an ``.env`` file; lines that set none are passed over."""
    found: dict[str, str] = {}
    room = _FILE_MAX_CHARACTERS
    for line in text.splitlines():
        match = _LINE.match(line.strip())
        if match is None:
            continue
        value = match["value"]
        quoted = re.match(r"""(["'])(.*?)(?<!\\)\1""", value)
        if quoted:
            value = quoted.group(2)
            if quoted.group(1) == "'":
                found[match["name"]] = value
                continue
        else:
            value = _without_comment(value)
        try:
            filled = interpolated(value, found)
        except VariableSyntaxError:
            filled = UNKNOWN
        room -= len(filled)
        found[match["name"]] = filled if room > 0 else UNKNOWN
    return found


def _without_comment(value: str) -> str:
    before, sign, _ = value.partition(" #")
    return before.rstrip() if sign else value
