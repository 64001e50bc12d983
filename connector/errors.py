"""Errors of the connector; each message says what to do."""

__all__ = [
    "ActionError",
    "ConnectorError",
    "LeaseError",
    "MigrationError",
    "MigrationRefusedError",
    "SignInError",
]


class ConnectorError(Exception):
    """Base of everything that a command shows as one message."""


class LeaseError(ConnectorError):
    """A lease cannot be taken, shown or given back."""


class MigrationError(ConnectorError):
    """A migration is refused, or was not finished. What of it was is in the message."""


class MigrationRefusedError(MigrationError):
    """A migration names what is not the project's. Nothing was run."""


class SignInError(ConnectorError):
    """A workload cannot sign in to OpenBao."""


class ActionError(ConnectorError):
    """An action was not finished. What of it was is in the message and, one line each, in ``applied``."""

    def __init__(self, message: str, applied: list[str]) -> None:
        super().__init__(message)
        self.applied = applied
