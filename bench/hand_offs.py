"""What the check of hand-offs finds in real files: a table of what it should find against what it did.

``hand_offs.yaml`` names files of public repositories, each with the verdict of somebody who has read it. The files are
not here: the folder that is given has the repositories, each as a git directory or checkout called ``OWNER+NAME``.

    python bench/hand_offs.py FOLDER
"""

import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from policies.artifacts.discovery import checked

CORPUS = Path(__file__).with_name("hand_offs.yaml")
FILE_MAX_BYTES = 1024 * 1024
"""Of what is taken from a repository; larger ones are pictures and data."""
OUTCOMES = {0: "passed", 1: "found", 2: "not checked"}


def repository(folder: Path, name: str) -> Path | None:
    """The git directory of a repository; None if it is not there."""
    place = folder / name.replace("/", "+")
    return next((path for path in (place / ".git", place / "repo", place) if (path / "HEAD").is_file()), None)


def written_out(git: Path, commit: str, folder: Path) -> None:
    """Writes the texts of a commit to a folder. What a copy of a repository lacks is left out."""

    def run(*arguments: str, given: bytes = b"") -> bytes:
        return subprocess.run(["git", f"--git-dir={git}", *arguments], input=given, capture_output=True).stdout

    entries = [entry.split("\t", 1) for entry in run("ls-tree", "-r", "-z", commit).decode().split("\0") if entry]
    names = {told.split()[2]: told for told, _ in entries}
    sizes = run("cat-file", "--batch-check", given="\n".join(names).encode()).decode().splitlines()
    small = {words[0] for words in map(str.split, sizes) if words[1] == "blob" and int(words[2]) <= FILE_MAX_BYTES}
    content: dict[str, bytes] = {}
    packed, at = run("cat-file", "--batch", given="\n".join(sorted(small)).encode()), 0
    while at < len(packed):
        end = packed.index(b"\n", at)
        name, _, size = packed[at:end].decode().split()
        content[name] = packed[end + 1 : end + 1 + int(size)]
        at = end + 2 + int(size)
    for told, path in entries:
        mode, _, name = told.split()
        if name in content and mode.startswith("100"):
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content[name])


def outcome(path: Path, root: Path) -> str:
    report = checked([path], root)
    # A finding is one, whatever else of the file could not be checked.
    return "found" if report.findings else OUTCOMES[report.exit_code]


def measured(entry: dict[str, Any], git: Path) -> tuple[Counter[tuple[str, str]], list[str], float]:
    counts: Counter[tuple[str, str]] = Counter()
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name).resolve()
        written_out(git, entry["commit"], root)
        start = time.process_time()
        for verdict, right in (("forbidden", "found"), ("allowed", "passed")):
            for path in entry.get(verdict, ()):
                if not (root / path).is_file():
                    wrong.append(f"{entry['repository']}: {path} is not there")
                    continue
                found = outcome(root / path, root)
                counts[verdict, found] += 1
                if found != right:
                    wrong.append(f"{entry['repository']}: {path} is {verdict}: {found}")
        return counts, wrong, time.process_time() - start


def main() -> None:
    console = Console()
    folder = Path(sys.argv[1])
    counts: Counter[tuple[str, str]] = Counter()
    wrong: list[str] = []
    seconds = 0.0
    for entry in yaml.safe_load(CORPUS.read_text(encoding="utf-8")):
        git = repository(folder, entry["repository"])
        if git is None:
            wrong.append(f"{entry['repository']} is not in {folder}")
            continue
        more, told, spent = measured(entry, git)
        counts += more
        wrong += told
        seconds += spent
    table = Table("verdict", "found", "passed", "not checked")
    for verdict in ("forbidden", "allowed"):
        table.add_row(verdict, *(str(counts[verdict, found]) for found in ("found", "passed", "not checked")))
    console.print(table)
    console.print(f"{counts.total()} files in {seconds:.1f} s")
    for line in wrong:
        console.print(line, soft_wrap=True, highlight=False)
    if counts["forbidden", "passed"] or counts["allowed", "found"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
