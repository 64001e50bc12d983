"""What the central stack declares for a cluster, in the ways that its settings allow."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from components.central.central import ClusterArgs, SupabaseCentral, SupabaseCentralArgs
from components.platform import DatabaseEndpoint
from data_plane.model.catalog import Service, load_catalog
from data_plane.model.cluster_settings import ClusterSettings
from data_plane.model.naming import ApiServer, TenantNames
from data_plane.model.settings import AuthMethodSettings, DatabaseSettings
from data_plane.state_dir import CHECKOUT
from tests.support.declared import Declared, Program, declare

MINIMAL: dict[str, Any] = {
    "auth": {"siteUrl": "https://app.example.org", "emailAutoconfirm": True},
    "storage": {"bucket": "files"},
}
API_URL = "https://api.example.org"
DATABASE = DatabaseSettings(host="db.example.org", port=6432, sslmode="verify-full")
"""Where PostgreSQL is for this program, and for the services where it is external."""


def merged(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """The one with the other in it; None leaves a key out."""
    both = dict(base)
    for key, value in change.items():
        if value is None and key in both:
            del both[key]
        elif isinstance(value, dict) and isinstance(both.get(key), dict):
            both[key] = merged(both[key], value)
        else:
            both[key] = value
    return both


def at(path: str, value: Any) -> dict[str, Any]:
    """A value below keys, e.g. ``storage.size``."""
    for key in reversed(path.split(".")):
        value = {key: value}
    assert isinstance(value, dict)
    return value


INGRESS = {"type": "ingress", "className": "nginx", "tlsSecret": "api-tls", "controllerNamespace": "ingress-nginx"}
BACKUPS = {"bucket": "backups", "prefix": "prod/central"}
SMTP = {"host": "smtp.example.org", "user": "mailer", "adminEmail": "post@example.org"}
CLOUD_NATIVE_PG = {"mode": "cloudnativepg", "image": "registry.example.org/postgres:17", "instances": 3}
EXTERNAL = {"mode": "external", "serverCidrs": ["192.0.2.10/32", "192.0.2.11/32"]}
FILES = {"backend": "file", "bucket": None, "size": "7Gi"}
EVERYTHING: dict[str, Any] = {
    "auth": {
        "smtp": SMTP,
        "secrets": ["GOTRUE_EXTERNAL_GITHUB_SECRET"],
        "settings": {"GOTRUE_EXTERNAL_GITHUB_ENABLED": "true"},
    },
    "database": {"tlsSecret": "postgres-tls", "clientNamespaces": ["openbao"], "clientCidrs": ["198.51.100.0/24"]},
    "pooler": {"clientNamespaces": ["team-a"]},
    "functions": {"enabled": True, "claim": "functions"},
    "analytics": {"enabled": True},
    "logs": {"enabled": True},
    "backups": BACKUPS,
    "serviceMonitors": True,
    "openbao": {"caConfigMap": "openbao-ca"},
    "gateway": {"exposure": {**INGRESS, "clusterIssuer": "letsencrypt"}},
}
NOTHING: dict[str, Any] = {
    "pooler": {"enabled": False},
    "imgproxy": {"enabled": False},
    "studio": {"enabled": False},
    "storage": {**FILES, "replicas": 1},
    "database": EXTERNAL,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "everything": EVERYTHING,
    "nothing": NOTHING,
    "CloudNativePG": {"database": CLOUD_NATIVE_PG, "backups": BACKUPS},
    "external database": {"database": EXTERNAL, "backups": BACKUPS},
    "Gateway API": {"gateway": {"exposure": {**INGRESS, "type": "gateway-api", "clusterIssuer": "letsencrypt"}}},
    "another's Gateway": {
        "gateway": {
            "exposure": {
                "type": "gateway-api",
                "parentGateway": "infra/public",
                "controllerNamespace": "ingress-nginx",
            }
        }
    },
    "files on one node": {"storage": {**FILES, "replicas": 1}},
    "files on all nodes": {"storage": {**FILES, "accessMode": "ReadWriteMany"}},
    "OpenBao elsewhere": {"openbao": {"inCluster": False, "kubernetesCa": "-----BEGIN CERTIFICATE-----"}},
    "one of each": {
        **{part: {"replicas": 1} for part in ("pooler", "gateway", "auth", "rest", "realtime")},
        "storage": {"replicas": 1},
    },
    "API servers": {"serviceMonitors": True, "backups": BACKUPS},
    "a mirror": {"registry": "mirror.example.org/hub", "pullSecret": "mirror"},
}

API_SERVERS = (ApiServer.of_cell("cell-1"), TenantNames("shop-2").api_server)
"""A cell's PostgREST and one of a project alone, in the variant of that name."""


def service_of(name: str) -> Service:
    """The service that a workload's name stands for, whichever of its instances it is."""
    return Service.REST if name.startswith("supabase-rest-") else Service(name.removeprefix("supabase-"))


def settings_of(change: Mapping[str, Any]) -> ClusterSettings:
    return ClusterSettings.model_validate(merged(MINIMAL, change))


def declared(change: Mapping[str, Any], api_servers: Sequence[ApiServer] = ()) -> Program:
    """The whole central stack with these settings of ``kubernetes``, and some API servers."""
    settings = settings_of(change)
    catalog = load_catalog(CHECKOUT, registry=settings.registry, overrides=settings.resources, images=settings.images)
    endpoint = DatabaseEndpoint(DATABASE.host, DATABASE.port, DATABASE.name, DATABASE.admin_user, DATABASE.sslmode)
    args = SupabaseCentralArgs(
        endpoint=endpoint,
        openbao_address="https://bao.example.org",
        api_url=API_URL,
        login=AuthMethodSettings(),
        lease_ttl_maximum=86400,
        api_servers=api_servers,
        cluster=ClusterArgs(settings, catalog, DATABASE, API_URL, "https://bao.example.org"),
    )
    return declare(lambda: SupabaseCentral("supabase", args) and None)


@cache
def variant(name: str) -> Program:
    """One of :data:`VARIANTS`, declared once."""
    return declared(VARIANTS[name], API_SERVERS if name == "API servers" else ())


DEPLOYMENT = "kubernetes:apps/v1:Deployment"
STATEFUL_SET = "kubernetes:apps/v1:StatefulSet"
DAEMON_SET = "kubernetes:apps/v1:DaemonSet"
CRON_JOB = "kubernetes:batch/v1:CronJob"
CLUSTER = "kubernetes:postgresql.cnpg.io/v1:Cluster"


@dataclass(frozen=True)
class PodTemplate:
    """Pods that one resource makes."""

    resource: Declared
    kind: str
    metadata: Mapping[str, Any]
    spec: Mapping[str, Any]

    @property
    def name(self) -> str:
        return str(self.resource.inputs["metadata"]["name"])

    @property
    def namespace(self) -> str:
        return str(self.resource.inputs["metadata"]["namespace"])

    @property
    def containers(self) -> list[dict[str, Any]]:
        return [*self.spec["containers"], *self.spec.get("initContainers", [])]

    @property
    def env(self) -> Iterator[dict[str, Any]]:
        return (entry for container in self.containers for entry in container.get("env", []))


def pod_templates(program: Program) -> list[PodTemplate]:
    """Of everything that runs containers here; a CloudNativePG Cluster's Pods are the operator's."""
    found: list[PodTemplate] = []
    for type_ in (DEPLOYMENT, STATEFUL_SET, DAEMON_SET, CRON_JOB):
        for item in program.all(type_):
            spec = item.inputs["spec"]
            if type_ == CRON_JOB:
                spec = spec["jobTemplate"]["spec"]
            template = spec["template"]
            found.append(PodTemplate(item, type_.rpartition(":")[2], template["metadata"], template["spec"]))
    return found
