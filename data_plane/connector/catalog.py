"""The ``supabase`` entry of the connector catalog, generated from the code that carries its actions out."""

import json
from typing import Any

from data_plane.connector.actions import ACTIONS, ActionResult, UpsertInputs, supabase_role_of
from data_plane.connector.executor import SupabaseExecutor
from data_plane.model.access import FractalOpsRole
from data_plane.model.naming import AccessLevel
from data_plane.model.projects import ManagedService
from data_plane.state_dir import CHECKOUT

__all__ = ["CATALOGUE_FILE", "catalog_text", "connector_entry"]

CATALOGUE_FILE = CHECKOUT / "connector-catalog.json"

_DRAFT = "https://json-schema.org/draft/2020-12/schema"


def connector_entry() -> dict[str, Any]:
    """The connector as the platform around this program lists it."""
    return {
        "name": "supabase",
        "displayName": "Supabase (central)",
        # The platform's own registry declares it; this program carries it out.
        "kind": "hybrid",
        "scope": "project",
        "targets": ["supabase"],
        "executor": f"{SupabaseExecutor.__module__}:{SupabaseExecutor.__qualname__}",
        "distribution": "supabase-data-plane[program]",
        "requiredManagedServices": [ManagedService.POSTGRES.value],
        "managedServices": [service.value for service in ManagedService],
        "secretsPath": "connectors/supabase",
        "roleMap": {role.value: supabase_role_of(role).value for role in FractalOpsRole},
        "leases": {"issuer": "openbao", "levels": [level.value for level in AccessLevel]},
        "actions": [_action(name, inputs) for name, inputs in ACTIONS.items()],
    }


def catalog_text() -> str:
    """The committed file."""
    return json.dumps({"connectors": [connector_entry()]}, indent=2) + "\n"


def _action(name: str, inputs: type[UpsertInputs]) -> dict[str, Any]:
    return {
        "name": name,
        "description": (inputs.__doc__ or "").partition("\n")[0],
        "idempotent": True,
        "dryRun": True,
        "inputs": {"$schema": _DRAFT, **inputs.model_json_schema()},
        "outputs": {"$schema": _DRAFT, **ActionResult.model_json_schema(mode="serialization")},
    }
