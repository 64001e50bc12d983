"""How a tenant's workloads sign in to OpenBao.

Creates, for each workload of the tenant ``proj_x``:
    - the role ``proj_x-<workload>`` of the auth method: for exactly its service account, or an AppRole;
    - the entity that it signs in as, and its alias under that method.

Neither has a policy. What a workload may lease it gets from its level's group, at the time of use: taken out of the
project's file, or with its tenant detached, it can do nothing with a token that it still has.

An entity is a service account, or an AppRole's role-ID, not a workload: several projects may name one account.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_network

import pulumi
import pulumi_vault as vault

from components.identities import IdentityWriter
from components.platform import WorkloadAuthMethod
from data_plane.model.naming import AccessLevel
from data_plane.model.projects import Project
from data_plane.model.workloads import AppRole, ServiceAccount, WorkloadMethod

__all__ = ["TenantWorkloads", "TenantWorkloadsArgs", "WorkloadAuthMethods", "login_for"]

WorkloadAuthMethods = Mapping[str, WorkloadAuthMethod]

# Nobody signs in with a name that starts with an underscore, so no person's entity is taken for a workload's.
_ENTITY_PREFIX = "_workload"


def login_for(method: WorkloadMethod, logins: WorkloadAuthMethods, project: str) -> WorkloadAuthMethod:
    """The environment's auth method for a kind of workload.

    Raises:
        pulumi.RunError: if it has none.
    """
    if method.value not in logins:
        there = ", ".join(sorted(logins)) or "none"
        raise pulumi.RunError(
            f"project {project} has a workload that signs in by {method}, and the environment has no such method "
            f"(it has: {there}): set workloadLogin.{method} in the central stack and bring it up"
        )
    return logins[method.value]


@dataclass(frozen=True)
class TenantWorkloadsArgs:
    """Arguments of :class:`TenantWorkloads`."""

    project: Project
    provider: vault.Provider
    logins: pulumi.Input[WorkloadAuthMethods]
    """The environment's auth methods, by name."""


class TenantWorkloads(pulumi.ComponentResource):
    """The roles of a tenant's workloads, and who signs in by them."""

    entities: dict[AccessLevel, list[pulumi.Output[str]]]
    """Entity IDs by the level that they may lease."""

    def __init__(self, name: str, args: TenantWorkloadsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("supabase-data-plane:tenant:TenantWorkloads", name, None, opts)
        self._provider = args.provider
        self._identities = IdentityWriter(args.provider, self)
        # A lease ends with the token that it was taken with, and may be renewed until then by any other.
        self._token_seconds = args.project.limits.lease_max_ttl
        logins = pulumi.Output.from_input(args.logins)
        self.entities = {level: [] for level in AccessLevel}
        for workload, settings in sorted(args.project.workloads.items()):
            method = settings.method

            def found(logins: WorkloadAuthMethods, method: WorkloadMethod = method) -> WorkloadAuthMethod:
                return login_for(method, logins, args.project.slug)

            login, role = logins.apply(found), args.project.names.workload_role(workload)
            resource = f"{name}-{workload}"
            if settings.kubernetes is not None:
                entity = self._service_account(resource, role, login, settings.kubernetes)
            else:
                entity = self._approle(resource, role, login, settings.approle or AppRole())
            self.entities[settings.level].append(entity)
        self.register_outputs({})

    def _service_account(
        self, name: str, role: str, login: pulumi.Output[WorkloadAuthMethod], account: ServiceAccount
    ) -> pulumi.Output[str]:
        # A namespace has no dot in its name, so no two accounts are spelled alike.
        entity = self._identities.entity(
            f"{name}-entity", f"{_ENTITY_PREFIX}.kubernetes.{account.namespace}.{account.service_account}"
        )
        # OpenBao's own spelling, for the role's alias_name_source.
        alias = f"{account.namespace}/{account.service_account}"
        known = self._identities.entity_alias(f"{name}-alias", alias, login.accessor, entity)
        vault.kubernetes.AuthBackendRole(
            name,
            backend=login.path,
            role_name=role,
            bound_service_account_names=[account.service_account],
            bound_service_account_namespaces=[account.namespace],
            audience=login.audience,
            alias_name_source="serviceaccount_name",
            token_ttl=self._token_seconds,
            token_max_ttl=self._token_seconds,
            # Its group's policy has all that it needs (components/tenant/access.py).
            token_no_default_policy=True,
            # A workload that signs in earlier would get an entity that OpenBao makes by itself.
            opts=self._opts([known]),
        )
        return entity

    def _approle(
        self, name: str, role: str, login: pulumi.Output[WorkloadAuthMethod], settings: AppRole
    ) -> pulumi.Output[str]:
        made = vault.approle.AuthBackendRole(
            name,
            backend=login.path,
            role_name=role,
            # The role-ID is OpenBao's own, random one: wrong attempts lock one out, so it is not to be guessed.
            bind_secret_id=True,
            secret_id_ttl=settings.secret_id_ttl,
            secret_id_bound_cidrs=settings.bound_cidrs,
            token_bound_cidrs=[_as_openbao_writes_it(network) for network in settings.bound_cidrs],
            token_ttl=self._token_seconds,
            token_max_ttl=self._token_seconds,
            token_no_default_policy=True,
            opts=self._opts([]),
        )
        entity = self._identities.entity(
            f"{name}-entity", pulumi.Output.concat(f"{_ENTITY_PREFIX}.approle.", made.role_id)
        )
        self._identities.entity_alias(f"{name}-alias", made.role_id, login.accessor, entity)
        return entity

    def _opts(self, depends_on: list[pulumi.Resource]) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions(parent=self, provider=self._provider, depends_on=depends_on)


def _as_openbao_writes_it(network: str) -> str:
    """A token's network as it is given back, so that no run finds a difference: a single address without its prefix."""
    parsed = ip_network(network)
    return str(parsed.network_address) if parsed.num_addresses == 1 else network
