"""The matrix of OpenBao's paths: what is tried with a person's token, and the status that comes of it."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from data_plane.model.naming import AccessLevel

__all__ = ["PEOPLE", "Attempt", "load", "send"]

TABLE = Path(__file__).with_name("openbao.yaml")

PEOPLE = {
    "owner": "alpha-owner",
    "admin": "alpha-admin",
    "contributor": "alpha-contributor",
    "viewer": "alpha-viewer",
    "stranger": "stranger",
}
"""Who asks, and the login name."""
_REFUSED = 403


@dataclass(frozen=True)
class Attempt:
    """One row. What the fields mean is at the head of the table."""

    kind: str
    act: str
    what: str
    method: str
    path: str
    data: Mapping[str, Any] | None = None
    namespace: str | None = None
    cells: Mapping[str, int] = field(default_factory=dict)
    note: str | None = None

    def __str__(self) -> str:
        return f"{self.kind}: {self.act}: {self.what}"

    def expected(self, person: str) -> int:
        """The status that somebody gets."""
        return self.cells.get(person, self.cells.get("*", _REFUSED))

    def variants(self, known: Mapping[str, str]) -> Iterator[tuple[str, object]]:
        """Path and body, filled in; one of each level where the level stands for all."""
        levels = list(AccessLevel) if "{level}" in self.path else [AccessLevel.OWNER]
        for level in levels:
            values = {**known, "level": level.value}
            yield self.path.format_map(values), _filled(self.data, values)


def _filled(data: Any, values: Mapping[str, str]) -> Any:
    match data:
        case str():
            return data.format_map(values)
        case dict():
            return {key: _filled(value, values) for key, value in data.items()}
        case list():
            return [_filled(value, values) for value in data]
        case _:
            return data


def load() -> tuple[list[Attempt], dict[str, str]]:
    """The attempts, and the texts of the reasons."""
    document: dict[str, Any] = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    found = [Attempt(kind=kind, **row) for kind, rows in document["matrix"].items() for row in rows]
    return found, document["reasons"]


def send(
    address: str, token: str | None, method: str, path: str, data: object = None, namespace: str | None = None
) -> int:
    """The status of a request whose path is sent as it stands: other clients put dots and slashes in order first."""
    server = urlsplit(address)
    connection = HTTPConnection(str(server.hostname), server.port, timeout=60)
    headers = {"X-Vault-Token": token} if token else {}
    if namespace is not None:
        headers["X-Vault-Namespace"] = namespace
    try:
        connection.request(method, f"/v1/{path}", None if data is None else json.dumps(data), headers)
        response = connection.getresponse()
        response.read()
        status = response.status
        if status in {301, 307, 308}:
            return send(address, token, method, str(response.headers["Location"]).removeprefix("/v1/"), data, namespace)
        return status
    finally:
        connection.close()
