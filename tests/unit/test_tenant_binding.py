import jsonschema
import pytest

from data_plane.errors import BindingError
from data_plane.model.naming import AccessLevel
from data_plane.model.tenant_binding import TenantBinding, binding_json_schema, read_bindings
from tests.bound import BINDING, tenant_binding


def test_a_binding_is_written_as_it_was_exported() -> None:
    assert tenant_binding().document() == {**BINDING, "schemas": {}}


def test_numbers_that_a_stack_gives_as_floats_are_whole() -> None:
    binding = tenant_binding()
    assert (repr(binding.database.port), repr(binding.lease_ttl_seconds)) == ("5433", "3600")


def test_what_a_newer_program_adds_is_kept() -> None:
    newer = {**BINDING, "schemas": {}, "replicas": 2, "database": {**BINDING["database"], "standby": "db-2"}}
    assert TenantBinding.read(newer, "stack prod-cell-1").document() == newer


def test_a_binding_without_a_pooler_says_so() -> None:
    without = {key: value for key, value in BINDING.items() if key not in {"pooler", "storage", "workloads"}}
    binding = TenantBinding.read(without, "stack prod-cell-1")
    assert binding.pooler is None
    assert binding.document() == {**without, "pooler": None, "schemas": {}, "workloads": {}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lifecycle": "gone"}, r"lifecycle: found 'gone'; expected one of: attached, detached"),
        ({"database": {"host": "h"}}, r"database\.port: found nothing; expected this field"),
        ({"leasePaths": {"admin": "x"}}, r"leasePaths\.admin: found 'admin'"),
        ({"leaseTtlSeconds": 0.5}, r"leaseTtlSeconds: found 0\.5"),
    ],
)
def test_a_bad_binding_is_refused_with_its_stack_project_and_field(change: dict[str, object], message: str) -> None:
    with pytest.raises(BindingError, match=rf"^stack prod-cell-1, binding of my-shop: {message}.*Bring its cell up"):
        read_bindings({"my-shop": {**BINDING, **change}}, "stack prod-cell-1")


def test_what_is_no_binding_at_all_is_refused() -> None:
    with pytest.raises(BindingError, match=r"^stack prod-cell-1: document: found 7"):
        TenantBinding.read(7, "stack prod-cell-1")


def test_its_json_schema_takes_what_a_cell_exports_and_asks_for_every_field_that_it_has_to_have() -> None:
    schema = binding_json_schema()
    jsonschema.validate(tenant_binding().document(), schema)
    assert {"project", "schema", "database", "leasePaths", "openbaoAddress"} <= set(schema["required"])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**BINDING, "leasePaths": 1}, schema)


def test_paths_are_found_by_level() -> None:
    assert tenant_binding().lease_paths[AccessLevel.OWNER] == "database/creds/proj_my_shop_owner"
