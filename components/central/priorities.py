"""The PriorityClasses by which a node that is short of room decides whose Pods go first."""

from collections.abc import Mapping

import pulumi
import pulumi_kubernetes as k8s

from data_plane.model.cluster_names import Priority
from data_plane.model.cluster_settings import ClusterSettings, DatabaseMode

__all__ = ["PriorityClasses"]

# Above the 0 of Pods without a class, below the system's (two thousand million).
_VALUES = {Priority.DATABASE: 1_000_000, Priority.SERVICES: 100_000}


class PriorityClasses(pulumi.ComponentResource):
    """Creates a PriorityClass for PostgreSQL, where it runs here, and one for all other Pods.

    One that the settings name is the cluster's. Those that are made belong to the whole cluster, so their names
    begin with the stack's namespace, which no other stack has.
    """

    names: Mapping[Priority, pulumi.Output[str]]

    def __init__(
        self,
        name: str,
        settings: ClusterSettings,
        provider: k8s.Provider,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("supabase-data-plane:central:PriorityClasses", name, None, opts)
        # PostgreSQL's StatefulSet outlives the stack, and makes no Pod without its class.
        kept = pulumi.ResourceOptions(parent=self, provider=provider, retain_on_delete=settings.applied)
        found: dict[Priority, pulumi.Output[str]] = {}
        for priority in Priority:
            if priority is Priority.DATABASE and settings.database.mode is DatabaseMode.EXTERNAL:
                continue
            given = settings.priority_class(priority)
            if not given.made:
                found[priority] = pulumi.Output.from_input(given.name)
                continue
            made = k8s.scheduling.v1.PriorityClass(
                f"{name}-{priority}",
                metadata={
                    "name": given.name,
                    "labels": {"app.kubernetes.io/part-of": "supabase", "app.kubernetes.io/managed-by": "pulumi"},
                },
                value=_VALUES[priority],
                global_default=False,
                # A service waits for room; PostgreSQL, without which none works, makes it.
                preemption_policy="PreemptLowerPriority" if priority is Priority.DATABASE else "Never",
                description=f"Supabase's {priority}",
                opts=kept,
            )
            found[priority] = made.metadata.apply(lambda metadata: str(metadata.name))
        self.names = found
        self.register_outputs({"names": found})
