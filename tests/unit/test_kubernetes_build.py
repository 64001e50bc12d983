"""How the local Kubernetes is built: once, whole or not at all, and only where it can be."""

import threading
from pathlib import Path
from typing import Any

import pytest

from data_plane.engine import go
from data_plane.errors import BuildError
from data_plane.local.kubernetes import programs
from data_plane.local.kubernetes.programs import PROGRAMS, STAGES, build_programs, why_unavailable


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was built, by a Go that only pretends to build."""
    done: list[str] = []

    def pretend(*arguments: str | Path, folder: Path) -> str:
        if arguments[0] == "build":
            target = Path(arguments[-2])
            target.touch()
            done.append(target.name)
        return str(tmp_path)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(go, "go_version", lambda: "go version go1.99.0 linux/amd64")
    monkeypatch.setattr(programs, "go_version", lambda: "go version go1.99.0 linux/amd64")
    monkeypatch.setattr(programs, "run_go", pretend)
    return done


def test_each_program_is_built_once_and_said_to_be(built: list[str], tmp_path: Path) -> None:
    messages: list[str] = []
    folder = build_programs(messages.append)
    assert folder.is_relative_to(tmp_path / "cache")
    assert {path.name for path in folder.iterdir()} == {*PROGRAMS, STAGES}
    assert messages == [
        f"Building {name} ({number} of {len(PROGRAMS)}); only the first time"
        for number, name in enumerate(PROGRAMS, start=1)
    ]
    assert build_programs(messages.append) == folder
    assert built == list(PROGRAMS)


def test_two_that_need_it_at_once_build_it_once(built: list[str]) -> None:
    both = [threading.Thread(target=build_programs, args=(lambda _text: None,)) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert built == list(PROGRAMS)


def test_a_build_that_fails_leaves_nothing_that_would_be_used(
    built: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:

        def fail(*_arguments: Any, folder: Path) -> str:
            raise BuildError("`go build` failed")

        broken.setattr(programs, "run_go", fail)
        with pytest.raises(BuildError, match="`go build` failed"):
            build_programs(print)
    assert built == []
    build_programs(print)
    assert built == list(PROGRAMS)


def test_another_release_of_go_builds_anew(built: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    first = build_programs(print)
    monkeypatch.setattr(programs, "go_version", lambda: "go version go1.99.1 linux/amd64")
    assert build_programs(print) != first


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        ("", r"Go is not on PATH; the local Kubernetes is built with Go 1\.26\.0 or newer"),
        ("go version go1.25.9 linux/amd64", r"go1\.25\.9 linux/amd64 is on PATH; .* Go 1\.26\.0 or newer"),
        ("go version go1.26.0 linux/amd64", None),
        ("go version go1.27rc1 linux/arm64", None),
    ],
)
def test_a_missing_or_old_go_is_named_with_the_one_that_is_needed(
    monkeypatch: pytest.MonkeyPatch, version: str, reason: str | None
) -> None:
    monkeypatch.setattr(go, "go_version", lambda: version)
    found = why_unavailable()
    if reason is None:
        assert found is None
    else:
        assert found is not None
        with pytest.raises(BuildError, match=reason):
            build_programs(print)


def test_what_go_has_to_say_is_passed_on(tmp_path: Path) -> None:
    if (reason := why_unavailable()) is not None:
        pytest.skip(reason)
    with pytest.raises(BuildError, match=r"(?s)`go build` failed\. Fix this and run it again.*go.mod file not found"):
        go.run_go("build", "./nowhere", folder=tmp_path)


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(BuildError, match=r"cannot be used: .* Set XDG_CACHE_HOME"):
        go.cache_folder()
