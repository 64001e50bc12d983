"""Which files are checked, and as what."""

import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePosixPath

from policies.artifacts import infrastructure
from policies.artifacts.archives import unpacked
from policies.artifacts.charts import VALUES, Charts, Helmfiles
from policies.artifacts.compose_files import ComposeFiles
from policies.artifacts.dockerfile import Dockerfile
from policies.artifacts.findings import Finding, Place, Problem, Report, UncheckedError
from policies.artifacts.manifests import KUSTOMIZATION, Kustomizations, check_manifest, is_manifest
from policies.artifacts.platforms import Platforms
from policies.artifacts.sources import Document, Root, documents
from policies.artifacts.templates import check_template, is_template

__all__ = ["READ", "checked"]

READ = (
    "compose files, Dockerfiles, manifests, kustomizations, charts and their values, helmfiles, quadlets, Nomad jobs,"
    " devcontainer.json, render.yaml, app.json, fly.toml, Procfiles, templates of clouds, playbooks"
)
ENTRIES_MAX = 500_000
"""Files and folders that are looked at; a folder with more is no hand-off."""
ARCHIVE_DEPTH_MAX = 3

_COMPOSE = re.compile(r"^(?:docker-)?compose(?:[._-][\w.-]+)?\.ya?ml$", re.IGNORECASE)
_STACK = re.compile(r"^(?:docker-)?stack(?:[.-][\w.-]+)?\.ya?ml$", re.IGNORECASE)
_DOCKERFILE = re.compile(
    r"^[\w.-]*(?:docker|container)file[\w.-]*(?<!\.md)(?<!\.txt)(?<!\.sh)(?<!\.py)(?<!\.ts)(?<!\.js)(?<!\.go)(?<!\.rs)"
    r"(?<!\.json)(?<!\.yaml)(?<!\.yml)(?<!ignore)$",
    re.IGNORECASE,
)
_HELMFILE = re.compile(r"^helmfile[\w.-]*\.ya?ml(?:\.gotmpl)?$", re.IGNORECASE)
_VARIABLES = re.compile(r"^(?:[\w.-]*\.env|\.env\.[\w.-]+)$")
_STRUCTURED = (".yaml", ".yml", ".json")
_TEMPLATES = (".tpl", ".gotmpl", ".j2", ".tmpl", ".erb")
# Tests of a CI may start a throwaway server.
_CI = re.compile(
    r"(?:^|/)(?:\.github|\.gitlab|\.circleci|\.woodpecker|\.buildkite|\.gitea|\.forgejo)/"
    r"|(?:^|/)\.?(?:gitlab-ci|woodpecker|drone|travis|cirrus|appveyor|bitbucket-pipelines|azure-pipelines)[\w.-]*$"
)
# Strong: broken, it is an error. Weak: it may be ours, so it is parsed; broken, it is nobody's.
_MANIFEST = re.compile(r"""^[ \t]*(?:-[ \t]+|\{[ \t]*)?["']?apiVersion["']?[ \t]*:""", re.MULTILINE)
_SERVICES = re.compile(r"""^(?:\{[ \t]*)?["']?services["']?[ \t]*:[ \t]*(?:$|[#{&*!])""", re.MULTILINE)
_RUNS = re.compile(r"""["']?\b(?:image|build)["']?[ \t]*:""")
_MAY_BE = re.compile(r"""\b(?:apiVersion|services|releases)["']?[ \t]*:""")
_PASSED_OVER = frozenset({
    ".git", ".hg", ".svn", ".venv", "venv", "node_modules", "__pycache__", ".terraform", ".tox", ".mypy_cache",
    ".ruff_cache", ".pytest_cache",
})  # fmt: skip
_MALFORMED = (AttributeError, IndexError, KeyError, TypeError, ValueError)


def checked(paths: list[Path], root: Path | None = None, *, named: bool = False) -> Report:
    """Checks files, and folders with all that is in them.

    Args:
        paths: what to check.
        root: the folder outside of which nothing is read; without one, it is the current folder, and for what is
            outside of that, the folder that is named, or that of a file.
        named: whether each path has to be of a kind that is read: one that is not is a problem.
    """
    report = Report()
    checkers: dict[Path, _Checker] = {}
    for path in paths:
        whole = Path(os.path.abspath(path))  # noqa: PTH100 resolve() would follow what may lead out of the root
        folder, shown = _root(whole, path, root)
        if folder not in checkers:
            # Names are relative to the root; with several, what is given says which.
            checkers[folder] = _Checker(Root(folder, shown if len(paths) > 1 else PurePosixPath()), report)
        before = len(report.files) + len(report.problems)
        checkers[folder].path(whole)
        # The current folder is no wrong path, and may hold nothing of ours.
        if not named or whole == Path.cwd() or len(report.files) + len(report.problems) > before:
            continue
        if not checkers[folder].has_read(whole):
            what = "nothing in it is" if whole.is_dir() else "it is none"
            message = f"{what} of what is read: {READ}"
            report.problems.add(Problem(Place(checkers[folder].name(whole)), message))
    return report


def _root(whole: Path, given: Path, root: Path | None) -> tuple[Path, PurePosixPath]:
    if root is not None:
        return root.resolve(), PurePosixPath()
    here = Path.cwd()
    if whole.is_relative_to(here):
        return here.resolve(), PurePosixPath()
    folder, shown = (whole, given) if whole.is_dir() else (whole.parent, given.parent)
    return folder.resolve(), PurePosixPath(shown.as_posix())


class _Checker:
    def __init__(self, root: Root, report: Report, depth: int = 0) -> None:
        self._root, self._report, self._depth = root, report, depth
        self._compose = ComposeFiles(root, report)
        self._charts = Charts(root, report)
        self._helmfiles = Helmfiles(root, report)
        self._kustomizations = Kustomizations(root, report, self._guarded)
        self._platforms = Platforms(root, report, self._compose)
        self._seen: set[Path] = set()
        self._entries = 0
        self._chart_of = cache(self._found_chart)

    def path(self, path: Path) -> None:
        if path.is_symlink() or not path.is_dir():
            self._guarded(path)
            if _VARIABLES.match(path.name):
                self._users_of(path)
            return
        # First what leads to other files, from the top: it says with which variables they are to be read.
        for file in sorted(self._files(path), key=lambda file: (not _COMPOSE.match(file.name), len(file.parts), file)):
            self._guarded(file)

    def give(self, folder: Path, values: object) -> None:
        self._charts.give(folder, values)

    def has_read(self, path: Path) -> bool:
        return self.name(path) in self._report.files or any(
            self.name(path) in file.parents for file in self._report.files
        )

    def name(self, path: Path) -> PurePosixPath:
        return self._root.relative(path)

    def _users_of(self, variables: Path) -> None:
        """The compose files that an ``.env`` is for: those beside it and above it."""
        for folder in variables.parents:
            if not folder.is_relative_to(self._root.folder):
                return
            for file in sorted(folder.iterdir()):
                if _COMPOSE.match(file.name):
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
        if path in self._seen:
            return
        self._seen.add(path)
        try:
            self._file(path)
        except UncheckedError as error:
            self._report.problems.add(error.problem)
        except RecursionError:
            self._report.problems.add(Problem(Place(self._root.relative(path)), "it is nested too deeply"))
        except _MALFORMED as error:
            # Nothing that somebody else wrote may end the check of the other files.
            message = f"it is not written as its format wants it ({type(error).__name__})"
            self._report.problems.add(Problem(Place(self._root.relative(path)), message))

    def _file(self, path: Path) -> None:
        name, lower = path.name, path.name.lower()
        if self._charts.is_off(path):
            return
        reader = self._platforms.reader(path)
        if _COMPOSE.match(name) and not is_template(self._peeked(path)):
            self._compose.check(path)
        elif reader is not None:
            reader(path)
        elif _DOCKERFILE.match(name):
            self._dockerfile(path)
        elif lower.endswith(_STRUCTURED) or KUSTOMIZATION.match(name):
            self._structured(path)
        elif lower.endswith(_TEMPLATES):
            self._template(path)
        elif lower.endswith(".tgz") and path.parent.name == "charts":
            self._archive(path)
        elif name == ".env":
            self._variables(path)

    def _peeked(self, path: Path) -> str:
        try:
            return self._root.read(path)
        except UncheckedError:
            return ""

    def _variables(self, path: Path) -> None:
        try:
            self._compose.check_variables(path)
        except UncheckedError:
            # It counts where a compose file uses it, and is an error there.
            return

    def _text(self, path: Path) -> str:
        text = self._root.read(path)
        self._report.files.add(self._root.relative(path))
        return text

    def _dockerfile(self, path: Path) -> None:
        dockerfile = Dockerfile(self._text(path))
        for line, reason in dockerfile.reasons():
            self._report.findings.add(Finding(Place(self._root.relative(path), line), path.name, reason))
        # A compose file that builds it says what its arguments are, and has been checked before.
        unknown = dockerfile.unknown() if dockerfile.stages and path not in self._compose.built else ()
        for line, message in unknown:
            self._report.problems.add(Problem(Place(self._root.relative(path), line), message))

    def _archive(self, path: Path) -> None:
        if self._depth >= ARCHIVE_DEPTH_MAX:
            raise UncheckedError(Place(self._root.relative(path)), "archives stand in each other too deeply")
        with unpacked(path, self._root) as root:
            self._report.files.add(self._root.relative(path))
            inner = _Checker(root, self._report, self._depth + 1)
            for folder in sorted(root.folder.iterdir()):
                inner.give(folder, self._charts.given(path.parent / folder.name))
                if not self._charts.is_off(path.parent / folder.name / "Chart.yaml"):
                    inner.path(folder)

    def _template(self, path: Path) -> None:
        text = self._peeked(path)
        named = "templates" in path.parts or _HELMFILE.match(path.name)
        if named or _MANIFEST.search(text) or (_SERVICES.search(text) and _RUNS.search(text)):
            check_template(self._text(path), self._root.relative(path), self._report)

    def _structured(self, path: Path) -> None:
        chart = self._chart_of(path.parent)
        if chart and path.parent == chart and (VALUES.match(path.name) or path.stem in {"Chart", "requirements"}):
            self._charts.check(chart)
            return
        if chart and path.relative_to(chart).parts[0] == "ci":
            # Values for tests of the chart.
            return
        in_template = chart is not None and "templates" in path.relative_to(chart).parts
        text = self._text(path) if in_template else self._looked_into(path)
        if text is None:
            return
        if in_template and is_template(text):
            check_template(text, self._root.relative(path), self._report)
            return
        self._documents(path, text)

    def _looked_into(self, path: Path) -> str | None:
        """The text of a file that may hold something of ours; None if not. What is not ours may be broken."""
        named = self._is_named(path)
        try:
            text = self._root.read(path)
        except UncheckedError:
            # Large data, links to elsewhere, other encodings: not ours unless it is called so.
            if named or (path.suffix.lower() != ".json" and not path.is_symlink()):
                raise
            return None
        tasks = path.parent.name == "tasks"
        if named or tasks or _MAY_BE.search(text) or infrastructure.MAY_BE_INFRASTRUCTURE.search(text):
            return text
        return None

    def _is_named(self, path: Path) -> bool:
        return any(pattern.match(path.name) for pattern in (KUSTOMIZATION, _STACK, _HELMFILE, VALUES))

    def _documents(self, path: Path, text: str) -> None:
        try:
            found = documents(text, self._root.relative(path), any_tag="AWS::" in text)
        except UncheckedError:
            strong = _MANIFEST.search(text) or (_SERVICES.search(text) and _RUNS.search(text))
            if is_template(text) and (strong or self._is_named(path)):
                self._report.files.add(self._root.relative(path))
                check_template(text, self._root.relative(path), self._report)
                return
            if strong or (self._is_named(path) and not VALUES.match(path.name)):
                raise
            return
        for document in found:
            self._document(document, path)

    def _document(self, document: Document, path: Path) -> None:
        data = document.data
        if infrastructure.is_playbook(data, path):
            self._report.files.add(document.file)
            infrastructure.check_playbook(document, self._report)
            return
        if not isinstance(data, dict):
            # An array of objects in JSON.
            if isinstance(data, list) and any(isinstance(entry, dict) and "apiVersion" in entry for entry in data):
                self._report.files.add(document.file)
                check_manifest(document.inside("items"), self._report)
            return
        kustomization = KUSTOMIZATION.match(path.name) or (
            str(data.get("kind")) in {"Kustomization", "Component"}
            and "kustomize.config" in str(data.get("apiVersion"))
        )
        if is_manifest(document) or kustomization:
            self._report.files.add(document.file)
            check_manifest(document, self._report)
            if kustomization:
                self._kustomizations.check(document, path)
        elif _HELMFILE.match(path.name) or _is_helmfile(data):
            self._report.files.add(document.file)
            self._helmfiles.check(document, path.parent)
        elif VALUES.match(path.name):
            self._report.files.add(document.file)
            self._charts.check_values(document)
        elif infrastructure.is_template(data):
            self._report.files.add(document.file)
            infrastructure.check_template(document, self._report)
        elif _is_compose(data) and not _CI.search(document.file.as_posix()):
            self._report.files.add(document.file)
            self._compose.check_document(document, path)

    def _found_chart(self, folder: Path) -> Path | None:
        """The chart that a folder is of: the nearest one around it with a ``Chart.yaml``."""
        for around in (folder, *folder.parents):
            if not around.is_relative_to(self._root.folder):
                return None
            if (around / "Chart.yaml").is_file():
                return around
        return None


def _is_compose(data: dict[str, object]) -> bool:
    services = data.get("services")
    entries = services.values() if isinstance(services, dict) else ()
    return any(
        isinstance(entry, dict) and not entry.keys().isdisjoint({"image", "build", "extends"}) for entry in entries
    )


def _is_helmfile(data: dict[str, object]) -> bool:
    releases = data.get("releases")
    return isinstance(releases, list) and any(isinstance(entry, dict) and "chart" in entry for entry in releases)
