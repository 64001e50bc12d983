"""Replaces a lease by another, so that there is no moment without one that works."""

import time
from collections.abc import Callable

import psycopg

from data_plane.connector.leases import Lease, LeaseClient, Via
from data_plane.errors import LeaseError
from data_plane.model.naming import AccessLevel, TenantNames
from data_plane.model.tenant_binding import TenantBinding

__all__ = ["rotate_lease", "verify_connection"]

_CONNECT_SECONDS = 10


def verify_connection(lease: Lease) -> None:
    """Connects with a lease, the way that its ``DATABASE_URL`` goes.

    Raises:
        LeaseError: if nothing answers there, or it is somebody else.
    """
    role = TenantNames(lease.project).role(lease.level)
    try:
        with psycopg.connect(lease.database_url, connect_timeout=_CONNECT_SECONDS) as connection:
            row = connection.execute("select current_user").fetchone()
    except psycopg.Error as error:
        raise LeaseError(f"the new lease {lease.lease_id} does not connect: {str(error).strip()}") from error
    if row != (role,):
        raise LeaseError(f"{lease.lease_id} logs in as {row}, not as {role}: bring the project's cell up again")


def rotate_lease(
    client: LeaseClient,
    binding: TenantBinding,
    level: AccessLevel,
    old: str,
    *,
    via: Via | None,
    overlap_seconds: int,
    show: Callable[[Lease], None],
) -> None:
    """Takes a lease, proves that it connects, shows it, and revokes the old one.

    Args:
        client: of the identity that has the old one.
        old: its ID.
        overlap_seconds: how long both are in force, for consumers that have to be told of the new one.
        show: is given the new one, at the beginning of the overlap.

    Raises:
        LeaseError: if there is no new one that works, in which case the old one goes on; or if the old one is of
            another project or level, or was not revoked.
    """
    names = TenantNames(binding.project)
    if not old.startswith(f"{names.lease_path(level)}/"):
        raise LeaseError(
            f"{old} is not a lease of {names.slug} as {level}: a lease is replaced by one of the same project and level"
        )
    new = client.issue(binding, level, via)
    try:
        verify_connection(new)
    except LeaseError as error:
        client.revoke(new.lease_id)
        raise LeaseError(f"{error}. It was revoked, and {old} stays in force") from error
    show(new)
    time.sleep(overlap_seconds)
    client.revoke(old)
