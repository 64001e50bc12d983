"""The engine's side of the SDK's resource monitor interface: what a program registers arrives here."""

import base64
import hashlib
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import dill
from google.protobuf import empty_pb2
from pulumi.dynamic import ResourceProvider
from pulumi.runtime.proto import engine_pb2, resource_pb2

from embedded.runner.policy import PolicyPack, Violation
from embedded.runner.properties import Properties
from embedded.runner.providers import CLIENTS, ProviderClient
from embedded.runner.providers.base import Live, Options, differences
from embedded.runner.providers.openbao import OpenBaoClient
from embedded.runner.state import StackState

__all__ = ["Change", "EngineLog", "Failure", "Monitor", "Step"]

_STACK = "pulumi:pulumi:Stack"
_STACK_REFERENCE = "pulumi:pulumi:StackReference"
_PROVIDERS = "pulumi:providers:"
_DYNAMIC = "pulumi-python:dynamic"
_ENDPOINT = "vault:generic/endpoint:Endpoint"
_DYNAMIC_CODE = "__provider"
_WITH_NAMES = ("identity/entity/name/", "identity/group/name/")


class Change(StrEnum):
    """What was done, or in a preview would be."""

    CREATE = "create"
    UPDATE = "update"
    SAME = "same"


@dataclass(frozen=True)
class Step:
    """One resource of the program and what it took to have it as declared."""

    urn: str
    type: str
    name: str
    change: Change
    custom: bool
    """Whether it is something on a server, not a component that groups such things."""
    changed: tuple[str, ...] = ()
    """Names of the inputs that differed, for an update."""


@dataclass(frozen=True)
class Failure:
    """A resource that could not be applied, and why."""

    name: str
    type: str
    message: str


class _StoppedError(Exception):
    """Registered after something else had failed; nothing was done."""


class EngineLog:
    """Takes the program's log messages."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def Log(self, request: engine_pb2.LogRequest) -> empty_pb2.Empty:  # noqa: N802
        """A message of the program or of the SDK; errors are reported by whoever raises them."""
        if request.severity == engine_pb2.WARNING:
            self._say(request.message)
        return empty_pb2.Empty()


class Monitor:
    """Applies each resource when everything it needs is there. Its methods are called by many threads at once.

    Args:
        project, stack: for the URNs.
        state: of this stack.
        outputs_of: the outputs of another stack by its name, or None.
        policies: the packs that every resource and the whole stack have to pass.
        preview: whether to say what would be done instead of doing it.
        on_step: called for each resource.
    """

    def __init__(
        self,
        project: str,
        stack: str,
        state: StackState,
        outputs_of: Callable[[str], Properties | None],
        policies: list[PolicyPack],
        *,
        preview: bool,
        on_step: Callable[[Step], None],
    ) -> None:
        self._project = project
        self._stack = stack
        self._state = state
        self._outputs_of = outputs_of
        self._policies = policies
        self._preview = preview
        self._on_step = on_step
        self._lock = threading.Lock()
        self._clients: dict[str, ProviderClient] = {}
        self._registered: list[tuple[resource_pb2.RegisterResourceRequest, str, Properties]] = []
        self.steps: list[Step] = []
        self.failures: list[Failure] = []
        self.violations: list[Violation] = []
        self.outputs = Properties()
        self.cancelled = False

    # The interface

    def GetDeploymentInfo(self, _request: empty_pb2.Empty) -> resource_pb2.DeploymentInfo:  # noqa: N802
        """Which features of the interface this monitor has."""
        return resource_pb2.DeploymentInfo(
            supportedFeatures=[
                resource_pb2.RESOURCE_MONITOR_FEATURE_SECRETS,
                resource_pb2.RESOURCE_MONITOR_FEATURE_RESOURCE_REFERENCES,
                resource_pb2.RESOURCE_MONITOR_FEATURE_ALIAS_SPECS,
                resource_pb2.RESOURCE_MONITOR_FEATURE_DELETED_WITH,
            ]
        )

    def RegisterResource(  # noqa: N802
        self, request: resource_pb2.RegisterResourceRequest
    ) -> resource_pb2.RegisterResourceResponse:
        """A resource that the program declares."""
        urn = self._urn(request.parent, request.type, request.name)
        inputs = Properties.decode(request.object)
        if request.type == _STACK:
            return resource_pb2.RegisterResourceResponse(urn=urn)
        if self.failures or self.cancelled:
            raise _StoppedError(f"{request.name} was not applied")
        try:
            self._check(request, urn, inputs)
            resource_id, outputs, step = self._register(request, urn, inputs)
        except Exception as error:
            self._fail(request, error)
            raise
        outputs.secrets |= inputs.secrets | set(request.additionalSecretOutputs)
        with self._lock:
            self._registered.append((request, urn, inputs))
            self.steps.append(step)
        self._on_step(step)
        return resource_pb2.RegisterResourceResponse(urn=urn, id=resource_id, object=outputs.encode())

    def RegisterResourceOutputs(self, request: resource_pb2.RegisterResourceOutputsRequest) -> empty_pb2.Empty:  # noqa: N802
        """The outputs of a component; those of the stack are kept."""
        if request.urn == self._urn("", _STACK, f"{self._project}-{self._stack}"):
            self.outputs = Properties.decode(request.outputs)
        return empty_pb2.Empty()

    def ReadResource(self, request: resource_pb2.ReadResourceRequest) -> resource_pb2.ReadResourceResponse:  # noqa: N802
        """A reference to another stack; no other resource is only read."""
        urn = self._urn(request.parent, request.type, request.name)
        if request.type != _STACK_REFERENCE:
            raise NotImplementedError(f"the embedded runner cannot read a {request.type}")
        name = request.id.split("/")[-1]
        outputs = self._outputs_of(name)
        if outputs is None:
            error = LookupError(f"stack {name!r} has no outputs yet: bring it up first")
            self._fail(request, error)
            raise error
        found = Properties(
            {"name": request.id, "outputs": outputs.values, "secretOutputNames": sorted(outputs.secrets)},
            {"outputs"} if outputs.secrets else set(),
        )
        return resource_pb2.ReadResourceResponse(urn=urn, properties=found.encode())

    def Invoke(self, request: resource_pb2.ResourceInvokeRequest) -> resource_pb2.ResourceInvokeResponse:  # noqa: N802
        """A function of a provider. Until the provider itself is there, its answer is unknown."""
        client = self._clients.get(request.provider)
        if client is None:
            return resource_pb2.ResourceInvokeResponse(unknown=True)
        try:
            answer = _function(client, request.tok)(Properties.decode(request.args).values)
        except Exception as error:
            self._fail(request, error)
            raise
        return resource_pb2.ResourceInvokeResponse(**{"return": Properties(answer).encode()})

    def SignalAndWaitForShutdown(self, _request: empty_pb2.Empty) -> empty_pb2.Empty:  # noqa: N802
        """The program has declared everything."""
        if not self.failures:
            for pack in self._policies:
                self.violations.extend(pack.check_stack(self._registered))
        return empty_pb2.Empty()

    # Behind it

    def close(self) -> None:
        """Ends the connections of all providers."""
        for client in self._clients.values():
            client.close()

    def remarks(self) -> list[str]:
        """What the providers have to say at the end."""
        return [remark for client in self._clients.values() for remark in client.remarks()]

    def _urn(self, parent: str, type_: str, name: str) -> str:
        parent_types = parent.split("::")[2] if parent else ""
        qualified = f"{parent_types}${type_}" if parent_types and not parent_types.endswith(_STACK) else type_
        return f"urn:pulumi:{self._stack}::{self._project}::{qualified}::{name}"

    def _check(self, request: resource_pb2.RegisterResourceRequest, urn: str, inputs: Properties) -> None:
        found = [violation for pack in self._policies for violation in pack.check_resource(request, urn, inputs)]
        with self._lock:
            self.violations.extend(found)
        refused = [f"{violation.policy}: {violation.message}" for violation in found if violation.mandatory]
        if refused and not self._preview:
            # A preview has found all that it could; this was known only now.
            raise RuntimeError(f"a mandatory policy refuses it: {'; '.join(refused)}")

    def _fail(self, request: Any, error: Exception) -> None:
        with self._lock:
            message = next(
                (text for client in self._clients.values() if (text := client.explain(error)) is not None),
                str(error) or type(error).__name__,
            )
            name = getattr(request, "name", "") or "lookup"
            type_ = getattr(request, "type", "") or getattr(request, "tok", "")
            self.failures.append(Failure(name, type_, message))

    def _register(
        self, request: resource_pb2.RegisterResourceRequest, urn: str, inputs: Properties
    ) -> tuple[str, Properties, Step]:
        def step(change: Change, changed: list[str] | None = None) -> Step:
            return Step(urn, request.type, request.name, change, request.custom, tuple(changed or ()))

        if request.remote:
            raise NotImplementedError(f"the embedded runner cannot construct a {request.type}")
        if not request.custom:
            return "", inputs, step(Change.SAME)
        if request.type.startswith(_PROVIDERS):
            return self._register_provider(request, urn, inputs), inputs, step(Change.SAME)
        if request.type.startswith(_DYNAMIC):
            return self._register_remembered(request, urn, inputs, _Dynamic(inputs), step)
        if request.type == _ENDPOINT:
            client = self._clients.get(request.provider)
            return self._register_remembered(request, urn, inputs, _Endpoint(client, set(request.ignoreChanges)), step)
        return self._register_managed(request, urn, inputs, step)

    def _register_provider(self, request: resource_pb2.RegisterResourceRequest, urn: str, inputs: Properties) -> str:
        package = request.type.removeprefix(_PROVIDERS)
        if package not in CLIENTS:
            raise NotImplementedError(f"the embedded runner has no provider {package!r}")
        if inputs.unknown:
            return ""
        resource_id = request.name
        with self._lock:
            self._clients[f"{urn}::{resource_id}"] = CLIENTS[package](inputs.values)
        return resource_id

    def _register_managed(
        self,
        request: resource_pb2.RegisterResourceRequest,
        urn: str,
        inputs: Properties,
        step: Callable[..., Step],
    ) -> tuple[str, Properties, Step]:
        client = self._clients.get(request.provider)
        if client is None or inputs.unknown:
            if not self._preview:
                raise RuntimeError("it was reached before its provider and inputs were known")
            return "", inputs, step(Change.CREATE)
        handler = client.handler(request.type, self._options(request, urn, inputs))
        if handler is None:
            raise NotImplementedError(f"the embedded runner cannot apply a {request.type}")
        ignored = set(request.ignoreChanges)
        live = handler.read(inputs.values)
        changed = differences(handler, inputs.values, live, ignored) if live else []
        if live is not None and not changed:
            if not self._preview:
                handler.wait(inputs.values)  # an earlier run may have ended before it was ready
            return live.id, _outputs(live, inputs), step(Change.SAME)
        if self._preview:
            if live is None:
                handler.check(inputs.values)
                return "", inputs, step(Change.CREATE)
            return live.id, _outputs(live, inputs), step(Change.UPDATE, changed)
        handler.apply(_kept(inputs.values, ignored) if live else inputs.values, live)
        handler.wait(inputs.values)
        after = handler.read(inputs.values)
        if after is None or (left := differences(handler, inputs.values, after, ignored)):
            what = "it is not there" if after is None else f"{', '.join(left)} did not take"
            raise RuntimeError(f"it was applied, but {what}")
        return after.id, _outputs(after, inputs), step(Change.UPDATE if live else Change.CREATE, changed)

    def _options(self, request: resource_pb2.RegisterResourceRequest, urn: str, inputs: Properties) -> Options:
        return Options(
            urn,
            request.name,
            frozenset(request.ignoreChanges),
            frozenset(inputs.secrets),
            _seconds(request.customTimeouts.create),
            _seconds(request.customTimeouts.update),
            lambda: self.cancelled,
        )

    def _register_remembered(
        self,
        request: resource_pb2.RegisterResourceRequest,
        urn: str,
        inputs: Properties,
        applier: "_Dynamic | _Endpoint",
        step: Callable[..., Step],
    ) -> tuple[str, Properties, Step]:
        """A resource that cannot be read back from its inputs alone: what it was made with is remembered."""
        declared = inputs.without([_DYNAMIC_CODE])
        before = self._state.get(urn)
        if before is not None and applier.is_gone(declared.values):
            before = None
        if declared.unknown:
            if not self._preview:
                raise RuntimeError("it was reached before its inputs were known")
            change = Change.CREATE if before is None else Change.UPDATE
            return "", declared, step(change)
        changed = before is not None and applier.differs(before[0], before[1].values, declared.values)
        if before is not None and not changed:
            return before[0], declared.updated({**before[1].values, **applier.present}), step(Change.SAME)
        change = Change.CREATE if before is None else Change.UPDATE
        if self._preview:
            # In the outputs of now, hands' changes are told of.
            shown = {key: value for key, value in applier.present.items() if declared.values.get(key) is None}
            return (before[0] if before else ""), declared.updated(shown), step(change)
        resource_id, outputs = applier.apply(before, declared.values)
        secrets = declared.secrets | set(request.additionalSecretOutputs)
        self._state.put(urn, resource_id, Properties(outputs, secrets & set(outputs)))
        return resource_id, declared.updated(outputs), step(change)


def _function(client: ProviderClient, token: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    function = client.functions.get(token)
    if function is None:
        raise NotImplementedError(f"the embedded runner has no function {token}")
    return function


class _Dynamic:
    """A dynamic resource, by the methods that it brings with it."""

    def __init__(self, inputs: Properties) -> None:
        self._provider = dill.loads(base64.b64decode(inputs.values[_DYNAMIC_CODE]))  # noqa: S301 the program made it
        self.present: dict[str, Any] = {}
        """The outputs as they are now, where the provider can say."""

    @staticmethod
    def is_gone(_news: dict[str, Any]) -> bool:
        return False  # its provider's own affair

    def differs(self, resource_id: str, olds: dict[str, Any], news: dict[str, Any]) -> bool:
        if type(self._provider).read is not ResourceProvider.read:
            # What is there is what counts, not what was; read it with the credentials of now.
            self.present = olds = dict(self._provider.read(resource_id, {**olds, **news}).outs or {})
        return bool(self._provider.diff(resource_id, olds, news).changes)

    def apply(self, before: tuple[str, Properties] | None, news: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        if before is None:
            made = self._provider.create(news)
            return made.id, dict(made.outs or {})
        return before[0], dict(self._provider.update(before[0], before[1].values, news).outs or {})


class _Endpoint:
    """A document written to a path that cannot be read: written again only when it changes."""

    def __init__(self, client: ProviderClient | None, ignored: set[str]) -> None:
        self._client = client
        self._ignored = ignored
        self.present: dict[str, Any] = {}

    def is_gone(self, news: dict[str, Any]) -> bool:
        """Whether somebody has deleted what was written; only what has a name can be asked for."""
        path = str(news.get("path"))
        return path.startswith(_WITH_NAMES) and isinstance(self._client, OpenBaoClient) and not self._client.has(path)

    def differs(self, _resource_id: str, olds: dict[str, Any], news: dict[str, Any]) -> bool:
        return bool(olds.get("written") != self._fingerprint(news))

    def apply(self, _before: tuple[str, Properties] | None, news: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        if not isinstance(self._client, OpenBaoClient):
            raise RuntimeError("it was reached before its provider was known")  # noqa: TRY004
        self._client.write(news["path"], news["dataJson"])
        return news["path"], {"written": self._fingerprint(news)}

    def _fingerprint(self, inputs: dict[str, Any]) -> str:
        parts = [inputs[key] for key in ("path", "dataJson") if key not in self._ignored]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _outputs(live: Live, inputs: Properties) -> Properties:
    """The inputs and what only the server knows, unless the provider says what the outputs are."""
    if live.outputs is not None:
        return Properties(live.outputs, set(inputs.secrets))
    return inputs.updated({key: value for key, value in live.properties.items() if key not in inputs.values})


_DURATION = re.compile(r"([\d.]+)(ms|s|m|h)")
_UNIT_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}


def _seconds(duration: str) -> float | None:
    """A duration in Go's form, e.g. ``1h30m``; None if it is empty."""
    parts = _DURATION.findall(duration)
    return sum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts) if parts else None


def _kept(values: dict[str, Any], ignored: set[str]) -> dict[str, Any]:
    """Inputs without those that an update is to leave alone."""

    def inside(key: str, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {part: item for part, item in value.items() if f"{key}.{part}" not in ignored}

    return {key: inside(key, value) for key, value in values.items() if key not in ignored}
