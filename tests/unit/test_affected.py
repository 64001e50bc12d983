"""Which stacks a change touches, told from real git repositories."""

import ast
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest
from typer.testing import CliRunner

from data_plane.cli import stack
from data_plane.connector.affected import AffectedError, affected_stacks, changed_paths, every_stack
from data_plane.state_dir import CHECKOUT

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


PROJECT = """\
name: supabase-data-plane
stackConfigDir: stacks
runtime: {name: python, options: {toolchain: pip, virtualenv: .venv}}
"""
FILES = {
    "Pulumi.yaml": PROJECT,
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


Command = Callable[..., tuple[int, str, str]]


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
        self.git("commit", "--quiet", "--allow-empty", "--message", "Change")
        return self.git("rev-parse", "HEAD")

    def affected(self, base: str, head: str = "HEAD") -> list[str]:
        return [stack.stack for stack in affected_stacks(changed_paths(self.root, base, head), self.root, base, head)]


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
        ("data_plane/cli/local.py", []),
        ("data_plane/engine/engines.py", []),
        ("Makefile", []),
        ("pyproject.toml", []),
        ("requirements-dev.txt", []),
        ("dataplane", []),
        ("stacks/project.schema.json", []),
        ("stacks/tenant-binding.schema.json", []),
        ("stacks/README.md", []),
        ("components/central/scripts/notes.md", CENTRAL),
        ("policies/README.md", EVERYTHING),
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
        ("data_plane/model/naming.py", EVERYTHING),
        ("data_plane/model/projects.py", EVERYTHING),
        ("__main__.py", EVERYTHING),
        ("requirements.txt", EVERYTHING),
        ("policies/pack.py", EVERYTHING),
        ("policies/data/images.yaml", EVERYTHING),
        ("stacks/policies.json", EVERYTHING),
        ("something/that/no/rule/knows.py", EVERYTHING),
        ("stacks/quotas.yaml", EVERYTHING),
        ("stacks/prod/quotas.yaml", PRODUCTION),
        ("stacks/prod/projects/folder/x.yaml", PRODUCTION),
        ("stacks/nowhere/quotas.yaml", EVERYTHING),
    ],
)
def test_a_file_touches_the_stacks_that_read_it(repository: Repository, path: str, expected: list[str]) -> None:
    repository.commit({path: "new"})
    assert repository.affected("HEAD^") == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"stacks/prod/projects/one.yaml": project(1, "Other")}, ["prod-cell-1"]),
        ({"stacks/prod/projects/three.yaml": project(2)}, ["prod-central", "prod-cell-2"]),
        ({"stacks/prod/projects/three.yml": project(2)}, ["prod-central", "prod-cell-2"]),
        ({"stacks/local/projects/demo.yaml": project(1, "Other")}, ["local-cell-1"]),
        ({"stacks/prod/projects/one.yaml": None}, ["prod-central", "prod-cell-1"]),
        ({"stacks/prod/projects/one.yaml": project(1) + "api: dedicated\n"}, ["prod-central", "prod-cell-1"]),
        ({"stacks/prod/projects/one.yaml": project(1) + "a_new_field: 1\n"}, ["prod-central", "prod-cell-1"]),
        ({"stacks/prod/projects/one.yaml": project(1) + "owners: [mallory]\n"}, ["prod-cell-1"]),
        ({"stacks/prod/projects/one.yaml": project(2)}, PRODUCTION),
        (
            {"stacks/prod/projects/one.yaml": None, "stacks/local/projects/one.yaml": project(1)},
            ["local-central", "prod-central", "local-cell-1", "prod-cell-1"],
        ),
        (
            {"stacks/prod/projects/one.yaml": None, "stacks/prod/projects/new.yaml": project(1)},
            ["prod-central", "prod-cell-1"],
        ),
        ({"stacks/prod/projects/ein Größe.yaml": project(2)}, ["prod-central", "prod-cell-2"]),
        ({"stacks/prod/projects/new\nline.yaml": project(2)}, ["prod-central", "prod-cell-2"]),
        ({"stacks/prod/projects/[a]*.yaml": project(2)}, ["prod-central", "prod-cell-2"]),
        ({"stacks/prod/projects/one.yaml": project(9)}, PRODUCTION),
        ({"stacks/new/projects/one.yaml": project(1)}, EVERYTHING),
    ],
    ids=[
        "edited",
        "added",
        "added with the suffix that the program refuses",
        "of another environment",
        "deleted",
        "given a PostgREST of its own",
        "with a field that no rule knows",
        "given an owner",
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
    assert repository.affected("HEAD^") == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"stacks/Pulumi.prod-cell-1.yaml": cell("prod", 1) + "  supabase-data-plane:cellSize: 9\n"}, ["prod-cell-1"]),
        ({"stacks/Pulumi.prod-central.yaml": central("prod") + "encryptionsalt: v1:x\n"}, ["prod-central"]),
        (
            {"stacks/Pulumi.prod-central.yaml": central("prod") + "  supabase-data-plane:projectApi: dedicated\n"},
            PRODUCTION,
        ),
        ({"stacks/Pulumi.prod-cell-3.yaml": cell("prod", 3)}, ["prod-central", "prod-cell-3"]),
        (
            {"stacks/Pulumi.prod-cell-1.yaml": cell("prod", 1) + "  supabase-data-plane:centralStack: prod-central\n"},
            ["prod-central", "prod-cell-1"],
        ),
        ({"stacks/prod/projects/one.yaml": project(1) + "api: dedicated\n"}, ["prod-central", "prod-cell-1"]),
        ({"stacks/Pulumi.prod-cell-2.yaml": None}, PRODUCTION),
        ({"stacks/Pulumi.prod-cell-2.yaml": cell("prod", 7)}, PRODUCTION),
        ({"stacks/Pulumi.local-cell-1.yaml": cell("prod", 4)}, ["local-central", "prod-central", "local-cell-1"]),
        (
            {
                "stacks/Pulumi.prod-cell-2.yaml": None,
                "stacks/Pulumi.b.yaml": cell("prod", 2),
                "stacks/prod/projects/two.yaml": project(2, "Other"),
            },
            ["prod-central", "b", "prod-cell-1", "prod-cell-2"],
        ),
    ],
    ids=[
        "a setting",
        "central",
        "the API that projects get",
        "a new cell",
        "a cell of another central",
        "a dedicated API",
        "a cell deleted",
        "a cell renamed",
        "another environment",
        "a new name",
    ],
)
def test_settings_touch_their_stack_and_where_a_cell_goes_its_environment(
    repository: Repository, change: dict[str, str | bytes | None], expected: list[str]
) -> None:
    repository.commit(change)
    assert repository.affected("HEAD^") == expected


def test_what_happened_on_the_base_since_does_not_count(repository: Repository) -> None:
    repository.git("switch", "--quiet", "--create", "change")
    repository.commit({"stacks/prod/projects/one.yaml": None})
    repository.git("switch", "--quiet", "main")
    repository.commit({"stacks/images.yaml": "new"})
    assert repository.affected("main", "change") == ["prod-central", "prod-cell-1"]


def test_the_merge_that_github_checks_out_is_compared_with_its_first_parent(repository: Repository) -> None:
    repository.git("switch", "--quiet", "--create", "change")
    repository.commit({"stacks/prod/projects/one.yaml": None})
    repository.git("switch", "--quiet", "main")
    repository.commit({"stacks/images.yaml": "new"})
    repository.git("merge", "--quiet", "--no-ff", "--message", "Merge", "change")
    clone = Repository(repository.top / "clone")
    clone.git("fetch", "--quiet", "--depth", "2", f"file://{repository.top}", "main")
    assert clone.affected("FETCH_HEAD^1", "FETCH_HEAD") == ["prod-central", "prod-cell-1"]


def test_only_what_is_committed_counts(repository: Repository) -> None:
    repository.commit({"README.md": "new"})
    (repository.root / "stacks/prod/projects/one.yaml").write_text("no longer: [YAML", encoding="utf-8")
    assert repository.affected("HEAD^") == []


def test_a_checkout_may_be_a_folder_of_a_repository(tmp_path: Path) -> None:
    repository = Repository(tmp_path, "platform/data plane")
    repository.commit({**FILES})
    repository.commit({"stacks/prod/projects/one.yaml": None, "../other/stacks/images.yaml": "none of ours"})
    assert repository.affected("HEAD^") == ["prod-central", "prod-cell-1"]


def test_a_name_that_is_no_utf_8_touches_like_any_other(repository: Repository) -> None:
    repository.commit({f"policies/{os.fsdecode(LATIN_1)}": "new"})
    assert repository.affected("HEAD^") == EVERYTHING


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
        (
            "stacks/Pulumi.prod-cell-1.yaml",
            "config: {supabase-data-plane:kind: x}",
            "kind: found 'x'; expected central or cell",
        ),
        ("stacks/Pulumi.prod-cell-1.yaml", "{}", "kind: found nothing; expected central or cell"),
        (
            "stacks/Pulumi.prod-cell-1.yaml",
            "config: {supabase-data-plane:kind: cell}",
            "environment: found nothing; expected ",
        ),
        ("stacks/Pulumi.$(id).yaml", cell("prod", 5), "file name: found 'Pulumi.$(id).yaml'; expected Pulumi.<stack>"),
    ],
)
def test_a_data_file_that_cannot_be_read_is_named(
    repository: Repository, path: str, content: str | bytes, expected: str
) -> None:
    repository.commit({path: content})
    with pytest.raises(AffectedError) as caught:
        repository.affected("HEAD^")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_repair_does_not_fail_on_what_it_repairs(repository: Repository) -> None:
    repository.commit({"stacks/prod/projects/one.yaml": "cell: [", "stacks/Pulumi.prod-cell-2.yaml": "config: ["})
    repository.commit({"stacks/prod/projects/one.yaml": project(1), "stacks/Pulumi.prod-cell-2.yaml": cell("prod", 2)})
    assert repository.affected("HEAD^") == PRODUCTION


def test_a_stack_that_is_removed_says_so(repository: Repository) -> None:
    repository.commit({"stacks/Pulumi.prod-cell-2.yaml": None})
    found = affected_stacks(changed_paths(repository.root, "HEAD^"), repository.root, "HEAD^", deployed=True)
    assert [stack.stack for stack in found if stack.removed] == ["prod-cell-2"]


def test_removed_settings_that_could_not_be_read_were_a_deployed_stack_s(repository: Repository) -> None:
    repository.commit({"stacks/Pulumi.prod-cell-2.yaml": "config: ["})
    repository.commit({"stacks/Pulumi.prod-cell-2.yaml": None})
    found = affected_stacks(changed_paths(repository.root, "HEAD^"), repository.root, "HEAD^", deployed=True)
    assert [(stack.stack, stack.removed) for stack in found] == [("prod-cell-2", True)]


@pytest.mark.parametrize("name", ["prod-cell-1", "prod-central"])
def test_a_deployed_stack_never_calls_itself_local(repository: Repository, command: Command, name: str) -> None:
    path = repository.root / "stacks" / f"Pulumi.{name}.yaml"
    text = path.read_text(encoding="utf-8").replace("environment: prod", "environment: local")
    repository.commit({f"stacks/Pulumi.{name}.yaml": text})
    for arguments in (("--base", "HEAD^", "--deployed"), ("--all", "--deployed")):
        code, out, err = command(*arguments)
        assert (code, out) == (2, "")
        assert f"stacks/Pulumi.{name}.yaml: environment: found 'local'; expected a deployed one" in err


@pytest.mark.parametrize("key", ["x:environment", "environment", "supabase-data-plane:config:environment"])
def test_a_setting_by_which_a_stack_is_known_has_one_name(repository: Repository, key: str) -> None:
    repository.commit({"stacks/Pulumi.prod-cell-1.yaml": cell("prod", 1) + f"  {key}: other\n"})
    expected = f"prod-cell-1.yaml: {key}: found 'other'; expected this setting as supabase-data-plane:environment"
    with pytest.raises(AffectedError, match=expected):
        repository.affected("HEAD^")


def test_a_stack_named_local_that_was_deployed_stays_so(repository: Repository) -> None:
    repository.commit({"stacks/Pulumi.local-x.yaml": cell("prod", 3)})
    repository.commit({"stacks/Pulumi.local-x.yaml": cell("local", 3)})
    with pytest.raises(AffectedError, match="stack local-x was of environment 'prod' and is to be of 'local'"):
        repository.affected("HEAD^")


LINKS = [
    "stacks",
    "stacks/images.yaml",
    "stacks/prod",
    "stacks/prod/projects",
    "stacks/prod/projects/one.yaml",
    "stacks/Pulumi.prod-cell-1.yaml",
    "stacks/notes.md",
    "components",
    "components/central/platform.sql",
    "policies/data/images.yaml",
    "Pulumi.yaml",
    "yaml",
]


@pytest.mark.parametrize("path", LINKS)
def test_a_link_where_the_program_reads_is_refused(repository: Repository, path: str) -> None:
    place = repository.root / path
    target = repository.root / "docs" / place.name
    target.parent.mkdir()
    if place.exists():
        place.rename(target)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(os.path.relpath(target, place.parent))
    repository.commit({"docs/more.md": "more"})
    with pytest.raises(AffectedError, match=f"at HEAD: {path}: file: found a symbolic link; expected the file itself"):
        repository.affected("HEAD^")
    with pytest.raises(AffectedError, match=f"{path}: file: found a symbolic link; expected the file itself"):
        every_stack(repository.root)


def test_removing_a_link_does_not_fail_on_the_link(repository: Repository) -> None:
    place = repository.root / "stacks/prod/projects/one.yaml"
    place.unlink()
    place.symlink_to("two.yaml")
    repository.commit({})
    place.unlink()
    repository.commit({"stacks/prod/projects/one.yaml": project(1)})
    assert repository.affected("HEAD^") == PRODUCTION


def test_a_link_that_no_program_reads_is_nobody_s_trouble(repository: Repository) -> None:
    repository.commit({"docs/a.md": "a"})
    (repository.root / "docs" / "b.md").symlink_to("a.md")
    repository.commit({})
    assert repository.affected("HEAD^") == []


def test_a_submodule_is_told_though_its_settings_hide_it(repository: Repository) -> None:
    commit = repository.git("rev-parse", "HEAD")
    hidden = '[submodule "x"]\n\tpath = docs/x\n\turl = ./x\n\tignore = all\n'
    (repository.root / ".gitmodules").write_text(hidden, encoding="utf-8")
    repository.git("add", ".gitmodules")
    repository.git("update-index", "--add", "--cacheinfo", f"160000,{commit},docs/x")
    repository.git("commit", "--quiet", "--message", "Change")
    assert PurePosixPath("docs/x") in changed_paths(repository.root, "HEAD^")
    repository.git("update-index", "--add", "--cacheinfo", f"160000,{commit},components/x")
    repository.git("commit", "--quiet", "--message", "Change")
    with pytest.raises(AffectedError, match="components/x: file: found a submodule"):
        repository.affected("HEAD^")


@pytest.mark.parametrize(
    "path", ["stacks/PROD/projects/one.yaml", "stacks/prod/projects/ONE.yaml", "Stacks/x.yaml", "pulumi.yaml"]
)
def test_paths_that_differ_by_case_alone_are_refused(repository: Repository, path: str) -> None:
    repository.commit({path: project(1)})
    with pytest.raises(AffectedError, match="expected paths that differ by more than case"):
        repository.affected("HEAD^")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"Pulumi.yaml": "name: x\n"}, "Pulumi.yaml: stackConfigDir: found nothing; expected stacks"),
        ({"Pulumi.yaml": PROJECT.replace("stacks", "docs")}, "stackConfigDir: found 'docs'; expected stacks"),
        ({"Pulumi.yaml": PROJECT + "main: tests/\n"}, "Pulumi.yaml: main: found a field that may lead elsewhere"),
        ({"Pulumi.yaml": PROJECT + "plugins: {}\n"}, "Pulumi.yaml: plugins: found a field that may lead elsewhere"),
        (
            {"Pulumi.yaml": PROJECT.replace(".venv", "tests/venv")},
            "Pulumi.yaml: runtime.options.virtualenv: found 'tests/venv'; expected .venv",
        ),
        (
            {"Pulumi.yaml": PROJECT.replace("name: python", "name: nodejs")},
            "runtime.name: found 'nodejs'; expected python",
        ),
        ({"Pulumi.yml": PROJECT}, "Pulumi.yml: file: found a second project file; expected Pulumi.yaml alone"),
        ({"Pulumi.yaml": None}, "Pulumi.yaml: file: found nothing; expected the file of the Pulumi project"),
    ],
)
def test_the_program_and_its_settings_are_where_they_are_looked_for(
    repository: Repository, files: dict[str, str | bytes | None], expected: str
) -> None:
    repository.commit(files)
    with pytest.raises(AffectedError) as caught:
        repository.affected("HEAD^")
    assert expected in str(caught.value)


def test_code_of_a_kind_that_is_not_deployed_touches_what_is(repository: Repository) -> None:
    repository.commit({f"stacks/Pulumi.prod-cell-{number}.yaml": None for number in (1, 2)})
    repository.commit({"components/tenant/leases.py": "new"})
    found = affected_stacks(changed_paths(repository.root, "HEAD^"), repository.root, "HEAD^", deployed=True)
    assert [stack.stack for stack in found] == ["prod-central"]


def test_every_stack_of_this_checkout_has_settings_that_can_be_read() -> None:
    assert {"local-central", "local-cell-1"} <= {stack.stack for stack in every_stack(CHECKOUT)}


@pytest.fixture
def command(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> Command:
    def run(*arguments: str, root: Path = repository.root) -> tuple[int, str, str]:
        monkeypatch.setattr(stack, "CHECKOUT", root)
        done = CliRunner().invoke(stack.app, ["affected", *arguments])
        return done.exit_code, done.stdout, done.stderr

    return run


def test_the_command_prints_a_name_a_line(repository: Repository, command: Command) -> None:
    repository.commit({"components/cell.py": "new"})
    assert command("--base", "HEAD^") == (0, "local-cell-1\nprod-cell-1\nprod-cell-2\n", "")
    assert command("--base", "HEAD^", "--deployed") == (0, "prod-cell-1\nprod-cell-2\n", "")
    assert command("--base", "HEAD^", "--head", "HEAD^") == (0, "", "")


def test_the_command_prints_a_matrix_in_one_line(repository: Repository, command: Command) -> None:
    repository.commit({"stacks/prod/projects/one.yaml": project(1, "Other")})
    code, out, _ = command("--base", "HEAD^", "--format", "json")
    expected = {"stack": "prod-cell-1", "kind": "cell", "environment": "prod", "cell": "cell-1", "removed": False}
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
    assert err.startswith(f"error[affected-undecidable]: {expected}")
    assert err.count("\n") == 1


def test_the_command_needs_a_git_checkout_and_git(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plain").mkdir()
    assert command("--all", root=tmp_path / "plain") == (
        2,
        "",
        f"error[affected-undecidable]: {tmp_path / 'plain'} is not a git checkout\n",
    )
    monkeypatch.setenv("PATH", str(tmp_path))
    assert command("--all") == (2, "", "error[affected-undecidable]: git is not on PATH\n")


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
        (
            ["components", "policies", "__main__.py", "data_plane/model"],
            ("data_plane.cli", "data_plane.connector", "data_plane.engine", "data_plane.local", "tests", "bench"),
        ),
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
