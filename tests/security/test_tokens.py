"""API tokens, verified as PostgREST and Realtime do: with the keys that are published in the database, and no other."""

import hmac
import json
from collections.abc import Callable
from typing import Any

import pytest
import requests
from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet
from joserfc.util import urlsafe_b64decode, urlsafe_b64encode
from psycopg.errors import InsufficientPrivilege

from data_plane.model.naming import API_LEVELS, AccessLevel, TenantNames
from tests.security.world import (
    APART,
    ATTACKER,
    CELL,
    ELSEWHERE,
    HIDDEN,
    OTHER_CELL,
    TENANTS,
    VICTIM,
    World,
    begin_request,
)
from tests.support.postgresqls import binaries

pytestmark = pytest.mark.parametrize("world", [max(binaries())], indirect=True)

STRICT = ["ES256"]
LAX = ["ES256", "ES384", "HS256", "HS384", "HS512", "RS256", "PS256"]
"""What a verifier might permit that thinks of keys and not of algorithms. Each key says its own."""


def published(world: World) -> dict[str, Any]:
    """What PostgREST is given by the pre-config function."""
    with world.login("authenticator") as session:
        row = session.execute(
            "select current_setting('pgrst.jwt_secret', true) from data_plane.pre_config()"
        ).fetchone()
    assert row is not None
    return dict(json.loads(row[0]))


def keys_of(world: World) -> KeySet:
    return KeySet([ECKey.import_key(key) for key in published(world)["keys"]])


def verified(world: World, token: str, algorithms: list[str], audience: str | None = None) -> dict[str, Any]:
    """The claims of a token that is good."""
    claims = jwt.decode(token, keys_of(world), algorithms=algorithms).claims
    registry = jwt.JWTClaimsRegistry(leeway=0)
    if audience is not None:
        registry = jwt.JWTClaimsRegistry(leeway=0, aud={"essential": True, "value": audience})
    registry.validate(claims)
    return dict(claims)


def parts(token: str) -> tuple[dict[str, Any], dict[str, Any], str]:
    header, payload, signature = token.split(".")
    return json.loads(urlsafe_b64decode(header.encode())), json.loads(urlsafe_b64decode(payload.encode())), signature


def join(header: dict[str, Any], payload: dict[str, Any], signature: str) -> str:
    encoded = [urlsafe_b64encode(json.dumps(part).encode()).decode() for part in (header, payload)]
    return ".".join([*encoded, signature])


def public_key_as_text(world: World, kid: str) -> list[bytes]:
    (key,) = [key for key in published(world)["keys"] if key["kid"] == kid]
    imported = ECKey.import_key(key)
    return [imported.as_pem(private=False), json.dumps(key).encode(), key["x"].encode(), key["kid"].encode()]


def signed(world: World, token: str, key: Any, **header: str) -> str:
    before, payload, _ = parts(token)
    return jws.serialize_compact({**before, **header}, json.dumps(payload), key, algorithms=LAX)


def with_claims(token: str, **claims: object) -> str:
    header, payload, signature = parts(token)
    return join(header, {**payload, **claims}, signature)


Forgery = Callable[[World, str], list[str]]


def own_key(world: World, token: str) -> list[str]:
    key = ECKey.generate_key("P-256")
    return [signed(world, token, key), signed(world, token, key, kid="mine")]


def key_in_the_header(world: World, token: str) -> list[str]:
    """A verifier that believed the header's own key would believe everybody."""
    header, payload, _ = parts(token)
    key = ECKey.generate_key("P-256")
    header |= {"jwk": key.as_dict(private=False)}
    return [jws.serialize_compact(header, json.dumps(payload), key, algorithms=LAX)]


def no_algorithm(world: World, token: str) -> list[str]:
    header, payload, signature = parts(token)
    return [
        join({**header, "alg": algorithm}, payload, rest)
        for algorithm in ("none", "None", "NONE", "")
        for rest in ("", signature)
    ]


def public_key_as_secret(world: World, token: str) -> list[str]:
    header, payload, _ = parts(token)
    forged = []
    for text in public_key_as_text(world, str(header["kid"])):
        for algorithm, digest in (("HS256", "sha256"), ("HS512", "sha512")):
            unsigned = join({**header, "alg": algorithm}, payload, "").rstrip(".")
            signature = hmac.digest(text, unsigned.encode(), digest)
            forged.append(f"{unsigned}.{urlsafe_b64encode(signature).decode()}")
    return forged


FORGERIES: dict[str, Forgery] = {
    "signed with a key of one's own": own_key,
    "with a key in its header": key_in_the_header,
    "without an algorithm": no_algorithm,
    "HS256 with the public key for a secret": public_key_as_secret,
    "another algorithm in its header": lambda _world, token: [
        join({**parts(token)[0], "alg": algorithm}, *parts(token)[1:]) for algorithm in LAX if algorithm != "ES256"
    ],
    "another tenant's role": lambda _world, token: [
        with_claims(token, role=names.role(level)) for names in (VICTIM, HIDDEN) for level in AccessLevel
    ],
    "a stronger role of its own tenant": lambda _world, token: [
        with_claims(token, role=ATTACKER.role(AccessLevel.SERVICE_ROLE)),
        with_claims(token, role=ATTACKER.role(AccessLevel.OWNER)),
    ],
    "the platform's role": lambda _world, token: [
        with_claims(token, role=role) for role in ("service_role", "supabase_admin", "postgres", "authenticator")
    ],
    "another project": lambda _world, token: [with_claims(token, project=VICTIM.slug)],
    "another audience": lambda _world, token: [with_claims(token, aud=VICTIM.schema)],
    "another subject": lambda _world, token: [with_claims(token, sub="6f1c8a52-6f0e-4a53-9f3a-0d3c1f7f2f10")],
    "the claim that manages a bucket": lambda _world, token: [with_claims(token, storage_admin=True)],
    "a longer life": lambda _world, token: [with_claims(token, exp=parts(token)[1]["exp"] + 3600)],
    "a signature of nothing": lambda _world, token: [
        f"{token.rpartition('.')[0]}.{urlsafe_b64encode(signature).decode()}"
        for signature in (b"", b"\0" * 64, b"\xff" * 64)
    ],
}


@pytest.mark.parametrize("level", API_LEVELS)
def test_a_good_token_is_good(world: World, level: AccessLevel) -> None:
    token = world.token(ATTACKER, level)
    for algorithms in (STRICT, LAX):
        claims = verified(world, token, algorithms, ATTACKER.schema)
        assert (claims["role"], claims["project"]) == (ATTACKER.role(level), ATTACKER.slug)


@pytest.mark.parametrize("forgery", FORGERIES)
@pytest.mark.parametrize("algorithms", [STRICT, LAX], ids=["strict", "lax"])
def test_a_token_that_was_forged_is_not(world: World, forgery: str, algorithms: list[str]) -> None:
    token = world.token(ATTACKER, AccessLevel.ANON)
    for forged in FORGERIES[forgery](world, token):
        assert forged != token
        with pytest.raises((JoseError, ValueError)):
            verified(world, forged, algorithms)


def test_a_token_for_another_audience_is_refused_where_one_is_asked_for(world: World) -> None:
    token = world.token(ATTACKER, AccessLevel.AUTHENTICATED)
    with pytest.raises(JoseError):
        verified(world, token, STRICT, VICTIM.schema)


def mint(world: World, **times: object) -> str:
    """A token with a time in it that OpenBao puts there only by waiting, by a key that is published beside its own."""
    key = ECKey.generate_key("P-256", {"kid": "for-this-test", "alg": "ES256", "use": "sig"})
    with world.admin() as admin:
        others = [other for other in published(world)["keys"] if other["kid"] != "for-this-test"]
        keys = [*others, key.as_dict(private=False)]
        admin.execute("select data_plane.publish_keys(%s::jsonb)", [json.dumps({"keys": keys})])
    _, payload, _ = parts(world.token(ATTACKER, AccessLevel.ANON))
    claims = {**payload, **{name: payload["iat"] + int(str(offset)) for name, offset in times.items()}}
    return jwt.encode({"alg": "ES256", "kid": "for-this-test"}, claims, key)


def republish(world: World, keys: list[dict[str, Any]]) -> None:
    with world.admin() as admin:
        admin.execute("select data_plane.publish_keys(%s::jsonb)", [json.dumps({"keys": keys})])


def test_a_token_is_good_from_its_first_second_to_its_last(world: World) -> None:
    before = published(world)["keys"]
    try:
        assert verified(world, mint(world, exp=600), STRICT)
        for times in ({"exp": -1}, {"exp": 600, "nbf": 300}, {"exp": -100, "nbf": -200}):
            with pytest.raises(JoseError):
                verified(world, mint(world, **times), STRICT)
    finally:
        republish(world, before)


def test_a_key_verifies_for_as_long_as_it_is_published_and_no_longer(world: World) -> None:
    url = world.plane.local_env.engine.outputs("local-central")["jwksUrl"]
    operator = world.plane.local_env.servers.openbao.client()
    before = published(world)["keys"]
    old = world.token(ATTACKER, AccessLevel.ANON)
    # Twice: OpenBao has the next key ready, and signs with it from the rotation on.
    operator.write_data("identity/oidc/key/supabase/rotate", data={})
    new = world.token(ATTACKER, AccessLevel.ANON)
    assert parts(new)[0]["kid"] != parts(old)[0]["kid"]
    try:
        served = requests.get(url, timeout=60).json()["keys"]
        republish(world, served)
        assert verified(world, old, STRICT)["role"] == verified(world, new, STRICT)["role"]
        republish(world, [key for key in served if key["kid"] != parts(old)[0]["kid"]])
        assert verified(world, new, STRICT)
        with pytest.raises((JoseError, ValueError)):
            verified(world, old, STRICT)
        for forged in public_key_forgeries(world, old, served):
            with pytest.raises((JoseError, ValueError)):
                verified(world, forged, LAX)
    finally:
        republish(world, before + [key for key in served if key not in before])


def public_key_forgeries(world: World, token: str, served: list[dict[str, Any]]) -> list[str]:
    """The old token under the names of the keys that are still published."""
    header, payload, signature = parts(token)
    return [join({**header, "kid": key["kid"]}, payload, signature) for key in served]


def test_no_private_key_is_published(world: World) -> None:
    for key in published(world)["keys"]:
        assert set(key) == {"alg", "crv", "kid", "kty", "use", "x", "y"}


# A good token of a tenant, at the PostgREST of others.

SERVED: list[tuple[str, TenantNames, bool]] = [
    *(("authenticator", names, False) for names in TENANTS),
    (CELL.login, ATTACKER, True),
    (CELL.login, VICTIM, True),
    (CELL.login, HIDDEN, False),
    (CELL.login, APART, False),
    (CELL.login, ELSEWHERE, False),
    (OTHER_CELL.login, ELSEWHERE, True),
    (OTHER_CELL.login, ATTACKER, False),
    (OTHER_CELL.login, HIDDEN, False),
    (APART.authenticator, APART, True),
    (APART.authenticator, ATTACKER, False),
    (APART.authenticator, HIDDEN, False),
]


@pytest.mark.parametrize(("login", "names", "served"), SERVED)
@pytest.mark.parametrize("level", API_LEVELS)
def test_a_good_token_opens_the_tenant_only_where_it_is_served(
    world: World, login: str, names: TenantNames, served: bool, level: AccessLevel
) -> None:
    role = verified(world, world.token(names, level), STRICT)["role"]
    assert role == names.role(level)
    with world.login(login) as session, session.transaction(force_rollback=True):
        if served:
            begin_request(session, names, level)
            assert session.execute("select body from notes where open").fetchall() == [("public",)]
        else:
            with pytest.raises(InsufficientPrivilege):
                begin_request(session, names, level)


@pytest.mark.parametrize(
    ("login", "schemas"),
    [
        ("authenticator", ["public", "storage", "data_plane_api"]),
        (CELL.login, ["public", "storage", "data_plane_api", ATTACKER.schema, VICTIM.schema]),
        (OTHER_CELL.login, ["public", "storage", "data_plane_api", ELSEWHERE.schema]),
        (APART.authenticator, ["public", "storage", "data_plane_api", APART.schema]),
    ],
)
def test_each_postgrest_learns_which_schemas_are_its_own(world: World, login: str, schemas: list[str]) -> None:
    with world.login(login) as session:
        row = session.execute("select current_setting('pgrst.db_schemas') from data_plane.pre_config()").fetchone()
    assert row is not None
    assert row[0].split(",") == schemas
