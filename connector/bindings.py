"""Where the commands find a tenant and an OpenBao token: on this machine's data plane, or on a deployed one."""

import json
import shutil
import subprocess
from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Any

import hvac

from components.naming import AccessLevel
from components.openbao import OpenBaoUnavailableError, connect
from components.projects import known_cells
from connector.errors import ConnectorError
from embedded.engines import last_engine
from embedded.home import CHECKOUT
from embedded.servers import Servers
from embedded.workplace import ENVIRONMENT, Workplace

__all__ = ["BoundDataPlane", "DataPlane", "DeployedDataPlane", "LocalDataPlane", "data_plane_of"]


class DataPlane(ABC):
    """A data plane whose tenants can be looked up and leased from."""

    @abstractmethod
    def bindings(self) -> dict[str, dict[str, Any]]:
        """What each project binds to, by slug."""

    @abstractmethod
    def client(self, project: str, level: AccessLevel, user: str | None) -> hvac.Client:
        """An OpenBao client that may use a project at a level."""

    @abstractmethod
    def operator(self) -> hvac.Client:
        """An OpenBao client for looking at leases of others."""

    def binding(self, project: str) -> dict[str, Any]:
        """What one project binds to.

        Raises:
            ConnectorError: if it is not attached anywhere.
        """
        bindings = self.bindings()
        if project not in bindings:
            known = ", ".join(sorted(bindings)) or "none yet; run `dataplane up`"
            raise ConnectorError(f"there is no tenant {project!r}; there are: {known}")
        return bindings[project]


class LocalDataPlane(DataPlane):
    """The one on this machine; people sign in with the passwords that ``up`` gave them."""

    def __init__(self, workplace: Workplace) -> None:
        self._workplace = workplace

    def bindings(self) -> dict[str, dict[str, Any]]:
        return self._workplace.bindings()

    def client(self, project: str, level: AccessLevel, user: str | None) -> hvac.Client:
        if user is None:
            projects = {item.slug: item for item in self._workplace.projects()}
            if project not in projects:
                raise ConnectorError(f"stacks/{ENVIRONMENT}/projects/{project}.yaml is gone: say who asks with --user")
            user = self._workplace.somebody_with(projects[project], level)
        return self._workplace.sign_in(user)

    def operator(self) -> hvac.Client:
        return self._workplace.servers.openbao.client()


class DeployedDataPlane(DataPlane):
    """A deployed environment: tenants from the stacks' outputs, the token from ``VAULT_TOKEN`` or ``bao login``."""

    def __init__(self, environment: str, root: Path = CHECKOUT) -> None:
        self._environment = environment
        self._root = root

    def bindings(self) -> dict[str, dict[str, Any]]:
        return self._bindings

    @cached_property
    def _bindings(self) -> dict[str, dict[str, Any]]:
        command = shutil.which("pulumi")
        if command is None:
            raise ConnectorError("the stacks of a deployed environment are read with the Pulumi CLI: put it on PATH")
        found: dict[str, dict[str, Any]] = {}
        cells = known_cells(self._root, self._environment)
        if not cells:
            raise ConnectorError(f"no stacks/Pulumi.*.yaml is a cell of environment {self._environment!r}")
        for stack in cells.values():
            done = subprocess.run(
                [command, "stack", "output", "tenants", "--json", "--stack", stack],
                cwd=self._root,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode != 0:
                raise ConnectorError(f"the outputs of stack {stack} cannot be read: {done.stderr.strip()}")
            found.update(json.loads(done.stdout))
        return found

    def client(self, project: str, level: AccessLevel, user: str | None) -> hvac.Client:
        del level
        _refuse_user(user)
        return _connect(str(self.binding(project)["openbaoAddress"]))

    def operator(self) -> hvac.Client:
        some = next(iter(self.bindings().values()), None)
        if some is None:
            raise ConnectorError(f"no tenant is attached in environment {self._environment!r} yet")
        return _connect(str(some["openbaoAddress"]))


class BoundDataPlane(DataPlane):
    """What a file says of tenants, for programs that have a binding and neither a checkout's stacks nor the Pulumi CLI.

    Args:
        file: JSON: one tenant's binding, or several by slug, as the cell's output ``tenants`` has them.

    Raises:
        ConnectorError: if it is none.
    """

    def __init__(self, file: Path) -> None:
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConnectorError(f"the binding cannot be read from {file}: {(error.strerror or '').lower()}") from None
        except ValueError:
            raise ConnectorError(
                f"{file} is no JSON: it has to hold a binding, as `dataplane status` shows it"
            ) from None
        found = found if isinstance(found, dict) else {}
        several = [found] if "project" in found else list(found.values())
        if not several or not all(_is_binding(item) for item in several):
            raise ConnectorError(f"{file} holds no binding: it has to be as `dataplane status --project` shows it")
        self._bindings = {str(item["project"]): item for item in several}

    def bindings(self) -> dict[str, dict[str, Any]]:
        return self._bindings

    def client(self, project: str, level: AccessLevel, user: str | None) -> hvac.Client:
        del level
        _refuse_user(user)
        return _connect(str(self.binding(project)["openbaoAddress"]))

    def operator(self) -> hvac.Client:
        return _connect(str(next(iter(self._bindings.values()))["openbaoAddress"]))


def _is_binding(item: object) -> bool:
    return isinstance(item, dict) and {"project", "lifecycle", "schema", "database", "openbaoAddress"} <= item.keys()


def _refuse_user(user: str | None) -> None:
    if user is not None:
        raise ConnectorError("--user is for the local data plane; here you are who your OpenBao token says you are")


def _connect(address: str) -> hvac.Client:
    try:
        return connect(address)
    except OpenBaoUnavailableError as error:
        raise ConnectorError(str(error)) from None


def data_plane_of(environment: str, binding: Path | None = None) -> DataPlane:
    """The data plane of this machine, or of a deployed environment.

    Args:
        binding: a file that says what is to be known of its tenants.
    """
    if binding is not None:
        return BoundDataPlane(binding)
    if environment != ENVIRONMENT:
        return DeployedDataPlane(environment)
    servers = Servers()
    return LocalDataPlane(Workplace(servers, last_engine(servers.home)))
