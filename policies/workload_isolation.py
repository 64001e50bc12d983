"""Workloads sign in to OpenBao as exactly who they are, and what they may is their tenant's to say."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pulumi_policy import Policy, Severity

from policies.rules import Config, Resource, resource_policy
from policies.tenant_isolation import LEASE_SETTINGS, tenant_and_level
from policies.unknown import is_unknown

__all__ = ["POLICIES"]

_KUBERNETES = "vault:kubernetes/authBackendRole:AuthBackendRole"
_APPROLE = "vault:appRole/authBackendRole:AuthBackendRole"
_ENDPOINT = "vault:generic/endpoint:Endpoint"
_GROUPS = "vault:identity/group:Group"
_TENANTS_ROLE = re.compile(r"proj_[a-z][a-z0-9_]*-[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_POLICY_KEYS = ("policies", "tokenPolicies", "token_policies", "allowedPolicies", "allowed_policies")
_PATTERN = re.compile(r"[*?\[\]{}]")
_INSTEAD = "Name the workload in its project's file, stacks/<environment>/projects/<slug>.yaml, under `workloads`"


def _texts(value: object) -> list[str]:
    entries = value if isinstance(value, list | tuple) else [value] if isinstance(value, str) else []
    return [entry for entry in entries if isinstance(entry, str) and not is_unknown(entry)]


# Policies


def _by_group_alone(resource: Resource, _config: Config) -> Iterable[str]:
    # A tenant's group may have its own policy, which another rule looks after.
    if not resource.type.startswith("vault:") or resource.type == _GROUPS:
        return
    given: Mapping[str, Any] = resource.properties
    if resource.type == _ENDPOINT:
        given = _written(resource.properties.get("dataJson"))
    for key in _POLICY_KEYS:
        for policy in _texts(given.get(key)):
            if tenant_and_level(policy):
                yield f"{resource.name} is given {policy} past its group ({key}), and would keep it when it is detached"
            elif re.search(r"proj_", policy) and _PATTERN.search(policy):
                yield f"{resource.name} could be given any tenant's policy ({key}: {policy})"


def _written(document: object) -> Mapping[str, Any]:
    try:
        found = json.loads(document) if isinstance(document, str) and not is_unknown(document) else {}
    except ValueError:
        return {}
    return found if isinstance(found, Mapping) else {}


# Roles


def _exactly_itself(resource: Resource, config: Config) -> Iterable[str]:
    if resource.type not in {_KUBERNETES, _APPROLE}:
        return
    properties = resource.properties
    role = properties.get("roleName")
    name = role if isinstance(role, str) and not is_unknown(role) else ""
    tenants = name.startswith("proj_")
    if tenants and not _TENANTS_ROLE.fullmatch(name):
        yield f"{name} is no workload's role: expected proj_<slug>-<workload>"
    if resource.type == _KUBERNETES:
        yield from _account(name, properties, tenants=tenants)
    elif tenants:
        yield from _secret_id(name, properties)
    if tenants:
        yield from _token(name, properties, int(config["leaseTtlMaximum"]))


def _account(name: str, properties: Mapping[str, Any], *, tenants: bool) -> Iterator[str]:
    if properties.get("boundServiceAccountNamespaceSelector") not in (None, ""):
        yield f"{name} is for namespaces by their labels, which the creator of a namespace chooses"
    for key, what in (
        ("boundServiceAccountNames", "service account"),
        ("boundServiceAccountNamespaces", "namespace"),
    ):
        bound = properties.get(key)
        if is_unknown(bound):
            continue
        for entry in _texts(bound):
            if _PATTERN.search(entry):
                yield f"{name} is for any {what} like {entry!r}"
        if tenants and (not isinstance(bound, list | tuple) or len(bound) != 1):
            yield f"{name} is for {len(bound) if isinstance(bound, list | tuple) else 0} {what}s instead of one"
    if not tenants:
        return
    source = properties.get("aliasNameSource")
    if source != "serviceaccount_name" and not is_unknown(source):
        yield f"{name}: the client that signs in is not the account's entity (aliasNameSource), so no group knows it"
    if properties.get("audience") in (None, ""):
        yield f"{name} takes tokens that are made out to somebody else (audience)"


def _secret_id(name: str, properties: Mapping[str, Any]) -> Iterator[str]:
    if properties.get("bindSecretId") is False or properties.get("bindSecretId") == "false":
        yield f"{name} signs in without a secret-ID"
    if properties.get("roleId") not in (None, ""):
        yield f"{name} has a role-ID of somebody's choosing, which can be guessed and locked out"
    ttl = properties.get("secretIdTtl")
    if not is_unknown(ttl) and (not isinstance(ttl, int | float) or ttl <= 0):
        yield f"{name}: its secret-IDs never expire (secretIdTtl)"


def _token(name: str, properties: Mapping[str, Any], maximum: int) -> Iterator[str]:
    for key in ("tokenPolicies", "tokenPeriod"):
        if properties.get(key) not in (None, [], 0):
            yield f"{name} sets {key}: a workload has its group's policy, and tokens that end"
    if properties.get("tokenNoDefaultPolicy") not in (True, "true") and not is_unknown(
        properties.get("tokenNoDefaultPolicy")
    ):
        yield f"{name} has OpenBao's policy default, which renews any lease whose ID is known (tokenNoDefaultPolicy)"
    for key in ("tokenTtl", "tokenMaxTtl"):
        value = properties.get(key)
        if is_unknown(value):
            continue
        if not isinstance(value, int | float) or value <= 0:
            yield f"{name}: {key} is not set, so a token lasts as long as the method lets it"
        elif value > maximum:
            yield f"{name}: {key} is {value:g} s, more than {maximum} s"


POLICIES: list[Policy] = [
    resource_policy(
        "tenant-policies-come-by-groups",
        "A tenant's policy is given by the group of its level, and in no other way.",
        _by_group_alone,
        instead=_INSTEAD,
        severity=Severity.CRITICAL,
    ),
    resource_policy(
        "workloads-are-exactly-themselves",
        "A workload signs in as one service account by its exact name, or with a secret-ID that ends.",
        _exactly_itself,
        instead=_INSTEAD,
        settings=LEASE_SETTINGS,
        severity=Severity.CRITICAL,
    ),
]
