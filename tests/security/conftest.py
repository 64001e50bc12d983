"""The world of the security tests: brought up once on the oldest PostgreSQL that is here and once on the newest."""

from collections.abc import Callable, Iterator

import pytest

from embedded.workplace import Workplace
from tests.conftest import Plane, bring_up
from tests.integration.test_platform_sql import binaries
from tests.security.world import PROJECTS, World

# By name, the system's come before the wheel's: the oldest and the newest.
VERSIONS = sorted({min(binaries()), max(binaries())})


@pytest.fixture(scope="session", params=VERSIONS)
def world(request: pytest.FixtureRequest, new_workplace: Callable[[dict[str, str]], Workplace]) -> Iterator[World]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DATA_PLANE_POSTGRES_BIN", str(binaries()[request.param]))
        workplace = new_workplace(PROJECTS)
        bring_up(workplace)
    made = World.on(Plane(workplace))
    yield made
    made.close()
