"""What the program declares, with the URNs that an engine gives it."""

from functools import cache

from tests.policy.analyzer import CENTRAL, Declared
from tests.unit.cluster_program import VARIANTS, variant
from tests.unit.declared import Program
from tests.unit.test_program_graph import a_cell, a_central, project

__all__ = ["CENTRAL_STACK", "cell_program", "central_programs", "with_urns"]

CENTRAL_STACK = "local-central"
"""The central stack that this checkout declares; what is declared under another name is not central."""


def with_urns(program: Program, stack: str) -> list[Declared]:
    """What was declared, each resource in all its parents (a mock's URN names only the nearest)."""
    by_urn = {item.urn: item for item in program.resources}

    def parents(urn: str) -> list[str]:
        parent = by_urn.get(urn)
        return [] if parent is None or not urn else [*parents(parent.request.parent), parent.type]

    return [
        Declared(
            item.type,
            item.inputs,
            name=item.name,
            stack=stack,
            parents=[kind for kind in parents(item.request.parent) if kind != "pulumi:pulumi:Stack"],
            protect=item.request.protect,
        )
        for item in program.resources
    ]


@cache
def cell_program() -> list[Declared]:
    """A cell with two tenants: one is exposed and has a bucket, the other has workloads."""
    workloads = {
        "api": {"level": "service_role", "kubernetes": {"namespace": "shop", "service_account": "api"}},
        "ci": {"level": "owner", "approle": {"bound_cidrs": ["10.0.0.0/8"]}},
    }
    shop = project(slug="shop", exposed=False, managed_services=["postgres"], workloads=workloads)
    projects = (project(), shop)
    return with_urns(a_cell(*projects), "prod-cell-1")


@cache
def central_programs() -> dict[str, list[Declared]]:
    """The central stack without services, and in every way that its settings allow, by the way's name."""
    programs = {"without services": a_central(), **{name: variant(name) for name in VARIANTS}}
    found = {name: with_urns(program, CENTRAL_STACK) for name, program in programs.items()}
    assert all(any(CENTRAL in item.parents for item in declared) for declared in found.values())
    return found
