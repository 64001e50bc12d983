"""Ends lost access: every lease of a detached tenant, and the tokens of people who lost a level."""

from collections.abc import Iterable, Mapping
from typing import Any

import hvac
import pulumi
from hvac.exceptions import InvalidPath, VaultError
from pulumi.dynamic import Resource

from components.dynamic import ApplyingProvider
from data_plane.clients.openbao import OpenBaoUnavailableError, connect, end_tokens, explain

__all__ = ["LeaseRevocation"]

_INPUTS = ("address", "tenant", "lease_paths", "attached", "holders")


class _Provider(ApplyingProvider):
    # The address too: `delete` has nothing but what the last run left.
    inputs = ("address", "attached", "lease_paths", "holders")
    identity = ("tenant",)

    def id_of(self, props: Mapping[str, Any]) -> str:
        return str(props["tenant"])

    def delete(self, _id: str, props: dict[str, Any]) -> None:
        """A tenant that is taken out of the stack keeps no lease either."""
        self._revoke(props)

    def apply(self, props: dict[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
        gone = set(before.get("holders") or ()) - set(props["holders"])
        if not props["attached"]:
            self._revoke(props)
        elif gone:
            self._end(props, gone)
        return {key: props[key] for key in _INPUTS}

    @staticmethod
    def _revoke(props: dict[str, Any]) -> None:
        client = connect(props["address"])
        for path in props["lease_paths"]:
            try:
                client.sys.revoke_prefix(path)
            except VaultError as error:
                raise OpenBaoUnavailableError(
                    f"leases under {path} were not all revoked: {explain(error)}; run the same command again"
                ) from error

    @staticmethod
    def _end(props: dict[str, Any], gone: Iterable[str]) -> None:
        """Ends the tokens of who lost a level. OpenBao does not say whose a lease is; it ends with its token."""
        client = connect(props["address"])
        try:
            end_tokens(client, {entity for holder in gone for entity in _entities(client, holder)})
        except VaultError as error:
            raise OpenBaoUnavailableError(
                f"{props['tenant']}: who was taken out of it may hold leases still, until these end: {explain(error)}; "
                "run the same command again"
            ) from error


def _entities(client: hvac.Client, holder: str) -> list[str]:
    _, kind, identifier = holder.split("/")
    if kind == "entity":
        return [identifier]
    try:
        return list(client.read(f"identity/group/id/{identifier}")["data"]["member_entity_ids"] or ())
    except (InvalidPath, TypeError):  # the team's group is gone, and its members with it
        return []


class LeaseRevocation(Resource, module="tenant", name="LeaseRevocation"):
    """The people who may hold leases of a tenant. On detaching, its leases end.

    With a token go its leases, those of other projects too: who still has those signs in again.

    Args:
        address: OpenBao's URL.
        tenant: the tenant's schema.
        lease_paths: the OpenBao paths below which its leases are.
        attached: whether it may hold leases.
        holders: who may, as :attr:`TenantAccess.holders` has them.

    Raises:
        OpenBaoUnavailableError: while it is applied, if a lease or a token could not be revoked.
    """

    def __init__(
        self,
        name: str,
        *,
        address: pulumi.Input[str],
        tenant: str,
        lease_paths: list[str],
        attached: bool,
        holders: pulumi.Input[list[str]],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        props = {
            "address": address,
            "tenant": tenant,
            "lease_paths": lease_paths,
            "attached": attached,
            "holders": holders,
        }
        super().__init__(_Provider(), name, props, opts)
