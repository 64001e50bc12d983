"""The central stack's output that cells read: addresses and names, no secrets."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import pulumi

from data_plane.clients.postgres import CONNECTION
from data_plane.model.tenant_binding import PoolerEndpoint

__all__ = [
    "DatabaseConnection",
    "DatabaseEndpoint",
    "Platform",
    "WorkloadAuthMethod",
    "export_platform",
    "read_platform",
]

_OUTPUT = "platform"


@dataclass(frozen=True)
class DatabaseEndpoint:
    """Address of the central PostgreSQL."""

    host: pulumi.Input[str]
    """As this program, OpenBao and consumers reach it."""
    port: pulumi.Input[int]
    """Of PostgreSQL itself, not of the pooler."""
    name: pulumi.Input[str]
    """The database."""
    admin_user: pulumi.Input[str]
    """Its superuser."""
    sslmode: pulumi.Input[str]
    """libpq's: ``disable``, ``require``, ``verify-ca`` or ``verify-full``."""


@dataclass(frozen=True)
class DatabaseConnection:
    """The database's address, and its superuser's password."""

    endpoint: DatabaseEndpoint
    password: pulumi.Input[str]
    """Has to be secret."""

    def properties(self) -> dict[str, pulumi.Input[Any]]:
        """The properties that a dynamic resource passes to :func:`connect`."""
        endpoint = self.endpoint
        values = (endpoint.host, endpoint.port, endpoint.name, endpoint.admin_user, self.password, endpoint.sslmode)
        return dict(zip(CONNECTION, values, strict=True))


@dataclass(frozen=True)
class WorkloadAuthMethod:
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
    """The central PostgreSQL."""
    openbao_address: pulumi.Input[str]
    """OpenBao's URL."""
    login_accessor: pulumi.Input[str]
    """Accessor of the auth method by which people sign in to OpenBao."""
    api_url: pulumi.Input[str]
    """The API gateway's URL, without a path."""
    pooler: pulumi.Input[PoolerEndpoint | None] = None
    """Where clients reach the pooler; None where there is none."""
    workload_logins: pulumi.Input[Mapping[str, WorkloadAuthMethod]] = field(default_factory=dict)
    """How workloads sign in, by the name of the method: ``kubernetes``, ``approle``."""


def export_platform(platform: Platform) -> None:
    """Exports what :func:`read_platform` reads."""
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
            "pooler": pulumi.Output.from_input(platform.pooler).apply(
                lambda found: found and found.model_dump(by_alias=True)
            ),
            "workloadLogins": pulumi.Output.from_input(platform.workload_logins).apply(
                lambda found: {method: asdict(login) for method, login in found.items()}
            ),
        },
    )


def read_platform(central_stack: str) -> Platform:
    """The central stack's outputs, by StackReference.

    Args:
        central_stack: its name, e.g. ``prod-central``, or ``organization/project/stack`` where it lives elsewhere.
    """
    name = central_stack
    if "/" not in name:
        name = f"{pulumi.get_organization()}/{pulumi.get_project()}/{name}"

    def exported(found: Any) -> Any:
        if found is None:
            raise pulumi.RunError(f"central stack {central_stack} has no output `{_OUTPUT}` yet: bring it up first")
        return found

    outputs = pulumi.StackReference(name).get_output(_OUTPUT).apply(exported)

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
    return PoolerEndpoint.model_validate(found) if found else None


def _workload_logins(outputs: Mapping[str, Any]) -> dict[str, WorkloadAuthMethod]:
    found = outputs.get("workloadLogins") or {}
    return {
        method: WorkloadAuthMethod(login["path"], login["accessor"], login.get("audience"))
        for method, login in found.items()
    }
