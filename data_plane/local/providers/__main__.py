"""Serves one provider as a Pulumi plugin: ``python -m data_plane.local.providers NAME``."""

import sys

from pulumi.provider.experimental.server import main

from data_plane.local.providers import PROVIDERS, version

name, *arguments = sys.argv[1:]
main(arguments, version(name), PROVIDERS[name]())
