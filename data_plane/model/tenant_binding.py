"""A tenant's binding: the contract between a cell, which exports it, and everything that leases from it."""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from data_plane.errors import BindingError
from data_plane.model.naming import AccessLevel
from data_plane.model.problems import problems_of
from data_plane.model.projects import Lifecycle
from data_plane.model.workloads import WorkloadMethod

__all__ = [
    "BoundDatabase",
    "BoundRealtime",
    "BoundSchema",
    "BoundStorage",
    "BoundWorkload",
    "PoolerEndpoint",
    "TenantBinding",
    "binding_json_schema",
    "read_bindings",
]

_Port = Annotated[int, Field(ge=1, le=65535)]


class _Part(BaseModel):
    # What a newer program adds is kept, so that it is still there in what is written from a binding that was read.
    model_config = ConfigDict(extra="allow", frozen=True, alias_generator=to_camel, populate_by_name=True)


class BoundDatabase(_Part):
    """Address of PostgreSQL."""

    host: str
    port: _Port
    database: str
    sslmode: str


class PoolerEndpoint(_Part):
    """Address of the pooler, where clients sign in as ``<login>.<tenant>``."""

    host: str
    session_port: Annotated[_Port, Field(description="A client has a server connection for its whole session.")]
    transaction_port: Annotated[_Port, Field(description="A client has one for each transaction.")]
    tenant: str
    sslmode: str


class BoundSchema(_Part):
    """A schema of the project beside its first one."""

    # `schema` would hide a method of pydantic's.
    schema_name: Annotated[str, Field(alias="schema")]
    exposed: Annotated[bool, Field(description="Whether the API serves it.")]


class BoundWorkload(_Part):
    """How a workload of the project signs in to OpenBao."""

    level: AccessLevel
    method: WorkloadMethod
    mount: Annotated[str, Field(description="The auth method's, without `auth/`.")]
    role: str
    namespace: Annotated[str | None, Field(description="Kubernetes.")] = None
    service_account: Annotated[str | None, Field(description="Kubernetes.")] = None
    audience: Annotated[str | None, Field(description="Kubernetes: whom the account's tokens are for.")] = None
    secret_id_ttl_seconds: Annotated[int | None, Field(description="AppRole.")] = None


class BoundStorage(_Part):
    """The project's buckets."""

    url: str
    bucket: Annotated[str, Field(description="The ID of its first bucket.")]
    buckets: Annotated[dict[str, str] | None, Field(description="The IDs of its further buckets, by name.")] = None
    token_path: Annotated[str, Field(description="Where OpenBao issues the token that manages the buckets.")]


class BoundRealtime(_Part):
    """The project's topics."""

    url: str
    project: Annotated[str, Field(description="What a client names in the parameter `project` of its connection.")]
    private: bool = True


class TenantBinding(_Part):
    """Everything that a consumer binds to. Holds no secret: credentials are leased from the paths in it."""

    project: str
    display_name: str
    lifecycle: Lifecycle
    # `schema` would hide a method of pydantic's.
    schema_name: Annotated[str, Field(alias="schema")]
    schemas: Annotated[dict[str, BoundSchema], Field(description="Declared schemas beside that, by name.")] = {}
    database: BoundDatabase
    api_url: Annotated[str, Field(description="Of PostgREST.")]
    exposed: Annotated[bool, Field(description="Whether the API serves the schema.")]
    required_managed_services: list[str]
    openbao_address: str
    lease_paths: Annotated[dict[AccessLevel, str], Field(description="Where OpenBao issues connection leases.")]
    token_paths: Annotated[dict[AccessLevel, str], Field(description="Where it issues API tokens.")]
    publishable_key_path: Annotated[str, Field(description="Where it keeps the key that goes with every API token.")]
    lease_ttl_seconds: int
    pooler: Annotated[PoolerEndpoint | None, Field(description="Null where there is none.")] = None
    workloads: dict[str, BoundWorkload] = {}
    storage: Annotated[BoundStorage | None, Field(description="Absent without the managed service.")] = None
    realtime: Annotated[BoundRealtime | None, Field(description="Absent without the managed service.")] = None

    @property
    def attached(self) -> bool:
        """Whether anything can be leased."""
        return self.lifecycle is Lifecycle.ATTACHED

    @classmethod
    def read(cls, document: object, place: str) -> Self:
        """A binding that a stack exported or a file holds.

        Args:
            place: where it was found, for messages.

        Raises:
            BindingError: if it is none, with the first field that is wrong.
        """
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            slug = document.get("project") if isinstance(document, Mapping) else None
            where = f"{place}, binding of {slug}" if slug else place
            problem = next(problems_of(error, where, cls))
            raise BindingError(f"{problem}. Bring its cell up, which exports it again") from error

    def document(self) -> dict[str, Any]:
        """As a cell exports it: what does not apply is absent, but for the pooler."""
        found = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        return {**found, "pooler": found.get("pooler")}


def read_bindings(tenants: Mapping[str, object], place: str) -> dict[str, TenantBinding]:
    """The output ``tenants`` of a cell, by slug.

    Raises:
        BindingError: if one of them is no binding.
    """
    return {slug: TenantBinding.read(document, place) for slug, document in tenants.items()}


def binding_json_schema() -> dict[str, Any]:
    """The JSON Schema of a binding, for programs that read it."""
    schema = TenantBinding.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
