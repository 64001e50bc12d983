"""OpenBao identities that no one stack owns, because several cells may name them.

They are written by name, which creates what is missing and changes nothing that is there (an entity that was disabled
stays disabled), and they stay when a stack stops naming them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_vault as vault

__all__ = ["IdentityWriter", "after"]


@dataclass(frozen=True)
class IdentityWriter:
    """Declares identities.

    Args:
        provider: OpenBao's.
        parent: the component that they are declared in.
    """

    provider: vault.Provider
    parent: pulumi.Resource

    @property
    def lookup(self) -> pulumi.InvokeOutputOptions:
        """Options for asking OpenBao what is there."""
        return pulumi.InvokeOutputOptions(parent=self.parent, provider=self.provider)

    def write(
        self,
        resource: str,
        path: pulumi.Input[str],
        data: Mapping[str, pulumi.Input[str]],
        ignore_changes: list[str] | None = None,
    ) -> vault.generic.Endpoint:
        """Writes an identity.

        Args:
            resource: the Pulumi resource's name.
        """
        return vault.generic.Endpoint(
            resource,
            path=path,
            data_json=pulumi.Output.json_dumps(dict(data), sort_keys=True),
            disable_read=True,
            disable_delete=True,
            opts=pulumi.ResourceOptions(parent=self.parent, provider=self.provider, ignore_changes=ignore_changes),
        )

    def entity(self, resource: str, name: pulumi.Input[str]) -> pulumi.Output[str]:
        """Makes sure that there is an entity of this name, and gives its ID."""
        path = pulumi.Output.concat("identity/entity/name/", name)
        written = self.write(resource, path, {})
        return vault.identity.get_entity_output(entity_name=after(written, name), opts=self.lookup).id

    def entity_alias(
        self, resource: str, alias: pulumi.Input[str], accessor: pulumi.Input[str], entity: pulumi.Input[str]
    ) -> vault.generic.Endpoint:
        """Maps a sign-in name of an auth method to an entity."""
        data = {"name": alias, "mount_accessor": accessor, "canonical_id": entity}
        return self.write(resource, "identity/entity-alias", data)


def after(resource: vault.generic.Endpoint, value: pulumi.Input[str]) -> pulumi.Output[str]:
    """The value, known only once the resource is there."""
    return pulumi.Output.all(resource.id, value).apply(lambda both: str(both[1]))
