"""What the providers for machines without the official plugins do, on a real PostgreSQL and a real OpenBao."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from pulumi.provider.experimental import provider as rpc

from data_plane.engine.runner.properties import Properties
from data_plane.local.environment import LocalEnvironment
from data_plane.local.processes import wait_until
from data_plane.local.providers import LocalProvider, ProviderError
from data_plane.local.providers.openbao import OpenBaoProvider
from data_plane.local.providers.postgresql import PostgresqlProvider
from data_plane.local.servers import ADMIN_USER, LOOPBACK, Servers


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(coroutine)


@dataclass
class Resource:
    """One resource, as an engine handles it."""

    provider: LocalProvider
    urn: str
    inputs: Properties
    id: str = ""
    state: Properties | None = None

    def create(self) -> "Resource":
        checked = run(self.provider.check(rpc.CheckRequest(self.urn, {}, self.inputs.marked(), b"")))
        self.inputs = Properties.of(checked.inputs)
        made = run(self.provider.create(rpc.CreateRequest(self.urn, self.inputs.marked(), 0, False)))
        self.id, self.state = made.resource_id, Properties.of(made.properties)
        return self

    def read(self) -> rpc.ReadResponse:
        assert self.state is not None
        request = rpc.ReadRequest(self.urn, self.id, self.state.marked(), self.inputs.marked())
        return run(self.provider.read(request))  # type: ignore[no-any-return]

    def imported(self) -> Properties:
        return Properties.of(run(self.provider.read(rpc.ReadRequest(self.urn, self.id, {}, {}))).inputs)

    def diff(self, **changes: Any) -> tuple[list[str], list[str]]:
        """Which inputs would change, and which of them replace."""
        assert self.state is not None
        news = Properties({**self.inputs.values, **changes}, self.inputs.secrets)
        found = run(self.provider.diff(rpc.DiffRequest(self.urn, self.id, self.state.marked(), news.marked(), [])))
        return found.diffs, found.replaces

    def update(self, **changes: Any) -> None:
        assert self.state is not None
        self.inputs = Properties({**self.inputs.values, **changes}, self.inputs.secrets)
        request = rpc.UpdateRequest(self.urn, self.id, self.state.marked(), self.inputs.marked(), 0, [], False)
        self.state = Properties.of(run(self.provider.update(request)).properties)

    def delete(self) -> None:
        assert self.state is not None
        run(self.provider.delete(rpc.DeleteRequest(self.urn, self.id, self.state.marked(), 0)))


Make = Callable[..., Resource]


@pytest.fixture(scope="module")
def servers(new_local_env: Callable[[dict[str, str]], LocalEnvironment]) -> Servers:
    return new_local_env({}).servers


@pytest.fixture(scope="module")
def make(servers: Servers) -> Iterator[Make]:
    postgresql, openbao = PostgresqlProvider(), OpenBaoProvider()
    postgresql.connect(
        {
            "host": LOOPBACK,
            "port": servers.postgres.known_port,
            "database": "postgres",
            "username": ADMIN_USER,
            "password": servers.postgres.admin_password,
            "sslmode": "disable",
        }
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VAULT_TOKEN", servers.openbao.root_token)
        openbao.connect({"address": servers.openbao.address})

        def made(type_: str, secrets: set[str] | None = None, **inputs: Any) -> Resource:
            provider = postgresql if type_.startswith("postgresql") else openbao
            return Resource(provider, f"urn:pulumi:s::p::{type_}::r", Properties(inputs, secrets or set()))

        yield made
    postgresql.close()
    openbao.close()


ROLE, SCHEMA = "postgresql:index/role:Role", "postgresql:index/schema:Schema"
RESOURCES: dict[str, tuple[str, dict[str, Any], dict[str, Any], str]] = {
    "role": (ROLE, {"name": "p_role", "login": True, "roles": ["pg_monitor"]}, {"connectionLimit": 3}, "p_role"),
    "schema": (SCHEMA, {"name": "p_schema", "owner": ADMIN_USER}, {"owner": "pg_monitor"}, "postgres.p_schema"),
    "mount": (
        "vault:index/mount:Mount",
        {"path": "p-mount", "type": "kv", "options": {"version": "2"}},
        {"description": "new"},
        "p-mount",
    ),
    "auth method": ("vault:index/authBackend:AuthBackend", {"type": "approle"}, {"description": "new"}, "approle"),
    "policy": (
        "vault:index/policy:Policy",
        {"name": "p-policy", "policy": "# none"},
        {"policy": 'path "a" { capabilities = ["read"] }'},
        "p-policy",
    ),
    "group": (
        "vault:identity/group:Group",
        {"name": "p-group", "type": "internal", "policies": ["b", "a"]},
        {"policies": ["a"]},
        "",
    ),
    "key": (
        "vault:identity/oidcKey:OidcKey",
        {"name": "p-key", "algorithm": "ES256", "rotationPeriod": 3600, "verificationTtl": 3600},
        {"rotationPeriod": 7200},
        "p-key",
    ),
}


@pytest.mark.parametrize("name", RESOURCES)
def test_a_resource_is_made_found_again_changed_imported_and_deleted(make: Make, name: str) -> None:
    type_, inputs, change, expected = RESOURCES[name]
    resource = make(type_, **inputs).create()
    assert resource.id == expected or (not expected and resource.id)
    assert resource.diff() == ([], [])
    found = resource.read()
    assert found.resource_id == resource.id
    assert Properties.of(found.properties) == resource.state, "a refresh would find drift"
    assert resource.diff(**change) == (list(change), [])
    resource.update(**change)
    assert resource.diff() == ([], [])
    imported = resource.imported().values
    assert {key: imported[key] for key in resource.inputs.values if key not in change} == {
        key: value if key != "policies" else sorted(value)
        for key, value in resource.inputs.values.items()
        if key not in change
    }
    assert {key: imported[key] for key in change} == change
    resource.delete()
    assert not resource.read().resource_id


def test_a_preview_makes_nothing(make: Make) -> None:
    role = make(ROLE, name="p_preview")
    run(role.provider.create(rpc.CreateRequest(role.urn, role.inputs.marked(), 0, True)))
    found = run(role.provider.read(rpc.ReadRequest(role.urn, "", {}, role.inputs.marked())))
    assert not found.resource_id


@pytest.mark.parametrize(
    ("type_", "inputs", "change"),
    [
        (ROLE, {"name": "p_other"}, {"name": "p_another"}),
        ("vault:index/mount:Mount", {"path": "p-other", "type": "kv"}, {"type": "transit"}),
        ("vault:index/policy:Policy", {"name": "p-other", "policy": "# none"}, {"name": "p-another"}),
    ],
)
def test_some_changes_need_another_resource(
    make: Make, type_: str, inputs: dict[str, Any], change: dict[str, Any]
) -> None:
    resource = make(type_, **inputs).create()
    try:
        assert resource.diff(**change) == (list(change), list(change))
    finally:
        resource.delete()


def test_a_password_is_secret_and_only_a_new_one_is_written(make: Make, servers: Servers) -> None:
    def hashed() -> Any:
        with servers.postgres.connect() as admin:
            return admin.execute("select rolpassword from pg_authid where rolname = 'p_login'").fetchone()

    role = make(ROLE, name="p_login", login=True, password="first").create()
    try:
        assert role.state is not None
        assert role.state.secrets == {"password"}
        with servers.postgres.connect() as admin:
            admin.execute("alter role p_login password 'rotated'")
        rotated = hashed()
        role.update(connectionLimit=2)
        assert hashed() == rotated, "the former password was set again"
        assert role.diff(password="second") == (["password"], [])
        role.update(password="second")
        assert hashed() != rotated
    finally:
        role.delete()


def test_manual_changes_are_found_by_a_read(make: Make, servers: Servers) -> None:
    role = make(ROLE, name="p_drift", connectionLimit=3).create()
    try:
        with servers.postgres.connect() as admin:
            admin.execute("alter role p_drift createdb connection limit 9")
        role.state = Properties.of(role.read().properties)
        assert role.diff() == (["createDatabase", "connectionLimit"], [])
    finally:
        role.delete()


@pytest.mark.parametrize(
    ("before", "reset"), [(1000, ""), (1000, "alter role p_both reset all;"), (0, "")], ids=["set", "reset", "made"]
)
def test_a_setting_that_another_session_changes_at_the_same_time_is_written_after_it(
    make: Make, servers: Servers, before: int, reset: str
) -> None:
    """The guard makes the settings of roles what a run has just declared for them."""
    role = make(ROLE, name="p_both", statementTimeout=before).create()
    waits = "select from pg_stat_activity where wait_event_type = 'Lock' and query like 'alter role \"p_both\" set %'"
    try:
        with (
            ThreadPoolExecutor(1) as pool,
            servers.postgres.connect() as guard,
            servers.postgres.connect() as watcher,
        ):
            watcher.autocommit = True
            guard.execute(f"{reset} alter role p_both set statement_timeout to 2000".encode())
            written = pool.submit(role.update, statementTimeout=3000)
            assert wait_until(lambda: watcher.execute(waits).rowcount > 0, 60)
            guard.commit()
            written.result(60)
            setting = "select setconfig from pg_db_role_setting where setrole = 'p_both'::regrole"
            assert watcher.execute(setting).fetchone() == (["statement_timeout=3000"],)
    finally:
        role.delete()


def test_a_first_connection_waits_a_moment_for_a_server_that_has_none_left(servers: Servers) -> None:
    postgresql, held = PostgresqlProvider(), list[psycopg.Connection[Any]]()
    arguments = {"host": LOOPBACK, "port": servers.postgres.known_port, "sslmode": "disable", "username": ADMIN_USER}
    postgresql.connect({**arguments, "database": "postgres", "password": servers.postgres.admin_password})
    role = Resource(postgresql, f"urn:pulumi:s::p::{ROLE}::r", Properties({"name": "pg_monitor"}), "pg_monitor")

    def hold_all() -> None:
        while True:
            held.append(servers.postgres.connect())

    try:
        with pytest.raises(psycopg.OperationalError, match=r"too many clients|connection slots"):
            hold_all()
        with ThreadPoolExecutor(1) as pool:
            read = pool.submit(role.imported)
            assert not wait_until(read.done, 2)
            for connection in held:
                connection.close()
            assert read.result(60).values["name"] == "pg_monitor"
    finally:
        for connection in held:
            connection.close()
        postgresql.close()


def test_what_a_role_owned_stays_when_it_is_deleted(make: Make, servers: Servers) -> None:
    owner = make(ROLE, name="p_owner").create()
    schema = make(SCHEMA, name="p_owned", owner="p_owner").create()
    owner.delete()
    with servers.postgres.connect() as admin:
        query = "select pg_get_userbyid(nspowner) from pg_namespace where nspname = 'p_owned'"
        assert admin.execute(query).fetchone() == (ADMIN_USER,)
    schema.delete()


def test_an_error_is_one_line_that_names_the_server(make: Make) -> None:
    with pytest.raises(
        ProviderError, match=r"PostgreSQL at 127\.0\.0\.1:\d+: .*role \"p_nobody\" does not exist"
    ) as caught:
        make(SCHEMA, name="p_schema_of_nobody", owner="p_nobody").create()
    assert "\n" not in str(caught.value)
