"""A real Kubernetes control plane on the loopback address, for tests and for trying things out.

etcd, the API server, the controller manager and the scheduler are the real programs, built from their Go modules; kwok
plays the kubelet, so that pods get ready without a container being run. It is never started unless it is asked for.
"""

from embedded.kubernetes.crds import CRD_SOURCES, CrdSource, install_crds
from embedded.kubernetes.nodes import add_nodes, add_volumes
from embedded.kubernetes.programs import why_unavailable
from embedded.kubernetes.server import EmbeddedKubernetes

__all__ = [
    "CRD_SOURCES",
    "CrdSource",
    "EmbeddedKubernetes",
    "add_nodes",
    "add_volumes",
    "install_crds",
    "why_unavailable",
]
