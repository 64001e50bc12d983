"""``dataplane workload secret-id``: what an operator hands to a workload that signs in as an AppRole."""

import json
import sys
from enum import StrEnum
from typing import Annotated

import hvac
import requests
import typer
from hvac.exceptions import Forbidden, InvalidPath, VaultError

from data_plane.cli.console import messages, stderr
from data_plane.cli.options import EnvironmentOption, ProjectOption
from data_plane.clients.openbao import OpenBaoUnavailableError, explain
from data_plane.connector.bindings import data_plane_of
from data_plane.connector.leases import shell_exports
from data_plane.connector.sign_in import ROLE_ID_VARIABLE, SECRET_ID_VARIABLE
from data_plane.errors import DeploymentError, UsageError, WorkloadError
from data_plane.model.durations import format_duration, parse_duration
from data_plane.model.workloads import WorkloadMethod
from data_plane.state_dir import ENVIRONMENT

__all__ = ["app"]


class _Form(StrEnum):
    TEXT = "text"
    ENV = "env"
    JSON = "json"


app = typer.Typer()


@app.command("secret-id")
def secret_id(
    workload: Annotated[str, typer.Option("--workload", help="The workload's name in the project's file.")],
    project: ProjectOption = "",
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
    """Make a secret-ID for a workload that signs in by AppRole; prints a token that can be exchanged for it once.

    Takes an operator's token. The workload signs in with `--auth approle --wrapped`. If unwrapping is refused,
    somebody else has used the token.
    """
    with messages():
        try:
            lasting = None if ttl is None else parse_duration(ttl)
            wrapping = parse_duration(wrap_ttl)
        except ValueError as error:
            raise UsageError(f"--ttl and --wrap-ttl: expected {error}") from error
        plane = data_plane_of(environment)
        declared = plane.binding(project).workloads.get(workload)
        if declared is None or declared.method != WorkloadMethod.APPROLE:
            raise WorkloadError(
                f"{project} has no workload {workload!r} with `approle`: put it into the project's file and bring "
                "its cell up"
            )
        path = f"auth/{declared.mount}/role/{declared.role}"
        given = {"num_uses": uses, **({} if lasting is None else {"ttl": lasting})}
        role_id, token = _issue(plane.operator(), path, given, wrapping, revoke_earlier=revoke_earlier)
        variables = {ROLE_ID_VARIABLE: role_id, SECRET_ID_VARIABLE: token}
        sys.stdout.write(_rendered(variables, form) + "\n")
        stderr.print(f"{SECRET_ID_VARIABLE} is a wrapping token, for once, within {format_duration(wrapping)}")


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
            raise DeploymentError(f"OpenBao has nothing at {path}: bring the project's cell up first")
        answer = client.write_data(f"{path}/secret-id", data=given, wrap_ttl=f"{wrap_seconds}s")
    except Forbidden as error:
        raise OpenBaoUnavailableError(
            f"this OpenBao token may not make a secret-ID at {path}: that takes an operator's"
        ) from error
    except (VaultError, requests.RequestException) as error:
        raise OpenBaoUnavailableError(f"no secret-ID was made: {explain(error)}") from error
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
