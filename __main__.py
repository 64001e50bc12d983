"""The program behind every stack: the central Supabase data plane, or one cell of the projects attached to it."""

from pathlib import Path

import pulumi

from components.cell import Cell, CellArgs
from components.central.central import SupabaseCentral, SupabaseCentralArgs
from components.platform import export_platform, read_platform
from components.program import read_settings, run_program
from components.removal_guard import RemovalGuard
from data_plane.model.projects import load_projects
from data_plane.model.settings import CellSettings

ROOT = Path(__file__).absolute().parent


def declare() -> None:
    """Declares what the stack's settings say."""
    settings = read_settings(pulumi.Config())
    projects = load_projects(
        ROOT, settings.environment, lease_ttl_maximum=settings.lease_ttl_maximum, cell_size=settings.cell_size
    )
    if isinstance(settings, CellSettings):
        tenants = [project for project in projects if project.cell == settings.cell]
        cell = Cell(settings.cell, CellArgs(platform=read_platform(settings.central_stack), projects=tenants))
        pulumi.export("tenants", cell.tenants)
    else:
        arguments = SupabaseCentralArgs.from_settings(settings, pulumi.Config(), ROOT, projects)
        central = SupabaseCentral("supabase", arguments)
        RemovalGuard("supabase-removal-guard", pulumi.ResourceOptions(depends_on=[central]))
        export_platform(central.platform)
        pulumi.export("jwksUrl", central.jwks_url)
        pulumi.export("postgrestPreConfig", central.pre_config)


run_program(declare)
