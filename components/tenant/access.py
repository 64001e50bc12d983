"""One OpenBao policy and one identity group per access level of a tenant.

Access follows people, teams and workloads: a token can do what the groups of its entity can do at the time it is used,
so a name taken out of a project's file takes effect on tokens that were issued before.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pulumi
import pulumi_vault as vault

from data_plane.model.access import levels_of
from data_plane.model.naming import API_LEVELS, CONNECTORS_MOUNT, TENANTS_SECRET, AccessLevel, TenantNames
from data_plane.model.projects import ManagedService, Project

__all__ = ["TenantAccess", "TenantAccessArgs", "policy_document"]


def policy_document(names: TenantNames, level: AccessLevel, *, storage: bool = False) -> str:
    """The policy of one level: its own lease path and token path, renewing its leases and giving them back.

    API levels also read the publishable key, which goes with every token. Nobody is given OpenBao's policy ``default``,
    which renews and looks up any lease whose ID is in a request's body; what of it a token needs is granted here.

    No wildcard reaches past the tenant: the only one stands behind the slash after the tenant's role. Where a body has
    a ``lease_id``, OpenBao takes that for the lease, not the path that the policy was asked about (handleRevoke and
    handleRenew in vault/logical_system.go). So no body goes with a path, and without one its lease has to be the
    tenant's: OpenBao's agent and ``bao lease renew`` renew so. That holds for a token with ``default`` too, because
    policies narrow the parameters of a path that they have in common.

    Args:
        storage: whether the tenant has a bucket, all of which ``service_role`` may manage.
    """
    lease = names.lease_path(level)
    reads = [lease]
    if level in API_LEVELS:
        reads += [names.token_path(level), f"{CONNECTORS_MOUNT}/data/{TENANTS_SECRET}"]
    if storage and level is AccessLevel.SERVICE_ROLE:
        reads.append(names.storage_token_path)
    rules = [_rule(path, "read") for path in (*reads, "auth/token/lookup-self")]
    rules += [_rule(f"auth/token/{action}-self", "update") for action in ("renew", "revoke")]
    by_path = 'denied_parameters = { "lease_id" = [] }'
    rules += [_rule(f"sys/leases/{action}/{lease}/*", "update", by_path) for action in ("revoke", "renew")]
    by_body = f'allowed_parameters = {{ "lease_id" = ["{lease}/*"], "increment" = [] }}'
    rules.append(_rule("sys/leases/renew", "update", by_body))
    return "\n".join(rules) + "\n"


def _rule(path: str, capability: str, *more: str) -> str:
    lines = [f'capabilities = ["{capability}"]', *more]
    return f'path "{path}" {{\n' + "".join(f"  {line}\n" for line in lines) + "}"


@dataclass(frozen=True)
class TenantAccessArgs:
    """Arguments of :class:`TenantAccess`."""

    project: Project
    provider: vault.Provider
    attached: bool
    entities: Mapping[str, pulumi.Input[str]]
    """Identity entity of each person, by login name."""
    team_groups: Mapping[str, pulumi.Input[str]]
    """Identity group of each team, by name."""
    workloads: Mapping[AccessLevel, Sequence[pulumi.Input[str]]] = field(default_factory=dict)
    """Identity entities of the workloads of a level, which have that level alone."""


class TenantAccess(pulumi.ComponentResource):
    """The policies and groups of a tenant. Detached, the groups are empty and have no policy."""

    policies: dict[AccessLevel, vault.Policy]
    groups: dict[AccessLevel, vault.identity.Group]
    holders: pulumi.Output[list[str]]
    """Who has a level by the project's file: ``<level>/entity/<id>`` or ``<level>/group/<id>`` of each."""

    def __init__(self, name: str, args: TenantAccessArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("supabase-data-plane:tenant:TenantAccess", name, None, opts)
        in_openbao = pulumi.ResourceOptions(parent=self, provider=args.provider)
        names = args.project.names
        self.policies = {
            level: vault.Policy(
                f"{name}-policy-{level.value.replace('_', '-')}",
                name=names.role(level),
                policy=policy_document(names, level, storage=ManagedService.STORAGE in args.project.managed_services),
                opts=in_openbao,
            )
            for level in AccessLevel
        }
        people = {level: self._members(args, "users", level) for level in AccessLevel}
        teams = {level: self._members(args, "teams", level) for level in AccessLevel}
        self.groups = {
            level: vault.identity.Group(
                f"{name}-group-{level.value.replace('_', '-')}",
                name=names.role(level),
                type="internal",
                policies=[self.policies[level].name] if args.attached else [],
                member_entity_ids=people[level],
                member_group_ids=teams[level],
                metadata={"project": args.project.slug, "level": level.value},
                opts=in_openbao,
            )
            for level in AccessLevel
        }
        self.holders = pulumi.Output.all(
            *(
                pulumi.Output.concat(f"{level}/{kind}/", member)
                for kind, members in (("entity", people), ("group", teams))
                for level in AccessLevel
                for member in members[level]
            )
        ).apply(lambda found: sorted(map(str, found)))
        self.register_outputs({})

    @staticmethod
    def _members(args: TenantAccessArgs, kind: str, level: AccessLevel) -> list[pulumi.Input[str]]:
        if not args.attached:
            return []
        known = args.entities if kind == "users" else args.team_groups
        members = args.project.members("users" if kind == "users" else "teams")
        found = [known[name] for name in sorted({name for role, name in members if level in levels_of(role)})]
        return [*found, *args.workloads.get(level, [])] if kind == "users" else found
