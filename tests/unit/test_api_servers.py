"""The PostgRESTs that serve tenants: what each is made of, and which requests it gets."""

import base64
import json
import re
from dataclasses import replace
from typing import Any

import pytest

from components.central.kong_config import KongConfigArgs
from data_plane.local.kong import Outcome, Request
from data_plane.model.naming import API_LEVELS, IDENTIFIER_MAX_BYTES, ApiServer, TenantNames
from data_plane.model.service_logins import logins_in
from tests.support.cluster_program import API_SERVERS, variant
from tests.support.declared import Declared
from tests.support.gateway import FULL, PUBLISHABLE, gateway

CELL, SHOP = API_SERVERS
OTHER = TenantNames("other")
HOSTS = {server: f"supabase-rest-{server.instance}.supabase.svc" for server in API_SERVERS}
KONG = gateway(replace(FULL, api_servers={server.name: (host, 3000) for server, host in HOSTS.items()}))
PLATFORM = "http://supabase-rest:3000/"


def of_kind(kind: str, name: str) -> Declared:
    (found,) = [item for item in variant("API servers").all(kind) if item.inputs["metadata"]["name"] == name]
    return found


def container_of(server: ApiServer | None) -> dict[str, Any]:
    name = f"supabase-rest-{server.instance}" if server else "supabase-rest"
    (found,) = of_kind("kubernetes:apps/v1:Deployment", name).inputs["spec"]["template"]["spec"]["containers"]
    return dict(found)


def variables(server: ApiServer | None) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in container_of(server)["env"] if "value" in entry}


# Names


def test_a_cells_login_is_nobody_elses_and_fits() -> None:
    longest = ApiServer.of_cell("c" * 40)
    assert len(longest.login) <= IDENTIFIER_MAX_BYTES
    assert len(f"supabase-rest-{longest.instance}") <= 63
    for slug in ("cell-1", "cell-cell-1", "authenticator"):
        assert ApiServer.of_cell("cell-1").login not in TenantNames(slug).identifiers()
    # A cell whose name looks like a tenant's, or a project whose slug looks like a cell's.
    assert ApiServer.of_cell("proj-shop").login != TenantNames("shop").authenticator
    assert ApiServer.of_cell("shop").instance != TenantNames("cell-shop").api_server.instance


@pytest.mark.parametrize("cell", ["", "Cell", "a_b", "1-cell", "c" * 41, "a;b"])
def test_what_is_no_cells_name_has_no_login(cell: str) -> None:
    with pytest.raises(ValueError, match="is not the name of a cell"):
        ApiServer.of_cell(cell)


# The workloads


def test_each_is_a_deployment_beside_the_others() -> None:
    names = ["supabase-rest", *(f"supabase-rest-{server.instance}" for server in API_SERVERS)]
    for name in names:
        selector = of_kind("kubernetes:apps/v1:Deployment", name).inputs["spec"]["selector"]["matchLabels"]
        service = of_kind("kubernetes:core/v1:Service", name).inputs["spec"]["selector"]
        assert of_kind("kubernetes:core/v1:ServiceAccount", name)
        for other in set(names) - {name}:
            template = of_kind("kubernetes:apps/v1:Deployment", other).inputs["spec"]["template"]
            assert not selector.items() <= template["metadata"]["labels"].items()
            assert not service.items() <= template["metadata"]["labels"].items()


@pytest.mark.parametrize("server", API_SERVERS, ids=lambda server: server.name)
def test_each_signs_in_as_the_login_that_may_become_its_tenants_roles_alone(server: ApiServer) -> None:
    name = f"supabase-rest-{server.instance}"
    secret = of_kind("kubernetes:external-secrets.io/v1:ExternalSecret", name).inputs["spec"]
    uri = secret["target"]["template"]["data"]["PGRST_DB_URI"]
    assert uri.startswith(f"postgres://{server.login}:{{{{ .{server.password_key} | urlquery ")
    sources = {
        entry["valueFrom"]["secretKeyRef"]["name"]
        for entry in container_of(server)["env"]
        if "secretKeyRef" in entry.get("valueFrom", {})
    }
    assert sources == {name}


@pytest.mark.parametrize("server", API_SERVERS, ids=lambda server: server.name)
def test_each_may_read_its_own_password_and_no_others(server: ApiServer) -> None:
    copies = variant("API servers").all("pulumi-python:dynamic/central:ServiceSecretCopy")
    keys = {item.inputs["path"]: item.inputs["keys"] for item in copies}
    assert keys[f"supabase/rest-{server.instance}"] == sorted(["JWT_JWKS", server.password_key])
    # A restore sets all passwords anew.
    readers = [path for path, found in keys.items() if server.password_key in found]
    assert sorted(readers) == ["supabase/backups", f"supabase/rest-{server.instance}"]


def test_only_the_platforms_serves_requests_without_a_token() -> None:
    assert variables(None)["PGRST_DB_ANON_ROLE"] == "anon"
    for server in API_SERVERS:
        assert "PGRST_DB_ANON_ROLE" not in variables(server)


def test_one_of_a_project_alone_takes_few_connections_and_little_memory() -> None:
    assert variables(CELL)["PGRST_DB_POOL"] == "10"
    assert variables(SHOP)["PGRST_DB_POOL"] == "2"
    assert of_kind("kubernetes:apps/v1:Deployment", f"supabase-rest-{SHOP.instance}").inputs["spec"]["replicas"] == 1
    assert container_of(SHOP)["resources"]["requests"]["memory"] == "40Mi"


def test_their_logins_are_made_and_get_their_passwords_from_openbao() -> None:
    program = variant("API servers")
    (made,) = program.all("pulumi-python:dynamic/central:ApiLogins")
    assert made.inputs["logins"] == sorted(server.login for server in API_SERVERS)
    (logins,) = program.all("pulumi-python:dynamic/central:ServiceLogins")
    for server in API_SERVERS:
        assert logins.inputs["logins"][server.login] == server.password_key


def test_their_logins_are_known_where_passwords_are_set_anew() -> None:
    secret = {**{server.password_key: "x" for server in API_SERVERS}, "AUTHENTICATOR_PASSWORD": "y", "JWT_SECRET": "z"}
    assert logins_in(secret) == {
        "authenticator": "AUTHENTICATOR_PASSWORD",
        **{server.login: server.password_key for server in API_SERVERS},
    }


# The gateway


def token(claims: object) -> str:
    parts = ({"alg": "ES256", "kid": "k"}, claims)
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return ".".join([*encoded, "c2lnbmF0dXJl"])


def request(path: str, authorization: str | None, *more: tuple[str, str]) -> Outcome:
    headers = [("apikey", PUBLISHABLE), *([("Authorization", authorization)] if authorization else []), *more]
    return KONG.send(Request("GET", path, tuple(headers)))


@pytest.mark.parametrize("server", API_SERVERS, ids=lambda server: server.name)
@pytest.mark.parametrize("path", ["/rest/v1/notes?id=eq.1", "/rest/v1/rpc/my_projects", "/graphql/v1"])
@pytest.mark.parametrize("padding", ["", "x", "xx"])
def test_requests_go_to_the_one_that_their_token_names(server: ApiServer, path: str, padding: str) -> None:
    bearer = f"Bearer {token({'pad': padding, 'role': 'proj_shop_2_anon', 'api_server': server.name})}"
    outcome = request(path, bearer)
    assert (outcome.url or "").startswith(f"http://{HOSTS[server]}:3000/")
    assert outcome.header("authorization") == bearer


@pytest.mark.parametrize(
    "claims",
    [
        {"api_server": "cell_cell_2"},
        {"api_server": "cell_cell"},
        {"api_server": "supabase-auth"},
        {"api_server": "cell_cell_1.evil"},
        {"api_server": ["cell_cell_1"]},
        {"api_server": {"api_server": "cell_cell_1"}},
        {"role": "proj_shop_2_anon"},
        {"user_metadata": {"api_server": "cell_cell_1"}},
        {"user_metadata": {"a": "}", "b": '\\"}', "api_server": "cell_cell_1"}},
        {"user_metadata": {"a": '","api_server":"cell_cell_1'}},
        {"email": '"api_server":"cell_cell_1"'},
        {"email": '\\","api_server":"cell_cell_1'},
        {},
        [],
        "role",
    ],
    ids=json.dumps,
)
def test_all_others_go_to_the_platforms(claims: object) -> None:
    assert (request("/rest/v1/notes", f"Bearer {token(claims)}").url or "").startswith(PLATFORM)


@pytest.mark.parametrize(
    "authorization",
    [None, "Bearer", "Bearer ", "Bearer x", "Bearer a.b", "Bearer a.b.c", "Bearer a.=.c", "Basic eDp5", "."],
)
def test_what_is_no_token_goes_to_the_platforms(authorization: str | None) -> None:
    assert (request("/rest/v1/notes", authorization).url or "").startswith(PLATFORM)


def test_a_users_own_claims_do_not_hide_the_tokens() -> None:
    claims = {
        "app_metadata": {"api_server": "cell_cell_1", "role": "x"},
        "user_metadata": {"role": "chief", "a": "{", "b": ["{", '"'], "api_server": "cell_cell_1"},
        "role": "proj_shop_2_authenticated",
        "api_server": SHOP.name,
    }
    for order in (claims, dict(reversed(claims.items()))):
        outcome = request("/rest/v1/notes", f"Bearer {token(order)}", ("Accept-Profile", "proj_shop_2"))
        assert HOSTS[SHOP] in (outcome.url or "")


@pytest.mark.parametrize("header", ["Accept-Profile", "Content-Profile"])
@pytest.mark.parametrize("level", API_LEVELS)
def test_a_request_may_name_the_schema_of_its_token_and_the_platforms(header: str, level: str) -> None:
    bearer = f"Bearer {token({'role': f'proj_shop_{level}', 'api_server': CELL.name, 'schemas': 'api,b_2'})}"
    for schema in ("proj_shop", "proj_shop$api", "proj_shop$b_2", "data_plane_api", "storage", "public"):
        outcome = request("/rest/v1/notes", bearer, (header, schema))
        assert HOSTS[CELL] in (outcome.url or "")
        assert outcome.header(header.lower()) == schema


@pytest.mark.parametrize("header", ["Accept-Profile", "Content-Profile"])
@pytest.mark.parametrize("role", ["proj_shop_anon", "proj_shop_2_anon", "proj_other_owner", "authenticated", None])
def test_a_request_that_names_anothers_schema_is_told_no_more_than_that(header: str, role: str | None) -> None:
    """PostgREST would list what else there is, and guess at names of functions and tables that it knows."""
    claims = {
        "role": role,
        "api_server": CELL.name,
        "schemas": "api",
        "user_metadata": {"role": "proj_other_anon", "schemas": "private"},
    }
    bearer = None if role is None else f"Bearer {token(claims)}"
    beside = (
        f"{OTHER.schema}$api",
        "proj_shop$private",  # its own, and not served: PostgREST's answer would name all that are
        "proj_shop$",
        "proj_shop$Api",
        f"proj_shop$a,{OTHER.schema}",
        "$api",
        "proj_shopx$api",
    )
    for schema in (
        *(OTHER.schema, OTHER.schema.upper(), f" {OTHER.schema}", f"public, {OTHER.schema}", "made_up", ""),
        *beside,
    ):
        assert request("/rest/v1/rpc/x", bearer, (header, schema)).status == 406
    # Of a repeated header PostgREST gets the one that was looked at.
    twice = request("/rest/v1/rpc/x", bearer, (header, "public"), (header, OTHER.schema))
    assert twice.header(header.lower()) == "public"


def test_other_services_are_where_they_were() -> None:
    bearer = f"Bearer {token({'role': 'proj_shop_2_authenticated', 'api_server': SHOP.name})}"
    for path, host in (("/auth/v1/user", "supabase-auth"), ("/storage/v1/object/x", "supabase-storage")):
        assert host in (request(path, bearer).url or "")


@pytest.mark.parametrize("upstream", [("host name", 3000), ('x"', 3000), ("x", 10**6)])
def test_a_host_that_would_break_out_of_the_function_is_refused(upstream: tuple[str, int]) -> None:
    with pytest.raises(ValueError, match="a host and a port"):
        KongConfigArgs(api_servers={"cell_x": upstream})


@pytest.mark.parametrize("name", ["x", "cell-x", 'cell_x"', "proj_x = 1"])
def test_a_name_that_is_no_api_servers_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="the name of an API server"):
        KongConfigArgs(api_servers={name: ("host", 3000)})


def test_the_stack_tells_the_gateway_where_each_is() -> None:
    template = of_kind("kubernetes:external-secrets.io/v1:ExternalSecret", "supabase-gateway").inputs["spec"]
    text = template["target"]["template"]["data"]["kong.yml"]
    for server, host in HOSTS.items():
        assert f'{server.name} = {{"{host}", 3000}}' in text
    # No tenant that shares one is named in it, so attaching one restarts nothing.
    assert set(re.findall(r"proj_[a-z0-9_]+", text)) == {SHOP.name}
