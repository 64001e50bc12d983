"""Commands of a shell: whether one starts a PostgreSQL."""

import re
from collections.abc import Callable, Iterator

from policies.documents import chart_reasons, documents_in, object_reasons
from policies.images import classify
from policies.references import image_references

__all__ = ["started_by"]

_RUN = re.compile(
    r"\b(?:docker|podman|nerdctl)\s+(?:container\s+)?(?:run|create)\b([^\n;&|]*)"
    r"|\bkubectl\s+(?:run|create\s+deployment|set\s+image)\b([^\n;&|]*)"
)
# What an option is given is no image: `-e POSTGRES_DB=app`, `--name postgres`, `-v data:/var/lib/postgresql`.
_VALUED = (
    "name|network|link|env|hostname|label|volume|publish|restart|user|env-file|mount|memory|entrypoint|platform"
    "|namespace"
)
_OPTION = re.compile(rf"(?<=\s)--image[= ]|(?<=\s)(?:--[\w-]+=\S+|(?:--(?:{_VALUED})|-[evphlnwum])\s+\S+|-\S+)")
_HELM = re.compile(r"\bhelm\s+(?:upgrade|install|template)\b[^\n;&|]*")
_BUNDLED = re.compile(r"\bpostgresql(?:-ha)?\.enabled=true\b")
_PACKAGES = re.compile(r"\b(?:apt|apt-get|yum|dnf|apk|brew|zypper|pacman)\b[^\n;&|]*?\s(?:install|add|-S)\b([^\n;&|]*)")
_PACKAGE = re.compile(
    r"^(?:postgresql|postgres|postgis|timescaledb)(?:[-@]?\d+(?:\.\d+)?)?(?:-server|-contrib|-postgis\S*)?$"
)
_SERVER = re.compile(
    r"(?:^|[\s;&|(/'\"])(initdb|pg_ctl(?:cluster)?\s+[^\n;&|]*start|pg_createcluster|createdb|postgresql-setup"
    r"|cockroach\s+start|yugabyted\s+start|supabase\s+start|create\s+database"
    r"|(?:systemctl|service)\s+(?:(?:enable\s+--now|start|restart)\s+)?postgres(?:ql)?(?:[@-]\S+)?(?:\s+start)?)"
    r"(?=$|[\s;&|)'\"])",
    re.IGNORECASE,
)
_IMAGE_LINE = re.compile(r"^\s*(?:-\s+)?[\"']?image[\"']?\s*:\s*[\"']?([^\s\"',]+)", re.MULTILINE)


def started_by(text: str, allowed: Callable[[str], bool]) -> Iterator[str]:
    """Why a command starts a PostgreSQL server: one phrase for each.

    Args:
        text: what a shell is given.
        allowed: whether an image is no server although its name says so.
    """
    text = re.sub(r"\\\s*\n", " ", text)
    yield from _containers(text, allowed)
    yield from _installed(text)
    server = _SERVER.search(text)
    if server:
        yield f"runs `{' '.join(server.group(1).split()[:2])}`"
    yield from _manifests(text, allowed)


def _containers(text: str, allowed: Callable[[str], bool]) -> Iterator[str]:
    for found in _RUN.finditer(text):
        words = _OPTION.sub(" ", found.group(1) or found.group(2) or "").split()
        kubectl = found.group(2) is not None
        # `docker run IMAGE command`: only the first word is one; kubectl has its own names before it.
        for word in words if kubectl else words[:1]:
            reference = word.strip("\"'").rpartition("=")[2]
            family = classify(reference)
            if (
                family
                and not allowed(reference)
                and (not kubectl or re.search(r"[/:]", reference) or word == words[-1])
            ):
                yield f"runs {reference}, {family.value}"
                break


def _installed(text: str) -> Iterator[str]:
    for found in _HELM.finditer(text):
        # A release may have the name of a chart; a chart has a repository before it.
        charts = [word for word in found.group().split() if "/" in word or word.startswith("oci:")]
        yield from (f"installs: {reason}" for chart in charts for reason in chart_reasons(chart, "", {"": None}))
        if _BUNDLED.search(found.group()):
            yield "switches on the PostgreSQL server that a chart bundles"
    for found in _PACKAGES.finditer(text):
        package = next((word for word in found.group(1).split() if _PACKAGE.match(word.partition("=")[0])), "")
        if package:
            yield f"installs the package {package}"


def _manifests(text: str, allowed: Callable[[str], bool]) -> Iterator[str]:
    documents = documents_in(text) if "apiVersion" in text else []
    objects = [document for document in documents if isinstance(document, dict | list)]
    for document in objects:
        yield from (f"applies: {reason}" for reason in object_reasons(document))
    if objects:
        return
    # A compose file, or a manifest in a here-document, which is YAML only in part.
    references = _IMAGE_LINE.findall(text) or [reference for _, reference in image_references({"inline": text})]
    for reference in references:
        family = classify(reference)
        if family and not allowed(reference):
            yield f"starts {reference}, {family.value}"
    kinds = re.findall(r"^\s*apiVersion:\s*(\S+)\s*\n\s*kind:\s*(\S+)", text, re.MULTILINE)
    for version, kind in kinds:
        yield from (f"applies: {reason}" for reason in object_reasons({"apiVersion": version, "kind": kind}))
