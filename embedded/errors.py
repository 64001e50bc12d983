"""Errors of the local tooling; each message ends with what to do."""

__all__ = ["EmbeddedError", "RunFailedError", "ServerError"]


class EmbeddedError(Exception):
    """Base of everything that a command shows as one message, without a traceback."""


class ServerError(EmbeddedError):
    """A local server cannot be started, stopped or reached."""


class RunFailedError(EmbeddedError):
    """A run stopped before everything was applied. What was applied stays; the same command goes on from there."""
