"""A tenant's file removed, renamed, or put into another cell: nothing is lost, and what is left is named."""

import sys
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from components.naming import AccessLevel
from connector.bindings import LocalDataPlane
from connector.errors import ConnectorError
from embedded.engines import PulumiEngine
from embedded.errors import EmbeddedError
from embedded.workplace import Workplace
from tests.conftest import ALPHA, BETA, Plane, bring_up
from tests.state import differences, state

LEFT = (
    "proj_beta_two is in no project's file: its data is kept, and whoever had access to it has it still. Put its file "
    "back, with `lifecycle: detached` to end all access; docs/operations.md says how to drop it for good"
)


@pytest.fixture(scope="module")
def plane(new_workplace: Callable[[dict[str, str]], Workplace]) -> Plane:
    """Two cells; a row in beta-two, so that it would be seen to be lost."""
    workplace = new_workplace({"alpha.yaml": ALPHA, "beta-two.yaml": BETA})
    stacks = workplace.root / "stacks"
    cell = (stacks / "Pulumi.local-cell-1.yaml").read_text(encoding="utf-8")
    (stacks / "Pulumi.local-cell-2.yaml").write_text(cell.replace("cell-1", "cell-2"), encoding="utf-8")
    bring_up(workplace)
    plane = Plane(workplace)
    with psycopg.connect(plane.lease("beta-two", AccessLevel.OWNER).connection_string) as session:
        session.execute("create table kept as select 1 as a")
    return plane


def file(plane: Plane, slug: str) -> Path:
    return plane.workplace.root / "stacks" / "local" / "projects" / f"{slug}.yaml"


def assert_kept(plane: Plane) -> None:
    assert plane.rows("select a from proj_beta_two.kept") == [(1,)]


def test_a_removed_file_is_named_in_the_preview_and_in_every_run(plane: Plane) -> None:
    before = state(plane.workplace)
    path = file(plane, "beta-two")
    text = path.read_text(encoding="utf-8")
    path.unlink()
    try:
        assert LEFT in bring_up(plane.workplace, preview=True)[-1].remarks
        assert LEFT in bring_up(plane.workplace)[-1].remarks
        with pytest.raises(ConnectorError, match="there is no tenant 'beta-two'; there are: alpha"):
            LocalDataPlane(plane.workplace).binding("beta-two")
        assert not differences(before, state(plane.workplace))
    finally:
        path.write_text(text, encoding="utf-8")
    assert_kept(plane)


def test_a_renamed_project_is_a_new_one_and_the_old_one_stays(plane: Plane) -> None:
    path = file(plane, "beta-two")
    text = path.read_text(encoding="utf-8")
    renamed = file(plane, "gamma")
    path.unlink()
    renamed.write_text(text.replace("slug: beta-two", "slug: gamma"), encoding="utf-8")
    try:
        runs = bring_up(plane.workplace)
        assert LEFT in runs[-1].remarks
        assert plane.rows("select nspname from pg_namespace where nspname like 'proj%%' order by 1") == [
            ("proj_alpha",),
            ("proj_beta_two",),
            ("proj_gamma",),
        ]
        assert plane.rows("select count(*) from pg_class where relnamespace = 'proj_gamma'::regnamespace") == [(0,)]
        assert_kept(plane)
    finally:
        path.write_text(text, encoding="utf-8")
        renamed.unlink()
    assert [remark.split()[0] for remark in bring_up(plane.workplace)[-1].remarks if "no project's file" in remark] == [
        "proj_gamma"
    ]
    assert plane.lease("beta-two", AccessLevel.OWNER).schema == "proj_beta_two"


def test_a_file_whose_name_and_slug_differ_is_refused_before_anything_is_done(plane: Plane) -> None:
    path = file(plane, "beta-two")
    moved = path.rename(path.with_name("betatwo.yaml"))
    try:
        with pytest.raises(Exception, match=r"betatwo\.yaml:1: slug: found 'beta-two'; expected the file's name"):
            bring_up(plane.workplace)
    finally:
        moved.rename(path)


def test_a_project_moves_to_another_cell_with_its_data_its_access_and_its_leases(plane: Plane) -> None:
    lease = plane.lease("beta-two", AccessLevel.OWNER)
    before = state(plane.workplace)
    path = file(plane, "beta-two")
    path.write_text(path.read_text(encoding="utf-8").replace("cell: cell-1", "cell: cell-2"), encoding="utf-8")
    bring_up(plane.workplace)
    assert not differences(before, state(plane.workplace))
    with psycopg.connect(lease.connection_string) as session:
        assert session.execute("select a from kept").fetchone() == (1,)
    tenants = {stack: set(plane.workplace.engine.outputs(stack)["tenants"]) for stack in plane.workplace.stacks()[1:]}
    assert tenants == {"local-cell-1": {"alpha"}, "local-cell-2": {"beta-two"}}
    assert plane.lease("beta-two", AccessLevel.OWNER).schema == "proj_beta_two"
    assert [(run.created, run.updated) for run in bring_up(plane.workplace)] == [(0, 0)] * 3


def test_detached_in_its_new_cell_it_is_detached(plane: Plane) -> None:
    path = file(plane, "beta-two")
    lease = plane.lease("beta-two", AccessLevel.OWNER)
    path.write_text(path.read_text(encoding="utf-8") + "lifecycle: detached\n", encoding="utf-8")
    bring_up(plane.workplace)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(lease.connection_string)
    assert_kept(plane)


CLI = """\
#!{python}
import json, sys
urn = "urn:pulumi:local-cell-1::supabase-data-plane::supabase-data-plane:cell:Cell$supabase-data-plane:tenant:ProjectTenant::alpha"
match sys.argv[1:3]:
    case ["version", *_]:
        print("v3.256.0")
    case ["stack", "output"]:
        print(json.dumps({{"tenants": {{"alpha": {{}}}} if "local-cell-1" in sys.argv else {{}}}}))
    case ["stack", "export"]:
        print(json.dumps({{"deployment": {{"resources": [{{"urn": urn}}] if "local-cell-1" in sys.argv else []}}}}))
    case _:
        sys.exit("the CLI was asked to " + " ".join(sys.argv[1:]))
"""


def test_with_the_cli_a_move_is_stopped_and_told_how_to_move_the_state(plane: Plane, tmp_path: Path) -> None:
    """A command that answers as the CLI does for a state that still is in the old cell; the real one is not needed."""
    command = tmp_path / "pulumi"
    command.write_text(CLI.format(python=sys.executable), encoding="utf-8")
    command.chmod(0o700)
    made = plane.workplace
    workplace = Workplace(made.servers, PulumiEngine(made.servers.home, command, made.root), made.root)
    path = file(plane, "alpha")
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("cell: cell-1", "cell: cell-2"), encoding="utf-8")
    try:
        with pytest.raises(EmbeddedError) as refused:
            bring_up(workplace)
    finally:
        path.write_text(text, encoding="utf-8")
    assert "project alpha says `cell: cell-2`, and its state is in stack local-cell-1. Move that first" in str(
        refused.value
    )
    assert "pulumi state move --source local-cell-1 --dest local-cell-2 'urn:pulumi:local-cell-1::" in str(
        refused.value
    )
