"""The real Pulumi CLI, and data planes that end with the test. Where the CLI is missing its tests fail."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from data_plane.engine.engines import find_cli
from tests.conftest import NewLocalEnv, NewPlane
from tests.support.data_planes import Plane, brought_up, started

WITHOUT_CLI = "DATA_PLANE_TEST_WITHOUT_CLI"


@pytest.fixture(scope="session")
def cli() -> Path:
    command = find_cli()
    if command is not None:
        return command
    if os.environ.get(WITHOUT_CLI):
        pytest.skip(f"{WITHOUT_CLI} is set")
    pytest.fail(f"there is no Pulumi CLI: `make engine` builds it; {WITHOUT_CLI}=1 leaves its tests out")


@pytest.fixture
def fresh_local_env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NewLocalEnv]:
    """Makes data planes where nothing was brought up; they go with the test."""
    with ExitStack() as open_:
        yield lambda projects, cli=None: open_.enter_context(
            started(tmp_path_factory.mktemp("plane"), projects, cli=cli)
        )


@pytest.fixture
def fresh_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NewPlane]:
    """Makes data planes that are up; they go with the test."""
    with ExitStack() as open_:
        yield lambda projects, cli=None: Plane(
            open_.enter_context(brought_up(tmp_path_factory.mktemp("plane"), projects, cli=cli))
        )
