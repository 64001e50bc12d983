"""The command ``dataplane``: its tree, and what holds for every command."""

import logging
import signal
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated

import typer

from data_plane.cli.console import CheckedOutput, messages
from data_plane.cli.lazy import HELP_OPTIONS, PLAIN, Entry, Group, LazyGroup
from data_plane.connector.environment import isolate
from data_plane.errors import TerminatedError
from data_plane.state_dir import SOURCES

__all__ = ["COMMANDS", "app", "main"]


def _entries(module: str, texts: Mapping[str, str], *, extra: str = "", checkout: bool = False) -> dict[str, Entry]:
    """Commands of one module, by name with the first sentence of each one's help."""
    return {name: Entry(f"data_plane.cli.{module}", text, extra, checkout) for name, text in texts.items()}


_CHECK = Entry("data_plane.cli.project_files", "Check every project file of the local environment.", checkout=True)
_RUN = Entry("data_plane.cli.lease", "Run a command with a lease that is renewed until it ends.")

_STACKS = _entries(
    "stack",
    {
        "up": "Start the local servers and bring up every stack that is affected.",
        "preview": "Show what `up` would change: for each project, access first, then the resources.",
        "affected": "Print the stacks that a committed change affects.",
    },
    extra="local",
    checkout=True,
)
_PROJECT = Group(
    "Attach projects, give access to them, move them, and see how they are.",
    {
        **_entries(
            "project_access",
            {
                "attach": "Attach a project, or change how it is attached.",
                "detach": "End all access to a project, and keep its data.",
                "access": "Give a team or a person a role on a project, or take it away.",
                "action": "Carry out an action of the connector's catalog, with JSON on standard input.",
            },
            extra="program",
            checkout=True,
        ),
        "status": Entry("data_plane.cli.project_status", "Show tenants: leases, storage, jobs, what the guard ended."),
        "binding": Entry(
            "data_plane.cli.project_binding",
            "Write what binds a workspace to a project: an asset, a compose fragment, manifests.",
        ),
        "check": _CHECK,
        "schema": Entry(
            "data_plane.cli.project_files",
            "Write the JSON Schemas of project files and of bindings to stacks/.",
            checkout=True,
        ),
        "link": Entry("data_plane.cli.project_link", "Let a repository remember its project."),
        "move": Entry(
            "data_plane.cli.project_move",
            "Move a project to another cell, with its data, access and leases.",
            extra="local",
            checkout=True,
        ),
        "drop": Entry(
            "data_plane.cli.project_drop",
            "Drop a detached project for good: dump its data, then remove it.",
            extra="local",
            checkout=True,
        ),
    },
)
_LEASE = Group(
    "Take leases (short-lived credentials of one project), list them, and give them back.",
    {
        **_entries(
            "lease",
            {
                "take": "Take a lease: a connection string and, for API levels, a token.",
                "list": "List the leases that are in force.",
                "renew": "Renew leases.",
                "revoke": "Give leases back: their sessions end and their logins are dropped.",
            },
        ),
        "run": _RUN,
    },
    default="take",
)
_MIGRATION = Group(
    "Run a project's supabase/migrations/*.sql in its schema.",
    _entries(
        "migration",
        {
            "up": "Run the migrations that the schema does not have yet.",
            "status": "Show which migrations the schema has, and which are pending.",
            "new": "Make a file for the next migration.",
            "diff": "Show as SQL how the schema differs from its applied files.",
            "reset": "Drop everything in the project's schemas, then run all migrations and seed files.",
            "baseline": "Note every migration up to a version as applied, without running it.",
            "repair": "Correct the history of migrations.",
            "seed": "Run the seed files.",
        },
        extra="migrations",
    ),
)
_BACKUP = Group(
    "Back up the database, and restore it or one project.",
    {
        **_entries(
            "backup",
            {
                "create": "Back up the database now, physically and logically.",
                "list": "Show what there is to restore from.",
                "restore": "Show how the database would be restored; with --yes, restore it.",
            },
            extra="local",
        ),
        "compare": Entry("data_plane.cli.upgrade", "Compare what two servers hold, project by project.", extra="local"),
    },
)
_SECRET = Group(
    "Rotate the platform's secrets.",
    {
        "rotate": Entry(
            "data_plane.cli.secret", "Give a secret of the platform a new value, everywhere.", extra="program"
        ),
        "reconcile": Entry(
            "data_plane.cli.secret", "Give services and OpenBao today's passwords, after a restore.", extra="local"
        ),
    },
)
_IMAGES = Group(
    "Pin the images that the central stack runs.",
    {
        "pin": Entry(
            "data_plane.cli.images",
            "Write each image's digest into stacks/images.yaml, as its registry says it now.",
            checkout=True,
        )
    },
)
_LOCAL = Group(
    "Start and stop the PostgreSQL, OpenBao and Kubernetes of this machine.",
    {
        **_entries(
            "local",
            {
                "start": "Start what is not running.",
                "stop": "Stop the servers; their data stays.",
                "status": "Show how the servers are.",
                "env": "Print shell variables for `psql`, `bao` and `pulumi` as the operator.",
                "reset": "Stop the servers and delete all local data.",
            },
            extra="local",
        ),
        "upgrade": Entry(
            "data_plane.cli.upgrade", "Show how PostgreSQL would be upgraded; --rehearse it on a copy.", extra="local"
        ),
    },
)

_SHORT: dict[str, Entry | Group] = {
    "up": _STACKS["up"],
    "preview": _STACKS["preview"],
    "check": _CHECK,
    "lease": _LEASE,
    "run": _RUN,
    "psql": Entry("data_plane.cli.lease", "Open psql with a lease, and give it back at the end."),
}
_LONG: dict[str, Entry | Group] = {
    "project": _PROJECT,
    "migration": _MIGRATION,
    "backup": _BACKUP,
    "secret": _SECRET,
    "stack": Group("Bring stacks up, preview them, and tell which of them a change affects.", _STACKS),
    "policy": Group(
        "Check what a project hands over.",
        {
            "check": Entry(
                "policies.artifacts.command_line",
                "Look for databases that a project would bring along.",
            )
        },
    ),
    "workload": Group(
        "Hand credentials to the workloads that projects' files name.",
        {"secret-id": Entry("data_plane.cli.workload", "Make a secret-ID for a workload that signs in by AppRole.")},
    ),
    "images": _IMAGES,
    "local": _LOCAL,
    "catalog": Entry(
        "data_plane.cli.catalog",
        "Write connector-catalog.json and service-catalog.json.",
        extra="program",
        checkout=True,
    ),
}

COMMANDS: dict[str, Entry | Group] = {
    **{name: replace(entry, panel="Every day") for name, entry in _SHORT.items()},
    **{name: replace(entry, panel="By what it is about") for name, entry in _LONG.items()},
}
"""Every command. What is used every day is short, and also in the group of what it is about."""

_EPILOG = """\
Exit codes: 0 done; 1 refused or failed; 2 wrong command line, or nothing could be checked; of `run` and `psql` the \
command's own, 126 if it cannot be started, 127 if there is none; 128+n ended by signal n."""


class _Commands(LazyGroup):
    entries = COMMANDS


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    rich_markup_mode=PLAIN,
    epilog=_EPILOG,
    context_settings=dict(HELP_OPTIONS),
    # A traceback with local variables would show secrets.
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:  # noqa: FBT001 as click calls it
    if wanted:
        typer.echo(_version())
        raise typer.Exit


def _version() -> str:
    """The version of the checkout, else of the package that is installed."""
    # For this option alone.
    import tomllib  # noqa: PLC0415
    from importlib import metadata  # noqa: PLC0415

    project = SOURCES / "pyproject.toml"
    if project.is_file():
        return str(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"])
    return metadata.version("supabase-data-plane")


@app.callback()
def dataplane(
    _version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """The central Supabase data plane: attach projects, take leases."""


def main() -> None:
    """Entry point of the command."""
    isolate()
    sys.stdout = CheckedOutput(sys.stdout)
    terminated = False

    def terminate(_number: int, _frame: object) -> None:
        nonlocal terminated
        terminated = True
        raise TerminatedError

    signal.signal(signal.SIGTERM, terminate)
    for name in ("psycopg.pool", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # their warnings repeat what the error says
    try:
        with messages():
            try:
                app(prog_name="dataplane")
            finally:
                sys.stdout.flush()
    except typer.Exit as ended:
        sys.exit(ended.exit_code)
    finally:
        if terminated:
            sys.exit(128 + signal.SIGTERM)
