"""Kong's rules for a request, as far as the gateway's configuration (``components/central/kong_config.py``) uses them.

A request goes through nginx's limit on bodies, the rewrite phase, the router (flavour ``traditional_compatible``) and
the plugins' access phase, and comes out as a refusal or as the request that the upstream gets. The configuration's
functions are run as they are, in LuaJIT, as Kong does. A configuration that uses anything else is refused.

Sources, all of Kong/kong at 3.9.1: router/transform.lua (priorities), router/atc.lua and router/utils.lua (matching,
the upstream's path), tools/uri.lua (normalisation), runloop/handler.lua (Host, X-Forwarded-*),
plugins/<name>/handler.lua and access.lua (behaviour and PRIORITY), tools/kong-lua-sandbox.lua (what Lua functions may
use).
"""

import base64
import binascii
import json
import re
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network
from typing import Any
from urllib.parse import parse_qsl, quote, unquote_plus, urlencode, urlsplit

import lupa.luajit21 as lupa  # type: ignore[import-untyped]

from data_plane.errors import ServerError

__all__ = ["KongRules", "Outcome", "Request", "normalize"]

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
    body: str = ""
    """As far as a function reads it."""

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]


@dataclass(frozen=True)
class Outcome:
    """What becomes of it: Kong's own answer, or what the upstream gets."""

    status: int | None = None
    """Of Kong's own answer; None if the request goes on."""
    url: str | None = None
    headers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Of the request that goes on, or of the answer; names in lower case."""
    message: object = None
    """The body of Kong's own answer, as JSON."""
    answered_with: Mapping[str, str] = field(default_factory=dict)
    """Headers that the client's answer gets, be it Kong's or the upstream's."""

    def header(self, name: str) -> str | None:
        """The one value of a header.

        Raises:
            ValueError: if there are several.
        """
        values = self.headers.get(name, ())
        if len(values) > 1:
            raise ValueError(f"{name} occurs {len(values)} times")
        return values[0] if values else None


class _Exit(Exception):  # noqa: N818 not an error
    def __init__(self, status: int, message: object = None, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status)
        body = {"message": message} if isinstance(message, str) else message
        self.outcome = Outcome(
            status, headers={name: (value,) for name, value in (headers or {}).items()}, message=body
        )


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


class KongRules:
    """Kong with one configuration.

    Args:
        config: the declarative configuration with its secrets.
        body_limit: nginx's ``client_max_body_size`` in bytes.
        trusted: networks whose ``X-Forwarded-*`` count.

    Raises:
        ServerError: if the configuration has what is not known here.
    """

    def __init__(self, config: Mapping[str, Any], *, body_limit: int, trusted: Iterable[str] = ()) -> None:
        _expect(config["_format_version"] == "3.0", "_format_version is not 3.0")
        _known(config, "_format_version", "consumers", "plugins", "services", "routes")
        self.body_limit = body_limit
        self._trusted = [ip_network(network) for network in trusted]
        self._globals = {plugin["name"]: plugin.get("config", {}) for plugin in config["plugins"]}
        self._routes = [*_routes(config)]
        self._consumers = {consumer["username"]: consumer for consumer in config["consumers"]}
        self._keys: dict[str, Mapping[str, Any]] = {}
        self._passwords: dict[str, tuple[str, Mapping[str, Any]]] = {}
        for consumer in config["consumers"]:
            _known(consumer, "username", "keyauth_credentials", "acls", "basicauth_credentials")
            for credential in consumer.get("keyauth_credentials", ()):
                _expect(credential["key"] not in self._keys, "two consumers have one key")
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
        if request.body_bytes > self.body_limit and not request.chunked:
            return Outcome(413, message={"message": "Payload too large"})
        headers: dict[str, list[str]] = {}
        for name, value in request.headers:
            headers.setdefault(name.lower(), []).append(value)
        self._now = exchange = _Exchange(request, headers, request.target.partition("?")[2])
        shared: Mapping[str, str] = {}
        try:
            for function in self._globals.get("pre-function", {}).get("rewrite", ()):
                self._run(function)
            route, matched, path = self._route(normalize(request.path))
            plugins = {**self._globals, **route.plugins}
            if "cors" in plugins:
                shared = _shared_with(plugins["cors"]["origins"], exchange.get("origin"))
            for name in sorted(plugins, key=lambda name: -PRIORITIES[name]):
                getattr(self, "_access_" + name.replace("-", "_"))(exchange, plugins[name])
        except _Exit as ended:
            return replace(ended.outcome, answered_with=shared)
        except lupa.LuaError:
            return Outcome(500, message={"message": "An unexpected error occurred"}, answered_with=shared)
        return replace(self._upstream(exchange, route, matched, path), answered_with=shared)

    def reads_body(self, path: str) -> bool:
        """Whether Kong has a request's body before it sends it on: what limits it reads it, and so may a function."""
        try:
            route, _, _ = self._route(normalize(path))
        except _Exit:
            return False
        return "request-size-limiting" in route.plugins

    def _route(self, path: str) -> tuple[_Route, str, str]:
        found = [(route, matched) for route in self._routes if (matched := route.matched(path)) is not None]
        if not found:
            raise _Exit(404, "no Route matched with those values")
        best = max(route.priority for route, _ in found)
        first = [pair for pair in found if pair[0].priority == best]
        _expect(len(first) == 1, f"{path} is ambiguous: {[route.name for route, _ in first]}")
        return *first[0], path

    def _upstream(self, exchange: _Exchange, route: _Route, matched: str, path: str) -> Outcome:
        if route.service is None:
            return Outcome(503, message={"message": "no Service found with those values"})
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
        host, _, port = (exchange.get("host") or "").partition(":")
        for name, value in (
            ("proto", "http"),
            ("host", host),
            ("port", port or "80"),
            ("path", exchange.request.path),
            ("prefix", matched if route.strip and matched != "/" else ""),
        ):
            if value:
                sent.setdefault(f"x-forwarded-{name}", (value,))
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
        _expect(not config["credentials"], "cors has credentials")
        answer = {
            **_shared_with(config["origins"], origin),
            "access-control-allow-methods": ",".join(config["methods"]),
            "access-control-max-age": str(config["max_age"]),
        }
        asked = exchange.get("access-control-request-headers")
        raise _Exit(200, headers={**answer, **({"access-control-allow-headers": asked} if asked else {})})

    def _access_key_auth(self, exchange: _Exchange, config: Mapping[str, Any]) -> None:
        _known(config, "key_names", "key_in_query", "anonymous")
        consumer, seen = None, False
        for name in config["key_names"]:
            values: list[str | bool] = [*exchange.headers.get(name, [])]
            if not values and config.get("key_in_query", True):
                values = exchange.arguments().get(name, [])
            seen = seen or bool(values)
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
            raise _Exit(401, "Unauthorized" if seen else "No API key found in request", {"www-authenticate": "Key"})

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
        raise _Exit(401, "Unauthorized", {"www-authenticate": f'Basic realm="{config["realm"]}"'})

    def _access_ip_restriction(self, exchange: _Exchange, config: Mapping[str, Any]) -> None:
        _known(config, "allow")
        if not any(ip_address(exchange.request.address) in ip_network(network) for network in config["allow"]):
            raise _Exit(403, f"IP address not allowed: {exchange.request.address}")

    def _access_request_size_limiting(self, exchange: _Exchange, config: Mapping[str, Any]) -> None:
        _expect(config["size_unit"] == "megabytes", f"size_unit is {config['size_unit']}")
        if exchange.request.body_bytes > config["allowed_payload_size"] * _MIB:
            status = 417 if exchange.get("expect") == "100-continue" else 413
            raise _Exit(status, "Request size limit exceeded")

    def _access_acl(self, exchange: _Exchange, config: Mapping[str, Any]) -> None:
        _known(config, "allow", "hide_groups_header")
        groups = {entry["group"] for entry in (exchange.consumer or {}).get("acls", ())}
        if not groups & set(config["allow"]):
            refusal = (403, "You cannot consume this service") if exchange.credential else (401, "Unauthorized")
            raise _Exit(*refusal)

    def _access_request_termination(self, _exchange: _Exchange, config: Mapping[str, Any]) -> None:
        _known(config, "status_code", "message")
        raise _Exit(config["status_code"], config["message"])

    def _access_post_function(self, _exchange: _Exchange, config: Mapping[str, Any]) -> None:
        _known(config, "access")
        for function in config["access"]:
            self._run(function)

    def _run(self, text: str) -> None:
        if text not in self._functions:
            self._functions[text] = self._load(text, self._pdk)
        self._functions[text]()

    def _body(self, kind: str) -> Any:
        if kind != "application/json":
            raise ValueError(f"a body is read as {kind}")
        try:
            found = json.loads(self._now.request.body)
        except ValueError:
            return None
        # A list has numbers for keys, and what is neither is no table.
        return self._lua.table_from(found) if isinstance(found, dict | list) else found

    def _make_pdk(self) -> Any:
        """The part of Kong's plugin development kit that the functions may call."""
        table = self._lua.table_from

        def consumer() -> Any:
            now = self._now.consumer
            return None if now is None else table({"username": now["username"]})

        def leave(status: int, body: Any = None) -> None:
            raise _Exit(status, None if body is None else dict(body.items()))

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
                "request": table(
                    {
                        "get_header": get,
                        "get_query_arg": argument,
                        "get_method": lambda: self._now.request.method,
                        "get_body": self._body,
                    }
                ),
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
    _expect(not route.get("preserve_host", False), f"{route['name']} has preserve_host")
    _expect(route["name"] not in names, f"two routes are called {route['name']}")
    names.add(route["name"])
    configs = {plugin["name"]: plugin["config"] for plugin in plugins}
    for path in route["paths"]:
        _expect(path.startswith(("/", "~/")), f"{route['name']} has the path {path}")
        yield _Route(route["name"], path, route.get("strip_path", True), service, configs)


def _shared_with(origins: Sequence[str], origin: str | None) -> dict[str, str]:
    """The headers by which a page of another origin may read an answer."""
    if origin is None:
        return {}
    if list(origins) == ["*"]:
        return {"access-control-allow-origin": "*"}
    # A single one is named in every answer; the browser compares.
    allowed = origins[0] if len(origins) == 1 else origin if origin in origins else None
    return {"vary": "Origin", **({"access-control-allow-origin": allowed} if allowed else {})}


def _known(given: Mapping[str, Any], *names: str) -> None:
    _expect(set(given) <= set(names), f"it has {sorted(set(given) - set(names))}")


def _expect(holds: object, found: str) -> None:
    if not holds:
        raise ServerError(f"the gateway's configuration is not one that the local gateway knows: {found}")
