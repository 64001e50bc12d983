"""The platform's secrets: which keys ``connectors/supabase`` has, how their values look, and new values."""

import base64
import hashlib
import json
import secrets
import string
import time
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey

from data_plane.errors import DataPlaneError

__all__ = [
    "CLUSTER_SECRETS",
    "SUPABASE_SECRETS",
    "SecretKind",
    "SecretsMissingError",
    "generate",
    "new_signing_key",
    "public_keys",
]


class SecretsMissingError(DataPlaneError):
    """OpenBao lacks values that only their owner can provide.

    Args:
        mount: the KV v2 mount.
        path: the secret inside it.
        missing: what needs each of the missing keys, by key.
    """

    code = "secrets-missing"

    def __init__(self, mount: str, path: str, missing: Mapping[str, str]) -> None:
        lines = [
            f"  {key}, needed by {reason}; put it there: bao kv patch -mount={mount} {path} {key}=-"
            for key, reason in sorted(missing.items())
        ]
        super().__init__("\n".join([f"{mount}/{path} in OpenBao has no value for:", *lines]))


class SecretKind(StrEnum):
    """How a value has to look for the service that reads it."""

    PASSWORD = "password"
    """43 letters and digits (256 bits): safe in a URL, a DSN and a shell."""
    HEX_8 = "hex8"
    """16 hexadecimal digits."""
    HEX_16 = "hex16"
    """32 hexadecimal digits."""
    HEX_32 = "hex32"
    """64 hexadecimal digits."""
    PUBLISHABLE_KEY = "publishable_key"
    """Supabase's opaque key for clients, ``sb_publishable_…``."""
    SECRET_KEY = "secret_key"
    """Supabase's opaque key for servers, ``sb_secret_…``."""
    SIGNING_KEYS = "signing_keys"
    """A JSON array with one private P-256 key, as Auth's ``GOTRUE_JWT_KEYS`` wants it."""
    PUBLIC_KEYS = "public_keys"
    """The JWKS of the public halves of ``JWT_KEYS``."""
    ANON_TOKEN = "anon_token"
    """A token with the role ``anon``, signed with ``JWT_KEYS``: what the publishable key stands for inside."""
    SERVICE_TOKEN = "service_token"
    """The same for ``service_role`` and the secret key."""
    NAME = "name"
    """A login that is no secret, but belongs to one."""


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

CLUSTER_SECRETS: Mapping[str, SecretKind] = {
    # Each login of a service has a password of its own, so that none of them can become another.
    "AUTHENTICATOR_PASSWORD": SecretKind.PASSWORD,
    "AUTH_ADMIN_PASSWORD": SecretKind.PASSWORD,
    "STORAGE_ADMIN_PASSWORD": SecretKind.PASSWORD,
    "POOLER_PASSWORD": SecretKind.PASSWORD,
    "KEYS_PASSWORD": SecretKind.PASSWORD,
    "GUARD_PASSWORD": SecretKind.PASSWORD,
    "RELAY_PASSWORD": SecretKind.PASSWORD,
    "STUDIO_PASSWORD": SecretKind.PASSWORD,
    # The official file gives JWT_SECRET to all of these; a service's management interface has no use for the others'.
    "REALTIME_JWT_SECRET": SecretKind.PASSWORD,
    # Realtime takes both: the one for what older versions wrote, the other (AES-256-GCM, 32 characters) for what it
    # writes.
    "REALTIME_DB_ENC_KEY": SecretKind.HEX_8,
    "REALTIME_DB_ENC_KEY_GCM": SecretKind.HEX_16,
    "REALTIME_SECRET_KEY_BASE": SecretKind.HEX_32,
    "REALTIME_COOKIE": SecretKind.PASSWORD,
    "POOLER_JWT_SECRET": SecretKind.PASSWORD,
    "POOLER_COOKIE": SecretKind.PASSWORD,
    "SUPABASE_PUBLISHABLE_KEY_BEFORE": SecretKind.PUBLISHABLE_KEY,
    "DASHBOARD_USERNAME": SecretKind.NAME,
    "DASHBOARD_PASSWORD": SecretKind.PASSWORD,
    "LOGFLARE_PUBLIC_ACCESS_TOKEN": SecretKind.PASSWORD,
    "LOGFLARE_PRIVATE_ACCESS_TOKEN": SecretKind.PASSWORD,
    "JWT_KEYS": SecretKind.SIGNING_KEYS,
    "JWT_JWKS": SecretKind.PUBLIC_KEYS,
    "ANON_KEY": SecretKind.ANON_TOKEN,
    "SERVICE_ROLE_KEY": SecretKind.SERVICE_TOKEN,
}
"""What ``connectors/supabase`` further holds where this program runs the services. The order is that of dependence."""

_PROJECT_REF = "supabase-self-hosted"
_TEN_YEARS_SECONDS = 10 * 365 * 24 * 3600
"""What the official key generator gives its tokens; they end when ``JWT_KEYS`` are rotated."""
_LETTERS = string.ascii_letters + string.digits


def generate(kind: SecretKind, others: Mapping[str, str]) -> str:
    """A new value of a kind.

    Args:
        others: the values of the keys that it may depend on.
    """
    make = _MAKERS.get(kind)
    if make is not None:
        return make()
    keys = others["JWT_KEYS"]
    match kind:
        case SecretKind.PUBLIC_KEYS:
            return public_keys(keys)
        case SecretKind.ANON_TOKEN:
            return _token("anon", keys)
        case _:
            return _token("service_role", keys)


def new_signing_key() -> dict[str, Any]:
    """A private P-256 key as a JWK with which Auth is to sign."""
    key = ECKey.generate_key("P-256", {"alg": "ES256", "use": "sig"}, auto_kid=True)
    # Auth signs with the key that says so, and takes the others for checking only.
    return {**key.as_dict(private=True), "key_ops": ["sign", "verify"]}


def public_keys(signing_keys: str) -> str:
    """The JWKS of the public halves of ``JWT_KEYS``."""
    keys = [ECKey.import_key(_without_operations(key)) for key in json.loads(signing_keys)]
    return json.dumps({"keys": [{**key.as_dict(private=False), "key_ops": ["verify"]} for key in keys]})


def _token(role: str, signing_keys: str) -> str:
    signing = next(key for key in json.loads(signing_keys) if "sign" in key["key_ops"])
    now = int(time.time())
    claims = {"role": role, "iss": "supabase", "iat": now, "exp": now + _TEN_YEARS_SECONDS}
    header = {"alg": "ES256", "typ": "JWT", "kid": signing["kid"]}
    return jwt.encode(header, claims, ECKey.import_key(_without_operations(signing)))


def _without_operations(key: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in key.items() if name != "key_ops"}


def _opaque_key(prefix: str) -> str:
    """Supabase's form: 22 random characters and a checksum by which scanners tell a real key from a look-alike."""
    body = prefix + secrets.token_urlsafe(17)[:22]
    digest = hashlib.sha256(f"{_PROJECT_REF}|{body}".encode()).digest()
    return f"{body}_{base64.urlsafe_b64encode(digest).decode()[:8]}"


_MAKERS: Mapping[SecretKind, Callable[[], str]] = {
    SecretKind.PASSWORD: lambda: "".join(secrets.choice(_LETTERS) for _ in range(43)),
    SecretKind.HEX_8: lambda: secrets.token_hex(8),
    SecretKind.HEX_16: lambda: secrets.token_hex(16),
    SecretKind.HEX_32: lambda: secrets.token_hex(32),
    SecretKind.PUBLISHABLE_KEY: lambda: _opaque_key("sb_publishable_"),
    SecretKind.SECRET_KEY: lambda: _opaque_key("sb_secret_"),
    SecretKind.SIGNING_KEYS: lambda: json.dumps([new_signing_key()]),
    SecretKind.NAME: lambda: "supabase",
}
