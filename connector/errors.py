"""Errors of the connector; each message says what to do."""

__all__ = ["ConnectorError", "LeaseError"]


class ConnectorError(Exception):
    """Base of everything that a command shows as one message."""


class LeaseError(ConnectorError):
    """A lease cannot be taken, shown or given back."""
