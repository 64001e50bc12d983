"""The real Pulumi CLI with small programs: locks of killed runs, settings, plugins, two stacks at once."""

import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import psutil
import pytest
from pulumi import automation
from pulumi.automation.errors import create_command_error

from data_plane.engine import plugins, pulumi_engine
from data_plane.engine.cli import VERSION
from data_plane.engine.command import Command
from data_plane.engine.engines import LocalConfig, PulumiEngine
from data_plane.engine.steps import Change, EngineRun, Step
from data_plane.errors import DataPlaneError, RunFailedError, RunInterruptedError, StackBusyError, TerminatedError
from data_plane.local.processes import wait_until
from data_plane.local.providers import install_plugins
from data_plane.state_dir import StateDir

pytestmark = pytest.mark.real_engine

PROGRAM = """
from pathlib import Path

import pulumi

from tests.engine.file_resource import File

config = pulumi.Config()
for name in config.require_object("files"):
    File(name, Path(__file__).parent / "made" / name, config.require("text"))
pulumi.export("stack", pulumi.get_stack())
pulumi.export("key", config.get_secret("key"))
"""
PROJECT = "name: small\nruntime: python\nstackConfigDir: stacks\n"
SETTINGS = "config:\n  small:text: {text}\n  small:files: {files}\n"
KEY = "a-key-that-nobody-may-see"
CONFIG = LocalConfig(secrets={"key": KEY})


class Small:
    """A checkout with a small program, and the engine that runs it."""

    def __init__(self, folder: Path, cli: Path, *, shared: bool = False) -> None:
        self.root = folder / "checkout"
        self.made = self.root / "made"
        for each in (self.made, self.root / "stacks"):
            each.mkdir(parents=True)
        (self.root / "Pulumi.yaml").write_text(PROJECT, encoding="utf-8")
        (self.root / "__main__.py").write_text(PROGRAM, encoding="utf-8")
        self.home = StateDir(folder / "home")
        self.home.prepare()
        self.engine = PulumiEngine(self.home, cli, self.root, shared_backend=shared, install_plugins=install_plugins)

    def declare(self, stack: str, files: list[str], text: str = "first") -> Path:
        file = self.root / "stacks" / f"Pulumi.{stack}.yaml"
        file.write_text(SETTINGS.format(text=text, files=files), encoding="utf-8")
        return file

    def up(
        self, stack: str, on_step: Callable[[Step], None] = lambda _step: None, *, preview: bool = False
    ) -> EngineRun:
        return self.engine.run(stack, CONFIG, preview=preview, on_step=on_step)

    def kill_while_it_creates(self, stack: str, name: str) -> None:
        """Kills the CLI with SIGKILL while it creates a file."""
        wait = self.made / f"{name}-waits"
        wait.touch()
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(self.up, stack)
            assert wait_until((self.made / name).exists, 300)
            for process in psutil.Process().children():
                if process.name() == "pulumi":
                    process.kill()
            with pytest.raises(RunFailedError, match="the Pulumi CLI was killed by SIGKILL"):
                running.result()
        wait.unlink()


@pytest.fixture
def small(tmp_path: Path, cli: Path) -> Small:
    return Small(tmp_path, cli)


def test_a_run_counts_what_it_does_and_hides_secrets(small: Small) -> None:
    committed = small.declare("one", ["a", "b"])
    before = committed.read_bytes()
    steps: list[Step] = []
    preview = small.up("one", steps.append, preview=True)
    assert (preview.created, preview.same) == (2, 0)
    assert not list(small.made.iterdir())
    steps.clear()
    run = small.up("one", steps.append)
    assert (run.created, run.updated, run.replaced, run.deleted, run.same, run.remarks) == (2, 0, 0, 0, 0, [])
    assert [(step.name, step.change) for step in sorted(steps, key=lambda step: step.name)] == [
        ("a", Change.CREATE),
        ("b", Change.CREATE),
    ], "the preview before is not counted, nor is the stack"
    small.declare("one", ["b", "c"], "second")
    run = small.up("one")
    assert (run.created, run.updated, run.replaced, run.deleted, run.same) == (1, 1, 0, 1, 0)
    assert (small.made / "b").read_text(encoding="utf-8") == "second"
    assert small.engine.outputs("one") == {"stack": "one"}
    assert small.up("one").same == 2
    assert committed.read_bytes() != before, "this test edits it"
    assert "encryptionsalt" not in committed.read_text(encoding="utf-8")
    for path in small.home.path.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path


def test_two_stacks_run_at_once_in_one_process_and_each_is_itself(small: Small) -> None:
    stacks = ["one", "two"]
    for stack in stacks:
        small.declare(stack, [f"{stack}-file"], text=stack)
        (small.made / f"{stack}-file-waits").touch()
    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(small.up, stack) for stack in stacks]
        assert wait_until(lambda: all((small.made / f"{stack}-file").exists() for stack in stacks), 300)
        for stack in stacks:
            (small.made / f"{stack}-file-waits").unlink()
        assert [job.result().created for job in running] == [1, 1]
    for stack in stacks:
        assert (small.made / f"{stack}-file").read_text(encoding="utf-8") == stack
        assert small.engine.outputs(stack) == {"stack": stack}


def test_a_killed_run_is_gone_on_with_here_and_said_in_one_line(small: Small) -> None:
    small.declare("one", ["a"])
    small.up("one")
    small.declare("one", ["a", "b"])
    small.kill_while_it_creates("one", "b")
    run = small.up("one")
    assert (run.created, run.same) == (1, 1)
    (remark,) = run.remarks
    assert remark.startswith("a run of stack one was killed: its lock is removed, 1 unfinished operations are cleared")
    assert remark.endswith("perhaps made, and not yet in its state: b")
    assert "pending_operations" not in small.engine.export_state("one")

    def left() -> list[psutil.Process]:
        return [process for process in psutil.process_iter() if str(small.home.path) in " ".join(_command_of(process))]

    # Those of the run that went on may be about to end.
    assert wait_until(lambda: not left(), 60), "plugins of the killed run are still there"
    again = small.up("one")
    assert (again.created, again.same, again.remarks) == (0, 2, [])


def test_a_destroy_after_a_killed_run_says_so_too(small: Small) -> None:
    small.declare("one", ["a"])
    small.up("one")
    small.declare("one", ["a", "b"])
    small.kill_while_it_creates("one", "b")
    run = small.engine.destroy("one", CONFIG, on_step=lambda _step: None)
    assert (run.deleted, len(run.remarks)) == (1, 1)
    assert run.remarks[0].startswith("a run of stack one was killed: its lock is removed")


def _command_of(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def test_in_a_shared_backend_a_killed_run_s_lock_is_left_to_people(
    tmp_path: Path, cli: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = tmp_path / "backend"
    backend.mkdir()
    monkeypatch.setenv("PULUMI_BACKEND_URL", f"{backend.as_uri()}?metadata=skip")
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "shared")
    small = Small(tmp_path, cli, shared=True)
    small.declare("one", ["a"])
    with pytest.raises(RunFailedError, match="no stack named 'one' found"):
        small.up("one")
    small.engine.cli("one", "stack", "init", "one")
    small.kill_while_it_creates("one", "a")
    with pytest.raises(StackBusyError) as refused:
        small.up("one")
    text = str(refused.value)
    assert "(pid " in text
    assert "no process of that number is on that machine any more" in text
    commands = [line.strip() for line in text.splitlines() if line.strip().startswith("pulumi ")]
    assert commands == ["pulumi cancel --stack one", "pulumi refresh --clear-pending-creates --stack one"]
    for command in commands:
        small.engine.cli("one", *command.split()[1:], "--yes")
    assert small.up("one").created == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, TerminatedError])
def test_an_interrupted_run_finishes_what_it_began(small: Small, error: type[BaseException]) -> None:
    small.declare("one", ["a"])
    wait = small.made / "a-waits"
    wait.touch()

    def interrupt() -> None:
        assert wait_until((small.made / "a").exists, 300)
        os.kill(os.getpid(), signal.SIGINT)
        threading.Timer(3, wait.unlink).start()

    def arrived(_number: int, _frame: object) -> None:
        raise error

    before = signal.signal(signal.SIGINT, arrived)
    try:
        threading.Thread(target=interrupt).start()
        with pytest.raises(RunInterruptedError, match="what had begun was finished"):
            small.up("one")
    finally:
        signal.signal(signal.SIGINT, before)
    run = small.up("one")
    assert (run.created, run.same, run.remarks) == (0, 1, [])


def test_an_error_of_the_program_is_said_without_a_traceback(small: Small) -> None:
    (small.root / "stacks" / "Pulumi.one.yaml").write_text("config: {}\n", encoding="utf-8")
    program = small.root / "__main__.py"
    program.write_text("import pulumi\nraise pulumi.RunError('no files are named')\n", encoding="utf-8")
    with pytest.raises(RunFailedError) as failed:
        small.up("one")
    assert str(failed.value).splitlines() == [
        "stack one failed. Fix this and run it again; it resumes:",
        "  no files are named",
    ]


def test_a_missing_plugin_is_named_before_the_run_with_the_command_that_installs_it(
    small: Small, cli: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small.declare("one", ["a"])
    monkeypatch.setattr(plugins, "_SDKS", {"nowhere-to-be-had": "pulumi-vault", "attached": "pulumi-vault"})
    monkeypatch.setenv("PULUMI_DEBUG_PROVIDERS", "attached:1")
    engine = PulumiEngine(small.home, cli, small.root)
    with pytest.raises(DataPlaneError) as refused:
        engine.run("one", CONFIG, preview=False, on_step=lambda _step: None)
    assert str(refused.value).splitlines()[1:] == [
        f"  pulumi plugin install resource nowhere-to-be-had v{version('pulumi-vault')}"
    ]
    assert not list(small.made.iterdir())


def test_a_secret_is_in_no_argument(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    small.declare("one", [])
    seen: list[str] = []
    run = Command._run

    def watched(self: Command, arguments: list[str], *more: object) -> object:
        seen.extend(arguments)
        return run(self, arguments, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(Command, "_run", watched)
    small.up("one")
    assert "--secret" in seen
    assert KEY not in " ".join(seen)


def test_the_cli_is_at_least_as_new_as_the_sdk_and_of_its_major_release() -> None:
    found, sdk = (tuple(map(int, text.split("."))) for text in (VERSION, version("pulumi")))
    assert found[0] == sdk[0]
    assert found >= sdk


def test_settings_that_were_half_written_are_written_again(small: Small) -> None:
    small.declare("one", ["a"])
    assert small.up("one").created == 1
    (file,) = small.home.path.rglob("Pulumi.one.yaml")
    file.write_text("", encoding="utf-8")
    assert small.up("one").same == 1


def test_what_fails_after_a_killed_run_is_a_message(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_of: object) -> list[str]:
        raise create_command_error(automation.CommandResult("", "error: the server is down", 1))

    monkeypatch.setattr(pulumi_engine, "forget_killed_runs", refused)
    small.declare("one", ["a"])
    with pytest.raises(RunFailedError, match="run it again; it resumes:\n  the server is down"):
        small.up("one")
