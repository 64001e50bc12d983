"""What the CLI's events say of a step: recorded from runs of the real CLI, with the values of this project's shortened."""

from typing import Any

import pytest
from pulumi.automation import EngineEvent

from data_plane.engine.events import EventLog
from data_plane.engine.steps import Change, PropertyChange, Step

UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
SECRET = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270", "ciphertext": "[secret]"}
TENANT = "supabase-data-plane:cell:Cell$supabase-data-plane:tenant:ProjectTenant"
PREFIX = "urn:pulumi:local-cell-1::supabase-data-plane::"
DEMO = f"{PREFIX}{TENANT}::demo"


def state(type_: str, name: str, inputs: dict[str, Any], outputs: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "type": type_,
        "urn": f"{PREFIX}{TENANT}${type_}::{name}",
        "custom": True,
        "id": name,
        "parent": DEMO,
        "inputs": inputs,
        "outputs": inputs if outputs is None else outputs,
        "provider": "",
    }


def event(op: str, old: dict[str, Any] | None, new: dict[str, Any] | None, **more: Any) -> EngineEvent:
    known = new or old or {}
    metadata = {"op": op, "urn": known["urn"], "type": known["type"], "old": old, "new": new, "provider": "", **more}
    return EngineEvent.from_json(
        {"sequence": 1, "timestamp": 1, "resOutputsEvent": {"metadata": metadata, "planning": True}}
    )


def step_of(found: EngineEvent) -> Step:
    steps: list[Step] = []
    EventLog("local-cell-1", preview=True, on_step=steps.append).add(found)
    (step,) = steps
    return step


BUCKET = "pulumi-python:dynamic/tenant:TenantBucket"
GROUP = "vault:identity/group:Group"


def test_a_dynamic_resource_that_names_no_property_is_told_by_its_inputs() -> None:
    old = state(BUCKET, "demo-bucket", {"__provider": "gASV", "public": False, "password": SECRET})
    new = state(BUCKET, "demo-bucket", {"__provider": "gASX", "public": True, "password": SECRET})
    step = step_of(event("update", old, new, detailedDiff=None))
    assert (step.change, step.parent, step.name, step.custom) == (Change.UPDATE, DEMO, "demo-bucket", True)
    assert step.properties == [PropertyChange("public", False, True)]


def test_a_secret_that_differs_is_named_and_never_shown() -> None:
    old, new = (state(BUCKET, "demo-bucket", {"password": SECRET}) for _ in range(2))
    step = step_of(event("update", old, new, diffs=["password"], detailedDiff={"password": {"diffKind": "update"}}))
    assert step.properties == [PropertyChange("password", "[secret]", "[secret]")]


def test_a_value_that_is_not_known_yet_is_told_as_that() -> None:
    old = state(GROUP, "demo-access-group-owner", {"memberEntityIds": ["d7852a22"]})
    new = state(GROUP, "demo-access-group-owner", {"memberEntityIds": [UNKNOWN]})
    step = step_of(event("update", old, new, diffs=["memberEntityIds"], detailedDiff=None))
    assert step.properties == [PropertyChange("memberEntityIds", ["d7852a22"], ["[known after up]"])]


def test_what_was_read_is_told_where_the_inputs_are_the_same() -> None:
    inputs = {"jobs": 10, "tenant": "proj_demo"}
    old = state(BUCKET, "demo-limits", inputs, {"jobs": 99, "tenant": "proj_demo", "computed": "x"})
    step = step_of(event("update", old, state(BUCKET, "demo-limits", inputs)))
    assert step.properties == [PropertyChange("jobs", 99, 10)]


def test_what_is_created_and_deleted_has_one_side() -> None:
    bucket = state(BUCKET, "demo-bucket", {"public": True})
    assert step_of(event("create", None, bucket)).old is None
    deleted = step_of(event("delete", bucket, None))
    assert (deleted.new, deleted.parent) == (None, DEMO)
    assert deleted.properties == [PropertyChange("public", True, None)]


def test_only_steps_of_the_wanted_phase_count() -> None:
    steps: list[Step] = []
    log = EventLog("local-cell-1", preview=False, on_step=steps.append)
    log.remark(["it was killed"])
    log.add(event("create", None, state(BUCKET, "demo-bucket", {})))
    assert steps == []
    assert (log.run.created, log.run.remarks) == (0, ["it was killed"])


TRACE = """Traceback (most recent call last):
  File "/x/pulumi/dynamic/__main__.py", line 84, in wrapper
    return fn(self, request, context)
psycopg.OperationalError: connection refused

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/x/components/tenant/table_row.py", line 110, in apply
    raise TableRowError(f"{props}") from error
"""


@pytest.mark.parametrize(
    ("last", "said"),
    [
        ("components.tenant.table_row.TableRowError: proj_x: it is full\nMake room.", "proj_x: it is full\nMake room."),
        ("data_plane.clients.postgres.DatabaseUnavailableError: it is down", "it is down"),
        ("KeyError: 'login'", f"{TRACE}KeyError: 'login'"),
    ],
)
def test_what_a_dynamic_resource_says_is_told_without_where_it_was_raised(last: str, said: str) -> None:
    log = EventLog("local-cell-1", preview=False, on_step=lambda _step: None)
    message = {"message": f"{TRACE}{last}\n", "severity": "error", "urn": f"{DEMO}-jobs", "color": "never"}
    log.add(EngineEvent.from_json({"sequence": 1, "timestamp": 1, "diagnosticEvent": message}))
    assert log.errors == [f"demo-jobs (supabase-data-plane:tenant:ProjectTenant): {said}"]
