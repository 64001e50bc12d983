"""The program as the Automation API runs it: in this process, in a thread and a context of its own."""

import asyncio
import gc
import runpy
import time
from contextlib import suppress
from pathlib import Path

__all__ = ["InlineProgram"]

_ENDING_SECONDS = 5


class InlineProgram:
    """One run of a program. It may be called twice: a run that applies previews before.

    Args:
        file: the program.
        stack: whose resources it declares.
    """

    def __init__(self, file: Path, stack: str) -> None:
        self._file = file
        # A name of its own: runpy swaps the module of that name for the time, and programs may run side by side.
        self._name = f"__main__ of {stack}"
        self._loops: list[asyncio.AbstractEventLoop] = []

    def __call__(self) -> None:
        """Declares the resources."""
        self._loops.append(asyncio.get_running_loop())
        runpy.run_path(str(self._file), run_name=self._name)

    def close(self) -> None:
        """Ends what is left of it, once the CLI has ended.

        The SDK leaves its coroutines behind when the CLI was killed. The garbage collector would end them, in any code.
        """
        deadline = time.monotonic() + _ENDING_SECONDS
        for loop in self._loops:
            while loop.is_running() and time.monotonic() < deadline:
                time.sleep(0.02)
            if not loop.is_running() and not loop.is_closed():
                for task in asyncio.all_tasks(loop):
                    with suppress(Exception):
                        task.get_coro().close()
        self._loops.clear()
        gc.enable()  # the program has turned it off for itself; this process goes on
