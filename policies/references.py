"""Every image that a document names, wherever containers run that are not Kubernetes'."""

import re
from collections.abc import Iterator, Mapping

from policies.documents import documents_in
from policies.rules import is_unknown

__all__ = ["image_references"]

_DOCKERFILE_FROM = re.compile(r"^\s*FROM\s+(?:--\S+\s+)*(\S+)", re.IGNORECASE | re.MULTILINE)
_IMAGE_KEYS = frozenset({"image", "imagename", "imageuri", "imageidentifier", "baseimage", "dockerimage", "repository"})
_TEXT_KEYS = frozenset({"composefile", "composecontent", "compose", "dockercomposeraw", "stackfilecontent", "jobspec",
                        "containerdefinitions", "inline", "dockerfile", "content"})  # fmt: skip


def image_references(value: object, path: str = "", depth: int = 48) -> Iterator[tuple[str, str]]:
    """Every image that a document names, also in the JSON, YAML, HCL or Dockerfile that it holds as a text."""
    if depth == 0:
        return
    if isinstance(value, Mapping):
        for key, entry in value.items():
            here = f"{path}.{key}" if path else str(key)
            name = str(key).lower().replace("_", "")
            if isinstance(entry, str) and not is_unknown(entry):
                if name in _IMAGE_KEYS:
                    yield here, entry
                elif name in _TEXT_KEYS:
                    yield from _in_text(entry, here, depth - 1)
            else:
                yield from image_references(entry, here, depth - 1)
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            yield from image_references(entry, f"{path}[{index}]", depth - 1)


def _in_text(text: str, path: str, depth: int) -> Iterator[tuple[str, str]]:
    found = _DOCKERFILE_FROM.findall(text)
    if found:
        yield from ((f"{path}: FROM", reference) for reference in found)
        return
    documents = [document for document in documents_in(text) if isinstance(document, Mapping | list)]
    for document in documents:
        yield from image_references(document, path, depth)
    if not documents:
        # A Nomad job: image = "postgres:16".
        yield from ((path, reference) for reference in re.findall(r'image\s*=\s*"([^"]+)"', text))
