"""What the runner has kept of a stack's outputs, read without the Pulumi SDK."""

from typing import Any

from data_plane.state_dir import StateDir

__all__ = ["plain_outputs", "state_file"]


def state_file(stack: str) -> str:
    """The file of a stack in the private folder."""
    return f"state/{stack}.json"


def plain_outputs(home: StateDir, stack: str) -> dict[str, Any]:
    """The outputs of a stack's last run that are not secret; empty if it was never brought up."""
    kept = (home.read_json(state_file(stack)) or {}).get("outputs") or {}
    return {name: entry["value"] for name, entry in kept.items() if "value" in entry}
