"""What a PostgreSQL server holds, as plain facts by project, and how two servers differ.

The facts do not depend on the server's major version: neither on how it prints an expression nor on what its catalogs
have beyond another's. Rows are read with ``copy``, which runs no code of a project; everything else is catalogs.
"""

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from data_plane.clients.postgres import PLATFORM_SESSION

__all__ = ["LEASES", "ROWS", "Difference", "Inventory", "Part", "compare", "take_inventory"]

PLATFORM = "platform"
"""The part that belongs to no project."""
LEASES = "leases"
ROWS = "rows"
_LEASE = re.compile(r"lease_[A-Za-z0-9_]+")
_PROJECT = re.compile(r"((?:proj|restored)_[a-z0-9_]+)")
_ROLE = re.compile(r"(proj_[a-z0-9_]+?)(?:_owner|_service_role|_authenticated|_anon|\$.*)")
_QUALIFIER = re.compile(r'(?:"(?:[^"]|"")+"|[A-Za-z_][\w$]*)\.')
_SPACE = re.compile(r"[\s()]+")
_MODULUS = 1 << 128
_AS_TEXT = """
set statement_timeout = '1d'; -- a large table takes its time
set extra_float_digits = 3;
set datestyle = iso;
set intervalstyle = postgres;
set timezone = utc;
set bytea_output = hex;
set client_encoding = utf8"""
"""Values are written alike by every server."""
_GRANTED = "select pg_get_userbyid(member), min(pg_get_userbyid(roleid)) from pg_auth_members group by 1"
_TABLES = """
select n.nspname, c.relname, c.oid::regclass::text from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind = 'r' and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
  and (n.nspname, c.relname) <> ('data_plane', 'applied_objects') order by 3"""
"""Without the record of what the platform's SQL has made, which has each version's own privileges."""

_SQL = Path(__file__).with_name("inventory.sql")
_BLOCK = re.compile(r"^-- (before each of a database|(?:database|server): .+)$", re.MULTILINE)
_ACL = re.compile(r"(.*)=([A-Za-z*]*)/.*", re.DOTALL)
_MAINTAIN = re.compile(r"m\*?")
"""A privilege that only 17 and later have, and give to each role that had all of them before."""


@dataclass(frozen=True)
class Inventory:
    """What a server holds: part (a project's schema, or the platform) → kind → name → fact."""

    version: str
    facts: Mapping[str, Mapping[str, Mapping[str, str]]]

    @classmethod
    def from_json(cls, text: str) -> "Inventory":
        """Raises: ValueError: if it is none."""
        try:
            document = json.loads(text)
            return cls(str(document["version"]), document["facts"])
        except (KeyError, TypeError) as error:
            raise ValueError("not an inventory") from error

    def to_json(self) -> str:
        """As a file keeps it. It holds names, counts and checksums; no row, text or password."""
        return json.dumps({"version": self.version, "facts": self.facts}, indent=1, sort_keys=True) + "\n"


@dataclass(frozen=True)
class Difference:
    """A fact that two servers do not share."""

    part: str
    kind: str
    name: str
    old: str | None
    new: str | None

    def __str__(self) -> str:
        if self.new is None:
            return f"{self.part}: {self.kind}: {self.name} is missing"
        if self.old is None:
            return f"{self.part}: {self.kind}: {self.name} was not there before"
        gone, come = (" ".join(word for word in a if word not in b) for a, b in _words(self.old, self.new))
        return f"{self.part}: {self.kind}: {self.name} was {gone or 'less'}, is {come or 'less'}"


def _words(old: str, new: str) -> tuple[tuple[list[str], list[str]], tuple[list[str], list[str]]]:
    before, after = old.split(), new.split()
    return (before, after), (after, before)


@dataclass(frozen=True)
class Part:
    """How a project, or the platform, compares."""

    name: str
    counts: Mapping[str, int]
    """Of the old server, by kind; of ``rows`` the rows themselves, of ``leases`` the logins."""
    differences: list[Difference] = field(default_factory=list)


def compare(old: Inventory, new: Inventory, ignored: Collection[str] = ()) -> list[Part]:
    """How two servers compare, the platform first, then each project.

    Args:
        ignored: kinds that are not compared.
    """
    names = sorted({*old.facts, *new.facts}, key=lambda name: (name != PLATFORM, name))
    return [_part(name, old.facts.get(name, {}), new.facts.get(name, {}), ignored) for name in names]


def _part(
    name: str, old: Mapping[str, Mapping[str, str]], new: Mapping[str, Mapping[str, str]], ignored: Collection[str]
) -> Part:
    counts = {kind: len(facts) for kind, facts in old.items()}
    counts[LEASES] = sum(key.startswith("roles of ") for key in old.get(LEASES, {}))
    counts[ROWS] = sum(int(fact.split()[0]) for fact in old.get(ROWS, {}).values())
    found = [
        Difference(name, kind, key, before.get(key), after.get(key))
        for kind in sorted({*old, *new} - {*ignored})
        for before, after in [(old.get(kind, {}), new.get(kind, {}))]
        for key in sorted({*before, *after})
        if before.get(key) != after.get(key)
    ]
    return Part(name, counts, found)


def take_inventory(parameters: Mapping[str, Any]) -> Inventory:
    """What a server holds now, in every database that can be connected to.

    Args:
        parameters: of libpq, for a connection as the superuser.

    Raises:
        psycopg.Error: if it cannot be read.
    """
    facts: dict[str, dict[str, dict[str, str]]] = {}
    before, of_database, of_server = _queries()

    def note(part: str, kind: str, name: str, fact: str) -> None:
        facts.setdefault(part, {}).setdefault(kind, {})[name] = fact

    with _session(parameters) as connection:
        version, current = connection.info.parameter_status("server_version"), connection.info.dbname
        names = connection.execute("select datname from pg_database where datallowconn order by 1").fetchall()
        granted = dict(connection.execute(_GRANTED).fetchall())
        for kind, query in of_server.items():
            for key, name, *fact in connection.execute(query).fetchall():
                if _LEASE.fullmatch(key):
                    note(_part_of(granted.get(key, "")), LEASES, f"{kind} of {name}", _fact(*fact))
                else:
                    note(_part_of(key), kind, name, _fact(*fact))
    for (database,) in names:
        place = "" if database == current else f"{database}: "
        with _session({**parameters, "dbname": database}) as connection:
            for kind, query in of_database.items():
                for key, name, *fact in connection.execute(before + query).fetchall():
                    note(_part_of(key), kind, place + name, _fact(*fact))
            for schema, name, rows in _rows(connection):
                note(_part_of(schema), ROWS, place + name, rows)
    return Inventory(version or "", facts)


def _queries() -> tuple[bytes, dict[str, bytes], dict[str, bytes]]:
    """What precedes each query of a database; those queries, and those of a server, by kind."""
    _, _, before, *rest = _BLOCK.split(_SQL.read_text(encoding="utf-8"))
    found: dict[str, dict[str, bytes]] = {"database": {}, "server": {}}
    for head, query in zip(rest[::2], rest[1::2], strict=True):
        scope, _, kind = head.partition(": ")
        found[scope][kind] = query.encode()
    return before.encode(), found["database"], found["server"]


def _session(parameters: Mapping[str, Any]) -> "psycopg.Connection[tuple[Any, ...]]":
    connection = psycopg.connect(
        **parameters, connect_timeout=15, application_name="supabase-data-plane inventory", options=PLATFORM_SESSION
    )
    connection.autocommit = True
    connection.execute(_AS_TEXT)
    connection.autocommit = False
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    connection.read_only = True
    return connection


def _rows(connection: "psycopg.Connection[tuple[Any, ...]]") -> Iterator[tuple[str, str, str]]:
    """Schema, name and sum of every table that stores rows."""
    for schema, table, name in connection.execute(_TABLES).fetchall():
        statement = sql.SQL("copy {} to stdout").format(sql.Identifier(schema, table))
        with connection.cursor() as cursor, cursor.copy(statement) as rows:
            yield schema, name, _sum(rows)


def _sum(rows: Iterable[bytes | bytearray | memoryview]) -> str:
    """The number of rows, and a checksum that does not depend on their order."""
    count = total = 0
    for row in rows:
        count += 1
        total += int.from_bytes(hashlib.blake2b(row, digest_size=16).digest(), "big")
    return f"{count} rows, checksum {total % _MODULUS:032x}"


def _fact(fact: str | None, expression: str | None, privileges: list[str] | None) -> str:
    found = [fact or ""]
    if expression:
        plain = _SPACE.sub(" ", _QUALIFIER.sub("", expression)).strip()
        found.append(f"expression:{hashlib.sha256(plain.encode()).hexdigest()[:16]}")
    if privileges is not None:
        found += sorted(filter(None, map(_privileges, privileges)))
    return " ".join(filter(None, found))


def _privileges(item: str) -> str:
    """A grantee and its privileges, of an item of an ACL."""
    matched = _ACL.fullmatch(item)
    if matched is None:
        return item
    letters = _MAINTAIN.sub("", matched[2])
    return f"{matched[1] or 'public'}={letters}" if letters else ""


def _part_of(key: str) -> str:
    """The project to which a schema or a role belongs, or the platform."""
    found = _ROLE.fullmatch(key) or _PROJECT.match(key)
    return found[1] if found else PLATFORM
