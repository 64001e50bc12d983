"""A service's secrets: its copy of the platform's keys that it needs, and its access to them.

OpenBao's KV engine cannot give a policy some keys of a secret and withhold the others. So each service has a secret
of its own, ``connectors/supabase/<service>``, with the keys of ``connectors/supabase`` that it needs and no others;
its policy reads that path alone.

At run time the External Secrets Operator signs in to OpenBao as the service's own service account and writes what it
reads into a Secret beside the workload. Of the three mechanisms that clusters commonly have this one fits Supabase's
images: all of them take their secrets from environment variables, PostgREST's has no shell in which a sidecar's file
could be turned into one (the agent injector's way), and the Secrets Store CSI driver has to make a Secret for
environment variables, too. Values are in no manifest and in no Pulumi state; in the cluster they are in etcd, which
has to be encrypted at rest.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_kubernetes as k8s
import pulumi_vault as vault
from pulumi.dynamic import ReadResult, Resource

from components.central.cluster import Cluster
from components.central.connector_secrets import ConnectorSecrets
from components.dynamic import ApplyingProvider
from data_plane.clients.openbao import connect, read_kv, write_kv
from data_plane.model.catalog import Service
from data_plane.model.cluster_names import service_name
from data_plane.model.connector_secrets import SecretsMissingError
from data_plane.model.durations import format_go_duration
from data_plane.model.naming import CONNECTORS_MOUNT, SUPABASE_SECRET

__all__ = ["SecretAccess", "ServiceSecret", "ServiceSecretArgs", "ServiceSecretCopy", "secret_field"]

_LOGIN_SECONDS = 600


def secret_field(key: str) -> str:
    """The External Secrets template that stands for a key's value."""
    return f"{{{{ .{key} }}}}"


class _Provider(ApplyingProvider):
    inputs = ("address", "source", "keys", "source_version")
    identity = ("mount", "path")

    def id_of(self, props: Mapping[str, Any]) -> str:
        return f"{props['mount']}/{props['path']}"

    def is_current(self, olds: Mapping[str, Any], news: Mapping[str, Any]) -> bool:
        return bool(olds.get("current"))

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        client = connect(props["address"])
        source, _ = read_kv(client, props["mount"], props["source"])
        present, _ = read_kv(client, props["mount"], props["path"])
        current = present == {key: source.get(key) for key in props["keys"]}
        return ReadResult(id_=id_, outs={**_described(props), "current": current})

    def delete(self, _id: str, props: dict[str, Any]) -> None:
        """Removes the copy; the values are where they came from."""
        connect(props["address"]).secrets.kv.v2.delete_metadata_and_all_versions(
            path=props["path"], mount_point=props["mount"]
        )

    def apply(self, props: dict[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
        client = connect(props["address"])
        source, _ = read_kv(client, props["mount"], props["source"])
        missing = [key for key in props["keys"] if not source.get(key)]
        if missing:
            raise SecretsMissingError(props["mount"], props["source"], dict.fromkeys(missing, props["path"]))
        wanted = {key: source[key] for key in props["keys"]}
        present, present_version = read_kv(client, props["mount"], props["path"])
        if present != wanted:
            write_kv(client, props["mount"], props["path"], wanted, present_version)
        return {**_described(props), "current": True}


def _described(props: dict[str, Any]) -> dict[str, Any]:
    return {key: props[key] for key in ("address", "mount", "source", "source_version", "path", "keys")}


class ServiceSecretCopy(Resource, module="central", name="ServiceSecretCopy"):
    """Keeps a KV v2 secret equal to some keys of another.

    Args:
        address: OpenBao's URL.
        mount: the KV v2 mount of both.
        source: the secret that has the values.
        source_version: its version, so that a change of it is copied.
        path: the secret that gets them.
        keys: which.

    Raises:
        SecretsMissingError: while it is applied, if the source has no value for one of them.
    """

    path: pulumi.Output[str]

    def __init__(
        self,
        name: str,
        *,
        address: pulumi.Input[str],
        mount: pulumi.Input[str],
        source: pulumi.Input[str],
        source_version: pulumi.Input[int],
        path: str,
        keys: Iterable[str],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        props = {
            "address": address,
            "mount": mount,
            "source": source,
            "source_version": source_version,
            "path": path,
            "keys": sorted(keys),
            "current": None,
        }
        super().__init__(_Provider(), name, props, opts)


@dataclass(frozen=True)
class SecretAccess:
    """The platform's secrets, and how services sign in for them."""

    openbao: vault.Provider
    openbao_address: pulumi.Input[str]
    """As this program reaches it."""
    cluster_address: pulumi.Input[str]
    """As External Secrets reaches it."""
    auth_path: pulumi.Input[str]
    """OpenBao's Kubernetes auth method, known once it is configured."""
    secrets: ConnectorSecrets


@dataclass(frozen=True)
class ServiceSecretArgs:
    """Arguments of :class:`ServiceSecret`."""

    keys: tuple[str, ...]
    """Keys of ``connectors/supabase``."""
    template: Mapping[str, str]
    """The Secret's entries: text in which :func:`secret_field` stands for the keys' values."""
    labels: Mapping[str, str]
    account: pulumi.Resource
    """The service's account, as which External Secrets signs in."""
    instance: str | None = None
    """Which instance, of a service that has several (:attr:`data_plane.model.naming.ApiServer.instance`)."""


class ServiceSecret(pulumi.ComponentResource):
    """A service's OpenBao policy and role, and its SecretStore and ExternalSecret.

    Creates the service's copy in OpenBao, the policy that reads it and nothing else, the role by which the service's
    account signs in, and the External Secrets objects that bring it to the workload.
    """

    secret_name: str
    """The Secret that External Secrets makes."""

    def __init__(
        self,
        name: str,
        service: Service,
        cluster: Cluster,
        access: SecretAccess,
        args: ServiceSecretArgs,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("supabase-data-plane:central:ServiceSecret", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        in_openbao = pulumi.ResourceOptions(parent=self, provider=access.openbao)
        on_cluster = pulumi.ResourceOptions(parent=self, provider=cluster.provider)
        self.secret_name = own_name = service_name(service, args.instance)
        path = (
            f"{SUPABASE_SECRET}/{service}" if args.instance is None else f"{SUPABASE_SECRET}/{service}-{args.instance}"
        )

        copy = ServiceSecretCopy(
            name,
            address=access.openbao_address,
            mount=CONNECTORS_MOUNT,
            source=access.secrets.path,
            source_version=access.secrets.version,
            path=path,
            keys=args.keys,
            opts=child,
        )
        policy = vault.Policy(
            name,
            name=own_name,
            policy=f'path "{CONNECTORS_MOUNT}/data/{path}" {{\n  capabilities = ["read"]\n}}\n',
            opts=in_openbao,
        )
        role = vault.kubernetes.AuthBackendRole(
            name,
            backend=access.auth_path,
            role_name=own_name,
            bound_service_account_names=[own_name],
            bound_service_account_namespaces=[cluster.namespace_name(service)],
            audience=cluster.settings.openbao.audience,
            token_policies=[policy.name],
            token_ttl=_LOGIN_SECONDS,
            token_max_ttl=_LOGIN_SECONDS,
            opts=in_openbao,
        )
        metadata = {
            "name": own_name,
            "namespace": cluster.namespace(service),
            "labels": dict(args.labels),
        }
        store = k8s.apiextensions.CustomResource(
            f"{name}-store",
            api_version="external-secrets.io/v1",
            kind="SecretStore",
            metadata=metadata,
            spec={"provider": {"vault": self._vault(own_name, cluster, access, role)}},
            opts=pulumi.ResourceOptions.merge(on_cluster, pulumi.ResourceOptions(depends_on=[args.account])),
        )
        k8s.apiextensions.CustomResource(
            name,
            api_version="external-secrets.io/v1",
            kind="ExternalSecret",
            metadata=metadata,
            spec={
                "refreshInterval": format_go_duration(cluster.settings.openbao.refresh),
                "secretStoreRef": {"kind": "SecretStore", "name": own_name},
                "target": {
                    "name": self.secret_name,
                    "creationPolicy": "Owner",
                    # Kept if OpenBao loses the path: what runs goes on running.
                    "deletionPolicy": "Retain",
                    "template": {
                        "engineVersion": "v2",
                        "metadata": {"labels": dict(args.labels)},
                        "data": dict(args.template),
                    },
                },
                "dataFrom": [{"extract": {"key": copy.path}}],
            },
            opts=pulumi.ResourceOptions.merge(on_cluster, pulumi.ResourceOptions(depends_on=[store])),
        )
        self.register_outputs({"secretName": self.secret_name})

    @staticmethod
    def _vault(
        own_name: str, cluster: Cluster, access: SecretAccess, role: vault.kubernetes.AuthBackendRole
    ) -> dict[str, Any]:
        settings = cluster.settings.openbao
        provider: dict[str, Any] = {
            "server": access.cluster_address,
            "path": CONNECTORS_MOUNT,
            "version": "v2",
            "auth": {
                "kubernetes": {
                    "mountPath": settings.auth_path,
                    "role": role.role_name,
                    "serviceAccountRef": {"name": own_name, "audiences": settings.token_audiences},
                }
            },
        }
        if settings.ca_config_map is not None:
            provider["caProvider"] = {"type": "ConfigMap", "name": settings.ca_config_map, "key": "ca.crt"}
        return provider
