"""``dataplane project move``: a project's move to another cell."""

from typing import Annotated

import typer
from rich.markup import escape

from data_plane.cli.console import messages, stderr, stdout
from data_plane.cli.options import EnvironmentOption, complete_project
from data_plane.connector.project_move import ProjectMove
from data_plane.state_dir import ENVIRONMENT

__all__ = ["app"]

app = typer.Typer()


@app.command()
def move(
    slug: Annotated[str, typer.Argument(help="Slug of the project.", autocompletion=complete_project)],
    cell: Annotated[str, typer.Option("--to", help="The cell that is to have it.")],
    environment: EnvironmentOption = ENVIRONMENT,
) -> None:
    """Move a project to another cell, with its data, access and leases. Brings both cells up.

    A preview of both rehearses it; if that would make or delete anything of the project, nothing is moved. Tokens for
    the API that were issued before are for the old cell's server: clients get new ones within 15 minutes.
    """
    with messages():
        moves = ProjectMove.of(environment, lambda text: stderr.print(escape(text)))
        for run in moves.to(slug, cell):
            stdout.print(f"{run.stack}: {len(run.changes)} changed, {run.unchanged} unchanged")
            for change in run.changes:
                stdout.print(f"  {escape(change)}")
        stdout.print(f"{escape(slug)} is in cell {escape(cell)}.")
