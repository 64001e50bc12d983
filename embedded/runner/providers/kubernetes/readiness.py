"""When an object can be used: the rules by which the Kubernetes provider waits, for the kinds it waits for."""

import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from embedded.runner.providers.kubernetes.manifests import Manifest, at_path, parse_path

__all__ = ["FailedError", "Readiness", "readiness"]

_WAIT_FOR = "pulumi.com/waitFor"
_SKIP = "pulumi.com/skipAwait"
_CONDITION = re.compile(r"condition=([^=]+)(?:=(.*))?")
_JSON_PATH = re.compile(r"jsonpath=\{\.?([^{}]*)\}(?:=(.*))?")


class FailedError(Exception):
    """It can never be used as it is, so that waiting is of no use."""


class Readiness(NamedTuple):
    """Whether an object can be used, and what it still lacks."""

    ready: bool
    lacking: str = ""


def readiness(document: Manifest, late_binding: Callable[[str], bool] = lambda _storage_class: False) -> Readiness:
    """How far an object is.

    Args:
        document: the live object.
        late_binding: whether a storage class binds claims only once a pod needs them.

    Raises:
        FailedError: if it has failed for good.
        ValueError: if its annotation ``pulumi.com/waitFor`` cannot be understood.
    """
    annotations = document["metadata"].get("annotations") or {}
    if annotations.get(_SKIP) == "true":
        return Readiness(True)
    if _WAIT_FOR in annotations:
        return _told(document, annotations[_WAIT_FOR])
    match document["apiVersion"], document["kind"]:
        case "apps/v1", "Deployment":
            return _deployment(document)
        case "apps/v1", "StatefulSet":
            return _stateful_set(document)
        case "apps/v1", "DaemonSet":
            return _daemon_set(document)
        case "batch/v1", "Job":
            return _job(document)
        case "v1", "PersistentVolumeClaim":
            return _claim(document, late_binding)
        case "apiextensions.k8s.io/v1", "CustomResourceDefinition":
            return _has_condition(document, "Established", "True")
    return Readiness(True)


def _told(document: Manifest, expression: str) -> Readiness:
    """By the annotation's conditions, all of which have to hold."""
    try:
        given = json.loads(expression)
    except ValueError:
        given = expression
    for item in given if isinstance(given, list) else [expression]:
        if match := _CONDITION.fullmatch(str(item)):
            found = _has_condition(document, match.group(1), match.group(2) or "True")
        elif match := _JSON_PATH.fullmatch(str(item)):
            found = _has_value(document, *match.groups())
        else:
            raise ValueError(f"{_WAIT_FOR} is {item!r}; expected condition=TYPE[=STATUS] or jsonpath={{.a.b}}[=VALUE]")
        if not found.ready:
            return found
    return Readiness(True)


def _has_value(document: Manifest, path: str, wanted: str | None) -> Readiness:
    value = at_path(document, parse_path(path))
    text = value if isinstance(value, str) else json.dumps(value)
    ready = value is not None and (wanted is None or text == wanted)
    return Readiness(ready, f"{path} is {text}" + (f", not {wanted}" if wanted is not None else ""))


def _has_condition(document: Manifest, type_: str, wanted: str) -> Readiness:
    found = _conditions(document).get(type_.lower())
    if found is None:
        return Readiness(False, f"it has no condition {type_} yet")
    return Readiness(found.get("status", "").lower() == wanted.lower(), _said(found))


def _deployment(document: Manifest) -> Readiness:
    wanted, status = _replicas(document), document.get("status") or {}
    if (stale := _stale(document)) is not None:
        return stale
    updated, available, total = (status.get(key, 0) for key in ("updatedReplicas", "availableReplicas", "replicas"))
    lacking = f"{updated} of {wanted} pods are updated and {available} available"
    bad = [
        _said(found)
        for type_, status_wanted in (("progressing", "True"), ("available", "True"), ("replicafailure", "False"))
        if (found := _conditions(document).get(type_)) and found.get("status") != status_wanted
    ]
    return Readiness(updated >= wanted and available >= wanted and total <= updated, "; ".join([lacking, *bad]))


def _stateful_set(document: Manifest) -> Readiness:
    wanted, status = _replicas(document), document.get("status") or {}
    if (stale := _stale(document)) is not None:
        return stale
    ready = status.get("readyReplicas", 0)
    if at_path(document, ["spec", "updateStrategy", "type"]) == "OnDelete":
        return Readiness(ready == wanted, f"{ready} of {wanted} pods are ready")
    updated = status.get("updatedReplicas", 0) if wanted else 0
    rolled_out = at_path(document, ["spec", "updateStrategy", "rollingUpdate", "partition"]) or updated == wanted
    return Readiness(ready == wanted and bool(rolled_out), f"{updated} of {wanted} pods are updated and {ready} ready")


def _daemon_set(document: Manifest) -> Readiness:
    status = document.get("status") or {}
    if (stale := _stale(document)) is not None:
        return stale
    wanted, updated, available = (
        status.get(key, 0) for key in ("desiredNumberScheduled", "updatedNumberScheduled", "numberAvailable")
    )
    return Readiness(
        updated >= wanted and available >= wanted, f"{updated} of {wanted} pods are updated and {available} available"
    )


def _job(document: Manifest) -> Readiness:
    conditions = _conditions(document)
    if conditions.get("failed", {}).get("status") == "True":
        raise FailedError(f"it failed: {_said(conditions['failed'])}")
    if at_path(document, ["spec", "suspend"]):
        return Readiness(False, "it is suspended")
    status = document.get("status") or {}
    lacking = f"{status.get('active', 0)} pods are active, {status.get('failed', 0)} failed"
    return Readiness(conditions.get("complete", {}).get("status") == "True", lacking)


def _claim(document: Manifest, late_binding: Callable[[str], bool]) -> Readiness:
    phase = at_path(document, ["status", "phase"]) or "Pending"
    if phase == "Bound":
        return Readiness(True)
    storage_class = at_path(document, ["spec", "storageClassName"])
    waits = phase == "Pending" and storage_class and late_binding(storage_class)
    return Readiness(bool(waits), f"it is {phase}; storage class {storage_class or '(none)'}")


def _stale(document: Manifest) -> Readiness | None:
    observed = at_path(document, ["status", "observedGeneration"]) or 0
    if observed < document["metadata"].get("generation", 0):
        return Readiness(False, "its controller has not seen the change yet")
    return None


def _replicas(document: Manifest) -> int:
    wanted = at_path(document, ["spec", "replicas"])
    return 1 if wanted is None else int(wanted)


def _conditions(document: Manifest) -> dict[str, dict[str, Any]]:
    return {item["type"].lower(): item for item in at_path(document, ["status", "conditions"]) or []}


def _said(condition: dict[str, Any]) -> str:
    reason, message = condition.get("reason", ""), condition.get("message", "")
    head = f"{condition['type']} is {condition.get('status')}"
    return f"{head} ({': '.join(part for part in (reason, message) if part)})" if reason or message else head
