"""The commands ``dataplane backup``, ``backups`` and ``restore``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

from components.backup_settings import S3_KEYS, BackupSettings
from components.central.connector_secrets import SecretsMissingError
from components.naming import CONNECTORS_MOUNT, TenantNames
from components.providers import SUPABASE_SECRET
from connector.errors import ConnectorError
from connector.realignment import connector_secret, realign
from embedded.backups import BackupError, BackupList, EmbeddedBackups, PhysicalBackup, load_backup_settings
from embedded.servers import Servers

__all__ = ["Backups", "LocalBackups", "RestoreRequest", "parse_moment", "s3_credentials"]

Say = Callable[[str], None]


def parse_moment(text: str) -> datetime:
    """A moment in the past, with its time zone.

    Raises:
        ConnectorError: if it is none.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ConnectorError(f"--to: found {text!r}; expected a time with its zone, e.g. 2026-01-31T14:05:00Z")
    if moment > datetime.now(UTC):
        raise ConnectorError(f"--to: found {text!r}; expected a moment that has passed")
    return moment.astimezone(UTC)


def s3_credentials(found: dict[str, str], source: str) -> dict[str, str]:
    """The object store's access key, as the variables by which programs take it.

    Args:
        found: the values of ``connectors/supabase``.
        source: the setting that needs them, for the message.

    Raises:
        ConnectorError: with the command that puts a missing part into OpenBao.
    """
    missing = {key: source for key in S3_KEYS.values() if not found.get(key)}
    if missing:
        raise ConnectorError(str(SecretsMissingError(CONNECTORS_MOUNT, SUPABASE_SECRET, missing)))
    return {variable: found[key] for variable, key in S3_KEYS.items()}


@dataclass(frozen=True)
class RestoreRequest:
    """What somebody asks to be restored."""

    to: datetime | None = None
    """The moment; None for all there is."""
    backup: str | None = None
    """The physical backup to start from; the last one before the moment unless given."""
    dump: str | None = None
    """A logical backup instead."""
    project: str | None = None
    """One project only, from a logical backup."""
    timeline: str = "latest"

    def check(self) -> None:
        """Raises: ConnectorError: if it contradicts itself."""
        physical = [name for name, value in (("--to", self.to), ("--backup", self.backup)) if value is not None]
        if physical and (self.dump or self.project):
            raise ConnectorError(f"{' and '.join(physical)}: dumps hold one moment only; name one with --dump instead")
        if self.timeline != "latest" and not self.timeline.isdecimal():
            raise ConnectorError(f"--timeline: found {self.timeline!r}; expected latest or a number")
        if self.project is not None:
            TenantNames(self.project)


class Backups(ABC):
    """Backups of one data plane."""

    @abstractmethod
    def back_up(self) -> None:
        """Makes backups now."""

    @abstractmethod
    def available(self) -> BackupList:
        """What there is to restore from."""

    @abstractmethod
    def plan(self, request: RestoreRequest) -> list[str]:
        """The steps that :meth:`restore` would take, for people.

        Raises:
            ConnectorError, BackupError: if there is nothing to restore from.
        """

    @abstractmethod
    def restore(self, request: RestoreRequest) -> None:
        """Does what :meth:`plan` says. Deletes nothing; may be run again after an interruption."""

    @abstractmethod
    def check(self, request: RestoreRequest) -> None:
        """Tries a restore out, beside a server that goes on running, and changes nothing."""

    def start_from(self, request: RestoreRequest) -> PhysicalBackup:
        """The physical backup that a request starts from.

        Raises:
            BackupError: if there is none.
        """
        found = self.available()
        if request.backup is None:
            backup = found.before(request.to)
            if backup is None:
                first = (
                    f"the first one ended {found.physical[0].ended:%Y-%m-%d %H:%M:%S}Z" if found.physical else "none"
                )
                raise BackupError(f"there is no physical backup to start from: {first}")
            return backup
        named = {backup.backup_id: backup for backup in found.physical}.get(request.backup)
        if named is None:
            known = ", ".join(backup.backup_id for backup in found.physical) or "none"
            raise BackupError(f"there is no complete physical backup {request.backup!r}; there are: {known}")
        if request.to is not None and named.ended > request.to:
            raise BackupError(f"backup {named.backup_id} ended at {named.ended:%Y-%m-%d %H:%M:%S}Z, after --to")
        return named

    def dump(self, request: RestoreRequest) -> str:
        """The stamp of the dump that a request names.

        Raises:
            BackupError: if there is none.
        """
        stamps = [dump.stamp for dump in self.available().logical]
        if not stamps:
            raise BackupError("there is no dump yet: `dataplane backup` makes one")
        wanted = stamps[-1] if request.dump in (None, "latest") else request.dump
        if wanted not in stamps:
            raise BackupError(f"there is no complete dump {wanted!r}; there are: {', '.join(stamps)}")
        return str(wanted)


class LocalBackups(Backups):
    """Backups of the data plane on this machine.

    Args:
        servers: the local servers.
        say: is told what is going on.
        settings: where backups go; those in the private folder unless given.
    """

    def __init__(self, servers: Servers, say: Say, settings: BackupSettings | None = None) -> None:
        self._servers = servers
        self._say = say
        self._settings = settings

    @cached_property
    def _backups(self) -> EmbeddedBackups:
        settings = self._settings or load_backup_settings(self._servers.home)
        self._servers.openbao.start()
        found = connector_secret(self._servers.openbao.client())
        return EmbeddedBackups(self._servers, settings, s3_credentials(found, "backups"), self._say)

    def back_up(self) -> None:
        self._backups.back_up()

    def available(self) -> BackupList:
        return self._backups.available()

    def plan(self, request: RestoreRequest) -> list[str]:
        data = self._servers.postgres.data
        if request.project is not None:
            names = TenantNames(request.project)
            return [
                f"take {names.schema} from dump {self.dump(request)}",
                f"put it into a new schema, which {names.schema}_owner alone may look into; nothing else changes",
            ]
        last = [
            "give OpenBao's and the services' logins today's passwords, and end every lease",
        ]
        if request.dump is not None:
            return [
                "stop PostgreSQL; nobody can work meanwhile",
                f"move {data} aside; it is kept",
                f"make an empty server, and restore dump {self.dump(request)} into it",
                *last,
            ]
        backup = self.start_from(request)
        goal = "to the last segment that was archived" if request.to is None else f"to {request.to:%Y-%m-%d %H:%M:%S}Z"
        return [
            "stop PostgreSQL; nobody can work meanwhile",
            f"download physical backup {backup.backup_id}, which ended {backup.ended:%Y-%m-%d %H:%M:%S}Z",
            f"replay the write-ahead log {goal}",
            f"once that is complete, move {data} aside (it is kept) and the result in its place; start PostgreSQL",
            *last,
        ]

    def restore(self, request: RestoreRequest) -> None:
        if request.project is not None:
            self._servers.start()
            self._backups.restore_project(TenantNames(request.project).schema, self.dump(request))
            return
        if request.dump is not None:
            self._backups.restore_dump(self.dump(request))
        else:
            backup = self.start_from(request)
            self._backups.restore(backup.backup_id, request.to, request.timeline)
        self.realign()

    def check(self, request: RestoreRequest) -> None:
        if request.project is not None or request.dump is not None:
            raise ConnectorError("--check: dumps are checked by restoring them elsewhere: docs/backups.md")
        backup = self.start_from(request)
        self._backups.restore(backup.backup_id, request.to, request.timeline, check_only=True)

    def realign(self) -> None:
        """Brings passwords and leases in line with OpenBao."""
        self._say("bringing passwords and leases in line with OpenBao")
        self._servers.start()
        with self._servers.postgres.connect() as connection:
            realign(self._servers.openbao.client(), connection)
