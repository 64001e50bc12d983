"""Edits of project files that leave comments, order and everything not meant as they are."""

import io
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import CommentMark
from ruamel.yaml.tokens import CommentToken

from data_plane.connector.whole_file import write_whole
from data_plane.model.access import FractalOpsRole
from data_plane.model.documents import link_problem, parse_mapping
from data_plane.model.problems import ConfigurationError, Problem
from data_plane.model.projects import project_folder

__all__ = ["ProjectFile", "checkout_with", "checkout_without"]

_HEADER = "# yaml-language-server: $schema=../../project.schema.json\n"
_WIDE = 4096
_STYLES = ((2, 4, 2), (2, 2, 0), (4, 4, 2), (4, 6, 4), (4, 4, 0))
"""How people indent: mappings, sequences, and the dash within a sequence's indentation."""


@dataclass
class ProjectFile:
    """A project's file, read or new, with edits that are not on disk until :meth:`write`.

    Args:
        path: where it is, or will be.
        before: its text; None for a new one.
        document: its content, comments included.
    """

    path: Path
    before: str | None
    document: CommentedMap
    _style: tuple[int, int, int] = _STYLES[0]

    @classmethod
    def of(cls, root: Path, environment: str, slug: str) -> "ProjectFile":
        """The file of a project; an empty one if the project has none.

        Raises:
            ConfigurationError: if it cannot be read as a mapping, or is a link.
        """
        path = project_folder(root, environment) / f"{slug}.yaml"
        if (problem := link_problem(path, root)) is not None:
            raise ConfigurationError([problem])
        if not path.exists():
            return cls(path, None, CommentedMap())
        problems: list[Problem] = []
        document = parse_mapping(path, str(path.relative_to(root)), problems, first_key="slug")
        if document is None:
            raise ConfigurationError(problems)
        before = path.read_text(encoding="utf-8")
        return cls(path, before, document, _style_of(before, document))

    @property
    def text(self) -> str:
        """The file as it would be written."""
        if self.before is None:
            return _HEADER + _dumped(self.document, self._style)
        return _dumped(self.document, self._style)

    def set(self, field: str, value: object) -> None:
        """Gives a top-level field a value; for an object, those of its fields that are given."""
        there = self.document.get(field)
        if isinstance(there, CommentedMap) and isinstance(value, Mapping):
            there.update(value)
        elif there != value:
            self.document[field] = _flow(value) if isinstance(value, list) else value

    def give(self, kind: Literal["users", "teams"], name: str, role: FractalOpsRole | None) -> None:
        """Lets a person or a team have one role and no other; none at all without a role.

        A name that differs from the file's in case alone is the file's: OpenBao compares names so.
        """
        found = (there for _, names in self._lists(kind) for there in names if str(there).lower() == name.lower())
        name = next(found, name)
        wanted: tuple[str, str | None] = (kind, role.value if role else None)
        if kind == "users" and role is FractalOpsRole.PROJECT_OWNER:
            wanted = ("owners", None)
        there = wanted[0] in self.document and self._has(wanted, name)
        for place, names in list(self._lists(kind)):
            if place != wanted and name in names:
                following = _take_out(names, name)
                if names or place[1] is None:
                    continue
                del self.document[kind][place[1]]
                if following:
                    # An empty list, so that there is something for these lines to stand below.
                    self.document[kind][place[1]] = _flow()
                    self.document[kind].ca.items[place[1]] = [None, None, _lines_below(following), None]
        if kind in self.document and not self.document[kind] and wanted[0] != kind:
            del self.document[kind]
        if there or (role is None and wanted[0] == kind):
            return
        if wanted[0] == "owners":
            _appended(self.document.setdefault("owners", _flow()), name)
        else:
            if not self.document.get(kind):
                self._insert(kind, CommentedMap())
            _appended(self.document[kind].setdefault(wanted[1], _flow()), name)

    def write(self) -> None:
        """Puts the file on disk, whole or not at all.

        Raises:
            OSError: if it cannot be written; it is as it was.
        """
        write_whole(self.path, self.text)

    def _lists(self, kind: str) -> Iterator[tuple[tuple[str, str | None], CommentedSeq]]:
        if kind == "users":
            yield ("owners", None), self.document.get("owners") or CommentedSeq()
        for role, names in (self.document.get(kind) or {}).items():
            yield (kind, str(role)), names

    def _has(self, place: tuple[str, str | None], name: str) -> bool:
        key, role = place
        names = self.document[key] if role is None else (self.document[key] or {}).get(role)
        return isinstance(names, list) and name in names

    def _insert(self, field: str, value: object) -> None:
        """Puts people beside people, where the file has them."""
        if field in self.document:
            self.document[field] = value
            return
        after = [key for key in ("users", "owners") if key in self.document]
        keys = list(self.document)
        self.document.insert(keys.index(after[0]) + 1 if after else len(keys), field, value)


@contextmanager
def checkout_with(root: Path, file: ProjectFile) -> Iterator[Path]:
    """A checkout with an edited project file, to run the program from before the edit is written."""
    with _copied(root) as copy:
        edited = copy / file.path.relative_to(root)
        edited.parent.mkdir(parents=True, exist_ok=True)
        edited.write_text(file.text, encoding="utf-8")
        yield copy


@contextmanager
def checkout_without(root: Path, file: ProjectFile) -> Iterator[Path]:
    """A checkout without a project's file, to run the program from before the file is removed."""
    with _copied(root) as copy:
        (copy / file.path.relative_to(root)).unlink()
        yield copy


@contextmanager
def _copied(root: Path) -> Iterator[Path]:
    """``stacks/`` is a copy, because the program refuses links there; all else is the real thing, by symbolic link."""
    with TemporaryDirectory(prefix="data-plane-") as folder:
        copy = Path(folder)
        _link(root, copy, leave_out={"stacks", ".local", ".git"})
        # Without drafts of :meth:`ProjectFile.write`, which come and go meanwhile.
        shutil.copytree(root / "stacks", copy / "stacks", symlinks=True, ignore=shutil.ignore_patterns(".*"))
        yield copy


def _link(source: Path, target: Path, *, leave_out: set[str]) -> None:
    for entry in source.iterdir():
        if entry.name not in leave_out:
            (target / entry.name).symlink_to(entry)


def _style_of(text: str, document: CommentedMap) -> tuple[int, int, int]:
    """The indentation that gives back the text that was read, or most of it."""
    lines = set(text.splitlines())

    def strange(style: tuple[int, int, int]) -> int:
        return sum(line not in lines for line in _dumped(document, style).splitlines())

    return min(_STYLES, key=strange)


def _dumped(document: CommentedMap, style: tuple[int, int, int]) -> str:
    yaml = YAML(typ="rt")
    yaml.width = _WIDE
    yaml.indent(mapping=style[0], sequence=style[1], offset=style[2])
    stream = io.StringIO()
    yaml.dump(document, stream)
    return stream.getvalue()


def _flow(names: Iterable[str] = ()) -> CommentedSeq:
    listed = CommentedSeq(names)
    listed.fa.set_flow_style()
    return listed


def _appended(names: CommentedSeq, name: str) -> None:
    """Adds a name at the end, and lets what follows the list in the file go on following it."""
    following = _cut_following(names)
    names.append(name)
    _hang(names, following)


def _take_out(names: CommentedSeq, name: str) -> str:
    """Removes a name; gives the lines below the list if there is no entry left for them to hang on."""
    following = _cut_following(names)
    del names[names.index(name)]
    _hang(names, following)
    return "" if names else following


def _cut_following(names: CommentedSeq) -> str:
    """Lines that stand below a block list, which hang on its last entry; the entry's own comment stays with it."""
    comment = names.ca.items.get(len(names) - 1)
    if not names or not comment or comment[0] is None:
        return ""
    own, _, following = comment[0].value.partition("\n")
    if own:
        comment[0].value = f"{own}\n"
    else:
        del names.ca.items[len(names) - 1]
    return str(following)


def _hang(names: CommentedSeq, following: str) -> None:
    if not following or not names:
        return
    last = len(names) - 1
    comment = names.ca.items.get(last)
    if comment and comment[0] is not None:
        comment[0].value = f"{comment[0].value}{following}"
    else:
        names.ca.items[last] = [_lines_below(following), None, None, None]


def _lines_below(text: str) -> CommentToken:
    return CommentToken(f"\n{text}", CommentMark(0), None)
