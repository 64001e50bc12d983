"""What a migration may do with ``auth.users``, for which the project's own table of users stands.

A row is there for each member of the project, written by the platform's relay. It may be read and referenced, and
triggers may be put on it; it is Auth's to write, and has no hash or token.
"""

from collections.abc import Iterator

from pglast.parser import Token

from data_plane.connector.migrations.edits import identifier
from data_plane.connector.migrations.scope import Scope
from data_plane.connector.migrations.script import tokens_of

__all__ = ["users_objections"]

_SECRETS = frozenset(
    {
        "encrypted_password",
        "confirmation_token",
        "confirmation_sent_at",
        "recovery_token",
        "recovery_sent_at",
        "email_change_token_new",
        "email_change_token_current",
        "email_change_confirm_status",
        "email_change_sent_at",
        "phone_change_token",
        "phone_change_sent_at",
        "reauthentication_token",
        "reauthentication_sent_at",
        "is_super_admin",
        "is_sso_user",
        "instance_id",
    }
)
"""Columns of Auth's table that the project's has not, by names that hardly stand for anything else."""
_LACKING = _SECRETS | {"banned_until", "deleted_at", "invited_at", "email_change", "phone_change"}
_HARMLESS = frozenset({"ENABLE_P", "DISABLE_P", "FORCE"})
_WRITES = {
    ("INSERT", "INTO"): "insert into",
    ("MERGE", "INTO"): "merge into",
    ("UPDATE",): "update",
    ("DELETE_P", "FROM"): "delete from",
    ("TRUNCATE",): "truncate",
    ("ALTER", "TABLE"): "alter table",
    ("DROP", "TABLE"): "drop table",
    ("CREATE", "TABLE"): "create table",
}
_BETWEEN = frozenset({"ONLY", "IF_P", "NOT", "EXISTS"})
_DOT = "ASCII_46"


def users_objections(text: str, scope: Scope) -> Iterator[str]:
    """What of a text cannot be done with the project's users."""
    tokens = tokens_of(text)
    places = [place for place in range(len(tokens) - 2) if _is_users(text, tokens, place, scope)]
    if not places:
        return
    for place in places:
        verb = _verb(tokens, place)
        after = tokens[place + 3].name if place + 3 < len(tokens) else ""
        if verb is not None and not (verb == "alter table" and after in _HARMLESS):
            yield f"{verb} auth.users"
    aliases = {"users", *(alias for place in places if (alias := _alias(text, tokens, place + 3)))}
    for place, token in enumerate(tokens):
        name = identifier(text, token)
        dotted = place > 1 and tokens[place - 1].name == _DOT
        of_users = dotted and identifier(text, tokens[place - 2]) in aliases
        if name in _LACKING and (of_users or (name in _SECRETS and not dotted)):
            yield f"auth.users.{name}"


def _is_users(text: str, tokens: list[Token], place: int, scope: Scope) -> bool:
    schema, thing = identifier(text, tokens[place]), identifier(text, tokens[place + 2])
    return schema in {"auth", scope.users} and tokens[place + 1].name == _DOT and thing == "users"


def _verb(tokens: list[Token], place: int) -> str | None:
    """What the statement does to the table that is named at a place; None for what only reads."""
    before = [token.name for token in tokens[max(0, place - 6) : place] if token.name not in _BETWEEN]
    if before[-2:] == ["TRUNCATE", "TABLE"]:
        return "truncate"
    return next((verb for words, verb in _WRITES.items() if tuple(before[-len(words) :]) == words), None)


def _alias(text: str, tokens: list[Token], place: int) -> str | None:
    if place < len(tokens) and tokens[place].name == "AS":
        place += 1
    return identifier(text, tokens[place]) if place < len(tokens) and tokens[place].name == "IDENT" else None
