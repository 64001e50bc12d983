"""The engines that can run the program: the Pulumi CLI, and the runner of this package where there is no CLI."""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from pulumi import automation
from ruamel.yaml import YAML

from embedded.errors import EmbeddedError, RunFailedError
from embedded.home import CHECKOUT, Home
from embedded.runner.deployment import (
    Result,
    deploy,
    load_config,
    policy_config,
    policy_packs,
    project_name,
    stack_file,
    stack_outputs,
)
from embedded.runner.monitor import Change, Step

__all__ = [
    "EmbeddedEngine",
    "Engine",
    "EngineChoice",
    "EngineRun",
    "PulumiEngine",
    "backend_variables",
    "choose_engine",
    "last_engine",
]

_INSTALLER = ("get.pulumi.com", 443)
_INSTALLER_SECONDS = 3
_LAST_ENGINE = "engine.json"
PASSPHRASE_FILE = "pulumi-passphrase"


class EngineChoice(StrEnum):
    """Which engine is to run the program."""

    AUTO = "auto"
    PULUMI = "pulumi"
    EMBEDDED = "embedded"


@dataclass(frozen=True)
class EngineRun:
    """How a run of one stack ended."""

    stack: str
    created: int | None
    """Resources; None where the CLI has shown it and gives no count."""
    updated: int | None
    same: int | None
    remarks: list[str] = field(default_factory=list)
    """Warnings and advisory policies."""


@dataclass(frozen=True)
class LocalConfig:
    """The part of a stack's configuration that only this machine knows."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)


class Engine(ABC):
    """Brings stacks up, or shows what that would do."""

    label: str

    @abstractmethod
    def run(self, stack: str, config: LocalConfig, *, preview: bool, on_step: Callable[[Step], None]) -> EngineRun:
        """Applies a stack, or previews it.

        Raises:
            pulumi.RunError, EmbeddedError: with what is wrong; the same command can be run again.
        """

    @abstractmethod
    def outputs(self, stack: str) -> dict[str, Any]:
        """A stack's outputs that are not secret; empty if it was never brought up."""

    def owns(self, stack: str, urn: str) -> bool:
        """Whether a stack's state holds a resource, so that no other stack can have it before the state is moved."""
        del stack, urn
        return False


class EmbeddedEngine(Engine):
    """The runner of this package."""

    label = "embedded runner"

    def __init__(self, home: Home, root: Path = CHECKOUT) -> None:
        self._home = home
        self._root = root

    def run(self, stack: str, config: LocalConfig, *, preview: bool, on_step: Callable[[Step], None]) -> EngineRun:
        if not preview:
            self._home.write_json(_LAST_ENGINE, EngineChoice.EMBEDDED)
        full = load_config(self._root, stack, config.settings, config.secrets)
        result = deploy(self._home, self._root, stack, full, preview=preview, on_step=on_step)
        return _summary(result)

    def outputs(self, stack: str) -> dict[str, Any]:
        outputs = stack_outputs(self._home, stack)
        return outputs.without(outputs.secrets).values if outputs else {}


def _summary(result: Result) -> EngineRun:
    count = {change: sum(step.custom and step.change is change for step in result.steps) for change in Change}
    remarks = [*result.warnings, *(f"{found.policy}: {found.message}" for found in result.violations)]
    return EngineRun(result.stack, count[Change.CREATE], count[Change.UPDATE], count[Change.SAME], remarks)


class PulumiEngine(Engine):
    """The Pulumi CLI, with its state in the private folder."""

    def __init__(self, home: Home, command: Path, root: Path = CHECKOUT) -> None:
        self._home = home
        self._command = command
        self._root = root
        self.label = f"Pulumi {self._pulumi('version').stdout.strip()}"

    def run(self, stack: str, config: LocalConfig, *, preview: bool, on_step: Callable[[Step], None]) -> EngineRun:
        del on_step  # the CLI shows its own progress
        with self._home.lock(f"stack-{stack}"):
            if not preview:
                self._home.write_json(_LAST_ENGINE, EngineChoice.PULUMI)
            file = self._prepare(stack, config)
            arguments = ["preview"] if preview else ["up", "--yes"]
            settings = policy_config(self._root)
            for pack in policy_packs(self._root):
                arguments += ["--policy-pack", str(pack)]
                # One for each pack, in their order.
                arguments += ["--policy-pack-config", str(settings)] if settings else []
            arguments += ["--stack", stack, "--config-file", str(file), "--non-interactive", "--suppress-outputs"]
            # Its progress belongs to people; standard output is for what a command answers.
            done = subprocess.run(
                [self._command, *arguments], cwd=self._root, env=self.environment(), stdout=sys.stderr, check=False
            )
            if done.returncode != 0:
                raise RunFailedError(
                    f"Pulumi did not finish stack {stack}: see above; the same command goes on from there"
                )
            return self._changes(stack) if not preview else EngineRun(stack, None, None, None)

    def outputs(self, stack: str) -> dict[str, Any]:
        done = self._pulumi("stack", "output", "--json", "--stack", stack, check=False)
        return dict(json.loads(done.stdout)) if done.returncode == 0 else {}

    def owns(self, stack: str, urn: str) -> bool:
        done = self._pulumi("stack", "export", "--stack", stack, check=False)
        state = json.loads(done.stdout)["deployment"] if done.returncode == 0 else {}
        return any(resource["urn"] == urn for resource in state.get("resources") or [])

    def _changes(self, stack: str) -> EngineRun:
        history = json.loads(self._pulumi("stack", "history", "--stack", stack, "--json", "--page-size", "1").stdout)
        changes: dict[str, int] = history[0].get("resourceChanges") or {}
        return EngineRun(
            stack,
            changes.get("create", 0),
            sum(count for kind, count in changes.items() if kind not in ("create", "same")),
            changes.get("same", 0),
        )

    @contextmanager
    def prepared(self, stack: str, config: LocalConfig) -> Iterator[Path]:
        """The stack, there and nobody else's, with the configuration file that it is run with."""
        with self._home.lock(f"stack-{stack}"):
            yield self._prepare(stack, config)

    def _prepare(self, stack: str, config: LocalConfig) -> Path:
        """Makes the stack if there is none, and its configuration: the committed file and what is known here."""
        with self._untouched(stack):
            if self._pulumi("stack", "output", "--json", "--stack", stack, check=False).returncode != 0:
                self._pulumi("stack", "init", stack, "--no-select")
        yaml = YAML()
        file = self._home.path / "config" / f"Pulumi.{stack}.yaml"
        document = yaml.load(stack_file(self._root, stack).read_text(encoding="utf-8"))
        before = yaml.load(file.read_text(encoding="utf-8")) if file.exists() else {}
        project = project_name(self._root)
        for key, value in config.settings.items():
            document["config"][f"{project}:{key}"] = dict(value) if isinstance(value, Mapping) else value
        for key in ("encryptionsalt", "secretsprovider", "encryptedkey"):
            if key in before:
                document[key] = before[key]
        file.parent.mkdir(exist_ok=True, mode=0o700)
        with file.open("w", encoding="utf-8") as stream:
            yaml.dump(document, stream)
        for key, secret in config.secrets.items():
            place = ["--stack", stack, "--config-file", str(file)]
            self._pulumi("config", "set", "--secret", key, *place, stdin=secret)
        return file

    @contextmanager
    def _untouched(self, stack: str) -> Iterator[None]:
        """`stack init` writes a salt into the committed file; what is local to this machine does not belong there."""
        file = stack_file(self._root, stack)
        before = file.read_bytes()
        try:
            yield
        finally:
            if file.read_bytes() != before:
                file.write_bytes(before)

    def environment(self) -> dict[str, str]:
        """The variables that the CLI runs with here."""
        # A passphrase of the caller's own would come before the file's.
        mine = {key: value for key, value in os.environ.items() if key != "PULUMI_CONFIG_PASSPHRASE"}
        return {**mine, **backend_variables(self._home), "PULUMI_SKIP_UPDATE_CHECK": "true"}

    def _pulumi(self, *arguments: str, check: bool = True, stdin: str = "") -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [self._command, *arguments],
            cwd=self._root,
            env=self.environment(),
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        if check and done.returncode != 0:
            raise EmbeddedError(f"pulumi {arguments[0]} failed: {done.stderr.strip()}")
        return done


def backend_variables(home: Home) -> dict[str, str]:
    """Where the CLI keeps the local stacks' state, and what encrypts the secrets in it."""
    backend = home.path / "pulumi-state"
    backend.mkdir(exist_ok=True, mode=0o700)
    passphrase = home.path / PASSPHRASE_FILE
    if not passphrase.exists():
        home.write_private(PASSPHRASE_FILE, secrets.token_hex(32))
    return {"PULUMI_BACKEND_URL": backend.as_uri(), "PULUMI_CONFIG_PASSPHRASE_FILE": str(passphrase)}


def choose_engine(choice: EngineChoice, home: Home, say: Callable[[str], None]) -> Engine:
    """The engine to use: the CLI on PATH, else the official one installed, else the embedded runner, which says so.

    Raises:
        EmbeddedError: if the CLI is asked for and cannot be had.
    """
    home.prepare()
    if choice is EngineChoice.EMBEDDED:
        return EmbeddedEngine(home)
    command = _cli_on_path() or _install(home, say)
    if command is not None:
        return PulumiEngine(home, command)
    if choice is EngineChoice.PULUMI:
        raise EmbeddedError("there is no `pulumi` on PATH, and get.pulumi.com cannot be reached to install it.")
    say("There is no Pulumi CLI here, and none can be installed: using the embedded runner. It keeps no state and")
    say("removes nothing; drift and destroy need the CLI.")
    return EmbeddedEngine(home)


def last_engine(home: Home) -> Engine:
    """The engine that last brought a stack up here, so the one that has its outputs.

    Raises:
        EmbeddedError: if that was the CLI and it is no longer there.
    """
    if home.read_json(_LAST_ENGINE) != EngineChoice.PULUMI:
        return EmbeddedEngine(home)
    command = _cli_on_path() or _installed(home)
    if command is None:
        raise EmbeddedError("the stacks were brought up with the Pulumi CLI, which is not on PATH: put it back there.")
    return PulumiEngine(home, command)


def _cli_on_path() -> Path | None:
    found = shutil.which("pulumi")
    return Path(found) if found else None


def _installed(home: Home) -> Path | None:
    command = home.path / "pulumi-cli" / "bin" / "pulumi"
    return command if command.is_file() else None


def _install(home: Home, say: Callable[[str], None]) -> Path | None:
    root = home.path / "pulumi-cli"
    if (command := _installed(home)) is not None:
        return command
    try:
        socket.create_connection(_INSTALLER, _INSTALLER_SECONDS).close()
    except OSError:
        return None
    say(f"Installing the Pulumi CLI into {root}")
    try:
        automation.PulumiCommand.install(root=str(root))
    except Exception as error:  # noqa: BLE001 whatever the installer's script meets, there is another engine
        say(f"The Pulumi CLI could not be installed: {error}")
        return None
    return _installed(home)
