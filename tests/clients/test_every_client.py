"""What a lease is in the hands of ordinary clients, each with the connection string as it is."""

from urllib.parse import quote, urlencode

import pytest

from data_plane.model.naming import AccessLevel
from tests.clients.sessions import Open, RefusedError
from tests.conftest import Plane

OWNER, SERVICE, AUTHENTICATED, ANON = (
    AccessLevel.OWNER,
    AccessLevel.SERVICE_ROLE,
    AccessLevel.AUTHENTICATED,
    AccessLevel.ANON,
)
OWN_AND_SHARED = {"proj_shop", "proj_shop$auth", "proj_shop$migrations", "auth", "storage", "extensions"}
TABLES = """
    select table_schema::text || '.' || table_name::text from information_schema.tables
    where table_schema not in ('pg_catalog', 'information_schema')
"""


@pytest.mark.parametrize("level", list(AccessLevel))
def test_the_connection_string_works_as_it_is_and_starts_in_the_tenants_schema(
    shop: Plane, client: Open, level: AccessLevel
) -> None:
    session = client(shop.lease("shop", level).connection_string)
    assert session.rows("select current_user::text, current_schema()::text") == [[f"proj_shop_{level}", "proj_shop"]]


def test_what_the_owner_makes_is_there_for_the_other_levels_under_row_level_security(shop: Plane, client: Open) -> None:
    owner = client(shop.lease("shop", OWNER).connection_string)
    owner.rows("create table pages (id int generated always as identity primary key, body text, open boolean)")
    owner.rows("create policy reading on pages for select to proj_shop_authenticated using (open)")
    owner.rows("create policy writing on pages for insert to proj_shop_authenticated with check (open)")

    service = client(shop.lease("shop", SERVICE).connection_string)
    service.rows("insert into pages (body, open) values ('shown', true), ('hidden', false)")
    assert service.rows("select body from pages order by id") == [["shown"], ["hidden"]]

    authenticated = client(shop.lease("shop", AUTHENTICATED).connection_string)
    assert authenticated.rows("insert into pages (body, open) values ('mine', true) returning body") == [["mine"]]
    assert authenticated.rows("select body from pages order by id") == [["shown"], ["mine"]]
    with pytest.raises(RefusedError, match="violates row-level security policy") as refused:
        authenticated.rows("insert into pages (body, open) values ('not mine', false)")
    assert refused.value.code == "42501"

    assert client(shop.lease("shop", ANON).connection_string).rows("select body from pages") == []
    assert service.rows("select count(*)::text from pages") == [["3"]]


def test_a_clients_list_of_tables_has_none_of_another_tenant(shop: Plane, client: Open) -> None:
    owner = client(shop.lease("shop", OWNER).connection_string)
    owner.rows("create table pages ()")
    found = {name for (name,) in owner.rows(TABLES)}
    assert "proj_shop.pages" in found
    assert {name.split(".")[0] for name in found if name is not None} <= OWN_AND_SHARED


@pytest.mark.parametrize("level", list(AccessLevel))
def test_another_tenants_data_and_roles_are_refused(shop: Plane, client: Open, level: AccessLevel) -> None:
    session = client(shop.lease("shop", level).connection_string)
    for statement in (
        "select * from proj_rival.secrets",
        "create table proj_rival.mine ()",
        "set role proj_rival_owner",
        "create schema mine",
        "copy (select 1) to program 'id'",
    ):
        with pytest.raises(RefusedError, match=r"permission denied|must be superuser or have privileges") as refused:
            session.rows(statement)
        assert refused.value.code == "42501", statement
    assert session.rows("select current_user::text") == [[f"proj_shop_{level}"]]


def test_settings_that_a_client_sends_at_its_start_are_taken(shop: Plane, client: Open) -> None:
    settings = {
        "application_name": "till 4",
        "options": "-c statement_timeout=4321 -c TimeZone=Asia/Tokyo -c search_path=proj_shop,pg_catalog",
    }
    url = shop.lease("shop", SERVICE).connection_string + "&" + urlencode(settings, quote_via=quote)
    session = client(url)
    names = ("application_name", "statement_timeout", "TimeZone", "search_path", "role")
    assert session.rows("select " + ", ".join(f"current_setting('{name}') as {name}" for name in names)) == [
        ["till 4", "4321ms", "Asia/Tokyo", "proj_shop,pg_catalog", "proj_shop_service_role"]
    ]


def test_no_setting_sent_at_the_start_makes_a_lease_another_tenant(shop: Plane, client: Open) -> None:
    options = urlencode({"options": "-c role=proj_rival_owner"}, quote_via=quote)
    with pytest.raises(RefusedError, match="permission denied to set role"):
        client(shop.lease("shop", OWNER).connection_string + "&" + options)
