"""Which stacks a change touches, told from real git repositories."""

import ast
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest
import typer
from typer.testing import CliRunner

import connector.touched
from connector.touched import TouchedError, changed_paths, every_stack, touched_command, touched_stacks
from embedded.home import CHECKOUT

PRODUCTION = ["prod-central", "prod-cell-1", "prod-cell-2"]
EVERYTHING = ["local-central", "prod-central", "local-cell-1", "prod-cell-1", "prod-cell-2"]
CENTRAL = ["local-central", "prod-central"]
CELLS = ["local-cell-1", "prod-cell-1", "prod-cell-2"]
LATIN_1 = "größe.txt".encode("latin-1")


def central(environment: str) -> str:
    return f"config:\n  supabase-data-plane:kind: central\n  supabase-data-plane:environment: {environment}\n"


def cell(environment: str, number: int) -> str:
    return (
        f"config:\n  supabase-data-plane:kind: cell\n  supabase-data-plane:environment: {environment}\n"
        f"  supabase-data-plane:cell: cell-{number}\n"
    )


def project(number: int | str, name: str = "Name") -> str:
    return f"slug: my-app\ndisplay_name: {name}\ncell: cell-{number}\n"


FILES = {
    "stacks/Pulumi.local-central.yaml": central("local"),
    "stacks/Pulumi.local-cell-1.yaml": cell("local", 1),
    "stacks/Pulumi.prod-central.yaml": central("prod"),
    "stacks/Pulumi.prod-cell-1.yaml": cell("prod", 1),
    "stacks/Pulumi.prod-cell-2.yaml": cell("prod", 2),
    "stacks/prod/projects/one.yaml": project(1),
    "stacks/prod/projects/two.yaml": project(2),
    "stacks/local/projects/demo.yaml": project(1),
    "README.md": "Data plane\n",
}


class Repository:
    """A git repository with a base and, on top of it, a change."""

    def __init__(self, top: Path, below: str = "") -> None:
        self.top = top
        self.root = top / below
        self.root.mkdir(parents=True, exist_ok=True)
        self.git("init", "--quiet", "--initial-branch", "main")

    def git(self, *arguments: str) -> str:
        identity = ["-c", "user.name=Test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false"]
        done = subprocess.run(["git", *identity, *arguments], cwd=self.top, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def commit(self, files: dict[str, str | bytes | None]) -> str:
        """Writes files, deletes those that are None, and commits."""
        for name, content in files.items():
            path = self.root / name
            if content is None:
                path.unlink()
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content if isinstance(content, bytes) else content.encode())
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "Change")
        return self.git("rev-parse", "HEAD")

    def touched(self, base: str, head: str = "HEAD") -> list[str]:
        return [stack.stack for stack in touched_stacks(changed_paths(self.root, base, head), self.root, base, head)]


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository(tmp_path / "a checkout")
    made.commit({**FILES})
    return made


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("README.md", []),
        ("docs/operations.md", []),
        ("docs/picture.png", []),
        ("tests/unit/test_catalog.py", []),
        ("bench/cells.py", []),
        (".github/workflows/drift.yml", []),
        (".ci/run", []),
        ("connector/cli.py", []),
        ("embedded/engines.py", []),
        ("Makefile", []),
        ("pyproject.toml", []),
        ("dataplane", []),
        ("stacks/project.schema.json", []),
        ("stacks/README.md", []),
        ("stacks/prod/projects/notes.txt", []),
        ("stacks/prod/projects/README.md", []),
        ("stacks/images.yaml", CENTRAL),
        ("stacks/resources.yaml", CENTRAL),
        ("components/central/kong_config.py", CENTRAL),
        ("components/central/platform.sql", CENTRAL),
        ("components/central/scripts/common.sh", CENTRAL),
        ("components/centralized.py", EVERYTHING),
        ("components/cell.py", CELLS),
        ("components/tenant/leases.py", CELLS),
        ("components/naming.py", EVERYTHING),
        ("components/projects.py", EVERYTHING),
        ("__main__.py", EVERYTHING),
        ("Pulumi.yaml", EVERYTHING),
        ("requirements.txt", EVERYTHING),
        ("policies/pack.py", EVERYTHING),
        ("policies/data/images.yaml", EVERYTHING),
        ("stacks/policies.json", EVERYTHING),
        ("something/that/no/rule/knows.py", EVERYTHING),
        ("stacks/quotas.yaml", EVERYTHING),
        ("stacks/prod/quotas.yaml", PRODUCTION),
        ("stacks/prod/projects/folder/x.yaml", PRODUCTION),
        ("stacks/nowhere/quotas.yaml", []),
    ],
)
def test_a_file_touches_the_stacks_that_read_it(repository: Repository, path: str, expected: list[str]) -> None:
    repository.commit({path: "new"})
    assert repository.touched("HEAD^") == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"stacks/prod/projects/one.yaml": project(1, "Other")}, ["prod-cell-1"]),
        ({"stacks/prod/projects/three.yaml": project(2)}, ["prod-cell-2"]),
        ({"stacks/prod/projects/three.yml": project(2)}, ["prod-cell-2"]),
        ({"stacks/local/projects/demo.yaml": project(1, "Other")}, ["local-cell-1"]),
        ({"stacks/prod/projects/one.yaml": None}, ["prod-cell-1"]),
        ({"stacks/prod/projects/one.yaml": project(2)}, ["prod-cell-1", "prod-cell-2"]),
        (
            {"stacks/prod/projects/one.yaml": None, "stacks/local/projects/one.yaml": project(1)},
            ["local-cell-1", "prod-cell-1"],
        ),
        ({"stacks/prod/projects/one.yaml": None, "stacks/prod/projects/new.yaml": project(1)}, ["prod-cell-1"]),
        ({"stacks/prod/projects/ein Größe.yaml": project(2)}, ["prod-cell-2"]),
        ({"stacks/prod/projects/new\nline.yaml": project(2)}, ["prod-cell-2"]),
        ({"stacks/prod/projects/[a]*.yaml": project(2)}, ["prod-cell-2"]),
        ({"stacks/prod/projects/one.yaml": project(9)}, ["prod-cell-1", "prod-cell-2"]),
        ({"stacks/new/projects/one.yaml": project(1)}, []),
    ],
    ids=[
        "edited",
        "added",
        "added with the suffix that the program refuses",
        "of another environment",
        "deleted",
        "moved to another cell",
        "moved to another environment",
        "renamed",
        "blanks and letters beyond ASCII",
        "a line break",
        "what a glob would take for a pattern",
        "of a cell that nobody has",
        "of an environment without stacks",
    ],
)
def test_a_project_touches_the_cells_that_it_belongs_and_belonged_to(
    repository: Repository, change: dict[str, str | bytes | None], expected: list[str]
) -> None:
    repository.commit(change)
    assert repository.touched("HEAD^") == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"stacks/Pulumi.prod-cell-1.yaml": cell("prod", 1) + "  supabase-data-plane:cellSize: 9\n"}, ["prod-cell-1"]),
        ({"stacks/Pulumi.prod-central.yaml": central("prod") + "encryptionsalt: v1:x\n"}, ["prod-central"]),
        ({"stacks/Pulumi.prod-cell-3.yaml": cell("prod", 3)}, ["prod-cell-3"]),
        ({"stacks/Pulumi.prod-cell-2.yaml": None}, ["prod-central", "prod-cell-1"]),
        ({"stacks/Pulumi.prod-cell-2.yaml": cell("prod", 7)}, PRODUCTION),
        ({"stacks/Pulumi.local-cell-1.yaml": cell("prod", 4)}, ["local-central", "local-cell-1"]),
        (
            {
                "stacks/Pulumi.prod-cell-2.yaml": None,
                "stacks/Pulumi.b.yaml": cell("prod", 2),
                "stacks/prod/projects/two.yaml": project(2, "Other"),
            },
            ["prod-central", "b", "prod-cell-1"],
        ),
    ],
    ids=["a setting", "central", "a new cell", "a cell deleted", "a cell renamed", "another environment", "a new name"],
)
def test_settings_touch_their_stack_and_where_a_cell_goes_its_environment(
    repository: Repository, change: dict[str, str | bytes | None], expected: list[str]
) -> None:
    repository.commit(change)
    assert repository.touched("HEAD^") == expected


def test_what_happened_on_the_base_since_does_not_count(repository: Repository) -> None:
    repository.git("switch", "--quiet", "--create", "change")
    repository.commit({"stacks/prod/projects/one.yaml": None})
    repository.git("switch", "--quiet", "main")
    repository.commit({"stacks/images.yaml": "new"})
    assert repository.touched("main", "change") == ["prod-cell-1"]


def test_the_merge_that_github_checks_out_is_compared_with_its_first_parent(repository: Repository) -> None:
    repository.git("switch", "--quiet", "--create", "change")
    repository.commit({"stacks/prod/projects/one.yaml": None})
    repository.git("switch", "--quiet", "main")
    repository.commit({"stacks/images.yaml": "new"})
    repository.git("merge", "--quiet", "--no-ff", "--message", "Merge", "change")
    clone = Repository(repository.top / "clone")
    clone.git("fetch", "--quiet", "--depth", "2", f"file://{repository.top}", "main")
    assert clone.touched("FETCH_HEAD^1", "FETCH_HEAD") == ["prod-cell-1"]


def test_only_what_is_committed_counts(repository: Repository) -> None:
    repository.commit({"README.md": "new"})
    (repository.root / "stacks/prod/projects/one.yaml").write_text("no longer: [YAML", encoding="utf-8")
    assert repository.touched("HEAD^") == []


def test_a_checkout_may_be_a_folder_of_a_repository(tmp_path: Path) -> None:
    repository = Repository(tmp_path, "platform/data plane")
    repository.commit({**FILES})
    repository.commit({"stacks/prod/projects/one.yaml": None, "../other/stacks/images.yaml": "none of ours"})
    assert repository.touched("HEAD^") == ["prod-cell-1"]


def test_a_name_that_is_no_utf_8_touches_like_any_other(repository: Repository) -> None:
    repository.commit({f"policies/{os.fsdecode(LATIN_1)}": "new"})
    assert repository.touched("HEAD^") == EVERYTHING


@pytest.mark.parametrize(
    ("path", "content", "expected"),
    [
        ("stacks/prod/projects/one.yaml", "cell: [", "stacks/prod/projects/one.yaml: YAML: found "),
        ("stacks/prod/projects/one.yaml", b"cell: \xff", "stacks/prod/projects/one.yaml: YAML: found "),
        ("stacks/prod/projects/one.yaml", "", "one.yaml: document: found nothing; expected a mapping"),
        ("stacks/prod/projects/one.yaml", "slug: x", "cell: found nothing; expected the name of a cell"),
        ("stacks/prod/projects/one.yaml", "cell: 1", "cell: found 1; expected the name of a cell"),
        ("stacks/Pulumi.prod-cell-1.yaml", "config: [", "stacks/Pulumi.prod-cell-1.yaml: YAML: found "),
        ("stacks/Pulumi.prod-cell-1.yaml", "config: 1", "config: found 1; expected a mapping of settings"),
        ("stacks/Pulumi.prod-cell-1.yaml", "config: {a:kind: x}", "kind: found 'x'; expected central or cell"),
        ("stacks/Pulumi.prod-cell-1.yaml", "{}", "kind: found nothing; expected central or cell"),
        ("stacks/Pulumi.prod-cell-1.yaml", "config: {a:kind: cell}", "environment: found nothing; expected "),
        ("stacks/Pulumi.$(id).yaml", cell("prod", 5), "file name: found 'Pulumi.$(id).yaml'; expected Pulumi.<stack>"),
    ],
)
def test_a_data_file_that_cannot_be_read_is_named(
    repository: Repository, path: str, content: str | bytes, expected: str
) -> None:
    repository.commit({path: content})
    with pytest.raises(TouchedError) as caught:
        repository.touched("HEAD^")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_whoever_mends_a_file_is_not_stopped_by_what_was_wrong_with_it(repository: Repository) -> None:
    repository.commit({"stacks/prod/projects/one.yaml": "cell: [", "stacks/Pulumi.prod-cell-2.yaml": "config: ["})
    repository.commit({"stacks/prod/projects/one.yaml": project(1), "stacks/Pulumi.prod-cell-2.yaml": cell("prod", 2)})
    assert repository.touched("HEAD^") == ["prod-cell-1", "prod-cell-2"]


def test_every_stack_of_this_checkout_has_settings_that_can_be_read() -> None:
    assert {"local-central", "local-cell-1"} <= {stack.stack for stack in every_stack(CHECKOUT)}


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> Command:
    app = typer.Typer()
    app.command("touched")(touched_command)

    def run(*arguments: str, root: Path = repository.root) -> tuple[int, str, str]:
        monkeypatch.setattr(connector.touched, "CHECKOUT", root)
        done = CliRunner().invoke(app, list(arguments))
        return done.exit_code, done.stdout, done.stderr

    return run


def test_the_command_prints_a_name_a_line(repository: Repository, command: Command) -> None:
    repository.commit({"components/cell.py": "new"})
    assert command("--base", "HEAD^") == (0, "local-cell-1\nprod-cell-1\nprod-cell-2\n", "")
    assert command("--base", "HEAD^", "--deployed") == (0, "prod-cell-1\nprod-cell-2\n", "")
    assert command("--base", "HEAD^", "--head", "HEAD^") == (0, "", "")


def test_the_command_prints_a_matrix_in_one_line(repository: Repository, command: Command) -> None:
    repository.commit({"stacks/prod/projects/one.yaml": None})
    code, out, _ = command("--base", "HEAD^", "--format", "json")
    expected = {"stack": "prod-cell-1", "kind": "cell", "environment": "prod", "cell": "cell-1"}
    assert (code, json.loads(out)) == (0, {"include": [expected]})
    assert out.count("\n") == 1
    assert command("--base", "HEAD", "--format", "json") == (0, '{"include": []}\n', "")


def test_the_command_lists_every_deployed_stack(command: Command) -> None:
    assert command("--all") == (0, "".join(f"{name}\n" for name in EVERYTHING), "")
    assert command("--all", "--deployed") == (0, "".join(f"{name}\n" for name in PRODUCTION), "")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--base", "no-such-branch"], "there is no revision 'no-such-branch' here"),
        (["--base", "--all"], "there is no revision '--all' here"),
        (["--base", ""], "there is no revision '' here"),
        (["--base", "HEAD", "--head", "0" * 40], f"there is no revision '{'0' * 40}' here"),
        (["--all", "--head", "no-such-branch"], "there is no revision 'no-such-branch' here"),
        (["--base", "HEAD", "--head", "unrelated"], "HEAD and unrelated have no history in common here"),
        ([], "name what the change is compared with by --base, or ask for --all"),
        (["--all", "--base", "HEAD"], "name what the change is compared with by --base, or ask for --all"),
    ],
)
def test_the_command_says_in_one_line_what_is_wrong(
    repository: Repository, command: Command, arguments: list[str], expected: str
) -> None:
    repository.git("switch", "--quiet", "--orphan", "unrelated")
    repository.commit({"README.md": "of another history"})
    repository.git("switch", "--quiet", "main")
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {expected}")
    assert err.count("\n") == 1


def test_the_command_needs_a_git_checkout_and_git(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plain").mkdir()
    assert command("--all", root=tmp_path / "plain") == (2, "", f"error: {tmp_path / 'plain'} is not a git checkout\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert command("--all") == (2, "", "error: git is not on PATH\n")


def _imported(path: Path) -> set[str]:
    """The modules that a module imports when it runs."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    only_for_types = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in only_for_types:
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return found


@pytest.mark.parametrize(
    ("places", "forbidden"),
    [
        (["components", "policies", "__main__.py"], ("connector", "embedded", "tests", "bench")),
        (["components/tenant", "components/cell.py"], ("components.central",)),
        (["components/central"], ("components.tenant", "components.cell")),
    ],
)
def test_the_rules_of_what_touches_what_hold_for_the_program_as_it_is(
    places: list[str], forbidden: tuple[str, ...]
) -> None:
    files = [file for place in places for file in ([*(CHECKOUT / place).rglob("*.py")] or [CHECKOUT / place])]
    assert files
    for file in files:
        for module in _imported(file):
            assert not any(f"{module}.".startswith(f"{name}.") for name in forbidden), (file, module)


def test_only_central_and_the_program_itself_import_central() -> None:
    importers = {
        file.relative_to(CHECKOUT)
        for file in [*(CHECKOUT / "components").rglob("*.py")]
        if any(module.startswith("components.central") for module in _imported(file))
    }
    assert all(PurePosixPath(path).is_relative_to("components/central") for path in importers)
