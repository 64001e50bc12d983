"""The world of the security tests: brought up once for each PostgreSQL that is here."""

from collections.abc import Callable, Iterator

import pytest

from embedded.workplace import Workplace
from tests.conftest import Plane, bring_up
from tests.integration.test_platform_sql import binaries
from tests.security.world import PROJECTS, World


@pytest.fixture(scope="session", params=sorted(binaries()))
def world(request: pytest.FixtureRequest, new_workplace: Callable[[dict[str, str]], Workplace]) -> Iterator[World]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DATA_PLANE_POSTGRES_BIN", str(binaries()[request.param]))
        workplace = new_workplace(PROJECTS)
        bring_up(workplace)
    made = World.on(Plane(workplace))
    yield made
    made.close()
