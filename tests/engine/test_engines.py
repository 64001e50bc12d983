"""The same promises of both engines: the embedded runner, and the Pulumi CLI wherever it and its plugins are."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import psycopg
import pulumi
import pytest
from ruamel.yaml import YAML

from components.naming import AccessLevel
from connector.bindings import LocalDataPlane
from connector.leases import LeaseClient
from embedded.engines import EmbeddedEngine, Engine, PulumiEngine
from embedded.errors import EmbeddedError
from embedded.home import CHECKOUT
from embedded.runner.monitor import Step
from embedded.workplace import Workplace
from tests.conftest import ALPHA, BETA, Plane, bring_up
from tests.state import differences, state

MakeWorkplace = Callable[[dict[str, str]], Workplace]


def missing_for_the_cli() -> str:
    """Why the real engine cannot be tested here; empty if it can."""
    command = shutil.which("pulumi")
    if command is None:
        return "no `pulumi` on PATH"
    missing = [name for name in ("postgresql", "vault") if not has_plugin(command, name)]
    return f"the CLI lacks its plugins {', '.join(missing)}, and they cannot be installed" if missing else ""


def has_plugin(command: str, name: str) -> bool:
    """Whether the CLI has a provider's plugin, or can get it."""
    if shutil.which(f"pulumi-resource-{name}"):
        return True
    done = subprocess.run([command, "plugin", "ls", "--json"], capture_output=True, text=True)
    if done.returncode == 0 and name in {plugin["name"] for plugin in json.loads(done.stdout or "[]")}:
        return True
    wanted = [command, "plugin", "install", "resource", name, version(f"pulumi-{name}")]
    try:
        return subprocess.run(wanted, capture_output=True, timeout=120).returncode == 0
    except subprocess.TimeoutExpired:
        return False


REAL = pytest.mark.skipif(bool(missing_for_the_cli()), reason=missing_for_the_cli() or "-")


@pytest.fixture(params=["embedded", pytest.param("pulumi", marks=[REAL, pytest.mark.real_engine])])
def workplace(request: pytest.FixtureRequest, new_workplace: MakeWorkplace) -> Workplace:
    made = new_workplace({"alpha.yaml": ALPHA, "beta-two.yaml": BETA})
    return Workplace(made.servers, engine_of(request.param, made), made.root)


def engine_of(name: str, workplace: Workplace) -> Engine:
    if name == "embedded":
        return EmbeddedEngine(workplace.servers.home, workplace.root)
    return PulumiEngine(workplace.servers.home, Path(shutil.which("pulumi") or ""), workplace.root)


def edit(workplace: Workplace, slug: str, before: str, after: str) -> None:
    path = workplace.root / "stacks" / "local" / "projects" / f"{slug}.yaml"
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after), encoding="utf-8")


def test_a_preview_says_what_comes_and_changes_nothing(workplace: Workplace) -> None:
    runs = workplace.run(preview=True, on_stack=lambda _stack: None, on_step=lambda _step: None)
    central = next(runs)
    assert central.created is None or central.created > 5
    with workplace.servers.postgres.connect() as admin:
        row = admin.execute("select count(*) from pg_roles where rolname ~ '^(anon|proj_|openbao)'").fetchone()
    assert row == (0,)
    assert "connectors/" not in workplace.servers.openbao.client().read("sys/mounts")["data"]


def test_a_second_up_changes_nothing(workplace: Workplace) -> None:
    first = bring_up(workplace)
    assert all(run.created for run in first)
    before = state(workplace)
    second = bring_up(workplace)
    assert [(run.created, run.updated) for run in second] == [(0, 0), (0, 0)]
    assert not differences(before, state(workplace))
    if isinstance(workplace.engine, EmbeddedEngine):
        assert [(run.created, run.updated) for run in bring_up(workplace, preview=True)] == [(0, 0), (0, 0)]


def test_leases_work_after_an_up_and_end_with_a_detachment(workplace: Workplace) -> None:
    bring_up(workplace)
    data_plane = LocalDataPlane(workplace)
    client = data_plane.client("alpha", AccessLevel.OWNER, None)
    lease = LeaseClient(client).issue(data_plane.binding("alpha"), AccessLevel.OWNER)
    session = psycopg.connect(lease.connection_string, autocommit=True)
    session.execute("create table kept (a int)")
    edit(workplace, "alpha", "limits:", "lifecycle: detached\nlimits:")
    changes = bring_up(workplace)
    assert (changes[0].created, changes[0].updated, changes[1].created) == (0, 0, 0)
    with pytest.raises(psycopg.OperationalError):
        session.execute("select 1")
    plane = Plane(workplace)
    assert plane.rows("select count(*) from pg_roles where rolname like 'lease\\_%%'") == [(0,)]
    assert plane.rows("select to_regclass('proj_alpha.kept') is not null") == [(True,)]
    granted = plane.rows("select count(*) from pg_namespace n, aclexplode(nspacl) where nspname = 'proj_alpha'")
    assert granted == [(2,)], "the owner's own USAGE and CREATE"
    refused = client.adapter.request("get", "/v1/database/creds/proj_alpha_owner", raise_exception=False)
    assert refused.status_code == 403

    edit(workplace, "alpha", "lifecycle: detached\n", "")
    bring_up(workplace)
    again = LeaseClient(client).issue(data_plane.binding("alpha"), AccessLevel.OWNER)
    with psycopg.connect(again.connection_string) as reopened:
        assert reopened.execute("select count(*) from kept").fetchone() == (0,)


def test_changed_limits_and_people_are_applied_in_place(workplace: Workplace) -> None:
    bring_up(workplace)
    edit(workplace, "alpha", "statement_timeout: 20s", "statement_timeout: 5s")
    edit(workplace, "alpha", "connection_limit: 3", "connection_limit: 9")
    edit(workplace, "alpha", "lease_ttl: 10m", "lease_ttl: 20m")
    edit(workplace, "alpha", "project_viewer: [vera]", "project_viewer: [vera, newcomer]")
    edit(workplace, "beta-two", "exposed: false", "exposed: true")
    bring_up(workplace)
    plane = Plane(workplace)
    assert plane.rows("select distinct rolconnlimit from pg_roles where rolname like 'proj\\_alpha\\_%%'") == [(9,)]
    lease = plane.lease("alpha", AccessLevel.ANON, "newcomer")
    assert lease.ttl_seconds == 1200
    with psycopg.connect(lease.connection_string) as session:
        assert session.execute("show statement_timeout").fetchone() == ("5s",)
    with plane.admin() as admin:
        admin.execute("set session authorization authenticator")
        admin.execute("select data_plane.pre_config()")
        row = admin.execute("select current_setting('pgrst.db_schemas')").fetchone()
    assert row == ("public,data_plane_api,proj_alpha,proj_beta_two",)


def test_wrong_input_is_reported_whole_and_nothing_is_applied(
    workplace: Workplace, capfd: pytest.CaptureFixture[str]
) -> None:
    edit(workplace, "alpha", "cell: cell-1", "cell: cell-9")
    edit(workplace, "beta-two", "slug: beta-two", "slug: BETA")
    with pytest.raises((pulumi.RunError, EmbeddedError)) as caught:
        bring_up(workplace)
    text = str(caught.value) + "".join(capfd.readouterr())
    assert "beta-two.yaml:1: slug: found 'BETA'" in text
    assert "alpha.yaml:3: cell: found 'cell-9'" in text
    assert "Traceback" not in text
    with workplace.servers.postgres.connect() as admin:
        row = admin.execute("select count(*) from pg_roles where rolname ~ '^(anon|proj_)'").fetchone()
    assert row == (0,)


def test_a_removed_file_takes_nothing_away_and_is_not_passed_over_in_silence(
    workplace: Workplace, capfd: pytest.CaptureFixture[str]
) -> None:
    bring_up(workplace)
    lease = Plane(workplace).lease("beta-two", AccessLevel.OWNER)
    before = state(workplace)
    path = workplace.root / "stacks" / "local" / "projects" / "beta-two.yaml"
    text = path.read_text(encoding="utf-8")
    path.unlink()
    if isinstance(workplace.engine, EmbeddedEngine):
        *remarks, left = bring_up(workplace)[1].remarks
        names = (
            "beta-two-api-access",
            "beta-two-revocation",
            "cell-1-people-person-alias-bert",
            "cell-1-people-person-bert",
        )
        assert set(remarks) == {f"{name} is no longer declared; this runner removes nothing" for name in names}
        assert left.startswith("proj_beta_two is in no project's file: its data is kept")
    else:
        with pytest.raises(EmbeddedError):
            bring_up(workplace)
        assert "protected" in "".join(capfd.readouterr())
    with psycopg.connect(lease.connection_string) as session:
        assert session.execute("select current_user").fetchone() == ("proj_beta_two_owner",)
    assert not differences(before, state(workplace))
    path.write_text(text, encoding="utf-8")
    assert [(run.created, run.updated) for run in bring_up(workplace)] == [(0, 0), (0, 0)]


def test_a_rotated_issuer_password_is_kept_by_later_runs(workplace: Workplace) -> None:
    bring_up(workplace)
    client = workplace.servers.openbao.client()
    client.write_data("database/rotate-root/supabase", data={})
    plane = Plane(workplace)
    assert plane.lease("alpha", AccessLevel.OWNER).ttl_seconds == 600
    assert [(run.created, run.updated) for run in bring_up(workplace)] == [(0, 0), (0, 0)]
    edit(workplace, "alpha", "lease_ttl: 10m", "lease_ttl: 11m")
    bring_up(workplace)
    assert plane.lease("alpha", AccessLevel.OWNER).ttl_seconds == 660
    known = client.read("connectors/data/supabase-lease-issuer")["data"]["data"]["PASSWORD"]
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(
            host="127.0.0.1",
            port=workplace.servers.postgres.port,
            user="openbao_lease_issuer",
            password=known,
            dbname="postgres",
        )


def test_a_server_that_is_down_stops_a_run_which_goes_on_when_it_is_back(
    workplace: Workplace, capfd: pytest.CaptureFixture[str]
) -> None:
    central = next(workplace.run(preview=False, on_stack=lambda _stack: None, on_step=lambda _step: None))
    assert central.created
    workplace.servers.postgres.stop()
    with pytest.raises(EmbeddedError) as caught:
        bring_up(workplace)
    text = str(caught.value) + "".join(capfd.readouterr())
    assert "PostgreSQL" in text
    assert "refused" in text
    workplace.servers.start()
    bring_up(workplace)
    assert Plane(workplace).lease("alpha", AccessLevel.OWNER).ttl_seconds == 600


def test_a_sealed_openbao_stops_a_run_which_goes_on_when_it_is_back(
    workplace: Workplace, capfd: pytest.CaptureFixture[str]
) -> None:
    bring_up(workplace)
    workplace.servers.openbao.client().sys.seal()
    with pytest.raises(EmbeddedError) as caught:
        bring_up(workplace)
    assert "sealed" in (str(caught.value) + "".join(capfd.readouterr())).lower()
    workplace.servers.start()
    assert [(run.created, run.updated) for run in bring_up(workplace)] == [(0, 0), (0, 0)]


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
    workplace: Workplace, capfd: pytest.CaptureFixture[str]
) -> None:
    pack = workplace.root / "policies"
    pack.mkdir()
    runtime = "runtime:\n  name: python\n  options:\n    virtualenv: ../.venv\n"
    (pack / "PulumiPolicy.yaml").write_text(f"description: House rules.\nversion: 0.0.1\n{runtime}", encoding="utf-8")
    (pack / "__main__.py").write_text(PACK, encoding="utf-8")
    with pytest.raises(EmbeddedError) as caught:
        bring_up(workplace)
    text = str(caught.value) + "".join(capfd.readouterr())
    assert "schemas of beta are not wanted" in text
    with workplace.servers.postgres.connect() as admin:
        row = admin.execute("select count(*) from pg_namespace where nspname like 'proj\\_%'").fetchone()
    assert row == (0,)
    edit(workplace, "beta-two", "slug: beta-two", "slug: gamma")
    old = workplace.root / "stacks" / "local" / "projects" / "beta-two.yaml"
    old.rename(old.with_name("gamma.yaml"))
    runs = bring_up(workplace)
    text = "".join(capfd.readouterr()) + str([run.remarks for run in runs])
    assert "the stack has 8 roles" in text


def test_the_whole_program_passes_its_own_pack(workplace: Workplace, capfd: pytest.CaptureFixture[str]) -> None:
    (workplace.root / "policies").symlink_to(CHECKOUT / "policies")
    runs = bring_up(workplace)
    text = "".join(capfd.readouterr()) + str([run.remarks for run in runs])
    assert "[advisory]" not in text
    assert "[mandatory]" not in text
    assert [(run.created, run.updated) for run in bring_up(workplace)] == [(0, 0), (0, 0)]


_OWN_DATABASE = """
import pulumi_postgresql as postgresql

postgresql.Database("own", name="own", owner="proj_alpha_owner")
postgresql.Role("helper", name="helper", create_database=True)
"""


def test_a_database_of_a_projects_own_is_refused_before_anything_is_applied(
    workplace: Workplace, capfd: pytest.CaptureFixture[str]
) -> None:
    (workplace.root / "policies").symlink_to(CHECKOUT / "policies")
    program = workplace.root / "__main__.py"
    program.write_text(program.read_text(encoding="utf-8") + _OWN_DATABASE, encoding="utf-8")
    with pytest.raises(EmbeddedError) as caught:
        bring_up(workplace)
    text = str(caught.value) + "".join(capfd.readouterr())
    assert "no-postgres-database-or-admin-role" in text
    assert "stacks/<environment>/projects/" in text, "it does not say what to do instead"
    with workplace.servers.postgres.connect() as admin:
        assert admin.execute("select from pg_database where datname = 'own'").rowcount == 0
        assert admin.execute("select from pg_roles where rolname = 'helper'").rowcount == 0


def test_an_interrupted_run_finishes_what_it_began_and_goes_on_later(new_workplace: MakeWorkplace) -> None:
    workplace = new_workplace({"alpha.yaml": ALPHA, "beta-two.yaml": BETA})
    interrupted: list[Step] = []

    def press_ctrl_c(step: Step) -> None:
        if step.type == "postgresql:index/schema:Schema" and not interrupted:
            interrupted.append(step)
            os.kill(os.getpid(), signal.SIGINT)

    # A process that was started in the background may ignore SIGINT.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(EmbeddedError, match="interrupted: what had begun was finished"):
            list(workplace.run(preview=False, on_stack=lambda _stack: None, on_step=press_ctrl_c))
    finally:
        signal.signal(signal.SIGINT, before)
    assert interrupted
    policies = workplace.servers.openbao.client().list("sys/policies/acl")["data"]["keys"]
    assert not [name for name in policies if name.startswith("proj_")], "the run went on after it was interrupted"
    bring_up(workplace)
    assert [(run.created, run.updated) for run in bring_up(workplace)] == [(0, 0), (0, 0)]


def test_a_policy_pack_that_does_not_start_stops_the_run_with_its_own_words(new_workplace: MakeWorkplace) -> None:
    workplace = new_workplace({"alpha.yaml": ALPHA})
    pack = workplace.root / "policies"
    pack.mkdir()
    (pack / "PulumiPolicy.yaml").write_text("runtime: python\n", encoding="utf-8")
    (pack / "__main__.py").write_text("raise ValueError('out of ink')\n", encoding="utf-8")
    with pytest.raises(EmbeddedError, match=r"(?s)the policy pack in .* does not start:.*out of ink"):
        bring_up(workplace)


@REAL
@pytest.mark.real_engine
def test_what_the_runner_applies_is_what_the_cli_would_have(new_workplace: MakeWorkplace) -> None:
    """Each on servers of its own; then every difference between the two outcomes is a difference of the engines."""
    outcomes = []
    for name in ("embedded", "pulumi"):
        made = new_workplace({"alpha.yaml": ALPHA, "beta-two.yaml": BETA})
        bring_up(Workplace(made.servers, engine_of(name, made), made.root))
        outcomes.append(state(made))
    assert not differences(*outcomes)


def without_services(stack: Path) -> None:
    """The kubernetes provider has nothing to compare with where it renders to files: it refuses to refresh."""
    yaml = YAML()
    document = yaml.load(stack.read_text(encoding="utf-8"))
    del document["config"]["supabase-data-plane:kubernetes"]
    yaml.dump(document, stack)


@REAL
@pytest.mark.real_engine
def test_the_cli_finds_no_drift_and_no_secret_in_its_state(new_workplace: MakeWorkplace) -> None:
    made = new_workplace({"alpha.yaml": ALPHA, "beta-two.yaml": BETA})
    without_services(made.root / "stacks" / "Pulumi.local-central.yaml")
    engine = PulumiEngine(made.servers.home, Path(shutil.which("pulumi") or ""), made.root)
    workplace = Workplace(made.servers, engine, made.root)
    bring_up(workplace)
    environment = {**engine.environment(), "VAULT_TOKEN": made.servers.openbao.root_token}
    for stack in workplace.stacks():
        config = str(made.servers.home.path / "config" / f"Pulumi.{stack}.yaml")
        arguments = ["refresh", "--yes", "--expect-no-changes", "--stack", stack, "--config-file", config]
        done = subprocess.run(["pulumi", *arguments], cwd=made.root, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    secrets = [*made.servers.openbao.client().read("connectors/data/supabase")["data"]["data"].values()]
    secrets.append(
        made.servers.openbao.client().read("connectors/data/supabase-lease-issuer")["data"]["data"]["PASSWORD"]
    )
    kept = [path for path in (made.servers.home.path / "pulumi-state").rglob("*.json*") if path.is_file()]
    assert kept
    for path in kept:
        assert not [secret for secret in secrets if secret in path.read_text(encoding="utf-8")], path
    committed = made.root / "stacks" / "Pulumi.local-central.yaml"
    assert "encryptionsalt" not in committed.read_text(encoding="utf-8")


def test_the_operators_token_is_not_left_in_the_environment(plane: Plane) -> None:
    bring_up(plane.workplace)
    assert os.environ.get("VAULT_TOKEN") != plane.workplace.servers.openbao.root_token
