"""Rotating the platform's secrets: new everywhere, and nothing that is valid is refused on the way."""

import json
from typing import Any

import psycopg
import pytest
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from psycopg.types.json import Jsonb
from typer.testing import CliRunner

from data_plane.cli.main import app
from data_plane.local.environment import LocalEnvironment
from data_plane.local.postgres import ADMIN_USER
from data_plane.local.processes import LOOPBACK
from data_plane.model.connector_secrets import CLUSTER_SECRETS
from data_plane.model.service_logins import SERVICE_LOGINS
from tests.conftest import ALPHA, NewPlane, bring_up


class Rotating:
    def __init__(self, local_env: LocalEnvironment, patch: pytest.MonkeyPatch) -> None:
        self.local_env = local_env
        patch.setenv("DATA_PLANE_HOME", str(local_env.servers.home.path))

    def rotate(self, key: str) -> str:
        response = CliRunner().invoke(app, ["secret", "rotate", key])
        assert response.exit_code == 0, response.output
        return " ".join(response.output.split())

    def secrets(self, path: str = "supabase") -> dict[str, str]:
        response = self.local_env.servers.openbao.client().secrets.kv.v2.read_secret_version(
            path=path, mount_point="connectors", raise_on_deleted_version=True
        )
        return dict(response["data"]["data"])

    def log_in(self, login: str, password: str) -> str:
        port = self.local_env.servers.postgres.port
        with psycopg.connect(host=LOOPBACK, port=port, dbname="postgres", user=login, password=password) as connection:
            row = connection.execute("select session_user").fetchone()
        assert row is not None
        return str(row[0])

    def refused(self, key: str) -> str:
        """What it says when it refuses, and changes nothing."""
        before = self.secrets()
        response = CliRunner().invoke(app, ["secret", "rotate", key])
        assert response.exit_code == 1, response.output
        assert self.secrets() == before
        return " ".join(response.output.split())

    def changes(self) -> list[tuple[int | None, int | None]]:
        return [(run.created, run.updated) for run in bring_up(self.local_env)]


@pytest.fixture(scope="module")
def rotating(new_plane: NewPlane) -> Any:
    local_env = new_plane({"alpha.yaml": ALPHA}).local_env
    with pytest.MonkeyPatch.context() as patch:
        yield Rotating(local_env, patch)


@pytest.mark.parametrize("login", SERVICE_LOGINS)
def test_a_login_has_its_new_password_in_postgresql_and_no_longer_the_old_one(rotating: Rotating, login: str) -> None:
    key = SERVICE_LOGINS[login]
    old = rotating.secrets()[key]
    assert rotating.log_in(login, old) == login
    rotating.rotate(key)
    new = rotating.secrets()[key]
    assert new != old
    assert rotating.log_in(login, new) == login
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        rotating.log_in(login, old)


def test_the_copies_of_services_follow_at_once(rotating: Rotating) -> None:
    assert "Read by: auth" in rotating.rotate("AUTH_ADMIN_PASSWORD")
    assert rotating.secrets("supabase/auth")["AUTH_ADMIN_PASSWORD"] == rotating.secrets()["AUTH_ADMIN_PASSWORD"]


def test_the_superusers_password_changes_and_the_next_run_goes_on_with_it(rotating: Rotating) -> None:
    old = rotating.secrets()["POSTGRES_PASSWORD"]
    rotating.rotate("POSTGRES_PASSWORD")
    new = rotating.secrets()["POSTGRES_PASSWORD"]
    assert new != old
    assert rotating.log_in(ADMIN_USER, new) == ADMIN_USER
    bring_up(rotating.local_env)
    assert rotating.changes() == [(0, 0), (0, 0)]


def test_a_rotation_leaves_no_drift(rotating: Rotating) -> None:
    rotating.rotate("SUPABASE_SECRET_KEY")
    bring_up(rotating.local_env)
    before = rotating.secrets()
    assert rotating.changes() == [(0, 0), (0, 0)]
    assert rotating.secrets() == before


def verifies(token: str, jwks: str) -> bool:
    keys = KeySet.import_key_set(
        {"keys": [{k: v for k, v in key.items() if k != "key_ops"} for key in json.loads(jwks)["keys"]]}
    )
    try:
        jwt.decode(token, keys, algorithms=["ES256"])
    except (JoseError, ValueError):
        return False
    return True


def test_auths_signing_key_changes_in_three_steps_without_a_refused_token(rotating: Rotating) -> None:
    bring_up(rotating.local_env)
    first = rotating.secrets()
    assert "announced" in rotating.rotate("JWT_KEYS")
    announced = rotating.secrets()
    # Nobody signs with the next key yet, and everybody who has the new set can check both.
    assert verifies(announced["ANON_KEY"], first["JWT_JWKS"])
    assert verifies(first["ANON_KEY"], announced["JWT_JWKS"])

    next_key = json.loads(announced["JWT_KEYS"])[-1]["kid"]
    refusal = rotating.refused("JWT_KEYS")
    assert f"verifiers do not know its key {next_key} yet" in refusal
    assert "bring the central stack up" in refusal
    bring_up(rotating.local_env)

    assert "signs with the next key" in rotating.rotate("JWT_KEYS")
    signing = rotating.secrets()
    for token in (first["ANON_KEY"], signing["ANON_KEY"], signing["SERVICE_ROLE_KEY"]):
        assert verifies(token, signing["JWT_JWKS"])
    # A verifier that still has the set from before the switch knows the new key.
    assert verifies(signing["ANON_KEY"], announced["JWT_JWKS"])
    assert not verifies(signing["ANON_KEY"], first["JWT_JWKS"])

    assert "forgotten" in rotating.rotate("JWT_KEYS")
    last = rotating.secrets()
    assert verifies(signing["ANON_KEY"], last["JWT_JWKS"])
    assert not verifies(first["ANON_KEY"], last["JWT_JWKS"])


def test_auth_always_has_exactly_one_key_to_sign_with_and_no_private_part_is_published(rotating: Rotating) -> None:
    for _ in range(4):
        secrets = rotating.secrets()
        keys = json.loads(secrets["JWT_KEYS"])
        assert len([key for key in keys if "sign" in key["key_ops"]]) == 1
        assert not [key for key in json.loads(secrets["JWT_JWKS"])["keys"] if "d" in key]
        rotating.rotate("JWT_KEYS")
        with rotating.local_env.servers.postgres.connect() as admin:
            admin.execute("select data_plane.publish_keys(%s::jsonb)", [rotating.secrets()["JWT_JWKS"]])


def test_no_step_is_taken_while_nothing_is_published(rotating: Rotating) -> None:
    with rotating.local_env.servers.postgres.connect() as admin:
        kept = admin.execute("delete from data_plane.verifying_keys returning jwks, published_at").fetchall()
    try:
        assert "never published" in rotating.refused("JWT_KEYS")
    finally:
        with rotating.local_env.servers.postgres.connect() as admin:
            admin.execute(
                "insert into data_plane.verifying_keys (jwks, published_at) values (%s, %s)",
                [Jsonb(kept[0][0]), kept[0][1]],
            )


def test_the_last_publishable_key_is_taken_until_it_is_rotated_itself(rotating: Rotating) -> None:
    current, before = "SUPABASE_PUBLISHABLE_KEY", "SUPABASE_PUBLISHABLE_KEY_BEFORE"
    old = rotating.secrets()
    assert f"secret rotate {before}" in rotating.rotate(current)
    for path in ("supabase", "supabase/gateway"):
        new = rotating.secrets(path)
        assert new[before] == old[current]
        assert new[current] not in (old[current], old[before])
    assert rotating.secrets("supabase/tenants")[current] == new[current]
    rotating.rotate(before)
    for path in ("supabase", "supabase/gateway"):
        last = rotating.secrets(path)
        assert last[current] == new[current]
        assert last[before] not in (old[current], old[before], new[current])


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("JWT_JWKS", "follows from JWT_KEYS"),
        ("VAULT_ENC_KEY", "could not be read any more"),
        ("DASHBOARD_USERNAME", "is a name"),
        ("NO_SUCH_KEY", "has no NO_SUCH_KEY"),
    ],
)
def test_what_cannot_be_rotated_says_why_and_stays(rotating: Rotating, key: str, message: str) -> None:
    before = rotating.secrets()
    response = CliRunner().invoke(app, ["secret", "rotate", key])
    assert response.exit_code == 1
    assert message in " ".join(response.output.split())
    assert rotating.secrets() == before


def test_no_value_is_shown(rotating: Rotating) -> None:
    for key in ("PG_META_CRYPTO_KEY", "POOLER_PASSWORD", "JWT_KEYS"):
        output = rotating.rotate(key)
        shown = [value for name, value in rotating.secrets().items() if name in CLUSTER_SECRETS and len(value) > 12]
        assert not [value for value in shown if value in output]
