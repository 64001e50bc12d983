"""Kong 3.9.1, as far as the gateway's configuration uses it.

A request goes through nginx's limit on bodies, the rewrite phase, the router (flavour ``traditional_compatible``) and the
plugins' access phase, and comes out as a refusal or as the request that the upstream gets. What the model does not know of
raises, so that a configuration cannot pass by using it.

Sources, all of Kong/kong at 3.9.1: router/transform.lua (priorities), router/atc.lua and router/utils.lua (matching, the
upstream's path), tools/uri.lua (normalisation), runloop/handler.lua (Host, X-Forwarded-*), plugins/<name>/handler.lua and
access.lua (behaviour and PRIORITY), tools/kong-lua-sandbox.lua (what Lua functions may use).
"""

import base64
import binascii
import re
import string
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any
from urllib.parse import parse_qsl, quote, unquote_plus, urlencode, urlsplit

import lupa.luajit21 as lupa  # type: ignore[import-untyped]

__all__ = ["Gateway", "Outcome", "Request"]

PRIORITIES = {
    "pre-function": 1_000_000,
    "cors": 2000,
    "key-auth": 1250,
    "basic-auth": 1100,
    "ip-restriction": 990,
    "request-size-limiting": 951,
    "acl": 950,
    "prometheus": 13,
    "request-termination": 2,
    "post-function": -1000,
}
_MIB = 1 << 20
_RESERVED = frozenset("!*'();:@&=+$,/?%#[]")
_UNESCAPED = string.ascii_letters + string.digits + "!#$&'()*+,/:;=?@[]-_.~%"
_HOP_BY_HOP = ("connection", "upgrade", "te", "via", "keep-alive", "content-length")
_SANDBOX = """
local allowed = {}
for name in ([[_VERSION assert error ipairs next pairs pcall select tonumber tostring type unpack xpcall
               math string table]]):gmatch("%S+") do
  allowed[name] = _G[name]
end
return function(text, kong)
  local environment = setmetatable({kong = kong}, {__index = allowed})
  return assert(load(text, nil, "t", environment))
end
"""


@dataclass(frozen=True)
class Request:
    """What a client sends: its target as it stands in the request line, its headers in their order."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = ()
    body_bytes: int = 0
    chunked: bool = False
    address: str = "203.0.113.7"


@dataclass(frozen=True)
class Outcome:
    """What becomes of it: Kong's own answer, or what the upstream gets."""

    status: int | None = None
    """Of Kong's own answer; None if the request goes on."""
    url: str | None = None
    headers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Of the request that goes on, or of the answer; names in lower case."""

    def header(self, name: str) -> str | None:
        """The one value of a header."""
        values = self.headers.get(name, ())
        assert len(values) <= 1, f"{name} occurs {len(values)} times"
        return values[0] if values else None


class _Exit(Exception):  # noqa: N818 not an error
    def __init__(self, status: int, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status)
        self.outcome = Outcome(status, headers={name: (value,) for name, value in (headers or {}).items()})


@dataclass(frozen=True)
class _Route:
    name: str
    path: str
    strip: bool
    service: Mapping[str, Any] | None
    plugins: Mapping[str, Mapping[str, Any]]

    @property
    def priority(self) -> tuple[int, int]:
        """Of routes with paths alone: regular expressions before prefixes, longer prefixes before shorter ones."""
        return (1, 0) if self.path.startswith("~") else (0, len(self.path))

    def matched(self, path: str) -> str | None:
        if not self.path.startswith("~"):
            return self.path if path.startswith(self.path) else None
        # Rust's $ is the end of the text, Python's may be a line break before it.
        found = re.match(self.path[1:].replace("$", r"\Z"), path)
        return found and found.group()


@dataclass
class _Exchange:
    """A request on its way."""

    request: Request
    headers: dict[str, list[str]]
    query: str
    host: str | None = None
    target: str | None = None
    """Set by a function, it is where the request goes whatever the service's URL says."""
    consumer: Mapping[str, Any] | None = None
    credential: object = None

    def get(self, name: str) -> str | None:
        return next(iter(self.headers.get(name.lower(), [])), None)

    def set(self, name: str, value: str) -> None:
        if name.lower() == "host":
            self.host = value
        self.headers[name.lower()] = [value]

    def clear(self, name: str) -> None:
        self.headers.pop(name.lower(), None)

    def arguments(self) -> dict[str, list[str | bool]]:
        """As ngx.req.get_uri_args: an argument without a value is true."""
        found: dict[str, list[str | bool]] = {}
        for part in filter(None, self.query.split("&")):
            name, separator, value = part.partition("=")
            found.setdefault(unquote_plus(name), []).append(unquote_plus(value) if separator else True)
        return found

    def clear_argument(self, name: str) -> None:
        pairs = parse_qsl(self.query, keep_blank_values=True)
        self.query = urlencode([pair for pair in pairs if pair[0] != name], safe="*")

    def authenticate(self, consumer: Mapping[str, Any], credential: object) -> None:
        self.consumer, self.credential = consumer, credential
        self.set("x-consumer-username", consumer["username"])
        if credential is None:
            self.set("x-anonymous-consumer", "true")
        else:
            self.set("x-credential-identifier", "an identifier")
            self.clear("x-anonymous-consumer")


class Gateway:
    """Kong with one configuration.

    Args:
        config: the declarative configuration with its secrets.
        body_limit: nginx's ``client_max_body_size`` in bytes.
        trusted: networks whose ``X-Forwarded-*`` count.
    """

    def __init__(self, config: Mapping[str, Any], *, body_limit: int, trusted: Iterable[str] = ()) -> None:
        assert config["_format_version"] == "3.0"
        _known(config, "_format_version", "consumers", "plugins", "services", "routes")
        self._body_limit = body_limit
        self._trusted = [ip_network(network) for network in trusted]
        self._globals = {plugin["name"]: plugin.get("config", {}) for plugin in config["plugins"]}
        self._routes = [*_routes(config)]
        self._consumers = {consumer["username"]: consumer for consumer in config["consumers"]}
        self._keys: dict[str, Mapping[str, Any]] = {}
        self._passwords: dict[str, tuple[str, Mapping[str, Any]]] = {}
        for consumer in config["consumers"]:
            _known(consumer, "username", "keyauth_credentials", "acls", "basicauth_credentials")
            for credential in consumer.get("keyauth_credentials", ()):
                assert credential["key"] not in self._keys
                self._keys[credential["key"]] = consumer
            for credential in consumer.get("basicauth_credentials", ()):
                self._passwords[credential["username"]] = (credential["password"], consumer)
        self._lua = lupa.LuaRuntime(unpack_returned_tuples=True)
        self._load = self._lua.execute(_SANDBOX)
        self._functions: dict[str, Callable[[], None]] = {}
        self._now: _Exchange
        self._pdk = self._make_pdk()

    def send(self, request: Request) -> Outcome:
        """What becomes of a request."""
        if request.body_bytes > self._body_limit and not request.chunked:
            return Outcome(413)
        headers: dict[str, list[str]] = {}
        for name, value in request.headers:
            headers.setdefault(name.lower(), []).append(value)
        path, _, query = request.target.partition("?")
        self._now = exchange = _Exchange(request, headers, query)
        try:
            for function in self._globals.get("pre-function", {}).get("rewrite", ()):
                self._run(function)
            route, matched, path = self._route(normalize(path))
            plugins = {**self._globals, **route.plugins}
            for name in sorted(plugins, key=lambda name: -PRIORITIES[name]):
                getattr(self, "_access_" + name.replace("-", "_"))(exchange, plugins[name])
        except _Exit as ended:
            return ended.outcome
        except lupa.LuaError:
            return Outcome(500)
        return self._upstream(exchange, route, matched, path)

    def _route(self, path: str) -> tuple[_Route, str, str]:
        found = [(route, matched) for route in self._routes if (matched := route.matched(path)) is not None]
        if not found:
            raise _Exit(404)
        best = max(route.priority for route, _ in found)
        first = [pair for pair in found if pair[0].priority == best]
        assert len(first) == 1, f"{path} is ambiguous: {[route.name for route, _ in first]}"
        return *first[0], path

    def _upstream(self, exchange: _Exchange, route: _Route, matched: str, path: str) -> Outcome:
        if route.service is None:
            return Outcome(503)
        base = urlsplit(route.service["url"])
        prefix = matched if route.strip else "/"
        target = "".join(
            character if character in _UNESCAPED else quote(character.encode("latin-1"), safe="")
            for character in upstream_path(
                base.path or "/", _without_dots(path[len(prefix) :]), path, strip=route.strip
            )
        )
        headers = {name: (*values,) for name, values in exchange.headers.items() if name not in _HOP_BY_HOP}
        believed = any(ip_address(exchange.request.address) in network for network in self._trusted)
        sent = {name: value for name, value in headers.items() if not name.startswith("x-forwarded-") or believed}
        forwarded = exchange.get("x-forwarded-for")
        sent["x-forwarded-for"] = (", ".join(filter(None, (forwarded, exchange.request.address))),)
        sent["x-real-ip"] = (exchange.request.address,)
        sent["host"] = (exchange.host or base.netloc,)
        query = f"?{exchange.query}" if exchange.query else ""
        return Outcome(url=f"{base.scheme}://{exchange.target or base.netloc}{target}{query}", headers=sent)

    def _access_pre_function(self, _exchange: _Exchange, config: Mapping[str, Any]) -> None:
        _known(config, "rewrite")

    def _access_prometheus(self, _exchange: _Exchange, _config: Mapping[str, Any]) -> None:
        pass

    def _access_cors(self, exchange: _Exchange, config: Mapping[str, Any]) -> None:
        _known(config, "origins", "methods", "max_age", "credentials")
        origin, method = exchange.get("origin"), exchange.get("access-control-request-method")
        if exchange.request.method != "OPTIONS" or not origin or not method:
            return
        assert not config["credentials"]
        answer = {"access-control-allow-methods": ",".join(config["methods"])}
        origins = config["origins"]
        if len(origins) == 1 or origin in origins:
            # A single one is named whoever asks; it is the browser that compares.
            answer["access-control-allow-origin"] = origins[0] if len(origins) == 1 else origin
        raise _Exit(200, answer)

    def _access_key_auth(self, exchange: _Exchange, config: Mapping[str, Any]) -> None:
        _known(config, "key_names", "key_in_query", "anonymous")
        consumer = None
        for name in config["key_names"]:
            values: list[str | bool] = [*exchange.headers.get(name, [])]
            if not values and config.get("key_in_query", True):
                values = exchange.arguments().get(name, [])
            if len(values) > 1:
                break
            if values and isinstance(values[0], str):
                consumer = self._keys.get(values[0])
                break
        if consumer is not None:
            exchange.authenticate(consumer, "a key")
        elif "anonymous" in config:
            exchange.authenticate(self._consumers[config["anonymous"]], None)
        else:
            raise _Exit(401)

    def _access_basic_auth(self, exchange: _Exchange, config: Mapping[str, Any]) -> None:
        _known(config, "hide_credentials", "realm")
        for name in ("proxy-authorization", "authorization"):
            found = re.search(r"\s*[Bb]asic\s*(.+)", exchange.get(name) or "")
            if config["hide_credentials"]:
                exchange.clear(name)
            try:
                pair = base64.b64decode(found[1], validate=True).decode("latin-1") if found else ""
            except binascii.Error:
                pair = ""
            username, _, password = pair.partition(":")
            if username in self._passwords:
                expected, consumer = self._passwords[username]
                if password == expected:
                    exchange.authenticate(consumer, "a password")
                    return
                break
        raise _Exit(401, {"www-authenticate": f'Basic realm="{config["realm"]}"'})

    def _access_ip_restriction(self, exchange: _Exchange, config: Mapping[str, Any]) -> None:
        _known(config, "allow")
        if not any(ip_address(exchange.request.address) in ip_network(network) for network in config["allow"]):
            raise _Exit(403)

    def _access_request_size_limiting(self, exchange: _Exchange, config: Mapping[str, Any]) -> None:
        assert config["size_unit"] == "megabytes"
        if exchange.request.body_bytes > config["allowed_payload_size"] * _MIB:
            raise _Exit(417 if exchange.get("expect") == "100-continue" else 413)

    def _access_acl(self, exchange: _Exchange, config: Mapping[str, Any]) -> None:
        _known(config, "allow", "hide_groups_header")
        groups = {entry["group"] for entry in (exchange.consumer or {}).get("acls", ())}
        if not groups & set(config["allow"]):
            raise _Exit(403 if exchange.credential else 401)

    def _access_request_termination(self, _exchange: _Exchange, config: Mapping[str, Any]) -> None:
        _known(config, "status_code", "message")
        raise _Exit(config["status_code"])

    def _access_post_function(self, _exchange: _Exchange, config: Mapping[str, Any]) -> None:
        _known(config, "access")
        for function in config["access"]:
            self._run(function)

    def _run(self, text: str) -> None:
        if text not in self._functions:
            self._functions[text] = self._load(text, self._pdk)
        self._functions[text]()

    def _make_pdk(self) -> Any:
        """The part of Kong's plugin development kit that the functions may call."""
        table = self._lua.table_from

        def consumer() -> Any:
            now = self._now.consumer
            return None if now is None else table({"username": now["username"]})

        def leave(status: int, _body: object = None) -> None:
            raise _Exit(status)

        def argument(name: str) -> str | bool | None:
            return next(iter(self._now.arguments().get(name, [])), None)

        def get(name: str) -> str | None:
            return self._now.get(name)

        def put(name: str, value: str) -> None:
            self._now.set(name, value)

        def clear(name: str) -> None:
            self._now.clear(name)

        def clear_argument(name: str) -> None:
            self._now.clear_argument(name)

        def target(host: str, port: int) -> None:
            self._now.target = f"{host}:{port}"

        upstream = {"set_header": put, "clear_header": clear, "clear_query_arg": clear_argument}
        return table(
            {
                "request": table({"get_header": get, "get_query_arg": argument}),
                "service": table({"request": table(upstream), "set_target": target}),
                "client": table({"get_consumer": consumer}),
                "response": table({"exit": leave}),
            }
        )


def normalize(path: str) -> str:
    """The path that the router sees: unreserved characters decoded, dot segments and double slashes gone."""

    def decode(found: re.Match[str]) -> str:
        character = chr(int(found[1], 16))
        return found[0].upper() if character in _RESERVED else character

    path = re.sub(r"%([0-9A-Fa-f]{2})", decode, path)
    done: list[str] = []
    for segment in re.findall(r"/[^/]*", path):
        if segment == "/..":
            del done[-1:]
        elif segment not in {"/", "/."}:
            done.append(segment)
    return "".join(done) + ("/" if path.endswith(("/", "/.", "/..")) else "") if done else "/"


def _without_dots(rest: str) -> str:
    if rest in {".", ".."}:
        return ""
    return rest.removeprefix("../") if rest.startswith("../") else rest.removeprefix("./")


def upstream_path(base: str, rest: str, path: str, *, strip: bool) -> str:
    """The path for the upstream, with ``path_handling: v0``."""
    if not strip:
        return base + path[1:] if base.endswith("/") else base if path == "/" else base + path
    if not rest:
        if base == "/":
            return base
        if base.endswith("/"):
            return base if path.endswith("/") else base[:-1]
        return base + ("/" if len(path) > 1 and path.endswith("/") else "")
    return base.rstrip("/") + "/" + rest.removeprefix("/")


def _routes(config: Mapping[str, Any]) -> Iterable[_Route]:
    names: set[str] = set()
    for service in config["services"]:
        _known(service, "name", "url", "routes", "plugins", "read_timeout")
        for route in service["routes"]:
            yield from _split(route, service, [*service["plugins"], *route.get("plugins", ())], names)
    for route in config["routes"]:
        yield from _split(route, None, route["plugins"], names)


def _split(
    route: Mapping[str, Any], service: Mapping[str, Any] | None, plugins: Iterable[Mapping[str, Any]], names: set[str]
) -> Iterable[_Route]:
    _known(route, "name", "paths", "strip_path", "preserve_host", "request_buffering", "plugins")
    assert not route.get("preserve_host", False)
    assert route["name"] not in names
    names.add(route["name"])
    configs = {plugin["name"]: plugin["config"] for plugin in plugins}
    for path in route["paths"]:
        assert path.startswith(("/", "~/"))
        yield _Route(route["name"], path, route.get("strip_path", True), service, configs)


def _known(given: Mapping[str, Any], *names: str) -> None:
    assert set(given) <= set(names), f"the model does not know {sorted(set(given) - set(names))}"
