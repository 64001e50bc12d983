"""Manifests for a cluster, in one of two ways.

- ``external-secret``: External Secrets leases from OpenBao as the workload's service account and writes what it gets
  into a Secret of the type ``servicebinding.io/postgresql``. An ``ExternalSecret`` is a Provisioned Service: its
  status names that Secret. A ``ServiceBinding`` has the Service Binding runtime project it into the workload.
- ``agent``: a part of the workload's own manifest, which adds an OpenBao agent to its Pods as a sidecar; the files are
  those that a ``ServiceBinding`` would project. No Secret is made, so nothing comes into etcd.

External Secrets takes a new lease at each refresh and gives none back. Between a refresh and the end of the login
before, half of a lease's life goes by, in which the kubelet brings the new files to the Pods.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from data_plane.connector.service_binding.agent import (
    AGENT_GROUP,
    AGENT_IMAGE,
    AGENT_USER,
    AGENT_VARIABLES,
    FILES_FOLDER,
    READY_COMMAND,
    agent_config,
)
from data_plane.connector.service_binding.documents import as_yaml
from data_plane.connector.service_binding.entries import DATABASE_BINDING, BoundService, Field, bound_services
from data_plane.connector.service_binding.target import Service, Workload
from data_plane.errors import ServiceBindingError
from data_plane.model.durations import format_duration, format_go_duration
from data_plane.model.timings import TOKEN_TTL_SECONDS

__all__ = ["MINIMUM_LEASE_SECONDS", "ClusterOptions", "Provision", "manifests"]

_KUBELET_SECONDS = 120
"""How long a kubelet takes at most to bring a Secret's change to a Pod's files."""

MINIMUM_LEASE_SECONDS = 300
"""Half of it has to be longer than that."""

_AGENT = "supabase-agent"
_FILES_VOLUME = "supabase-bindings"
_CONFIG_VOLUME = "supabase-agent"
_CONFIG_FOLDER = "/etc/supabase-agent"
_TOKEN_VOLUME = "supabase-agent-token"
_TOKEN_FOLDER = "/var/run/secrets/supabase-agent"
_TOKEN_SECONDS = 600
_CA_VOLUME = "supabase-openbao-ca"
_CA_FOLDER = "/etc/supabase-openbao-ca"
_CA_FILE = "ca.crt"

_Object = dict[str, Any]


class Provision(StrEnum):
    """What brings the credentials to the workload."""

    EXTERNAL_SECRET = "external-secret"
    AGENT = "agent"


@dataclass(frozen=True)
class ClusterOptions:
    """What is particular to a workload's manifest and its cluster."""

    deployment: str
    """Name of the workload's Deployment."""
    container: str
    """Of its container; the agent's files are for that one."""
    image: str = AGENT_IMAGE
    """The agent's."""
    ca: str | None = None
    """ConfigMap in the workload's namespace whose ``ca.crt`` signed OpenBao's certificate; the system's without it."""


def manifests(service: Service, workload: Workload, provision: Provision, options: ClusterOptions, again: str) -> str:
    """The manifests.

    Args:
        again: the command that writes them.

    Raises:
        ConnectorError: if leases are too short for a cluster to follow.
    """
    if provision is Provision.AGENT:
        return as_yaml(_sidecar(service, workload, options), _agent_notes(options, again))
    if service.lease_ttl_seconds < MINIMUM_LEASE_SECONDS:
        raise ServiceBindingError(
            f"a lease of project {service.names.slug} lasts {format_duration(service.lease_ttl_seconds)}, and a "
            f"cluster takes up to two minutes to bring a Secret's change to a Pod: raise `limits.lease_ttl` to "
            f"{format_duration(MINIMUM_LEASE_SECONDS)} or more, or take --provision agent"
        )
    objects = [
        item for bound in bound_services(service) for item in _external_secret(service, workload, bound, options)
    ]
    return as_yaml(objects, _external_secret_notes(service, workload, again))


# By External Secrets


def _external_secret(
    service: Service, workload: Workload, bound: BoundService, options: ClusterOptions
) -> list[_Object]:
    name = f"{workload.name}-{bound.name}"
    metadata = _metadata(service, workload, name)
    # Their answers have no key in common, so that one may lie beside the other.
    parts = {name if index == 0 else f"{name}-{index}": path for index, path in enumerate(bound.paths)}
    generator = {"apiVersion": "generators.external-secrets.io/v1alpha1", "kind": "VaultDynamicSecret"}
    secret = {"apiVersion": "external-secrets.io/v1", "kind": "ExternalSecret"}
    generators: list[_Object] = [
        {
            **generator,
            "metadata": _metadata(service, workload, part),
            "spec": {"path": path, "method": "GET", "provider": _openbao(service, workload, options)},
        }
        for part, path in parts.items()
    ]
    return [
        *generators,
        {
            **secret,
            "metadata": metadata,
            "spec": {
                "refreshInterval": format_go_duration(_refresh_seconds(service, bound)),
                "target": {
                    "name": name,
                    "creationPolicy": "Owner",
                    # What OpenBao gave last stays while it cannot be asked.
                    "deletionPolicy": "Retain",
                    "template": {
                        "engineVersion": "v2",
                        "type": f"servicebinding.io/{bound.type}",
                        "metadata": {"labels": metadata["labels"]},
                        "data": bound.entries(_filled),
                    },
                },
                "dataFrom": [{"sourceRef": {"generatorRef": {**generator, "name": part}}} for part in parts],
            },
        },
        {
            "apiVersion": "servicebinding.io/v1",
            "kind": "ServiceBinding",
            "metadata": metadata,
            "spec": {
                "name": bound.name,
                "service": {**secret, "name": name},
                "workload": {"apiVersion": "apps/v1", "kind": "Deployment", "name": options.deployment},
            },
        },
    ]


def _filled(field: Field) -> str:
    """External Secrets' template of a field: what is no text in an answer, it has as JSON."""
    first, *further = field.keys
    value = f"(.{first} | fromJson).{'.'.join(further)}" if further else f".{first}"
    return f"{{{{ {value}{' | urlquery' if field.for_url else ''} }}}}"


def _refresh_seconds(service: Service, bound: BoundService) -> int:
    """Half of a lease; for a token, which costs nothing, a third."""
    return service.lease_ttl_seconds // 2 if bound.name == DATABASE_BINDING else TOKEN_TTL_SECONDS // 3


def _openbao(service: Service, workload: Workload, options: ClusterOptions) -> _Object:
    account: _Object = {"name": workload.service_account}
    if workload.audience:
        account["audiences"] = [workload.audience]
    sign_in = {"mountPath": workload.mount, "role": workload.role, "serviceAccountRef": account}
    provider: _Object = {"server": service.openbao_address, "auth": {"kubernetes": sign_in}}
    if options.ca:
        provider["caProvider"] = {"type": "ConfigMap", "name": options.ca, "key": _CA_FILE}
    return provider


def _external_secret_notes(service: Service, workload: Workload, again: str) -> list[str]:
    half = service.lease_ttl_seconds // 2
    refresh, age = format_duration(half), format_duration(half - _KUBELET_SECONDS)
    return [
        f"Again: {again}",
        "",
        "kubectl apply -f this file. It needs External Secrets 0.17 or newer, the Service Binding runtime, and the",
        f"service account {workload.service_account} in the namespace {workload.namespace}.",
        "",
        f"Every {refresh} there is a new login in the files; the one before ends {refresh} later, with its sessions.",
        f"So the application reads them for each new connection, and keeps none open longer than {age}.",
    ]


# By an agent in the Pod


def _sidecar(service: Service, workload: Workload, options: ClusterOptions) -> list[_Object]:
    metadata = _metadata(service, workload, f"{workload.name}-{_AGENT}")
    config = agent_config(
        service,
        workload,
        {"role": workload.role, "token_path": f"{_TOKEN_FOLDER}/token"},
        ca_file=f"{_CA_FOLDER}/{_CA_FILE}" if options.ca else None,
    )
    token: _Object = {"path": "token", "expirationSeconds": _TOKEN_SECONDS}
    if workload.audience:
        token["audience"] = workload.audience
    volumes: list[_Object] = [
        {"name": _FILES_VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        {"name": _CONFIG_VOLUME, "configMap": {"name": metadata["name"]}},
        # The agent's own, so that the application's container has no way to sign in.
        {"name": _TOKEN_VOLUME, "projected": {"sources": [{"serviceAccountToken": token}]}},
    ]
    mounts: list[_Object] = [
        {"name": _FILES_VOLUME, "mountPath": FILES_FOLDER},
        {"name": _CONFIG_VOLUME, "mountPath": _CONFIG_FOLDER, "readOnly": True},
        {"name": _TOKEN_VOLUME, "mountPath": _TOKEN_FOLDER, "readOnly": True},
    ]
    if options.ca:
        volumes.append({"name": _CA_VOLUME, "configMap": {"name": options.ca}})
        mounts.append({"name": _CA_VOLUME, "mountPath": _CA_FOLDER, "readOnly": True})
    template = {
        "metadata": {"annotations": {"checksum/supabase-agent": hashlib.sha256(config.encode()).hexdigest()[:16]}},
        "spec": {
            "serviceAccountName": workload.service_account,
            "initContainers": [_agent_container(options, mounts)],
            "containers": [
                {
                    "name": options.container,
                    "env": [
                        {"name": "SERVICE_BINDING_ROOT", "value": FILES_FOLDER},
                        {"name": "PGSERVICEFILE", "value": f"{FILES_FOLDER}/{DATABASE_BINDING}/pg_service.conf"},
                        {"name": "PGSERVICE", "value": service.names.slug},
                    ],
                    "volumeMounts": [{"name": _FILES_VOLUME, "mountPath": FILES_FOLDER, "readOnly": True}],
                }
            ],
            "volumes": volumes,
        },
    }
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"agent.json": config}},
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": options.deployment, "namespace": workload.namespace},
            "spec": {"template": template},
        },
    ]


def _agent_container(options: ClusterOptions, mounts: list[_Object]) -> _Object:
    """A sidecar in Kubernetes' own sense: it starts before the containers and ends after them."""
    return {
        "name": _AGENT,
        "image": options.image,
        "restartPolicy": "Always",
        "command": ["bao"],
        "args": ["agent", f"-config={_CONFIG_FOLDER}/agent.json"],
        "env": [{"name": name, "value": value} for name, value in AGENT_VARIABLES.items()],
        # The containers wait until there is a login.
        "startupProbe": {"exec": {"command": [*READY_COMMAND]}, "periodSeconds": 1, "failureThreshold": 120},
        "resources": {"requests": {"cpu": "10m", "memory": "96Mi"}, "limits": {"memory": "256Mi"}},
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": AGENT_USER,
            "runAsGroup": AGENT_GROUP,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": mounts,
    }


def _agent_notes(options: ClusterOptions, again: str) -> list[str]:
    return [
        f"Again: {again}",
        "",
        f"A part of the Deployment {options.deployment}, which has to be there: it needs Kubernetes 1.29 or newer.",
        "  kubectl apply --server-side --field-manager=dataplane-bind -f this file",
        "or, with kustomize, in two files: the ConfigMap among `resources`, the Deployment among `patches`.",
        "",
        f"The container {options.container} reads the files under {FILES_FOLDER} for each new connection.",
    ]


def _metadata(service: Service, workload: Workload, name: str) -> _Object:
    labels: Mapping[str, str] = {
        "app.kubernetes.io/managed-by": "dataplane-bind",
        "app.kubernetes.io/part-of": service.names.slug,
    }
    return {"name": name, "namespace": workload.namespace, "labels": dict(labels)}
