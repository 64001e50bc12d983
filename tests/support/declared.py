"""What a program declares, recorded with Pulumi's mocks."""

import asyncio
import contextvars
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pulumi
from pulumi.runtime import mocks
from pulumi.runtime.proto import resource_pb2

from data_plane.engine.runner.properties import Properties


@dataclass
class Declared:
    """One resource as it was registered."""

    type: str
    name: str
    inputs: dict[str, Any]
    request: resource_pb2.RegisterResourceRequest
    urn: str


@dataclass
class Program:
    """Everything that was registered, and the values that the program gave back."""

    resources: list[Declared] = field(default_factory=list)
    result: Any = None

    def only(self, type_: str, name: str) -> Declared:
        (found,) = [item for item in self.resources if (item.type, item.name) == (type_, name)]
        return found

    def all(self, type_: str) -> list[Declared]:
        return sorted((item for item in self.resources if item.type == type_), key=lambda item: item.name)


class _Mocks(mocks.Mocks):
    def __init__(self, outputs: Mapping[str, Any]) -> None:
        self._outputs = outputs

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        if args.typ == "pulumi:pulumi:StackReference":
            return args.name, {**args.inputs, "outputs": self._outputs}
        known = {"accessor": "auth_login_1", "checksum": "c", "version": 1, "roleId": f"role-id-of-{args.name}"}
        return f"{args.name}-id", {**args.inputs, **known}

    def call(self, args: mocks.MockCallArgs) -> Any:
        given = dict(args.args)
        data = {"POSTGRES_PASSWORD": "from-openbao", "PASSWORD": "from-openbao"}
        name = given.get("entityName") or given.get("groupName") or ""
        return {**given, "id": f"id-of-{name}", "aliasId": "", "accessor": "auth_found_1", "data": data}


class _Recorder(mocks.MockMonitor):
    def __init__(self, program: Program, outputs: Mapping[str, Any]) -> None:
        super().__init__(_Mocks(outputs))
        self._program = program

    def RegisterResource(self, request: Any) -> Any:  # noqa: N802
        response = super().RegisterResource(request)  # type: ignore[no-untyped-call]
        inputs = Properties.decode(request.object).values
        self._program.resources.append(Declared(request.type, request.name, inputs, request, response.urn))
        return response


def declare(program: Callable[[], Any], *, stack: str = "test", outputs: Mapping[str, Any] | None = None) -> Program:
    """Runs a function as a Pulumi program, on a context of its own.

    Args:
        outputs: of every stack that it refers to.
    """
    recorded = Program()
    errors: list[BaseException] = []

    def main() -> None:
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        known = outputs or {}
        monitor = _Recorder(recorded, known)
        mocks.set_mocks(_Mocks(known), project="supabase-data-plane", stack=stack, monitor=monitor)

        async def run() -> None:
            def body() -> None:
                recorded.result = program()
                # What another program's loop has left is none of this one's, and cannot be waited for.
                outputs = pulumi.runtime.settings.SETTINGS.outputs
                outputs -= {task for task in outputs if task.get_loop() is not loop}

            await pulumi.runtime.stack.run_pulumi_func(body)
            if isinstance(recorded.result, pulumi.Output):
                recorded.result = await recorded.result.future()

        try:
            loop.run_until_complete(run())
        except BaseException as error:  # noqa: BLE001 raised again below
            errors.append(error)
        finally:
            loop.close()

    thread = threading.Thread(target=lambda: contextvars.Context().run(main))
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return recorded
