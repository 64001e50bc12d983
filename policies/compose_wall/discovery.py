"""Which files are checked, and as what."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from policies.compose_wall.compose_files import ComposeFiles
from policies.compose_wall.dockerfile import Dockerfile
from policies.compose_wall.findings import Finding, Place, Problem, Report, UncheckedError
from policies.compose_wall.manifests import check_chart, check_manifest, check_template, is_manifest
from policies.compose_wall.sources import Root, documents

__all__ = ["checked"]

ENTRIES_MAX = 500_000
"""Files and folders that are looked at; a folder with more is no hand-off."""

_COMPOSE = re.compile(r"^(?:docker-)?compose(?:[.-][\w.-]+)?\.ya?ml$", re.IGNORECASE)
_STACK = re.compile(r"^(?:docker-)?stack(?:[.-][\w.-]+)?\.ya?ml$", re.IGNORECASE)
_DOCKERFILE = re.compile(
    r"^(?:(?:Docker|Container)file(?:\.[\w.-]+)?|[\w.-]+\.(?:Docker|Container)file)$", re.IGNORECASE
)
_STRUCTURED = (".yaml", ".yml", ".json")
_KUSTOMIZATION = re.compile(r"^kustomization(?:\.ya?ml)?$", re.IGNORECASE)
_LOOKS_LIKE_MANIFEST = re.compile(r"""^\s*(?:-\s+|\{\s*)*["']?apiVersion["']?\s*:""", re.MULTILINE)
_LOOKS_LIKE_COMPOSE = re.compile(r"^services:\s*(?:#.*)?$", re.MULTILINE)
_RUNS_SOMETHING = re.compile(r"^\s+(?:image|build)\s*:", re.MULTILINE)
_PASSED_OVER = frozenset({
    ".git", ".hg", ".svn", ".venv", "venv", "node_modules", "__pycache__", ".terraform", ".tox", ".mypy_cache",
    ".ruff_cache", ".pytest_cache",
})  # fmt: skip


def checked(paths: list[Path], root: Path) -> Report:
    """Checks files, and folders with all that is in them.

    Args:
        paths: what to check.
        root: the folder outside of which nothing is read.
    """
    report = Report()
    checker = _Checker(Root(root.resolve()), report)
    for path in paths:
        checker.path(Path(os.path.abspath(path)))  # noqa: PTH100 resolve() would follow what may lead out of the root
    return report


class _Checker:
    def __init__(self, root: Root, report: Report) -> None:
        self._root, self._report = root, report
        self._compose = ComposeFiles(root, report)
        self._charts: set[Path] = set()
        self._entries = 0

    def path(self, path: Path) -> None:
        if path.is_symlink() or not path.is_dir():
            self._guarded(path)
            return
        # First what leads to other files, from the top: it says with which variables they are to be read.
        for file in sorted(self._files(path), key=lambda file: (not _COMPOSE.match(file.name), len(file.parts), file)):
            self._guarded(file)

    def _files(self, folder: Path) -> Iterator[Path]:
        def refused(error: OSError) -> None:
            place = Place(self._root.relative(Path(str(error.filename))))
            self._report.problems.add(Problem(place, f"it cannot be listed: {(error.strerror or '').lower()}"))

        for name, folders, files in os.walk(folder, onerror=refused):
            folders[:] = sorted(set(folders) - _PASSED_OVER)
            self._entries += len(folders) + len(files)
            if self._entries > ENTRIES_MAX:
                place = Place(self._root.relative(Path(name)))
                self._report.problems.add(Problem(place, f"there are more than {ENTRIES_MAX} files"))
                return
            yield from (Path(name) / file for file in sorted(files))

    def _guarded(self, path: Path) -> None:
        try:
            self._file(path)
        except UncheckedError as error:
            self._report.problems.add(error.problem)
        except RecursionError:
            self._report.problems.add(Problem(Place(self._root.relative(path)), "it is nested too deeply"))

    def _file(self, path: Path) -> None:
        name = path.name
        if _COMPOSE.match(name):
            self._compose.check(path)
        elif _DOCKERFILE.match(name):
            self._dockerfile(path)
        elif name.endswith(_STRUCTURED) or _KUSTOMIZATION.match(name):
            self._structured(path)
        elif name.endswith((".tpl", ".gotmpl", ".j2")) and "templates" in path.parts:
            check_template(self._text(path), self._place(path), self._report)

    def _place(self, path: Path) -> Place:
        return Place(self._root.relative(path))

    def _text(self, path: Path) -> str:
        text = self._root.read(path)
        self._report.files.add(self._root.relative(path))
        return text

    def _dockerfile(self, path: Path) -> None:
        for line, reason in Dockerfile(self._text(path)).reasons():
            self._report.findings.add(Finding(Place(self._root.relative(path), line), path.name, reason))

    def _structured(self, path: Path) -> None:
        chart = self._chart_of(path)
        if chart and (path.parent == chart and re.match(r"(?:values|Chart|requirements)", path.name)):
            if chart not in self._charts:
                self._charts.add(chart)
                check_chart(chart, self._root, self._report)
            return
        if not path.name.endswith(_STRUCTURED) and not _KUSTOMIZATION.match(path.name):
            return
        text = self._looked_into(path)
        if text is None:
            return
        if chart and "{{" in text:
            check_template(text, self._place(path), self._report)
            return
        self._documents(path, text)

    def _looked_into(self, path: Path) -> str | None:
        """The text of a file that may hold something of ours; None if not. What is not ours may be broken."""
        named = bool(_KUSTOMIZATION.match(path.name) or _STACK.match(path.name))
        try:
            text = self._root.read(path)
        except UncheckedError:
            # Large data, links to elsewhere, other encodings: not ours unless it is called so.
            if named or (path.suffix != ".json" and not path.is_symlink()):
                raise
            return None
        composed = _LOOKS_LIKE_COMPOSE.search(text) and _RUNS_SOMETHING.search(text)
        if named or composed or _LOOKS_LIKE_MANIFEST.search(text):
            self._report.files.add(self._root.relative(path))
            return text
        return None

    def _documents(self, path: Path, text: str) -> None:
        for document in documents(text, self._root.relative(path)):
            if is_manifest(document) or (_KUSTOMIZATION.match(path.name) and isinstance(document.data, dict)):
                check_manifest(document, self._report)
            elif isinstance(document.data, dict) and _is_compose(document.data):
                self._compose.check_document(document, path)

    def _chart_of(self, path: Path) -> Path | None:
        """The chart that a file is of: the nearest folder around it with a ``Chart.yaml``."""
        for folder in path.parents:
            if not folder.is_relative_to(self._root.folder):
                return None
            if (folder / "Chart.yaml").is_file():
                return folder
        return None


def _is_compose(data: dict[str, object]) -> bool:
    services = data.get("services")
    entries = services.values() if isinstance(services, dict) else ()
    return any(isinstance(entry, dict) and ("image" in entry or "build" in entry) for entry in entries)
