"""The parts of the local runner that need no server."""

from pathlib import Path
from typing import Any

import pytest
from google.protobuf import struct_pb2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pulumi.runtime.proto import resource_pb2

from data_plane.engine.runner.monitor import Monitor
from data_plane.engine.runner.properties import UNKNOWN, Properties, at_path, has_unknown, with_path
from data_plane.engine.runner.state import StackState
from data_plane.engine.stack_files import load_config
from data_plane.errors import DataPlaneError
from data_plane.local.providers import PROVIDERS, ProviderError
from data_plane.local.providers.base import ResourceType
from data_plane.local.providers.openbao import _plain
from data_plane.state_dir import CHECKOUT, StateDir

VALUES = st.recursive(
    st.booleans() | st.integers(-(2**31), 2**31) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1, max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no failure
@given(st.dictionaries(st.text("abcdef", min_size=1, max_size=4), VALUES, max_size=4), st.data())
def test_properties_survive_the_wire_with_their_secrets(values: dict[str, Any], data: st.DataObject) -> None:
    secrets = data.draw(st.sets(st.sampled_from(sorted(values)))) if values else set()
    assert Properties.decode(Properties(values, secrets).encode()) == Properties(values, secrets)


def test_a_secret_inside_makes_its_property_secret() -> None:
    inner = Properties({"password": "x"}, {"password"}).encode()
    struct = struct_pb2.Struct()
    struct["postgresql"] = inner
    assert Properties.decode(struct) == Properties({"postgresql": {"password": "x"}}, {"postgresql"})


@pytest.mark.parametrize("value", [UNKNOWN, [1, UNKNOWN], {"a": {"b": [UNKNOWN]}}])
def test_unknown_values_are_found_wherever_they_are(value: Any) -> None:
    assert has_unknown(value)
    assert Properties({"x": value}).unknown


TYPE = ResourceType(
    lambda _: None,
    lambda *_: None,
    lambda _: None,
    keys=("name",),
    id="{backend}/roles/{name}",
    unordered=("roles",),
    write_only=("password", "db.password"),
    defaults={"limit": -1, "comment": ""},
)


@pytest.mark.parametrize(
    ("desired", "found", "expected"),
    [
        ({"roles": ["a", "b"]}, {"roles": ["b", "a"]}, []),
        ({"path": ["a", "b"]}, {"path": ["b", "a"]}, ["path"]),
        ({"path": []}, {}, []),
        ({"limit": 5}, {"limit": 6, "other": 1}, ["limit"]),
        ({}, {"limit": 6, "comment": "by hand"}, ["limit", "comment"]),
        ({"password": "x"}, {}, []),
        ({"db": {"user": "a", "password": "x"}}, {"db": {"user": "a"}}, []),
        ({"db": {"user": "a", "password": "x"}}, {"db": {"user": "b"}}, ["db"]),
    ],
)
def test_only_real_differences_count(desired: dict[str, Any], found: dict[str, Any], expected: list[str]) -> None:
    there = TYPE.outputs(desired, {"limit": -1, **found})
    assert TYPE.differing(there, desired) == expected


def test_another_password_is_a_difference() -> None:
    there = TYPE.outputs({"password": "old", "db": {"password": "old"}}, {"limit": -1, "db": {"user": "a"}})
    assert TYPE.differing(there, {"password": "new", "db": {"user": "a", "password": "new"}}) == ["password", "db"]


def test_an_id_is_understood_by_an_import() -> None:
    assert TYPE.named(TYPE.id_of({"backend": "my/mount", "name": "one"})) == {"backend": "my/mount", "name": "one"}
    with pytest.raises(ProviderError, match=r"'one' is not an ID of this type; expected \{backend\}/roles/\{name\}"):
        TYPE.named("one")


@pytest.mark.parametrize("path", ["spec", "spec.replicas", 'metadata.annotations["a.b/c"]', "spec.containers[0].image"])
def test_a_property_path_leads_to_one_value(path: str) -> None:
    values: dict[str, Any] = {"spec": {"containers": [{"name": "x"}, {}]}, "metadata": {}}
    changed = with_path(values, path, "new")
    assert at_path(changed, path) == "new"
    assert at_path(values, path) != "new", "it was changed in place"
    assert at_path(with_path(changed, path, None), path) is None


@pytest.mark.parametrize("path", ["spec.containers[*].image", "a[", 'a["b'])
def test_a_path_that_is_none_is_refused(path: str) -> None:
    with pytest.raises(NotImplementedError, match="name a single field"):
        at_path({}, path)


@pytest.mark.parametrize(
    ("text", "plain"),
    [("5m0s", 300), ("1h0m0s", 3600), ("45s", 45), ("", ""), ("5", "5"), ("proj_5m", "proj_5m")],
)
def test_durations_of_the_api_are_seconds(text: str | None, plain: Any) -> None:
    assert _plain(text) == plain


def test_state_is_encrypted_where_it_is_secret(tmp_path: Path) -> None:
    home = StateDir(tmp_path)
    state = StackState(home, "s")
    state.outputs = Properties({"url": "http://x", "key": "s3cr3t"}, {"key"})
    state.put("urn:1", "id-1", Properties({"password": "s3cr3t", "host": "h"}, {"password"}))
    state.save()
    text = (tmp_path / "state" / "s.json").read_text(encoding="utf-8")
    assert "s3cr3t" not in text
    assert "http://x" in text
    again = StackState(home, "s")
    assert again.outputs == state.outputs
    assert again.get("urn:1") == ("id-1", Properties({"password": "s3cr3t", "host": "h"}, {"password"}))


def test_a_state_whose_key_is_lost_is_named(tmp_path: Path) -> None:
    home = StateDir(tmp_path)
    state = StackState(home, "s")
    state.outputs = Properties({"key": "s3cr3t"}, {"key"})
    state.save()
    (tmp_path / "state-key").unlink()
    with pytest.raises(DataPlaneError, match=r"s\.json does not fit its key"):
        StackState(home, "s")


def monitor_of(folder: Path, *, preview: bool = False, state: StackState | None = None) -> Monitor:
    state = state or StackState(StateDir(folder), "s")
    return Monitor("p", "s", state, lambda _stack: None, PROVIDERS, [], preview=preview, on_step=lambda _step: None)


def request(type_: str, name: str, values: dict[str, Any], provider: str = "") -> resource_pb2.RegisterResourceRequest:
    return resource_pb2.RegisterResourceRequest(
        type=type_, name=name, custom=True, object=Properties(values).encode(), provider=provider
    )


DATABASE = {"host": "h", "port": 1, "database": "d", "username": "u", "password": "p", "sslmode": "disable"}
ROLE = "postgresql:index/role:Role"


def test_a_type_that_the_runner_does_not_know_fails_by_name(tmp_path: Path) -> None:
    monitor = monitor_of(tmp_path)
    made = monitor.RegisterResource(request("pulumi:providers:postgresql", "db", DATABASE))
    type_ = "postgresql:index/subscription:Subscription"
    with pytest.raises(ProviderError, match=f"there is no resource type {type_} here"):
        monitor.RegisterResource(request(type_, "mine", {}, f"{made.urn}::{made.id}"))
    assert [(failure.name, failure.type) for failure in monitor.failures] == [("mine", type_)]
    monitor.close()


def test_a_component_that_another_process_would_construct_is_refused(tmp_path: Path) -> None:
    remote = resource_pb2.RegisterResourceRequest(type="kubernetes:yaml/v2:ConfigFile", name="all", remote=True)
    with pytest.raises(NotImplementedError, match="cannot construct a kubernetes:yaml/v2:ConfigFile"):
        monitor_of(tmp_path).RegisterResource(remote)


@pytest.mark.parametrize(
    ("kept", "declared", "change", "changed"),
    [
        (None, {"name": "r", "login": True}, "create", ()),
        ({"name": "r", "login": True, "inherit": True}, {"name": "r", "login": True}, "same", ()),
        ({"name": "r", "login": False}, {"name": "r", "login": True}, "update", ("login",)),
        ({"name": "r", "password": "x"}, {"name": "r", "password": UNKNOWN}, "update", ("password",)),
    ],
)
def test_a_preview_knows_what_was_made_while_its_provider_is_unknown(
    tmp_path: Path, kept: dict[str, Any] | None, declared: dict[str, Any], change: str, changed: tuple[str, ...]
) -> None:
    state = StackState(StateDir(tmp_path), "s")
    if kept is not None:
        state.put(f"urn:pulumi:s::p::{ROLE}::mine", "r", Properties(kept))
    monitor = monitor_of(tmp_path, preview=True, state=state)
    made = monitor.RegisterResource(request("pulumi:providers:postgresql", "db", {**DATABASE, "password": UNKNOWN}))
    monitor.RegisterResource(request(ROLE, "mine", declared, f"{made.urn}::{made.id}"))
    assert [(step.change.value, step.changed) for step in monitor.steps[1:]] == [(change, changed)]


def test_configuration_has_the_projects_defaults_then_the_stacks_then_the_machines() -> None:
    config = load_config(CHECKOUT, "local-central", {"database": {"host": "h"}}, {"databaseAdminPassword": "x"})
    values = {key.partition(":")[2]: value for key, value in config.values.items()}
    assert values["cellSize"] == "25"
    assert values["environment"] == "local"
    assert values["database"] == '{"host": "h"}'
    assert config.secrets == {"supabase-data-plane:databaseAdminPassword"}


def test_a_stack_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(DataPlaneError, match="there is no stack 'x'; there are: local-cell-1, local-central"):
        load_config(CHECKOUT, "x", {}, {})
