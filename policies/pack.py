"""Every policy of the pack."""

from pulumi_policy import Policy

from policies import central_stack, no_project_postgres, tenant_walls, workload_walls

__all__ = ["POLICIES"]

POLICIES: list[Policy] = [
    *no_project_postgres.POLICIES,
    *tenant_walls.POLICIES,
    *workload_walls.POLICIES,
    *central_stack.POLICIES,
]
