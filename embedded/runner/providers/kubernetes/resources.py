"""One resource of the program, on a cluster or in a file."""

import base64
import copy
import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from embedded.runner.providers.base import Inputs, Live, Options
from embedded.runner.providers.kubernetes.api import UNREACHABLE, ApiError, Cluster, KubernetesError, Resource
from embedded.runner.providers.kubernetes.manifests import (
    CLUSTER_KINDS,
    Kind,
    Manifest,
    at_path,
    differing,
    from_wire,
    kind_of,
    object_id,
    parse_path,
    set_at_path,
    subject,
    to_wire,
)
from embedded.runner.providers.kubernetes.messages import (
    by_hand,
    explain_refusal,
    explain_unreachable,
    is_missing_namespace,
    secret_texts,
)
from embedded.runner.providers.kubernetes.readiness import FailedError, readiness
from embedded.runner.providers.kubernetes.rendering import Folder

__all__ = ["ClusterResource", "RenderedResource", "Scopes"]

_MANAGER = "pulumi-kubernetes"
_AUTONAMED = "pulumi.com/autonamed"
_TIMEOUT = "pulumi.com/timeoutSeconds"
_FORCE = "pulumi.com/patchForce"
_FIELD_MANAGER = "pulumi.com/patchFieldManager"
_SUFFIX_CHARACTERS = 8
_READY_SECONDS = 600
_LOOK_SECONDS = (0.1, 2.0)
# A namespace or a kind may be on its way in another thread.
_RETRY_SECONDS = (0.5, 1, 2, 4)
_STEADY_TRIES = 3
_SECRET = Kind("", "v1", "Secret")
_SECRET_FIELDS = ("data", "stringData")


class _Declared:
    """What both have in common: what the program says."""

    def __init__(self, type_: str, options: Options) -> None:
        self._type = type_
        self._options = options

    def _manifest(self, kind: Kind, inputs: Inputs, namespace: str | None, *, namespaced: bool) -> Manifest:
        """The manifest, with a name, and in the namespace given if it is in none and belongs in one."""
        document = to_wire(kind, inputs)
        metadata = document["metadata"]
        if "generateName" in metadata and "name" not in metadata:
            raise KubernetesError(
                f"{kind.name} {self._options.name}: metadata.generateName cannot be applied; give it metadata.name"
            )
        if "name" not in metadata:
            # Without a state it has to be the same name each time.
            suffix = hashlib.sha256(self._options.urn.encode()).hexdigest()[:_SUFFIX_CHARACTERS]
            metadata["name"] = f"{self._options.name}-{suffix}"
            metadata["annotations"] = {**(metadata.get("annotations") or {}), _AUTONAMED: "true"}
        if not namespaced:
            metadata.pop("namespace", None)
        elif namespace is not None:
            metadata.setdefault("namespace", namespace)
        return document

    def _undone(self, document: Manifest, live: Manifest) -> Manifest:
        """The manifest with what is there now wherever a change is to be ignored."""
        ignoring = copy.deepcopy(document)
        for path in sorted(self._options.ignored):
            steps = parse_path(path)
            if (value := at_path(live, steps)) is not None:
                set_at_path(ignoring, steps, value)
        return ignoring


class ClusterResource(_Declared):
    """A resource on a cluster.

    Args:
        type_: its type token.
        options: what the program says of it.
        cluster: connects to the cluster, or gives the connection there is.
        force: whether to take fields from other field managers.
    """

    def __init__(self, type_: str, options: Options, cluster: Callable[[], Cluster], *, force: bool) -> None:
        super().__init__(type_, options)
        self._connect = cluster
        self._force = force
        self._created = False

    def read(self, inputs: Inputs) -> Live | None:
        """What is there, and where a dry run of applying the inputs would change it."""
        kind = kind_of(self._type, inputs)
        cluster, resource = self._resource(kind)
        if resource is None:
            return None
        document = self._manifest(kind, inputs, cluster.namespace, namespaced=resource.namespaced)
        with self._explained(cluster, document, inputs):
            return self._compared(cluster, resource, document)

    def check(self, inputs: Inputs) -> None:
        """Lets the server check what is not there yet, unless its kind or namespace is not there either."""
        kind = kind_of(self._type, inputs)
        cluster, resource = self._resource(kind)
        if resource is None:
            return
        document = self._manifest(kind, inputs, cluster.namespace, namespaced=resource.namespaced)
        with self._explained(cluster, document, inputs):
            try:
                cluster.apply(resource, document, manager=_manager(document), force=True, dry_run=True)
            except ApiError as error:
                if not is_missing_namespace(error):
                    raise

    def apply(self, inputs: Inputs, live: Live | None) -> None:
        """Makes it as declared; what others own is left to them, but not what was changed by hand."""
        self._created = live is None
        kind = kind_of(self._type, inputs)
        cluster, resource = self._resource(kind, wait=True)
        if resource is None:
            raise KubernetesError(
                f"{kind.name} {self._options.name}: {cluster.server} has no kind {kind.name} in {kind.api_version}; "
                "install its definition, or let this depend on the resource that does"
            )
        document = self._manifest(kind, inputs, cluster.namespace, namespaced=resource.namespaced)
        with self._explained(cluster, document, inputs):
            present = _get(cluster, resource, document) if live and self._options.ignored else None
            self._apply(cluster, resource, self._undone(document, present) if present else document)

    def wait(self, inputs: Inputs) -> None:
        """Waits until it can be used, as long as its timeouts allow."""
        kind = kind_of(self._type, inputs)
        cluster, resource = self._resource(kind)
        if resource is None:
            return
        document = self._manifest(kind, inputs, cluster.namespace, namespaced=resource.namespaced)
        seconds = self._seconds(document)
        deadline = time.monotonic() + seconds
        pause, longest = _LOOK_SECONDS
        with self._explained(cluster, document, inputs):
            while (lacking := self._lacking(cluster, resource, document)) is not None:
                if self._options.cancelled():
                    raise KubernetesError(f"{subject(document)} was applied; waiting for it was interrupted")
                if time.monotonic() > deadline:
                    raise KubernetesError(
                        f"{subject(document)} was applied and is not ready after {seconds:g} s: {lacking}; mend that, "
                        f"or allow more time with the annotation {_TIMEOUT}"
                    )
                time.sleep(pause)
                pause = min(pause * 1.5, longest)

    def _compared(self, cluster: Cluster, resource: Resource, document: Manifest) -> Live | None:
        live = _get(cluster, resource, document)
        for _ in range(_STEADY_TRIES):
            if live is None:
                return None
            wanted = self._undone(document, live)
            would_be = cluster.apply(resource, wanted, manager=_manager(wanted), force=True, dry_run=True)
            changed = differing(live, would_be)
            found = Live(object_id(live), differing=changed, outputs=from_wire(would_be))
            # Somebody else may have changed it between the two answers.
            before, live = live, _get(cluster, resource, document) if changed else live
            if not changed or _version(live) == _version(before):
                break
        return found

    def _apply(self, cluster: Cluster, resource: Resource, document: Manifest) -> None:
        manager = _manager(document)
        force = self._force or _annotations(document).get(_FORCE) == "true"
        for pause in (*_RETRY_SECONDS, None):
            try:
                cluster.apply(resource, document, manager=manager, force=force)
            except ApiError as error:
                if is_missing_namespace(error) and pause is not None:
                    time.sleep(pause)
                elif not force and by_hand(error):
                    force = True
                else:
                    raise
            else:
                return

    def _resource(self, kind: Kind, *, wait: bool = False) -> tuple[Cluster, Resource | None]:
        cluster = self._connect()
        document = {"kind": kind.name, "apiVersion": kind.api_version, "metadata": {"name": self._options.name}}
        with self._explained(cluster, document, {}):
            found = cluster.resource(kind)
            for pause in _RETRY_SECONDS if wait else ():
                if found is not None:
                    break
                time.sleep(pause)
                found = cluster.resource(kind)
        return cluster, found

    def _lacking(self, cluster: Cluster, resource: Resource, document: Manifest) -> str | None:
        """What it lacks to be used; None if nothing."""
        live = _get(cluster, resource, document)
        if live is None:
            raise KubernetesError(f"{subject(document)} was applied and has been deleted since; run the command again")

        def late_binding(name: str) -> bool:
            found = cluster.get(f"/apis/storage.k8s.io/v1/storageclasses/{name}") or {}
            return found.get("volumeBindingMode") == "WaitForFirstConsumer"

        try:
            ready, lacking = readiness(live, late_binding)
        except (FailedError, ValueError) as error:
            raise KubernetesError(f"{subject(document)}: {error}") from None
        return None if ready else lacking

    def _seconds(self, document: Manifest) -> float:
        told = self._options.create_seconds if self._created else self._options.update_seconds
        annotated = _annotations(document).get(_TIMEOUT, "")
        return told or (float(annotated) if annotated.isdecimal() else _READY_SECONDS)

    @contextmanager
    def _explained(self, cluster: Cluster, document: Manifest, inputs: Inputs) -> Iterator[None]:
        try:
            yield
        except ApiError as error:
            names = {*self._options.secrets, *(_SECRET_FIELDS if document["kind"] == "Secret" else ())}
            hidden = secret_texts([inputs[name] for name in names if name in inputs])
            raise KubernetesError(explain_refusal(cluster.server, document, error, hidden)) from None
        except UNREACHABLE as error:
            raise KubernetesError(explain_unreachable(cluster.server, error)) from None


class Scopes:
    """Which kinds are in a namespace, where there is no cluster to ask: the definitions of this run say it."""

    def __init__(self) -> None:
        self._cluster_wide: set[tuple[str, str]] = set()

    def learn(self, definition: Manifest) -> None:
        """Remembers what a definition says."""
        spec = definition.get("spec") or {}
        if spec.get("scope") == "Cluster":
            self._cluster_wide.add((spec["group"], spec["names"]["kind"]))

    def namespaced(self, kind: Kind) -> bool:
        """Whether objects of a kind are in a namespace; an unknown kind's are, as the provider takes it."""
        own = kind.builtin and kind.name in CLUSTER_KINDS
        return not own and (kind.group, kind.name) not in self._cluster_wide


class RenderedResource(_Declared):
    """A resource as a file.

    Args:
        type_: its type token.
        options: what the program says of it.
        folder: the folder of manifests.
        namespace: the one of objects that name none, if the provider names one.
        scopes: of the kinds.
        secretive: takes files that hold secrets.
    """

    def __init__(
        self,
        type_: str,
        options: Options,
        folder: Folder,
        namespace: str | None,
        scopes: Scopes,
        secretive: Callable[[str], None],
    ) -> None:
        super().__init__(type_, options)
        self._folder = folder
        self._namespace = namespace
        self._scopes = scopes
        self._secretive = secretive

    def read(self, inputs: Inputs) -> Live | None:
        """What the file says, and where it differs."""
        kind, document = self._rendered(inputs)
        path = self._folder.file(kind, document)
        if self._options.secrets:
            self._secretive(path.name)
        present = self._folder.read(path)
        if present is None:
            return None
        wanted = self._undone(document, present)
        return Live(object_id(wanted), differing=differing(present, wanted), outputs=from_wire(wanted))

    def apply(self, inputs: Inputs, _live: Live | None) -> None:
        """Writes the file."""
        kind, document = self._rendered(inputs)
        path = self._folder.file(kind, document)
        present = self._folder.read(path) if self._options.ignored else None
        self._folder.write(path, self._undone(document, present) if present else document)

    def _rendered(self, inputs: Inputs) -> tuple[Kind, Manifest]:
        kind = kind_of(self._type, inputs)
        if kind.name == "CustomResourceDefinition":
            self._scopes.learn(to_wire(kind, inputs))
        document = self._manifest(kind, inputs, self._namespace, namespaced=self._scopes.namespaced(kind))
        return kind, _encoded(document) if kind == _SECRET else document


def _get(cluster: Cluster, resource: Resource, document: Manifest) -> Manifest | None:
    metadata = document["metadata"]
    return cluster.get(resource.path(metadata.get("namespace"), metadata["name"]))


def _encoded(secret: Manifest) -> Manifest:
    """A Secret as a server would store it, for those who read the files."""
    texts = secret.get("stringData") or {}
    data = {key: base64.b64encode(str(text).encode()).decode() for key, text in texts.items()}
    kept = {key: value for key, value in secret.items() if key != "stringData"}
    return {**kept, "data": {**(secret.get("data") or {}), **data}} if texts else secret


def _version(document: Manifest | None) -> Any:
    return document and document["metadata"].get("resourceVersion")


def _annotations(document: Manifest) -> dict[str, str]:
    return document["metadata"].get("annotations") or {}


def _manager(document: Manifest) -> str:
    return _annotations(document).get(_FIELD_MANAGER) or _MANAGER
