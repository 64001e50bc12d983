"""The extensions that projects may use, in the schema ``extensions``, where every tenant finds them.

A tenant cannot install one: that takes a right on the database, and an extension is everybody's.
"""

from collections.abc import Sequence

import pulumi
import pulumi_postgresql as postgresql

__all__ = ["EXTENSIONS_SCHEMA", "Extensions"]

EXTENSIONS_SCHEMA = "extensions"
"""In the search path of every tenant's roles and of PostgREST."""


class Extensions(pulumi.ComponentResource):
    """Creates the extensions; one that the image brought along is taken as it is.

    They stay when they leave the settings: dropping one would drop every column with a type of it.

    Args:
        names: as in ``pg_available_extensions``.
        after: what makes the schema.
    """

    def __init__(
        self,
        name: str,
        names: Sequence[str],
        database: postgresql.Provider,
        database_name: pulumi.Input[str],
        after: Sequence[pulumi.Resource],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("supabase-data-plane:central:Extensions", name, None, opts)
        for extension in names:
            postgresql.Extension(
                f"{name}-{extension}",
                name=extension,
                database=database_name,
                schema=EXTENSIONS_SCHEMA,
                opts=pulumi.ResourceOptions(
                    parent=self,
                    provider=database,
                    depends_on=list(after),
                    retain_on_delete=True,
                    # Official images put some elsewhere, and set the version.
                    ignore_changes=["schema", "version"],
                ),
            )
        self.register_outputs({})
