"""Every image that a document names, wherever containers run that are not Kubernetes'."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress

from policies.containers import Container
from policies.texts import decoded, documents_in
from policies.unknown import is_unknown
from policies.values import mappings, text_of, texts_of

__all__ = ["containers_run", "image_references"]

_DOCKERFILE_FROM = re.compile(
    r"^[^\S\n]*FROM[^\S\n]+(?:--\S+[^\S\n]+)*(\S+)(?:[^\S\n]+AS[^\S\n]+\S+)?[^\S\n]*\r?$", re.IGNORECASE | re.MULTILINE
)
_CERTAIN = re.compile(r"compose|stackfile")
"""Of the keys of texts, those of which YAML that cannot be read is no other text."""
_HCL_IMAGE = re.compile(r'\bimage[^\S\n]*=[^\S\n]*"([^"\n]+)"')
_IMAGE_KEYS = frozenset({
    "image", "imagename", "imageuri", "imageidentifier", "baseimage", "dockerimage", "dockerimagename",
    "containerimage", "imageurl", "linuxfxversion", "windowsfxversion", "sourceimage", "dockerimageurl",
    "imageref", "imagepath", "registryimage",
})  # fmt: skip
_TEXT_KEYS = frozenset({
    "composefile", "composecontent", "compose", "dockercomposeraw", "dockercompose", "stackfilecontent",
    "jobspec", "containerdefinitions", "containerproperties", "ecsproperties", "eksproperties", "inline",
    "dockerfile", "dockerfilecontent", "content", "templatebody", "templatecontent", "template", "services",
    "manifest", "yamlbody", "spec", "composeyaml",
})  # fmt: skip
_VARIABLES = ("env", "envs", "environment", "environmentvariables", "envvars", "variables")
_COMMANDS = ("entrypoint", "entrypoints", "command", "commands", "cmd", "args", "arguments")
_MOUNTS = ("volumes", "mounts", "mountpoints", "volumemounts", "tmpfs")
_TARGETS = ("containerPath", "ContainerPath", "container_path", "target", "mountPath", "mount_path", "path")
# `repository` is an image's only beside what else says which; a repository of code is none.
_BESIDE_REPOSITORY = frozenset({"tag", "registry", "registrytype", "digest", "imagetag", "tagordigest"})


def containers_run(value: object, path: str = "", depth: int = 48) -> Iterator[Container]:
    """Every container that a document runs, also in the JSON, YAML, HCL or Dockerfile that it holds as a text."""
    if depth == 0:
        return
    if isinstance(value, Mapping):
        names = {str(key).lower().replace("_", ""): key for key in value}
        for name, key in names.items():
            here, entry = f"{path}.{key}" if path else str(key), value[key]
            if isinstance(entry, str):
                yield from _in_entry(name, entry, here, {known: value[own] for known, own in names.items()}, depth)
            elif entry is not None:
                yield from containers_run(entry, here, depth - 1)
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            if isinstance(entry, str) and entry[:1] in {"{", "["}:
                yield from _in_text("", entry, f"{path}[{index}]", depth - 1)
            else:
                yield from containers_run(entry, f"{path}[{index}]", depth - 1)


def _in_entry(name: str, entry: str, path: str, beside: Mapping[str, object], depth: int) -> Iterator[Container]:
    if name in _IMAGE_KEYS or (name == "repository" and _BESIDE_REPOSITORY.intersection(beside)):
        kind, _, rest = entry.partition("|")
        if kind.upper() == "COMPOSE":
            yield from _in_text("compose", decoded(rest), path, depth - 1)
        else:
            yield _container(rest or entry, path, beside)
    elif not is_unknown(entry) and (name in _TEXT_KEYS or entry.lstrip()[:1] in {"{", "["}):
        yield from _in_text(name, entry, path, depth - 1)


def _container(image: str, path: str, beside: Mapping[str, object]) -> Container:
    """A container by what stands beside its image, in the ways that Docker, Compose and the clouds write it."""
    mounts = [
        *(text_of(entry.get(key)) for name in _MOUNTS for entry in mappings(beside.get(name)) for key in _TARGETS),
        *(part for name in _MOUNTS for entry in texts_of(beside.get(name)) for part in entry.split(":")[:2]),
    ]
    return Container(
        name=text_of(beside.get("name")),
        image=text_of(image),
        command=[word for name in _COMMANDS for word in texts_of(beside.get(name))],
        variables=dict(pair for name in _VARIABLES for pair in _pairs(beside.get(name))),
        mounts=[mount for mount in mounts if mount.startswith("/")],
        path=path,
    )


def _pairs(variables: object) -> Iterator[tuple[str, str]]:
    if isinstance(variables, Mapping):
        yield from ((str(name), text_of(value)) for name, value in variables.items())
    for entry in variables if isinstance(variables, list) else ():
        if isinstance(entry, Mapping):
            yield text_of(entry.get("name", entry.get("Name"))), text_of(entry.get("value", entry.get("Value")))
        elif isinstance(entry, str):
            name, _, value = entry.partition("=")
            yield name, value


def image_references(value: object) -> Iterator[tuple[str, str]]:
    """Every image that a document names, and where."""
    return ((container.path, container.image) for container in containers_run(value))


def _in_text(name: str, text: str, path: str, depth: int) -> Iterator[Container]:
    # What begins with `from` is a base only in a Dockerfile: SQL and Python have that word too.
    found = _DOCKERFILE_FROM.findall(text) if "dockerfile" in name or name == "inline" else []
    if found:
        yield from (Container("", reference, path=f"{path}: FROM") for reference in found)
        return
    documents = [document for document in _structured(name, text) if isinstance(document, Mapping | list)]
    for document in documents:
        yield from containers_run(document, path, depth)
    if not documents:
        # A Nomad job: image = "postgres:16".
        yield from (Container("", reference, path=path) for reference in _HCL_IMAGE.findall(text))


def _structured(name: str, text: str) -> list[object]:
    if text.lstrip()[:1] in {"{", "["}:
        with suppress(ValueError, RecursionError):
            return [json.loads(text)]
    return documents_in(text, any_tag=True, guessed=not _CERTAIN.search(name))
