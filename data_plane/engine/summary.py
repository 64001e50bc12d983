"""What a run means for each project, in the words of its file, who gains and loses access first.

The source is the steps of an engine. The component of a project (``ProjectTenant``) has what the project's file says as
inputs, so its step says what was declared before and what is now. What differs although the file has not changed was
changed by hand, or left by a run that failed; it is told by the resources.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from data_plane.engine.steps import NOT_KNOWN_YET, Change, PropertyChange, Step, differences
from data_plane.model.access import FractalOpsRole, levels_of
from data_plane.model.naming import TENANT_TYPE, AccessLevel
from data_plane.model.projects import Limits

__all__ = ["Area", "ProjectSummary", "Sentence", "project_of", "projects_of", "summarize"]

_GROUP = "vault:identity/group:Group"
_DECLARED = "slug"
"""An input that the component has whatever the project's file says."""


class Area(StrEnum):
    """What a sentence is about; shown in this order."""

    ACCESS = "access"
    LIFECYCLE = "lifecycle"
    EXPOSURE = "exposure"
    SERVICES = "services"
    BUCKETS = "buckets"
    SCHEMAS = "schemas"
    WORKLOADS = "workloads"
    REALTIME = "realtime"
    LIMITS = "limits"
    PLACE = "place"
    NAME = "name"
    OTHER = "other"
    BY_HAND = "differs"


@dataclass(frozen=True)
class Sentence:
    """One thing that changes for a project.

    Args:
        field: of the project's file, with `.` between its parts.
        who: whose access changes: a person by name, else `team …` or `workload …`.
    """

    area: Area
    text: str
    field: str | None = None
    old: Any = None
    new: Any = None
    who: str | None = None
    gains: tuple[AccessLevel, ...] = ()
    loses: tuple[AccessLevel, ...] = ()


@dataclass(frozen=True)
class ProjectSummary:
    """What a run changes, or would change, for one project."""

    project: str
    change: Change
    sentences: list[Sentence] = field(default_factory=list)


@dataclass(frozen=True)
class _Row:
    """How a field of the project's file is told; the first row whose pattern fits counts.

    Args:
        pattern: of the field's path, with `*` for a name of the project's own.
        subject: what it is, filled with those names in order.
        means: what a value has for a consequence.
    """

    pattern: str
    area: Area
    subject: str
    means: Mapping[Any, str] = field(default_factory=dict)


_FILES = {True: "anybody may read its files", False: "only the project's users read its files"}

_FIELDS = (
    _Row(
        "lifecycle",
        Area.LIFECYCLE,
        "lifecycle",
        {"detached": "all access and leases end, the data is kept", "attached": "access is as the file says"},
    ),
    _Row(
        "exposed",
        Area.EXPOSURE,
        "exposed",
        {True: "the API serves the project's schema", False: "the API no longer serves the project"},
    ),
    _Row(
        "api",
        Area.EXPOSURE,
        "api",
        {"dedicated": "a PostgREST serves this project alone", "shared": "its cell's PostgREST serves it"},
    ),
    _Row(
        "sign_up",
        Area.ACCESS,
        "sign_up",
        {"open": "anybody may become a member by signing up", "closed": "only who is invited becomes a member"},
    ),
    _Row("managed_services", Area.SERVICES, "managed services"),
    _Row("storage.public", Area.BUCKETS, "first bucket: public", _FILES),
    _Row("storage.buckets.*.public", Area.BUCKETS, "bucket {}: public", _FILES),
    _Row("storage.buckets.*.*", Area.BUCKETS, "bucket {}: {}"),
    _Row("storage.buckets.*", Area.BUCKETS, "bucket {}"),
    _Row("storage.*", Area.BUCKETS, "first bucket: {}"),
    _Row(
        "schemas.*.exposed",
        Area.EXPOSURE,
        "schema {}: exposed",
        {True: "the API serves it", False: "the API does not serve it"},
    ),
    _Row("schemas.*", Area.SCHEMAS, "schema {}"),
    _Row("workloads.*.level", Area.WORKLOADS, "workload {}: level"),
    _Row("workloads.*.*", Area.WORKLOADS, "workload {}: {}"),
    _Row("workloads.*", Area.WORKLOADS, "workload {}"),
    _Row(
        "realtime.public",
        Area.REALTIME,
        "public",
        {True: "tokens of the level anon may join", False: "only the project's users may join"},
    ),
    _Row(
        "realtime.topics",
        Area.REALTIME,
        "topics",
        {"users": "all users of the project read and write", "rules": "the project's own rules say who may"},
    ),
    _Row("realtime.*", Area.REALTIME, "{}"),
    _Row("limits.*", Area.LIMITS, "{}"),
    _Row("cell", Area.PLACE, "cell"),
    _Row("display_name", Area.NAME, "display name"),
    _Row("*", Area.OTHER, "{}"),
)
_TOLD_AS_ACCESS = frozenset({"owners", "users", "teams"})
_FIRST = {
    "lifecycle": None,
    "exposed": None,
    "api": None,
    "managed_services": None,
    "sign_up": "auth",
    "storage.public": "storage",
    "realtime.topics": "realtime",
    "realtime.public": "realtime",
}
"""What is told of a new project, and the service without which it says nothing."""
_UNTOLD = {"lifecycle": "attached"}
"""What need not be told of a new project."""
_LIMITS = Limits().model_dump(mode="json")
_KEPT = frozenset({Area.BUCKETS, Area.SCHEMAS})
_MEMBERS = {"memberEntityIds": "entity", "memberGroupIds": "group"}
"""The inputs of a level's group, and what the IDs in each are of."""
_NOT_THERE = "which the file gives and OpenBao does not have"
_GIVEN_BY_HAND = "which OpenBao has and the file does not give"
_DONE = {Change.CREATE: "is missing, and is made", Change.DELETE: "is removed", Change.REPLACE: "is replaced"}


def summarize(steps: Iterable[Step]) -> list[ProjectSummary]:
    """What steps mean for each project; projects for which nothing changes are left out."""
    known = {step.urn: step for step in steps}
    tenants: dict[str, list[Step]] = {urn: [] for urn, step in known.items() if step.type == TENANT_TYPE}
    for step in known.values():
        tenant = _tenant_of(step, known)
        if tenant is not None and tenant != step.urn:
            tenants[tenant].append(step)
    names = {found: who for urn, children in tenants.items() for found, who in _names(known[urn], children)}
    found = [_summary(known[urn], children, names) for urn, children in tenants.items()]
    return sorted((item for item in found if item.sentences), key=lambda item: item.project)


def project_of(step: Step, steps: Mapping[str, Step]) -> str | None:
    """The project that a step belongs to; None if it is shared by several.

    Args:
        steps: all of the run, by URN.
    """
    tenant = _tenant_of(step, steps)
    return None if tenant is None else steps[tenant].name


def projects_of(steps: Mapping[str, Step]) -> set[str]:
    """The projects of a stack, whether or not anything changes for them."""
    return {step.name for step in steps.values() if step.type == TENANT_TYPE}


def _tenant_of(step: Step, steps: Mapping[str, Step]) -> str | None:
    at: Step | None = step
    while at is not None and at.type != TENANT_TYPE:
        at = steps.get(at.parent)
    return None if at is None else at.urn


def _summary(tenant: Step, children: Sequence[Step], names: Mapping[str, str]) -> ProjectSummary:
    before, after = _declared(tenant.old), _declared(tenant.new)
    there = any(child.custom and child.change is not Change.CREATE for child in children)
    if tenant.change is Change.DELETE:
        change, after = Change.DELETE, {}
    elif tenant.change is Change.CREATE and not there:
        change, before = Change.CREATE, {}
    else:
        change = Change.UPDATE
    sentences: list[Sentence] = []
    if change is Change.CREATE:
        sentences.append(Sentence(Area.PLACE, f"cell: {after.get('cell')}", field="cell", new=after.get("cell")))
    if change is Change.DELETE:
        sentences.append(Sentence(Area.LIFECYCLE, "the project is no longer managed; its schema and data are kept"))
    if before or change is not Change.UPDATE:
        sentences += _access(before, after)
    if change is Change.UPDATE:
        sentences += _access_by_hand(before, after, children, names)
    if change is Change.CREATE:
        sentences += _first_settings(after)
    elif before and after:
        sentences += _settings(before, after)
    if change is Change.UPDATE and (not before or before == after):
        sentences += _by_hand(children)
    order = list(Area)
    return ProjectSummary(tenant.name, change, sorted(sentences, key=lambda found: order.index(found.area)))


def _declared(properties: Mapping[str, Any] | None) -> Mapping[str, Any]:
    # A state of an earlier version has no inputs there.
    return properties if properties is not None and _DECLARED in properties else {}


# Access


def _access(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Sentence]:
    """Who gains and who loses access by what the file says."""
    old, new = _levels(before), _levels(after)
    roles_before, roles_after = _role_texts(before), _role_texts(after)
    for who in dict.fromkeys([*sorted(new), *sorted(old), *sorted(roles_after), *sorted(roles_before)]):
        gains = tuple(level for level in AccessLevel if level in new.get(who, ()) and level not in old.get(who, ()))
        loses = tuple(level for level in AccessLevel if level in old.get(who, ()) and level not in new.get(who, ()))
        was, role = roles_before.get(who), roles_after.get(who)
        if gains or loses:
            text = _changed_access(who, gains, loses, role, everything=not new.get(who))
        elif before and was != role:
            text = f"{who}: {was or 'no role'} → {role or 'no role'}, {_same_levels(after)}"
        else:
            continue
        yield Sentence(Area.ACCESS, text, old=was, new=role, who=who, gains=gains, loses=loses)


def _changed_access(
    who: str, gains: Sequence[AccessLevel], loses: Sequence[AccessLevel], role: str | None, *, everything: bool
) -> str:
    parts = [f"gains {', '.join(gains)}" + (f" as {role}" if role else "")] if gains else []
    if loses:
        left = f", now {role}" if role and not gains else ""
        parts.append(f"loses all access ({', '.join(loses)})" if everything else f"loses {', '.join(loses)}{left}")
    return f"{who} {' and '.join(parts)}"


def _same_levels(after: Mapping[str, Any]) -> str:
    return "without access while the project is detached" if _detached(after) else "with the same levels"


def _detached(declared: Mapping[str, Any]) -> bool:
    return declared.get("lifecycle") == "detached"


def _roles(declared: Mapping[str, Any]) -> dict[str, list[str]]:
    """The roles of everybody that a project's file names."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for owner in declared.get("owners") or ():
        found[owner].append(FractalOpsRole.PROJECT_OWNER.value)
    for kind, prefix in (("users", ""), ("teams", "team ")):
        for role, names in (declared.get(kind) or {}).items():
            for name in names:
                found[f"{prefix}{name}"].append(role)
    return {who: sorted(roles) for who, roles in found.items()}


def _role_texts(declared: Mapping[str, Any]) -> dict[str, str]:
    return {who: ", ".join(roles) for who, roles in _roles(declared).items()}


def _levels(declared: Mapping[str, Any]) -> dict[str, set[AccessLevel]]:
    """The levels of everybody that a project's file gives any."""
    if _detached(declared):
        return {}
    found = {
        who: {level for role in roles for level in levels_of(FractalOpsRole(role))}
        for who, roles in _roles(declared).items()
    }
    for name, workload in (declared.get("workloads") or {}).items():
        found[f"workload {name}"] = {AccessLevel(workload["level"])}
    return found


def _access_by_hand(
    before: Mapping[str, Any], after: Mapping[str, Any], children: Sequence[Step], names: Mapping[str, str]
) -> Iterator[Sentence]:
    """Who is in a level's group and should not be, or the other way round, where the file has not changed that."""
    for step in children:
        if step.type != _GROUP or step.new is None or step.change is Change.SAME:
            continue
        level = AccessLevel(step.new["metadata"]["level"])
        if before and _members(before, level) != _members(after, level):
            continue
        for key, kind in _MEMBERS.items():
            there, declared = _ids((step.old or {}).get(key)), _ids(step.new.get(key))
            named = _people_and_teams(after, level, kind)
            for index, member in enumerate(declared):
                if member not in there:
                    who = named[index] if len(named) == len(declared) else names.get(member, f"{kind} {member}")
                    yield Sentence(Area.ACCESS, f"{who} gains {level}, {_NOT_THERE}", who=who, gains=(level,))
            for member in (member for member in there if member not in declared):
                who = names.get(member, f"{kind} {member}")
                yield Sentence(Area.ACCESS, f"{who} loses {level}, {_GIVEN_BY_HAND}", who=who, loses=(level,))


def _names(tenant: Step, children: Sequence[Step]) -> Iterator[tuple[str, str]]:
    """The members of a project's groups: their IDs with their names, which are in the order of the file's."""
    for step in children:
        if step.type != _GROUP or step.new is None:
            continue
        for key, kind in _MEMBERS.items():
            level = AccessLevel(step.new["metadata"]["level"])
            identifiers, named = _ids(step.new.get(key)), _people_and_teams(_declared(tenant.new), level, kind)
            if len(identifiers) == len(named):
                pairs = zip(identifiers, named, strict=True)
                yield from (pair for pair in pairs if pair[0] != NOT_KNOWN_YET)


def _ids(value: Any) -> list[str]:
    return value if isinstance(value, list) else []


def _people_and_teams(declared: Mapping[str, Any], level: AccessLevel, kind: str) -> list[str]:
    """Who has a level, of those that are entities or groups in OpenBao, in the order in which its group has them."""
    return [who for who in _members(declared, level) if who.startswith("team ") is (kind == "group")]


def _members(declared: Mapping[str, Any], level: AccessLevel) -> list[str]:
    """Who has a level, in the order in which the level's group has them: people, workloads, teams."""
    levels = _levels(declared)
    found = [who for who in sorted(levels) if level in levels[who]]
    return sorted(found, key=lambda who: who.startswith("workload "))


# Settings


def _settings(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Sentence]:
    """What else the file says otherwise than before."""
    for change in differences(before, after):
        if change.path.partition(".")[0] not in _TOLD_AS_ACCESS:
            yield _told(change)


def _told(change: PropertyChange) -> Sentence:
    row, names = _row(change.path)
    subject = row.subject.format(*names)
    means = row.means.get(change.new) if isinstance(change.new, bool | str) else None
    if isinstance(change.old, list) or isinstance(change.new, list):
        values = _list_change(change.old or [], change.new or [])
    elif isinstance(change.new, Mapping):
        values = f"new ({settings})" if (settings := _inline(change.new)) else "new"
    elif isinstance(change.old, Mapping):
        values = "no longer declared; what is in it is kept" if row.area in _KEPT else "no longer declared"
    else:
        values = f"{_shown(change.old)} → {_shown(change.new)}"
    text = f"{subject}: {values}" + (f" ({means})" if means else "")
    return Sentence(row.area, text, field=change.path, old=change.old, new=change.new)


def _first_settings(after: Mapping[str, Any]) -> Iterator[Sentence]:
    """What a new project has, beside access."""
    values = dict(_leaves(after))
    services = after.get("managed_services") or ()
    for path, service in _FIRST.items():
        if path in values and (service is None or service in services) and values[path] != _UNTOLD.get(path):
            row, _ = _row(path)
            means = row.means.get(values[path]) if row.means else None
            text = f"{row.subject}: {_shown(values[path])}" + (f" ({means})" if means else "")
            yield Sentence(row.area, text, field=path, new=values[path])
    named_parts = {"schemas": after.get("schemas"), "storage.buckets": (after.get("storage") or {}).get("buckets")}
    for path, named in named_parts.items():
        yield from (_told(PropertyChange(f"{path}.{name}", None, given)) for name, given in (named or {}).items())
    limits = after.get("limits") or {}
    own = _inline({name: value for name, value in limits.items() if value != _LIMITS.get(name)})
    text = f"{own}, and the usual ones" if own else "the usual ones"
    yield Sentence(Area.LIMITS, text, field="limits", new=limits)


def _leaves(declared: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in sorted(declared.items()):
        here = f"{path}{name}"
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{here}.")
        else:
            yield here, value


def _row(path: str) -> tuple[_Row, list[str]]:
    """How a field is told, and what its pattern's stars stand for."""
    for row in _FIELDS:
        stars = row.pattern.split(".")
        parts = path.split(".", len(stars) - 1)
        if len(parts) == len(stars) and all(star in ("*", part) for star, part in zip(stars, parts, strict=True)):
            return row, [part for star, part in zip(stars, parts, strict=True) if star == "*"]
    raise AssertionError(path)


def _list_change(old: Sequence[Any], new: Sequence[Any]) -> str:
    signs = [f"+ {item}" for item in new if item not in old] + [f"- {item}" for item in old if item not in new]
    return ", ".join(signs) or f"{', '.join(map(str, old))} → {', '.join(map(str, new))}"


def _inline(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}: {_shown(value)}" for name, value in _leaves(settings))


def _shown(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


# What the file does not explain


def _by_hand(children: Sequence[Step]) -> Iterator[Sentence]:
    """Resources of the project that differ although its file has not changed."""
    for step in children:
        if step.custom and step.change is not Change.SAME and step.type != _GROUP:
            what = f"{step.type.rpartition(':')[2]} {step.name}"
            if step.change is Change.UPDATE:
                changed = ", ".join(dict.fromkeys(found.path.partition(".")[0] for found in step.properties))
                text = f"{what}: {changed or 'its content'} is not as it was last applied"
            else:
                text = f"{what}: {_DONE[step.change]}"
            yield Sentence(Area.BY_HAND, text)
