"""``dataplane project link``: lets a repository remember its project."""

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from data_plane.cli.console import messages, stdout
from data_plane.cli.options import EnvironmentOption
from data_plane.connector.bindings import data_plane_of
from data_plane.connector.project_link import LINK_FILE, write_link
from data_plane.errors import DataPlaneError, ProjectNotFoundError
from data_plane.model.projects import slugs_of
from data_plane.state_dir import CHECKOUT, ENVIRONMENT, has_checkout

__all__ = ["app"]

_BINDING = "DATA_PLANE_BINDING"

app = typer.Typer()


@app.command(
    help=f"Let a repository remember its project: with {LINK_FILE} at its top, commands in it need no --project."
)
def link(
    project: Annotated[str, typer.Option("--project", "-p", help="Slug of the project.")],
    environment: EnvironmentOption = ENVIRONMENT,
    folder: Annotated[
        Path | None,
        typer.Option("--folder", help="The `supabase` folder; else the one here, or at the top of the repository."),
    ] = None,
) -> None:
    with messages():
        _refuse_unknown(project, environment)
        written = write_link(Path.cwd(), project, environment, folder)
        stdout.print(
            f"{escape(str(written.path))} says {project} ({environment}), folder {escape(str(written.folder))}"
        )


def _refuse_unknown(project: str, environment: str) -> None:
    """Raises if projects are known here, and this is none of them."""
    known = set() if os.environ.get(_BINDING) else set(slugs_of(CHECKOUT, environment))
    if project not in known:
        known |= _brought_up(environment)
    if known and project not in known:
        raise ProjectNotFoundError.among(project, known, f" in environment {environment!r}")


def _brought_up(environment: str) -> set[str]:
    """What a binding says, or this machine's last runs do; a deployed environment is not asked."""
    file = os.environ.get(_BINDING)
    if not file and (environment != ENVIRONMENT or not has_checkout()):
        return set()
    try:
        return set(data_plane_of(environment, Path(file) if file else None).bindings())
    except (DataPlaneError, ImportError):
        return set()  # nothing was brought up here
