"""Policies on ``realtime.messages`` of a migration: who may use which topics, as the platform declares it."""

from pglast import ast, enums

from data_plane.connector.migrations.edits import Kind, quoted_text
from data_plane.connector.migrations.policies import CHECK, USING, policy_expression, policy_roles
from data_plane.connector.migrations.rewritten import Original, Rewritten

__all__ = ["topic_rule", "topic_table_rule"]

_COMMANDS = frozenset({"all", "select", "insert"})


def topic_table_rule(original: Original) -> Rewritten | None:
    """Takes rules for topics back, and leaves out what the table has already."""
    match original.node:
        case ast.DropStmt(removeType=enums.ObjectType.OBJECT_POLICY, objects=objects):
            names = [[str(getattr(part, "sval", "")) for part in item] for item in objects or ()]
            if all(words[:-1] == ["realtime", "messages"] for words in names):
                calls = (f"data_plane_api.drop_topic_rule({quoted_text(words[-1])})" for words in names)
                return Rewritten(f"select {', '.join(calls)}", (Kind.TOPIC_RULES,))
        case ast.AlterTableStmt(relation=ast.RangeVar(schemaname="realtime", relname="messages"), cmds=commands):
            if all(command.subtype == enums.AlterTableType.AT_EnableRowSecurity for command in commands or ()):
                return Rewritten(None, (Kind.EXISTING,), "Realtime's table has row-level security on")
    return None


def topic_rule(original: Original) -> Rewritten | None:
    """Has the platform declare a policy on Realtime's messages, once its names are the project's own."""
    match original.node:
        case ast.CreatePolicyStmt(table=ast.RangeVar(schemaname="realtime", relname="messages")) as node:
            if node.cmd_name not in _COMMANDS:
                return None
        case _:
            return None
    expressions = [policy_expression(original.text, keyword) for keyword in (USING, CHECK)]
    arguments = [
        quoted_text(str(node.policy_name)),
        quoted_text(str(node.cmd_name)),
        f"array[{', '.join(quoted_text(role) for role in policy_roles(node, original.scope))}]",
        *("null" if expression is None else quoted_text(expression) for expression in expressions),
    ]
    if not node.permissive:
        arguments.append("false")
    return Rewritten(f"select data_plane_api.declare_topic_rule({', '.join(arguments)})", (Kind.TOPIC_RULES,))
