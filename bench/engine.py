"""What runs on the real Pulumi CLI cost, against an empty program: ``python -m bench.engine``.

Two tenants in one cell, the policy pack, servers of its own. Processor time is of everything that a run starts.
"""

import resource
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench.scale.projects import cell_of, new_local_env, write_project
from data_plane.engine.engines import LocalConfig, PulumiEngine, find_cli
from data_plane.engine.steps import EngineRun, Step
from data_plane.local.environment import CENTRAL_STACK, LocalEnvironment
from data_plane.local.providers import install_plugins

_TENANTS = 2
_CELL_SIZE = 10


def main() -> None:
    command = find_cli()
    if command is None:
        raise SystemExit("there is no Pulumi CLI here: `make engine` builds it")
    with tempfile.TemporaryDirectory() as folder:
        made = new_local_env(Path(folder), _TENANTS, _CELL_SIZE)
        try:
            engine = PulumiEngine(made.servers.home, command, made.root, install_plugins=install_plugins)
            measure(LocalEnvironment(made.servers, engine, made.root), engine)
        finally:
            made.servers.stop()


def measure(environment: LocalEnvironment, engine: PulumiEngine) -> None:
    cell = f"local-{cell_of(0, _CELL_SIZE)}"
    empty = environment.root.parent / "empty"
    (empty / "stacks").mkdir(parents=True)
    (empty / "Pulumi.yaml").write_text("name: empty\nruntime: python\nstackConfigDir: stacks\n", encoding="utf-8")
    (empty / "stacks" / "Pulumi.empty.yaml").write_text("config: {}\n", encoding="utf-8")
    (empty / "__main__.py").write_text("import pulumi\n", encoding="utf-8")

    def run_empty(*, preview: bool) -> EngineRun:
        return engine.at(empty).run("empty", LocalConfig(), preview=preview, on_step=_ignore)

    def run(stack: str, *, preview: bool) -> EngineRun:
        return environment.run_stack(stack, preview=preview, on_step=_ignore)

    run_empty(preview=False)
    print("| run | resources changed | seconds | processor seconds | of the empty program's |")
    print("| --- | ---: | ---: | ---: | ---: |")
    applied = _show("up: empty program", lambda: run_empty(preview=False), None)
    previewed = _show("preview: empty program", lambda: run_empty(preview=True), None)
    for preview, stack, what in (
        (True, CENTRAL_STACK, "central, first"),
        (False, CENTRAL_STACK, "central, first"),
        (False, cell, "cell, first"),
        (False, CENTRAL_STACK, "central, again"),
        (False, cell, "cell, again"),
        (True, CENTRAL_STACK, "central, again"),
        (True, cell, "cell, again"),
    ):
        name = f"{'preview' if preview else 'up'}: {what}"
        _show(name, partial(run, stack, preview=preview), previewed if preview else applied)
    write_project(environment.root, _TENANTS, cell_of(0, _CELL_SIZE))
    _show("up: cell, one project attached", partial(run, cell, preview=False), applied)


def _show(what: str, run: Callable[[], EngineRun], floor: float | None) -> float:
    began, used = time.monotonic(), _processor_seconds()
    done = run()
    wall, processor = time.monotonic() - began, _processor_seconds() - used
    ratio = f"{processor / floor:.1f}" if floor else "1.0"
    changed = done.created + done.updated + done.replaced + done.deleted
    print(f"| {what} | {changed} | {wall:.1f} | {processor:.1f} | {ratio} |", flush=True)
    return processor


def _processor_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def _ignore(_step: Step) -> None:
    pass


if __name__ == "__main__":
    main()
