"""A session as a tenant's owner that lasts as long as it is needed: its lease is renewed meanwhile, and given back."""

import contextlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import hvac
import psycopg
import requests
from hvac.exceptions import VaultError

from data_plane.connector.leases import Lease, LeaseClient, Via
from data_plane.errors import LeaseError, MigrationError
from data_plane.model.naming import AccessLevel
from data_plane.model.tenant_binding import TenantBinding

__all__ = ["owner_session"]

_CONNECT_TIMEOUT_SECONDS = 15
_RENEWALS_A_TERM = 3


@contextmanager
def owner_session(
    client: hvac.Client, binding: TenantBinding, via: Via | None = None
) -> Iterator[psycopg.Connection[Any]]:
    """A connection in autocommit mode.

    A lease ends at the project's `lease_max_ttl`, renewed or not; what still runs then is rolled back.

    Args:
        client: signed in as somebody who may use the project as its owner.
        binding: the tenant's, as the cell's stack exports it.
        via: the way to the database; by session through the pooler, where there is one.

    Raises:
        LeaseError: if there is no lease to be had.
        MigrationError: if PostgreSQL cannot be reached with it.
    """
    leases = LeaseClient(client)
    if via is Via.TRANSACTION:
        raise MigrationError("a migration is a session of its own: --via session, or direct")
    lease = leases.issue(binding, AccessLevel.OWNER, via)
    try:
        with _renewed(client, lease), _connected(lease) as connection:
            yield connection
    finally:
        with contextlib.suppress(LeaseError):  # it ends by itself
            leases.revoke(lease.lease_id)


def _connected(lease: Lease) -> psycopg.Connection[Any]:
    try:
        return psycopg.connect(
            lease.database_url,
            application_name="dataplane migration",
            connect_timeout=_CONNECT_TIMEOUT_SECONDS,
            autocommit=True,
        )
    except psycopg.OperationalError as error:
        cause = str(error).strip().partition("\n")[0]
        raise MigrationError(f"{cause}\nNothing was run; run the same command again.") from error


@contextmanager
def _renewed(client: hvac.Client, lease: Lease) -> Iterator[None]:
    over = threading.Event()

    def renew() -> None:
        leases = LeaseClient(client)
        while not over.wait(max(1.0, lease.ttl_seconds / _RENEWALS_A_TERM)):
            # While OpenBao is away the lease goes on until its end; the next turn tries again.
            with contextlib.suppress(LeaseError, VaultError, requests.RequestException):
                client.auth.token.renew_self()
                leases.renew(lease.lease_id, lease.ttl_seconds)

    renewing = threading.Thread(target=renew, name="lease renewal", daemon=True)
    renewing.start()
    try:
        yield
    finally:
        over.set()
        renewing.join()
