"""What has to be brought in line with OpenBao once PostgreSQL has been restored to another time.

A restore brings back the logins and passwords of its time. OpenBao knows today's: a lease of that time may be revoked
since, and what OpenBao believes to be a live lease may not exist.
"""

from collections.abc import Mapping
from typing import Any

import hvac
import psycopg
from psycopg import sql

from data_plane.clients.openbao import read_kv
from data_plane.clients.postgres import set_password
from data_plane.errors import DeploymentError
from data_plane.model.naming import (
    CONNECTORS_MOUNT,
    DATABASE_CONNECTION,
    DATABASE_MOUNT,
    ISSUER_SECRET,
    LEASE_ISSUER,
    SUPABASE_SECRET,
)
from data_plane.model.service_logins import logins_in

__all__ = ["connector_secret", "reconcile_credentials"]

_LEASES = r"^lease_[A-Za-z0-9_]+$"


def connector_secret(client: hvac.Client, path: str = SUPABASE_SECRET) -> dict[str, str]:
    """The values of a secret under ``connectors``; empty if there is none."""
    values, _ = read_kv(client, CONNECTORS_MOUNT, path)
    return values


def reconcile_credentials(client: hvac.Client, connection: "psycopg.Connection[Any]") -> None:
    """Gives services and OpenBao their passwords of today, and ends every lease on both sides.

    Safe to re-run at any time; every lease has to be taken anew.

    Args:
        client: OpenBao, with the right to configure its database engine and to revoke leases.
        connection: PostgreSQL, as its superuser.

    Raises:
        ConnectorError: if OpenBao does not know the password of its own login.
    """
    secrets = connector_secret(client)
    passwords = {login: secrets[key] for login, key in logins_in(secrets).items() if secrets[key]}
    issuer = connector_secret(client, ISSUER_SECRET).get("PASSWORD")
    if issuer is None:
        raise DeploymentError(
            f"{CONNECTORS_MOUNT}/{ISSUER_SECRET} in OpenBao has no PASSWORD: bring the central stack up and try again"
        )
    with connection.transaction():
        for login, password in {**passwords, LEASE_ISSUER: issuer}.items():
            if connection.execute("select from pg_catalog.pg_roles where rolname = %s", [login]).fetchone() is not None:
                set_password(connection, login, password)
    _connect_openbao(client, issuer)
    # First OpenBao, which then knows of none any more; it drops the logins of those that it knew.
    client.sys.revoke_prefix(f"{DATABASE_MOUNT}/creds")
    left = connection.execute("select rolname from pg_catalog.pg_roles where rolname ~ %s", [_LEASES]).fetchall()
    for (login,) in left:
        connection.execute(sql.SQL("select data_plane.revoke_lease({})").format(sql.Literal(login)))
        connection.commit()


def _connect_openbao(client: hvac.Client, password: str) -> None:
    """Tells OpenBao's database engine its password, leaving its configuration as it is otherwise."""
    path = f"{DATABASE_MOUNT}/config/{DATABASE_CONNECTION}"
    found: Mapping[str, Any] | None = client.read(path)
    if found is None:
        raise DeploymentError(f"OpenBao has no {path}: bring the central stack up")
    config = dict(found["data"])
    details = dict(config.pop("connection_details"))
    statements = config.pop("root_credentials_rotate_statements", None) or []
    client.write_data(
        path,
        data={
            **config,
            **details,
            "root_rotation_statements": statements,
            "password": password,
            "verify_connection": True,
        },
    )
