"""What makes a stack run again."""

from collections.abc import Callable
from pathlib import Path

import pytest

from data_plane.local import stack_inputs
from data_plane.local.stack_inputs import digest, of_cell, of_central
from data_plane.model.projects import Project
from tests.conftest import ALPHA, BETA, make_checkout

CENTRAL, CELL = "local-central", "local-cell-1"


def project(**changes: object) -> Project:
    given = {"slug": "my-app", "display_name": "My app", "cell": "cell-1", "owners": ["olga"]}
    return Project.model_validate({**given, "managed_services": ["postgres"], **changes})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_checkout(tmp_path, {"alpha.yaml": ALPHA, "beta-two.yaml": BETA})


def append(name: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        file = root / name
        file.write_text(file.read_text(encoding="utf-8") + "\n# changed\n", encoding="utf-8")

    return change


@pytest.mark.parametrize(
    "name", ["__main__.py", "Pulumi.yaml", "stacks/Pulumi.local-cell-1.yaml", "stacks/images.yaml"]
)
def test_a_changed_file_that_a_stack_reads_runs_it(root: Path, name: str) -> None:
    before = digest(root, CELL)
    assert digest(root, CELL) == before
    append(name)(root)
    assert digest(root, CELL) != before


def test_another_stacks_file_does_not(root: Path) -> None:
    before = digest(root, CENTRAL)
    append("stacks/Pulumi.local-cell-1.yaml")(root)
    assert digest(root, CENTRAL) == before


def test_changed_code_runs_every_stack(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "component.py").write_text("a = 1\n", encoding="utf-8")
    monkeypatch.setattr(stack_inputs, "_CODE", [code])
    before = digest(root, CENTRAL), digest(root, CELL)
    (code / "component.py").write_text("a = 2\n", encoding="utf-8")
    after = digest(root, CENTRAL), digest(root, CELL)
    assert before[0] != after[0]
    assert before[1] != after[1]


def test_a_cell_takes_its_own_projects_and_what_central_says() -> None:
    before = of_cell("cell-1", [project()], {"platform": {"apiUrl": "a"}})
    assert of_cell("cell-1", [project(), project(slug="other", cell="cell-2")], {"platform": {"apiUrl": "a"}}) == before
    assert of_cell("cell-1", [project(owners=["mike"])], {"platform": {"apiUrl": "a"}}) != before
    assert of_cell("cell-1", [project()], {"platform": {"apiUrl": "b"}}) != before
    assert of_cell("cell-1", [], {"platform": {"apiUrl": "a"}}) != before


def test_central_takes_of_a_project_what_needs_a_server_of_its_own(root: Path) -> None:
    before = of_central(root, "local", CENTRAL, [project()])
    assert of_central(root, "local", CENTRAL, [project(owners=["mike"]), project(slug="other")]) == before
    assert of_central(root, "local", CENTRAL, [project(api="dedicated")]) != before
