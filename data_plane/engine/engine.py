"""What every engine can do."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_plane.engine.steps import EngineRun, Step

__all__ = ["Engine", "LocalConfig"]


@dataclass(frozen=True)
class LocalConfig:
    """The part of a stack's configuration that only this machine knows."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)


class Engine(ABC):
    """Brings stacks up, or shows what that would do."""

    label: str

    @abstractmethod
    def run(
        self,
        stack: str,
        config: LocalConfig,
        *,
        preview: bool,
        on_step: Callable[[Step], None],
        refresh: bool = False,
    ) -> EngineRun:
        """Applies a stack, or previews it.

        Args:
            refresh: whether to look first what is really there; the local runner always does.

        Raises:
            DataPlaneError: with what is wrong; the same command can be run again.
        """

    @abstractmethod
    def outputs(self, stack: str) -> dict[str, Any]:
        """A stack's outputs that are not secret; empty if it was never brought up."""

    @abstractmethod
    def at(self, root: Path) -> "Engine":
        """The same engine with the program and the files of another checkout."""

    def owns(self, stack: str, urn: str) -> bool:
        """Whether a stack's state holds a resource, so that no other stack can have it before the state is moved."""
        del stack, urn
        return False

    def state_mark(self, stack: str) -> str | None:
        """A digest that every run of a stack changes; None where there is none, so that the stack is always run."""
        del stack
        return None
