"""Whether a text is a secret, or holds one. What is found is told by its kind, never by any part of its value."""

import base64
import binascii
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import pairwise

from policies.tables import table

__all__ = ["known_secret", "secret_in", "secrets_in_command", "secrets_in_text"]

_TEXT_MAX_CHARACTERS = 2_000_000
"""More than a ConfigMap may hold, which is 1 MiB."""

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_JWT = re.compile(r"(?<![\w-])eyJ[0-9A-Za-z_-]{8,}\.eyJ[0-9A-Za-z_-]{8,}\.[0-9A-Za-z_-]{16,}")
# user:password@host. What stands for a password is no password: $(X), ${X}, {{ x }}, <x>, ***, %s, or nothing; $$X is
# $X where a dollar sign is escaped, as in a container's command.
_URL = re.compile(r"[a-zA-Z0-9]://[^\s:/?#@\"']{0,200}:(?P<password>[^\s/@\"']{1,500})@")
# user:password@tcp(host:port)/name, as drivers of Go are given it.
_GO_DSN = re.compile(r"(?<![\w.:-])[\w.-]{1,100}:(?P<password>[^\s:/@\"']{1,200})@(?:tcp|unix|udp)\(")
# libpq's `host=… password=…`, ADO's `Server=…;Password=…`, the query of a URL. Beside a password is where it is for.
_KEYWORD = re.compile(
    r"(?:(?<=[\s;?&\"'])|^)(?:password|pwd|passwd|pass)[^\S\n]{0,5}=[^\S\n]{0,5}(?P<password>'[^'\n]{1,200}'|[^\s;&\"']{1,200})",
    re.IGNORECASE,
)
_CONNECTS = re.compile(
    r"(?:(?<=[\s;?&\"'])|^)(?:host|hostaddr|server|data source|dbname|database|initial catalog|user|user id|uid|port)"
    r"[^\S\n]{0,5}=|jdbc:|://",
    re.IGNORECASE,
)
_BASIC = re.compile(r"\bBasic[^\S\n]{1,5}(?P<code>[A-Za-z0-9+/]{8,500}={0,2})(?![\w+/=])", re.IGNORECASE)
_BEARER = re.compile(
    r"\b(?:Bearer|(?<=authorization: )token)[^\S\n]{1,5}(?P<token>[A-Za-z0-9._~+/-]{16,4000}=*)", re.IGNORECASE
)
_FLOW = re.compile(
    r"[{,][^\S\n]{0,5}(?P<name>[A-Za-z_][\w.-]{0,80}):[^\S\n]{1,5}(?P<value>[^\s,{}\[\]\"']{1,500})(?=[^\S\n]{0,5}[,}])"
)
_ELEMENT = re.compile(r"<(?P<name>[A-Za-z_][\w.-]{0,80})>(?P<value>[^<>\n]{1,500})</(?P=name)>")
_QUOTED = re.compile(
    r"""(?<![\w.-])["']?(?P<name>[A-Za-z_][\w.-]{0,80})["']?(?::[^\S\n]{0,5}|[^\S\n]{0,5}=[^\S\n]{0,5})(?P<quote>["'])(?P<value>[^"'\n]{1,500})(?P=quote)"""
)
_STANDS_FOR = re.compile(
    r"^[\"']?(?:\$\$?[({A-Za-z_]|\{\{|<[^>]*>|%[({sA-Z]|@|\*+$|x+$|\.\.\.|\[[^\]]*\]$)", re.IGNORECASE
)
_NO_SECRET = re.compile(
    r"true|false|yes|no|on|off|none|null|nil|undefined|disabled|enabled|default|required|optional"
    r"|-?\d+(?:\.\d+)?(?:ns|us|ms|s|m|h|d)?|[./~][\w./~-]*|[a-zA-Z]+://\S*|sha(?:256|384|512)[:-]\S+",
    re.IGNORECASE,
)
_RANDOM = re.compile(r"(?<![\w+/:@=.-])[0-9A-Za-z+/_-]{40,}={0,2}(?![\w+/=-])")
_ENDS_COMMAND = frozenset({";", "&", "&&", "|", "||"})
_BITS_PER_CHARACTER = 4.5
"""English and identifiers have about 4; 40 random characters of base64 nearly 5."""
_FORMAT_MIN_CHARACTERS = 18
"""The shortest secret that is known by its format."""
_KEPT_CHARACTERS = 500
_SECRET_MIN_CHARACTERS = 8
_PHRASE_MIN_CHARACTERS = 16
_PAIR = re.compile(
    r"""\s*(?:export\s+|-\s+)?["']?(?P<name>[A-Za-z_][\w.-]*)["']?(?P<sign>\s*[:=]\s*)"""
    r"""(?P<quote>["']?)(?P<value>[^\s"'(){},;]+)(?P=quote)\s*,?\s*(?:\#.*)?"""
)
_OPTION = re.compile(r"""(?:^|\s)-{0,2}(?P<name>[A-Za-z_][\w.-]*)=(?P<quote>["']?)(?P<value>[^\s"']+)(?P=quote)""")


@dataclass(frozen=True)
class _PasswordOptions:
    """The options by which a program is given a password, though their names do not say so."""

    options: tuple[str, ...]
    with_name: bool
    attached: bool

    def kind_in(self, words: Sequence[str], index: int) -> tuple[str, str] | None:
        """The option and the kind of what a word gives as a password, itself or by the word after it.

        Args:
            words: those after the program. One that it starts has the same option, maybe, after its own.
        """
        option = self._option(words[index])
        if option is None or option in map(self._option, words[:index]):
            return None
        following = "" if self.attached else "".join(words[index + 1 : index + 2])
        password = (words[index].removeprefix(option) or following).removeprefix("=").strip("\"'")
        if self.with_name:
            password = password.partition(":")[2]
        if not password or _stands_for(password):
            return None
        return option, "a name and a password" if self.with_name else "a password"

    def _option(self, word: str) -> str | None:
        """The one that a word is, with or without what it is given: ``-p`` of ``-pX``, ``--user`` of ``--user=X``."""
        names = (each for each in self.options if word.startswith(each))
        return next((each for each in names if not each.startswith("--") or word[len(each) :][:1] in {"", "="}), None)


@dataclass(frozen=True)
class _Data:
    formats: Sequence[tuple[str, re.Pattern[str]]]
    passwords: frozenset[str]
    passwords_last: frozenset[str]
    secrets: frozenset[str]
    pairs: frozenset[tuple[str, str]]
    about: frozenset[str]
    public: frozenset[str]
    programs: Mapping[str, _PasswordOptions]


@cache
def _data() -> _Data:
    data = table("secrets.yaml")
    return _Data(
        formats=[(entry["what"], re.compile(entry["pattern"])) for entry in data["formats"]],
        passwords=frozenset(data["passwords"]),
        passwords_last=frozenset(data["passwords_last"]),
        secrets=frozenset(data["secrets"]),
        pairs=frozenset(tuple(pair) for pair in data["pairs"]),
        about=frozenset(data["about"]),
        public=frozenset(data["public"]),
        programs={
            program: _PasswordOptions(
                tuple(entry["options"]), entry.get("with_name", False), entry.get("attached", False)
            )
            for entry in data["programs"]
            for program in entry["programs"]
        },
    )


def known_secret(text: str) -> str:
    """What kind of secret a text holds, of those that are known by their looks; empty if none."""
    if len(text) < _FORMAT_MIN_CHARACTERS:
        return _credentials(text)
    # The same values stand in many resources; a long text is not worth keeping.
    return _known_short(text) if len(text) < _KEPT_CHARACTERS else _known(text[:_TEXT_MAX_CHARACTERS])


def _known(text: str) -> str:
    for what, pattern in _data().formats:
        if pattern.search(text):
            return what
    if any(not _is_public_token(found.group()) for found in _JWT.finditer(text)):
        return "a JSON Web Token"
    return _credentials(text)


_known_short = lru_cache(maxsize=4096)(_known)


def _credentials(text: str) -> str:
    """What kind of credentials a text holds for something that it names; empty if none."""
    # Most texts hold none of these, which a look for plain words tells faster than the patterns.
    plain = text.lower()
    if "://" in text and any(not _stands_for(found["password"]) for found in _URL.finditer(text)):
        return "a URL with a password"
    if "@" in text and any(not _stands_for(found["password"]) for found in _GO_DSN.finditer(text)):
        return "the address of a database with a password"
    if "pass" in plain or "pwd" in plain:
        passwords = [found["password"] for found in _KEYWORD.finditer(text)]
        if any(map(_is_password, passwords)) and _CONNECTS.search(text):
            return "the address of a database with a password"
    if "basic" in plain and any(_is_credentials(found["code"]) for found in _BASIC.finditer(text)):
        return "a name and a password (Basic)"
    if "bearer" in plain or "authorization" in plain:
        tokens = [found["token"] for found in _BEARER.finditer(text)]
        if any(_could_be_one(token) and not _JWT.match(token) for token in tokens):
            return "a token (Bearer)"
    return ""


def _stands_for(password: str) -> bool:
    return bool(_STANDS_FOR.match(password))


def _is_password(given: str) -> bool:
    password = given.strip("'")
    return not _stands_for(password) and not _NO_SECRET.fullmatch(password) and "(" not in password


def _is_credentials(code: str) -> bool:
    """Whether a text of base64 is a name and a password."""
    try:
        plain = base64.b64decode(code + "=" * (-len(code) % 4), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return False
    name, _, password = plain.partition(":")
    return bool(name and password and plain.isprintable() and not _stands_for(password))


def secret_in(name: str, value: str) -> str:
    """What kind of secret the value of a variable is; empty if none.

    Args:
        name: what it is called, which says most.
        value: what it is set to.
    """
    return known_secret(value) or _by_name(name, value)


def _by_name(name: str, value: str) -> str:
    """What kind of secret a value is by its name, or by how random it is; empty if none."""
    if _stands_for_something(value):
        return ""
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
    for line in text.splitlines():
        found = _PAIR.fullmatch(line)
        if found is None:
            yield from _inline(line)
            continue
        kind = _by_name(found["name"], found["value"])
        # In a program, `token = header` is no secret: there only what is in quotes is a text.
        assigned = found["sign"].strip() == "=" != found["sign"] and not found["quote"]
        if kind and not (assigned and found["value"].isidentifier()):
            yield found["name"], kind


def _inline(line: str) -> Iterator[tuple[str, str]]:
    """The secrets of a line that holds several pairs: JSON, XML, a mapping in flow style."""
    # What a line has to hold for a pattern to fit, which is told faster.
    for pattern, held in ((_QUOTED, "\"'"), (_ELEMENT, "<"), (_FLOW, "{,")):
        if not any(character in line for character in held):
            continue
        for found in pattern.finditer(line):
            kind = _by_name(found["name"], found["value"])
            if kind:
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
        parts = word.replace("\n", " ; ").split()
        if len(parts) > 1 and any(_program(part) in _data().programs for part in parts):
            yield from secrets_in_command(parts)
            continue
        following = words[index + 1] if index + 1 < len(words) else ""
        given = _given_at(words, index)
        if given is not None:
            yield given
            continue
        if re.fullmatch(r"--?[A-Za-z][\w-]+", word) and following and not following.startswith("-"):
            kind = secret_in(word.lstrip("-"), following)
            if kind:
                yield word, kind


def _program(word: str) -> str:
    """The program that a word of a command names, if it does: ``mysql`` of ``$(/usr/bin/mysql``."""
    return word.strip("\"'($`);").rpartition("/")[2]


def _given_at(words: Sequence[str], index: int) -> tuple[str, str] | None:
    """The option and the kind of a password that a word gives to the program of its command."""
    for start in range(index - 1, -1, -1):
        if words[start] in _ENDS_COMMAND or words[start].endswith(";"):
            return None
        if options := _data().programs.get(_program(words[start])):
            return options.kind_in(words[start + 1 :], index - start - 1)
    return None


def _named(name: str) -> str:
    """``password``, ``secret`` or neither, by the words of a name."""
    words = [word.lower() for word in _WORD.findall(name)]
    data = _data()
    # `passwordKey` of a chart's values is the key in a Secret under which the password is.
    key_of = len(words) > 1 and words[-1] == "key" and words[-2] in data.passwords
    if not words or words[-1] in data.about or key_of or words[0] == "existing" or _says_public(name):
        return ""
    if data.passwords & set(words) or words[-1] in data.passwords_last:
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
