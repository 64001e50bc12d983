"""Workloads: programs that sign in as an AppRole and lease what their project's file says, on real servers."""

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hvac
import psycopg
import pytest
from hvac.exceptions import Forbidden

from data_plane.connector.bindings import LocalDataPlane
from data_plane.connector.leases import Lease, LeaseClient
from data_plane.connector.rotation import rotate
from data_plane.connector.sign_in import AppRoleCredentials, WorkloadSignIn
from data_plane.errors import LeaseError, ProjectDetachedError, SignInError
from data_plane.local.processes import wait_until
from data_plane.model.naming import AccessLevel, TenantNames
from data_plane.model.problems import ConfigurationError
from data_plane.model.tenant_binding import TenantBinding
from data_plane.state_dir import CHECKOUT
from tests.conftest import NewLocalEnv, NewPlane, Plane, bring_up

SHOP = """\
slug: shop
display_name: Shop
cell: cell-1
owners: [olga]
users:
  project_viewer: [vera]
workloads:
  api: {level: service_role, approle: {secret_id_ttl: 1h}}
  ci: {level: owner, approle: {}}
  far: {level: anon, approle: {bound_cidrs: [192.0.2.0/24, 192.0.2.7/32, "2001:db8::/32"]}}
  gone: {level: authenticated, approle: {}}
  banned: {level: authenticated, approle: {}}
"""
OTHER = """\
slug: other
display_name: Other
cell: cell-1
owners: [bert]
workloads:
  api: {level: owner, approle: {}}
"""
BRIEF = """\
slug: brief
display_name: Brief
cell: cell-1
owners: [olga]
limits: {lease_ttl: 12s, lease_max_ttl: 30s}
workloads:
  job: {level: authenticated, approle: {}}
"""


@pytest.fixture(scope="module")
def shop(new_plane: NewPlane) -> Plane:
    return new_plane({"shop.yaml": SHOP, "other.yaml": OTHER, "brief.yaml": BRIEF})


def binding(plane: Plane, project: str = "shop") -> TenantBinding:
    return LocalDataPlane(plane.local_env).binding(project)


def secret_id(plane: Plane, workload: str, project: str = "shop", wrap: str | None = None, **given: object) -> Any:
    """A secret-ID, or what stands for it, as an operator has it made."""
    path = f"auth/approle/role/{TenantNames(project).workload_role(workload)}/secret-id"
    response = plane.local_env.servers.openbao.client().write_data(path, data=given, wrap_ttl=wrap)
    return response["wrap_info"]["token"] if wrap else response["data"]["secret_id"]


def credentials(
    plane: Plane, folder: Path, workload: str, secret: str, project: str = "shop", *, wrapped: bool = False
) -> AppRoleCredentials:
    role = f"auth/approle/role/{TenantNames(project).workload_role(workload)}/role-id"
    (folder / "role-id").write_text(plane.local_env.servers.openbao.client().read(role)["data"]["role_id"])
    (folder / "secret-id").write_text(f"{secret}\n")
    return AppRoleCredentials(folder / "role-id", folder / "secret-id", wrapped)


def as_workload(plane: Plane, folder: Path, workload: str, project: str = "shop") -> hvac.Client:
    found = credentials(plane, folder, workload, secret_id(plane, workload, project), project)
    return WorkloadSignIn(binding(plane, project), found, workload)()


def works(lease: Lease) -> bool:
    with contextlib.suppress(psycopg.OperationalError), psycopg.connect(lease.connection_string, connect_timeout=30):
        return True
    return False


def edited(plane: Plane, before: str, after: str, project: str = "shop") -> None:
    path = plane.local_env.root / "stacks" / "local" / "projects" / f"{project}.yaml"
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after), encoding="utf-8")
    bring_up(plane.local_env)


# What it may


@pytest.mark.parametrize(("workload", "level"), [("api", AccessLevel.SERVICE_ROLE), ("ci", AccessLevel.OWNER)])
def test_a_workload_leases_its_level_and_no_other(
    shop: Plane, tmp_path: Path, workload: str, level: AccessLevel
) -> None:
    leases = LeaseClient(as_workload(shop, tmp_path, workload))
    with psycopg.connect(leases.issue(binding(shop), level).connection_string) as session:
        assert session.execute("select current_user").fetchone() == (f"proj_shop_{level}",)
    for other in set(AccessLevel) - {level}:
        with pytest.raises(LeaseError, match=f"you may not use shop as {other}"):
            leases.issue(binding(shop), other)


def test_a_workload_reaches_no_other_tenant_not_even_a_namesakes(shop: Plane, tmp_path: Path) -> None:
    leases = LeaseClient(as_workload(shop, tmp_path, "api"))
    for level in AccessLevel:
        with pytest.raises(LeaseError, match="you may not use other"):
            leases.issue(binding(shop, "other"), level)


def test_a_workload_does_nothing_else_in_openbao(shop: Plane, tmp_path: Path) -> None:
    client = as_workload(shop, tmp_path, "api")
    for path in (
        "connectors/data/supabase",
        "connectors/data/supabase/gateway",
        "connectors/metadata/supabase/tenants",
        "database/creds/proj_other_owner",
        "auth/approle/role/proj_shop-ci/role-id",
        "auth/approle/role/proj_shop-api",
        "identity/group/name/proj_shop_owner",
    ):
        assert client.adapter.request("get", f"/v1/{path}", raise_exception=False).status_code == 403, path
    for path in ("auth/approle/role/proj_shop-api/secret-id", "auth/approle/role/proj_shop-ci/secret-id"):
        with pytest.raises(Forbidden):
            client.write_data(path, data={})


def test_a_workload_renews_its_lease_and_gives_it_back(shop: Plane, tmp_path: Path) -> None:
    client = as_workload(shop, tmp_path, "api")
    leases = LeaseClient(client)
    mine = leases.issue(binding(shop), AccessLevel.SERVICE_ROLE)
    assert client.auth.token.renew_self()["auth"]["lease_duration"] > 11 * 3600
    assert leases.renew(mine.lease_id) == 3600
    owners = shop.lease("shop", AccessLevel.OWNER, "olga")
    for refused in (leases.renew, leases.revoke):
        with pytest.raises(LeaseError, match="may not re"):
            refused(owners.lease_id)
    leases.revoke(mine.lease_id)
    assert not works(mine)
    assert works(owners)


def test_another_networks_workload_does_not_sign_in_from_here(shop: Plane, tmp_path: Path) -> None:
    with pytest.raises(SignInError, match=r"proj_shop-far may not sign in: .*unauthorized"):
        as_workload(shop, tmp_path, "far")


# Secret-IDs


def test_a_used_up_secret_id_is_refused(shop: Plane, tmp_path: Path) -> None:
    signs_in = WorkloadSignIn(
        binding(shop), credentials(shop, tmp_path, "api", secret_id(shop, "api", num_uses=2)), "api"
    )
    assert signs_in().token != signs_in().token
    with pytest.raises(
        SignInError, match="invalid role or secret ID; a secret-ID that is used up or expired is replac"
    ):
        signs_in()


def test_wrong_secret_ids_lock_a_workload_out_for_a_while_so_its_role_id_is_not_to_be_guessed(
    shop: Plane, tmp_path: Path
) -> None:
    right = credentials(shop, tmp_path, "gone", secret_id(shop, "gone"))
    assert right.role_id_file is not None
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", right.role_id_file.read_text())
    assert WorkloadSignIn(binding(shop), right, "gone")().is_authenticated()
    wrong = credentials(shop, tmp_path, "gone", "wrong")
    for _ in range(5):
        with pytest.raises(SignInError, match="invalid role or secret ID"):
            WorkloadSignIn(binding(shop), wrong, "gone")()
    locked = credentials(shop, tmp_path, "gone", secret_id(shop, "gone"))
    with pytest.raises(SignInError, match="locked for some minutes after wrong secret-IDs"):
        WorkloadSignIn(binding(shop), locked, "gone")()
    root = shop.local_env.servers.openbao.client()
    accessor = root.read("sys/auth")["data"]["approle/"]["accessor"]
    root.write_data(f"sys/locked-users/{accessor}/unlock/{right.role_id_file.read_text()}", data={})
    assert WorkloadSignIn(binding(shop), locked, "gone")().is_authenticated()


def test_an_expired_secret_id_is_refused(shop: Plane, tmp_path: Path) -> None:
    signs_in = WorkloadSignIn(
        binding(shop), credentials(shop, tmp_path, "api", secret_id(shop, "api", ttl="8s")), "api"
    )
    assert signs_in().is_authenticated()
    time.sleep(9)
    with pytest.raises(SignInError, match="proj_shop-api may not sign in"):
        signs_in()


def test_no_secret_id_outlives_what_the_projects_file_says(shop: Plane) -> None:
    with pytest.raises(hvac.exceptions.InvalidRequest, match="ttl cannot be longer than the role"):
        secret_id(shop, "api", ttl="2h")


def test_a_secret_id_of_another_workload_is_refused(shop: Plane, tmp_path: Path) -> None:
    signs_in = WorkloadSignIn(binding(shop), credentials(shop, tmp_path, "ci", secret_id(shop, "api")), "ci")
    with pytest.raises(SignInError, match="proj_shop-ci may not sign in"):
        signs_in()


def test_a_wrapped_secret_id_is_unwrapped_once_and_signs_in_again_and_again(shop: Plane, tmp_path: Path) -> None:
    wrapped = credentials(shop, tmp_path, "api", secret_id(shop, "api", wrap="5m"), wrapped=True)
    signs_in = WorkloadSignIn(binding(shop), wrapped, "api")
    assert signs_in().token != signs_in().token
    with pytest.raises(
        SignInError, match=r"used up or expired\. If nobody of yours has unwrapped it, somebody else has"
    ):
        WorkloadSignIn(binding(shop), wrapped, "api")()


def test_a_wrapping_token_expires(shop: Plane, tmp_path: Path) -> None:
    wrapped = credentials(shop, tmp_path, "api", secret_id(shop, "api", wrap="2s"), wrapped=True)
    time.sleep(3)
    with pytest.raises(SignInError, match="used up or expired"):
        WorkloadSignIn(binding(shop), wrapped, "api")()


def test_a_wrapping_token_of_something_else_is_not_unwrapped(shop: Plane, tmp_path: Path) -> None:
    token = secret_id(shop, "api", "other", wrap="5m")
    wrapped = credentials(shop, tmp_path, "api", token, wrapped=True)
    with pytest.raises(SignInError, match="was made at auth/approle/role/proj_other-api/secret-id, not at"):
        WorkloadSignIn(binding(shop), wrapped, "api")()
    assert shop.local_env.servers.openbao.client(token).sys.unwrap()["data"]["secret_id"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (AppRoleCredentials(), "there is no role-ID: name its file with --role-id-file, or set DATA_PLANE_ROLE_ID"),
        (AppRoleCredentials(Path("/no/such/file")), "the role-ID cannot be read from /no/such/file: no such file"),
        (AppRoleCredentials(Path("/dev/null")), "the role-ID is missing: /dev/null is empty"),
    ],
)
def test_a_missing_credential_is_named(
    shop: Plane, given: AppRoleCredentials, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DATA_PLANE_ROLE_ID", raising=False)
    with pytest.raises(SignInError, match=message):
        WorkloadSignIn(binding(shop), given, "api")()


def test_an_unknown_workload_is_told_which_there_are(shop: Plane) -> None:
    there = "there are: api, banned, ci, far, gone"
    with pytest.raises(SignInError, match=f"shop has no workload 'web' that signs in by approle; {there}"):
        WorkloadSignIn(binding(shop), AppRoleCredentials(), "web")()
    with pytest.raises(SignInError, match=f"say which workload of shop signs in by approle with --workload; {there}"):
        WorkloadSignIn(binding(shop), AppRoleCredentials())()


# The end of it


def test_a_workload_that_is_taken_out_of_the_file_loses_its_token_and_its_leases(shop: Plane, tmp_path: Path) -> None:
    bound = binding(shop)
    signs_in = WorkloadSignIn(bound, credentials(shop, tmp_path, "gone", secret_id(shop, "gone")), "gone")
    leases = LeaseClient(signs_in())
    lease = leases.issue(bound, AccessLevel.AUTHENTICATED)
    assert works(lease)
    edited(shop, "  gone: {level: authenticated, approle: {}}\n", "")
    with pytest.raises(LeaseError, match="you may not use shop as authenticated"):
        leases.issue(bound, AccessLevel.AUTHENTICATED)
    assert wait_until(lambda: not works(lease), 60)
    assert "gone" not in binding(shop).workloads
    # The engine would have deleted its role; the runner removes nothing, and it may sign in to nothing.
    again = LeaseClient(signs_in())
    with pytest.raises(LeaseError, match="you may not use shop as authenticated"):
        again.issue(bound, AccessLevel.AUTHENTICATED)
    edited(shop, "  banned:", "  gone: {level: authenticated, approle: {}}\n  banned:")
    assert works(again.issue(binding(shop), AccessLevel.AUTHENTICATED))


def test_a_workload_whose_level_changes_has_the_new_one_alone(shop: Plane, tmp_path: Path) -> None:
    before = LeaseClient(as_workload(shop, tmp_path, "gone")).issue(binding(shop), AccessLevel.AUTHENTICATED)
    edited(shop, "gone: {level: authenticated", "gone: {level: anon")
    assert wait_until(lambda: not works(before), 60)
    leases = LeaseClient(as_workload(shop, tmp_path, "gone"))
    assert works(leases.issue(binding(shop), AccessLevel.ANON))
    with pytest.raises(LeaseError, match="you may not use shop as authenticated"):
        leases.issue(binding(shop), AccessLevel.AUTHENTICATED)
    edited(shop, "gone: {level: anon", "gone: {level: authenticated")


def test_a_disabled_identity_leases_nothing_and_no_run_enables_it(shop: Plane, tmp_path: Path) -> None:
    root = shop.local_env.servers.openbao.client()
    workload = as_workload(shop, tmp_path, "banned")
    person = shop.local_env.sign_in("vera")
    lease = LeaseClient(workload).issue(binding(shop), AccessLevel.AUTHENTICATED)
    identities = [client.auth.token.lookup_self()["data"]["entity_id"] for client in (workload, person)]
    for identity in identities:
        root.write_data(f"identity/entity/id/{identity}", data={"disabled": True})
    bring_up(shop.local_env)
    for client, level in ((workload, AccessLevel.AUTHENTICATED), (person, AccessLevel.ANON)):
        with pytest.raises(LeaseError, match=r"no lease for shop|you may not use shop"):
            LeaseClient(client).issue(binding(shop), level)
        with pytest.raises(LeaseError):
            LeaseClient(client).renew(lease.lease_id)
    with pytest.raises(SignInError):
        as_workload(shop, tmp_path, "banned")
    for identity in identities:
        root.write_data(f"identity/entity/id/{identity}", data={"disabled": False})
    assert LeaseClient(workload).issue(binding(shop), AccessLevel.AUTHENTICATED)


def test_detaching_ends_workloads_leases_and_their_access_at_once(shop: Plane, tmp_path: Path) -> None:
    leases = LeaseClient(as_workload(shop, tmp_path, "api", "other"))
    lease = leases.issue(binding(shop, "other"), AccessLevel.OWNER)
    session = psycopg.connect(lease.connection_string)
    attached = binding(shop, "other")
    edited(shop, "owners: [bert]\n", "owners: [bert]\nlifecycle: detached\n", "other")
    with pytest.raises(psycopg.errors.AdminShutdown):
        session.execute("select 1")
    assert not works(lease)
    assert shop.rows("select from pg_roles where rolname = %s", lease.username) == []
    # What it knew of the tenant before does not help.
    with pytest.raises(LeaseError, match="you may not use other as owner"):
        leases.issue(attached, AccessLevel.OWNER)
    with pytest.raises(ProjectDetachedError, match="project other is detached"):
        leases.issue(binding(shop, "other"), AccessLevel.OWNER)
    edited(shop, "lifecycle: detached\n", "", "other")
    assert works(leases.issue(binding(shop, "other"), AccessLevel.OWNER))


def test_a_lease_that_another_sign_in_renews_lasts_longer_and_ends_at_its_maximum(shop: Plane, tmp_path: Path) -> None:
    lease = LeaseClient(as_workload(shop, tmp_path, "job", "brief")).issue(
        binding(shop, "brief"), AccessLevel.AUTHENTICATED
    )
    began = time.monotonic()
    again = LeaseClient(as_workload(shop, tmp_path, "job", "brief"))
    time.sleep(max(0.0, began + 6 - time.monotonic()))
    assert again.renew(lease.lease_id) == 12
    time.sleep(max(0.0, began + 13 - time.monotonic()))
    assert works(lease)
    again.renew(lease.lease_id)
    assert wait_until(lambda: not works(lease), 60)
    # The token of before ends at about the same time.
    with pytest.raises(LeaseError, match="has ended: take another lease"):
        LeaseClient(as_workload(shop, tmp_path, "job", "brief")).renew(lease.lease_id)


def test_a_workloads_lease_ends_with_its_sessions_and_its_login_and_later_its_token(
    shop: Plane, tmp_path: Path
) -> None:
    client = as_workload(shop, tmp_path, "job", "brief")
    lease = LeaseClient(client).issue(binding(shop, "brief"), AccessLevel.AUTHENTICATED)
    session = psycopg.connect(lease.connection_string)
    assert wait_until(lambda: not works(lease), 60)
    with pytest.raises(psycopg.errors.AdminShutdown):
        session.execute("select 1")
    assert wait_until(lambda: not shop.rows("select from pg_roles where rolname = %s", lease.username), 60)

    def refused() -> bool:
        with contextlib.suppress(LeaseError):
            LeaseClient(client).issue(binding(shop, "brief"), AccessLevel.AUTHENTICATED)
            return False
        return True

    assert wait_until(refused, 60)


def test_a_second_run_changes_nothing(shop: Plane) -> None:
    assert [(run.created, run.updated) for run in bring_up(shop.local_env)] == [(0, 0), (0, 0)]


def test_a_kind_of_workload_that_the_environment_has_no_method_for_is_refused(
    new_local_env: NewLocalEnv,
) -> None:
    workload = "workloads:\n  api: {level: anon, kubernetes: {namespace: shop, service_account: api}}\n"
    local_env = new_local_env({"other.yaml": OTHER.partition("workloads")[0] + workload})
    with pytest.raises(ConfigurationError) as refused:
        bring_up(local_env)
    assert "other.yaml:6: workloads.api.kubernetes: found a sign-in that the environment does not" in str(refused.value)
    assert "it offers: approle" in str(refused.value)
    assert "expected workloadLogin.kubernetes in the central stack's settings" in str(refused.value)


# The publishable key


def test_api_levels_get_the_publishable_key_and_after_its_rotation_the_new_one(shop: Plane, tmp_path: Path) -> None:
    root = shop.local_env.servers.openbao.client()
    leases = LeaseClient(as_workload(shop, tmp_path, "api"))
    lease = leases.issue(binding(shop), AccessLevel.SERVICE_ROLE)
    assert lease.publishable_key is not None
    assert lease.publishable_key.startswith("sb_publishable_")
    variables = lease.variables()
    assert variables["SUPABASE_PUBLISHABLE_KEY"] == variables["SUPABASE_ANON_KEY"] == lease.publishable_key
    postgres = shop.local_env.servers.postgres

    def as_superuser(password: str) -> "psycopg.Connection[Any]":
        return psycopg.connect(host="127.0.0.1", port=postgres.known_port, user="supabase_admin", password=password)

    done = rotate(root, "SUPABASE_PUBLISHABLE_KEY", as_superuser)
    assert "tenants" in done.services
    renewed = leases.with_new_token(lease, binding(shop))
    assert renewed.publishable_key not in (None, lease.publishable_key)
    assert renewed.publishable_key == leases.issue(binding(shop), AccessLevel.SERVICE_ROLE).publishable_key
    owners = shop.lease("shop", AccessLevel.OWNER, "olga")
    assert owners.publishable_key is None
    assert "SUPABASE_PUBLISHABLE_KEY" not in owners.variables()


def test_the_secret_that_tenants_read_holds_public_keys_alone(shop: Plane) -> None:
    found = shop.local_env.servers.openbao.client().read("connectors/data/supabase/tenants")["data"]["data"]
    assert sorted(found) == ["ANON_KEY", "SUPABASE_PUBLISHABLE_KEY"]
    vera = shop.local_env.sign_in("vera")
    assert vera.read("connectors/data/supabase/tenants")["data"]["data"] == found


# The commands


@pytest.fixture
def dataplane(shop: Plane) -> "Callable[..., subprocess.CompletedProcess[str]]":
    """The command as a workload has it: without anybody's token."""
    home = str(shop.local_env.servers.home.path)
    inherited = {
        key: value for key, value in os.environ.items() if not key.startswith(("VAULT_", "BAO_", "DATA_PLANE"))
    }

    def command(*arguments: str, code: int = 0, **variables: str) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            [sys.executable, "-m", "data_plane", *arguments],
            cwd=CHECKOUT,
            env={**inherited, "DATA_PLANE_HOME": home, "COLUMNS": "300", **variables},
            capture_output=True,
            text=True,
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    return command


Command = Callable[..., "subprocess.CompletedProcess[str]"]


def handed_over(dataplane: Command, workload: str, *options: str, project: str = "shop") -> dict[str, str]:
    done = dataplane("workload", "secret-id", "-p", project, "--workload", workload, "-f", "json", *options)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def test_a_workload_goes_from_a_handed_over_token_to_a_lease_and_back(dataplane: Command, tmp_path: Path) -> None:
    given = handed_over(dataplane, "api")
    assert given.keys() == {"DATA_PLANE_ROLE_ID", "DATA_PLANE_SECRET_ID"}
    secret = dataplane(
        "run", "-p", "shop", "--auth", "approle", "--workload", "api", "--wrapped", "--", sys.executable, "-c",
        "import os, psycopg; print(psycopg.connect('').execute('select current_user').fetchone()[0],"
        " os.environ['DATA_PLANE_ACCESS_LEVEL'], *{*os.environ} & {'DATA_PLANE_ROLE_ID', 'DATA_PLANE_SECRET_ID'})",
        **given,
    )  # fmt: skip
    # What it signed in with is nothing for the command.
    assert secret.stdout.split() == ["proj_shop_service_role", "service_role"]
    again = dataplane("lease", "-p", "shop", "--auth", "approle", "--workload", "api", "--wrapped", code=1, **given)
    assert "somebody else has" in again.stderr


def test_a_workload_takes_renews_and_revokes_its_own_lease(shop: Plane, dataplane: Command, tmp_path: Path) -> None:
    found = credentials(shop, tmp_path, "api", secret_id(shop, "api"))
    files = ["--role-id-file", str(found.role_id_file), "--secret-id-file", str(found.secret_id_file)]
    me = ["--auth", "approle", "--workload", "api", *files]
    lease = json.loads(dataplane("lease", "-p", "shop", "-f", "json", *me).stdout)
    assert lease["level"] == "service_role"
    assert "lasts 5m from now" in dataplane("lease", "renew", lease["lease_id"], "--for", "5m", *me).stdout
    ci = credentials(shop, tmp_path, "ci", secret_id(shop, "ci"))
    assert ci.secret_id_file is not None
    other = ["--auth", "approle", "--workload", "ci", *files]
    assert "may not revoke" in dataplane("lease", "revoke", lease["lease_id"], *other, code=1).stderr
    assert "may not revoke" in dataplane("lease", "revoke", lease["lease_id"], "--user", "vera", code=1).stderr
    assert "as service_role" not in dataplane("lease", "-p", "shop", "-f", "json", *other).stderr
    credentials(shop, tmp_path, "api", secret_id(shop, "api"))
    assert "revoked" in dataplane("lease", "revoke", lease["lease_id"], *me).stdout
    assert "is no lease of a project here" in dataplane("lease", "revoke", "database/creds/x/y", *me, code=1).stderr


def test_a_workload_needs_a_binding_and_no_checkouts_stacks(shop: Plane, dataplane: Command, tmp_path: Path) -> None:
    (tmp_path / "binding.json").write_text(json.dumps(binding(shop).document()))
    found = credentials(shop, tmp_path, "ci", secret_id(shop, "ci"))
    assert found.role_id_file is not None
    variables = {
        "DATA_PLANE_BINDING": str(tmp_path / "binding.json"),
        "DATA_PLANE_ROLE_ID_FILE": str(found.role_id_file),
        "DATA_PLANE_SECRET_ID_FILE": str(found.secret_id_file),
        "DATA_PLANE_HOME": str(tmp_path / "nothing"),
    }
    done = dataplane("lease", "-p", "shop", "-f", "json", "--auth", "approle", "--workload", "ci", **variables)
    assert json.loads(done.stdout)["level"] == "owner"
    (tmp_path / "binding.json").write_text("[]")
    refused = dataplane("lease", "-p", "shop", "--auth", "approle", code=1, **variables)
    assert "holds no binding" in refused.stderr


def test_revoking_earlier_secret_ids_leaves_the_new_one_alone(shop: Plane, dataplane: Command, tmp_path: Path) -> None:
    signs_in = WorkloadSignIn(binding(shop), credentials(shop, tmp_path, "api", secret_id(shop, "api")), "api")
    assert signs_in().is_authenticated()
    given = handed_over(dataplane, "api", "--revoke-earlier")
    with pytest.raises(SignInError):
        signs_in()
    dataplane("lease", "-p", "shop", "--auth", "approle", "--workload", "api", "--wrapped", **given)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["lease", "-p", "shop"], 2, "say as what to lease with --as: owner, service_role, authenticated, anon"),
        (["lease", "-p", "shop", "--workload", "api"], 2, "say how the workload signs in"),
        (["lease", "-p", "shop", "--auth", "approle", "--user", "olga"], 2, "either a person asks"),
        (["lease", "-p", "shop", "--auth", "kubernetes", "--workload", "api"], 1, "shop has no workload that signs in by kubernetes"),
        (["lease", "-p", "shop", "--as", "owner", "--user", "olga", "--overlap", "5s"], 2, "--overlap is for --replace"),
        (["lease", "-p", "shop", "--as", "owner", "--user", "olga", "--via", "session"], 2, "there is no pooler here"),
        (["lease", "revoke", "-p", "shop", "--user", "olga"], 2, "takes an operator"),
        (["workload", "secret-id", "-p", "shop", "--workload", "web"], 1, "no workload 'web' with `approle`"),
        (["workload", "secret-id", "-p", "shop", "--workload", "api", "--ttl", "9h"], 1, "no secret-ID was made: ttl cannot"),
        (["workload", "secret-id", "-p", "shop", "--workload", "api", "--ttl", "soon"], 2, "--ttl and --wrap-ttl: expected"),
    ],
)  # fmt: skip
def test_what_contradicts_itself_is_said(dataplane: Command, arguments: list[str], code: int, message: str) -> None:
    assert message in dataplane(*arguments, code=code).stderr


# Replacing


def test_a_lease_is_replaced_while_the_old_one_still_works(shop: Plane, dataplane: Command) -> None:
    old = shop.lease("shop", AccessLevel.OWNER, "olga")
    home = str(shop.local_env.servers.home.path)
    process = subprocess.Popen(
        [sys.executable, "-m", "data_plane", "lease", "-p", "shop", "--as", "owner", "--user", "olga", "-f", "dotenv",
         "--replace", old.lease_id, "--overlap", "15s"],
        cwd=CHECKOUT, env={**os.environ, "DATA_PLANE_HOME": home}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    values = {}
    for line in process.stdout:
        key, _, value = line.rstrip().partition("=")
        values[key] = json.loads(value)
        if key == "DATA_PLANE_LEASE_EXPIRES_AT":
            break
    assert works(old), "the old one ended before the overlap"
    with psycopg.connect(values["DATABASE_URL"]) as session:
        assert session.execute("select current_user").fetchone() == ("proj_shop_owner",)
    assert process.wait(90) == 0
    assert not works(old)
    with psycopg.connect(values["DATABASE_URL"]):
        pass


def test_a_lease_is_not_replaced_by_one_of_another_level_or_project(shop: Plane, dataplane: Command) -> None:
    old = shop.lease("shop", AccessLevel.OWNER, "olga")
    for project, level in (("shop", "anon"), ("brief", "owner")):
        done = dataplane("lease", "-p", project, "--as", level, "--user", "olga", "--replace", old.lease_id, code=1)
        assert f"is not a lease of {project} as {level}" in done.stderr
        assert done.stdout == ""
    assert works(old)


def test_a_replacement_that_does_not_connect_is_given_back_and_the_old_one_goes_on(
    shop: Plane, dataplane: Command, tmp_path: Path
) -> None:
    old = shop.lease("shop", AccessLevel.OWNER, "olga")
    bound = binding(shop).document()
    bound["pooler"] = {"host": "127.0.0.1", "sessionPort": 1, "transactionPort": 2, "tenant": "t", "sslmode": "disable"}
    (tmp_path / "binding.json").write_text(json.dumps(bound))
    names, operator = TenantNames("shop"), LeaseClient(LocalDataPlane(shop.local_env).operator())
    before = set(operator.live(names, AccessLevel.OWNER))
    token = shop.local_env.sign_in("olga").token
    done = dataplane(
        "lease", "-p", "shop", "--as", "owner", "--replace", old.lease_id, "--binding", str(tmp_path / "binding.json"),
        code=1, VAULT_TOKEN=token,
    )  # fmt: skip
    assert "It was revoked, and" in done.stderr
    assert set(operator.live(names, AccessLevel.OWNER)) == before
    assert works(old)


# Kept supplied

LOOP = """\
import pathlib, sys, time
import psycopg
notes = pathlib.Path(sys.argv[1])
until = time.monotonic() + float(sys.argv[2])
while time.monotonic() < until:
    try:
        with psycopg.connect("", connect_timeout=30) as session:
            user = session.execute("select session_user").fetchone()[0]
    except psycopg.OperationalError:
        user = "-"
    with notes.open("a") as file:
        file.write(f"{user}\\n")
    time.sleep(0.2)
sys.exit(7)
"""


def running(shop: Plane, folder: Path, seconds: float) -> "subprocess.Popen[str]":
    found = credentials(shop, folder, "job", secret_id(shop, "job", "brief"), "brief")
    return subprocess.Popen(
        [sys.executable, "-m", "data_plane", "run", "-p", "brief", "--auth", "approle",
         "--role-id-file", str(found.role_id_file), "--secret-id-file", str(found.secret_id_file),
         "--", sys.executable, "-c", LOOP, str(folder / "notes"), str(seconds)],
        cwd=CHECKOUT,
        env={**os.environ, "DATA_PLANE_HOME": str(shop.local_env.servers.home.path)},
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip


def test_a_workload_is_kept_supplied_past_the_end_of_its_token(shop: Plane, tmp_path: Path) -> None:
    process = running(shop, tmp_path, 40)  # its token lasts 30 s at most
    _, error = process.communicate(timeout=180)
    assert process.returncode == 7, error
    users = (tmp_path / "notes").read_text().split()
    assert "-" not in users
    assert len(set(users)) > 1
    assert shop.rows("select from pg_roles where rolname = %s", users[-1]) == []
    # OpenBao ends those whose token has ended by itself.
    assert wait_until(lambda: not shop.rows("select from pg_roles where rolname = any(%s)", list(set(users))), 60)


def test_a_workload_goes_on_after_openbao_was_sealed_and_unsealed(shop: Plane, tmp_path: Path) -> None:
    openbao = shop.local_env.servers.openbao
    process = running(shop, tmp_path, 45)
    notes = tmp_path / "notes"
    assert wait_until(notes.exists, 60)
    openbao.client().sys.seal()
    try:
        time.sleep(14)  # more than the 12 s of the lease
        assert process.poll() is None
    finally:
        openbao.start()
    _, error = process.communicate(timeout=180)
    assert process.returncode == 7, error
    assert "no new lease yet, trying again" in error
    assert "sealed" in error
    assert "Traceback" not in error
    users = notes.read_text().split()
    first = users[0]
    assert users[-1] not in ("-", first), "it got no new lease"
    assert wait_until(lambda: not shop.rows("select from pg_roles where rolname = %s", first), 60)
