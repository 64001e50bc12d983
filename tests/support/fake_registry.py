"""A container registry on this machine, as the OCI distribution protocol has it, with the ways in which one refuses."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, urlsplit

INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OLD_MANIFEST = "application/vnd.docker.distribution.manifest.v1+prettyjws"


@dataclass
class Registry:
    """What the registry has, and how it behaves."""

    address: str = ""
    """Host and port."""
    manifests: dict[tuple[str, str], tuple[str, bytes]] = field(default_factory=dict)
    """Type and body by repository and tag."""
    tokens: bool = True
    """Whether it wants a token, made out to the repository."""
    digest_header: bool = True
    busy: int = 0
    """How many requests it answers with 429 first."""
    login: str | None = None
    """What the token's server wants as basic authentication."""
    requests: list[tuple[str, str]] = field(default_factory=list)
    """Method and path of each request."""

    def put(self, repository: str, tag: str, kind: str = INDEX, text: str = "") -> str:
        """Has an image from now on, and says its digest."""
        body = json.dumps({"schemaVersion": 2, "mediaType": kind, "annotations": {"is": text or tag}}).encode()
        self.manifests[repository, tag] = (kind, body)
        return f"sha256:{hashlib.sha256(body).hexdigest()}"


class _Server(ThreadingHTTPServer):
    registry: Registry


class _Handler(BaseHTTPRequestHandler):
    server: "_Server"
    protocol_version = "HTTP/1.1"

    def log_message(self, *_arguments: object) -> None:
        """Nothing is logged."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        registry = self.server.registry
        registry.requests.append((self.command, self.path))
        url = urlsplit(self.path)
        if url.path == "/token":
            self._token({key: values[0] for key, values in parse_qs(url.query).items()})
        elif registry.busy:
            registry.busy -= 1
            self._send(429, b'{"errors": [{"code": "TOOMANYREQUESTS"}]}', {"Retry-After": "0"})
        else:
            self._manifest(url.path)

    def _token(self, query: dict[str, str]) -> None:
        registry = self.server.registry
        if registry.login is not None and self.headers.get("Authorization") != registry.login:
            self._send(401, b'{"details": "incorrect username or password"}', {})
        else:
            assert query["service"] == "fake"
            self._send(200, json.dumps({"token": f"for {query['scope']}", "expires_in": 60}).encode(), {})

    def _manifest(self, path: str) -> None:
        registry = self.server.registry
        name, _, tag = path.removeprefix("/v2/").partition("/manifests/")
        scope = f"repository:{name}:pull"
        if registry.tokens and self.headers.get("Authorization") != f"Bearer for {scope}":
            realm = f'Bearer realm="http://{registry.address}/token",service="fake",scope="{scope}"'
            self._send(401, b'{"errors": [{"code": "UNAUTHORIZED"}]}', {"WWW-Authenticate": realm})
            return
        found = registry.manifests.get((name, tag))
        if found is None:
            self._send(404, b'{"errors": [{"code": "MANIFEST_UNKNOWN"}]}', {})
            return
        kind, body = found
        accepted = [entry.strip() for entry in self.headers.get("Accept", "").split(",")]
        if kind not in accepted:
            # As registries do for clients that do not know the image's type.
            kind, body = OLD_MANIFEST, b"{}"
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        self._send(200, body, {"Docker-Content-Digest": digest} if registry.digest_header else {}, kind)

    def _send(self, status: int, body: bytes, headers: dict[str, str], kind: str = "application/json") -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Type": kind, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def running_registry() -> Iterator[Registry]:
    """A registry until the end of the block."""
    registry = Registry()
    server = _Server(("127.0.0.1", 0), _Handler)
    server.registry = registry
    registry.address = f"127.0.0.1:{server.server_port}"
    thread = Thread(target=lambda: server.serve_forever(poll_interval=0.01), daemon=True)
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
