"""What was adapted in the files of a run, counted, and where the effect differs from a standalone Supabase."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from data_plane.connector.migrations.edits import Kind
from data_plane.connector.migrations.prepared import PreparedFile

__all__ = ["summed_up"]

_SHOWN = 3


def summed_up(files: Sequence[PreparedFile]) -> Iterator[str]:
    """One line with the counts; then one for each kind whose effect is another here, with its places."""
    counts: Counter[Kind] = Counter()
    places: defaultdict[Kind, list[str]] = defaultdict(list)
    for item in files:
        for statement in item.statements:
            counts.update(statement.kinds)
            for kind in dict.fromkeys(statement.kinds):
                places[kind].append(f"{item.file.path.name}:{statement.original.line}")
    if not counts:
        return
    yield "adapted: " + ", ".join(f"{kind.value} {counts[kind]}" for kind in Kind if counts[kind])
    for kind in Kind:
        if counts[kind] and kind.difference is not None:
            shown = ", ".join(places[kind][:_SHOWN])
            more = len(places[kind]) - _SHOWN
            yield f"  {kind.value}: {kind.difference} ({shown}{f' and {more} more' if more > 0 else ''})"
