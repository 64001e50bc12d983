"""postgres-meta as npm has it, in the version that is deployed, on a database of a test."""

import json
import os
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from ruamel.yaml import YAML

from data_plane.engine.go import cache_folder
from data_plane.local.postgres import LocalPostgres
from data_plane.local.processes import LOOPBACK, free_port, wait_until
from data_plane.local.service_commands import install_postgres_meta
from data_plane.state_dir import CHECKOUT, StateDir

__all__ = ["PostgresMeta", "postgres_meta"]

_START_SECONDS = 300


class PostgresMeta:
    """A running postgres-meta.

    Args:
        port: where it listens.
    """

    def __init__(self, port: int) -> None:
        self._url = f"http://{LOOPBACK}:{port}"

    def call(self, path: str, body: object = None, method: str | None = None) -> tuple[int, Any]:
        """The status and the document of an answer."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(  # noqa: S310 its own URL
            self._url + path, data, {"Content-Type": "application/json"}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def query(self, statement: str) -> tuple[int, Any]:
        """What Studio's SQL editor gets."""
        return self.call("/query", {"query": statement})


@contextmanager
def postgres_meta(server: LocalPostgres, login: str, password: str) -> Iterator[PostgresMeta]:
    """Runs it with a login of the server."""
    for _ in range(3):  # somebody else may get one of the ports first
        process, meta = _start(server, login, password)
        if process.poll() is None:
            break
    assert process.poll() is None, f"postgres-meta ended with code {process.returncode}"
    try:
        yield meta
    finally:
        process.terminate()
        process.wait(30)


def _start(server: LocalPostgres, login: str, password: str) -> tuple["subprocess.Popen[bytes]", PostgresMeta]:
    """Starts it, and waits until it listens or has ended."""
    port = free_port()
    admin_port = free_port([port])
    environment = {
        **os.environ,
        "PG_META_HOST": LOOPBACK,
        "PG_META_PORT": str(port),
        "PG_META_ADMIN_PORT": str(admin_port),
        "PG_META_DB_HOST": LOOPBACK,
        "PG_META_DB_PORT": str(server.port),
        "PG_META_DB_NAME": "postgres",
        "PG_META_DB_USER": login,
        "PG_META_DB_PASSWORD": password,
        "PG_META_DB_SSL_MODE": "disable",
        "PG_CONN_TIMEOUT_SECS": "60",
    }
    process, meta = (
        subprocess.Popen(["node", _program()], env=environment, stdout=subprocess.DEVNULL),
        PostgresMeta(port),
    )
    if not wait_until(lambda: process.poll() is not None or _listens(meta), _START_SECONDS):
        process.kill()
        raise AssertionError("postgres-meta does not answer")
    return process, meta


def _listens(meta: PostgresMeta) -> bool:
    try:
        return bool(meta.call("/health")[0] == 200)
    except OSError:  # it does not listen, or not properly yet
        return False


def _program() -> Path:
    """Its server, installed once for all tests."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not on PATH: install Node 20 or newer to try postgres-meta")
    images = YAML(typ="safe").load((CHECKOUT / "stacks" / "images.yaml").read_text(encoding="utf-8"))["images"]
    version = images["meta"]["tag"].removeprefix("v")
    folder = cache_folder() / f"postgres-meta-{version}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        install_postgres_meta(StateDir(folder), version, lambda _text: None)
    return folder / "npm" / "node_modules" / "@supabase" / "postgres-meta" / "dist" / "server" / "server.js"
