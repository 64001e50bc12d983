"""The programs of the control plane, built once from the modules that ``go.mod`` pins and kept in the user's cache."""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

from data_plane.engine.go import build_once, cache_folder, go_version, run_go, why_no_go
from data_plane.errors import BuildError

__all__ = ["PROGRAMS", "STAGES", "build_programs", "why_unavailable"]

MODULE = Path(__file__).resolve().parent
PROGRAMS = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
    "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
    "kubectl": "k8s.io/kubernetes/cmd/kubectl",
    "kwok": "sigs.k8s.io/kwok/cmd/kwok",
}
"""Package by program; the ``tool`` lines of ``go.mod``."""

STAGES = "kwok-stages.yaml"
"""Beside the programs: what kwok does to nodes and pods, as its makers ship it."""

_STAGE_FOLDERS = ("node/fast", "node/heartbeat-with-lease", "pod/fast")
_FLAGS = ("-mod=readonly", "-trimpath", "-buildvcs=false")


def why_unavailable() -> str | None:
    """Why Kubernetes cannot be built here, or None if it can."""
    return why_no_go(MODULE, "the local Kubernetes")


def build_programs(say: Callable[[str], None]) -> Path:
    """The folder with the programs, which are built first if they never were.

    Args:
        say: is told what is being built; all of it takes minutes the first time.

    Raises:
        BuildError: if they cannot be built here.
    """
    if (reason := why_unavailable()) is not None:
        raise BuildError(f"{reason}.")

    def build(draft: Path) -> None:
        for number, (name, package) in enumerate(PROGRAMS.items(), start=1):
            say(f"Building {name} ({number} of {len(PROGRAMS)}); only the first time")
            run_go("build", *_FLAGS, f"-ldflags={_linker_flags()}", "-o", draft / name, package, folder=MODULE)
        (draft / STAGES).write_text(_stages(), encoding="utf-8")

    return build_once(cache_folder() / f"kubernetes-{_key()}", "Kubernetes", build)


def _stages() -> str:
    module = Path(run_go("list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/kwok", folder=MODULE).strip())
    files = [file for part in _STAGE_FOLDERS for file in sorted((module / "kustomize/stage" / part).glob("*.yaml"))]
    return "\n---\n".join(file.read_text("utf-8") for file in files if file.name != "kustomization.yaml")


def _key() -> str:
    parts = [(MODULE / name).read_bytes() for name in ("go.mod", "go.sum")]
    parts += [go_version().encode(), " ".join([*_FLAGS, _linker_flags(), *PROGRAMS, *_STAGE_FOLDERS]).encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _linker_flags() -> str:
    """Leaves debug information out, and tells the programs their version, as Kubernetes' own build does."""
    match = re.search(
        r"^\s*k8s\.io/kubernetes (v(\d+)\.(\d+)\S*)", (MODULE / "go.mod").read_text("utf-8"), re.MULTILINE
    )
    if match is None:
        raise BuildError(f"{MODULE / 'go.mod'} names no version of k8s.io/kubernetes")
    version, major, minor = match.groups()
    values = {"gitVersion": version, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    return " ".join(["-s -w", *(f"-X k8s.io/component-base/version.{key}={value}" for key, value in values.items())])
