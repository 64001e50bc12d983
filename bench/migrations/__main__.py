"""Tries the projects of the samples: ``python -m bench.migrations``, some minutes.

Needs mirrors of the repositories, which are not part of this one; a project without a mirror is passed over, and said.
What is found goes to ``bench/results/migrations.json`` and ``.md``.
"""

import json
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from bench.migrations.projects import Project, extracted, projects
from bench.migrations.report import MODES, compact, fault, tables
from bench.migrations.servers import plain, plain_database, platform, project
from bench.migrations.stand_in import fault_of_the_files
from bench.migrations.trial import LEFT_OUT, tried
from data_plane.connector.migrations import Rule
from data_plane.local.postgres import LocalPostgres
from data_plane.model.naming import TenantNames
from tests.support.postgresqls import binaries

_RESULTS = Path(__file__).resolve().parents[1] / "results"

app = typer.Typer(add_completion=False)


@app.command()
def main(
    mirrors: Annotated[Path, typer.Argument(help="Folder with <owner>+<name>/repo for each repository.")],
    label: Annotated[str, typer.Option(help="Under which to keep what is found: before, after.")] = "after",
    only: Annotated[str, typer.Option(help="Projects with this in their name, and keep nothing.")] = "",
    details: Annotated[Path | None, typer.Option(help="File for all that is found, with names in their files.")] = None,
) -> None:
    """Tries the migrations of every project, prints a line for each, and writes the tables."""
    console = Console(stderr=True, soft_wrap=True)
    found: dict[str, Any] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o755)
        servers = _Servers(stack, folder)
        for number, one in enumerate(one for one in projects() if only in one.name):
            supabase = extracted(one, mirrors, folder / "files" / str(number))
            if supabase is None:
                console.print(f"{one.name}: no mirror", style="yellow")
                continue
            entry = _tried(one, number, supabase, servers)
            found[f"{one.repository}:{one.folder}"] = entry
            console.print(f"{one.name}: {fault(entry)}", markup=False)
            if only:
                console.print(json.dumps(entry, indent=1), markup=False)
    if details:
        details.write_text(json.dumps(found, indent=1), encoding="utf-8")
    if not only:
        file = _RESULTS / "migrations.json"
        kept = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        kept[label] = {key: compact(entry) for key, entry in found.items()}
        file.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
        file.with_suffix(".md").write_text(tables(kept), encoding="utf-8")
        sys.stdout.write(tables(kept))


class _Servers:
    """Servers with the platform and plain ones, started when they are first needed.

    Debian's PostgreSQL has the contrib extensions, the newest one has vector.
    """

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self._stack = stack
        self._folder = folder
        self._started: dict[tuple[str, str], LocalPostgres] = {}

    def get(self, kind: str, *, newest: bool) -> LocalPostgres:
        installed = sorted(binaries())
        version = next((name for name in reversed(installed) if ("wheel" in name) == newest), installed[-1])
        if (kind, version) not in self._started:
            start = platform if kind == "platform" else plain
            self._started[kind, version] = self._stack.enter_context(
                start(self._folder / f"{kind}-{version}", binaries()[version])
            )
        return self._started[kind, version]


def _tried(one: Project, number: int, supabase: Path, servers: _Servers) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": one.name, "sample": one.sample}
    options = ((False, frozenset[Rule]()), (True, frozenset[Rule]()), (True, LEFT_OUT))
    for mode, (rewrite, leave_out) in zip(MODES, options, strict=True):
        slug = f"s{number}-{mode.replace('_', '-')}"
        with project(servers.get("platform", newest=one.newest), slug) as session:
            trial = tried(supabase, session, TenantNames(slug), rewrite=rewrite, leave_out=leave_out)
        entry[mode] = asdict(trial) | {"whole": trial.whole, "refused": dict(trial.refused.most_common())}
    with plain_database(servers.get("plain", newest=one.newest)) as session:
        entry["theirs"] = fault_of_the_files(supabase, session)
    return entry


if __name__ == "__main__":
    app()
