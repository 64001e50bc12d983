"""Errors of the connector; each message says what to do."""

__all__ = ["ActionError", "ConnectorError", "LeaseError", "SignInError"]


class ConnectorError(Exception):
    """Base of everything that a command shows as one message."""


class LeaseError(ConnectorError):
    """A lease cannot be taken, shown or given back."""


class SignInError(ConnectorError):
    """A workload cannot sign in to OpenBao."""


class ActionError(ConnectorError):
    """An action was not finished. What of it was is in the message and, one line each, in ``applied``."""

    def __init__(self, message: str, applied: list[str]) -> None:
        super().__init__(message)
        self.applied = applied
