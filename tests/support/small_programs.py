"""A cell with given projects and a small central stack, as Pulumi programs that are run with mocks."""

from typing import Any

import pulumi

from components.cell import Cell, CellArgs
from components.central.central import SupabaseCentral, SupabaseCentralArgs
from components.platform import DatabaseEndpoint, Platform, WorkloadAuthMethod
from data_plane.model.projects import Project
from data_plane.model.settings import AuthMethodSettings
from data_plane.model.tenant_binding import PoolerEndpoint
from tests.support.declared import Program, declare

ENDPOINT = DatabaseEndpoint("db.internal", 5432, "postgres", "supabase_admin", "require")


POOLER = PoolerEndpoint(
    host="pooler.internal", session_port=5432, transaction_port=6543, tenant="supabase", sslmode="disable"
)


def project(**changes: Any) -> Project:
    given = {
        "slug": "my-app",
        "display_name": "My app",
        "cell": "cell-1",
        "owners": ["olga"],
        "users": {"project_contributor": ["cora"], "solution_admin": ["sam"], "solution_viewer": ["vera"]},
        "teams": {"team_member": ["builders"]},
        "managed_services": ["postgres", "storage"],
        "limits": {"lease_ttl": "10m", "lease_max_ttl": "1h", "connection_limit": 4, "statement_timeout": "5s"},
    }
    return Project.model_validate({**given, **changes})


def a_cell(*projects: Project) -> Program:
    def program() -> pulumi.Output[Any]:
        logins = {
            "kubernetes": WorkloadAuthMethod("k8s", "auth_kubernetes_1", "openbao"),
            "approle": WorkloadAuthMethod("approle", "auth_approle_1"),
        }
        platform = Platform(
            ENDPOINT, "https://bao.internal", "auth_oidc_1", "https://api.internal", POOLER, workload_logins=logins
        )
        return pulumi.Output.all(**Cell("cell-1", CellArgs(platform, projects)).tenants)

    return declare(program)


def a_central(**changes: Any) -> Program:
    def program() -> pulumi.Output[Any]:
        given: dict[str, Any] = {
            "endpoint": ENDPOINT,
            "openbao_address": "https://bao.internal",
            "api_url": "https://api.internal",
            "login": AuthMethodSettings(),
            "lease_ttl_maximum": 86400,
        }
        central = SupabaseCentral("supabase", SupabaseCentralArgs(**{**given, **changes}))
        return pulumi.Output.all(central.platform.login_accessor, central.jwks_url, central.pre_config)

    return declare(program)
