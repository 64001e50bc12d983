"""A run as text and as JSON: projects first, then resources with old and new values, then counts."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from data_plane.engine.report import StackReport, counts_by_group, report_document, report_lines
from data_plane.engine.steps import NOT_KNOWN_YET, SECRET, Change, EngineRun, Step

ROOT = Step("urn:cell", "supabase-data-plane:cell:Cell", "cell-1", Change.SAME, custom=False, parent="urn:stack")
PEOPLE = Step("urn:people", "supabase-data-plane:people:People", "cell-1-people", Change.SAME, False, parent=ROOT.urn)
DECLARED = {
    "slug": "demo",
    "owners": ["alice"],
    "managed_services": ["postgres"],
    "storage": {"public": False},
    "cell": "cell-1",
}


def tenant(slug: str, change: Change = Change.UPDATE, **fields: Any) -> Step:
    return Step(
        f"urn:{slug}",
        "supabase-data-plane:tenant:ProjectTenant",
        slug,
        change,
        custom=False,
        parent=ROOT.urn,
        old=None if change is Change.CREATE else DECLARED,
        new={**DECLARED, **fields},
    )


def resource(
    name: str,
    change: Change,
    old: Mapping[str, Any] | None = None,
    new: Mapping[str, Any] | None = None,
    parent: str = "urn:demo",
    changed: tuple[str, ...] = (),
) -> Step:
    return Step(
        f"urn:{name}", "pulumi-python:dynamic/tenant:TenantBucket", name, change, True, changed, parent, old, new
    )


def report(*steps: Step, only: tuple[str, ...] = (), run: EngineRun | None = None) -> StackReport:
    found = run or EngineRun("local-cell-1", 1, 2, 80, ["a remark\nof two lines"], replaced=0, deleted=3)
    return StackReport(found, {step.urn: step for step in (ROOT, PEOPLE, *steps)}, only)


def text(*reports: StackReport, full: bool = False, preview: bool = True) -> str:
    return "\n".join(report_lines(reports, preview=preview, full=full))


def test_projects_come_before_resources_and_counts_last() -> None:
    bucket = resource("demo-bucket", Change.UPDATE, {"public": False}, {"public": True})
    person = resource("cell-1-people-person-erin", Change.CREATE, None, {"path": "p"}, PEOPLE.urn)
    assert text(report(person, tenant("demo", owners=["erin"]), bucket)).splitlines() == [
        "demo:",
        "  access     erin gains owner, service_role, authenticated, anon as project_owner",
        "             alice loses all access (owner, service_role, authenticated, anon)",
        "",
        "Resources of local-cell-1, demo:",
        "  ~ TenantBucket demo-bucket",
        "      public: false → true",
        "",
        "Resources of local-cell-1, shared by its projects:",
        "  + TenantBucket cell-1-people-person-erin",
        "",
        "local-cell-1: 1 to create, 2 to update, 3 to delete, 80 unchanged",
        "  a remark",
        "  of two lines",
    ]


def test_what_was_done_is_told_as_done_and_a_stack_that_was_left_out_as_that() -> None:
    left_out = report(run=EngineRun("local-central", 0, 0, 0, affected=False))
    same = report(run=EngineRun("local-cell-2", 0, 0, 5))
    new = report(run=EngineRun("local-cell-3", 7, 0, 0))
    assert text(report(), left_out, same, new, preview=False).splitlines() == [
        "local-cell-1: 1 created, 2 updated, 3 deleted, 80 unchanged",
        "  a remark",
        "  of two lines",
        "local-central: not affected, nothing that it depends on has changed",
        "local-cell-2: no change, 5 unchanged",
        "local-cell-3: 7 created",
    ]


def test_a_new_project_is_told_as_new() -> None:
    assert text(report(tenant("demo", Change.CREATE))).startswith(
        "demo, a new project:\n  access     alice gains owner"
    )


def test_what_stays_where_it_is_is_not_told_as_deleted() -> None:
    gone = resource("cell-1-people-person-alice", Change.DELETE, {"disableDelete": True}, None, PEOPLE.urn)
    assert "- TenantBucket cell-1-people-person-alice (only the stack's record of it" in text(report(gone))
    really = resource("a-bucket", Change.DELETE, {"disableDelete": False}, None, PEOPLE.urn)
    assert "  - TenantBucket a-bucket\n" in text(report(really))


LONG = "select data_plane.issue_lease('{{name}}', '{{password}}', '{{expiration}}', 'proj_demo_owner', 30000, '3600 s')"
LATER = LONG.replace("3600", "7200")


@pytest.mark.parametrize(
    ("old", "new", "short", "full"),
    [
        (["a", "b"], ["b", "c"], 'x: ["a"] → ["c"]', 'x: ["a", "b"] → ["b", "c"]'),
        (LONG, LATER, "x: …r', 30000, '3600 s') → …r', 30000, '7200 s')", f"x: {LONG} → {LATER}"),
        ("a\nb\nc", "a\nB\nc", r'x: "a\nb\nc" → "a\nB\nc"', "x:\n  @@ -1,3 +1,3 @@\n   a\n  -b\n  +B\n   c"),
        (None, 5, "x: not set → 5", "x: not set → 5"),
        (SECRET, SECRET, "x: [secret] → [secret]", "x: [secret] → [secret]"),
        ("a", NOT_KNOWN_YET, "x: a → [known after up]", "x: a → [known after up]"),
    ],
    ids=["list", "long text", "lines", "new", "secret", "unknown"],
)
def test_a_property_is_shown_old_and_new(old: Any, new: Any, short: str, full: str) -> None:
    step = resource("demo-x", Change.UPDATE, {"x": old}, {"x": new}, changed=("x",))
    shown = report(tenant("demo"), step)
    indented = "\n".join(f"      {line}" for line in short.splitlines())
    assert f"  ~ TenantBucket demo-x\n{indented}\n" in text(shown)
    indented = "\n".join(f"      {line}" for line in full.splitlines())
    assert f"  ~ TenantBucket demo-x\n{indented}\n" in text(shown, full=True)


def test_two_long_values_never_look_the_same() -> None:
    one, other = "x" * 500 + "1", "x" * 500 + "2"
    shown = text(report(tenant("demo"), resource("demo-x", Change.UPDATE, {"x": one}, {"x": other})))
    assert "…xxxxxxxxxxxx1 → …xxxxxxxxxxxx2" in shown


def test_what_is_created_has_its_properties_only_in_full() -> None:
    shown = report(tenant("demo"), resource("demo-x", Change.CREATE, None, {"public": True, "password": SECRET}))
    assert "public" not in text(shown)
    assert "      password: [secret]\n      public: true\n" in text(shown, full=True)


def test_what_an_up_has_created_is_only_counted_unless_all_is_asked_for() -> None:
    found = report(
        tenant("demo"),
        resource("demo-x", Change.CREATE, None, {}),
        resource("demo-y", Change.UPDATE, {"a": 1}, {"a": 2}),
        resource("person", Change.CREATE, None, {}, PEOPLE.urn),
    )
    assert "Resources of local-cell-1, demo:\n  ~ TenantBucket demo-y\n" in text(found, preview=False)
    assert "shared by its projects" not in text(found, preview=False)
    assert "  + TenantBucket person\n" in text(found, preview=False, full=True)


def test_one_project_is_shown_without_others_and_what_they_share() -> None:
    steps = (
        tenant("demo", owners=["erin"]),
        tenant("shop", owners=["erin"]),
        resource("demo-bucket", Change.CREATE, None, {}),
        resource("shop-bucket", Change.CREATE, None, {}, "urn:shop"),
        resource("person", Change.CREATE, None, {}, PEOPLE.urn),
    )
    shown = text(report(*steps, only=("shop",)))
    assert "shop-bucket" in shown
    assert "demo" not in shown
    assert "person" not in shown
    assert report(*steps, only=("shop",)).changes
    assert not report(*steps, only=("other",)).changes


def test_a_change_that_no_resource_has_is_a_change() -> None:
    assert report(tenant("demo", display_name="Other")).changes
    assert not report(tenant("demo")).changes


def test_the_document_has_the_same_for_programs() -> None:
    bucket = resource("demo-bucket", Change.UPDATE, {"public": False}, {"public": True})
    found = json.loads(json.dumps(report_document([report(tenant("demo", owners=["erin"]), bucket)], preview=True)))
    assert found["changes"] is True
    assert found["preview"] is True
    (project,) = found["projects"]
    assert (project["project"], project["change"], project["stack"]) == ("demo", "update", "local-cell-1")
    assert [(item["who"], item["gains"][:1], item["loses"][:1]) for item in project["sentences"]] == [
        ("erin", ["owner"], []),
        ("alice", [], ["owner"]),
    ]
    (changed,) = found["resources"]
    assert changed == {
        "stack": "local-cell-1",
        "project": "demo",
        "change": "update",
        "type": "pulumi-python:dynamic/tenant:TenantBucket",
        "name": "demo-bucket",
        "urn": "urn:demo-bucket",
        "properties": [{"path": "public", "old": False, "new": True}],
    }
    assert found["stacks"] == [
        {
            "stack": "local-cell-1",
            "affected": True,
            "create": 1,
            "update": 2,
            "replace": 0,
            "delete": 3,
            "same": 80,
            "remarks": ["a remark\nof two lines"],
        }
    ]


def test_resources_are_counted_by_project_and_part() -> None:
    component = Step("urn:inner", "x:y:C", "cell-1", Change.SAME, custom=False, parent=ROOT.urn)
    steps = (
        tenant("demo"),
        component,
        resource("demo-bucket", Change.SAME),
        resource("a", Change.CREATE, parent=PEOPLE.urn),
        resource("b", Change.SAME, parent=PEOPLE.urn),
        resource("c", Change.SAME, parent=component.urn),
        resource("d", Change.SAME, parent="urn:stack"),
    )
    assert counts_by_group(report(*steps).steps) == {"cell-1": 1, "demo": 1, "other": 1, "people": 2}
