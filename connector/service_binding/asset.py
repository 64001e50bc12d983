"""The project asset: what a project's repository and the catalogue keep of its slice of the central Supabase."""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError

from components.naming import AccessLevel
from components.projects import ManagedService
from components.strict import StrictModel
from connector.errors import ConnectorError
from connector.service_binding.documents import GENERATOR
from connector.service_binding.target import Service

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
    """The project's bucket."""

    url: str
    bucket: str
    token_path: Annotated[
        str | None, Field(description="Read it: a token that manages the bucket. Absent but for service_role.")
    ] = None


class ProjectAsset(StrictModel):
    """A project's binding to its slice of the central Supabase. Holds no secret."""

    generated_by: Literal["dataplane bind"] = GENERATOR
    api_version: Literal["supabase-data-plane/v1"] = API_VERSION
    kind: Literal["ProjectAsset"] = "ProjectAsset"
    binding: Literal["repository/asset"] = "repository/asset"
    connector: Literal["supabase"] = "supabase"
    project: str
    display_name: str
    environment: str
    # `schema` would hide a method of pydantic's.
    schema_name: Annotated[str, Field(alias="schema", description="The schema that is the project's.")]
    required_managed_services: Annotated[list[ManagedService], Field(min_length=1)]
    database: AssetDatabase
    api_url: Annotated[str | None, Field(description="Absent where there is no API for this level.")] = None
    storage: Annotated[AssetStorage | None, Field(description="Absent without the managed service.")] = None
    migrations: Annotated[str, Field(description="The folder of the repository whose files are the schema's.")] = (
        "supabase/migrations"
    )
    lease: AssetLease


def project_asset(binding: Mapping[str, Any], service: Service, environment: str) -> ProjectAsset:
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
            display_name=binding["displayName"],
            environment=environment,
            schema_name=binding["schema"],
            required_managed_services=binding["requiredManagedServices"],
            database=AssetDatabase(
                host=service.host, port=service.port, database=service.database, sslmode=service.sslmode
            ),
            api_url=service.api_url,
            storage=_storage(binding, service.level),
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
        raise ConnectorError(f"the binding of {service.names.slug} makes no asset: {field}: {first['msg']}") from None


def _storage(binding: Mapping[str, Any], level: AccessLevel) -> AssetStorage | None:
    if "storage" not in binding:
        return None
    found = AssetStorage.model_validate(binding["storage"])
    return found if level is AccessLevel.SERVICE_ROLE else found.model_copy(update={"token_path": None})


def asset_text(asset: ProjectAsset) -> str:
    """As it is written: names as in JSON, nothing that is absent."""
    return json.dumps(asset.model_dump(mode="json", by_alias=True, exclude_none=True), indent=2) + "\n"


def asset_json_schema() -> dict[str, Any]:
    """The JSON Schema of a project asset, for editors and other tools."""
    schema = ProjectAsset.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
