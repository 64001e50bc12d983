"""The engines that can run the program, and which one does here."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from data_plane.engine.cli import built_cli
from data_plane.engine.engine import Engine, LocalConfig
from data_plane.engine.last_run import cli_was_last
from data_plane.engine.local_runner import LocalRunner
from data_plane.engine.pulumi_engine import PulumiEngine, backend_variables
from data_plane.engine.runner.monitor import Providers
from data_plane.engine.steps import EngineRun
from data_plane.errors import EngineError
from data_plane.state_dir import StateDir

__all__ = [
    "Engine",
    "EngineChoice",
    "EngineRun",
    "LocalConfig",
    "LocalProviders",
    "LocalRunner",
    "PulumiEngine",
    "backend_variables",
    "choose_engine",
    "find_cli",
    "last_engine",
]

_BUILD = "put `pulumi` on PATH, or build it with `make engine`"


class EngineChoice(StrEnum):
    """Which engine is to run the program."""

    AUTO = "auto"
    PULUMI = "pulumi"
    LOCAL = "local"


@dataclass(frozen=True)
class LocalProviders:
    """Providers for machines where the official plugins are not to be had."""

    in_process: Providers
    """For the local runner."""
    install: Callable[[Path], None]
    """Writes them as plugins for the CLI into a folder."""


def find_cli() -> Path | None:
    """The Pulumi CLI: the one on PATH, else where its installer puts it, else what ``make engine`` has built."""
    found = shutil.which("pulumi")
    if found is not None:
        return Path(found)
    installed = Path(os.environ.get("PULUMI_HOME") or Path.home() / ".pulumi") / "bin" / "pulumi"
    return installed if os.access(installed, os.X_OK) else built_cli()


def choose_engine(
    choice: EngineChoice,
    home: StateDir,
    say: Callable[[str], None],
    providers: LocalProviders,
) -> Engine:
    """The engine for the local environment: the CLI where there is one, else the local runner, which says so.

    Args:
        providers: those of a machine without the official plugins.

    Raises:
        DataPlaneError: if the CLI is asked for and is not there.
    """
    home.prepare()
    command = None if choice is EngineChoice.LOCAL else find_cli()
    if command is not None:
        return PulumiEngine(home, command, install_plugins=providers.install)
    if choice is EngineChoice.PULUMI:
        raise EngineError(f"there is no Pulumi CLI here: {_BUILD}.")
    if choice is EngineChoice.AUTO:
        say("There is no Pulumi CLI here: using the local runner. It removes nothing; drift and")
        say("destroy need the CLI: `make engine` builds it, once.")
    return LocalRunner(home, providers.in_process)


def last_engine(home: StateDir, providers: LocalProviders) -> Engine:
    """The engine that last brought a stack up here, so the one that has its outputs.

    Raises:
        DataPlaneError: if that was the CLI and it is no longer there.
    """
    if not cli_was_last(home):
        return LocalRunner(home, providers.in_process)
    command = find_cli()
    if command is None:
        raise EngineError(f"the stacks were brought up with the Pulumi CLI, and it is gone: {_BUILD}.")
    return PulumiEngine(home, command, install_plugins=providers.install)
