"""``dataplane touched``: the stacks whose preview a change has to show.

What touches what follows from how the program reads its files (``__main__.py``):

- a stack reads its own ``stacks/Pulumi.<stack>.yaml``;
- a cell declares the projects of its environment that name it, so a project's file touches the cell that it names now
  and the one that it named before;
- only the central stack reads ``stacks/images.yaml`` and ``stacks/resources.yaml`` and declares ``components/central``;
  only cells declare ``components/tenant``;
- every stack runs the rest of the program and passes the policies;
- ``stacks/Pulumi.*.yaml`` together say which cells there are, and a project of a cell that is gone stops every stack of
  its environment.

A change of the central stack does not touch its cells. They read its outputs as its last ``up`` left them, so that a
preview of theirs could not show the change before it is applied.

What is known to no rule touches every stack: a preview too many costs minutes, one too few a surprise.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from components.problems import Problem
from connector.errors import ConnectorError
from embedded.home import CHECKOUT
from embedded.workplace import ENVIRONMENT

__all__ = ["Stack", "TouchedError", "changed_paths", "every_stack", "touched_command", "touched_stacks"]

_STACK_FILE = re.compile(r"Pulumi\.(?P<stack>.*)\.yaml", re.DOTALL)
_STACK_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_CENTRAL_DATA = frozenset({"stacks/images.yaml", "stacks/resources.yaml"})
_CENTRAL_CODE = ("components/central",)
_CELL_CODE = ("components/cell.py", "components/tenant")
# Read by people, editors, tests and the command line: no stack's program comes by them.
_UNREAD_FOLDERS = frozenset({".ci", ".github", "bench", "connector", "docs", "embedded", "tests"})
_UNREAD_FILES = frozenset({".gitignore", "Makefile", "dataplane", "pyproject.toml", "stacks/project.schema.json"})
_PROJECT_SUFFIXES = frozenset({".yaml", ".yml"})
_FAILED = 2

_said = Console(stderr=True, highlight=False)


class TouchedError(ConnectorError):
    """It cannot be told which stacks are touched."""


class _UnreadableError(TouchedError):
    """A data file that cannot be understood."""


class Kind(StrEnum):
    """What a stack holds."""

    CENTRAL = "central"
    CELL = "cell"


@dataclass(frozen=True)
class Stack:
    """A stack, as its settings describe it."""

    stack: str
    kind: Kind
    environment: str
    cell: str = ""


def changed_paths(root: Path, base: str, head: str = "HEAD") -> list[PurePosixPath]:
    """What differs between ``head`` and where it branched off ``base``, relative to the checkout.

    Raises:
        TouchedError: if there is no such revision, or no git checkout.
    """
    before, after = _compared(root, base, head)
    # A move is told as a file that went and one that came: each touches the cell that it belongs to.
    listed = _git(root, "diff", "--name-only", "--no-renames", "--relative", "-z", before.commit, after.commit)
    return [PurePosixPath(name) for name in _names(listed)]


def every_stack(root: Path, head: str = "HEAD") -> list[Stack]:
    """All stacks of a revision: the central ones first, each kind by name.

    Raises:
        TouchedError: if a stack's settings cannot be read, or there is no such revision.
    """
    return _ordered(_Revision(root, head).stacks.values())


def touched_stacks(changed: Iterable[PurePosixPath], root: Path, base: str, head: str = "HEAD") -> list[Stack]:
    """The stacks of ``head`` that a change touches: the central ones first, each kind by name.

    A stack whose settings are deleted is not among them: there is nothing left to preview it with.

    Args:
        changed: paths relative to the checkout.
        root: the checkout.
        base: what the change is compared with, from where ``head`` branched off.
        head: the revision with the change.

    Raises:
        TouchedError: if there is no such revision, no git checkout, or ``head`` has a data file that cannot be read.
    """
    before, after = _compared(root, base, head)
    change = _Change(before, after)
    return _ordered({stack for path in changed for stack in change.touched_by(path)})


class _Revision:
    """The checkout's data at one revision."""

    def __init__(self, root: Path, name: str) -> None:
        self._root = root
        self._name = name
        self.commit = _commit(root, name)

    @cached_property
    def stacks(self) -> dict[str, Stack]:
        """All stacks, by name.

        Raises:
            TouchedError: if a stack's settings cannot be read.
        """
        found = {}
        for path in self._files("stacks/"):
            match = _STACK_FILE.fullmatch(path.name)
            if match:
                found[match["stack"]] = self._stack(match["stack"], path)
        return found

    def known_stack(self, name: str) -> Stack | None:
        """One stack; None if there is none, or nothing that can be read."""
        path = PurePosixPath("stacks", f"Pulumi.{name}.yaml")
        try:
            return self._stack(name, path) if self._has(path) else None
        except _UnreadableError:
            return None

    def cell_of(self, path: PurePosixPath) -> str | None:
        """The cell that a project's file names; None if there is no such file.

        Raises:
            TouchedError: if the file cannot be read.
        """
        if not self._has(path):
            return None
        cell = self._mapping(path).get("cell")
        if not isinstance(cell, str):
            raise self._problem(path, "cell", _found(cell), "the name of a cell")
        return cell

    def _stack(self, name: str, path: PurePosixPath) -> Stack:
        if not _STACK_NAME.fullmatch(name):
            raise self._problem(
                path, "file name", repr(path.name), "Pulumi.<stack>.yaml with letters, digits, `.`, `_`, `-`"
            )
        config = self._mapping(path).get("config") or {}
        if not isinstance(config, Mapping):
            raise self._problem(path, "config", _found(config), "a mapping of settings")
        settings = {str(key).rpartition(":")[2]: value for key, value in config.items()}
        kind, environment = settings.get("kind"), settings.get("environment")
        if kind not in tuple(Kind):
            raise self._problem(path, "kind", _found(kind), "central or cell")
        if not isinstance(environment, str):
            raise self._problem(path, "environment", _found(environment), "the name of a folder under stacks/")
        return Stack(name, Kind(kind), environment, str(settings.get("cell") or "") if kind == Kind.CELL else "")

    def _files(self, folder: str) -> list[PurePosixPath]:
        listed = _git(self._root, "ls-tree", "--name-only", "-z", self.commit, "--", folder)
        return [PurePosixPath(name) for name in _names(listed)]

    def _has(self, path: PurePosixPath) -> bool:
        return path in self._files(str(path))

    def _mapping(self, path: PurePosixPath) -> Mapping[str, Any]:
        content = _git(self._root, "show", f"{self.commit}:./{path}")
        try:
            document = YAML(typ="safe").load(content.decode())
        except (YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise self._problem(path, "YAML", reason, "well-formed YAML in UTF-8") from None
        if not isinstance(document, Mapping):
            raise self._problem(path, "document", _found(document), "a mapping")
        return document

    def _problem(self, path: PurePosixPath, field: str, found: str, expected: str) -> TouchedError:
        return _UnreadableError(f"at {self._name}: {Problem(_printable(path), 0, field, found, expected)}")


@dataclass(frozen=True)
class _Change:
    before: _Revision
    after: _Revision

    def touched_by(self, path: PurePosixPath) -> Iterable[Stack]:
        """The stacks that one changed file touches."""
        if path.parts[0] in _UNREAD_FOLDERS or str(path) in _UNREAD_FILES or path.suffix == ".md":
            return ()
        if str(path) in _CENTRAL_DATA or _is_in(path, _CENTRAL_CODE):
            return self._stacks(kind=Kind.CENTRAL)
        if _is_in(path, _CELL_CODE):
            return self._stacks(kind=Kind.CELL)
        match path.parts:
            case ("stacks", name) if stack := _STACK_FILE.fullmatch(name):
                return self._by_stack_file(stack["stack"])
            case ("stacks", environment, "projects", _):
                return self._by_project_file(environment, path) if path.suffix in _PROJECT_SUFFIXES else ()
            case ("stacks", environment, _, *_):
                return self._stacks(environment=environment)
        return self._stacks()

    def _by_stack_file(self, name: str) -> Iterable[Stack]:
        now, then = self.after.stacks.get(name), self.before.known_stack(name)
        touched = {now} if now else set()
        if then and then != now:
            # Its cell may be gone for projects that still name it.
            touched.update(self._stacks(environment=then.environment))
        return touched

    def _by_project_file(self, environment: str, path: PurePosixPath) -> Iterable[Stack]:
        cells = {stack.cell: stack for stack in self._stacks(kind=Kind.CELL, environment=environment)}
        now = self.after.cell_of(path)
        try:
            then = self.before.cell_of(path)
        except _UnreadableError:
            # It may have been anybody's; and whoever mends a file is not to be stopped by what was wrong with it.
            return cells.values()
        if now is not None and now not in cells:
            # The program refuses such a file: the previews of its environment say so.
            return cells.values()
        return [cells[cell] for cell in (now, then) if cell is not None and cell in cells]

    def _stacks(self, *, kind: Kind | None = None, environment: str | None = None) -> list[Stack]:
        return [
            stack
            for stack in self.after.stacks.values()
            if kind in (None, stack.kind) and environment in (None, stack.environment)
        ]


def _compared(root: Path, base: str, head: str) -> tuple[_Revision, _Revision]:
    after = _Revision(root, head)
    done = _run_git(root, "merge-base", _commit(root, base), after.commit)
    if done.returncode != 0:
        raise TouchedError(
            f"{base} and {head} have no history in common here: fetch more of it, or name another --base"
        )
    return _Revision(root, done.stdout.decode().split()[0]), after


def _commit(root: Path, revision: str) -> str:
    if _run_git(root, "rev-parse", "--git-dir").returncode != 0:
        raise TouchedError(f"{root} is not a git checkout")
    done = _run_git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    if done.returncode != 0:
        raise TouchedError(f"there is no revision {revision!r} here; in a shallow clone, fetch it first")
    return done.stdout.decode().strip()


def _git(root: Path, *arguments: str) -> bytes:
    done = _run_git(root, *arguments)
    if done.returncode != 0:
        raise TouchedError(f"git {arguments[0]} failed: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def _run_git(root: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(["git", "-C", root, *arguments], capture_output=True, check=False)
    except FileNotFoundError:
        raise TouchedError("git is not on PATH") from None


def _names(listed: bytes) -> list[str]:
    return [name.decode(errors="surrogateescape") for name in listed.split(b"\0") if name]


def _printable(path: PurePosixPath) -> str:
    return str(path).encode(errors="backslashreplace").decode()


def _found(value: object) -> str:
    return "nothing" if value is None else repr(value)


def _is_in(path: PurePosixPath, places: Iterable[str]) -> bool:
    return any(path.is_relative_to(place) for place in places)


def _ordered(stacks: Iterable[Stack]) -> list[Stack]:
    return sorted(stacks, key=lambda stack: (stack.kind is Kind.CELL, stack.stack))


class TouchedFormat(StrEnum):
    """How to print the stacks."""

    TEXT = "text"
    JSON = "json"


def touched_command(
    base: Annotated[str | None, typer.Option(help="The revision that the change goes into.", metavar="REV")] = None,
    head: Annotated[str, typer.Option(help="The revision with the change.", metavar="REV")] = "HEAD",
    everything: Annotated[bool, typer.Option("--all", help="Every stack, whatever has changed.")] = False,
    deployed: Annotated[bool, typer.Option("--deployed", help="Without the stacks of a workplace.")] = False,
    form: Annotated[
        TouchedFormat, typer.Option("--format", "-f", help="Names, or a matrix for GitHub Actions.")
    ] = TouchedFormat.TEXT,
) -> None:
    """Print the stacks that a committed change touches."""
    try:
        stacks = _asked_for(base, head, everything=everything)
    except TouchedError as error:
        _said.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(_FAILED) from None
    found = [stack for stack in stacks if not (deployed and stack.environment == ENVIRONMENT)]
    if form is TouchedFormat.JSON:
        sys.stdout.write(json.dumps({"include": [asdict(stack) for stack in found]}) + "\n")
    else:
        sys.stdout.writelines(f"{stack.stack}\n" for stack in found)


def _asked_for(base: str | None, head: str, *, everything: bool) -> list[Stack]:
    if everything == (base is not None):
        raise TouchedError("name what the change is compared with by --base, or ask for --all")
    if base is None:
        return every_stack(CHECKOUT, head)
    return touched_stacks(changed_paths(CHECKOUT, base, head), CHECKOUT, base, head)
