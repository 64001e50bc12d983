"""One run of one stack in a process of its own, so that its time and memory are its own: prints what it did as JSON.

``python -m bench.scale.child FOLDER STACK up|preview|sdk``; ``sdk`` is the same program with an engine that does
nothing: what Pulumi's SDK costs, whatever engine there is.
"""

import json
import resource
import sys
from pathlib import Path
from typing import Any

from pulumi.runtime.proto import resource_pb2

from bench.scale.projects import open_local_env
from data_plane.engine.runner.deployment import _Program, stack_outputs
from data_plane.engine.runner.monitor import EngineLog, Monitor
from data_plane.engine.runner.properties import Properties
from data_plane.engine.runner.state import StackState
from data_plane.engine.stack_files import load_config, project_name
from data_plane.local.environment import LocalEnvironment

__all__ = ["main"]


class _Nothing(Monitor):
    """Says to everything that it is done."""

    def RegisterResource(  # noqa: N802
        self, request: resource_pb2.RegisterResourceRequest
    ) -> resource_pb2.RegisterResourceResponse:
        urn = self._urn(request.parent, request.type, request.name)
        self.registered = getattr(self, "registered", 0) + request.custom
        return resource_pb2.RegisterResourceResponse(urn=urn, id=request.name, object=request.object)

    def Invoke(self, request: resource_pb2.ResourceInvokeRequest) -> resource_pb2.ResourceInvokeResponse:  # noqa: N802
        del request
        answer = Properties({"id": "id", "aliasId": "id", "data": {"POSTGRES_PASSWORD": "none"}})
        return resource_pb2.ResourceInvokeResponse(**{"return": answer.encode()})


def _sdk(local_env: LocalEnvironment, stack: str) -> dict[str, Any]:
    root, home = local_env.root, local_env.servers.home
    project = project_name(root)
    monitor = _Nothing(
        project,
        stack,
        StackState(home, stack),
        lambda other: stack_outputs(home, other),
        {},
        [],
        preview=False,
        on_step=lambda _step: None,
    )
    config = load_config(root, stack, {}, {})
    error = _Program(root, project, stack, config, monitor, EngineLog(print), preview=False).run()
    if error is not None:
        raise error
    return {"created": monitor.registered, "updated": 0, "same": 0}


def main() -> None:
    """Runs, and prints counts, processor seconds and memory."""
    folder, stack, action = sys.argv[1:]
    local_env = open_local_env(Path(folder))
    if action == "sdk":
        done = _sdk(local_env, stack)
    else:
        run = local_env.run_stack(stack, preview=action == "preview", on_step=lambda _step: None)
        done = {"created": run.created, "updated": run.updated, "same": run.same}
    mine, others = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    used = {
        "processor_seconds": sum(usage.ru_utime + usage.ru_stime for usage in (mine, others)),
        "resident_mib": max(mine.ru_maxrss, others.ru_maxrss) / 1024,
    }
    print(json.dumps({**done, **used}))


if __name__ == "__main__":
    main()
