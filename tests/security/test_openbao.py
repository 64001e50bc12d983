"""What people of one project can do at OpenBao about another project, about their own and about the platform."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import hvac
import pytest

from data_plane.local.processes import wait_until
from data_plane.model.naming import AccessLevel, TenantNames
from tests.security.openbao import PEOPLE, Attempt, load, send
from tests.security.world import ATTACKER, VICTIM, World
from tests.support.postgresqls import binaries

# OpenBao knows nothing of PostgreSQL's version.
pytestmark = pytest.mark.parametrize("world", [max(binaries())], indirect=True)

ATTEMPTS, REASONS = load()


@dataclass(frozen=True)
class Bao:
    """OpenBao, the tokens of people, and what the attempts are filled in with."""

    client: hvac.Client
    """The operator's."""
    tokens: dict[str, str]
    known: dict[str, dict[str, str]]

    def send(
        self, person: str | None, method: str, path: str, data: object = None, namespace: str | None = None
    ) -> int:
        token = None if person is None else self.tokens.get(person, person)
        return send(self.client.url, token, method, path, data, namespace)


_MADE: dict[int, Bao] = {}


@pytest.fixture
def bao(world: World) -> Iterator[Bao]:
    if id(world) not in _MADE:
        _MADE[id(world)] = make_bao(world)
    made = _MADE[id(world)]
    yield made
    status = made.send(made.client.token, "PUT", "sys/leases/lookup", {"lease_id": made.known["owner"]["other_lease"]})
    if status != 200:
        del _MADE[id(world)]
    assert status == 200, "whatever was tried, the other project's lease lives"


def make_bao(world: World) -> Bao:
    local_env = world.plane.local_env
    operator = local_env.servers.openbao.client()
    operator.write_data(
        "auth/userpass/users/stranger", data={"password": "nobody-knows-me", "token_no_default_policy": True}
    )
    people: dict[str, hvac.Client] = {}
    for person, name in PEOPLE.items():
        if person == "stranger":
            people[person] = hvac.Client(url=operator.url)
            people[person].auth.userpass.login(name, "nobody-knows-me")
        else:
            people[person] = world.person(name)
    other = world.person("beta-two-owner")
    about = other.lookup_token()["data"]
    common = {
        "me": ATTACKER.schema,
        "other": VICTIM.schema,
        "other_lease": other.read(VICTIM.lease_path(AccessLevel.OWNER))["lease_id"],
        "other_token": other.token,
        "other_accessor": about["accessor"],
        "other_entity": about["entity_id"],
        "other_group": operator.read(f"identity/group/name/{VICTIM.role(AccessLevel.OWNER)}")["data"]["id"],
        "accessor": operator.read("sys/auth")["data"]["userpass/"]["accessor"],
    }
    return Bao(
        operator,
        {person: client.token for person, client in people.items()},
        {
            person: {**common, "my_name": PEOPLE[person], "my_entity": entity_of(operator, client)}
            for person, client in people.items()
        },
    )


def entity_of(operator: hvac.Client, person: hvac.Client) -> str:
    return str(operator.lookup_token(person.token)["data"]["entity_id"])


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=str)
def test_everybody_is_answered_exactly_as_the_matrix_says(bao: Bao, attempt: Attempt) -> None:
    found, expected = {}, {}
    for person in PEOPLE:
        for path, data in attempt.variants(bao.known[person]):
            found[person, path] = bao.send(person, attempt.method, path, data, attempt.namespace)
            expected[person, path] = attempt.expected(person)
    assert found == expected


@pytest.mark.parametrize("attempt", [item for item in ATTEMPTS if item.note != "public"], ids=str)
def test_without_a_token_or_with_one_that_is_none_nothing_is_answered(bao: Bao, attempt: Attempt) -> None:
    for token in (None, "s.made-up", "", "root"):
        for path, data in attempt.variants(bao.known["owner"]):
            assert bao.send(token, attempt.method, path, data, attempt.namespace) in {400, 403, 404, 405}, (token, path)


def own_paths(names: TenantNames) -> list[str]:
    leases = [names.lease_path(level) for level in AccessLevel]
    return [*leases, *(names.token_path(level) for level in AccessLevel if level is not AccessLevel.OWNER)]


LEASE_PATHS = [
    *(
        f"sys/leases/{action}"
        for action in ("renew", "revoke", "lookup", "revoke-prefix", "revoke-force", "tidy", "count")
    ),
    *("sys/renew", "sys/revoke", "sys/revoke-prefix", "sys/revoke-force", "sys/leases", "sys/leases/irrevocable"),
]
METHODS = ("GET", "LIST", "PUT", "POST", "PATCH", "DELETE")


def requests_about(lease: str, own: str) -> Iterator[tuple[str, str, object]]:
    """Every way to name a lease to every path that takes one, some with a lease of one's own beside it."""
    bodies: list[object] = [
        None,
        {"lease_id": lease},
        {"lease_id": [lease]},
        {"lease_id": [own, lease]},
        {"lease_id": own, "url_lease_id": lease},
        {"url_lease_id": lease},
        {"LEASE_ID": lease},
        {"LEASE_ID": lease, "lease_id": own},
        {"lease_id": lease, "LEASE_ID": own},
        {"lease_id": f"{own}/../../{lease}"},
        {"lease_id": lease, "increment": 7200},
        {"prefix": lease},
    ]
    for path in LEASE_PATHS:
        for method in METHODS:
            for place in ("", f"/{lease}", f"/{lease.rpartition('/')[0]}", f"/{own}", f"?lease_id={lease}"):
                for body in bodies:
                    yield method, f"{path}{place}", body


def test_no_request_about_a_lease_reaches_one_of_another_project_or_level(world: World, bao: Bao) -> None:
    """4,680 requests for each person and lease."""
    operator = bao.client
    theirs = world.person("beta-two-owner").read(VICTIM.lease_path(AccessLevel.OWNER))
    above = world.person(PEOPLE["owner"]).read(ATTACKER.lease_path(AccessLevel.OWNER))
    about = {lease["lease_id"]: lease_times(operator, lease["lease_id"]) for lease in (theirs, above)}
    tried = 0
    for person in ("viewer", "contributor", "stranger"):
        own = f"{ATTACKER.lease_path(AccessLevel.ANON)}/x"
        for lease in about:
            for method, path, body in requests_about(lease, own):
                status = bao.send(person, method, path, body)
                tried += 1
                # To give back by one's own path what is not there says nothing.
                nothing = path.startswith(f"sys/leases/revoke/{own}") and status in {200, 202, 204}
                assert status in {400, 403, 404, 405} or nothing, (person, method, path, body, status)
    assert {lease: lease_times(operator, lease) for lease in about} == about
    assert tried > 10_000


def lease_times(operator: hvac.Client, lease: str) -> tuple[object, object]:
    about = operator.write_data("sys/leases/lookup", data={"lease_id": lease})["data"]
    return about["expire_time"], about["last_renewal"]


def test_ones_own_lease_is_renewed_by_a_body_as_other_clients_do(world: World, bao: Bao) -> None:
    contributor = world.person(PEOPLE["contributor"])
    lease = contributor.read(ATTACKER.lease_path(AccessLevel.AUTHENTICATED))["lease_id"]
    expected = {"contributor": 200, "viewer": 403, "stranger": 403}
    body = {"lease_id": lease, "increment": 1800}
    assert {person: bao.send(person, "PUT", "sys/leases/renew", body) for person in expected} == expected


def test_a_member_whose_sign_in_brings_the_default_policy_renews_no_other_lease(world: World, bao: Bao) -> None:
    """How people sign in to a deployed OpenBao is its operator's to say: the tenant's policy narrows `default`."""
    user = f"auth/userpass/users/{PEOPLE['viewer']}"
    bao.client.write_data(user, data={"token_no_default_policy": False})
    try:
        viewer = world.plane.local_env.sign_in(PEOPLE["viewer"])
    finally:
        bao.client.write_data(user, data={"token_no_default_policy": True})
    assert "default" in bao.client.lookup_token(viewer.token)["data"]["policies"]
    own = viewer.read(ATTACKER.lease_path(AccessLevel.ANON))["lease_id"]
    above = world.person(PEOPLE["owner"]).read(ATTACKER.lease_path(AccessLevel.OWNER))["lease_id"]
    path = "sys/leases/renew"
    assert bao.send(viewer.token, "PUT", path, {"lease_id": own}) == 200
    for lease in (bao.known["owner"]["other_lease"], above):
        assert bao.send(viewer.token, "PUT", path, {"lease_id": lease}) == 403
        assert bao.send(viewer.token, "PUT", f"{path}?lease_id={lease}", {"url_lease_id": lease}) == 403


def test_no_token_of_a_person_has_the_default_policy(world: World, bao: Bao) -> None:
    for token in bao.tokens.values():
        found = bao.client.lookup_token(token)["data"]
        assert set(found["policies"] or []) <= {"data-plane-person"}, found["policies"]
        assert "default" not in (found.get("identity_policies") or [])


def test_an_expired_or_revoked_token_opens_nothing_that_it_opened_before(world: World, bao: Bao) -> None:
    local_env, paths = world.plane.local_env, own_paths(ATTACKER)
    user = "auth/userpass/users/alpha-owner"
    # As a sign-in gives them to the person, one of them with a short life.
    bao.client.write_data(user, data={"token_ttl": "15s", "token_max_ttl": "15s"})
    try:
        expired = local_env.sign_in("alpha-owner")
        assert bao.send(expired.token, "GET", paths[-1]) == 200
    finally:
        bao.client.write_data(user, data={"token_ttl": "1h", "token_max_ttl": "24h"})
    revoked = local_env.sign_in("alpha-owner")
    assert bao.send(revoked.token, "GET", paths[-1]) == 200
    revoked.auth.token.revoke_self()
    assert wait_until(lambda: bao.send(expired.token, "GET", paths[-1]) != 200, 90)
    for client in (expired, revoked):
        assert {bao.send(client.token, "GET", path) for path in [*paths, "auth/token/lookup-self"]} == {403}


def test_a_token_of_somebody_who_was_taken_out_of_the_project_opens_nothing_at_once(world: World, bao: Bao) -> None:
    """Access follows the groups, not the tokens."""
    token = world.plane.local_env.sign_in("alpha-viewer").token
    path = ATTACKER.lease_path(AccessLevel.ANON)
    assert bao.send(token, "GET", path) == 200
    group = f"identity/group/name/{ATTACKER.role(AccessLevel.ANON)}"
    members = bao.client.read(group)["data"]["member_entity_ids"]
    bao.client.write_data(
        group, data={"member_entity_ids": [one for one in members if one != bao.known["viewer"]["my_entity"]]}
    )
    try:
        assert bao.send(token, "GET", path) == 403
    finally:
        bao.client.write_data(group, data={"member_entity_ids": members})
    assert bao.send(token, "GET", path) == 200


def test_what_was_found_out_of_a_lease_id_does_not_reach_the_lease(bao: Bao) -> None:
    """A body that names another lease than the path does is refused, whatever its form."""
    other = bao.known["viewer"]["other_lease"]
    own = f"{ATTACKER.lease_path(AccessLevel.ANON)}/x"
    for action in ("revoke", "renew"):
        for body in (
            {"lease_id": other},
            {"lease_id": [other]},
            {"lease_id": other, "url_lease_id": own},
            {"LEASE_ID": other},
        ):
            for query in ("", "?lease_id=" + other):
                status = bao.send("viewer", "PUT", f"sys/leases/{action}/{own}{query}", body)
                assert status in {400, 403} or (action, status) == ("revoke", 204), (action, body, query, status)
                # A revocation of what is not there says nothing; the fixture looks whether the other lease lives.


def test_ones_own_lease_is_renewed_and_revoked_by_its_path(world: World, bao: Bao) -> None:
    for person, level in (("viewer", AccessLevel.ANON), ("owner", AccessLevel.OWNER)):
        client = world.plane.local_env.sign_in(PEOPLE[person])
        lease = client.read(ATTACKER.lease_path(level))["lease_id"]
        assert re.fullmatch(r"database/creds/proj_alpha_\w+/[A-Za-z0-9]{24}", lease), "an ID that nobody guesses"
        assert bao.send(person, "PUT", f"sys/leases/renew/{lease}", {"increment": 1800}) == 200
        assert bao.send(person, "PUT", f"sys/leases/revoke/{lease}", {}) == 204
        assert bao.send(person, "PUT", f"sys/leases/renew/{lease}", {}) == 400
