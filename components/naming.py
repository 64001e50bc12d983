"""The names that everything of a tenant goes by, derived from its slug in this one place.

A tenant's schema, database roles, lease roles, token roles, policies and groups share one spelling, so that what is
seen in ``psql``'s list of roles is what stands in an OpenBao path.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

__all__ = [
    "API_LEVELS",
    "CONNECTORS_MOUNT",
    "DATABASE_CONNECTION",
    "DATABASE_MOUNT",
    "IDENTIFIER_MAX_BYTES",
    "JWKS_PATH",
    "LEASE_ISSUER",
    "PUBLISHABLE_KEY",
    "SHARED_AUTHENTICATOR",
    "SIGNING_KEY",
    "SLUG_PATTERN",
    "TENANTS_SECRET",
    "AccessLevel",
    "TenantNames",
]

SLUG_PATTERN = r"^[a-z][a-z0-9-]{0,38}[a-z0-9]$"
"""What a project's slug looks like: 2 to 40 characters, so that every name derived from it fits PostgreSQL's limit."""

IDENTIFIER_MAX_BYTES = 63
"""PostgreSQL's NAMEDATALEN - 1; longer identifiers are cut without an error."""

CONNECTORS_MOUNT = "connectors"
"""KV v2 mount of the platform's own secrets; Supabase's are at ``connectors/supabase``."""

PUBLISHABLE_KEY = "SUPABASE_PUBLISHABLE_KEY"
"""The key of ``connectors/supabase`` that every client of the API sends, and may be seen by anybody."""

TENANTS_SECRET = "supabase/tenants"
"""The secret inside :data:`CONNECTORS_MOUNT` with what every tenant may know: the publishable key, and nothing else."""

DATABASE_MOUNT = "database"
"""OpenBao's database secrets engine that issues connection leases."""

DATABASE_CONNECTION = "supabase"
"""The connection inside :data:`DATABASE_MOUNT`, to the central PostgreSQL."""

SIGNING_KEY = "supabase"
"""OpenBao's identity key that signs the tenants' API tokens; its private half never leaves OpenBao."""

JWKS_PATH = "/v1/identity/oidc/.well-known/keys"
"""Where OpenBao serves the public halves of its signing keys to anybody."""

SHARED_AUTHENTICATOR = "authenticator"
"""The login of the PostgREST that serves all tenants but those with one of their own."""

LEASE_ISSUER = "openbao_lease_issuer"
"""The login by which OpenBao asks PostgreSQL for leases; it may do nothing else there."""


class AccessLevel(StrEnum):
    """How far into a tenant a lease or a token reaches, most powerful first."""

    OWNER = "owner"
    """Owns the schema and all in it: migrations. Never a token's role."""
    SERVICE_ROLE = "service_role"
    """Reads and writes every row of the tenant, past row-level security."""
    AUTHENTICATED = "authenticated"
    """Reads and writes what row-level security lets a signed-in user see."""
    ANON = "anon"
    """Reads and writes what row-level security lets anybody see."""


API_LEVELS = (AccessLevel.ANON, AccessLevel.AUTHENTICATED, AccessLevel.SERVICE_ROLE)
"""The levels that PostgREST may assume, so the ones that a token can carry."""


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

    def role(self, level: AccessLevel) -> str:
        """The database role of a level; the lease role, token role, policy and group of that level have its name."""
        return f"{self.schema}_{level.value}"

    @property
    def authenticator(self) -> str:
        """The login of a PostgREST that serves the tenant alone."""
        return f"{self.schema}_{SHARED_AUTHENTICATOR}"

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
        return [self.schema, *(self.role(level) for level in AccessLevel), self.authenticator]
