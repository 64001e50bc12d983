"""``dataplane workload secret-id``: what an operator hands to a workload that signs in as an AppRole."""

import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from enum import StrEnum
from typing import Annotated

import hvac
import requests
import typer
from hvac.exceptions import Forbidden, InvalidPath, VaultError
from rich.console import Console

from components.durations import format_duration, parse_duration
from components.openbao import explain
from components.workloads import WorkloadMethod
from connector.bindings import data_plane_of
from connector.errors import ConnectorError
from connector.leases import shell_exports
from connector.options import EnvironmentOption
from connector.sign_in import ROLE_ID_VARIABLE, SECRET_ID_VARIABLE
from embedded.workplace import ENVIRONMENT

__all__ = ["add_workload_commands"]


class _Form(StrEnum):
    TEXT = "text"
    ENV = "env"
    JSON = "json"


def add_workload_commands(
    app: typer.Typer, messages: Callable[[], AbstractContextManager[None]], said: Console
) -> None:
    """Adds the commands; see :func:`connector.lease_commands.add_lease_commands`."""
    workload_app = typer.Typer(help="The workloads that projects' files name.", no_args_is_help=True)
    app.add_typer(workload_app, name="workload")

    @workload_app.command("secret-id")
    def secret_id(
        project: Annotated[str, typer.Option("--project", "-p", help="Slug of the project.")],
        workload: Annotated[str, typer.Option("--workload", help="The workload's name in the project's file.")],
        wrap_ttl: Annotated[str, typer.Option(help="How long the wrapping token can be unwrapped.")] = "10m",
        ttl: Annotated[
            str | None, typer.Option(help="How long the secret-ID is good; at most the project's secret_id_ttl.")
        ] = None,
        uses: Annotated[int, typer.Option(min=0, help="How often it can be signed in with; 0 is any number.")] = 0,
        revoke_earlier: Annotated[
            bool, typer.Option("--revoke-earlier", help="Make all secret-IDs of before useless.")
        ] = False,
        form: Annotated[_Form, typer.Option("--format", "-f", help="How to print it.")] = _Form.TEXT,
        environment: EnvironmentOption = ENVIRONMENT,
    ) -> None:
        """Make a secret-ID for a workload, and print a token that can be exchanged for it once.

        Takes an operator's token. The workload signs in with `--auth approle --wrapped`. Where unwrapping is refused,
        somebody else has done it.
        """
        with messages():
            try:
                lasting = None if ttl is None else parse_duration(ttl)
                wrapping = parse_duration(wrap_ttl)
            except ValueError as error:
                raise ConnectorError(f"--ttl and --wrap-ttl: expected {error}") from None
            plane = data_plane_of(environment)
            declared = (plane.binding(project).get("workloads") or {}).get(workload)
            if declared is None or declared["method"] != WorkloadMethod.APPROLE:
                raise ConnectorError(
                    f"{project} has no workload {workload!r} with `approle`: put it into the project's file and bring "
                    "its cell up"
                )
            path = f"auth/{declared['mount']}/role/{declared['role']}"
            given = {"num_uses": uses, **({} if lasting is None else {"ttl": lasting})}
            role_id, token = _issue(plane.operator(), path, given, wrapping, revoke_earlier=revoke_earlier)
            variables = {ROLE_ID_VARIABLE: role_id, SECRET_ID_VARIABLE: token}
            sys.stdout.write(_rendered(variables, form) + "\n")
            said.print(f"{SECRET_ID_VARIABLE} is a wrapping token, for once, within {format_duration(wrapping)}")


def _issue(
    client: hvac.Client, path: str, given: dict[str, int], wrap_seconds: int, *, revoke_earlier: bool
) -> tuple[str, str]:
    """A role-ID and a wrapping token for a new secret-ID, which nobody here gets to see."""
    try:
        if revoke_earlier:
            for accessor in _accessors(client, path):
                client.write_data(f"{path}/secret-id-accessor/destroy", data={"secret_id_accessor": accessor})
        found = client.read(f"{path}/role-id")
        if found is None:
            raise ConnectorError(f"OpenBao has nothing at {path}: bring the project's cell up first")
        answer = client.write_data(f"{path}/secret-id", data=given, wrap_ttl=f"{wrap_seconds}s")
    except Forbidden:
        raise ConnectorError(
            f"this OpenBao token may not make a secret-ID at {path}: that takes an operator's"
        ) from None
    except (VaultError, requests.RequestException) as error:
        raise ConnectorError(f"no secret-ID was made: {explain(error)}") from None
    return str(found["data"]["role_id"]), str(answer["wrap_info"]["token"])


def _accessors(client: hvac.Client, path: str) -> list[str]:
    try:
        listed = client.list(f"{path}/secret-id")
    except InvalidPath:
        return []
    return list(listed["data"]["keys"]) if listed else []


def _rendered(variables: dict[str, str], form: _Form) -> str:
    match form:
        case _Form.ENV:
            return shell_exports(variables)
        case _Form.JSON:
            return json.dumps(variables, indent=2)
        case _Form.TEXT:
            width = max(map(len, variables))
            return "\n".join(f"{name.ljust(width)}  {value}" for name, value in variables.items())
