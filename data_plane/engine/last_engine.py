"""The engine that last brought stacks up on this machine, imported only for what its outputs do not tell."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from data_plane.engine.engine import Engine, LocalConfig
from data_plane.engine.last_run import cli_state_mark, cli_was_last
from data_plane.engine.runner.kept_outputs import plain_outputs
from data_plane.engine.steps import EngineRun, Step
from data_plane.state_dir import CHECKOUT, StateDir

__all__ = ["LastEngine"]


class LastEngine(Engine):
    """The engine of the last runs. Reading outputs, as every lease does, does not import it.

    The local runner's are read from its state. The Pulumi CLI's are kept for as long as its state does not change.

    Args:
        home: the private folder.
        load: gives the engine.
        root: the checkout.
    """

    def __init__(self, home: StateDir, load: Callable[[], Engine], root: Path = CHECKOUT) -> None:
        self._home = home
        self._load = load
        self._root = root

    @cached_property
    def _engine(self) -> Engine:
        return self._load()

    @property
    def label(self) -> str:  # type: ignore[override]
        """The engine's."""
        return self._engine.label

    def outputs(self, stack: str) -> dict[str, Any]:
        if not cli_was_last(self._home):
            return plain_outputs(self._home, stack)
        # Taken before the outputs are: at worst they are read once more.
        mark, kept = cli_state_mark(self._home, self._root, stack), self._home.read_json(_kept_file(stack))
        if mark is not None and kept is not None and kept["mark"] == mark:
            return dict(kept["outputs"])
        found = self._engine.outputs(stack)
        if mark is not None:
            self._home.write_json(_kept_file(stack), {"mark": mark, "outputs": found})
        return found

    def run(
        self,
        stack: str,
        config: LocalConfig,
        *,
        preview: bool,
        on_step: Callable[[Step], None],
        refresh: bool = False,
    ) -> EngineRun:
        return self._engine.run(stack, config, preview=preview, on_step=on_step, refresh=refresh)

    def at(self, root: Path) -> Engine:
        return self._engine.at(root)

    def owns(self, stack: str, urn: str) -> bool:
        return self._engine.owns(stack, urn)

    def state_mark(self, stack: str) -> str | None:
        return self._engine.state_mark(stack)


def _kept_file(stack: str) -> str:
    return f"outputs/{stack}.json"
