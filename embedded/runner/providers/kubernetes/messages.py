"""What a refusal of the API server means for a resource: one line that names the object and the next step."""

import base64
import re
from collections.abc import Collection, Iterator
from typing import Any

from embedded.runner.providers.kubernetes.api import ApiError
from embedded.runner.providers.kubernetes.manifests import Manifest, subject

__all__ = ["by_hand", "explain_refusal", "explain_unreachable", "is_immutable", "is_missing_namespace", "secret_texts"]

_IMMUTABLE = re.compile(
    r"immutable|may not change once set|updates to .* are forbidden|updates to \w+ spec for fields other than"
    r"|cannot change roleRef|field can not be changed",
    re.IGNORECASE,
)
_UNTYPED = re.compile(r"field not declared in schema|failed to create typed patch object")
_MANAGER = re.compile(r'conflict with "([^"]*)"')
# Whoever changed it with these was a person with a tool, or this program in another mode: what is declared wins.
_BY_HAND = re.compile(r"kubectl(-.*)?|before-first-apply|pulumi-(resource-)?kubernetes(-.*)?|k9s|Lens|headlamp")
_HIDDEN = "[secret]"
_SHORTEST_HIDDEN = 4


def by_hand(error: ApiError) -> bool:
    """Whether all fields in a conflict belong to somebody who changed them by hand."""
    managers = _managers(error)
    return bool(managers) and all(_BY_HAND.fullmatch(manager) for manager in managers)


def is_immutable(error: ApiError) -> bool:
    """Whether a change was refused because it needs another object."""
    return error.reason == "Invalid" and any(_IMMUTABLE.search(text) for text in [error.message, *_messages(error)])


def is_missing_namespace(error: ApiError) -> bool:
    """Whether it was the namespace that was not found."""
    return error.status == 404 and error.about == "namespaces"


def secret_texts(inputs: Collection[Any]) -> frozenset[str]:
    """All texts in secret inputs, also as Secrets have them, which are never to be shown."""
    found = {text for value in inputs for text in _texts(value)}
    encoded = {base64.b64encode(text.encode()).decode() for text in found}
    return frozenset(text for text in found | encoded if len(text) >= _SHORTEST_HIDDEN)


def explain_unreachable(server: str, error: Exception) -> str:
    """Why a server did not answer."""
    cause: object = error
    while (deeper := getattr(cause, "reason", None)) is not None and deeper is not cause:
        cause = deeper
    said = re.sub(r"^.*?: (?=\S)", "", str(cause)).strip() or type(cause).__name__
    return (
        f"Kubernetes at {server} cannot be reached ({said}): see whether it runs and whether the kubeconfig's context "
        "means it, then run the same command again"
    )


def explain_refusal(server: str, document: Manifest, error: ApiError, hidden: frozenset[str] = frozenset()) -> str:
    """Why an object was refused.

    Args:
        server: the cluster's address.
        document: the object's manifest.
        error: the refusal.
        hidden: texts that are not to be shown.
    """
    return _shown(f"{subject(document)} at {server}: {_explained(document, error, secretive=bool(hidden))}", hidden)


def _explained(document: Manifest, error: ApiError, *, secretive: bool) -> str:
    if error.status in (400, 403) and "admission webhook" in error.message and "denied the request" in error.message:
        return f"{error.message}; change what the webhook is against"
    if "failed calling webhook" in error.message:
        return f"{error.message}; see whether the operator that the webhook belongs to runs"
    match error.status:
        case 401:
            return "the credentials of the kubeconfig's context are not accepted: log in again or renew them"
        case 403:
            return _forbidden(document, error)
        case 404:
            return _missing(document, error)
        case 409:
            return _conflict(error)
        case 422:
            return _invalid(error, secretive=secretive)
    if error.status == 400 or _UNTYPED.search(error.message):
        return f"{error.message}; correct the resource's inputs"
    return f"{error.message}; run the same command again, and see the cluster's own logs if that does not help"


def _forbidden(document: Manifest, error: ApiError) -> str:
    namespace = document["metadata"].get("namespace")
    if any(cause.get("reason") == "NamespaceTerminating" for cause in error.causes):
        return f"namespace {namespace} is being deleted: wait until it is gone, then run the same command again"
    if "violates PodSecurity" in error.message:
        rule = error.message.partition("violates PodSecurity")[2]
        return f"Pod Security of namespace {namespace} refuses it:{rule}; change the pod, or the namespace's label"
    if "exceeded quota" in error.message:
        return f"{error.message.partition('forbidden: ')[2]}; ask for less, or raise the namespace's quota"
    return f"{error.message}; give this user that right, or use a context whose user has it"


def _missing(document: Manifest, error: ApiError) -> str:
    if is_missing_namespace(error):
        return f"there is no namespace {document['metadata'].get('namespace')}: declare it and let this depend on it"
    return f"the cluster has no kind {document['kind']} in {document['apiVersion']}: install its definition first"


def _conflict(error: ApiError) -> str:
    owners = ", ".join(sorted(_managers(error)))
    if not owners:
        return f"{error.message}; run the same command again"
    fields = ", ".join(cause.get("field", "?") for cause in error.causes)
    return (
        f"{fields} belongs to the field manager {owners}: leave it to that with ignore_changes, or take it over with "
        'the annotation pulumi.com/patchForce: "true"'
    )


def _invalid(error: ApiError, *, secretive: bool) -> str:
    causes = _causes(error, secretive=secretive)
    if is_immutable(error):
        return (
            f"{causes} cannot be changed in place. The real engine would replace the object; this runner never "
            "deletes: delete it by hand if its loss is wanted, then run the same command again"
        )
    return f"{causes or error.message}; correct the resource's inputs"


def _causes(error: ApiError, *, secretive: bool) -> str:
    """Each cause with its field; without its text, which quotes values, where there are secrets."""
    parts = [
        f"{cause.get('field') or 'object'} ({cause.get('reason', 'refused')})"
        if secretive
        else f"{cause.get('field') or 'object'}: {cause.get('message', cause.get('reason', ''))}"
        for cause in error.causes
    ]
    return "; ".join(dict.fromkeys(parts))


def _managers(error: ApiError) -> set[str]:
    return {match.group(1) for text in _messages(error) if (match := _MANAGER.search(text))}


def _messages(error: ApiError) -> list[str]:
    return [cause.get("message", "") for cause in error.causes]


def _shown(text: str, hidden: frozenset[str]) -> str:
    for secret in sorted(hidden, key=len, reverse=True):
        text = text.replace(secret, _HIDDEN)
    return " ".join(text.split())


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, str):
        yield value
