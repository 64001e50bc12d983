"""Kong with the gateway's configuration, and requests to it."""

import base64
import json
import re
from typing import Any

from ruamel.yaml import YAML

from components.central.kong_config import (
    KongConfigArgs,
    KongUpstreams,
    kong_environment,
    kong_template,
)
from data_plane.local.kong import KongRules, Request

PUBLISHABLE = "sb_publishable_Zm9vYmFyYmF6cXV1eA_1a2b3c4d"


PUBLISHABLE_BEFORE = "sb_publishable_YmVmb3JlYmVmb3JlYmVmb3_9d8c7b6a"


SECRET = "sb_secret_c2VjcmV0c2VjcmV0c2Vj_5e6f7a8b"


ANON_KEY = "eyJhbGciOiJFUzI1NiJ9.eyJyb2xlIjoiYW5vbiJ9.anon-signature_x"


SERVICE_ROLE_KEY = "eyJhbGciOiJFUzI1NiJ9.eyJyb2xlIjoic2VydmljZV9yb2xlIn0.service-signature_x"


USER = "Bearer eyJhbGciOiJFUzI1NiJ9.eyJyb2xlIjoicHJval94X2F1dGhlbnRpY2F0ZWQifQ.sb_user"


SECRETS = {
    "SUPABASE_PUBLISHABLE_KEY": PUBLISHABLE,
    "SUPABASE_PUBLISHABLE_KEY_BEFORE": PUBLISHABLE_BEFORE,
    "SUPABASE_SECRET_KEY": SECRET,
    "ANON_KEY": ANON_KEY,
    "SERVICE_ROLE_KEY": SERVICE_ROLE_KEY,
    "DASHBOARD_USERNAME": "supabase",
    "DASHBOARD_PASSWORD": "0123456789",
}


MIB = 1 << 20


FULL = KongConfigArgs(
    upstreams=KongUpstreams(
        studio="http://supabase-studio:3000",
        meta="http://supabase-meta:8080",
        functions="http://supabase-functions:9000",
    )
)


def gateway(args: KongConfigArgs = FULL) -> KongRules:
    text = re.sub(r"\{\{ \.([A-Z_]+) \}\}", lambda found: SECRETS[found[1]], kong_template(args))
    config: dict[str, Any] = YAML(typ="safe").load(text)
    limit = kong_environment(args)["KONG_NGINX_HTTP_CLIENT_MAX_BODY_SIZE"]
    return KongRules(config, body_limit=int(limit.removesuffix("m")) * MIB, trusted=args.trusted_proxies)


KONG = gateway()


def key(value: str) -> tuple[tuple[str, str], ...]:
    return (("apikey", value),)


def bearer(value: str) -> tuple[tuple[str, str], ...]:
    return (("Authorization", f"Bearer {value}"),)


def user(value: str) -> tuple[tuple[str, str], ...]:
    """What it sends with one."""
    return (*key(value), ("Authorization", USER))


PUB, SEC = key(PUBLISHABLE), key(SECRET)


def get(target: str, headers: tuple[tuple[str, str], ...] = ()) -> Request:
    return Request("GET", target, headers)


def post(target: str, headers: tuple[tuple[str, str], ...] = (), size: int = 2, *, chunked: bool = False) -> Request:
    return Request("POST", target, headers, body_bytes=size, chunked=chunked)


def token_of(role: str, **claims: object) -> str:
    """As Auth signs one; what is around the role is the user's own words, too."""
    payload = json.dumps({"user_metadata": {"n": "ÿ?>~"}, "role": role, **claims}).encode()
    return f"eyJhbGciOiJFUzI1NiJ9.{base64.urlsafe_b64encode(payload).decode().rstrip('=')}.signature_-x"
