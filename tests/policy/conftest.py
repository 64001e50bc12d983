from collections.abc import Iterator

import pytest

from data_plane.engine.runner.policy import PolicyPack
from tests.support.analyzer import running_pack


@pytest.fixture(scope="session")
def cell_pack() -> Iterator[PolicyPack]:
    """The pack, running for a stack of projects."""
    with running_pack("prod-cell-1") as pack:
        yield pack


@pytest.fixture(scope="session")
def central_pack() -> Iterator[PolicyPack]:
    """The pack, running for the central stack of this checkout."""
    with running_pack("local-central") as pack:
        yield pack
