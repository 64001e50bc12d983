"""How what two servers hold is compared: by project, and whatever a version of PostgreSQL prints differently."""

import pytest

from data_plane.clients.inventory import Inventory, _fact, _part_of, _sum, compare


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("(notes.author = auth.uid())", "(author = auth.uid())"),
        ("( SELECT count(*) FROM proj_a.members m)", "(SELECT count(*) FROM proj_a.members m)"),
        ('(("Odd name".a > 1) AND b)', "((a > 1) AND b)"),
    ],
)
def test_an_expression_that_versions_print_differently_is_the_same(older: str, newer: str) -> None:
    assert _fact(None, older, None) == _fact(None, newer, None)


@pytest.mark.parametrize("other", ["(author <> auth.uid())", "(author = auth.role())", "(editor = auth.uid())", "true"])
def test_another_expression_is_another_fact(other: str) -> None:
    assert _fact(None, "(author = auth.uid())", None) != _fact(None, other, None)


def test_privileges_are_compared_without_order_grantor_and_what_17_added() -> None:
    older = ["proj_a_owner=arwdDxt/proj_a_owner", "proj_a_anon=r/proj_a_owner"]
    newer = ["proj_a_anon=r/supabase_admin", "proj_a_owner=arwdDxtm/supabase_admin"]
    assert _fact(None, None, older) == _fact(None, None, newer)
    assert _fact(None, None, older) != _fact(None, None, [older[0], "proj_a_anon=rw/proj_a_owner"])
    assert _fact(None, None, older) != _fact(None, None, [older[0], "=r/proj_a_owner"])


def test_a_grant_option_is_a_difference() -> None:
    assert _fact(None, None, ["a=r*/b"]) != _fact(None, None, ["a=r/b"])


@pytest.mark.parametrize(
    ("key", "part"),
    [
        ("proj_a", "proj_a"),
        ("proj_a$auth", "proj_a"),
        ("proj_a_b_owner", "proj_a_b"),
        ("proj_a_anon", "proj_a"),
        ("proj_a$relay", "proj_a"),
        ("restored_a_20260101", "restored_a_20260101"),
        ("auth", "platform"),
        ("authenticator", "platform"),
        ("", "platform"),
    ],
)
def test_a_schema_or_role_belongs_to_its_project(key: str, part: str) -> None:
    assert _part_of(key) == part


def test_a_sum_of_rows_depends_on_each_row_and_not_on_their_order() -> None:
    rows = [b"1\ta\n", b"2\tb\n", b"2\tb\n"]
    assert _sum(rows) == _sum(reversed(rows))
    assert _sum(rows).startswith("3 rows")
    assert _sum(rows) != _sum([*rows[:2], b"2\tc\n"])
    assert _sum(rows) != _sum(rows[:2])


def test_what_is_missing_new_or_changed_is_named_with_its_project() -> None:
    old = Inventory(
        "15.8", {"proj_a": {"tables": {"a": "r x", "b": "r x"}, "rows": {"a": "7 rows, checksum 1"}}, "platform": {}}
    )
    new = Inventory(
        "17.6", {"proj_a": {"tables": {"a": "r y", "c": "r x"}, "rows": {"a": "7 rows, checksum 1"}}, "platform": {}}
    )
    platform, project = compare(old, new)
    assert (platform.name, platform.differences) == ("platform", [])
    assert project.counts == {"tables": 2, "rows": 7, "leases": 0}
    assert [str(difference) for difference in project.differences] == [
        "proj_a: tables: a was x, is y",
        "proj_a: tables: b is missing",
        "proj_a: tables: c was not there before",
    ]


def test_a_saved_inventory_is_read_back_and_another_file_refused() -> None:
    inventory = Inventory("17.6", {"proj_a": {"tables": {"a": "x"}}})
    assert Inventory.from_json(inventory.to_json()) == inventory
    for text in ("{}", "[]", "x"):
        with pytest.raises(ValueError, match=r"."):
            Inventory.from_json(text)
