"""The entry of the service catalogue that stands where a project's own PostgreSQL stood."""

from enum import StrEnum
from typing import Any

from components.naming import AccessLevel
from components.projects import ManagedService
from connector.service_binding.asset import API_VERSION

__all__ = ["BindingForm", "catalogue_entry"]


class BindingForm(StrEnum):
    """What a binding is written as."""

    ASSET = "asset"
    DOKPLOY = "dokploy"
    KUBERNETES = "kubernetes"


_FORMS = {
    BindingForm.ASSET: "the project asset, for the repository and the catalogue",
    BindingForm.DOKPLOY: "a compose fragment with an OpenBao agent, for Dokploy",
    BindingForm.KUBERNETES: "manifests after the Service Binding specification, for a cluster",
}


def catalogue_entry() -> dict[str, Any]:
    """The entry ``supabase`` of the service catalogue."""
    return {
        "name": "supabase",
        "displayName": "Supabase (central)",
        "connector": "supabase",
        "assetApiVersion": API_VERSION,
        "scope": "project",
        "provides": {
            "postgres": "a schema of the central PostgreSQL, which outlives the workspace",
            "auth": "sign-in of the project's own users",
            "storage": "a bucket for files",
        },
        "requiredManagedServices": [ManagedService.POSTGRES.value],
        "managedServices": [service.value for service in ManagedService],
        "replaces": ["postgres", "dokploy/postgres"],
        "credentials": {"kind": "lease", "issuer": "openbao", "levels": [level.value for level in AccessLevel]},
        "migrations": "supabase/migrations",
        "forms": [
            {
                "name": form.value,
                "description": description,
                "command": f"dataplane bind --project SLUG --as LEVEL --form {form.value}",
            }
            for form, description in _FORMS.items()
        ],
    }
