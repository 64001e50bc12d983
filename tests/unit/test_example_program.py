import runpy
from typing import Any

import pulumi
import pytest

from components.tenant.project_tenant import ProjectTenant, ProjectTenantArgs
from data_plane.model.projects import Project
from data_plane.model.tenant_binding import TenantBinding
from data_plane.state_dir import CHECKOUT
from tests.support.declared import Program, declare

CENTRAL: dict[str, Any] = {
    "platform": {
        "database": {"host": "db", "port": 5432.0, "name": "postgres", "adminUser": "admin", "sslmode": "require"},
        "openbaoAddress": "https://bao.example.com",
        "loginAccessor": "auth_oidc_1",
        "apiUrl": "https://api.example.com",
        "pooler": {
            "host": "pooler", "sessionPort": 5432.0, "transactionPort": 6543.0, "tenant": "t", "sslmode": "require"
        },
        "workloadLogins": {},
    }
}  # fmt: skip


@pytest.fixture(scope="module")
def program() -> Program:
    def run() -> pulumi.Output[dict[str, object]]:
        pulumi.runtime.set_all_config({"supabase-data-plane:centralStack": "acme/supabase-data-plane/prod-central"})
        found = runpy.run_path(str(CHECKOUT / "examples" / "another_program" / "__main__.py"))
        tenant: ProjectTenant = found["tenant"]
        return tenant.binding

    return declare(run, outputs=CENTRAL)


def test_another_program_attaches_its_project_and_exports_its_binding(program: Program) -> None:
    binding = TenantBinding.read(program.result, "stack shop")
    assert (binding.project, binding.schema_name, binding.attached) == ("shop", "proj_shop", True)
    assert binding.pooler is not None
    assert (binding.pooler.host, binding.pooler.session_port) == ("pooler", 5432)
    assert binding.document() == program.result


def test_it_declares_the_tenant_that_a_cell_would(program: Program) -> None:
    schema = program.only("postgresql:index/schema:Schema", "shop-schema")
    assert schema.request.protect
    assert schema.request.retainOnDelete
    assert program.only("vault:generic/endpoint:Endpoint", "shop-people-person-olga")


def test_people_without_an_identity_are_named() -> None:
    project = Project(slug="shop", display_name="Shop", cell="cell-1", owners=["olga", "ann"])
    given: dict[str, Any] = dict.fromkeys(("platform", "database", "database_password", "openbao"))
    with pytest.raises(pulumi.RunError, match=r"project shop names users without an identity: ann\. Let"):
        ProjectTenantArgs(project=project, entities={"olga": "id-of-olga"}, **given)
