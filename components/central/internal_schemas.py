"""The internal schemas of Supabase's services, which belong to no tenant.

The official files make them by SQL that is mounted into the database's first start (``_supabase.sql``, ``pooler.sql``,
``logs.sql``, ``realtime.sql``); as resources they are also there where PostgreSQL is an operator's or somebody else's.
"""

import pulumi
import pulumi_postgresql as postgresql

from components.central.analytics import ANALYTICS_SCHEMA, INTERNAL_DATABASE
from components.central.pooler import POOLER_SCHEMA
from components.central.realtime import REALTIME_SCHEMA

__all__ = ["InternalSchemas"]


class InternalSchemas(pulumi.ComponentResource):
    """Creates the database ``_supabase`` with the schemas of the pooler and of Logflare, and Realtime's schema."""

    database: postgresql.Database
    schemas: list[postgresql.Schema]

    def __init__(
        self,
        name: str,
        provider: postgresql.Provider,
        database: pulumi.Input[str],
        admin_user: pulumi.Input[str],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("supabase-data-plane:central:InternalSchemas", name, None, opts)
        kept = pulumi.ResourceOptions(parent=self, provider=provider, protect=True, retain_on_delete=True)
        self.database = postgresql.Database(
            f"{name}-internal",
            name=INTERNAL_DATABASE,
            owner=admin_user,
            # What the server's own defaults made of them is left alone.
            opts=pulumi.ResourceOptions.merge(
                kept,
                pulumi.ResourceOptions(
                    ignore_changes=["encoding", "lcCollate", "lcCtype", "template", "tablespaceName"]
                ),
            ),
        )
        self.schemas = [
            postgresql.Schema(
                f"{name}-{schema.strip('_')}",
                name=schema,
                database=where,
                owner=admin_user,
                opts=kept,
            )
            for schema, where in (
                (POOLER_SCHEMA, self.database.name),
                (ANALYTICS_SCHEMA, self.database.name),
                (REALTIME_SCHEMA, database),
            )
        ]
        self.register_outputs({"database": self.database.name})
