"""Image references, and whether one is a PostgreSQL."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

from policies.tables import table

__all__ = ["Family", "Image", "classify", "external_settings", "image_reason", "standalone_supabase", "switched_off"]

_DIGEST = re.compile(r"^[a-z0-9]+(?:[+._-][a-z0-9]+)*:[0-9a-fA-F]{32,}$")
_WORDS = re.compile(r"[-_.+]+")
_VERSION = re.compile(r"-v?\d+$")


class Family(StrEnum):
    """What an image is to these policies."""

    DATABASE = "a PostgreSQL server"
    OPERATOR = "an operator that creates PostgreSQL servers"
    SUPABASE = "a part of Supabase"
    BUNDLED = (
        "an application with a PostgreSQL server inside (its documentation says how to give it another one's address)"
    )


@dataclass(frozen=True)
class Image:
    """A reference to an image: ``[registry[:port]/]path[:tag][@digest]``."""

    registry: str
    path: tuple[str, ...]
    tag: str
    digest: str

    @classmethod
    def parse(cls, reference: str) -> "Image":
        """Takes a reference apart; accepts whatever is a string, since a mistake in it is the cluster's to report."""
        text = reference.strip().removeprefix("docker-pullable://")
        text = re.sub(r"^[a-z]+(?:\+[a-z]+)?://", "", text)
        rest, _, digest = text.partition("@")
        before, slash, last = rest.rpartition("/")
        last, _, tag = last.partition(":")
        if ":" in tag:
            # A tag has no colon: `docker:postgres:16` is of LXD's remote `docker`.
            last, _, tag = tag.partition(":")
        parts = [part for part in f"{before}{slash}{last}".split("/") if part]
        registry = ""
        if len(parts) > 1 and (re.search(r"[.:]", parts[0]) or parts[0].lower() == "localhost"):
            registry, *parts = parts
        return cls(registry.lower(), tuple(part.lower() for part in parts), tag, digest.lower())

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path[-1] if self.path else ""

    @property
    def pinned(self) -> bool:
        """Whether the same reference always gives the same image: by digest, or an exact version as its tag."""
        return bool(_DIGEST.match(self.digest)) or (not self.digest and _is_exact(self.tag))

    @property
    def part_of_supabase(self) -> str:
        """Which service of Supabase's stack it is, of those that others run too; empty if none."""
        return next((name for name in _data().stack if self.name in {name, f"{name}-gateway"}), "")


def classify(reference: str) -> Family | None:
    """What an image is to these policies; None if nothing that they forbid on its own."""
    return _classify(Image.parse(reference).path)


def image_reason(reference: str) -> str:
    """What an image is that these policies forbid, in words; empty if it is none."""
    family = classify(reference)
    return f"image {reference} is {family.value}" if family else ""


def standalone_supabase(parts: Collection[str]) -> str:
    """Which part of Supabase shows that several make a stack by themselves; empty if they do not.

    Args:
        parts: as :attr:`Image.part_of_supabase` has them.
    """
    core = [part for part in ("gotrue", "postgrest") if part in parts]
    return core[0] if core and len(parts) > 1 else ""


def switched_off(reference: str, variables: Mapping[str, str]) -> bool:
    """Whether an application's image, with these variables, leaves out the server that it brings."""
    entry = _bundled(Image.parse(reference).path) or {}
    off: Mapping[str, str] = entry.get("without", {})
    return any(fnmatchcase(variables.get(name, ""), pattern) for name, pattern in off.items())


def external_settings(reference: str) -> str:
    """The variables by which an application's image is given another server; empty if they are not known."""
    entry = _bundled(Image.parse(reference).path) or {}
    return " or ".join(entry.get("without", {}))


@dataclass(frozen=True)
class _Data:
    words: frozenset[str]
    repositories: frozenset[tuple[str, ...]]
    names: frozenset[str]
    organisations: frozenset[str]
    operators: frozenset[str]
    clients: frozenset[str]
    client_organisations: frozenset[str]
    unless: frozenset[str]
    bundled: Mapping[tuple[str, ...], Mapping[str, Any]]
    stack: tuple[str, ...]


@cache
def _data() -> _Data:
    data = table("images.yaml")
    databases, clients = data["databases"], data["clients"]
    return _Data(
        words=frozenset(databases["words"]),
        repositories=frozenset(tuple(entry.split("/")) for entry in databases["repositories"]),
        names=frozenset(databases["names"]),
        organisations=frozenset(databases["organisations"]),
        operators=frozenset(data["operators"]["names"]),
        clients=frozenset(clients["words"]),
        client_organisations=frozenset(clients["organisations"]),
        unless=frozenset(clients["unless"]),
        bundled={tuple(name.split("/")): entry for name, entry in data["bundled"].items()},
        stack=tuple(data["stack"]),
    )


@cache
def _classify(path: tuple[str, ...]) -> Family | None:
    if not path:
        return None
    data, name = _data(), path[-1]
    if name in data.operators:
        return Family.OPERATOR
    # `compute-node-v16` is the repository of one version of `compute-node`.
    last_two = (*path[-2:-1], _VERSION.sub("", name))
    if name in data.names or path[-2:] in data.repositories or last_two in data.repositories:
        return Family.DATABASE
    if _bundled(path) is not None:
        return Family.BUNDLED
    words = {word.rstrip("0123456789") for word in _WORDS.split(name)}
    client = bool(words & data.clients and not words & data.unless) or bool(
        data.client_organisations & set(path[-2:-1])
    )
    server = bool(words & data.words) and not client
    if data.organisations & set(path[:-1]):
        return Family.DATABASE if server else Family.SUPABASE
    # An image may be published under a bare name in a repository of the product's: `cloudnative-pg/postgresql`.
    return Family.DATABASE if server else None


def _bundled(path: tuple[str, ...]) -> Mapping[str, Any] | None:
    return _data().bundled.get(path[-2:])


def _is_exact(tag: str) -> bool:
    # At least major.minor, or a date, or a commit: `17`, `latest`, `stable`, `v2` move.
    return bool(
        re.search(r"\d+\.\d+", tag) or re.fullmatch(r"(?:sha-)?[0-9a-f]{7,40}", tag) or re.search(r"\d{8,}", tag)
    )
