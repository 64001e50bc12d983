"""The namespaces of the stack, each with the Pod Security Standard that is enforced in it."""

from collections.abc import Mapping

import pulumi
import pulumi_kubernetes as k8s

from data_plane.model.cluster_names import Place, PodSecurity
from data_plane.model.cluster_settings import ClusterSettings

__all__ = ["Namespaces"]


class Namespaces(pulumi.ComponentResource):
    """Creates a namespace for each place that the stack's settings need.

    They are kept when the stack is destroyed, like the volumes in them.
    """

    names: Mapping[Place, pulumi.Output[str]]

    def __init__(
        self,
        name: str,
        settings: ClusterSettings,
        provider: k8s.Provider,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("supabase-data-plane:central:Namespaces", name, None, opts)
        kept = pulumi.ResourceOptions(
            parent=self, provider=provider, protect=settings.applied, retain_on_delete=settings.applied
        )
        places = [place for place in Place if place is not Place.LOGS or settings.logs.enabled]
        made = {
            place: k8s.core.v1.Namespace(
                f"{name}{place.value}",
                metadata={
                    "name": f"{settings.namespace}{place.value}",
                    "labels": {
                        "app.kubernetes.io/part-of": "supabase",
                        "app.kubernetes.io/managed-by": "pulumi",
                        "pod-security.kubernetes.io/enforce": place.pod_security,
                        # What the strictest level would say is still said, as a warning and in the audit log.
                        "pod-security.kubernetes.io/warn": PodSecurity.RESTRICTED,
                        "pod-security.kubernetes.io/audit": PodSecurity.RESTRICTED,
                    },
                },
                opts=kept,
            )
            for place in places
        }
        self.names = {
            place: namespace.metadata.apply(lambda found: str(found.name)) for place, namespace in made.items()
        }
        self.register_outputs({"names": dict(self.names)})
