"""What the program declares, with the URNs that an engine gives it."""

from functools import cache

from tests.support.analyzer import CENTRAL, Declared
from tests.support.cluster_program import VARIANTS, variant
from tests.support.declared import Program
from tests.support.small_programs import a_cell, a_central, project

__all__ = ["CENTRAL_PROGRAMS", "CENTRAL_STACK", "cell_program", "central_program", "with_urns"]

CENTRAL_STACK = "local-central"
"""The central stack that this checkout declares; what is declared under another name is not central."""
WITHOUT_SERVICES = "without services"
CENTRAL_PROGRAMS = [WITHOUT_SERVICES, *VARIANTS]
"""The central stack without services, and in every way that its settings allow."""


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
        for item in sorted(program.resources, key=lambda item: item.urn)  # the same order in every process
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
def central_program(name: str) -> list[Declared]:
    """The central stack in one of the ways of ``CENTRAL_PROGRAMS``."""
    found = with_urns(a_central() if name == WITHOUT_SERVICES else variant(name), CENTRAL_STACK)
    assert any(CENTRAL in item.parents for item in found)
    return found
