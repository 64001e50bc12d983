"""The people and teams that the projects of a cell name, as OpenBao identities.

A person has one entity and a team one group, however many cells name them, so these are not resources that one stack
owns: they are written by name, which creates what is missing and changes nothing that is there (a leaver's entity stays
disabled), and they stay when a project stops naming them.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import pulumi
import pulumi_vault as vault

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
    """Makes sure that every person has an entity and every team a group before they first sign in."""

    entities: dict[str, pulumi.Output[str]]
    """Entity ID by login name."""
    team_groups: dict[str, pulumi.Output[str]]
    """Group ID by team."""

    def __init__(self, name: str, args: PeopleArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("supabase-data-plane:people:People", name, None, opts)
        self._args = args
        self._name = name
        lookup = pulumi.InvokeOutputOptions(parent=self, provider=args.provider)
        self.entities = {}
        for user in sorted(set(args.users)):
            written = self._write(f"person-{user}", f"identity/entity/name/{user}", {})
            found = vault.identity.get_entity_output(entity_name=_after(written, user), opts=lookup)
            self.entities[user] = found.id
            self._write(f"person-alias-{user}", "identity/entity-alias", self._alias(user, found.id))
        self.team_groups = {}
        for team in sorted(set(args.teams)):
            group = f"team-{team}"
            written = self._write(f"team-{team}", f"identity/group/name/{group}", {"type": "external"})
            found_group = vault.identity.get_group_output(group_name=_after(written, group), opts=lookup)
            self.team_groups[team] = found_group.id
            # Unlike an entity's alias, a group's is only changed under its ID, where another cell made it before.
            path = found_group.alias_id.apply(
                lambda alias: f"identity/group-alias/id/{alias}" if alias else "identity/group-alias"
            )
            self._write(f"team-alias-{team}", path, self._alias(team, found_group.id), ignore_changes=["path"])
        self.register_outputs({})

    def _alias(self, alias: str, canonical_id: pulumi.Input[str]) -> dict[str, pulumi.Input[str]]:
        return {"name": alias, "mount_accessor": self._args.login_accessor, "canonical_id": canonical_id}

    def _write(
        self,
        label: str,
        path: pulumi.Input[str],
        data: dict[str, pulumi.Input[str]],
        ignore_changes: list[str] | None = None,
    ) -> vault.generic.Endpoint:
        return vault.generic.Endpoint(
            f"{self._name}-{label}",
            path=path,
            data_json=pulumi.Output.json_dumps(data, sort_keys=True),
            disable_read=True,
            disable_delete=True,
            opts=pulumi.ResourceOptions(parent=self, provider=self._args.provider, ignore_changes=ignore_changes),
        )


def _after(resource: vault.generic.Endpoint, value: str) -> pulumi.Output[str]:
    """The value, known only once the resource is there."""
    return resource.id.apply(lambda _: value)
