"""Programs that a project's file lets lease: what they are called, what they may lease, and how they sign in."""

from enum import StrEnum
from ipaddress import ip_network
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from data_plane.model.durations import Duration
from data_plane.model.naming import AccessLevel
from data_plane.model.patterns import HOST_PATTERN, LABEL_PATTERN
from data_plane.model.problems import at_field

__all__ = ["AppRole", "ServiceAccount", "Workload", "WorkloadMethod", "WorkloadName"]


def _cidr(text: str) -> str:
    try:
        right = str(ip_network(text)) == text
    except ValueError:
        right = False
    if not right:
        raise ValueError("a network with its prefix, e.g. 10.0.0.0/8 or fd00::/8, or one address, e.g. 10.0.0.5/32")
    return text


WorkloadName = Annotated[str, Field(pattern=LABEL_PATTERN)]
"""A DNS label."""


class WorkloadMethod(StrEnum):
    """The auth methods of OpenBao by which workloads sign in."""

    KUBERNETES = "kubernetes"
    APPROLE = "approle"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ServiceAccount(_Strict):
    """The service account that a workload in the cluster runs as."""

    namespace: Annotated[str, Field(pattern=LABEL_PATTERN, description="Exactly this namespace; no pattern.")]
    service_account: Annotated[str, Field(pattern=HOST_PATTERN, description="Exactly this account; no pattern.")]


class AppRole(_Strict):
    """An AppRole, for a workload outside of the cluster: it signs in with a secret-ID that an operator hands over."""

    secret_id_ttl: Annotated[
        Duration, Field(ge=5, le=90 * 24 * 3600, description="How long a secret-ID can be signed in with; at most 90d.")
    ] = 24 * 3600
    bound_cidrs: Annotated[
        list[Annotated[str, AfterValidator(_cidr)]],
        Field(description="Networks from which it signs in and leases; any, if none is named."),
    ] = []


class Workload(_Strict):
    """A program of the project's that takes leases of one level. It has either `kubernetes` or `approle`."""

    level: Annotated[AccessLevel, Field(description="What it may lease; no other level, not even a weaker one.")]
    kubernetes: Annotated[ServiceAccount | None, Field(description="Signs in with its service account's token.")] = None
    approle: Annotated[AppRole | None, Field(description="Signs in with a role-ID and a secret-ID.")] = None

    @model_validator(mode="after")
    def _signs_in_one_way(self) -> Self:
        if self.kubernetes is None and self.approle is None:
            raise at_field("level", "no way to sign in", "`kubernetes: {namespace, service_account}` or `approle: {}`")
        if self.kubernetes is not None and self.approle is not None:
            raise at_field("approle", "it beside `kubernetes`", "one of them; another workload for the other")
        return self

    @property
    def method(self) -> WorkloadMethod:
        """How it signs in."""
        return WorkloadMethod.APPROLE if self.kubernetes is None else WorkloadMethod.KUBERNETES
