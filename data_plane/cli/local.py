"""``dataplane local``: the servers of this machine."""

import os
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from data_plane.cli.console import messages, print_json, print_table, require_terminal, stderr, stdout
from data_plane.cli.options import JsonOption
from data_plane.connector.leases import shell_exports
from data_plane.engine.engines import backend_variables
from data_plane.local.servers import Servers

__all__ = ["app"]

app = typer.Typer()


@app.command()
def start(
    kubernetes: Annotated[
        bool, typer.Option("--kubernetes", help="A Kubernetes control plane too; the first time it is built with Go.")
    ] = False,
    services: Annotated[
        bool,
        typer.Option(
            "--services",
            help="Supabase's services that this machine has too, and the gateway at SUPABASE_URL: postgres-meta, and "
            "those whose commands DATA_PLANE_POSTGREST, DATA_PLANE_AUTH and DATA_PLANE_STORAGE name.",
        ),
    ] = False,
    install_postgres_meta: Annotated[
        bool, typer.Option("--install-postgres-meta", help="With --services: get postgres-meta from npm first.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Start what is not running."""
    with messages():
        servers = Servers(say=lambda text: stderr.print(escape(text)))
        servers.start(
            kubernetes=kubernetes,
            services=services or install_postgres_meta,
            install_postgres_meta=install_postgres_meta,
        )
        _show(as_json=as_json)


@app.command()
def stop(as_json: JsonOption = False) -> None:
    """Stop the servers; their data stays."""
    with messages():
        Servers().stop()
        _show(as_json=as_json)


@app.command()
def status(as_json: JsonOption = False) -> None:
    """Show how the servers are."""
    with messages():
        _show(as_json=as_json)


@app.command()
def env() -> None:
    """Print shell variables for `psql`, `bao` and `pulumi` as the operator. They hold secrets.

    PATH gets the folders of `bao` and `psql`.
    """
    with messages():
        servers = Servers()
        openbao, postgres = servers.openbao, servers.postgres
        token, address = openbao.root_token, openbao.address
        variables = {
            **dict.fromkeys(("BAO_ADDR", "VAULT_ADDR"), address),
            **dict.fromkeys(("BAO_TOKEN", "VAULT_TOKEN"), token),
            **postgres.superuser_variables,
            **backend_variables(servers.home),
        }
        if servers.kubernetes.ever_started:
            variables["KUBECONFIG"] = str(servers.kubernetes.kubeconfig)
        programs = shlex.quote(os.pathsep.join(map(str, (Path(sys.prefix) / "bin", postgres.binaries))))
        sys.stdout.write(f'{shell_exports(variables)}\nexport PATH={programs}{os.pathsep}"$PATH"\n')


@app.command()
def reset(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Stop the servers and delete all local data."""
    with messages():
        servers = Servers()
        if servers.home.path.exists():
            servers.home.prepare()  # refuses what is no folder
            if not yes:
                require_terminal(" whether all may be deleted: --yes says so")
                typer.confirm(f"Delete {servers.home.path} and every database in it?", abort=True)
            servers.reset()
        stdout.print(f"{servers.home.path} is gone")


def _show(*, as_json: bool) -> None:
    found = Servers().status()
    if as_json:
        print_json([asdict(item) for item in found])
        return
    print_table(
        ("server", "state", "address", ""),
        [(item.name, "running" if item.running else "stopped", item.address, item.remark) for item in found],
    )
