"""Whether a text is a secret, or holds one. What is found is told by its kind, never by any part of its value."""

import base64
import binascii
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

from policies.documents import data_file

__all__ = ["known_secret", "secret_in", "secrets_in_command", "secrets_in_text"]

_TEXT_MAX_CHARACTERS = 2_000_000
"""More than a ConfigMap may hold, which is 1 MiB."""

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_JWT = re.compile(r"\beyJ[0-9A-Za-z_-]{8,}\.eyJ[0-9A-Za-z_-]{8,}\.[0-9A-Za-z_-]{16,}")
# user:password@host. What stands for a password is no password: $(X), ${X}, {{ x }}, <x>, ***, %s, or nothing.
_URL = re.compile(r"\b[a-zA-Z][a-zA-Z0-9+.-]*://[^\s:/?#@\"']*:(?P<password>[^\s/@\"']+)@")
_STANDS_FOR = re.compile(
    r"^[\"']?(?:\$[({A-Za-z_]|\{\{|<[^>]*>|%[({sA-Z]|@|\*+$|x+$|\.\.\.|\[[^\]]*\]$)", re.IGNORECASE
)
_NO_SECRET = re.compile(
    r"true|false|yes|no|on|off|none|null|nil|undefined|disabled|enabled|default|required|optional"
    r"|-?\d+(?:\.\d+)?(?:ns|us|ms|s|m|h|d)?|[./~][\w./~-]*|[a-zA-Z]+://\S*|sha(?:256|384|512)[:-]\S+",
    re.IGNORECASE,
)
_RANDOM = re.compile(r"(?<![\w+/:@=.-])[0-9A-Za-z+/_-]{40,}={0,2}(?![\w+/=-])")
_BITS_PER_CHARACTER = 4.5
"""English and identifiers have about 4; 40 random characters of base64 nearly 5."""
_SECRET_MIN_CHARACTERS = 8
_PHRASE_MIN_CHARACTERS = 16
_PAIR = re.compile(
    r"""^\s*(?:export\s+|-\s+)?["']?(?P<name>[A-Za-z_][\w.-]*)["']?(?P<sign>\s*[:=]\s*)(?P<quote>["']?)(?P<value>[^\s"'(){},;]+)(?P=quote)\s*,?\s*(?:\#.*)?$""",
    re.MULTILINE,
)
_OPTION = re.compile(r"""(?:^|\s)-{0,2}(?P<name>[A-Za-z_][\w.-]*)=(?P<quote>["']?)(?P<value>[^\s"']+)(?P=quote)""")


@dataclass(frozen=True)
class _Data:
    formats: Sequence[tuple[str, re.Pattern[str]]]
    passwords: frozenset[str]
    secrets: frozenset[str]
    pairs: frozenset[tuple[str, str]]
    about: frozenset[str]
    public: frozenset[str]


@cache
def _data() -> _Data:
    data = data_file("secrets.yaml")
    return _Data(
        formats=[(entry["what"], re.compile(entry["pattern"])) for entry in data["formats"]],
        passwords=frozenset(data["passwords"]),
        secrets=frozenset(data["secrets"]),
        pairs=frozenset(tuple(pair) for pair in data["pairs"]),
        about=frozenset(data["about"]),
        public=frozenset(data["public"]),
    )


def known_secret(text: str) -> str:
    """What kind of secret a text holds, of those that are known by their looks; empty if none."""
    text = text[:_TEXT_MAX_CHARACTERS]
    for what, pattern in _data().formats:
        if pattern.search(text):
            return what
    if any(not _is_public_token(found.group()) for found in _JWT.finditer(text)):
        return "a JSON Web Token"
    if any(not _STANDS_FOR.match(found["password"]) for found in _URL.finditer(text)):
        return "a URL with a password"
    return ""


def secret_in(name: str, value: str) -> str:
    """What kind of secret the value of a variable is; empty if none.

    Args:
        name: what it is called, which says most.
        value: what it is set to.
    """
    known = known_secret(value)
    if known or _stands_for_something(value):
        return known
    kind = _named(name)
    if kind == "password":
        return "a password"
    if kind == "secret" and _could_be_one(value):
        return "a secret, by its name"
    if "\n" not in value and not _says_public(name) and any(_is_random(word) for word in _RANDOM.findall(value)):
        return "a secret, by how random it is"
    return ""


def secrets_in_text(text: str) -> Iterator[tuple[str, str]]:
    """The names and kinds of the secrets that a file sets; the name is empty where it is known by its looks."""
    text = text[:_TEXT_MAX_CHARACTERS]
    known = known_secret(text)
    if known:
        yield "", known
    for found in _PAIR.finditer(text):
        kind = secret_in(found["name"], found["value"])
        # In a program, `token = header` is no secret: there only what is in quotes is a text.
        assigned = found["sign"].strip() == "=" != found["sign"] and not found["quote"]
        if kind and kind != known and not (assigned and found["value"].isidentifier()):
            yield found["name"], kind


def secrets_in_command(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The names and kinds of the secrets that a command is given."""
    for index, word in enumerate(words):
        known = known_secret(word)
        if known:
            yield "", known
            continue
        for found in _OPTION.finditer(word):
            kind = secret_in(found["name"], found["value"])
            if kind:
                yield found["name"], kind
        following = words[index + 1] if index + 1 < len(words) else ""
        if re.fullmatch(r"--?[A-Za-z][\w-]+", word) and following and not following.startswith("-"):
            kind = secret_in(word.lstrip("-"), following)
            if kind:
                yield word, kind


def _named(name: str) -> str:
    """``password``, ``secret`` or neither, by the words of a name."""
    words = [word.lower() for word in _WORD.findall(name)]
    data = _data()
    # `passwordKey` of a chart's values is the key in a Secret under which the password is.
    key_of = len(words) > 1 and words[-1] == "key" and words[-2] in data.passwords
    if not words or words[-1] in data.about or key_of or words[0] == "existing" or _says_public(name):
        return ""
    if data.passwords & set(words):
        return "password"
    pairs = set(pairwise(words))
    return "secret" if data.secrets & set(words) or data.pairs & pairs else ""


def _says_public(name: str) -> bool:
    return bool(_data().public & {word.lower() for word in _WORD.findall(name)})


def _stands_for_something(value: str) -> bool:
    text = value.strip()
    return not text or bool(_STANDS_FOR.match(text) or _NO_SECRET.fullmatch(text)) or "{{" in text or "$(" in text


def _could_be_one(value: str) -> bool:
    text = value.strip()
    if " " in text or "\n" in text or len(text) < _SECRET_MIN_CHARACTERS or "${" in text:
        return False
    mixed = bool(re.search(r"\d", text) and re.search(r"[A-Za-z]", text))
    return mixed or len(text) >= _PHRASE_MIN_CHARACTERS


def _is_random(word: str) -> bool:
    if word.startswith("/") or "//" in word or not all(map(re.search, ("[0-9]", "[A-Z]", "[a-z]"), [word] * 3)):
        return False
    return _entropy(word.rstrip("=")) >= _BITS_PER_CHARACTER


def _entropy(text: str) -> float:
    """Shannon's, in bits per character."""
    return -sum(count / len(text) * math.log2(count / len(text)) for count in Counter(text).values())


def _is_public_token(token: str) -> bool:
    """Whether a token is one that every browser gets: Supabase's for the role anon. What is no token is public too."""
    header, claims = (_decoded(part) for part in token.split(".")[:2])
    if not isinstance(header, dict) or "alg" not in header:
        return True
    return isinstance(claims, dict) and claims.get("role") == "anon"


def _decoded(part: str) -> object:
    try:
        return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (binascii.Error, ValueError):
        return None
