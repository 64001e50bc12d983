"""What a cell needs to know of the central stack, and how it gets to know it: one structured stack output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import pulumi

if TYPE_CHECKING:
    from components.central import SupabaseCentral

__all__ = ["DatabaseEndpoint", "Platform", "export_platform", "read_platform"]

_OUTPUT = "platform"


@dataclass(frozen=True)
class DatabaseEndpoint:
    """Where the central PostgreSQL is."""

    host: pulumi.Input[str]
    port: pulumi.Input[int]
    name: pulumi.Input[str]
    admin_user: pulumi.Input[str]
    sslmode: pulumi.Input[str]


@dataclass(frozen=True)
class Platform:
    """The central stack as its tenants see it. Holds no secret: those are read from OpenBao."""

    database: DatabaseEndpoint
    openbao_address: pulumi.Input[str]
    login_accessor: pulumi.Input[str]
    """Accessor of the auth method by which people sign in to OpenBao."""
    api_url: pulumi.Input[str]
    """The API gateway's URL, without a path."""


def export_platform(central: SupabaseCentral) -> None:
    """Exports what :func:`read_platform` reads, and the addresses that an operator looks for."""
    platform = central.platform
    pulumi.export(
        _OUTPUT,
        {
            "database": {
                "host": platform.database.host,
                "port": platform.database.port,
                "name": platform.database.name,
                "adminUser": platform.database.admin_user,
                "sslmode": platform.database.sslmode,
            },
            "openbaoAddress": platform.openbao_address,
            "loginAccessor": platform.login_accessor,
            "apiUrl": platform.api_url,
        },
    )
    pulumi.export("jwksUrl", central.jwks_url)
    pulumi.export("postgrestPreConfig", central.pre_config)


def read_platform(central_stack: str) -> Platform:
    """The central stack's outputs, by StackReference.

    Args:
        central_stack: its name, e.g. ``prod-central``, or ``organization/project/stack`` where it lives elsewhere.
    """
    name = central_stack
    if "/" not in name:
        name = f"{pulumi.get_organization()}/{pulumi.get_project()}/{name}"
    outputs = pulumi.StackReference(name).require_output(_OUTPUT)

    def field(*path: str) -> Any:
        def walk(value: Any) -> Any:
            for key in path:
                value = value[key]
            return value

        return cast("Any", outputs.apply(walk))

    return Platform(
        database=DatabaseEndpoint(
            host=field("database", "host"),
            port=field("database", "port").apply(int),
            name=field("database", "name"),
            admin_user=field("database", "adminUser"),
            sslmode=field("database", "sslmode"),
        ),
        openbao_address=field("openbaoAddress"),
        login_accessor=field("loginAccessor"),
        api_url=field("apiUrl"),
    )
