"""Every cell of the isolation matrix, on a real data plane."""

import pytest

from tests.security.attempt import attempt
from tests.security.isolation import ACTORS, PAGE, Actor, Case, load, page
from tests.security.world import World

CASES, REASONS = load()


def known_here(world: World, case: Case) -> None:
    if world.major < case.since:
        pytest.skip(f"PostgreSQL {world.major} has no such statement")
    if case.extension and not world.rows("select from pg_available_extensions where name = %s", case.extension):
        pytest.skip(f"this server has no {case.extension}")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_everybody_gets_exactly_as_far_as_the_matrix_says(world: World, case: Case) -> None:
    known_here(world, case)
    found = {str(actor): attempt(world, case, actor) for actor in ACTORS if case.why_open(actor, world.major) is None}
    assert found == {str(actor): case.expected(actor, world.major) for actor in ACTORS if str(actor) in found}


@pytest.mark.parametrize(
    ("case", "actor"),
    [
        pytest.param(case, actor, id=f"{case} as {actor}")
        for case in CASES
        for actor in ACTORS
        if any(case.why_open(actor, major) for major in (15, 18))
    ],
)
def test_what_is_known_to_be_open_is_open_for_that_reason_alone(
    world: World, case: Case, actor: Actor, request: pytest.FixtureRequest
) -> None:
    reason = case.why_open(actor, world.major)
    if reason is not None:
        request.node.add_marker(pytest.mark.xfail(strict=True, reason=REASONS[reason], raises=AssertionError))
    assert attempt(world, case, actor) == case.expected(actor, world.major)


def test_every_reason_is_given_and_used() -> None:
    used = {reason for case in CASES for reason in _reasons(case)}
    assert used == set(REASONS)


def _reasons(case: Case) -> set[str]:
    older = [reason for cells in case.open_before.values() for reason in cells.values()]
    return {*case.open.values(), *older, *filter(None, [case.note])}


def test_the_page_shows_the_matrix() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `python -m tests.security.isolation`"
