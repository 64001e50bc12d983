"""The platform's secrets in OpenBao's KV engine, generated where they are kept.

``ConnectorSecrets`` makes sure that a KV v2 secret has a value for each named key. A value that is there is never
changed; a missing one is generated from the operating system's random source and written straight to OpenBao, so it
is in no manifest, no log and no Pulumi state. (A ``RandomPassword`` would keep a second, if encrypted, copy of each in
the state for ever.)
"""

import base64
import hashlib
import secrets
import string
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import pulumi
from hvac import Client
from hvac.exceptions import InvalidPath
from pulumi.dynamic import CreateResult, DiffResult, ReadResult, Resource, ResourceProvider, UpdateResult

from components.openbao import connect

__all__ = ["SUPABASE_SECRETS", "ConnectorSecrets", "SecretKind", "generate"]


class SecretKind(StrEnum):
    """How a value has to look for the service that reads it."""

    PASSWORD = "password"
    """43 letters and digits (256 bits): safe in a URL, a DSN and a shell."""
    HEX_16 = "hex16"
    """32 hexadecimal digits."""
    HEX_32 = "hex32"
    """64 hexadecimal digits."""
    PUBLISHABLE_KEY = "publishable_key"
    """Supabase's opaque key for clients, ``sb_publishable_…``."""
    SECRET_KEY = "secret_key"
    """Supabase's opaque key for servers, ``sb_secret_…``."""


SUPABASE_SECRETS: Mapping[str, SecretKind] = {
    "JWT_SECRET": SecretKind.PASSWORD,
    "SUPABASE_PUBLISHABLE_KEY": SecretKind.PUBLISHABLE_KEY,
    "SUPABASE_SECRET_KEY": SecretKind.SECRET_KEY,
    "POSTGRES_PASSWORD": SecretKind.PASSWORD,
    # Phoenix (Realtime, Supavisor) wants at least 64 characters.
    "SECRET_KEY_BASE": SecretKind.HEX_32,
    # Supavisor uses it as an AES-256 key: 32 characters, no more.
    "VAULT_ENC_KEY": SecretKind.HEX_16,
    "PG_META_CRYPTO_KEY": SecretKind.PASSWORD,
    "S3_PROTOCOL_ACCESS_KEY_ID": SecretKind.HEX_16,
    "S3_PROTOCOL_ACCESS_KEY_SECRET": SecretKind.HEX_32,
}
"""What ``connectors/supabase`` holds; names and lengths follow the official ``.env.example`` and its generator."""

_PROJECT_REF = "supabase-self-hosted"
_LETTERS = string.ascii_letters + string.digits


def generate(kind: SecretKind) -> str:
    """A new random value of a kind."""
    match kind:
        case SecretKind.PASSWORD:
            return "".join(secrets.choice(_LETTERS) for _ in range(43))
        case SecretKind.HEX_16:
            return secrets.token_hex(16)
        case SecretKind.HEX_32:
            return secrets.token_hex(32)
        case SecretKind.PUBLISHABLE_KEY:
            return _opaque_key("sb_publishable_")
        case SecretKind.SECRET_KEY:
            return _opaque_key("sb_secret_")


def _opaque_key(prefix: str) -> str:
    """Supabase's form: 22 random characters and a checksum by which scanners tell a real key from a look-alike."""
    body = prefix + secrets.token_urlsafe(17)[:22]
    digest = hashlib.sha256(f"{_PROJECT_REF}|{body}".encode()).digest()
    return f"{body}_{base64.urlsafe_b64encode(digest).decode()[:8]}"


class _Provider(ResourceProvider):
    def create(self, props: dict[str, Any]) -> CreateResult:
        return CreateResult(id_=f"{props['mount']}/{props['path']}", outs=self._ensure(props))

    def update(self, _id: str, _olds: dict[str, Any], news: dict[str, Any]) -> UpdateResult:
        return UpdateResult(outs=self._ensure(news))

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        moved = [key for key in ("mount", "path") if olds.get(key) != news.get(key)]
        missing = set(news["kinds"]) - set(olds.get("keys") or [])
        return DiffResult(
            changes=bool(moved or missing or olds.get("address") != news.get("address")), replaces=moved, stables=[]
        )

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        present, version = self._present(connect(props["address"]), props)
        return ReadResult(id_=id_, outs={**_described(props), "keys": sorted(present), "version": version})

    def delete(self, _id: str, _props: dict[str, Any]) -> None:
        """Nothing: the secrets outlive the stack."""

    @staticmethod
    def _present(client: Client, props: dict[str, Any]) -> tuple[dict[str, str], int]:
        try:
            answer = client.secrets.kv.v2.read_secret_version(
                path=props["path"], mount_point=props["mount"], raise_on_deleted_version=True
            )
        except InvalidPath:
            return {}, 0
        return answer["data"]["data"], int(answer["data"]["metadata"]["version"])

    def _ensure(self, props: dict[str, Any]) -> dict[str, Any]:
        client = connect(props["address"])
        present, version = self._present(client, props)
        adopted: dict[str, str] = props.get("adopted") or {}
        wanted = {
            key: adopted.get(key) or present.get(key) or generate(SecretKind(kind))
            for key, kind in props["kinds"].items()
        }
        if any(present.get(key) != value for key, value in wanted.items()):
            # Check-and-set: two runs at once cannot each generate a value and one of them win unseen.
            written = client.secrets.kv.v2.create_or_update_secret(
                path=props["path"], mount_point=props["mount"], secret={**present, **wanted}, cas=version
            )
            version = int(written["data"]["version"])
        return {**_described(props), "keys": sorted({*present, *wanted}), "version": version}


def _described(props: dict[str, Any]) -> dict[str, Any]:
    return {key: props[key] for key in ("address", "mount", "path")}


class ConnectorSecrets(Resource, module="central", name="ConnectorSecrets"):
    """Makes sure that a KV v2 secret has a value for each of its keys, and keeps those that it has.

    Args:
        address: OpenBao's URL.
        mount: the KV v2 mount.
        path: the secret inside it.
        kinds: the keys and how their values look.
        adopted: values that exist already and are to be kept there, e.g. the password of a database that was
            there first. Has to be secret.

    Raises:
        OpenBaoUnavailableError: while it is applied, if OpenBao cannot be used.
    """

    path: pulumi.Output[str]
    """The secret inside the mount; known once the values are there."""
    keys: pulumi.Output[list[str]]
    """The names of the keys that have a value."""
    version: pulumi.Output[int]
    """The version of the KV secret."""

    def __init__(
        self,
        name: str,
        *,
        address: pulumi.Input[str],
        mount: pulumi.Input[str],
        path: str,
        kinds: Mapping[str, SecretKind],
        adopted: Mapping[str, pulumi.Input[str]] | None = None,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        props = {
            "address": address,
            "mount": mount,
            "path": path,
            "kinds": {key: kind.value for key, kind in kinds.items()},
            "adopted": dict(adopted or {}),
            "keys": None,
            "version": None,
        }
        super().__init__(_Provider(), name, props, opts)
