"""The results as tables and as plots."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

__all__ = ["tables", "write_plots"]

mpl.use("Agg")

Found = dict[str, Any]
_ACTIONS = {
    "first": "first `up`",
    "unchanged": "unchanged `up`",
    "preview": "preview",
    "attach": "attach one",
    "detach": "detach one",
}
_SERVERS = ("postgresql_seconds", "openbao_seconds")


def processor(cost: dict[str, float]) -> float:
    """Processor seconds of everybody."""
    return cost["processor_seconds"] + sum(cost[server] for server in _SERVERS)


def tables(found: list[Found]) -> str:
    """Markdown: runs, ratios to the floors, leases, and what the servers hold."""
    return "\n".join([*_runs(found), "", *_ratios(found), "", *_leases(found), "", *_held(found), ""])


def write_plots(found: list[Found], folder: Path) -> None:
    """Writes the pictures."""
    whole = [row for row in found if "floor" in row]
    _tenants_plot(whole, folder / "tenants.png")
    if any(row["cell_size"] != 50 for row in found):
        _cells_plot(found, folder / "cells.png")
    _leases_plot(whole, folder / "leases.png")
    _database_plot(whole, folder / "database.png")


def _table(columns: list[str], rows: list[list[str]]) -> list[str]:
    lines = [columns, ["---:"] * len(columns), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def _runs(found: list[Found]) -> list[str]:
    rows = []
    for row in found:
        cells = -(-row["tenants"] // row["cell_size"])
        times = [f"{processor(row[action]):.1f} ({row[action]['seconds']:.0f})" for action in _ACTIONS]
        memory = max(row[action]["resident_mib"] for action in _ACTIONS)
        rows.append([str(row["tenants"]), f"{cells} × {row['cell_size']}", *times, f"{memory:.0f}"])
    head = ["tenants", "cells", *_ACTIONS.values(), "most memory (MiB)"]
    told = "Processor seconds of runs and servers together; in brackets seconds on the clock."
    if some := [row for row in found if row["cells_run"] * row["cell_size"] < row["tenants"]]:
        run = some[0]["cells_run"]
        told += f" Of {some[0]['tenants']:,} tenants {run} cells were run, and counted as often as there are cells."
    return [told, "", *_table(head, rows)]


def _ratios(found: list[Found]) -> list[str]:
    rows = []
    for row in found:
        if "floor" not in row:
            continue
        number = row["tenants"]
        first, floor, sdk = (processor(row[name]) for name in ("first", "floor", "sdk"))
        unchanged = processor(row["unchanged"])
        servers = [sum(row[name][server] for server in _SERVERS) for name in ("first", "floor")]
        rows.append(
            [
                str(number),
                f"{floor / number * 1e3:.0f}",
                f"{sdk / number * 1e3:.0f}",
                f"{first / number * 1e3:.0f}",
                f"{first / floor:.1f}",
                f"{first / sdk:.1f}",
                f"{unchanged / sdk:.1f}",
                f"{servers[0] / servers[1]:.1f}",
                f"{row['notifications'] / number:.0f}",
            ]
        )
    head = [
        "tenants",
        "floor (ms a tenant)",
        "SDK alone",
        "first `up`",
        "first : floor",
        "first : SDK",
        "unchanged : SDK",
        "servers, first : floor",
        "notifications a tenant",
    ]
    return ["Processor milliseconds a tenant, and ratios.", "", *_table(head, rows)]


def _leases(found: list[Found]) -> list[str]:
    rows = [
        [
            str(row["tenants"]),
            rate["how"],
            str(rate["workers"]),
            f"{rate['p50_ms']:.1f}",
            f"{rate['p99_ms']:.1f}",
            f"{rate['per_second']:.0f}",
        ]
        for row in found
        for rate in row.get("leases", [])
    ]
    head = ["tenants", "issued by", "at a time", "p50 (ms)", "p99 (ms)", "a second"]
    return ["Leases.", "", *_table(head, rows)]


def _held(found: list[Found]) -> list[str]:
    columns = {
        "tenants": ("tenants", 0),
        "catalog rows": ("catalog_rows", 0),
        "catalogs (MiB)": ("catalog_mib", 1),
        "OpenBao (MiB)": ("openbao_mib", 1),
        "state (MiB)": ("state_mib", 2),
        "pre-config (ms)": ("pre_config_ms", 1),
        "schema list (bytes)": ("schema_list_bytes", 0),
        "`set role` (ms)": ("set_role_ms", 2),
        "after a lease (ms)": ("set_role_after_lease_ms", 1),
        "backend, fresh (MiB)": ("backend_mib_fresh", 1),
        "backend, all tenants (MiB)": ("backend_mib_all", 1),
    }
    held = [row["holdings"] for row in found if "holdings" in row]
    rows = [[f"{row[key]:.{digits}f}" for key, digits in columns.values()] for row in held]
    return ["What the servers hold, and what it costs PostgREST.", "", *_table(list(columns), rows)]


def _tenants_plot(found: list[Found], file: Path) -> None:
    figure, axes = plt.subplots(figsize=(7, 4.5))
    numbers = [row["tenants"] for row in found]
    lines = {
        "first up": "first",
        "unchanged up": "unchanged",
        "preview": "preview",
        "attach one more": "attach",
        "Pulumi's SDK alone": "sdk",
        "floor: bare SQL and HTTP": "floor",
    }
    for label, name in lines.items():
        style = "--" if name in {"sdk", "floor"} else "-"
        axes.plot(numbers, [processor(row[name]) for row in found], style, marker="o", label=label)
    axes.set(xscale="log", yscale="log", xlabel="tenants", ylabel="processor seconds")
    _finish(axes, "What runs cost by the number of tenants, in cells of 50")
    figure.savefig(file, dpi=120, bbox_inches="tight")
    plt.close(figure)


def _cells_plot(found: list[Found], file: Path) -> None:
    figure, axes = plt.subplots(figsize=(7, 4.5))
    most = max(row["tenants"] for row in found if row["cell_size"] != 50)
    same = sorted((row for row in found if row["tenants"] == most), key=lambda row: row["cell_size"])
    sizes = [row["cell_size"] for row in same]
    for label, name in (("first up", "first"), ("unchanged up", "unchanged"), ("attach one more", "attach")):
        axes.plot(sizes, [processor(row[name]) for row in same], marker="o", label=label)
    axes.set(xlabel="tenants in a cell", ylabel="processor seconds", ylim=(0, None))
    _finish(axes, f"{most} tenants by the size of their cells")
    figure.savefig(file, dpi=120, bbox_inches="tight")
    plt.close(figure)


def _leases_plot(found: list[Found], file: Path) -> None:
    figure, axes = plt.subplots(figsize=(7, 4.5))
    for how in ("OpenBao", "SQL alone"):
        for workers, style in ((1, "-"), (10, "--")):
            points = [
                (row["tenants"], rate["p50_ms"], rate["p99_ms"])
                for row in found
                for rate in row["leases"]
                if (rate["how"], rate["workers"]) == (how, workers)
            ]
            numbers, middle, high = zip(*points, strict=True)
            (line,) = axes.plot(numbers, middle, style, marker="o", label=f"{how}, {workers} at a time: p50")
            axes.plot(numbers, high, ":", marker="x", color=line.get_color(), label="… p99")
    axes.set(xscale="log", xlabel="tenants", ylabel="milliseconds", ylim=(0, None))
    _finish(axes, "How long a lease takes")
    figure.savefig(file, dpi=120, bbox_inches="tight")
    plt.close(figure)


def _database_plot(found: list[Found], file: Path) -> None:
    figure, axes = plt.subplots(figsize=(7, 4.5))
    numbers = [row["tenants"] for row in found]
    lines = {
        "PostgREST's pre-config": "pre_config_ms",
        "becoming a role": "set_role_ms",
        "… right after a lease came or went": "set_role_after_lease_ms",
    }
    for label, key in lines.items():
        axes.plot(numbers, [row["holdings"][key] for row in found], marker="o", label=label)
    axes.set(xscale="log", yscale="log", xlabel="tenants", ylabel="milliseconds")
    _finish(axes, "What the number of tenants costs PostgREST in PostgreSQL")
    figure.savefig(file, dpi=120, bbox_inches="tight")
    plt.close(figure)


def _finish(axes: Axes, title: str) -> None:
    axes.set_title(title)
    axes.grid(visible=True, which="both", alpha=0.25)
    axes.legend(fontsize=8)
