"""Programs that tests try things with, built from Go modules and kept in the user's cache."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock

from data_plane.engine.go import cache_folder, run_go

__all__ = ["COMPOSE_SPEC", "EXTERNAL_SECRETS", "GoProgram"]


@dataclass(frozen=True)
class GoProgram:
    """A program of a module, with the module's own choice of what it needs."""

    name: str
    module: str
    version: str
    checksum: str
    """Of the module's files, as ``go.sum`` has it."""
    package: str = "."
    replaced: Mapping[str, str] = field(default_factory=dict)
    """Files that are others than the module's."""

    def build(self) -> Path:
        """The program's path; the first time ever, it is built."""
        kept = cache_folder() / f"{self.name}-{self.version}"
        with FileLock(kept.with_name(f"{kept.name}.lock")):
            if not kept.exists():
                self._build(kept)
        return kept

    def _build(self, kept: Path) -> None:
        module = f"{self.module}@{self.version}"
        downloaded = json.loads(run_go("mod", "download", "-json", module, folder=cache_folder()))
        assert downloaded["Sum"] == self.checksum, module
        source, draft = kept.with_name(f"{kept.name}.source"), kept.with_name(f"{kept.name}.draft")
        shutil.rmtree(source, ignore_errors=True)
        # Without the modes of Go's own cache, which is read-only.
        shutil.copytree(downloaded["Dir"], source, copy_function=shutil.copyfile)
        for folder in (source, *(path for path in source.rglob("*") if path.is_dir())):
            folder.chmod(0o755)
        for name, text in self.replaced.items():
            (source / name).write_text(text, encoding="utf-8")
        run_go("build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", draft, self.package, folder=source)
        shutil.rmtree(source)
        draft.replace(kept)


COMPOSE_SPEC = GoProgram(
    "compose-spec",
    "github.com/compose-spec/compose-go/v2",
    "v2.16.2",
    "h1:pTp1DqQwJzFd85GzlWsSszKA1ABrV/ySqsClujIcWA8=",
    package="./cmd",
)
"""Reads compose files as Compose does, and prints the whole."""

_EXTERNAL_SECRETS = "github.com/external-secrets/external-secrets"

EXTERNAL_SECRETS = GoProgram(
    "external-secrets",
    _EXTERNAL_SECRETS,
    # The last release whose module has all of its code in it.
    "v0.20.4",
    "h1:HhNAjWfFEshhItphr28SGsHzf2bUP7uDAOVLg76uNAg=",
    # OpenBao's alone: all the clouds' would take long to build.
    replaced={
        f"pkg/{kind}/register/register.go": f'package register\n\nimport _ "{_EXTERNAL_SECRETS}/pkg/{kind}/vault"\n'
        for kind in ("generator", "provider")
    },
)
"""The operator."""
