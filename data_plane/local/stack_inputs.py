"""What a stack's run depends on, as one digest: where it is that of the last run, nothing would change."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import hvac
import requests
from hvac.exceptions import InvalidPath, VaultError

from data_plane.engine.stack_files import stack_file
from data_plane.model.naming import CONNECTORS_MOUNT
from data_plane.model.projects import Project, api_servers, known_cells
from data_plane.state_dir import SOURCES

__all__ = ["digest", "of_cell", "of_central", "of_openbao"]

_CODE = [SOURCES / name for name in ("components", "data_plane/clients", "data_plane/model", "policies")]
_FILES = ("__main__.py", "Pulumi.yaml", "stacks/policies.json", "stacks/images.yaml", "stacks/resources.yaml")
_PACKAGES = ("pulumi", "pulumi-kubernetes", "pulumi-postgresql", "pulumi-vault")


def digest(root: Path, stack: str, *further: object) -> str:
    """The digest of the program, of a stack's file, and of whatever else the stack's run depends on."""
    paths = [root / name for name in _FILES]
    for folder in [*_CODE, root / "policies"]:
        paths += sorted(path for path in folder.rglob("*") if "__pycache__" not in path.parts and path.is_file())
    hasher = hashlib.sha256(json.dumps([[version(name) for name in _PACKAGES], *further], sort_keys=True).encode())
    for path in [*paths, stack_file(root, stack)]:
        content = path.read_bytes() if path.is_file() else b""
        hasher.update(f"\n{path} {len(content)}\n".encode() + content)
    return hasher.hexdigest()


def of_central(root: Path, environment: str, central: str, projects: Iterable[Project]) -> list[str]:
    """What a central stack takes of the projects: the PostgRESTs that it has for them."""
    return [repr(server) for server in api_servers(projects, known_cells(root, environment, central=central))]


def of_cell(cell: str, projects: Iterable[Project], central_outputs: Mapping[str, Any]) -> list[object]:
    """What a cell takes of its projects and of its central stack."""
    mine = sorted(project.model_dump_json() for project in projects if project.cell == cell)
    return [mine, dict(central_outputs)]


def of_openbao(client: hvac.Client) -> dict[str, Any] | None:
    """What a run looks up in OpenBao that changes by rotation: versions of the platform's secrets, public keys.

    Returns:
        None if OpenBao does not say.
    """
    try:
        return _of_openbao(client)
    except InvalidPath:
        return {}
    except (VaultError, requests.RequestException):
        return None


def _of_openbao(client: hvac.Client) -> dict[str, Any]:
    listed = client.secrets.kv.v2.list_secrets(path="", mount_point=CONNECTORS_MOUNT)
    read = client.secrets.kv.v2.read_secret_metadata
    found: dict[str, Any] = {
        name: read(path=name, mount_point=CONNECTORS_MOUNT)["data"]["current_version"]
        for name in listed["data"]["keys"]
        if not name.endswith("/")
    }
    return {**found, "keys": client.read("identity/oidc/.well-known/keys")}
