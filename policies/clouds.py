"""Resource types of clouds that are a PostgreSQL, in a program and in the templates that a cloud is given."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

from policies.tables import table
from policies.texts import decoded, documents_in
from policies.unknown import is_unknown
from policies.values import matches, values_at

__all__ = ["is_template", "resource_reason", "template_documents", "template_reasons"]

_BODIES = frozenset({"templatebody", "templatecontent", "template", "content", "body", "templatefragment"})
_TEMPLATES = re.compile(
    r"cloudformation|cloudcontrol|extensionresource|deploymentmanager|templatedeployment|resources(/[^:]*)?:(deployment|resource)"
    r"|^azapi:|^alicloud:ros|resourcemanager|^openstack:orchestration|^ibm:.*schematics|^serverless|^sam:",
    re.IGNORECASE,
)
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


@dataclass(frozen=True)
class _Type:
    pattern: str
    property: str
    values: str
    missing: bool


@cache
def _types() -> tuple[dict[str, tuple[_Type, ...]], tuple[_Type, ...]]:
    """The types by the package of their pattern, and those of any package."""
    packages: dict[str, tuple[_Type, ...]] = {}
    others: tuple[_Type, ...] = ()
    for entry in table("managed_databases.yaml"):
        found = _Type(
            entry["type"].lower(), entry.get("property", ""), entry.get("values", "*"), entry.get("missing", False)
        )
        package, separator, _ = found.pattern.partition(":")
        if separator and "*" not in package:
            packages[package] = (*packages.get(package, ()), found)
        else:
            others += (found,)
    return packages, others


def resource_reason(kind: str, properties: Mapping[str, Any]) -> str:
    """Why a resource is a managed PostgreSQL, in words; empty if it is none.

    Args:
        kind: its type: Pulumi's token, or what CloudFormation, ARM or Deployment Manager call it.
        properties: what it is given.
    """
    token = kind.lower()
    packages, others = _types()
    for entry in (*packages.get(token.partition(":")[0], ()), *others):
        if not fnmatchcase(token, entry.pattern):
            continue
        if not entry.property:
            return f"{kind} is a managed PostgreSQL"
        parent, _, name = entry.property.rpartition(".")
        for holder in values_at(properties, parent):
            found = list(values_at(holder, name))
            value = next((value for value in found if matches(value, entry.values)), None)
            if value is not None:
                shown = "not known yet" if is_unknown(value) else value
                return f"{kind} is a managed PostgreSQL ({entry.property}: {shown})"
            if entry.missing and not found and isinstance(holder, Mapping):
                return f"{kind} may be a managed PostgreSQL: say which engine it has ({entry.property})"
    return f"{kind} is a managed PostgreSQL, by its name" if _says_so(kind) else ""


def _says_so(kind: str) -> bool:
    """Whether a type says that it is a PostgreSQL, and not that it is something that talks to one."""
    names = table("type_names.yaml")
    package = kind.partition(":")[0].lower()
    if package in names["packages"]:
        return False
    lower = kind.lower()
    if not any(word in lower for word in names["servers"]):
        return False
    # aws:x/postgresUser:PostgresUser, Microsoft.X/postgresUsers: what is last says what it is.
    last = re.split(r"[:/.]", kind)[-1]
    words = {word.lower().removesuffix("s") for word in _WORDS.findall(last)}
    return not words & set(names["others"])


def is_template(kind: str) -> bool:
    """Whether a resource is given what a cloud's own templates say."""
    return bool(_TEMPLATES.search(kind))


def template_documents(properties: object, depth: int = 8) -> Iterator[object]:
    """The properties, and the documents of the texts in them that are templates."""
    yield properties
    if depth == 0:
        return
    if isinstance(properties, Mapping):
        for key, entry in properties.items():
            if isinstance(entry, str) and str(key).lower().replace("_", "") in _BODIES:
                yield from documents_in(decoded(entry), any_tag=True, guessed=True)
            elif isinstance(entry, Mapping):
                yield from (found for found in template_documents(entry, depth - 1) if found is not entry)


def template_reasons(document: object, depth: int = 32) -> Iterator[str]:
    """Why a template makes a PostgreSQL: one sentence for each of its resources that does."""
    if depth == 0:
        return
    if isinstance(document, Mapping):
        yield from _declared(document)
        for entry in document.values():
            if isinstance(entry, Mapping | list):
                yield from template_reasons(entry, depth - 1)
    elif isinstance(document, list):
        for entry in document:
            yield from template_reasons(entry, depth - 1)


def _declared(entry: Mapping[str, Any]) -> Iterator[str]:
    """One resource of a template: its type, and its properties."""
    lower = {str(key).lower(): value for key, value in entry.items()}
    kind = lower.get("type", lower.get("typename"))
    if "resourceprovidernamespace" in lower:
        kind = f"{lower['resourceprovidernamespace']}/{lower.get('resourcetype', '')}"
    if not isinstance(kind, str) or not re.search(r"::|/|\w\.\w", kind):
        return
    given = lower.get("properties", lower.get("desiredstate"))
    if isinstance(given, str):
        given = next(iter(documents_in(given, guessed=True)), None)
    reason = resource_reason(kind, given if isinstance(given, Mapping) else entry)
    if reason:
        yield f"its template has one: {reason}"
