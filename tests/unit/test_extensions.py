"""What migrations are told of the extensions that they ask for."""

import pytest

from data_plane.connector.migrations.extensions import Extensions, ExtensionState
from data_plane.model.usual_extensions import USUAL_EXTENSIONS

_EXTENSIONS = Extensions({"pgcrypto": "extensions", "dblink": "extensions"}, {"pgcrypto", "hstore", "postgres_fdw"})


@pytest.mark.parametrize(
    ("name", "state", "words"),
    [
        ("pgcrypto", ExtensionState.HERE, "in schema extensions"),
        ("dblink", ExtensionState.HERE, "in schema extensions"),  # an operator decided so
        ("hstore", ExtensionState.AVAILABLE, "`extensions` of the central stack"),
        ("postgis", ExtensionState.LACKING, "a deployed data plane has it"),
        ("pg_cron", ExtensionState.PLATFORM, "data_plane_api.schedule_job"),
        ("pg_stat_statements", ExtensionState.PLATFORM, "all projects"),
        ("postgres_fdw", ExtensionState.REFUSED, "opens connections"),
        ("pg_net", ExtensionState.REFUSED, "sends requests"),
        ("made_up", ExtensionState.UNKNOWN, "neither"),
    ],
)
def test_an_extension_has_a_state_and_words_for_it(name: str, state: ExtensionState, words: str) -> None:
    assert _EXTENSIONS.state(name) is state
    assert name in _EXTENSIONS.message(name)
    assert words in _EXTENSIONS.message(name)


def test_every_usual_extension_is_in_supabases_image() -> None:
    nothing = Extensions({})
    assert {nothing.state(name) for name in USUAL_EXTENSIONS} == {ExtensionState.LACKING}
