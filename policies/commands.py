"""Commands of a shell: whether one starts a PostgreSQL, also by the manifests and files that it is given."""

import re
from collections.abc import Callable, Iterator

from policies.containers import Container
from policies.documents import object_findings, object_reasons
from policies.images import classify
from policies.programs import Allowed, commands_in, container_run, programs_started, statements_made
from policies.references import image_references
from policies.texts import documents_in

__all__ = ["started_by"]

Read = Callable[[str], str]
"""The text of a file that a command names; empty if it is not here."""

_IMAGE_LINE = re.compile(r"^[^\S\n]*(?:-[^\S\n]+)?[\"']?image[\"']?[^\S\n]*:[^\S\n]*[\"']?([^\s\"',]+)", re.MULTILINE)
_OBJECT_LINES = re.compile(r"^[^\S\n]*apiVersion:[^\S\n]*(\S+)[^\S\n]*\n[^\S\n]*kind:[^\S\n]*(\S+)", re.MULTILINE)
_FILES = {"-f", "--file", "--filename", "-k", "--kustomize", "-c", "--compose-file"}
_APPLIES = frozenset({"kubectl", "oc", "docker", "docker-compose", "podman", "podman-compose", "nerdctl", "kustomize"})


def started_by(text: str, allowed: Allowed, read: Read | None = None) -> Iterator[str]:
    """Why a command starts a PostgreSQL server: one phrase for each.

    Args:
        text: the command, or what else may hold one.
        allowed: says of an image that it may run although its name says that it is a server.
        read: reads the files that a command is given.
    """
    yield from programs_started(text, allowed)
    yield from statements_made(text)
    yield from _containers(text, allowed)
    yield from _manifests(text, allowed)
    for name in _named_files(text) if read else ():
        content = read(name) if read else ""
        yield from (f"applies {name}: {reason}" for reason in _manifests(content, allowed))


def _containers(text: str, allowed: Allowed) -> Iterator[str]:
    """What the containers that are run are told to do, mount and are given, whatever their images are called."""
    for words in commands_in(text):
        run = container_run(words)
        if run is None or classify(run.image) or allowed(run.image):
            continue
        given = [(name, value.strip("\"'")) for name, value in run.options]
        mounts = [value for name, value in given if name in {"-v", "--volume", "--mount", "--tmpfs"}]
        container = Container(
            name="",
            image=run.image,
            command=run.command,
            variables=dict(_pair(value) for name, value in given if name in {"-e", "--env"}),
            mounts=[part for mount in mounts for part in re.split(r"[:,=]", mount) if part.startswith("/")],
        )
        reason = container.forbidden()
        if reason:
            yield f"runs {run.image}: {reason}"


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name, value


def _named_files(text: str) -> Iterator[str]:
    for words in commands_in(text):
        if {word.rpartition("/")[2] for word in words[:4]} & _APPLIES:
            for index, word in enumerate(words):
                name, _, value = word.partition("=")
                if name in _FILES:
                    yield value or (words[index + 1] if index + 1 < len(words) else "")


def _manifests(text: str, allowed: Allowed) -> Iterator[str]:
    documents = documents_in(text, guessed=True) if "apiVersion" in text else []
    objects = [document for document in documents if isinstance(document, dict | list)]
    for document in objects:
        yield from (f"applies: {found.sentence}" for found in object_findings(document))
    if objects:
        return
    # A compose file, or a manifest in a here-document, which is YAML only in part.
    references = _IMAGE_LINE.findall(text) or [reference for _, reference in image_references({"inline": text})]
    for reference in references:
        family = classify(reference)
        if family and not allowed(reference):
            yield f"starts {reference}, {family.value}"
    for version, kind in _OBJECT_LINES.findall(text):
        yield from (f"applies: {reason}" for reason in object_reasons({"apiVersion": version, "kind": kind}))
