"""``python -m policies.compose_wall`` and ``dataplane wall``."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from policies.compose_wall.discovery import checked
from policies.compose_wall.reports import as_json, as_sarif, as_text

__all__ = ["Format", "main", "wall_command"]


class Format(StrEnum):
    """What a report is written as."""

    TEXT = "text"
    JSON = "json"
    SARIF = "sarif"


_WRITERS = {Format.TEXT: as_text, Format.JSON: as_json, Format.SARIF: as_sarif}


def wall_command(
    paths: Annotated[list[Path] | None, typer.Argument(help="Files and folders.", show_default="this folder")] = None,
    report_format: Annotated[Format, typer.Option("--format", "-f", help="How the report is written.")] = Format.TEXT,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where the report goes.", show_default="standard output")
    ] = None,
    root: Annotated[Path, typer.Option("--root", help="Nothing outside of this folder is read.")] = Path(),
) -> None:
    """Looks for databases that a project would bring along: compose files, Dockerfiles, manifests, charts.

    Ends with 0 if there are none, 1 if there are, and 2 if something could not be checked.
    """
    given = paths or [root]
    missing = [str(path) for path in given if not path.exists() and not path.is_symlink()]
    if missing:
        typer.echo(f"no such file or folder: {', '.join(missing)}", err=True)
        raise typer.Exit(2)
    report = checked(given, root)
    text = _WRITERS[report_format](report)
    if output is None:
        typer.echo(text, nl=False)
    else:
        try:
            output.write_text(text, encoding="utf-8")
        except OSError as error:
            typer.echo(f"{output} cannot be written: {(error.strerror or '').lower()}", err=True)
            raise typer.Exit(2) from None
        typer.echo(as_text(report), err=True, nl=False)
    raise typer.Exit(report.exit_code)


def main() -> None:
    """Entry point of the command."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(wall_command)
    app()
