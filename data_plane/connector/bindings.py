"""Where the commands find a tenant and an OpenBao token: on this machine's data plane, or on a deployed one."""

import json
from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import hvac

from data_plane.clients.openbao import connect
from data_plane.errors import BindingError, DeploymentError, ProjectNotFoundError, UsageError
from data_plane.model.naming import AccessLevel
from data_plane.model.projects import known_cells
from data_plane.model.tenant_binding import TenantBinding, read_bindings
from data_plane.state_dir import CHECKOUT, CHECKOUT_VARIABLE, ENVIRONMENT, has_checkout

if TYPE_CHECKING:
    from data_plane.engine.engine import Engine
    from data_plane.local.environment import LocalEnvironment
    from data_plane.state_dir import StateDir

__all__ = ["BoundDataPlane", "DataPlane", "DeployedDataPlane", "LocalDataPlane", "data_plane_of"]


class DataPlane(ABC):
    """A data plane whose tenants can be looked up and leased from."""

    @abstractmethod
    def bindings(self) -> dict[str, TenantBinding]:
        """What each project binds to, by slug."""

    @abstractmethod
    def client(self, project: str, level: AccessLevel, user: str | None) -> hvac.Client:
        """An OpenBao client that may use a project at a level."""

    @abstractmethod
    def operator(self) -> hvac.Client:
        """An OpenBao client for looking at leases of others."""

    def binding(self, project: str) -> TenantBinding:
        """What one project binds to.

        Raises:
            ProjectNotFoundError: if no cell has it.
        """
        bindings = self.bindings()
        if project not in bindings:
            raise ProjectNotFoundError.among(project, bindings, " that `dataplane up` has brought up here")
        return bindings[project]


class LocalDataPlane(DataPlane):
    """The one on this machine; people sign in with the passwords that ``up`` gave them."""

    def __init__(self, local_env: "LocalEnvironment") -> None:
        self._local_env = local_env

    def bindings(self) -> dict[str, TenantBinding]:
        return self._local_env.bindings()

    def client(self, project: str, level: AccessLevel, user: str | None) -> hvac.Client:
        if user is None:
            projects = {item.slug: item for item in self._local_env.projects()}
            if project not in projects:
                self.binding(project)  # else there is none of that name
                raise ProjectNotFoundError(
                    f"stacks/{ENVIRONMENT}/projects/{project}.yaml is gone: say who asks with --user"
                )
            user = self._local_env.somebody_with(projects[project], level)
        return self._local_env.sign_in(user)

    def operator(self) -> hvac.Client:
        return self._local_env.servers.openbao.client()


class DeployedDataPlane(DataPlane):
    """A deployed environment: tenants from the stacks' outputs, the token from ``VAULT_TOKEN`` or ``bao login``."""

    def __init__(self, environment: str, root: Path = CHECKOUT) -> None:
        self._environment = environment
        self._root = root

    def bindings(self) -> dict[str, TenantBinding]:
        return self._bindings

    @cached_property
    def _bindings(self) -> dict[str, TenantBinding]:
        found: dict[str, TenantBinding] = {}
        cells = known_cells(self._root, self._environment)
        if not cells:
            raise DeploymentError(f"no stacks/Pulumi.*.yaml is a cell of environment {self._environment!r}")
        # The base, which has a binding and no Pulumi, is installed without these.
        from data_plane.connector.cells import DeployedCells  # noqa: PLC0415
        from data_plane.state_dir import StateDir  # noqa: PLC0415

        deployed = DeployedCells(self._environment, StateDir())
        for stack in cells.values():
            found.update(read_bindings(deployed.bindings(self._root, stack), f"stack {stack}"))
        return found

    def client(self, project: str, level: AccessLevel, user: str | None) -> hvac.Client:
        del level
        _refuse_user(user)
        return connect(self.binding(project).openbao_address)

    def operator(self) -> hvac.Client:
        some = next(iter(self.bindings().values()), None)
        if some is None:
            raise DeploymentError(f"no tenant is attached in environment {self._environment!r} yet")
        return connect(some.openbao_address)


class BoundDataPlane(DataPlane):
    """What a file says of tenants, for programs that have a binding and neither a checkout's stacks nor the Pulumi CLI.

    Args:
        file: JSON: one tenant's binding, or several by slug, as the cell's output ``tenants`` has them.

    Raises:
        BindingError: if it is none.
    """

    def __init__(self, file: Path) -> None:
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise BindingError(f"the binding cannot be read from {file}: {(error.strerror or '').lower()}") from error
        except ValueError as error:
            raise BindingError(
                f"{file} is not JSON; expected a binding, as `dataplane project binding --json` prints it"
            ) from error
        found = found if isinstance(found, dict) else {}
        several = [found] if "project" in found else list(found.values())
        if not several or not all(isinstance(item, dict) and "project" in item for item in several):
            raise BindingError(f"{file} holds no binding; expected what `dataplane project binding --json` prints")
        self._bindings = {str(item["project"]): TenantBinding.read(item, str(file)) for item in several}

    def bindings(self) -> dict[str, TenantBinding]:
        return self._bindings

    def client(self, project: str, level: AccessLevel, user: str | None) -> hvac.Client:
        del level
        _refuse_user(user)
        return connect(self.binding(project).openbao_address)

    def operator(self) -> hvac.Client:
        return connect(next(iter(self._bindings.values())).openbao_address)


def _refuse_user(user: str | None) -> None:
    if user is not None:
        raise UsageError("--user is for the local data plane; here you are who your OpenBao token says you are")


def data_plane_of(environment: str, binding: Path | None = None) -> DataPlane:
    """The data plane of this machine, or of a deployed environment.

    Args:
        binding: a file that says what is to be known of its tenants.
    """
    if binding is not None:
        return BoundDataPlane(binding)
    if not has_checkout():
        raise UsageError(
            "say where the project is: a file with its binding (--binding, DATA_PLANE_BINDING), or the checkout that "
            f"declares it ({CHECKOUT_VARIABLE})"
        )
    if environment != ENVIRONMENT:
        return DeployedDataPlane(environment)
    # The base, which has a binding and no local servers, is installed without these.
    from data_plane.engine.last_engine import LastEngine  # noqa: PLC0415
    from data_plane.local.environment import LocalEnvironment  # noqa: PLC0415
    from data_plane.local.servers import Servers  # noqa: PLC0415

    servers = Servers()
    return LocalDataPlane(LocalEnvironment(servers, LastEngine(servers.home, lambda: _last_engine(servers.home))))


def _last_engine(home: "StateDir") -> "Engine":
    from data_plane.engine.engines import last_engine  # noqa: PLC0415
    from data_plane.local.providers.for_engines import LOCAL_PROVIDERS  # noqa: PLC0415

    return last_engine(home, LOCAL_PROVIDERS)
