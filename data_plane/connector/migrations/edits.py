"""Changes to a text of SQL, and what they are counted as when a run is summed up."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from pglast.parser import Token

from data_plane.connector.migrations.script import tokens_of

__all__ = ["Edit", "Kind", "edited", "identifier", "quoted_name", "quoted_text", "string_parts"]

_QUOTED = 2


class Kind(StrEnum):
    """What was adapted."""

    PUBLIC = "public"
    ROLES = "roles"
    USERS = "auth.users"
    SCHEMAS = "schemas"
    BUCKETS = "buckets"
    BUCKET_RIGHTS = "policies on buckets"
    STORAGE_RULES = "storage rules"
    EXPRESSIONS = "functions in storage rules"
    TOPIC_RULES = "topic rules"
    JOBS = "jobs"
    PUBLICATIONS = "publications"
    GRANTS = "grants"
    DEFAULTS = "schema rights"
    CATALOGUE = "catalog"
    EXTENSIONS = "extensions"
    EXISTING = "there already"
    STABLE = "stable"
    SETTINGS = "settings"
    CHOSEN = "left out by choice"

    @property
    def difference(self) -> str | None:
        """In what the effect is another than on a standalone Supabase; None if it is the same."""
        return _DIFFERENCES.get(self)


_DIFFERENCES = {
    Kind.USERS: "has a row for each member of the project, which follows Auth within seconds",
    Kind.BUCKETS: "clients name a bucket as the binding does: proj_….receipts",
    Kind.BUCKET_RIGHTS: "not run: who sees the list of buckets is Storage's",
    Kind.EXPRESSIONS: "a rule has the expression of the function that it calls: to change that, declare the rule anew",
    Kind.PUBLICATIONS: "changes to tables are not sent; Realtime gives broadcast and presence",
    Kind.GRANTS: "ALL became SELECT, INSERT, UPDATE, DELETE: TRUNCATE passes row-level security by",
    Kind.DEFAULTS: "not run: the data plane declares rights on the schema, on what is its own and for new objects",
    Kind.EXTENSIONS: "not made: it is the platform's; what uses it is looked at by itself",
    Kind.STABLE: "a function that only reads is declared so, for its `execute`: it sees what was there when the "
    "statement that calls it began",
    Kind.CHOSEN: "not run",
}


@dataclass(frozen=True)
class Edit:
    """A part of a text and what stands there instead."""

    begin: int
    end: int
    """Of the part; -1 for the token that begins it."""
    text: str
    kinds: tuple[Kind, ...]
    """What it is counted as: several where it is the text of a function."""


def edited(text: str, edits: Iterable[Edit]) -> str:
    """The text with every edit made."""
    ordered = sorted(edits, key=lambda edit: edit.begin, reverse=True)
    ends = {token.start: token.end + 1 for token in tokens_of(text)} if any(edit.end < 0 for edit in ordered) else {}
    for edit in ordered:
        end = edit.end if edit.end >= 0 else ends[edit.begin]
        text = text[: edit.begin] + edit.text + text[end:]
    return text


def identifier(text: str, token: Token | None) -> str | None:
    """The name that a token is, as PostgreSQL folds it; None for what is no name."""
    if token is None or (token.name != "IDENT" and token.kind == "NO_KEYWORD"):
        return None
    word = text[token.start : token.end + 1]
    if word.startswith('"') and len(word) > _QUOTED:
        return word[1:-1].replace('""', '"')
    return word.lower()


def quoted_name(name: str) -> str:
    """A schema's name as it stands in SQL: in quotation marks where a reader would stumble without."""
    return f'"{name}"' if "$" in name else name


def quoted_text(text: str) -> str:
    """A string as it stands in SQL, whatever ``standard_conforming_strings`` is."""
    escape = "E" if "\\" in text else ""
    return escape + "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def string_parts(quoted: str) -> tuple[str, str, str]:
    """The opening quote of a string, what is between, and the closing one."""
    if quoted.startswith("$"):
        tag = quoted[: quoted.index("$", 1) + 1]
        return tag, quoted[len(tag) : -len(tag)], tag
    begin = quoted.index("'") + 1
    return quoted[:begin], quoted[begin:-1], "'"
