"""Manual changes: a preview reports them, a run reverts them or lists those that it leaves to the operator."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from data_plane.engine.steps import Step
from data_plane.local.environment import LocalEnvironment
from data_plane.local.guard import LocalGuard
from data_plane.model.naming import AccessLevel
from tests.conftest import ALPHA, BETA, NewPlane, Plane
from tests.state import differences, state

SQL = {
    # In PostgreSQL, statement by statement → the resource, or the words, by which the preview shows it.
    "drop event trigger data_plane_row_level_security": "event trigger data_plane_row_level_security is gone",
    "alter event trigger data_plane_tenant_grants disable": "event trigger data_plane_tenant_grants is not as it was",
    "create or replace function data_plane.revoke_lease(login text) returns void language sql as 'select'": (
        "function data_plane.revoke_lease(text) is not as it was applied"
    ),
    "grant execute on function data_plane.tenant_of(text) to public": "function data_plane.tenant_of(text) is not as",
    "drop function data_plane.pre_config()": "function data_plane.pre_config() is gone",
    "alter role proj_alpha_anon superuser createrole": "alpha-schema-anon (superuser, createRole)",
    "alter role proj_alpha_owner login": "alpha-schema-owner (login)",
    "alter role proj_alpha_service_role nobypassrls": "alpha-schema-service-role (bypassRowLevelSecurity)",
    "alter role proj_alpha_authenticated set statement_timeout to 0": "alpha-schema-authenticated (statementTimeout)",
    "grant service_role to proj_beta_two_authenticated": "beta-two-schema-authenticated (roles)",
    "revoke anon from proj_beta_two_anon": "beta-two-schema-anon (roles)",
    "alter role openbao_lease_issuer superuser": "supabase-leases-issuer (superuser)",
    "grant create on schema proj_alpha to proj_alpha_anon": "alpha-schema-usage-anon (privileges)",
    "revoke usage on schema proj_alpha from cell_cell_1_authenticator": "alpha-api-access ()",
    "revoke proj_beta_two_anon from supabase_storage_admin; grant proj_beta_two_anon to authenticator": "beta-two-api-access ()",
    "grant proj_beta_two_service_role to supabase_storage_admin": "beta-two-api-access ()",
    "alter default privileges for role proj_alpha_owner in schema proj_alpha revoke all on tables from proj_alpha_anon": (
        "alpha-schema-default-table-anon ()"
    ),
    "alter default privileges for role proj_alpha_owner in schema proj_alpha grant truncate on tables to proj_alpha_authenticated": (
        "alpha-schema-default-table-authenticated (privileges)"
    ),
    "alter schema proj_beta_two owner to supabase_admin": "beta-two-schema (owner)",
    "create role passer_by; grant usage on schema proj_alpha to passer_by": "USAGE on schema proj_alpha is granted to passer_by",
    "grant proj_alpha_owner to passer_by": "passer_by is a member of proj_alpha_owner",
    "alter table proj_alpha.notes owner to supabase_admin": "proj_alpha.notes belongs to supabase_admin",
    "alter function proj_alpha.helper() owner to supabase_admin": "function proj_alpha.helper() belongs to supabase_admin",
    "delete from data_plane.sign_in": "alpha-sign-in ()",
    "alter role authenticator set statement_timeout to 0": (
        "role authenticator has the setting statement_timeout=0, which is not declared"
    ),
    "alter role proj_alpha_anon set row_security to off": (
        "role proj_alpha_anon has the setting row_security=off, which is not declared"
    ),
    "alter role proj_alpha_owner in database postgres set search_path to pg_temp": (
        "role proj_alpha_owner has the setting search_path=pg_temp in database postgres, which is not declared"
    ),
    "alter role proj_beta_two_service_role reset all": (
        "role proj_beta_two_service_role lacks the setting idle_in_transaction_session_timeout=60000, which is declared"
    ),
    "alter role proj_beta_two_anon password 'x'": "role proj_beta_two_anon has a password, which is not declared",
    "create role lease_forgotten login valid until '2001-01-01' in role proj_alpha_owner": (
        "login lease_forgotten outlived its lease"
    ),
}
OPENBAO: dict[str, tuple[Callable[[LocalEnvironment], object], str]] = {
    "a policy edited": (
        lambda w: w.servers.openbao.client().write_data(
            "sys/policies/acl/proj_alpha_anon", data={"policy": 'path "*" { capabilities = ["read"] }'}
        ),
        "alpha-access-policy-anon (policy)",
    ),
    "a group emptied": (
        lambda w: w.servers.openbao.client().write_data(
            "identity/group/name/proj_alpha_owner", data={"member_entity_ids": []}
        ),
        "alpha-access-group-owner (memberEntityIds)",
    ),
    "a stranger put into a group": (
        lambda w: w.servers.openbao.client().write_data(
            "identity/group/name/proj_beta_two_owner",
            data={"member_entity_ids": [w.servers.openbao.client().read("identity/entity/name/vera")["data"]["id"]]},
        ),
        "beta-two-access-group-owner (memberEntityIds)",
    ),
    "a person deleted": (
        lambda w: w.servers.openbao.client().delete("identity/entity/name/cora"),
        "cell-1-people-person-cora ()",
    ),
    "a lease role deleted": (
        lambda w: w.servers.openbao.client().delete("database/roles/proj_beta_two_owner"),
        "beta-two-leases-lease-owner ()",
    ),
    "a lease role made longer": (
        lambda w: w.servers.openbao.client().write_data(
            "database/roles/proj_alpha_owner",
            data={
                **w.servers.openbao.client().read("database/roles/proj_alpha_owner")["data"],
                "default_ttl": 7200,
                "max_ttl": 7200,
            },
        ),
        "alpha-leases-lease-owner (defaultTtl, maxTtl)",
    ),
    "a token's claims edited": (
        lambda w: w.servers.openbao.client().write_data(
            "identity/oidc/role/proj_alpha_anon",
            data={"key": "supabase", "client_id": "proj_alpha", "template": '{"role":"service_role"}', "ttl": 900},
        ),
        "alpha-leases-token-anon (template)",
    ),
}

OPEN_TABLE = (
    "table proj_alpha.notes has row-level security off: every role that may use the schema sees all of its rows. "
    "If that is not meant: alter table proj_alpha.notes enable row level security"
)


@dataclass
class Drift:
    """What was seen of it."""

    plane: Plane
    before: dict[str, list[str]]
    preview: list[str] = field(default_factory=list)
    """Steps of the preview, and its remarks."""
    run: list[str] = field(default_factory=list)


def seen(local_env: LocalEnvironment, *, preview: bool) -> list[str]:
    found: list[str] = []

    def on_step(step: Step) -> None:
        if step.custom and step.change != "same":
            found.append(f"{step.name} ({', '.join(step.changed)})")

    for run in local_env.run(preview=preview, on_stack=lambda _stack: None, on_step=on_step):
        found += run.remarks
    return found


@pytest.fixture(scope="module")
def drift(new_plane: NewPlane) -> Drift:
    """All of it at once, then a preview, then a run."""
    plane = new_plane({"alpha.yaml": ALPHA, "beta-two.yaml": BETA})
    local_env = plane.local_env
    with plane.admin() as admin:
        admin.execute("set local role proj_alpha_owner")
        admin.execute("create table proj_alpha.notes (a int)")
        admin.execute("create function proj_alpha.helper() returns int language sql as 'select 1'")
    found = Drift(plane, state(local_env))
    # The guard would put roles right before a preview shows them.
    local_env.servers.guard.stop()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalGuard, "start", lambda _self: None)
        for statement in SQL:
            with plane.admin() as admin:
                admin.execute(statement.encode())
        for change, _ in OPENBAO.values():
            change(local_env)
        damaged = state(local_env)
        found.preview = seen(local_env, preview=True)
        assert not differences(damaged, state(local_env)), "a preview changes nothing"
        found.run = seen(local_env, preview=False)
    return found


@pytest.mark.parametrize("change", [*(statement for statement, shown in SQL.items() if shown), *OPENBAO])
def test_a_preview_shows_it(drift: Drift, change: str) -> None:
    shown = SQL.get(change) or OPENBAO[change][1]
    assert any(shown in line for line in drift.preview), "\n".join(drift.preview)


def test_a_run_puts_all_of_it_right(drift: Drift) -> None:
    with drift.plane.admin() as admin:
        admin.execute("drop role passer_by")
    assert not differences(drift.before, state(drift.plane.local_env))
    assert seen(drift.plane.local_env, preview=False) == []
    for project in ("alpha", "beta-two"):
        assert drift.plane.lease(project, AccessLevel.OWNER).schema.startswith("proj_")


def test_a_table_without_row_level_security_is_named_and_left_to_the_project(drift: Drift) -> None:
    with drift.plane.admin() as admin:
        admin.execute("alter table proj_alpha.notes disable row level security")
    try:
        for preview in (True, False, False):
            assert seen(drift.plane.local_env, preview=preview) == [OPEN_TABLE]
    finally:
        with drift.plane.admin() as admin:
            admin.execute("alter table proj_alpha.notes enable row level security")


def test_what_is_not_the_platforms_is_named_until_somebody_takes_it_away(drift: Drift) -> None:
    with drift.plane.admin() as admin:
        admin.execute("create function data_plane.guest() returns int language sql as 'select 1'")
    named = "in PostgreSQL, function data_plane.guest() is not the platform's"
    try:
        for _ in range(2):
            assert named in seen(drift.plane.local_env, preview=False)
    finally:
        with drift.plane.admin() as admin:
            admin.execute("drop function data_plane.guest()")
    assert seen(drift.plane.local_env, preview=False) == []


def test_a_schema_in_a_superusers_hands_holds_up_nobody_else(drift: Drift) -> None:
    """The refusal of foreign grantees is for tenants; it once refused every GRANT that would have repaired this."""
    with drift.plane.admin() as admin:
        admin.execute("alter schema proj_alpha owner to supabase_admin")
        admin.execute("grant usage on schema public to anon")
    assert "alpha-schema (owner)" in seen(drift.plane.local_env, preview=False)
