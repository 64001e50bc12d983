"""What every command writes with, and how its errors end.

Exit codes:

==== ==================================================================================
0    done
1    refused, or failed; the message says why, and what to do
2    the command line is wrong; of ``policy check`` and ``stack affected``, not checked;
     of ``preview --detailed-exitcode``, there are changes
126  ``lease run``: the command cannot be started
127  ``lease run``: there is no such command
128+ ended by a signal: 130 by Ctrl-C, 143 by SIGTERM
==== ==================================================================================

The command under ``lease run`` ends with its own.
"""

import errno
import json
import logging
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NoReturn, TextIO

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape

from data_plane.errors import DataPlaneError, OutputError, UsageError
from data_plane.state_dir import SOURCES

__all__ = [
    "CheckedOutput",
    "counted",
    "fail",
    "messages",
    "not_installed",
    "print_json",
    "print_table",
    "require_terminal",
    "set_verbose",
    "stderr",
    "stdout",
]

# Nothing is broken into lines: what is copied from them has to be whole.
stderr = Console(stderr=True, highlight=False, soft_wrap=True)
"""For people, beside what a command answers."""
stdout = Console(highlight=False, soft_wrap=True)

_FAILED = 1
_INTERRUPTED = 130
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_OURS = ("components", "data_plane", "policies")
_log = logging.getLogger(__name__)


def set_verbose() -> None:
    """Logs to standard error from now on: what is done, and each error with its cause and traceback."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    # The last logs what is asked of OpenBao: method and path, which hold no secret.
    for name in ("data_plane", "components", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.DEBUG)


def fail(message: str, error: BaseException | None = None, code: int = _FAILED) -> NoReturn:
    """Ends a command with one message.

    Args:
        error: what has happened. The message begins with its stable code; `--verbose` shows it with what caused it.
        code: the exit code.
    """
    known = getattr(error, "code", None)
    head = f"error\\[{known}]:" if isinstance(known, str) else "error:"
    if error is not None and _log.isEnabledFor(logging.DEBUG):
        _log.debug("this ended the command", exc_info=_with_causes(error))
    stderr.print(f"[bold red]{head}[/] {escape(message)}")
    raise typer.Exit(code) from None


def counted(number: int, noun: str) -> str:
    """A number of things: `1 migration`, `2 migrations`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def require_terminal(question: str) -> None:
    """Raises where nobody can be asked.

    Args:
        question: what would be asked, and the option that answers it.

    Raises:
        UsageError: with that.
    """
    if not sys.stdin.isatty():
        raise UsageError(f"there is no terminal to ask at{question}")


def print_json(value: Any) -> None:
    """Answers with a JSON value and nothing else."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def print_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Prints a table whose cells are never cut or broken into lines, however narrow the terminal is."""
    lines = [tuple(heads), *(tuple(row) for row in rows)]
    widths = [max(cell_len(line[index]) for line in lines) for index in range(len(heads))]
    for number, line in enumerate(lines):
        padded = (cell + " " * (width - cell_len(cell)) for cell, width in zip(line, widths, strict=True))
        stdout.print(escape("  ".join(padded).rstrip()), style="bold" if number == 0 else None)


def not_installed(error: ModuleNotFoundError, extra: str) -> str:
    """What is not installed, and how it is.

    Args:
        extra: of the distribution, that brings it.

    Raises:
        ModuleNotFoundError: the same, if it is a part of this distribution, whose installation then is damaged.
    """
    package = (error.name or "").partition(".")[0]
    if package in _OURS:
        raise error
    installing = "make setup-dev" if (SOURCES / "Makefile").is_file() else f"pip install 'supabase-data-plane[{extra}]'"
    return f"{package} is not installed: {installing}"


@contextmanager
def messages() -> Iterator[None]:
    """Ends a command with one message for every foreseeable error."""
    try:
        yield
    except (typer.Exit, typer.Abort):
        raise
    except KeyboardInterrupt as error:
        fail("interrupted; the same command can be run again", error, _INTERRUPTED)
    except Exception as error:
        message = _message_of(error)
        if message is None:
            raise
        fail(message, error, getattr(error, "exit_code", _FAILED))


class CheckedOutput:
    """Standard output whose errors say that they are its own.

    Args:
        stream: writes it.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes text.

        Raises:
            OutputError: if it cannot be written.
        """
        with self._errors():
            return self._stream.write(text)

    def flush(self) -> None:
        """Writes out what waits.

        Raises:
            OutputError: if it cannot be written.
        """
        with self._errors():
            self._stream.flush()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise  # who reads has seen enough: typer ends the command
        except OSError as error:
            self._drop()
            raise OutputError(f"standard output cannot be written: {error.strerror}") from error

    def _drop(self) -> None:
        """Forgets what could not be written, so that it is not tried again at the end."""
        with suppress(OSError, ValueError):
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, self._stream.fileno())
            os.close(nothing)


def _message_of(error: Exception) -> str | None:
    """The message of a foreseeable error. Asks for the kinds of errors whose library has been imported at all."""
    if isinstance(error, DataPlaneError) or _is(error, "pulumi", "RunError"):
        return str(error)
    if _is(error, "hvac.exceptions", "VaultError") or _is(error, "requests", "RequestException"):
        from data_plane.clients.openbao import explain  # noqa: PLC0415

        return f"OpenBao: {explain(error)}. `dataplane local status` shows whether it runs."
    if _is(error, "psycopg", "Error"):
        from data_plane.clients.postgres import explain as explain_database  # noqa: PLC0415

        return f"PostgreSQL: {explain_database(error)}"  # type: ignore[arg-type]
    if isinstance(error, ModuleNotFoundError):
        # Most of what is imported late is for this machine's servers.
        return not_installed(error, "kubernetes" if error.name == "kubernetes" else "local")
    if isinstance(error, OSError):
        return _of_system(error)
    return None


def _is(error: Exception, module: str, name: str) -> bool:
    found = sys.modules.get(module)
    return found is not None and isinstance(error, getattr(found, name))


def _of_system(error: OSError) -> str:
    place = error.filename or "a temporary file"
    advice = "Make room, then run the same command again" if error.errno in _NO_ROOM else "Run it again with --verbose"
    return f"{place}: {error.strerror or error}. {advice}"


def _with_causes(error: BaseException) -> BaseException:
    """The error, with what caused each of its chain shown also where only a message was meant to be."""
    found: BaseException | None = error
    while found is not None:
        found.__suppress_context__ = found.__cause__ is not None
        found = found.__cause__ or found.__context__
    return error
