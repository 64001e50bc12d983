"""What tenants cost by their number and by the size of their cells: ``python -m bench.scale``, about ten minutes.

Everything runs on this machine, on servers of its own, with the local runner and the policy pack. What it finds
goes to ``bench/results``: ``scale.json``, ``scale.md``, and pictures.
"""

import json
import os
import platform
import sys
import time
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.status import Status

from bench.scale.layout import Layout, measured
from bench.scale.report import tables, write_plots

_RESULTS = Path(__file__).resolve().parents[1] / "results"
_CELL_SIZE = 50

app = typer.Typer(add_completion=False)


@app.command()
def main(
    tenants: Annotated[
        list[int] | None, typer.Option(help="How many, in cells of 50; may be repeated. Default: 1, 10, 100 and 1,000.")
    ] = None,
    compare: Annotated[int, typer.Option(help="How many tenants the sizes of cells are compared with.")] = 100,
    sizes: Annotated[
        str, typer.Option("--cell-sizes", help="Those sizes, beside 50, with commas between; empty: none.")
    ] = "10,25,100",
    every: Annotated[bool, typer.Option("--every-cell", help="Run each cell, not three of them: an hour.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Keep what the results file has of other layouts.")] = False,
    plots_only: Annotated[bool, typer.Option("--plots-only", help="Draw the results again.")] = False,
) -> None:
    """Measures, prints the tables, and writes the results."""
    console = Console(stderr=True)
    file = _RESULTS / "scale.json"
    _RESULTS.mkdir(exist_ok=True)
    before: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    results: list[dict[str, Any]] = before.get("layouts", []) if keep or plots_only else []
    layouts = [Layout(number, _CELL_SIZE) for number in tenants or (1, 10, 100, 1000)]
    layouts += [Layout(compare, int(size)) for size in sizes.split(",") if size]
    for layout in [] if plots_only else layouts:
        start = time.monotonic()
        with console.status("") as status:
            prefix = f"{layout.tenants} tenants in cells of {layout.cell_size}"
            whole = layout.cell_size == _CELL_SIZE
            found = measured(layout, partial(_show, status, prefix), whole=whole, every=every)
        console.print(f"{prefix}: {time.monotonic() - start:.0f} s")
        same = {"tenants": layout.tenants, "cell_size": layout.cell_size}
        results = [row for row in results if {key: row[key] for key in same} != same]
        results = sorted([*results, found], key=lambda row: (row["tenants"], row["cell_size"]))
        machine = {"processors": os.cpu_count(), "python": platform.python_version()}
        file.write_text(json.dumps({"machine": machine, "layouts": results}, indent=1) + "\n", encoding="utf-8")
    text = tables(results)
    (_RESULTS / "scale.md").write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    write_plots(results, _RESULTS)


def _show(status: Status, prefix: str, text: str) -> None:
    status.update(f"{prefix}: {text}")


if __name__ == "__main__":
    app()
