"""``dataplane project binding``: what binds a workspace to a project."""

import json
import sys
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer
from rich.markup import escape

from data_plane.cli.console import messages, stderr
from data_plane.cli.options import EnvironmentOption, ProjectOption
from data_plane.connector.bindings import data_plane_of
from data_plane.connector.leases import Via
from data_plane.connector.service_binding import BindingForm, BindRequest, Provision, bind_request, binding_text
from data_plane.connector.service_binding.documents import difference, write_whole
from data_plane.errors import FileOutdatedError, UsageError
from data_plane.model.naming import AccessLevel
from data_plane.state_dir import ENVIRONMENT

__all__ = ["app"]


def _help(field: str) -> str:
    return BindRequest.model_fields[field].description or ""


app = typer.Typer()


@app.command()
def binding(
    form: Annotated[BindingForm | None, typer.Option("--form", help="What it is written as.")] = None,
    project: ProjectOption = "",
    as_json: Annotated[
        bool, typer.Option("--json", help="The binding itself as JSON, as --binding takes it, in place of a form.")
    ] = False,
    level: Annotated[AccessLevel | None, typer.Option("--as", help=_help("level"))] = None,
    workload: Annotated[str | None, typer.Option(help=_help("workload"))] = None,
    provision: Annotated[Provision | None, typer.Option(help=_help("provision"))] = None,
    via: Annotated[Via | None, typer.Option("--via", "--route", help=_help("via"))] = None,
    openbao: Annotated[str | None, typer.Option(help=_help("openbao"))] = None,
    ca: Annotated[str | None, typer.Option(help=_help("ca"))] = None,
    image: Annotated[str | None, typer.Option(help=_help("image"))] = None,
    deployment: Annotated[str | None, typer.Option(help=_help("deployment"))] = None,
    container: Annotated[str | None, typer.Option(help=_help("container"))] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where it goes.", show_default="standard output")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Also over a file that this command did not write.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; fail, and show how, if --output is out of date.")
    ] = False,
    binding_file: Annotated[
        Path | None,
        typer.Option(
            "--binding",
            envvar="DATA_PLANE_BINDING",
            help="A JSON file with the project's binding, instead of the stacks' outputs.",
        ),
    ] = None,
    environment: EnvironmentOption = ENVIRONMENT,
) -> None:
    """Write what binds a workspace to a project: an asset, a compose fragment, manifests. No secrets.

    With --check it says whether a committed file is still what would be written.
    """
    with messages():
        if check and output is None:
            raise UsageError("name the file that is to be checked with --output")
        bound = data_plane_of(environment, binding_file).binding(project)
        if (form is None) is not as_json:
            raise UsageError(f"say what to write: --form {', '.join(BindingForm)}, or --json")
        if form is None:
            _write(json.dumps(bound.document(), indent=2) + "\n", output, force=force, check=check)
            return
        request = bind_request(
            project=project,
            form=form,
            level=level,
            workload=workload,
            provision=provision,
            via=via,
            openbao=openbao,
            ca=ca,
            image=image,
            deployment=deployment,
            container=container,
            environment=environment,
        )
        _write(binding_text(request, bound), output, force=force, check=check, command=request.command)
        address = request.openbao or bound.openbao_address
        if (
            not check
            and form is not BindingForm.ASSET
            and urlsplit(address).hostname in {"127.0.0.1", "::1", "localhost"}
        ):
            stderr.print(
                f"[yellow]OpenBao is at {escape(address)} there, where no container reaches it: name another "
                "address with --openbao[/]"
            )


def _write(
    text: str, output: Path | None, *, force: bool, check: bool, command: str = "dataplane project binding --json"
) -> None:
    """Writes it to the file, or to standard output; with `check`, compares the file with it instead."""
    if output is None:
        sys.stdout.write(text)
    elif not check:
        write_whole(output, text, force=force)
    elif changes := difference(output, text):
        sys.stdout.write(changes)
        raise FileOutdatedError(f"{output} is out of date: run `{command} --output {output}`")
