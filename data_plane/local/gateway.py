"""The gateway of this machine: answers as Kong would with the rendered configuration, and passes on what Kong would."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web
from yarl import URL

from data_plane.errors import ServerError
from data_plane.local.kong import KongRules, Outcome, Request

__all__ = ["Gateway", "Routing"]

_LINE_BYTES = 64 * 1024
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=150)
_HOP_BY_HOP = frozenset(
    (
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)
_NOT_ADDED = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
"""Headers that aiohttp would make up for a client that sent none."""


@dataclass(frozen=True)
class Routing:
    """What the gateway goes by."""

    rules: KongRules
    addresses: Mapping[str, str]
    """Host and port of each service that runs, by those it has on a cluster."""
    missing: Mapping[str, str]
    """Why a service does not run, by the same."""


class _TooLargeError(Exception):
    """A body that does not tell its length goes beyond what nginx takes."""


class Gateway:
    """The gateway; its routing may be replaced while it serves."""

    def __init__(self, routing: Routing) -> None:
        self.routing = routing
        self._client: aiohttp.ClientSession | None = None
        self._runner = web.ServerRunner(
            web.Server(self._serve, max_line_size=_LINE_BYTES, max_field_size=_LINE_BYTES, access_log=None)
        )

    async def start(self, host: str, port: int) -> None:
        """Listens.

        Raises:
            ServerError: if the port is taken.
        """
        self._client = aiohttp.ClientSession(
            auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar(), timeout=_TIMEOUT, trust_env=False
        )
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError as error:
            await self.stop()
            raise ServerError(f"the gateway cannot listen on {host}:{port}: {error.strerror}") from error

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Ends all connections."""
        await self._runner.cleanup()
        if self._client is not None:
            await self._client.close()

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self._answer(request)
        except _TooLargeError:
            return web.json_response({"message": "Payload too large"}, status=413)
        except UnicodeEncodeError:
            return web.json_response({"message": "A header is not UTF-8"}, status=400)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        routing = self.routing
        body = b""
        declared = request.content_length
        reads = routing.rules.reads_body(request.raw_path.partition("?")[0])
        if reads and request.body_exists and (declared or 0) <= routing.rules.body_limit:
            body = b"".join([part async for part in _bounded(request, routing.rules.body_limit)])
        outcome = routing.rules.send(
            Request(
                request.method,
                request.raw_path,
                tuple((name, value) for name, value in request.headers.items()),
                body_bytes=len(body) or declared or 0,
                chunked=declared is None and not reads,
                address=request.remote or "",
                body=body.decode("utf-8", "replace"),
            )
        )
        if outcome.url is None:
            return _refusal(outcome)
        return await self._pass_on(request, outcome, body if reads else None)

    async def _pass_on(self, request: web.BaseRequest, outcome: Outcome, body: bytes | None) -> web.StreamResponse:
        url = urlsplit(outcome.url or "")
        address = self.routing.addresses.get(url.netloc)
        if address is None:
            why = self.routing.missing.get(url.netloc, f"{url.netloc} is no service of this machine")
            return _refusal(Outcome(503, message={"message": why}, answered_with=outcome.answered_with))
        headers = [
            (name, value) for name, values in outcome.headers.items() if name not in _HOP_BY_HOP for value in values
        ]
        data: bytes | AsyncIterator[bytes] | None = body
        if body is None and request.body_exists:
            data = _bounded(request, self.routing.rules.body_limit)
            if request.content_length is not None:
                headers.append(("content-length", str(request.content_length)))
        if self._client is None:
            raise RuntimeError("the gateway has not started")
        target = URL(url._replace(netloc=address).geturl(), encoded=True)
        try:
            upstream = await self._client.request(
                request.method,
                target,
                headers=headers,
                data=data or None,
                skip_auto_headers=_NOT_ADDED,
                allow_redirects=False,
            )
        except (aiohttp.ClientError, TimeoutError):
            message = {"message": "An invalid response was received from the upstream server"}
            return _refusal(Outcome(502, message=message, answered_with=outcome.answered_with))
        async with upstream:
            answer = web.StreamResponse(status=upstream.status, reason=upstream.reason)
            for name, value in upstream.headers.items():
                if name.lower() not in _HOP_BY_HOP:
                    answer.headers.add(name, value)
            for name, value in outcome.answered_with.items():
                answer.headers[name] = value
            await answer.prepare(request)
            async for part in upstream.content.iter_any():
                await answer.write(part)
            await answer.write_eof()
        return answer


async def _bounded(request: web.BaseRequest, limit: int) -> AsyncIterator[bytes]:
    """A request's body, up to what nginx takes."""
    seen = 0
    async for part in request.content.iter_any():
        seen += len(part)
        if seen > limit:
            raise _TooLargeError
        yield part


def _refusal(outcome: Outcome) -> web.Response:
    answer = web.Response(status=outcome.status or 500)
    if outcome.message is not None:
        answer = web.json_response(outcome.message, status=answer.status)
    for name, values in outcome.headers.items():
        answer.headers[name] = values[0]
    for name, value in outcome.answered_with.items():
        answer.headers[name] = value
    return answer
