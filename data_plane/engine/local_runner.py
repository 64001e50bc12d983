"""The small runner of this package, for machines without the Pulumi CLI."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_plane.engine.engine import Engine, LocalConfig
from data_plane.engine.last_run import note_engine
from data_plane.engine.runner.deployment import Result, deploy
from data_plane.engine.runner.kept_outputs import plain_outputs
from data_plane.engine.runner.monitor import Providers
from data_plane.engine.stack_files import load_config
from data_plane.engine.steps import Change, EngineRun, Step
from data_plane.state_dir import CHECKOUT, StateDir

__all__ = ["LocalRunner"]


class LocalRunner(Engine):
    """The local runner.

    Args:
        home: the private folder, with what it keeps of each stack.
        providers: by package.
        root: the checkout.
    """

    label = "local runner"

    def __init__(self, home: StateDir, providers: Providers, root: Path = CHECKOUT) -> None:
        self._home = home
        self._providers = providers
        self._root = root

    def at(self, root: Path) -> "LocalRunner":
        return LocalRunner(self._home, self._providers, root)

    def run(
        self,
        stack: str,
        config: LocalConfig,
        *,
        preview: bool,
        on_step: Callable[[Step], None],
        refresh: bool = False,
    ) -> EngineRun:
        del refresh  # it reads what is there every time
        if not preview:
            note_engine(self._home, cli=False)
        full = load_config(self._root, stack, config.settings, config.secrets)
        return _summary(deploy(self._home, self._root, stack, full, self._providers, preview=preview, on_step=on_step))

    def outputs(self, stack: str) -> dict[str, Any]:
        return plain_outputs(self._home, stack)


def _summary(result: Result) -> EngineRun:
    count = {change: sum(step.custom and step.change is change for step in result.steps) for change in Change}
    remarks = [*result.warnings, *(f"{found.policy}: {found.message}" for found in result.violations)]
    return EngineRun(result.stack, count[Change.CREATE], count[Change.UPDATE], count[Change.SAME], remarks)
