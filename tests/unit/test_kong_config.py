import base64
import re
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from components.central.kong_config import (
    KongConfigArgs,
    KongUpstreams,
    kong_config,
    kong_environment,
    kong_secret_keys,
    kong_template,
)
from data_plane.local.kong import Outcome, Request
from tests.support.gateway import (
    ANON_KEY,
    FULL,
    KONG,
    MIB,
    PUB,
    PUBLISHABLE,
    PUBLISHABLE_BEFORE,
    SEC,
    SECRET,
    SECRETS,
    SERVICE_ROLE_KEY,
    USER,
    bearer,
    gateway,
    get,
    key,
    post,
    token_of,
    user,
)

AS_ANON, AS_SERVICE = f"Bearer {ANON_KEY}", f"Bearer {SERVICE_ROLE_KEY}"
SIGV4 = "AWS4-HMAC-SHA256 Credential=abc/20260101/r/s3/aws4_request, SignedHeaders=host;x-amz-date, Signature=0f1e"
DASHBOARD = "Basic " + base64.b64encode(b"supabase:0123456789").decode()

BARE = KongConfigArgs()


BARE_KONG = gateway(BARE)


def both(value: str) -> tuple[tuple[str, str], ...]:
    """What supabase-js sends without a user."""
    return (*key(value), *bearer(value))


class Passes(NamedTuple):
    """A request that goes on, to which URL and with which Authorization."""

    request: Request
    url: str
    authorization: str | None = None


class Stops(NamedTuple):
    request: Request
    status: int


AUTH, REST, REALTIME = "http://supabase-auth:9999", "http://supabase-rest:3000", "http://supabase-realtime:4000"
STORAGE, FUNCTIONS = "http://supabase-storage:5000", "http://supabase-functions:9000"
META, STUDIO = "http://supabase-meta:8080", "http://supabase-studio:3000"

OPEN_AUTH = [
    Passes(
        get("/auth/v1/verify?token=t&type=signup&redirect_to=https://a"),
        f"{AUTH}/verify?token=t&type=signup&redirect_to=https://a",
    ),
    Passes(post("/auth/v1/verify", both(PUBLISHABLE)), f"{AUTH}/verify"),
    Passes(get("/auth/v1/callback?code=c"), f"{AUTH}/callback?code=c"),
    Passes(get("/auth/v1/authorize?provider=github"), f"{AUTH}/authorize?provider=github"),
    Passes(get("/auth/v1/authorize?provider=github", bearer(SERVICE_ROLE_KEY)), f"{AUTH}/authorize?provider=github"),
    Passes(get("/auth/v1/authorize?apikey=" + SECRET), f"{AUTH}/authorize"),
    Passes(get("/auth/v1/.well-known/jwks.json"), f"{AUTH}/.well-known/jwks.json"),
    Passes(get("/auth/v1/.well-known/openid-configuration"), f"{AUTH}/.well-known/openid-configuration"),
    Passes(get("/.well-known/oauth-authorization-server"), f"{AUTH}/.well-known/oauth-authorization-server"),
    Passes(get("/.well-known/oauth-authorization-server/auth/v1"), f"{AUTH}/.well-known/oauth-authorization-server"),
    Passes(post("/sso/saml/acs"), f"{AUTH}/sso/saml/acs"),
    Passes(post("/auth/v1/sso/saml/acs"), f"{AUTH}/sso/saml/acs"),
    Passes(get("/sso/saml/metadata?download=true"), f"{AUTH}/sso/saml/metadata?download=true"),
    Passes(get("/auth//v1/./verify"), f"{AUTH}/verify"),
    Passes(get("/auth/v1/%76erify"), f"{AUTH}/verify"),
    Stops(get("/auth/v1/verifyx"), 401),
    Stops(get("/auth/v1/verify/"), 401),
    Stops(get("/auth/v1/verify%0a"), 401),
    Stops(get("/auth/v1/verify%2F..%2Fadmin"), 401),
    Stops(get("/auth/v1/callback/../user"), 401),
    Stops(get("/auth/v1/xwell-known/jwks.json"), 401),
]
AUTH_ROWS = [
    Passes(post("/auth/v1/token?grant_type=password", both(PUBLISHABLE)), f"{AUTH}/token?grant_type=password", AS_ANON),
    Passes(get("/auth/v1/user", user(PUBLISHABLE)), f"{AUTH}/user", USER),
    Passes(get("/auth/v1/verifyx", PUB), f"{AUTH}/verifyx", AS_ANON),
    Passes(get("/auth/v1/admin/users?page=1", both(SECRET)), f"{AUTH}/admin/users?page=1", AS_SERVICE),
    Stops(get("/auth/v1/admin/users", both(PUBLISHABLE)), 403),
    Stops(get("/auth/v1/admin/users", user(PUBLISHABLE)), 403),
    Stops(get("/auth/v1/%61dmin/users", PUB), 403),
    Stops(get("/auth/v1//admin", PUB), 403),
    Stops(get("/auth/v1/user"), 401),
    Stops(get("/auth/v1/user", bearer(PUBLISHABLE)), 401),
    Stops(get("/auth/v1/user", (("Authorization", USER),)), 401),
    Stops(post("/auth/v1/signup", PUB, 11 * MIB), 413),
]
REST_ROWS = [
    Passes(get("/rest/v1/todos?select=id,t(*)&a=eq.%2B1", PUB), f"{REST}/todos?select=id,t(*)&a=eq.%2B1", AS_ANON),
    Passes(get("/rest/v1/todos", both(PUBLISHABLE)), f"{REST}/todos", AS_ANON),
    Passes(get("/rest/v1/todos", user(PUBLISHABLE)), f"{REST}/todos", USER),
    Passes(get("/rest/v1/todos", user(SECRET)), f"{REST}/todos", USER),
    Passes(get("/rest/v1/todos", both(SECRET)), f"{REST}/todos", AS_SERVICE),
    Passes(get("/rest/v1/todos", (*PUB, *bearer(SECRET))), f"{REST}/todos", AS_ANON),
    Passes(get("/rest/v1/todos", (*SEC, *bearer(PUBLISHABLE))), f"{REST}/todos", AS_SERVICE),
    Passes(get("/rest/v1/todos", (*PUB, *bearer(SERVICE_ROLE_KEY))), f"{REST}/todos", AS_ANON),
    Passes(get("/rest/v1/todos", (*PUB, ("authorization", f"bearer  {SECRET}"))), f"{REST}/todos", AS_ANON),
    Passes(get("/rest/v1/todos", (*PUB, ("authorization", SECRET))), f"{REST}/todos", AS_ANON),
    Passes(get("/rest/v1/todos", (*PUB, ("authorization", ""))), f"{REST}/todos", AS_ANON),
    Passes(get("/rest/v1/todos", (*user(PUBLISHABLE), *bearer(SERVICE_ROLE_KEY))), f"{REST}/todos", USER),
    Passes(post("/rest/v1/rpc/f", (("APIKEY", PUBLISHABLE),)), f"{REST}/rpc/f", AS_ANON),
    Passes(get(f"/rest/v1/todos?apikey={SECRET}&a=eq.1", PUB), f"{REST}/todos?a=eq.1", AS_ANON),
    Passes(get("/rest/v1/a%20b%2Fc", PUB), f"{REST}/a%20b%2Fc", AS_ANON),
    Passes(get("/rest/v1/", SEC), f"{REST}/", AS_SERVICE),
    Passes(post("/rest/v1/todos", PUB, 10 * MIB), f"{REST}/todos", AS_ANON),
    Stops(get("/rest/v1/", PUB), 403),
    Stops(get("/rest/v1/", user(PUBLISHABLE)), 403),
    Stops(get("/rest/v1//", PUB), 403),
    Stops(get("/rest/v1/.", PUB), 403),
    Stops(get("/rest/v1/?select=*", PUB), 403),
    Stops(get("/rest/v1/"), 401),
    Stops(get("/rest/v1/todos"), 401),
    Stops(get(f"/rest/v1/todos?apikey={PUBLISHABLE}"), 401),
    Stops(get("/rest/v1/todos", key("")), 401),
    Stops(get("/rest/v1/todos", key(f"{PUBLISHABLE}x")), 401),
    Stops(get("/rest/v1/todos", key(f"Bearer {PUBLISHABLE}")), 401),
    Stops(get("/rest/v1/todos", key(ANON_KEY)), 401),
    Stops(get("/rest/v1/todos", key(SERVICE_ROLE_KEY)), 401),
    Stops(get("/rest/v1/todos", bearer(SECRET)), 401),
    Stops(get("/rest/v1/todos", (*PUB, *SEC)), 401),
    Stops(get("/rest/v1/todos", (("Authorization", DASHBOARD),)), 401),
    Stops(Request("OPTIONS", "/rest/v1/todos"), 401),
    Stops(post("/rest/v1/todos", PUB, 10 * MIB + 1), 413),
    Stops(post("/rest/v1/todos", PUB, 10 * MIB + 1, chunked=True), 413),
    Stops(post("/rest/v1/todos", (), 52 * MIB), 413),
]
GRAPHQL_ROWS = [
    Passes(post("/graphql/v1", PUB), f"{REST}/rpc/graphql", AS_ANON),
    Passes(post("/graphql/v1", user(PUBLISHABLE)), f"{REST}/rpc/graphql", USER),
    Passes(post("/graphql/v1", SEC), f"{REST}/rpc/graphql", AS_SERVICE),
    Stops(post("/graphql/v1"), 401),
]
REALTIME_ROWS = [
    Passes(get(f"/realtime/v1/websocket?apikey={PUBLISHABLE}&vsn=1.0.0"), f"{REALTIME}/socket/websocket?vsn=1.0.0"),
    Passes(get("/realtime/v1/websocket?vsn=1.0.0", PUB), f"{REALTIME}/socket/websocket?vsn=1.0.0"),
    Passes(get("/realtime/v1/websocket", user(PUBLISHABLE)), f"{REALTIME}/socket/websocket"),
    Passes(post("/realtime/v1/api/broadcast", both(PUBLISHABLE)), f"{REALTIME}/api/broadcast", AS_ANON),
    Passes(post("/realtime/v1/api/broadcast", user(PUBLISHABLE)), f"{REALTIME}/api/broadcast", USER),
    Passes(post("/realtime/v1/api/broadcast/t/events/e", SEC), f"{REALTIME}/api/broadcast/t/events/e", AS_SERVICE),
    Passes(get("/realtime/v1/api/ping", PUB), f"{REALTIME}/api/ping", AS_ANON),
    Stops(get("/realtime/v1/websocket?vsn=1.0.0"), 401),
    Stops(get(f"/realtime/v1/websocket?apikey={ANON_KEY}"), 401),
    Stops(get(f"/realtime/v1/websocket?apikey={PUBLISHABLE}&apikey={SECRET}"), 401),
    Stops(get("/realtime/v1/websocket?apikey"), 401),
    Stops(get("/realtime/v1/websocket", (("x-api-key", SERVICE_ROLE_KEY),)), 401),
    Stops(post(f"/realtime/v1/api/broadcast?apikey={PUBLISHABLE}"), 401),
    Stops(get("/realtime/v1/api/tenants", SEC), 403),
    Stops(get("/realtime/v1/api/tenants/realtime-dev/health", SEC), 403),
    Stops(get("/realtime/v1/api/openapi", PUB), 403),
    Stops(get("/realtime/v1//api/%74enants", SEC), 403),
    Stops(get("/realtime/v1/api/broadcast/../tenants", SEC), 403),
    Stops(get("/realtime/v1/api", PUB), 403),
]
STORAGE_ROWS = [
    Passes(get("/storage/v1/object/public/b/a.png"), f"{STORAGE}/object/public/b/a.png"),
    Passes(get("/storage/v1/object/sign/b/a.png?token=t"), f"{STORAGE}/object/sign/b/a.png?token=t"),
    Passes(get("/storage/v1/bucket", both(PUBLISHABLE)), f"{STORAGE}/bucket", AS_ANON),
    Passes(get("/storage/v1/bucket", SEC), f"{STORAGE}/bucket", AS_SERVICE),
    Passes(post("/storage/v1/object/b/a", user(PUBLISHABLE), 50 * MIB), f"{STORAGE}/object/b/a", USER),
    Passes(get("/storage/v1/object/b/a", (("authorization", USER),)), f"{STORAGE}/object/b/a", USER),
    Passes(get("/storage/v1/s3/b/k?list-type=2", (("Authorization", SIGV4),)), f"{STORAGE}/s3/b/k?list-type=2", SIGV4),
    Passes(
        get("/storage/v1/s3/b/k?X-Amz-Signature=0f&X-Amz-Credential=a%2Fb&x=a%20b+c"),
        f"{STORAGE}/s3/b/k?X-Amz-Signature=0f&X-Amz-Credential=a%2Fb&x=a%20b+c",
    ),
    Passes(get("/storage/v1/s3/b", (("authorization", ""),)), f"{STORAGE}/s3/b"),
    Passes(Request("OPTIONS", "/storage/v1/upload/resumable"), f"{STORAGE}/upload/resumable"),
    Stops(get("/storage/v1/bucket", key("sb_secret_wrong")), 401),
    Stops(get("/storage/v1/object/public/b/a", key("sb_publishable_old")), 401),
    Stops(get("/storage/v1/bucket", key(SERVICE_ROLE_KEY)), 401),
    Stops(get("/storage/v1/bucket", bearer(SECRET)), 401),
    Stops(get("/storage/v1/bucket", bearer(SERVICE_ROLE_KEY)), 401),
    Stops(get("/storage/v1/bucket", (*PUB, *SEC)), 401),
    Stops(post("/storage/v1/object/b/a", user(PUBLISHABLE), 51 * MIB + 1), 413),
]
FUNCTIONS_ROWS = [
    Passes(post("/functions/v1/hook"), f"{FUNCTIONS}/hook"),
    Passes(post("/functions/v1/f/x?y=1", both(PUBLISHABLE)), f"{FUNCTIONS}/f/x?y=1"),
    Passes(post("/functions/v1/f", user(PUBLISHABLE)), f"{FUNCTIONS}/f", USER),
    Stops(post("/functions/v1/f", key("sb_secret_wrong")), 401),
    Stops(post("/functions/v1/f", bearer(SERVICE_ROLE_KEY)), 401),
]
META_ROWS = [
    Passes(get("/pg/tables?schemas=public", SEC), f"{META}/tables?schemas=public"),
    Passes(get("/pg/tables", (*SEC, ("Authorization", USER))), f"{META}/tables"),
    Stops(get("/pg/tables", PUB), 403),
    Stops(get("/pg/tables", (*PUB, *bearer(SERVICE_ROLE_KEY))), 403),
    Stops(get("/pg/tables"), 401),
    Stops(get(f"/pg/tables?apikey={SECRET}"), 401),
    Stops(get("/pg/tables", (("Authorization", DASHBOARD),)), 401),
    Stops(get("/rest/v1/../../pg/tables", PUB), 403),
]
STUDIO_ROWS = [
    Passes(get("/project/default", (("Authorization", DASHBOARD),)), f"{STUDIO}/project/default"),
    Passes(get("/", (("Proxy-Authorization", DASHBOARD),)), f"{STUDIO}/"),
    Passes(get("/api/platform/profile", (("Authorization", DASHBOARD),)), f"{STUDIO}/api/platform/profile"),
    Stops(get("/project/default"), 401),
    Stops(get("/project/default", SEC), 401),
    Stops(get("/project/default", (("Authorization", DASHBOARD + "x"),)), 401),
    Stops(get("/project/default", (("Authorization", "Basic " + base64.b64encode(b"supabase:1").decode()),)), 401),
    Stops(get("/mcp", (("Authorization", DASHBOARD),)), 403),
    Stops(get("/api/mcp", SEC), 403),
    Stops(post("/api//%6dcp/x", (("Authorization", DASHBOARD),)), 403),
    Stops(get("/rest/v1", PUB), 401),
    Stops(get("/rest/v1x/todos", SEC), 401),
    Stops(get("/graphql/v1/x", PUB), 401),
]
NOTHING_THERE = [
    Stops(get(path, (*SEC, ("Authorization", DASHBOARD))), 404)
    for path in (
        "/", "/rest/v1", "/rest/v1x/todos", "/rest/v2/todos", "/REST/v1/todos", "/auth/v1", "/auth/v2/user", "/graphql/v1/x",
        "/graphql/v1x", "/graphql/v1/", "/realtime/v1", "/storage/v1", "/functions/v1/f", "/pg/tables", "/mcp", "/api/mcp", "/project/default",
        "/rest%2Fv1/todos", "/verify", "/admin", "/status", "/metrics", "/sso/saml", "/rest/v1/..",
    )
]  # fmt: skip
ROWS = [
    *OPEN_AUTH, *AUTH_ROWS, *REST_ROWS, *GRAPHQL_ROWS, *REALTIME_ROWS, *STORAGE_ROWS, *FUNCTIONS_ROWS, *META_ROWS, *STUDIO_ROWS,
]  # fmt: skip


def _name(row: Passes | Stops) -> str:
    return f"{row.request.method} {row.request.target[:60]}"


@pytest.mark.parametrize("row", ROWS, ids=_name)
def test_every_request_ends_where_it_should(row: Passes | Stops) -> None:
    _expect(KONG.send(row.request), row)


@pytest.mark.parametrize("row", NOTHING_THERE, ids=_name)
def test_what_no_route_names_is_not_there(row: Stops) -> None:
    _expect(BARE_KONG.send(row.request), row)


def _expect(outcome: Outcome, row: Passes | Stops) -> None:
    if isinstance(row, Stops):
        assert outcome.status == row.status
        return
    assert (outcome.status, outcome.url) == (None, row.url)
    assert outcome.header("authorization") == row.authorization
    assert outcome.header("apikey") is None


def test_the_table_covers_every_service() -> None:
    reached = {row.url.split("/")[2] for row in ROWS if isinstance(row, Passes)}
    assert reached == {service["url"].split("/")[2] for service in kong_config(FULL)["services"]}


@pytest.mark.parametrize(
    ("request_", "token"),
    [
        (get(f"/realtime/v1/websocket?apikey={PUBLISHABLE}"), ANON_KEY),
        (get(f"/realtime/v1/websocket?apikey={SECRET}"), SERVICE_ROLE_KEY),
        (get("/realtime/v1/websocket", (*PUB, ("X-Api-Key", SERVICE_ROLE_KEY))), ANON_KEY),
    ],
)
def test_realtime_is_told_the_role_by_the_header_it_reads_first(request_: Request, token: str) -> None:
    outcome = KONG.send(request_)
    assert outcome.header("x-api-key") == token
    assert outcome.header("host") == "realtime-dev"


def test_realtime_is_called_by_its_tenant_on_every_route_and_others_by_their_names() -> None:
    kong = gateway(replace(FULL, realtime_tenant="central"))
    for target, host in (
        ("/realtime/v1/websocket", "central"),
        ("/realtime/v1/api/broadcast", "central"),
        ("/realtime/v1/api/ping", "central"),
        ("/rest/v1/todos", "supabase-rest:3000"),
    ):
        assert kong.send(get(target, (*PUB, ("Host", "someone-else.example")))).header("host") == host


def test_graphql_is_asked_in_its_own_schema_whatever_the_client_says() -> None:
    outcome = KONG.send(post("/graphql/v1", (*PUB, ("Content-Profile", "proj_x"), ("Accept-Profile", "proj_x"))))
    assert outcome.header("content-profile") == outcome.header("accept-profile") == "graphql_public"


@pytest.mark.parametrize(
    ("headers", "token"),
    [((), None), (PUB, ANON_KEY), (SEC, SERVICE_ROLE_KEY), ((("sb-api-key", SERVICE_ROLE_KEY),), None)],
)
def test_functions_are_told_the_role_and_by_nobody_else(
    headers: tuple[tuple[str, str], ...], token: str | None
) -> None:
    assert KONG.send(post("/functions/v1/f", headers)).header("sb-api-key") == token


@pytest.mark.parametrize("path", ["token?grant_type=password", "signup", "verify", "callback", "otp", "admin/users"])
@pytest.mark.parametrize(
    ("project", "product"),
    [
        ("my-app", "my-app"),
        ("-", "-"),
        ("", ""),
        ("a b/c\n data-plane-project/x", "a_b_c__data-plane-project_x"),
        ("x" * 200, "x" * 64),
        (None, None),
    ],
)
def test_auth_is_told_the_project_that_a_session_is_begun_for(
    path: str, project: str | None, product: str | None
) -> None:
    """By the user agent, which is all that Auth keeps of a request."""
    named = () if project is None else (("X-Data-Plane-Project", project),)
    for agent in ("Mozilla/5.0 (X11)", None):
        sent = (*SEC, *named, *(() if agent is None else (("User-Agent", agent),)))
        outcome = KONG.send(post(f"/auth/v1/{path}", sent))
        assert outcome.header("x-data-plane-project") is None
        expected = agent if product is None else f"{agent or ''} data-plane-project/{product}"
        assert outcome.header("user-agent") == expected


OF_PROJECT = (*key(PUBLISHABLE), ("Authorization", f"Bearer {token_of('proj_x_authenticated', project='x')}"))
OF_NONE = (*key(PUBLISHABLE), ("Authorization", f"Bearer {token_of('authenticated')}"))
ONCE_OF_PROJECT = (*key(PUBLISHABLE), ("Authorization", f"Bearer {token_of('authenticated', session_project='x')}"))
PASSWORD = '{"password": "new"}'
CHANGES = [
    ("PUT", "user", PASSWORD),
    ("PUT", "user", '{"data": {}, "password": "new"}'),
    ("PUT", "user", '{"Password": "new"}'),
    ("PUT", "user", '{"pa\u017f\u017fword": "new"}'),
    ("PUT", "user", '{"email": "x@example.org"}'),
    ("PUT", "user", '{"phone": "1"}'),
    ("PUT", "user", '{"current_password": "old", "password": "new"}'),
    ("PUT", "user", "{'data': {}}"),
    ("PUT", "user", '[{"data": 1}]'),
    ("PUT", "user", "1"),
    ("PUT", "user", ""),
    ("PATCH", "user", "{}"),
    ("PUT", "user/", PASSWORD),
    ("PUT", "%75ser", PASSWORD),
    ("PUT", "token/../user", PASSWORD),
    ("PUT", "/user", PASSWORD),
    ("PUT", "user?a=b", PASSWORD),
    ("GET", "user/identities/authorize?provider=github", ""),
    ("DELETE", "user/identities/6f1c8a52", ""),
    ("POST", "passkeys/registration/options", "{}"),
    ("POST", "oauth/authorizations/6f1c8a52/consent", '{"action": "approve"}'),
    ("POST", "factors", '{"factor_type": "totp"}'),
    ("POST", "factors/", '{"factor_type": "totp"}'),
    ("POST", "factors/6f1c8a52/..", '{"factor_type": "totp"}'),
    ("DELETE", "factors/6f1c8a52", ""),
]


@pytest.mark.parametrize(("method", "path", "body"), CHANGES)
def test_an_account_is_changed_with_a_token_for_no_project(method: str, path: str, body: str) -> None:
    target = f"/auth/v1/{path}"
    assert KONG.send(Request(method, target, OF_PROJECT, body=body)).status == 403
    for spelling in ("bearer", "BEARER", "Bearer "):
        authorization = OF_PROJECT[1][1].replace("Bearer", spelling)
        sent = (*key(PUBLISHABLE), ("Authorization", authorization))
        assert KONG.send(Request(method, target, sent, body=body)).status == 403
    assert KONG.send(Request(method, target, ONCE_OF_PROJECT, body=body)).status == 403
    for sent in (OF_NONE, SEC, PUB) if method != "PATCH" else ():
        assert KONG.send(Request(method, target, sent, body=body)).status is None


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "user", ""),
        ("PUT", "user", '{"data": {"name": "N"}}'),
        ("PUT", "user", '{"data": {"password": "x"}, "code_challenge": null, "code_challenge_method": null}'),
        ("PUT", "user", "{}"),
        ("POST", "logout", ""),
        ("POST", "factors/6f1c8a52/challenge", "{}"),
        ("POST", "factors/6f1c8a52/verify", "{}"),
        ("GET", "oauth/userinfo", ""),
    ],
)
def test_a_token_for_a_project_does_what_a_front_end_needs(method: str, path: str, body: str) -> None:
    outcome = KONG.send(Request(method, f"/auth/v1/{path}", OF_PROJECT, body=body))
    assert outcome.status is None
    assert outcome.url == f"http://supabase-auth:9999/{path}"
    assert outcome.header("authorization") == OF_PROJECT[1][1]


@pytest.mark.parametrize(
    "path", ["token?grant_type=id_token", "token?grant_type=refresh_token", "%74oken", "of-tomorrow"]
)
@pytest.mark.parametrize("sent", [OF_PROJECT, ONCE_OF_PROJECT])
def test_auth_acts_for_nobody_by_a_token_for_a_project(path: str, sent: tuple[tuple[str, str], ...]) -> None:
    """With the grant `id_token` and `link_identity`, Auth would link anybody's identity to the token's user."""
    body = '{"id_token": "t", "provider": "google", "Link_Identity": true}'
    assert KONG.send(Request("POST", f"/auth/v1/{path}", sent, body=body)).header("authorization") == AS_ANON
    assert KONG.send(Request("POST", f"/auth/v1/{path}", OF_NONE, body=body)).header("authorization") == OF_NONE[1][1]


@pytest.mark.parametrize(
    ("request_", "product"),
    [
        (Request("GET", "/auth/v1/verify?token=t&type=recovery"), "-"),
        (Request("POST", "/auth/v1/verify", body='{"type": "recovery", "token_hash": "t"}'), "-"),
        (Request("POST", "/auth/v1/verify", body='{"type": "signup", "token_hash": "t"}'), "my-app"),
        (Request("GET", "/auth/v1/verify?token=t&type=magiclink"), "my-app"),
        (Request("POST", "/auth/v1/verify", body="not JSON"), "my-app"),
    ],
)
def test_a_link_for_a_forgotten_password_begins_a_session_for_none(request_: Request, product: str) -> None:
    sent = replace(request_, headers=(("X-Data-Plane-Project", "my-app"), ("User-Agent", "A")))
    assert KONG.send(sent).header("user-agent") == f"A data-plane-project/{product}"


def test_a_client_cannot_speak_for_the_gateway() -> None:
    forged = (
        "X-Forwarded-For",
        "Forwarded",
        "Sb-Forwarded-For",
        "X-Consumer-Username",
        "X-Consumer-Groups",
        "X-Real-IP",
    )
    for target in ("/rest/v1/todos", "/auth/v1/verify", "/storage/v1/object/public/b/a"):
        headers = KONG.send(get(target, (*PUB, *((name, "forged") for name in forged)))).headers
        assert not any("forged" in values for values in headers.values())
        assert headers["x-forwarded-for"] == ("203.0.113.7",)


def test_only_operators_reach_the_dashboard_and_the_database_service() -> None:
    kong = gateway(replace(FULL, operator_sources=("10.0.0.0/8",)))
    for request_ in (get("/pg/tables", SEC), get("/", (("Authorization", DASHBOARD),))):
        assert kong.send(request_).status == 403
        assert kong.send(replace(request_, address="10.1.2.3")).status is None
    assert kong.send(get("/rest/v1/todos", PUB)).status is None


def preflight(target: str) -> Request:
    return Request("OPTIONS", target, (("Origin", "https://app.example"), ("Access-Control-Request-Method", "POST")))


def test_preflight_needs_no_key() -> None:
    outcome = KONG.send(preflight("/rest/v1/todos"))
    assert outcome.status == 200
    assert outcome.header("access-control-allow-origin") == "*"
    assert outcome.header("access-control-allow-credentials") is None


@pytest.mark.parametrize(
    ("origins", "allowed"),
    [
        (("https://app.example", "https://b.example"), "https://app.example"),
        (("https://a.example", "https://b.example"), None),
        (("https://a.example",), "https://a.example"),
    ],
)
def test_only_listed_origins_are_allowed(origins: tuple[str, ...], allowed: str | None) -> None:
    outcome = gateway(replace(FULL, cors_origins=origins)).send(preflight("/auth/v1/token"))
    assert outcome.header("access-control-allow-origin") == allowed


def test_without_origins_a_preflight_is_refused() -> None:
    assert gateway(replace(FULL, cors_origins=())).send(preflight("/rest/v1/todos")).status == 401


@pytest.mark.parametrize("target", ["/pg/tables", "/project/default"])
def test_the_dashboard_is_no_page_of_another_origins(target: str) -> None:
    assert KONG.send(preflight(target)).status == 401


# Properties

VALUES = st.sampled_from([
    PUBLISHABLE, SECRET, ANON_KEY, SERVICE_ROLE_KEY, AS_ANON, AS_SERVICE, USER, SIGV4, DASHBOARD, f"Bearer {SECRET}",
    f"Bearer {PUBLISHABLE}", f"bearer\t{SERVICE_ROLE_KEY}", f"x {SERVICE_ROLE_KEY} ", f"{SECRET} ", "", "sb_", "Bearer",
])  # fmt: skip
NAMES = st.sampled_from([
    "apikey", "ApiKey", "authorization", "Authorization", "proxy-authorization", "x-api-key", "sb-api-key",
    "x-consumer-username", "x-consumer-groups", "x-anonymous-consumer", "cookie",
])  # fmt: skip
HEADERS = st.lists(st.tuples(NAMES, VALUES), max_size=5).map(tuple)
SEGMENTS = st.sampled_from([
    "rest", "v1", "auth", "graphql", "realtime", "storage", "functions", "pg", "mcp", "api", "admin", "tenants", "broadcast",
    "verify", "callback", "..", ".", "", "%2e%2e", "%2F", "x", "%70g", "tables", ".well-known", "sso", "saml", "acs",
])  # fmt: skip
PREFIXES = st.sampled_from([
    "/rest/v1/", "/auth/v1/", "/graphql/v1", "/realtime/v1/", "/realtime/v1/api/", "/storage/v1/", "/functions/v1/", "/pg/", "/",
])  # fmt: skip
QUERIES = st.sampled_from(["", f"?apikey={SECRET}", f"?apikey={PUBLISHABLE}", f"?a=1&%61pikey={SECRET}", "?x=y"])
REQUESTS = st.builds(
    lambda method, prefix, segments, query, headers: Request(method, prefix + "/".join(segments) + query, headers),
    st.sampled_from(["GET", "POST", "OPTIONS", "DELETE"]),
    PREFIXES,
    st.lists(SEGMENTS, max_size=4),
    QUERIES,
    HEADERS,
)


def _keys(request_: Request) -> list[str]:
    return [value for name, value in request_.headers if name.lower() == "apikey"]


@settings(max_examples=500, deadline=None)
@given(REQUESTS)
def test_nothing_is_reached_without_the_key_that_it_needs(request_: Request) -> None:
    outcome = KONG.send(request_)
    if outcome.url is None:
        return
    keys = _keys(request_)
    host, path = re.fullmatch(r"(http://[^/]+)(/[^?]*).*", outcome.url).groups()  # type: ignore[union-attr]
    if host == META or (path.startswith("/admin") and host == AUTH) or (host == REST and path == "/"):
        assert keys == [SECRET]
    elif host == REST or (host == AUTH and not re.fullmatch(OPEN_PATHS, path)):
        assert keys in ([SECRET], [PUBLISHABLE])
    elif host == REALTIME:
        assert keys in ([SECRET], [PUBLISHABLE]) or (not keys and "pikey=sb_" in request_.target)
    elif host == STUDIO:
        assert DASHBOARD in [value for name, value in request_.headers if name.lower().endswith("authorization")]


OPEN_PATHS = r"/(verify|callback|authorize|sso/saml/(acs|metadata)|\.well-known/[a-z.-]+)"


@settings(max_examples=500, deadline=None)
@given(REQUESTS)
def test_the_internal_service_token_is_for_holders_of_the_secret_key_alone(request_: Request) -> None:
    outcome = KONG.send(request_)
    # A cookie or a header of no meaning may carry what it likes.
    seen = [
        value
        for name, values in outcome.headers.items()
        for value in values
        if name not in {"cookie", "proxy-authorization"}
    ]
    if outcome.url is not None and any(SERVICE_ROLE_KEY in value for value in seen):
        in_query = outcome.url.startswith(f"{REALTIME}/socket/") and SECRET in request_.target
        assert _keys(request_) == [SECRET] or (not _keys(request_) and in_query)


@settings(max_examples=500, deadline=None)
@given(REQUESTS)
def test_keys_stay_with_the_gateway(request_: Request) -> None:
    outcome = KONG.send(request_)
    if outcome.url is None:
        return
    assert "apikey" not in outcome.headers
    assert SECRET not in outcome.url
    authorization = outcome.header("authorization") or ""
    assert not authorization.strip().removeprefix("Bearer ").startswith("sb_")


# The text


def test_the_text_has_a_field_for_every_secret_and_no_other_action() -> None:
    text = kong_template(FULL)
    assert {*re.findall(r"\{\{ \.([A-Z_]+) \}\}", text)} == set(SECRETS) == {*kong_secret_keys(text)}
    left = re.sub(r"\{\{ \.[A-Z_]+ \}\}", "", text)
    assert "{{" not in left
    assert "}}" not in left


def test_without_the_dashboard_its_password_is_not_asked_for() -> None:
    assert kong_secret_keys(kong_template(BARE)) == (
        "ANON_KEY",
        "SERVICE_ROLE_KEY",
        "SUPABASE_PUBLISHABLE_KEY",
        "SUPABASE_PUBLISHABLE_KEY_BEFORE",
        "SUPABASE_SECRET_KEY",
    )


@pytest.mark.parametrize("path", ["/rest/v1/todos", "/auth/v1/user", "/storage/v1/bucket", "/auth/v1/admin/users"])
def test_the_key_before_the_last_rotation_is_worth_what_the_new_one_is(path: str) -> None:
    for headers in (key, both, user):
        new, old = (KONG.send(get(path, headers(value))) for value in (PUBLISHABLE, PUBLISHABLE_BEFORE))
        assert (old.status, old.url, old.header("authorization")) == (new.status, new.url, new.header("authorization"))
    assert KONG.send(get(path, user(PUBLISHABLE_BEFORE + "x"))).status == 401


def test_the_text_says_what_the_configuration_says() -> None:
    assert YAML(typ="safe").load(kong_template(FULL)) == kong_config(FULL)


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(SECRETS)), st.from_regex(r"[A-Za-z0-9_.\-]{1,60}", fullmatch=True)))
def test_any_value_of_the_keys_alphabet_stays_one_string(values: dict[str, str]) -> None:
    def fill(text: str) -> str:
        return re.sub(r"\{\{ \.([A-Z_]+) \}\}", lambda found: values.get(found[1], "x"), text)

    def filled(value: Any) -> Any:
        match value:
            case dict():
                return {name: filled(item) for name, item in value.items()}
            case list():
                return [filled(item) for item in value]
            case str():
                return fill(value)
            case _:
                return value

    assert YAML(typ="safe").load(fill(kong_template(FULL))) == filled(kong_config(FULL))


def test_the_same_arguments_give_the_same_text() -> None:
    assert kong_template(FULL) == kong_template(replace(FULL))


@pytest.mark.parametrize(
    "given_",
    [
        {"cors_origins": ("https://a.example/",)},
        {"cors_origins": ("*", "https://a.example")},
        {"cors_origins": ("https://{{ .SUPABASE_SECRET_KEY }}",)},
        {"realtime_tenant": 'x"'},
        {"realtime_tenant": "a.b"},
        {"api_body_mib": 0},
        {"upload_mib": -1},
        {"worker_processes": 0},
        {"operator_sources": ("10.0.0.0/33",)},
        {"trusted_proxies": ("proxy",)},
        {"upstreams": KongUpstreams(auth="http://auth:9999/")},
        {"upstreams": KongUpstreams(studio="supabase-studio:3000")},
    ],
)
def test_values_that_do_not_fit_are_refused(given_: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"expected|appear"):
        KongConfigArgs(**given_)


# The variables


def test_kong_loads_the_plugins_that_are_used_and_no_others() -> None:
    plugins = kong_environment(BARE)["KONG_PLUGINS"].split(",")
    assert {*plugins} == {
        "acl", "cors", "key-auth", "post-function", "pre-function", "prometheus", "request-size-limiting",
        "request-termination",
    }  # fmt: skip
    full = kong_environment(replace(FULL, operator_sources=("10.0.0.0/8",)))["KONG_PLUGINS"].split(",")
    assert {*full} - {*plugins} == {"basic-auth", "ip-restriction"}


def test_kong_has_no_door_for_administrators() -> None:
    environment = kong_environment(FULL)
    assert environment["KONG_ADMIN_LISTEN"] == environment["KONG_ADMIN_GUI_LISTEN"] == "off"
    assert environment["KONG_DATABASE"] == "off"


def test_proxies_are_believed_only_where_they_are_named() -> None:
    assert "KONG_TRUSTED_IPS" not in kong_environment(FULL)
    environment = kong_environment(replace(FULL, trusted_proxies=("10.0.0.0/8", "fd00::/8")))
    assert environment["KONG_TRUSTED_IPS"] == "10.0.0.0/8,fd00::/8"
    assert environment["KONG_REAL_IP_RECURSIVE"] == "on"


def test_the_limit_of_bodies_lets_the_larger_of_both_through() -> None:
    assert (
        kong_environment(replace(FULL, upload_mib=5, api_body_mib=20))["KONG_NGINX_HTTP_CLIENT_MAX_BODY_SIZE"] == "20m"
    )
    assert kong_environment(replace(FULL, upload_mib=200))["KONG_NGINX_HTTP_CLIENT_MAX_BODY_SIZE"] == "201m"
