"""The setting ``kubernetes.backups``: where backups of the database go, when they are made, how long they are kept.

The access key for the object store is in OpenBao, in ``connectors/supabase``, under :data:`S3_KEYS`. Nobody but the
object store's owner can make it, so it is put there by hand.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from data_plane.model.durations import Duration
from data_plane.model.problems import at_field
from data_plane.model.strict import StrictModel

__all__ = [
    "S3_KEYS",
    "BackupSettings",
    "LogicalBackupSettings",
    "PhysicalBackupSettings",
    "store_variables",
]

S3_KEYS: Mapping[str, str] = {
    "AWS_ACCESS_KEY_ID": "BACKUP_S3_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY": "BACKUP_S3_SECRET_ACCESS_KEY",
}
"""Variable by which programs take the access key → key of ``connectors/supabase``."""

# Minute, hour, day of month, month, day of week: the least and the greatest number of each.
_CRON_FIELDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
_CRON_PART = re.compile(r"(\*|(\d{1,2})(?:-(\d{1,2}))?)(?:/(\d{1,2}))?")


def _cron(text: str) -> str:
    fields = text.split()
    right = len(fields) == len(_CRON_FIELDS) and all(
        _is_cron_part(part, *bounds)
        for field, bounds in zip(fields, _CRON_FIELDS, strict=True)
        for part in field.split(",")
    )
    if not right:
        raise ValueError("minute, hour, day, month and weekday as cron has them, in UTC, e.g. 15 2 * * *")
    return " ".join(fields)


def _is_cron_part(part: str, least: int, greatest: int) -> bool:
    match = _CRON_PART.fullmatch(part)
    if match is None:
        return False
    _, first, last, step = match.groups()
    numbers = [int(number) for number in (first, last) if number]
    in_bounds = all(least <= number <= greatest for number in numbers)
    return in_bounds and numbers == sorted(numbers) and (step is None or 1 <= int(step) <= greatest)


_Schedule = Annotated[str, AfterValidator(_cron)]
_Days = Annotated[int, Field(ge=1, le=3650)]


class PhysicalBackupSettings(StrictModel):
    """``physical``: the whole server, restorable to any moment of the last ``retainDays``."""

    schedule: _Schedule = "15 1 * * *"
    """Of base backups; the write-ahead log is shipped all the time."""
    retain_days: _Days = 14
    """For how many past days the server can be restored to any moment."""
    retain_minimum: Annotated[int, Field(ge=1, le=100)] = 2
    """Base backups that are kept however old they are. (CloudNativePG's plugin always keeps one.)"""
    archive_timeout: Duration = 60
    """Seconds after which a segment of the log is shipped even if it is not full: the most that a lost volume loses."""


class LogicalBackupSettings(StrictModel):
    """``logical``: dumps of every database, for single projects and for other versions of PostgreSQL."""

    schedule: _Schedule = "45 3 * * *"
    """Of dumps."""
    retain_days: _Days = 30
    """Days that a dump is kept."""


class BackupSettings(StrictModel):
    """``kubernetes.backups``."""

    bucket: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")]
    """Not Storage's: a writer to it can destroy the backups."""
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$", max_length=200)]
    """The folder in the bucket. Every database has one of its own: two in one would overwrite each other's log."""
    server: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")] = "central"
    """The server's folder under the prefix. A CloudNativePG Cluster that was recovered from one needs a new one."""
    endpoint: Annotated[str, Field(pattern=r"^https?://[^\s/]+$")] | None = None
    """None for AWS itself."""
    region: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,63}$")] = "us-east-1"
    """The store's region."""
    force_path_style: bool = False
    """True for most S3-compatible servers."""
    encryption: Literal["bucket", "AES256", "aws:kms"] = "bucket"
    """By the object store: what the bucket does by itself, or asked for with each object."""
    physical: PhysicalBackupSettings | None = PhysicalBackupSettings()
    """Not with an external database, whose owner makes physical backups."""
    logical: LogicalBackupSettings | None = LogicalBackupSettings()
    database_user: Annotated[int, Field(ge=1, le=65535)] = 100
    """The numeric user ``postgres`` of the database's image, whose files are read. 100 on Alpine (17.6), 101 on Ubuntu
    (15.8): ``docker run --rm --entrypoint id supabase/postgres:… postgres``."""
    database_group: Annotated[int, Field(ge=1, le=65535)] = 101
    """Its group: 101 on Alpine, 102 on Ubuntu."""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.physical is None and self.logical is None:
            raise at_field("physical", "nothing, and no `logical` either", "one of them, or no `backups` at all")
        return self

    @property
    def destination(self) -> str:
        """The folder as Barman takes it."""
        return f"s3://{self.bucket}/{self.prefix}"


def store_variables(settings: BackupSettings) -> dict[str, str]:
    """The place of backups, as the variables that ``scripts/common.sh`` describes; without the access key."""
    return {
        "BACKUP_DESTINATION": settings.destination,
        "BACKUP_SERVER": settings.server,
        "BACKUP_ENDPOINT": settings.endpoint or "",
        "BACKUP_ADDRESSING": "path" if settings.force_path_style else "auto",
        "BACKUP_ENCRYPTION": "" if settings.encryption == "bucket" else settings.encryption,
        "AWS_DEFAULT_REGION": settings.region,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
