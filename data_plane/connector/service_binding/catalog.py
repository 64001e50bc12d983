"""The entry of the service catalog that stands where a project's own PostgreSQL stood, generated from the code."""

import json
from typing import Any

from data_plane.connector.service_binding.asset import API_VERSION, asset_json_schema
from data_plane.connector.service_binding.request import BindingForm, BindRequest
from data_plane.model.naming import AccessLevel
from data_plane.model.projects import ManagedService
from data_plane.state_dir import CHECKOUT

__all__ = ["SERVICE_CATALOGUE_FILE", "service_catalog_text", "service_entry"]

SERVICE_CATALOGUE_FILE = CHECKOUT / "service-catalog.json"

_DRAFT = "https://json-schema.org/draft/2020-12/schema"

_FORMS = {
    BindingForm.ASSET: ("the project asset, for the repository and the catalog", "application/json"),
    BindingForm.DOKPLOY: ("a compose file with an OpenBao agent, which the project's own includes", "application/yaml"),
    BindingForm.KUBERNETES: ("manifests after the Service Binding specification", "application/yaml"),
}
_PROVIDES = {
    ManagedService.POSTGRES: "a schema of the central PostgreSQL, which outlives the workspace",
    ManagedService.AUTH: "sign-in of the project's own users",
    ManagedService.STORAGE: "a bucket for files",
    ManagedService.REALTIME: "broadcast and presence in topics of the project's own",
}


def service_entry() -> dict[str, Any]:
    """The entry ``supabase``, for a platform that binds workspaces to services."""
    return {
        "name": "supabase",
        "displayName": "Supabase (central)",
        "connector": "supabase",
        "scope": "project",
        "replaces": ["postgres", "dokploy/postgres"],
        "provides": {service.value: _PROVIDES[service] for service in ManagedService},
        "requiredManagedServices": [ManagedService.POSTGRES.value],
        "credentials": {"kind": "lease", "issuer": "openbao", "levels": [level.value for level in AccessLevel]},
        "migrations": "supabase/migrations",
        "attach": "upsert_database_project_access",
        "bind": {
            "function": "data_plane.connector.service_binding:binding_text",
            "distribution": "supabase-data-plane",
            "command": "dataplane project binding --project SLUG --form FORM",
            "inputs": {"$schema": _DRAFT, **BindRequest.model_json_schema(by_alias=True)},
            "forms": {
                form.value: {"description": description, "mediaType": media_type}
                for form, (description, media_type) in _FORMS.items()
            },
        },
        "asset": {"apiVersion": API_VERSION, "schema": asset_json_schema()},
    }


def service_catalog_text() -> str:
    """The committed file."""
    return json.dumps({"services": [service_entry()]}, indent=2) + "\n"
