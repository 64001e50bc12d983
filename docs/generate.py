"""Fills in the generated parts of the pages under ``docs/``; ``--check`` fails if a page is out of date.

A generated part stands between ``<!-- generated: NAME -->`` and ``<!-- end -->``; :data:`PARTS` says what NAME is.
Fields are read from the pydantic models, commands from the command line's own tree, policies from the pack, flows and
resources from what the program declares.
"""

import ast
import inspect
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args, get_origin

import typer
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from data_plane.cli.main import app
from data_plane.connector.error_reference import error_markdown
from data_plane.model.durations import format_duration
from data_plane.model.projects import Project
from data_plane.model.service_logins import service_logins
from data_plane.model.settings import CellSettings, CentralSettings
from data_plane.model.sizes import format_size
from docs import draw
from policies.pack import POLICIES
from tests.support.cluster_program import API_SERVERS, EVERYTHING, declared
from tests.support.small_programs import a_cell, project

DOCS = Path(__file__).resolve().parent
_PART = re.compile(r"(?<=<!-- generated: )([\w-]+)( -->\n).*?(?=<!-- end -->)", re.DOTALL)
_NUMBERS = {"integer", "number"}
_UNITS = {"[smhd]$": "duration", "TiB)$": "size"}
"""What the patterns of :mod:`data_plane.model.durations` and :mod:`data_plane.model.sizes` end with."""
_OPTION_HEAD = ("", "meaning", "default")
_COMMON = 4
"""Options of so many commands are described once."""


def _cell(text: str) -> str:
    """A text as it may stand in a table."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


# Models --------------------------------------------------------------------------------------------------------------


def _fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, ...]]:
    """Every field of a model and of those in it: path, type, default, description."""
    schema = model.model_json_schema()
    for name, field in model.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        described = _resolved(schema["properties"][field.alias or name], schema)
        inner = _model_in(field.annotation)
        if inner is None:
            yield f"`{key}`", _type(described, schema), _default(described, field), _description(model, name, field)
        else:
            key += _container(field.annotation)
            text = _description(model, name, field) or _title(inner)
            needed = "required" if field.is_required() else ""
            yield f"`{key}`", "object", needed, text
            yield from _fields(inner, f"{key}.")


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, get_args(annotation))), None)


def _container(annotation: Any) -> str:
    """What stands between a field and those of the models that it holds."""
    if get_origin(annotation) is dict:
        return ".NAME"
    if get_origin(annotation) in {list, tuple}:
        return "[]"
    return next(filter(None, map(_container, get_args(annotation))), "")


def _resolved(described: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """What a JSON Schema says of a value, without references and without null."""
    found = dict(described)
    while True:
        if "$ref" in found:
            found = {**schema["$defs"][found.pop("$ref").rpartition("/")[2]], **found}
        elif options := [option for option in found.get("anyOf", ()) if option.get("type") != "null"]:
            found = {**options[0], **{key: value for key, value in found.items() if key != "anyOf"}}
        else:
            return found


def _type(described: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    values = described.get("enum") or ([described["const"]] if "const" in described else None)
    if values:
        return ", ".join(f"`{value}`" for value in values)
    kind = str(described.get("type", "any"))
    if kind == "array":
        return f"list of {_type(_resolved(described.get('items', {}), schema), schema)}"
    if kind == "object":
        keys = described.get("propertyNames")
        value = described.get("additionalProperties")
        return (f"map from {_type(_resolved(keys, schema), schema)}" if keys else "map") + (
            f" to {_type(_resolved(value, schema), schema)}" if isinstance(value, dict) else ""
        )
    if kind in _NUMBERS and "minimum" in described:
        return f"{kind}, {described['minimum']}–{described.get('maximum', '')}"
    return _unit(described) or kind.replace("boolean", "true, false")


def _unit(described: Mapping[str, Any]) -> str | None:
    """What a number with its unit measures."""
    pattern = str(described.get("pattern", ""))
    return next((unit for end, unit in _UNITS.items() if pattern.endswith(end)), None)


def _default(described: Mapping[str, Any], field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = described.get("default")
    if value is None or value in ([], {}):
        return ""
    if isinstance(value, int) and (unit := _unit(described)):
        value = format_size(value) if unit == "size" else format_duration(value)
    if isinstance(value, (list, tuple)):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _description(model: type[BaseModel], name: str, field: FieldInfo) -> str:
    text = field.description or next(filter(None, (_docstrings(base).get(name) for base in model.__mro__)), "")
    return text.replace("``", "`")


def _title(model: type) -> str:
    """The first paragraph of a class's docstring, without the name of the field that it stands under."""
    return re.sub(r"^``[\w.]+``: ", "", inspect.getdoc(model) or "").partition("\n\n")[0].replace("``", "`")


@cache
def _docstrings(model: type) -> dict[str, str]:
    """The texts that stand under a class's fields."""
    if not issubclass(model, BaseModel) or model is BaseModel:
        return {}
    body = ast.parse(inspect.cleandoc("\n" + inspect.getsource(model))).body[0]
    return {
        field.target.id: inspect.cleandoc(text.value.value)
        for field, text in pairwise(getattr(body, "body", ()))
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }


def _model(model: type[BaseModel]) -> str:
    return _table(("field", "type", "default", "meaning"), _fields(model))


def _settings(model: type[BaseModel]) -> str:
    """The same of a stack's settings, some of which ``Pulumi.yaml`` describes."""
    known = yaml.safe_load((DOCS.parent / "Pulumi.yaml").read_text(encoding="utf-8"))["config"]
    rows = []
    for field, kind, default, text in _fields(model):
        other = known.get(field.strip("`"), {})
        rows.append(
            (
                field,
                kind,
                f"`{other['default']}`" if other.get("default") else default,
                text or other.get("description", ""),
            )
        )
    return _table(("field", "type", "default", "meaning"), rows)


# The command line ----------------------------------------------------------------------------------------------------


def _commands(group: Any, context: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every command of a group and of the groups in it, with what is typed to call it."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        if hasattr(command, "list_commands"):
            inner = command.context_class(command, info_name=name, parent=context)
            yield from _commands(command, inner, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def all_commands() -> dict[str, Any]:
    """Every command, by what is typed to call it."""
    root: Any = typer.main.get_command(app)
    return dict(_commands(root, root.context_class(root, info_name="dataplane"), "dataplane"))


def command_line() -> str:
    """What each command does, and its options; what several commands share is described once."""
    commands = list(all_commands().items())
    names: dict[Any, str] = {}
    for path, command in commands:
        names.setdefault(inspect.unwrap(command.callback), path)
    own = [command for path, command in commands if names[inspect.unwrap(command.callback)] == path]
    uses = Counter(_option(item) for command in own for item in command.params if item.param_type_name == "option")
    common: list[tuple[str, ...]] = sorted(option for option, count in uses.items() if count >= _COMMON)
    root: Any = typer.main.get_command(app)
    lines = [f"{_help(root.epilog)}\n", "## Options of several commands\n", _table(_OPTION_HEAD, common), ""]
    for path, command in commands:
        lines.append(f"## {path}\n")
        other = names[inspect.unwrap(command.callback)]
        if other == path:
            lines += _command(path, command, common)
        else:
            lines.append(f"The same as [`{other}`](#{other.replace(' ', '-')}).\n")
    return "\n".join(lines).rstrip()


def _command(path: str, command: Any, common: list[tuple[str, ...]]) -> Iterator[str]:
    arguments = [item for item in command.params if item.param_type_name == "argument"]
    options = [_option(item) for item in command.params if item.param_type_name == "option" and not item.hidden]
    usage = " ".join([path, *(["[OPTIONS]"] if options else []), *map(_argument, arguments)])
    yield f"{_help(command.help)}\n\n`{usage}`\n"
    rows = [(f"`{_argument(item)}`", _help(item.help), "") for item in arguments if item.help]
    rows += [option for option in options if option not in common]
    if rows:
        yield _table(_OPTION_HEAD, rows) + "\n"
    if also := [option[0] for option in options if option in common]:
        yield f"Also: {'; '.join(also)}.\n"


def _option(item: Any) -> tuple[str, str, str]:
    variable = item.envvar if isinstance(item.envvar, str) else None
    return _flags(item), _help(item.help) + (f" (`{variable}`)" if variable else ""), _option_default(item)


def _argument(item: Any) -> str:
    name = str(item.metavar or item.name.upper()).strip("[]")
    name += "…" if item.nargs == -1 else ""
    return name if item.required else f"[{name}]"


def _flags(item: Any) -> str:
    choices = "|".join(choice.value for choice in type(item.default)) if isinstance(item.default, Enum) else ""
    value = "" if item.is_flag or item.count else f" {choices or (item.metavar or item.name).upper()}"
    names = sorted(item.opts, key=len)
    negative = "".join(f" / `{name}`" for name in item.secondary_opts)
    return ", ".join(f"`{name}`" for name in [*names[:-1], names[-1] + value]) + negative


def _help(text: str | None) -> str:
    paragraphs = inspect.cleandoc(text or "").partition("\f")[0].split("\n\n")
    return "\n\n".join(" ".join(paragraph.replace("\b", "").split()) for paragraph in paragraphs)


def _option_default(item: Any) -> str:
    value = item.show_default if isinstance(item.show_default, str) else item.default
    if isinstance(value, Enum):
        value = value.value
    if item.required:
        return "required"
    if (
        value is None
        or isinstance(value, bool)
        or callable(value)
        or not str(value)
        or isinstance(value, (list, tuple))
    ):
        return ""
    return f"`{value}`"


# Policies, flows and resources ----------------------------------------------------------------------------------------


def policies() -> str:
    """Every policy: what it demands, what to do instead, its settings."""
    parts = []
    for policy in POLICIES:
        settings = policy.config_schema.properties if policy.config_schema else {}
        level = policy.enforcement_level.value if policy.enforcement_level else "mandatory"
        parts.append(
            f"### {policy.name}\n\n{policy.description}\n\n- Level: {level}\n- Instead: {policy.remediation_steps}"
        )
        parts += [f"- `{name}` ({_shown(schema)}): {schema['description']}" for name, schema in settings.items()]
        parts.append("")
    return "\n".join(parts).rstrip()


def _shown(schema: Mapping[str, Any]) -> str:
    default = schema["default"]
    return f"{schema['type']}, default `{default}`" if default != [] else str(schema["type"])


def network_flows() -> str:
    """Every allowed flow, with its ports."""
    rows = [(str(flow.source), str(flow.target), ", ".join(map(str, flow.ports))) for flow in draw.allowed_flows()]
    return _table(("from", "to", "ports"), rows)


def tenant_resources() -> str:
    """Every resource of a project's slice, with the component that it is in."""
    program = a_cell(project())
    rows = [
        (component.type.rpartition(":")[2], f"`{item.name}`", item.type, "yes" if item.request.protect else "")
        for component in draw.tenant_components(program)
        for item in sorted(draw.children(program, component), key=lambda item: item.name)
    ]
    return _table(("component", "resource", "type", "protected"), rows)


def service_secrets() -> str:
    """The secret of each service: its keys, and the logins to PostgreSQL whose passwords are among them."""
    logins = {key: f"`{login}`" for login, key in service_logins(API_SERVERS).items()}
    logins["POSTGRES_PASSWORD"] = "the superuser"
    rows = []
    for copy in declared(EVERYTHING, API_SERVERS).resources:
        if copy.type.endswith(":ServiceSecretCopy"):
            keys = copy.inputs["keys"]
            shown = " ".join(f"`{key}`" for key in keys)
            rows.append((f"`{copy.inputs['path']}`", shown, ", ".join(logins[key] for key in keys if key in logins)))
    return _table(("secret", "keys", "logins"), sorted(rows))


PARTS: Mapping[str, Callable[[], str]] = {
    "allowed-flows": network_flows,
    "cell-settings": lambda: _settings(CellSettings),
    "central-settings": lambda: _settings(CentralSettings),
    "command-line": command_line,
    "errors": error_markdown,
    "picture-of-services": draw.services,
    "picture-of-a-tenant": draw.tenant,
    "policies": policies,
    "project-file": lambda: _model(Project),
    "service-secrets": service_secrets,
    "tenant-resources": tenant_resources,
}
"""What fills in each generated part."""


def filled_in(page: str) -> str:
    """A page with its generated parts made anew."""
    return _PART.sub(lambda part: f"{part[1]}{part[2]}\n{PARTS[part[1]]().rstrip()}\n\n", page)


def pages() -> Iterator[Path]:
    """The pages with a generated part."""
    return (path for path in sorted(DOCS.rglob("*.md")) if _PART.search(path.read_text(encoding="utf-8")))


def _main(arguments: list[str]) -> Iterator[str]:
    for page in pages():
        before = page.read_text(encoding="utf-8")
        after = filled_in(before)
        if "--check" not in arguments:
            page.write_text(after, encoding="utf-8")
        elif before != after:
            yield f"{page.relative_to(DOCS.parent)} is out of date: run `make docs`"


if __name__ == "__main__":
    sys.exit("\n".join(_main(sys.argv[1:])) or None)
