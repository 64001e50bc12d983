"""Further schemas of a project's file: brought up, served, seen to drift, and taken along through detaching."""

import psycopg
import pytest
from joserfc import jws

from data_plane.connector.bindings import LocalDataPlane
from data_plane.engine.steps import Step
from data_plane.model.naming import AccessLevel, ApiServer, TenantNames
from tests.conftest import NewPlane, Plane, bring_up

SHOP = TenantNames("shop")
API, PRIVATE = SHOP.further_schema("api"), SHOP.further_schema("private")
LOGIN = ApiServer.of_cell("cell-1").login
FILE = """\
slug: shop
display_name: Shop
cell: cell-1
owners: [olga]
"""
SCHEMAS = "schemas: {api: {exposed: true}, private: {}}\n"


def declare(plane: Plane, text: str) -> list[str]:
    """Brings up what the file says, and returns what a second run would change."""
    file = plane.local_env.root / "stacks" / "local" / "projects" / "shop.yaml"
    file.write_text(text, encoding="utf-8")
    bring_up(plane.local_env)
    return changes(plane)


def changes(plane: Plane) -> list[str]:
    """What a preview shows."""
    found: list[str] = []

    def on_step(step: Step) -> None:
        if step.custom and step.change != "same":
            found.append(step.name)

    list(plane.local_env.run(preview=True, on_stack=lambda _stack: None, on_step=on_step))
    return found


def usage(plane: Plane, schema: str) -> list[str]:
    rows = plane.rows(
        "select acl.grantee::regrole::text from pg_namespace n, aclexplode(nspacl) as acl"
        " where nspname = %s and acl.grantee <> nspowner and privilege_type = 'USAGE' order by 1",
        schema,
    )
    return [name for (name,) in rows]


@pytest.fixture(scope="module")
def plane(new_plane: NewPlane) -> Plane:
    return new_plane({"shop.yaml": FILE + SCHEMAS})


def test_they_are_made_served_and_named_in_binding_and_tokens(plane: Plane) -> None:
    assert usage(plane, API) == [LOGIN]
    assert usage(plane, PRIVATE) == []
    assert changes(plane) == []
    data_plane = LocalDataPlane(plane.local_env)
    assert data_plane.binding("shop").document()["schemas"] == {
        "api": {"schema": API, "exposed": True},
        "private": {"schema": PRIVATE, "exposed": False},
    }
    token = data_plane.client("shop", AccessLevel.ANON, None).read(SHOP.token_path(AccessLevel.ANON))["data"]["token"]
    assert b'"schemas":"api"' in jws.extract_compact(token.encode()).payload


def test_a_lease_works_in_them_and_finds_the_first_one_by_itself(plane: Plane) -> None:
    with psycopg.connect(plane.lease("shop", AccessLevel.OWNER).connection_string) as session:
        assert session.execute("select current_schema(), current_setting('search_path')").fetchone() == (
            SHOP.schema,
            f"{SHOP.schema}, extensions",
        )
        session.execute(f'create table "{PRIVATE}".notes (id int)')
        session.execute(f'create function "{API}".answer() returns int return 42')
        session.execute(f'grant usage on schema "{API}" to {SHOP.role(AccessLevel.ANON)}')
    with psycopg.connect(plane.lease("shop", AccessLevel.ANON).connection_string) as session:
        assert session.execute(f'select "{API}".answer()').fetchone() == (42,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            session.execute(f'select * from "{PRIVATE}".notes')


@pytest.mark.parametrize(
    ("drift", "resource"),
    [
        (f'drop schema "{PRIVATE}" cascade', "shop-schemas"),
        (f'revoke usage on schema "{API}" from {LOGIN}', "shop-api-access"),
        (f'grant usage on schema "{PRIVATE}" to {LOGIN}', "shop-api-access"),
        (f'grant usage on schema "{PRIVATE}" to data_plane_studio', "cell-1-privilege-drift"),
        (f'alter schema "{PRIVATE}" owner to data_plane_studio', "cell-1-privilege-drift"),
    ],
)
def test_what_hands_have_changed_is_seen_and_set_right(plane: Plane, drift: str, resource: str) -> None:
    with plane.admin() as admin:
        admin.execute(drift.encode())
    assert resource in changes(plane)
    bring_up(plane.local_env)
    assert changes(plane) == []
    assert LOGIN in usage(plane, API)
    assert usage(plane, PRIVATE) == []


def test_a_detached_project_is_let_into_none_and_gets_back_what_it_had_given(plane: Plane) -> None:
    with psycopg.connect(plane.lease("shop", AccessLevel.OWNER).connection_string) as session:
        session.execute(f'grant usage on schema "{PRIVATE}" to {SHOP.role(AccessLevel.AUTHENTICATED)}')
        session.execute("select data_plane_api.create_schema('by_hand')")
        session.execute(f'grant usage on schema "{SHOP.schema}$by_hand" to {SHOP.role(AccessLevel.SERVICE_ROLE)}')
    names = (API, PRIVATE, SHOP.further_schema("by_hand"))
    before = [usage(plane, name) for name in names]
    assert declare(plane, FILE + SCHEMAS + "lifecycle: detached\n") == []
    assert [usage(plane, name) for name in names] == [[], [], []]
    assert declare(plane, FILE + SCHEMAS) == []
    assert [usage(plane, name) for name in names] == before


def test_one_that_is_declared_no_more_stays_and_is_not_served(plane: Plane) -> None:
    assert declare(plane, FILE) == []
    assert LOGIN not in usage(plane, API)
    assert plane.rows("select count(*) from data_plane.schemas_of(%s)", SHOP.schema)[0][0] >= 3
    assert declare(plane, FILE + SCHEMAS) == []
    assert LOGIN in usage(plane, API)
