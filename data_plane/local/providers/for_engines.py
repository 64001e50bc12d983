"""The providers as the engines take them. Apart, since a plugin needs nothing of what runs it."""

from data_plane.engine.engines import LocalProviders
from data_plane.local.providers import PROVIDERS, install_plugins

__all__ = ["LOCAL_PROVIDERS"]

LOCAL_PROVIDERS = LocalProviders(PROVIDERS, install_plugins)
