"""``dataplane secret``: new values for the platform's secrets, and the same ones everywhere."""

from typing import Annotated

import typer
from rich.markup import escape

from data_plane.cli.console import messages, stdout
from data_plane.cli.options import EnvironmentOption
from data_plane.cli.superuser import local_servers, openbao_of, superuser_of
from data_plane.connector.reconcile_credentials import connector_secret
from data_plane.connector.rotation import rotate as rotate_secret
from data_plane.state_dir import ENVIRONMENT

__all__ = ["app"]

_RESTART = "Reloader restarts their Pods; where it is not installed, run `kubectl rollout restart` for each."

app = typer.Typer()


@app.command()
def rotate(
    key: Annotated[str, typer.Argument(help="Key of connectors/supabase, e.g. SECRET_KEY_BASE.", metavar="KEY")],
    environment: EnvironmentOption = ENVIRONMENT,
) -> None:
    """Give a secret of the platform a new value, everywhere: in OpenBao, in its copies and in PostgreSQL.

    For a deployed environment OpenBao is where VAULT_ADDR says, and PostgreSQL where PGHOST, PGPORT, PGDATABASE, PGUSER
    and PGSSLMODE say.
    """
    with messages():
        local = local_servers(environment)
        done = rotate_secret(openbao_of(local), key, superuser_of(local))
        if local is not None:
            local.postgres.remember_password(connector_secret(local.openbao.client())["POSTGRES_PASSWORD"])
        stdout.print(f"New: {', '.join(done.keys)}")
        stdout.print(f"Read by: {', '.join(done.services) or 'no service yet'}")
        if done.services and local is None:
            stdout.print(f"Restarting, once their Secrets have the new value: {', '.join(done.services)}. {_RESTART}")
        if done.remark:
            stdout.print(done.remark)


@app.command()
def reconcile(environment: EnvironmentOption = ENVIRONMENT) -> None:
    """Give services and OpenBao today's passwords, after a restore by hand; every lease is ended."""
    from data_plane.cli.backup import backups_of  # noqa: PLC0415 as large as the servers that it brings

    with backups_of(environment) as found:
        found.reconcile_credentials()
        stdout.print(escape(f"Passwords are those of OpenBao in {environment}; every lease was ended."))
