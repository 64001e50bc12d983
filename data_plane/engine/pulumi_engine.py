"""The Pulumi CLI, which runs the program of a checkout through the Automation API."""

import json
import os
import secrets
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from copy import copy
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import Any

from pulumi import automation
from ruamel.yaml import YAML

from data_plane.clients.postgres import PLATFORM_SESSION
from data_plane.engine.command import Command, errors_in
from data_plane.engine.engine import Engine, LocalConfig
from data_plane.engine.events import EventLog
from data_plane.engine.inline import InlineProgram
from data_plane.engine.last_run import cli_backend, cli_state_mark, note_engine
from data_plane.engine.locks import describe_locks, forget_killed_runs
from data_plane.engine.plugins import missing_plugins, refuse_missing, write_dynamic_plugin, write_policy_pack
from data_plane.engine.stack_files import has_settings, policy_config, policy_packs, project_name, stack_file
from data_plane.engine.steps import EngineRun, Step
from data_plane.errors import RunFailedError, RunInterruptedError, StackBusyError
from data_plane.state_dir import CHECKOUT, StateDir

__all__ = ["PASSPHRASE_FILE", "PulumiEngine", "backend_variables"]

PASSPHRASE_FILE = "pulumi-passphrase"
_SALTS = ("encryptionsalt", "secretsprovider", "encryptedkey")
"""What the CLI keeps in a stack's configuration of how its secrets are encrypted."""

_HIDDEN = "[secret]"
"""What the CLI shows of a secret output."""

_STACK = "pulumi:pulumi:Stack"
_QUIET = {"color": "never", "suppress_outputs": True, "suppress_progress": True}

InstallPlugins = Callable[[Path], None]


class PulumiEngine(Engine):
    """The Pulumi CLI.

    The program runs in this process, in a context of its own; other stacks may run at the same time. Each stack has a
    folder in the private one with its configuration: the CLI writes into that, never into the committed file.

    Args:
        home: the private folder.
        command: the CLI.
        root: the checkout.
        shared_backend: whether the state is where ``PULUMI_BACKEND_URL`` says, not in the private folder.
        install_plugins: puts plugins in place of official ones that are missing; None where that must not be.
    """

    def __init__(
        self,
        home: StateDir,
        command: Path,
        root: Path = CHECKOUT,
        *,
        shared_backend: bool = False,
        install_plugins: InstallPlugins | None = None,
    ) -> None:
        self._home = home
        self._path = command
        self._root = root
        self._shared = shared_backend
        self._install_plugins = install_plugins
        self._command = Command(command, self.environment())
        self.label = f"Pulumi {self._command.version}"

    def at(self, root: Path) -> "PulumiEngine":
        other = copy(self)  # the CLI and its plugins have been looked at
        other._root = root  # noqa: SLF001  one of the same class
        return other

    # What it does

    def run(
        self,
        stack: str,
        config: LocalConfig,
        *,
        preview: bool,
        on_step: Callable[[Step], None],
        refresh: bool = False,
    ) -> EngineRun:
        options: dict[str, Any] = {"refresh": refresh or None, **_QUIET, **self._policies()}
        with self._run(stack, config, preview=preview, on_step=on_step) as (selected, log):
            program = InlineProgram(self._root / "__main__.py", stack)
            with closing(program):
                if preview:
                    selected.preview(**options, on_event=log.add, program=program)
                else:
                    selected.up(**options, on_event=log.add, program=program, show_secrets=False)
        return log.run

    def refresh(self, stack: str, config: LocalConfig, *, on_step: Callable[[Step], None]) -> EngineRun:
        """Takes what is really there into the state; an update in the result is a difference that was found."""
        with self._run(stack, config, preview=False, on_step=on_step) as (selected, log):
            selected.refresh(on_event=log.add, color="never", show_secrets=False, clear_pending_creates=True)
        return log.run

    def destroy(self, stack: str, config: LocalConfig, *, on_step: Callable[[Step], None]) -> EngineRun:
        """Deletes all that a stack has made and is not protected."""
        with self._run(stack, config, preview=False, on_step=on_step) as (selected, log):
            selected.destroy(on_event=log.add, color="never", show_secrets=False)
        return log.run

    def preview_or_gone(self, stack: str, *, on_step: Callable[[Step], None], refresh: bool = False) -> EngineRun:
        """Previews a stack; one whose settings are deleted has to be gone, or empty: its resources would be nobody's.

        Raises:
            RunFailedError: if it cannot be previewed, or its settings are deleted while it holds resources.
        """
        if has_settings(self._root, stack):
            return self.run(stack, LocalConfig(), preview=True, on_step=on_step, refresh=refresh)
        held = self._held(stack)
        if held:
            raise RunFailedError(
                f"the settings of {stack} are deleted, and it holds {held} resources: first destroy it, or rename it "
                "(pulumi stack rename)"
            )
        return EngineRun(stack, 0, 0, 0, ["its settings are deleted, and it holds no resources"])

    def _held(self, stack: str) -> int:
        """How many resources a stack holds that has no settings any more; none if it is gone."""
        folder = str(self._configured(stack))
        try:
            listed = json.loads(self._command.run(["stack", "ls", "--json"], folder, {}).stdout)
            # Stacks of another organization than the account's own are listed with its name.
            if all(found["name"].rpartition("/")[2] != stack for found in listed):
                return 0
            exported = json.loads(self._command.run(["stack", "export", "--stack", stack], folder, {}).stdout)
            resources = exported["deployment"].get("resources") or []
        except automation.CommandError as error:
            raise RunFailedError(f"stack {stack} cannot be read: {errors_in(error)}") from error
        except (ValueError, LookupError, TypeError) as error:
            raise RunFailedError(f"stack {stack} cannot be read: the CLI's output is not as expected") from error
        return sum(resource["type"] != _STACK for resource in resources)

    @contextmanager
    def _run(
        self, stack: str, config: LocalConfig, *, preview: bool, on_step: Callable[[Step], None]
    ) -> Iterator[tuple[automation.Stack, EventLog]]:
        """The stack, ready for an operation, and what collects the events of that; its errors become messages."""
        with self._stack(stack, config) as selected:
            log = EventLog(stack, preview=preview, on_step=on_step)
            with _failures(stack, log):
                log.remark(self._after_killed_run(selected))
                yield selected, log

    def outputs(self, stack: str) -> dict[str, Any]:
        found = self._read(stack, "output", "--json")
        return {name: value for name, value in found.items() if value != _HIDDEN}

    def owns(self, stack: str, urn: str) -> bool:
        return any(resource["urn"] == urn for resource in self.export_state(stack).get("resources") or [])

    def export_state(self, stack: str) -> dict[str, Any]:
        """A stack's state as the CLI exports it, secrets encrypted; empty if it was never brought up.

        Raises:
            RunFailedError: if it cannot be read.
        """
        return dict(self._read(stack, "export").get("deployment") or {})

    def state_mark(self, stack: str) -> str | None:
        return None if self._shared else cli_state_mark(self._home, self._root, stack)

    def cli(self, stack: str, *arguments: str) -> str:
        """What the CLI answers to a command, given in a stack's folder.

        Raises:
            RunFailedError: with what it says is wrong.
        """
        try:
            return str(self._command.run([*arguments], str(self._configured(stack)), {}).stdout)
        except automation.CommandError as error:
            raise RunFailedError(f"pulumi {' '.join(arguments[:2])}: {errors_in(error)}") from error

    # Behind it

    def environment(self) -> dict[str, str]:
        """The variables that the CLI runs with here, beside the process's own."""
        bin_folder = self._home.path / "pulumi" / "bin"
        write_dynamic_plugin(bin_folder)
        path = os.pathsep.join([str(bin_folder), str(self._path.parent), os.environ.get("PATH", "")])
        # The official PostgreSQL provider's connections, which nothing else can set.
        found = {"PATH": path, "PGOPTIONS": PLATFORM_SESSION}
        return found if self._shared else {**found, **backend_variables(self._home)}

    @cached_property
    def _plugin_variables(self) -> dict[str, str]:
        """Where the CLI finds its plugins, once all are there.

        Raises:
            DataPlaneError: with the commands that install what is missing.
        """
        missing = missing_plugins(self._command, self._home.path, {})
        if not missing:
            return {}
        if self._install_plugins is None:
            refuse_missing(missing)
        else:
            folder = self._home.path / "pulumi" / "home"
            self._install_plugins(folder / "plugins")
            return {"PULUMI_HOME": str(folder)}
        return {}

    @contextmanager
    def _stack(self, stack: str, config: LocalConfig) -> Iterator[automation.Stack]:
        """The stack, nobody else's on this machine, with its configuration in place."""
        with self._home.lock(f"stack-{stack}"):
            if not self._shared:
                note_engine(self._home, cli=True)
            folder = self._configure(stack, config)
            workspace = automation.LocalWorkspace(
                work_dir=str(folder), env_vars=self._plugin_variables, pulumi_command=self._command
            )
            select = automation.Stack.select if self._shared else automation.Stack.create_or_select
            try:
                selected = select(stack, workspace)
                for key, secret in config.secrets.items():
                    self._command.answer(
                        "config", "set", "--secret", key, "--stack", stack, folder=folder, stdin=secret
                    )
            except automation.CommandError as error:
                raise RunFailedError(f"stack {stack} cannot be used: {errors_in(error)}") from error
            yield selected

    def _read(self, stack: str, *what: str) -> dict[str, Any]:
        """What ``pulumi stack`` says of a stack, also during a run; empty if there is no such stack."""
        try:
            found = self._command.run(["stack", *what, "--stack", stack], str(self._configured(stack)), {})
        except automation.StackNotFoundError:
            return {}
        except automation.CommandError as error:
            raise RunFailedError(f"stack {stack} cannot be read: {errors_in(error)}") from error
        return dict(json.loads(found.stdout))

    def _configured(self, stack: str) -> Path:
        folder = self._folder(stack)
        return folder if (folder / "Pulumi.yaml").is_file() else self._configure(stack, LocalConfig())

    def _folder(self, stack: str) -> Path:
        return self._home.path / "pulumi" / "stacks" / stack.replace("/", "_")

    def _configure(self, stack: str, config: LocalConfig) -> Path:
        """Writes the project and the stack's configuration: the committed ones and what is known here."""
        folder = self._folder(stack)
        project = _yaml(self._root / "Pulumi.yaml")
        del project["stackConfigDir"]
        project["main"] = str(self._root)
        settings = _yaml(stack_file(self._root, stack)) if has_settings(self._root, stack) else {"config": {}}
        file = folder / f"Pulumi.{stack.rpartition('/')[2]}.yaml"
        before = _yaml(file) or {} if file.exists() else {}
        for key, value in config.settings.items():
            settings["config"][f"{project['name']}:{key}"] = dict(value) if isinstance(value, Mapping) else value
        for key in _SALTS:
            if key in before and key not in settings:
                settings[key] = before[key]
        for target, document in ((file, settings), (folder / "Pulumi.yaml", project)):
            text = StringIO()
            YAML().dump(document, text)
            # Whole: what reads outputs does so while another configures its run.
            self._home.write_private(str(target.relative_to(self._home.path)), text.getvalue())
        return folder

    def _policies(self) -> dict[str, Any]:
        settings = policy_config(self._root)
        packs = [write_policy_pack(pack, self._home.path / "pulumi" / "bin") for pack in policy_packs(self._root)]
        # A configuration for each pack, in their order.
        return {
            "policy_packs": [str(pack) for pack in packs],
            "policy_pack_configs": [str(settings)] * len(packs) if settings else None,
        }

    def _after_killed_run(self, selected: automation.Stack) -> list[str]:
        """Ends what a killed run has left, and says so. The caller holds this machine's lock of the stack."""
        if self._shared:
            return []
        return forget_killed_runs(selected, cli_backend(self._home), project_name(self._root))


def backend_variables(home: StateDir) -> dict[str, str]:
    """Where the CLI keeps the local stacks' state, and what encrypts the secrets in it."""
    backend = cli_backend(home)
    backend.mkdir(exist_ok=True, mode=0o700)
    passphrase = home.path / PASSPHRASE_FILE
    if not passphrase.exists():
        home.write_private(PASSPHRASE_FILE, secrets.token_hex(32))
    # A file of metadata beside each, half-written by a run that is killed, would make the state unreadable.
    return {"PULUMI_BACKEND_URL": f"{backend.as_uri()}?metadata=skip", "PULUMI_CONFIG_PASSPHRASE_FILE": str(passphrase)}


@contextmanager
def _failures(stack: str, log: EventLog) -> Iterator[None]:
    """Turns the Automation API's errors into messages of what the engine has said."""
    try:
        with warnings.catch_warnings():
            # Of its event stream, when the CLI is killed; that is said anyway.
            warnings.filterwarnings("ignore", "Error in event stream", UserWarning)
            yield
    except automation.ConcurrentUpdateError as error:
        raise StackBusyError(describe_locks(stack, error)) from error
    except KeyboardInterrupt as error:
        raise RunInterruptedError from error
    except automation.CommandError as error:
        lines = [f"  {line}" for line in log.errors or errors_in(error).splitlines()]
        raise RunFailedError(
            "\n".join([f"stack {stack} failed. Fix this and run it again; it resumes:", *lines])
        ) from error


def _yaml(path: Path) -> Any:
    return YAML().load(path.read_text(encoding="utf-8"))
