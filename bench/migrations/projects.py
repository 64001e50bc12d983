"""The projects of the samples, and their files out of a mirror."""

import io
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

import yaml

__all__ = ["Project", "extracted", "projects"]


@dataclass(frozen=True)
class Project:
    """A folder of migrations in a public repository."""

    sample: str
    repository: str
    commit: str
    folder: str
    newest: bool = False
    """Whether it needs the newest PostgreSQL."""

    @property
    def name(self) -> str:
        """The repository, and the folder where it is not the usual one."""
        inner = self.folder.removesuffix("supabase/migrations").strip("/")
        return f"{self.repository} ({inner})" if inner else self.repository


def projects() -> list[Project]:
    """All of them, in the order of the file."""
    samples = yaml.safe_load(Path(__file__).with_name("projects.yaml").read_text(encoding="utf-8"))
    return [Project(sample, **entry) for sample, entries in samples.items() for entry in entries]


def extracted(project: Project, mirrors: Path, into: Path) -> Path | None:
    """The project's folder ``supabase`` with its migrations; None without a mirror of the repository.

    Args:
        mirrors: has ``<owner>+<name>/repo`` for each repository, bare or not.
    """
    mirror = mirrors / project.repository.replace("/", "+") / "repo"
    if not mirror.is_dir():
        return None
    archive = subprocess.run(
        ["git", "-C", str(mirror), "archive", project.commit, project.folder], check=True, capture_output=True
    )
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(into, filter="data")
    return (into / project.folder).parent
