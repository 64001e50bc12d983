"""``dataplane local upgrade`` and ``dataplane backup compare``: PostgreSQL of a newer version, against the old one."""

from pathlib import Path
from typing import Annotated, Any

import psycopg
import typer
from psycopg.conninfo import conninfo_to_dict
from rich.markup import escape

from data_plane.cli.console import counted, messages, print_json, print_table, stderr, stdout
from data_plane.cli.options import JsonOption
from data_plane.clients.inventory import LEASES, ROWS, Inventory, Part, compare, take_inventory
from data_plane.errors import UpgradeError, UsageError
from data_plane.local.servers import Servers
from data_plane.local.upgrade import Outcome, Upgrade, forget_old, kept_data

__all__ = ["app"]

app = typer.Typer()
_KINDS = ("tables", ROWS, "functions", "policies", "sequences", "grants", "roles", LEASES)
_LISTED = 50


@app.command()
def upgrade(
    to: Annotated[int | None, typer.Option(help="The major version of PostgreSQL to move to.")] = None,
    rehearse: Annotated[
        bool, typer.Option("--rehearse", help="Do all but the switch, on a copy beside the running server.")
    ] = False,
    programs: Annotated[
        Path | None, typer.Option(help="The folder of that version's programs; looked for unless given.")
    ] = None,
    without: Annotated[
        list[str] | None, typer.Option(help="An extension to leave behind, which nothing uses. Repeat it for more.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it, instead of showing what would be done.")] = False,
    forget: Annotated[bool, typer.Option("--forget-old", help="Delete the data that earlier upgrades kept.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show how PostgreSQL would be upgraded; --rehearse it on a copy. With --yes, upgrade it."""
    with messages():
        if forget:
            if to is not None or rehearse:
                raise UsageError("--forget-old stands alone")
            _forget(Servers(), yes=yes)
            return
        if to is None:
            raise UsageError("--to is missing: the major version to move to, e.g. --to 17")
        if rehearse and yes:
            raise UsageError("--rehearse changes nothing, and --yes switches: name one of them")
        found = Upgrade(Servers(), to, folder=programs, without=without or (), say=_say)
        if not (rehearse or yes):
            for number, step in enumerate(found.check(), start=1):
                stdout.print(f"{number}. {escape(step)}")
            stdout.print("\nNothing was done. --rehearse tries it on a copy, --yes does it.")
            return
        _show(found.rehearse() if rehearse else found.run(), to, rehearsal=rehearse, as_json=as_json)


@app.command(name="compare")
def compare_servers(
    old: Annotated[str, typer.Argument(help="A server, as `host=… port=… user=… dbname=…`, or a file of --save.")],
    new: Annotated[str | None, typer.Argument(help="The other one.")] = None,
    save: Annotated[
        Path | None, typer.Option(help="Write what the first one holds to this file: names, counts, checksums.")
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option(help="A kind not to compare, e.g. `passwords`. Repeat it for more.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare what two servers hold, project by project. PGPASSWORD has the password of their superuser."""
    with messages():
        if (new is None) == (save is None):
            raise UsageError("name a second server or --save FILE, one of them")
        first = _inventory_of(old)
        if save is not None:
            save.write_text(first.to_json(), encoding="utf-8")
            stdout.print(f"{escape(str(save))} has what PostgreSQL {first.version} holds")
            return
        second = _inventory_of(new or "")
        parts = compare(first, second, ignore or ())
        _print(parts, as_json=as_json)
        _refuse(parts, f"PostgreSQL {first.version} and {second.version} do not hold the same")


def _say(text: str) -> None:
    stderr.print(escape(text), style="dim")


def _inventory_of(place: str) -> Inventory:
    if Path(place).is_file():
        try:
            return Inventory.from_json(Path(place).read_text(encoding="utf-8"))
        except ValueError as error:
            raise UsageError(f"{place} is no file that `dataplane backup compare --save` wrote: {error}") from error
    try:
        parameters = conninfo_to_dict(place)
    except psycopg.ProgrammingError as error:
        raise UsageError(f"{place!r} is neither a file nor a server: {str(error).strip()}") from error
    if "password" in parameters:
        raise UsageError("a password in arguments is seen by others: put it into PGPASSWORD")
    return take_inventory(parameters)


def _show(outcome: Outcome, major: int, *, rehearsal: bool, as_json: bool) -> None:
    _print(outcome.parts, as_json=as_json)
    for remark in outcome.remarks:
        stderr.print(escape(remark))
    if outcome.problem is not None:
        stderr.print(escape(outcome.problem))
    _refuse(
        outcome.parts,
        f"PostgreSQL {outcome.new} does not hold what {outcome.old} holds; nothing was changed",
        outcome.problem,
    )
    seconds = f"{outcome.seconds:.0f} s"
    if rehearsal:
        stderr.print(f"Nothing was changed. The upgrade to {major} would stop the database for about {seconds}.")
    else:
        stderr.print(
            f"PostgreSQL {outcome.new} runs in place of {outcome.old}; the database stood still for {seconds}. "
            "The old data is kept: `dataplane local upgrade --forget-old` deletes it."
        )


def _refuse(parts: list[Part], message: str, problem: str | None = None) -> None:
    found = [difference for part in parts for difference in part.differences]
    if found or problem:
        for difference in found[:_LISTED]:
            stderr.print(escape(str(difference)))
        if len(found) > _LISTED:
            stderr.print(f"… and {len(found) - _LISTED} more")
        raise UpgradeError(f"{message}: {counted(len(found), 'difference')}, above")


def _print(parts: list[Part], *, as_json: bool) -> None:
    if as_json:
        print_json([_json(part) for part in parts])
        return
    rows = [
        (
            part.name,
            *(str(part.counts.get(kind, 0)) for kind in _KINDS),
            "equal" if not part.differences else f"{len(part.differences)} differ",
        )
        for part in parts
    ]
    print_table(("", *_KINDS, ""), rows)


def _json(part: Part) -> dict[str, Any]:
    return {
        "name": part.name,
        "counts": dict(part.counts),
        "differences": [
            {"kind": item.kind, "name": item.name, "old": item.old, "new": item.new} for item in part.differences
        ],
    }


def _forget(servers: Servers, *, yes: bool) -> None:
    if not yes:
        kept = ", ".join(path.name for path in kept_data(servers.home))
        stdout.print(f"{kept or 'Nothing'} would be deleted. The same command with --yes does it.")
        return
    gone = forget_old(servers.home)
    stdout.print(f"deleted: {', '.join(path.name for path in gone) or 'nothing was kept'}")
