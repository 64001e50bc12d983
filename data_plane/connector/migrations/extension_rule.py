"""``create extension`` of a migration: one that is there already, that is the platform's, or that nothing uses."""

import re
from collections.abc import Iterable, Iterator

from pglast import ast, enums

from data_plane.connector.migrations.edits import Kind
from data_plane.connector.migrations.extensions import ExtensionState
from data_plane.connector.migrations.rewritten import Original, Rewritten

__all__ = ["extension_rule", "used_extensions"]

_USES = {
    "dblink": r"\bdblink\w*\s*\(",
    "http": r"\bhttp(?:_\w+)?\s*\(|\bhttp_(?:header|request|response)\b",
    "hypopg": r"\bhypopg_\w+|\bhypopg\s*\(",
    "index_advisor": r"\bindex_advisor\s*\(",
    "pgjwt": r"\b(?:sign|verify|url_encode|url_decode|algorithm_sign)\s*\(",
    "pg_net": r"\bnet\"?\s*\.",
    "pg_tle": r"\bpgtle\"?\s*\.",
    "pgmq": r"\bpgmq\"?\s*\.",
    "plpgsql_check": r"\bplpgsql_check_\w+|\bplpgsql_(?:show|profiler|coverage)\w+",
    "postgres_fdw": r"\bcreate\s+server\b|\bforeign\s+data\s+wrapper\b",
    "wrappers": r"\bcreate\s+server\b|\bforeign\s+data\s+wrapper\b",
}
"""How a text looks that uses an extension, of those that dumps name whether or not anything does."""
_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)


def used_extensions(texts: Iterable[str]) -> Iterator[str]:
    """Which of these extensions files use, as far as their texts show."""
    uses = {name: re.compile(pattern, re.IGNORECASE) for name, pattern in _USES.items()}
    for text in texts:
        code = _COMMENT.sub(" ", text)
        yield from (name for name, pattern in uses.items() if pattern.search(code))


def extension_rule(original: Original) -> Rewritten | None:
    """Leaves out what asks for an extension that a project need not make, and what drops one."""
    scope, node = original.scope, original.node
    extensions = scope.all_extensions
    match node:
        case ast.CreateExtensionStmt(extname=str(name)):
            state = extensions.state(name)
            if state is ExtensionState.HERE:
                return Rewritten(None, (Kind.EXISTING,), extensions.message(name))
            if state is ExtensionState.PLATFORM:
                return Rewritten(None, (Kind.EXTENSIONS,), extensions.message(name))
            if name in _USES and scope.used_extensions is not None and name not in scope.used_extensions:
                return Rewritten(None, (Kind.EXTENSIONS,), f"no file uses extension {name}")
        case ast.CommentStmt(objtype=enums.ObjectType.OBJECT_EXTENSION):
            return Rewritten(None, (Kind.EXISTING,), "extensions are the central stack's")
        case ast.DropStmt(removeType=enums.ObjectType.OBJECT_EXTENSION):
            names = [str(getattr(item, "sval", "")) for item in node.objects or ()]
            here = [name for name in names if extensions.state(name) is ExtensionState.HERE]
            if here and node.behavior == enums.DropBehavior.DROP_CASCADE:
                return None  # which columns would go with it only the database knows
            return Rewritten(None, (Kind.EXTENSIONS,), "extensions are the central stack's, and stay")
    return None
