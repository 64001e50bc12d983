"""The PostgreSQL superuser and the OpenBao of an environment, for an operator's commands."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import hvac
import psycopg

from data_plane.clients.openbao import connect
from data_plane.clients.postgres import PLATFORM_SESSION
from data_plane.errors import UsageError
from data_plane.state_dir import ENVIRONMENT

if TYPE_CHECKING:
    from data_plane.local.servers import Servers

__all__ = ["local_servers", "openbao_of", "superuser_of"]


def local_servers(environment: str) -> "Servers | None":
    """The servers of this machine, for the environment that they are; None for a deployed one."""
    if environment != ENVIRONMENT:
        return None
    # Where only deployed environments are worked on, no local servers are installed.
    from data_plane.local.servers import Servers  # noqa: PLC0415

    return Servers()


def openbao_of(local: "Servers | None") -> hvac.Client:
    """OpenBao as an operator: the local one, else the one that VAULT_ADDR names.

    Raises:
        UsageError: if it is not named.
        OpenBaoUnavailableError: if it cannot be used.
    """
    if local is not None:
        return local.openbao.client()
    if not os.environ.get("VAULT_ADDR"):
        raise UsageError("say where OpenBao is: set VAULT_ADDR")
    return connect(os.environ["VAULT_ADDR"])


def superuser_of(local: "Servers | None") -> "Callable[[str], psycopg.Connection[Any]]":
    """What opens a connection as PostgreSQL's superuser with a password: to the local one, else where PGHOST says."""
    if local is None:
        return lambda password: psycopg.connect(password=password, connect_timeout=15, options=PLATFORM_SESSION)
    from data_plane.local.servers import ADMIN_USER, LOOPBACK  # noqa: PLC0415

    port = local.postgres.known_port
    return lambda password: psycopg.connect(
        host=LOOPBACK,
        port=port,
        dbname="postgres",
        user=ADMIN_USER,
        password=password,
        connect_timeout=15,
        options=PLATFORM_SESSION,
    )
