"""The pictures of ``explanation/architecture.md``, as Mermaid's text, which GitHub and GitLab draw.

    - which services there are and which flows are allowed: the table that NetworkPolicies are generated from;
    - what a tenant is: the components and resources of a cell with one project.

The programs run on Pulumi's mocks: no server is needed.
"""

from collections import Counter, defaultdict
from functools import cache
from typing import Any, cast

from components.central.cluster import Cluster
from components.central.network_policies import ExternalPeer, Flow, flows
from data_plane.model.catalog import Service, load_catalog
from data_plane.model.cluster_names import Place
from data_plane.state_dir import CHECKOUT
from tests.support.cluster_program import EVERYTHING, settings_of
from tests.support.declared import Declared, Program
from tests.support.small_programs import a_cell, project

COMPONENT = "supabase-data-plane:"
"""What the types of this program's components begin with."""
_SHAPES = {Service.DATABASE: ("[(", ")]"), Service.GATEWAY: ("{{", "}}")}


@cache
def everything() -> Cluster:
    """The cluster of a central stack with everything switched on."""
    settings = settings_of(EVERYTHING)
    return Cluster(
        provider=cast("Any", None),
        settings=settings,
        catalog=load_catalog(CHECKOUT),
        namespaces=dict.fromkeys(Place, cast("Any", "")),
        database_host="",
        database_port=5432,
        database_name="postgres",
        admin_user="supabase_admin",
        sslmode="require",
        public_url="https://api.example.org",
    )


def allowed_flows() -> list[Flow]:
    """The flows that are allowed with everything switched on."""
    return flows(everything())


def services() -> str:
    """The services in their namespaces, and the flows among them and with the world outside."""
    # Prometheus reads from some, and nodes of a service talk to each other: neither says how the stack is built.
    table = [flow for flow in allowed_flows() if flow.source not in {flow.target, ExternalPeer.PROMETHEUS}]
    ends = {end for flow in table for end in (flow.source, flow.target)}
    places: defaultdict[str, list[Service]] = defaultdict(list)
    for service in sorted(end for end in ends if isinstance(end, Service)):
        places[everything().namespace_name(service)].append(service)
    lines = ["flowchart LR"]
    lines += [f"    {_identifier(peer)}([{peer}])" for peer in ExternalPeer if peer in ends]
    for place, members in sorted(places.items()):
        lines.append(f'    subgraph {_identifier(place)}["namespace {place}"]')
        lines += [f"        {service}{_label(service)}" for service in members]
        lines.append("    end")
    lines += sorted({f"    {_identifier(flow.source)} --> {_identifier(flow.target)}" for flow in table})
    return _mermaid(lines)


def tenant() -> str:
    """The components of one project's slice, and how many resources of which type each holds."""
    program = a_cell(project())
    by_urn = {item.urn: item for item in program.resources}
    components = tenant_components(program)
    lines = ["flowchart TD"]
    for component in components:
        held = Counter(item.type for item in children(program, component))
        counts = "<br/>".join(f"{count} × {kind.rpartition(':')[2]}" for kind, count in sorted(held.items()))
        title = component.type.rpartition(":")[2]
        lines.append(f'    {_identifier(component.name)}["<b>{title}</b><br/>{counts}"]')
    for component in components:
        parent = by_urn.get(component.request.parent)
        if parent is not None and parent in components:
            lines.append(f"    {_identifier(parent.name)} --> {_identifier(component.name)}")
    lines += [f"    {before} -.->|before| {after}" for before, after in sorted(_order(program, components))]
    return _mermaid(lines)


def tenant_components(program: Program) -> list[Declared]:
    """The components that a cell's project is made of."""
    return [item for item in program.resources if item.type.startswith(f"{COMPONENT}tenant:")]


def children(program: Program, component: Declared) -> list[Declared]:
    """The resources that are directly in a component."""
    return [
        item
        for item in program.resources
        if item.request.parent == component.urn and not item.type.startswith(COMPONENT)
    ]


def _order(program: Program, components: list[Declared]) -> set[tuple[str, str]]:
    """Which component's resources wait for which other's."""
    names = {component.urn: _identifier(component.name) for component in components}
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


def _identifier(name: str) -> str:
    return name.replace("-", "_").replace(" ", "_")


def _label(service: Service) -> str:
    opening, closing = _SHAPES.get(service, ("[", "]"))
    return f"{opening}{service}{closing}"


def _mermaid(lines: list[str]) -> str:
    return "\n".join(["```mermaid", *lines, "```"])
