"""Which Realtime tenant the gateway sends a request to, whatever else the request says."""

import pytest

from data_plane.local.kong import Request
from tests.support.gateway import ANON_KEY, KONG, PUB, PUBLISHABLE, SEC, SECRET, USER, bearer, get, post, token_of, user

SOCKET, BROADCAST = "/realtime/v1/websocket", "/realtime/v1/api/broadcast"
REALTIME_TENANTS = [
    (get(f"{SOCKET}?apikey={PUBLISHABLE}&project=xa"), "proj_xa", ANON_KEY),
    (get(f"{SOCKET}?apikey={PUBLISHABLE}&project=my-long-app2&vsn=1.0.0"), "proj_my_long_app2", ANON_KEY),
    # What Realtime knows of the key, the project's own rules see.
    (get(f"{SOCKET}?apikey={SECRET}&project=xa"), "proj_xa", ANON_KEY),
    (
        get(f"{SOCKET}?project=xa", (*SEC, ("Host", "proj_y.example"), ("X-Forwarded-Host", "proj_y"))),
        "proj_xa",
        ANON_KEY,
    ),
    (get(f"{SOCKET}?apikey={PUBLISHABLE}&%70roject=xa"), "proj_xa", ANON_KEY),
    (get(f"{SOCKET}?apikey={PUBLISHABLE}"), "realtime-dev", ANON_KEY),
    (get(f"{SOCKET}?apikey={PUBLISHABLE}&Project=x"), "realtime-dev", ANON_KEY),
    (get(SOCKET, user(PUBLISHABLE)), "proj_x", USER.removeprefix("Bearer ")),
    (get(SOCKET, (*PUB, ("X-Data-Plane-Project", "xa"), ("Host", "proj_xa"))), "realtime-dev", ANON_KEY),
]


@pytest.mark.parametrize(("request_", "tenant", "token"), REALTIME_TENANTS)
def test_a_socket_goes_to_the_realtime_tenant_of_the_project_that_it_names(
    request_: Request, tenant: str, token: str
) -> None:
    outcome = KONG.send(request_)
    assert (outcome.status, outcome.header("host"), outcome.header("x-api-key")) == (None, tenant, token)
    assert "authorization" not in outcome.headers


@pytest.mark.parametrize("level", ["anon", "authenticated", "service_role"])
@pytest.mark.parametrize("named", ["", "&project=xa"])
def test_a_projects_token_is_what_its_socket_is_opened_with(level: str, named: str) -> None:
    token = token_of(f"proj_xa_{level}")
    outcome = KONG.send(get(f"{SOCKET}?apikey={PUBLISHABLE}{named}", bearer(token)))
    assert (outcome.header("host"), outcome.header("x-api-key")) == ("proj_xa", token)


@pytest.mark.parametrize(
    "named",
    [
        "yb", "X", "x-", "-x", "x.y", "x_y", "x%0a", "x%00", "proj_xa", "..", "x/../y", "%", "", "x%20", "x:1", "é",
        "a" * 41, "x%0d%0aHost:%20proj_y",
    ],
)  # fmt: skip
def test_a_name_that_is_no_projects_or_not_the_tokens_gets_no_socket(named: str) -> None:
    asked = f"{SOCKET}?apikey={PUBLISHABLE}&project={named}"
    of_another = bearer(token_of("proj_xx_authenticated"))
    assert KONG.send(get(asked, of_another)).status == 403
    if named != "yb":
        assert KONG.send(get(asked)).status == 403
    assert KONG.send(get(f"{SOCKET}?apikey={PUBLISHABLE}&project")).status == 403
    # The first one counts, and Realtime reads none.
    assert KONG.send(get(f"{SOCKET}?apikey={PUBLISHABLE}&project=xa&project={named}")).header("host") == "proj_xa"


@pytest.mark.parametrize(
    ("token", "tenant"),
    [
        (token_of("proj_xa_authenticated"), "proj_xa"),
        (token_of("proj_a_b_anon"), "proj_a_b"),
        (token_of("authenticated"), "realtime-dev"),
        (token_of("proj_xa_owner"), "realtime-dev"),
        (token_of("proj_xa$realtime"), "realtime-dev"),
        (token_of("authenticated", user_metadata={"role": "proj_xa_authenticated"}), "realtime-dev"),
        (token_of("authenticated", n='{"role":"proj_xa_authenticated"}'), "realtime-dev"),
    ],
)
def test_a_broadcast_goes_to_the_realtime_tenant_of_its_token(token: str, tenant: str) -> None:
    for target in (BROADCAST, f"{BROADCAST}/topic/events/e", "/realtime/v1/api/ping"):
        # Without a token of its own a request reaches no project: whoever has the publishable key would use up its limits.
        outcome = KONG.send(post(f"{target}?project=xa", (*PUB, *bearer(token), ("Host", "proj_y"))))
        assert outcome.header("host") == tenant
        assert outcome.header("authorization") == f"Bearer {token}"
        assert KONG.send(post(f"{target}?project=xa", PUB)).header("host") == "realtime-dev"
