"""Questions to PostgreSQL's catalogs that name an object without its schema.

``if not exists (select from pg_type where typname = 'mood')`` is a common guard. In a standalone database it is
right; here the type of another project answers it.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from data_plane.connector.migrations.script import tokens_of

__all__ = ["Lookup", "unscoped_lookups"]

_SCHEMA_COLUMN: Mapping[str, str] = {
    "typname": "typnamespace",
    "proname": "pronamespace",
    "relname": "relnamespace",
    "conname": "connamespace",
    "tablename": "schemaname",
    "policyname": "schemaname",
    "indexname": "schemaname",
    "viewname": "schemaname",
    "matviewname": "schemaname",
    "sequencename": "schemaname",
}
"""The column with an object's name, and that with its schema (a name, or an OID of ``regnamespace``)."""

_TELLS_THE_OBJECT = frozenset(
    {*_SCHEMA_COLUMN.values(), "nspname", "conrelid", "polrelid", "tgrelid", "regclass", "regtype", "regproc", "oid"}
)
"""Words beside a name that make the question one about a certain object."""


@dataclass(frozen=True)
class Lookup:
    """A comparison of a name's column with a string."""

    begin: int
    end: int
    text: str
    """As it stands: ``t.typname = 'mood'``."""
    column: str
    name: str

    def within(self, schemas: Collection[str]) -> str:
        """The same comparison for the objects of some schemas."""
        alias = self.text.partition(self.column)[0]
        column = _SCHEMA_COLUMN[self.column.lower()]
        names = ", ".join(f"'{schema}'" for schema in sorted(schemas))
        if len(schemas) == 1:
            value = f"= {names}" if column == "schemaname" else f"= {names}::regnamespace"
        elif column == "schemaname":
            value = f"in ({names})"
        else:
            # A schema may not be there yet.
            value = f"in (select oid from pg_catalog.pg_namespace where nspname in ({names}))"  # noqa: S608 names of schemas
        return f"({alias}{column} {value} and {self.text})"


def unscoped_lookups(text: str) -> Iterator[Lookup]:
    """The comparisons in a text that no schema and no object's OID stands beside."""
    tokens = tokens_of(text)
    words = [text[token.start : token.end + 1] for token in tokens]
    lowered = [word.lower() for word in words]
    for place in range(len(words) - 2):
        if lowered[place] not in _SCHEMA_COLUMN or words[place + 1] != "=" or tokens[place + 2].name != "SCONST":
            continue
        if _TELLS_THE_OBJECT & set(_around(lowered, place)):
            continue
        first = place - 2 if place >= 2 and words[place - 1] == "." else place
        begin, end = tokens[first].start, tokens[place + 2].end + 1
        yield Lookup(begin, end, text[begin:end], words[place], words[place + 2].strip("'"))


def _around(words: list[str], place: int) -> list[str]:
    """The words of the parentheses around a place, or all of them."""
    depth, begin = 0, place
    while begin:
        begin -= 1
        depth += {")": 1, "(": -1}.get(words[begin], 0)
        if depth < 0:
            break
    depth, end = 0, place
    while end < len(words) - 1 and depth >= 0:
        end += 1
        depth += {"(": 1, ")": -1}.get(words[end], 0)
    return words[begin : end + 1]
