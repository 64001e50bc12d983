"""Kong, the only way in, and the Ingress or Gateway in front of it.

What it lets through is in :mod:`components.central.kong_config`. Here it gets its Pods, and in front of them, where a
stack asks for it, an Ingress or a Gateway with TLS.
"""

from typing import Any
from urllib.parse import urlsplit

import pulumi
import pulumi_kubernetes as k8s

from components.central.cluster import Cluster
from components.central.kong_config import (
    KONG_FILE,
    KONG_FOLDER,
    KONG_PREFIX,
    KongConfigArgs,
    KongUpstreams,
    kong_environment,
    kong_secret_keys,
    kong_template,
)
from components.central.service_deployment import (
    Files,
    Metrics,
    Probes,
    ServiceArgs,
    ServiceDeployment,
    ServiceDeploymentArgs,
    checksum,
)
from data_plane.model.catalog import Service
from data_plane.model.cluster_names import PORTS, service_name

__all__ = ["Gateway", "kong_args"]

_USER = 1000
_MIB = 1024 * 1024


def kong_args(cluster: Cluster) -> KongConfigArgs:
    """Kong's configuration for a stack's settings."""
    settings = cluster.settings
    return KongConfigArgs(
        upstreams=KongUpstreams(
            auth=cluster.url(Service.AUTH),
            rest=cluster.url(Service.REST),
            realtime=cluster.url(Service.REALTIME),
            storage=cluster.url(Service.STORAGE),
            studio=cluster.url(Service.STUDIO) if settings.studio.enabled else None,
            meta=cluster.url(Service.META) if settings.studio.enabled else None,
            functions=cluster.url(Service.FUNCTIONS) if settings.functions.enabled else None,
        ),
        api_servers={
            server.name: (cluster.host(Service.REST, server.instance), PORTS[Service.REST]["http"])
            for server in cluster.api_servers
        },
        cors_origins=tuple(settings.gateway.cors_origins),
        api_body_mib=settings.gateway.body_limit,
        upload_mib=-(-settings.storage.file_size_limit_bytes // _MIB),
        realtime_tenant=service_name(Service.REALTIME),
        operator_sources=tuple(settings.gateway.operator_sources),
        trusted_proxies=tuple(settings.gateway.trusted_proxies),
    )


class Gateway(pulumi.ComponentResource):
    """Creates Kong, and an Ingress, or a Gateway with its HTTPRoute, that leads to it."""

    def __init__(self, name: str, args: ServiceArgs, host: str, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("supabase-data-plane:central:Gateway", name, None, opts)
        cluster = args.cluster
        kong = kong_args(cluster)
        template = kong_template(kong)
        ServiceDeployment(
            name,
            Service.GATEWAY,
            ServiceDeploymentArgs(
                cluster=cluster,
                access=args.access,
                replicas=cluster.settings.gateway.replicas,
                user=_USER,
                probes=Probes.http("/status/ready", "status", live=("/status", "status")),
                env=kong_environment(kong),
                secret_keys=kong_secret_keys(template),
                secret_files={KONG_FILE: template},
                files=(Files(KONG_FOLDER, secret=service_name(Service.GATEWAY), items=(KONG_FILE,)),),
                writable=("/tmp", KONG_PREFIX),  # noqa: S108 a folder of the container
                waits_for_database=False,
                metrics=Metrics("status"),
                grace_seconds=60,
                # The routes are in a Secret, whose change by itself rolls nothing.
                annotations={"supabase-data-plane/routes": checksum(template)},
            ),
            opts=pulumi.ResourceOptions(parent=self),
        )
        match cluster.settings.gateway.exposure.type:
            case "ingress":
                self._ingress(name, cluster, host)
            case "gateway-api":
                self._gateway_api(name, cluster, host)
            case "none":
                pass
        self.register_outputs({})

    def _metadata(self, cluster: Cluster, annotations: dict[str, str]) -> dict[str, Any]:
        return {
            "name": service_name(Service.GATEWAY),
            "namespace": cluster.namespace(Service.GATEWAY),
            "labels": cluster.labels(Service.GATEWAY),
            "annotations": annotations,
        }

    def _ingress(self, name: str, cluster: Cluster, host: str) -> None:
        exposure = cluster.settings.gateway.exposure
        issuer = {"cert-manager.io/cluster-issuer": exposure.cluster_issuer} if exposure.cluster_issuer else {}
        backend = {"service": {"name": service_name(Service.GATEWAY), "port": {"name": "http"}}}
        k8s.networking.v1.Ingress(
            name,
            metadata=self._metadata(
                cluster,
                # An address comes when the controller has one; nothing here waits for it.
                {**issuer, "pulumi.com/skipAwait": "true", **exposure.annotations},
            ),
            spec={
                "ingress_class_name": exposure.class_name,
                "tls": [{"hosts": [host], "secret_name": exposure.tls_secret}],
                "rules": [
                    {"host": host, "http": {"paths": [{"path": "/", "path_type": "Prefix", "backend": backend}]}}
                ],
            },
            opts=pulumi.ResourceOptions(parent=self, provider=cluster.provider),
        )

    def _gateway_api(self, name: str, cluster: Cluster, host: str) -> None:
        exposure = cluster.settings.gateway.exposure
        on_cluster = pulumi.ResourceOptions(parent=self, provider=cluster.provider)
        issuer = {"cert-manager.io/cluster-issuer": exposure.cluster_issuer} if exposure.cluster_issuer else {}
        parent: dict[str, str] = {"name": service_name(Service.GATEWAY)}
        if exposure.parent_gateway is not None:
            namespace, _, gateway = exposure.parent_gateway.partition("/")
            parent = {"namespace": namespace, "name": gateway}
        else:
            k8s.apiextensions.CustomResource(
                f"{name}-listener",
                api_version="gateway.networking.k8s.io/v1",
                kind="Gateway",
                metadata=self._metadata(cluster, {**issuer, **exposure.annotations}),
                spec={
                    "gatewayClassName": exposure.class_name,
                    "listeners": [
                        {
                            "name": "https",
                            "hostname": host,
                            "port": 443,
                            "protocol": "HTTPS",
                            "tls": {"mode": "Terminate", "certificateRefs": [{"name": exposure.tls_secret}]},
                            "allowedRoutes": {"namespaces": {"from": "Same"}},
                        }
                    ],
                },
                opts=on_cluster,
            )
        k8s.apiextensions.CustomResource(
            f"{name}-route",
            api_version="gateway.networking.k8s.io/v1",
            kind="HTTPRoute",
            metadata=self._metadata(cluster, {}),
            spec={
                "hostnames": [host],
                "parentRefs": [parent],
                "rules": [
                    {"backendRefs": [{"name": service_name(Service.GATEWAY), "port": PORTS[Service.GATEWAY]["http"]}]}
                ],
            },
            opts=on_cluster,
        )


def public_host(api_url: str) -> str:
    """The host that the gateway's public URL names."""
    return urlsplit(api_url).hostname or ""
