"""Draws the pictures in ``architecture.md`` from what the program declares; ``--check`` says whether they are right.

    - which service may talk to which: the egress of every NetworkPolicy of a central stack with everything on;
    - what a tenant is: the components and resources of a cell with one project.

The pictures are Mermaid's text, which GitHub and GitLab draw. The program runs on Pulumi's mocks: no server is needed.
"""

import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.unit.cluster_program import variant
from tests.unit.declared import Declared, Program
from tests.unit.test_program_graph import a_cell, project

PAGE = Path(__file__).with_name("architecture.md")
_OURS = "supabase-data-plane:"
_BLOCK = re.compile(r"(<!-- drawn: (\w+) -->\n```mermaid\n).*?(\n```)", re.DOTALL)
_SHAPES = {"database": ("[(", ")]"), "gateway": ("{{", "}}")}


def traffic() -> str:
    """Who may talk to whom, a folder for each namespace."""
    policies = [item.inputs for item in variant("everything").resources if item.type.endswith(":NetworkPolicy")]
    places: defaultdict[str, set[str]] = defaultdict(set)
    ways: dict[tuple[str, str], set[int]] = defaultdict(set)
    for policy in policies:
        name = _service(policy["spec"]["podSelector"])
        if name is None:
            continue
        places[policy["metadata"]["namespace"]].add(name)
        for rule in policy["spec"].get("egress", []):
            for peer in rule["to"]:
                target = _service(peer.get("podSelector", {})) or "outside"
                ways[name, target] |= {port["port"] for port in rule["ports"]}
    lines = ["flowchart LR", "    client([clients]) --> gateway", "    lease([leases]) --> pooler"]
    for place, names in sorted(places.items()):
        lines.append(f'    subgraph {place.replace("-", "_")}["namespace {place}"]')
        lines += [f"        {name}{_shape(name)}" for name in sorted(names)]
        lines.append("    end")
    lines.append("    outside[/outside the cluster/]")
    lines += [
        f"    {source} -->|{', '.join(map(str, sorted(ports)))}| {target}"
        for (source, target), ports in sorted(ways.items())
        if source != target
    ]
    return "\n".join(lines)


def tenant() -> str:
    """The components of one project's slice, and how many resources of which type each holds."""
    program = a_cell(project())
    by_urn = {item.urn: item for item in program.resources}
    components = [item for item in program.resources if item.type.startswith(f"{_OURS}tenant:")]
    lines = ["flowchart TD"]
    for component in components:
        held = Counter(item.type for item in program.resources if item.request.parent == component.urn)
        counts = "<br/>".join(
            f"{count} × {kind.rpartition(':')[2]}" for kind, count in sorted(held.items()) if not _component(kind)
        )
        title = component.type.rpartition(":")[2]
        lines.append(f'    {component.name.replace("-", "_")}["<b>{title}</b><br/>{counts}"]')
    for component in components:
        parent = by_urn.get(component.request.parent)
        if parent is not None and parent in components:
            lines.append(f"    {parent.name.replace('-', '_')} --> {component.name.replace('-', '_')}")
    lines += [f"    {before} -.->|before| {after}" for before, after in sorted(_order(program, components))]
    return "\n".join(lines)


def _order(program: Program, components: list[Declared]) -> set[tuple[str, str]]:
    """Which component's resources wait for which other's."""
    names = {component.urn: component.name.replace("-", "_") for component in components}
    owner = {item.urn: names.get(item.urn) or names.get(item.request.parent) for item in program.resources}
    found = {
        (owner[dependency], owner[item.urn])
        for item in program.resources
        for dependency in item.request.dependencies
        if owner[dependency] and owner[item.urn]
    }
    # What a component itself holds comes last where it waits for its parts; that is no order among the parts.
    whole = names[components[0].urn]
    return {(str(before), str(after)) for before, after in found if before != after and whole not in {before, after}}


def _component(kind: str) -> bool:
    return kind.startswith(_OURS)


def _service(selector: dict[str, Any]) -> str | None:
    name = selector.get("matchLabels", {}).get("app.kubernetes.io/name")
    return name.removeprefix("supabase-") if name else None


def _shape(name: str) -> str:
    opening, closing = _SHAPES.get(name, ("[", "]"))
    return f"{opening}{name}{closing}"


def drawn(page: str) -> str:
    """The page with every picture drawn anew."""
    pictures = {"traffic": traffic, "tenant": tenant}
    return _BLOCK.sub(lambda block: f"{block[1]}{pictures[block[2]]()}{block[3]}", page)


def _main(arguments: list[str]) -> Iterator[str]:
    before = PAGE.read_text(encoding="utf-8")
    after = drawn(before)
    if "--check" not in arguments:
        PAGE.write_text(after, encoding="utf-8")
    elif before != after:
        yield f"docs/{PAGE.name} is out of date: run `make docs`"


if __name__ == "__main__":
    sys.exit("\n".join(_main(sys.argv[1:])) or None)
