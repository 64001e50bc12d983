"""What somebody holds who is taken out of a project's file: nothing, once the project's cell was brought up."""

import json
import time
from dataclasses import dataclass

import hvac
import psycopg
import pytest
from hvac.exceptions import Forbidden, InvalidPath, InvalidRequest
from joserfc import jwt
from joserfc.jwk import ECKey

from data_plane.clients.openbao import end_tokens
from data_plane.connector.bindings import LocalDataPlane
from data_plane.connector.leases import Lease, LeaseClient
from data_plane.local.environment import LocalEnvironment
from data_plane.local.processes import wait_until
from data_plane.model.naming import AccessLevel, TenantNames
from tests.conftest import NewPlane, bring_up

DEMO, GUESTBOOK = TenantNames("demo"), TenantNames("guestbook")


def project(names: TenantNames, owners: str, *, viewers: str = "", contributors: str = "", teams: str = "") -> str:
    return (
        f"slug: {names.slug}\ndisplay_name: {names.slug}\ncell: cell-1\nowners: [{owners}]\n"
        f"users: {{project_viewer: [{viewers}], project_contributor: [{contributors}]}}\n"
        f"teams: {{project_viewer: [{teams}]}}\nmanaged_services: [postgres]\n"
    )


@dataclass
class Holder:
    """Somebody with a token, and a lease taken with it."""

    client: hvac.Client
    lease: Lease

    def connects(self) -> bool:
        try:
            psycopg.connect(self.lease.connection_string).close()
        except psycopg.OperationalError:
            return False
        return True

    def renews(self) -> list[int]:
        """The statuses of renewing the lease, by its path and by a body."""
        lease = self.lease.lease_id
        wanted = [(f"sys/leases/renew/{lease}", {}), ("sys/leases/renew", {"lease_id": lease, "increment": 43200})]
        return [status(self.client, path, body) for path, body in wanted]


def status(client: hvac.Client, path: str, body: dict[str, object]) -> int:
    try:
        client.write_data(path, data=body)
    except (Forbidden, InvalidRequest, InvalidPath) as error:
        return {Forbidden: 403, InvalidRequest: 400, InvalidPath: 404}[type(error)]
    return 200


@dataclass
class Place:
    """A data plane whose projects' files change."""

    local_env: LocalEnvironment

    def declare(self, names: TenantNames, *arguments: str, **people: str) -> None:
        folder = self.local_env.root / "stacks" / "local" / "projects"
        (folder / f"{names.slug}.yaml").write_text(project(names, *arguments, **people), encoding="utf-8")
        bring_up(self.local_env)

    def holder(self, user: str, names: TenantNames, level: AccessLevel) -> Holder:
        client = self.local_env.sign_in(user)
        binding = LocalDataPlane(self.local_env).binding(names.slug)
        return Holder(client, LeaseClient(client).issue(binding, level))


@pytest.fixture(scope="module")
def place(new_plane: NewPlane) -> Place:
    projects = {"demo.yaml": project(DEMO, "alice"), "guestbook.yaml": project(GUESTBOOK, "bob")}
    return Place(new_plane(projects).local_env)


def test_who_is_taken_out_loses_token_and_lease_at_once_and_nobody_else_does(place: Place) -> None:
    place.declare(DEMO, "alice", viewers="carol")
    alice, bob = place.holder("alice", DEMO, AccessLevel.OWNER), place.holder("bob", GUESTBOOK, AccessLevel.OWNER)
    carol = place.holder("carol", DEMO, AccessLevel.ANON)
    assert carol.renews() == [200, 200]
    place.declare(DEMO, "alice")
    assert wait_until(lambda: not carol.connects(), 120), "the login of a removed member is still there"
    with pytest.raises(Forbidden):
        carol.client.read(DEMO.lease_path(AccessLevel.ANON))
    assert carol.renews() == [403, 403]
    # She can still sign in here, with nothing that she may.
    again = Holder(place.local_env.sign_in("carol"), carol.lease)
    assert again.renews() == [403, 403]
    with pytest.raises(Forbidden):
        again.client.read(DEMO.lease_path(AccessLevel.ANON))
    for other in (alice, bob):
        assert other.connects()
        assert other.renews() == [200, 200]
    # A lease of another project, of which she knows the ID.
    assert status(again.client, "sys/leases/renew", {"lease_id": bob.lease.lease_id}) == 403
    assert status(again.client, "sys/leases/lookup", {"lease_id": bob.lease.lease_id}) == 403


def test_who_keeps_a_lower_level_loses_the_leases_of_the_higher(place: Place) -> None:
    place.declare(DEMO, "alice, dora")
    dora = place.holder("dora", DEMO, AccessLevel.OWNER)
    place.declare(DEMO, "alice", viewers="dora")
    assert wait_until(lambda: not dora.connects(), 120)
    assert place.holder("dora", DEMO, AccessLevel.ANON).connects()


def test_a_higher_role_keeps_the_leases_of_the_lower(place: Place) -> None:
    place.declare(DEMO, "alice", viewers="emil")
    emil = place.holder("emil", DEMO, AccessLevel.ANON)
    place.declare(DEMO, "alice", viewers="fred", contributors="emil")
    assert emil.connects()
    assert emil.renews() == [200, 200]


def by_team(place: Place, user: str, team: str) -> hvac.Client:
    """Somebody signed in by a method whose tokens name the teams, which userpass cannot."""
    operator = place.local_env.servers.openbao.client()
    key = ECKey.generate_key("P-256")
    operator.sys.enable_auth_method("jwt")
    operator.write_data("auth/jwt/config", data={"jwt_validation_pubkeys": [key.as_pem(private=False).decode()]})
    role = {"role_type": "jwt", "user_claim": "sub", "groups_claim": "groups", "bound_audiences": ["openbao"]}
    operator.write_data("auth/jwt/role/people", data={**role, "token_no_default_policy": True})
    alias = operator.read(f"identity/group/name/team-{team}")["data"]["alias"]
    accessor = operator.read("sys/auth")["data"]["jwt/"]["accessor"]
    known = {"name": team, "mount_accessor": accessor, "canonical_id": alias["canonical_id"]}
    operator.write_data(f"identity/group-alias/id/{alias['id']}", data=known)
    now = int(time.time())
    claims = {"sub": user, "aud": "openbao", "groups": [team], "iat": now - 60, "nbf": now - 60, "exp": now + 600}
    client = hvac.Client(url=operator.url)
    client.auth.jwt.jwt_login("people", jwt.encode({"alg": "ES256"}, claims, key), path="jwt")
    return client


def test_the_members_of_a_team_that_is_taken_out_lose_theirs(place: Place) -> None:
    place.declare(DEMO, "alice", teams="builders")
    client = by_team(place, "gina", "builders")
    binding = LocalDataPlane(place.local_env).binding("demo")
    gina = Holder(client, LeaseClient(client).issue(binding, AccessLevel.ANON))
    assert gina.renews() == [200, 200]
    place.declare(DEMO, "alice")
    assert wait_until(lambda: not gina.connects(), 120)
    assert gina.renews() == [403, 403]
    with pytest.raises(Forbidden):
        gina.client.read(DEMO.lease_path(AccessLevel.ANON))


def test_a_second_run_ends_nobodys_tokens(place: Place) -> None:
    place.declare(DEMO, "alice", viewers="hugo")
    hugo = place.holder("hugo", DEMO, AccessLevel.ANON)
    bring_up(place.local_env)
    assert hugo.renews() == [200, 200]


def test_the_tokens_of_who_runs_it_are_spared(place: Place) -> None:
    operator = place.local_env.servers.openbao.client()
    rights = (("accessors", "sudo, list"), ("lookup-accessor", "update"), ("revoke-accessor", "update"))
    rules = [f'path "auth/token/{path}" {{ capabilities = {json.dumps(what.split(", "))} }}' for path, what in rights]
    operator.sys.create_or_update_policy("ends-tokens", "\n".join(rules))
    signed_in = {}
    for name in ("ivy", "jack"):
        operator.write_data(f"auth/userpass/users/{name}", data={"password": name, "token_policies": "ends-tokens"})
        signed_in[name] = hvac.Client(url=operator.url)
        signed_in[name].auth.userpass.login(name, name)
    entities = {str(operator.lookup_token(client.token)["data"]["entity_id"]) for client in signed_in.values()}
    end_tokens(signed_in["ivy"], entities)
    assert signed_in["ivy"].is_authenticated()
    assert not signed_in["jack"].is_authenticated()
