"""The names of everything that a tenant has, derived from its slug in this one place.

A tenant's schema, database roles, lease roles, token roles, policies and groups share one spelling, so that what is
seen in ``psql``'s list of roles is what stands in an OpenBao path.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

__all__ = [
    "API_LEVELS",
    "CELL_PATTERN",
    "CONNECTORS_MOUNT",
    "DATABASE_CONNECTION",
    "DATABASE_MOUNT",
    "IDENTIFIER_MAX_BYTES",
    "ISSUER_SECRET",
    "JWKS_PATH",
    "LEASE_ISSUER",
    "PLATFORM_AUTHENTICATOR",
    "PLATFORM_SCHEMA",
    "PUBLISHABLE_KEY",
    "PUBLISHABLE_KEY_BEFORE",
    "RESERVED_SCHEMAS",
    "SCHEMA_NAME_PATTERN",
    "SIGNING_KEY",
    "SLUG_PATTERN",
    "SUPABASE_SECRET",
    "TENANTS_SECRET",
    "TENANT_TYPE",
    "AccessLevel",
    "ApiServer",
    "TenantNames",
    "realtime_login",
]

SLUG_PATTERN = r"^[a-z][a-z0-9-]{0,38}[a-z0-9]$"
"""What a project's slug looks like: 2 to 40 characters, so that every name derived from it fits PostgreSQL's limit."""

CELL_PATTERN = SLUG_PATTERN
"""What a cell's name looks like."""

SCHEMA_NAME_PATTERN = r"^[a-z][a-z0-9_]*$"
"""What the name of a further schema of a tenant looks like, after the dollar sign."""

RESERVED_SCHEMAS = frozenset({"auth"})
"""Further schemas that the platform makes itself, and no project declares."""

IDENTIFIER_MAX_BYTES = 63
"""PostgreSQL's NAMEDATALEN - 1; longer identifiers are cut without an error."""

CONNECTORS_MOUNT = "connectors"
"""KV v2 mount of the platform's own secrets; Supabase's are at ``connectors/supabase``."""

TENANT_TYPE = "supabase-data-plane:tenant:ProjectTenant"
"""The Pulumi type of a project's component."""
PLATFORM_SCHEMA = "data_plane"
"""The schema with the functions and tables of ``platform.sql``."""

SUPABASE_SECRET = "supabase"
"""The secret inside :data:`CONNECTORS_MOUNT` that holds the central Supabase's keys."""

ISSUER_SECRET = "supabase-lease-issuer"
"""The secret inside :data:`CONNECTORS_MOUNT` with the password of OpenBao's login."""

PUBLISHABLE_KEY = "SUPABASE_PUBLISHABLE_KEY"
"""The key of ``connectors/supabase`` that every client of the API sends, and may be seen by anybody."""

PUBLISHABLE_KEY_BEFORE = "SUPABASE_PUBLISHABLE_KEY_BEFORE"
"""The last value of :data:`PUBLISHABLE_KEY`, which the gateway still takes; at first one that nobody has."""

TENANTS_SECRET = "supabase/tenants"
"""The secret inside :data:`CONNECTORS_MOUNT` with what every tenant may know: the publishable key and, where services
run, the token that it stands for inside (``ANON_KEY``)."""

DATABASE_MOUNT = "database"
"""OpenBao's database secrets engine that issues connection leases."""

DATABASE_CONNECTION = "supabase"
"""The connection inside :data:`DATABASE_MOUNT`, to the central PostgreSQL."""

SIGNING_KEY = "supabase"
"""OpenBao's identity key that signs the tenants' API tokens; its private half never leaves OpenBao."""

JWKS_PATH = "/v1/identity/oidc/.well-known/keys"
"""Where OpenBao serves the public halves of its signing keys to anybody."""

PLATFORM_AUTHENTICATOR = "authenticator"
"""The login of the PostgREST that serves the platform's own schemas; it may become no tenant's role."""

LEASE_ISSUER = "openbao_lease_issuer"
"""The login by which OpenBao asks PostgreSQL for leases; it may do nothing else there."""


class AccessLevel(StrEnum):
    """How far into a tenant a lease or a token reaches, most powerful first."""

    OWNER = "owner"
    """Owns the schema and all in it: migrations. Never a token's role."""
    SERVICE_ROLE = "service_role"
    """Reads and writes every row of the tenant, past row-level security."""
    AUTHENTICATED = "authenticated"
    """Reads and writes what row-level security lets signed-in users see: a token is one user's, a lease says itself
    whose request it makes (``request.jwt.claims``), so it can be any user of the project."""
    ANON = "anon"
    """Reads and writes what row-level security lets anybody see."""


API_LEVELS = (AccessLevel.ANON, AccessLevel.AUTHENTICATED, AccessLevel.SERVICE_ROLE)
"""The levels that PostgREST may assume, so the ones that a token can carry."""


def realtime_login(schema: str) -> str:
    """The login by which Realtime asks, for a tenant, who may use which topic; no slug makes a ``$``."""
    return f"{schema}$realtime"


@dataclass(frozen=True)
class TenantNames:
    """Every name of one tenant.

    Args:
        slug: the project's slug.

    Raises:
        ValueError: if the slug is not one.
    """

    slug: str

    def __post_init__(self) -> None:
        if not re.fullmatch(SLUG_PATTERN.strip("^$"), self.slug):
            raise ValueError(f"{self.slug!r} is not a slug: expected {SLUG_PATTERN}")

    @property
    def schema(self) -> str:
        """The tenant's schema: ``proj_my_app`` for ``my-app``."""
        return f"proj_{self.slug.replace('-', '_')}"

    def further_schema(self, name: str) -> str:
        """A schema beside the first one: ``proj_my_app$private``. No slug makes a dollar sign, so none collides."""
        return f"{self.schema}${name}"

    def role(self, level: AccessLevel) -> str:
        """The database role of a level; the lease role, token role, policy and group of that level have its name."""
        return f"{self.schema}_{level.value}"

    @property
    def api_server(self) -> "ApiServer":
        """The PostgREST that serves the tenant alone, if it has one."""
        return ApiServer(self.schema)

    @property
    def authenticator(self) -> str:
        """The login of that PostgREST."""
        return self.api_server.login

    def lease_path(self, level: AccessLevel) -> str:
        """The OpenBao path that issues a connection lease of this level when it is read."""
        return f"{DATABASE_MOUNT}/creds/{self.role(level)}"

    def token_path(self, level: AccessLevel) -> str:
        """The OpenBao path that mints an API token of this level when it is read by somebody's own token."""
        return f"identity/oidc/token/{self.role(level)}"

    @property
    def storage_token_role(self) -> str:
        """The token role whose tokens manage the tenant's whole bucket."""
        return f"{self.schema}_storage"

    @property
    def storage_token_path(self) -> str:
        """The OpenBao path that mints such a token."""
        return f"identity/oidc/token/{self.storage_token_role}"

    def workload_role(self, workload: str) -> str:
        """The role of an auth method by which a workload signs in; the dash keeps it apart from those of levels.

        Args:
            workload: its name in the project's file.
        """
        return f"{self.schema}-{workload}"

    def identifiers(self) -> list[str]:
        """All database identifiers of the tenant, for length and collision checks."""
        return [
            self.schema,
            *(self.role(level) for level in AccessLevel),
            self.authenticator,
            realtime_login(self.schema),
        ]


@dataclass(frozen=True, order=True)
class ApiServer:
    """A PostgREST that serves tenants: those of one cell that share it, or one tenant alone.

    Names of tenants' objects begin with ``proj_`` and logins of leases with ``lease_``, so a cell's login, which begins
    with ``cell_``, can be nobody else's. Cells have no underscore in their names, so no two share a login.

    Args:
        name: ``cell_<cell>`` or the tenant's schema, with underscores.
    """

    name: str

    @classmethod
    def of_cell(cls, cell: str) -> "ApiServer":
        """The one that the tenants of a cell share.

        Raises:
            ValueError: if it is not a cell's name.
        """
        if not re.fullmatch(CELL_PATTERN.strip("^$"), cell):
            raise ValueError(f"{cell!r} is not the name of a cell: expected {CELL_PATTERN}")
        return cls(f"cell_{cell.replace('-', '_')}")

    @property
    def dedicated(self) -> bool:
        """Whether it serves one tenant alone."""
        return self.name.startswith("proj_")

    @property
    def login(self) -> str:
        """Its login, at most 59 bytes long: it may become its tenants' API roles, and nothing else."""
        return f"{self.name}_authenticator"

    @property
    def password_key(self) -> str:
        """The key of ``connectors/supabase`` with the login's password."""
        return f"{self.login.upper()}_PASSWORD"

    @property
    def instance(self) -> str:
        """The suffix of its objects on the cluster, which tells instances of PostgREST apart."""
        return self.name.replace("_", "-")
