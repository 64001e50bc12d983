"""``python -m policies.artifacts`` and ``dataplane policy check``."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from policies.artifacts.discovery import checked
from policies.artifacts.reports import as_json, as_sarif, as_text

__all__ = ["Format", "app", "check", "main"]


class Format(StrEnum):
    """What a report is written as."""

    TEXT = "text"
    JSON = "json"
    SARIF = "sarif"


_WRITERS = {Format.TEXT: as_text, Format.JSON: as_json, Format.SARIF: as_sarif}


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def check(
    paths: Annotated[list[Path] | None, typer.Argument(help="Files and folders.", show_default="this folder")] = None,
    report_format: Annotated[Format, typer.Option("--format", "-f", help="How the report is written.")] = Format.TEXT,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where the report goes.", show_default="standard output")
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(
            "--root",
            help="Nothing outside of this folder is read.",
            show_default="the current folder; of a path outside of it, the folder itself, or the file's",
        ),
    ] = None,
    changed: Annotated[
        bool,
        typer.Option("--changed", help="The paths are changed files: ignore those of a kind that is not checked."),
    ] = False,
) -> None:
    """Look for databases that a project would bring along, in compose files, Dockerfiles, manifests and charts.

    Ends with 0 if there are none, 1 if there are, and 2 if something could not be checked: also if a path was named and
    nothing of it is of a kind that is read.
    """
    given = paths or [root or Path()]
    missing = [str(path) for path in (*given, root or Path()) if not path.exists() and not path.is_symlink()]
    if missing:
        typer.echo(f"no such file or folder: {', '.join(dict.fromkeys(missing))}", err=True)
        raise typer.Exit(2)
    report = checked(given, root, named=bool(paths) and not changed)
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
    app()
