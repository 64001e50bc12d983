"""The keys that verifiers believe: what may be published, who hears of it, and that no token meets a verifier too early."""

import base64
import hmac
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet, OctKey, OKPKey, RSAKey
from psycopg.errors import InsufficientPrivilege, InvalidParameterValue

from components.central.verifying_keys import VerifyingKeysError, _Provider, served_keys
from data_plane.local.postgres import LocalPostgres
from data_plane.local.servers import ADMIN_USER, LOOPBACK
from data_plane.model.naming import AccessLevel
from tests.conftest import ALPHA, NewPlane, Plane, bring_up
from tests.support.platform_database import API_LOGIN, add_tenants, apply_platform, connect, run, running
from tests.support.postgresqls import binaries

REALTIME_TABLE = """
    create schema if not exists _realtime;
    create table _realtime.tenants (id uuid primary key default gen_random_uuid(), external_id text not null, jwt_secret text);
    insert into _realtime.tenants (external_id, jwt_secret) values ('realtime-dev', 's');
"""


@pytest.fixture(scope="module", params=sorted(binaries()))
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPostgres]:
    with running(tmp_path_factory.mktemp("pg"), binaries()[request.param], apply_platform, add_tenants) as server:
        yield server


def public(key: Any, **changes: object) -> dict[str, Any]:
    """A key as OpenBao serves it, with changes; a change to None takes the member out."""
    made = {**key.as_dict(private=False), "use": "sig", **changes}
    return {name: value for name, value in made.items() if value is not None}


def ec(kid: str = "k1", **changes: object) -> dict[str, Any]:
    return public(ECKey.generate_key("P-256", {"kid": kid, "alg": "ES256"}), **changes)


def rsa(**changes: object) -> dict[str, Any]:
    return public(RSAKey.generate_key(2048, {"kid": "r", "alg": "RS256"}), **changes)


def okp(**changes: object) -> dict[str, Any]:
    return public(OKPKey.generate_key("Ed25519", {"kid": "o", "alg": "EdDSA"}), **changes)


def publish(database: LocalPostgres, document: object) -> bool:
    with connect(database, "data_plane_keys") as publisher:
        row = publisher.execute("select data_plane.publish_keys(%s::jsonb)", [json.dumps(document)]).fetchone()
    assert row is not None
    return bool(row[0])


def postgrest_settings(database: LocalPostgres) -> dict[str, str]:
    """What PostgREST reads at its start and at `reload config`: its own query, as the authenticator, read only."""
    names = ["pgrst.jwt_secret", "pgrst.db_schemas", "pgrst.jwt_aud"]
    with connect(database, "authenticator") as session:
        session.execute("set transaction read only")
        rows = session.execute(
            "select x, current_setting(x, true) from unnest(%s::text[]) x join data_plane.pre_config() _ on true",
            [names],
        ).fetchall()
    return {name.removeprefix("pgrst."): value for name, value in rows if value is not None}


# What may be published


def test_without_keys_postgrest_keeps_its_own_secret(database: LocalPostgres) -> None:
    run(database, "delete from data_plane.verifying_keys")
    assert postgrest_settings(database) == {"db_schemas": "public,storage,data_plane_api"}


def test_public_keys_are_published_and_say_whether_anything_changed(database: LocalPostgres) -> None:
    keys = [ec("b"), ec("a", key_ops=["verify"], x5c=["…"]), rsa(), okp()]
    assert publish(database, {"keys": keys}) is True
    assert publish(database, {"keys": list(reversed(keys))}) is False, "the order is nobody's business"
    stored = json.loads(postgrest_settings(database)["jwt_secret"])
    assert [key["kid"] for key in stored["keys"]] == ["a", "b", "o", "r"]
    assert set(stored["keys"][0]) == {"kty", "kid", "alg", "use", "crv", "x", "y"}
    KeySet.import_key_set(stored)
    assert publish(database, {"keys": keys[:1]}) is True


PRIVATE = ECKey.generate_key("P-256", {"kid": "p", "alg": "ES256"}).as_dict(private=True)
SYMMETRIC = OctKey.generate_key(256, {"kid": "s", "alg": "HS256"}).as_dict(private=True)
PRIVATE_RSA = RSAKey.generate_key(2048, {"kid": "p", "alg": "RS256"}).as_dict(private=True)


@pytest.mark.parametrize(
    "document",
    [
        {}, [], None, "keys", 7, {"keys": None}, {"keys": {}}, {"keys": []}, {"keys": ["x"]}, {"keys": [None]}, {"keys": [[]]},
        {"keys": [PRIVATE]}, {"keys": [PRIVATE_RSA]}, {"keys": [SYMMETRIC]}, {"keys": [ec(), SYMMETRIC]},
        {"keys": [{**ec(), "k": "c2VjcmV0"}]}, {"keys": [{**rsa(), "p": "AQAB"}]},
        {"keys": [ec(kid="")]}, {"keys": [{key: value for key, value in ec().items() if key != "kid"}]},
        {"keys": [ec("same"), ec("same")]},
        {"keys": [ec(alg=None)]}, {"keys": [ec(alg="none")]}, {"keys": [ec(alg="HS256")]}, {"keys": [ec(alg="RS256")]},
        {"keys": [ec(alg="ES384")]}, {"keys": [ec(crv="P-384")]}, {"keys": [ec(x=None)]}, {"keys": [ec(kty="oct")]},
        {"keys": [ec(use="enc")]}, {"keys": [ec(key_ops=["sign", "verify"])]},
        {"keys": [rsa(n="x" * 171)]}, {"keys": [rsa(alg="ES256")]}, {"keys": [rsa(e=None)]},
        {"keys": [okp(crv="X25519")]}, {"keys": [okp(alg="ES256")]},
        {"keys": [ec(str(number)) for number in range(101)]},
    ],
)  # fmt: skip
def test_anything_else_is_refused_and_changes_nothing(database: LocalPostgres, document: object) -> None:
    publish(database, {"keys": [ec("before")]})
    before = run(database, "select jwks, published_at from data_plane.verifying_keys")
    with pytest.raises(InvalidParameterValue):
        publish(database, document)
    assert run(database, "select jwks, published_at from data_plane.verifying_keys") == before


@pytest.mark.parametrize("login", ["authenticator", "supabase_auth_admin", "pgbouncer", "openbao_lease_issuer"])
def test_only_who_is_meant_to_publishes(database: LocalPostgres, login: str) -> None:
    for statement in (
        "select data_plane.publish_keys('{}')",
        "delete from data_plane.verifying_keys",
        "insert into data_plane.verifying_keys (jwks) values ('{}')",
    ):
        with connect(database, login) as session, pytest.raises(InsufficientPrivilege):
            session.execute(statement.encode())
    ((may,),) = run(database, "select has_table_privilege('data_plane_keys', 'data_plane.verifying_keys', 'update')")
    assert may is False


# Who hears of it


def test_postgrest_is_told_once_something_changed(database: LocalPostgres) -> None:
    with connect(database, "authenticator") as listener:
        listener.autocommit = True
        listener.execute("listen pgrst")
        keys = {"keys": [ec("told")]}
        publish(database, keys)
        assert [notify.payload for notify in listener.notifies(timeout=30, stop_after=1)] == ["reload config"]
        publish(database, keys)
        assert list(listener.notifies(timeout=0.3)) == []


def test_realtime_has_the_keys_whenever_its_table_comes_and_whatever_it_writes(database: LocalPostgres) -> None:
    def known() -> list[Any]:
        rows = run(database, "select jwt_jwks from _realtime.tenants")
        return [None if keys is None else [key["kid"] for key in keys["keys"]] for (keys,) in rows]

    publish(database, {"keys": [ec("first")]})
    run(database, REALTIME_TABLE)
    run(database, "alter table _realtime.tenants add column jwt_jwks jsonb")
    publish(database, {"keys": [ec("second")]})
    assert known() == [["second"]]
    # At its start it deletes its tenant and writes it anew, with what its environment says.
    run(database, "delete from _realtime.tenants")
    run(database, """insert into _realtime.tenants (external_id, jwt_jwks) values ('realtime-dev', '{"keys": []}')""")
    assert known() == [["second"]]
    apply_platform(database)
    assert known() == [["second"]]
    run(database, "drop schema _realtime cascade")


# PostgREST's transaction


def test_a_request_runs_as_the_tokens_role_with_its_claims(database: LocalPostgres) -> None:
    run(
        database,
        "create table if not exists proj_one.seen (who uuid default auth.uid(), role text default current_user)",
    )
    run(
        database,
        "alter table proj_one.seen owner to proj_one_owner; grant select, insert on proj_one.seen to proj_one_authenticated",
    )
    run(database, "drop policy if exists own on proj_one.seen")
    run(
        database,
        "create policy own on proj_one.seen to proj_one_authenticated using (who = auth.uid()) with check (true)",
    )
    someone = "6f1c8a52-6f0e-4a53-9f3a-0d3c1f7f2f10"
    claims = {"sub": someone, "role": "proj_one_authenticated", "project": "one"}
    with connect(database, API_LOGIN) as session:
        # One statement: search path, the role's settings, the role, and what is known of the request.
        session.execute(
            "select set_config('search_path', %s, true), set_config('statement_timeout', '20000', true),"
            " set_config('role', %s, true), set_config('request.jwt.claims', %s, true),"
            " set_config('request.method', 'POST', true), set_config('request.path', '/seen', true),"
            " set_config('request.headers', '{}', true), set_config('request.cookies', '{}', true)",
            ['"proj_one", "public", "extensions"', "proj_one_authenticated", json.dumps(claims)],
        )
        assert session.execute("insert into seen default values returning who::text, role").fetchone() == (
            someone,
            "proj_one_authenticated",
        )
        with pytest.raises(InsufficientPrivilege), session.transaction():
            session.execute("select set_config('role', 'supabase_admin', true)")
        session.rollback()
        assert session.execute("select current_user, current_setting('request.jwt.claims', true)").fetchone() == (
            API_LOGIN,
            "",
        )


# The resource


def test_the_resource_notices_that_what_is_served_is_not_what_is_published(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = _Provider()
    props: dict[str, Any] = {
        "host": LOOPBACK,
        "port": float(plane.local_env.servers.postgres.known_port),
        "database": "postgres",
        "username": ADMIN_USER,
        "password": plane.local_env.servers.postgres.admin_password,
        "sslmode": "disable",
        "address": plane.local_env.servers.openbao.address,
        "extra": None,
    }
    made = provider.create(props)
    outs = dict(made.outs or {})
    assert not provider.diff(made.id, outs, props).changes
    extra = {**props, "extra": json.dumps({"keys": [ec("auth")]})}
    assert provider.diff(made.id, outs, extra).changes
    assert "auth" in dict(provider.update(made.id, outs, extra).outs or {})["published"]
    assert provider.diff(made.id, dict(provider.read(made.id, outs).outs or {}), props).changes
    provider.update(made.id, outs, props)
    with plane.admin() as admin:
        admin.execute("delete from data_plane.verifying_keys")
    assert dict(provider.read(made.id, outs).outs or {})["published"] == []
    provider.update(made.id, outs, props)
    with pytest.raises(
        VerifyingKeysError, match="were not published: key p cannot be published: it has a private part"
    ):
        provider.update(made.id, outs, {**props, "extra": json.dumps({"keys": [PRIVATE]})})
    for wrong in ("http://127.0.0.1:9", plane.local_env.servers.openbao.address + "/none"):
        with pytest.raises(VerifyingKeysError):
            served_keys(wrong)
    with pytest.raises(VerifyingKeysError, match="no JWKS"):
        served_keys(props["address"], "[]")


# Rotation, all the way through


def believed(plane: Plane) -> KeySet:
    """The keys by which PostgREST would check a token now."""
    with plane.admin() as admin:
        admin.execute("set role authenticator")
        admin.execute("select data_plane.pre_config()")
        row = admin.execute("select current_setting('pgrst.jwt_secret')").fetchone()
    assert row is not None
    return KeySet.import_key_set(json.loads(row[0]))


def names(keys: KeySet) -> set[str]:
    return {str(key.kid) for key in keys.keys}


def served_names(plane: Plane) -> set[str]:
    return {str(key["kid"]) for key in served_keys(plane.local_env.servers.openbao.address)["keys"]}


def check(token: str, keys: KeySet) -> dict[str, Any]:
    decoded = jwt.decode(token, keys, algorithms=["ES256"])
    jwt.JWTClaimsRegistry().validate(decoded.claims)
    return decoded.claims


def signed_by(token: str) -> str:
    header = token.split(".", maxsplit=1)[0]
    return str(json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))["kid"])


def new_token(plane: Plane) -> str:
    token = plane.lease("alpha", AccessLevel.ANON).token
    assert token is not None
    return token


def rotate(plane: Plane) -> None:
    plane.local_env.servers.openbao.client().write_data("identity/oidc/key/supabase/rotate", data={})


def published_at_up(plane: Plane) -> bool:
    """Brings the stacks up; whether the keys were published anew."""
    before = plane.rows("select published_at from data_plane.verifying_keys")
    bring_up(plane.local_env)
    return plane.rows("select published_at from data_plane.verifying_keys") != before


@pytest.fixture(scope="module")
def rotating(new_plane: NewPlane) -> Plane:
    return new_plane({"alpha.yaml": ALPHA})


def test_tokens_verify_from_the_first_run_and_through_every_rotation(rotating: Plane) -> None:
    tokens = [new_token(rotating)]
    check(tokens[0], believed(rotating))
    for _ in range(3):
        before = believed(rotating)
        rotate(rotating)
        # The job has not run since. The new signing key was published while it was still the next one.
        tokens.append(new_token(rotating))
        assert signed_by(tokens[-1]) not in {signed_by(token) for token in tokens[:-1]}
        assert signed_by(tokens[-1]) in names(before)
        for token in tokens:
            assert check(token, believed(rotating))["role"] == "proj_alpha_anon"
        deadline = time.monotonic() + 60
        while served_names(rotating) == names(before):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert published_at_up(rotating)
        assert names(believed(rotating)) > {signed_by(token) for token in tokens}, "and the next one"
        for token in tokens:
            assert check(token, believed(rotating))["role"] == "proj_alpha_anon"
    assert not published_at_up(rotating)
    assert new_token(rotating) is not None


def test_a_verifier_with_these_keys_refuses_every_forgery(rotating: Plane) -> None:
    keys = believed(rotating)
    token = new_token(rotating)
    header, payload, signature = token.split(".")
    claims = check(token, keys)
    kid = signed_by(token)
    (public_key,) = [key for key in keys.keys if key.kid == kid]
    assert isinstance(public_key, ECKey)

    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    foreign = ECKey.generate_key("P-256", {"kid": kid, "alg": "ES256"})
    stronger = part({**claims, "role": "proj_alpha_service_role"})
    # The public key taken for a shared secret, in every form in which a careless verifier would read it.
    unsigned = f"{part({'alg': 'HS256', 'kid': kid})}.{stronger}"
    confused = [
        f"{unsigned}.{base64.urlsafe_b64encode(hmac.digest(secret, unsigned.encode(), 'sha256')).decode().rstrip('=')}"
        for secret in (
            json.dumps(public_key.as_dict(private=False)).encode(),
            public_key.as_bytes(encoding="PEM", private=False),
            public_key.as_bytes(encoding="DER", private=False),
        )
    ]
    forged = [
        f"{part({'alg': 'none'})}.{payload}.",
        f"{part({'alg': 'none', 'kid': kid})}.{payload}.{signature}",
        f"{header}.{stronger}.{signature}",
        f"{part({'alg': 'ES384', 'kid': kid})}.{payload}.{signature}",
        f"{part({'alg': 'RS256', 'kid': kid})}.{payload}.{signature}",
        f"{part({'alg': 'ES256', 'kid': 'unknown'})}.{payload}.{signature}",
        jwt.encode({"alg": "ES256", "kid": kid}, claims, foreign),
        *confused,
    ]
    for token in forged:
        for algorithms in (sorted({str(key.alg) for key in keys.keys}), ["ES256", "HS256", "RS256", "ES384"]):
            with pytest.raises((JoseError, ValueError)):
                jwt.decode(token, keys, algorithms=algorithms)


def test_nobody_can_mint_with_the_role_that_announces_the_key(rotating: Plane) -> None:
    for user in ("olga", "vera"):
        client = rotating.local_env.sign_in(user)
        response = client.adapter.request("get", "/v1/identity/oidc/token/data_plane", raise_exception=False)
        assert response.status_code == 403
