"""The program behind every stack: the central Supabase data plane, or one cell of the projects attached to it."""

import asyncio
import gc

import pulumi

from components.cell import Cell, CellArgs
from components.central import SupabaseCentral, SupabaseCentralArgs
from components.platform import export_platform, read_platform
from components.projects import load_projects
from components.settings import CellSettings, checkout, load_settings

# Whatever a program makes is needed until it ends; looking for garbage among it would take longer than all else here.
gc.disable()

settings = load_settings()
projects = load_projects(
    checkout(),
    settings.environment,
    lease_ttl_maximum=settings.lease_ttl_maximum,
    cell_size=settings.cell_size,
)

if isinstance(settings, CellSettings):
    tenants = [project for project in projects if project.cell == settings.cell]
    cell = Cell(settings.cell, CellArgs(platform=read_platform(settings.central_stack), projects=tenants))
    pulumi.export("tenants", cell.tenants)
else:
    arguments = SupabaseCentralArgs.from_settings(settings, pulumi.Config(), checkout(), projects)
    central = SupabaseCentral("supabase", arguments)
    export_platform(central)


async def begun() -> None:
    """Lets every registration begin, so that the SDK waits for these; else it polls all outputs, at a square's cost."""
    await asyncio.sleep(0)


pulumi.run(begun)
