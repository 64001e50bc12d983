"""What the faults are done to: a data plane whose servers are reached through proxies, and runs in other processes."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from embedded.workplace import Workplace
from tests.conftest import ALPHA, BETA, bring_up
from tests.faults.behind import Behind
from tests.faults.proxy import Proxy

MakeWorkplace = Callable[[dict[str, str]], Workplace]


@pytest.fixture(scope="session")
def behind(new_workplace: MakeWorkplace) -> Iterator[Behind]:
    """Alpha and beta-two, with a proxy before each server; tests leave both as they were."""
    made = new_workplace({"alpha.yaml": ALPHA, "beta-two.yaml": BETA})
    with ExitStack() as open_:
        database = open_.enter_context(Proxy(made.servers.postgres.known_port))
        openbao = open_.enter_context(Proxy(int(made.servers.openbao.port or 0)))
        behind = Behind(made, database, openbao)
        bring_up(made)
        yield behind
