"""The connection that dynamic resources make to OpenBao, with the credentials that the vault provider uses."""

import os
from pathlib import Path

import hvac
import requests
from hvac.exceptions import VaultError

__all__ = ["OpenBaoUnavailableError", "connect", "explain"]

_TIMEOUT_SECONDS = 30


class OpenBaoUnavailableError(RuntimeError):
    """OpenBao cannot be used now; the message says why and what to do."""


def connect(address: str, token: str | None = None) -> hvac.Client:
    """A client with the given token, else with ``VAULT_TOKEN`` or what ``bao login`` left in ``~/.vault-token``.

    Raises:
        OpenBaoUnavailableError: if there is no token, or OpenBao is sealed, not initialised or not reachable.
    """
    token = token or os.environ.get("VAULT_TOKEN") or os.environ.get("BAO_TOKEN") or _saved_token()
    if not token:
        raise OpenBaoUnavailableError("no OpenBao token: set VAULT_TOKEN or run `bao login`")
    client = hvac.Client(
        url=address, token=token, namespace=os.environ.get("VAULT_NAMESPACE"), timeout=_TIMEOUT_SECONDS
    )
    try:
        health = client.sys.read_health_status(method="GET")
    except requests.RequestException as error:
        raise OpenBaoUnavailableError(f"OpenBao at {address} cannot be reached: {explain(error)}") from None
    status = health.json() if isinstance(health, requests.Response) else health
    if not status.get("initialized"):
        raise OpenBaoUnavailableError(f"OpenBao at {address} is not initialised")
    if status.get("sealed"):
        raise OpenBaoUnavailableError(f"OpenBao at {address} is sealed: unseal it and run the command again")
    return client


def explain(error: VaultError | requests.RequestException) -> str:
    """The cause alone, in one line, without the request (whose body may hold secrets)."""
    if isinstance(error, VaultError):
        return " ".join("; ".join(map(str, error.errors or [])).split()) or type(error).__name__
    return "connection refused or timed out" if isinstance(error, requests.ConnectionError) else type(error).__name__


def _saved_token() -> str | None:
    try:
        return (Path.home() / ".vault-token").read_text(encoding="utf-8").strip() or None
    except OSError:
        return None
