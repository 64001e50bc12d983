import gc
from collections.abc import Iterator

import pulumi
import pytest

from components.program import run_program
from data_plane.model.problems import ConfigurationError, Problem


@pytest.fixture(autouse=True)
def _collector_as_it_was() -> Iterator[None]:
    yield
    gc.enable()


def test_a_problem_in_the_configuration_is_what_pulumi_shows_without_a_traceback() -> None:
    def declare() -> None:
        raise ConfigurationError([Problem("stacks/Pulumi.x.yaml", 3, "kind", "nothing", "central or cell")])

    with pytest.raises(pulumi.RunError, match=r"x\.yaml:3: kind: found nothing; expected central or cell"):
        run_program(declare)


def test_a_mistake_in_the_program_keeps_its_traceback() -> None:
    def declare() -> None:
        raise KeyError("platform")

    with pytest.raises(KeyError):
        run_program(declare)
