"""The pack as the engine has it: a process of its own, asked over the analyzer protocol."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pulumi.runtime.proto import resource_pb2

from data_plane.engine.runner.policy import PolicyPack, Violation
from data_plane.engine.runner.properties import Properties

__all__ = ["CENTRAL", "PACK", "TENANT", "Declared", "checked_resource", "checked_stack", "running_pack", "told"]

PACK = Path(__file__).resolve().parents[2] / "policies"
PROJECT = "supabase-data-plane"
CENTRAL = "supabase-data-plane:central:SupabaseCentral"
TENANT = "supabase-data-plane:tenant:ProjectTenant"


@dataclass(frozen=True)
class Declared:
    """A resource as an engine registers it."""

    type: str
    properties: Mapping[str, Any] = field(default_factory=dict)
    name: str = "it"
    stack: str = "prod-cell-1"
    project: str = PROJECT
    parents: Sequence[str] = ()
    protect: bool = False

    @property
    def urn(self) -> str:
        return f"urn:pulumi:{self.stack}::{self.project}::{'$'.join([*self.parents, self.type])}::{self.name}"

    def request(self) -> tuple[resource_pb2.RegisterResourceRequest, str, Properties]:
        asked = resource_pb2.RegisterResourceRequest(type=self.type, name=self.name, custom=True, protect=self.protect)
        return asked, self.urn, Properties(dict(self.properties))


@contextmanager
def running_pack(stack: str = "prod-cell-1", *, preview: bool = True) -> Iterator[PolicyPack]:
    """The pack, started for a stack as an engine starts it."""
    pack = PolicyPack(PACK, PROJECT, stack, preview=preview)
    try:
        yield pack
    finally:
        pack.close()


def checked_resource(pack: PolicyPack, resource: Declared) -> list[Violation]:
    """What the resource policies say (Analyze)."""
    return pack.check_resource(*resource.request())


def checked_stack(pack: PolicyPack, resources: Sequence[Declared]) -> list[Violation]:
    """What the stack policies say (AnalyzeStack)."""
    return pack.check_stack([resource.request() for resource in resources])


def told(violations: Sequence[Violation]) -> dict[str, list[str]]:
    """The messages by policy."""
    found: dict[str, list[str]] = {}
    for violation in violations:
        found.setdefault(violation.policy, []).append(violation.message)
    return found
