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

from bench.scale.projects import open_workplace
from embedded.runner.deployment import _Program, load_config, project_name, stack_outputs
from embedded.runner.monitor import EngineLog, Monitor
from embedded.runner.properties import Properties
from embedded.runner.state import StackState
from embedded.workplace import Workplace

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


def _sdk(workplace: Workplace, stack: str) -> dict[str, Any]:
    root, home = workplace.root, workplace.servers.home
    project = project_name(root)
    monitor = _Nothing(
        project,
        stack,
        StackState(home, stack),
        lambda other: stack_outputs(home, other),
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
    workplace = open_workplace(Path(folder))
    if action == "sdk":
        done = _sdk(workplace, stack)
    else:
        run = workplace.run_stack(stack, preview=action == "preview", on_step=lambda _step: None)
        done = {"created": run.created, "updated": run.updated, "same": run.same}
    mine, others = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    used = {
        "processor_seconds": sum(usage.ru_utime + usage.ru_stime for usage in (mine, others)),
        "resident_mib": max(mine.ru_maxrss, others.ru_maxrss) / 1024,
    }
    print(json.dumps({**done, **used}))


if __name__ == "__main__":
    main()
