"""Logins of leases that OpenBao has no lease for: it gave up on them, was told to forget them, or lost its storage.

PostgreSQL refuses such a login at its end, and the guard drops it then. Until then it works, and nobody can revoke it
at OpenBao.
"""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg

from data_plane.connector.leases import LeaseClient
from data_plane.model.naming import AccessLevel, TenantNames

__all__ = ["UnleasedLogins", "logins_without_lease", "unleased_logins"]

_LATER_SECONDS = 4.5
"""By how much a login outlives its lease: OpenBao adds five seconds, less the time that making the login took."""
_TOLERANCE_SECONDS = 60
_SETTLED_SECONDS = 2
_LOGINS = """
    select role.rolname, login.rolname, extract(epoch from coalesce(login.rolvaliduntil, 'infinity')
        + coalesce(shobj_description(login.oid, 'pg_authid'), '0')::interval)::float8
    from pg_roles login
    join pg_auth_members member on member.member = login.oid
    join pg_roles role on role.oid = member.roleid
    where login.rolname ~ '^lease_[A-Za-z0-9_]+$' and login.rolcanlogin
        and coalesce(login.rolvaliduntil, 'infinity') > now() and role.rolname = any (%s)
    order by 1, 2
"""


@dataclass(frozen=True)
class UnleasedLogins:
    """Logins that work although no lease stands for one or more of them."""

    tenant: str
    logins: tuple[str, ...]
    count: int
    """How many of them have no lease. All, unless leases that ended at about the same time could be theirs."""
    until: datetime | None
    """When the last of them is dropped; None for one whose end somebody has taken away."""

    def __str__(self) -> str:
        end = f"dropped by {self.until:%Y-%m-%d %H:%M:%S %Z}" if self.until else "never dropped"
        if self.count == len(self.logins):
            (login,) = self.logins
            return (
                f"login {login} of {self.tenant} works, and OpenBao has no lease for it: it is {end}; "
                f"to drop it at once, as PostgreSQL's superuser: select data_plane.revoke_lease('{login}')"
            )
        return (
            f"OpenBao has no lease for {self.count} of the logins {', '.join(self.logins)} of {self.tenant}, which all "
            f"work: it is {end}. Their ends do not tell which; it shows once the project's leases are revoked"
        )


def unleased_logins(
    connection: "psycopg.Connection[Any]", leases: LeaseClient, projects: Iterable[str]
) -> list[UnleasedLogins]:
    """The logins of projects' leases that OpenBao knows nothing of.

    Args:
        connection: as the superuser.
        leases: with an operator's token.
        projects: their slugs.

    Raises:
        LeaseError: if the token may not list leases.
    """
    roles = {names.role(level): (names, level) for names in map(TenantNames, projects) for level in AccessLevel}
    found = _unmatched(connection, leases, roles)
    if found:
        # Where one begins or ends just now, there is one of the two for a moment.
        time.sleep(_SETTLED_SECONDS)
        found = [logins for logins in _unmatched(connection, leases, roles) if logins in found]
    return found


def _unmatched(
    connection: "psycopg.Connection[Any]", leases: LeaseClient, roles: dict[str, tuple[TenantNames, AccessLevel]]
) -> list[UnleasedLogins]:
    of_role: dict[str, dict[str, float]] = {}
    for role, login, until in connection.execute(_LOGINS, [list(roles)]):
        of_role.setdefault(role, {})[login] = until
    connection.rollback()  # the next look is to see what is there then
    found = []
    for role, logins in of_role.items():
        names, level = roles[role]
        # Not by their number: the guard drops logins whose leases go on.
        expiries = [lease.expires_at.timestamp() for lease in leases.details(names, level)]
        found += [
            UnleasedLogins(names.schema, candidates, count, _moment(max(logins[login] for login in candidates)))
            for candidates, count in logins_without_lease(logins, expiries)
        ]
    return found


def _moment(seconds: float) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if math.isfinite(seconds) else None


def logins_without_lease(logins: Mapping[str, float], expiries: Iterable[float]) -> list[tuple[tuple[str, ...], int]]:
    """Logins of which some have no lease, and how many: each by itself, or with those that it cannot be told from.

    A login and a lease belong together if one ends within a minute of the other, so what is left over among some that
    follow each other within that time may be any of them.

    Args:
        logins: the end of each, in seconds since 1970.
        expiries: those of the leases.
    """
    ends = sorted(
        [(until, login) for login, until in logins.items()] + [(expiry + _LATER_SECONDS, "") for expiry in expiries]
    )
    found: list[tuple[tuple[str, ...], int]] = []
    group: list[str] = []
    before = -math.inf
    for end, login in [*ends, (math.inf, "")]:
        if not end - before < _TOLERANCE_SECONDS:
            found += _left_over(group)
            group = []
        group.append(login)
        before = end
    return found


def _left_over(group: Sequence[str]) -> list[tuple[tuple[str, ...], int]]:
    logins = tuple(filter(None, group))
    count = 2 * len(logins) - len(group)
    if count == len(logins):
        return [((login,), 1) for login in logins]
    return [(logins, count)] if count > 0 else []
