"""Every way to change a file that the program reads is told, over the files that a run of it opens."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest

from data_plane.connector.affected import AffectedError, affected_stacks, changed_paths
from data_plane.state_dir import CHECKOUT

CENTRAL = """\
config:
  supabase-data-plane:kind: central
  supabase-data-plane:environment: prod
  supabase-data-plane:apiUrl: https://api.example.org
  supabase-data-plane:database: {host: db.example.org, sslmode: disable}
  supabase-data-plane:databaseAdminPassword: for this test
  supabase-data-plane:openbao: {address: "https://bao.example.org"}
  supabase-data-plane:kubernetes:
    auth: {siteUrl: "https://app.example.org", emailAutoconfirm: true}
    storage: {bucket: files}
    backups: {bucket: backups, prefix: prod}
"""
CELL = """\
config:
  supabase-data-plane:kind: cell
  supabase-data-plane:environment: prod
  supabase-data-plane:cell: cell-{number}
  supabase-data-plane:centralStack: prod-central
"""
PROJECT = "slug: {slug}\ndisplay_name: Name\ncell: cell-{number}\nowners: [olga]\n"
DEPLOYED = {
    "stacks/Pulumi.prod-central.yaml": CENTRAL,
    "stacks/Pulumi.prod-cell-1.yaml": CELL.format(number=1),
    "stacks/Pulumi.prod-cell-2.yaml": CELL.format(number=2),
    "stacks/prod/projects/one.yaml": PROJECT.format(slug="one", number=1),
    "stacks/prod/projects/two.yaml": PROJECT.format(slug="two", number=2),
}
STACKS = {"prod-central", "prod-cell-1", "prod-cell-2"}
# Runs the program with mocks for the engine, and prints what it opens below the checkout.
TRACED = """
import json, os, runpy, sys
import pulumi
from ruamel.yaml import YAML
from tests.support import declared

stack, root = sys.argv[1], os.getcwd()
opened = set()
for name in [name for name in sys.modules if name.partition(".")[0] in ("components", "data_plane")]:
    del sys.modules[name]

def hook(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes, os.PathLike)):
        path = os.path.abspath(os.fsdecode(arguments[0]))
        if path.startswith(root + os.sep) and os.path.isfile(path):
            opened.add(os.path.relpath(path, root))

def program():
    pulumi.runtime.settings.SETTINGS.root_directory = root
    project = YAML(typ="safe").load(open("Pulumi.yaml"))
    defaults = {key: item["default"] for key, item in project["config"].items() if "default" in item}
    given = YAML(typ="safe").load(open(f"stacks/Pulumi.{stack}.yaml"))["config"]
    values = {**{f"{project['name']}:{key}": value for key, value in defaults.items()}, **given}
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}
    pulumi.runtime.set_all_config(texts, [])
    pulumi.run = lambda _program: None  # the mocks run it
    runpy.run_path("__main__.py", run_name="__main__")

OUTPUTS = {"platform": {
    "database": {"host": "db", "port": 5432, "name": "postgres", "adminUser": "admin", "sslmode": "disable"},
    "openbaoAddress": "https://bao.example.org", "loginAccessor": "oidc", "apiUrl": "https://api.example.org",
}}
mocked = declared._Mocks.new_resource

def new_resource(mocks, args):
    found = mocked(mocks, args)
    if args.typ == "pulumi:pulumi:StackReference":
        return found[0], {**found[1], "outputs": OUTPUTS, "secretOutputNames": []}
    return found

declared._Mocks.new_resource = new_resource
sys.addaudithook(hook)
declared.declare(program, stack=stack)
import policies.pack
print(json.dumps(sorted(opened)))
"""


@dataclass(frozen=True)
class Checkout:
    """A git repository with this checkout's files, as they are now, and deployed stacks."""

    root: Path

    def git(self, *arguments: str, stdin: str = "") -> str:
        identity = ["-c", "user.name=Test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false"]
        done = subprocess.run(
            ["git", *identity, *arguments],
            cwd=self.root,
            input=stdin,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    def changed(self, *changes: dict[str, tuple[str, str | None]]) -> list[str]:
        """A commit on top of HEAD for each change: mode and content by path; mode 0 takes the path away."""
        head = self.git("rev-parse", "HEAD")
        lines = []
        for mark, entries in enumerate(changes, 1):
            lines.append(f"commit refs/heads/changes\nmark :{mark}\ncommitter Test <test@example.com> 0 +0000\n")
            lines.append(f"data 0\nfrom {head}\n")
            # What is taken away first: a folder can have become a file.
            for path, (mode, content) in sorted(entries.items(), key=lambda item: item[1][0] != "0"):
                if mode == "0":
                    lines.append(f"D {path}\n")
                elif content is None:
                    lines.append(f"M {mode} {head} {path}\n")
                else:
                    lines.append(f"M {mode} inline {path}\ndata {len(content.encode())}\n{content}\n")
            lines.append(f"get-mark :{mark}\n")
        return self.git("fast-import", "--quiet", "--force", stdin="".join(lines)).splitlines()

    def affected(self, head: str) -> set[str] | None:
        """What a change touches; None where it is refused."""
        try:
            changed = changed_paths(self.root, "HEAD", head)
            return {item.stack for item in affected_stacks(changed, self.root, "HEAD", head, deployed=True)}
        except AffectedError:
            return None


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    made = Checkout(tmp_path_factory.mktemp("checkout"))
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (CHECKOUT / name).is_file():
            (made.root / name).parent.mkdir(parents=True, exist_ok=True)
            (made.root / name).write_bytes((CHECKOUT / name).read_bytes())
    for name, text in DEPLOYED.items():
        (made.root / name).parent.mkdir(parents=True, exist_ok=True)
        (made.root / name).write_text(text, encoding="utf-8")
    made.git("init", "--quiet", "--initial-branch", "main")
    made.git("add", "--all")
    made.git("commit", "--quiet", "--message", "Base")
    return made


@pytest.fixture(scope="module")
def opened(checkout: Checkout, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The files that runs of deployed stacks open."""
    # With the cache elsewhere, modules are read from their sources.
    cache = str(tmp_path_factory.mktemp("cache"))
    found: set[str] = set()
    for stack in ("prod-central", "prod-cell-1"):
        done = subprocess.run(
            [sys.executable, "-c", TRACED, stack],
            cwd=checkout.root,
            env={**os.environ, "PYTHONPATH": str(checkout.root), "PYTHONPYCACHEPREFIX": cache},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        found.update(json.loads(done.stdout.splitlines()[-1]))
    # The mocks' own, and what the local environment declares for itself alone.
    return {path for path in found if not path.startswith(("tests/", "stacks/Pulumi.local-"))}


def test_a_run_opens_code_and_data(opened: set[str]) -> None:
    """What the trace is worth: it sees modules, SQL, scripts and every kind of data file."""
    assert {
        *("__main__.py", "Pulumi.yaml", "components/cell.py", "components/tenant/leases.py", "policies/pack.py"),
        *("components/central/platform.sql", "components/central/scripts/common.sh", "components/central/auth.py"),
        *("stacks/images.yaml", "stacks/resources.yaml", "stacks/Pulumi.prod-cell-2.yaml"),
        "stacks/prod/projects/two.yaml",
    } <= opened
    assert len(opened) > 80, sorted(opened)


def those_of(path: PurePosixPath) -> set[str]:
    """The stacks whose preview shows what a file says."""
    match path.parts:
        case ("components", "central", *_) | ("stacks", "images.yaml" | "resources.yaml"):
            return {"prod-central"}
        case ("components", "tenant", *_) | ("components", "cell.py"):
            return {"prod-cell-1", "prod-cell-2"}
        case ("stacks", name):
            return {name.removeprefix("Pulumi.").removesuffix(".yaml")}
        case ("stacks", "prod", "projects", name):
            return {"prod-cell-1" if name == "one.yaml" else "prod-cell-2"}
    return STACKS


def ways(checkout: Checkout, path: str) -> Iterator[tuple[str, dict[str, tuple[str, str | None]]]]:
    """Changes of one file, by what is done to it."""
    text = (checkout.root / path).read_text(encoding="utf-8")
    name = PurePosixPath(path)
    yield "edited", {path: ("100644", f"{text}\n# changed\n")}
    if name.suffix == ".py" and not name.stem.startswith("__"):
        return  # there are many, and what makes no difference is tried with some
    link = os.path.relpath("docs/elsewhere", name.parent)
    yield "a link", {path: ("120000", link), "docs/elsewhere": ("100644", text)}
    yield "deleted", {path: ("0", None)}
    yield "executable", {path: ("100755", text)}
    yield "a submodule", {path: ("160000", None)}
    yield "empty", {path: ("100644", "")}
    yield "no YAML", {path: ("100644", "a: [")}
    yield "renamed", {path: ("0", None), str(name.with_name(f"renamed-{name.name}")): ("100644", text)}
    yield "moved away", {path: ("0", None), f"docs/{name.name}": ("100644", text)}
    yield "of other case", {path: ("0", None), str(name.with_name(name.name.swapcase())): ("100644", text)}
    yield "twice by case", {str(name.with_name(name.name.swapcase())): ("100644", text)}
    if name.name.startswith("Pulumi.prod"):
        yield "local", {path: ("100644", text.replace("environment: prod", "environment: local"))}
        renamed = str(name.with_name(name.name.replace("prod", "local", 1)))
        local = text.replace("environment: prod", "environment: local")
        yield "local and renamed", {path: ("0", None), renamed: ("100644", local)}
        yield "elsewhere by another name", {path: ("100644", f"{text}  other:environment: other\n")}
        yield "of another kind", {path: ("100644", text.replace("kind: ce", "kind: other"))}
        yield "elsewhere", {path: ("100644", text.replace("environment: prod", "environment: other"))}


def test_every_change_of_what_a_run_opens_touches_its_stacks(checkout: Checkout, opened: set[str]) -> None:
    tried = [(path, *way) for path in sorted(opened) for way in ways(checkout, path)]
    missed = []
    for (path, way, _), commit in zip(tried, checkout.changed(*(entries for _, _, entries in tried)), strict=True):
        found = checkout.affected(commit)
        if found is not None and not those_of(PurePosixPath(path)) <= found:
            missed.append((path, way, sorted(found)))
    assert missed == []
    assert len(tried) > 200


def test_every_folder_of_what_a_run_opens_is_a_folder(checkout: Checkout, opened: set[str]) -> None:
    folders = {str(folder) for path in opened for folder in PurePosixPath(path).parents[:-1]}
    assert {"stacks", "stacks/prod", "stacks/prod/projects", "components", "components/central/scripts"} <= folders
    for folder in sorted(folders):
        inside = checkout.git("ls-tree", "-r", "--name-only", "HEAD", "--", folder).splitlines()
        for mode, content in (("120000", "docs/elsewhere"), ("160000", None)):
            moved = dict.fromkeys(inside, ("0", None))
            (commit,) = checkout.changed({**moved, folder: (mode, content)})
            found = checkout.affected(commit)
            assert found is None, (folder, mode)
