"""A tenant's file removed, renamed, or put into another cell: nothing is lost, and what is left is named."""

from pathlib import Path

import psycopg
import pytest

from data_plane.connector.bindings import LocalDataPlane
from data_plane.connector.cells import LocalCells
from data_plane.connector.project_move import ProjectMove
from data_plane.errors import ConnectorError
from data_plane.model.naming import AccessLevel
from tests.conftest import ALPHA, BETA, NewPlane, Plane, bring_up
from tests.state import differences, state

LEFT = (
    "proj_beta_two is in no project's file: its data is kept, and so is the access that people and programs had. Put "
    "its file back, with `lifecycle: detached` to end all access; then `dataplane project drop` removes it"
)


@pytest.fixture(scope="module")
def plane(new_plane: NewPlane) -> Plane:
    """Two cells; a row in beta-two, so that it would be seen to be lost."""
    plane = new_plane({"alpha.yaml": ALPHA, "beta-two.yaml": BETA}, cells=2)
    with psycopg.connect(plane.lease("beta-two", AccessLevel.OWNER).connection_string) as session:
        session.execute("create table kept as select 1 as a")
    return plane


def file(plane: Plane, slug: str) -> Path:
    return plane.local_env.root / "stacks" / "local" / "projects" / f"{slug}.yaml"


def assert_kept(plane: Plane) -> None:
    assert plane.rows("select a from proj_beta_two.kept") == [(1,)]


def test_a_removed_file_is_named_in_the_preview_and_in_every_run(plane: Plane) -> None:
    before = state(plane.local_env)
    path = file(plane, "beta-two")
    text = path.read_text(encoding="utf-8")
    path.unlink()
    try:
        assert LEFT in bring_up(plane.local_env, preview=True)[-1].remarks
        assert LEFT in bring_up(plane.local_env)[-1].remarks
        with pytest.raises(
            ConnectorError, match="no project 'beta-two' that `dataplane up` has brought up here; there are: alpha"
        ):
            LocalDataPlane(plane.local_env).binding("beta-two")
        assert not differences(before, state(plane.local_env))
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
        runs = bring_up(plane.local_env)
        assert LEFT in runs[-1].remarks
        assert plane.rows("select nspname from pg_namespace where nspname ~ '^proj_[a-z_]+$' order by 1") == [
            ("proj_alpha",),
            ("proj_beta_two",),
            ("proj_gamma",),
        ]
        assert plane.rows("select count(*) from pg_class where relnamespace = 'proj_gamma'::regnamespace") == [(0,)]
        assert_kept(plane)
    finally:
        path.write_text(text, encoding="utf-8")
        renamed.unlink()
    assert [remark.split()[0] for remark in bring_up(plane.local_env)[-1].remarks if "no project's file" in remark] == [
        "proj_gamma"
    ]
    assert plane.lease("beta-two", AccessLevel.OWNER).schema == "proj_beta_two"


def test_a_file_whose_name_and_slug_differ_is_refused_before_anything_is_done(plane: Plane) -> None:
    path = file(plane, "beta-two")
    moved = path.rename(path.with_name("betatwo.yaml"))
    try:
        with pytest.raises(Exception, match=r"betatwo\.yaml:1: slug: found 'beta-two'; expected the file's name"):
            bring_up(plane.local_env)
    finally:
        moved.rename(path)


def test_a_project_moves_to_another_cell_with_its_data_its_access_and_its_leases(plane: Plane) -> None:
    lease = plane.lease("beta-two", AccessLevel.OWNER)
    before = state(plane.local_env)
    path = file(plane, "beta-two")
    path.write_text(path.read_text(encoding="utf-8").replace("cell: cell-1", "cell: cell-2"), encoding="utf-8")
    bring_up(plane.local_env)
    assert not differences(before, state(plane.local_env))
    with psycopg.connect(lease.connection_string) as session:
        assert session.execute("select a from kept").fetchone() == (1,)
    tenants = {stack: set(plane.local_env.engine.outputs(stack)["tenants"]) for stack in plane.local_env.stacks()[1:]}
    assert tenants == {"local-cell-1": {"alpha"}, "local-cell-2": {"beta-two"}}
    assert plane.lease("beta-two", AccessLevel.OWNER).schema == "proj_beta_two"
    assert [(run.created, run.updated) for run in bring_up(plane.local_env)] == [(0, 0)] * 3


def test_the_command_that_moves_a_project_does_with_the_local_runner_too(plane: Plane) -> None:
    made = plane.local_env
    moves = ProjectMove(LocalCells(made), None, made.servers.home, lambda _text: None, made.root)
    for cell, stack in (("cell-1", "local-cell-1"), ("cell-2", "local-cell-2")):
        moves.to("beta-two", cell)
        assert f"cell: {cell}" in file(plane, "beta-two").read_text(encoding="utf-8")
        tenants = {stack: set(made.engine.outputs(stack)["tenants"]) for stack in made.stacks()[1:]}
        assert {name for name, slugs in tenants.items() if "beta-two" in slugs} == {stack}
        assert [(run.created, run.updated) for run in bring_up(made)] == [(0, 0)] * 3
    with pytest.raises(ConnectorError, match=r"no stacks/Pulumi\.\*\.yaml is cell 'cell-9'"):
        moves.to("beta-two", "cell-9")


def test_detached_in_its_new_cell_it_is_detached(plane: Plane) -> None:
    path = file(plane, "beta-two")
    lease = plane.lease("beta-two", AccessLevel.OWNER)
    path.write_text(path.read_text(encoding="utf-8") + "lifecycle: detached\n", encoding="utf-8")
    bring_up(plane.local_env)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(lease.connection_string)
    assert_kept(plane)
