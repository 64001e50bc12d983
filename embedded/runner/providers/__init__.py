"""The resource types that the runner can apply, by provider package."""

from embedded.runner.providers.base import Handler, Live, ProviderClient
from embedded.runner.providers.kubernetes import KubernetesClient
from embedded.runner.providers.openbao import OpenBaoClient
from embedded.runner.providers.postgresql import PostgresqlClient

__all__ = ["CLIENTS", "Handler", "Live", "ProviderClient"]

CLIENTS: dict[str, type[ProviderClient]] = {
    "kubernetes": KubernetesClient,
    "postgresql": PostgresqlClient,
    "vault": OpenBaoClient,
}
"""The client of each provider package."""
