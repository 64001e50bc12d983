"""The connector's actions, on real servers."""

import json
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import hvac.exceptions
import pytest
from ruamel.yaml import YAML

from data_plane.connector.audit import AuditLog
from data_plane.connector.bindings import LocalDataPlane
from data_plane.connector.catalog import CATALOGUE_FILE, catalog_text, connector_entry
from data_plane.connector.cells import CellRun, LocalCells
from data_plane.connector.executor import SupabaseExecutor
from data_plane.connector.leases import Lease, LeaseClient
from data_plane.errors import ActionError, ConnectorError, LeaseError
from data_plane.local.environment import LocalEnvironment
from data_plane.local.processes import wait_until
from data_plane.model.naming import AccessLevel
from data_plane.state_dir import CHECKOUT
from tests.conftest import ALPHA, BETA, NewPlane

PROJECT, TEAM, USER = "upsert_database_project_access", "upsert_database_team_access", "upsert_database_access"
GAMMA = "slug: gamma\ndisplay_name: Gamma\ncell: cell-2\nowners: [gwen]\n"


class Connector:
    """An executor on servers and a checkout of its own, with two cells."""

    def __init__(self, local_env: LocalEnvironment) -> None:
        self.local_env = local_env
        self.root = local_env.root
        self.audit_file = local_env.servers.home.path / "audit.jsonl"
        self.cells = LocalCells(local_env)
        self.executor = SupabaseExecutor(
            self.cells, local_env.servers.home, AuditLog(self.audit_file), root=local_env.root
        )

    def do(self, action: str, *, dry_run: bool = False, **inputs: Any) -> dict[str, Any]:
        return self.executor.execute(action, inputs, actor="tester", dry_run=dry_run)

    def text(self, project: str) -> str:
        return self.file(project).read_text(encoding="utf-8")

    def file(self, project: str) -> Path:
        return self.root / "stacks" / "local" / "projects" / f"{project}.yaml"

    def lease(self, project: str, level: AccessLevel, user: str) -> Lease:
        plane = LocalDataPlane(self.local_env)
        return LeaseClient(plane.client(project, level, user)).issue(plane.binding(project), level)

    def rows(self, query: str) -> list[tuple[object, ...]]:
        with self.local_env.servers.postgres.connect() as admin:
            return admin.execute(query.encode()).fetchall()

    def audit(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.audit_file.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def connector(new_plane: NewPlane) -> Connector:
    projects = {"alpha.yaml": ALPHA, "beta-two.yaml": BETA, "gamma.yaml": GAMMA}
    return Connector(new_plane(projects, cells=2).local_env)


def test_a_person_gets_access_and_loses_it(connector: Connector) -> None:
    before = connector.text("alpha")
    given = connector.do(USER, project="alpha", user="nina", role="project_contributor")
    assert given["lease"]["level"] == "authenticated"
    assert given["lease"]["lease_path"] == "database/creds/proj_alpha_authenticated"
    assert given["lease"]["ttl_seconds"] == 600
    assert given["binding"]["schema"] == "proj_alpha"
    assert connector.lease("alpha", AccessLevel.AUTHENTICATED, "nina").schema == "proj_alpha"
    with pytest.raises(LeaseError, match="you may not use alpha as service_role"):
        connector.lease("alpha", AccessLevel.SERVICE_ROLE, "nina")
    taken = connector.do(USER, project="alpha", user="nina", role=None)
    assert taken["lease"] is None
    with pytest.raises(LeaseError, match="you may not use alpha as authenticated"):
        connector.lease("alpha", AccessLevel.AUTHENTICATED, "nina")
    assert connector.text("alpha") == before


def test_the_same_action_again_changes_nothing(connector: Connector) -> None:
    connector.do(USER, project="alpha", user="nora", role="project_viewer")
    text = connector.text("alpha")
    again = connector.do(USER, project="alpha", user="nora", role="project_viewer")
    assert (again["edit"], again["changes"]) == ([], [])
    assert again["lease"]["lease_path"] == "database/creds/proj_alpha_anon"
    assert connector.text("alpha") == text


def test_a_dry_run_shows_the_plan_and_changes_nothing(connector: Connector) -> None:
    before = connector.text("alpha")
    plan = connector.do(TEAM, project="alpha", team="auditors", role="project_viewer", dry_run=True)
    assert any("auditors" in line for line in plan["edit"])
    assert any("team-auditors" in change for change in plan["changes"])
    assert plan["summary"] == ["team auditors gains anon as project_viewer"]
    assert connector.text("alpha") == before
    real = connector.do(TEAM, project="alpha", team="auditors", role="project_viewer")
    assert real["edit"] == plan["edit"]
    assert {change.split()[2] for change in real["changes"]} >= {"cell-1-people-team-auditors"}
    client = connector.local_env.servers.openbao.client()
    team = client.read("identity/group/name/team-auditors")["data"]["id"]
    assert team in client.read("identity/group/name/proj_alpha_anon")["data"]["member_group_ids"]


def test_a_new_project_is_attached_with_a_lease_to_take(connector: Connector) -> None:
    made = connector.do(PROJECT, project="fresh-one", owners=["fred"], limits={"lease_ttl": "5m"})
    assert YAML(typ="safe").load(connector.text("fresh-one")) == {
        "slug": "fresh-one",
        "display_name": "Fresh one",
        "cell": "cell-1",
        "owners": ["fred"],
        "limits": {"lease_ttl": "5m"},
    }
    assert made["binding"]["schema"] == "proj_fresh_one"
    assert made["lease"]["ttl_seconds"] == 300
    assert connector.lease("fresh-one", AccessLevel.OWNER, "fred").ttl_seconds == 300
    assert connector.do(PROJECT, project="fresh-one")["changes"] == []


def test_detaching_ends_every_lease_at_once_and_attaching_lets_back_in(connector: Connector) -> None:
    connector.do(PROJECT, project="leaver", owners=["lena"])
    connector.lease("leaver", AccessLevel.OWNER, "lena")
    connector.lease("leaver", AccessLevel.ANON, "lena")
    operator = LeaseClient(connector.local_env.servers.openbao.client())
    gone = connector.do(PROJECT, project="leaver", lifecycle="detached")
    assert gone["lease"] is None
    names = connector.local_env.projects()
    leaver = next(project.names for project in names if project.slug == "leaver")
    assert [operator.live(leaver, level) for level in AccessLevel] == [[], [], [], []]
    leases = "select from pg_roles where rolname like 'lease\\_proj\\_leaver%'"
    assert connector.rows(f"{leases} and rolcanlogin") == []
    assert wait_until(lambda: connector.rows(leases) == [], 60), "the guard drops what a lock has kept"
    connector.do(PROJECT, project="leaver", lifecycle="attached")
    assert connector.lease("leaver", AccessLevel.OWNER, "lena").schema == "proj_leaver"


@pytest.mark.parametrize(
    ("action", "inputs", "said"),
    [
        ("drop_database", {"project": "alpha"}, "there is no action 'drop_database'; there are: upsert_database_"),
        (USER, {"project": "alpha", "user": "nina"}, "upsert_database_access: role: found nothing"),
        (USER, {"project": "alpha", "user": "nina", "role": "king"}, "role: found 'king'"),
        (USER, {"project": "alpha", "user": "n i", "role": "maintainer"}, "users.maintainer.1: found 'n i'"),
        (USER, {"project": "alpha", "user": "BERT", "role": "maintainer"}, "or another name: OpenBao knows no case"),
        (
            USER,
            {"project": "absent", "user": "nina", "role": "maintainer"},
            "there is no project 'absent' in environment 'local': attach it first",
        ),
        (USER, {"project": "alpha", "user": "olga", "role": None}, "owners: found"),
        (PROJECT, {"project": "alpha", "cell": "cell-2"}, "is in cell 'cell-1', and no action moves it"),
        (PROJECT, {"project": "new-one"}, "project new-one is new: name its `owners`"),
        (PROJECT, {"project": "new-one", "owners": ["a"], "cell": "cell-9"}, "is cell 'cell-9' of environment"),
        (PROJECT, {"project": "beta-two", "limits": {"lease_ttl": "5 min"}}, "limits.lease_ttl: found '5 min'"),
        (PROJECT, {"project": "beta-two", "limits": {"lease_ttl": "40h"}}, "limits.lease_max_ttl"),
        (PROJECT, {"project": "beta-two", "limts": {}}, "limts: found an unknown key; expected one of: cell"),
        (PROJECT, {"project": "beta_two", "owners": ["a"]}, "project: found 'beta_two'; expected 2 to 40 lower-case"),
    ],
)
def test_wrong_input_is_refused_and_leaves_everything_as_it_was(
    connector: Connector, action: str, inputs: dict[str, Any], said: str
) -> None:
    files = {path: path.read_bytes() for path in connector.file("x").parent.iterdir()}
    with pytest.raises(ConnectorError) as refused:
        connector.do(action, **inputs)
    assert said in str(refused.value)
    assert {path: path.read_bytes() for path in connector.file("x").parent.iterdir()} == files
    last = connector.audit()[-1]
    assert (last["event"], last["outcome"], last["action"], last["actor"]) == ("end", "refused", action, "tester")
    assert " ".join(said.split()) in last["error"]
    assert last["code"] == refused.value.code
    assert last.get("role") == inputs.get("role")


def test_two_at_once_on_one_cell_queue_up_and_both_are_done(connector: Connector) -> None:
    people = ["pia", "paul", "pete"]
    with ThreadPoolExecutor(len(people)) as pool:
        done = list(pool.map(lambda name: connector.do(USER, project="alpha", user=name, role="maintainer"), people))
    assert all(result["lease"] for result in done)
    assert set(people) <= set(YAML(typ="safe").load(connector.text("alpha"))["users"]["maintainer"])
    for name in people:
        assert connector.lease("alpha", AccessLevel.OWNER, name).level is AccessLevel.OWNER


def test_two_at_once_on_different_cells_run_at_the_same_time(
    connector: Connector, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = threading.Barrier(2, timeout=180)  # broken, if one had to wait for the other's end
    run = connector.cells.run

    def meeting(root: Path, stack: str, *, preview: bool) -> CellRun:
        both.wait()
        done = run(root, stack, preview=preview)
        both.wait()
        return done

    monkeypatch.setattr(connector.cells, "run", meeting)
    with ThreadPoolExecutor(2) as pool:
        jobs = [
            pool.submit(connector.do, USER, project=project, user="walt", role="project_viewer")
            for project in ("beta-two", "gamma")
        ]
        results = [job.result() for job in jobs]
    assert [result["lease"]["lease_path"] for result in results] == [
        "database/creds/proj_beta_two_anon",
        "database/creds/proj_gamma_anon",
    ]
    for project in ("beta-two", "gamma"):
        assert connector.lease(project, AccessLevel.ANON, "walt").project == project


def test_a_failure_before_anything_was_applied_says_so(connector: Connector) -> None:
    before = connector.text("gamma")
    openbao = connector.local_env.servers.openbao.client()
    # What a hand in OpenBao may leave: a group of the name, of a type that no program can turn into another.
    openbao.write_data("identity/group/name/team-rivals", data={"type": "internal"})
    with pytest.raises(ActionError, match=r"group type cannot be changed\nNothing was changed") as failed:
        connector.do(TEAM, project="gamma", team="rivals", role="project_contributor")
    assert failed.value.applied == []
    assert connector.text("gamma") == before
    assert connector.audit()[-1]["outcome"] == "refused"
    openbao.delete("identity/group/name/team-rivals")
    assert connector.do(TEAM, project="gamma", team="rivals", role="project_contributor")["lease"]
    assert "rivals" in connector.text("gamma")


def test_a_failure_in_the_middle_says_what_was_applied_and_the_same_again_finishes_it(connector: Connector) -> None:
    openbao = connector.local_env.servers.openbao.client()
    openbao.write_data("identity/group/name/proj_crash_anon", data={"type": "external"})
    with pytest.raises(ActionError) as failed:
        connector.do(PROJECT, project="crash", owners=["cara"], cell="cell-2")
    message = str(failed.value)
    assert "group type cannot be changed" in message
    assert f"Of {PROJECT} for crash, this was applied before:" in message
    assert "Run the same action again to finish it" in message
    assert any(change.endswith(" crash-schema-authenticated") for change in failed.value.applied), failed.value.applied
    assert not any(change.endswith(" crash-access-group-anon") for change in failed.value.applied)
    assert not connector.file("crash").exists()
    last = connector.audit()[-1]
    assert (last["outcome"], last["changes"]) == ("failed", len(failed.value.applied))
    openbao.delete("identity/group/name/proj_crash_anon")
    done = connector.do(PROJECT, project="crash", owners=["cara"], cell="cell-2")
    assert any(change.endswith(" crash-access-group-anon") for change in done["changes"])
    assert connector.lease("crash", AccessLevel.OWNER, "cara").schema == "proj_crash"


def test_a_sealed_openbao_is_named_and_the_action_can_be_run_again(connector: Connector) -> None:
    before = connector.text("gamma")
    openbao = connector.local_env.servers.openbao.client()
    openbao.sys.seal()
    try:
        # The connector unseals a local OpenBao when it starts what is not running; a deployed one stays sealed.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(connector.local_env.servers), "start", lambda _self: None)
            with pytest.raises(ConnectorError, match="sealed"):
                connector.do(USER, project="gamma", user="sid", role="maintainer")
    finally:
        connector.local_env.servers.start()
    assert connector.text("gamma") == before
    assert connector.do(USER, project="gamma", user="sid", role="maintainer")["lease"]["level"] == "service_role"


def test_a_killed_action_leaves_the_file_and_is_finished_by_the_same_again(connector: Connector) -> None:
    """It comes to a halt at the first resource of OpenBao's, so that it is not done before it is killed."""
    program = (
        "import json, sys, time\nfrom pathlib import Path\n"
        "from data_plane.local.providers.openbao import OpenBaoProvider\n"
        "create = OpenBaoProvider.create\n"
        "def halting(self, request):\n"
        "    if not request.preview:\n"
        "        time.sleep(600)\n"
        "    return create(self, request)\n"
        "OpenBaoProvider.create = halting\n"
        "from data_plane.connector.executor import SupabaseExecutor\n"
        "executor = SupabaseExecutor.for_environment('local', Path(sys.argv[1]))\n"
        "executor.execute(sys.argv[2], json.loads(sys.argv[3]), actor='tester')\n"
    )
    inputs: dict[str, Any] = {"project": "victim", "owners": ["vic"], "cell": "cell-2"}
    command = [sys.executable, "-c", program, str(connector.root), PROJECT, json.dumps(inputs)]
    home = connector.local_env.servers.home.path
    environment = {**os.environ, "DATA_PLANE_HOME": str(home), "PYTHONPATH": str(CHECKOUT)}

    def under_way() -> bool:
        return bool(connector.rows("select from pg_roles where rolname like 'proj\\_victim%'"))

    running = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert wait_until(lambda: under_way() or running.poll() is not None, 180)
    finally:
        running.send_signal(signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL, "it has failed"
    assert not connector.file("victim").exists()
    last = connector.audit()[-1]
    assert (last["event"], last["project"]) == ("begin", "victim")
    done = connector.do(PROJECT, **inputs)
    assert done["binding"]["schema"] == "proj_victim"
    assert connector.lease("victim", AccessLevel.OWNER, "vic").schema == "proj_victim"
    assert connector.do(PROJECT, **inputs)["changes"] == []


def test_the_audit_log_says_who_did_what_and_holds_no_secret(connector: Connector) -> None:
    connector.do(USER, project="alpha", user="aud", role="solution_viewer")
    begin, end = connector.audit()[-2:]
    assert begin["id"] == end["id"]
    assert {key: end[key] for key in ("event", "action", "actor", "environment", "project", "user", "role")} == {
        "event": "end",
        "action": USER,
        "actor": "tester",
        "environment": "local",
        "project": "alpha",
        "user": "aud",
        "role": "solution_viewer",
    }
    assert end["outcome"] == "done"
    assert connector.audit_file.stat().st_mode & 0o777 == 0o600
    text = connector.audit_file.read_text(encoding="utf-8")
    servers = connector.local_env.servers
    for secret in (servers.openbao.root_token, servers.postgres.admin_password):
        assert secret not in text


def test_an_action_that_cannot_be_written_down_is_not_done(connector: Connector) -> None:
    audit = AuditLog(connector.audit_file / "below-a-file")
    executor = SupabaseExecutor(connector.cells, connector.local_env.servers.home, audit, root=connector.root)
    before = connector.text("alpha")
    with pytest.raises(ConnectorError, match="Set DATA_PLANE_AUDIT_LOG"):
        executor.execute(USER, {"project": "alpha", "user": "una", "role": "maintainer"}, actor="tester")
    assert connector.text("alpha") == before


def test_results_fit_the_schemas_of_the_catalog(connector: Connector) -> None:
    entry = connector_entry()
    assert CATALOGUE_FILE.read_text(encoding="utf-8") == catalog_text()
    assert [action["name"] for action in entry["actions"]] == [PROJECT, TEAM, USER]
    assert entry["roleMap"] == {
        **dict.fromkeys(("project_owner", "maintainer", "solution_admin"), "service_role"),
        **dict.fromkeys(("project_contributor", "team_member", "solution_user"), "authenticated"),
        **dict.fromkeys(("project_viewer", "solution_viewer"), "anon"),
    }
    result = connector.do(USER, project="alpha", user="nora", role="project_viewer", dry_run=True)
    outputs = entry["actions"][2]["outputs"]
    assert set(result) == set(outputs["required"])
    assert set(result["lease"]) == set(outputs["$defs"]["LeaseReference"]["required"])


def test_a_person_who_is_disabled_in_openbao_has_no_access_whatever_the_file_says(connector: Connector) -> None:
    connector.do(USER, project="alpha", user="exit", role="project_viewer")
    signed_in = connector.local_env.sign_in("exit")
    openbao = connector.local_env.servers.openbao.client()
    openbao.write_data("identity/entity/name/exit", data={"disabled": True})
    with pytest.raises(hvac.exceptions.Forbidden):
        signed_in.read("database/creds/proj_alpha_anon")
    connector.do(USER, project="alpha", user="exit", role="project_contributor")
    with pytest.raises(hvac.exceptions.Forbidden):
        signed_in.read("database/creds/proj_alpha_anon")
