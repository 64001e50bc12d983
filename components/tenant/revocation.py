"""Ends every lease of a tenant when the tenant is detached."""

from typing import Any

import pulumi
from hvac.exceptions import VaultError
from pulumi.dynamic import CreateResult, DiffResult, Resource, ResourceProvider, UpdateResult

from components.openbao import OpenBaoUnavailableError, connect, explain

__all__ = ["LeaseRevocation"]


class _Provider(ResourceProvider):
    def create(self, props: dict[str, Any]) -> CreateResult:
        return CreateResult(id_=props["tenant"], outs=self._enforce(props))

    def update(self, _id: str, _olds: dict[str, Any], news: dict[str, Any]) -> UpdateResult:
        return UpdateResult(outs=self._enforce(news))

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        replaces = ["tenant"] if olds.get("tenant") != news.get("tenant") else []
        changed = any(olds.get(key) != news.get(key) for key in ("attached", "lease_paths"))
        return DiffResult(changes=bool(changed or replaces), replaces=replaces, stables=[])

    def delete(self, _id: str, props: dict[str, Any]) -> None:
        """A tenant that is taken out of the stack keeps no lease either."""
        self._revoke(props)

    def _enforce(self, props: dict[str, Any]) -> dict[str, Any]:
        if not props["attached"]:
            self._revoke(props)
        return {key: props[key] for key in ("address", "tenant", "lease_paths", "attached")}

    @staticmethod
    def _revoke(props: dict[str, Any]) -> None:
        client = connect(props["address"])
        for path in props["lease_paths"]:
            try:
                client.sys.revoke_prefix(path)
            except VaultError as error:
                raise OpenBaoUnavailableError(
                    f"leases under {path} were not all revoked: {explain(error)}; run the same command again"
                ) from None


class LeaseRevocation(Resource, module="tenant", name="LeaseRevocation"):
    """Whether a tenant may hold leases; turning ``attached`` off revokes those it has, at once.

    Args:
        address: OpenBao's URL.
        tenant: the tenant's schema.
        lease_paths: the OpenBao paths below which its leases are.
        attached: whether it may hold leases.

    Raises:
        OpenBaoUnavailableError: while it is applied, if a lease could not be revoked.
    """

    def __init__(
        self,
        name: str,
        *,
        address: pulumi.Input[str],
        tenant: str,
        lease_paths: list[str],
        attached: bool,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        props = {"address": address, "tenant": tenant, "lease_paths": lease_paths, "attached": attached}
        super().__init__(_Provider(), name, props, opts)
