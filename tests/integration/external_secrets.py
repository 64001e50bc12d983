"""The External Secrets Operator itself, at work in one namespace of a test's cluster."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import Cluster
from tests.integration.go_programs import EXTERNAL_SECRETS

_OFF = (
    "cluster-store-reconciler",
    "cluster-external-secret-reconciler",
    "cluster-push-secret-reconciler",
    "push-secret-reconciler",
)


@contextmanager
def external_secrets(cluster: Cluster, namespace: str, log: Path) -> Iterator[None]:
    """Runs the operator for one namespace.

    Args:
        log: what it says goes there.
    """
    options = [
        f"--namespace={namespace}",
        "--metrics-addr=127.0.0.1:0",
        "--live-addr=127.0.0.1:0",
        *(f"--enable-{name}=false" for name in _OFF),
    ]
    with log.open("wb") as file:
        process = subprocess.Popen(
            [EXTERNAL_SECRETS.build(), *options],
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
