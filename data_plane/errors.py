"""The errors that a command shows as one message, each with a code that stays the same.

A message says what is wrong, where, and what to do next. The cause is kept in ``__cause__``, which ``--verbose`` shows,
unless it could hold a secret. A command, a client or a component has its own class beside what raises it::

    DataPlaneError               data-plane
      ApiLoginsError             api-logins
      BackupError                backup-failed
        PartialError             backup-partial
      BindingError               binding-unreadable
      BuildError                 build-failed
      ConfigurationError         configuration
      ConnectorError             connector
        ActionError              action-incomplete
        ActionRefusedError       action-refused
        AffectedError            affected-undecidable
        AuditLogError            audit-log-unwritable
        CellRunError             cell-run-failed
        CommandNotStartedError   command-not-started
        DeploymentError          environment-incomplete
        FileOutdatedError        file-outdated
        ImagePinError            images-not-pinned
        KubernetesError          kubernetes-unavailable
        LeaseError               lease-failed
          LeaseDeniedError       lease-denied
          LeaseEndedError        lease-ended
        LinkError                project-link
        MigrationError           migration-failed
          MigrationRefusedError  migration-refused
        ProjectError             project
          ProjectDetachedError   project-detached
          ProjectDropError       project-drop
          ProjectMoveError       project-move
          ProjectNotFoundError   project-not-found
          ProjectStateError      project-state
        RotationError            rotation-refused
          KeysNotPublishedError  keys-not-published
        ServiceBindingError      service-binding
        SignInError              sign-in-failed
        UsageError               usage
        WorkloadError            workload-mismatch
      DatabaseUnavailableError   database-unavailable
      EngineError                engine-unavailable
      LocalUserError             local-user
      OpenBaoUnavailableError    openbao-unavailable
      OutputError                output-unwritable
      PlatformSqlError           platform-sql
      PolicyPackError            policy-pack-unusable
      PrivilegeDriftError        privilege-drift
      ProviderError              provider
      RegistryError              registry-refused
      RunFailedError             run-failed
        RunInterruptedError      run-interrupted
        StackBusyError           stack-busy
      SecretsMissingError        secrets-missing
      ServerError                local-server
      ServiceLoginsError         service-logins
      StackNotFoundError         stack-not-found
      StateDirError              state-dir-unusable
      TableRowError              table-row
      UpgradeError               upgrade-refused
      VerifyingKeysError         verifying-keys

The policy pack and ``dataplane policy check`` have none of them: what they find is a violation or a finding.
"""

from collections.abc import Iterable
from typing import ClassVar, Self

__all__ = [
    "ActionError",
    "ActionRefusedError",
    "AuditLogError",
    "BackupError",
    "BindingError",
    "BuildError",
    "CommandNotStartedError",
    "ConnectorError",
    "DataPlaneError",
    "DeploymentError",
    "EngineError",
    "FileOutdatedError",
    "KubernetesError",
    "LeaseDeniedError",
    "LeaseEndedError",
    "LeaseError",
    "LinkError",
    "LocalUserError",
    "MigrationError",
    "MigrationRefusedError",
    "OutputError",
    "PartialError",
    "PolicyPackError",
    "ProjectDetachedError",
    "ProjectDropError",
    "ProjectError",
    "ProjectMoveError",
    "ProjectNotFoundError",
    "ProjectStateError",
    "RunFailedError",
    "RunInterruptedError",
    "ServerError",
    "ServiceBindingError",
    "SignInError",
    "StackBusyError",
    "StackNotFoundError",
    "StateDirError",
    "TerminatedError",
    "UpgradeError",
    "UsageError",
    "WorkloadError",
]


class DataPlaneError(Exception):
    """Base of all errors of the data plane; never raised itself."""

    code: ClassVar[str] = "data-plane"
    """Names the class in output and documentation. It is never changed or given to another class."""

    exit_code: int = 1
    """What a command ends with."""


class OutputError(DataPlaneError):
    """Standard output cannot be written."""

    code = "output-unwritable"


class BindingError(DataPlaneError):
    """A tenant's binding cannot be read."""

    code = "binding-unreadable"


class BuildError(DataPlaneError):
    """A program that is built on this machine, such as the Pulumi CLI, cannot be built."""

    code = "build-failed"


class EngineError(DataPlaneError):
    """The Pulumi CLI, or one of its plugins, is missing or cannot be used."""

    code = "engine-unavailable"


class PolicyPackError(DataPlaneError):
    """The policy pack does not start, or its settings cannot be used."""

    code = "policy-pack-unusable"


class StackNotFoundError(DataPlaneError):
    """No settings file declares the stack."""

    code = "stack-not-found"


class RunFailedError(DataPlaneError):
    """A run stopped before everything was applied. What was applied stays; running the command again resumes it."""

    code = "run-failed"


class RunInterruptedError(RunFailedError):
    """A run was interrupted; it finished what it had begun."""

    code = "run-interrupted"
    exit_code: int = 130

    def __init__(self) -> None:
        super().__init__("interrupted: what had begun was finished, nothing more was begun; run it again to resume")


class StackBusyError(RunFailedError):
    """Another run holds the stack's lock."""

    code = "stack-busy"


class StateDirError(DataPlaneError):
    """A file of the local state directory (``DATA_PLANE_HOME``) is damaged, locked, or cannot be written."""

    code = "state-dir-unusable"


class ServerError(DataPlaneError):
    """A local server cannot be started, stopped or reached."""

    code = "local-server"


class LocalUserError(DataPlaneError):
    """A person cannot sign in to the local OpenBao, or none of a project's may use an access level."""

    code = "local-user"


class BackupError(DataPlaneError):
    """A backup could not be made, listed or restored."""

    code = "backup-failed"


class PartialError(BackupError):
    """A dump or a restore is complete except for the projects, or parts of them, that the message names."""

    code = "backup-partial"


class UpgradeError(DataPlaneError):
    """The database cannot be moved to another version of PostgreSQL, or two servers do not hold the same."""

    code = "upgrade-refused"


class ConnectorError(DataPlaneError):
    """A command or an action cannot do what it was asked to."""

    code = "connector"


class UsageError(ConnectorError):
    """An option or its value is wrong, missing, or does not fit the others."""

    code = "usage"
    exit_code = 2


class DeploymentError(ConnectorError):
    """An environment lacks what a command needs: a cell, the central stack, a setting, or a part brought up."""

    code = "environment-incomplete"


class KubernetesError(ConnectorError):
    """The cluster of a deployed environment cannot be reached, or refuses."""

    code = "kubernetes-unavailable"


class CommandNotStartedError(ConnectorError):
    """The command to be run with a lease cannot be started."""

    code = "command-not-started"

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class AuditLogError(ConnectorError):
    """The audit log cannot be written, so nothing was done."""

    code = "audit-log-unwritable"


class FileOutdatedError(ConnectorError):
    """A generated file is not what its sources say now."""

    code = "file-outdated"


class LinkError(ConnectorError):
    """The file that links a repository to its project cannot be read, written or trusted."""

    code = "project-link"


class ServiceBindingError(ConnectorError):
    """A service binding cannot be made for the project, or its file cannot be read or written."""

    code = "service-binding"


class WorkloadError(ConnectorError):
    """A project has no workload such as a command needs."""

    code = "workload-mismatch"


class ProjectError(ConnectorError):
    """A project cannot be used as asked."""

    code = "project"


class ProjectNotFoundError(ProjectError):
    """The environment has no such project."""

    code = "project-not-found"

    @classmethod
    def among(cls, project: str, known: Iterable[str], where: str = "") -> Self:
        """The error that names the projects which there are.

        Args:
            where: what was searched, as words that follow the project's name.
        """
        there = ", ".join(sorted(known)) or "none"
        return cls(f"there is no project {project!r}{where}; there are: {there}")


class ProjectDetachedError(ProjectError):
    """The project is detached, so nobody may use it."""

    code = "project-detached"


class ProjectStateError(ProjectError):
    """A project's file and the state of its stack do not agree."""

    code = "project-state"


class ProjectMoveError(ProjectError):
    """A project was not moved to another cell, or not completely."""

    code = "project-move"


class ProjectDropError(ProjectError):
    """A project was not dropped, or not completely. Running the command again resumes it."""

    code = "project-drop"


class LeaseError(ConnectorError):
    """A lease cannot be taken, shown or revoked."""

    code = "lease-failed"


class LeaseDeniedError(LeaseError):
    """OpenBao's policies do not let the caller use, list, renew or revoke the lease."""

    code = "lease-denied"


class LeaseEndedError(LeaseError):
    """The lease is no longer in force."""

    code = "lease-ended"


class MigrationError(ConnectorError):
    """A migration was not run, or not completely; the message says what was."""

    code = "migration-failed"


class MigrationRefusedError(MigrationError):
    """A migration names what is not the project's. Nothing was run."""

    code = "migration-refused"


class SignInError(ConnectorError):
    """A workload cannot sign in to OpenBao."""

    code = "sign-in-failed"


class ActionRefusedError(ConnectorError):
    """The inputs of an action are wrong. Nothing was changed."""

    code = "action-refused"


class ActionError(ConnectorError):
    """An action was not completed. What was applied is in the message and, one line each, in ``applied``."""

    code = "action-incomplete"

    def __init__(self, message: str, applied: list[str]) -> None:
        super().__init__(message)
        self.applied = applied


class TerminatedError(KeyboardInterrupt):
    """SIGTERM, which ends a command as Ctrl-C does: statements are cancelled, leases revoked."""
