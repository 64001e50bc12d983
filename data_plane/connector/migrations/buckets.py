"""Buckets of a migration, as the platform declares them for a project."""

from pglast import ast, enums
from pglast.stream import RawStream

from data_plane.connector.migrations.edits import Kind, quoted_text
from data_plane.connector.migrations.rewritten import Original, Rewritten
from data_plane.connector.migrations.scope import Scope

__all__ = ["bucket_here", "bucket_rule"]

_SETTINGS = {"public": "FALSE", "file_size_limit": "NULL", "allowed_mime_types": "NULL"}
"""What can be said of a bucket, and what it is unless it is said."""
_OF_NO_EFFECT = frozenset({"avif_autodetection", "created_at", "updated_at", "owner", "owner_id", "type"})
"""Columns of a bucket that say nothing of how it works."""


def bucket_here(name: str, scope: Scope) -> str:
    """The name that a bucket of a project has in Storage."""
    own = name == scope.names.schema or name.startswith(f"{scope.names.schema}.")
    return name if own else f"{scope.names.schema}.{name}"


def bucket_rule(original: Original) -> Rewritten | None:
    """Has the platform declare the buckets that a statement inserts or changes."""
    node, scope = original.node, original.scope
    match node:
        case ast.InsertStmt(relation=ast.RangeVar(schemaname="storage", relname="buckets")):
            calls = _declared_buckets(node, scope)
            return Rewritten(f"select {', '.join(calls)}", (Kind.BUCKETS,) * len(calls)) if calls else None
        case ast.UpdateStmt(relation=ast.RangeVar(schemaname="storage", relname="buckets")):
            return _changed_buckets(node, scope)
    return None


def _declared_buckets(node: ast.InsertStmt, scope: Scope) -> list[str]:
    """The calls that declare the buckets that a statement inserts; none if it cannot be told what they are."""
    columns = [str(column.name) for column in node.cols or ()]
    select = node.selectStmt
    if not isinstance(select, ast.SelectStmt) or node.returningClause or not {"id", "name"} & set(columns):
        return []
    if select.valuesLists:
        rows = [list(row) for row in select.valuesLists]
    elif select.targetList and not select.fromClause and _only_if_missing(select.whereClause):
        rows = [[target.val for target in select.targetList]]
    else:
        return []
    kept = node.onConflictClause is not None or select.whereClause is not None
    calls = []
    for row in rows:
        texts = _texts(dict(zip(columns, row, strict=False))) if len(row) == len(columns) else None
        changed = _changed_on_conflict(node.onConflictClause, texts) if texts is not None else None
        if texts is None or changed is None:
            return []
        calls.append(_declaring(texts, changed, scope, kept=kept))
    return calls


def _texts(row: dict[str, ast.Node]) -> dict[str, str] | None:
    """The values of a bucket's columns; None if they say of it what a project cannot."""
    texts = {name: RawStream()(value) for name, value in row.items() if not isinstance(value, ast.SetToDefault)}
    name = texts.setdefault("id", texts.get("name", ""))
    if not name or texts.get("name", name) != name or set(texts) - {"id", "name", *_SETTINGS, *_OF_NO_EFFECT}:
        return None
    return texts


def _changed_on_conflict(clause: ast.OnConflictClause | None, texts: dict[str, str]) -> set[str] | None:
    """The settings that a statement gives to a bucket that is there already; None if not to the same."""
    if clause is None or clause.action == enums.OnConflictAction.ONCONFLICT_NOTHING:
        return set()
    changed = set()
    for target in clause.targetList or ():
        text = RawStream()(target.val)
        if text != f"excluded.{target.name}" and text != texts.get(str(target.name)):
            if target.name in _OF_NO_EFFECT:
                continue
            return None
        changed.add(str(target.name))
    return None if clause.whereClause else changed


def _declaring(texts: dict[str, str], changed: set[str], scope: Scope, *, kept: bool) -> str:
    """A call that declares a bucket.

    Args:
        changed: what is given to one that is there already.
        kept: whether anything else of one that is there stays.
    """
    name = texts["id"]
    there = _there(name, scope)
    settings = []
    for setting, default in _SETTINGS.items():
        value = texts.get(setting, default)
        if changed and setting not in changed:
            value = f"case when exists (select {there}) then (select b.{setting} {there}) else {value} end"
        if value != default:
            settings.append(f"{setting} => {value}")
    call = f"data_plane_api.declare_bucket({', '.join([name, *settings])})"
    return f"case when not exists (select {there}) then {call} end" if kept and not changed else call


def _changed_buckets(node: ast.UpdateStmt, scope: Scope) -> Rewritten | None:
    """``update storage.buckets set … where id = …`` for buckets that are named."""
    match node.whereClause:
        case ast.A_Expr(
            kind=enums.A_Expr_Kind.AEXPR_OP,
            name=(ast.String(sval="="),),
            lexpr=ast.ColumnRef(fields=(ast.String(sval="id" | "name"),)),
            rexpr=ast.A_Const() as value,
        ):
            names = [RawStream()(value)]
        case ast.A_Expr(
            kind=enums.A_Expr_Kind.AEXPR_IN,
            name=(ast.String(sval="="),),
            lexpr=ast.ColumnRef(fields=(ast.String(sval="id" | "name"),)),
            rexpr=tuple(values),
        ) if all(isinstance(value, ast.A_Const) for value in values):
            names = [RawStream()(value) for value in values]
        case _:
            return None
    given = {str(target.name): RawStream()(target.val) for target in node.targetList or ()}
    if node.fromClause or node.returningClause or set(given) - {*_SETTINGS, *_OF_NO_EFFECT}:
        return None
    calls = []
    for name in names:
        there = _there(name, scope)
        settings = (f"{setting} => {given.get(setting, f'(select b.{setting} {there})')}" for setting in _SETTINGS)
        call = f"data_plane_api.declare_bucket({', '.join([name, *settings])})"
        calls.append(f"case when exists (select {there}) then {call} end")
    return Rewritten(f"select {', '.join(calls)}", (Kind.BUCKETS,) * len(calls))


def _there(name: str, scope: Scope) -> str:
    known = name[1:-1] if name.startswith("'") else None
    ours = quoted_text(bucket_here(known.replace("''", "'"), scope)) if known else f"'{scope.names.schema}.' || {name}"
    return f"from data_plane_api.list_buckets() as b where b.id = {ours}"


def _only_if_missing(condition: ast.Node | None) -> bool:
    """Whether a condition is none, or ``not exists (select … from storage.buckets …)``."""
    match condition:
        case None:
            return True
        case ast.BoolExpr(boolop=enums.BoolExprType.NOT_EXPR, args=(ast.SubLink(subselect=ast.SelectStmt() as asked),)):
            match asked.fromClause:
                case (ast.RangeVar(schemaname="storage", relname="buckets"),):
                    return True
    return False
