"""Every cell of the isolation matrix, on a real data plane."""

from collections.abc import Iterator

import pytest

from tests.security.attempt import attempt
from tests.security.isolation import ACTORS, PAGE, Case, load, page
from tests.security.world import World

CASES, REASONS = load()


@pytest.fixture(scope="module", autouse=True)
def _without_the_guard(world: World) -> Iterator[None]:
    """It ends who has, at the moment that it looks, a lock on what is no tenant's, if only to be refused."""
    guard = world.plane.local_env.servers.guard
    guard.stop()
    yield
    guard.start()


def known_here(world: World, case: Case) -> None:
    if world.major < case.since:
        pytest.skip(f"PostgreSQL {world.major} has no such statement")
    on_offer = "select from pg_available_extensions where name = %s and installed_version is null"
    if case.extension and not world.rows(on_offer, case.extension):
        pytest.skip(f"this server has no {case.extension} that is not there already")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_everybody_gets_exactly_as_far_as_the_matrix_says(world: World, case: Case) -> None:
    known_here(world, case)
    found = {str(actor): attempt(world, case, actor) for actor in ACTORS}
    assert found == {str(actor): case.expected(actor, world.major) for actor in ACTORS}


@pytest.mark.parametrize("case", [case for case in CASES if case.names_a_schema], ids=str)
def test_further_schemas_are_as_the_first_ones(world: World, case: Case) -> None:
    known_here(world, case)
    found = {str(actor): attempt(world, case, actor, beside=True) for actor in ACTORS}
    assert found == {str(actor): case.expected(actor, world.major) for actor in ACTORS}


def test_every_reason_is_given_and_used() -> None:
    assert {case.note for case in CASES if case.note} == set(REASONS)


def test_the_page_shows_the_matrix() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `python -m tests.security.isolation`"
