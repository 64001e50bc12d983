"""The External Secrets Operator itself, with OpenBao's provider alone: all of its clouds would take long to build."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from embedded.kubernetes.toolchain import cache_folder, run_go
from tests.conftest import Cluster

_MODULE = "github.com/external-secrets/external-secrets"
_VERSION = "v0.20.4"
"""The last release whose module has all of its code in it."""
_CHECKSUM = "h1:HhNAjWfFEshhItphr28SGsHzf2bUP7uDAOVLg76uNAg="
_REGISTERED = {
    "pkg/generator/register/register.go": f'package register\n\nimport _ "{_MODULE}/pkg/generator/vault"\n',
    "pkg/provider/register/register.go": f'package register\n\nimport _ "{_MODULE}/pkg/provider/vault"\n',
}


def _controller() -> Path:
    kept = cache_folder() / f"external-secrets-{_VERSION}"
    with FileLock(kept.with_name(f"{kept.name}.lock")):
        if not kept.exists():
            _build(kept)
    return kept


def _build(kept: Path) -> None:
    downloaded = json.loads(run_go("mod", "download", "-json", f"{_MODULE}@{_VERSION}", folder=cache_folder()))
    assert downloaded["Sum"] == _CHECKSUM
    source, draft = kept.with_name(f"{kept.name}.source"), kept.with_name(f"{kept.name}.draft")
    shutil.rmtree(source, ignore_errors=True)
    # Without the modes of the module cache, which is read-only.
    shutil.copytree(downloaded["Dir"], source, copy_function=shutil.copyfile)
    for folder in (source, *(path for path in source.rglob("*") if path.is_dir())):
        folder.chmod(0o755)
    for name, text in _REGISTERED.items():
        (source / name).write_text(text, encoding="utf-8")
    run_go("build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", draft, ".", folder=source)
    shutil.rmtree(source)
    draft.replace(kept)


@contextmanager
def external_secrets(cluster: Cluster, namespace: str, log: Path) -> Iterator[None]:
    """Runs the operator for one namespace.

    Args:
        log: what it says goes there.
    """
    off = ("cluster-store-reconciler", "cluster-external-secret-reconciler", "cluster-push-secret-reconciler")
    options = [
        f"--namespace={namespace}",
        "--metrics-addr=127.0.0.1:0",
        "--live-addr=127.0.0.1:0",
        *(f"--enable-{name}=false" for name in (*off, "push-secret-reconciler")),
    ]
    with log.open("wb") as file:
        process = subprocess.Popen(
            [_controller(), *options],
            env={"PATH": os.environ["PATH"], "KUBECONFIG": str(cluster.kubeconfig)},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)
