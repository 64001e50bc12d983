"""Folders that are costly to make, made once in a test session and copied by every test that needs one.

Worker processes of one session share them.
"""

import hashlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp

from filelock import FileLock

__all__ = ["TEMPLATES", "Templates"]


class Templates:
    """The templates of one session. Without a folder, as outside the tests, nothing is kept."""

    def __init__(self) -> None:
        self.folder: Path | None = None

    def copy(self, key: str, make: Callable[[Path], None], target: Path) -> None:
        """Fills a folder with a copy of the template.

        Args:
            key: what the template depends on.
            make: fills an empty folder with it, the first time.
            target: the folder; made if it is not there.
        """
        target.mkdir(parents=True, exist_ok=True)
        if self.folder is None:
            make(target)
            return
        template = self.path(key)
        with FileLock(template.with_suffix(".lock")):
            if not template.exists():
                draft = Path(mkdtemp(dir=template.parent))
                try:
                    make(draft)
                except BaseException:
                    shutil.rmtree(draft, ignore_errors=True)
                    raise
                draft.rename(template)
        # Rights and owners stay: a server that runs as `nobody` owns its data.
        subprocess.run(["cp", "-a", f"{template}/.", target], check=True)

    def path(self, key: str) -> Path:
        """Where the template is, or will be."""
        if self.folder is None:
            raise RuntimeError("templates are kept in test sessions alone")
        self.folder.mkdir(exist_ok=True)
        return self.folder / hashlib.sha256(key.encode()).hexdigest()[:16]


TEMPLATES = Templates()
