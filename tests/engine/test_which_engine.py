"""Which engine is taken, and how the Pulumi CLI is built: once, whole or not at all."""

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from data_plane.engine import engines
from data_plane.engine.cli import VERSION, build, build_cli, built_cli
from data_plane.engine.engines import EngineChoice, LocalRunner, PulumiEngine, choose_engine, find_cli, last_engine
from data_plane.engine.plugins import write_policy_pack
from data_plane.errors import BuildError, DataPlaneError
from data_plane.local.providers import install_plugins
from data_plane.local.providers.for_engines import LOCAL_PROVIDERS
from data_plane.state_dir import StateDir

CLI = "#!/bin/sh\necho v3.999.0\n"


def program(file: Path, text: str = CLI) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    file.chmod(0o700)
    return file


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without any Pulumi CLI and without Go."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("PULUMI_HOME", str(tmp_path / "official"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def built(bare: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """What was built, by a Go that only pretends to build."""
    done: list[Path] = []

    def follow(*arguments: str | Path, on_line: Any, **_more: Any) -> None:
        target = Path(arguments[arguments.index("-o") + 1])
        done.append(program(target))
        on_line("some/package")

    monkeypatch.setattr(build, "why_no_go", lambda *_arguments: None)
    monkeypatch.setattr(build, "run_go", lambda *_arguments, **_more: "one\ntwo\n")
    monkeypatch.setattr(build, "follow_go", follow)
    return done


def test_without_a_cli_the_local_runner_is_taken_and_says_how_to_get_one(bare: Path) -> None:
    messages: list[str] = []
    assert isinstance(
        choose_engine(EngineChoice.AUTO, StateDir(bare / "home"), messages.append, LOCAL_PROVIDERS), LocalRunner
    )
    assert "make engine" in " ".join(messages)


def test_a_cli_that_is_asked_for_and_missing_is_an_error_that_says_how_to_get_one(bare: Path) -> None:
    with pytest.raises(DataPlaneError, match=r"there is no Pulumi CLI here: .*`make engine`"):
        choose_engine(EngineChoice.PULUMI, StateDir(bare / "home"), print, LOCAL_PROVIDERS)


def test_the_cli_on_path_comes_before_the_official_one_and_that_before_a_built_one(
    bare: Path, built: list[Path]
) -> None:
    home = StateDir(bare / "home")
    assert find_cli() is None
    made = build_cli(lambda _text: None)
    assert find_cli() == made == built_cli()
    official = program(bare / "official" / "bin" / "pulumi")
    assert find_cli() == official
    on_path = program(bare / "bin" / "pulumi")
    assert find_cli() == on_path
    engine = choose_engine(EngineChoice.AUTO, home, print, LOCAL_PROVIDERS)
    assert isinstance(engine, PulumiEngine)
    assert engine.label == "Pulumi 3.999.0"
    assert isinstance(choose_engine(EngineChoice.LOCAL, home, print, LOCAL_PROVIDERS), LocalRunner)


def test_stacks_of_a_cli_that_is_gone_are_not_looked_for_elsewhere(bare: Path) -> None:
    home = StateDir(bare / "home")
    home.prepare()
    assert isinstance(last_engine(home, LOCAL_PROVIDERS), LocalRunner)
    home.write_json("engine.json", "pulumi")
    with pytest.raises(DataPlaneError, match="brought up with the Pulumi CLI, and it is gone"):
        last_engine(home, LOCAL_PROVIDERS)
    program(bare / "bin" / "pulumi")
    assert isinstance(engines.last_engine(home, LOCAL_PROVIDERS), PulumiEngine)


def test_two_that_build_at_once_build_it_once(built: list[Path]) -> None:
    messages: list[str] = []
    both = [threading.Thread(target=build_cli, args=(messages.append,)) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert len(built) == 1
    assert f"Building Pulumi {VERSION}" in messages[0]


def test_a_build_that_is_killed_leaves_nothing_that_would_be_used(bare: Path) -> None:
    """The process is killed when it has written half of the program."""
    program_text = (
        "import os, signal\n"
        "from pathlib import Path\n"
        "from data_plane.engine.cli import build\n"
        "def half(*arguments, **more):\n"
        "    Path(arguments[arguments.index('-o') + 1]).write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "build.why_no_go = lambda *arguments: None\n"
        "build.run_go = lambda *arguments, **more: ''\n"
        "build.follow_go = half\n"
        "build.build_cli(print)\n"
    )
    done = subprocess.run([sys.executable, "-c", program_text], cwd=Path(engines.__file__).parents[2])
    assert done.returncode == -9
    assert list((bare / "cache").rglob("pulumi")), "it got as far as that"
    assert built_cli() is None
    assert find_cli() is None


def test_a_go_that_cannot_be_had_is_said_with_what_is_needed(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "why_no_go", lambda *_arguments: "Go is not on PATH")
    monkeypatch.setattr(build, "_GO_REQUIREMENTS", program(bare / "nothing.txt", "no-such-package-of-anybody==0\n"))
    with pytest.raises(BuildError, match="Go is not on PATH, and it cannot be installed: "):
        build_cli(lambda _text: None)


def test_plugins_that_another_run_may_be_starting_are_not_written_again(tmp_path: Path) -> None:
    def found() -> dict[Path, tuple[int, int]]:
        return {file: (file.stat().st_ino, file.stat().st_mtime_ns) for file in tmp_path.rglob("pulumi-resource-*")}

    install_plugins(tmp_path)
    before = found()
    install_plugins(tmp_path)
    assert found() == before
    one, *_ = sorted(before)
    one.write_text("#!/bin/sh\n# of an earlier version\n", encoding="utf-8")
    install_plugins(tmp_path)
    assert one.stat().st_ino != before[one][0], "it was written where it may be read"
    assert set(tmp_path.rglob("*")) == {*before, *(file.parent for file in before)}


def test_a_policy_pack_has_one_program_for_every_copy_of_its_checkout(tmp_path: Path) -> None:
    (tmp_path / "policies").mkdir()
    programs = set()
    for name in ("first", "second"):
        copy = tmp_path / name
        copy.mkdir()
        (copy / "policies").symlink_to(tmp_path / "policies")
        programs.add(write_policy_pack(copy / "policies", tmp_path / "bin"))
    assert programs == {write_policy_pack(tmp_path / "policies", tmp_path / "bin")}
    assert len(list((tmp_path / "bin").iterdir())) == 1
