"""Signs in to OpenBao as a workload of a project, with its service account's token or its AppRole's secret-ID.

Credentials come from files or from the environment, never from arguments, which everybody on a machine can see. Files
are read anew each time: a cluster replaces tokens, an operator secret-IDs.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

import hvac
import requests
from hvac.exceptions import Forbidden, InvalidPath, InvalidRequest, VaultError

from data_plane.clients.openbao import explain
from data_plane.errors import SignInError
from data_plane.model.naming import AccessLevel
from data_plane.model.tenant_binding import BoundWorkload, TenantBinding
from data_plane.model.workloads import WorkloadMethod

__all__ = [
    "ROLE_ID_VARIABLE",
    "SECRET_ID_VARIABLE",
    "SERVICE_ACCOUNT_TOKEN",
    "AppRoleCredentials",
    "KubernetesCredentials",
    "WorkloadSignIn",
    "unwrap_secret_id",
]

SERVICE_ACCOUNT_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
"""Where a cluster puts a Pod's token, if the Pod does not say otherwise."""
ROLE_ID_VARIABLE = "DATA_PLANE_ROLE_ID"
SECRET_ID_VARIABLE = "DATA_PLANE_SECRET_ID"
_TIMEOUT_SECONDS = 30


@dataclass(frozen=True)
class KubernetesCredentials:
    """A service account's token."""

    token_file: Path = SERVICE_ACCOUNT_TOKEN

    method = WorkloadMethod.KUBERNETES


@dataclass(frozen=True)
class AppRoleCredentials:
    """A role-ID and a secret-ID; from ``DATA_PLANE_ROLE_ID`` and ``DATA_PLANE_SECRET_ID`` where no file is named."""

    role_id_file: Path | None = None
    secret_id_file: Path | None = None
    wrapped: bool = False
    """Whether there is a wrapping token in place of the secret-ID, which can be unwrapped once."""

    method = WorkloadMethod.APPROLE


@dataclass
class WorkloadSignIn:
    """A workload, which can sign in any number of times.

    Args:
        binding: the tenant's, as the cell's stack exports it.
        workload: its name in the project's file; may be left out if it is the only one that signs in like this.
    """

    binding: TenantBinding
    credentials: KubernetesCredentials | AppRoleCredentials
    workload: str | None = None
    _unwrapped: dict[str, str] = field(default_factory=dict, repr=False)
    """The secret-ID of a wrapping token, which is used up."""

    @property
    def level(self) -> AccessLevel:
        """What the workload may lease.

        Raises:
            SignInError: if the project has no such workload.
        """
        return self._declared().level

    def __call__(self) -> hvac.Client:
        """A client with a new token of the workload's.

        Raises:
            SignInError: if a credential is missing, or OpenBao does not accept it.
        """
        declared = self._declared()
        client = hvac.Client(url=self.binding.openbao_address, timeout=_TIMEOUT_SECONDS)
        # What the caller's own environment has for OpenBao is somebody else.
        client.token = None
        mount, role = declared.mount, declared.role
        try:
            if isinstance(self.credentials, KubernetesCredentials):
                token = _content(self.credentials.token_file, "the service account's token")
                client.auth.kubernetes.login(role, token, mount_point=mount)
            else:
                role_id, secret_id = self._approle(client, self.credentials, mount, role)
                client.auth.approle.login(role_id, secret_id, mount_point=mount)
        except (Forbidden, InvalidRequest, InvalidPath) as error:
            raise SignInError(f"{role} may not sign in: {explain(error)}; {self._remedy(error)}") from error
        except (VaultError, requests.RequestException) as error:
            raise SignInError(f"{role} cannot sign in now: {explain(error)}") from error
        return client

    def _remedy(self, error: VaultError) -> str:
        if isinstance(self.credentials, KubernetesCredentials):
            return (
                "the token has to be of the account and the namespace that the project names, and made out to the "
                "audience that the central stack names"
            )
        if isinstance(error, Forbidden):
            return "its identity is disabled, or locked for some minutes after wrong secret-IDs"
        return (
            "a secret-ID that is used up or expired is replaced by `dataplane workload secret-id`, and a wrapping "
            "token takes --wrapped"
        )

    def _declared(self) -> BoundWorkload:
        method = self.credentials.method
        fitting = {name: found for name, found in self.binding.workloads.items() if found.method == method}
        project, there = self.binding.project, ", ".join(sorted(fitting))
        if not fitting:
            raise SignInError(f"{project} has no workload that signs in by {method}: its file has to name one")
        if self.workload is None and len(fitting) == 1:
            return next(iter(fitting.values()))
        if self.workload is None:
            raise SignInError(
                f"say which workload of {project} signs in by {method} with --workload; there are: {there}"
            )
        if self.workload not in fitting:
            raise SignInError(
                f"{project} has no workload {self.workload!r} that signs in by {method}; there are: {there}"
            )
        return fitting[self.workload]

    def _approle(self, client: hvac.Client, given: AppRoleCredentials, mount: str, role: str) -> tuple[str, str]:
        role_id = _given(given.role_id_file, ROLE_ID_VARIABLE, "role-ID", "--role-id-file")
        secret_id = _given(given.secret_id_file, SECRET_ID_VARIABLE, "secret-ID", "--secret-id-file")
        if given.wrapped:
            if secret_id not in self._unwrapped:
                self._unwrapped = {secret_id: unwrap_secret_id(client, secret_id, mount, role)}
            secret_id = self._unwrapped[secret_id]
        return role_id, secret_id


def unwrap_secret_id(client: hvac.Client, wrapping_token: str, mount: str, role: str) -> str:
    """The secret-ID that a wrapping token stands for. It works once.

    Raises:
        SignInError: if the token is used up or expired, which may mean that somebody else has the secret-ID; or if it
            stands for something else than a secret-ID of this role.
    """
    wanted = f"auth/{mount}/role/{role}/secret-id"
    try:
        # Asked first: a token that somebody made of a secret-ID of another role must not be taken for this one's.
        about = client.write_data("sys/wrapping/lookup", data={"token": wrapping_token})["data"]
        if about["creation_path"] != wanted:
            raise SignInError(
                f"the wrapping token was made at {about['creation_path']}, not at {wanted}: it is not to be trusted; "
                "tell who handed it over"
            )
        client.token = wrapping_token
        return str(client.sys.unwrap()["data"]["secret_id"])
    except (Forbidden, InvalidRequest, InvalidPath) as error:
        raise SignInError(
            "the wrapping token is used up or expired. If nobody of yours has unwrapped it, somebody else has: "
            "`dataplane workload secret-id --revoke-earlier` makes all earlier secret-IDs useless and gives another"
        ) from error
    finally:
        client.token = None


def _given(file: Path | None, variable: str, what: str, option: str) -> str:
    if file is not None:
        return _content(file, f"the {what}")
    found = os.environ.get(variable, "").strip()
    if not found:
        raise SignInError(f"there is no {what}: name its file with {option}, or set {variable}")
    return found


def _content(file: Path, what: str) -> str:
    try:
        found = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise SignInError(f"{what} cannot be read from {file}: {str(reason).lower()}") from error
    if not found:
        raise SignInError(f"{what} is missing: {file} is empty")
    return found
