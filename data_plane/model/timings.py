"""How long things take that more than one program has to know."""

__all__ = ["GUARD_PERIOD_SECONDS", "TOKEN_TTL_SECONDS"]

GUARD_PERIOD_SECONDS = 2
"""How long the guard waits from one look at the projects' limits to the next."""

TOKEN_TTL_SECONDS = 900
"""How long an API token lives. Tokens cannot be revoked, so it is short whatever the project's lease TTL is."""
