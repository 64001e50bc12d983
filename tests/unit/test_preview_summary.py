"""What a run means for a project, told from an engine's steps: every field of a project's file is told of."""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from types import UnionType
from typing import Any, Union, get_args, get_origin

import pytest
from pydantic import BaseModel

from data_plane.engine.steps import NOT_KNOWN_YET, Change, PropertyChange, Step
from data_plane.engine.summary import Area, ProjectSummary, Sentence, project_of, summarize
from data_plane.model.naming import AccessLevel
from data_plane.model.projects import Project

CELL = "urn:cell-1"
ALL = ("owner", "service_role", "authenticated", "anon")

FILE: dict[str, Any] = {
    "slug": "demo",
    "display_name": "Demo",
    "cell": "cell-1",
    "owners": ["alice"],
    "users": {"project_contributor": ["bob"], "project_viewer": ["carol"]},
    "teams": {"project_viewer": ["web"]},
    "workloads": {
        "app": {"level": "authenticated", "kubernetes": {"namespace": "shop", "service_account": "app"}},
        "batch": {"level": "service_role", "approle": {"secret_id_ttl": "1h", "bound_cidrs": ["10.0.0.0/8"]}},
    },
    "managed_services": ["postgres", "auth", "storage", "realtime"],
    "sign_up": "closed",
    "storage": {
        "public": False,
        "file_size_limit": "5MiB",
        "allowed_mime_types": ["image/png"],
        "buckets": {"photos": {"public": False, "file_size_limit": "1MiB", "allowed_mime_types": ["image/png"]}},
    },
    "schemas": {"private": {"exposed": False}},
    "realtime": {"topics": "users", "public": False},
    "exposed": True,
    "api": "shared",
    "lifecycle": "attached",
}


def declared(change: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A project's file as its component has it, with some fields otherwise."""
    document = deepcopy(FILE)
    for path, value in (change or {}).items():
        *parents, last = path.split(".")
        at = document
        for name in parents:
            at = at.setdefault(name, {})
        if value is None:
            del at[last]
        else:
            at[last] = value
    return Project.model_validate(document).model_dump(mode="json", exclude_none=True)


def tenant(
    old: Mapping[str, Any] | None, new: Mapping[str, Any] | None, change: Change | None = None, slug: str = "demo"
) -> Step:
    if change is None:
        change = Change.SAME if old == new else Change.UPDATE
    return Step(
        f"urn:{slug}",
        "supabase-data-plane:tenant:ProjectTenant",
        slug,
        change,
        custom=False,
        parent=CELL,
        old=old,
        new=new,
    )


def changed(change: Mapping[str, Any]) -> list[Sentence]:
    (found,) = summarize([tenant(declared(), declared(change))])
    assert (found.project, found.change) == ("demo", Change.UPDATE)
    return found.sentences


def texts(found: list[Sentence]) -> list[str]:
    return [f"{sentence.area}: {sentence.text}" for sentence in found]


def test_an_owner_replaced_by_another_loses_what_the_other_gains() -> None:
    first, second = changed({"owners": ["erin"]})
    assert (first.who, first.gains, first.loses) == ("erin", ALL, ())
    assert (second.who, second.gains, second.loses) == ("alice", (), ALL)
    assert texts([first, second]) == [
        "access: erin gains owner, service_role, authenticated, anon as project_owner",
        "access: alice loses all access (owner, service_role, authenticated, anon)",
    ]


def test_another_role_is_told_by_the_levels_that_it_gives_and_takes() -> None:
    assert texts(changed({"owners": ["alice", "bob"], "users.project_contributor": []})) == [
        "access: bob gains owner, service_role as project_owner"
    ]
    swapped = changed({"owners": ["bob"], "users.project_contributor": ["alice"]})
    assert texts(swapped) == [
        "access: alice loses owner, service_role, now project_contributor",
        "access: bob gains owner, service_role as project_owner",
    ]


def test_a_role_of_the_same_levels_is_told_as_that() -> None:
    (found,) = changed({"users.project_viewer": [], "users.solution_viewer": ["carol"]})
    assert found.text == "carol: project_viewer → solution_viewer, with the same levels"


def test_teams_and_workloads_are_not_taken_for_people() -> None:
    found = changed({"teams.project_viewer": ["carol"], "workloads.app": None})
    assert {(sentence.who, sentence.gains, sentence.loses) for sentence in found if sentence.who} == {
        ("team carol", ("anon",), ()),
        ("team web", (), ("anon",)),
        ("workload app", (), ("authenticated",)),
    }


def test_a_detached_project_takes_everybody_s_access_before_anything_else() -> None:
    found = changed({"lifecycle": "detached"})
    assert [sentence.area for sentence in found] == [Area.ACCESS] * 6 + [Area.LIFECYCLE]
    assert {sentence.who for sentence in found} >= {"alice", "bob", "carol", "team web", "workload app"}
    assert found[-1].text == "lifecycle: attached → detached (all access and leases end, the data is kept)"


def test_a_detached_project_s_new_owner_gains_nothing_yet() -> None:
    old, new = declared({"lifecycle": "detached"}), declared({"lifecycle": "detached", "owners": ["erin"]})
    (found,) = summarize([tenant(old, new)])
    assert all(not sentence.gains and not sentence.loses for sentence in found.sentences)
    assert "erin: no role → project_owner, without access while the project is detached" in texts(found.sentences)[0]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"limits.lease_ttl": "2h"}, "limits: lease_ttl: 1h → 2h"),
        ({"limits.storage": "1GiB"}, "limits: storage: 10GiB → 1GiB"),
        ({"storage.public": True}, "buckets: first bucket: public: false → true (anybody may read its files)"),
        (
            {"storage.buckets.photos.public": True},
            "buckets: bucket photos: public: false → true (anybody may read its files)",
        ),
        ({"storage.buckets.docs": {"public": True}}, "buckets: bucket docs: new (public: true)"),
        ({"storage.buckets": {}}, "buckets: bucket photos: no longer declared; what is in it is kept"),
        ({"storage.file_size_limit": None}, "buckets: first bucket: file_size_limit: 5MiB → not set"),
        ({"exposed": False}, "exposure: exposed: true → false (the API no longer serves the project)"),
        ({"api": "dedicated"}, "exposure: api: shared → dedicated (a PostgREST serves this project alone)"),
        ({"schemas.private.exposed": True}, "exposure: schema private: exposed: false → true (the API serves it)"),
        ({"schemas.more": {}}, "schemas: schema more: new (exposed: false)"),
        ({"sign_up": "open"}, "access: sign_up: closed → open (anybody may become a member by signing up)"),
        (
            {"workloads.app.kubernetes.namespace": "other"},
            "workloads: workload app: kubernetes.namespace: shop → other",
        ),
        ({"display_name": "Other"}, "name: display name: Demo → Other"),
    ],
)
def test_a_setting_is_told_old_and_new(change: Mapping[str, Any], text: str) -> None:
    assert texts(changed(change)) == [text]


def test_a_service_is_told_as_added_or_taken_away() -> None:
    document = {"managed_services": ["postgres", "auth", "realtime"], "storage": None}
    assert "services: managed services: - storage" in texts(changed(document))


# Every field

OTHERS: dict[str, Any] = {
    "slug": "other",
    "cell": "cell-2",
    "api": "dedicated",
    "lifecycle": "detached",
    "sign_up": "open",
    "exposed": False,
    "realtime.topics": "rules",
    "owners": ["erin"],
    "users": {"maintainer": ["erin"]},
    "teams": {"maintainer": ["erin"]},
    "workloads.app.level": "anon",
    "workloads.batch.level": "anon",
    "workloads.app.kubernetes": {"namespace": "other", "service_account": "app"},
    "workloads.app.kubernetes.namespace": "other",
    "workloads.app.kubernetes.service_account": "other",
    "workloads.batch.approle": {"secret_id_ttl": "2h"},
    "workloads.batch.approle.secret_id_ttl": "2h",
    "workloads.batch.approle.bound_cidrs": [],
    "managed_services": ["postgres", "storage", "realtime", "auth"],
    "storage.file_size_limit": "6MiB",
    "storage.allowed_mime_types": ["image/gif"],
    "storage.buckets.photos.file_size_limit": "6MiB",
    "storage.buckets.photos.allowed_mime_types": ["image/gif"],
    "limits.lease_ttl": "2h",
    "limits.lease_max_ttl": "2h",
    "limits.statement_timeout": "31s",
    "limits.transaction_timeout": "31s",
    "limits.idle_in_transaction_timeout": "31s",
    "limits.storage": "1GiB",
    "realtime.max_bytes_per_second": "1MiB",
}
"""Another value of each field for which none can be made of its kind."""
NAMES = {"workloads": ("app", "batch"), "schemas": ("private",), "storage.buckets": ("photos",)}


def fields(model: type[BaseModel], path: str = "") -> Iterator[str]:
    """The paths of all fields of a model and of the models in it, with the names that FILE has for the project's own."""
    for name, info in model.model_fields.items():
        here = f"{path}{name}"
        yield here
        for inner in models_in(info.annotation):
            for middle in [f"{here}.{own}." for own in NAMES.get(here, ())] or [f"{here}."]:
                yield from fields(inner, middle)


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, UnionType, dict, list) or get_args(annotation):
        for argument in get_args(annotation):
            yield from models_in(argument)


def value_at(document: Mapping[str, Any], path: str) -> Any:
    found: Any = document
    for name in path.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def other(path: str) -> Any:
    if path in OTHERS:
        return OTHERS[path]
    match value_at(declared(), path):
        case bool() as value:
            return not value
        case int() as value:
            return value + 1
        case str() as value:
            return value + "x"
        case dict():
            return None  # its fields are told of one by one
    raise AssertionError(f"say another value of {path} in OTHERS")


EVERY_FIELD = [
    path
    for path in fields(Project)
    # A workload has one way to sign in.
    if not path.startswith(("workloads.app.approle", "workloads.batch.kubernetes")) and other(path) is not None
]


@pytest.mark.parametrize("path", EVERY_FIELD)
def test_no_field_of_a_project_s_file_changes_without_a_sentence(path: str) -> None:
    change = {path: other(path)}
    if path == "exposed":
        change["schemas"] = {}
    (found,) = summarize([tenant(declared(), declared(change))])
    assert found.sentences, f"{path} passes silently"
    assert path.rpartition(".")[2] in " ".join(
        f"{sentence.field} {sentence.text}" for sentence in found.sentences
    ) or any(sentence.who for sentence in found.sentences)
    signs = (" → ", ": + ", ": - ", ": new", ": no longer declared")
    assert all(sentence.who or any(sign in sentence.text for sign in signs) for sentence in found.sentences)


def test_every_field_that_a_file_can_have_was_looked_for() -> None:
    assert {
        "owners",
        "limits.jobs",
        "storage.buckets.photos.public",
        "schemas.private.exposed",
        "realtime.max_joins_per_second",
        "workloads.batch.approle.bound_cidrs",
        "workloads.app.kubernetes.service_account",
    } <= set(EVERY_FIELD)
    assert len(EVERY_FIELD) > 40


def test_a_field_without_words_of_its_own_is_told_by_its_name() -> None:
    old, new = {**declared(), "colour": "red"}, {**declared(), "colour": "blue"}
    (found,) = summarize([tenant(old, new)])
    assert texts(found.sentences) == ["other: colour: red → blue"]


# New, removed, and unchanged


def test_a_new_project_is_told_with_its_access_exposure_and_limits() -> None:
    (found,) = summarize([tenant(None, declared(), Change.CREATE)])
    assert found.change is Change.CREATE
    told = texts(found.sentences)
    assert told[0] == "access: alice gains owner, service_role, authenticated, anon as project_owner"
    assert "access: team web gains anon as project_viewer" in told
    assert "exposure: exposed: true (the API serves the project's schema)" in told
    assert "services: managed services: postgres, auth, storage, realtime" in told
    assert "buckets: first bucket: public: false (only the project's users read its files)" in told
    assert "place: cell: cell-1" in told
    assert "limits: the usual ones" in told


def test_of_a_new_project_the_limits_of_its_own_are_told() -> None:
    own = declared({"limits": {"lease_ttl": "30m", "connection_limit": 5}, "lifecycle": "detached"})
    (found,) = summarize([tenant(None, own, Change.CREATE)])
    told = texts(found.sentences)
    assert "limits: connection_limit: 5, lease_ttl: 30m, and the usual ones" in told
    assert "lifecycle: lifecycle: detached (all access and leases end, the data is kept)" in told
    assert not any(sentence.gains for sentence in found.sentences)


def test_a_removed_project_is_told_with_the_access_that_ends() -> None:
    (found,) = summarize([tenant(declared(), None, Change.DELETE)])
    assert found.change is Change.DELETE
    assert texts(found.sentences)[-1] == "lifecycle: the project is no longer managed; its schema and data are kept"
    assert found.sentences[0].loses


def test_a_project_that_stays_as_it_is_is_not_told_of() -> None:
    assert summarize([tenant(declared(), declared())]) == []


def test_projects_come_in_order_each_with_its_own() -> None:
    found = summarize(
        [
            tenant(declared(), declared({"display_name": "B"}), slug="shop"),
            tenant(declared(), declared({"display_name": "A"}), slug="demo"),
        ]
    )
    assert [(item.project, item.sentences[0].new) for item in found] == [("demo", "A"), ("shop", "B")]


# What the file does not explain


def child(type_: str, name: str, change: Change, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> Step:
    return Step(f"urn:{name}", type_, name, change, custom=True, parent="urn:demo", old=old, new=new)


def group(old: list[str] | None, new: list[str], level: str = "owner") -> Step:
    metadata = {"project": "demo", "level": level}
    return child(
        "vault:identity/group:Group",
        f"demo-access-group-{level}",
        Change.CREATE if old is None else Change.UPDATE,
        None if old is None else {"memberEntityIds": old, "metadata": metadata},
        {"memberEntityIds": new, "metadata": metadata},
    )


def told_of(*steps: Step, project: Step | None = None) -> list[str]:
    found = summarize([project or tenant(declared(), declared()), *steps])
    return texts(found[0].sentences) if found else []


def test_who_was_put_into_a_group_by_hand_loses_it() -> None:
    assert told_of(group(["id-alice", "id-mallory"], ["id-alice"])) == [
        "access: entity id-mallory loses owner, which OpenBao has and the file does not give"
    ]


def test_who_another_project_names_is_told_by_name() -> None:
    shop = tenant(declared({"owners": ["dave"]}), declared({"owners": ["dave"]}), slug="shop")
    members = {"memberEntityIds": ["id-dave"], "metadata": {"project": "shop", "level": "owner"}}
    same = Step(
        "urn:g", "vault:identity/group:Group", "g", Change.SAME, True, parent="urn:shop", old=members, new=members
    )
    assert told_of(group(["id-alice", "id-dave"], ["id-alice"]), shop, same) == [
        "access: dave loses owner, which OpenBao has and the file does not give"
    ]


def test_a_level_without_known_members_is_told_by_ids() -> None:
    assert told_of(group(["id-x"], ["id-alice", "id-y"])) == [
        "access: entity id-alice gains owner, which the file gives and OpenBao does not have",
        "access: entity id-y gains owner, which the file gives and OpenBao does not have",
        "access: entity id-x loses owner, which OpenBao has and the file does not give",
    ]


def test_people_who_are_new_to_openbao_are_told_by_their_own_names() -> None:
    """As in a state of an earlier version, which does not say what was declared."""
    both = declared({"owners": ["alice", "erin"]})
    known = child("a:b:C", "c", Change.SAME, {}, {})
    found = told_of(group(["id-x"], [NOT_KNOWN_YET, NOT_KNOWN_YET]), known, project=tenant({}, both))
    assert [text.partition(",")[0] for text in found] == [
        "access: alice gains owner",
        "access: erin gains owner",
        "access: entity id-x loses owner",
    ]
    whole = group(["id-x"], [])
    unknown = Step(
        whole.urn,
        whole.type,
        "g",
        Change.UPDATE,
        True,
        parent="urn:demo",
        old=whole.old,
        new={**(whole.new or {}), "memberEntityIds": NOT_KNOWN_YET},
    )
    assert [text.partition(",")[0] for text in told_of(unknown)] == ["access: entity id-x loses owner"]


def test_who_was_taken_out_of_a_group_by_hand_gains_it_by_name() -> None:
    expected = ["access: alice gains owner, which the file gives and OpenBao does not have"]
    assert told_of(group([], ["id-alice"])) == expected
    assert told_of(group(None, ["id-alice"]), child("a:b:C", "c", Change.SAME, {}, {})) == expected


def test_a_group_that_the_file_explains_is_told_once() -> None:
    project = tenant(declared(), declared({"owners": ["erin"]}))
    found = told_of(group(["id-alice"], [NOT_KNOWN_YET]), project=project)
    assert len(found) == 2
    assert all("as project_owner" in text or "loses all access" in text for text in found)


def test_a_run_that_failed_half_way_leaves_the_rest_to_be_told_of() -> None:
    bucket = child(
        "pulumi-python:dynamic/tenant:TenantBucket", "demo-bucket", Change.UPDATE, {"public": False}, {"public": True}
    )
    limits = child("pulumi-python:dynamic/tenant:TenantLimits", "demo-limits", Change.CREATE, None, {"jobs": 1})
    assert told_of(bucket, limits) == [
        "differs: TenantBucket demo-bucket: public is not as it was last applied",
        "differs: TenantLimits demo-limits: is missing, and is made",
    ]


def test_a_state_of_an_earlier_version_is_no_change_of_the_project() -> None:
    known = child("a:b:C", "c", Change.SAME, {}, {})
    assert told_of(known, project=tenant(None, declared(), Change.CREATE)) == []
    assert told_of(known, project=tenant({}, declared())) == []


def test_a_resource_belongs_to_the_project_above_it() -> None:
    component = Step("urn:access", "x:y:TenantAccess", "demo-access", Change.SAME, custom=False, parent="urn:demo")
    below = Step("urn:policy", "vault:index/policy:Policy", "p", Change.UPDATE, custom=True, parent="urn:access")
    shared = Step("urn:person", "vault:generic/endpoint:Endpoint", "x", Change.CREATE, custom=True, parent=CELL)
    steps = {step.urn: step for step in (tenant(declared(), declared()), component, below, shared)}
    assert project_of(below, steps) == "demo"
    assert project_of(shared, steps) is None


# Properties of a step


def test_a_step_names_what_differs_within_its_inputs() -> None:
    step = child(
        "a:b:C",
        "c",
        Change.UPDATE,
        {"a": {"b": 1, "c": 2}, "d": [1], "__provider": "x"},
        {"a": {"b": 1, "c": 3}, "d": [1, 2], "__provider": "y"},
    )
    assert step.properties == [PropertyChange("a.c", 2, 3), PropertyChange("d", [1], [1, 2])]


def test_a_secret_that_differs_is_named_without_its_value() -> None:
    step = Step(
        "u",
        "a:b:C",
        "c",
        Change.UPDATE,
        custom=True,
        changed=("password", "__provider"),
        old={"password": "[secret]"},
        new={"password": "[secret]"},
    )
    assert step.properties == [PropertyChange("password", "[secret]", "[secret]")]


def test_sentences_keep_the_levels_for_machines() -> None:
    (found,) = changed({"teams.project_viewer": []})
    assert found == Sentence(
        Area.ACCESS,
        "team web loses all access (anon)",
        old="project_viewer",
        who="team web",
        loses=(AccessLevel.ANON,),
    )
    assert isinstance(ProjectSummary("x", Change.SAME).sentences, list)
