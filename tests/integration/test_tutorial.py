"""The tutorial's commands as they stand on its page, in a new checkout, and what it says they print."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from data_plane.state_dir import CHECKOUT

PAGE = CHECKOUT / "docs" / "tutorial.md"
_BLOCK = re.compile(r"^```sh\n(.*?)^```\n(?:\n^```text\n(.*?)^```\n)?", re.DOTALL | re.MULTILINE)
_ENDS = "--- a block has ended ---"
_DIFFERS = "…"
"""What may be anything: within a line, or whole lines where it is all of one."""


@dataclass(frozen=True)
class Block:
    """Commands that a reader pastes, and what they print; None if the page does not show it."""

    commands: str
    shown: str | None

    def __str__(self) -> str:
        return self.commands.strip().splitlines()[-1]

    def pattern(self) -> re.Pattern[str]:
        """What the output has to be."""
        lines = (self.shown or "").splitlines(keepends=True)
        parts = [r"(?:.*\n)*?" if line == f"{_DIFFERS}\n" else _line(line) for line in lines]
        return re.compile("".join(parts))


def _line(line: str) -> str:
    # Trailing spaces of psql's columns cannot be seen on a page.
    return r"[^\n]*?".join(map(re.escape, line.rstrip().split(_DIFFERS))) + r" *\n"


BLOCKS = [Block(commands, shown or None) for commands, shown in _BLOCK.findall(PAGE.read_text(encoding="utf-8"))]


@pytest.fixture(scope="module")
def printed() -> Iterator[list[str]]:
    """What each block prints, run one after the other in one shell."""
    with tempfile.TemporaryDirectory(prefix="tutorial-") as folder:  # sockets have short paths
        checkout = _copy_checkout(Path(folder) / "data-plane")
        script = Path(folder) / "tutorial.sh"
        ended = f"printf '\\n{_ENDS}\\n'\n"
        script.write_text("".join(f"{block.commands}{ended}" for block in BLOCKS), encoding="utf-8")
        variables = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("DATA_PLANE_", "PG"))},
            **{name: os.environ[name] for name in ("DATA_PLANE_POSTGRES_BIN",) if name in os.environ},
            "DATA_PLANE_ENGINE": "local",
            "HOME": folder,
            "COLUMNS": "80",
        }
        try:
            done = subprocess.run(
                ["bash", script],
                stdin=subprocess.DEVNULL,
                cwd=checkout,
                env=variables,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            # A failing test shows what was printed: not the leases' passwords.
            yield re.sub(r"(//lease_\w+):[^@]+@", rf"\1:{_DIFFERS}@", done.stdout).split(f"\n{_ENDS}\n")
        finally:
            subprocess.run([checkout / "dataplane", "local", "stop"], env=variables, capture_output=True, check=True)


def _copy_checkout(folder: Path) -> Path:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (CHECKOUT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(CHECKOUT / name, folder / name)
    (folder / ".venv").symlink_to((CHECKOUT / ".venv").resolve())
    os.utime(folder / "requirements.txt", (0, 0))  # what it pins is installed
    return folder


@pytest.mark.skipif(shutil.which("psql") is None, reason="the tutorial needs psql")
@pytest.mark.parametrize("number", range(len(BLOCKS)), ids=lambda number: str(BLOCKS[number]))
def test_a_block_of_the_tutorial_prints_what_the_page_shows(printed: list[str], number: int) -> None:
    assert number < len(printed) - 1, f"the shell ended before this block: {printed[-1]}"
    if BLOCKS[number].shown is not None:
        assert BLOCKS[number].pattern().fullmatch(printed[number].strip("\n") + "\n"), printed[number]
