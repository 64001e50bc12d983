"""Containers: where a document holds them, and how to tell that one runs a PostgreSQL whatever its image is called."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from policies.images import Image, classify
from policies.rules import is_unknown

__all__ = ["Container", "containers_in", "is_data_folder"]

_LISTS = frozenset({"containers", "initContainers", "ephemeralContainers", "sidecars"})
_DATA_FOLDER = re.compile(
    r"^(/var/lib/postgres(ql)?(/|$)|/var/lib/pgsql(/|$)|/bitnami/postgresql|/home/postgres/pgdata|/pgdata(/|$)|/cockroach/cockroach-data)"
)
# Variables that only a server's own start script reads; POSTGRES_PASSWORD and PGHOST are every client's too.
_SERVER_VARIABLES = frozenset(
    {
        "PGDATA",
        "POSTGRES_HOST_AUTH_METHOD",
        "POSTGRES_INITDB_ARGS",
        "POSTGRES_INITDB_WALDIR",
        "POSTGRESQL_DATA_DIR",
        "POSTGRESQL_INITDB_ARGS",
        "POSTGRESQL_VOLUME_DIR",
        "SPILO_CONFIGURATION",
    }
)
_SERVER_PROGRAM = re.compile(
    r"(^|[\s/;&|(\"'])(postgres|postmaster|initdb|pg_ctl|pg_ctlcluster|patroni|yugabyted)(?=$|[\s;&|)\"'])"
    r"|(^|[\s/;&|(])cockroach\s+start"
)
_CLIENT_PROGRAM = re.compile(
    r"(-h|--host|-U|--username|-d|--dbname)[ =]?\s*postgres\b|://|\b(psql|createdb|pg_isready)\b"
)


@dataclass(frozen=True)
class Container:
    """One container of a workload or one service of a compose file."""

    name: str
    image: str = ""
    command: Sequence[str] = ()
    """Command and arguments together."""
    variables: frozenset[str] = frozenset()
    mounts: Sequence[str] = ()
    """The paths inside the container at which something is mounted."""
    path: str = field(default="", compare=False)
    """Where it stands in its document, for messages."""

    @classmethod
    def of_kubernetes(cls, found: Mapping[str, Any], path: str) -> "Container":
        """A container of a Pod's specification."""
        return cls(
            name=_text(found.get("name")),
            image=_text(found.get("image")),
            command=[*_texts(found.get("command")), *_texts(found.get("args"))],
            variables=frozenset(_text(entry.get("name")) for entry in _mappings(found.get("env"))),
            mounts=[_text(entry.get("mountPath")) for entry in _mappings(found.get("volumeMounts"))],
            path=path,
        )

    def forbidden(self) -> str:
        """Why the container may not be run by a project, in words; empty if it may."""
        family = classify(self.image) if self.image else None
        if family:
            return f"image {self.image} is {family.value}"
        if self.image and any(word in _CLIENTS for word in re.split(r"[-_./:]", Image.parse(self.image).name)):
            return ""
        program = self._server_program()
        if program:
            return f"it starts `{program}`, a PostgreSQL server"
        folder = next((mount for mount in self.mounts if is_data_folder(mount)), "")
        if folder:
            return f"it mounts {folder}, the data of a PostgreSQL server"
        variable = next(iter(sorted(self.variables & _SERVER_VARIABLES)), "")
        return f"it sets {variable}, which only a PostgreSQL server reads" if variable else ""

    def _server_program(self) -> str:
        for index, word in enumerate(self.command):
            if _CLIENT_PROGRAM.search(word):
                continue
            # A word that only names a program counts at the start; anywhere in what a shell is given.
            if (
                index == 0
                or " " in word
                or "\n" in word
                or self.command[index - 1] in {"gosu", "su-exec", "exec", "--"}
            ):
                found = _SERVER_PROGRAM.search(word)
                if found and not re.search(rf"(-h|-U|-d|=|@){re.escape(found.group().strip())}", word):
                    return found.group().strip(" /;&|(\"'")
        return ""


_CLIENTS = frozenset({"pgbouncer", "pgadmin", "pgadmin4", "exporter", "barman", "pgbackrest"})


def is_data_folder(path: str) -> bool:
    """Whether a path is where a PostgreSQL server keeps its data, by the custom of the images that there are."""
    return bool(_DATA_FOLDER.match(path))


def containers_in(document: object, path: str = "", depth: int = 64) -> Iterator[Container]:
    """Every container anywhere in a document: a Pod, a template, a list of objects, a custom resource.

    Args:
        document: plain data.
        path: where it stands, for messages.
        depth: how far to go; deeper is nothing that an API server accepts.
    """
    if depth == 0:
        return
    if isinstance(document, Mapping):
        for key, value in document.items():
            here = f"{path}.{key}" if path else str(key)
            if key in _LISTS and isinstance(value, Sequence) and not isinstance(value, str):
                for index, entry in enumerate(value):
                    if isinstance(entry, Mapping):
                        yield Container.of_kubernetes(entry, f"{here}[{index}]")
            yield from containers_in(value, here, depth - 1)
    elif isinstance(document, Sequence) and not isinstance(document, str | bytes):
        for index, entry in enumerate(document):
            yield from containers_in(entry, f"{path}[{index}]", depth - 1)


def _text(value: object) -> str:
    return "" if value is None or is_unknown(value) or isinstance(value, Mapping | list) else str(value)


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [_text(value)]
    return [_text(entry) for entry in value] if isinstance(value, Sequence) else []


def _mappings(value: object) -> list[Mapping[str, Any]]:
    return [entry for entry in value if isinstance(entry, Mapping)] if isinstance(value, list) else []
