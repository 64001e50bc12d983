"""A project's slice of the database, and the boundaries that its migrations may not reach over."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from data_plane.connector.migrations.admission import Judge
from data_plane.connector.migrations.extensions import Extensions
from data_plane.connector.migrations.plain_functions import PlainFunction
from data_plane.model.naming import IDENTIFIER_MAX_BYTES, AccessLevel, TenantNames

__all__ = ["PLATFORM_SCHEMAS", "Finding", "Rule", "Scope"]


class Rule(StrEnum):
    """What lies outside of a project's slice."""

    PUBLIC = "public"
    """The schema that a standalone Supabase has its tables in; here the project's schema is that."""
    SHARED_ROLES = "shared-roles"
    """Supabase's roles, or the superuser, where the project has roles of its own."""
    DEFAULTS = "defaults"
    """Default privileges and the schema's own grants, which the project's resources declare."""
    CATALOGUE = "catalog"
    """Questions to the catalog that another project's objects answer too."""
    EXTENSIONS = "extensions"
    ROLES = "roles"
    SCHEMAS = "schemas"
    OTHER_PROJECTS = "other-projects"
    AUTH = "auth"
    STORAGE = "storage"
    REALTIME = "realtime"
    WEBHOOKS = "webhooks"
    """Supabase's database webhooks."""
    TEMPORARY = "temporary"
    """Temporary objects, which stay in a session that others use after it."""
    SERVER = "server"
    """What is of the database or the server, not of a schema."""
    SESSION = "session"
    """What changes the session of an API server that other projects use, too."""

    @property
    def advice(self) -> str:
        """What to do instead of reaching over it."""
        return _ADVICE[self]


_ADVICE = {
    Rule.PUBLIC: "leave the schema out of the name, or run without --as-is",
    Rule.SHARED_ROLES: "name the project's own role, or run without --as-is",
    Rule.DEFAULTS: "the data plane declares it; grant on the objects themselves, or run without --as-is",
    Rule.CATALOGUE: "another project's object of that name counts too: ask for your schema, or run without --as-is",
    Rule.EXTENSIONS: "ask for it in `extensions` of the central stack; its objects are in the schema `extensions`",
    Rule.ROLES: "roles come from the project's file: give people, teams and workloads access there",
    Rule.SCHEMAS: "a project reaches its own schemas: `create schema` makes one (a plain name, short enough), "
    "unless the run is --as-is",
    Rule.OTHER_PROJECTS: "a project reaches its own schemas alone; exchange data through the other's API",
    Rule.AUTH: "a project reads, references and puts triggers on its own members in auth.users, nothing else of "
    "Auth's but auth.uid(), jwt(), role() and email(). It has members if `auth` is in its managed_services, and they "
    "come and go through Auth: sign-up, "
    "data_plane_api.invite_member(), remove_member(), list_members()",
    Rule.STORAGE: "buckets may be declared, and rules on storage.objects that say it by the path of a file, its "
    "owner or a claim of the token, or by a function of one such expression; everything else goes through Storage's "
    "API. Whose membership is in a table: have a back end sign the URLs, and run the rest with --leave-out storage",
    Rule.REALTIME: "tables of projects are in no publication: Realtime gives broadcast and presence; policies "
    "on realtime.messages for select and insert say who may use which topics",
    Rule.WEBHOOKS: "database webhooks are not here: call the receiver from a back end, or from an Edge Function "
    "that a job or the client starts",
    Rule.TEMPORARY: "projects have no temporary objects: use `with … as`, or a table that the same file drops",
    Rule.SERVER: "it would concern every project",
    Rule.SESSION: "other projects' requests use the same session; docs/reference/migration-rules.md says how to "
    "write it, or have `api: dedicated` in the project's file",
}

PLATFORM_SCHEMAS: Mapping[str, Rule] = {
    "auth": Rule.AUTH,
    "storage": Rule.STORAGE,
    "realtime": Rule.REALTIME,
    "_realtime": Rule.REALTIME,
    "supabase_functions": Rule.WEBHOOKS,
    "pg_temp": Rule.TEMPORARY,
    **dict.fromkeys(
        ("cron", "graphql", "graphql_public", "net", "pgmq", "pgsodium", "pgsodium_masks", "pgtle", "vault"),
        Rule.EXTENSIONS,
    ),
    **dict.fromkeys(("_analytics", "_supavisor", "pgbouncer", "supabase_migrations"), Rule.SERVER),
}
"""What a schema of the platform's, or of an extension that has its own, is about."""

_ROLE_LEVELS = {
    "anon": AccessLevel.ANON,
    "authenticated": AccessLevel.AUTHENTICATED,
    "service_role": AccessLevel.SERVICE_ROLE,
    "postgres": AccessLevel.OWNER,
    "supabase_admin": AccessLevel.OWNER,
}
_KEPT = frozenset({"public", "migrations"})
"""Names with a meaning here: the project's first schema, and the one in which its migrations are noted."""
_TAKEN = ("pg_", "proj_", "data_plane")
_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_")


@dataclass(frozen=True)
class Finding:
    """A place where a statement reaches over a boundary."""

    rule: Rule
    what: str
    """In the words of SQL: ``schema public``, ``create role app``."""
    line: int


@dataclass(frozen=True)
class Scope:
    """A project's slice, and what of the database its migrations meet."""

    names: TenantNames
    extensions: Mapping[str, str] = field(default_factory=dict)
    """Schema of each extension that the database has."""
    extension_objects: Mapping[str, str] = field(default_factory=dict)
    """Schema of each function, type and operator class that belongs to one."""
    schemas: frozenset[str] = frozenset()
    """Every schema of the database."""
    judge: Judge | None = None
    """Of the texts of functions; None for a project that shares no session."""
    available: frozenset[str] = frozenset()
    """Every extension that the server has the files of."""
    used_extensions: frozenset[str] | None = None
    """Which extensions the files use, of those that a file may ask for without any need; None if nobody has looked."""
    further: frozenset[str] = frozenset()
    """The project's schemas beside its first, by the names that its files give them: ``private``."""

    expressions: Mapping[str, PlainFunction] = field(default_factory=dict)
    """The project's functions that are one expression, by their names in the files."""

    def with_schemas(self, names: Iterable[str]) -> "Scope":
        """The same slice, once it has the schemas that its files make."""
        return replace(self, further=self.further | {name for name in names if self.may_have(name)})

    def may_have(self, name: str) -> bool:
        """Whether a project may have a further schema of this name."""
        plain = name[:1].isalpha() and _NAME_CHARACTERS.issuperset(name)
        taken = name in _KEPT or name in PLATFORM_SCHEMAS or name in OPEN_SCHEMAS or name.startswith(_TAKEN)
        return plain and not taken and len(f"{self.names.schema}${name}".encode()) <= IDENTIFIER_MAX_BYTES

    def schema_here(self, name: str) -> str | None:
        """The schema of the project's that stands for one of its files'; None for any other."""
        if name == "public":
            return self.names.schema
        return f"{self.names.schema}${name}" if name in self.further else None

    @property
    def all_extensions(self) -> Extensions:
        """What can be said of an extension here."""
        return Extensions(self.extensions, self.available)

    @property
    def has_jobs(self) -> bool:
        """Whether jobs can be scheduled."""
        return "pg_cron" in self.extensions

    @property
    def users(self) -> str:
        """The schema of the project's table of users."""
        return f"{self.names.schema}$auth"

    @property
    def has_users(self) -> bool:
        """Whether the project has that table."""
        return self.users in self.schemas

    @property
    def own_schemas(self) -> frozenset[str]:
        """What the project has its objects in, as the database names it."""
        return frozenset({self.names.schema, *(f"{self.names.schema}${name}" for name in self.further)})

    def role_here(self, name: str) -> str | None:
        """The project's own role that stands for one of Supabase's roles; None for any other."""
        return self.names.role(_ROLE_LEVELS[name]) if name in _ROLE_LEVELS else None


OPEN_SCHEMAS = frozenset({"pg_catalog", "information_schema", "extensions", "data_plane_api"})
"""Schemas of the platform that a migration may name; what it may do there PostgreSQL decides."""
