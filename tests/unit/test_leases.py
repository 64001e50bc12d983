"""How a lease is written out: which way its connection strings go, and under which names."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import psycopg.conninfo
import pytest

from data_plane.connector.leases import Lease, LeaseClient, LeaseFormat, Via
from data_plane.errors import UsageError
from data_plane.model.naming import AccessLevel
from data_plane.model.tenant_binding import PoolerEndpoint
from tests.bound import tenant_binding

LEASE = Lease(
    project="shop",
    level=AccessLevel.SERVICE_ROLE,
    schema="proj_shop",
    host="db.example.com",
    port=5433,
    database="postgres",
    sslmode="verify-full",
    username="lease_proj_shop_service_role_Ab3",
    password="p-w/d@%",
    lease_id="database/creds/proj_shop_service_role/x",
    ttl_seconds=600,
    expires_at=datetime(2030, 1, 1, tzinfo=UTC),
    api_url="https://api.example.com/rest/v1",
    token="a.b.c",
    token_ttl_seconds=900,
    publishable_key="sb_publishable_x",
)
POOLER = PoolerEndpoint(
    host="pooler.example.com", session_port=5432, transaction_port=6543, tenant="main", sslmode="disable"
)
BINDING = tenant_binding(
    project="shop", pooler={"host": "p", "sessionPort": 1, "transactionPort": 2, "tenant": "t", "sslmode": "disable"}
)


def parts(uri: str | None) -> tuple[Any, ...]:
    """What libpq makes of a URI."""
    assert uri is not None
    found = psycopg.conninfo.conninfo_to_dict(uri)
    return found["user"], found["password"], found["host"], found["port"], found["dbname"], found["sslmode"]


def test_each_way_has_its_host_port_and_login() -> None:
    lease = replace(LEASE, pooler=POOLER, via=Via.SESSION)
    pooled = ("lease_proj_shop_service_role_Ab3.main", "p-w/d@%", "pooler.example.com")
    assert parts(lease.pooled_connection_string) == (*pooled, "5432", "postgres", "disable")
    assert parts(lease.transaction_connection_string) == (*pooled, "6543", "postgres", "disable")
    direct = ("lease_proj_shop_service_role_Ab3", "p-w/d@%", "db.example.com", "5433", "postgres", "verify-full")
    assert parts(lease.connection_string) == direct


def test_an_address_of_ipv6_is_one_in_a_uri() -> None:
    assert parts(replace(LEASE, host="fd00::5").connection_string)[2:4] == ("fd00::5", "5433")


@pytest.mark.parametrize(
    ("via", "port"), [(Via.SESSION, "5432"), (Via.TRANSACTION, "6543"), (Via.DIRECT, "5433")], ids=list(Via)
)
def test_the_chosen_way_is_in_every_format(via: Via, port: str) -> None:
    lease = replace(LEASE, pooler=POOLER, via=via)
    variables = lease.variables()
    assert parts(variables["DATABASE_URL"])[3] == port
    assert parts(variables["DIRECT_URL"])[3] == "5433"
    assert parts(variables["DATABASE_SESSION_URL"])[3] == "5432"
    assert parts(variables["DATABASE_TRANSACTION_URL"])[3] == "6543"
    assert f"\nport={port}\n" in lease.render(LeaseFormat.SERVICE)
    document = json.loads(lease.render(LeaseFormat.JSON))
    assert (urlsplit(document["database_url"]).port, document["via"]) == (int(port), via.value)
    assert (document["host"], document["port"], document["username"]) == ("db.example.com", 5433, LEASE.username)
    assert urlsplit(document["connection_string"]).port == 5433
    user = LEASE.username if via is Via.DIRECT else f"{LEASE.username}.main"
    assert f"\nuser={user}\n" in lease.render(LeaseFormat.SERVICE)


def test_without_a_pooler_there_is_one_way() -> None:
    assert LEASE.pooled_connection_string is LEASE.transaction_connection_string is None
    variables = LEASE.variables()
    assert variables["DATABASE_URL"] == variables["DIRECT_URL"] == LEASE.connection_string
    assert not [name for name in variables if "SESSION_URL" in name or "TRANSACTION_URL" in name]
    assert json.loads(LEASE.render(LeaseFormat.JSON))["pooled_connection_string"] is None


def test_nothing_of_a_lease_shows_in_its_repr() -> None:
    shown = repr(replace(LEASE, pooler=POOLER))
    assert not [secret for secret in (LEASE.password, "a.b.c", LEASE.username) if secret in shown]


class _NoOpenBao:
    """Fails if it is asked: what is refused is refused before a lease is taken."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"OpenBao was asked: {name}")


@pytest.mark.parametrize(
    ("level", "via", "pooler", "message"),
    [
        (AccessLevel.ANON, Via.SESSION, None, "there is no pooler here"),
        (AccessLevel.ANON, Via.TRANSACTION, None, "there is no pooler here"),
        (AccessLevel.OWNER, Via.TRANSACTION, BINDING.pooler, "an owner's lease is for migrations"),
    ],
)
def test_a_way_that_is_not_there_is_refused_before_a_lease_is_taken(
    level: AccessLevel, via: Via, pooler: PoolerEndpoint | None, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        LeaseClient(_NoOpenBao()).issue(BINDING.model_copy(update={"pooler": pooler}), level, via)
