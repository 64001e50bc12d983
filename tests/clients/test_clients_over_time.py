"""What clients notice of a lease's life: nothing of a renewal, and in plain words that it has ended."""

import contextlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from data_plane.connector.leases import Lease, LeaseClient
from data_plane.model.naming import AccessLevel
from tests.clients.conftest import opener
from tests.clients.sessions import IN_NODE, IN_PYTHON, Open, RefusedError, Rows
from tests.conftest import Plane

CLIENTS = [*IN_PYTHON, *IN_NODE]
QUESTION = "select current_user::text, session_user::text"


@dataclass
class Life:
    """One client's part of what happened."""

    login: str
    password: str
    renewed_session: Rows = field(default_factory=list)
    new_session: Rows = field(default_factory=list)
    ended: RefusedError | None = None
    closed_door: RefusedError | None = None


def refusal(action: Callable[..., object], *arguments: str) -> RefusedError | None:
    try:
        action(*arguments)
    except RefusedError as error:
        return error
    return None


@pytest.fixture(scope="module")
def lives(shops: Plane, operator: LeaseClient, request: pytest.FixtureRequest) -> dict[str, Life]:
    """Every client with a lease of 10 s that is renewed for longer, and then revoked; all at the same time."""
    openers: dict[str, Open] = {}
    for name in CLIENTS:
        with contextlib.suppress(pytest.skip.Exception):
            openers[name] = opener(name, request)
    leases: dict[str, Lease] = {}
    for name in openers:
        leases[name] = shops.lease("brief", AccessLevel.SERVICE_ROLE)
        operator.renew(leases[name].lease_id, 300)
    began = time.monotonic()
    found = {name: Life(lease.username, lease.password) for name, lease in leases.items()}
    with contextlib.ExitStack() as at_the_end:
        sessions = {name: open_(leases[name].connection_string) for name, open_ in openers.items()}
        for session in sessions.values():
            at_the_end.callback(session.close)
        time.sleep(max(0.0, began + 12 - time.monotonic()))

        for name, open_ in openers.items():
            found[name].renewed_session = sessions[name].rows(QUESTION)
            another = open_(leases[name].connection_string)
            found[name].new_session = another.rows(QUESTION)
            another.close()
        for lease in leases.values():
            operator.revoke(lease.lease_id)
        for name, open_ in openers.items():
            found[name].ended = refusal(sessions[name].rows, QUESTION)
            found[name].closed_door = refusal(open_, leases[name].connection_string)
    return found


@pytest.fixture(params=CLIENTS)
def life(lives: dict[str, Life], request: pytest.FixtureRequest) -> Life:
    opener(request.param, request)  # skips where there is no Node
    return lives[request.param]


def test_a_renewed_lease_serves_the_open_session_and_new_ones_past_its_first_end(life: Life) -> None:
    assert life.renewed_session == life.new_session == [["proj_brief_service_role", life.login]]


def test_a_revoked_lease_ends_the_session_with_an_error_that_says_so(life: Life) -> None:
    assert life.ended is not None
    # postgres.js and Drizzle's pool connect again by themselves before they say anything.
    assert re.search(
        f'terminating connection due to administrator command|authentication failed for user "{life.login}"',
        str(life.ended),
    )
    assert life.password not in str(life.ended)


def test_a_revoked_lease_opens_no_session_and_the_client_says_why(life: Life) -> None:
    assert life.closed_door is not None
    assert f'password authentication failed for user "{life.login}"' in str(life.closed_door)
    assert life.password not in str(life.closed_door)
