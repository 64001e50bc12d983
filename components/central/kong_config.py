"""Kong's declarative configuration: routes to the services, and the rules of each.

A client names itself with one of two keys in the header ``apikey``: the publishable one, which is public, and the
secret one, which stands for the platform itself. Behind Kong nobody knows these keys. A request that brings a token of
its own (``Authorization: Bearer`` with a JWT of OpenBao or Auth) keeps it; for any other Kong sets the internal token
that the key stands for: of the role ``anon``, or of ``service_role``.

What holds for every route:

- Refusal is the default. What no route names is answered with 404, or is the dashboard's where that is on.
- The secret key alone, which is in the group ``admin``, opens ``/pg/``, ``/auth/v1/admin`` and PostgREST's root, which
  describes all exposed schemas.
- A request for PostgREST goes to the one that its token names in the claim ``api_server``, or to the platform's own. It
  may name a schema in its profile only if it is the platform's, that of its token's tenant or one of the tenant's
  further ones in the claim ``schemas``: any other is answered as if there were none, since PostgREST's own answers name
  what else there is.
- A request for Realtime goes to the Realtime tenant of the project that its token names, or a socket's URL; else to the
  platform's own.
- The internal token of ``service_role`` is worth nothing to a client: where it is sent in place of a user's token, it
  counts as no token.
- Keys are accepted in the header only. A URL ends up in logs and histories; Realtime's is the exception, because a
  browser can set no header on a WebSocket.
- Headers by which Kong itself speaks to the services are removed from what a client sends.
- A rule that fails to run ends the request: Kong answers 500 when a plugin raises an error.

The work is done by ``key-auth`` (which key), ``acl`` (which group) and Lua in ``post-function``, which runs after them
and acts on the consumer they found. Supabase's own file compares keys in templates of ``request-transformer`` instead:
these fail on a repeated header, see only the first 100 headers, and need every key in the text a second time.

Facts about routes: docker/volumes/api/kong.yml of supabase/supabase. Facts about Kong: its sources at 3.9.1, of which
the files are named where they matter.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from ipaddress import ip_network
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import DoubleQuotedScalarString, LiteralScalarString

from components.central.rest import BASE_SCHEMAS

__all__ = [
    "KONG_FILE",
    "KONG_FOLDER",
    "KONG_PREFIX",
    "KongConfigArgs",
    "KongUpstreams",
    "kong_config",
    "kong_environment",
    "kong_secret_keys",
    "kong_template",
]

KONG_PREFIX = "/run/kong"
"""The folder Kong writes to: its nginx.conf, sockets, request bodies on their way, and the LMDB copy of its routes."""
KONG_FOLDER = "/etc/kong/declarative"
"""Where the Secret with the configuration is mounted."""
KONG_FILE = "kong.yml"
"""The Secret's entry that holds it."""

_ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?")
_URL = re.compile(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?")
_API_SERVER = re.compile(r"(cell|proj)_[a-z0-9_]+")
_SECRET_FIELD = re.compile(r"\{\{ \.[A-Z_]+ \}\}")
_PREFLIGHT_SECONDS = 3600
_FUNCTION_MILLISECONDS = 150_000
"""How long an Edge Function may be silent; Supabase's file has the same."""

_ANON, _ADMIN = "anon", "admin"
"""Groups: holders of the publishable key and of the secret one."""
_KEYLESS = "keyless"
"""Who comes without a valid key where none is needed."""

_OPEN_AUTH = ("verify", "callback", "authorize", ".well-known/jwks.json", ".well-known/openid-configuration")
"""What browsers, mail clients, identity providers and verifiers of tokens open without a key."""

_NOT_FOR_CLIENTS = (
    # How Kong tells Realtime and the functions which key it saw.
    "x-api-key",
    "sb-api-key",
    # Whom Kong found, set by its own plugins.
    "x-consumer-id",
    "x-consumer-username",
    "x-consumer-custom-id",
    "x-consumer-groups",
    "x-credential-identifier",
    "x-anonymous-consumer",
    # Where a request comes from. Kong adds to a client's X-Forwarded-For instead of replacing it (runloop/handler.lua);
    # without one it sends the one address that it believes. Auth's rate limits and Storage's signatures read the
    # others.
    "x-forwarded-for",
    "forwarded",
    "sb-forwarded-for",
)


@dataclass(frozen=True)
class KongUpstreams:
    """Base URLs of the services, without a path. ``None`` stands for a service that is not there: it gets no route."""

    auth: str = "http://supabase-auth:9999"
    rest: str = "http://supabase-rest:3000"
    realtime: str = "http://supabase-realtime:4000"
    storage: str = "http://supabase-storage:5000"
    studio: str | None = None
    """The dashboard, which takes every path that is no other service's, behind a password."""
    meta: str | None = None
    """postgres-meta, for holders of the secret key. Studio reaches it without Kong."""
    functions: str | None = None


@dataclass(frozen=True)
class KongConfigArgs:
    """Arguments of :func:`kong_config`.

    Raises:
        ValueError: if a value does not fit where it is put.
    """

    upstreams: KongUpstreams = KongUpstreams()
    api_servers: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    """Host and port of each PostgREST that serves tenants, by its name."""
    cors_origins: tuple[str, ...] = ("*",)
    """Origins whose pages may use the API, e.g. ``https://app.example.org``; none: no page of another origin may.

    ``*`` is safe, because credentials are never allowed: a browser adds neither a key nor a token by itself, so a
    foreign page can do no more than any program that knows the publishable key. And it is usable: the origins of the
    tenants' applications are not known here.
    """
    api_body_mib: int = 10
    """MiB of a request's body, uploads apart; Auth itself stops at 1."""
    upload_mib: int = 50
    """MiB of a file for Storage. The default is ``FILE_SIZE_LIMIT`` of Supabase's compose file."""
    realtime_tenant: str = "realtime-dev"
    """Realtime's tenant for what is no project's, ``SELF_HOST_TENANT_NAME`` there."""
    operator_sources: tuple[str, ...] = ()
    """Networks (CIDR) from which the dashboard and ``/pg/`` may be used; all if empty."""
    trusted_proxies: tuple[str, ...] = ()
    """Networks (CIDR) of the proxies in front, whose ``X-Forwarded-*`` tell the truth."""
    worker_processes: int = 2
    """nginx's workers; by itself it would start one for each of the node's cores."""

    def __post_init__(self) -> None:
        upstreams = self.upstreams
        urls = (upstreams.auth, upstreams.rest, upstreams.realtime, upstreams.storage)
        for url in (*urls, *filter(None, (upstreams.studio, upstreams.meta, upstreams.functions))):
            _check(_URL.fullmatch(url), url, "an http(s) URL without a path")
        for server, (host, port) in self.api_servers.items():
            _check(_API_SERVER.fullmatch(server), server, "the name of an API server")
            _check(_URL.fullmatch(f"http://{host}:{port}"), f"{host}:{port}", "a host and a port")
        if self.cors_origins != ("*",):
            for origin in self.cors_origins:
                _check(_ORIGIN.fullmatch(origin), origin, 'an origin such as https://app.example.org, or "*" alone')
        _check(_LABEL.fullmatch(self.realtime_tenant), self.realtime_tenant, "one label of a host name")
        for number in (self.api_body_mib, self.upload_mib, self.worker_processes):
            _check(number > 0, number, "at least 1")
        for network in (*self.operator_sources, *self.trusted_proxies):
            ip_network(network, strict=False)


def _check(holds: object, found: object, expected: str) -> None:
    if not holds:
        raise ValueError(f"found {found!r}; expected {expected}")


# Lua for post-function. Each text is one step; a route's function is several of them in a row. Kong's sandbox gives
# them the PDK as `kong` and Lua's harmless functions (plugins/pre-function/_handler.lua).

_FORGET_KEY = """\
kong.service.request.clear_header("apikey")
if kong.request.get_query_arg("apikey") then
  kong.service.request.clear_query_arg("apikey")
end
"""
# Only if it is there: removing one argument rewrites the whole query string, which S3's signatures cover.

_FORGET_AUTHORIZATION = """\
kong.service.request.clear_header("authorization")
"""

_WHO = """\
local tokens = {anon = "{{ .ANON_KEY }}", service_role = "{{ .SERVICE_ROLE_KEY }}"}
local token = tokens[kong.client.get_consumer().username]
local authorization = kong.request.get_header("authorization") or ""
local credential = authorization:match("(%S*)%s*$")
local no_user = credential:find("^sb_") ~= nil or credential == tokens.service_role
"""

_REFUSE_UNKNOWN_KEY = """\
if not token and (no_user or kong.request.get_header("apikey")) then
  return kong.response.exit(401, {message = "Unauthorized"})
end
"""
# Where a key is not needed, one that is wrong is still refused: its sender believes to be somebody.

_SET_AUTHORIZATION = """\
if token and (no_user or authorization == "") then
  authorization = "Bearer " .. token
end
if authorization == "" then
  kong.service.request.clear_header("authorization")
else
  kong.service.request.set_header("authorization", authorization)
end
"""
# Set even if unchanged, so that of a repeated header only the checked value is passed on.

_KEEP_AUTHORIZATION = """\
if no_user or authorization == "" then
  kong.service.request.clear_header("authorization")
else
  kong.service.request.set_header("authorization", authorization)
end
"""

# Auth keeps the user agent of the request that begins a session, and no other word of it; data_plane.tenant_of_session
# reads the project there. What is no project's name is written all the same: the session is then for none.
_PROJECT = """\
local project = kong.request.get_header("x-data-plane-project")
kong.service.request.clear_header("x-data-plane-project")
"""

# A link for a forgotten password begins a session for no project, in which a new one can be set.
_PROJECT_UNLESS_RECOVERY = (
    _PROJECT
    + """\
local kind = kong.request.get_query_arg("type")
if kong.request.get_method() == "POST" then
  local body = kong.request.get_body("application/json")
  kind = type(body) == "table" and body.type or kind
end
if kind == "recovery" then
  project = "-"
end
"""
)

_NAME_PROJECT = """\
if project then
  local agent = kong.request.get_header("user-agent") or ""
  local product = " data-plane-project/" .. project:gsub("[^%w-]", "_"):sub(1, 64)
  kong.service.request.set_header("user-agent", agent .. product)
end
"""

# The claims of a token, unverified: what is decided by them is verified by who gets the request.
_DECODE_CLAIMS = """\
local digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
local claims, value, bits = {}, 0, 0
for digit in (authorization:match("^%S+%s+[%w_-]+%.([%w_-]+)%.") or ""):gmatch(".") do
  value = value * 64 + digits:find(digit, 1, true) - 1
  bits = bits + 6
  if bits >= 8 then
    bits = bits - 8
    claims[#claims + 1] = string.char(math.floor(value / 2 ^ bits))
    value = value % 2 ^ bits
  end
end
"""

# A project sees its users' tokens: PostgREST shows a request's headers to its SQL. With one, Auth would take a new
# password or address, by which the user's other projects are had. So an account is changed with a token for no project.
# What is allowed in a body is listed, because Auth reads its keys in any case and by more than one spelling.
# So is one of a session that was for a project of which the user is no member any more (access_token_hook).
_OF_PROJECT = """\
local known = table.concat(claims)
local harmless = known:find('"role"%s*:%s*"proj_') == nil and known:find('"session_project"%s*:') == nil
"""

_MAY_READ_AND_DESCRIBE = """\
local method = kong.request.get_method()
if not harmless and method == "PUT" then
  local allowed = {data = true, code_challenge = true, code_challenge_method = true}
  local body = kong.request.get_body("application/json")
  harmless = type(body) == "table"
  for key in pairs(harmless and body or {}) do
    harmless = harmless and allowed[key] == true
  end
elseif method == "GET" or method == "HEAD" then
  harmless = true
end
"""

_MAY_POST = """\
harmless = harmless or kong.request.get_method() == "POST"
"""

_REFUSE_PROJECTS = """\
if not harmless then
  return kong.response.exit(403, {message = "A token for a project changes no account: sign in for none"})
end
"""

# Where else Auth acts for the user of a token, only reading is done with one that a project has seen; what no route of
# its own allows goes on as if it had not been sent. (The grant `id_token` would link anybody's identity to that user.)
_FORGET_PROJECTS = """\
local method = kong.request.get_method()
if not harmless and method ~= "GET" and method ~= "HEAD" then
  kong.service.request.set_header("authorization", "Bearer " .. token)
end
"""

# PostgREST verifies the token. This only finds the one that would believe it: with claims that somebody made up, a
# request gets to a PostgREST that refuses it. Only claims at the top count: what users say of themselves is in objects
# inside, which are cut out once strings have no quotation mark and no brace in them any more.
_READ_CLAIMS = """\
local text = table.concat(claims):gsub("\\\\.", ""):gsub('"[^"]*"', function(found)
  return (found:gsub("[{}]", ""))
end)
local own = (text:match("^%s*{(.*)}%s*$") or ""):gsub("%b{}", "")
local role = own:match('"role"%s*:%s*"([a-z0-9_]+)"') or ""
local tenant = role:match("^(proj_[a-z0-9_]+)_anon$") or role:match("^(proj_[a-z0-9_]+)_authenticated$")
  or role:match("^(proj_[a-z0-9_]+)_service_role$")
"""

_FIND_REST = """\
local upstreams = {%s}
local upstream = upstreams[own:match('"api_server"%%s*:%%s*"([a-z0-9_]+)"')]
if upstream then
  kong.service.set_target(upstream[1], upstream[2])
end
"""

_REFUSE_OTHERS_SCHEMAS = """\
local common = {%s}
local served = {}
for further in (own:match('"schemas"%%s*:%%s*"([a-z0-9_,]*)"') or ""):gmatch("[^,]+") do
  served[(tenant or "") .. "$" .. further] = tenant
end
for _, name in ipairs({"accept-profile", "content-profile"}) do
  local profile = kong.request.get_header(name)
  if profile and not common[profile] and profile ~= tenant and not served[profile] then
    return kong.response.exit(406, {code = "PGRST106", message = "Invalid schema: " .. profile})
  end
  if profile then
    kong.service.request.set_header(name, profile)
  end
end
"""
# Also for a name of nothing, PostgREST names all that it serves. Set again for the same reason as `authorization`.


# Realtime's tenant is the first label of the Host it is called by (lib/realtime/database.ex, get_external_id), and Kong
# would call it by the name of its Kubernetes Service. Set by a plugin, it is kept (runloop/handler.lua). A project's is
# its schema: that of the request's token, which Realtime verifies. Any other request is for the platform's own.
_SET_REALTIME_TENANT = """\
kong.service.request.set_header("host", tenant or "%s")
"""

# A browser sends a user's token only when the socket is open, so it says in the URL which project it is for. Who names
# another's gets a socket in which nothing can be joined without a token of that project. What Realtime is told of the
# key is seen by the project's own rules, so for a project it is never more than anybody's.
_FIND_REALTIME_PROJECT = """\
local named = kong.request.get_query_arg("project")
local of_token = tenant
if named then
  local wanted = type(named) == "string" and #named <= 40 and named:match("^[a-z][a-z0-9-]*[a-z0-9]$")
  tenant = wanted and "proj_" .. wanted:gsub("%-", "_")
  if not tenant or of_token and of_token ~= tenant then
    return kong.response.exit(403, {message = "No such project, or the token is not for it"})
  end
  token = tokens.anon
end
if of_token then
  token = credential
end
"""


@dataclass(frozen=True)
class _Service:
    """One upstream under one set of rules.

    ``paths`` as in Kong: a plain one is a prefix, one that starts with ``~`` a regular expression that has to match
    from the start. What they match is replaced by the path of ``url``.
    """

    name: str
    url: str
    paths: tuple[str, ...]
    plugins: tuple[Mapping[str, Any], ...]
    service_options: Mapping[str, Any] = field(default_factory=dict)
    route_options: Mapping[str, Any] = field(default_factory=dict)

    def declared(self) -> dict[str, Any]:
        route = {"name": self.name, "paths": [*self.paths], "strip_path": True, "preserve_host": False}
        return {
            "name": self.name,
            "url": self.url,
            **self.service_options,
            "routes": [{**route, **self.route_options}],
            "plugins": [dict(plugin) for plugin in self.plugins],
        }


def kong_config(args: KongConfigArgs) -> dict[str, Any]:
    """Kong's declarative configuration for 3.9, in which fields such as ``{{ .ANON_KEY }}`` stand for secrets."""
    upstreams = args.upstreams
    services = [
        *_auth(args),
        *_rest(args),
        *_realtime(args),
        _storage(args),
    ]
    blocked = {"realtime-private": "/realtime/v1/api"}
    if upstreams.functions is not None:
        services.append(_functions(upstreams.functions, args))
    if upstreams.meta is not None:
        services.append(_meta(upstreams.meta, args))
    if upstreams.studio is not None:
        services.append(_studio(upstreams.studio, args))
        # Studio's MCP server acts with the platform's own rights and asks nobody who they are.
        blocked |= {"studio-mcp": "/mcp", "studio-api-mcp": "/api/mcp"}
    return {
        "_format_version": "3.0",
        "consumers": _consumers(args),
        "plugins": [
            {
                "name": "pre-function",
                # Before Kong works out X-Forwarded-For, which it does at the start of the access phase.
                "config": {"rewrite": ["".join(_forget(name) for name in _NOT_FOR_CLIENTS)]},
            },
            {"name": "prometheus", "config": {"status_code_metrics": True, "latency_metrics": True}},
        ],
        "services": [service.declared() for service in services],
        "routes": [_blocked(name, path) for name, path in blocked.items()],
    }


def kong_template(args: KongConfigArgs) -> str:
    """The configuration as the text of an External Secrets template (``engineVersion: v2``).

    Every secret stands between quotation marks; values of letters, digits, ``_``, ``.`` and ``-`` can end neither these
    nor the line.

    Raises:
        ValueError: if anything but a secret's field could be taken for an action of the template.
    """
    yaml = YAML()
    yaml.width = 1 << 20
    text = StringIO()
    yaml.dump(_scalars(kong_config(args)), text)
    rest = _SECRET_FIELD.sub("", text.getvalue())
    _check("{{" not in rest and "}}" not in rest, "braces", "no template action but the secrets' fields")
    return text.getvalue()


def kong_secret_keys(template: str) -> tuple[str, ...]:
    """The keys of ``connectors/supabase`` that a template has fields for."""
    return tuple(sorted({found[4:-3] for found in _SECRET_FIELD.findall(template)}))


def kong_environment(args: KongConfigArgs) -> dict[str, str]:
    """The variables that Kong needs beside its configuration file.

    Names are those of kong.conf.default with ``KONG_`` before them. Taken from Supabase's compose file: the order of
    DNS record types, how long a name may be unknown, and nginx's buffers, which Auth's large headers need. Otherwise:

    - the listeners: the Admin API and Kong Manager are off, the status API is on port 8100 with ``/status``,
      ``/status/ready`` and ``/metrics``;
    - ``KONG_PLUGINS`` loads what the configuration uses and no more;
    - ``KONG_UNTRUSTED_LUA``: the functions need nothing that the sandbox keeps from them;
    - the access log names no query string, which on Realtime's URL holds a key;
    - ``KONG_LMDB_MAP_SIZE``: 2 GiB by default, for a copy of some 100 KiB;
    - ``KONG_NGINX_HTTP_CLIENT_MAX_BODY_SIZE`` bounds uploads; one MiB more than the file, for the form around it.
    """
    config = kong_config(args)
    plugins = {plugin["name"] for plugin in _all_plugins(config)}
    variables = {
        "KONG_DATABASE": "off",
        "KONG_DECLARATIVE_CONFIG": f"{KONG_FOLDER}/{KONG_FILE}",
        "KONG_PREFIX": KONG_PREFIX,
        "KONG_PLUGINS": ",".join(sorted(plugins)),
        "KONG_ROUTER_FLAVOR": "traditional_compatible",
        "KONG_UNTRUSTED_LUA": "sandbox",
        "KONG_PROXY_LISTEN": "0.0.0.0:8000 reuseport backlog=16384",
        "KONG_STATUS_LISTEN": "0.0.0.0:8100",
        "KONG_ADMIN_LISTEN": "off",
        "KONG_ADMIN_GUI_LISTEN": "off",
        "KONG_DNS_ORDER": "LAST,A,CNAME",
        "KONG_DNS_NOT_FOUND_TTL": "1",
        "KONG_NGINX_WORKER_PROCESSES": str(args.worker_processes),
        "KONG_NGINX_PROXY_PROXY_BUFFER_SIZE": "160k",
        "KONG_NGINX_PROXY_PROXY_BUFFERS": "64 160k",
        "KONG_NGINX_HTTP_CLIENT_MAX_BODY_SIZE": f"{max(args.upload_mib + 1, args.api_body_mib)}m",
        "KONG_LMDB_MAP_SIZE": "128m",
        "KONG_HEADERS": "X-Kong-Request-Id",
        "KONG_ERROR_DEFAULT_TYPE": "application/json",
        "KONG_ANONYMOUS_REPORTS": "off",
        "KONG_LOG_LEVEL": "notice",
        "KONG_NGINX_HTTP_LOG_FORMAT": (
            'gateway \'$remote_addr [$time_iso8601] "$request_method $uri $server_protocol" $status'
            " $body_bytes_sent $request_time $kong_request_id'"
        ),
        "KONG_PROXY_ACCESS_LOG": "/dev/stdout gateway",
        "KONG_PROXY_ERROR_LOG": "/dev/stderr",
        "KONG_STATUS_ACCESS_LOG": "off",
        "KONG_STATUS_ERROR_LOG": "/dev/stderr",
    }
    if args.trusted_proxies:
        variables |= {
            "KONG_TRUSTED_IPS": ",".join(args.trusted_proxies),
            "KONG_REAL_IP_HEADER": "X-Forwarded-For",
            "KONG_REAL_IP_RECURSIVE": "on",
        }
    return variables


def _auth(args: KongConfigArgs) -> Iterable[_Service]:
    base = args.upstreams.auth
    leave = (_FORGET_KEY, _FORGET_AUTHORIZATION, _PROJECT, _NAME_PROJECT)
    for path in _OPEN_AUTH:
        name = "auth-open-" + re.sub(r"[^a-z]+", "-", path).strip("-")
        steps = (*leave[:2], _PROJECT_UNLESS_RECOVERY, _NAME_PROJECT) if path == "verify" else leave
        yield _Service(
            name, f"{base}/{path}", ("~/auth/v1/" + path.replace(".", r"\.") + "$",), _plugins(args, lua=steps)
        )
    for path in ("acs", "metadata"):
        # Where Auth expects them depends on whether its external URL ends in /auth/v1.
        paths = (f"~/(?:auth/v1/)?sso/saml/{path}$",)
        yield _Service(f"auth-open-saml-{path}", f"{base}/sso/saml/{path}", paths, _plugins(args, lua=leave))
    yield _Service(
        "auth-open-oauth-metadata",
        f"{base}/.well-known/oauth-authorization-server",
        # RFC 8414 puts the path of the issuer behind, and Auth is at /auth/v1.
        (
            r"~/\.well-known/oauth-authorization-server(?:/auth/v1)?$",
            r"~/auth/v1/\.well-known/oauth-authorization-server$",
        ),
        _plugins(args, lua=leave),
    )
    keyed = (_WHO, _SET_AUTHORIZATION, _FORGET_KEY, _PROJECT, _NAME_PROJECT)
    everyone = (_ANON, _ADMIN)
    judged = (*keyed, _DECODE_CLAIMS, _OF_PROJECT)
    for path, routed, but in (
        ("user", "/auth/v1/user", (_MAY_READ_AND_DESCRIBE,)),
        ("user/", "/auth/v1/user/", ()),
        ("passkeys", "/auth/v1/passkeys", ()),
        ("oauth/authorizations", "/auth/v1/oauth/authorizations", ()),
        # A new factor is the account's; one that is there is used (challenge, verify) in any session.
        ("factors", "~/auth/v1/factors/?$", ()),
        ("factors/", "/auth/v1/factors/", (_MAY_POST,)),
        ("logout", "/auth/v1/logout", (_MAY_POST,)),
    ):
        name = "auth-account-" + path.replace("/", "-")
        lua = (*judged, *but, _REFUSE_PROJECTS)
        yield _Service(name, f"{base}/{path}", (routed,), _plugins(args, groups=everyone, lua=lua))
    yield _Service("auth-admin", f"{base}/admin", ("/auth/v1/admin",), _plugins(args, groups=(_ADMIN,), lua=keyed))
    lua = (*judged, _FORGET_PROJECTS)
    yield _Service("auth", f"{base}/", ("/auth/v1/",), _plugins(args, groups=everyone, lua=lua))


def _rest(args: KongConfigArgs) -> Iterable[_Service]:
    base = args.upstreams.rest
    # Line by line, so that no two braces stand together: these are the template's.
    known = (f'  {server} = {{"{host}", {port}}},\n' for server, (host, port) in sorted(args.api_servers.items()))
    found = (_DECODE_CLAIMS, _READ_CLAIMS, _FIND_REST % ("\n" + "".join(known)))
    keyed = (_WHO, _SET_AUTHORIZATION, _FORGET_KEY, *found)
    served = (*keyed, _REFUSE_OTHERS_SCHEMAS % ", ".join(f"{schema} = true" for schema in BASE_SCHEMAS))
    everyone = (_ANON, _ADMIN)
    yield _Service("rest-root", f"{base}/", ("~/rest/v1/$",), _plugins(args, groups=(_ADMIN,), lua=served))
    yield _Service("rest", f"{base}/", ("/rest/v1/",), _plugins(args, groups=everyone, lua=served))
    # PostgREST reads the schema from the one header or the other, by the method.
    profile = (_set("content-profile", "graphql_public"), _set("accept-profile", "graphql_public"))
    yield _Service(
        "graphql",
        f"{base}/rpc/graphql",
        ("~/graphql/v1$",),
        _plugins(args, groups=everyone, lua=(*keyed, *profile)),
    )


def _realtime(args: KongConfigArgs) -> Iterable[_Service]:
    base = args.upstreams.realtime
    everyone = (_ANON, _ADMIN)
    found = (_DECODE_CLAIMS, _READ_CLAIMS)
    host = _SET_REALTIME_TENANT % args.realtime_tenant
    yield _Service(
        "realtime-socket",
        f"{base}/socket/",
        ("/realtime/v1/",),
        _plugins(
            args,
            groups=everyone,
            key_in_query=True,
            limited=False,
            # Of a WebSocket's headers Realtime sees only those that start with x-; this one goes before its `apikey`.
            lua=(
                *(_WHO, *found, _FIND_REALTIME_PROJECT),
                *(_set_token("x-api-key"), _FORGET_AUTHORIZATION, _FORGET_KEY, host),
            ),
        ),
    )
    for path in ("broadcast", "ping"):
        # The rest of Realtime's API manages its tenants, or describes it: see `blocked`.
        yield _Service(
            f"realtime-{path}",
            f"{base}/api/{path}",
            (f"/realtime/v1/api/{path}",),
            _plugins(args, groups=everyone, lua=(_WHO, _SET_AUTHORIZATION, _FORGET_KEY, *found, host)),
        )


def _storage(args: KongConfigArgs) -> _Service:
    return _Service(
        "storage",
        f"{args.upstreams.storage}/",
        ("/storage/v1/",),
        # S3's clients sign instead of sending a key, and public and signed URLs have none: what comes without a key
        # goes on as it is, without any rights.
        _plugins(
            args,
            keyless=True,
            # The plugin would read the whole of a body that does not tell its length; nginx's own limit holds here.
            limited=False,
            lua=(_WHO, _REFUSE_UNKNOWN_KEY, _SET_AUTHORIZATION, _FORGET_KEY),
        ),
        # Uploads go through as they come, not by way of Kong's disk.
        route_options={"request_buffering": False},
    )


def _functions(base: str, args: KongConfigArgs) -> _Service:
    return _Service(
        "functions",
        f"{base}/",
        ("/functions/v1/",),
        # Callers of a webhook have no key. The function's own check of the token is the runtime's business.
        _plugins(
            args,
            keyless=True,
            lua=(
                _WHO,
                _REFUSE_UNKNOWN_KEY,
                _set_token("sb-api-key"),
                _KEEP_AUTHORIZATION,
                _FORGET_KEY,
            ),
        ),
        service_options={"read_timeout": _FUNCTION_MILLISECONDS},
    )


def _meta(base: str, args: KongConfigArgs) -> _Service:
    plugins = _plugins(args, groups=(_ADMIN,), cors=False, lua=(_FORGET_AUTHORIZATION, _FORGET_KEY))
    return _Service("meta", f"{base}/", ("/pg/",), (*plugins, *_for_operators(args)))


def _studio(base: str, args: KongConfigArgs) -> _Service:
    password = {"name": "basic-auth", "config": {"hide_credentials": True, "realm": "dashboard"}}
    plugins = _plugins(args, cors=False, lua=(_FORGET_AUTHORIZATION, _FORGET_KEY))
    return _Service("studio", f"{base}/", ("/",), (*plugins, password, *_for_operators(args)))


def _plugins(
    args: KongConfigArgs,
    *,
    groups: Sequence[str] = (),
    keyless: bool = False,
    key_in_query: bool = False,
    cors: bool = True,
    limited: bool = True,
    lua: Sequence[str] = (),
) -> tuple[Mapping[str, Any], ...]:
    """The plugins of a service.

    Args:
        args: the configuration's.
        groups: whose key is asked for; none is if empty.
        keyless: whether a key is looked at, but not asked for.
        key_in_query: whether the key may be in the URL.
        cors: whether pages of other origins may use it.
        limited: whether the API's limit on bodies holds.
        lua: the steps of its function.
    """
    plugins: list[Mapping[str, Any]] = []
    if cors and args.cors_origins:
        methods = ["GET", "HEAD", "PUT", "PATCH", "POST", "DELETE", "OPTIONS"]
        config = {"origins": [*args.cors_origins], "methods": methods, "max_age": _PREFLIGHT_SECONDS}
        plugins.append({"name": "cors", "config": {**config, "credentials": False}})
    if groups or keyless:
        keys: dict[str, Any] = {"key_names": ["apikey"], "key_in_query": key_in_query}
        plugins.append({"name": "key-auth", "config": {**keys, **({"anonymous": _KEYLESS} if keyless else {})}})
    if groups:
        plugins.append({"name": "acl", "config": {"allow": [*groups], "hide_groups_header": True}})
    if limited:
        size = {"allowed_payload_size": args.api_body_mib, "size_unit": "megabytes"}
        plugins.append({"name": "request-size-limiting", "config": size})
    if lua:
        plugins.append({"name": "post-function", "config": {"access": ["".join(lua)]}})
    return tuple(plugins)


def _for_operators(args: KongConfigArgs) -> tuple[Mapping[str, Any], ...]:
    if not args.operator_sources:
        return ()
    return ({"name": "ip-restriction", "config": {"allow": [*args.operator_sources]}},)


def _consumers(args: KongConfigArgs) -> list[dict[str, Any]]:
    consumers: list[dict[str, Any]] = [
        {
            "username": "anon",
            # The last one, too: clients take the new key when they are next deployed.
            "keyauth_credentials": [
                {"key": "{{ .SUPABASE_PUBLISHABLE_KEY }}"},
                {"key": "{{ .SUPABASE_PUBLISHABLE_KEY_BEFORE }}"},
            ],
            "acls": [{"group": _ANON}],
        },
        {
            "username": "service_role",
            "keyauth_credentials": [{"key": "{{ .SUPABASE_SECRET_KEY }}"}],
            "acls": [{"group": _ADMIN}],
        },
        {"username": _KEYLESS},
    ]
    if args.upstreams.studio is not None:
        credential = {"username": "{{ .DASHBOARD_USERNAME }}", "password": "{{ .DASHBOARD_PASSWORD }}"}
        consumers.append({"username": "dashboard", "basicauth_credentials": [credential]})
    return consumers


def _blocked(name: str, path: str) -> dict[str, Any]:
    refuse = {"name": "request-termination", "config": {"status_code": 403, "message": "Forbidden"}}
    return {"name": name, "paths": [path], "plugins": [refuse]}


def _set(name: str, value: str) -> str:
    return f'kong.service.request.set_header("{name}", "{value}")\n'


def _forget(name: str) -> str:
    return f'kong.service.request.clear_header("{name}")\n'


def _set_token(name: str) -> str:
    return f'if token then\n  kong.service.request.set_header("{name}", token)\nend\n'


def _all_plugins(config: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    yield from config["plugins"]
    for owner in (*config["services"], *config["routes"]):
        yield from owner["plugins"]


def _scalars(value: Any) -> Any:
    """The same value with strings that ruamel writes as the template needs them."""
    match value:
        case dict():
            return {key: _scalars(item) for key, item in value.items()}
        case list():
            return [_scalars(item) for item in value]
        case str() if "\n" in value:
            return LiteralScalarString(value)
        case str() if "{{" in value:
            return DoubleQuotedScalarString(value)
        case _:
            return value
