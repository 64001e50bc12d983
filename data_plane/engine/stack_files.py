"""What a checkout says of its stacks: configuration, and the policies that they have to pass."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from data_plane.errors import StackNotFoundError

__all__ = ["StackConfig", "has_settings", "load_config", "policy_config", "policy_packs", "project_name", "stack_file"]


@dataclass(frozen=True)
class StackConfig:
    """A stack's configuration: full key (``project:name``) to value; objects as JSON, as the SDK reads them."""

    values: dict[str, str]
    secrets: frozenset[str] = frozenset()


def load_config(root: Path, stack: str, extra: Mapping[str, Any], secrets: Mapping[str, str]) -> StackConfig:
    """The configuration of a stack: defaults of Pulumi.yaml, the stack's file, then what is only known here.

    Args:
        root: the checkout.
        extra: further settings by name, without the project.
        secrets: secret settings by name.

    Raises:
        DataPlaneError: if there is no such stack.
    """
    file = stack_file(root, stack)
    project = _yaml(root / "Pulumi.yaml")
    name = project["name"]
    defaults = {f"{name}:{key}": item["default"] for key, item in project["config"].items() if "default" in item}
    merged = {
        **defaults,
        **(_yaml(file).get("config") or {}),
        **{f"{name}:{key}": value for key, value in {**extra, **secrets}.items()},
    }
    return StackConfig(
        {key: value if isinstance(value, str) else json.dumps(value) for key, value in merged.items()},
        frozenset(f"{name}:{key}" for key in secrets),
    )


def project_name(root: Path) -> str:
    """The Pulumi project of a checkout."""
    return str(_yaml(root / "Pulumi.yaml")["name"])


def has_settings(root: Path, stack: str) -> bool:
    """Whether a stack has a committed configuration."""
    return _stack_file(root, stack).is_file()


def stack_file(root: Path, stack: str) -> Path:
    """The committed configuration of a stack.

    Raises:
        DataPlaneError: if there is no such stack.
    """
    file = _stack_file(root, stack)
    if not file.is_file():
        known = sorted(path.name.split(".")[1] for path in file.parent.glob("Pulumi.*.yaml"))
        raise StackNotFoundError(f"there is no stack {stack!r}; there are: {', '.join(known)}")
    return file


def _stack_file(root: Path, stack: str) -> Path:
    return root / str(_yaml(root / "Pulumi.yaml")["stackConfigDir"]) / f"Pulumi.{stack}.yaml"


def policy_packs(root: Path) -> list[Path]:
    """The policy packs that a checkout's stacks have to pass."""
    return [root / "policies"] if (root / "policies" / "PulumiPolicy.yaml").is_file() else []


def policy_config(root: Path) -> Path | None:
    """What a checkout says of the policies' levels and settings, as the CLI's ``--policy-pack-config`` takes it."""
    file = root / "stacks" / "policies.json"
    return file if file.is_file() else None


def _yaml(path: Path) -> dict[str, Any]:
    return _parsed(path.read_text(encoding="utf-8"))


@lru_cache(maxsize=64)
def _parsed(text: str) -> dict[str, Any]:
    """Every run reads the same few files, some of them several times."""
    return dict(YAML(typ="safe").load(text) or {})
