"""The people and teams that the projects of a cell name, as OpenBao identities.

A person has one entity and a team one group, however many cells name them, so these are not resources that one stack
owns (:mod:`components.identities`): a leaver's entity stays disabled.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import pulumi
import pulumi_vault as vault

from components.identities import IdentityWriter, after

__all__ = ["People", "PeopleArgs"]


@dataclass(frozen=True)
class PeopleArgs:
    """Arguments of :class:`People`."""

    users: Iterable[str]
    """Login names."""
    teams: Iterable[str]
    """Names as the sign-in method's group claim has them."""
    login_accessor: pulumi.Input[str]
    """Accessor of the sign-in method under which they have these names."""
    provider: vault.Provider


class People(pulumi.ComponentResource):
    """Creates an entity for every person and a group for every team, before they first sign in."""

    entities: dict[str, pulumi.Output[str]]
    """Entity ID by login name."""
    team_groups: dict[str, pulumi.Output[str]]
    """Group ID by team."""

    def __init__(self, name: str, args: PeopleArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("supabase-data-plane:people:People", name, None, opts)
        identities = IdentityWriter(args.provider, self)
        self.entities = {}
        for user in sorted(set(args.users)):
            entity = identities.entity(f"{name}-person-{user}", user)
            known = identities.entity_alias(f"{name}-person-alias-{user}", user, args.login_accessor, entity)
            self.entities[user] = after(known, entity)
        self.team_groups = {}
        for team in sorted(set(args.teams)):
            group = f"team-{team}"
            written = identities.write(f"{name}-team-{team}", f"identity/group/name/{group}", {"type": "external"})
            found_group = vault.identity.get_group_output(group_name=after(written, group), opts=identities.lookup)
            # Unlike an entity's alias, a group's is only changed under its ID, where another cell made it before.
            path = found_group.alias_id.apply(
                lambda alias: f"identity/group-alias/id/{alias}" if alias else "identity/group-alias"
            )
            alias = {"name": team, "mount_accessor": args.login_accessor, "canonical_id": found_group.id}
            known = identities.write(f"{name}-team-alias-{team}", path, alias, ignore_changes=["path"])
            self.team_groups[team] = after(known, found_group.id)
        self.register_outputs({})
