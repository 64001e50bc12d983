"""Backups of the data plane on this machine."""

from functools import cached_property

from data_plane.connector.backups import Backups, RestoreRequest, Say, s3_credentials
from data_plane.connector.reconcile_credentials import connector_secret, reconcile_credentials
from data_plane.errors import PartialError, UsageError
from data_plane.local.backups import PhysicalBackups, load_backup_settings
from data_plane.local.servers import Servers
from data_plane.model.backup_list import BackupList
from data_plane.model.backup_settings import BackupSettings
from data_plane.model.naming import TenantNames

__all__ = ["LocalBackups"]


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
    def _backups(self) -> PhysicalBackups:
        settings = self._settings or load_backup_settings(self._servers.home)
        self._servers.openbao.start()
        found = connector_secret(self._servers.openbao.client())
        return PhysicalBackups(self._servers, settings, s3_credentials(found, "backups"), self._say)

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
                "what cannot be restored of a project is named, and stops no other project",
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
            try:
                self._backups.restore_dump(self.dump(request))
            except PartialError:
                self.reconcile_credentials()
                raise
        else:
            backup = self.start_from(request)
            self._backups.restore(backup.backup_id, request.to, request.timeline)
        self.reconcile_credentials()

    def check(self, request: RestoreRequest) -> None:
        if request.project is not None or request.dump is not None:
            raise UsageError(
                "--check: dumps are checked by restoring them elsewhere: docs/how-to/back-up-and-restore.md"
            )
        backup = self.start_from(request)
        self._backups.restore(backup.backup_id, request.to, request.timeline, check_only=True)

    def reconcile_credentials(self) -> None:
        """Brings passwords and leases in line with OpenBao."""
        self._say("bringing passwords and leases in line with OpenBao")
        self._servers.start()
        with self._servers.postgres.connect() as connection:
            reconcile_credentials(self._servers.openbao.client(), connection)
