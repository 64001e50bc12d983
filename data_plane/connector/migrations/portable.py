"""A project's statements as they would stand in a Supabase of its own, which is how its files are written.

The reverse of what adapting does to a migration; what is written so is adapted when it runs.
"""

import re

from pglast.parser import Token

from data_plane.connector.migrations.script import tokens_of
from data_plane.model.naming import AccessLevel, TenantNames

__all__ = ["portable"]

_MADE = re.compile(r"select data_plane_api\.create_schema\('(\w+)'\)")
_DROPPED = re.compile(r"select data_plane_api\.drop_schema\('(\w+)'\)")
_SEARCH_PATH = re.compile(r"(?im)^( SET search_path TO )(.*)$")


def portable(statement: str, names: TenantNames) -> str:
    """The statement with `public`, further schemas' plain names and Supabase's roles.

    Data stays as it is: of strings, the texts of functions, search paths and names of objects (`'t'::regclass`) change.
    """
    for pattern, words in ((_MADE, "create schema {}"), (_DROPPED, "drop schema {}")):
        if whole := pattern.fullmatch(statement):
            return words.format(whole[1])
    tokens = tokens_of(statement)
    pieces, at = [], 0
    for place, token in enumerate(tokens):
        if token.name in {"IDENT", "SCONST"}:
            text = statement[token.start : token.end + 1]
            pieces += [statement[at : token.start], _renamed(text, tokens, place, statement, names)]
            at = token.end + 1
    whole_text = "".join([*pieces, statement[at:]])
    return _SEARCH_PATH.sub(lambda line: line[1] + _in_path(line[2], names), whole_text)


def _renamed(text: str, tokens: list[Token], place: int, statement: str, names: TenantNames) -> str:
    following = [statement[token.start : token.end + 1].lower() for token in tokens[place + 1 : place + 3]]
    if tokens[place].name == "SCONST":
        is_name = following[:1] == ["::"] and following[1:2] and following[1].startswith("reg")
        return _in_text(text, names) if text.startswith("$") or is_name else text
    if text == names.schema:
        return "public" if following[:1] == ["."] else text
    return _in_text(text, names)


def _in_text(text: str, names: TenantNames) -> str:
    schema = re.escape(names.schema)
    text = re.sub(rf'"{schema}\$(\w+)"', r"\1", text)
    text = re.sub(rf"(?<![\w$]){schema}(?=\.)", "public", text)
    for level in AccessLevel:
        role = "postgres" if level is AccessLevel.OWNER else level.value
        text = re.sub(rf"(?<![\w$]){re.escape(names.role(level))}(?![\w$])", role, text)
    return text


def _in_path(path: str, names: TenantNames) -> str:
    path = path.replace(f"'{names.schema}'", "'public'")
    return re.sub(rf"'{re.escape(names.schema)}\$(\w+)'", r"'\1'", path)
