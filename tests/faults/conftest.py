"""What the faults are done to: a data plane whose servers are reached through proxies, and runs in other processes."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.conftest import ALPHA, BETA, NewLocalEnv, bring_up
from tests.faults.behind import Behind
from tests.faults.proxy import Proxy


@pytest.fixture(scope="module")
def behind(new_local_env: NewLocalEnv) -> Iterator[Behind]:
    """Alpha and beta-two, with a proxy before each server; tests leave both as they were."""
    made = new_local_env({"alpha.yaml": ALPHA, "beta-two.yaml": BETA})
    with ExitStack() as open_:
        database = open_.enter_context(Proxy(made.servers.postgres.known_port))
        openbao = open_.enter_context(Proxy(int(made.servers.openbao.port or 0)))
        behind = Behind(made, database, openbao)
        bring_up(made)
        yield behind
