"""Variables in compose files (https://github.com/compose-spec/compose-spec, 12-interpolation)."""

import re
from collections.abc import Mapping

__all__ = ["UndefinedVariableError", "interpolated", "read_variables"]

_LENGTH_MAX = 16_384
"""Characters that a value may have once its variables are in it."""
_DEPTH_MAX = 16
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LINE = re.compile(r"^\s*(?:export\s+)?(?P<name>[A-Za-z_][\w.]*)\s*(?:=|:)\s*(?P<value>.*?)\s*$")


class UndefinedVariableError(ValueError):
    """The text needs a variable (``${X:?…}``) that has no value, or is no text with variables at all."""


def interpolated(text: str, variables: Mapping[str, str]) -> str:
    """A text with its variables put in; one without a value is empty, as Compose has it.

    Raises:
        UndefinedVariableError: for ``${X:?…}`` without a value, or what Compose could not read either.
    """
    return _Reader(text, variables).read()


class _Reader:
    def __init__(self, text: str, variables: Mapping[str, str]) -> None:
        self._text, self._variables = text, variables

    def read(self) -> str:
        found, _ = self._until(0, "", 0)
        return found

    def _until(self, at: int, end: str, depth: int) -> tuple[str, int]:
        """What stands up to an end sign, and where that is."""
        if depth > _DEPTH_MAX:
            raise UndefinedVariableError(f"variables are nested deeper than {_DEPTH_MAX} levels")
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
                raise UndefinedVariableError(f"with its variables it has more than {_LENGTH_MAX} characters")
        if end:
            raise UndefinedVariableError("a `${` is never closed")
        return "".join(parts), at

    def _variable(self, at: int, depth: int) -> tuple[str, int]:
        if self._text[at : at + 1] == "$":
            return "$", at + 1
        braces = self._text[at : at + 1] == "{"
        name = _NAME.match(self._text, at + braces)
        if name is None:
            raise UndefinedVariableError("a `$` is followed by no name; a plain one is written `$$`")
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
            raise UndefinedVariableError("expected `${NAME}`, or one of `:-`, `-`, `:?`, `?`, `:+`, `+` after the name")
        other, end = self._until(at + empty_counts + 1, "}", depth + 1)
        given = bool(value) if empty_counts else value is not None
        if operator == "+":
            return (other if given else ""), end + 1
        if not given and operator == "?":
            raise UndefinedVariableError(f"a variable that it needs has no value ({other or 'required'})")
        return (value or "" if given else other), end + 1


def read_variables(text: str) -> dict[str, str]:
    """The variables of an ``.env`` file; lines that set none are passed over."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        match = _LINE.match(line)
        if match is None or line.lstrip().startswith("#"):
            continue
        value = match["value"]
        quoted = re.match(r"""(["'])(.*?)(?<!\\)\1""", value)
        if quoted:
            value = quoted.group(2)
            if quoted.group(1) == "'":
                found[match["name"]] = value
                continue
        else:
            value = re.sub(r"\s+#.*$", "", value)
        try:
            found[match["name"]] = interpolated(value, found)
        except UndefinedVariableError:
            found[match["name"]] = value
    return found
