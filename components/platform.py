"""What a cell needs to know of the central stack, and how it gets to know it: one structured stack output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, cast

import pulumi

if TYPE_CHECKING:
    from components.central import SupabaseCentral

__all__ = ["DatabaseEndpoint", "Platform", "PoolerEndpoint", "WorkloadLogin", "export_platform", "read_platform"]

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
class PoolerEndpoint:
    """Where clients reach the pooler, and as whom: as ``<login>.<tenant>``."""

    host: str
    session_port: int
    """Where a client has a server connection for its whole session."""
    transaction_port: int
    """Where it has one for a transaction."""
    tenant: str
    sslmode: str


@dataclass(frozen=True)
class WorkloadLogin:
    """An auth method of OpenBao by which workloads sign in."""

    path: str
    """Where it is mounted."""
    accessor: str
    audience: str | None = None
    """Kubernetes: what the workloads' tokens are made out to."""


@dataclass(frozen=True)
class Platform:
    """The central stack as its tenants see it. Holds no secret: those are read from OpenBao."""

    database: DatabaseEndpoint
    openbao_address: pulumi.Input[str]
    login_accessor: pulumi.Input[str]
    """Accessor of the auth method by which people sign in to OpenBao."""
    api_url: pulumi.Input[str]
    """The API gateway's URL, without a path."""
    pooler: pulumi.Input[PoolerEndpoint | None] = None
    workload_logins: pulumi.Input[Mapping[str, WorkloadLogin]] = field(default_factory=dict)
    """How workloads sign in, by the name of the method: ``kubernetes``, ``approle``."""


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
            "pooler": pulumi.Output.from_input(platform.pooler).apply(lambda found: found and asdict(found)),
            "workloadLogins": pulumi.Output.from_input(platform.workload_logins).apply(
                lambda found: {method: asdict(login) for method, login in found.items()}
            ),
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

    def value(*path: str) -> Any:
        def walk(found: Any) -> Any:
            for key in path:
                found = found[key]
            return found

        return cast("Any", outputs.apply(walk))

    return Platform(
        database=DatabaseEndpoint(
            host=value("database", "host"),
            port=value("database", "port").apply(int),
            name=value("database", "name"),
            admin_user=value("database", "adminUser"),
            sslmode=value("database", "sslmode"),
        ),
        openbao_address=value("openbaoAddress"),
        login_accessor=value("loginAccessor"),
        api_url=value("apiUrl"),
        # What a central stack of an older program has not exported, it does not have.
        pooler=outputs.apply(_pooler),
        workload_logins=outputs.apply(_workload_logins),
    )


def _pooler(outputs: Mapping[str, Any]) -> PoolerEndpoint | None:
    found = outputs.get("pooler")
    if not found:
        return None
    # Numbers come out of a stack's outputs as floats.
    ports = {key: int(found[key]) for key in ("session_port", "transaction_port")}
    return PoolerEndpoint(**{**found, **ports})


def _workload_logins(outputs: Mapping[str, Any]) -> dict[str, WorkloadLogin]:
    found = outputs.get("workloadLogins") or {}
    return {method: WorkloadLogin(**{"audience": None, **login}) for method, login in found.items()}
