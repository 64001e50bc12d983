"""The distribution as others get it: a wheel of this checkout, and its base alone in an environment of its own."""

import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from data_plane.state_dir import CHECKOUT

PACKAGES = ("components", "data_plane", "policies")
_PIN = re.compile(r"^([a-z0-9][a-z0-9-]*==\S+)( ; [^\\]+)?", re.MULTILINE)


@dataclass(frozen=True)
class Installed:
    """An environment with the base, and an empty folder to call its commands in."""

    folder: Path
    work: Path

    @property
    def packages(self) -> Path:
        (found,) = self.folder.glob("lib/python3*/site-packages")
        return found

    def run(self, command: str, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        """Calls a program of the environment as somebody with nothing else of this checkout."""
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.work), "COLUMNS": "200", **variables}
        return subprocess.run(
            [self.folder / "bin" / command, *arguments],
            cwd=self.work,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )


def run_pip(python: Path | str, arguments: Sequence[str | Path]) -> None:
    done = subprocess.run(
        [python, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sources = tmp_path_factory.mktemp("sources")
    for name in PACKAGES:
        shutil.copytree(CHECKOUT / name, sources / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(CHECKOUT / "pyproject.toml", sources)
    folder = tmp_path_factory.mktemp("wheel")
    run_pip(sys.executable, ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, sources])
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="session")
def base(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel without extras, and of other packages what it asks for, in the versions that are pinned here."""
    folder = tmp_path_factory.mktemp("base")
    venv.create(folder, with_pip=True)
    pins = tmp_path_factory.mktemp("pins") / "pins.txt"
    locked = (CHECKOUT / "requirements.txt").read_text(encoding="utf-8")
    pins.write_text("\n".join("".join(pin) for pin in _PIN.findall(locked)), encoding="utf-8")
    run_pip(folder / "bin" / "python", ["install", "--no-compile", "--constraint", pins, wheel])
    return Installed(folder, tmp_path_factory.mktemp("work"))
