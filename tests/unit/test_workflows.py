"""What GitHub runs: read as data, and its scripts run against programs that stand in for GitHub's and Pulumi's."""

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
from ruamel.yaml import YAML

from data_plane.cli.main import app
from data_plane.engine.cli import VERSION
from data_plane.engine.stack_files import policy_config, policy_packs
from data_plane.state_dir import CHECKOUT

GITHUB = CHECKOUT / ".github"
PULL_REQUEST = ".github/workflows/pull-request.yml"
DRIFT = ".github/workflows/drift.yml"
MAIN = ".github/workflows/main.yml"
SETUP = ".github/actions/setup/action.yml"
ENGINE = ".github/actions/engine/action.yml"
PULUMI_ACTION = ".github/actions/pulumi/action.yml"
PREVIEW = ".github/scripts/preview"
REPORT = ".github/scripts/report"
TRIGGERS = {PULL_REQUEST: {"pull_request", "merge_group"}, MAIN: {"push"}, DRIFT: {"schedule", "workflow_dispatch"}}
# Whatever is not written here may only read.
WRITES = {
    (PULL_REQUEST, "hand-offs"): {"security-events"},
    (PULL_REQUEST, "preview"): {"id-token", "pull-requests"},
    (DRIFT, "drift"): {"id-token", "issues"},
}
GATE = "checked"
ENGINE_USE = "./.github/actions/engine"
PINNED = re.compile(r"(?P<action>[\w.-]+/[\w.-]+(/[\w.-]+)*)@[0-9a-f]{40} # v[0-9]+\.[0-9]+\.[0-9]+")
SAME_REPOSITORY = "github.event.pull_request.head.repo.full_name == github.repository"
# Numbers, hashes and names that GitHub gives; everything else of an event is somebody's free text.
HARMLESS = {
    "github.event_name",
    "github.event.pull_request.number",
    "github.event.pull_request.head.repo.full_name",
    "github.event.pull_request.user.type",
    "github.event.merge_group.base_sha",
}

Files = dict[str, str]


def committed() -> Files:
    return {
        str(path.relative_to(CHECKOUT)): path.read_text(encoding="utf-8")
        for path in sorted(GITHUB.rglob("*"))
        if path.is_file()
    }


def parsed(text: str) -> dict[str, Any]:
    return dict(YAML(typ="safe").load(text))


@dataclass(frozen=True)
class Job:
    file: str
    name: str
    body: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.file}: {self.name}"

    def uses(self, action: str) -> Iterator[dict[str, Any]]:
        return (step for step in self.body["steps"] if step.get("uses", "").partition("@")[0] == action)


def yaml_files(files: Files) -> dict[str, dict[str, Any]]:
    return {name: parsed(text) for name, text in files.items() if name.endswith((".yml", ".yaml"))}


def jobs(files: Files) -> Iterator[Job]:
    for name, document in yaml_files(files).items():
        for job, body in document.get("jobs", {}).items():
            yield Job(name, job, body)


def steps(files: Files) -> Iterator[tuple[str, dict[str, Any]]]:
    for job in jobs(files):
        yield from ((str(job), step) for step in job.body["steps"])
    for name, document in yaml_files(files).items():
        yield from ((name, step) for step in document.get("runs", {}).get("steps", ()))


def shell_texts(files: Files) -> Iterator[tuple[str, str]]:
    yield from ((place, step["run"]) for place, step in steps(files) if "run" in step)
    yield from ((name, text) for name, text in files.items() if name.startswith(".github/scripts/"))


def pin_problems(files: Files) -> Iterator[str]:
    pins: dict[str, set[str]] = {}
    for name, text in files.items():
        written = re.findall(r"^\s*(?:-\s+)?uses: (.+?)\s*$", text, re.MULTILINE)
        for use in written:
            match = PINNED.fullmatch(use)
            if match:
                pins.setdefault(match["action"], set()).add(use)
            elif not (use.startswith("./") and f"{use.removeprefix('./')}/action.yml" in files):
                yield f"{name}: {use} is not pinned by a commit and its version"
        if name.endswith(".yml") and len(written) != len(re.findall(r"\buses\b", text)):
            yield f"{name}: a use that is not written as `uses: …` in a line of its own"
    yield from (f"{action} is pinned in {len(found)} ways" for action, found in pins.items() if len(found) > 1)


def permission_problems(files: Files) -> Iterator[str]:
    for name, document in yaml_files(files).items():
        if "jobs" in document and document.get("permissions") != {"contents": "read"}:
            yield f"{name}: not `contents: read` at the top"
    for job in jobs(files):
        permissions = job.body.get("permissions")
        if not isinstance(permissions, dict):
            yield f"{job}: permissions are not explicit"
            continue
        writes = {scope for scope, level in permissions.items() if level == "write"}
        if writes != WRITES.get((job.file, job.name), set()):
            yield f"{job}: may write {sorted(writes)}"
        if set(permissions.values()) - {"read", "write"}:
            yield f"{job}: a permission that is neither read nor write"
        if ("id-token" in permissions) != any(job.uses(ENGINE_USE)):
            yield f"{job}: id-token is for the jobs that sign in to OpenBao, and for no other"


def job_problems(files: Files) -> Iterator[str]:
    for job in jobs(files):
        timeout = job.body.get("timeout-minutes")
        if not isinstance(timeout, int) or not 0 < timeout <= 120:
            yield f"{job}: no timeout"
        if any(step.get("with", {}).get("persist-credentials") is not False for step in job.uses("actions/checkout")):
            yield f"{job}: the checkout keeps its credentials"
        if not any(job.uses(ENGINE_USE)):
            continue
        if not job.body.get("environment"):
            yield f"{job}: credentials without an environment"
        if job.file == PULL_REQUEST and f"&& {SAME_REPOSITORY}" not in " ".join(job.body.get("if", "").split()):
            yield f"{job}: credentials for the code of forks"
        if not any(step.get("run", "").count(PREVIEW) for step in job.body["steps"]):
            yield f"{job}: does not preview"


def trigger_problems(files: Files) -> Iterator[str]:
    for name, document in yaml_files(files).items():
        if "jobs" not in document:
            continue
        if set(document["on"]) != TRIGGERS[name]:
            yield f"{name}: is started by {sorted(document['on'])}"
        if document.get("concurrency", {}).get("cancel-in-progress") is not (name == PULL_REQUEST):
            yield f"{name}: concurrency"


def text_problems(files: Files) -> Iterator[str]:
    for place, text in shell_texts(files):
        if "${{" in text:
            yield f"{place}: an expression in a script"
        if re.search(r"\beval\b", text):
            yield f"{place}: evaluates text"
    for name, text in files.items():
        code = re.sub(r"^\s*#.*$", "", text, flags=re.MULTILINE)
        for found in re.findall(r"github\.(?:event[\w.\[\]'\"*-]*|head_ref)", code):
            if found not in HARMLESS:
                yield f"{name}: {found} is somebody's free text"
        if re.search(r"\bsecrets\b[.\[]|secrets: inherit", code):
            yield f"{name}: a secret of GitHub's"


@cache
def commands() -> dict[str, set[str]]:
    """The options of each command, by its words."""

    def found(group: Any, *path: str) -> Iterator[tuple[str, set[str]]]:
        context = typer.Context(group)
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            if hasattr(command, "list_commands"):
                yield from found(command, *path, name)
            else:
                yield (
                    " ".join([*path, name]),
                    {option for parameter in command.params for option in parameter.opts},
                )

    return dict(found(typer.main.get_group(app)))


def reference_problems(files: Files) -> Iterator[str]:
    makefile = (CHECKOUT / "Makefile").read_text(encoding="utf-8")
    for place, text in shell_texts(files):
        for target in re.findall(r"\bmake ([\w-]+)", text):
            if not re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE):
                yield f"{place}: there is no `make {target}`"
        for module in re.findall(r"python -m ([\w.]+)", text):
            if importlib.util.find_spec(module) is None:
                yield f"{place}: there is no module {module}"
        for called in re.findall(r"\./dataplane ([^\n)|]*)", text):
            words = shlex.split(called)
            command = next((name for name in (" ".join(words[:2]), words[0]) if name in commands()), None)
            if command is None:
                yield f"{place}: there is no `dataplane {' '.join(words[:2])}`"
                continue
            options = {word for word in words if word.startswith("--")}
            yield from (f"{place}: `dataplane {command}` has no {option}" for option in options - commands()[command])
        for script in re.findall(r"\.github/scripts/[\w.-]+", text):
            if script not in files or not os.access(CHECKOUT / script, os.X_OK):
                yield f"{place}: there is no program {script}"


def policy_problems(files: Files) -> Iterator[str]:
    texts = [text for _, text in shell_texts(files)]
    previews = [line for text in texts for line in text.splitlines() if re.search(r"^[^#]*\bpreview --?\w", line)]
    if previews != [line for line in previews if line.startswith('./dataplane preview --stack "$STACK" ')]:
        yield "a preview that is not `dataplane preview`, which has the policies"
    if len(previews) != 1:
        yield "not one preview"


def gate_problems(files: Files) -> Iterator[str]:
    names = {job.name: job.body for job in jobs(files) if job.file == PULL_REQUEST}
    gate = names.pop(GATE, None)
    if gate is None or gate.get("if") != "always()":
        yield "the gate does not always run"
    elif set(gate["needs"]) != set(names):
        yield f"the gate does not wait for {sorted(set(names) ^ set(gate['needs']))}"


def problems(files: Files) -> list[str]:
    checks = (
        pin_problems,
        permission_problems,
        job_problems,
        trigger_problems,
        text_problems,
        reference_problems,
        policy_problems,
        gate_problems,
    )
    return [problem for check in checks for problem in check(files)]


def test_the_workflows_have_no_problem() -> None:
    assert problems(committed()) == []


CHECKOUT_USE = "actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1"


@pytest.mark.parametrize(
    ("file", "text", "by", "expected"),
    [
        (DRIFT, CHECKOUT_USE, "actions/checkout@v7", "actions/checkout@v7 is not pinned"),
        (DRIFT, CHECKOUT_USE, CHECKOUT_USE.partition(" #")[0], "is not pinned by a commit and its version"),
        (DRIFT, CHECKOUT_USE, CHECKOUT_USE.replace("v7.0.1", "v7"), "is not pinned by a commit and its version"),
        (DRIFT, CHECKOUT_USE, CHECKOUT_USE.replace("3d3c", "3d3d"), "actions/checkout is pinned in 2 ways"),
        (SETUP, "setup-python@ece7cb06", "setup-python@main#", "is not pinned"),
        (DRIFT, "- uses: ./.github/actions/setup", "- {uses: a/b@main}", "not written as `uses: …`"),
        (DRIFT, "./.github/actions/setup", "./.github/actions/nothing", "nothing is not pinned"),
        (PULL_REQUEST, "permissions:\n  contents: read\n", "", "not `contents: read` at the top"),
        (PULL_REQUEST, "permissions:\n  contents: read\n", "permissions: write-all\n", "not `contents: read` at"),
        (PULL_REQUEST, "    permissions:\n      contents: read\n", "", "lint: permissions are not explicit"),
        (PULL_REQUEST, "      contents: read\n", "      contents: write\n", "lint: may write ['contents']"),
        (PULL_REQUEST, "      pull-requests: write\n", "", "preview: may write ['id-token']"),
        (PULL_REQUEST, "permissions: {}", "permissions: {id-token: write}", "id-token is for the jobs that sign in"),
        (PULL_REQUEST, "permissions: {}", "permissions: {contents: admin}", "neither read nor write"),
        (PULL_REQUEST, "    timeout-minutes: 5\n", "", "checked: no timeout"),
        (DRIFT, "timeout-minutes: 60", "timeout-minutes: 6000", "drift: no timeout"),
        (
            DRIFT,
            "persist-credentials: false",
            "persist-credentials: true",
            "stacks: the checkout keeps its credentials",
        ),
        (DRIFT, "        with:\n          persist-credentials: false\n", "", "the checkout keeps its credentials"),
        (DRIFT, "    environment: drift\n", "", "drift: credentials without an environment"),
        (
            PULL_REQUEST,
            f"      && {SAME_REPOSITORY}\n      &&",
            "      &&",
            "preview: credentials for the code of forks",
        ),
        (PULL_REQUEST, "  pull_request:\n", "  pull_request_target:\n", "'pull_request_target'"),
        (PULL_REQUEST, "  pull_request:\n", "  pull_request:\n  workflow_run:\n", "'workflow_run'"),
        (PULL_REQUEST, "cancel-in-progress: true", "cancel-in-progress: false", "concurrency"),
        (DRIFT, "concurrency:\n  group: drift\n  cancel-in-progress: false\n", "", "concurrency"),
        (PULL_REQUEST, "make lint", "make lint ${{ github.base_ref }}", "lint: an expression in a script"),
        (SETUP, "make setup", "make setup ${{ inputs.more }}", "an expression in a script"),
        (PREVIEW, 'cat "$file"', 'eval "$STACK"', "preview: evaluates text"),
        (
            PULL_REQUEST,
            "OUTCOME: ${{",
            "TITLE: ${{ github.event.pull_request.title }}\n          OUTCOME: ${{",
            "title is",
        ),
        (PULL_REQUEST, "OUTCOME: ${{", "REF: ${{ github.head_ref }}\n          OUTCOME: ${{", "head_ref is somebody's"),
        (DRIFT, "${{ github.token }}", "${{ secrets.TOKEN }}", "a secret of GitHub's"),
        (PULL_REQUEST, "make test", "make tests", "there is no `make tests`"),
        (
            PULL_REQUEST,
            "python -m policies.artifacts",
            "python -m policies.fence",
            "there is no module policies.fence",
        ),
        (
            DRIFT,
            "./dataplane stack affected",
            "./dataplane concerned",
            "there is no `dataplane concerned --all`",
        ),
        (DRIFT, "--deployed", "--real", "`dataplane stack affected` has no --real"),
        (DRIFT, ".github/scripts/report", ".github/scripts/tell", "there is no program .github/scripts/tell"),
        (DRIFT, ".github/scripts/preview", "pulumi preview", "drift: does not preview"),
        (PREVIEW, "./dataplane preview", "pulumi preview", "a preview that is not `dataplane preview`"),
        (PREVIEW, "./dataplane preview", "true", "not one preview"),
        (PREVIEW, "--diff", "--differences", "`dataplane preview` has no --differences"),
        (
            PULL_REQUEST,
            "needs: [lint, test, hand-offs,",
            "needs: [lint, test,",
            "the gate does not wait for ['hand-offs']",
        ),
        (PULL_REQUEST, "    if: always()\n", "", "the gate does not always run"),
        (PULL_REQUEST, "  checked:\n", "  done:\n", "the gate does not always run"),
    ],
)
def test_each_check_finds_what_it_is_for(file: str, text: str, by: str, expected: str) -> None:
    files = committed()
    assert text in files[file]
    files[file] = files[file].replace(text, by, 1)
    assert any(expected in problem for problem in problems(files)), problems(files)


def test_the_engine_is_the_one_that_is_built_elsewhere() -> None:
    done = run_step(PULUMI_ACTION, "pinned", {"GITHUB_OUTPUT": "/dev/stdout"})
    assert f"version={VERSION}\n" in done.stdout


# --- the scripts, run

needs_jq = pytest.mark.skipif(shutil.which("jq") is None, reason="needs jq, which GitHub's runners have")


def step_text(file: str, identifier: str) -> str:
    found = [step["run"] for _, step in steps({file: committed()[file]}) if step.get("id") == identifier]
    return str(found[0])


def bash(text: str, environment: dict[str, str], cwd: Path = CHECKOUT) -> subprocess.CompletedProcess[str]:
    # As GitHub runs `shell: bash`.
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", text],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


def run_step(file: str, identifier: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return bash(step_text(file, identifier), environment)


@needs_jq
@pytest.mark.parametrize(
    ("changed", "without", "passes"),
    [
        ({}, "false", True),
        ({"preview": "skipped"}, "true", True),
        ({"preview": "skipped"}, "false", False),
        ({"preview": "skipped"}, "", False),
        *(
            ({job: result}, "true", False)
            for job in ("lint", "hand-offs", "preview")
            for result in ("failure", "cancelled")
        ),
        ({"lint": "skipped"}, "true", False),
        ({"affected": "failure", "preview": "skipped"}, "true", False),
    ],
)
def test_the_gate_passes_only_what_has_run_through(changed: dict[str, str], without: str, passes: bool) -> None:
    (gate,) = (job for job in jobs(committed()) if job.name == GATE)
    (step,) = gate.body["steps"]
    results = {**dict.fromkeys(gate.body["needs"], "success"), **changed}
    needs = {job: {"result": result, "outputs": {"stacks": '$(id) "'}} for job, result in results.items()}
    done = bash(step["run"], {"NEEDS": json.dumps(needs), "NO_PREVIEW": without})
    assert (done.returncode == 0) is passes, done.stderr
    assert f"lint: {results['lint']}\n" in done.stdout


def conditions(text: str) -> set[str]:
    return {part.strip() for part in re.split(r"&&|\|\|", text.strip().removeprefix("${{").removesuffix("}}"))}


def test_a_change_of_a_stack_passes_without_a_preview_only_in_a_queue_and_of_a_bot() -> None:
    (gate,) = (job for job in jobs(committed()) if job.name == GATE)
    (preview,) = (job for job in jobs(committed()) if (job.file, job.name) == (PULL_REQUEST, "preview"))
    count, bot = "needs.affected.outputs.count {} '0'", "github.event.pull_request.user.type {} 'Bot'"
    # In a queue there is no pull request, so no head repository that is this one.
    assert conditions(preview.body["if"]) == {count.format("!="), bot.format("!="), SAME_REPOSITORY}
    assert conditions(gate.body["steps"][0]["env"]["NO_PREVIEW"]) == {
        count.format("=="),
        bot.format("=="),
        "github.event_name == 'merge_group'",
    }


def test_every_kind_of_pin_is_updated() -> None:
    updates = parsed(committed()[".github/dependabot.yml"])["updates"]
    assert {update["package-ecosystem"] for update in updates} == {"github-actions", "pip", "gomod"}
    folders = [folder for update in updates for folder in update.get("directories", [update.get("directory")])]
    assert all(list(CHECKOUT.glob(folder.lstrip("/") or "*")) for folder in folders)
    actions = {"/", *(f"/{path.parent.parent.relative_to(CHECKOUT)}/*" for path in GITHUB.glob("actions/*/action.yml"))}
    assert actions <= set(folders)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Puts a program that is a Python text on PATH, in front of all others."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def put(name: str, text: str) -> None:
        (folder / name).write_text(f"#!{sys.executable}\n{text}", encoding="utf-8")
        (folder / name).chmod(0o755)

    return put


DATAPLANE = """#!/bin/sh
echo "$@" > arguments
printf '%s' "$CHANGES"
echo progress >&2
exit "$CODE"
"""


@pytest.mark.parametrize(
    ("code", "changes", "expected", "shown"),
    [
        (0, "no change\n", 0, "no change\n"),
        (2, "alice loses owner\n", 2, "alice loses owner\n"),
        (1, "", 1, "progress\n"),
        (1, "half\n", 1, "progress\nhalf\n"),
        # As of a command line that is not understood.
        (2, "", 1, "progress\n"),
        (139, "half\n", 1, "progress\nhalf\n"),
    ],
)
def test_a_preview_keeps_what_changes_and_after_a_failure_its_reason_first(
    tmp_path: Path, code: int, changes: str, expected: int, shown: str
) -> None:
    (tmp_path / "dataplane").write_text(DATAPLANE, encoding="utf-8")
    (tmp_path / "dataplane").chmod(0o755)
    command = f'{CHECKOUT / PREVIEW} "{tmp_path}/a file" --refresh --detailed-exitcode'
    done = bash(command, {"STACK": "prod cell", "CHANGES": changes, "CODE": str(code)}, tmp_path)
    assert done.returncode == expected
    assert done.stdout == (tmp_path / "a file").read_text(encoding="utf-8") == shown
    arguments = (tmp_path / "arguments").read_text(encoding="utf-8")
    assert arguments == "preview --stack prod cell --diff --refresh --detailed-exitcode\n"
    assert {path.name for path in tmp_path.iterdir()} == {"dataplane", "arguments", "a file"}


def test_every_run_of_a_stack_has_the_checkout_s_policies_and_their_settings(tmp_path: Path) -> None:
    assert policy_packs(CHECKOUT) == [CHECKOUT / "policies"]
    assert policy_config(tmp_path) is None
    (tmp_path / "stacks").mkdir()
    (tmp_path / "stacks" / "policies.json").write_text("{}", encoding="utf-8")
    assert policy_config(tmp_path) == tmp_path / "stacks" / "policies.json"


@pytest.mark.parametrize(
    ("code", "expected"), [(0, (0, "found=nothing\n")), (2, (0, "found=drift\n")), (1, (1, "")), (7, (7, ""))]
)
def test_drift_is_told_from_a_run_that_could_not_tell(tmp_path: Path, code: int, expected: tuple[int, str]) -> None:
    (tmp_path / PREVIEW).parent.mkdir(parents=True)
    (tmp_path / PREVIEW).write_text(f"#!/bin/sh\nexit {code}\n", encoding="utf-8")
    (tmp_path / PREVIEW).chmod(0o755)
    output = tmp_path / "output"
    output.touch()
    variables = {"GITHUB_OUTPUT": str(output), "RUNNER_TEMP": str(tmp_path)}
    done = bash(step_text(DRIFT, "preview"), variables, tmp_path)
    assert (done.returncode, output.read_text(encoding="utf-8")) == expected


@needs_jq
@pytest.mark.parametrize("count", [0, 2])
def test_the_matrix_is_what_the_command_says(tmp_path: Path, count: int) -> None:
    stacks = {"include": [{"stack": f"prod-cell-{number}"} for number in range(count)]}
    (tmp_path / "dataplane").write_text(f"#!/bin/sh\ncat <<'EOF'\n{json.dumps(stacks)}\nEOF\n", encoding="utf-8")
    (tmp_path / "dataplane").chmod(0o755)
    output = tmp_path / "output"
    assert bash(step_text(DRIFT, "stacks"), {"GITHUB_OUTPUT": str(output)}, tmp_path).returncode == 0
    assert output.read_text(encoding="utf-8") == f"stacks={json.dumps(stacks)}\ncount={count}\n"
    (tmp_path / "dataplane").write_text("#!/bin/sh\nexit 2\n", encoding="utf-8")
    assert bash(step_text(DRIFT, "stacks"), {"GITHUB_OUTPUT": str(output)}, tmp_path).returncode == 2


# --- what judges a pull request

JUDGED = {"hand-offs": "files in another folder", "affected": "git's objects"}


@pytest.mark.parametrize("name", JUDGED)
def test_what_judges_a_change_is_the_base_s_before_anything_of_the_repository_runs(name: str) -> None:
    (job,) = (job for job in jobs(committed()) if (job.file, job.name) == (PULL_REQUEST, name))
    first, second, third, *_ = job.body["steps"]
    assert first["uses"].startswith("actions/checkout@")
    assert first["with"] == {"persist-credentials": False, "fetch-depth": 0}
    assert 'git checkout --quiet --force --detach "${BASE:-HEAD^1}"\ngit clean -ffdxq\n' in second["run"]
    assert second["env"] == {"BASE": "${{ github.event.merge_group.base_sha }}"}
    # Packages of a cache would be those that the change's own jobs have put there.
    assert third == {"uses": "./.github/actions/setup"}


def test_code_owners_have_all_that_can_weaken_the_check() -> None:
    lines = [line.split() for line in committed()[".github/CODEOWNERS"].splitlines() if not line.startswith("#")]
    assert {len(line) for line in lines} == {2}
    owned = {pattern.strip("/") for pattern, _ in lines}
    assert owned >= {
        *("data_plane", "dataplane", "Makefile", "components", "policies", "stacks", ".github", ".ci"),
        *("requirements.txt", "requirements-dev.txt", "pyproject.toml", "__main__.py", "Pulumi.yaml", "tests"),
    }
    assert all((CHECKOUT / name).exists() for name in owned)


class Change:
    """A repository with this checkout's files and a deployed environment, and a pull request for it, merged."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "checkout"
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            check=True,
        )
        files = {name: CHECKOUT / name for name in listed.stdout.split("\0") if (CHECKOUT / name).is_file()}
        for name, path in files.items():
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, self.root / name)
        projects = self.root / "stacks" / "prod" / "projects"
        projects.mkdir(parents=True)
        shutil.copy(CHECKOUT / "stacks/local/projects/demo.yaml", projects / "demo.yaml")
        for kind in ("central", "cell-1"):
            text = (CHECKOUT / f"stacks/Pulumi.local-{kind}.yaml").read_text(encoding="utf-8")
            (self.root / f"stacks/Pulumi.prod-{kind}.yaml").write_text(
                text.replace("environment: local", "environment: prod").replace("local-central", "prod-central"),
                encoding="utf-8",
            )
        self.git("init", "--quiet", "--initial-branch", "main")
        self.commit()

    def git(self, *arguments: str) -> str:
        identity = ["-c", "user.name=Test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false"]
        done = subprocess.run(["git", *identity, *arguments], cwd=self.root, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "Change")

    def replace(self, file: str, text: str, by: str) -> None:
        path = self.root / file
        before = path.read_text(encoding="utf-8")
        assert text in before
        path.write_text(before.replace(text, by), encoding="utf-8")

    def begin(self) -> None:
        self.git("switch", "--quiet", "--create", "change")

    def checked_out(self, name: str) -> tuple[str, list[str]]:
        """The merge, as GitHub checks it out for a job, up to where the base's files are there; and what then runs."""
        self.commit()
        self.git("switch", "--quiet", "main")
        self.git("merge", "--quiet", "--no-ff", "--message", "Merge", "change")
        merged = self.git("rev-parse", "HEAD")
        (job,) = (job for job in jobs(committed()) if (job.file, job.name) == (PULL_REQUEST, name))
        texts = [step["run"] for step in job.body["steps"] if "run" in step]
        assert bash(texts[0], {"RUNNER_TEMP": str(self.root.parent)}, self.root).returncode == 0
        (self.root / ".venv").symlink_to(Path(sys.prefix))
        return merged, texts[1:]

    def judged(self) -> tuple[int, list[str], str]:
        """What the job `affected` says."""
        merged, _ = self.checked_out("affected")
        output = self.root.parent / "output"
        done = bash(
            step_text(PULL_REQUEST, "affected"), {"GITHUB_OUTPUT": str(output), "GITHUB_SHA": merged}, self.root
        )
        if done.returncode != 0:
            return done.returncode, [], done.stderr
        (line, count) = output.read_text(encoding="utf-8").splitlines()
        stacks = [item["stack"] for item in json.loads(line.removeprefix("stacks="))["include"]]
        assert count == f"count={len(stacks)}"
        return 0, stacks, done.stderr


@pytest.fixture
def change(tmp_path: Path) -> Change:
    return Change(tmp_path)


# What a pull request of somebody who wants no preview would have done to the tool that asks for one.
SILENCED = ("    if everything == (base is not None):", "    return []\n    if everything == (base is not None):")


@needs_jq
def test_a_change_of_the_tool_does_not_judge_itself(change: Change) -> None:
    change.begin()
    change.replace("data_plane/cli/stack.py", *SILENCED)
    change.replace("stacks/prod/projects/demo.yaml", "carol", "mallory")
    (change.root / "json.py").write_text("raise SystemExit('the change runs')\n", encoding="utf-8")
    (change.root / ".github/scripts/affected").write_text("#!/bin/sh\necho '{\"include\": []}'\n", encoding="utf-8")
    assert change.judged()[:2] == (0, ["prod-central", "prod-cell-1"])


@needs_jq
@pytest.mark.parametrize(
    "file", ["stacks/prod/projects/demo.yaml", "stacks/Pulumi.prod-cell-1.yaml", "stacks/images.yaml", "Pulumi.yaml"]
)
def test_a_tool_that_names_no_stack_is_held_against_the_changed_files(change: Change, file: str) -> None:
    change.replace("data_plane/cli/stack.py", *SILENCED)
    change.commit()
    change.begin()
    with (change.root / file).open("a", encoding="utf-8") as stream:
        stream.write("# changed\n")
    code, _, stderr = change.judged()
    assert code == 1
    assert stderr.endswith(f"affected names no stack, and deployed stacks read what the change has:\n{file}\n")


@needs_jq
@pytest.mark.parametrize(
    "file", ["README.md", "stacks/local/projects/demo.yaml", "stacks/Pulumi.local-cell-1.yaml", "docs/tutorial.md"]
)
def test_a_change_that_no_deployed_stack_reads_needs_no_preview(change: Change, file: str) -> None:
    change.begin()
    with (change.root / file).open("a", encoding="utf-8") as stream:
        stream.write("\n# changed\n")
    assert change.judged()[:2] == (0, [])


def test_a_change_of_the_wall_does_not_judge_itself(change: Change) -> None:
    change.begin()
    (change.root / "shop").mkdir()
    (change.root / "shop" / "compose.yaml").write_text("services: {db: {image: 'postgres:16'}}\n", encoding="utf-8")
    for name in ("policies/artifacts/__main__.py", "typer.py", "sitecustomize.py"):
        (change.root / name).write_text("raise SystemExit(0)\n", encoding="utf-8")
    _, (text,) = change.checked_out("hand-offs")
    done = bash(text, {"RUNNER_TEMP": str(change.root.parent)}, change.root)
    assert done.returncode == 1
    assert "shop/compose.yaml" in done.stderr


GONE = """
import json, sys
arguments = [word for word in sys.argv[1:] if word != "--non-interactive"]
if arguments == ["version"]:
    print("v3.274.1")
elif arguments == ["stack", "ls", "--json"]:
    print(ANSWER or json.dumps([{"name": "prod-cell-10"}, *STACKS]))
else:
    assert arguments == ["stack", "export", "--stack", "prod-cell-1"], arguments
    print(json.dumps({"deployment": {"resources": [{"type": "pulumi:pulumi:Stack"}, *RESOURCES]}}))
"""


@pytest.mark.parametrize(
    ("stacks", "resources", "response", "code", "told"),
    [
        ([], [], "", 0, "its settings are deleted, and it holds no resources"),
        ([{"name": "prod-cell-1"}], [], "", 0, "its settings are deleted, and it holds no resources"),
        ([{"name": "prod-cell-1"}], [{"type": "a:b:C"}], "", 1, "are deleted, and it holds 1 resources: first destroy"),
        ([{"name": "org/prod-cell-1"}], [{"type": "a:b:C"}], "", 1, "and it holds 1 resources: first destroy it"),
        ([], [], "[1]", 1, "stack prod-cell-1 cannot be read"),
        ([], [], "no JSON", 1, "stack prod-cell-1 cannot be read"),
    ],
    ids=["gone", "empty", "not empty", "of an organization", "an answer of another form", "no answer"],
)
def test_settings_go_once_their_stack_is_gone_or_empty(
    tmp_path: Path,
    programs: Callable[[str, str], None],
    stacks: list[dict[str, str]],
    resources: list[dict[str, str]],
    response: str,
    code: int,
    told: str,
) -> None:
    programs("pulumi", f"STACKS = {stacks!r}\nRESOURCES = {resources!r}\nANSWER = {response!r}\n{GONE}")
    variables = {"STACK": "prod-cell-1", "DATA_PLANE_HOME": str(tmp_path / "home"), "COLUMNS": "200"}
    done = bash(f'{CHECKOUT / PREVIEW} "{tmp_path}/file"', variables)
    assert done.returncode == code, done.stderr
    assert told in (tmp_path / "file").read_text(encoding="utf-8")


GH = """
import json, os, pathlib, re, sys
file = pathlib.Path(os.environ["GITHUB_STATE"])
state = json.loads(file.read_text())
arguments = sys.argv[2:]
method = arguments[arguments.index("--method") + 1] if "--method" in arguments else "GET"
path, _, query = next(word for word in arguments if word.startswith("repos/org/repo/")).partition("?")
path = path.removeprefix("repos/org/repo/")
if method == "GET":
    if path == "issues":
        assert query == "state=open&creator=github-actions%5Bbot%5D&per_page=100", query
        print(json.dumps([i for i in state["issues"] if i["state"] == "open" and i["by"] == "github-actions[bot]"]))
    else:
        assert path == "issues/12/comments", path
        # Two pages, as `--paginate` prints them.
        print(json.dumps(state["comments"][:1]) + json.dumps(state["comments"][1:]))
else:
    fields = json.load(sys.stdin)
    state["calls"].append([method, path])
    bot = {"login": "github-actions[bot]"}
    if [method, path] == ["POST", "issues"]:
        state["issues"].append({**fields, "number": 100 + len(state["issues"]), "state": "open", "by": bot["login"]})
    elif method == "POST":
        state["comments"].append({**fields, "id": len(state["comments"]), "user": bot, "on": path})
    else:
        kind, key = ("comments", "id") if path.startswith("issues/comments/") else ("issues", "number")
        (found,) = [item for item in state[kind] if item[key] == int(path.rpartition("/")[2])]
        found.update(fields)
    file.write_text(json.dumps(state))
"""


class GitHub:
    """What the stand-in for `gh` keeps."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "github.json"
        self._preview = folder / "preview of a stack.txt"
        self.set(issues=[], comments=[], calls=[])

    def set(self, **fields: Any) -> None:
        before = json.loads(self._file.read_text(encoding="utf-8")) if self._file.exists() else {}
        self._file.write_text(json.dumps({**before, **fields}), encoding="utf-8")

    def __getitem__(self, key: str) -> list[Any]:
        return list(json.loads(self._file.read_text(encoding="utf-8"))[key])

    def report(self, what: str, text: str | bytes | None, stack: str = "prod-cell-1", code: int = 0) -> None:
        if text is not None:
            self._preview.write_bytes(text if isinstance(text, bytes) else text.encode())
        variables = {
            "GITHUB_STATE": str(self._file),
            "GITHUB_REPOSITORY": "org/repo",
            "GITHUB_SERVER_URL": "https://github.example.com",
            "GITHUB_RUN_ID": "77",
            "NUMBER": "12",
            "OUTCOME": "failure",
            "STACK": stack,
        }
        done = bash(f"{CHECKOUT / REPORT} {what} '{self._preview}'", variables)
        assert done.returncode == code, done.stderr


@pytest.fixture
def github(tmp_path: Path, programs: Callable[[str, str], None]) -> GitHub:
    programs("gh", GH)
    return GitHub(tmp_path)


@needs_jq
def test_a_pull_request_has_one_comment_a_stack_and_it_is_kept_up_to_date(github: GitHub) -> None:
    github.report("comment", "+ one")
    github.report("comment", "+ of another", stack="prod-cell-10")
    github.report("comment", "+ two")
    first, second = github["comments"]
    assert "    + two\n" in first["body"]
    assert "+ one" not in first["body"]
    assert "`prod-cell-1`: failure" in first["body"]
    assert "https://github.example.com/org/repo/actions/runs/77" in first["body"]
    assert "    + of another\n" in second["body"]
    assert first["on"] == "issues/12/comments"


@needs_jq
def test_somebody_else_s_comment_is_never_changed(github: GitHub) -> None:
    theirs = {"id": 5, "user": {"login": "mallory"}, "body": "<!-- preview of prod-cell-1 -->"}
    github.set(comments=[theirs])
    github.report("comment", "+ one")
    assert github["comments"][0] == theirs
    assert len(github["comments"]) == 2


@needs_jq
@pytest.mark.parametrize("text", [None, ""])
def test_a_preview_that_said_nothing_is_told_as_that(github: GitHub, text: str | None) -> None:
    github.report("comment", text)
    assert "did not get as far" in github["comments"][0]["body"]


@needs_jq
def test_nothing_in_a_preview_gets_out_of_its_block(github: GitHub) -> None:
    hostile = "```\n~~~~\n</details>\r@everyone\r\n<!-- preview of prod-cell-2 -->\n$(id) `id` \\n %s"
    github.report("comment", hostile)
    body = github["comments"][0]["body"]
    block = body.partition("</summary>\n\n")[2].rpartition("\n</details>")[0]
    assert all(line.startswith("    ") for line in block.splitlines() if line)
    assert "$(id) `id` \\n %s" in block
    assert body.count("\n</details>\n") == 1


@needs_jq
@pytest.mark.parametrize("line", ["+ line", "", "ü" * 1000], ids=["lines", "empty lines", "letters of two bytes"])
def test_of_a_long_preview_the_beginning_is_shown_within_github_s_bound(github: GitHub, line: str) -> None:
    github.report("drift", "alice loses owner\n" + f"{line}\n" * 40_000)
    body = github["issues"][0]["body"]
    assert len(body) < 65_536
    assert "    alice loses owner\n" in body
    assert body.endswith("    (the rest is in the run's log)\n")
    assert "\ufffd" not in body


@needs_jq
def test_bytes_that_are_no_text_are_no_obstacle(github: GitHub) -> None:
    github.report("drift", b"+ \xff one")
    assert "+ \ufffd one" in github["issues"][0]["body"]


@needs_jq
def test_drift_has_one_open_issue_until_it_is_gone(github: GitHub) -> None:
    github.report("drift", "~ one")
    github.report("drift", "~ two")
    (issue,) = github["issues"]
    assert (issue["title"], issue["state"]) == ("Drift: prod-cell-1", "open")
    assert "    ~ two" in issue["body"]
    github.report("nothing", "")
    assert github["issues"][0]["state"] == "closed"
    (comment,) = github["comments"]
    assert comment["on"] == f"issues/{issue['number']}/comments"
    github.report("nothing", "")
    assert len(github["comments"]) == 1
    github.report("drift", "~ three")
    assert [item["state"] for item in github["issues"]] == ["closed", "open"]


@needs_jq
def test_only_the_stack_s_own_issue_is_touched(github: GitHub) -> None:
    others = [
        {"number": 1, "title": "Drift: prod-cell-1", "state": "open", "by": "mallory"},
        {"number": 2, "title": "Drift: prod-cell-10", "state": "open", "by": "github-actions[bot]"},
        {"number": 3, "title": "Drift: prod-cell-1", "state": "open", "by": "github-actions[bot]", "pull_request": {}},
    ]
    github.set(issues=others)
    github.report("nothing", "")
    assert github["issues"] == others
    github.report("drift", "~ one")
    assert github["issues"][:3] == others
    assert len(github["issues"]) == 4


@needs_jq
def test_an_unknown_report_is_refused(github: GitHub) -> None:
    github.report("everything", "x", code=2)
    assert github["calls"] == []
