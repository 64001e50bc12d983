"""``dataplane project drop``: removes a detached project for good, after a dump."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from data_plane.cli.console import messages, require_terminal, stderr, stdout
from data_plane.cli.options import EnvironmentOption, complete_project
from data_plane.connector.audit import current_user
from data_plane.connector.project_drop import ProjectDrop
from data_plane.errors import UsageError
from data_plane.state_dir import ENVIRONMENT

__all__ = ["app"]

app = typer.Typer()


@app.command()
def drop(
    slug: Annotated[str, typer.Argument(help="Slug of the project.", autocompletion=complete_project)],
    dump: Annotated[
        Path | None,
        typer.Option("--dump", help="File for its data; by default SLUG-TIME.dump in the current folder."),
    ] = None,
    confirm: Annotated[
        str | None, typer.Option("--confirm", metavar="SLUG", help="Its name again, instead of the question.")
    ] = None,
    actor: Annotated[
        str | None, typer.Option("--actor", help="Name for the audit log; by default the current user.")
    ] = None,
    environment: EnvironmentOption = ENVIRONMENT,
) -> None:
    """Drop a detached project for good: dump its data, then remove it.

    It goes from OpenBao, the database, the stack's state and the checkout.

    Its schemas, its roles, its access and its file go; files in its buckets stay until they are deleted through
    Storage. A drop that failed is resumed by the same command. `pg_restore` reads the dump.
    """
    with messages():
        drops = ProjectDrop.of(environment, lambda text: stderr.print(escape(text)))
        drops.check(slug)
        _confirm(slug, confirm)
        file = dump or Path(f"{slug}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.dump")
        written = drops.begun(slug) or file.absolute()
        run = drops.drop(slug, file, actor=actor or current_user())
        for change in run.changes:
            stdout.print(f"  {escape(change)}")
        stdout.print(f"{escape(slug)} is dropped; its data is in {escape(str(written))}.")
        stderr.print("Commit the removal of its file, and run `dataplane up`.")


def _confirm(slug: str, confirmed: str | None) -> None:
    if confirmed is None:
        require_terminal(f": confirm with --confirm {slug}")
        confirmed = typer.prompt(f"Project {slug} and all its data will be dropped. Type its name to go on", err=True)
    if confirmed != slug:
        raise UsageError(f"found {confirmed!r}; expected {slug!r}. Nothing was dropped")
