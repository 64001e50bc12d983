"""What people do with an environment over time, on the real engine: mistakes, moves, hands' changes, stopped servers."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from data_plane.connector.cells import CellRun, LocalCells
from data_plane.connector.project_drop import ProjectDrop
from data_plane.connector.project_move import ProjectMove, StackStates
from data_plane.connector.rotation import rotate
from data_plane.engine.command import Command
from data_plane.engine.engines import PulumiEngine
from data_plane.engine.steps import Change, Step
from data_plane.errors import ConnectorError, DataPlaneError, RunFailedError
from data_plane.local.environment import CENTRAL_STACK, LocalEnvironment
from data_plane.local.processes import wait_until
from data_plane.model.naming import AccessLevel
from tests.conftest import ALPHA, BETA, NewPlane, Plane, bring_up
from tests.state import differences, state

pytestmark = pytest.mark.real_engine
CELL, NEW_CELL = "local-cell-1", "local-cell-2"


@dataclass
class World(Plane):
    """A data plane that the real engine has brought up."""

    engine: PulumiEngine

    def file(self, slug: str) -> Path:
        return self.local_env.root / "stacks" / "local" / "projects" / f"{slug}.yaml"

    def edit(self, slug: str, before: str, after: str) -> None:
        text = self.file(slug).read_text(encoding="utf-8")
        assert before in text
        self.file(slug).write_text(text.replace(before, after), encoding="utf-8")

    def resources(self, stack: str) -> set[str]:
        return {resource["urn"] for resource in self.engine.export_state(stack).get("resources") or []}

    def on_servers(self) -> dict[str, set[str]]:
        """What each stack's state has on a server. A component without children is a name in the state and no more."""
        found = {stack: self.engine.export_state(stack).get("resources") or [] for stack in self.local_env.stacks()}
        return {
            stack: {resource["urn"] for resource in resources if resource["custom"]}
            for stack, resources in found.items()
        }

    def move(self, slug: str, cell: str, cells: LocalCells | None = None) -> list[CellRun]:
        local_env = self.local_env
        cells = cells or LocalCells(local_env)
        states = StackStates(self.engine.cli)
        return ProjectMove(cells, states, local_env.servers.home, lambda _text: None, local_env.root).to(slug, cell)

    def affected(self) -> list[str]:
        """The stacks that an `up` runs."""
        return [run.stack for run in bring_up(self.local_env) if run.affected]


@pytest.fixture(scope="module")
def world(new_plane: NewPlane, cli: Path) -> World:
    local_env = new_plane({"alpha.yaml": ALPHA, "beta-two.yaml": BETA}, cli=cli).local_env
    assert isinstance(local_env.engine, PulumiEngine)
    return World(local_env, local_env.engine)


@pytest.fixture
def unchanged(world: World) -> Iterator[None]:
    """Whatever a test does, nothing on the servers and nothing in the states is gone or changed by it."""
    before, resources = state(world.local_env), world.on_servers()
    yield
    assert not differences(before, state(world.local_env))
    assert world.on_servers() == resources


@pytest.fixture
def no_preview(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs apply at once, as with `--skip-preview`."""

    def run(self: Command, args: list[str], cwd: str, env: Any, on_output: Any = None, on_error: Any = None) -> Any:
        assert args[0] not in {"up", "destroy"} or "--skip-preview" in args
        return self._run(args, cwd, env, "", on_output, on_error)

    monkeypatch.setattr(Command, "run", run)


@contextmanager
def committed_files_kept(world: World) -> Iterator[None]:
    before = {path: path.read_bytes() for path in world.local_env.root.rglob("*.yaml")}
    assert not [path for path, content in before.items() if b"encryptionsalt" in content]
    yield
    assert {path: path.read_bytes() for path in world.local_env.root.rglob("*.yaml")} == before


@pytest.mark.usefixtures("unchanged", "no_preview")
def test_a_project_file_that_is_gone_deletes_nothing_even_without_a_preview(world: World) -> None:
    lease = world.lease("beta-two", AccessLevel.OWNER)
    text = world.file("beta-two").read_text(encoding="utf-8")
    world.file("beta-two").unlink()
    try:
        with pytest.raises(RunFailedError) as refused:
            world.local_env.run_stack(CELL, preview=False, on_step=lambda _step: None)
    finally:
        world.file("beta-two").write_text(text, encoding="utf-8")
    assert str(refused.value).count("because it is protected") == 1
    assert "beta-two-removal-guard" in str(refused.value)
    with psycopg.connect(lease.connection_string) as session:
        assert session.execute("select current_user").fetchone() == ("proj_beta_two_owner",)
    world.local_env.run_stack(CELL, preview=False, on_step=lambda _step: None)


@pytest.mark.usefixtures("unchanged")
def test_an_up_without_a_projects_file_says_what_to_do(world: World) -> None:
    text = world.file("beta-two").read_text(encoding="utf-8")
    world.file("beta-two").unlink()
    try:
        with pytest.raises(
            DataPlaneError, match=r"Put stacks/local/projects/beta-two\.yaml back, `lifecycle: detached` in it"
        ):
            bring_up(world.local_env)
    finally:
        world.file("beta-two").write_text(text, encoding="utf-8")


@pytest.mark.usefixtures("unchanged", "no_preview")
@pytest.mark.parametrize("stack", [CELL, CENTRAL_STACK])
def test_a_destroy_deletes_nothing_even_without_a_preview(world: World, stack: str) -> None:
    with world.local_env.operator(), pytest.raises(RunFailedError) as refused:
        world.engine.destroy(stack, world.local_env.config(stack), on_step=lambda _step: None)
    assert "removal-guard" in str(refused.value)
    assert "because it is protected" in str(refused.value)


def test_a_service_a_person_and_a_project_that_leave_are_removed_and_nothing_else(world: World, tmp_path: Path) -> None:
    before, resources = state(world.local_env), world.resources(CELL)
    world.edit("alpha", "managed_services: [postgres, auth]", "managed_services: [postgres]")
    world.edit("alpha", "project_viewer: [vera]", "project_viewer: []")
    world.file("gone").write_text(BETA.replace("beta-two", "gone"), encoding="utf-8")
    bring_up(world.local_env)
    assert not [urn for urn in world.resources(CELL) if urn.endswith("::alpha-sign-in")]
    assert world.rows("select from data_plane.sign_in where tenant = 'proj_alpha'") == []
    client = world.local_env.servers.openbao.client()
    group = client.read("identity/group/name/proj_alpha_anon")["data"]
    assert client.read("identity/entity/name/vera")["data"]["id"] not in group["member_entity_ids"]
    with psycopg.connect(world.lease("gone", AccessLevel.OWNER).connection_string) as session:
        session.execute("create table kept as select 42 as answer")

    world.edit("alpha", "managed_services: [postgres]", "managed_services: [postgres, auth]")
    world.edit("alpha", "project_viewer: []", "project_viewer: [vera]")
    world.edit("gone", "exposed: false", "exposed: false\nlifecycle: detached")
    bring_up(world.local_env)
    assert world.resources(CELL) > resources
    run = ProjectDrop.of_local(world.local_env, lambda _text: None).drop("gone", tmp_path / "gone.dump", actor="olga")
    assert any(change.startswith("delete vault:identity/group:Group") for change in run.changes)
    assert not world.file("gone").exists()
    assert (tmp_path / "gone.dump").stat().st_size > 0
    assert world.resources(CELL) == resources
    # The guard drops the login of its jobs.
    assert wait_until(lambda: not world.rows("select from pg_roles where starts_with(rolname, 'proj_gone')"), 180)
    assert not differences(before, state(world.local_env))
    assert all(not (run.created or run.updated or run.deleted) for run in bring_up(world.local_env))


def test_an_up_runs_the_stacks_that_are_affected(world: World) -> None:
    bring_up(world.local_env)
    assert world.affected() == []
    world.edit("alpha", "statement_timeout: 20s", "statement_timeout: 21s")
    # As an action does, or somebody by hand: going back to the files of the last `up` is a change, then.
    world.local_env.run_stack(CELL, preview=False, on_step=lambda _step: None)
    world.edit("alpha", "statement_timeout: 21s", "statement_timeout: 20s")
    assert world.affected() == [CELL]
    assert world.affected() == []
    servers = world.local_env.servers
    rotate(servers.openbao.client(), "SUPABASE_PUBLISHABLE_KEY", lambda _password: servers.postgres.connect())
    with committed_files_kept(world):
        assert world.affected() == [CENTRAL_STACK, CELL]


def test_what_was_changed_by_hand_is_found_with_a_refresh(world: World) -> None:
    with world.admin() as admin:
        admin.execute("alter role proj_alpha_owner connection limit 77")

    def changed(*, preview: bool) -> list[str]:
        steps: list[Step] = []
        world.local_env.run_stack(CELL, preview=preview, on_step=steps.append, refresh=True)
        return [step.name for step in steps if step.change is Change.UPDATE]

    assert "alpha-schema-owner" in changed(preview=True)
    assert world.rows("select rolconnlimit from pg_roles where rolname = 'proj_alpha_owner'") == [(77,)]
    assert "alpha-schema-owner" in changed(preview=False)
    assert world.rows("select rolconnlimit from pg_roles where rolname = 'proj_alpha_owner'") == [(3,)]


def test_a_postgresql_that_is_down_is_one_clear_error(world: World) -> None:
    world.local_env.servers.postgres.stop()
    try:
        for every in (False, True):  # with a run of central, and without any
            with pytest.raises(DataPlaneError) as refused:
                list(world.local_env.run(preview=False, on_stack=lambda _s: None, on_step=lambda _s: None, every=every))
            assert "PostgreSQL" in str(refused.value)
            assert "Connection refused" in str(refused.value)
            assert "Start it (on this machine" in str(refused.value)
    finally:
        world.local_env.servers.start()
    bring_up(world.local_env)


def test_no_preview_writes_into_a_committed_file(world: World) -> None:
    with committed_files_kept(world):
        world.local_env.run_stack(CELL, preview=True, on_step=lambda _step: None)
        with suppress(RunFailedError):  # where there is no language host of Python
            world.engine.cli(CELL, "preview", "--stack", CELL)


# Moves


class Interrupted(BaseException):
    """The end of a process, without a word."""


class Cells(LocalCells):
    """Cells whose n-th preview goes wrong."""

    def __init__(self, local_env: LocalEnvironment, wrong: Callable[[CellRun], None]) -> None:
        super().__init__(local_env)
        self._wrong = wrong

    def run(self, root: Path, stack: str, *, preview: bool) -> CellRun:
        run = super().run(root, stack, preview=preview)
        if preview:
            self._wrong(run)
        return run


@pytest.fixture(scope="module")
def new_cell(world: World) -> None:
    """The settings of a cell that was never brought up."""
    stacks = world.local_env.root / "stacks"
    text = (stacks / f"Pulumi.{CELL}.yaml").read_text(encoding="utf-8")
    (stacks / f"Pulumi.{NEW_CELL}.yaml").write_text(text.replace("cell-1", "cell-2"), encoding="utf-8")


@contextmanager
def going_on(world: World, slug: str) -> Iterator[None]:
    """A project's sessions and leases go on, and its state is as it was but for the PostgREST that serves it."""
    lease = world.lease(slug, AccessLevel.OWNER)
    before = state(world.local_env)
    with psycopg.connect(lease.connection_string, autocommit=True) as session:
        yield
        assert session.execute("select current_user").fetchone() == (f"proj_{slug.replace('-', '_')}_owner",)
        assert world.lease(slug, AccessLevel.OWNER).ttl_seconds
    found = differences(before, state(world.local_env))
    of_postgrest = re.compile(r"cell[-_]cell|authenticator|cell-[12]", re.IGNORECASE)
    for part, (gone, come) in found.items():
        # Tokens are made out to the PostgREST that serves the project.
        others = [line for line in (*gone, *come) if not (part == "token roles" and slug in line)]
        assert [line for line in others if not of_postgrest.search(line)] == [], part


def kill_a_move(world: World, monkeypatch: pytest.MonkeyPatch, slug: str, cell: str) -> None:
    """Begins to move a project, and ends the process when its state is in the other stack."""

    def killed(*_: object) -> None:
        raise Interrupted

    with monkeypatch.context() as patched:
        patched.setattr(StackStates, "restore", killed)
        with pytest.raises(Interrupted):
            world.move(slug, cell, Cells(world.local_env, killed))
    assert [urn for urn in world.resources(f"local-{cell}") if urn.endswith(f"ProjectTenant::{slug}")]
    with pytest.raises(DataPlaneError, match=f"moving project {slug} has begun and not ended"):
        bring_up(world.local_env)


@pytest.mark.parametrize(
    ("cell", "stack", "other", "killed"),
    [("cell-2", NEW_CELL, CELL, False), ("cell-1", CELL, NEW_CELL, True)],
    ids=["to a cell that never was", "back, by the command again after it was killed"],
)
@pytest.mark.usefixtures("new_cell")
def test_a_project_moves(
    world: World, monkeypatch: pytest.MonkeyPatch, cell: str, stack: str, other: str, *, killed: bool
) -> None:
    urns = {urn.rpartition("::")[2] for urn in world.resources(other) if "ProjectTenant" in urn and "alpha" in urn}
    assert len(urns) > 5
    with going_on(world, "alpha"):
        if killed:
            kill_a_move(world, monkeypatch, "alpha", cell)
        runs = world.move("alpha", cell)
    assert [run.stack for run in runs] == [stack, other]
    of_the_project = [line for run in runs for line in run.changes if " alpha" in line]
    assert {line.split()[0] for line in of_the_project} == {"update"}
    assert f"cell: {cell}" in world.file("alpha").read_text(encoding="utf-8")
    found = {urn.rpartition("::")[2] for urn in world.resources(stack) if "Cell$" in urn and "ProjectTenant" in urn}
    assert urns <= found
    assert not [urn for urn in world.resources(other) if "::alpha" in urn]
    assert world.rows(
        "select m.rolname from pg_auth_members a join pg_roles m on m.oid = a.member"
        " where a.roleid = 'proj_alpha_anon'::regrole and m.rolname like '%%authenticator'"
    ) == [(f"cell_{cell.replace('-', '_')}_authenticator",)]
    assert all(not (run.created or run.updated or run.deleted) for run in bring_up(world.local_env))


@pytest.mark.usefixtures("unchanged", "new_cell")
def test_a_move_whose_rehearsal_would_delete_something_is_undone(world: World) -> None:
    def wrong(run: CellRun) -> None:
        run.changes.append("delete postgresql:index/role:Role alpha-schema-owner")

    before = world.file("alpha").read_bytes()
    with pytest.raises(ConnectorError) as refused:
        world.move("alpha", "cell-2", Cells(world.local_env, wrong))
    assert "delete postgresql:index/role:Role alpha-schema-owner" in str(refused.value)
    assert "was not moved: both states and its file are as they were" in str(refused.value)
    assert world.file("alpha").read_bytes() == before


@pytest.mark.usefixtures("new_cell")
def test_a_move_that_was_killed_is_taken_back_by_the_command_with_the_former_cell(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with going_on(world, "alpha"):
        kill_a_move(world, monkeypatch, "alpha", "cell-2")
        world.move("alpha", "cell-1")
    assert "cell: cell-1" in world.file("alpha").read_text(encoding="utf-8")
    assert [urn for urn in world.resources(CELL) if urn.endswith("ProjectTenant::alpha")]
    bring_up(world.local_env)


@pytest.mark.usefixtures("unchanged", "new_cell")
def test_a_cell_changed_by_hand_is_refused_with_the_command_that_moves(world: World) -> None:
    world.edit("beta-two", "cell: cell-1", "cell: cell-2")
    try:
        with pytest.raises(DataPlaneError, match=r"`dataplane project move beta-two --to cell-2"):
            bring_up(world.local_env)
    finally:
        world.edit("beta-two", "cell: cell-2", "cell: cell-1")


@pytest.mark.usefixtures("new_cell")
def test_states_from_before_a_move_hold_no_secret_in_plain(world: World) -> None:
    folder = world.local_env.servers.home.moves("local") / "alpha"
    saved = [path for path in folder.iterdir() if path.suffix == ".json"]
    assert {path.name for path in saved} == {f"{CELL}.json", f"{NEW_CELL}.json"}
    values = world.local_env.servers.openbao.client().read("connectors/data/supabase")["data"]["data"].values()
    secrets = [value for value in values if len(value) >= 16]  # shorter ones are names
    assert len(secrets) > 5
    for path in saved:
        assert path.stat().st_mode & 0o777 == 0o600
        text = path.read_text(encoding="utf-8")
        assert json.loads(text)["deployment"]["resources"]
        assert not [secret for secret in secrets if secret in text]
