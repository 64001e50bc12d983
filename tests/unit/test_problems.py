"""Messages about input: every error that pydantic can raise for it says what was found and what would be right."""

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from data_plane.connector.actions import ACTIONS
from data_plane.connector.service_binding.request import BindRequest
from data_plane.model.backup_settings import BackupSettings
from data_plane.model.problems import describe, keys_at, problems_of
from data_plane.model.projects import Project
from data_plane.model.settings import BoundSettings, CellSettings, CentralSettings
from data_plane.model.tenant_binding import TenantBinding

MODELS: list[type[BaseModel]] = [
    Project,
    CentralSettings,
    CellSettings,
    BoundSettings,
    BackupSettings,
    TenantBinding,
    BindRequest,
    *ACTIONS.values(),
]

# The errors of each kind of value in pydantic's core schema, with those of its constraints.
_ERRORS: dict[str, dict[str, str]] = {
    "str": {"": "string_type", "min_length": "string_too_short", "max_length": "string_too_long"}
    | {"pattern": "string_pattern_mismatch"},
    "int": {"": "int_type", "lax": "int_parsing", "ge": "greater_than_equal", "le": "less_than_equal"},
    "bool": {"": "bool_type", "lax": "bool_parsing"},
    "list": {"": "list_type", "min_length": "too_short", "max_length": "too_long"},
    "tuple": {"": "tuple_type"},
    "dict": {"": "dict_type", "min_length": "too_short", "max_length": "too_long"},
    "model": {"": "model_type"},
    "model-fields": {"": "missing"},
    "literal": {"": "literal_error"},
    "enum": {"": "enum"},
    "function-after": {"": "value_error"},
    "function-before": {"": "value_error"},
}
_NO_ERRORS = {"default", "nullable", "definitions", "definition-ref", "model-field", "union", "function-plain"}
_NO_SCHEMAS = {"metadata", "serialization", "function", "members", "default_factory"}

# One input for each, in a project's file or a stack's settings, and what is said of it.
SAID: dict[str, tuple[dict[str, Any], str]] = {
    "string_type": ({"display_name": 5}, "display_name: found 5; expected text; put a number or a date in quotes"),
    "string_too_short": ({"display_name": ""}, "display_name: found ''; expected text of at least 1 character(s)"),
    "string_too_long": (
        {"display_name": "a" * 81},
        f"display_name: found '{'a' * 76}...; expected text of at most 80 characters",
    ),
    "string_pattern_mismatch": (
        {"owners": ["a b"]},
        "owners.0: found 'a b'; expected up to 127 letters, digits and . _ @ + -, e.g. alice (^[A-Za-z0-9]",
    ),
    "int_type": ({"limits": {"jobs": 1.5}}, "limits.jobs: found 1.5; expected a whole number, e.g. 10"),
    "greater_than_equal": ({"limits": {"lease_ttl": "1s"}}, "limits.lease_ttl: found '1s'; expected at least 5s"),
    "less_than_equal": (
        {"realtime": {"max_bytes_per_second": "2GiB"}, "managed_services": ["postgres", "realtime"]},
        "realtime.max_bytes_per_second: found '2GiB'; expected at most 1GiB",
    ),
    "bool_type": ({"exposed": "yes"}, "exposed: found 'yes'; expected true or false"),
    "list_type": ({"owners": {"alice": None}}, "owners: found a mapping with alice; expected a list, e.g. [a, b]"),
    "too_short": ({"owners": []}, "owners: found an empty list; expected at least 1 entry"),
    "dict_type": ({"users": ["a"]}, "users: found [a]; expected a mapping: keys with values"),
    "model_type": ({"schemas": {"x": None}}, "schemas.x: found nothing; expected a mapping with keys of: exposed"),
    "missing": ({"slug": ...}, "slug: found nothing; expected this field"),
    "extra_forbidden": (
        {"schemas": {"x": {"public": True}}},
        "schemas.x.public: found an unknown key; expected one of: exposed",
    ),
    "enum": ({"api": "own"}, "api: found 'own'; expected one of: shared, dedicated"),
    "value_error": (
        {"storage": {"file_size_limit": 5}, "managed_services": ["postgres", "storage"]},
        "storage.file_size_limit: found 5; expected a whole number with its unit",
    ),
    "at_field": ({"users": {"team_member": ["alice"]}}, "users.team_member: found 'alice', who is one of owners"),
}
SAID_OF_SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "int_parsing": ({"cellSize": "many"}, "cellSize: found 'many'; expected a whole number, e.g. 10"),
    "int_from_float": ({"cellSize": 1.5}, "cellSize: found 1.5; expected a whole number, e.g. 10"),
    "bool_parsing": (
        {"login": {"managed": "perhaps"}},
        "login.managed: found 'perhaps'; expected true or false",
    ),
    "literal_error": (
        {"projectApi": "own"},
        "projectApi: found 'own'; expected one of: shared, dedicated",
    ),
    "tuple_type": ({"extensions": "hstore"}, "extensions: found 'hstore'; expected a list, e.g. [a, b]"),
}
RIGHT: dict[str, Any] = {"slug": "shop", "display_name": "Shop", "cell": "cell-1", "owners": ["alice"]}
RIGHT_SETTINGS: dict[str, Any] = {
    "kind": "central",
    "environment": "prod",
    "cellSize": 10,
    "leaseTtlMaximum": "1h",
    "apiUrl": "https://api.example.com",
    "database": {"host": "db"},
    "openbao": {"address": "https://bao.example.com"},
}


def _of_schema(schema: Any) -> Iterator[str]:
    """The types of all errors that validation by a core schema can end in."""
    if isinstance(schema, dict):
        if schema.get("extra_fields_behavior") == "forbid":
            yield "extra_forbidden"
        if isinstance(kind := schema.get("type"), str):
            known = _ERRORS.get(kind, {})
            assert known or kind in _NO_ERRORS, f"a kind of value whose errors nobody has looked at: {kind}"
            yield from (known[""],) if known else ()
            yield from (error for constraint, error in known.items() if schema.get(constraint) is not None)
            if "lax" in known and not schema.get("strict"):
                yield known["lax"]
        for key, item in schema.items():
            if key not in _NO_SCHEMAS:
                yield from _of_schema(item)
    elif isinstance(schema, list | tuple):
        for item in schema:
            yield from _of_schema(item)


def _said(model: type[BaseModel], right: dict[str, Any], change: dict[str, Any]) -> tuple[set[str], list[str]]:
    given = {key: value for key, value in (right | change).items() if value is not ...}
    with pytest.raises(ValidationError) as caught:
        model.model_validate(given)
    return {found["type"] for found in caught.value.errors()}, [
        str(problem) for problem in problems_of(caught.value, "a.yaml", model)
    ]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_error_that_a_model_can_raise_has_a_message_that_is_tried(model: type[BaseModel]) -> None:
    possible = set(_of_schema(TypeAdapter(model).core_schema))
    assert {"missing", "string_type"} <= possible
    assert possible <= SAID.keys() | SAID_OF_SETTINGS.keys()


@pytest.mark.parametrize("error", SAID)
def test_a_problem_of_a_project_says_what_was_found_and_what_is_right(error: str) -> None:
    change, message = SAID[error]
    types, problems = _said(Project, RIGHT, change)
    assert error in types
    assert [problem for problem in problems if problem.startswith(f"a.yaml: {message}")] == problems


@pytest.mark.parametrize("error", SAID_OF_SETTINGS)
def test_a_problem_of_a_setting_says_what_was_found_and_what_is_right(error: str) -> None:
    change, message = SAID_OF_SETTINGS[error]
    types, problems = _said(CentralSettings, RIGHT_SETTINGS, change)
    assert error in types
    assert [problem for problem in problems if problem.startswith(f"a.yaml: {message}")] == problems


def test_what_only_follows_from_another_problem_is_not_said() -> None:
    types, problems = _said(Project, RIGHT, {"limits": {"connection_limit": "many"}})
    assert "default_factory_not_called" in types
    assert problems == ["a.yaml: limits.connection_limit: found 'many'; expected a whole number, e.g. 10"]


def test_no_value_is_shown_as_python_writes_it() -> None:
    values: list[object] = [None, True, {}, {"a": "secret"}, [], [1, "b"], [{}]]
    assert [describe(value) for value in values] == [
        "nothing",
        "true",
        "an empty mapping",
        "a mapping with a",
        "an empty list",
        "[1, b]",
        "a list of 1",
    ]


@pytest.mark.parametrize(
    ("model", "path", "keys"),
    [
        (Project, ("realtime",), "max_bytes_per_second"),
        (Project, ("workloads", "ci", "kubernetes"), "namespace"),
        (Project, ("storage", "buckets", "x"), "public"),
        (CentralSettings, ("workloadLogin", "kubernetes"), "kubernetesHost"),
        (CentralSettings, ("kubernetes", "rest", "dedicated"), "poolSize"),
    ],
)
def test_the_keys_of_a_nested_setting_are_its_own(
    model: type[BaseModel], path: tuple[int | str, ...], keys: str
) -> None:
    assert keys in keys_at(model, path)
    assert not set(keys_at(model, path)) & {"slug", "kind"}
