"""``dataplane bind``, added to the command line."""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer
from rich.console import Console
from rich.markup import escape

from components.naming import AccessLevel
from connector.bindings import data_plane_of
from connector.errors import ConnectorError
from connector.leases import Via
from connector.options import EnvironmentOption
from connector.service_binding import BindingForm, BindRequest, Provision, bind_request, binding_text
from connector.service_binding.documents import difference, write_whole
from embedded.workplace import ENVIRONMENT

__all__ = ["add_binding_commands"]


def _help(field: str) -> str:
    return BindRequest.model_fields[field].description or ""


def add_binding_commands(app: typer.Typer, messages: Callable[[], AbstractContextManager[None]], said: Console) -> None:
    """Adds the command.

    Args:
        messages: turns every foreseeable error into one message and exit code 1.
        said: for people, beside what a command answers.
    """

    @app.command()
    def bind(
        project: Annotated[str, typer.Option("--project", "-p", help="Slug of the project.")],
        form: Annotated[BindingForm, typer.Option("--form", "-f", help="What it is written as.")],
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
        force: Annotated[
            bool, typer.Option("--force", help="Also over a file that this command did not write.")
        ] = False,
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
        """Write what binds a workspace to a project's schema: an asset, a compose fragment, manifests. No secrets.

        With --check it says whether a committed file is still what would be written.
        """
        with messages():
            if check and output is None:
                raise ConnectorError("name the file that is to be checked with --output")
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
            binding = data_plane_of(environment, binding_file).binding(project)
            text = binding_text(request, binding)
            if check and output is not None:
                changes = difference(output, text)
                if changes:
                    sys.stdout.write(changes)
                    raise ConnectorError(f"{output} is out of date: run `{request.command} --output {output}`")
                return
            if output is None:
                sys.stdout.write(text)
            else:
                write_whole(output, text, force=force)
            address = request.openbao or str(binding["openbaoAddress"])
            if form is not BindingForm.ASSET and urlsplit(address).hostname in {"127.0.0.1", "::1", "localhost"}:
                said.print(
                    f"[yellow]OpenBao is at {escape(address)} there, where no container reaches it: name another "
                    "address with --openbao[/]"
                )
