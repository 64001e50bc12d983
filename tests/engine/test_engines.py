"""The same promises of both engines, the local runner and the Pulumi CLI."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pulumi
import pytest
from psycopg import sql

from data_plane.connector.bindings import LocalDataPlane
from data_plane.connector.leases import LeaseClient
from data_plane.engine.engines import LocalRunner, PulumiEngine
from data_plane.engine.report import StackReport, report_document, report_lines
from data_plane.engine.steps import Change, Step
from data_plane.errors import DataPlaneError
from data_plane.local.environment import LocalEnvironment
from data_plane.local.processes import wait_until
from data_plane.model.naming import AccessLevel
from data_plane.state_dir import CHECKOUT
from tests.conftest import ALPHA, BETA, NewLocalEnv, NewPlane, Plane, bring_up
from tests.state import differences, state
from tests.support.data_planes import brought_up

BOTH = ["local", pytest.param("pulumi", marks=pytest.mark.real_engine)]


PROJECTS = {"alpha.yaml": ALPHA, "beta-two.yaml": BETA}


@pytest.fixture(scope="module", params=BOTH)
def cli_or_none(request: pytest.FixtureRequest) -> Path | None:
    """The Pulumi CLI as the engine, or none: the local runner is."""
    return request.getfixturevalue("cli") if request.param == "pulumi" else None


@pytest.fixture(scope="module")
def fresh(cli_or_none: Path | None, new_local_env: NewLocalEnv) -> LocalEnvironment:
    """Nothing is up in it, and tests leave it so."""
    return new_local_env(PROJECTS, cli=cli_or_none)


@pytest.fixture
def local_env(cli_or_none: Path | None, fresh_plane: NewPlane) -> LocalEnvironment:
    """Its central stack is up, and two projects are new."""
    made = fresh_plane({}, cli=cli_or_none).local_env
    for name, text in PROJECTS.items():
        (made.root / "stacks" / "local" / "projects" / name).write_text(text, encoding="utf-8")
    return made


@pytest.fixture(scope="module")
def shared(cli_or_none: Path | None, new_plane: NewPlane) -> LocalEnvironment:
    """One that several tests bring up, one after the other."""
    return new_plane(PROJECTS, cli=cli_or_none).local_env


@contextmanager
def files_kept(local_env: LocalEnvironment) -> Iterator[None]:
    """Puts the files back that a test edits."""
    files = [path for path in local_env.root.rglob("*.y*ml") if path.is_file() and not path.is_symlink()]
    before = {path: path.read_bytes() for path in files if "components" not in path.parts and ".venv" not in path.parts}
    yield
    for path, content in before.items():
        path.write_bytes(content)


@pytest.fixture
def running(shared: LocalEnvironment) -> Iterator[LocalEnvironment]:
    """It is up, and its files are put back afterwards."""
    with files_kept(shared):
        bring_up(shared)
        yield shared


def edit(local_env: LocalEnvironment, slug: str, before: str, after: str) -> None:
    path = local_env.root / "stacks" / "local" / "projects" / f"{slug}.yaml"
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after), encoding="utf-8")


# Those that come first give their ports back, with which the data planes of the others are up already.


@pytest.mark.real_engine
def test_what_the_runner_applies_is_what_the_cli_would_have(cli: Path, tmp_path: Path) -> None:
    """Each engine on separate servers; then every difference between the two outcomes is a difference of the engines."""
    outcomes = []
    for engine in (None, cli):
        with brought_up(tmp_path / "plane", PROJECTS, cli=engine) as local_env:
            outcomes.append(state(local_env))
    assert not differences(*outcomes)


@pytest.mark.real_engine
def test_the_cli_finds_no_drift_and_no_secret_in_its_state(cli: Path, fresh_local_env: NewLocalEnv) -> None:
    # No copy: the central stack's state names the folder that its manifests were rendered into.
    local_env = fresh_local_env(PROJECTS, cli=cli)
    bring_up(local_env)
    assert isinstance(local_env.engine, PulumiEngine)
    for stack in local_env.stacks():
        with local_env.operator():
            found = local_env.engine.refresh(stack, local_env.config(stack), on_step=lambda _step: None)
        assert (found.updated, found.deleted) == (0, 0)
        assert found.same > 50
    openbao = local_env.servers.openbao.client()
    values = openbao.read("connectors/data/supabase")["data"]["data"].values()
    secrets = [value for value in values if len(value) >= 16]  # shorter ones are names
    assert len(secrets) > 5
    secrets.append(openbao.read("connectors/data/supabase-lease-issuer")["data"]["data"]["PASSWORD"])
    kept = [path for path in local_env.servers.home.path.glob("pulumi*/**/*") if path.is_file()]
    assert [path for path in kept if path.name.endswith(".json")]
    for path in kept:
        assert not [secret for secret in secrets if secret in path.read_text(encoding="utf-8", errors="replace")], path
    for path in (local_env.root / "stacks").glob("Pulumi.*.yaml"):
        assert "encryptionsalt" not in path.read_text(encoding="utf-8")


def test_an_interrupted_run_finishes_what_it_began_and_goes_on_later(fresh_local_env: NewLocalEnv) -> None:
    local_env = fresh_local_env(PROJECTS)
    interrupted: list[Step] = []

    def press_ctrl_c(step: Step) -> None:
        if step.type == "postgresql:index/schema:Schema" and not interrupted:
            interrupted.append(step)
            os.kill(os.getpid(), signal.SIGINT)

    # A process that was started in the background may ignore SIGINT.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(DataPlaneError, match="interrupted: what had begun was finished"):
            list(local_env.run(preview=False, on_stack=lambda _stack: None, on_step=press_ctrl_c))
    finally:
        signal.signal(signal.SIGINT, before)
    assert interrupted
    policies = local_env.servers.openbao.client().list("sys/policies/acl")["data"]["keys"]
    assert not [name for name in policies if name.startswith("proj_")], "the run went on after it was interrupted"
    bring_up(local_env)
    assert [(run.created, run.updated) for run in bring_up(local_env)] == [(0, 0), (0, 0)]


def test_a_policy_pack_that_does_not_start_stops_the_run_with_its_own_words(fresh_local_env: NewLocalEnv) -> None:
    local_env = fresh_local_env({"alpha.yaml": ALPHA})
    pack = local_env.root / "policies"
    pack.mkdir()
    (pack / "PulumiPolicy.yaml").write_text("runtime: python\n", encoding="utf-8")
    (pack / "__main__.py").write_text("raise ValueError('out of ink')\n", encoding="utf-8")
    with pytest.raises(DataPlaneError, match=r"(?s)the policy pack in .* does not start:.*out of ink"):
        bring_up(local_env)


def test_a_preview_says_what_comes_and_changes_nothing(fresh: LocalEnvironment) -> None:
    runs = fresh.run(preview=True, on_stack=lambda _stack: None, on_step=lambda _step: None)
    central = next(runs)
    assert central.created is None or central.created > 5
    with fresh.servers.postgres.connect() as admin:
        row = admin.execute("select count(*) from pg_roles where rolname ~ '^(anon|proj_|openbao)'").fetchone()
    assert row == (0,)
    assert "connectors/" not in fresh.servers.openbao.client().read("sys/mounts")["data"]


def test_wrong_input_is_reported_whole_and_nothing_is_applied(
    fresh: LocalEnvironment, capfd: pytest.CaptureFixture[str]
) -> None:
    with files_kept(fresh):
        edit(fresh, "alpha", "cell: cell-1", "cell: cell-9")
        edit(fresh, "beta-two", "slug: beta-two", "slug: BETA")
        with pytest.raises((pulumi.RunError, DataPlaneError)) as caught:
            bring_up(fresh)
    text = str(caught.value) + "".join(capfd.readouterr())
    assert "beta-two.yaml:1: slug: found 'BETA'" in text
    assert "alpha.yaml:3: cell: found 'cell-9'" in text
    assert "Traceback" not in text
    with fresh.servers.postgres.connect() as admin:
        row = admin.execute("select count(*) from pg_roles where rolname ~ '^(anon|proj_)'").fetchone()
    assert row == (0,)


def test_a_server_that_is_down_stops_a_run_which_goes_on_when_it_is_back(
    local_env: LocalEnvironment, capfd: pytest.CaptureFixture[str]
) -> None:
    local_env.servers.postgres.stop()
    with pytest.raises(DataPlaneError) as caught:
        bring_up(local_env)
    text = str(caught.value) + "".join(capfd.readouterr())
    assert "PostgreSQL" in text
    assert "refused" in text
    local_env.servers.start()
    bring_up(local_env)
    assert Plane(local_env).lease("alpha", AccessLevel.OWNER).ttl_seconds == 600


PACK = """\
from pulumi_policy import EnforcementLevel, PolicyPack, ResourceValidationPolicy, StackValidationPolicy

def no_bert(args, report):
    if args.resource_type == "postgresql:index/schema:Schema" and "beta" in args.props["name"]:
        report("schemas of beta are not wanted")

def counts(args, report):
    roles = [r for r in args.resources if r.resource_type == "postgresql:index/role:Role" and r.parent]
    report(f"the stack has {len(roles)} roles")

PolicyPack("house-rules", [
    ResourceValidationPolicy("no-beta", "No schema of beta.", no_bert, enforcement_level=EnforcementLevel.MANDATORY),
    StackValidationPolicy("count-roles", "Counts roles.", counts, enforcement_level=EnforcementLevel.ADVISORY),
])
"""


def test_a_mandatory_policy_stops_a_run_before_anything_is_applied(
    local_env: LocalEnvironment, capfd: pytest.CaptureFixture[str]
) -> None:
    pack = local_env.root / "policies"
    pack.mkdir()
    runtime = "runtime:\n  name: python\n  options:\n    virtualenv: ../.venv\n"
    (pack / "PulumiPolicy.yaml").write_text(f"description: House rules.\nversion: 0.0.1\n{runtime}", encoding="utf-8")
    (pack / "__main__.py").write_text(PACK, encoding="utf-8")
    with pytest.raises(DataPlaneError) as caught:
        bring_up(local_env)
    text = str(caught.value) + "".join(capfd.readouterr())
    assert "schemas of beta are not wanted" in text
    with local_env.servers.postgres.connect() as admin:
        row = admin.execute("select count(*) from pg_namespace where nspname like 'proj\\_%'").fetchone()
    assert row == (0,)
    edit(local_env, "beta-two", "slug: beta-two", "slug: gamma")
    old = local_env.root / "stacks" / "local" / "projects" / "beta-two.yaml"
    old.rename(old.with_name("gamma.yaml"))
    runs = bring_up(local_env)
    text = "".join(capfd.readouterr()) + str([run.remarks for run in runs])
    assert "the stack has 8 roles" in text


def test_the_whole_program_passes_its_own_pack(local_env: LocalEnvironment, capfd: pytest.CaptureFixture[str]) -> None:
    (local_env.root / "policies").symlink_to(CHECKOUT / "policies")
    runs = bring_up(local_env)
    text = "".join(capfd.readouterr()) + str([run.remarks for run in runs])
    assert "[advisory]" not in text
    assert "[mandatory]" not in text
    assert [(run.created, run.updated) for run in bring_up(local_env)] == [(0, 0), (0, 0)]


_OWN_DATABASE = """
import pulumi_postgresql as postgresql

postgresql.Database("own", name="own", owner="proj_alpha_owner")
postgresql.Role("helper", name="helper", create_database=True)
"""


def test_a_database_of_a_projects_own_is_refused_before_anything_is_applied(
    local_env: LocalEnvironment, capfd: pytest.CaptureFixture[str]
) -> None:
    (local_env.root / "policies").symlink_to(CHECKOUT / "policies")
    program = local_env.root / "__main__.py"
    program.write_text(program.read_text(encoding="utf-8") + _OWN_DATABASE, encoding="utf-8")
    with pytest.raises(DataPlaneError) as caught:
        bring_up(local_env)
    text = str(caught.value) + "".join(capfd.readouterr())
    assert "no-postgres-database-or-admin-role" in text
    assert "stacks/<environment>/projects/" in text, "it does not say what to do instead"
    with local_env.servers.postgres.connect() as admin:
        assert admin.execute("select from pg_database where datname = 'own'").rowcount == 0
        assert admin.execute("select from pg_roles where rolname = 'helper'").rowcount == 0


def test_a_second_up_changes_nothing(running: LocalEnvironment) -> None:
    before = state(running)
    second = bring_up(running)
    assert [(run.created, run.updated) for run in second] == [(0, 0), (0, 0)]
    assert not differences(before, state(running))
    if isinstance(running.engine, LocalRunner):
        assert [(run.created, run.updated) for run in bring_up(running, preview=True)] == [(0, 0), (0, 0)]


def test_leases_work_after_an_up_and_end_with_a_detachment(running: LocalEnvironment) -> None:
    data_plane = LocalDataPlane(running)
    client = data_plane.client("alpha", AccessLevel.OWNER, None)
    lease = LeaseClient(client).issue(data_plane.binding("alpha"), AccessLevel.OWNER)
    session = psycopg.connect(lease.connection_string, autocommit=True)
    session.execute("create table kept (a int)")
    edit(running, "alpha", "limits:", "lifecycle: detached\nlimits:")
    changes = bring_up(running)
    assert (changes[0].created, changes[0].updated, changes[1].created) == (0, 0, 0)
    with pytest.raises(psycopg.OperationalError):
        session.execute("select 1")
    plane = Plane(running)
    leases = "select rolname from pg_roles where rolname like 'lease\\_%%'"
    assert plane.rows(f"{leases} and rolcanlogin") == []
    assert wait_until(lambda: plane.rows(leases) == [], 60), "the guard drops what a lock has kept"
    assert plane.rows("select to_regclass('proj_alpha.kept') is not null") == [(True,)]
    granted = plane.rows("select count(*) from pg_namespace n, aclexplode(nspacl) where nspname = 'proj_alpha'")
    assert granted == [(2,)], "the owner's own USAGE and CREATE"
    refused = client.adapter.request("get", "/v1/database/creds/proj_alpha_owner", raise_exception=False)
    assert refused.status_code == 403

    edit(running, "alpha", "lifecycle: detached\n", "")
    bring_up(running)
    again = LeaseClient(client).issue(data_plane.binding("alpha"), AccessLevel.OWNER)
    with psycopg.connect(again.connection_string) as reopened:
        assert reopened.execute("select count(*) from kept").fetchone() == (0,)


def test_changed_limits_people_and_api_servers_are_applied_in_place(running: LocalEnvironment) -> None:
    """The password of an API server's login is a new key of a secret that is there already."""
    edit(running, "alpha", "statement_timeout: 20s", "statement_timeout: 5s")
    edit(running, "alpha", "connection_limit: 3", "connection_limit: 9")
    edit(running, "alpha", "lease_ttl: 10m", "lease_ttl: 20m")
    edit(running, "alpha", "project_viewer: [vera]", "project_viewer: [vera, newcomer]")
    edit(running, "alpha", "limits:", "api: dedicated\nlimits:")
    edit(running, "beta-two", "exposed: false", "exposed: true")
    bring_up(running, preview=True)
    bring_up(running)
    plane = Plane(running)
    levels = [f"proj_alpha_{level}" for level in AccessLevel]
    assert plane.rows("select distinct rolconnlimit from pg_roles where rolname = any(%s)", levels) == [(9,)]
    lease = plane.lease("alpha", AccessLevel.ANON, "newcomer")
    assert lease.ttl_seconds == 1200
    with psycopg.connect(lease.connection_string) as session:
        assert session.execute("show statement_timeout").fetchone() == ("5s",)
    assert plane.rows("select rolpassword is not null from pg_authid where rolname = 'proj_alpha_authenticator'") == [
        (True,)
    ]
    for login, schema in {
        "cell_cell_1_authenticator": "proj_beta_two",
        "proj_alpha_authenticator": "proj_alpha",
    }.items():
        with plane.admin() as admin:
            admin.execute(sql.SQL("set session authorization {}").format(sql.Identifier(login)))
            admin.execute("select data_plane.pre_config()")
            row = admin.execute("select current_setting('pgrst.db_schemas')").fetchone()
        assert row == (f"public,storage,data_plane_api,{schema}",)


def previewed(local_env: LocalEnvironment) -> dict[str, list[str]]:
    """What a preview says of each project."""
    steps: dict[str, Step] = {}
    run = local_env.run_stack(
        "local-cell-1", preview=True, on_step=lambda step: steps.update({step.urn: step}), refresh=True
    )
    # Every group is there.
    assert not [step.name for step in steps.values() if step.type.endswith(":Group") and step.change is Change.CREATE]
    report = StackReport(run, steps)
    shown = "\n".join(report_lines([report], preview=True, full=True))
    password = local_env.servers.postgres.admin_password
    assert password not in shown
    assert password not in json.dumps(report_document([report], preview=True))
    return {found.project: [sentence.text for sentence in found.sentences] for found in report.projects}


def test_a_preview_says_by_name_who_gains_and_who_loses_what(running: LocalEnvironment) -> None:
    assert previewed(running) == {}
    edit(running, "alpha", "owners: [olga]", "owners: [newcomer]")
    edit(running, "alpha", "lease_ttl: 10m", "lease_ttl: 20m")
    edit(running, "beta-two", "exposed: false", "exposed: true")
    assert previewed(running) == {
        "alpha": [
            "newcomer gains owner, service_role, authenticated, anon as project_owner",
            "olga loses all access (owner, service_role, authenticated, anon)",
            "lease_ttl: 10m → 20m",
        ],
        "beta-two": ["exposed: false → true (the API serves the project's schema)"],
    }


def change_jobs(local_env: LocalEnvironment, jobs: int) -> None:
    with local_env.servers.postgres.connect() as admin:
        admin.execute("update data_plane.limits set jobs = %s where tenant = 'proj_alpha'", [jobs])


def test_a_preview_says_what_was_changed_by_hand(running: LocalEnvironment) -> None:
    client = running.servers.openbao.client()
    path = "identity/group/name/proj_alpha_owner"
    found = client.read(path)["data"]
    group = {name: found[name] for name in ("policies", "metadata", "member_entity_ids")}
    stranger = client.write("identity/entity", name="stranger")["data"]["id"]
    ((jobs,),) = Plane(running).rows("select jobs from data_plane.limits where tenant = 'proj_alpha'")
    try:
        client.write_data(path, data={**group, "member_entity_ids": [stranger]})
        assert previewed(running) == {
            "alpha": [
                "mike gains owner, which the file gives and OpenBao does not have",
                "olga gains owner, which the file gives and OpenBao does not have",
                f"entity {stranger} loses owner, which OpenBao has and the file does not give",
            ]
        }
        change_jobs(running, 99)
        assert previewed(running)["alpha"][3:] == ["TenantLimits alpha-limits: jobs is not as it was last applied"]
    finally:
        change_jobs(running, jobs)
        client.write_data(path, data=group)  # the next run reads only what it changes


def test_a_removed_file_takes_nothing_away_and_is_not_passed_over_in_silence(running: LocalEnvironment) -> None:
    lease = Plane(running).lease("beta-two", AccessLevel.OWNER)
    before = state(running)
    path = running.root / "stacks" / "local" / "projects" / "beta-two.yaml"
    text = path.read_text(encoding="utf-8")
    path.unlink()
    if isinstance(running.engine, LocalRunner):
        gone, left = bring_up(running)[1].remarks
        names = (
            "beta-two-api-access",
            "beta-two-jobs",
            "beta-two-schemas",
            "beta-two-users",
            "beta-two-limits",
            "beta-two-revocation",
            "cell-1-people-person-alias-bert",
            "cell-1-people-person-bert",
        )
        message, _, named = gone.partition(": ")
        assert message == "no longer declared, and this runner removes nothing"
        assert set(names) <= set(named.split(", "))
        assert not [name for name in named.split(", ") if "alpha" in name]
        assert left.startswith("proj_beta_two is in no project's file: its data is kept")
    else:
        with pytest.raises(DataPlaneError, match="protected"):
            bring_up(running)
    with psycopg.connect(lease.connection_string) as session:
        assert session.execute("select current_user").fetchone() == ("proj_beta_two_owner",)
    assert not differences(before, state(running))
    path.write_text(text, encoding="utf-8")
    assert [(run.created, run.updated) for run in bring_up(running)] == [(0, 0), (0, 0)]


def test_a_rotated_issuer_password_is_kept_by_later_runs(running: LocalEnvironment) -> None:
    client = running.servers.openbao.client()
    client.write_data("database/rotate-root/supabase", data={})
    plane = Plane(running)
    assert plane.lease("alpha", AccessLevel.OWNER).ttl_seconds == 600
    assert [(run.created, run.updated) for run in bring_up(running)] == [(0, 0), (0, 0)]
    edit(running, "alpha", "lease_ttl: 10m", "lease_ttl: 11m")
    bring_up(running)
    assert plane.lease("alpha", AccessLevel.OWNER).ttl_seconds == 660
    known = client.read("connectors/data/supabase-lease-issuer")["data"]["data"]["PASSWORD"]
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(
            host="127.0.0.1",
            port=running.servers.postgres.port,
            user="openbao_lease_issuer",
            password=known,
            dbname="postgres",
        )


def test_a_sealed_openbao_stops_a_run_which_goes_on_when_it_is_back(
    running: LocalEnvironment, capfd: pytest.CaptureFixture[str]
) -> None:
    running.servers.openbao.client().sys.seal()
    with pytest.raises(DataPlaneError) as caught:
        bring_up(running)
    assert "sealed" in (str(caught.value) + "".join(capfd.readouterr())).lower()
    running.servers.start()
    assert [(run.created, run.updated) for run in bring_up(running)] == [(0, 0), (0, 0)]


def test_the_operators_token_is_not_left_in_the_environment(plane: Plane) -> None:
    bring_up(plane.local_env)
    assert os.environ.get("VAULT_TOKEN") != plane.local_env.servers.openbao.root_token
