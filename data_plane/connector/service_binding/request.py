"""What somebody asks to be bound, and the document that answers it."""

import re
import shlex
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, ValidationError

from data_plane.connector.leases import Via
from data_plane.connector.service_binding.agent import AGENT_IMAGE
from data_plane.connector.service_binding.asset import asset_text, project_asset
from data_plane.connector.service_binding.dokploy import compose_fragment
from data_plane.connector.service_binding.kubernetes import ClusterOptions, Provision, manifests
from data_plane.connector.service_binding.target import Service, Workload, openbao_url
from data_plane.errors import UsageError
from data_plane.model.naming import SLUG_PATTERN, AccessLevel
from data_plane.model.strict import StrictModel
from data_plane.model.tenant_binding import TenantBinding
from data_plane.model.workloads import WorkloadMethod, WorkloadName

__all__ = ["BindRequest", "BindingForm", "bind_request", "binding_text"]

Label = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]


class BindingForm(StrEnum):
    """What a binding is written as."""

    ASSET = "asset"
    DOKPLOY = "dokploy"
    KUBERNETES = "kubernetes"


_METHODS = {BindingForm.DOKPLOY: WorkloadMethod.APPROLE, BindingForm.KUBERNETES: WorkloadMethod.KUBERNETES}
_FIELDS_OF = {
    "provision": {BindingForm.KUBERNETES},
    "deployment": {BindingForm.KUBERNETES},
    "container": {BindingForm.KUBERNETES},
    "workload": set(_METHODS),
    "image": set(_METHODS),
    "ca": set(_METHODS),
}
"""Settings that only some forms have."""


class BindRequest(StrictModel):
    """What is to be bound, and as what."""

    project: Annotated[str, Field(pattern=SLUG_PATTERN, description="The project.")]
    form: BindingForm
    level: Annotated[
        AccessLevel | None, Field(description="Access level; by default the workload's. An asset needs one.")
    ] = None
    workload: Annotated[
        WorkloadName | None,
        Field(description="A workload of the project's file; by default the only one that fits. An asset has none."),
    ] = None
    provision: Annotated[Provision, Field(description="What brings credentials to a workload on Kubernetes.")] = (
        Provision.EXTERNAL_SECRET
    )
    via: Annotated[
        Via | None,
        Field(description="The way to the database; by default the pooler's sessions, where there is one."),
    ] = None
    openbao: Annotated[
        str | None, Field(description="OpenBao's URL as the consumer reaches it; by default the environment's.")
    ] = None
    ca: Annotated[
        str | None,
        Field(
            min_length=1,
            description="The authority that signed OpenBao's certificate: a ConfigMap whose key is ca.crt, or for "
            "Dokploy a file on the host. The system's without it.",
        ),
    ] = None
    image: Annotated[str, Field(min_length=1, description="The agent's image, e.g. from a mirror.")] = AGENT_IMAGE
    deployment: Annotated[
        Label | None, Field(description="The Deployment on Kubernetes; by default named like the workload.")
    ] = None
    container: Annotated[
        Label | None, Field(description="Its container that gets an agent's files; by default named like the workload.")
    ] = None
    environment: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$", description="Of the data plane.")] = "local"

    @property
    def command(self) -> str:
        """The command that asks for the same."""
        given = self.model_dump(mode="json", exclude_defaults=True)
        options = {"level": "as", "project": "project", "form": "form"}
        words = [
            word
            for field, value in sorted(given.items(), key=lambda item: (item[0] not in options, item[0]))
            for word in (f"--{options.get(field, field)}", str(value))
        ]
        return shlex.join(["dataplane", "project", "binding", *words])


def bind_request(**given: Any) -> BindRequest:
    """A request, checked.

    Raises:
        ConnectorError: with the first thing that is wrong.
    """
    try:
        request = BindRequest(**{key: value for key, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{field}: found {first['input']!r}; {first['msg'][:1].lower()}{first['msg'][1:]}") from error
    for field in sorted(request.model_fields_set & set(_FIELDS_OF)):
        if request.form not in _FIELDS_OF[field]:
            forms = " or ".join(sorted(_FIELDS_OF[field]))
            raise UsageError(f"--{field} is for --form {forms}; leave it out with --form {request.form}")
    if request.form is BindingForm.ASSET and request.level is None:
        raise UsageError("an asset is of one access level: say which with --as")
    if request.openbao is not None:
        openbao_url(request.openbao)
    if request.ca and re.search(r"[\s:]", request.ca):
        raise UsageError(f"--ca: found {request.ca!r}; expected a name or path without blanks and colons")
    return request


def binding_text(request: BindRequest, binding: TenantBinding) -> str:
    """The document.

    Args:
        binding: the tenant's, as the cell's stack exports it.

    Raises:
        ConnectorError: if the tenant cannot be bound so.
    """

    def service(level: AccessLevel) -> Service:
        return Service.of(binding, level, via=request.via, openbao=request.openbao)

    if request.level is not None and request.form is BindingForm.ASSET:
        return asset_text(project_asset(binding, service(request.level), request.environment))
    workload = Workload.of(binding, _METHODS[request.form], name=request.workload, level=request.level)
    if request.form is BindingForm.DOKPLOY:
        return compose_fragment(service(workload.level), workload, request.command, image=request.image, ca=request.ca)
    options = ClusterOptions(
        deployment=request.deployment or workload.name,
        container=request.container or workload.name,
        image=request.image,
        ca=request.ca,
    )
    return manifests(service(workload.level), workload, request.provision, options, request.command)
