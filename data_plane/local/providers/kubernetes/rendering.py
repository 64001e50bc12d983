"""Manifests as files instead of objects on a cluster, laid out as the Kubernetes provider does.

Definitions are in ``0-crd/`` and everything else in ``1-manifest/``, so that applying the folders in order works.
"""

import base64
import os
import re
from pathlib import Path
from typing import Any

import yaml

from data_plane.local.providers.base import Inputs
from data_plane.local.providers.kubernetes.manifests import Manifest, to_wire
from data_plane.local.yaml_loader import SAFE_LOADER

__all__ = ["Folder", "rendered", "to_yaml"]

_CRD = "CustomResourceDefinition"
_PARTS = ("0-crd", "1-manifest")
# Parsers of YAML 1.1 and 1.2 do not agree on these.
_AMBIGUOUS = re.compile(r"[yn]|[-+]?\.?[0-9][0-9_]*([.eE:xXoO+-][0-9a-fA-F_.:+-]*)?", re.IGNORECASE)

_OTHER_BREAKS = re.compile("[\\x85\\u2028\\u2029\\ufeff]")


class Folder:
    """A folder of manifests.

    Args:
        path: where it is, or will be.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def file(self, document: Inputs) -> Path:
        """Where an object's manifest belongs, whether it is there or not."""
        metadata, kind = document["metadata"], document["kind"]
        version = re.sub("[/:]", "_", document["apiVersion"])
        name = f"{version}-{kind.lower()}-{metadata.get('namespace') or 'default'}-{metadata['name']}.yaml"
        return self.path / _PARTS[kind != _CRD] / name

    def read(self, path: Path) -> Manifest | None:
        """The manifest in a file; None if there is none, or it is no manifest."""
        try:
            document = yaml.load(path.read_text(encoding="utf-8"), SAFE_LOADER)  # noqa: S506 a safe one
        except (FileNotFoundError, yaml.YAMLError):
            return None
        return document if isinstance(document, dict) and isinstance(document.get("metadata"), dict) else None

    def write(self, path: Path, document: Manifest) -> None:
        """Writes a manifest, whole or not at all, for this user alone: it may hold secrets."""
        for part in _PARTS:
            (self.path / part).mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(to_yaml(document))
        draft.replace(path)


def rendered(document: Inputs) -> Manifest:
    """An object as its file has it; a Secret as a server would store it, for those who read the files."""
    wire = to_wire(document)
    texts = wire.pop("stringData", None) if (wire["apiVersion"], wire["kind"]) == ("v1", "Secret") else None
    if texts:
        data = {key: base64.b64encode(str(text).encode()).decode() for key, text in texts.items()}
        wire["data"] = {**(wire.get("data") or {}), **data}
    return wire


class _Dumper(yaml.SafeDumper):
    """Long lines stay whole, texts of many lines stay readable, and nothing can be read as anything but what it is."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style: str | None = "|" if "\n" in text else None
    if _AMBIGUOUS.fullmatch(text) or _OTHER_BREAKS.search(text):
        style = '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def to_yaml(document: Manifest) -> str:
    """A manifest as YAML, its keys in order."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=True, allow_unicode=True, width=2**31 - 1)
