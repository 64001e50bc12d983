"""What the policies cost a run: the pack against one that does nothing, on a graph of 1,000 resources.

Each pack is a process that is asked over the analyzer protocol, as an engine asks it. There are two floors: a pack with
one policy of each kind that does nothing, which is what the protocol costs, and one with as many such policies as this
pack has, which is what it costs to have them. Rounds alternate, so that whatever else the machine does falls on all.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from statistics import median

from pulumi_policy import StackValidationPolicy
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data_plane.engine.runner.policy import PolicyPack
from policies.pack import POLICIES
from tests.support.analyzer import PACK, PROJECT, Declared, checked_resource, checked_stack
from tests.support.small_programs import a_cell, project
from tests.support.whole_program import CENTRAL_STACK, central_program, with_urns

RESOURCES = 1000
ROUNDS = 7
NOTHING = """
from pulumi_policy import PolicyPack, ResourceValidationPolicy, StackValidationPolicy

def nothing(args, report):
    pass

PolicyPack(name="nothing", policies=[{policies}])
"""


def a_pack(folder: Path, single: int, whole: int) -> Path:
    """A pack with so many policies on resources and on stacks, which do nothing."""
    policies = "".join(
        f'{kind}(name="{kind.lower()}-{number}", description="d", validate=nothing),'
        for kind, count in (("ResourceValidationPolicy", single), ("StackValidationPolicy", whole))
        for number in range(count)
    )
    folder.mkdir()
    (folder / "PulumiPolicy.yaml").write_text("runtime: python\n", encoding="utf-8")
    (folder / "__main__.py").write_text(NOTHING.format(policies=policies), encoding="utf-8")
    return folder


def tenants() -> list[Declared]:
    """A cell of as many tenants as make a thousand resources."""
    count = RESOURCES // 40
    cell = with_urns(a_cell(*(project(slug=f"project-{number}") for number in range(count))), "prod-cell-1")
    return cell[:RESOURCES]


def services() -> list[Declared]:
    """The objects of the whole central stack, as often as makes a thousand."""
    return list(islice(cycle(central_program("everything")), RESOURCES))


def timed(work: Callable[[], object]) -> float:
    """How long it takes, in seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def one_by_one(pack: PolicyPack, graph: list[Declared]) -> None:
    """Has each resource checked, as a run does."""
    for item in graph:
        checked_resource(pack, item)


def rounds(packs: dict[str, PolicyPack], graph: list[Declared]) -> dict[str, tuple[float, float]]:
    """Seconds for all resources one by one, and for the stack at once: the median of the rounds, by pack."""
    single: dict[str, list[float]] = {name: [] for name in packs}
    whole: dict[str, list[float]] = {name: [] for name in packs}
    for number in range(ROUNDS + 1):
        for name, pack in packs.items():
            one = timed(partial(one_by_one, pack, graph))
            all_of_it = timed(partial(checked_stack, pack, graph))
            if number:  # the first round warms up
                single[name].append(one)
                whole[name].append(all_of_it)
    return {name: (median(single[name]), median(whole[name])) for name in packs}


def measured() -> Iterator[tuple[str, str, float, float, float, float]]:
    """Graph, pack, milliseconds a resource, ratio to the floor, milliseconds of the stack, ratio."""
    with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        whole_stack = sum(isinstance(policy, StackValidationPolicy) for policy in POLICIES)
        floors = {
            "one that does nothing": a_pack(Path(folder) / "one", 1, 1),
            "as many that do nothing": a_pack(Path(folder) / "many", len(POLICIES) - whole_stack, whole_stack),
        }
        for graph_name, graph, name in (
            ("tenants", tenants(), "prod-cell-1"),
            ("services", services(), CENTRAL_STACK),
        ):
            packs = {
                label: PolicyPack(path, PROJECT, name, preview=True)
                for label, path in {**floors, "this pack": PACK}.items()
            }
            for pack in packs.values():
                stack.callback(pack.close)
            found = rounds(packs, graph)
            base = found["one that does nothing"]
            for label, (one, whole) in found.items():
                yield graph_name, label, one / len(graph) * 1e3, one / base[0], whole * 1e3, whole / base[1]


def main() -> None:
    """Prints the table."""
    table = Table(title=f"{RESOURCES} resources, median of {ROUNDS} rounds, {os.cpu_count()} cores")
    for column in ("graph", "pack", "a resource (ms)", "ratio", "the stack (ms)", "ratio"):
        table.add_column(column, justify="left" if column in {"graph", "pack"} else "right")
    for graph, pack, one, one_ratio, whole, whole_ratio in measured():
        table.add_row(graph, pack, f"{one:.2f}", f"{one_ratio:.2f}", f"{whole:.0f}", f"{whole_ratio:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
