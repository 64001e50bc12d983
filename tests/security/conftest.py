"""The world of the security tests: brought up on the oldest PostgreSQL that is here and on the newest."""

from collections.abc import Iterator

import pytest

from tests.security.world import PROJECTS, World
from tests.support.data_planes import Plane, brought_up
from tests.support.postgresqls import binaries, oldest_and_newest


@pytest.fixture(scope="module", params=oldest_and_newest())
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DATA_PLANE_POSTGRES_BIN", str(binaries()[request.param]))
        with brought_up(tmp_path_factory.mktemp("world"), PROJECTS, cells=2) as local_env:
            environment.undo()
            made = World.on(Plane(local_env))
            yield made
            made.close()
