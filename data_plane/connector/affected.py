"""``dataplane stack affected``: the stacks whose preview a change has to show.

What touches what follows from how the program reads its files (``__main__.py``):

- a stack reads its own ``stacks/Pulumi.<stack>.yaml``;
- a cell declares the projects of its environment that name it, so a project's file touches the cell that it names now
  and the one that it named before;
- the central stack declares what a project needs outside of its cell, so a project's file touches it too, unless only
  fields change that cells alone read;
- only the central stack reads ``stacks/images.yaml`` and ``stacks/resources.yaml`` and declares ``components/central``;
  only cells declare ``components/tenant``;
- every stack runs the rest of the program and passes the policies;
- the central stack has an API server for each of its cells and for each project with ``api: dedicated``, and its
  setting ``projectApi`` is for the projects of its cells that do not say;
- ``stacks/Pulumi.*.yaml`` together say which cells there are, and a project of a cell that is gone stops every stack of
  its environment.

A change of the central stack does not touch its cells. They read its outputs as its last ``up`` left them, so that a
preview of theirs could not show the change before it is applied.

What is known to no rule touches every stack: a preview too many costs minutes, one too few a surprise.

A stack counts that was deployed before the change or is after it. What would let a later change past these rules is an
error: a link or a submodule where the program reads, paths that differ only by case, a deployed stack that calls itself
local, settings that lie elsewhere than in ``stacks/``. Everything is read from git's objects, nothing from the work
tree, so that the tool of one revision can judge another that is not checked out.
"""

import re
import subprocess
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from data_plane.errors import ConnectorError
from data_plane.model.problems import Problem
from data_plane.state_dir import ENVIRONMENT

__all__ = ["AffectedError", "Stack", "affected_stacks", "changed_paths", "every_stack"]

_STACK_FILE = re.compile(r"Pulumi\.(?P<stack>.*)\.yaml", re.DOTALL)
_STACK_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_CENTRAL_DATA = frozenset({"stacks/images.yaml", "stacks/resources.yaml"})
_CENTRAL_CODE = ("components/central",)
_CELL_CODE = ("components/cell.py", "components/tenant")
# Fields of a project's file that only its cell reads.
_FIELDS_OF_CELLS = frozenset(
    {
        *("display_name", "owners", "users", "teams", "workloads"),
        *("managed_services", "sign_up", "storage", "schemas", "realtime", "limits"),
    }
)
# Read by people, editors, tests and the command line: no stack's program comes by them.
_UNREAD_FOLDERS = (
    *(".ci", ".github", "bench", "docs", "examples", "tests"),
    *("data_plane/cli", "data_plane/connector", "data_plane/engine", "data_plane/local"),
)
_UNREAD_FILES = frozenset(
    {
        *(".gitignore", "Makefile", "dataplane", "data_plane/__main__.py", "pyproject.toml"),
        *("requirements-dev.txt", "stacks/project.schema.json", "stacks/tenant-binding.schema.json"),
    }
)
# Whose files of any kind may be read: scripts of a folder, for instance.
_CODE_FOLDERS = ("components", "data_plane", "policies")
_PROJECT_SUFFIXES = frozenset({".yaml", ".yml"})
_PROJECT_FILE = "Pulumi.yaml"
_PROJECT_FIELDS = (
    "name",
    "description",
    "author",
    "website",
    "license",
    "backend",
    "stackConfigDir",
    "runtime",
    "config",
)
# Where the program, its settings and its Python are; anything else could be read from where no rule looks.
_FIXED = {"stackConfigDir": "stacks", "runtime.name": "python", "runtime.options.virtualenv": ".venv"}
_KNOWN_BY = frozenset({"kind", "environment", "cell", "centralStack", "projectApi"})
_STACK_FOLDER = "stacks"
_LOCAL_PREFIX = f"{ENVIRONMENT}-"
_OTHER_PROJECT_FILES = ("pulumi.yml", "pulumi.json")
_NO_FILES = {"120000": "a symbolic link", "160000": "a submodule"}


class AffectedError(ConnectorError):
    """It cannot be decided which stacks a change affects."""

    code = "affected-undecidable"
    exit_code = 2


class _UnreadableError(AffectedError):
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
    removed: bool = False
    """Its settings go with the change: it may hold no resources any more."""


def changed_paths(root: Path, base: str, head: str = "HEAD") -> list[PurePosixPath]:
    """What differs between ``head`` and where it branched off ``base``, relative to the checkout.

    Raises:
        AffectedError: if there is no such revision, or no git checkout.
    """
    before, after = _compared(root, base, head)
    # A move is told as a file that went and one that came: each touches the cell that it belongs to. The plumbing
    # command, because settings of the repository (`ignore` of a submodule) can hide changes from the other.
    options = ("-r", "--name-only", "--no-renames", "--ignore-submodules=none", "--relative", "-z")
    listed = _git(root, "diff-tree", *options, before.commit, after.commit)
    return [PurePosixPath(name) for name in _names(listed)]


def every_stack(root: Path, head: str = "HEAD", *, deployed: bool = False) -> list[Stack]:
    """All stacks of a revision: the central ones first, each kind by name.

    Args:
        root: the checkout.
        head: the revision.
        deployed: leave out those of local environments.

    Raises:
        AffectedError: if a stack's settings cannot be read, there is no such revision, or it hides something.
    """
    revision = _Revision(root, head, _commit(root, head))
    revision.refuse_what_hides()
    return _ordered(stack for stack in revision.stacks.values() if not (deployed and _is_local(stack)))


def affected_stacks(
    changed: Iterable[PurePosixPath], root: Path, base: str, head: str = "HEAD", *, deployed: bool = False
) -> list[Stack]:
    """The stacks that a change touches: the central ones first, each kind by name.

    Args:
        changed: paths relative to the checkout.
        root: the checkout.
        base: what the change is compared with, from where ``head`` branched off.
        head: the revision with the change.
        deployed: leave out those of local environments.

    Raises:
        AffectedError: if there is no such revision, no git checkout, or ``head`` has a data file that cannot be read or
            hides something.
    """
    before, after = _compared(root, base, head)
    after.refuse_what_hides()
    change = _Change(before, after, deployed=deployed)
    change.refuse_stacks_that_turn_local()
    return _ordered({stack for path in changed for stack in change.affected_by(path)})


class _Revision:
    """The checkout's data at one revision."""

    def __init__(self, root: Path, name: str, commit: str) -> None:
        self._root = root
        self._name = name
        self.commit = commit

    @cached_property
    def entries(self) -> dict[PurePosixPath, tuple[str, str]]:
        """Git's mode and the object of every path."""
        found = {}
        for entry in _names(_git(self._root, "ls-tree", "-r", "-z", self.commit)):
            line, _, name = entry.partition("\t")
            mode, _, identifier = line.split()
            found[PurePosixPath(name)] = (mode, identifier)
        return found

    @cached_property
    def stacks(self) -> dict[str, Stack]:
        """All stacks, by name.

        Raises:
            AffectedError: if a stack's settings cannot be read.
        """
        return {name: self._stack(name, path) for name, path in self.stack_files.items()}

    @cached_property
    def stack_files(self) -> dict[str, PurePosixPath]:
        """Where the settings of each stack stand."""
        below = [path for path in self.entries if path.parent == PurePosixPath(_STACK_FOLDER)]
        return {match["stack"]: path for path in below if (match := _STACK_FILE.fullmatch(path.name))}

    def known_stack(self, name: str) -> Stack | None:
        """One stack; None if there is none, or nothing that can be read."""
        path = self.stack_files.get(name)
        try:
            return None if path is None else self._stack(name, path)
        except _UnreadableError:
            return None

    @cached_property
    def _project(self) -> Mapping[str, Any]:
        return self._mapping(PurePosixPath(_PROJECT_FILE))

    def project(self, path: PurePosixPath) -> Mapping[str, Any] | None:
        """What a project's file says; None if there is no such file.

        Raises:
            AffectedError: if the file cannot be read, or names no cell.
        """
        if path not in self.entries:
            return None
        document = self._mapping(path)
        if not isinstance(document.get("cell"), str):
            raise self._problem(path, "cell", _found(document.get("cell")), "the name of a cell")
        return document

    def refuse_what_hides(self) -> None:
        """Refuses what would let a later change past the rules.

        Raises:
            AffectedError: with the first such path.
        """
        known: dict[str, PurePosixPath] = {}
        for path, (mode, _) in self.entries.items():
            if path.parts[0] in _UNREAD_FOLDERS:
                continue
            if mode in _NO_FILES:
                raise self._problem(path, "file", _NO_FILES[mode], "the file itself: what it leads to is not compared")
            for part in (path, *path.parents[:-1]):
                other = known.setdefault(_folded(str(part)), part)
                if other != part:
                    raise self._problem(
                        part, "path", f"also {_printable(other)}", "paths that differ by more than case"
                    )
        self._refuse_settings_elsewhere()

    def _refuse_settings_elsewhere(self) -> None:
        file = PurePosixPath(_PROJECT_FILE)
        if file not in self.entries:
            raise self._problem(file, "file", "nothing", "the file of the Pulumi project")
        for path in self.entries:
            if _folded(str(path)) in _OTHER_PROJECT_FILES:
                raise self._problem(path, "file", "a second project file", f"{_PROJECT_FILE} alone")
        for field in self._project:
            if field not in _PROJECT_FIELDS:
                raise self._problem(file, str(field), "a field that may lead elsewhere", ", ".join(_PROJECT_FIELDS))
        for field, expected in _FIXED.items():
            found: Any = self._project
            for part in field.split("."):
                found = found.get(part) if isinstance(found, Mapping) else None
            if found != expected:
                raise self._problem(file, field, _found(found), expected)

    def setting(self, stack: str, key: str) -> object:
        """One of the settings by which a stack is known; None without it, or without a stack that can be read."""
        if self.known_stack(stack) is None:
            return None
        path = PurePosixPath("stacks", f"Pulumi.{stack}.yaml")
        return self._settings(path, self._mapping(path)["config"]).get(key)

    def _stack(self, name: str, path: PurePosixPath) -> Stack:
        if not _STACK_NAME.fullmatch(name):
            raise self._problem(
                path, "file name", repr(path.name), "Pulumi.<stack>.yaml with letters, digits, `.`, `_`, `-`"
            )
        config = self._mapping(path).get("config") or {}
        if not isinstance(config, Mapping):
            raise self._problem(path, "config", _found(config), "a mapping of settings")
        settings = self._settings(path, config)
        kind, environment = settings.get("kind"), settings.get("environment")
        if kind not in tuple(Kind):
            raise self._problem(path, "kind", _found(kind), "central or cell")
        if not isinstance(environment, str):
            raise self._problem(path, "environment", _found(environment), "the name of a folder under stacks/")
        if environment == ENVIRONMENT and not name.startswith(_LOCAL_PREFIX):
            raise self._problem(
                path, "environment", repr(environment), f"a deployed one; local stacks are {_LOCAL_PREFIX}…"
            )
        return Stack(name, Kind(kind), environment, str(settings.get("cell") or "") if kind == Kind.CELL else "")

    def _settings(self, path: PurePosixPath, config: Mapping[str, Any]) -> dict[str, Any]:
        """The settings by which a stack is known, under the names that the program reads and no others."""
        settings = {}
        for key, value in config.items():
            namespace, _, name = str(key).rpartition(":")
            if name in _KNOWN_BY:
                if namespace != self._project["name"]:
                    raise self._problem(path, str(key), repr(value), f"this setting as {self._project['name']}:{name}")
                settings[name] = value
        return settings

    def _mapping(self, path: PurePosixPath) -> Mapping[str, Any]:
        mode, identifier = self.entries[path]
        if mode in _NO_FILES:
            raise self._problem(path, "file", _NO_FILES[mode], "the file itself")
        try:
            document = _document(self._root, identifier)
        except (YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise self._problem(path, "YAML", reason, "well-formed YAML in UTF-8") from error
        if not isinstance(document, Mapping):
            raise self._problem(path, "document", _found(document), "a mapping")
        return document

    def _problem(self, path: PurePosixPath, field: str, found: str, expected: str) -> AffectedError:
        return _UnreadableError(f"at {self._name}: {Problem(_printable(path), 0, field, found, expected)}")


@dataclass(frozen=True)
class _Change:
    before: _Revision
    after: _Revision
    deployed: bool
    """Whether stacks of local environments are left out."""

    def refuse_stacks_that_turn_local(self) -> None:
        """Refuses settings by which a deployed stack would drop out of previews and of the search for drift.

        Raises:
            AffectedError: with the first such stack.
        """
        for name, stack in self.after.stacks.items():
            then = self.before.known_stack(name)
            if _is_local(stack) and then is not None and not _is_local(then):
                raise AffectedError(
                    f"stack {name} was of environment {then.environment!r} and is to be of {ENVIRONMENT!r}, which is "
                    "never previewed: destroy the stack, and delete its settings, before another has its name"
                )

    def affected_by(self, path: PurePosixPath) -> Iterable[Stack]:
        """The stacks that one changed file touches."""
        if _is_in(path, _UNREAD_FOLDERS) or str(path) in _UNREAD_FILES:
            return ()
        if path.suffix == ".md" and not _is_in(path, _CODE_FOLDERS):
            return ()
        if str(path) in _CENTRAL_DATA or _is_in(path, _CENTRAL_CODE):
            return self._stacks(kind=Kind.CENTRAL) or self._stacks()
        if _is_in(path, _CELL_CODE):
            return self._stacks(kind=Kind.CELL) or self._stacks()
        match path.parts:
            case ("stacks", name) if stack := _STACK_FILE.fullmatch(name):
                return self._by_stack_file(stack["stack"])
            case ("stacks", environment, *below) if below and self._is_environment(environment):
                if len(below) > 2 or below[0] != "projects":
                    return self._stacks(environment=environment)
                return self._by_project_file(environment, path) if path.suffix in _PROJECT_SUFFIXES else ()
        return self._stacks()

    def _by_stack_file(self, name: str) -> Iterable[Stack]:
        now, then = self.after.stacks.get(name), self.before.known_stack(name)
        if now is None:
            # What cannot be read may have been deployed, and anywhere.
            now = replace(then or Stack(name, Kind.CELL, ""), removed=True)
        affected = {now} if self._counts(now) else set()
        if then and then != now:
            # Its cell may be gone for projects that still name it.
            affected.update(self._stacks(environment=then.environment))
        if now and now.kind is Kind.CELL and (now != then or self._differs(name, "centralStack")):
            affected.update(self._stacks(kind=Kind.CENTRAL, environment=now.environment))
        if now and now.kind is Kind.CENTRAL and self._differs(name, "projectApi"):
            affected.update(self._stacks(environment=now.environment))
        return affected

    def _differs(self, stack: str, key: str) -> bool:
        return self.before.setting(stack, key) != self.after.setting(stack, key)

    def _by_project_file(self, environment: str, path: PurePosixPath) -> Iterable[Stack]:
        stacks = self._stacks(environment=environment)
        now = self.after.project(path)
        try:
            then = self.before.project(path)
        except _UnreadableError:
            # It may have been any project's; and a repair of the file must not fail on what it repairs.
            return stacks
        named = {document["cell"] for document in (now, then) if document is not None}
        if now is not None and now["cell"] not in {stack.cell for stack in stacks if stack.kind is Kind.CELL}:
            # The program refuses such a file: the previews of its environment say so.
            return stacks
        central = _read_by_central(now) != _read_by_central(then)
        return [stack for stack in stacks if (central if stack.kind is Kind.CENTRAL else stack.cell in named)]

    def _is_environment(self, folder: str) -> bool:
        return _folded(folder) in {_folded(stack.environment) for stack in self.after.stacks.values()}

    def _stacks(self, *, kind: Kind | None = None, environment: str | None = None) -> list[Stack]:
        return [
            stack
            for stack in self.after.stacks.values()
            if kind in (None, stack.kind)
            and (environment is None or _folded(environment) == _folded(stack.environment))
            and self._counts(stack)
        ]

    def _counts(self, stack: Stack) -> bool:
        return not (self.deployed and _is_local(stack))


def _is_local(stack: Stack) -> bool:
    return stack.environment == ENVIRONMENT


def _read_by_central(project: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if project is None else {key: project[key] for key in project if key not in _FIELDS_OF_CELLS}


def _folded(name: str) -> str:
    """A name as a file system sees it to which letters differ neither by case nor by composition."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())


def _compared(root: Path, base: str, head: str) -> tuple[_Revision, _Revision]:
    after = _Revision(root, head, _commit(root, head))
    done = _run_git(root, "merge-base", _commit(root, base), after.commit)
    if done.returncode != 0:
        raise AffectedError(
            f"{base} and {head} have no history in common here: fetch more of it, or name another --base"
        )
    (first, *_) = done.stdout.decode().split()
    return _Revision(root, first, first), after


def _commit(root: Path, revision: str) -> str:
    done = _run_git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    if done.returncode != 0:
        if _run_git(root, "rev-parse", "--git-dir").returncode != 0:
            raise AffectedError(f"{root} is not a git checkout")
        raise AffectedError(f"there is no revision {revision!r} here; in a shallow clone, fetch it first")
    return done.stdout.decode().strip()


@lru_cache(maxsize=1024)
def _document(root: Path, blob: str) -> object:
    return YAML(typ="safe").load(_git(root, "cat-file", "blob", blob).decode())


@lru_cache(maxsize=1024)
def _git(root: Path, *arguments: str) -> bytes:
    """What git says of objects, which are always the same."""
    done = _run_git(root, *arguments)
    if done.returncode != 0:
        raise AffectedError(f"git {arguments[0]} failed: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def _run_git(root: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(["git", "-C", root, *arguments], capture_output=True, check=False)
    except FileNotFoundError as error:
        raise AffectedError("git is not on PATH") from error


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
