"""Services as they are rendered for a cluster, and what of that is different on this machine.

The manifests that a run of the central stack writes are the one list of settings. Each service is run with the
variables of its Deployment. Only these are changed: names of Services and their ports become addresses of this machine,
folders of volumes become folders here, and entries of Secrets are filled in as External Secrets does on a cluster.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import yaml

from data_plane.errors import ServerError
from data_plane.local.processes import LOOPBACK
from data_plane.local.yaml_loader import SAFE_LOADER
from data_plane.model.catalog import Service
from data_plane.model.cluster_names import JWKS_ENTRY, JWKS_SECRET, Place

__all__ = ["LISTENING", "Endpoint", "LocalAddresses", "Manifests", "RenderedService", "fill_template"]

LISTENING: Mapping[Service, tuple[str, ...]] = {
    Service.AUTH: ("GOTRUE_API_HOST", "OTEL_EXPORTER_PROMETHEUS_HOST"),
    Service.REST: ("PGRST_SERVER_HOST",),
    Service.STORAGE: ("SERVER_HOST",),
    Service.META: ("PG_META_HOST",),
}
"""The variables that say which address a service listens on. In a container that is every one."""

_NOT_RENDERED = (
    "{} is not rendered in {}: run `dataplane up`, which writes it. If it is not written then, because nothing has "
    "changed: `dataplane up --refresh`."
)
_FIELD = re.compile(r'\{\{ \.([A-Z0-9_]+)( \| urlquery(?: \| replace "\+" "%20")?)? \}\}')
_CLUSTER_HOST = re.compile(r"\b([a-z0-9-]+)\.([a-z0-9-]+)\.svc(?::([0-9]+))?\b")


class Endpoint(NamedTuple):
    """A port of a Service on the cluster."""

    service: str
    port: int


@dataclass(frozen=True)
class LocalAddresses:
    """Where this machine has what a cluster has behind names.

    Args:
        postgres: PostgreSQL's port.
        ports: the port here of each Service's.
    """

    postgres: int
    ports: Mapping[Endpoint, int]

    def localized(self, text: str) -> str:
        """A text with addresses of the cluster replaced by those of this machine."""

        def replaced(found: re.Match[str]) -> str:
            name, namespace, port = found.groups()
            if port is None:
                return LOOPBACK
            if namespace.endswith(Place.DATA.value):
                return f"{LOOPBACK}:{self.postgres}"
            here = self.ports.get(Endpoint(name, int(port)))
            return f"{LOOPBACK}:{here}" if here else found[0]

        return _CLUSTER_HOST.sub(replaced, text)


@dataclass(frozen=True)
class RenderedService:
    """One Deployment's service."""

    name: str
    """Of the Deployment, without the prefix: ``rest-cell-cell-1``."""
    service: Service
    image: str
    ports: Mapping[str, int]
    readiness: tuple[str, str]
    """Path and port of the probe."""
    variables: tuple[tuple[str, str], ...]
    """Those with a value of their own."""
    secret_variables: tuple[tuple[str, str, str], ...]
    """Those from a Secret: name, Secret, entry."""
    volumes: tuple[str, ...]
    """The folders whose content is kept."""

    @property
    def manifest_name(self) -> str:
        """The name on the cluster."""
        return f"supabase-{self.name}"

    def environment(self, secret: Callable[[str, str], str], addresses: LocalAddresses, folder: Path) -> dict[str, str]:
        """The variables of its process on this machine.

        Args:
            secret: an entry of a Secret, by both names.
            addresses: of this machine.
            folder: for the volumes.
        """
        plain = dict(self.variables)
        found = {name: self._local(name, value, plain, addresses, folder) for name, value in plain.items()}
        found |= {name: addresses.localized(secret(owner, entry)) for name, owner, entry in self.secret_variables}
        return found | dict.fromkeys(LISTENING.get(self.service, ()), LOOPBACK)

    def _local(self, name: str, value: str, others: Mapping[str, str], addresses: LocalAddresses, folder: Path) -> str:
        for volume in self.volumes:
            if value == volume or value.startswith(f"{volume}/"):
                return f"{folder / volume.strip('/').replace('/', '-')}{value.removeprefix(volume)}"
        if name.endswith("_PORT"):
            host = _CLUSTER_HOST.fullmatch(others.get(f"{name.removesuffix('_PORT')}_HOST", ""))
            if host is not None:
                return addresses.localized(f"{host[0]}:{value}").rpartition(":")[2]
            if value.isdecimal() and int(value) in self.ports.values():
                return str(addresses.ports[Endpoint(self.manifest_name, int(value))])
        return addresses.localized(value)


class Manifests:
    """The rendered manifests of a central stack.

    Args:
        folder: that they are in.

    Raises:
        ServerError: if there are none, or they cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._found: dict[tuple[str, str], Mapping[str, Any]] = {}
        for path in sorted(folder.rglob("*.yaml")):
            try:
                document = yaml.load(path.read_bytes(), SAFE_LOADER)  # noqa: S506 a safe one
                self._found[document["kind"], document["metadata"]["name"]] = document
            except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
                # A run may be writing it.
                raise ServerError(f"{path} cannot be read: run `dataplane up --refresh`, which writes it.") from error
        self._one("Deployment", "supabase-gateway")

    @staticmethod
    def mark(folder: Path) -> object:
        """What differs once a run has written other manifests."""
        found = ((path, path.stat()) for path in folder.rglob("*.yaml"))
        return sorted((str(path), stat.st_mtime_ns, stat.st_size) for path, stat in found)

    def services(self) -> list[RenderedService]:
        """The services that there are Deployments of."""
        return [
            _service(name, item["spec"]["template"]["spec"])
            for (kind, name), item in self._found.items()
            if kind == "Deployment"
        ]

    def endpoints(self) -> list[Endpoint]:
        """The ports that services of the cluster listen on."""
        return [
            Endpoint(name, port["containerPort"])
            for (kind, name), item in self._found.items()
            if kind == "Deployment"
            for port in item["spec"]["template"]["spec"]["containers"][0].get("ports", ())
        ]

    def netloc(self, service: str, port: int) -> str:
        """Host and port of a service on the cluster."""
        return f"{service}.{self._one('Deployment', service)['metadata']['namespace']}.svc:{port}"

    def variable(self, deployment: str, name: str) -> str:
        """A plain variable of a Deployment."""
        return dict(_service(deployment, self._pod(deployment)).variables)[name]

    def secret(
        self, name: str, values: Callable[[str], Mapping[str, str]], openbao_keys: Callable[[], str]
    ) -> dict[str, str]:
        """A Secret, as External Secrets makes it.

        Args:
            name: its name.
            values: what OpenBao has at a path of ``connectors``.
            openbao_keys: OpenBao's public keys.
        """
        spec = self._one("ExternalSecret", name)["spec"]
        known = {key: value for source in spec["dataFrom"] for key, value in values(source["extract"]["key"]).items()}
        if name == JWKS_SECRET:
            keys = [*json.loads(known["JWT_JWKS"])["keys"], *json.loads(openbao_keys())["keys"]]
            return {JWKS_ENTRY: json.dumps({"keys": keys})}
        return {entry: fill_template(text, known) for entry, text in spec["target"]["template"]["data"].items()}

    def _pod(self, deployment: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._one("Deployment", deployment)["spec"]["template"]["spec"]
        return found

    def _one(self, kind: str, name: str) -> Mapping[str, Any]:
        found = self._found.get((kind, name))
        if found is None:
            raise ServerError(_NOT_RENDERED.format(f"{kind} {name}", self._folder))
        return found


def fill_template(text: str, values: Mapping[str, str]) -> str:
    """A template of External Secrets with its fields filled in.

    Raises:
        ServerError: if it has an action that is not a field, or a field without a value.
    """

    def filled(found: re.Match[str]) -> str:
        key, encoded = found.groups()
        if key not in values:
            raise ServerError(f"OpenBao has no value for {key}: run `dataplane up`, which makes it.")
        return quote(values[key], safe="") if encoded else values[key]

    rest = _FIELD.sub("", text)
    if "{{" in rest:
        raise ServerError("a rendered secret has a template that cannot be filled in on this machine.")
    return _FIELD.sub(filled, text)


def _service(name: str, pod: Mapping[str, Any]) -> RenderedService:
    container = pod["containers"][0]
    kept = {volume["name"] for volume in pod.get("volumes", ()) if "persistentVolumeClaim" in volume}
    variables = container.get("env", ())
    probe = container.get("readinessProbe", {}).get("httpGet", {})
    return RenderedService(
        name=name.removeprefix("supabase-"),
        service=Service(container["name"]),
        image=container["image"],
        ports={port["name"]: port["containerPort"] for port in container.get("ports", ())},
        readiness=(probe.get("path", ""), str(probe.get("port", ""))),
        variables=tuple((item["name"], str(item["value"])) for item in variables if "value" in item),
        secret_variables=tuple(
            (item["name"], item["valueFrom"]["secretKeyRef"]["name"], item["valueFrom"]["secretKeyRef"]["key"])
            for item in variables
            if "secretKeyRef" in item.get("valueFrom", {})
        ),
        volumes=tuple(mount["mountPath"] for mount in container.get("volumeMounts", ()) if mount["name"] in kept),
    )
