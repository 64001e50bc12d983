"""Strings in SQL that hold the name of a role or of an object, told from data by what stands around them."""

from collections.abc import Iterator

from pglast.parser import Token

from data_plane.connector.migrations.script import tokens_of

__all__ = ["SHARED_API_ROLES", "compared_roles", "named_objects"]

SHARED_API_ROLES = frozenset({"anon", "authenticated", "service_role"})
"""What ``auth.role()`` gives on a standalone Supabase. Here it gives the project's own role."""

_COMPARISONS = frozenset({"=", "<>", "!=", "in", "(", ",", "any", "array", "[", "not"})
_AROUND = frozenset({")", "(", "::", "text", "varchar", "name", "lower", "coalesce", "true"})
_CALLERS = (["auth", ".", "role", "(", ")"], ["->>", "'role'"], ["#>>", "'{role}'"])
_SESSION = frozenset({"current_user", "current_role", "session_user"})


_TAKES_A_NAME = frozenset(
    {
        "currval",
        "nextval",
        "pg_get_serial_sequence",
        "pg_relation_size",
        "pg_total_relation_size",
        "setval",
        "to_regclass",
        "to_regproc",
        "to_regprocedure",
        "to_regtype",
    }
)


def named_objects(text: str) -> Iterator[tuple[Token, str]]:
    """The strings of a statement that PostgreSQL takes for the name of an object, each with that name."""
    tokens = tokens_of(text)
    words = _words(text, tokens)
    for place, token in enumerate(tokens):
        if token.name != "SCONST":
            continue
        cast = words[place + 1 : place + 2] == ["::"] and "".join(words[place + 2 : place + 3]).startswith("reg")
        called = place > 1 and words[place - 1] == "(" and words[place - 2] in _TAKES_A_NAME
        # has_table_privilege('role', 'name', …)
        asked = place > 3 and words[place - 1] == "," and words[place - 3] == "(" and _asks_for_rights(words[place - 4])
        if cast or called or asked:
            yield token, text[token.start + 1 : token.end]


def compared_roles(text: str) -> Iterator[tuple[Token, str]]:
    """The strings of a statement that are compared with the role of a request, each with the role's name."""
    tokens = tokens_of(text)
    words = _words(text, tokens)
    for place, token in enumerate(tokens):
        name = words[place].strip("'")
        if token.name != "SCONST" or name not in SHARED_API_ROLES:
            continue
        asked = place > 1 and words[place - 1] == "(" and _asks_for_rights(words[place - 2])
        if asked or _compared_before(words, place) or _compared_after(words, place):
            yield token, name


def _words(text: str, tokens: list[Token]) -> list[str]:
    """The words of a text; dumps have every name in quotation marks."""
    return [text[token.start : token.end + 1].lower().strip('"') for token in tokens]


def _asks_for_rights(word: str) -> bool:
    return word.startswith("has_") and word.endswith("_privilege")


def _compared_before(words: list[str], place: int) -> bool:
    begin = place
    while begin and (words[begin - 1] in _COMPARISONS or words[begin - 1].strip("'") in SHARED_API_ROLES):
        begin -= 1
    compared = any(word in {"=", "<>", "!=", "in", "any"} for word in words[begin:place])
    return compared and _is_role_of_request(words[:begin])


def _compared_after(words: list[str], place: int) -> bool:
    if words[place + 1 : place + 2] not in (["="], ["<>"], ["!="]):
        return False
    rest = [word for word in words[place + 2 : place + 10] if word not in {"(", "select"}]
    return rest[:3] == ["auth", ".", "role"] or rest[:1] in [[word] for word in sorted(_SESSION)]


def _is_role_of_request(before: list[str]) -> bool:
    """Whether the words end with an expression for the role of a request."""
    left = before[-12:]
    for _ in range(len(left)):
        if any(left[-len(call) :] == call for call in _CALLERS) or left[-1:] in [[word] for word in sorted(_SESSION)]:
            return True
        if left[-1] not in _AROUND and not (len(left) > 1 and left[-2] in {"as", "select"}):
            return False
        left.pop()
    return False
