"""A PostgREST for one project alone: what it is made of, and which requests it gets."""

import base64
import json
from dataclasses import replace

import pytest

from components.central.kong_config import KongConfigArgs, kong_template
from components.central.service_logins import logins_in
from components.naming import API_LEVELS
from tests.unit.cluster_program import SERVED_APART, variant
from tests.unit.declared import Declared
from tests.unit.kong_model import Outcome, Request
from tests.unit.test_kong_config import FULL, PUBLISHABLE, gateway

(SHOP,) = SERVED_APART
NAME = f"supabase-rest-{SHOP.slug}"
APART = replace(FULL, rest_by_role={SHOP.role(level): (f"{NAME}.supabase.svc", 3000) for level in API_LEVELS})
KONG = gateway(APART)


def of_kind(kind: str, name: str) -> Declared:
    (found,) = [item for item in variant("a PostgREST apart").all(kind) if item.inputs["metadata"]["name"] == name]
    return found


# The workload


def test_it_is_a_deployment_of_its_own_beside_the_shared_one() -> None:
    shared, own = (of_kind("kubernetes:apps/v1:Deployment", name) for name in ("supabase-rest", NAME))
    for item, others in ((shared, own), (own, shared)):
        selector = item.inputs["spec"]["selector"]["matchLabels"]
        labels = others.inputs["spec"]["template"]["metadata"]["labels"]
        assert not selector.items() <= labels.items(), "neither counts the other's Pods as its own"
    for kind in ("kubernetes:core/v1:Service", "kubernetes:core/v1:ServiceAccount"):
        assert of_kind(kind, NAME)
    service = of_kind("kubernetes:core/v1:Service", "supabase-rest").inputs["spec"]["selector"]
    assert not service.items() <= own.inputs["spec"]["template"]["metadata"]["labels"].items()


def test_it_signs_in_as_the_login_that_may_become_its_tenants_roles_alone() -> None:
    secret = of_kind("kubernetes:external-secrets.io/v1:ExternalSecret", NAME).inputs["spec"]
    uri = secret["target"]["template"]["data"]["PGRST_DB_URI"]
    assert uri.startswith("postgres://proj_shop_2_authenticator:{{ .PROJ_SHOP_2_AUTHENTICATOR_PASSWORD }}@")
    (container,) = of_kind("kubernetes:apps/v1:Deployment", NAME).inputs["spec"]["template"]["spec"]["containers"]
    sources = {
        entry["valueFrom"]["secretKeyRef"]["name"]
        for entry in container["env"]
        if "secretKeyRef" in entry.get("valueFrom", {})
    }
    assert sources == {NAME}


def test_it_may_read_its_own_password_and_not_the_shared_ones() -> None:
    copies = variant("a PostgREST apart").all("pulumi-python:dynamic/central:ServiceSecretCopy")
    keys = {item.inputs["path"]: item.inputs["keys"] for item in copies}
    assert keys["supabase/rest-shop-2"] == ["JWT_JWKS", "PROJ_SHOP_2_AUTHENTICATOR_PASSWORD"]
    # A restore sets all passwords anew.
    readers = [path for path, found in keys.items() if "PROJ_SHOP_2_AUTHENTICATOR_PASSWORD" in found]
    assert sorted(readers) == ["supabase/backups", "supabase/rest-shop-2"]


def test_its_login_is_made_and_gets_its_password_from_openbao() -> None:
    program = variant("a PostgREST apart")
    (made,) = program.all("pulumi-python:dynamic/central:ApiLogins")
    assert made.inputs["logins"] == [SHOP.authenticator]
    (logins,) = program.all("pulumi-python:dynamic/central:ServiceLogins")
    assert logins.inputs["logins"][SHOP.authenticator] == "PROJ_SHOP_2_AUTHENTICATOR_PASSWORD"


def test_its_login_is_known_where_passwords_are_set_anew() -> None:
    secret = {"PROJ_SHOP_2_AUTHENTICATOR_PASSWORD": "x", "AUTHENTICATOR_PASSWORD": "y", "JWT_SECRET": "z"}
    assert logins_in(secret) == {
        "authenticator": "AUTHENTICATOR_PASSWORD",
        SHOP.authenticator: "PROJ_SHOP_2_AUTHENTICATOR_PASSWORD",
    }


def test_without_such_projects_nothing_differs() -> None:
    names = [item.inputs["metadata"]["name"] for item in variant("as it comes").all("kubernetes:apps/v1:Deployment")]
    assert [name for name in names if name.startswith("supabase-rest")] == ["supabase-rest"]
    assert "set_target" not in kong_template(FULL)


# The gateway


def token(claims: object) -> str:
    parts = ({"alg": "ES256", "kid": "k"}, claims)
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return ".".join([*encoded, "c2lnbmF0dXJl"])


def request(path: str, authorization: str | None, *more: tuple[str, str]) -> Outcome:
    headers = [("apikey", PUBLISHABLE), *([("Authorization", authorization)] if authorization else []), *more]
    return KONG.send(Request("GET", path, tuple(headers)))


@pytest.mark.parametrize("level", API_LEVELS)
@pytest.mark.parametrize("path", ["/rest/v1/notes?id=eq.1", "/rest/v1/rpc/my_projects", "/graphql/v1"])
@pytest.mark.parametrize("padding", ["", "x", "xx"])
def test_requests_with_its_tenants_tokens_go_to_it(level: str, path: str, padding: str) -> None:
    bearer = f"Bearer {token({'pad': padding, 'role': f'{SHOP.schema}_{level}', 'project': SHOP.slug})}"
    outcome = request(path, bearer)
    assert (outcome.url or "").startswith(f"http://{NAME}.supabase.svc:3000/")
    assert outcome.header("authorization") == bearer


@pytest.mark.parametrize(
    "claims",
    [
        {"role": "proj_other_authenticated"},
        {"role": "proj_shop_authenticated"},
        {"role": "proj_shop_2_owner"},
        {"role": "proj_shop_2"},
        {"role": "authenticated"},
        {"role": ["proj_shop_2_anon"]},
        {"project": "proj_shop_2_anon"},
        {},
        [],
        "role",
    ],
    ids=json.dumps,
)
def test_all_others_go_to_the_shared_one(claims: object) -> None:
    assert (request("/rest/v1/notes", f"Bearer {token(claims)}").url or "").startswith("http://supabase-rest:3000/")


@pytest.mark.parametrize(
    "authorization",
    [None, "Bearer", "Bearer ", "Bearer x", "Bearer a.b", "Bearer a.b.c", "Bearer a.=.c", "Basic eDp5", "."],
)
def test_what_is_no_token_goes_to_the_shared_one(authorization: str | None) -> None:
    outcome = request("/rest/v1/notes", authorization)
    assert (outcome.url or "").startswith("http://supabase-rest:3000/")


def test_a_users_own_claims_do_not_hide_the_tokens_role() -> None:
    claims = {"user_metadata": {"role": "chief"}, "role": "proj_shop_2_authenticated", "app_metadata": {"role": "x"}}
    assert NAME in (request("/rest/v1/notes", f"Bearer {token(claims)}").url or "")


def test_other_services_are_where_they_were() -> None:
    bearer = f"Bearer {token({'role': 'proj_shop_2_authenticated'})}"
    for path, host in (("/auth/v1/user", "supabase-auth"), ("/storage/v1/object/x", "supabase-storage")):
        assert host in (request(path, bearer).url or "")


@pytest.mark.parametrize("upstream", [("host name", 3000), ('x"', 3000), ("x", 10**6)])
def test_a_host_that_would_break_out_of_the_function_is_refused(upstream: tuple[str, int]) -> None:
    with pytest.raises(ValueError, match="a host and a port"):
        KongConfigArgs(rest_by_role={"proj_x_anon": upstream})


def test_the_stack_tells_the_gateway_where_each_is() -> None:
    template = of_kind("kubernetes:external-secrets.io/v1:ExternalSecret", "supabase-gateway").inputs["spec"]
    text = template["target"]["template"]["data"]["kong.yml"]
    for level in API_LEVELS:
        assert f'proj_shop_2_{level} = {{"{NAME}.supabase.svc", 3000}}' in text
