"""The base of the dynamic resources of the central database."""

from collections.abc import Mapping
from typing import Any

import pulumi
from pulumi.dynamic import Resource

from components.dynamic import ApplyingProvider
from components.platform import DatabaseConnection

__all__ = ["DatabaseResource"]


class DatabaseResource(Resource):
    """A dynamic resource whose properties begin with the connection, its password a secret.

    Args:
        provider: what applies it.
        name: the resource's.
        database: the central database.
        props: its own properties.
        opts: the resource's options.
    """

    def __init__(
        self,
        provider: ApplyingProvider,
        name: str,
        database: DatabaseConnection,
        props: Mapping[str, Any],
        opts: pulumi.ResourceOptions | None,
    ) -> None:
        secret = pulumi.ResourceOptions(additional_secret_outputs=["password"])
        super().__init__(provider, name, {**database.properties(), **props}, pulumi.ResourceOptions.merge(opts, secret))
