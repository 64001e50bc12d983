"""Every policy of the pack."""

from pulumi_policy import Policy

from policies import central_stack, no_project_postgres, tenant_isolation, workload_isolation

__all__ = ["POLICIES"]

POLICIES: list[Policy] = [
    *no_project_postgres.POLICIES,
    *tenant_isolation.POLICIES,
    *workload_isolation.POLICIES,
    *central_stack.POLICIES,
]
