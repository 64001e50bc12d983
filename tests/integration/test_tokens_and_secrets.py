"""API tokens against their published keys, and the platform's own secrets."""

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
import requests
from joserfc import jwt
from joserfc.errors import BadSignatureError, JoseError
from joserfc.jwk import KeySet

from data_plane.connector.leases import LeaseClient, LeaseFormat
from data_plane.errors import LeaseError
from data_plane.model.connector_secrets import CLUSTER_SECRETS, SUPABASE_SECRETS, SecretKind, generate
from data_plane.model.naming import API_LEVELS, AccessLevel, ApiServer
from tests.conftest import Plane, bring_up


def published_keys(plane: Plane) -> KeySet:
    url = plane.local_env.engine.outputs("local-central")["jwksUrl"]
    return KeySet.import_key_set(requests.get(url, timeout=30).json())


def claims(plane: Plane, token: str) -> dict[str, Any]:
    decoded = jwt.decode(token, published_keys(plane), algorithms=["ES256"])
    jwt.JWTClaimsRegistry().validate(decoded.claims)
    return decoded.claims


@pytest.mark.parametrize("level", API_LEVELS)
def test_a_token_verifies_and_names_only_the_tenants_role(plane: Plane, level: AccessLevel) -> None:
    lease = plane.lease("alpha", level)
    assert lease.token is not None
    found = claims(plane, lease.token)
    assert (found["role"], found["project"], found["aud"]) == (f"proj_alpha_{level}", "alpha", "proj_alpha")
    assert found["exp"] - found["iat"] == lease.token_ttl_seconds == 900
    assert re.fullmatch(r"[0-9a-f-]{36}", found["sub"]), "auth.uid() casts the subject to a UUID"


def test_the_owner_has_no_token(plane: Plane) -> None:
    assert plane.lease("alpha", AccessLevel.OWNER).token is None


def test_a_token_that_was_changed_does_not_verify(plane: Plane) -> None:
    token = plane.lease("alpha", AccessLevel.ANON).token
    assert token is not None
    other = plane.lease("beta-two", AccessLevel.SERVICE_ROLE).token
    assert other is not None
    header, _, signature = token.split(".")
    with pytest.raises(BadSignatureError):
        claims(plane, f"{header}.{other.split('.')[1]}.{signature}")
    with pytest.raises(JoseError):
        claims(plane, f"eyJhbGciOiJub25lIn0.{other.split('.')[1]}.")


def test_a_token_outlives_the_rotation_of_its_key(plane: Plane) -> None:
    token = plane.lease("alpha", AccessLevel.ANON).token
    assert token is not None
    before = {key.kid for key in published_keys(plane).keys}
    plane.local_env.servers.openbao.client().write_data("identity/oidc/key/supabase/rotate", data={})
    deadline = time.monotonic() + 60
    while {key.kid for key in published_keys(plane).keys} == before:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert claims(plane, token)["role"] == "proj_alpha_anon"
    fresh = plane.lease("alpha", AccessLevel.ANON).token
    assert fresh is not None
    assert fresh.split(".")[0] != token.split(".")[0], "signed by the new key"
    assert claims(plane, fresh)["role"] == "proj_alpha_anon"


def test_a_root_token_gets_a_clear_refusal(plane: Plane) -> None:
    binding = plane.local_env.bindings()["alpha"]
    with pytest.raises(LeaseError, match="has no identity: sign in as a person"):
        LeaseClient(plane.local_env.servers.openbao.client()).issue(binding, AccessLevel.ANON)


def stored(plane: Plane) -> dict[str, str]:
    client = plane.local_env.servers.openbao.client()
    return dict(client.read("connectors/data/supabase")["data"]["data"])


def test_every_secret_is_there_in_the_form_its_service_wants(plane: Plane) -> None:
    secrets = stored(plane)
    assert set(secrets) == {*SUPABASE_SECRETS, *CLUSTER_SECRETS, ApiServer.of_cell("cell-1").password_key}
    assert len(set(secrets.values())) == len(secrets)
    assert len(secrets["JWT_SECRET"]) >= 32
    assert len(secrets["SECRET_KEY_BASE"]) >= 64
    assert len(secrets["VAULT_ENC_KEY"]) == 32
    assert len(secrets["PG_META_CRYPTO_KEY"]) >= 32
    assert re.fullmatch(r"sb_publishable_[\w-]{22}_[\w-]{8}", secrets["SUPABASE_PUBLISHABLE_KEY"])
    assert re.fullmatch(r"sb_secret_[\w-]{22}_[\w-]{8}", secrets["SUPABASE_SECRET_KEY"])
    assert secrets["POSTGRES_PASSWORD"] == plane.local_env.servers.postgres.admin_password


def test_secrets_are_generated_once(plane: Plane) -> None:
    before = stored(plane)
    bring_up(plane.local_env)
    assert stored(plane) == before


def test_a_lost_key_is_made_again_and_the_others_stay(plane: Plane) -> None:
    before = stored(plane)
    client = plane.local_env.servers.openbao.client()
    without = {key: value for key, value in before.items() if key != "VAULT_ENC_KEY"}
    client.secrets.kv.v2.create_or_update_secret(path="supabase", mount_point="connectors", secret=without)
    bring_up(plane.local_env)
    after = stored(plane)
    assert {key: after[key] for key in without} == without
    assert len(after["VAULT_ENC_KEY"]) == 32
    assert after["VAULT_ENC_KEY"] != before["VAULT_ENC_KEY"]


@pytest.mark.parametrize("kind", [kind for kind in SecretKind if kind is not SecretKind.NAME])
def test_no_two_generated_values_are_alike(kind: SecretKind) -> None:
    values = {generate(kind, {"JWT_KEYS": generate(SecretKind.SIGNING_KEYS, {})}) for _ in range(50)}
    assert len(values) == 50


def confidential(plane: Plane) -> list[str]:
    public = {key for key, kind in CLUSTER_SECRETS.items() if kind in (SecretKind.NAME, SecretKind.PUBLIC_KEYS)}
    values = [value for key, value in stored(plane).items() if key not in public]
    return [*values, plane.local_env.servers.openbao.root_token]


def test_no_secret_is_in_the_state_or_in_a_log_in_clear(plane: Plane) -> None:
    secrets = confidential(plane)
    home = plane.local_env.servers.home.path
    files = [*(home / "state").glob("*.json"), *home.glob("*.log")]
    assert len(files) >= 4
    for path in files:
        text = path.read_text(encoding="utf-8", errors="replace")
        assert not [secret for secret in secrets if secret in text], path


def test_every_private_file_is_for_this_user_alone(plane: Plane) -> None:
    home = plane.local_env.servers.home.path
    assert home.stat().st_mode & 0o077 == 0
    for name in (
        "openbao-keys.json",
        "postgres-admin-password",
        "state-key",
        "people.json",
        "state/local-central.json",
    ):
        assert (home / name).stat().st_mode & 0o077 == 0, name


def test_a_lease_shows_no_secret_unless_it_is_asked_to(plane: Plane) -> None:
    lease = plane.lease("alpha", AccessLevel.ANON)
    assert lease.password not in repr(lease)
    assert str(lease.token) not in repr(lease)
    shown = json.loads(lease.render(LeaseFormat.JSON))
    assert shown["connection_string"] == lease.connection_string
    assert f"DATABASE_URL={json.dumps(lease.connection_string)}" in lease.render(LeaseFormat.DOTENV)


def test_servers_keep_no_secret_in_their_arguments(plane: Plane) -> None:
    secrets = confidential(plane)
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        assert not [secret for secret in secrets if secret in text], text.split(" ")[0]
