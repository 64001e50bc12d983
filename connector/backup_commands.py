"""``dataplane backup``, ``backups``, ``restore`` and ``realign``, added to the command line."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from connector.backups import Backups, LocalBackups, RestoreRequest, parse_moment
from connector.cluster_backups import ClusterBackups, central_stack, cluster_errors
from connector.options import EnvironmentOption
from embedded.servers import Servers
from embedded.workplace import ENVIRONMENT

__all__ = ["add_backup_commands"]


def add_backup_commands(  # noqa: C901 four commands, each by itself
    app: typer.Typer, messages: Callable[[], AbstractContextManager[None]], said: Console, answer: Console
) -> None:
    """Adds the commands.

    Args:
        messages: turns every foreseeable error into one message and exit code 1.
        said: for people, beside what a command answers.
        answer: for what it answers.
    """

    def backups_of(environment: str) -> LocalBackups | ClusterBackups:
        def say(text: str) -> None:
            said.print(escape(text), style="dim", soft_wrap=True)

        if environment == ENVIRONMENT:
            return LocalBackups(Servers(), say)
        return ClusterBackups(central_stack(environment), say)

    @app.command()
    def backup(environment: EnvironmentOption = ENVIRONMENT) -> None:
        """Back up the database now, physically and logically, beside what happens on schedule."""
        with messages(), cluster_errors():
            made = backups_of(environment)
            made.back_up()
            _show(made, answer)

    @app.command()
    def backups(environment: EnvironmentOption = ENVIRONMENT) -> None:
        """Show what there is to restore from."""
        with messages(), cluster_errors():
            _show(backups_of(environment), answer)

    @app.command()
    def restore(
        to: Annotated[str | None, typer.Option(help="A moment with its zone, e.g. 2026-01-31T14:05:00Z.")] = None,
        backup_id: Annotated[str | None, typer.Option("--backup", help="The physical backup to start from.")] = None,
        dump: Annotated[str | None, typer.Option(help="A dump instead, or `latest`.")] = None,
        project: Annotated[
            str | None, typer.Option("--project", "-p", help="One project, beside the present one, from a dump.")
        ] = None,
        timeline: Annotated[str, typer.Option(help="After a former restore: which history to follow.")] = "latest",
        check: Annotated[bool, typer.Option("--check", help="A drill: try it out, and change nothing.")] = False,
        yes: Annotated[bool, typer.Option("--yes", help="Do it, instead of showing what would be done.")] = False,
        environment: EnvironmentOption = ENVIRONMENT,
    ) -> None:
        """Show how the database would be restored; with --yes, restore it. Nothing is deleted."""
        with messages(), cluster_errors():
            moment = None if to is None else parse_moment(to)
            request = RestoreRequest(moment, backup_id, dump, project, timeline)
            request.check()
            found: Backups = backups_of(environment)
            if check:
                found.check(request)
                answer.print("It can be restored.")
                return
            for number, step in enumerate(found.plan(request), start=1):
                answer.print(f"{number}. {escape(step)}")
            if not yes:
                answer.print("\nNothing was done. The same command with --yes does it.")
                return
            found.restore(request)
            answer.print("Restored.")

    @app.command()
    def realign(environment: EnvironmentOption = ENVIRONMENT) -> None:
        """After a restore by hand: today's passwords for services and OpenBao, and an end to every lease."""
        with messages(), cluster_errors():
            backups_of(environment).realign()


def _show(backups: Backups, answer: Console) -> None:
    found = backups.available()
    table = Table("backup", "kind", "restores to", "remark", box=None, pad_edge=False)
    for item in found.physical:
        remark = f"PostgreSQL {item.version}, timeline {item.timeline}"
        table.add_row(item.backup_id, "physical", f"any moment since {item.ended:%Y-%m-%d %H:%M:%S}Z", remark)
    for dump in found.logical:
        remark = f"{', '.join(dump.databases)}; {dump.size / 2**20:.1f} MiB"
        table.add_row(dump.stamp, "dump", "its own moment", remark)
    answer.print(table if found.physical or found.logical else "There is no backup yet: `dataplane backup` makes one.")
