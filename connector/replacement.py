"""Replaces a lease by another, so that there is no moment without one that works."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import psycopg

from components.naming import AccessLevel, TenantNames
from connector.errors import LeaseError
from connector.leases import Lease, LeaseClient, Via

__all__ = ["prove", "replace_lease"]

_CONNECT_SECONDS = 10


def prove(lease: Lease) -> None:
    """Connects with a lease, the way that its ``DATABASE_URL`` goes.

    Raises:
        LeaseError: if nothing answers there, or it is somebody else.
    """
    role = TenantNames(lease.project).role(lease.level)
    try:
        with psycopg.connect(lease.database_url, connect_timeout=_CONNECT_SECONDS) as connection:
            row = connection.execute("select current_user").fetchone()
    except psycopg.Error as error:
        raise LeaseError(f"nothing can be done with {lease.lease_id}: {str(error).strip()}") from None
    if row != (role,):
        raise LeaseError(f"{lease.lease_id} logs in as {row}, not as {role}: bring the project's cell up again")


def replace_lease(
    client: LeaseClient,
    binding: Mapping[str, Any],
    level: AccessLevel,
    old: str,
    *,
    via: Via | None,
    overlap_seconds: int,
    show: Callable[[Lease], None],
) -> None:
    """Takes a lease, proves that it connects, shows it, and revokes the old one.

    Args:
        client: whoever has the old one.
        old: its ID.
        overlap_seconds: how long both are in force, for whoever has to be told of the new one.
        show: is given the new one, at the beginning of the overlap.

    Raises:
        LeaseError: if there is no new one that works, in which case the old one goes on; or if the old one is of
            another project or level, or was not revoked.
    """
    names = TenantNames(str(binding["project"]))
    if not old.startswith(f"{names.lease_path(level)}/"):
        raise LeaseError(f"{old} is no lease of {names.slug} as {level}: one is replaced by another of the same")
    new = client.issue(binding, level, via)
    try:
        prove(new)
    except LeaseError as error:
        client.revoke(new.lease_id)
        raise LeaseError(f"{error}. It was given back, and {old} goes on") from None
    show(new)
    time.sleep(overlap_seconds)
    client.revoke(old)
