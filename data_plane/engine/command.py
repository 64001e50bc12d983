"""The Pulumi CLI as a command that the Automation API runs."""

import os
import re
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Thread
from typing import Any, TextIO

from pulumi import automation
from pulumi.automation.errors import create_command_error
from semver import VersionInfo

from data_plane.errors import EngineError

__all__ = ["Command", "errors_in"]

_PASSPHRASE = "PULUMI_CONFIG_PASSPHRASE"
"""Of the caller's own; it would come before the file that ``…_FILE`` names."""


class Command(automation.PulumiCommand):
    """The CLI at a path. Unlike the Automation API's own command it ends properly when this process is interrupted.

    Args:
        path: of the CLI.
        variables: its environment, beside the process's own.

    Raises:
        DataPlaneError: if it is none.
    """

    def __init__(self, path: Path, variables: Mapping[str, str]) -> None:
        self.command = str(path)
        self._variables = {**variables, "PULUMI_SKIP_UPDATE_CHECK": "true", "PULUMI_AUTOMATION_API": "true"}
        self.version = _version_of(path)

    def run(
        self,
        args: list[str],
        cwd: str,
        additional_env: Mapping[str, str],
        on_output: Callable[[str], Any] | None = None,
        on_error: Callable[[str], Any] | None = None,
    ) -> automation.CommandResult:
        """Runs it, as the Automation API asks for it."""
        # `up` previews before it applies, in one run: a policy's refusal has to come before anything is changed.
        arguments = [argument for argument in args if argument != "--skip-preview"]
        return self._run(arguments, cwd, additional_env, "", on_output, on_error)

    def answer(self, *arguments: str, folder: Path, stdin: str) -> None:
        """Runs it with something to read, which no argument may hold: arguments are everybody's to see."""
        self._run(arguments, str(folder), {}, stdin, None, None)

    def _run(
        self,
        arguments: Sequence[str],
        folder: str,
        variables: Mapping[str, str],
        stdin: str,
        on_output: Callable[[str], Any] | None,
        on_error: Callable[[str], Any] | None,
    ) -> automation.CommandResult:
        hidden = _PASSPHRASE if f"{_PASSPHRASE}_FILE" in self._variables else None
        mine = {name: value for name, value in os.environ.items() if name != hidden}
        with subprocess.Popen(
            [self.command, "--non-interactive", *arguments],
            cwd=folder,
            env={**mine, **variables, **self._variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            # Ctrl-C at the terminal would also end the plugins, in the midst of what they are doing.
            start_new_session=True,
        ) as process:
            output: list[str] = []
            errors: list[str] = []
            readers = [
                Thread(target=_read, args=(process.stdout, output, on_output)),
                Thread(target=_read, args=(process.stderr, errors, on_error)),
            ]
            for reader in readers:
                reader.start()
            interrupt = _wait(process, stdin)
            for reader in readers:
                reader.join()
        if interrupt is not None:
            raise interrupt
        if process.returncode < 0:
            errors.append(f"error: the Pulumi CLI was killed by {signal.Signals(-process.returncode).name}")
        result = automation.CommandResult("\n".join(output), "\n".join(errors), process.returncode)
        if result.code != 0:
            raise create_command_error(result)
        return result


def _wait(process: subprocess.Popen[str], stdin: str) -> KeyboardInterrupt | None:
    """Waits for the CLI's end, which it is left to choose when it is interrupted: its state would be half-written."""
    assert process.stdin is not None  # noqa: S101 asked for
    interrupt = None
    try:
        process.stdin.write(stdin)
        process.stdin.close()
    except BrokenPipeError:
        pass  # it ends without reading, and says why
    while True:
        try:
            process.wait()
        except KeyboardInterrupt as error:  # a second one makes it break off
            interrupt = error
            process.send_signal(signal.SIGINT)
        else:
            return interrupt


def _read(stream: TextIO, lines: list[str], on_line: Callable[[str], Any] | None) -> None:
    for line in stream:
        lines.append(line.rstrip())
        if on_line is not None:
            on_line(lines[-1])


def errors_in(error: automation.CommandError) -> str:
    """The lines of the CLI's output that say what went wrong."""
    lines = [line.strip() for line in str(error).splitlines()]
    found = [line for line in lines if line.startswith(("error:", "stderr: error:"))]
    return "\n".join(
        dict.fromkeys(line.removeprefix("stderr: ").removeprefix("error: ") for line in found or lines[-5:])
    )


def _version_of(path: Path) -> VersionInfo:
    try:
        done = subprocess.run([path, "version"], capture_output=True, text=True, check=True)
        return VersionInfo.parse(re.sub(r"^v", "", done.stdout.strip()))
    except (OSError, subprocess.CalledProcessError, ValueError) as error:
        raise EngineError(f"{path} is no Pulumi CLI that runs here: {error}") from error
