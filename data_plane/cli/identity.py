"""The options that say who asks (a person, a workload, or the owner of an OpenBao token), and of which data plane."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import hvac
import typer

from data_plane.cli.options import EnvironmentOption
from data_plane.connector.bindings import DataPlane, data_plane_of
from data_plane.connector.sign_in import (
    ROLE_ID_VARIABLE,
    SECRET_ID_VARIABLE,
    SERVICE_ACCOUNT_TOKEN,
    AppRoleCredentials,
    KubernetesCredentials,
    WorkloadSignIn,
)
from data_plane.errors import LeaseError, UsageError
from data_plane.model.naming import AccessLevel, TenantNames
from data_plane.model.workloads import WorkloadMethod
from data_plane.state_dir import ENVIRONMENT

__all__ = ["ClientIdentity", "IdentityOptions", "project_of", "with_options"]

_User = Annotated[str | None, typer.Option(help="Local data plane: the person who asks; by default one who may.")]
_Auth = Annotated[
    WorkloadMethod | None, typer.Option("--auth", help="Sign in as a workload of the project, by this method.")
]
_Workload = Annotated[
    str | None, typer.Option("--workload", help="Which workload; not needed if only one signs in by the method.")
]
_TokenFile = Annotated[
    Path | None,
    typer.Option(
        envvar="DATA_PLANE_TOKEN_FILE", help="Kubernetes: file with the account's token, by default where a Pod has it."
    ),
]
_RoleIdFile = Annotated[
    Path | None,
    typer.Option(envvar="DATA_PLANE_ROLE_ID_FILE", help=f"AppRole: file with the role-ID, else {ROLE_ID_VARIABLE}."),
]
_SecretIdFile = Annotated[
    Path | None,
    typer.Option(
        envvar="DATA_PLANE_SECRET_ID_FILE", help=f"AppRole: file with the secret-ID, else {SECRET_ID_VARIABLE}."
    ),
]
_Wrapped = Annotated[
    bool, typer.Option("--wrapped", help="AppRole: a wrapping token is in place of the secret-ID; it works once.")
]

_Binding = Annotated[
    Path | None,
    typer.Option(envvar="DATA_PLANE_BINDING", help="A JSON file with the binding, instead of the stacks' outputs."),
]


@dataclass(frozen=True)
class ClientIdentity:
    """What the options of a command say of who asks.

    Raises:
        UsageError: if they contradict one another.
    """

    user: str | None = None
    auth: WorkloadMethod | None = None
    workload: str | None = None
    token_file: Path | None = None
    role_id_file: Path | None = None
    secret_id_file: Path | None = None
    wrapped: bool = False

    def __post_init__(self) -> None:
        if self.auth is None and (self.workload or self.wrapped):
            raise UsageError("say how the workload signs in, with --auth kubernetes or --auth approle")
        if self.auth is not None and self.user is not None:
            raise UsageError("either a person asks (--user) or a workload (--auth)")

    @property
    def named(self) -> bool:
        """Whether the options say who it is."""
        return self.auth is not None or self.user is not None

    def level_in(self, plane: DataPlane, project: str, level: AccessLevel | None) -> AccessLevel:
        """The level that was asked for; a workload's own if none was.

        Raises:
            UsageError: if nothing says which.
        """
        if level is not None:
            return level
        if self.auth is None:
            levels = ", ".join(AccessLevel)
            raise UsageError(f"say as what to lease with --as: {levels}")
        return AccessLevel(self._as_workload(plane, project).level)

    def sign_in(self, plane: DataPlane, project: str, level: AccessLevel) -> Callable[[], hvac.Client]:
        """What gives a client with a token of the caller's, each time that it is called."""
        if self.auth is not None:
            return self._as_workload(plane, project)
        return lambda: plane.client(project, level, self.user)

    def _as_workload(self, plane: DataPlane, project: str) -> WorkloadSignIn:
        if self.auth is WorkloadMethod.KUBERNETES:
            credentials = KubernetesCredentials(self.token_file or SERVICE_ACCOUNT_TOKEN)
            return WorkloadSignIn(plane.binding(project), credentials, self.workload)
        approle = AppRoleCredentials(self.role_id_file, self.secret_id_file, self.wrapped)
        return WorkloadSignIn(plane.binding(project), approle, self.workload)


@dataclass(frozen=True)
class IdentityOptions:
    """The options by which a command is told who asks, and of which data plane, as they were given."""

    user: _User = None
    auth: _Auth = None
    workload: _Workload = None
    token_file: _TokenFile = None
    role_id_file: _RoleIdFile = None
    secret_id_file: _SecretIdFile = None
    wrapped: _Wrapped = False
    binding: _Binding = None
    environment: EnvironmentOption = ENVIRONMENT

    def caller(self) -> ClientIdentity:
        """Who asks.

        Raises:
            UsageError: if the options contradict one another.
        """
        return ClientIdentity(
            self.user,
            self.auth,
            self.workload,
            self.token_file,
            self.role_id_file,
            self.secret_id_file,
            self.wrapped,
        )

    def plane(self) -> DataPlane:
        """The data plane that is asked."""
        return data_plane_of(self.environment, self.binding)


def with_options(options: type[IdentityOptions]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command the fields of a dataclass as options, and the dataclass in their place as its first argument."""
    fields = inspect.signature(options).parameters

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        _, *own = inspect.signature(command).parameters.values()

        @functools.wraps(command)
        def with_options(**given: Any) -> None:
            command(options(**{name: given.pop(name) for name in fields}), **given)

        # None has to stand before another, so that it does not matter which have a default.
        named = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in (*own, *fields.values())]
        with_options.__signature__ = inspect.Signature(named)  # type: ignore[attr-defined]
        with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in named}
        return with_options

    return decorate


def project_of(lease_id: str, plane: DataPlane) -> tuple[str, AccessLevel]:
    """The project and level of a lease, which its ID tells.

    Raises:
        LeaseError: if it is of none of the data plane's tenants.
    """
    for slug in plane.bindings():
        for level in AccessLevel:
            if lease_id.startswith(f"{TenantNames(slug).lease_path(level)}/"):
                return slug, level
    raise LeaseError(f"{lease_id} is no lease of a project here: give the whole ID, as `lease list` shows it")
