"""What was tried, as tables: by sample before and after, and for each project that fails whose fault it is."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["MODES", "compact", "fault", "tables"]

MODES = {"as_is": "as they are", "adapted": "adapted", "left_out": "and with `--leave-out`"}
_COUNTED = ("files", "files_free", "statements", "statements_free", "whole")

Results = Mapping[str, Mapping[str, Any]]
"""For each label (``before``, ``after``) what became of each project."""


def compact(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a project: numbers, boundaries and the first error, none of the names in its files."""
    kept = {key: entry[key] for key in ("name", "sample", "theirs")}
    for mode in MODES:
        trial = entry[mode]
        boundaries: Counter[str] = Counter()
        for place, count in trial["refused"].items():
            boundaries[place.partition(":")[0]] += count
        error = None if trial["error"] is None or boundaries else trial["error"].partition("\n")[0]
        kept[mode] = {key: trial[key] for key in _COUNTED} | {"refused": dict(boundaries), "error": error}
    return kept


def fault(entry: Mapping[str, Any]) -> str:
    """Whose fault it is that a project does not run whole when it is adapted."""
    if entry["adapted"]["whole"]:
        return "none"
    if entry["theirs"] is not None:
        return "theirs"
    return "decided" if entry["adapted"]["refused"] else "ours"


def tables(results: Results) -> str:
    """The report in Markdown: of all labels the sums, of the last one the projects that fail."""
    labels = list(results)
    lines = ["# Migrations of public Supabase projects", ""]
    for sample in dict.fromkeys(entry["sample"] for entry in results[labels[-1]].values()):
        of_sample = {label: [e for e in results[label].values() if e["sample"] == sample] for label in labels}
        last = of_sample[labels[-1]]
        sums = _sum(entry["adapted"] for entry in last)
        right = [entry for entry in last if fault(entry) != "theirs"]
        failed = [entry for entry in last if fault(entry) != "none"]
        whole = f"**{sums['whole']} of the {len(right)} whose own files are right** run whole"
        lines += [
            f"## The {sample} sample",
            "",
            f"{len(last)} projects, {sums['files']:,} files, {sums['statements']:,} statements. Adapted, {whole}.",
            "",
            "| | | run whole | files without a refusal | statements without one |",
            "| --- | --- | ---: | ---: | ---: |",
        ]
        lines += [
            f"| {title} | {label} | {_row(entry[mode] for entry in of_sample[label])} |"
            for mode, title in MODES.items()
            for label in labels
        ]
        lines += ["", "| does not run whole | files | what ends it | whose fault |", "| --- | ---: | --- | --- |"]
        lines += [*map(_line, failed), ""]
    return "\n".join(lines)


def _sum(trials: Iterable[Mapping[str, Any]]) -> Counter[str]:
    sums: Counter[str] = Counter()
    for trial in trials:
        sums.update({key: int(trial[key]) for key in _COUNTED})
    return sums


def _row(trials: Iterable[Mapping[str, Any]]) -> str:
    sums = _sum(trials)
    free = [(sums[f"{what}_free"], max(1, sums[what])) for what in ("files", "statements")]
    return " | ".join([str(sums["whole"]), *(f"{some:,} ({some / of:.0%})" for some, of in free)])


def _line(entry: Mapping[str, Any]) -> str:
    whose = fault(entry)
    ends = {
        "theirs": f"on a standalone Supabase, too: {entry['theirs']}",
        "decided": ", ".join(f"{name} ({count})" for name, count in entry["adapted"]["refused"].items()),
        "ours": str(entry["adapted"]["error"]),
    }[whose]
    return f"| {entry['name']} | {entry['adapted']['files']} | {ends.replace('|', '/')} | {whose} |"
