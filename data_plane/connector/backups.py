"""What can be asked of the backups of a data plane, on this machine or on a cluster."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from data_plane.errors import BackupError, UsageError
from data_plane.model.backup_list import BackupList, PhysicalBackup
from data_plane.model.backup_settings import S3_KEYS
from data_plane.model.connector_secrets import SecretsMissingError
from data_plane.model.naming import CONNECTORS_MOUNT, SUPABASE_SECRET, TenantNames

__all__ = ["Backups", "RestoreRequest", "parse_moment", "s3_credentials"]

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
        raise UsageError(f"--to: found {text!r}; expected a time with its zone, e.g. 2026-01-31T14:05:00Z")
    if moment > datetime.now(UTC):
        raise UsageError(f"--to: found {text!r}; expected a moment that has passed")
    return moment.astimezone(UTC)


def s3_credentials(found: dict[str, str], source: str) -> dict[str, str]:
    """The object store's access key, as the variables by which programs take it.

    Args:
        found: the values of ``connectors/supabase``.
        source: the setting that needs them, for the message.

    Raises:
        SecretsMissingError: with the command that puts a missing part into OpenBao.
    """
    missing = {key: source for key in S3_KEYS.values() if not found.get(key)}
    if missing:
        raise SecretsMissingError(CONNECTORS_MOUNT, SUPABASE_SECRET, missing)
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
            raise UsageError(f"{' and '.join(physical)}: dumps hold one moment only; name one with --dump instead")
        if self.timeline != "latest" and not self.timeline.isdecimal():
            raise UsageError(f"--timeline: found {self.timeline!r}; expected latest or a number")
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

    @abstractmethod
    def reconcile_credentials(self) -> None:
        """After a restore by hand: today's passwords for services and OpenBao, and an end to every lease."""

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
            raise BackupError("there is no dump yet: `dataplane backup create` makes one")
        wanted = stamps[-1] if request.dump in (None, "latest") else request.dump
        if wanted not in stamps:
            raise BackupError(f"there is no complete dump {wanted!r}; there are: {', '.join(stamps)}")
        return str(wanted)
