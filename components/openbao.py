"""The connection that dynamic resources make to OpenBao, with the credentials that the vault provider uses."""

import os
import time
from pathlib import Path

import hvac
import requests
from hvac.exceptions import InvalidPath, InvalidRequest, VaultError

__all__ = ["OpenBaoUnavailableError", "connect", "explain", "read_kv", "write_kv"]

_TIMEOUT_SECONDS = 30
_ENGINE_READY_SECONDS = 30


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


def read_kv(client: hvac.Client, mount: str, path: str) -> tuple[dict[str, str], int]:
    """The values of a KV v2 secret and its version; none and 0 if there is no such secret.

    Waits while a new engine is being made ready: OpenBao answers before it is ("Upgrading from …").
    """
    deadline = time.monotonic() + _ENGINE_READY_SECONDS
    while True:
        try:
            answer = client.secrets.kv.v2.read_secret_version(
                path=path, mount_point=mount, raise_on_deleted_version=True
            )
        except InvalidPath:
            return {}, 0
        except InvalidRequest as error:
            if "Upgrading" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(1)
        else:
            return answer["data"]["data"], int(answer["data"]["metadata"]["version"])


def write_kv(client: hvac.Client, mount: str, path: str, values: dict[str, str], version: int) -> int:
    """Writes a KV v2 secret and gives its new version.

    Args:
        version: the one that was read, 0 for none: whoever has written since then is not overwritten unseen.
    """
    written = client.secrets.kv.v2.create_or_update_secret(path=path, mount_point=mount, secret=values, cas=version)
    return int(written["data"]["version"])


def _saved_token() -> str | None:
    try:
        return (Path.home() / ".vault-token").read_text(encoding="utf-8").strip() or None
    except OSError:
        return None
