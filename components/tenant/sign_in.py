"""Whether users of Auth can be members of a tenant, and how they become one."""

from typing import Any

import pulumi

from components.database_resource import DatabaseResource
from components.platform import DatabaseConnection
from components.tenant.table_row import TableRowProvider
from data_plane.model.projects import SignUp

__all__ = ["TenantSignIn"]


class _Provider(TableRowProvider):
    table = "sign_in"
    columns = ("sign_up",)

    def delete(self, _id: str, props: dict[str, Any]) -> None:
        """No token is for the tenant any more; who its members are is data, and stays."""
        self.forget(props)


class TenantSignIn(DatabaseResource, module="tenant", name="TenantSignIn"):
    """Lets Auth issue tokens for a tenant to its members (``data_plane.access_token_hook``).

    Args:
        database: the central database.
        tenant: the tenant's schema.
        sign_up: whether everybody who signs up for it becomes a member, or only those invited.

    Raises:
        DatabaseUnavailableError, TableRowError: while it is applied.
    """

    def __init__(
        self,
        name: str,
        *,
        database: DatabaseConnection,
        tenant: str,
        sign_up: SignUp,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        props = {"tenant": tenant, "sign_up": sign_up.value}
        super().__init__(_Provider(), name, database, props, opts)
