"""The providers for machines where the official plugins cannot be had, and for the local runner."""

from data_plane.local.providers.base import LocalProvider, ProviderError
from data_plane.local.providers.installing import install_plugins, version
from data_plane.local.providers.kubernetes import KubernetesProvider
from data_plane.local.providers.openbao import OpenBaoProvider
from data_plane.local.providers.postgresql import PostgresqlProvider

__all__ = ["PROVIDERS", "LocalProvider", "ProviderError", "install_plugins", "version"]

PROVIDERS: dict[str, type[LocalProvider]] = {
    "kubernetes": KubernetesProvider,
    "postgresql": PostgresqlProvider,
    "vault": OpenBaoProvider,
}
"""The provider of each package."""
