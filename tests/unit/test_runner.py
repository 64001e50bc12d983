"""The parts of the embedded runner that need no server."""

from pathlib import Path
from typing import Any

import pytest
from google.protobuf import struct_pb2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pulumi.runtime.proto import resource_pb2

from embedded.errors import EmbeddedError
from embedded.home import CHECKOUT, Home
from embedded.runner.deployment import load_config
from embedded.runner.monitor import Monitor
from embedded.runner.properties import UNKNOWN, Properties, has_unknown
from embedded.runner.providers.base import Handler, Live, differences
from embedded.runner.providers.openbao import _plain
from embedded.runner.state import StackState

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


HANDLER = Handler(lambda _: None, lambda *_: None, unordered=("roles",), unreadable=("password",))


@pytest.mark.parametrize(
    ("desired", "there", "ignored", "expected"),
    [
        ({"roles": ["a", "b"]}, {"roles": ["b", "a"]}, [], []),
        ({"path": ["a", "b"]}, {"path": ["b", "a"]}, [], ["path"]),
        ({"password": "new"}, {}, [], []),
        ({"limit": 5}, {"limit": 6, "other": 1}, [], ["limit"]),
        ({"limit": 5}, {"limit": 6}, ["limit"], []),
        ({"db": {"user": "a", "password": "x"}}, {"db": {"user": "a"}}, ["db.password"], []),
        ({"db": {"user": "a", "password": "x"}}, {"db": {"user": "b"}}, ["db.password"], ["db"]),
    ],
)
def test_only_real_differences_count(
    desired: dict[str, Any], there: dict[str, Any], ignored: list[str], expected: list[str]
) -> None:
    assert differences(HANDLER, desired, Live("id", there), ignored) == expected


@pytest.mark.parametrize(
    ("text", "plain"),
    [("5m0s", 300), ("1h0m0s", 3600), ("45s", 45), ("", ""), ("5", "5"), ("proj_5m", "proj_5m"), (None, [])],
)
def test_durations_of_the_api_are_seconds(text: str | None, plain: Any) -> None:
    assert _plain(text) == plain


def test_state_is_encrypted_where_it_is_secret(tmp_path: Path) -> None:
    home = Home(tmp_path)
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
    home = Home(tmp_path)
    state = StackState(home, "s")
    state.outputs = Properties({"key": "s3cr3t"}, {"key"})
    state.save()
    (tmp_path / "state-key").unlink()
    with pytest.raises(EmbeddedError, match=r"s\.json does not fit its key"):
        StackState(home, "s")


def test_a_type_that_the_runner_does_not_know_fails_by_name(tmp_path: Path) -> None:
    monitor = Monitor(
        "p",
        "s",
        StackState(Home(tmp_path), "s"),
        lambda _stack: None,
        [],
        preview=False,
        on_step=lambda _step: None,
    )
    provider = resource_pb2.RegisterResourceRequest(
        type="pulumi:providers:postgresql",
        name="db",
        custom=True,
        object=Properties(
            {"host": "h", "port": 1, "database": "d", "username": "u", "password": "p", "sslmode": "disable"}
        ).encode(),
    )
    made = monitor.RegisterResource(provider)
    extension = resource_pb2.RegisterResourceRequest(
        type="postgresql:index/subscription:Subscription", name="mine", custom=True, provider=f"{made.urn}::{made.id}"
    )
    with pytest.raises(NotImplementedError, match="cannot apply a postgresql:index/subscription:Subscription"):
        monitor.RegisterResource(extension)
    assert [(failure.name, failure.type) for failure in monitor.failures] == [
        ("mine", "postgresql:index/subscription:Subscription")
    ]
    monitor.close()


def test_configuration_has_the_projects_defaults_then_the_stacks_then_the_machines() -> None:
    config = load_config(CHECKOUT, "local-central", {"database": {"host": "h"}}, {"databaseAdminPassword": "x"})
    values = {key.partition(":")[2]: value for key, value in config.values.items()}
    assert values["cellSize"] == "25"
    assert values["environment"] == "local"
    assert values["database"] == '{"host": "h"}'
    assert config.secrets == {"supabase-data-plane:databaseAdminPassword"}


def test_a_stack_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(EmbeddedError, match="there is no stack 'x'; there are: local-cell-1, local-central"):
        load_config(CHECKOUT, "x", {}, {})
