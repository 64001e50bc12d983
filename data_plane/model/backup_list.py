"""The backups that can be restored."""

from dataclasses import dataclass
from datetime import datetime

__all__ = ["BackupList", "LogicalBackup", "PhysicalBackup"]


@dataclass(frozen=True)
class PhysicalBackup:
    """A complete base backup."""

    backup_id: str
    began: datetime
    ended: datetime
    """The earliest moment that can be restored with it."""
    timeline: int
    version: int
    """Major version of PostgreSQL."""


@dataclass(frozen=True)
class LogicalBackup:
    """A complete dump."""

    stamp: str
    databases: list[str]
    size: int
    """Bytes in the object store."""
    missing: list[str]
    """What a lock or a right kept out of it, for people."""


@dataclass(frozen=True)
class BackupList:
    """The backups, oldest first."""

    physical: list[PhysicalBackup]
    logical: list[LogicalBackup]

    def before(self, target: datetime | None) -> PhysicalBackup | None:
        """The backup to start from in order to get to a time, or to the end."""
        usable = [backup for backup in self.physical if target is None or backup.ended <= target]
        return usable[-1] if usable else None
