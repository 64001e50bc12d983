"""Which resources belong to the central stack, by what no project can forge.

All of these have to hold:
    - the engine's URN names this Pulumi project and a stack that this checkout declares as central (its reviewed
      ``stacks/Pulumi.<stack>.yaml`` says ``kind: central``), or that the pack's settings list in ``centralStacks``.
      A backend has each project and stack once, so to run under that name is to run the central stack itself;
    - it is the stack that the engine says it is running;
    - the outermost component that the resource is in is the central one.

Labels, tags, names and the stack's own configuration count for nothing: the author of a program chooses them.
"""

import os
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from policies.rules import Config, Resource

__all__ = ["CENTRAL_SETTINGS", "is_central", "is_central_stack"]

_ROOT = Path(__file__).resolve().parents[1]
_COMPONENT = "supabase-data-plane:central:SupabaseCentral"

CENTRAL_SETTINGS: dict[str, dict[str, Any]] = {
    "centralStacks": {
        "type": "array",
        "items": {"type": "string"},
        "default": [],
        "description": "Central stacks besides those that stacks/Pulumi.<stack>.yaml of this checkout declare.",
    },
}


def is_central(resource: Resource, config: Config) -> bool:
    """Whether a resource is part of the central Supabase."""
    return is_central_stack(resource, config) and resource.parent_types[:1] == (_COMPONENT,)


def is_central_stack(resource: Resource, config: Config) -> bool:
    """Whether a resource, in whatever component, is in the stack of the central Supabase."""
    return (
        resource.project == _project()
        and resource.stack == os.environ.get("PULUMI_STACK", resource.stack)
        and resource.stack in {*_declared(), *config.get("centralStacks", ())}
    )


@cache
def _project() -> str:
    return str(yaml.safe_load((_ROOT / "Pulumi.yaml").read_text(encoding="utf-8"))["name"])


@cache
def _declared() -> frozenset[str]:
    found = set()
    for path in (_ROOT / "stacks").glob("Pulumi.*.yaml"):
        config = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("config") or {}
        if config.get(f"{_project()}:kind") == "central":
            found.add(path.name.removeprefix("Pulumi.").removesuffix(".yaml"))
    return frozenset(found)
