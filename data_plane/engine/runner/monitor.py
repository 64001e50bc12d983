"""The engine's side of the SDK's resource monitor interface: what a program registers arrives here."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypeVar

from google.protobuf import empty_pb2
from pulumi.provider.experimental import provider as rpc
from pulumi.runtime.proto import engine_pb2, resource_pb2

from data_plane.engine.runner.policy import PolicyPack, Violation
from data_plane.engine.runner.properties import UNKNOWN, Properties, at_path, with_path
from data_plane.engine.runner.provider import CODE, DynamicProvider, InProcessProvider
from data_plane.engine.runner.state import StackState
from data_plane.engine.steps import NOT_KNOWN_YET, SECRET, Change, Step

__all__ = ["EngineLog", "Failure", "Monitor", "Providers"]

T = TypeVar("T")
Providers = Mapping[str, Callable[[], InProcessProvider]]
"""What makes the provider of each package."""

_STACK = "pulumi:pulumi:Stack"
_STACK_REFERENCE = "pulumi:pulumi:StackReference"
_PROVIDERS = "pulumi:providers:"
_DYNAMIC = "pulumi-python"


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
        """A message of the program or of the SDK; errors are reported where they are raised."""
        if request.severity == engine_pb2.WARNING:
            self._say(request.message)
        return empty_pb2.Empty()


class Monitor:
    """Applies each resource when everything it needs is there. Its methods are called by many threads at once.

    Args:
        project, stack: for the URNs.
        state: of this stack.
        outputs_of: the outputs of another stack by its name, or None.
        providers: by package.
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
        providers: Providers,
        policies: list[PolicyPack],
        *,
        preview: bool,
        on_step: Callable[[Step], None],
    ) -> None:
        self._project = project
        self._stack = stack
        self._state = state
        self._outputs_of = outputs_of
        self._makers = {**providers, _DYNAMIC: DynamicProvider}
        self._policies = policies
        self._preview = preview
        self._on_step = on_step
        self._lock = threading.Lock()
        self._providers: dict[str, InProcessProvider] = {}
        self._registered: list[tuple[resource_pb2.RegisterResourceRequest, str, Properties]] = []
        self.steps: list[Step] = []
        self.failures: list[Failure] = []
        self.violations: list[Violation] = []
        self.outputs = Properties()
        self.removed: list[str] = []
        """The URNs of what is no longer declared and was, or in a preview would be, removed."""
        self.remarks: list[str] = []
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
            resource_id, outputs, step = self._register(request, urn, inputs)
        except Exception as error:
            self._fail(request, error)
            raise
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
            raise NotImplementedError(f"the local runner cannot read a {request.type}")
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
        provider = self._providers.get(request.provider)
        if provider is None:
            return resource_pb2.ResourceInvokeResponse(unknown=True)
        try:
            answer = _run(provider.invoke(rpc.InvokeRequest(request.tok, Properties.decode(request.args).marked())))
        except Exception as error:
            self._fail(request, error)
            raise
        return resource_pb2.ResourceInvokeResponse(**{"return": Properties.of(answer.return_value or {}).encode()})

    def SignalAndWaitForShutdown(self, _request: empty_pb2.Empty) -> empty_pb2.Empty:  # noqa: N802
        """The program has declared everything."""
        if not self.failures:
            for pack in self._policies:
                self.violations.extend(pack.check_stack(self._registered))
            self._remove_undeclared()
        return empty_pb2.Empty()

    # Behind it

    def _remove_undeclared(self) -> None:
        """Removes what is declared no longer, of the providers that remove anything."""
        removing = {
            _type_in(reference).removeprefix(_PROVIDERS): made
            for reference, made in self._providers.items()
            if made.removes
        }
        for urn in sorted(self._state.urns() - {step.urn for step in self.steps}):
            provider = removing.get(_type_in(urn).partition(":")[0])
            found = self._state.get(urn)
            if provider is None or found is None:
                continue
            self.removed.append(urn)
            if not self._preview and not self.cancelled:
                self._delete(provider, urn, *found)
                self._state.forget(urn)

    @staticmethod
    def _delete(provider: InProcessProvider, urn: str, resource_id: str, properties: Properties) -> None:
        _run(provider.delete(rpc.DeleteRequest(urn, resource_id, properties.marked(), 0)))

    def close(self) -> None:
        """Ends the connections of all providers, and takes what they have to say."""
        for provider in self._providers.values():
            self.remarks.extend(provider.remarks)
            provider.close()

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
            message = str(error) or type(error).__name__
            name = getattr(request, "name", "") or "lookup"
            type_ = getattr(request, "type", "") or getattr(request, "tok", "")
            self.failures.append(Failure(name, type_, message))

    def _register(
        self, request: resource_pb2.RegisterResourceRequest, urn: str, inputs: Properties
    ) -> tuple[str, Properties, Step]:
        if request.remote:
            raise NotImplementedError(f"the local runner cannot construct a {request.type}")
        if request.custom and not request.type.startswith(_PROVIDERS):
            return self._register_custom(request, urn, inputs)
        self._check(request, urn, inputs)
        if request.custom:
            resource_id = self._register_provider(request, urn, inputs)
            return resource_id, inputs, self._step(request, urn, Change.SAME, inputs, inputs)
        return "", inputs, self._component_step(request, urn, inputs)

    def _component_step(self, request: resource_pb2.RegisterResourceRequest, urn: str, inputs: Properties) -> Step:
        """The step of a component, whose inputs are kept to be compared with the next run's."""
        if not inputs.values:
            return self._step(request, urn, Change.SAME, inputs, inputs)
        _, former = self._state.get(urn) or ("", None)
        if former is not None and former.values == inputs.values:
            return self._step(request, urn, Change.SAME, former, inputs)
        if not self._preview:
            self._state.put(urn, "", inputs)
        return self._step(request, urn, Change.CREATE if former is None else Change.UPDATE, former, inputs)

    def _register_provider(self, request: resource_pb2.RegisterResourceRequest, urn: str, inputs: Properties) -> str:
        package = request.type.removeprefix(_PROVIDERS)
        if package not in self._makers:
            raise NotImplementedError(f"the local runner has no provider {package!r}")
        if inputs.unknown:
            return ""
        self._configured(f"{urn}::{request.name}", package, inputs)
        return str(request.name)

    def _configured(self, reference: str, package: str, inputs: Properties) -> InProcessProvider:
        with self._lock:
            if reference not in self._providers:
                made = self._makers[package]()
                _run(made.configure(rpc.ConfigureRequest({}, inputs.marked(), True, True)))
                self._providers[reference] = made
            return self._providers[reference]

    def _register_custom(
        self, request: resource_pb2.RegisterResourceRequest, urn: str, inputs: Properties
    ) -> tuple[str, Properties, Step]:
        provider = self._providers.get(request.provider)
        if request.type.startswith(_DYNAMIC):
            provider = self._configured(request.provider, _DYNAMIC, Properties())
        before = self._state.get(urn)
        if provider is None:
            return self._without_provider(request, urn, inputs, before)
        former_id, former = before or ("", Properties())
        inputs = self._checked(provider, urn, former, inputs)
        self._check(request, urn, inputs)
        found = _run(provider.read(rpc.ReadRequest(urn, former_id, former.marked(), inputs.marked())))
        resource_id, there = found.resource_id or "", Properties.of(found.properties)
        change, changed = Change.CREATE, list[str]()
        replaced = False
        if resource_id:
            inputs = _ignoring(inputs, there, request.ignoreChanges)
            diff = _run(provider.diff(rpc.DiffRequest(urn, resource_id, there.marked(), inputs.marked(), [])))
            replaced = bool(diff.replaces)
            if replaced and not provider.removes:
                self.remarks.append(
                    f"{request.name}: the former resource {resource_id} is left in place; this runner deletes nothing"
                )
            if not replaced:
                change, changed = Change.UPDATE if diff.changes else Change.SAME, diff.diffs
        step = self._step(request, urn, change, there if resource_id else None, inputs.without([CODE]), changed)
        if change is Change.SAME:
            made = there
        elif change is Change.CREATE:
            created = _run(provider.create(rpc.CreateRequest(urn, inputs.marked(), 0, self._preview)))
            if replaced and provider.removes and not self._preview:
                self._delete(provider, urn, resource_id, there)
            resource_id, made = created.resource_id or "", Properties.of(created.properties)
        else:
            # An update is told of what it made, a preview of what is there.
            olds = there if self._preview or before is None else former
            updated = _run(
                provider.update(
                    rpc.UpdateRequest(urn, resource_id, olds.marked(), inputs.marked(), 0, [], self._preview)
                )
            )
            made = Properties.of(updated.properties)
        made.secrets |= (inputs.secrets | set(request.additionalSecretOutputs)) & set(made.values)
        if not self._preview and (resource_id, made) != before:
            self._state.put(urn, resource_id, made)
        shown = Properties({**inputs.values, **made.values}, made.secrets | inputs.secrets)
        return resource_id, shown.without([CODE]), step

    def _checked(self, provider: InProcessProvider, urn: str, former: Properties, inputs: Properties) -> Properties:
        if inputs.unknown and not self._preview:
            raise RuntimeError("it was reached before its inputs were known")
        done = _run(provider.check(rpc.CheckRequest(urn, former.marked(), inputs.marked(), b"")))
        if done.failures:
            raise RuntimeError("; ".join(f"{failure.property}: {failure.reason}" for failure in done.failures))
        return Properties.of(done.inputs or {})

    def _without_provider(
        self,
        request: resource_pb2.RegisterResourceRequest,
        urn: str,
        inputs: Properties,
        before: tuple[str, Properties] | None,
    ) -> tuple[str, Properties, Step]:
        """What is known of a resource while nobody can be asked: whether an earlier run made it, and with what."""
        if not self._preview:
            raise RuntimeError("it was reached before its provider was known")
        self._check(request, urn, inputs)
        if before is None:
            return "", inputs, self._step(request, urn, Change.CREATE, None, inputs)
        changed = [key for key, value in inputs.values.items() if before[1].values.get(key) != value]
        outputs = Properties({**before[1].values, **inputs.values}, before[1].secrets | inputs.secrets)
        change = Change.UPDATE if changed else Change.SAME
        return before[0], outputs, self._step(request, urn, change, before[1], inputs, changed)

    @staticmethod
    def _step(
        request: resource_pb2.RegisterResourceRequest,
        urn: str,
        change: Change,
        old: Properties | None,
        new: Properties,
        changed: Iterable[str] = (),
    ) -> Step:
        before, told = (None, [*changed]) if old is None else (_before(old, new), [*changed, *_new_secrets(old, new)])
        return Step(
            urn, request.type, request.name, change, request.custom, tuple(told), request.parent, before, _shown(new)
        )


def _before(old: Properties, new: Properties) -> dict[str, Any]:
    """What is told of the properties before: those that are declared; if these do not differ, all that there were."""
    declared = {key: old.values[key] for key in new.values if key in old.values}
    return _shown(Properties(declared if declared != new.values else old.values, old.secrets))


def _new_secrets(old: Properties, new: Properties) -> list[str]:
    """The secrets that differ, which are told by their names alone."""
    return [key for key in sorted(new.secrets) if old.values.get(key) != new.values.get(key)]


def _shown(properties: Properties) -> dict[str, Any]:
    """The values as a step tells them, which are everybody's to see."""
    return {key: SECRET if key in properties.secrets else _told(value) for key, value in properties.values.items()}


def _told(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _told(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_told(item) for item in value]
    return NOT_KNOWN_YET if value == UNKNOWN else value


def _type_in(urn: str) -> str:
    return urn.split("::")[2].rpartition("$")[2]


def _run(coroutine: Coroutine[Any, Any, T]) -> T:
    # asyncio.run would look through all tasks of the program's own loop each time.
    with closing(asyncio.new_event_loop()) as loop:
        return loop.run_until_complete(coroutine)


def _ignoring(inputs: Properties, there: Properties, paths: Iterable[str]) -> Properties:
    """The inputs with what is there wherever a change is to be ignored."""
    values: dict[str, Any] = inputs.values
    for path in paths:
        values = with_path(values, path, at_path(there.values, path))
    return Properties(values, inputs.secrets & set(values))
