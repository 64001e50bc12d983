"""The Pulumi CLI, built from the module that ``go.mod`` here pins and kept in the user's cache."""

from data_plane.engine.cli.build import VERSION, build_cli, built_cli

__all__ = ["VERSION", "build_cli", "built_cli"]
