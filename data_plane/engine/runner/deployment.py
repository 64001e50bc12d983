"""One run of the program for one stack."""

import asyncio
import contextvars
import gc
import logging
import runpy
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pulumi
from pulumi.runtime.settings import Settings

from data_plane.engine.runner.monitor import EngineLog, Monitor, Providers
from data_plane.engine.runner.policy import PolicyPack, Violation
from data_plane.engine.runner.properties import Properties
from data_plane.engine.runner.state import StackState
from data_plane.engine.stack_files import StackConfig, policy_config, policy_packs, project_name
from data_plane.engine.steps import Step
from data_plane.errors import DataPlaneError, RunFailedError, RunInterruptedError
from data_plane.state_dir import StateDir

__all__ = ["Result", "deploy", "stack_outputs"]

_ORGANIZATION = "organization"
_PARALLEL = 16
"""How many resources are applied at the same time."""


@dataclass(frozen=True)
class Result:
    """What a run did."""

    stack: str
    steps: list[Step]
    violations: list[Violation]
    """Of advisory policies; a mandatory one ends the run."""
    warnings: list[str] = field(default_factory=list)


def stack_outputs(home: StateDir, stack: str) -> Properties | None:
    """The outputs of a stack's last run."""
    return StackState(home, stack).outputs


def deploy(
    home: StateDir,
    root: Path,
    stack: str,
    config: StackConfig,
    providers: Providers,
    *,
    preview: bool,
    on_step: Callable[[Step], None] = lambda _step: None,
) -> Result:
    """Runs the program once and applies, or previews, what it declares.

    Args:
        providers: by package.

    Raises:
        pulumi.RunError: what the program itself has to say, e.g. of its configuration.
        RunFailedError: if something could not be applied, or a mandatory policy is against it.
    """
    with home.lock(f"stack-{stack}"):
        packs = policy_packs(root)
        if packs and not preview:
            # As the engine does: whatever a policy has to say is said before anything is changed.
            _run(home, root, stack, config, providers, packs, preview=True, on_step=lambda _step: None)
        return _run(home, root, stack, config, providers, packs, preview=preview, on_step=on_step)


def _run(
    home: StateDir,
    root: Path,
    stack: str,
    config: StackConfig,
    providers: Providers,
    packs: list[Path],
    *,
    preview: bool,
    on_step: Callable[[Step], None],
) -> Result:
    project = project_name(root)
    state = StackState(home, stack)
    policies: list[PolicyPack] = []
    warnings: list[str] = []
    try:
        settings = policy_config(root)
        policies.extend(PolicyPack(folder, project, stack, preview=preview, config=settings) for folder in packs)
        monitor = Monitor(
            project,
            stack,
            state,
            lambda other: stack_outputs(home, other),
            providers,
            policies,
            preview=preview,
            on_step=on_step,
        )
        program = _Program(root, project, stack, config, monitor, EngineLog(warnings.append), preview=preview)
        error = program.run()
    finally:
        for pack in policies:
            pack.close()
        if not preview and not state.unchanged:
            state.save()
    _raise(error, monitor, stack)
    undeclared = state.urns() - {step.urn for step in monitor.steps} - {*monitor.removed}
    if left := sorted(urn.rpartition("::")[2] for urn in undeclared):
        warnings.append(f"no longer declared, and this runner removes nothing: {', '.join(left)}")
    if gone := sorted(urn.rpartition("::")[2] for urn in monitor.removed):
        said = "whose manifests `up` removes" if preview else "so their manifests are removed"
        warnings.append(f"no longer declared, {said}: {', '.join(gone)}")
    warnings += monitor.remarks
    if not preview and monitor.outputs != state.outputs:
        state.outputs = monitor.outputs
        state.save()
    return Result(stack, monitor.steps, monitor.violations, warnings)


class _Program:
    """The program in a thread of its own, so that the SDK's context is a fresh one."""

    def __init__(
        self,
        root: Path,
        project: str,
        stack: str,
        config: StackConfig,
        monitor: Monitor,
        engine: EngineLog,
        *,
        preview: bool,
    ) -> None:
        self._root = root
        self._config = config
        self._monitor = monitor
        self._settings: dict[str, Any] = {
            "project": project,
            "stack": stack,
            "monitor": monitor,
            "engine": engine,
            "parallel": _PARALLEL,
            "dry_run": preview,
            "organization": _ORGANIZATION,
            "root_directory": str(root),
        }
        self._error: BaseException | None = None

    def run(self) -> BaseException | None:
        """Runs it to its end, and gives what it failed with."""
        # An event, because Python 3.11 takes a thread for ended whose join() was interrupted.
        ended = threading.Event()

        def main() -> None:
            try:
                contextvars.Context().run(self._main)
            finally:
                ended.set()

        threading.Thread(target=main, name="pulumi-program").start()
        try:
            ended.wait()
        except KeyboardInterrupt:
            # What is under way is finished, so that nothing is left half-done; nothing more is begun.
            self._monitor.cancelled = True
            ended.wait()
            self._error = RunInterruptedError()
        finally:
            self._monitor.close()
        return self._error

    def _main(self) -> None:
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # futures that nobody waits for after a failure
        pulumi.runtime.set_all_config(self._config.values, sorted(self._config.secrets))
        pulumi.runtime.configure(Settings(**self._settings))
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        executor = ThreadPoolExecutor(_PARALLEL)
        loop.set_default_executor(executor)
        if str(self._root) not in sys.path:
            sys.path.insert(0, str(self._root))

        def program() -> None:
            # A name of its own: runpy swaps the module of that name for the time, and programs may run side by side.
            runpy.run_path(str(self._root / "__main__.py"), run_name=f"__main__ of {self._settings['stack']}")

        try:
            loop.run_until_complete(pulumi.runtime.run_in_stack(program))
        except BaseException as error:  # noqa: BLE001 told to the thread that waits
            self._error = error
        finally:
            executor.shutdown(wait=True)
            loop.close()
            gc.enable()  # the program has turned it off for itself; this process may go on


def _raise(error: BaseException | None, monitor: Monitor, stack: str) -> None:
    mandatory = [violation for violation in monitor.violations if violation.mandatory]
    if monitor.failures:
        lines = [f"  {failure.name} ({failure.type}): {failure.message}" for failure in monitor.failures]
        raise RunFailedError(
            "\n".join([f"stack {stack} failed. Fix this and run it again; it resumes:", *lines])
        ) from error
    if isinstance(error, pulumi.RunError | DataPlaneError):
        raise error
    if mandatory:
        lines = [f"  {found.policy}: {found.message}\n    {found.urn}" for found in mandatory]
        raise RunFailedError("\n".join([f"mandatory policies refuse stack {stack}; nothing was applied:", *lines]))
    if error is not None:
        text = "".join(traceback.format_exception(error))
        raise RunFailedError(f"the program of stack {stack} failed:\n{text}") from error
