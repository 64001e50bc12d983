"""A project that is dropped for good: nothing of it is left, its data is in a file, and a failure is resumed."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner

import data_plane.cli.project_drop as command
from data_plane.connector.project_drop import Database, ProjectDrop
from data_plane.errors import ProjectDropError, ProjectNotFoundError, ProjectStateError, UsageError
from data_plane.local.processes import wait_until
from data_plane.model.naming import AccessLevel, TenantNames
from tests.conftest import ALPHA, NewPlane, Plane, bring_up
from tests.state import differences, state

GONE = """\
slug: gone-soon
display_name: Gone soon
cell: cell-1
owners: [gwen]
users: {project_viewer: [vera]}
teams: {project_contributor: [leavers]}
workloads:
  ci: {level: owner, approle: {}}
managed_services: [postgres, auth, storage, realtime]
storage: {buckets: {pictures: {public: true}}}
schemas: {private: {}}
"""
NAMES = TenantNames("gone-soon")


@pytest.fixture(scope="module")
def plane(new_plane: NewPlane) -> Plane:
    """Alpha alone, once a run has nothing left to do."""
    made = new_plane({"alpha.yaml": ALPHA})
    bring_up(made.local_env)
    return made


@pytest.fixture
def file(plane: Plane) -> Path:
    return plane.local_env.root / "stacks" / "local" / "projects" / "gone-soon.yaml"


@pytest.fixture
def before(plane: Plane) -> Iterator[dict[str, list[str]]]:
    """All that is on the servers before there is the project. After its drop there are identities without a right more."""
    found = state(plane.local_env)
    yield found
    # The guard drops the login of its jobs, once pg_cron has let go of them.
    assert wait_until(lambda: not plane.rows("select from pg_roles where starts_with(rolname, 'proj_gone_soon')"), 60)
    left = differences(found, state(plane.local_env))
    assert {part: found for part, found in left.items() if part not in {"entities", "groups"}} == {}
    for lost, identities in left.values():
        assert lost == []
        assert all("'policies': None" in text and "proj_" not in text for text in identities)


@pytest.fixture
def detached(plane: Plane, file: Path, before: dict[str, list[str]]) -> Plane:
    """The project with a table in each of its schemas, detached."""
    file.write_text(GONE, encoding="utf-8")
    bring_up(plane.local_env)
    assert differences(before, state(plane.local_env))
    with psycopg.connect(plane.lease("gone-soon", AccessLevel.OWNER).connection_string) as session:
        session.execute("create table kept as select 42 as answer")
        session.execute('create table "proj_gone_soon$private".hidden as select 43 as answer')
    file.write_text(f"{GONE}lifecycle: detached\n", encoding="utf-8")
    bring_up(plane.local_env)
    return plane


def drops(plane: Plane) -> ProjectDrop:
    return ProjectDrop.of_local(plane.local_env, lambda _text: None)


def dumped(plane: Plane, dump: Path) -> str:
    """The rows in a dump, as SQL."""
    program = plane.local_env.servers.postgres.binaries / "pg_restore"
    return subprocess.run([program, "--file=-", dump], capture_output=True, text=True, check=True).stdout


def test_a_dropped_project_leaves_nothing_behind_but_its_dump(detached: Plane, file: Path, tmp_path: Path) -> None:
    dump = tmp_path / "gone.dump"
    run = drops(detached).drop("gone-soon", dump, actor="olga")
    assert any("vault:identity/group:Group" in change for change in run.changes)
    assert not file.exists()
    assert dump.stat().st_mode & 0o777 == 0o600
    sql = dumped(detached, dump)
    assert 'COPY "proj_gone_soon$private".hidden (answer)' in sql
    assert "COPY proj_gone_soon.kept (answer) FROM stdin;\n42\n" in sql
    runs = bring_up(detached.local_env)
    assert [(run.created, run.updated) for run in runs] == [(0, 0), (0, 0)]
    assert [remark for run in runs for remark in run.remarks if "gone" in remark] == []
    lines = (detached.local_env.servers.home.path / "audit.jsonl").read_text(encoding="utf-8").splitlines()
    last = json.loads(lines[-1])
    assert (last["action"], last["project"], last["actor"], last["outcome"]) == (
        "drop_project",
        "gone-soon",
        "olga",
        "done",
    )
    assert last["dump"] == str(dump)


def test_a_drop_that_fails_is_resumed_by_the_same_call_with_the_first_dump(
    detached: Plane, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as failing:

        def fail(_self: Database, _names: TenantNames) -> None:
            raise ProjectDropError("the database dropped nothing: a lease is left")

        failing.setattr(Database, "drop", fail)
        with pytest.raises(ProjectDropError, match="a lease is left\nProject gone-soon is not dropped completely"):
            drops(detached).drop("gone-soon", tmp_path / "first.dump", actor="olga")
    assert file.exists()
    assert detached.rows("select answer from proj_gone_soon.kept") == [(42,)]
    with pytest.raises(ProjectStateError, match="run `dataplane project drop gone-soon` again"):
        bring_up(detached.local_env)
    drops(detached).drop("gone-soon", tmp_path / "second.dump", actor="olga")
    assert not (tmp_path / "second.dump").exists()
    assert "\n42\n" in dumped(detached, tmp_path / "first.dump")
    assert [(run.created, run.updated) for run in bring_up(detached.local_env)] == [(0, 0), (0, 0)]


def test_a_drop_that_was_killed_after_its_last_step_is_ended_by_the_same_call(plane: Plane, tmp_path: Path) -> None:
    note = plane.local_env.servers.home.write_json("drops/local/gone-soon.json", {"dump": str(tmp_path / "a.dump")})
    with pytest.raises(ProjectStateError, match="dropping project gone-soon has begun and not ended"):
        bring_up(plane.local_env)
    assert drops(plane).drop("gone-soon", tmp_path / "b.dump", actor="olga").changes == []
    assert not note.exists()
    bring_up(plane.local_env)


def test_a_dump_that_cannot_be_written_stops_before_anything_is_dropped(detached: Plane, tmp_path: Path) -> None:
    taken = tmp_path / "taken.dump"
    taken.write_text("somebody's")
    held = state(detached.local_env)
    with pytest.raises(ProjectDropError, match="is there already: name another file with --dump"):
        drops(detached).drop("gone-soon", taken, actor="olga")
    with pytest.raises(ProjectDropError, match=r"and nothing was dropped: .* no such file"):
        drops(detached).drop("gone-soon", tmp_path / "nowhere" / "a.dump", actor="olga")
    assert not differences(held, state(detached.local_env))
    assert taken.read_text() == "somebody's"
    assert drops(detached).begun("gone-soon") is None
    drops(detached).drop("gone-soon", tmp_path / "a.dump", actor="olga")


def test_a_project_that_is_attached_or_not_there_is_not_dropped(plane: Plane, tmp_path: Path) -> None:
    held = state(plane.local_env)
    with pytest.raises(ProjectDropError, match="project alpha is attached: run `dataplane project detach alpha` first"):
        drops(plane).drop("alpha", tmp_path / "a.dump", actor="olga")
    alpha = plane.local_env.root / "stacks" / "local" / "projects" / "alpha.yaml"
    alpha.write_text(f"{ALPHA}lifecycle: detached\n", encoding="utf-8")
    try:
        with pytest.raises(ProjectDropError, match="local-cell-1 has not been brought up since: run `dataplane up`"):
            drops(plane).drop("alpha", tmp_path / "a.dump", actor="olga")
    finally:
        alpha.write_text(ALPHA, encoding="utf-8")
    with pytest.raises(ProjectNotFoundError, match="no project 'nobody' has a file in stacks/local/projects"):
        drops(plane).drop("nobody", tmp_path / "a.dump", actor="olga")
    assert not differences(held, state(plane.local_env))
    assert not (tmp_path / "a.dump").exists()


def test_the_command_asks_for_the_projects_name(
    detached: Plane, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ProjectDrop, "of", classmethod(lambda _cls, _environment, _say: drops(detached)))
    called = [["gone-soon"], ["gone-soon", "--confirm", "alpha"]]
    for arguments in called:
        refused = CliRunner().invoke(command.app, arguments)
        assert refused.exit_code == UsageError.exit_code
        assert file.exists()
    dump = tmp_path / "by-command.dump"
    done = CliRunner().invoke(command.app, ["gone-soon", "--confirm", "gone-soon", "--dump", str(dump)])
    assert done.exit_code == 0
    assert f"gone-soon is dropped; its data is in {dump}." in done.stdout
    assert dump.exists()
    assert not file.exists()
