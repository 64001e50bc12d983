"""The gateway of this machine: over HTTP it does what Kong would with the same configuration."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Self

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from data_plane.local.gateway import Gateway, Routing
from data_plane.local.kong import Request
from data_plane.local.processes import LOOPBACK
from tests.support.gateway import ANON_KEY, FULL, KONG, MIB, PUBLISHABLE, SECRET, SERVICE_ROLE_KEY, USER

UPSTREAMS = {url.removeprefix("http://"): name for name, url in vars(FULL.upstreams).items()}
PATHS = (
    "/auth/v1/health",
    "/auth/v1/verify?token=t&type=signup",
    "/auth/v1/callback",
    "/auth/v1/authorize",
    "/auth/v1/.well-known/jwks.json",
    "/.well-known/oauth-authorization-server",
    "/auth/v1/sso/saml/acs",
    "/auth/v1/user",
    "/auth/v1/factors",
    "/auth/v1/logout",
    "/auth/v1/admin/users?page=1",
    "/auth/v1/token?grant_type=password",
    "/rest/v1/",
    "/rest/v1/todos?select=*&id=eq.1",
    "/graphql/v1",
    "/realtime/v1/websocket",
    "/realtime/v1/api/ping",
    "/realtime/v1/api/broadcast",
    "/realtime/v1/api/tenants",
    "/storage/v1/object/list/proj_x",
    "/storage/v1/object/proj_x/a%20b/%C3%A9.txt",
    "/functions/v1/hello?x=1",
    "/pg/tables",
    "/mcp",
    "/api/mcp",
    "/project/default",
)
KEYS: dict[str, dict[str, str]] = {
    "no key": {},
    "the publishable key": {"apikey": PUBLISHABLE},
    "the secret key": {"apikey": SECRET},
    "another key": {"apikey": "sb_publishable_another"},
    "a user's token": {"apikey": PUBLISHABLE, "authorization": USER},
    "the internal token of the platform": {"apikey": PUBLISHABLE, "authorization": f"Bearer {SERVICE_ROLE_KEY}"},
}


class World:
    """A gateway, and one stand-in for all services that tells what it was sent."""

    url: str
    client: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        self._upstream = web.ServerRunner(web.Server(self._tell, access_log=None))
        await self._upstream.setup()
        site = web.TCPSite(self._upstream, LOOPBACK, 0)
        await site.start()
        (self.address,) = [f"{LOOPBACK}:{port}" for _, port in self._upstream.addresses]
        routing = Routing(KONG, dict.fromkeys(UPSTREAMS, self.address), {})
        self.gateway = Gateway(routing)
        await self.gateway.start(LOOPBACK, 0)
        self.url = f"http://{LOOPBACK}:{self.gateway.port}"
        self.client = aiohttp.ClientSession(auto_decompress=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.close()
        await self.gateway.stop()
        await self._upstream.cleanup()

    @staticmethod
    async def _tell(request: web.BaseRequest) -> web.StreamResponse:
        body = await request.content.read()
        told = {
            "target": request.raw_path,
            "headers": {name.lower(): value for name, value in request.headers.items()},
            "bytes": len(body),
            "body": body[:100].decode(),
        }
        response = web.json_response(told, status=207)
        response.headers.add("set-cookie", "a=1")
        response.headers.add("set-cookie", "b=2")
        return response


def in_world(test: Callable[[World], Awaitable[None]]) -> None:
    async def run() -> None:
        async with World() as world:
            await test(world)

    asyncio.run(run())


def get(world: World, target: str, headers: dict[str, str] | None = None, **options: Any) -> Any:
    return world.client.request(
        options.pop("method", "GET"), URL(world.url + target, encoded=True), headers=headers, **options
    )


def test_every_route_answers_as_kong_would_with_and_without_a_key() -> None:
    async def test(world: World) -> None:
        seen = set()
        for target in PATHS:
            for name, headers in KEYS.items():
                expected = KONG.send(
                    Request(
                        "GET", target, (*headers.items(), ("host", world.url.removeprefix("http://"))), address=LOOPBACK
                    )
                )
                async with get(world, target, headers) as response:
                    found = await response.json()
                    if expected.url is None:
                        assert (response.status, found) == (expected.status, expected.message), (target, name)
                        continue
                    assert response.status == 207, (target, name, found)
                    upstream, _, path = expected.url.removeprefix("http://").partition("/")
                    seen.add(UPSTREAMS[upstream])
                    assert found["target"] == f"/{path}", (target, name)
                    for header, values in expected.headers.items():
                        if not header.startswith(("accept", "user-agent")):
                            assert found["headers"].get(header) == values[0], (target, name, header)
                    assert "apikey" not in found["headers"]
        assert seen == set(UPSTREAMS.values()) - {"studio"}

    in_world(test)


def test_a_key_becomes_the_token_that_it_stands_for() -> None:
    async def test(world: World) -> None:
        for key, token in ((PUBLISHABLE, ANON_KEY), (SECRET, SERVICE_ROLE_KEY)):
            async with get(world, "/rest/v1/todos", {"apikey": key}) as response:
                assert (await response.json())["headers"]["authorization"] == f"Bearer {token}"

    in_world(test)


def test_headers_by_which_the_gateway_speaks_cannot_be_forged() -> None:
    async def test(world: World) -> None:
        forged = {
            "x-forwarded-for": "8.8.8.8",
            "x-forwarded-host": "evil.example",
            "x-consumer-username": "service_role",
        }
        async with get(world, "/storage/v1/bucket", {"apikey": PUBLISHABLE, **forged}) as response:
            headers = (await response.json())["headers"]
        assert headers["x-forwarded-for"] == LOOPBACK
        assert headers["x-forwarded-host"] == LOOPBACK
        assert headers["x-forwarded-prefix"] == "/storage/v1/"
        assert headers["x-consumer-username"] == "anon"

    in_world(test)


def test_pages_of_other_origins_may_read_answers_and_refusals() -> None:
    async def test(world: World) -> None:
        origin = {"origin": "http://localhost:3000"}
        for headers in (origin, {**origin, "apikey": PUBLISHABLE}):
            async with get(world, "/rest/v1/todos", headers) as response:
                assert response.headers["access-control-allow-origin"] == "*"
        asked = {**origin, "access-control-request-method": "POST", "access-control-request-headers": "apikey"}
        async with get(world, "/rest/v1/todos", asked, method="OPTIONS") as response:
            assert (response.status, response.headers["access-control-allow-headers"]) == (200, "apikey")

    in_world(test)


def test_bodies_pass_and_are_limited() -> None:
    async def parts(count: int) -> AsyncIterator[bytes]:
        for _ in range(count):
            yield b"x" * MIB

    async def test(world: World) -> None:
        key = {"apikey": PUBLISHABLE}
        async with get(world, "/rest/v1/todos", key, method="POST", data=b'{"a": 1}') as response:
            assert (await response.json())["body"] == '{"a": 1}'
        async with get(world, "/storage/v1/object/proj_x/a", key, method="POST", data=parts(12)) as response:
            assert (await response.json())["bytes"] == 12 * MIB
        async with get(world, "/rest/v1/todos", key, method="POST", data=b"x" * (11 * MIB)) as response:
            assert response.status == 413

    in_world(test)


def test_a_service_that_does_not_run_is_named() -> None:
    async def test(world: World) -> None:
        world.gateway.routing = Routing(KONG, {}, {"supabase-auth:9999": "auth does not run here"})
        async with get(world, "/auth/v1/health", {"apikey": PUBLISHABLE}) as response:
            assert (response.status, await response.json()) == (503, {"message": "auth does not run here"})
        world.gateway.routing = Routing(KONG, {"supabase-auth:9999": f"{LOOPBACK}:1"}, {})
        async with get(world, "/auth/v1/health", {"apikey": PUBLISHABLE}) as response:
            assert response.status == 502

    in_world(test)


def test_a_repeated_header_of_an_answer_stays_repeated() -> None:
    async def test(world: World) -> None:
        async with get(world, "/storage/v1/bucket", {"apikey": PUBLISHABLE}) as response:
            assert response.headers.getall("set-cookie") == ["a=1", "b=2"]

    in_world(test)


def test_a_header_that_is_not_utf_8_is_refused() -> None:
    async def test(world: World) -> None:
        reader, writer = await asyncio.open_connection(LOOPBACK, world.gateway.port)
        writer.write(b"GET /rest/v1/todos HTTP/1.1\r\nHost: x\r\napikey: \xff\xfe\r\nConnection: close\r\n\r\n")
        assert b" 40" in (await reader.read()).split(b"\r\n")[0]
        writer.close()

    in_world(test)


@pytest.mark.parametrize("target", ["/auth/v1/%2e%2e/rest/v1/todos", "//rest//v1/todos"])
def test_a_path_is_normalised_before_it_is_routed(target: str) -> None:
    async def test(world: World) -> None:
        expected = KONG.send(Request("GET", target, (("apikey", PUBLISHABLE),)))
        async with get(world, target, {"apikey": PUBLISHABLE}) as response:
            found = await response.json()
        assert expected.url is None or found["target"] == expected.url.partition("3000")[2]

    in_world(test)
