"""The pack over a table of resources as the providers have them: which are refused, by which policy, and which pass."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from data_plane.engine.runner.policy import PolicyPack
from policies.no_project_postgres import POLICIES
from tests.support.analyzer import Declared, checked_resource, told

GROUP = {policy.name for policy in POLICIES}
TABLE: list[dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "data" / "resources.yaml").read_text("utf-8"))


@pytest.mark.parametrize("entry", TABLE, ids=lambda entry: f"{entry['type']}: {entry['why']}")
def test_a_resource_gets_the_verdict_of_the_table(cell_pack: PolicyPack, entry: dict[str, Any]) -> None:
    found = told(checked_resource(cell_pack, Declared(entry["type"], entry["properties"])))
    refused = GROUP.intersection(found)
    if entry["verdict"] == "passes":
        assert not refused, found
    else:
        assert entry["verdict"] in refused, found


def test_the_table_is_large_enough_to_measure_by() -> None:
    assert len(TABLE) >= 250
    assert sum(entry["verdict"] == "passes" for entry in TABLE) >= 80
