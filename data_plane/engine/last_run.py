"""What the last runs have left in the private folder: which engine made them, and the Pulumi CLI's state.

Imports no engine, because every lease asks.
"""

import hashlib
from pathlib import Path

from data_plane.engine.stack_files import project_name
from data_plane.state_dir import StateDir

__all__ = ["cli_backend", "cli_state_mark", "cli_was_last", "note_engine"]

_FILE = "engine.json"
_CLI, _RUNNER = "pulumi", "local"


def note_engine(home: StateDir, *, cli: bool) -> None:
    """Notes that the CLI, or else the local runner, brings stacks up."""
    home.write_json(_FILE, _CLI if cli else _RUNNER)


def cli_was_last(home: StateDir) -> bool:
    """Whether the CLI brought stacks up last, so that their outputs are in its state."""
    return bool(home.read_json(_FILE) == _CLI)


def cli_backend(home: StateDir) -> Path:
    """The folder with the state of the local stacks."""
    return home.path / "pulumi-state"


def cli_state_mark(home: StateDir, root: Path, stack: str) -> str | None:
    """A digest of the state of a local stack; None if there is none.

    Args:
        root: the checkout.
    """
    file = cli_backend(home) / ".pulumi" / "stacks" / project_name(root) / f"{stack}.json"
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None
