"""How Realtime keeps what is secret in its tables: AES-256-GCM with ``DB_ENC_KEY_GCM``.

A fact of lib/realtime/crypto.ex of supabase/realtime: ``g1:``, then base64 of the nonce (12 bytes), the tag (16) and
what is encrypted. The key is the variable's 32 characters, as they are.
"""

import base64
import binascii
import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["seal", "unseal"]

_PREFIX = "g1:"
_NONCE, _TAG = 12, 16


def seal(key: str, text: str) -> str:
    """The text as Realtime keeps it."""
    nonce = secrets.token_bytes(_NONCE)
    sealed = AESGCM(key.encode()).encrypt(nonce, text.encode(), b"")
    return _PREFIX + base64.b64encode(nonce + sealed[-_TAG:] + sealed[:-_TAG]).decode()


def unseal(key: str, sealed: str | None) -> str | None:
    """The decrypted text; None if it was not encrypted, or with another key."""
    if not sealed or not sealed.startswith(_PREFIX):
        return None
    try:
        raw = base64.b64decode(sealed.removeprefix(_PREFIX), validate=True)
        nonce, tag, text = raw[:_NONCE], raw[_NONCE : _NONCE + _TAG], raw[_NONCE + _TAG :]
        return AESGCM(key.encode()).decrypt(nonce, text + tag, b"").decode()
    except (InvalidTag, ValueError, binascii.Error):
        return None
