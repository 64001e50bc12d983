"""The parts of a policy's statement: its expressions, as they stand in the text, and its roles."""

from pglast import ast, enums
from pglast.parser import scan

from data_plane.connector.migrations.scope import Scope
from data_plane.connector.migrations.script import tokens_of

__all__ = ["CHECK", "USING", "policy_expression", "policy_roles"]

USING = ("using",)
CHECK = ("with", "check")


def policy_roles(node: ast.CreatePolicyStmt, scope: Scope) -> list[str]:
    """The roles of a policy, the project's own for Supabase's."""
    names = []
    for role in node.roles or ():
        name = str(role.rolename) if role.roletype == enums.RoleSpecType.ROLESPEC_CSTRING else "public"
        names.append(scope.role_here(name) or name)
    return names


def policy_expression(text: str, keyword: tuple[str, ...]) -> str | None:
    """The expression behind a keyword of a policy, without comments; None if it has none."""
    tokens = tokens_of(text)
    words = [text[token.start : token.end + 1].lower() for token in tokens]
    depth = 0
    for place, word in enumerate(words):
        begin = place + len(keyword)
        if depth == 0 and tuple(words[place:begin]) == keyword and words[begin] == "(":
            end = _closing(words, begin)
            return _without_comments(text[tokens[begin + 1].start : tokens[end - 1].end + 1])
        depth += {"(": 1, ")": -1}.get(word, 0)
    return None


def _without_comments(text: str) -> str:
    for token in reversed(scan(text)):
        if token.name in {"SQL_COMMENT", "C_COMMENT"}:
            lines = text.count("\n", token.start, token.end + 1)
            text = text[: token.start] + " " + "\n" * lines + text[token.end + 1 :]
    return text


def _closing(words: list[str], opening: int) -> int:
    depth = 0
    for place in range(opening, len(words)):
        depth += {"(": 1, ")": -1}.get(words[place], 0)
        if depth == 0:
            return place
    return len(words)
