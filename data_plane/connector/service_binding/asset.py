"""The project asset: what a project's repository and the catalog keep of its slice of the central Supabase."""

import json
from typing import Annotated, Any, Final, Literal, cast

from pydantic import Field, ValidationError

from data_plane.connector.service_binding.documents import GENERATOR
from data_plane.connector.service_binding.target import Service
from data_plane.errors import ServiceBindingError
from data_plane.model.naming import AccessLevel
from data_plane.model.projects import ManagedService
from data_plane.model.strict import StrictModel
from data_plane.model.tenant_binding import TenantBinding

__all__ = ["API_VERSION", "ProjectAsset", "asset_json_schema", "asset_text", "project_asset"]

API_VERSION: Final = "supabase-data-plane/v1"
"""Raised by whatever a reader of the former version would misunderstand."""


class AssetLease(StrictModel):
    """How credentials are had."""

    access_level: AccessLevel
    openbao_address: str
    lease_path: Annotated[str, Field(description="Read it: a login and its password, for a while.")]
    token_path: Annotated[
        str | None, Field(description="Read it: an API token. Absent where there is no API for this level.")
    ] = None
    ttl_seconds: Annotated[int, Field(ge=1, description="How long a lease lasts before it is renewed.")]
    command: Annotated[str, Field(description="The same for people.")]


class AssetDatabase(StrictModel):
    """Where the database is."""

    host: str
    port: Annotated[int, Field(ge=1, le=65535)]
    database: str
    sslmode: str


class AssetStorage(StrictModel):
    """The project's buckets."""

    url: str
    bucket: Annotated[str, Field(description="The ID of its first bucket.")]
    buckets: Annotated[
        dict[str, str] | None,
        Field(description="The IDs of its further buckets by name. Absent where its file declares none."),
    ] = None
    token_path: Annotated[
        str | None, Field(description="Read it: a token that manages the bucket. Absent but for service_role.")
    ] = None


class AssetSchema(StrictModel):
    """A schema of the project beside its first one."""

    # `schema` would hide a method of pydantic's.
    schema_name: Annotated[str, Field(alias="schema")]
    exposed: Annotated[bool, Field(description="Whether the API serves it.")]


class AssetRealtime(StrictModel):
    """Broadcast and presence, in topics that are the project's."""

    url: str
    project: Annotated[str, Field(description="What a client names in the parameter `project` of its connection.")]
    private: Annotated[Literal[True], Field(description="Every channel has to be a private one.")] = True


class ProjectAsset(StrictModel):
    """A project's binding to its slice of the central Supabase. Holds no secret."""

    generated_by: Literal["dataplane project binding"] = GENERATOR
    api_version: Literal["supabase-data-plane/v1"] = API_VERSION
    kind: Literal["ProjectAsset"] = "ProjectAsset"
    binding: Literal["repository/asset"] = "repository/asset"
    connector: Literal["supabase"] = "supabase"
    project: str
    display_name: str
    environment: str
    # `schema` would hide a method of pydantic's.
    schema_name: Annotated[str, Field(alias="schema", description="The schema that is the project's.")]
    schemas: Annotated[
        dict[str, AssetSchema] | None, Field(description="Declared schemas beside that, by name; absent without any.")
    ] = None
    required_managed_services: Annotated[list[ManagedService], Field(min_length=1)]
    database: AssetDatabase
    api_url: Annotated[str | None, Field(description="Absent where there is no API for this level.")] = None
    storage: Annotated[AssetStorage | None, Field(description="Absent without the managed service.")] = None
    realtime: Annotated[AssetRealtime | None, Field(description="Absent without the managed service.")] = None
    migrations: Annotated[str, Field(description="The folder of the repository whose files are the schema's.")] = (
        "supabase/migrations"
    )
    lease: AssetLease


def project_asset(binding: TenantBinding, service: Service, environment: str) -> ProjectAsset:
    """The asset of a tenant.

    Args:
        binding: the tenant's, as the cell's stack exports it.
        service: the same at one level.

    Raises:
        ConnectorError: if the binding has something that no asset can have.
    """
    command = f"dataplane lease --project {service.names.slug} --as {service.level} --environment {environment}"
    try:
        return ProjectAsset(
            project=service.names.slug,
            display_name=binding.display_name,
            environment=environment,
            schema_name=binding.schema_name,
            schemas={
                name: AssetSchema.model_validate(found.model_dump(include={"schema_name", "exposed"}))
                for name, found in binding.schemas.items()
            }
            or None,
            required_managed_services=cast("list[ManagedService]", binding.required_managed_services),
            database=AssetDatabase(
                host=service.host, port=service.port, database=service.database, sslmode=service.sslmode
            ),
            api_url=service.api_url,
            storage=_storage(binding, service.level),
            realtime=None
            if binding.realtime is None
            else AssetRealtime(url=binding.realtime.url, project=binding.realtime.project),
            lease=AssetLease(
                access_level=service.level,
                openbao_address=service.openbao_address,
                lease_path=service.lease_path,
                token_path=service.token_path if service.api_url else None,
                ttl_seconds=service.lease_ttl_seconds,
                command=command,
            ),
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ServiceBindingError(
            f"the binding of {service.names.slug} makes no asset: {field}: {first['msg']}"
        ) from error


def _storage(binding: TenantBinding, level: AccessLevel) -> AssetStorage | None:
    found = binding.storage
    if found is None:
        return None
    token_path = found.token_path if level is AccessLevel.SERVICE_ROLE else None
    return AssetStorage(url=found.url, bucket=found.bucket, buckets=found.buckets, token_path=token_path)


def asset_text(asset: ProjectAsset) -> str:
    """As it is written: names as in JSON, nothing that is absent."""
    return json.dumps(asset.model_dump(mode="json", by_alias=True, exclude_none=True), indent=2) + "\n"


def asset_json_schema() -> dict[str, Any]:
    """The JSON Schema of a project asset, for editors and other tools."""
    schema = ProjectAsset.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
