"""What the options of several commands share."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from data_plane.cli.console import fail, stderr
from data_plane.connector.project_link import DEFAULT_FOLDER, LINK_FILE, ProjectLink, find_link
from data_plane.errors import LinkError, UsageError
from data_plane.model.durations import parse_duration
from data_plane.state_dir import CHECKOUT, ENVIRONMENT

__all__ = [
    "AllProjectsOption",
    "EnvironmentOption",
    "FolderOption",
    "JsonOption",
    "ProjectOption",
    "SomeProjectOption",
    "complete_project",
    "is_given",
    "link_in_use",
    "refuse_one_of_all",
    "seconds_of",
]

_LINK = "dataplane.link"


def _remembered(context: typer.Context, value: str | None) -> str | None:
    """The project that was given; else the repository's, with the environment and the folder that it remembers."""
    if is_given(context, "project") or context.resilient_parsing or context.params.get("all_projects"):
        return value
    try:
        link = find_link(Path.cwd())
    except LinkError as error:
        fail(str(error), error)
    except OSError:
        link = None  # a folder that is gone, or that may not be looked into
    if link is None:
        return None
    context.meta[_LINK] = link
    # What was given on the command line or in a variable comes before these.
    context.default_map = {"environment": link.environment, "folder": str(link.supabase)}
    stderr.print(f"[dim]project {link.project} ({link.environment}), from {escape(str(link.path))}[/]")
    return link.project


def _needed(context: typer.Context, value: str | None) -> str | None:
    project = _remembered(context, value)
    if project is None:
        raise typer.BadParameter(
            f"it is missing, and no {LINK_FILE} says it: `dataplane project link -p SLUG` writes one"
        )
    return project


def complete_project(context: typer.Context, incomplete: str) -> list[str]:
    """The slugs that a shell offers: those with a file in the environment that was typed before."""
    from data_plane.model.projects import slugs_of  # noqa: PLC0415

    environment = context.params.get("environment") or ENVIRONMENT
    return [slug for slug in slugs_of(CHECKOUT, environment) if slug.startswith(incomplete)]


def is_given(context: typer.Context, parameter: str) -> bool:
    """Whether an option was given, on the command line or in a variable."""
    source = context.get_parameter_source(parameter)
    return source is not None and source.name in {"COMMANDLINE", "ENVIRONMENT"}


def link_in_use(context: typer.Context) -> ProjectLink | None:
    """The file that said which project a command is about; None if the command line did."""
    found = context.meta.get(_LINK)
    return found if isinstance(found, ProjectLink) else None


# Both are read before other options, for which they may know a default. One that is needed takes `= ""`.
ProjectOption = Annotated[
    str,
    typer.Option(
        "--project",
        "-p",
        help=f"Slug of the project; by default the one in {LINK_FILE}.",
        callback=_needed,
        autocompletion=complete_project,
        is_eager=True,
        show_default=False,
    ),
]
SomeProjectOption = Annotated[
    str | None,
    typer.Option(
        "--project",
        "-p",
        help=f"One project; by default the one in {LINK_FILE}, else all.",
        callback=_remembered,
        autocompletion=complete_project,
        is_eager=True,
        show_default=False,
    ),
]
AllProjectsOption = Annotated[
    bool, typer.Option("--all", help="All projects, whatever the repository remembers.", is_eager=True)
]
EnvironmentOption = Annotated[
    str, typer.Option("--environment", "-e", help="`local`, or a deployed environment under stacks/.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Answer with JSON, and with nothing else.")]
FolderOption = Annotated[
    Path, typer.Option("--folder", help="The repository's `supabase` folder.", show_default=str(DEFAULT_FOLDER))
]


def refuse_one_of_all(project: str | None, *, all_projects: bool) -> None:
    """Raises if one project was named, and all.

    Raises:
        UsageError: saying so.
    """
    if project is not None and all_projects:
        raise UsageError("either one project (--project) or all (--all)")


def seconds_of(option: str, text: str) -> int:
    """The seconds that an option says.

    Args:
        option: as it is typed, e.g. ``--for``.

    Raises:
        UsageError: if it is no duration.
    """
    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageError(f"{option}: found {text!r}; expected {error}") from None
