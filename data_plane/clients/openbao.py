"""The connection to OpenBao with the credentials that the vault provider uses, and what its errors mean."""

import logging
import os
import re
import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
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

from data_plane.errors import DataPlaneError

__all__ = ["OpenBaoUnavailableError", "connect", "end_tokens", "explain", "patient", "read_kv", "write_kv"]

_LOG = logging.getLogger(__name__)
_TIMEOUT_SECONDS = 30
_ENGINE_READY_SECONDS = 30
_AGAIN = "run the same command again"
_UNSEAL = "`bao operator unseal`; on this machine `dataplane local start`"
_CONNECTIONS = 32
_OF_DATABASE = re.compile(
    r"SQLSTATE|\bdial (tcp|error)|failed to (connect to `|verify connection)|bad connection|conn closed|unexpected EOF"
)
_ADDRESS = re.compile(r"dial tcp (\S+?):? ")
_SERVER_ERROR = re.compile(r"(?:ERROR|FATAL|PANIC): (.+?) \(SQLSTATE")
_NO_SUCH_TOKEN = "invalid accessor"
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


class OpenBaoUnavailableError(DataPlaneError):
    """OpenBao is sealed, not reachable, lacks what is asked for, or there is no token for it."""

    code = "openbao-unavailable"


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
    except requests.JSONDecodeError as error:
        raise OpenBaoUnavailableError(
            f"what answers at {address} is not OpenBao: see what stands before it, and whether the address is right"
        ) from error
    except (VaultError, requests.RequestException) as error:
        raise OpenBaoUnavailableError(f"OpenBao at {address} cannot be used: {explain(error)}") from error
    if not status.get("initialized"):
        raise OpenBaoUnavailableError(f"OpenBao at {address} is not initialised: run `bao operator init`")
    if status.get("sealed"):
        raise OpenBaoUnavailableError(f"OpenBao at {address} is sealed: unseal it ({_UNSEAL}), then {_AGAIN}")
    _LOG.debug("connected to OpenBao at %s", address)
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
        if _OF_DATABASE.search(said):
            _LOG.debug("what OpenBao says of PostgreSQL: %s", said)
            return _explain_database(said)
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
        return f"unseal it ({_UNSEAL}), then {_AGAIN}"
    if isinstance(error, Forbidden):
        return f"the token has ended or may not do this; sign in again (bao login), then {_AGAIN}"
    if "no space left" in said:
        return f"its disk is full; make room, then {_AGAIN}"
    if isinstance(error, VaultDown | BadGateway | UnexpectedError) or "not active" in said:
        return f"it or what stands before it is not ready; see its log, then {_AGAIN}"
    return None


def _explain_database(said: str) -> str:
    """One sentence for what OpenBao's database engine says of PostgreSQL: the whole chain of a Go program's errors."""
    place = f" at {found[1]}" if (found := _ADDRESS.search(said)) else ""
    if found := _SERVER_ERROR.search(said):
        cause = f"PostgreSQL{place} refused OpenBao: {found[1]}"
        default = None
    else:
        cause = f"OpenBao cannot reach PostgreSQL{place} ({said.rpartition(': ')[2].rstrip(']; ')})"
        default = f"see whether it runs and can be reached from there, then {_AGAIN}"
    if "password authentication failed" in said:
        return f"{cause}: its login has another password there; `dataplane secret reconcile` gives both the same"
    from data_plane.clients.postgres import advice_on  # noqa: PLC0415 as large as its client

    advice = advice_on(said) or default
    return f"{cause}: {advice}" if advice else cause


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
        version: the one that was read, 0 for none: a later write is not overwritten unseen.
    """
    written = client.secrets.kv.v2.create_or_update_secret(path=path, mount_point=mount, secret=values, cas=version)
    return int(written["data"]["version"])


def end_tokens(client: hvac.Client, entities: Collection[str]) -> None:
    """Revokes every token of some identities, and with the tokens their leases.

    Not those of the identity that asks: what runs would lose its own token on the way. A batch token has no accessor,
    cannot be revoked, and ends with its time.

    Args:
        client: an operator's; listing accessors takes ``sudo``.
    """
    mine = client.auth.token.lookup_self()["data"]["entity_id"]
    wanted = {entity for entity in entities if entity != mine}
    if not wanted:
        return

    def end(accessor: str) -> None:
        try:
            if client.auth.token.lookup_accessor(accessor)["data"]["entity_id"] in wanted:
                client.auth.token.revoke_accessor(accessor)
        except VaultError as error:
            if _NO_SUCH_TOKEN not in str(error):  # it has ended meanwhile
                raise

    with ThreadPoolExecutor(_CONNECTIONS // 2) as pool:
        list(pool.map(end, client.auth.token.list_accessors()["data"]["keys"]))


def _saved_token() -> str | None:
    try:
        return (Path.home() / ".vault-token").read_text(encoding="utf-8").strip() or None
    except OSError:
        return None
