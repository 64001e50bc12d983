"""Containers: where a document holds them, and how to tell that one runs a PostgreSQL whatever its image is called."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from policies.images import Family, Image, classify, external_settings, image_reason, switched_off
from policies.programs import programs_started
from policies.values import mappings, text_of, texts_of

__all__ = ["Container", "containers_in", "is_data_folder"]

_LISTS = frozenset({"containers", "initContainers", "ephemeralContainers", "sidecars"})
_SINGLE = frozenset({"container", "script", "containerTemplate"})
"""Where Argo's Workflows, Tekton and others have one container, with its image in it."""
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
    r"(?<!hosts)(?<!nslookup)(?<!ping)(^|[\s/;&|(\"'])(?:"
    # Followed by a word it is a host or a user: `nc -z postgres 5432`, `gosu postgres pg_dump`.
    r"postgres(?=$|[;&|)\"'\n]|\s+(?:$|[-;&|)\"'$\\]|\d?[<>]))"
    r"|(?:postmaster|initdb|pg_ctl|pg_ctlcluster|patroni|yugabyted)(?=$|[\s;&|)\"']))"
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
    variables: Mapping[str, str] | Collection[str] = ()
    """Its environment; the names alone will do."""
    mounts: Sequence[str] = ()
    """The paths inside the container at which something is mounted."""
    path: str = field(default="", compare=False)
    """Where it stands in its document, for messages."""

    @classmethod
    def of_kubernetes(cls, found: Mapping[str, Any], path: str) -> "Container":
        """A container of a Pod's specification."""
        return cls(
            name=text_of(found.get("name")),
            image=text_of(found.get("image")),
            command=[word for key in ("command", "args", "source") for word in texts_of(found.get(key))],
            variables={text_of(entry.get("name")): text_of(entry.get("value")) for entry in mappings(found.get("env"))},
            mounts=[text_of(entry.get("mountPath")) for entry in mappings(found.get("volumeMounts"))],
            path=path,
        )

    def forbidden(self) -> str:
        """Why the container may not be run by a project, in words; empty if it may."""
        family = classify(self.image) if self.image else None
        if (
            family is Family.BUNDLED
            and isinstance(self.variables, Mapping)
            and switched_off(self.image, self.variables)
        ):
            return ""
        if family:
            settings = external_settings(self.image)
            return image_reason(self.image) + (f"; its setting for that is {settings}" if settings else "")
        if self.image and any(word in _CLIENTS for word in re.split(r"[-_./:]", Image.parse(self.image).name)):
            return ""
        program = self._server_program()
        if program:
            return f"it starts `{program}`, a PostgreSQL server"
        started = self._started()
        if started:
            return f"it {started}"
        folder = next((mount for mount in self.mounts if is_data_folder(mount)), "")
        if folder:
            return f"it mounts {folder}, the data of a PostgreSQL server"
        variable = next(iter(sorted(_SERVER_VARIABLES.intersection(self.variables))), "")
        return f"it sets {variable}, which only a PostgreSQL server reads" if variable else ""

    def _started(self) -> str:
        """What a shell is given to do: each word that is a script, or else all words as one command."""
        scripts = [word for word in self.command if " " in word or "\n" in word] or [" ".join(self.command)]
        return next((reason for script in scripts for reason in programs_started(script)), "")

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
            elif key in _SINGLE and isinstance(value, Mapping) and "image" in value:
                yield Container.of_kubernetes(value, here)
            yield from containers_in(value, here, depth - 1)
    elif isinstance(document, Sequence) and not isinstance(document, str | bytes):
        for index, entry in enumerate(document):
            yield from containers_in(entry, f"{path}[{index}]", depth - 1)
