"""Edits of project files: what is meant changes, and nothing else."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from data_plane.connector.project_files import ProjectFile, checkout_with
from data_plane.model.access import FractalOpsRole
from data_plane.model.problems import ConfigurationError

TEXT = """\
# The demo. Do not shorten its leases: see ticket 12.
slug: demo
display_name: "Demo"   # quoted on purpose

cell: cell-1
owners: [alice]
users:
  # Since the audit:
  project_contributor:
    - bob    # the elder
    - ben
  project_viewer: [carol]
managed_services: [postgres]
# the end
"""


def write(root: Path, text: str = TEXT) -> ProjectFile:
    folder = root / "stacks" / "local" / "projects"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "demo.yaml").write_text(text, encoding="utf-8")
    return ProjectFile.of(root, "local", "demo")


def test_a_file_that_is_not_edited_is_written_as_it_was(tmp_path: Path) -> None:
    assert write(tmp_path).text == TEXT


@pytest.mark.parametrize(
    ("kind", "name", "role", "removed", "added"),
    [
        ("users", "zoe", "project_viewer", "  project_viewer: [carol]", "  project_viewer: [carol, zoe]"),
        ("users", "ben", None, "    - ben", None),
        ("users", "zoe", "project_owner", "owners: [alice]", "owners: [alice, zoe]"),
        ("users", "zoe", "project_contributor", None, "    - zoe"),
        ("users", "carol", None, "  project_viewer: [carol]", None),
        ("users", "BEN", None, "    - ben", None),
        ("users", "Alice", "project_owner", None, None),
        ("users", "CAROL", "project_contributor", "  project_viewer: [carol]", "    - carol"),
    ],
)
def test_giving_and_taking_a_role_changes_one_line(
    tmp_path: Path, kind: str, name: str, role: str | None, removed: str | None, added: str | None
) -> None:
    file = write(tmp_path)
    file.give("users" if kind == "users" else "teams", name, FractalOpsRole(role) if role else None)
    before, after = TEXT.splitlines(), file.text.splitlines()
    assert [line for line in before if line not in after] == ([removed] if removed else [])
    assert [line for line in after if line not in before] == ([added] if added else [])


def test_a_role_that_somebody_has_is_given_again_without_a_change(tmp_path: Path) -> None:
    file = write(tmp_path)
    file.give("users", "bob", FractalOpsRole.PROJECT_CONTRIBUTOR)
    file.give("users", "alice", FractalOpsRole.PROJECT_OWNER)
    file.give("users", "nobody", None)
    assert file.text == TEXT


def test_a_new_role_replaces_the_former(tmp_path: Path) -> None:
    file = write(tmp_path)
    file.give("users", "carol", FractalOpsRole.PROJECT_OWNER)
    found = YAML(typ="safe").load(file.text)
    assert found["owners"] == ["alice", "carol"]
    assert found["users"] == {"project_contributor": ["bob", "ben"]}
    file.give("users", "carol", FractalOpsRole.PROJECT_VIEWER)
    assert YAML(typ="safe").load(file.text)["owners"] == ["alice"]


def test_a_first_team_stands_beside_the_people(tmp_path: Path) -> None:
    file = write(tmp_path)
    file.give("teams", "builders", FractalOpsRole.TEAM_MEMBER)
    assert [*YAML(typ="safe").load(file.text)] == [
        "slug", "display_name", "cell", "owners", "users", "teams", "managed_services",
    ]  # fmt: skip
    assert "# the end" in file.text


def test_comments_stay_whatever_is_done(tmp_path: Path) -> None:
    file = write(tmp_path)
    for name in ("bob", "ben", "carol"):
        file.give("users", name, None)
    file.set("limits", {"lease_ttl": "5m"})
    for comment in ("ticket 12", "# quoted on purpose", "# Since the audit:", "# the end"):
        assert comment in file.text, file.text


def test_a_setting_within_a_group_leaves_the_others(tmp_path: Path) -> None:
    file = write(tmp_path, TEXT + "limits:\n  lease_ttl: 1h  # enough\n  connection_limit: 3\n")
    file.set("limits", {"connection_limit": 4})
    assert file.text.endswith("limits:\n  lease_ttl: 1h  # enough\n  connection_limit: 4\n")


def test_a_new_file_names_its_schema_for_editors(tmp_path: Path) -> None:
    (tmp_path / "stacks" / "local" / "projects").mkdir(parents=True)
    file = ProjectFile.of(tmp_path, "local", "fresh")
    file.set("slug", "fresh")
    file.set("owners", ["alice"])
    assert file.before is None
    assert file.text == "# yaml-language-server: $schema=../../project.schema.json\nslug: fresh\nowners: [alice]\n"


def test_an_edit_reaches_the_disk_only_when_it_is_written(tmp_path: Path) -> None:
    file = write(tmp_path)
    file.path.chmod(0o640)
    file.give("users", "ben", None)
    with checkout_with(tmp_path, file) as edited:
        assert "ben" not in (edited / "stacks/local/projects/demo.yaml").read_text(encoding="utf-8")
        assert file.path.read_text(encoding="utf-8") == TEXT
    file.write()
    assert "ben" not in file.path.read_text(encoding="utf-8")
    assert file.path.stat().st_mode & 0o777 == 0o640
    assert [path.name for path in file.path.parent.iterdir()] == ["demo.yaml"]


def test_a_checkout_with_an_edit_has_no_links_below_stacks(tmp_path: Path) -> None:
    file = write(tmp_path)
    for name in ("stacks/images.yaml", "stacks/prod/projects/x.yaml", "components/x.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x", encoding="utf-8")
    with checkout_with(tmp_path, file) as edited:
        assert (edited / "stacks/prod/projects/x.yaml").read_text(encoding="utf-8") == "x"
        assert not [path for path in (edited / "stacks").rglob("*") if path.is_symlink()]
        assert (edited / "components").is_symlink()


def test_a_file_that_is_a_link_is_named(tmp_path: Path) -> None:
    file = write(tmp_path)
    file.path.rename(tmp_path / "elsewhere.yaml")
    file.path.symlink_to(tmp_path / "elsewhere.yaml")
    with pytest.raises(ConfigurationError, match=r"demo\.yaml: file: found a symbolic link"):
        ProjectFile.of(tmp_path, "local", "demo")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"stacks/local/projects/demo\.yaml"):
        write(tmp_path, "slug: [\n")
