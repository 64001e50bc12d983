"""The connection that dynamic resources make to OpenBao, with the credentials that the vault provider uses."""

import os
import time
from pathlib import Path

import hvac
import requests
from hvac.exceptions import (
    BadGateway,
    Forbidden,
    InvalidPath,
    InvalidRequest,
    RateLimitExceeded,
    UnexpectedError,
    VaultDown,
    VaultError,
)
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from components.postgres import advice_on

__all__ = ["OpenBaoUnavailableError", "connect", "explain", "patient", "read_kv", "write_kv"]

_TIMEOUT_SECONDS = 30
_ENGINE_READY_SECONDS = 30
_AGAIN = "run the same command again"
_CONNECTIONS = 32
_RETRY = Retry(
    # As OpenBao's own clients do: a node was just elected, a gateway, a quota. Doing a thing twice harms nothing here.
    total=4,
    read=2,
    backoff_factor=0.2,
    status_forcelist=(412, 429, 502, 503, 504),
    allowed_methods=None,
    raise_on_status=False,
    respect_retry_after_header=False,
)


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
    patient(client.session)
    try:
        # These two are answers, not something to try again for.
        health = client.sys.read_health_status(method="GET", standby_ok=True, sealed_code=200, uninit_code=200)
        status = health.json() if isinstance(health, requests.Response) else health
    except requests.JSONDecodeError:
        raise OpenBaoUnavailableError(
            f"what answers at {address} is not OpenBao: see what stands before it, and whether the address is right"
        ) from None
    except (VaultError, requests.RequestException) as error:
        raise OpenBaoUnavailableError(f"OpenBao at {address} cannot be used: {explain(error)}") from None
    if not status.get("initialized"):
        raise OpenBaoUnavailableError(f"OpenBao at {address} is not initialised")
    if status.get("sealed"):
        raise OpenBaoUnavailableError(f"OpenBao at {address} is sealed: unseal it and run the command again")
    return client


def patient(session: requests.Session) -> requests.Session:
    """The same session, which asks again where that may help."""
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(pool_maxsize=_CONNECTIONS, max_retries=_RETRY))
    return session


def explain(error: VaultError | requests.RequestException) -> str:
    """The cause in one line and what to do about it, without the request (whose body may hold secrets)."""
    if isinstance(error, VaultError):
        said = " ".join("; ".join(map(str, error.errors or [])).split()) or type(error).__name__
        advice = _advice(error, said)
        return f"{said}: {advice}" if advice else said
    said = str(error)
    if isinstance(error, requests.Timeout) or "timed out" in said:
        return f"no answer within {_TIMEOUT_SECONDS} s; see how it is loaded, then {_AGAIN}"
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate is not trusted: set VAULT_CACERT or REQUESTS_CA_BUNDLE"
    if "Connection refused" in said:
        return f"connection refused: start it, or see whether the address is right, then {_AGAIN}"
    if isinstance(error, requests.ConnectionError):
        return f"the connection was cut or cannot be made; {_AGAIN}"
    return type(error).__name__


def _advice(error: VaultError, said: str) -> str | None:
    if isinstance(error, RateLimitExceeded):
        return f"it takes no more requests for now; {_AGAIN} later, or raise the quota"
    if "sealed" in said:
        return f"unseal it and {_AGAIN}"
    if isinstance(error, Forbidden):
        return f"the token has ended or may not do this; sign in again (bao login), then {_AGAIN}"
    if "no space left" in said:
        return f"its disk is full; make room, then {_AGAIN}"
    if isinstance(error, VaultDown | BadGateway | UnexpectedError) or "not active" in said:
        return f"it or what stands before it is not ready; see its log, then {_AGAIN}"
    if "password authentication failed" in said:
        return "OpenBao's login has another password in PostgreSQL; `dataplane realign` gives both the same"
    from_database = any(word in said for word in ("SQLSTATE", "dial", "connect"))
    advice = advice_on(said) if from_database else None
    return f"of PostgreSQL, {advice}" if advice else None


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
