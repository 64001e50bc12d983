"""The command ``dataplane``."""

import errno
import json
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import hvac
import hvac.exceptions
import psycopg
import pulumi
import requests
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from components.naming import AccessLevel, TenantNames
from components.openbao import OpenBaoUnavailableError, connect, explain
from components.postgres import explain as explain_database
from components.projects import Lifecycle, Project, project_json_schema
from connector.action_commands import add_action_commands
from connector.backup_commands import add_backup_commands
from connector.binding_commands import add_binding_commands
from connector.bindings import data_plane_of
from connector.errors import ConnectorError
from connector.lease_commands import add_lease_commands
from connector.leases import LeaseClient, shell_exports
from connector.migration_commands import add_migration_commands
from connector.options import EnvironmentOption
from connector.realignment import connector_secret
from connector.replacement import prove
from connector.rotation import rotate as rotate_secret
from connector.touched import touched_command
from connector.workload_commands import add_workload_commands
from embedded.engines import EmbeddedEngine, EngineChoice, EngineRun, backend_variables, choose_engine
from embedded.errors import EmbeddedError
from embedded.home import CHECKOUT
from embedded.runner.monitor import Change, Step
from embedded.servers import ADMIN_USER, LOOPBACK, Servers
from embedded.workplace import ENVIRONMENT, Workplace
from policies.compose_wall.command_line import wall_command

__all__ = ["app"]

app = typer.Typer(
    help="The central Supabase data plane: attach projects, take leases.",
    no_args_is_help=True,
    add_completion=False,
    # A traceback with local variables would show secrets.
    pretty_exceptions_enable=False,
)
servers_app = typer.Typer(help="The local PostgreSQL, OpenBao and Kubernetes.", no_args_is_help=True)
app.add_typer(servers_app, name="servers")

_said = Console(stderr=True, highlight=False)
_answer = Console(highlight=False, soft_wrap=True)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_SCHEMA_FILE = CHECKOUT / "stacks" / "project.schema.json"

_Engine = Annotated[
    EngineChoice, typer.Option("--engine", envvar="DATA_PLANE_ENGINE", help="What runs the program.", show_default=True)
]


@contextmanager
def _messages() -> Iterator[None]:
    """Every foreseeable error as one message and exit code 1."""
    try:
        yield
    except (ConnectorError, EmbeddedError, pulumi.RunError) as error:
        _fail(str(error))
    except (hvac.exceptions.VaultError, requests.RequestException) as error:
        _fail(f"OpenBao: {explain(error)}. `dataplane servers status` shows whether it runs.")
    except psycopg.Error as error:
        _fail(f"PostgreSQL: {explain_database(error)}")
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        place = error.filename or tempfile.gettempdir()
        _fail(f"{place}: {error.strerror}. Make room, then run the same command again")
    except KeyboardInterrupt:
        _fail("interrupted; the same command can be run again")


def _fail(message: str) -> None:
    _said.print(f"[bold red]error:[/] {escape(message)}")
    raise typer.Exit(1) from None


def _workplace(engine: EngineChoice) -> Workplace:
    servers = Servers()
    return Workplace(servers, choose_engine(engine, servers.home, lambda text: _said.print(escape(text))))


@app.command()
def up(engine: _Engine = EngineChoice.AUTO) -> None:
    """Start the local servers, bring every stack up, and lease each attached project once."""
    with _messages():
        workplace = _workplace(engine)
        workplace.projects()
        with _said.status("Starting PostgreSQL and OpenBao"):
            workplace.servers.start()
        _said.print(_runs(workplace, preview=False))
        projects = workplace.projects()  # an action may have changed them meanwhile
        workplace.let_people_in(projects)
        _leases(workplace, [project for project in projects if project.lifecycle is Lifecycle.ATTACHED])


@app.command()
def preview(engine: _Engine = EngineChoice.AUTO) -> None:
    """Show what `up` would create or change, and apply nothing."""
    with _messages():
        workplace = _workplace(engine)
        workplace.projects()
        with _said.status("Starting PostgreSQL and OpenBao"):
            workplace.servers.start()
        _said.print(_runs(workplace, preview=True))


@app.command()
def check() -> None:
    """Check every project file of the local environment."""
    with _messages():
        servers = Servers()
        workplace = Workplace(servers, EmbeddedEngine(servers.home))
        _answer.print(f"{len(workplace.projects())} project files are right.")


@app.command()
def schema(
    check_only: Annotated[bool, typer.Option("--check", help="Fail if the committed file is not up to date.")] = False,
) -> None:
    """Write the JSON Schema of project files to stacks/project.schema.json."""
    text = json.dumps(project_json_schema(), indent=2) + "\n"
    with _messages():
        if check_only:
            if not _SCHEMA_FILE.is_file() or _SCHEMA_FILE.read_text(encoding="utf-8") != text:
                raise ConnectorError(f"{_shown(_SCHEMA_FILE)} is out of date: run `./dataplane schema`")
        else:
            _SCHEMA_FILE.write_text(text, encoding="utf-8")


@app.command()
def status(
    project: Annotated[str | None, typer.Option("--project", "-p", help="One project; all without it.")] = None,
    environment: EnvironmentOption = ENVIRONMENT,
) -> None:
    """Show tenants and their live leases."""
    with _messages():
        plane = data_plane_of(environment)
        bindings = plane.bindings()
        chosen = [plane.binding(project)] if project else [bindings[slug] for slug in sorted(bindings)]
        if not chosen:
            raise ConnectorError("no tenant is attached yet: run `dataplane up`")
        leases = LeaseClient(plane.operator())
        table = Table("project", "schema", "lifecycle", "exposed", "services", "live leases", box=None, pad_edge=False)
        for binding in chosen:
            names = TenantNames(binding["project"])
            live = {level: len(leases.live(names, level)) for level in AccessLevel}
            counted = ", ".join(f"{count} {level.value}" for level, count in live.items() if count) or "none"
            services = ", ".join(binding["requiredManagedServices"])
            exposed = "yes" if binding["exposed"] else "no"
            table.add_row(names.slug, names.schema, binding["lifecycle"], exposed, services, counted)
        _answer.print(table)
        if project:
            _answer.print_json(json.dumps(chosen[0]))


@app.command()
def rotate(
    key: Annotated[str, typer.Argument(help="Key of connectors/supabase, e.g. SECRET_KEY_BASE.", metavar="KEY")],
    environment: EnvironmentOption = ENVIRONMENT,
) -> None:
    """Give a secret of the platform a new value, in OpenBao, in its copies and in PostgreSQL.

    For a deployed environment OpenBao is where VAULT_ADDR says, and PostgreSQL where PGHOST, PGPORT, PGDATABASE, PGUSER
    and PGSSLMODE say.
    """
    with _messages():
        local = Servers() if environment == ENVIRONMENT else None
        done = rotate_secret(_openbao(local), key, _superuser(local))
        if local is not None:
            local.postgres.remember_password(connector_secret(local.openbao.client())["POSTGRES_PASSWORD"])
        _answer.print(f"New: {', '.join(done.keys)}")
        _answer.print(f"Read by: {', '.join(done.services) or 'no service yet'}")
        if done.remark:
            _answer.print(done.remark)


def _openbao(local: Servers | None) -> hvac.Client:
    if local is not None:
        return local.openbao.client()
    if not os.environ.get("VAULT_ADDR"):
        raise ConnectorError("say where OpenBao is: set VAULT_ADDR")
    try:
        return connect(os.environ["VAULT_ADDR"])
    except OpenBaoUnavailableError as error:
        raise ConnectorError(str(error)) from None


def _superuser(local: Servers | None) -> "Callable[[str], psycopg.Connection[Any]]":
    if local is None:
        return lambda password: psycopg.connect(password=password, connect_timeout=15)
    port = local.postgres.known_port
    return lambda password: psycopg.connect(
        host=LOOPBACK, port=port, dbname="postgres", user=ADMIN_USER, password=password, connect_timeout=15
    )


add_action_commands(app, _messages, _said, _answer)
add_lease_commands(app, _messages, _said, _answer)
add_migration_commands(app, _messages, _said, _answer)
add_workload_commands(app, _messages, _said)
add_backup_commands(app, _messages, _said, _answer)
add_binding_commands(app, _messages, _said)
app.command("touched")(touched_command)
app.command("wall")(wall_command)


@servers_app.command("start")
def servers_start(
    kubernetes: Annotated[
        bool, typer.Option("--kubernetes", help="A Kubernetes control plane too; the first time it is built with Go.")
    ] = False,
) -> None:
    """Start what is not running."""
    with _messages():
        Servers(say=lambda text: _said.print(escape(text))).start(kubernetes=kubernetes)
        _show_servers()


@servers_app.command("stop")
def servers_stop() -> None:
    """Stop them; their data stays."""
    with _messages():
        Servers().stop()
        _show_servers()


@servers_app.command("status")
def servers_status() -> None:
    """Show how they are."""
    with _messages():
        _show_servers()


@servers_app.command("env")
def servers_env() -> None:
    """Print shell variables for `psql`, `bao` and `pulumi` by hand, as the operator: they hold secrets."""
    with _messages():
        servers = Servers()
        openbao, postgres = servers.openbao, servers.postgres
        token, address = openbao.root_token, openbao.address
        variables = {
            **dict.fromkeys(("BAO_ADDR", "VAULT_ADDR"), address),
            **dict.fromkeys(("BAO_TOKEN", "VAULT_TOKEN"), token),
            "PGHOST": LOOPBACK,
            "PGPORT": str(postgres.known_port),
            "PGUSER": ADMIN_USER,
            "PGPASSWORD": postgres.admin_password,
            "PGDATABASE": "postgres",
            **backend_variables(servers.home),
        }
        if servers.kubernetes.ever_started:
            variables["KUBECONFIG"] = str(servers.kubernetes.kubeconfig)
        sys.stdout.write(shell_exports(variables) + "\n")


@servers_app.command("reset")
def servers_reset(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Stop them and delete all local data."""
    with _messages():
        servers = Servers()
        if servers.home.path.is_dir():
            if not yes:
                typer.confirm(f"Delete {servers.home.path} and every database in it?", abort=True)
            servers.reset()
        _answer.print(f"{servers.home.path} is gone")


def _show_servers() -> None:
    table = Table("server", "state", "address", "", box=None, pad_edge=False)
    for item in Servers().status():
        table.add_row(item.name, "running" if item.running else "stopped", item.address, item.remark)
    _answer.print(table)


def _runs(workplace: Workplace, *, preview: bool) -> Table:
    """Runs every stack under a progress display, and gives the closing table."""
    _said.print(f"Engine: {workplace.engine.label}")
    done: list[EngineRun] = []
    progress = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=_said,
        transient=True,
    )
    with progress:
        task = progress.add_task("", total=None)

        def on_stack(stack: str) -> None:
            progress.update(task, description=f"{'previewing' if preview else 'applying'} {stack}", completed=0)

        def on_step(step: Step) -> None:
            progress.advance(task)
            if step.custom and step.change is not Change.SAME:
                progress.console.print(_described(step), soft_wrap=True)

        for run in workplace.run(preview=preview, on_stack=on_stack, on_step=on_step):
            done.append(run)
            for remark in run.remarks:
                progress.console.print(f"  [yellow]{escape(remark)}[/]")
    table = Table("stack", "to create" if preview else "created", "to update" if preview else "updated", "unchanged")
    for run in done:
        counts = (run.created, run.updated, run.same)
        table.add_row(run.stack, *("see above" if count is None else str(count) for count in counts))
    return table


def _described(step: Step) -> str:
    sign = {Change.CREATE: "[green]+[/]", Change.UPDATE: "[yellow]~[/]", Change.SAME: " "}[step.change]
    changed = f" [dim]({', '.join(step.changed)})[/]" if step.changed else ""
    return f"  {sign} {step.type} {escape(step.name)}{changed}"


def _leases(workplace: Workplace, projects: list[Project]) -> None:
    bindings = workplace.bindings()
    for project in projects:
        owner = workplace.somebody_with(project, AccessLevel.OWNER)
        taken = LeaseClient(workplace.sign_in(owner)).issue(bindings[project.slug], AccessLevel.OWNER)
        prove(taken)
        _answer.print(
            f"\n{project.display_name}: schema {taken.schema}, as its owner, for {taken.ttl_seconds // 60} min"
        )
        _answer.print(f"  psql '{taken.connection_string}'", markup=False)
    _answer.print("\nMore: ./dataplane lease --project SLUG --as authenticated --format dotenv")


def _shown(path: Path) -> Path:
    return path.relative_to(CHECKOUT) if path.is_relative_to(CHECKOUT) else path


def main() -> None:
    """Entry point of the command."""
    for name in ("psycopg.pool", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # their warnings repeat what the error says
    app()
