"""Policies of OpenBao as data: which paths they name, and what they allow there.

They are written in HCL 1. The readers of HCL 2 that there are for Python take other texts for valid and lose repeated
blocks, of which OpenBao honours each; isolation cannot rest on that. So what is not understood here is refused.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

__all__ = ["PathRule", "UnreadablePolicyError", "read_policy"]

_TOKENS = re.compile(
    r"""(?P<blank>\s+|\#[^\n]*|//[^\n]*|/\*.*?\*/)|"(?P<text>(?:[^"\\\n]|\\.)*)"|(?P<word>[A-Za-z_][\w-]*)|(?P<sign>[{}\[\]=,])"""
    r"""|(?P<number>-?\d+(?:\.\d+)?)""",
    re.DOTALL,
)


class UnreadablePolicyError(ValueError):
    """A policy that cannot be read, so cannot be judged."""


@dataclass(frozen=True)
class PathRule:
    """One ``path`` block."""

    path: str
    capabilities: frozenset[str]
    allowed: Mapping[str, object] = field(default_factory=dict, compare=False)
    """``allowed_parameters``: values that a request's fields may have, by field."""


def read_policy(text: str) -> list[PathRule]:
    """The rules of a policy, which is HCL or JSON.

    Only what OpenBao's policies are made of is understood: ``path "…" { name = value }``.

    Raises:
        UnreadablePolicyError: if it is anything else.
    """
    if text.lstrip().startswith("{"):
        return list(_from_json(text))
    return list(_Reader(text).rules())


def _from_json(text: str) -> Iterator[PathRule]:
    try:
        document = json.loads(text)
        blocks = document["path"]
        # An object, or a list of objects where a path is given twice.
        for block in blocks if isinstance(blocks, list) else [blocks]:
            for path, rules in block.items():
                for rule in rules if isinstance(rules, list) else [rules]:
                    yield PathRule(path, frozenset(_capabilities(rule)), _allowed(rule))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnreadablePolicyError('expected {"path": {"…": {"capabilities": […]}}}') from error


def _capabilities(rule: dict[str, object]) -> list[str]:
    given = rule.get("capabilities", [])
    old = rule.get("policy")
    if not isinstance(given, list) or not all(isinstance(entry, str) for entry in given):
        raise TypeError
    # `policy = "sudo"` is how capabilities were once said, and still works.
    return [*given, *([str(old)] if old is not None else [])]


def _allowed(rule: dict[str, object]) -> dict[str, object]:
    given = rule.get("allowed_parameters", {})
    if not isinstance(given, dict):
        raise TypeError
    return given


class _Reader:
    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, str]] = []
        at = 0
        while at < len(text):
            found = _TOKENS.match(text, at)
            if found is None:
                raise UnreadablePolicyError(f"not understood: {text[at : at + 20]!r}")
            at = found.end()
            kind = found.lastgroup or ""
            if kind != "blank":
                self._tokens.append((kind, found[kind]))
        self._at = 0

    def rules(self) -> Iterator[PathRule]:
        while self._at < len(self._tokens):
            if self._next() != ("word", "path"):
                raise UnreadablePolicyError("expected `path`")
            kind, path = self._next()
            if kind != "text":
                raise UnreadablePolicyError("expected a path in quotes")
            if self._peek() == ("sign", "="):
                self._next()
            body = self._block()
            try:
                yield PathRule(path.replace('\\"', '"'), frozenset(_capabilities(body)), _allowed(body))
            except TypeError as error:
                raise UnreadablePolicyError(
                    f"the capabilities of {path} are no list of words, or its allowed_parameters are no block"
                ) from error

    def _block(self) -> dict[str, object]:
        self._sign("{")
        found: dict[str, object] = {}
        while self._peek() != ("sign", "}"):
            kind, name = self._next()
            if kind not in {"word", "text"}:
                raise UnreadablePolicyError(f"expected a name, not {name!r}")
            if self._peek() == ("sign", "{"):
                found[name] = self._block()
                continue
            self._sign("=")
            if name in found:
                raise UnreadablePolicyError(f"{name} is given twice")
            found[name] = self._value()
            if self._peek() == ("sign", ","):
                self._next()
        self._next()
        return found

    def _value(self) -> object:
        kind, text = self._peek()
        if (kind, text) == ("sign", "{"):
            return self._block()
        self._next()
        if (kind, text) != ("sign", "["):
            if kind == "sign":
                raise UnreadablePolicyError(f"expected a value, not {text!r}")
            return text
        values: list[object] = []
        while self._peek() != ("sign", "]"):
            values.append(self._value())
            if self._peek() == ("sign", ","):
                self._next()
        self._next()
        return values

    def _sign(self, wanted: str) -> None:
        if self._next() != ("sign", wanted):
            raise UnreadablePolicyError(f"expected {wanted!r}")

    def _peek(self) -> tuple[str, str]:
        if self._at >= len(self._tokens):
            raise UnreadablePolicyError("it ends too early")
        return self._tokens[self._at]

    def _next(self) -> tuple[str, str]:
        token = self._peek()
        self._at += 1
        return token
