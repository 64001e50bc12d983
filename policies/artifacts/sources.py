"""The files that are checked: read within limits, and YAML with the place of each of its parts.

Files come from other people, so nothing in them is trusted: only regular files under the root are read, up to a size,
and YAML is put together here from the parser's events, so that aliases, merges and depth are bounded before they are
memory.
"""

import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from policies.artifacts.findings import MalformedError, Place, UncheckedError

__all__ = ["Document", "Root", "documents"]

FILE_MAX_BYTES = 4 * 1024 * 1024
DEPTH_MAX = 64
NODES_MAX = 200_000
"""Of one file, with each alias counted as all that it stands for."""
_SCALAR_MAX_CHARACTERS = 64
"""Longer ones are texts: a number of thousands of digits is only there to be slow."""

_TAGS = {"!", "!reset", "!override"}
"""Compose's own; https://github.com/compose-spec/compose-spec, 13-merge."""
_STANDARD = "tag:yaml.org,2002:"
_PLAIN = {
    f"{_STANDARD}{kind}"
    for kind in ("str", "int", "float", "bool", "null", "timestamp", "map", "seq", "merge", "binary")
}
_KNOWN_TAGS = _TAGS | _PLAIN
_Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Root:
    """The folder that is checked; nothing outside of it is read."""

    folder: Path
    shown: PurePosixPath = field(default_factory=PurePosixPath)
    """What stands before the names of its files in messages."""

    def relative(self, path: Path) -> PurePosixPath:
        """A file's name in messages."""
        try:
            return self.shown / path.relative_to(self.folder).as_posix()
        except ValueError:
            return PurePosixPath(path.as_posix())

    def read(self, path: Path, asked: Place | None = None) -> str:
        """The text of a file.

        Args:
            asked: where another file names it.

        Raises:
            UncheckedError: if it is outside of the root, no regular file, too large, or no UTF-8.
        """
        content = self.read_bytes(path, asked)
        place, shown = asked or Place(self.relative(path)), self.relative(path)
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise UncheckedError(place, f"{shown} is no UTF-8 (byte {error.start + 1})") from error
        if "\0" in text:
            raise UncheckedError(place, f"{shown} holds a NUL, so it is no text")
        return text

    def read_bytes(self, path: Path, asked: Place | None = None) -> bytes:
        """What a file holds.

        Raises:
            UncheckedError: if it is outside of the root, no regular file, or too large.
        """
        place = asked or Place(self.relative(path))
        shown = self.relative(path)
        try:
            real = path.resolve(strict=True)
            if not real.is_relative_to(self.folder):
                raise UncheckedError(place, f"{shown} leads out of the checked folder, so it is not read")
            status = real.stat()
            if not stat.S_ISREG(status.st_mode):
                raise UncheckedError(place, f"{shown} is no regular file")
            if status.st_size > FILE_MAX_BYTES:
                raise UncheckedError(place, f"{shown} has more than {FILE_MAX_BYTES} bytes")
            with real.open("rb") as file:
                return file.read(FILE_MAX_BYTES + 1)
        except (OSError, RuntimeError, ValueError) as error:
            raise UncheckedError(place, f"{shown} cannot be read: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return "too many symbolic links" if isinstance(error, RuntimeError) else "no such name can exist"


@dataclass
class Document:
    """One document of a YAML or JSON file: plain data, and where each part of it stands."""

    file: PurePosixPath
    data: Any
    _marks: dict[_Path, tuple[int, int]] = field(repr=False)

    def place(self, *path: str | int) -> Place:
        """Where a value stands, or the nearest part around it that is known."""
        for end in range(len(path), -1, -1):
            found = self._marks.get(path[:end])
            if found:
                return Place(self.file, *found)
        return Place(self.file)

    def place_of(self, dotted: str) -> Place:
        """The same by a path as messages have it: ``spec.containers[0].image``.

        A key may hold dots itself, so the parts are tried one after the other.
        """
        at: list[str | int] = []
        rest = dotted
        while rest:
            index = re.match(r"\[(\d+)\]\.?", rest)
            if index:
                at.append(int(index.group(1)))
                rest = rest[index.end() :]
                continue
            ends = [found.start() for found in re.finditer(r"[.\[]|\Z", rest)]
            end = next((end for end in ends if (*at, rest[:end]) in self._marks), None)
            if end is None:
                break
            at.append(rest[:end])
            rest = rest[end:].removeprefix(".")
        return self.place(*at)

    def inside(self, key: str) -> "Document":
        """The same as the value of a key."""
        marks = {(key, *path): mark for path, mark in self._marks.items()}
        return Document(self.file, {key: self.data}, marks)

    def entries(self, *path: str | int) -> list[tuple[int, Any]]:
        """The entries of a list, each with its number; none if there is no list.

        Raises:
            UncheckedError: if something else stands there.
        """
        found = self.data
        for key in path:
            found = found.get(key) if isinstance(found, dict) else None
        if found is None:
            return []
        if not isinstance(found, list):
            raise UncheckedError(self.place(*path), f"`{path[-1]}` is a list")
        return list(enumerate(found))


def documents(text: str, file: PurePosixPath, *, any_tag: bool = False) -> list[Document]:
    """The documents of a YAML or JSON text.

    Args:
        any_tag: whether tags of an application's own, such as CloudFormation's, are passed over.

    Raises:
        MalformedError: if it is no YAML.
        UncheckedError: if it is larger than anybody writes, or not clear.
    """
    try:
        return list(_Composer(text, file, any_tag=any_tag).documents())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(file, mark.line + 1, mark.column + 1) if mark else Place(file)
        raise MalformedError(place, f"it is no YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise MalformedError(Place(file), f"it is no YAML: {str(error).splitlines()[0]}") from error


@dataclass
class _Node:
    """A part of a document, with what an alias to it would copy."""

    value: Any
    line: int
    column: int
    size: int = 1
    children: "dict[str | int, _Node]" = field(default_factory=dict)


class _Composer:
    def __init__(self, text: str, file: PurePosixPath, *, any_tag: bool) -> None:
        self._any_tag = any_tag
        self._events: Iterator[Any] = yaml.parse(text, Loader=yaml.CSafeLoader)
        self._file = file
        self._anchors: dict[str, _Node | None] = {}
        self._nodes = 0
        self._resolver = yaml.SafeLoader("")

    def documents(self) -> Iterator[Document]:
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                self._anchors = {}
                node = self._node(next(self._events), 0)
                marks: dict[_Path, tuple[int, int]] = {}
                _collect(node, (), marks)
                yield Document(self._file, node.value, marks)

    def _refuse(self, event: Any, message: str) -> UncheckedError:
        mark = event.start_mark
        return UncheckedError(Place(self._file, mark.line + 1, mark.column + 1), message)

    def _node(self, event: Any, depth: int) -> _Node:
        if depth > DEPTH_MAX:
            raise self._refuse(event, f"it is nested deeper than {DEPTH_MAX} levels")
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        self._count(event, 1)
        if event.tag is not None and event.tag not in _KNOWN_TAGS and not self._any_tag:
            raise self._refuse(event, f"the tag {event.tag} is none of YAML's or Compose's")
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        node = _Node(None, event.start_mark.line + 1, event.start_mark.column + 1)
        if isinstance(event, yaml.ScalarEvent):
            node.value = self._scalar(event)
        elif isinstance(event, yaml.SequenceStartEvent):
            self._sequence(node, depth)
        else:
            self._mapping(node, depth)
        if event.tag == "!reset":
            node.value, node.children = None, {}
        node.size = 1 + sum(child.size for child in node.children.values())
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _alias(self, event: Any) -> _Node:
        if event.anchor not in self._anchors:
            raise self._refuse(event, f"nothing before it is called &{event.anchor}")
        found = self._anchors[event.anchor]
        if found is None:
            raise self._refuse(event, f"*{event.anchor} stands inside of what it names")
        self._count(event, found.size)
        return found

    def _count(self, event: Any, nodes: int) -> None:
        self._nodes += nodes
        if self._nodes > NODES_MAX:
            raise self._refuse(event, f"with its aliases it has more than {NODES_MAX} values")

    def _scalar(self, event: Any) -> Any:
        text = event.value
        if len(text) > _SCALAR_MAX_CHARACTERS:
            return text
        tag = event.tag
        if tag in {None, *_TAGS} or tag not in _KNOWN_TAGS:
            tag = self._resolver.resolve(yaml.ScalarNode, text, event.implicit)  # type: ignore[no-untyped-call]
        # Dates, octal numbers and the like are texts to the tools that run these files.
        if tag not in {f"{_STANDARD}{kind}" for kind in ("int", "float", "bool", "null")}:
            return text
        try:
            return self._resolver.construct_object(yaml.ScalarNode(tag, text))
        except (ValueError, yaml.YAMLError):
            return text

    def _sequence(self, node: _Node, depth: int) -> None:
        node.value = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            child = self._node(event, depth + 1)
            node.children[len(node.value)] = child
            node.value.append(child.value)

    def _mapping(self, node: _Node, depth: int) -> None:
        node.value, merged = {}, []
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            plain = isinstance(event, yaml.ScalarEvent) and event.implicit[0]
            name = self._node(event, depth + 1)
            if isinstance(name.value, dict | list):
                raise self._refuse(event, "a key may not be a list or a mapping")
            child = self._node(next(self._events), depth + 1)
            key = str(name.value) if name.value is not None else ""
            if key == "<<" and plain:
                merged.append((event, child))
                continue
            if key in node.value:
                raise self._refuse(event, f"the key {key!r} is given twice; which of them holds is not defined")
            # The place of a key says more than that of its value, which may be far below.
            placed = _Node(child.value, name.line, name.column, child.size, child.children)
            node.value[key], node.children[key] = child.value, placed
        for event, child in merged:
            self._merge(node, event, child)

    def _merge(self, node: _Node, event: Any, source: _Node) -> None:
        # What stands in the mapping wins over what is merged into it, and an earlier source over a later one.
        sources = list(source.children.values()) if isinstance(source.value, list) else [source]
        for entry in sources:
            if not isinstance(entry.value, dict):
                raise self._refuse(event, "<< takes a mapping, or a list of mappings")
            for key, child in entry.children.items():
                if key not in node.value:
                    self._count(event, child.size)
                    node.value[key], node.children[key] = child.value, child


def _collect(node: _Node, path: _Path, marks: dict[_Path, tuple[int, int]]) -> None:
    marks[path] = (node.line, node.column)
    for key, child in node.children.items():
        _collect(child, (*path, key), marks)
