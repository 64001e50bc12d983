"""Providers that run in the runner's own process."""

import base64
from typing import ClassVar

import dill
from pulumi.dynamic import ResourceProvider
from pulumi.provider.experimental import provider as rpc

from data_plane.engine.runner.properties import Properties

__all__ = ["CODE", "DynamicProvider", "InProcessProvider"]

CODE = "__provider"
"""The input of a dynamic resource that holds its code."""


class InProcessProvider(rpc.Provider):
    """A provider that may hold connections and have something to say at the end."""

    remarks: list[str]
    """What to say at the end of a run that went well."""
    removes: ClassVar[bool] = False
    """Whether what a program no longer declares is removed: for files that stand for resources, not for data."""

    def close(self) -> None:
        """Ends the connections."""


class DynamicProvider(InProcessProvider):
    """The provider of dynamic resources: each brings its own code along."""

    def __init__(self) -> None:
        self.remarks = []

    async def check(self, request: rpc.CheckRequest) -> rpc.CheckResponse:
        inputs = Properties.of(request.new_inputs)
        olds = Properties.of(request.old_inputs).values
        done = _code(inputs).check(olds, inputs.without([CODE]).values)
        failures = [rpc.CheckFailure(found.property, found.reason) for found in done.failures]
        return rpc.CheckResponse(
            Properties({**done.inputs, CODE: inputs.values[CODE]}, inputs.secrets).marked(), failures
        )

    async def diff(self, request: rpc.DiffRequest) -> rpc.DiffResponse:
        olds, news = Properties.of(request.old_state), Properties.of(request.new_inputs)
        if news.unknown:
            return rpc.DiffResponse(True)
        found = _code(news).diff(request.resource_id, olds.values, news.without([CODE]).values)
        return rpc.DiffResponse(bool(found.changes), found.replaces)

    async def create(self, request: rpc.CreateRequest) -> rpc.CreateResponse:
        inputs = Properties.of(request.properties)
        declared = inputs.without([CODE])
        if request.preview:
            return rpc.CreateResponse("", declared.marked())
        made = _code(inputs).create(declared.values)
        return rpc.CreateResponse(made.id, Properties(dict(made.outs or {}), declared.secrets).marked())

    async def update(self, request: rpc.UpdateRequest) -> rpc.UpdateResponse:
        olds, inputs = Properties.of(request.olds), Properties.of(request.news)
        declared = inputs.without([CODE])
        if request.preview:
            # In outputs that were read, manual changes are told of; those of an earlier run are of no use.
            return rpc.UpdateResponse({**(request.olds if _reads(_code(inputs)) else {}), **declared.marked()})
        made = _code(inputs).update(request.resource_id, olds.values, declared.values)
        return rpc.UpdateResponse(Properties(dict(made.outs or {}), declared.secrets).marked())

    async def read(self, request: rpc.ReadRequest) -> rpc.ReadResponse:
        olds, inputs = Properties.of(request.properties), Properties.of(request.inputs)
        code = _code(inputs)
        if not request.resource_id or not _reads(code):
            return rpc.ReadResponse(request.resource_id, request.properties)
        # What is there is what counts, not what was; read it with the credentials of now.
        found = code.read(request.resource_id, {**olds.values, **inputs.without([CODE]).values})
        return rpc.ReadResponse(request.resource_id, Properties(dict(found.outs or {}), olds.secrets).marked())


def _code(inputs: Properties) -> ResourceProvider:
    code: ResourceProvider = dill.loads(base64.b64decode(inputs.values[CODE]))  # noqa: S301 the program made it
    return code


def _reads(code: ResourceProvider) -> bool:
    return type(code).read is not ResourceProvider.read
