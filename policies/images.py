"""Image references, and whether one is a PostgreSQL."""

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path

import yaml

__all__ = ["Family", "Image", "classify"]

_DATA = Path(__file__).parent / "data" / "images.yaml"
_DIGEST = re.compile(r"^[a-z0-9]+(?:[+._-][a-z0-9]+)*:[0-9a-fA-F]{32,}$")
_WORDS = re.compile(r"[-_.+]+")


class Family(StrEnum):
    """What an image is to these policies."""

    DATABASE = "a PostgreSQL server"
    OPERATOR = "an operator that creates PostgreSQL servers"
    SUPABASE = "a part of Supabase"


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


@dataclass(frozen=True)
class _Data:
    words: frozenset[str]
    repositories: frozenset[tuple[str, ...]]
    names: frozenset[str]
    organisations: frozenset[str]
    operators: frozenset[str]
    clients: frozenset[str]
    stack: tuple[str, ...]


@cache
def _data() -> _Data:
    data = yaml.safe_load(_DATA.read_text(encoding="utf-8"))
    databases = data["databases"]
    return _Data(
        words=frozenset(databases["words"]),
        repositories=frozenset(tuple(entry.split("/")) for entry in databases["repositories"]),
        names=frozenset(databases["names"]),
        organisations=frozenset(databases["organisations"]),
        operators=frozenset(data["operators"]["names"]),
        clients=frozenset(data["clients"]["words"]),
        stack=tuple(data["stack"]),
    )


@cache
def _classify(path: tuple[str, ...]) -> Family | None:
    if not path:
        return None
    data, name = _data(), path[-1]
    if name in data.operators:
        return Family.OPERATOR
    if name in data.names or any(path[-len(entry) :] == entry for entry in data.repositories):
        return Family.DATABASE
    words = {word.rstrip("0123456789") for word in _WORDS.split(name)}
    server = bool(words & data.words) and not words & data.clients
    if data.organisations & set(path[:-1]):
        return Family.DATABASE if server else Family.SUPABASE
    # An image may be published under a bare name in a repository of the product's: `cloudnative-pg/postgresql`.
    return Family.DATABASE if server else None


def _is_exact(tag: str) -> bool:
    # At least major.minor, or a date, or a commit: `17`, `latest`, `stable`, `v2` move.
    return bool(
        re.search(r"\d+\.\d+", tag) or re.fullmatch(r"(?:sha-)?[0-9a-f]{7,40}", tag) or re.search(r"\d{8,}", tag)
    )
