"""``dataplane project check`` and ``project schema``: the files of projects."""

import json
from typing import Annotated

import typer
from rich.markup import escape

from data_plane.cli.console import messages, stderr, stdout
from data_plane.cli.generated import write_or_check
from data_plane.engine.stack_files import load_config
from data_plane.model.projects import (
    Project,
    connections_for_projects,
    load_projects,
    overcommitment,
    project_json_schema,
)
from data_plane.model.settings import load_bounds
from data_plane.model.tenant_binding import binding_json_schema
from data_plane.state_dir import CHECKOUT, ENVIRONMENT

__all__ = ["app"]

app = typer.Typer()


@app.command()
def check() -> None:
    """Check every project file of the local environment."""
    with messages():
        projects = _local_projects()
        remark = overcommitment(projects, connections_for_projects(CHECKOUT, ENVIRONMENT))
        if remark:
            stderr.print(f"[yellow]{escape(remark)}[/]")
        stdout.print(f"{len(projects)} project files are right.")


@app.command()
def schema(
    check_only: Annotated[bool, typer.Option("--check", help="Fail if a committed file is not up to date.")] = False,
) -> None:
    """Write the JSON Schemas of project files and of bindings to stacks/."""
    schemas = {"project": project_json_schema(), "tenant-binding": binding_json_schema()}
    with messages():
        texts = {
            CHECKOUT / "stacks" / f"{name}.schema.json": json.dumps(wanted, indent=2) + "\n"
            for name, wanted in schemas.items()
        }
        write_or_check(texts, check_only=check_only, command="./dataplane project schema")


def _local_projects() -> list[Project]:
    stack = f"{ENVIRONMENT}-central"
    config = load_config(CHECKOUT, stack, {}, {}).values
    bounds = load_bounds(
        {key.rpartition(":")[2]: value for key, value in config.items()}, f"stacks/Pulumi.{stack}.yaml"
    )
    return load_projects(CHECKOUT, ENVIRONMENT, lease_ttl_maximum=bounds.lease_ttl_maximum, cell_size=bounds.cell_size)
