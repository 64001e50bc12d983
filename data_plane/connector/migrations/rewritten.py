"""A statement that a rule has rewritten, or left out."""

from collections.abc import Callable
from dataclasses import dataclass

from pglast import ast

from data_plane.connector.migrations.edits import Kind
from data_plane.connector.migrations.scope import Scope

__all__ = ["Original", "RewriteRule", "Rewritten"]


@dataclass(frozen=True)
class Original:
    """A statement as a file has it, and the slice that it is to run in."""

    node: ast.Node
    text: str
    scope: Scope


@dataclass(frozen=True)
class Rewritten:
    """What is run instead of a statement."""

    text: str | None
    """A statement; None if nothing is run."""
    kinds: tuple[Kind, ...]
    reason: str = ""
    """Why nothing is run."""


RewriteRule = Callable[[Original], Rewritten | None]
"""What becomes of a whole statement; None if the rule is not about it, or cannot tell."""
