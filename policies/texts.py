"""Texts that hold something: YAML documents, read within bounds, and what is encoded or compressed."""

import base64
import binascii
import re
import zlib
from pathlib import PurePosixPath

from policies.artifacts.findings import MalformedError, Place, UncheckedError
from policies.artifacts.sources import documents
from policies.unknown import is_unknown

__all__ = ["TEXT_MAX_CHARACTERS", "UncheckedError", "decoded", "documents_in", "values_in"]

TEXT_MAX_CHARACTERS = 4 * 1024 * 1024
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{24,}={0,2}")
_GZIP = b"\x1f\x8b"


def documents_in(text: object, *, any_tag: bool = False, guessed: bool = False) -> list[object]:
    """What a YAML text holds; nothing if it is none, since the tool that applies it reports that.

    Args:
        any_tag: whether tags of an application's own are passed over.
        guessed: whether the text may be something else, such as a script: then it holds nothing if it cannot be read.

    Raises:
        UncheckedError: if it is larger, with its aliases, than anybody writes, or not clear.
    """
    if not isinstance(text, str) or is_unknown(text):
        return []
    file = PurePosixPath("text")
    if len(text) > TEXT_MAX_CHARACTERS:
        if guessed:
            return []
        raise UncheckedError(Place(file), f"it has more than {TEXT_MAX_CHARACTERS} characters")
    try:
        return [document.data for document in documents(text, file, any_tag=any_tag)]
    except MalformedError:
        return []
    except UncheckedError:
        if guessed:
            return []
        raise


def values_in(text: object) -> object:
    """The values that a text holds for a chart; None if it holds none."""
    found = documents_in(text)
    return found[0] if found else None


def decoded(text: str) -> str:
    """A text, without the base64 and gzip that it may be wrapped in."""
    for _ in range(2):
        plain = "".join(text.split()) if len(text) <= TEXT_MAX_CHARACTERS else ""
        if not _BASE64.fullmatch(plain):
            return text
        try:
            content = base64.b64decode(
                plain.replace("-", "+").replace("_", "/") + "=" * (-len(plain) % 4), validate=True
            )
            if content.startswith(_GZIP):
                content = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16).decompress(content, TEXT_MAX_CHARACTERS)
            text = content.decode()
        except (binascii.Error, ValueError, zlib.error):
            return text
    return text
