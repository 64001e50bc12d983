"""``dataplane migration reset``: a project's schemas as its files make them, from nothing."""

from typing import Annotated

import typer
from rich.markup import escape

from data_plane.cli.console import counted, messages, require_terminal, stderr, stdout
from data_plane.cli.identity import with_options
from data_plane.cli.migration_target import AsIsOption, LeaveOutOption, MigrationTarget, files_of, seeds_of, tell_seeded
from data_plane.cli.options import FolderOption, link_in_use, seconds_of
from data_plane.connector.migrations import Limits, Migrator, summed_up
from data_plane.connector.migrations.clearing import contents_of
from data_plane.connector.project_link import DEFAULT_FOLDER
from data_plane.errors import UsageError

__all__ = ["reset"]

_Seconds = Annotated[str, typer.Option(metavar="DURATION")]


@with_options(MigrationTarget)
def reset(
    target: MigrationTarget,
    context: typer.Context,
    folder: FolderOption = DEFAULT_FOLDER,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask. Takes --project on the command line.")] = False,
    no_seed: Annotated[bool, typer.Option("--no-seed", help="Leave the seed files out.")] = False,
    as_is: AsIsOption = False,
    leave_out: LeaveOutOption = None,
    statement_timeout: _Seconds = "10m",
    lock_timeout: _Seconds = "10s",
) -> None:
    """Drop everything in the project's schemas, then run all migrations and seed files.

    Users and files in buckets stay. The files are checked first; what is dropped is dropped in one transaction.
    """
    with messages():
        _refuse_unasked(context, yes=yes)
        limits = Limits(
            seconds_of("--statement-timeout", statement_timeout), seconds_of("--lock-timeout", lock_timeout)
        )
        files = files_of(folder)
        seeds = [] if no_seed else seeds_of(folder)
        with target.session() as connection:
            migrator = Migrator(
                connection, target.names, limits, rewrite=not as_is, leave_out=frozenset(leave_out or ())
            )
            for line in summed_up(migrator.check([*files, *seeds])):
                stderr.print(escape(line))
            contents = contents_of(connection, target.names)
            stderr.print(f"{target.project} ({target.environment}): {escape(contents.counted())}")
            if not yes:
                typer.confirm(f"Drop all of it, and run {counted(len(files), 'migration')}?", abort=True, err=True)
            with target.audited("migrate_reset") as under_way:
                migrator.clear()
                under_way.note(dropped=len(contents.objects))
                applied = migrator.up(migrator.plan(files), lambda file: stderr.print(f"  {escape(file.path.name)}"))
                under_way.note(applied=[file.version for file in applied], rules_dropped=migrator.forget_rules())
                seeded = migrator.seed(seeds, lambda file: stderr.print(f"  {escape(file.key)}"))
                under_way.note(seeds=[file.key for file in seeded.run])
            stdout.print(
                f"{counted(len(applied), 'migration')} applied to {target.names.schema}, which was emptied before"
            )
            if seeds:
                tell_seeded(seeded, target.names.schema)


def _refuse_unasked(context: typer.Context, *, yes: bool) -> None:
    link = link_in_use(context)
    if yes and link is not None:
        raise UsageError(f"--yes drops what {link.path} names without a question: name it with --project")
    if not yes:
        require_terminal(" whether all may be dropped: --yes says so beforehand")
