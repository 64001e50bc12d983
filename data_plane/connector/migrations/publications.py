"""Publications of a migration: Realtime's, which is adapted to nothing, and all others, which are refused.

Realtime evaluates the policies of published tables as a superuser, so tables of projects are in no publication.
"""

import re
from collections.abc import Iterator

from pglast import ast, enums

from data_plane.connector.migrations.edits import Kind
from data_plane.connector.migrations.rewritten import Original, Rewritten

__all__ = ["REALTIME_PUBLICATIONS", "is_published_text", "publication_rule", "publications_in"]

REALTIME_PUBLICATIONS = frozenset({"supabase_realtime", "supabase_realtime_messages_publication"})
_IN_TEXT = re.compile(
    r"""\b(?:alter|create|drop)\s+publication\s+(?:if\s+exists\s+)?("?[a-z_%][^\s;"]*"?)""", re.IGNORECASE
)
_REASON = "tables of projects are in no publication: Realtime gives broadcast and presence"
_TEXT = re.compile(
    r"""\s*(?:alter|create|drop)\s+publication\s+(?:if\s+exists\s+)?"?supabase_realtime"?(?![\w$])[^;]*;?\s*""",
    re.IGNORECASE,
)


def publication_rule(original: Original) -> Rewritten | None:
    """Leaves out what a statement does to Realtime's publication."""
    match original.node:
        case ast.AlterPublicationStmt(pubname=name) | ast.CreatePublicationStmt(pubname=name):
            named = {name}
        case ast.DropStmt(removeType=enums.ObjectType.OBJECT_PUBLICATION, objects=objects):
            named = {getattr(item, "sval", None) for item in objects or ()}
        case ast.AlterOwnerStmt(objectType=enums.ObjectType.OBJECT_PUBLICATION, object=ast.String(sval=name)):
            named = {name}
        case _:
            return None
    return Rewritten(None, (Kind.PUBLICATIONS,), _REASON) if named <= REALTIME_PUBLICATIONS else None


def is_published_text(text: str) -> bool:
    """Whether the beginning of a text to be executed can be nothing but a statement about Realtime's publication."""
    return _TEXT.fullmatch(text) is not None


def publications_in(text: str) -> Iterator[str]:
    """The publications that the text of a function makes, changes or drops."""
    for match in _IN_TEXT.finditer(text):
        yield match[1].strip('"')
