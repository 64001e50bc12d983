"""The platform's secrets in OpenBao's KV engine, generated where they are kept.

``ConnectorSecrets`` makes sure that a KV v2 secret has a value for each named key. A value that is there is never
changed; a missing one is generated from the operating system's random source and written straight to OpenBao, so it
is in no manifest, no log and no Pulumi state. (A ``RandomPassword`` would keep a second, if encrypted, copy of each in
the state for ever.)
"""

from collections.abc import Mapping
from typing import Any

import pulumi
from pulumi.dynamic import ReadResult, Resource

from components.dynamic import ApplyingProvider
from data_plane.clients.openbao import connect, read_kv, write_kv
from data_plane.model.connector_secrets import SecretKind, SecretsMissingError, generate

__all__ = ["ConnectorSecrets"]


class _Provider(ApplyingProvider):
    inputs = ("address", "adopted")
    identity = ("mount", "path")

    def id_of(self, props: Mapping[str, Any]) -> str:
        return f"{props['mount']}/{props['path']}"

    def is_current(self, olds: Mapping[str, Any], news: Mapping[str, Any]) -> bool:
        return {*news["kinds"], *(news.get("required") or {})} <= set(olds.get("keys") or [])

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        present, version = read_kv(connect(props["address"]), props["mount"], props["path"])
        return ReadResult(id_=id_, outs={**_described(props), "keys": sorted(present), "version": version})

    def delete(self, _id: str, _props: dict[str, Any]) -> None:
        """Nothing: the secrets outlive the stack."""

    def apply(self, props: dict[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
        client = connect(props["address"])
        present, version = read_kv(client, props["mount"], props["path"])
        # Once: what was rotated since then is not put back.
        given: dict[str, str] = props.get("adopted") or {}
        adopted_before: dict[str, str] = before.get("adopted") or {}
        adopted = {key: value for key, value in given.items() if value != adopted_before.get(key)}
        wanted: dict[str, str] = {}
        # Kinds are declared in the order in which one follows from another.
        order = list(SecretKind)
        for key, kind in sorted(
            ((key, SecretKind(kind)) for key, kind in props["kinds"].items()), key=lambda item: order.index(item[1])
        ):
            wanted[key] = adopted.get(key) or present.get(key) or generate(kind, {**present, **wanted})
        if any(present.get(key) != value for key, value in wanted.items()):
            # Check-and-set: two runs at once cannot each generate a value and one of them win unseen.
            version = write_kv(client, props["mount"], props["path"], {**present, **wanted}, version)
        # Last, so that the secret is there to be patched.
        absent = {key: why for key, why in (props.get("required") or {}).items() if not present.get(key)}
        if absent:
            raise SecretsMissingError(props["mount"], props["path"], absent)
        return {**_described(props), "keys": sorted({*present, *wanted}), "version": version}


def _described(props: dict[str, Any]) -> dict[str, Any]:
    return {**{key: props[key] for key in ("address", "mount", "path")}, "adopted": props.get("adopted") or {}}


class ConnectorSecrets(Resource, module="central", name="ConnectorSecrets"):
    """Makes sure that a KV v2 secret has a value for each of its keys, and keeps those that it has.

    Args:
        address: OpenBao's URL.
        mount: the KV v2 mount.
        path: the secret inside it.
        kinds: the keys that are generated, and how their values look.
        required: keys whose values have to be there already, and what needs them.
        adopted: values that exist already and are to be kept there, e.g. the password of a database that was
            there first. Has to be secret.

    Raises:
        OpenBaoUnavailableError: while it is applied, if OpenBao cannot be used.
        SecretsMissingError: while it is applied, if a required value is not there.
    """

    path: pulumi.Output[str]
    """The secret inside the mount; known once the values are there."""
    keys: pulumi.Output[list[str]]
    """The names of the keys that have a value."""
    version: pulumi.Output[int]
    """The version of the KV secret."""

    def __init__(
        self,
        name: str,
        *,
        address: pulumi.Input[str],
        mount: pulumi.Input[str],
        path: str,
        kinds: Mapping[str, SecretKind],
        required: Mapping[str, str] | None = None,
        adopted: Mapping[str, pulumi.Input[str]] | None = None,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        props = {
            "address": address,
            "mount": mount,
            "path": path,
            "kinds": {key: kind.value for key, kind in kinds.items()},
            "required": dict(required or {}),
            "adopted": dict(adopted or {}),
            "keys": None,
            "version": None,
        }
        secret = pulumi.ResourceOptions(additional_secret_outputs=["adopted"])
        super().__init__(_Provider(), name, props, pulumi.ResourceOptions.merge(opts, secret))
