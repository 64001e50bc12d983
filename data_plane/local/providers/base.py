"""What a provider consists of: a connection, and how each type of resource is read and written with it.

These are for machines where the official plugins cannot be had, and for the local runner. Types, arguments, IDs and
what a change replaces are the official providers', as far as this program uses them. Differences: a creation takes
what is already there, a renaming replaces, and only the functions and arguments that the program uses are here.
"""

import asyncio
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from string import Formatter
from typing import Any, TypeVar

from pulumi.provider.experimental import provider as rpc

from data_plane.engine.runner.properties import Properties, at_path, has_unknown, without_paths
from data_plane.engine.runner.provider import InProcessProvider
from data_plane.errors import DataPlaneError

__all__ = ["Found", "Inputs", "LocalProvider", "ProviderError", "ResourceType"]

R = TypeVar("R")
Inputs = Mapping[str, Any]
Found = dict[str, Any]
"""A resource as it is on the server, under the names that its inputs have; ``id`` if the server gave it one."""

_PARALLEL = 16
_EMPTY: tuple[Any, ...] = (None, "", [], {})


class ProviderError(DataPlaneError):
    """A server refuses a resource; the message has no secret."""

    code = "provider"


@dataclass(frozen=True)
class ResourceType:
    """How one type of resource is read and written."""

    read: Callable[[Inputs], Found | None]
    write: Callable[[Inputs, Found | None], None]
    """Makes what is there (None if nothing) as desired."""
    delete: Callable[[Inputs], None]
    keys: Collection[str]
    """The inputs that say which one it is; another value of theirs is another resource."""
    id: str = ""
    """How its ID is made of its properties, and understood by an import; empty if there is no import."""
    replaces: Collection[str] = ()
    """Further inputs whose change needs another resource."""
    unordered: Collection[str] = ()
    """Lists whose order has no meaning."""
    write_only: Collection[str] = ()
    """Inputs that a server does not give back, or that are about how it is made and deleted."""
    blind: bool = False
    """Whether a server cannot be asked for it unless it was made here."""
    computed: Collection[str] = ()
    """What only the server says."""
    secret: Collection[str] = ()
    """Property paths that are always secret, and written only when they change."""
    defaults: Inputs = field(default_factory=dict)
    """What inputs that a program leaves out stand for."""
    complete: Callable[[Inputs], Inputs] = lambda inputs: inputs
    """Adds keys that a program may leave out."""

    @property
    def secrets(self) -> set[str]:
        """The properties that are secret or contain a secret."""
        return {path.partition(".")[0] for path in self.secret}

    def id_of(self, properties: Inputs) -> str:
        """The ID of a resource."""
        return str(properties["id"]) if "id" in properties else self.id.format_map(properties)

    def named(self, id_: str) -> dict[str, Any]:
        """The properties that an ID stands for.

        Raises:
            ProviderError: if it is no ID of this type.
        """
        parts = [(re.escape(text), key) for text, key, _, _ in Formatter().parse(self.id)]
        pattern = "".join(text + (f"(?P<{key}>.+)" if key else "") for text, key in parts)
        if not self.id:
            raise ProviderError("this type has no import")
        if (match := re.fullmatch(pattern, id_)) is None:
            raise ProviderError(f"{id_!r} is not an ID of this type; expected {self.id}")
        return match.groupdict()

    def differing(self, there: Inputs, desired: Inputs) -> list[str]:
        """The inputs in which a resource is not as desired."""
        wanted = {**self.defaults, **desired}
        return [key for key, value in wanted.items() if not self._same(key, value, there.get(key))]

    def outputs(self, given: Inputs, found: Found) -> dict[str, Any]:
        """What was found, in the words of what was given where it means the same."""
        kept = {key: value for key, value in found.items() if value not in _EMPTY and key != "id"}
        for key, value in given.items():
            if key in self.write_only or self._same(key, self._visible(key, value), found.get(key)):
                kept[key] = value
            elif isinstance(value, Mapping) and isinstance(found.get(key), Mapping):
                hidden = {part: item for part, item in value.items() if f"{key}.{part}" in self.write_only}
                kept[key] = {**found[key], **hidden}
        return kept

    def _visible(self, key: str, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {part: item for part, item in value.items() if f"{key}.{part}" not in self.write_only}

    def _same(self, key: str, one: Any, other: Any) -> bool:
        if key in self.unordered and isinstance(one, list) and isinstance(other, list):
            return sorted(map(str, one)) == sorted(map(str, other))
        return bool(one == other) or (one in _EMPTY and other in _EMPTY)


class LocalProvider(InProcessProvider, ABC):
    """A Pulumi provider: served as a plugin, or called by the local runner."""

    def __init__(self) -> None:
        self.remarks = []
        self._threads = ThreadPoolExecutor(_PARALLEL, "provider")
        self._lock = threading.Lock()

    @abstractmethod
    def connect(self, inputs: Inputs) -> None:
        """Takes the provider's configuration; the connection itself is made when it is needed."""

    @abstractmethod
    def type(self, token: str) -> ResourceType | None:
        """A resource type by its token."""

    def function(self, token: str) -> Callable[[Inputs], dict[str, Any]] | None:
        """A function by its token."""
        del token
        return None

    @abstractmethod
    def explain(self, error: Exception) -> str | None:
        """What an error of this provider means, in one line without secrets; None if it is none of this provider's."""

    def close(self) -> None:
        self._threads.shutdown(wait=False)

    # The interface of the SDK

    async def configure(self, request: rpc.ConfigureRequest) -> rpc.ConfigureResponse:
        self.connect(Properties.of(request.args).values)
        return rpc.ConfigureResponse(accept_secrets=True, supports_preview=True)

    async def check(self, request: rpc.CheckRequest) -> rpc.CheckResponse:
        inputs = Properties.of(request.new_inputs)
        completed = dict(self._type(request.type).complete(inputs.values))
        return rpc.CheckResponse(Properties(completed, inputs.secrets).marked())

    async def diff(self, request: rpc.DiffRequest) -> rpc.DiffResponse:
        type_ = self._type(request.type)
        olds, news = Properties.of(request.old_state).values, Properties.of(request.new_inputs).values
        changed = type_.differing(olds, news)
        replaces = [key for key in changed if key in type_.replaces or key in type_.keys]
        return rpc.DiffResponse(
            bool(changed),
            replaces,
            diffs=changed,
            detailed_diff={key: rpc.PropertyDiff(_KINDS[key in olds, key in replaces], True) for key in changed},
            # Two resources of the same ID cannot be.
            delete_before_replace=not any(key in type_.keys for key in replaces),
        )

    async def create(self, request: rpc.CreateRequest) -> rpc.CreateResponse:
        inputs = Properties.of(request.properties)
        if request.preview:
            return rpc.CreateResponse("", request.properties)
        id_, outputs = await self._call(self._write_resource, self._type(request.type), inputs)
        return rpc.CreateResponse(id_, outputs.marked())

    async def update(self, request: rpc.UpdateRequest) -> rpc.UpdateResponse:
        inputs = Properties.of(request.news)
        if request.preview:
            return rpc.UpdateResponse({**request.olds, **request.news})
        olds = Properties.of(request.olds).values
        _, outputs = await self._call(self._write_resource, self._type(request.type), inputs, olds)
        return rpc.UpdateResponse(outputs.marked())

    async def read(self, request: rpc.ReadRequest) -> rpc.ReadResponse:
        """Reads what was made, what an ID names (an import), or without an ID what the inputs name, if it is there."""
        return await self._call(self._read_resource, request)

    async def delete(self, request: rpc.DeleteRequest) -> None:
        await self._call(self._type(request.type).delete, Properties.of(request.properties).values)

    async def invoke(self, request: rpc.InvokeRequest) -> rpc.InvokeResponse:
        if (function := self.function(request.tok)) is None:
            raise ProviderError(f"there is no function {request.tok} here; the official provider may have it")
        answer = await self._call(function, Properties.of(request.args).values)
        return rpc.InvokeResponse(Properties(answer).marked())

    # Behind it

    def _type(self, token: str) -> ResourceType:
        name = token.rpartition("$")[2]
        if (type_ := self.type(name)) is None:
            raise ProviderError(f"there is no resource type {name} here; the official provider may have it")
        return type_

    async def _call(self, function: Callable[..., R], *arguments: Any) -> R:
        """Calls what may block, and explains what it raises."""

        def explained() -> R:
            try:
                return function(*arguments)
            except Exception as error:
                if (text := self.explain(error)) is None:
                    raise
                raise ProviderError(text) from error

        return await asyncio.get_running_loop().run_in_executor(self._threads, explained)

    def _write_resource(
        self, type_: ResourceType, inputs: Properties, olds: Inputs | None = None
    ) -> tuple[str, Properties]:
        if inputs.unknown:
            raise ProviderError("it was reached before its inputs were known")
        desired = {**type_.defaults, **inputs.values}
        # A password may have been changed since by what manages it; only a new one is written.
        kept = [path for path in type_.secret if olds and at_path(olds, path) == at_path(desired, path)]
        type_.write(without_paths(desired, kept), type_.read(desired))
        found = type_.read(desired)
        if found is None:
            raise ProviderError("it was applied, but it is not there")
        outputs = type_.outputs(inputs.values, found)
        if left := type_.differing(outputs, inputs.values):
            raise ProviderError(f"it was applied, but {', '.join(left)} did not take")
        return type_.id_of({**outputs, **found}), Properties(outputs, (inputs.secrets | type_.secrets) & set(outputs))

    def _read_resource(self, request: rpc.ReadRequest) -> rpc.ReadResponse:
        type_ = self._type(request.type)
        olds, inputs = Properties.of(request.properties), Properties.of(request.inputs)
        known = {**inputs.values, **olds.values}
        if not known:
            known = type_.named(request.resource_id)
        elif not request.resource_id and (type_.blind or has_unknown([at_path(known, key) for key in type_.keys])):
            return rpc.ReadResponse("")
        found = type_.read(known)
        if found is None:
            return rpc.ReadResponse("")
        outputs = type_.outputs(olds.values, found)
        secrets = (olds.secrets | inputs.secrets | type_.secrets) & set(outputs)
        of_inputs = set(inputs.values) or set(outputs) - set(type_.computed)
        return rpc.ReadResponse(
            type_.id_of({**known, **outputs, **found}),
            Properties(outputs, secrets).marked(),
            Properties({key: outputs[key] for key in of_inputs if key in outputs}, secrets & of_inputs).marked(),
        )


_KINDS = {
    (False, False): rpc.PropertyDiffKind.ADD,
    (False, True): rpc.PropertyDiffKind.ADD_REPLACE,
    (True, False): rpc.PropertyDiffKind.UPDATE,
    (True, True): rpc.PropertyDiffKind.UPDATE_REPLACE,
}
